//! Attention at depth 4096: decode in bytes of K and V per second, prefill of 512 rows in floating-point operations
//! per second, each beside what this machine's memory and arithmetic reach in the same minute.
//!
//! `cargo bench -p roofline-kernels --bench attention` (threads: `BENCH_THREADS`, default 1; level: `ROOFLINE_ISA`).
//! Criterion calls operations "elements".
#![allow(clippy::unwrap_used, missing_docs)] // a measurement that cannot be set up may stop

use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput};
use roofline_kernels::probe::{Arithmetic, Memory, Plan, read};
use roofline_kernels::{
    AttentionJob, AttentionScratch, AttentionShape, KernelTable, KvFormat, KvLayer, LaneView, PageLayout,
    PageRef, Rows, Team, Visible, attention,
};

const SLOTS: usize = 4096;
const PREFILL: usize = 512;

/// A layer whose pages follow one another, all lanes taking turns.
struct Layer {
    pool: Vec<u8>,
    start: usize, // so that pages lie on cache lines
    page_bytes: usize,
    sealed: bool,
    tables: Vec<Vec<u32>>,
}

impl KvLayer for Layer {
    fn lane(&self, kv_head: usize) -> LaneView<'_> {
        LaneView { table: &self.tables[kv_head], len: SLOTS }
    }
    fn page(&self, id: u32) -> PageRef<'_> {
        let page = &self.pool[self.start + id as usize * self.page_bytes..][..self.page_bytes];
        if self.sealed { PageRef::Sealed(page) } else { PageRef::Hot(page) }
    }
}

/// Every page is full; where the format seals, all of them are sealed.
fn layer(layout: PageLayout, n_kv_heads: usize) -> Layer {
    let (pages, page_bytes) = (SLOTS / layout.slots(), layout.sealed_page_bytes());
    let mut pool = vec![0u8; pages * n_kv_heads * page_bytes + 64];
    let start = pool.as_ptr().align_offset(64);
    let numbers: Vec<f32> =
        (0..layout.slots() * layout.head_dim()).map(|i| (i as f32 * 0.37).sin()).collect();
    let rows = Rows { data: &numbers, stride: layout.head_dim() };
    let mut hot = vec![0; layout.page_bytes()];
    layout.write_slots(&mut hot, 0, layout.slots(), rows, rows);
    let mut page = vec![0; page_bytes];
    layout.seal(&hot, &mut page);
    pool[start..].chunks_exact_mut(page_bytes).for_each(|place| place.copy_from_slice(&page));
    let table = |head: usize| (0..pages).map(|page| (page * n_kv_heads + head) as u32).collect();
    Layer { start, page_bytes, sealed: layout.seals(), tables: (0..n_kv_heads).map(table).collect(), pool }
}

fn print_peaks(threads: usize) {
    let plan = Plan { threads, repeats: 5, sample: Duration::from_millis(50) };
    let median = |mut rates: Vec<f64>| {
        rates.sort_by(f64::total_cmp);
        rates[rates.len() / 2] / 1e9
    };
    for samples in read(plan, Memory { bytes_per_thread: 256 << 20 }).unwrap() {
        println!(
            "peak: reads {:.1} GB/s ({}, {threads} threads)",
            median(samples.rates),
            samples.instruction
        );
    }
    if let Some(samples) = Arithmetic::F32.measure(plan).unwrap() {
        println!(
            "peak: f32 {:.1} GFLOP/s ({}, {threads} threads)",
            median(samples.rates),
            samples.instruction
        );
    }
}

fn main() {
    let threads: usize = std::env::var("BENCH_THREADS").map_or(1, |threads| threads.parse().unwrap());
    let isa = std::env::var("ROOFLINE_ISA").ok().map(|name| name.parse().unwrap());
    let (table, team) = (KernelTable::detect(isa).unwrap(), Team::new(threads).unwrap());
    let mut criterion =
        Criterion::default().sample_size(10).measurement_time(Duration::from_secs(1)).configure_from_args();
    for (n_kv_heads, group, head_dim) in [(16, 1, 64), (8, 4, 128), (2, 7, 64)] {
        let n_heads = n_kv_heads * group;
        let shape = AttentionShape { n_heads, n_kv_heads, head_dim, scale: 1.0 / (head_dim as f32).sqrt() };
        print_peaks(threads);
        for format in KvFormat::ALL {
            let layout = PageLayout::new(format, PageLayout::DEFAULT_SLOTS, head_dim).unwrap();
            // As many layers as no cache holds.
            let layer_bytes = SLOTS / layout.slots() * n_kv_heads * layout.sealed_page_bytes();
            let layers: Vec<Layer> =
                (0..(256 << 20) / layer_bytes).map(|_| layer(layout, n_kv_heads)).collect();
            let mut scratch = AttentionScratch::new(threads, &shape, SLOTS).unwrap();
            let q: Vec<f32> = (0..PREFILL * shape.row()).map(|i| (i as f32 * 0.11).cos()).collect();
            let mut out = vec![0.0; q.len()];
            let mut group =
                criterion.benchmark_group(format!("{n_heads} heads of {head_dim} on {n_kv_heads}"));
            let mut run = |layer: &Layer, rows: usize| {
                let jobs = [AttentionJob { kv: layer, rows: 0..rows, visible: Visible::Causal }];
                let n = rows * shape.row();
                attention(&table, &team, &shape, layout, &jobs, &q[..n], &mut scratch, &mut out[..n])
                    .unwrap();
            };
            group.throughput(Throughput::Bytes(layer_bytes as u64));
            let mut next = layers.iter().cycle();
            group.bench_function(BenchmarkId::new("decode", format), |b| {
                b.iter(|| next.by_ref().take(1).for_each(|layer| run(layer, 1)));
            });
            let seen: usize = (SLOTS - PREFILL + 1..=SLOTS).sum();
            group.throughput(Throughput::Elements((4 * seen * shape.row()) as u64));
            group
                .bench_function(BenchmarkId::new("prefill", format), |b| b.iter(|| run(&layers[0], PREFILL)));
            group.finish();
        }
    }
    criterion.final_summary();
}
