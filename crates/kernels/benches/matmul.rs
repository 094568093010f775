//! Matrix products: decode (one activation row, weights that no cache holds) in bytes of weights per second, prefill
//! (512 rows) in operations per second, each format beside what this machine's memory and arithmetic reach in the
//! same minute.
//!
//! `cargo bench -p roofline-kernels --bench matmul [-- q4_k]` (threads: `BENCH_THREADS`, default 1; level:
//! `ROOFLINE_ISA`; weights that decode walks through: `BENCH_MIB`, default 256; `BENCH_EXACT=1` for exact arithmetic).
//! Criterion calls operations "elements"; a product and its sum are
//! two. Below the samples of each format stand its rates beside peaks probed right before.
#![allow(clippy::unwrap_used, missing_docs)] // a measurement that cannot be set up may stop

use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput};
use roofline_kernels::probe::{Arithmetic, Memory, Plan, read};
use roofline_kernels::{
    Activations, Arithmetic as Kind, KernelTable, MatmulJob, Operation, PackedMatrix, Team, matmul,
};
use roofline_weights::{Format, blocks};

/// Outputs and inputs of a matrix: a feed-forward layer of a 0.5B model, in whole superblocks.
const ROWS: usize = 2816;
const COLS: usize = 1024;
const PREFILL: usize = 512;
/// MiB of weights that are cycled through in decode, unless `BENCH_MIB` says otherwise.
const BEYOND_CACHE: usize = 256;

fn matrix(format: Format, team: &Team) -> PackedMatrix {
    let weights: Vec<f32> = (0..COLS).map(|i| (i as f32 * 0.37).sin()).collect();
    let mut row = Vec::new();
    blocks::encode(format, &weights, None, &mut row).unwrap();
    PackedMatrix::pack(format, ROWS, COLS, &|_| &row[..], team).unwrap()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Bytes per second that the fastest loop of the probe reads, from as much memory as decode walks through.
fn memory_peak(plan: Plan, bytes: usize) -> f64 {
    let loops = read(plan, Memory { bytes_per_thread: bytes / plan.threads }).unwrap();
    loops.into_iter().map(|samples| median(samples.rates)).fold(0.0, f64::max)
}

/// Operations per second of the fastest instruction for what the kernel multiplies.
fn arithmetic_peak(plan: Plan, numbers: &str) -> f64 {
    let arithmetic = match numbers {
        "i8" => Arithmetic::Int8,
        "i16" => Arithmetic::Int16,
        "bf16" => Arithmetic::Bf16,
        _ => Arithmetic::F32,
    };
    arithmetic.measure(plan).unwrap().map_or(f64::NAN, |samples| median(samples.rates))
}

/// Median seconds of a call.
fn seconds(mut call: impl FnMut()) -> f64 {
    let one = |_| {
        let start = Instant::now();
        call();
        start.elapsed().as_secs_f64()
    };
    median((0..9).map(one).collect())
}

fn main() {
    let threads: usize = std::env::var("BENCH_THREADS").map_or(1, |threads| threads.parse().unwrap());
    let walked = std::env::var("BENCH_MIB").map_or(BEYOND_CACHE, |mib| mib.parse().unwrap()) << 20;
    let isa = std::env::var("ROOFLINE_ISA").ok().map(|name| name.parse().unwrap());
    let kind = if std::env::var_os("BENCH_EXACT").is_some() { Kind::Exact } else { Kind::Fast };
    let (table, team) = (KernelTable::detect_for(isa, kind).unwrap(), Team::new(threads).unwrap());
    let plan = Plan { threads, repeats: 5, sample: Duration::from_millis(50) };
    let wanted = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let mut criterion =
        Criterion::default().sample_size(10).measurement_time(Duration::from_secs(1)).configure_from_args();
    let x: Vec<f32> = (0..PREFILL * COLS).map(|i| (i as f32 * 0.11).cos()).collect();
    let mut activations = Activations::with_capacity(PREFILL, COLS).unwrap();
    let mut out = vec![0.0; PREFILL * ROWS];
    println!("{ROWS} x {COLS}, {threads} threads, {}, {kind} arithmetic", table.isa());
    let is_wanted =
        |format: &Format| wanted.as_ref().is_none_or(|wanted| format.name().contains(wanted.as_str()));
    for format in Format::ALL.into_iter().filter(is_wanted) {
        let first = matrix(format, &team);
        let bytes = first.stored_bytes();
        let mut matrices = vec![first];
        matrices.extend((1..walked / bytes).map(|_| matrix(format, &team)));
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
        let numbers = table
            .choices()
            .find(|choice| choice.operation == Operation::Gemm && choice.format == format.name())
            .map_or("", |choice| choice.numbers);
        let (memory, peak) = (memory_peak(plan, walked), arithmetic_peak(plan, numbers));
        let decode = (matrices.len() * bytes) as f64 / seconds(|| matrices.iter().for_each(|w| run(w, 1)));
        let prefill = (2 * PREFILL * ROWS * COLS) as f64 / seconds(|| run(&matrices[0], PREFILL));
        println!(
            "{format}: decode {:.1} of {:.1} GB/s = {:.2}; prefill {:.0} of {:.0} Gop/s in {numbers} = {:.2}",
            decode / 1e9,
            memory / 1e9,
            decode / memory,
            prefill / 1e9,
            peak / 1e9,
            prefill / peak
        );
    }
    criterion.final_summary();
}
