//! Attention against f64, and the promise that a row's bits depend on nothing but the row.

#![allow(clippy::unwrap_used)] // helpers of tests may stop them

mod common_kv;

use common_kv::{Layer, Noise, exact, tables};
use proptest::prelude::*;
use proptest::sample::select;
use roofline_kernels::{
    AttentionJob, AttentionScratch, AttentionShape, KernelError, KernelTable, KvFormat, PageLayout, Team,
    Visible, attention, attention_weights,
};

fn shape(n_kv_heads: usize, group: usize, head_dim: usize) -> AttentionShape {
    AttentionShape {
        n_heads: n_kv_heads * group,
        n_kv_heads,
        head_dim,
        scale: 1.0 / (head_dim as f32).sqrt(),
    }
}

/// All rows of `q` over one layer.
fn run(
    table: &KernelTable,
    threads: usize,
    shape: &AttentionShape,
    layer: &Layer,
    q: &[f32],
    visible: Visible,
) -> Vec<f32> {
    let team = Team::new(threads).unwrap();
    let mut scratch = AttentionScratch::new(threads, shape, 4096).unwrap();
    let mut out = vec![f32::NAN; q.len()];
    let jobs = [AttentionJob { kv: layer, rows: 0..q.len() / shape.row(), visible }];
    attention(table, &team, shape, layer.layout, &jobs, q, &mut scratch, &mut out).unwrap();
    out
}

fn close(got: &[f32], want: &[f64], tolerance: f64, what: &str) {
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        assert!((f64::from(*got) - want).abs() <= tolerance, "{what}: number {i} is {got}, not {want}");
    }
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn every_level_and_format_agrees_with_f64(
        n_kv_heads in 1usize..4, group in 1usize..11,
        head_dim in prop_oneof![1usize..40, Just(32), Just(64), Just(80), Just(96), Just(128)],
        slots in 1usize..700, rows in 1usize..40, page in prop_oneof![Just(16usize), Just(32), Just(64), Just(128), Just(256)],
        key in select(KvFormat::ALL.to_vec()), value in select(KvFormat::ALL.to_vec()), threads in 1usize..4,
        hot in 0usize..200, seed in any::<u64>(),
    ) {
        let rows = rows.min(slots);
        let blocks = [key, value].iter().any(|format| *format == KvFormat::Q8_0 || format.seals());
        let head_dim = if blocks { head_dim.next_multiple_of(32) } else { head_dim };
        let page = if blocks { page.max(32) } else { page };
        let (shape, mut noise) = (shape(n_kv_heads, group, head_dim), Noise(seed));
        let layout = PageLayout::with_formats(key, value, page, head_dim).unwrap();
        let mut layer = Layer::random(layout, n_kv_heads, slots, 2.0, &mut noise);
        if layout.seals() {
            layer.seal_before(slots.saturating_sub(hot));
        }
        let q = noise.fill(rows * shape.row(), 2.0);
        for table in tables() {
            let out = run(&table, threads, &shape, &layer, &q, Visible::Causal);
            for row in [0, rows / 2, rows - 1] {
                let at = row * shape.row()..(row + 1) * shape.row();
                let (_, want) = exact(&shape, &layer, &q[at.clone()], slots - rows + row + 1);
                close(&out[at], &want, 4e-6, &format!("{} row {row}", table.isa()));
            }
        }
    }
}

#[test]
fn a_row_has_the_same_bits_alone_and_among_others_on_any_number_of_threads() {
    let mut noise = Noise(7);
    for (n_kv_heads, group, head_dim, format) in [
        (2, 1, 64, KvFormat::F16),
        (1, 7, 64, KvFormat::Bf16),
        (2, 4, 20, KvFormat::F32),
        (1, 12, 128, KvFormat::F16),
        (2, 3, 20, KvFormat::I8),
        (1, 2, 64, KvFormat::I8),
        (1, 1, 96, KvFormat::Q8_0),
        (1, 10, 64, KvFormat::Q8_0),
        (1, 3, 64, KvFormat::Kivi4),
        (2, 1, 32, KvFormat::KvQuant3),
    ] {
        let shape = shape(n_kv_heads, group, head_dim);
        let layout = PageLayout::new(format, 64, head_dim).unwrap();
        let mut layer = Layer::random(layout, n_kv_heads, 1201, 3.0, &mut noise);
        if layout.seals() {
            layer.seal_before(1201 - 128);
        }
        let rows = 150;
        let q = noise.fill(rows * shape.row(), 3.0);
        // Rows about the edges of pages and of runs, and far from each other.
        let visible: Vec<usize> =
            (0..rows).map(|i| [1, 63, 64, 65, 511, 512, 513, 1024, 1025, 1201][i % 10].max(i)).collect();
        for table in tables() {
            let together = run(&table, 1, &shape, &layer, &q, Visible::First(&visible));
            for threads in [2, 3] {
                let again = run(&table, threads, &shape, &layer, &q, Visible::First(&visible));
                assert_eq!(bits(&again), bits(&together), "{threads} threads");
            }
            for chunk in [1, 2, 7, 64] {
                for (i, visible) in visible.chunks(chunk).enumerate() {
                    let at = i * chunk * shape.row()..(i * chunk + visible.len()) * shape.row();
                    let alone =
                        run(&table, 1 + i % 2, &shape, &layer, &q[at.clone()], Visible::First(visible));
                    assert_eq!(bits(&alone), bits(&together[at]), "{} chunks of {chunk}, {i}", table.isa());
                }
            }
        }
    }
}

