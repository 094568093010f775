//! The benchmark: its rows count what the calculator predicts, its order is round by round, bad settings are refused.
#![allow(clippy::unwrap_used)] // helpers outside of #[test] too

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use roofline_engine::{CacheSpec, Cpu, KvFormat, Model, ModelFiles};
use roofline_lab::LabError;
use roofline_lab::bench::{BenchError, Phase, Report, Settings, Subject, check_memory, plan, run};
use roofline_lab::environment::Environment;
use roofline_limits::{Accounting, FileFormats, Step};

fn demo_files() -> ModelFiles {
    ModelFiles::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../cli/demo")).unwrap()
}

fn demo(files: &ModelFiles, arithmetic_bits: u32) -> Subject {
    let model = Model::load(files, Cpu::new(2, None).unwrap(), &mut |_, _| {}).unwrap();
    Subject { name: "demo".into(), formats: "bf16".into(), arithmetic_bits, model: Arc::new(model) }
}

fn tiny() -> Settings {
    Settings {
        prefill: vec![7],
        decode: vec![3],
        depths: vec![0, 9],
        threads: vec![1, 2],
        caches: vec![CacheSpec::Full, CacheSpec::fixed(70)],
        kv_formats: vec![KvFormat::F16.into()],
        chunk: 4,
        repetitions: 2,
        seed: 5,
    }
}

fn report(settings: &Settings) -> Report {
    let files = demo_files();
    run(&[demo(&files, 16)], settings, &AtomicBool::new(false), &mut |_| {}).unwrap()
}

#[test]
fn every_combination_is_a_row_with_all_its_samples_in_turn() {
    let (settings, report) = (tiny(), report(&tiny()));
    let rows = 2 * 2 * 2 * 2; // tests, depths, threads, caches
    assert_eq!(report.rows.len(), rows);
    let in_turn: Vec<usize> = (0..settings.repetitions).flat_map(|_| 0..rows).collect();
    assert_eq!(report.order, in_turn);
    assert_eq!((report.probes.len(), report.probe_count), (2, settings.repetitions + 1));
    for (index, row) in report.rows.iter().enumerate() {
        assert_eq!((row.n, row.samples.len()), (2, 2));
        for sample in &row.samples {
            assert_eq!(report.order[sample.position], index);
            assert!(sample.seconds >= sample.operator_seconds && sample.operator_seconds > 0.0);
        }
        let rate = row.tokens_per_s;
        assert!(rate.min <= rate.quartile_low && rate.quartile_low <= rate.median);
        assert!(rate.median <= rate.quartile_high && rate.quartile_high <= rate.max && rate.min > 0.0);
        assert!(row.mbu > 0.0 && row.mfu > 0.0 && row.roof.usual_bandwidth <= row.roof.bandwidth);
    }
}

#[test]
fn rows_move_the_bytes_that_the_calculator_predicts() {
    let files = demo_files();
    let tensors = files.checkpoint().tensors().map(|view| (view.name, view.format, view.shape));
    let formats = FileFormats::new(files.plan(), tensors).unwrap();
    let accounting = formats
        .with(|formats| Accounting::new(files.config(), formats, roofline_limits::KvFormat::F16))
        .unwrap();
    for row in report(&tiny()).rows {
        let depth = row.depth as u64;
        let steps = match row.phase {
            Phase::Prefill => vec![Step::single(4, depth, 0), Step::single(3, depth + 4, 1)],
            Phase::Decode => (0..3).map(|i| Step::single(1, depth + i, 1)).collect(),
        };
        let totals = steps.iter().map(|step| accounting.step(step).unwrap().total());
        let (bytes, flops) = totals.fold((0, 0), |(b, f), cost| (b + cost.bytes(), f + cost.flops));
        assert_eq!((row.bytes, row.flops), (bytes, flops), "{} at {depth}", row.test);
        assert_eq!(row.kv_bytes, accounting.kv_bytes_per_token() * (depth + row.tokens as u64));
        let of_bytes = row.bytes_per_s * row.tokens as f64 / row.tokens_per_s.median;
        assert!((of_bytes - row.bytes as f64).abs() < 1e-6 * row.bytes as f64);
    }
}

