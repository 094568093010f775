//! Experiments on the demo model: what is written, what is continued, what is refused, what follows.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers outside of #[test] too

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use roofline_engine::EmbeddedModel;
use roofline_lab::LabError;
use roofline_lab::experiment::rows::{About, Finding, Measurement, Metric, Row, Value};
use roofline_lab::experiment::{
    Analysis, Job, Outcome, Progress, Recording, Spec, findings, hash_of, presets, run, summarize,
};
use roofline_lab::machine::{Machine, measure_quickly};

const DEMO: EmbeddedModel = EmbeddedModel {
    name: "demo",
    config: include_str!("../../cli/demo/config.json"),
    generation_config: include_str!("../../cli/demo/generation_config.json"),
    weights: include_bytes!("../../cli/demo/model.safetensors"),
    tokenizer: include_bytes!("../../cli/demo/tokenizer.json"),
};

fn scratch(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.jsonl"));
    let _ = std::fs::remove_file(&path);
    path
}

fn spec(axes: &str) -> Spec {
    let text = format!("repeats = 3\nwarm_up = 1\nseed = 5\n[axes]\nthreads = 1\nprompt = 9\n{axes}");
    Spec::from_toml(&text, "tiny").unwrap()
}

fn job<'a>(spec: &'a Spec, path: &'a Path) -> Job<'a> {
    // A probe reads gigabytes where the last cache is large; one serves all tests.
    static MACHINE: OnceLock<Machine> = OnceLock::new();
    let machine = Some(MACHINE.get_or_init(|| measure_quickly(1).unwrap()));
    Job { spec, path, command: "roofline experiment tiny.toml", embedded: DEMO, isa: None, machine }
}

fn measure(spec: &Spec, path: &Path) -> Result<Outcome, LabError> {
    run(job(spec, path), &AtomicBool::new(false), &mut |_| {})
}

#[test]
fn every_cell_runs_once_a_round_and_every_row_is_whole() {
    let path = scratch("whole");
    let spec = spec("output = [3, 8]\ncache = [\"full\", \"static:fit\"]\nkv_type = [\"f16\", \"f32\"]");
    let outcome = measure(&spec, &path).unwrap();
    let recording = &outcome.recording;
    assert_eq!((outcome.measured, outcome.interrupted), (24, false));
    assert_eq!(recording.header.experiment_hash, spec.hash());
    assert!(recording.is_finished() && recording.left_out.is_empty());
    let machine = recording.header.machine.as_ref().unwrap();
    assert!(machine.figures.iter().all(|figure| figure.threads == 1));
    let runs: Vec<&Measurement> = recording.measurements().collect();
    assert_eq!(runs.len(), 8 + 24);
    assert_eq!(runs.iter().map(|run| run.order).collect::<Vec<_>>(), (0..32).collect::<Vec<_>>());
    for run in runs {
        let output = match run.cell.get("output") {
            Some(Value::Whole(n)) => *n as usize,
            other => panic!("{other:?}"),
        };
        assert_eq!(run.cell_hash, hash_of(&run.cell));
        assert_eq!((run.prompt_tokens, run.finish.as_deref()), (9, Some("length")));
        let staged: f64 = run.stages.iter().map(|(_, seconds)| seconds).sum();
        assert!((1.0 - staged / run.wall_s - run.unaccounted).abs() < 1e-4);
        assert_eq!(run.adds_up, run.unaccounted.abs() <= 0.02);
        if run.warm_up {
            assert!(run.tokens.is_empty());
            continue;
        }
        // n tokens, the last of them at or before the end of the wall time, and n − 1 steps between them.
        assert_eq!(run.tokens.len(), output);
        assert!(run.tokens.windows(2).all(|pair| pair[0] < pair[1]));
        let metric = |name: &str| run.metrics.get(name).unwrap().value;
        let (ttft, tpot) = (metric("ttft"), metric("tpot"));
        let last = run.tokens[output - 1];
        assert!((ttft + (output - 1) as f64 * tpot - last).abs() < 1e-6, "E2E = TTFT + (n − 1)·TPOT");
        assert!(last <= run.wall_s + 1e-6 && metric("attention_share") < 1.0);
        let tokens = 9 + output as u64 - 1; // the last one was never fed back
        let element = if run.cell.get("kv_type") == Some(&Value::Text("f32".into())) { 4 } else { 2 };
        assert_eq!(run.bytes.kv_live, tokens * 6 * 2 * 2 * 32 * element);
        assert!(run.bytes.kv_peak >= run.bytes.kv_live);
        assert!(run.limits.get("tpot").unwrap().value > 0.0 && run.limits.get("w").is_some());
    }
    for cell in summarize(recording) {
        assert_eq!((cell.n, cell.metrics.get("tpot").unwrap().n), (3, 3));
        let tpot = cell.metrics.get("tpot").unwrap();
        assert!(tpot.interval.unwrap().contains(tpot.median) && tpot.min <= tpot.p5 && tpot.p95 <= tpot.p99);
    }
    assert_eq!(recording.findings().cloned().collect::<Vec<Finding>>(), findings(recording));
}

