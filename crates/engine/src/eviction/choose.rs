//! From scores to the slots that stay: pure functions of numbers, ties to the lower position.

use crate::cache::{Compress, Pooling, Split};

/// One lane of a layer when its prompt is in: slots in the order of their positions.
pub(crate) struct Lane<'a> {
    /// What each slot is worth; those of the pinned prefix and of the window are not looked at.
    pub scores: &'a [f32], // (len)
}

/// Mean or maximum over `kernel` neighbours, the middle one included; beyond the ends are zeros, which count for the
/// mean and not for the maximum (SnapKV's `avg_pool1d` and `max_pool1d`, stride 1, padding kernel / 2).
pub(crate) fn pool(scores: &[f32], kernel: usize, pooling: Pooling, out: &mut Vec<f32>) {
    let half = kernel / 2;
    out.clear();
    out.extend((0..scores.len()).map(|i| {
        let near = &scores[i.saturating_sub(half)..(i + half + 1).min(scores.len())];
        match pooling {
            Pooling::Average => near.iter().sum::<f32>() / kernel as f32,
            Pooling::Max => near.iter().copied().fold(f32::NEG_INFINITY, f32::max),
        }
    }));
}

/// Indices of the `count` largest of `scores`, ascending; of equal ones the lower index.
pub(crate) fn top(scores: &[f32], count: usize, order: &mut Vec<u32>) {
    order.clear();
    order.extend(0..scores.len() as u32);
    if count < order.len() {
        if count > 0 {
            order.select_nth_unstable_by(count - 1, |a, b| {
                scores[*b as usize].total_cmp(&scores[*a as usize]).then(a.cmp(b))
            });
        }
        order.truncate(count);
        order.sort_unstable();
    }
}

/// Tokens per lane of layer `layer`, window and pinned prefix included, before lanes compete (PyramidKV's reference
/// arithmetic, in whole numbers: `step` is rounded down, so that the sum may lie a few percent above `budget · layers`).
pub(crate) fn layer_budget(
    compress: &Compress,
    budget: usize,
    len: usize,
    layer: usize,
    n_layers: usize,
) -> usize {
    let Split::Pyramid { beta } = compress.split else { return budget };
    let always = compress.window + compress.pinned;
    let (cap, rest) = (budget - always, len - always.min(len));
    if len < 2 * cap || n_layers == 1 {
        return budget; // the reference cuts short prompts evenly
    }
    let mut least = cap / beta;
    let mut most = 2 * cap - least;
    if most >= rest {
        most = rest;
        least = 2 * cap - most;
    }
    let step = (most - least) / (n_layers - 1).max(1);
    always + most - layer * step
}

/// The slots that stay in each lane of a layer, ascending, one list after the other in `keep`; `ends[lane]` is where its list ends.
/// `budget` is per lane, window and pinned prefix included; nothing changes where a lane holds no more than that.
pub(crate) fn keep(compress: &Compress, budget: usize, lanes: &[Lane<'_>], work: &mut Work) {
    work.keep.clear();
    work.ends.clear();
    let candidates = |lane: &Lane<'_>| {
        let len = lane.scores.len();
        compress.pinned.min(len)..len.saturating_sub(compress.window).max(compress.pinned.min(len))
    };
    let base = budget - compress.window - compress.pinned;
    // Lanes that compete are cut together, or not at all.
    let compete = matches!(compress.split, Split::Adaptive { .. })
        && lanes.iter().any(|lane| lane.scores.len() > budget);
    work.caps.clear();
    match compress.split {
        Split::Adaptive { alpha } if compete => adaptive(alpha, base, lanes, &candidates, work),
        _ => work.caps.resize(lanes.len(), base),
    }
    if let Split::Chunks { chunk } = compress.split {
        chunks(chunk, base, lanes, &candidates, work);
    }
    for (lane, cap) in lanes.iter().zip(&work.caps) {
        let (len, range) = (lane.scores.len(), candidates(lane));
        if len <= budget && !compete || *cap >= range.len() {
            work.keep.extend(0..len as u32);
        } else {
            if !matches!(compress.split, Split::Chunks { .. }) {
                top(&lane.scores[range.clone()], *cap, &mut work.order);
            }
            work.keep.extend(0..range.start as u32);
            work.keep.extend(work.order.iter().map(|slot| slot + range.start as u32));
            work.keep.extend(range.end as u32..len as u32);
        }
        work.ends.push(work.keep.len());
    }
}