#[test]
fn scores_of_ten_thousand_neither_overflow_nor_vanish() {
    let mut noise = Noise(3);
    let shape = AttentionShape { scale: 1.0, ..shape(1, 2, 16) };
    let layout = PageLayout::new(KvFormat::F32, 16, 16).unwrap();
    let mut layer = Layer::new(layout, 1);
    for slot in 0..600 {
        let size = [1e4, -1e4, 0.0, 30.0][slot % 4] * (1.0 - slot as f32 * 1e-6);
        let mut k = vec![0.0; 16];
        k[slot % 16] = 1.0;
        k[3] = size;
        layer.push(0, &k, &noise.fill(16, 1.0));
    }
    let mut q = vec![0.0; 32];
    (q[3], q[16 + 3]) = (1.0, -1.0);
    for table in tables() {
        let out = run(&table, 2, &shape, &layer, &q, Visible::Causal);
        let (_, want) = exact(&shape, &layer, &q, 600);
        close(&out, &want, 2e-3, table.isa().name()); // an ulp of 1e4 is 1e-3 of a score
    }
}

#[test]
fn what_a_row_does_not_see_cannot_touch_it_not_even_as_nan() {
    for format in [KvFormat::F16, KvFormat::I8, KvFormat::Q8_0] {
        what_is_not_seen_cannot_touch(format);
    }
}

fn what_is_not_seen_cannot_touch(format: KvFormat) {
    let mut noise = Noise(11);
    let shape = shape(1, 1, 32);
    let layout = PageLayout::new(format, 64, 32).unwrap();
    let mut layer = Layer::random(layout, 1, 70, 1.0, &mut noise);
    let q = noise.fill(8 * 32, 1.0);
    let visible: Vec<usize> = vec![0, 64, 65, 66, 67, 68, 69, 70];
    for table in tables() {
        let before = run(&table, 1, &shape, &layer, &q, Visible::First(&visible));
        assert_eq!(before[..32], [0.0; 32], "a row that sees nothing");
        layer.push(0, &[f32::NAN; 32], &[f32::INFINITY; 32]);
        let mut more = visible.clone();
        more[7] = layer.lane_len();
        let after = run(&table, 1, &shape, &layer, &q, Visible::First(&more));
        assert_eq!(bits(&after[..7 * 32]), bits(&before[..7 * 32]), "{}", table.isa());
        assert!(after[7 * 32..].iter().all(|x| x.is_nan()), "a NaN that is seen shows");
        layer = Layer::random(layout, 1, 70, 1.0, &mut noise);
    }
}

#[test]
fn lanes_of_unequal_length_and_several_sequences_in_one_call() {
    let mut noise = Noise(5);
    let shape = shape(2, 3, 24);
    let layout = PageLayout::new(KvFormat::Bf16, 16, 24).unwrap();
    let mut ragged = Layer::random(layout, 2, 40, 1.0, &mut noise);
    for _ in 0..21 {
        ragged.push(1, &noise.fill(24, 1.0), &noise.fill(24, 1.0));
    }
    let other = Layer::random(layout, 2, 530, 1.0, &mut noise);
    let q = noise.fill(5 * shape.row(), 1.0);
    let team = Team::new(2).unwrap();
    for table in tables() {
        let mut scratch = AttentionScratch::new(2, &shape, 1024).unwrap();
        let mut out = vec![f32::NAN; q.len()];
        let jobs = [
            AttentionJob { kv: &ragged, rows: 0..2, visible: Visible::Causal },
            AttentionJob { kv: &other, rows: 3..5, visible: Visible::Causal },
        ];
        attention(&table, &team, &shape, layout, &jobs, &q, &mut scratch, &mut out).unwrap();
        let row = shape.row();
        assert!(out[2 * row..3 * row].iter().all(|x| x.is_nan()), "a row that no job names is left alone");
        let (_, first) = exact(&shape, &ragged, &q[row..2 * row], 40);
        close(&out[row..row + 72], &first[..72], 2e-6, "the short lane");
        let heads_of_the_long_lane = AttentionShape { n_heads: 3, n_kv_heads: 1, ..shape };
        let long = ragged.only(1);
        let (_, want) = exact(&heads_of_the_long_lane, &long, &q[row + 72..2 * row], 61);
        close(&out[row + 72..2 * row], &want, 2e-6, "the long lane");
        let alone = run(&table, 1, &shape, &other, &q[3 * row..], Visible::Causal);
        assert_eq!(bits(&out[3 * row..]), bits(&alone));
    }
}