#[test]
fn a_row_above_its_limit_is_named() {
    let files = demo_files();
    let settings = Settings { depths: vec![0], threads: vec![1], caches: vec![CacheSpec::Full], ..tiny() };
    let report = run(&[demo(&files, 32)], &settings, &AtomicBool::new(false), &mut |_| {}).unwrap();
    for row in &report.rows {
        assert_eq!(row.above_limit.contains(&"MFU"), row.mfu > 1.0);
        assert_eq!(row.above_limit.contains(&"MBU"), row.mbu > 1.0 && row.roof.level == "memory");
    }
}

#[test]
fn progress_counts_every_run_and_knows_the_time_left_after_the_warm_up() {
    let files = demo_files();
    let settings = Settings { depths: vec![0], threads: vec![1], caches: vec![CacheSpec::Full], ..tiny() };
    let mut seen = Vec::new();
    let watch = &mut |progress: roofline_lab::bench::Progress| seen.push(progress);
    run(&[demo(&files, 16)], &settings, &AtomicBool::new(false), watch).unwrap();
    assert_eq!(seen.iter().map(|p| p.done).collect::<Vec<_>>(), (0..6).collect::<Vec<_>>());
    assert!(seen.iter().all(|p| p.runs == 6 && p.left.is_some() == (p.done >= 2)));
}

#[test]
fn a_cancelled_benchmark_says_so() {
    let files = demo_files();
    let stopped = run(&[demo(&files, 16)], &tiny(), &AtomicBool::new(true), &mut |_| {});
    assert!(matches!(stopped, Err(LabError::Cancelled)));
}

#[test]
fn settings_that_cannot_run_are_refused_by_name() {
    let files = demo_files();
    let models = [("demo", files.config())];
    let refused = |settings: Settings| plan(&models, &settings).unwrap_err().to_string();
    let long = usize::MAX;
    for (settings, words) in [
        (Settings { prefill: vec![0], ..tiny() }, "-p 0 is not between 1 and"),
        (Settings { decode: vec![0], ..tiny() }, "-n 0 is not between"),
        (Settings { threads: vec![0], ..tiny() }, "--threads 0 is not between 1 and 4096"),
        (Settings { repetitions: 0, ..tiny() }, "-r 0 is not between"),
        (Settings { chunk: 0, ..tiny() }, "--chunk 0 is not between"),
        (
            Settings { prefill: vec![2049], ..tiny() },
            "pp2049 at depth 0 needs 2049 tokens of context; demo takes 2048",
        ),
        (
            Settings { depths: vec![long], caches: vec![CacheSpec::Full], ..tiny() },
            "pp7 at depth 18446744073709551615",
        ),
        (Settings { depths: vec![64], ..tiny() }, "static:70 takes 70 tokens: pp7 at depth 64 needs 71"),
        (Settings { caches: vec![CacheSpec::fixed(4096)], ..tiny() }, "demo has a context of 2048"),
        (Settings { prefill: vec![], decode: vec![], ..tiny() }, "give at least one test (-p or -n)"),
        (Settings { depths: vec![], ..tiny() }, "give at least one depth"),
        (
            Settings { depths: (0..300).collect(), caches: vec![CacheSpec::Full], ..tiny() },
            "1200 rows are asked for",
        ),
    ] {
        let message = refused(settings);
        assert!(message.contains(words), "{message}");
    }
    assert_eq!(plan(&[], &tiny()), Err(BenchError::Nothing { what: "model" }));
}

#[test]
fn more_than_the_free_memory_is_refused() {
    let files = demo_files();
    let models = [("demo", files.config())];
    let cases = plan(&models, &tiny()).unwrap();
    let mut environment = Environment::read();
    environment.memory.available_bytes = Some(1 << 30);
    check_memory(&cases, &models, 1 << 20, &environment).unwrap();
    let refused = check_memory(&cases, &models, 1 << 30, &environment);
    assert!(matches!(refused, Err(LabError::Bench(BenchError::Memory { .. }))));
}
