//! Attention through bands (sinks and a window, the sinks perhaps by queries of their own), and the mass that slots
//! receive: against f64, and the same bits however the work is cut.

#![allow(clippy::unwrap_used)] // helpers of tests may stop them

mod common_kv;

use common_kv::{Layer, Noise, exact_bands, tables};
use proptest::prelude::*;
use proptest::sample::select;
use roofline_kernels::{
    AttentionJob, AttentionScratch, AttentionShape, Band, KernelError, KernelTable, KvFormat, KvLayer,
    LaneView, PageLayout, PageRef, Team, Visible, attention, attention_mass,
};

fn shape(n_kv_heads: usize, group: usize, head_dim: usize) -> AttentionShape {
    let scale = 1.0 / (head_dim as f32).sqrt();
    AttentionShape { n_heads: n_kv_heads * group, n_kv_heads, head_dim, scale }
}

/// A layer, some rows of queries for it and what they see.
struct Case {
    shape: AttentionShape,
    layer: Layer,
    q: Vec<f32>,              // (rows, n_heads, head_dim)
    sink_q: Option<Vec<f32>>, // the same
    bands: Vec<Band>,         // (n_kv_heads, rows)
}

impl std::fmt::Debug for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (layout, len, frames) = (self.layer.layout, self.layer.lane_len(), self.sink_q.is_some());
        write!(f, "{:?} {layout:?} {len} slots, frames: {frames}, {:?}", self.shape, self.bands)
    }
}

impl Case {
    fn rows(&self) -> usize {
        self.q.len() / self.shape.row()
    }

    /// The rows `rows` alone.
    fn part(&self, rows: std::ops::Range<usize>) -> Case {
        let at = rows.start * self.shape.row()..rows.end * self.shape.row();
        let bands = self.bands.chunks(self.rows()).flat_map(|lane| lane[rows.clone()].to_vec());
        Case {
            shape: self.shape,
            layer: self.layer.clone(),
            q: self.q[at.clone()].to_vec(),
            sink_q: self.sink_q.as_ref().map(|q| q[at].to_vec()),
            bands: bands.collect(),
        }
    }

    fn visible(&self) -> Visible<'_> {
        Visible::Bands { bands: &self.bands, sink_q: self.sink_q.as_deref() }
    }

    fn attention(&self, table: &KernelTable, threads: usize) -> Vec<f32> {
        let (team, mut out) = (Team::new(threads).unwrap(), vec![f32::NAN; self.q.len()]);
        let mut scratch = AttentionScratch::new(threads, &self.shape, 4096).unwrap();
        let jobs = [AttentionJob { kv: &self.layer, rows: 0..self.rows(), visible: self.visible() }];
        let layout = self.layer.layout;
        attention(table, &team, &self.shape, layout, &jobs, &self.q, &mut scratch, &mut out).unwrap();
        out
    }

    /// Adds to `mass`, which has as many slots per lane as it is long.
    fn add_mass(&self, table: &KernelTable, threads: usize, max_slots: usize, mass: &mut [f32]) {
        let team = Team::new(threads).unwrap();
        let mut scratch = AttentionScratch::new(threads, &self.shape, max_slots).unwrap();
        let job = AttentionJob { kv: &self.layer, rows: 0..self.rows(), visible: self.visible() };
        let (layout, stride) = (self.layer.layout, mass.len() / self.shape.n_kv_heads);
        attention_mass(table, &team, &self.shape, layout, &job, &self.q, &mut scratch, mass, stride).unwrap();
    }

    /// Weights `(n_heads)` and outputs of one row in f64.
    fn exact(&self, row: usize) -> (Vec<Vec<f64>>, Vec<f64>) {
        let at = row * self.shape.row()..(row + 1) * self.shape.row();
        let q = &self.q[at.clone()];
        let sink_q = self.sink_q.as_ref().map_or(q, |sink_q| &sink_q[at]);
        let bands: Vec<Band> = self.bands.chunks(self.rows()).map(|lane| lane[row]).collect();
        exact_bands(&self.shape, &self.layer, q, sink_q, &bands)
    }
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

fn close(got: &[f32], want: &[f64], tolerance: f64, what: &str) {
    assert_eq!(got.len(), want.len());
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        assert!((f64::from(*got) - want).abs() <= tolerance, "{what}: number {i} is {got}, not {want}");
    }
}