/// AdaKV: the top `lanes · base` of all candidates of the layer decide how many each lane gets, `alpha` of `base` being
/// safe. `cap = round(n · (1 - alpha) + floor(alpha · base))`, halves to even as torch rounds.
fn adaptive(
    alpha: f32,
    base: usize,
    lanes: &[Lane<'_>],
    candidates: &dyn Fn(&Lane<'_>) -> std::ops::Range<usize>,
    work: &mut Work,
) {
    work.pooled.clear();
    work.ends.clear();
    for lane in lanes {
        work.pooled.extend_from_slice(&lane.scores[candidates(lane)]);
        work.ends.push(work.pooled.len());
    }
    top(&work.pooled, lanes.len() * base, &mut work.order);
    let mut before = 0;
    for end in std::mem::take(&mut work.ends) {
        let upto = work.order.partition_point(|index| (*index as usize) < end);
        let share = (upto - before) as f64;
        let safe = (f64::from(alpha) * base as f64).floor();
        work.caps.push((share * (1.0 - f64::from(alpha)) + safe).round_ties_even() as usize);
        before = upto;
    }
}

/// ChunkKV: scores summed over the lanes, their mean per chunk; the best chunks whole while they fit, then the first
/// tokens of the next best one, so that the budget is used up exactly. Leaves in `order` what stays, the same in every lane.
fn chunks(
    chunk: usize,
    base: usize,
    lanes: &[Lane<'_>],
    candidates: &dyn Fn(&Lane<'_>) -> std::ops::Range<usize>,
    work: &mut Work,
) {
    let Some(range) = lanes.first().map(candidates) else { return };
    work.pooled.clear();
    work.pooled.extend(range.clone().map(|slot| lanes.iter().map(|lane| lane.scores[slot]).sum::<f32>()));
    let means: Vec<f32> =
        work.pooled.chunks(chunk).map(|chunk| chunk.iter().sum::<f32>() / chunk.len() as f32).collect();
    let mut ranked: Vec<usize> = (0..means.len()).collect();
    ranked.sort_by(|a, b| means[*b].total_cmp(&means[*a]).then(a.cmp(b)));
    work.order.clear();
    for index in ranked {
        let first = index * chunk;
        let tokens = chunk.min(range.len() - first).min(base - work.order.len());
        work.order.extend((first..first + tokens).map(|slot| slot as u32));
    }
    work.order.sort_unstable();
}

/// Buffers of a choice, kept between layers.
#[derive(Default)]
pub(crate) struct Work {
    /// Slots that stay, lane after lane.
    pub keep: Vec<u32>, // (lanes: kept)
    /// Where each lane's list ends.
    pub ends: Vec<usize>, // (lanes)
    caps: Vec<usize>, // (lanes), candidates that stay
    order: Vec<u32>,  // (candidates)
    pooled: Vec<f32>, // (candidates)
}

impl Work {
    /// Room for pooled scores.
    pub fn pooled(&mut self) -> &mut Vec<f32> {
        &mut self.pooled
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::{CacheSpec, Scorer};

    fn compress(text: &str) -> Compress {
        match text.parse().unwrap() {
            CacheSpec::Compress(compress) => compress,
            other => panic!("{other}"),
        }
    }

    fn kept(spec: &str, budget: usize, scores: &[Vec<f32>]) -> Vec<Vec<u32>> {
        let lanes: Vec<Lane<'_>> = scores.iter().map(|scores| Lane { scores }).collect();
        let mut work = Work::default();
        keep(&compress(spec), budget, &lanes, &mut work);
        let mut first = 0;
        work.ends
            .iter()
            .map(|end| {
                let list = work.keep[first..*end].to_vec();
                first = *end;
                list
            })
            .collect()
    }

    #[test]
    fn pooling_equals_the_fixture() {
        let x = [0.4, 0.0, 0.1, 0.0, 0.0, 0.2, 0.0, 0.3];
        let mut out = Vec::new();
        pool(&x, 5, Pooling::Average, &mut out);
        for (have, want) in out.iter().zip([0.1, 0.1, 0.1, 0.06, 0.06, 0.1, 0.1, 0.1]) {
            assert!((have - want).abs() < 1e-6, "{out:?}");
        }
        pool(&x, 3, Pooling::Max, &mut out);
        assert_eq!(out, [0.4, 0.4, 0.1, 0.1, 0.2, 0.2, 0.3, 0.3]);
    }

    #[test]
    fn ties_go_to_the_lower_position() {
        let mut order = Vec::new();
        top(&[1.0, 2.0, 1.0, 2.0, 1.0], 3, &mut order);
        assert_eq!(order, [0, 1, 3]);
        top(&[1.0; 4], 0, &mut order);
        assert!(order.is_empty());
    }

    /// H = 2, base 4, eight candidates: the numbers of research/kv-policies.md §2.6, worked by hand.
    #[test]
    fn adakv_equals_the_fixture_with_halves_to_even() {
        let lanes = [
            vec![0.30, 0.02, 0.25, 0.01, 0.20, 0.03, 0.15, 0.045, 9.0],
            vec![0.01, 0.06, 0.01, 0.02, 0.03, 0.04, 0.05, 0.02, 9.0],
        ];
        for alpha in ["0", "0.25"] {
            let kept = kept(&format!("adakv:budget=5,window=1,alpha={alpha}"), 5, &lanes);
            assert_eq!(kept, [vec![0, 2, 4, 6, 7, 8], vec![1, 5, 6, 8]], "alpha {alpha}");
        }
        let kept = kept("adakv:budget=5,window=1,alpha=0.5", 5, &lanes);
        assert_eq!(kept, [vec![0, 2, 4, 6, 8], vec![1, 4, 5, 6, 8]]);
    }

    #[test]
    fn adakv_with_alpha_1_and_with_equal_scores_is_snapkv() {
        let uneven = [vec![0.9, 0.8, 0.7, 0.6, 0.5, 0.0], vec![0.1, 0.3, 0.2, 0.05, 0.0, 0.0]];
        let snap = kept("snapkv:budget=4,window=1", 4, &uneven);
        assert_eq!(kept("adakv:budget=4,window=1,alpha=1", 4, &uneven), snap);
        let even = [vec![0.9, 0.8, 0.7, 0.6, 0.5, 0.0], vec![0.9, 0.8, 0.7, 0.6, 0.5, 0.0]];
        assert_eq!(
            kept("adakv:budget=4,window=1,alpha=0", 4, &even),
            kept("snapkv:budget=4,window=1", 4, &even)
        );
    }

    #[test]
    fn a_pinned_prefix_stays_and_counts() {
        let lanes = [vec![0.0, 0.0, 0.5, 0.1, 0.9, 0.2, 0.0]];
        assert_eq!(kept("snapkv:budget=5,window=1,pinned=2", 5, &lanes), [vec![0, 1, 2, 4, 6]]);
    }

    #[test]
    fn chunks_stay_whole_until_the_budget_cuts_one() {
        let lanes = [vec![0.1, 0.1, 0.9, 0.0, 0.5, 0.5, 0.2, 0.0], vec![0.0; 8]];
        // chunks of 2 before the last token: means 0.1, 0.45, 0.5, 0.2 (one token)
        assert_eq!(
            kept("chunkkv:budget=4,window=1,chunk=2", 4, &lanes),
            [vec![2, 4, 5, 7], vec![2, 4, 5, 7]]
        );
    }

    /// §2.5: cap 128, window 8, 32 layers, a long prompt: 234, 227, … 17, 4016 in all with the windows left out.
    #[test]
    fn pyramid_budgets_equal_the_reference() {
        let spec = compress("pyramidkv:budget=128");
        let budgets: Vec<usize> =
            (0..32).map(|layer| layer_budget(&spec, 128, 3000, layer, 32) - spec.window).collect();
        assert_eq!((budgets[0], budgets[1], budgets[31]), (234, 227, 17));
        assert_eq!(budgets.iter().sum::<usize>(), 4016);
        assert_eq!(layer_budget(&spec, 128, 200, 3, 32), 128);
    }

    #[test]
    fn scorers_have_the_windows_of_their_papers() {
        assert_eq!(compress("snapkv:budget=64").window, 32);
        assert_eq!(compress("knorm:budget=64").scorer, Scorer::KeyNorm);
    }
}
