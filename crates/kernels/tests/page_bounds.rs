//! The bounds of pages: never below a score, and the brute-force sum.

#![allow(clippy::unwrap_used)] // helpers of tests may stop them

mod common_kv;

use common_kv::{Noise, tables};
use proptest::prelude::*;
use roofline_kernels::{KernelError, KernelTable, KvFormat, PageBounds, PageLayout, PageScore};

/// Pages of one lane with all keys written, the last page only in part.
struct Lane {
    layout: PageLayout,
    pages: Vec<Vec<u8>>,
    slots: usize,
}

impl Lane {
    fn new(layout: PageLayout, keys: &[Vec<f32>]) -> Lane {
        let zeros = vec![0.0; layout.head_dim()];
        let mut pages = Vec::new();
        for (i, key) in keys.iter().enumerate() {
            if i % layout.slots() == 0 {
                pages.push(vec![0xff; layout.page_bytes()]); // NaN where nothing is written
            }
            layout.write_slot(&mut pages[i / layout.slots()], i % layout.slots(), key, &zeros);
        }
        Lane { layout, pages, slots: keys.len() }
    }

    fn key(&self, slot: usize) -> Vec<f32> {
        let mut key = vec![0.0; self.layout.head_dim()];
        self.layout.read_key(&self.pages[slot / self.layout.slots()], slot % self.layout.slots(), &mut key);
        key
    }

    fn slots_of(&self, page: usize) -> std::ops::Range<usize> {
        let slots = self.layout.slots();
        page * slots..self.slots.min((page + 1) * slots)
    }

    fn bounds(&self) -> PageBounds {
        let mut bounds = PageBounds::new(self.layout);
        bounds.resize(self.pages.len());
        for (page, bytes) in self.pages.iter().enumerate() {
            // In two parts, as prefill and then decode write them.
            let slots = self.slots_of(page).len();
            bounds.update(page, bytes, 0..slots / 2);
            bounds.update(page, bytes, slots / 2..slots);
        }
        bounds
    }
}

fn dot(q: &[f32], k: &[f32]) -> f64 {
    q.iter().zip(k).filter(|(q, _)| **q != 0.0).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum()
}

fn scores(table: &KernelTable, bounds: &PageBounds, q: &[f32], score: PageScore, rows: usize) -> Vec<f32> {
    let mut out = vec![f32::NAN; rows * bounds.pages()];
    bounds.score(table, q, bounds.pages(), score, &mut out).unwrap();
    out
}