fn any_case() -> impl Strategy<Value = Case> {
    let head_dim = prop_oneof![1usize..40, Just(64), Just(80), Just(128), Just(256)];
    let page = prop_oneof![Just(16usize), Just(32), Just(64), Just(128)];
    let layout = (head_dim, page, select(KvFormat::ALL.to_vec()), select(KvFormat::ALL.to_vec()));
    let heads = (1usize..4, prop_oneof![Just(1usize), 1usize..11]);
    // What is seen: at random; a causal window behind sinks, as in prefill; a window that all rows share.
    (layout, heads, 1usize..1300, 1usize..30, 0usize..3, any::<bool>(), any::<u64>()).prop_map(
        |((head_dim, page, key, value), (n_kv_heads, group), slots, rows, kind, frames, seed)| {
            let blocks = [key, value].iter().any(|format| *format == KvFormat::Q8_0 || format.seals());
            let head_dim = if blocks { head_dim.next_multiple_of(32) } else { head_dim };
            let page = if blocks { page.max(32) } else { page };
            let (shape, mut noise) = (shape(n_kv_heads, group, head_dim), Noise(seed));
            let layout = PageLayout::with_formats(key, value, page, head_dim).unwrap();
            let mut layer = Layer::random(layout, n_kv_heads, slots, 2.0, &mut noise);
            if layout.seals() {
                layer.seal_before(slots / 2);
            }
            let mut below = |n: usize| (((noise.next() + 1.0) / 2.0 * n as f32) as usize).min(n);
            let (sinks, window) = (below(20), 1 + below(150));
            let bands = (0..n_kv_heads * rows).map(|i| {
                let row = i % rows;
                let to = (slots + row + 1).saturating_sub(rows).max(1);
                let sinks = sinks.min(to);
                match kind {
                    0 => {
                        let to = below(slots);
                        let from = below(to);
                        Band { sinks: below(from), from, to }
                    }
                    1 => Band { sinks, from: to.saturating_sub(window).max(sinks), to },
                    _ => Band { sinks, from: sinks.max(slots.saturating_sub(window)).min(to), to },
                }
            });
            let bands = bands.collect();
            let q = noise.fill(rows * shape.row(), 2.0);
            let sink_q = frames.then(|| noise.fill(q.len(), 2.0));
            Case { shape, layer, q, sink_q, bands }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn bands_agree_with_f64(case in any_case(), threads in 1usize..4) {
        let row = case.shape.row();
        for table in tables() {
            let out = case.attention(&table, threads);
            for i in [0, case.rows() / 2, case.rows() - 1] {
                let what = format!("{} row {i}", table.isa());
                close(&out[i * row..(i + 1) * row], &case.exact(i).1, 4e-6, &what);
            }
        }
    }

    #[test]
    fn mass_agrees_with_f64(case in any_case(), threads in 1usize..4) {
        let heads = case.shape.n_kv_heads;
        let stride = case.layer.lane_len() + 3;
        let mut want = vec![0.5; heads * stride];
        for row in 0..case.rows() {
            for (head, weights) in case.exact(row).0.iter().enumerate() {
                let lane = &mut want[head / case.shape.group() * stride..][..weights.len()];
                lane.iter_mut().zip(weights).for_each(|(sum, weight)| *sum += weight);
            }
        }
        for table in tables() {
            let mut mass = vec![0.5; heads * stride];
            case.add_mass(&table, threads, 2048, &mut mass);
            for (i, (got, want)) in mass.iter().zip(&want).enumerate() {
                // Each of up to 300 additions rounds; a weight is good to some 1e-6.
                let tolerance = 4e-5 * want.abs();
                assert!((f64::from(*got) - want).abs() <= tolerance, "{}: {i}: {got}, not {want}", table.isa());
            }
        }
    }

    #[test]
    fn cutting_the_work_changes_no_bit(case in any_case(), chunk in 1usize..9) {
        let (rows, row) = (case.rows(), case.shape.row());
        let table = KernelTable::detect(None).unwrap();
        let (together, stride) = (case.attention(&table, 1), case.layer.lane_len());
        let mut mass = vec![0.0; case.shape.n_kv_heads * stride];
        case.add_mass(&table, 1, 2048, &mut mass);
        for threads in [2, 3] {
            assert_eq!(bits(&case.attention(&table, threads)), bits(&together), "{threads} threads");
            let mut again = vec![0.0; mass.len()];
            case.add_mass(&table, threads, 2048, &mut again);
            assert_eq!(bits(&again), bits(&mass), "mass, {threads} threads");
        }
        let mut in_parts = vec![0.0; mass.len()];
        for (i, first) in (0..rows).step_by(chunk).enumerate() {
            let last = rows.min(first + chunk);
            let part = case.part(first..last);
            let alone = part.attention(&table, 1 + i % 2);
            assert_eq!(bits(&alone), bits(&together[first * row..last * row]), "rows {first}..{last}");
            part.add_mass(&table, 1 + i % 2, 2048, &mut in_parts);
        }
        assert_eq!(bits(&in_parts), bits(&mass), "mass in chunks of {chunk}");
    }

    #[test]
    fn a_band_without_a_gap_is_the_first_slots_bit_for_bit(case in any_case(), threads in 1usize..3) {
        let rows = case.rows();
        let slots: Vec<usize> = case.bands[..rows].iter().map(|band| band.to).collect();
        let bands: Vec<Band> = (0..case.bands.len())
            .map(|i| {
                let to = slots[i % rows];
                let sinks = [0, to, to / 2, to.min(4)][i % 4];
                Band { sinks, from: sinks, to }
            })
            .collect();
        let case = Case { bands, sink_q: None, ..case };
        for table in tables() {
            let (team, mut out) = (Team::new(threads).unwrap(), vec![f32::NAN; case.q.len()]);
            let mut scratch = AttentionScratch::new(threads, &case.shape, 2048).unwrap();
            let jobs = [AttentionJob { kv: &case.layer, rows: 0..rows, visible: Visible::First(&slots) }];
            let layout = case.layer.layout;
            attention(&table, &team, &case.shape, layout, &jobs, &case.q, &mut scratch, &mut out).unwrap();
            assert_eq!(bits(&case.attention(&table, threads)), bits(&out), "{}", table.isa());
        }
    }
}

#[test]
fn the_size_of_pages_changes_no_bit() {
    let shape = shape(2, 3, 64);
    for format in KvFormat::ALL.into_iter().filter(|format| !format.seals()) {
        let mut all = Vec::new();
        for page in [16, 32, 64, 128, 256] {
            let mut noise = Noise(21);
            let layout = PageLayout::new(format, page, 64).unwrap();
            let layer = Layer::random(layout, 2, 1171, 2.0, &mut noise);
            let q = noise.fill(70 * shape.row(), 2.0);
            let bands = (0..140).map(|i| Band { sinks: 5, from: 900 + i % 70, to: 1100 + i % 70 }).collect();
            let case = Case { shape, layer, sink_q: Some(noise.fill(q.len(), 1.0)), q, bands };
            let table = KernelTable::detect(None).unwrap();
            let mut mass = vec![0.0; 2 * 1171];
            case.add_mass(&table, 2, 2048, &mut mass);
            all.push((bits(&case.attention(&table, 2)), bits(&case.part(3..4).attention(&table, 1)), mass));
        }
        all.iter().for_each(|again| assert!(*again == all[0], "{format}"));
    }
}

#[test]
fn what_no_row_sees_is_not_even_looked_up() {
    // The lane is long, and its pages between the sinks and the window do not exist.
    struct Hollow {
        layer: Layer,
        table: Vec<u32>,
        len: usize,
    }
    impl KvLayer for Hollow {
        fn lane(&self, _: usize) -> LaneView<'_> {
            LaneView { table: &self.table, len: self.len }
        }
        fn page(&self, id: u32) -> PageRef<'_> {
            self.layer.page(id)
        }
    }
    let (mut noise, shape) = (Noise(3), shape(1, 2, 32));
    let layout = PageLayout::new(KvFormat::F16, 16, 32).unwrap();
    let layer = Layer::random(layout, 1, 640, 1.0, &mut noise);
    let real = layer.lane(0).table.to_vec();
    // Sinks in the real page 0, the window (and what is fetched ahead of it) in the real pages 1 to 39.
    let mut table = vec![u32::MAX; 6000];
    table[0] = real[0];
    let window = 5900;
    for (place, id) in table[window..].iter_mut().zip(&real[1..]) {
        *place = *id;
    }
    let from = window * 16 + 7;
    let hollow = Hollow { layer, table, len: (window + 39) * 16 };
    let q = noise.fill(4 * shape.row(), 1.0);
    let bands: Vec<Band> = (0..4).map(|i| Band { sinks: 4, from: from + i, to: from + 200 + i }).collect();
    let packed: Vec<Band> = (0..4).map(|i| Band { sinks: 4, from: 23 + i, to: 223 + i }).collect();
    let (team, mut out, mut want) = (Team::new(2).unwrap(), vec![0.0; q.len()], vec![0.0; q.len()]);
    let mut scratch = AttentionScratch::new(2, &shape, 640).unwrap();
    for level in tables() {
        let visible = Visible::Bands { bands: &bands, sink_q: None };
        let job = AttentionJob { kv: &hollow, rows: 0..4, visible };
        attention(&level, &team, &shape, layout, std::slice::from_ref(&job), &q, &mut scratch, &mut out)
            .unwrap();
        let visible = Visible::Bands { bands: &packed, sink_q: None };
        let jobs = [AttentionJob { kv: &hollow.layer, rows: 0..4, visible }];
        attention(&level, &team, &shape, layout, &jobs, &q, &mut scratch, &mut want).unwrap();
        let want: Vec<f64> = want.iter().map(|x| f64::from(*x)).collect();
        close(&out, &want, 2e-6, level.isa().name());
        let mut mass = vec![0.0; hollow.len];
        attention_mass(&level, &team, &shape, layout, &job, &q, &mut scratch, &mut mass, hollow.len).unwrap();
        let sum: f64 = mass.iter().map(|x| f64::from(*x)).sum();
        assert!((sum - 8.0).abs() < 1e-5, "{sum}");
    }
}