#[test]
fn the_same_seed_gives_the_same_order_and_the_same_text() {
    let spec = spec("cap = [4, 6]\neos = [\"sentence\"]\nitem = [0, 1]");
    let spec = Spec { temperature: 0.8, ..spec };
    let order = |name: &str| -> Vec<(String, Option<String>)> {
        let outcome = measure(&spec, &scratch(name)).unwrap();
        let pair = |run: &Measurement| (run.cell_hash.clone(), run.output_hash.clone());
        outcome.recording.counted().map(pair).collect()
    };
    assert_eq!(order("seed_a"), order("seed_b"));
}

#[test]
fn a_cap_that_is_not_reached_changes_nothing() {
    let base = spec("cap = [100, 400]\neos = [\"sentence\"]\nitem = [0, 1, 2]");
    let spec = Spec { temperature: 0.8, analysis: Analysis::MaxNewTokens, ..base };
    let outcome = measure(&spec, &scratch("cap")).unwrap();
    // Which answers end within 100 tokens depends on the arithmetic of the machine; one that ends later is cut by the lower cap.
    let ended_by_itself = |run: &&&Measurement| run.finish.as_deref() == Some("eos");
    let runs: Vec<&Measurement> = outcome.recording.counted().collect();
    let mut ended = 0;
    for a in runs.iter().filter(ended_by_itself) {
        for b in runs.iter().filter(ended_by_itself).filter(|b| b.cell.get("item") == a.cell.get("item")) {
            assert_eq!((&a.output_hash, a.bytes.kv_peak), (&b.output_hash, b.bytes.kv_peak));
            ended += usize::from(a.cell.get("cap") != b.cell.get("cap"));
        }
    }
    assert!(ended > 0, "no answer of the demo model ended a sentence within 100 tokens");
    let found = findings(&outcome.recording);
    let cost = found.iter().find(|finding| finding.name == "cost_of_the_cap").unwrap();
    assert!(cost.sentence.contains("not one byte of cache"), "{}", cost.sentence);
}

/// Killed anywhere: the file goes on from its last whole line, no run is lost, none runs twice.
#[test]
fn a_file_cut_off_anywhere_is_continued() {
    let path = scratch("cut");
    let spec = spec("output = [2, 5]");
    measure(&spec, &path).unwrap();
    let whole = std::fs::read(&path).unwrap();
    let header = whole.iter().position(|&byte| byte == b'\n').unwrap() + 1;
    for cut in [0, header, header + 700, whole.len() / 2, whole.len() * 4 / 5, whole.len() - 3] {
        std::fs::write(&path, &whole[..cut]).unwrap();
        let before = Recording::parse(&whole[..cut], "x").map_or(0, |recording| recording.counted().count());
        let outcome = measure(&spec, &path).unwrap();
        assert_eq!(outcome.measured, 6 - before, "cut at {cut}");
        let mut rounds: Vec<(String, usize)> =
            outcome.recording.counted().map(|run| (run.cell_hash.clone(), run.repeat)).collect();
        rounds.sort();
        rounds.dedup();
        assert_eq!((rounds.len(), outcome.recording.counted().count()), (6, 6), "cut at {cut}");
        assert!(outcome.recording.is_finished() && outcome.recording.left_out.is_empty());
        let resumed = outcome.recording.notes().any(|note| note.about == About::Resumed);
        assert_eq!(resumed, cut > 0);
    }
    let bytes = std::fs::read(&path).unwrap();
    let outcome = measure(&spec, &path).unwrap();
    assert_eq!(outcome.measured, 0, "a complete file is not measured again");
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
}