#[test]
fn the_example_of_the_definition() {
    let keys = |two: [[f32; 3]; 2]| (0..16).map(move |i| two[i % 2].to_vec());
    let page_a = keys([[1.0, 0.0, 2.0], [0.0, 1.0, -1.0]]);
    let page_b = keys([[0.5, -1.0, 0.0], [-0.5, -0.2, 1.0]]);
    let keys: Vec<Vec<f32>> = page_a.chain(page_b).collect();
    for format in [KvFormat::F32, KvFormat::F16] {
        let bounds = Lane::new(PageLayout::new(format, 16, 3).unwrap(), &keys).bounds();
        for table in tables() {
            let scores = scores(&table, &bounds, &[1.0, -2.0, 0.5], PageScore::PerHead, 1);
            assert_eq!(scores, [2.0, 3.0], "{format} {}", table.isa());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn no_key_of_a_page_scores_above_its_bound(
        head_dim in prop_oneof![1usize..70, Just(128)], slots in 1usize..1500, group in 1usize..5, page in 4u32..8,
        format in 0usize..3, scale in prop_oneof![Just(1e-6f32), Just(1.0), Just(1e3), Just(1e5)], seed in any::<u64>(),
    ) {
        let (mut noise, page) = (Noise(seed), 1 << page);
        let layout = PageLayout::new(KvFormat::ALL[format], page, head_dim).unwrap();
        // A key beyond f16 is infinite where it is stored, and its scores are no numbers.
        let scale = if KvFormat::ALL[format] == KvFormat::F16 { scale.min(1e3) } else { scale };
        let keys: Vec<Vec<f32>> = (0..slots)
            .map(|i| if i % 7 == 3 { vec![0.0; head_dim] } else { noise.fill(head_dim, scale) })
            .collect();
        let lane = Lane::new(layout, &keys);
        let bounds = lane.bounds();
        prop_assert_eq!(bounds.pages(), slots.div_ceil(page));
        prop_assert!(bounds.bytes() >= PageBounds::bytes_for(layout, bounds.pages()));
        let mut q = noise.fill(group * head_dim, 3.0);
        q.iter_mut().step_by(5).for_each(|q| *q = 0.0);
        for table in tables() {
            let per_head = scores(&table, &bounds, &q, PageScore::PerHead, group);
            let of_group = scores(&table, &bounds, &q, PageScore::MaxOfGroup, 1);
            for page in 0..bounds.pages() {
                for (head, q) in q.chunks(head_dim).enumerate() {
                    let bound = f64::from(per_head[head * bounds.pages() + page]);
                    // Brute force over the bounds as kept.
                    let (mut want, mut size) = (0.0, 0.0);
                    for (channel, q) in q.iter().enumerate().filter(|(_, q)| **q != 0.0) {
                        let (min, max) = bounds.get(page, channel);
                        let product = (f64::from(*q) * f64::from(min)).max(f64::from(*q) * f64::from(max));
                        want += product;
                        size += product.abs();
                    }
                    let rounding = 1e-6 * size;
                    prop_assert!(bound == want || (bound - want).abs() <= rounding, "{bound}, not {want}");
                    let keys = lane.slots_of(page).map(|slot| dot(q, &lane.key(slot)));
                    let best = keys.fold(f64::NEG_INFINITY, f64::max);
                    prop_assert!(bound == f64::INFINITY || bound >= best - rounding, "{bound} below {best}");
                }
                let heads = (0..group).map(|head| per_head[head * bounds.pages() + page]);
                prop_assert_eq!(of_group[page], heads.fold(f32::NEG_INFINITY, f32::max));
            }
        }
    }

    #[test]
    fn half_floats_are_rounded_outward(low in any::<f32>(), high in any::<f32>()) {
        prop_assume!(!low.is_nan() && !high.is_nan());
        // Keys of bf16 reach beyond f16 and lie between its numbers.
        let layout = PageLayout::new(KvFormat::Bf16, 16, 1).unwrap();
        let lane = Lane::new(layout, &[vec![low], vec![high]]);
        let (keys, bounds) = ([lane.key(0)[0], lane.key(1)[0]], lane.bounds());
        let (min, max) = bounds.get(0, 0);
        prop_assert!(min <= keys[0].min(keys[1]) && max >= keys[0].max(keys[1]), "{min} {max} {keys:?}");
        for (bound, key) in [(min, keys[0].min(keys[1])), (max, keys[0].max(keys[1]))] {
            let near = half::f16::from_f32(key).to_f32();
            let exact = near == key;
            prop_assert_eq!(exact, bound == key, "widened without need");
        }
    }
}

#[test]
fn pages_come_go_and_are_forgotten() {
    let layout = PageLayout::new(KvFormat::F16, 16, 2).unwrap();
    let keys: Vec<Vec<f32>> = (0..40 * 16).map(|i| vec![i as f32, -(i as f32)]).collect();
    let lane = Lane::new(layout, &keys);
    let mut bounds = lane.bounds();
    assert_eq!(bounds.get(3, 0), (48.0, 63.0));
    assert_eq!(bounds.get(3, 1), (-63.0, -48.0));
    bounds.reset(3);
    let table = KernelTable::detect(None).unwrap();
    let one = scores(&table, &bounds, &[1.0, 0.5], PageScore::MaxOfGroup, 1);
    assert_eq!((one[2], one[3]), (47.0 - 16.0, f32::NEG_INFINITY));
    bounds.resize(2);
    bounds.shrink();
    assert_eq!(bounds.bytes(), PageBounds::bytes_for(layout, 2));
    bounds.resize(4);
    assert_eq!(
        scores(&table, &bounds, &[1.0, 0.5], PageScore::MaxOfGroup, 1)[1..],
        [31.0 - 8.0, f32::NEG_INFINITY, f32::NEG_INFINITY]
    );
    let (mut out, error) = (vec![0.0; 5], |q: &[f32], pages, n: usize| {
        bounds.score(&table, q, pages, PageScore::PerHead, &mut vec![0.0; n]).unwrap_err()
    });
    assert!(matches!(error(&[1.0; 2], 5, 5), KernelError::Shape { got: 4, want: 5, .. }));
    assert!(matches!(error(&[1.0; 3], 4, 4), KernelError::Shape { got: 3, want: 2, .. }));
    assert!(matches!(error(&[1.0; 4], 4, 4), KernelError::Shape { got: 4, want: 8, .. }));
    bounds.score(&table, &[1.0, 0.0, 0.0, 1.0], 2, PageScore::PerHead, &mut out[..4]).unwrap();
    assert_eq!(out[..4], [15.0, 31.0, 0.0, -16.0]);
}
