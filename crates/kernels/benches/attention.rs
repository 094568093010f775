//! Attention at depth: decode in bytes of K and V per second, prefill of 512 rows in floating-point operations per
//! second, each beside what this machine's memory and arithmetic reach in the same minute. Counted are the bytes and
//! operations of the slots that are seen.
//!
//! `cargo bench -p roofline-kernels --bench attention [-- FILTER]` (threads: `BENCH_THREADS`, default 1; level:
//! `ROOFLINE_ISA`; MiB of the layers that take turns in decode: `BENCH_MIB`, default 256, 0 for one layer).
//! Criterion calls operations "elements". One thread is measured by the time it was on a processor where Linux tells
//! it, so that other programs cost only their share of memory; several by the clock.
#![allow(clippy::unwrap_used, missing_docs)] // a measurement that cannot be set up may stop

use std::time::{Duration, Instant};

use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use criterion::{Criterion, SamplingMode, Throughput};
use roofline_kernels::probe::{Arithmetic, Memory, Plan, read};
use roofline_kernels::{
    AttentionJob, AttentionScratch, AttentionShape, Band, KernelTable, KvFormat, KvLayer, LaneView,
    PageBounds, PageLayout, PageRef, PageScore, Rows, Team, Visible, attention, attention_mass,
};

const PREFILL: usize = 512;
/// Bytes of the layers that take turns in decode.
fn data_bytes() -> usize {
    std::env::var("BENCH_MIB").map_or(256, |mib| mib.parse().unwrap()) << 20
}

/// Time of this thread, or of the clock.
#[derive(Clone, Copy)]
struct Clock {
    origin: Instant,
    of_thread: bool,
}

impl Clock {
    fn now(&self) -> Duration {
        // The first number is nanoseconds on a processor, counted on at every tick.
        let line = || std::fs::read_to_string("/proc/thread-self/schedstat").ok();
        let busy = || line()?.split(' ').next()?.parse().ok().map(Duration::from_nanos);
        self.of_thread.then(busy).flatten().unwrap_or_else(|| self.origin.elapsed())
    }
}

impl Measurement for Clock {
    type Intermediate = Duration;
    type Value = Duration;

    fn start(&self) -> Duration {
        self.now()
    }
    fn end(&self, start: Duration) -> Duration {
        self.now().saturating_sub(start)
    }
    fn add(&self, a: &Duration, b: &Duration) -> Duration {
        *a + *b
    }
    fn zero(&self) -> Duration {
        Duration::ZERO
    }
    fn to_f64(&self, value: &Duration) -> f64 {
        WallTime.to_f64(value)
    }
    fn formatter(&self) -> &dyn ValueFormatter {
        WallTime.formatter()
    }
}

/// A layer whose pages follow one another, all lanes taking turns.
struct Layer {
    pool: Vec<u8>,
    start: usize, // so that pages lie on cache lines
    page_bytes: usize,
    sealed: bool,
    tables: Vec<Vec<u32>>,
    slots: usize,
}

impl KvLayer for Layer {
    fn lane(&self, kv_head: usize) -> LaneView<'_> {
        LaneView { table: &self.tables[kv_head], len: self.slots }
    }
    fn page(&self, id: u32) -> PageRef<'_> {
        let page = &self.pool[self.start + id as usize * self.page_bytes..][..self.page_bytes];
        if self.sealed { PageRef::Sealed(page) } else { PageRef::Hot(page) }
    }
}

