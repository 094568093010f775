//! Matrix products: decode (one activation row, weights that no cache holds) in bytes of weights per second, prefill
//! (512 rows) in operations per second, each format beside what this machine's memory and arithmetic reach in the
//! same minute.
//!
//! `cargo bench -p roofline-kernels --bench matmul [-- q4_k]` (threads: `BENCH_THREADS`, default 1; level:
//! `ROOFLINE_ISA`). Criterion calls operations "elements"; a product and its sum are two.
#![allow(clippy::unwrap_used, missing_docs)] // a measurement that cannot be set up may stop

use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput};
use roofline_kernels::probe::{Arithmetic, Memory, Plan, read};
use roofline_kernels::{Activations, KernelTable, MatmulJob, PackedMatrix, Team, matmul};
use roofline_weights::{Format, blocks};

/// Outputs and inputs of a matrix: a feed-forward layer of a 0.5B model, in whole superblocks.
const ROWS: usize = 2816;
const COLS: usize = 1024;
const PREFILL: usize = 512;
/// Weight bytes that are cycled through in decode.
const BEYOND_CACHE: usize = 256 << 20;

fn matrix(format: Format, team: &Team) -> PackedMatrix {
    let weights: Vec<f32> = (0..COLS).map(|i| (i as f32 * 0.37).sin()).collect();
    let mut row = Vec::new();
    blocks::encode(format, &weights, None, &mut row).unwrap();
    PackedMatrix::pack(format, ROWS, COLS, &|_| &row[..], team).unwrap()
}

fn print_peaks(threads: usize) {
    let plan = Plan { threads, repeats: 5, sample: Duration::from_millis(50) };
    let median = |mut rates: Vec<f64>| {
        rates.sort_by(f64::total_cmp);
        rates[rates.len() / 2] / 1e9
    };
    for samples in read(plan, Memory { bytes_per_thread: 256 << 20 }).unwrap() {
        println!("peak: reads {:.1} GB/s ({})", median(samples.rates), samples.instruction);
    }
    for arithmetic in Arithmetic::ALL {
        if let Some(samples) = arithmetic.measure(plan).unwrap() {
            println!("peak: {arithmetic:?} {:.1} Gop/s ({})", median(samples.rates), samples.instruction);
        }
    }
}

fn main() {
    let threads: usize = std::env::var("BENCH_THREADS").map_or(1, |threads| threads.parse().unwrap());
    let isa = std::env::var("ROOFLINE_ISA").ok().map(|name| name.parse().unwrap());
    let (table, team) = (KernelTable::detect(isa).unwrap(), Team::new(threads).unwrap());
    let mut criterion =
        Criterion::default().sample_size(10).measurement_time(Duration::from_secs(1)).configure_from_args();
    let x: Vec<f32> = (0..PREFILL * COLS).map(|i| (i as f32 * 0.11).cos()).collect();
    let mut activations = Activations::with_capacity(PREFILL, COLS);
    let mut out = vec![0.0; PREFILL * ROWS];
    println!("{ROWS} x {COLS}, {threads} threads, {}", table.isa());
    print_peaks(threads);
    for format in Format::ALL {
        let first = matrix(format, &team);
        let bytes = first.stored_bytes();
        let mut matrices = vec![first];
        matrices.extend((1..BEYOND_CACHE / bytes).map(|_| matrix(format, &team)));
        let mut run = |w: &PackedMatrix, rows: usize| {
            activations.set(&table, &team, &x[..rows * COLS], rows, COLS, &[format]).unwrap();
            let job = MatmulJob { w, bias: None, out: &mut out[..rows * ROWS], add: false };
            matmul(&table, &team, &activations, &mut [job]).unwrap();
        };
        let mut group = criterion.benchmark_group(format.name());
        group.throughput(Throughput::Bytes(bytes as u64));
        let mut next = matrices.iter().cycle();
        group.bench_function(BenchmarkId::new("decode", 1), |b| {
            b.iter(|| next.by_ref().take(1).for_each(|w| run(w, 1)));
        });
        group.throughput(Throughput::Elements((2 * PREFILL * ROWS * COLS) as u64));
        group.bench_function(BenchmarkId::new("prefill", PREFILL), |b| b.iter(|| run(&matrices[0], PREFILL)));
        group.finish();
    }
    criterion.final_summary();
}