#[test]
fn weights_are_those_of_f64_and_sum_to_one() {
    for format in KvFormat::ALL {
        weights_are_exact(format);
    }
}

fn weights_are_exact(format: KvFormat) {
    let mut noise = Noise(13);
    let shape = shape(2, 4, 64);
    let layout = PageLayout::new(format, 32, 64).unwrap();
    let mut layer = Layer::random(layout, 2, 333, 3.0, &mut noise);
    if layout.seals() {
        layer.seal_before(200);
    }
    let q = noise.fill(shape.row(), 3.0);
    for visible in [1, 32, 331, 333] {
        let (want, _) = exact(&shape, &layer, &q, visible);
        for table in tables() {
            let mut weights = vec![f32::NAN; shape.n_heads * visible];
            let mut scratch = AttentionScratch::new(1, &shape, 64).unwrap();
            attention_weights(&table, &shape, layout, &layer, &q, visible, &mut scratch, &mut weights)
                .unwrap();
            close(&weights, &want, 1e-6, table.isa().name());
            for head in weights.chunks(visible) {
                assert!((head.iter().map(|w| f64::from(*w)).sum::<f64>() - 1.0).abs() < 1e-6);
            }
        }
    }
}

#[test]
fn calls_that_do_not_fit_are_refused_with_the_numbers() {
    let mut noise = Noise(1);
    let shape = shape(1, 2, 8);
    let layout = PageLayout::new(KvFormat::F32, 16, 8).unwrap();
    let layer = Layer::random(layout, 1, 20, 1.0, &mut noise);
    let (table, team) = (KernelTable::detect(None).unwrap(), Team::new(1).unwrap());
    let mut scratch = AttentionScratch::new(1, &shape, 64).unwrap();
    let q = noise.fill(3 * shape.row(), 1.0);
    let mut call = |shape: &AttentionShape, layout, rows, visible: Visible, out: usize| {
        let jobs = [AttentionJob { kv: &layer, rows, visible }];
        let mut out = vec![0.0; out];
        attention(&table, &team, shape, layout, &jobs, &q, &mut scratch, &mut out).unwrap_err()
    };
    let error = call(&shape, layout, 0..3, Visible::First(&[20, 21, 20]), q.len());
    assert!(matches!(error, KernelError::NotInLane { row: 1, kv_head: 0, visible: 21, len: 20 }), "{error}");
    let error = call(&shape, layout, 0..3, Visible::First(&[1, 2]), q.len());
    assert!(matches!(error, KernelError::Shape { got: 2, want: 3, .. }), "{error}");
    let error = call(&shape, layout, 0..4, Visible::Causal, q.len());
    assert!(matches!(error, KernelError::Shape { got: 4, want: 3, .. }), "{error}");
    let error = call(&shape, layout, 0..3, Visible::Causal, q.len() - 1);
    assert!(matches!(error, KernelError::Shape { .. }), "{error}");
    let error = call(&AttentionShape { n_kv_heads: 3, ..shape }, layout, 0..3, Visible::Causal, q.len());
    assert!(matches!(error, KernelError::HeadGroups { n_heads: 2, n_kv_heads: 3 }), "{error}");
    let error = call(&shape, PageLayout::new(KvFormat::F32, 16, 9).unwrap(), 0..3, Visible::Causal, q.len());
    assert!(matches!(error, KernelError::Shape { got: 9, want: 8, .. }), "{error}");
    assert!(matches!(PageLayout::new(KvFormat::F16, 48, 8), Err(KernelError::PageSlots { slots: 48 })));
    assert!(matches!(PageLayout::new(KvFormat::F16, 64, 0), Err(KernelError::HeadDim { head_dim: 0 })));
}