/// Every page is full; where the format seals, all of them are sealed.
fn layer(layout: PageLayout, n_kv_heads: usize, slots: usize) -> Layer {
    let (pages, page_bytes) = (slots / layout.slots(), layout.sealed_page_bytes());
    let mut pool = vec![0u8; pages * n_kv_heads * page_bytes + 64];
    let start = pool.as_ptr().align_offset(64);
    let numbers: Vec<f32> =
        (0..layout.slots() * layout.head_dim()).map(|i| (i as f32 * 0.37).sin()).collect();
    let rows = Rows { data: &numbers, stride: layout.head_dim() };
    let mut hot = vec![0; layout.page_bytes()];
    layout.write_slots(&KernelTable::detect(None).unwrap(), &mut hot, 0, layout.slots(), rows, rows);
    let mut page = vec![0; page_bytes];
    layout.seal(&hot, &mut page);
    pool[start..].chunks_exact_mut(page_bytes).for_each(|place| place.copy_from_slice(&page));
    let table = |head: usize| (0..pages).map(|page| (page * n_kv_heads + head) as u32).collect();
    let tables = (0..n_kv_heads).map(table).collect();
    Layer { start, page_bytes, sealed: layout.seals(), tables, pool, slots }
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

/// One measurement: so many of the newest rows of a lane of so many slots.
#[derive(Clone, Copy)]
struct Case {
    what: &'static str,
    rows: usize,
    slots: usize,
    page: usize,
    format: KvFormat,
    /// Slots that a row sees behind 4 sinks; all before it if there is none.
    window: Option<usize>,
    /// Whether the mass of the slots is asked for rather than the outputs: half the operations.
    mass: bool,
}

impl Case {
    fn decode(what: &'static str, slots: usize, format: KvFormat) -> Case {
        Case { what, rows: 1, slots, page: PageLayout::DEFAULT_SLOTS, format, window: None, mass: false }
    }

    fn prefill(what: &'static str, slots: usize, format: KvFormat) -> Case {
        Case { rows: PREFILL, ..Case::decode(what, slots, format) }
    }

    /// What each row of each KV head sees.
    fn bands(&self, n_kv_heads: usize) -> Vec<Band> {
        let lane = (0..self.rows).map(|row| {
            let to = self.slots - self.rows + row + 1;
            let from = self.window.map_or(0, |window| to.saturating_sub(window).max(4));
            Band { sinks: from.min(4), from, to }
        });
        lane.cycle().take(self.rows * n_kv_heads).collect()
    }
}

fn cases() -> Vec<Case> {
    use KvFormat::F16;
    let mut cases = Vec::new();
    for format in KvFormat::ALL {
        cases.push(Case::decode("decode at 4096", 4096, format));
        cases.push(Case::prefill("prefill at 4096", 4096, format));
    }
    let window = Some(1020);
    cases.extend([
        Case::decode("decode at 1024", 1024, F16),
        Case::decode("decode at 16384", 16384, F16),
        Case::decode("decode at 32768", 32768, F16),
        Case { page: 16, ..Case::decode("decode at 4096, pages of 16", 4096, F16) },
        Case { window, ..Case::decode("decode at 16384 through 4+1020", 16384, F16) },
        Case { window, ..Case::prefill("prefill at 16384 through 4+1020", 16384, F16) },
        Case { page: 16, ..Case::prefill("prefill at 4096, pages of 16", 4096, F16) },
        Case { mass: true, rows: 32, ..Case::prefill("mass of 32 rows at 4096", 4096, F16) },
        Case { mass: true, ..Case::decode("mass of 1 row at 4096", 4096, F16) },
    ]);
    cases
}

fn measure(
    criterion: &mut Criterion<Clock>,
    table: &KernelTable,
    team: &Team,
    shape: &AttentionShape,
    case: Case,
) {
    let AttentionShape { n_heads, n_kv_heads, head_dim, .. } = *shape;
    let layout = PageLayout::new(case.format, case.page, head_dim).unwrap();
    let bands = case.bands(n_kv_heads);
    let seen: usize = bands.iter().map(|band| band.slots()).sum();
    let layer_bytes = case.slots / case.page * n_kv_heads * layout.sealed_page_bytes();
    let layers = if case.rows == 1 { data_bytes().div_ceil(layer_bytes).max(1) } else { 1 };
    let mut ready: Option<Vec<Layer>> = None; // made when first measured, so that a filter leaves out their making too
    let mut group = criterion.benchmark_group(format!("{n_heads} heads of {head_dim} on {n_kv_heads}"));
    group.sampling_mode(SamplingMode::Flat);
    group.throughput(if case.rows == 1 {
        let bytes = seen * layout.sealed_page_bytes() / case.page;
        Throughput::Bytes((bytes / if case.mass { 2 } else { 1 }) as u64)
    } else {
        Throughput::Elements((if case.mass { 2 } else { 4 } * seen * shape.group() * head_dim) as u64)
    });
    let mut scratch = AttentionScratch::new(team.threads(), shape, case.slots).unwrap();
    let q: Vec<f32> = (0..case.rows * shape.row()).map(|i| (i as f32 * 0.11).cos()).collect();
    let (mut out, mut mass) = (vec![0.0; q.len()], vec![0.0; n_kv_heads * case.slots]);
    group.bench_function(format!("{}, {}", case.what, case.format), |b| {
        let make = || (0..layers).map(|_| layer(layout, n_kv_heads, case.slots)).collect();
        let layers: &Vec<Layer> = ready.get_or_insert_with(make);
        let mut next = layers.iter().cycle();
        b.iter(|| {
            let Some(kv) = next.next() else { return };
            let visible = match case.window {
                None => Visible::Causal,
                Some(_) => Visible::Bands { bands: &bands, sink_q: Some(&q) },
            };
            let job = AttentionJob { kv, rows: 0..case.rows, visible };
            if case.mass {
                let (mass, stride) = (&mut mass, case.slots);
                attention_mass(table, team, shape, layout, &job, &q, &mut scratch, mass, stride).unwrap();
            } else {
                attention(table, team, shape, layout, &[job], &q, &mut scratch, &mut out).unwrap();
            }
        });
    });
    group.finish();
}

/// The scores of all pages of a lane, which a step of Quest needs before it attends to some of them.
fn measure_bounds(criterion: &mut Criterion<Clock>, table: &KernelTable, shape: &AttentionShape) {
    let (slots, d) = (32768, shape.head_dim);
    let layout = PageLayout::new(KvFormat::F16, 16, d).unwrap();
    let lane = layer(layout, 1, slots);
    let mut bounds = PageBounds::new(layout);
    bounds.resize(slots / 16);
    for (page, id) in lane.tables[0].iter().enumerate() {
        bounds.update(page, lane.page(*id), 0..16);
    }
    let q: Vec<f32> = (0..shape.group() * d).map(|i| (i as f32 * 0.11).cos()).collect();
    let mut out = vec![0.0; bounds.pages()];
    let mut group = criterion.benchmark_group(format!("group of {} heads of {d}", shape.group()));
    group.sampling_mode(SamplingMode::Flat);
    group.throughput(Throughput::Bytes(bounds.bytes() as u64));
    group.bench_function("bounds of 2048 pages of 16", |b| {
        b.iter(|| bounds.score(table, &q, bounds.pages(), PageScore::MaxOfGroup, &mut out).unwrap());
    });
    group.finish();
}

fn main() {
    let threads: usize = std::env::var("BENCH_THREADS").map_or(1, |threads| threads.parse().unwrap());
    let isa = std::env::var("ROOFLINE_ISA").ok().map(|name| name.parse().unwrap());
    let (table, team) = (KernelTable::detect(isa).unwrap(), Team::new(threads).unwrap());
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .with_measurement(Clock { origin: Instant::now(), of_thread: threads == 1 })
        .configure_from_args();
    for (n_kv_heads, group, head_dim) in [(16, 1, 64), (8, 4, 128), (2, 7, 64), (1, 8, 64)] {
        let n_heads = n_kv_heads * group;
        let shape = AttentionShape { n_heads, n_kv_heads, head_dim, scale: 1.0 / (head_dim as f32).sqrt() };
        print_peaks(threads);
        for case in cases() {
            measure(&mut criterion, &table, &team, &shape, case);
        }
        measure_bounds(&mut criterion, &table, &shape);
    }
    criterion.final_summary();
}