#[test]
fn unseen_slots_cannot_touch_a_band_not_even_as_nan() {
    let (mut noise, shape) = (Noise(17), shape(1, 3, 24));
    let layout = PageLayout::new(KvFormat::Bf16, 32, 24).unwrap();
    let mut layer = Layer::new(layout, 1);
    for slot in 0..200 {
        let seen = slot < 3 || (100..190).contains(&slot);
        let fill = |noise: &mut Noise| if seen { noise.fill(24, 1.0) } else { vec![f32::NAN; 24] };
        let (k, v) = (fill(&mut noise), fill(&mut noise));
        layer.push(0, &k, &v);
    }
    for (rows, frames) in [(1, false), (1, true), (20, false), (20, true)] {
        let q = noise.fill(rows * shape.row(), 1.0);
        let sink_q = frames.then(|| noise.fill(q.len(), 1.0));
        let bands = (0..rows).map(|i| Band { sinks: i % 4, from: 100 + i, to: 170 + i }).collect();
        let case = Case { shape, layer: layer.clone(), q, sink_q, bands };
        for table in tables() {
            let out = case.attention(&table, 2);
            assert!(out.iter().all(|x| x.is_finite()));
            close(&out[..shape.row()], &case.exact(0).1, 2e-6, table.isa().name());
            let mut mass = vec![0.0; 200];
            case.add_mass(&table, 2, 256, &mut mass);
            assert!(mass.iter().all(|x| x.is_finite()));
        }
    }
}