#[test]
fn an_interrupted_run_leaves_a_file_that_goes_on() {
    let path = scratch("interrupted");
    let spec = spec("output = [2, 5]");
    let cancel = AtomicBool::new(false);
    let outcome = run(job(&spec, &path), &cancel, &mut |progress| {
        if matches!(progress, Progress::Running { warm_up: false, done: 3, .. }) {
            cancel.store(true, Ordering::Relaxed);
        }
    })
    .unwrap();
    assert!(outcome.interrupted && !outcome.recording.is_finished());
    assert_eq!((outcome.measured, outcome.recording.counted().count()), (3, 3));
    assert!(outcome.recording.notes().any(|note| note.about == About::Interrupted));
    let outcome = measure(&spec, &path).unwrap();
    assert_eq!((outcome.measured, outcome.recording.counted().count()), (3, 6));
}

#[test]
fn files_of_something_else_are_left_alone() {
    let path = scratch("other");
    measure(&spec("output = 2"), &path).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let error = measure(&spec("output = 3"), &path).unwrap_err().to_string();
    assert!(error.contains("holds another experiment (tiny"), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
    std::fs::write(&path, "dear diary\n").unwrap();
    let error = measure(&spec("output = 3"), &path).unwrap_err().to_string();
    assert!(error.contains("line 1"), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), b"dear diary\n");
    let device = measure(&spec("output = 3"), Path::new("/dev/zero")).unwrap_err().to_string();
    assert!(device.contains("/dev/zero"), "{device}");
}

/// The weights are in memory: a file that goes away between two rounds changes nothing, and a later run says that it is
/// gone.
#[test]
fn a_model_that_is_removed_while_it_is_measured_loses_no_row() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("removed");
    std::fs::create_dir_all(&folder).unwrap();
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder.join(name), bytes).unwrap();
    write("config.json", DEMO.config.as_bytes());
    write("generation_config.json", DEMO.generation_config.as_bytes());
    write("tokenizer.json", DEMO.tokenizer);
    write("model.safetensors", DEMO.weights);
    let path = scratch("removed_rows");
    let spec = spec(&format!("output = [2, 5]\nmodel = {:?}", folder.display().to_string()));
    let outcome = run(job(&spec, &path), &AtomicBool::new(false), &mut |progress| {
        if matches!(progress, Progress::Running { warm_up: false, done: 2, .. }) {
            std::fs::remove_dir_all(&folder).unwrap();
        }
    })
    .unwrap();
    assert_eq!(outcome.recording.counted().count(), 6);

    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let error = measure(&spec, &path).unwrap_err().to_string();
    assert!(error.contains("removed") && error.lines().count() == 1, "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), &whole[..whole.len() / 2]);
}

#[test]
fn a_model_that_changed_is_not_continued() {
    let path = scratch("changed");
    let spec = spec("output = [2, 5]");
    measure(&spec, &path).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let hash = lines[1].split("\"hash\":\"").nth(1).unwrap().split('"').next().unwrap();
    let other = text.replace(hash, "0123456789abcdef");
    let kept: Vec<&str> = other.lines().take(4).collect();
    std::fs::write(&path, kept.join("\n") + "\n").unwrap();
    let error = measure(&spec, &path).unwrap_err().to_string();
    assert!(error.contains("is not the one that") && error.contains("0123456789abcdef"), "{error}");
}

#[test]
fn cells_beyond_the_context_are_noted_and_the_rest_runs() {
    let path = scratch("beyond");
    let outcome = measure(&spec("output = [2, 2040]"), &path).unwrap();
    let skipped: Vec<&str> = (outcome.recording.notes())
        .filter(|note| note.about == About::Skipped)
        .map(|note| note.text.as_str())
        .collect();
    assert_eq!(skipped, ["output 2040: beyond the context: it needs 2049 tokens, demo takes 2048"]);
    assert_eq!(outcome.recording.counted().count(), 3);
    let error = measure(&spec("output = 2040"), &scratch("nothing")).unwrap_err().to_string();
    assert!(error.contains("nothing can run: beyond the context"), "{error}");
}

#[test]
fn precisions_depths_and_geometries_are_made_on_the_fly() {
    let path = scratch("made");
    let outcome =
        measure(&spec("output = 3\nprecision = [\"stored\", \"w8\"]\ndepth = [0, 40]"), &path).unwrap();
    let runs: Vec<&Measurement> = outcome.recording.counted().collect();
    assert_eq!(runs.len(), 12);
    for run in &runs {
        let depth = if run.cell.get("depth") == Some(&Value::Whole(40)) { 40 } else { 0 };
        assert_eq!(run.bytes.kv_live, (depth + 9 + 2) * 6 * 2 * 2 * 32 * 2);
    }
    let weights = |precision: &str| {
        let of = |run: &&&Measurement| run.cell.get("precision") == Some(&Value::Text(precision.into()));
        runs.iter().find(of).unwrap().bytes.weights as f64
    };
    assert!((weights("stored") / weights("w8") - 16.0 / 8.5).abs() < 0.02);
    let unknown = measure(&spec("output = 3\nmodel = \"pythia-70n\""), &scratch("unknown"));
    assert!(unknown.unwrap_err().to_string().contains("Pythia-70M"));
}

