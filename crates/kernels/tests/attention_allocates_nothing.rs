//! Attention and the element-wise operations allocate nothing per call. Alone in its file, because the allocator
//! that counts is that of the whole program.

mod common_kv;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use common_kv::{Layer, Noise};
use roofline_kernels::{
    Activation, AttentionJob, AttentionScratch, AttentionShape, Band, KernelTable, KvFormat, Norm, NormKind,
    PageLayout, Pairing, Team, Visible, activate_gated, argmax, attention, attention_mass, attention_weights,
    log_sum_exp, norm_rows, rope, rope_angles, route,
};

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: passed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, p: *mut u8, layout: Layout) {
        // SAFETY: passed on.
        unsafe { System.dealloc(p, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A thread allocates while it starts: every worker has to have done a tile before allocations count.
fn wait_for_workers(team: &Team) {
    let seen = AtomicUsize::new(0);
    while seen.load(Ordering::Relaxed) != (1 << team.threads()) - 1 {
        team.run(64, &|_, worker| {
            seen.fetch_or(1 << worker, Ordering::Relaxed);
            std::thread::sleep(std::time::Duration::from_micros(50));
        });
    }
}

#[test]
fn no_call_allocates() {
    let mut noise = Noise(1);
    let shape = AttentionShape { n_heads: 4, n_kv_heads: 2, head_dim: 40, scale: 0.1 };
    let layout = PageLayout::new(KvFormat::F16, 64, 40).unwrap();
    let layer = Layer::random(layout, 2, 2000, 1.0, &mut noise);
    let heads = Layer::random(layout, 4, 1000, 1.0, &mut noise);
    let (table, team) = (KernelTable::detect(None).unwrap(), Team::new(2).unwrap());
    let mut scratch = AttentionScratch::new(2, &shape, 2048).unwrap();
    assert!(scratch.bytes() > 0);
    let width = shape.row();
    let (q, weight) = (noise.fill(200 * width, 1.0), noise.fill(width, 1.0));
    let (mut out, mut x) = (vec![0.0; q.len()], q.clone());
    let (mut cos, mut sin) = (vec![0.0; 200 * 20], vec![0.0; 200 * 20]);
    let (mut ids, mut weights) = (vec![0; 200 * 8], vec![0.0; 200 * 8]);
    let positions: Vec<usize> = (0..200).collect();
    let (mut mass, mut row_weights) = (vec![0.0; 2 * 2000], vec![0.0; 4 * 2000]);
    let bands: Vec<Band> = (0..400).map(|i| Band { sinks: 4, from: 900 + i, to: 1500 + i }).collect();
    let stored = AttentionShape { n_heads: 2, n_kv_heads: 1, head_dim: 64, scale: 0.1 };
    let formats = [KvFormat::I8, KvFormat::Q8_0, KvFormat::Kivi4, KvFormat::KvQuant3].map(|format| {
        let mut layer = Layer::random(PageLayout::new(format, 64, 64).unwrap(), 1, 1000, 1.0, &mut Noise(2));
        if format.seals() {
            layer.seal_before(870);
        }
        layer
    });
    let mut stored_scratch = AttentionScratch::new(2, &stored, 2048).unwrap();
    wait_for_workers(&team);
    let mut step = |rows: usize| {
        let n = rows * width;
        let norm = Norm { kind: NormKind::Rms, eps: 1e-6, weight: &weight, bias: None };
        norm_rows(&table, &team, &norm, &q[..n], &mut x[..n]).unwrap();
        let (cos, sin) = (&mut cos[..rows * 20], &mut sin[..rows * 20]);
        rope_angles(&positions[..rows], &[0.5; 20], cos, sin).unwrap();
        rope(&table, &team, Pairing::Halves, 40, cos, sin, rows, &mut x[..n]).unwrap();
        let jobs = [AttentionJob { kv: &layer, rows: 0..rows, visible: Visible::Causal }];
        attention(&table, &team, &shape, layout, &jobs, &x[..n], &mut scratch, &mut out[..n]).unwrap();
        let sink_q = Some(&q[..n]);
        let visible = Visible::Bands { bands: &bands[..2 * rows], sink_q };
        let job = AttentionJob { kv: &layer, rows: 0..rows, visible };
        let jobs = [job.clone()];
        attention(&table, &team, &shape, layout, &jobs, &x[..n], &mut scratch, &mut out[..n]).unwrap();
        attention_mass(&table, &team, &shape, layout, &job, &x[..n], &mut scratch, &mut mass, 2000).unwrap();
        let (row, weights_of_row) = (&q[..width], &mut row_weights);
        attention_weights(&table, &shape, layout, &layer, row, 2000, &mut scratch, weights_of_row).unwrap();
        let per_head = AttentionShape { n_kv_heads: 4, ..shape };
        let jobs = [AttentionJob { kv: &heads, rows: 0..rows, visible: Visible::Causal }];
        attention(&table, &team, &per_head, layout, &jobs, &x[..n], &mut scratch, &mut out[..n]).unwrap();
        for layer in &formats {
            let (n, jobs) =
                (rows * 128, [AttentionJob { kv: layer, rows: 0..rows, visible: Visible::Causal }]);
            let (q, out, scratch) = (&q[..n], &mut out[..n], &mut stored_scratch);
            attention(&table, &team, &stored, layer.layout, &jobs, q, scratch, out).unwrap();
        }
        activate_gated(&table, &team, Activation::Silu, &mut out[..n], &q[..n]).unwrap();
        route(&table, &team, &mut x[..n], width, 8, true, &mut ids[..rows * 8], &mut weights[..rows * 8])
            .unwrap();
        argmax(&table, &out[..n]).unwrap() as f64 + log_sum_exp(&table, &out[..n])
    };
    step(1);
    // A thread allocates while it starts: each has to have done a tile before allocations count.
    let started = AtomicUsize::new(0);
    while started.load(Ordering::Relaxed) != 0b11 {
        team.run(64, &|_, worker| {
            started.fetch_or(1 << worker, Ordering::Relaxed);
            std::thread::sleep(std::time::Duration::from_micros(50));
        });
    }
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    for rows in [1, 2, 200, 1] {
        assert!(step(rows).is_finite());
    }
    assert_eq!(ALLOCATIONS.load(Ordering::Relaxed) - before, 0);
}