#[test]
fn chosen_pages_with_a_partial_last_one_serve_each_query_head() {
    // As Quest asks for it: per query head the pages 1, 3 and the last, partial one of each lane.
    struct Chosen<'a> {
        layer: &'a Layer,
        tables: Vec<Vec<u32>>,
        len: usize,
    }
    impl KvLayer for Chosen<'_> {
        fn lane(&self, head: usize) -> LaneView<'_> {
            LaneView { table: &self.tables[head], len: self.len }
        }
        fn page(&self, id: u32) -> PageRef<'_> {
            self.layer.page(id)
        }
    }
    let (mut noise, model) = (Noise(29), shape(2, 3, 40));
    for (page, slots) in [(16, 15 * 16 + 1), (16, 15 * 16 + 15), (16, 16 * 16), (64, 15 * 64 + 5)] {
        let layout = PageLayout::new(KvFormat::F16, page, 40).unwrap();
        let layer = Layer::random(layout, 2, slots, 1.0, &mut noise);
        let q = noise.fill(model.row(), 1.0);
        let per_head = AttentionShape { n_kv_heads: 6, ..model };
        let choice = |head: usize| [1 + head, 9 + head % 3, slots.div_ceil(page) - 1];
        let tables_of = |head: usize| {
            let table = layer.lane(head / 3).table;
            choice(head).map(|i| table[i]).to_vec()
        };
        let len = 2 * page + (slots - 1) % page + 1;
        let chosen = Chosen { layer: &layer, tables: (0..6).map(tables_of).collect(), len };
        for table in tables() {
            let mut scratch = AttentionScratch::new(2, &model, 1024).unwrap();
            let mut out = vec![f32::NAN; q.len()];
            let jobs = [AttentionJob { kv: &chosen, rows: 0..1, visible: Visible::Causal }];
            let team = Team::new(2).unwrap();
            attention(&table, &team, &per_head, layout, &jobs, &q, &mut scratch, &mut out).unwrap();
            for head in 0..6 {
                let mut copy = Layer::new(layout, 1);
                for page_index in choice(head) {
                    for slot in page_index * page..slots.min((page_index + 1) * page) {
                        let (k, v) = layer.slot(head / 3, slot);
                        copy.push(0, &k, &v);
                    }
                }
                let alone = AttentionShape { n_heads: 1, n_kv_heads: 1, ..model };
                let q = &q[head * 40..][..40];
                let want = exact_bands(&alone, &copy, q, q, &[Band::first(len)]).1;
                close(&out[head * 40..][..40], &want, 2e-6, "a head of its own");
            }
        }
    }
}