/// Against itself a model diverges by nothing; fewer bits cost something, and so does a cache of a few tokens.
#[test]
fn quality_stands_beside_the_times() {
    let of = |name: &str, axes: &str| -> Vec<(String, f64, f64)> {
        let base = spec(&format!("output = 2\n{axes}"));
        let spec = Spec { quality: true, repeats: 1, warm_up: 0, ..base };
        let outcome = measure(&spec, &scratch(name)).unwrap();
        let axis = spec.varied()[0].to_string();
        let row = |quality: &roofline_lab::experiment::rows::Quality| {
            let metric = |name: &str| quality.metrics.get(name).unwrap().value;
            (quality.cell.get(&axis).unwrap().to_string(), metric("perplexity"), metric("kl"))
        };
        outcome.recording.qualities().map(row).collect()
    };
    let precisions = of("quality_precision", "precision = [\"w8\", \"w3\"]");
    let [(_, base, none), (_, three, much)] = &precisions[..] else { panic!("{precisions:?}") };
    assert!(none.abs() < 1e-9 && *much > 0.01 && three > base, "{precisions:?}");

    let caches = of("quality_cache", "cache = [\"full\", \"streaming:sinks=4,window=12\"]");
    let [(_, full, none), (_, cut, much)] = &caches[..] else { panic!("{caches:?}") };
    assert!(none.abs() < 1e-9 && *much > 0.01 && cut > full, "{caches:?}");
}

/// Steps of exactly B + position/W, and walls of exactly b + a·n: what is found is what was put in.
#[test]
fn findings_recover_what_rows_were_made_of() {
    let path = scratch("synthetic");
    let mut spec = presets::find("output-tokens").unwrap().spec(false);
    spec.axes.set("output", [16, 32, 64, 128, 256].map(Value::Whole).to_vec());
    spec.axes.set("threads", vec![Value::Whole(1)]);
    (spec.repeats, spec.warm_up) = (4, 0);
    let mut recording = measure(&spec, &path).unwrap().recording;
    let (b, w, ttft) = (3e-4, 4e6, 5e-3);
    for row in &mut recording.rows {
        let Row::Measurement(run) = row else { continue };
        let mut at = ttft;
        for (i, token) in run.tokens.iter_mut().enumerate() {
            if i > 0 {
                at += b + (run.prompt_tokens + i - 1) as f64 / w;
            }
            *token = at;
        }
        run.wall_s = at;
        run.metrics.set("e2e", Metric::new(at, "s"));
    }
    let found = findings(&recording);
    let value = |finding: &str, name: &str| {
        let finding = found.iter().find(|found| found.name == finding).unwrap();
        finding.values.get(name).unwrap().value
    };
    assert!((value("steps", "b") / b - 1.0).abs() < 1e-6);
    assert!((value("steps", "slope") * w - 1.0).abs() < 1e-6);
    assert!((value("whole", "c") * 2.0 * w - 1.0).abs() < 1e-3);
    assert!(value("log_log", "slope_of_steps") > 1.0);
}

/// A measured file whose figures are replaced by ones of known truth.
fn made_up(
    name: &str,
    axes: &str,
    analysis: Analysis,
    figure: impl Fn(&Measurement) -> (&'static str, f64),
) -> Vec<Finding> {
    let spec = Spec { analysis, repeats: 6, warm_up: 0, ..spec(axes) };
    let mut recording = measure(&spec, &scratch(name)).unwrap().recording;
    for row in &mut recording.rows {
        if let Row::Measurement(run) = row {
            let (metric, value) = figure(run);
            run.metrics.set(metric, Metric::new(value, "s"));
        }
    }
    findings(&recording)
}

/// Reproducible noise of ± 2 % from the order of the run, without a pattern in it.
fn wobble(run: &Measurement) -> f64 {
    let mixed = (run.order as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    1.0 + 0.02 * ((mixed >> 40) as f64 / (1u64 << 23) as f64 - 1.0)
}

fn named<'f>(found: &'f [Finding], name: &str) -> &'f Finding {
    found.iter().find(|finding| finding.name == name).unwrap_or_else(|| panic!("no {name} in {found:?}"))
}

#[test]
fn a_turning_point_of_known_place_is_found() {
    let mut spec = Spec { analysis: Analysis::PromptLength, warm_up: 0, ..spec("output = 1") };
    spec.axes.set("prompt", [1, 2, 4, 8, 12, 16, 24, 32, 48, 64].map(Value::Whole).to_vec());
    let mut recording = measure(&spec, &scratch("turn")).unwrap().recording;
    for row in &mut recording.rows {
        if let Row::Measurement(run) = row {
            let rows = run.prompt_tokens as f64;
            run.metrics.set("prefill", Metric::new(1e-3 * wobble(run) * (rows / 10.0).max(1.0), "s"));
        }
    }
    let found = findings(&recording);
    let turn = named(&found, "turning_point");
    let value = turn.values.get("turn").unwrap();
    assert!((8.0..12.5).contains(&value.value), "{turn:?}");
    assert!(turn.sentence.starts_with("The prompt's time turns at"), "{}", turn.sentence);
}

#[test]
fn equal_arms_show_no_difference_and_unequal_ones_do() {
    let arms = "output = 3\narm = [\"A\", \"B\"]";
    let equal = made_up("arms_equal", arms, Analysis::Noise, |run| ("tpot", 1e-3 * wobble(run)));
    assert!(named(&equal, "arms_tpot").sentence.contains("no difference shown"));
    assert!(named(&equal, "drift").sentence.contains("No drift shown"));
    let slower = made_up("arms_unequal", arms, Analysis::Noise, |run| {
        let factor = if run.cell.get("arm") == Some(&Value::Text("B".into())) { 1.2 } else { 1.0 };
        ("tpot", 1e-3 * factor * wobble(run))
    });
    let sentence = &named(&slower, "arms_tpot").sentence;
    assert!(sentence.contains("% more"), "{sentence}");
}

#[test]
fn drift_is_said() {
    let found = made_up("drift", "output = 3", Analysis::Plain, |run| {
        ("tpot", 1e-3 * (1.0 + 0.05 * run.order as f64) * (1.0 + 0.1 * (wobble(run) - 1.0)))
    });
    let sentence = &named(&found, "drift").sentence;
    assert!(sentence.starts_with("tpot moved by +"), "{sentence}");
}

#[test]
fn a_policy_inside_of_the_noise_is_no_saving() {
    let caches = "output = 3\ncache = [\"full\", \"static:fit\"]";
    // Every other round takes twice as long, whatever the cache.
    let found = made_up("noisy_policy", caches, Analysis::CachePolicy, |run| {
        let factor = if run.cell.get("cache") == Some(&Value::Text("full".into())) { 1.0 } else { 0.9 };
        ("itl_p50", 1e-3 * factor * wobble(run) * if run.repeat % 2 == 0 { 1.0 } else { 2.0 })
    });
    let sentence = &named(&found, "cache_static:fit").sentence;
    assert!(sentence.contains("itl_p50") && sentence.contains("(no difference shown)"), "{sentence}");
}

/// The same rows with other wall clocks and machines give the same findings, and reading is the inverse of writing.
#[test]
fn rows_come_back_as_they_went() {
    let path = scratch("round_trip");
    let recording = measure(&spec("output = [2, 5]"), &path).unwrap().recording;
    let text = std::fs::read_to_string(&path).unwrap();
    let mut again = String::new();
    for line in text.lines() {
        let row: Row = serde_json::from_str(line).unwrap();
        again.push_str(&(serde_json::to_string(&row).unwrap() + "\n"));
    }
    assert_eq!(text, again);
    // A later version adds fields and kinds.
    let future = text.replace("{\"kind\":\"measurement\",", "{\"kind\":\"measurement\",\"colour\":\"blue\",")
        + "{\"kind\":\"painting\",\"of\":\"rows\"}\n";
    let read = Recording::parse(future.as_bytes(), "future").unwrap();
    assert_eq!(read.rows, recording.rows);
    assert_eq!(read.left_out.len(), 1);
    let newer = text.replacen("\"schema\":1", "\"schema\":2", 1);
    assert!(Recording::parse(newer.as_bytes(), "f").unwrap_err().to_string().contains("newer"));
    let broken = text.replacen("{\"kind\":\"note\"", "{\"kind\":\"note", 1);
    assert!(Recording::parse(broken.as_bytes(), "f").unwrap_err().to_string().contains("f, line "));
}