#[test]
fn bands_and_masses_that_do_not_fit_are_refused_with_the_numbers() {
    let (mut noise, shape) = (Noise(1), shape(2, 1, 8));
    let layout = PageLayout::new(KvFormat::F32, 16, 8).unwrap();
    let layer = Layer::random(layout, 2, 20, 1.0, &mut noise);
    let (table, team) = (KernelTable::detect(None).unwrap(), Team::new(1).unwrap());
    let mut scratch = AttentionScratch::new(1, &shape, 64).unwrap();
    let q = noise.fill(shape.row(), 1.0);
    let good = Band { sinks: 1, from: 2, to: 20 };
    let mut call = |bands: &[Band], sink_q: Option<&[f32]>, stride: Option<usize>| {
        let job = AttentionJob { kv: &layer, rows: 0..1, visible: Visible::Bands { bands, sink_q } };
        let mut out = vec![0.0; q.len()];
        match stride {
            None => attention(&table, &team, &shape, layout, &[job], &q, &mut scratch, &mut out),
            Some(stride) => {
                let mut mass = vec![0.0; 40];
                attention_mass(&table, &team, &shape, layout, &job, &q, &mut scratch, &mut mass, stride)
            }
        }
    };
    call(&[good; 2], None, None).unwrap();
    call(&[good; 2], None, Some(20)).unwrap();
    let too_far = Band { to: 21, ..good };
    let error = call(&[good, too_far], None, None).unwrap_err();
    assert!(matches!(error, KernelError::NotInLane { row: 0, kv_head: 1, visible: 21, len: 20 }), "{error}");
    let unordered = Band { sinks: 3, from: 2, to: 20 };
    let error = call(&[unordered, good], None, None).unwrap_err();
    assert!(matches!(error, KernelError::BandOrder { row: 0, kv_head: 0, .. }), "{error}");
    assert!(error.to_string().contains("0..3 and 2..20"), "{error}");
    let error = call(&[good; 3], None, None).unwrap_err();
    assert!(matches!(error, KernelError::Shape { got: 3, want: 2, .. }), "{error}");
    let error = call(&[good; 2], Some(&q[1..]), None).unwrap_err();
    assert!(matches!(error, KernelError::Shape { got: 15, want: 16, .. }), "{error}");
    let error = call(&[good; 2], None, Some(21)).unwrap_err();
    assert!(matches!(error, KernelError::Shape { got: 40, want: 42, .. }), "{error}");
    // More slots than the scratch was made for: fewer rows at a time, at last an error that says so.
    let long = Layer::random(layout, 2, 512 * 200, 1.0, &mut noise);
    let job = AttentionJob { kv: &long, rows: 0..1, visible: Visible::Causal };
    let mut mass = vec![0.0; 2 * 512 * 200];
    let stride = 512 * 200;
    let result = attention_mass(&table, &team, &shape, layout, &job, &q, &mut scratch, &mut mass, stride);
    let error = result.unwrap_err();
    assert!(matches!(error, KernelError::ScratchTooSmall { .. }), "{error}");
}
