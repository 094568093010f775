//! One accounting, two sides: what the engine's meter counted is what `limits` predicts from the configuration, as
//! integers, for every golden family and every kind of step.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

use roofline_engine::{Cpu, KvFormats, Model, ModelFiles, Session, SessionOptions};
use roofline_lab::convert::{QuantizeOptions, quantize};
use roofline_limits::policies::{Policy, decode_work};
use roofline_limits::{Accounting, FileFormats, Recipe, Step};
use roofline_model::Operator;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn golden_folders() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../engine/tests/golden");
    let mut all: Vec<PathBuf> = std::fs::read_dir(root)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("golden.json").is_file())
        .collect();
    all.sort();
    assert!(all.len() >= 24);
    all
}

/// Steps of (rows, rows through the output head), in order: a prompt at once, in chunks, and decoding.
const PLANS: [&[(usize, bool)]; 3] = [
    &[(13, true), (1, true), (1, true)],
    &[(5, false), (5, false), (3, true), (1, true)],
    &[(1, true), (1, true), (1, true)],
];

/// Long enough that pages are sealed, several in one step, and read as such.
const LONG: &[(usize, bool)] = &[(100, false), (91, false), (1, true), (300, false), (20, true), (1, true)];

/// Storage formats of the cache, alike and apart.
const FORMATS: [&str; 11] = [
    "f32",
    "f16",
    "bf16",
    "i8",
    "q8_0",
    "k=i8,v=f16",
    "k=bf16,v=q8_0",
    "kivi4",
    "kvquant3",
    "k=kivi2,v=i8",
    "k=f16,v=kvquant4",
];

#[test]
fn meter_and_prediction_are_the_same_integers() {
    for folder in golden_folders() {
        for path in [folder.clone(), folder.join("model.gguf")] {
            if path.exists() {
                check(&path);
            }
        }
    }
}

/// The mixes give a model matrices of several formats; Q4_K_M of the demo model has four.
#[test]
fn quantized_models_are_counted_at_their_stored_bytes() {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../cli/demo");
    for recipe in ["q8_0", "q4_k_m", "q2_k", "q5_0"] {
        let path =
            std::env::temp_dir().join(format!("roofline-accounting-{}-{recipe}.gguf", std::process::id()));
        let recipe = Recipe::from_name(recipe).unwrap();
        let options =
            QuantizeOptions { recipe, threads: 2, importance: None, force: true, requantize: false };
        quantize(&demo, &path, &options, |_| ControlFlow::Continue(())).unwrap();
        check(&path);
        std::fs::remove_file(&path).unwrap();
    }
}

fn check(path: &Path) {
    let files = ModelFiles::open(path).unwrap();
    let model = Arc::new(Model::load(&files, Cpu::new(2, None).unwrap(), &mut |_, _| {}).unwrap());
    let formats = FileFormats::new(
        files.plan(),
        files.checkpoint().tensors().map(|view| (view.name, view.format, view.shape)),
    )
    .unwrap();
    let (head_dim, long) = (model.config().head_dim, model.config().context_length >= 600);
    for text in FORMATS {
        let (kv_format, predicted_kv): (KvFormats, roofline_limits::KvFormats) =
            (text.parse().unwrap(), text.parse().unwrap());
        if !head_dim.is_multiple_of(32) && ["q8_0", "kivi", "kvquant"].iter().any(|name| text.contains(name))
        {
            // Both sides refuse it.
            let options = SessionOptions { kv_format, ..SessionOptions::default() };
            assert!(Session::new(model.clone(), options).is_err());
            assert!(formats.with(|formats| Accounting::new(model.config(), formats, predicted_kv)).is_err());
            continue;
        }
        let accounting =
            formats.with(|formats| Accounting::new(model.config(), formats, predicted_kv)).unwrap();
        for plan in PLANS.into_iter().chain(long.then_some(LONG)) {
            let largest = plan.iter().map(|(rows, _)| *rows).max().unwrap();
            let options = SessionOptions { kv_format, chunk: largest, ..SessionOptions::default() };
            let mut session = Session::new(model.clone(), options).unwrap();
            for &(rows, head) in plan {
                let seen = session.tokens().len();
                let ids: Vec<u32> = (0..rows as u32)
                    .map(|i| (i * 7 + seen as u32) % model.config().vocab_size as u32)
                    .collect();
                session.meter_mut().clear();
                if head {
                    session.prefill(&ids).unwrap()
                } else {
                    session.extend(&ids).unwrap()
                }
                let meter = session.meter();
                let mut step = Step::single(rows as u64, seen as u64, u64::from(head));
                if meter.experts_touched().iter().any(|&touched| touched > 0) {
                    step = step.with_touched_experts(meter.experts_touched().to_vec());
                }
                let predicted = accounting.step(&step).unwrap();
                for operator in Operator::ALL {
                    let (counted, predicted) = (meter.cost(operator), predicted.get(operator));
                    assert_eq!(
                        counted,
                        predicted,
                        "{}: {operator}, {rows} rows after {seen}, {kv_format:?}",
                        path.display()
                    );
                }
                assert!(meter.total().flops > 0 && meter.total().bytes() > 0);
            }
        }
    }
}

/// A policy reads fewer slots, bounds or keys twice: every decoded token of it is predicted, all operators.
#[test]
fn decoded_tokens_of_every_policy_are_the_predicted_integers() {
    const PROMPT: u64 = 200;
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../cli/demo");
    let files = ModelFiles::open(&demo).unwrap();
    let model = Arc::new(Model::load(&files, Cpu::new(2, None).unwrap(), &mut |_, _| {}).unwrap());
    let formats = FileFormats::new(
        files.plan(),
        files.checkpoint().tensors().map(|view| (view.name, view.format, view.shape)),
    )
    .unwrap();
    for kv in ["f32", "f16", "i8", "k=q8_0,v=bf16"] {
        let kv_format: KvFormats = kv.parse().unwrap();
        let predicted_kv: roofline_limits::kv_format::KvFormats = kv.parse().unwrap();
        let accounting =
            formats.with(|formats| Accounting::new(model.config(), formats, predicted_kv)).unwrap();
        for (cache, policy) in [
            ("full", Policy::Full),
            ("static:300", Policy::Full),
            ("streaming:sinks=4,window=60", Policy::Streaming { sinks: 4, window: 60 }),
            ("streaming:sinks=4,window=210", Policy::Streaming { sinks: 4, window: 210 }),
            ("snapkv:budget=64", Policy::Budget { tokens: 64 }),
            ("knorm:budget=300", Policy::Budget { tokens: 300 }),
            ("chunkkv:budget=100", Policy::Budget { tokens: 100 }),
            ("h2o:heavy=20,recent=30", Policy::OneOut { tokens: 50 }),
            ("tova:budget=210", Policy::OneOut { tokens: 210 }),
            ("quest:budget=64", Policy::Quest { budget: 64, page: 16, dense_layers: 2 }),
            (
                "quest:budget=70,page=32,dense_layers=0",
                Policy::Quest { budget: 70, page: 32, dense_layers: 0 },
            ),
            ("quest:budget=256", Policy::Quest { budget: 256, page: 16, dense_layers: 2 }),
        ] {
            let options =
                SessionOptions { cache: cache.parse().unwrap(), kv_format, ..SessionOptions::default() };
            let mut session = Session::new(model.clone(), options).unwrap();
            let ids: Vec<u32> = (0..PROMPT as u32).map(|i| i * 13 % 4000).collect();
            session.prefill(&ids).unwrap();
            for seen in PROMPT + 1..PROMPT + 40 {
                session.meter_mut().clear();
                session.decode(seen as u32).unwrap();
                let mut step = Step::single(1, seen - 1, 1);
                step.attention = Some(decode_work(&accounting, policy, PROMPT, seen).unwrap());
                let predicted = accounting.step(&step).unwrap();
                for operator in Operator::ALL {
                    let counted = session.meter().cost(operator);
                    assert_eq!(counted, predicted.get(operator), "{cache}, {kv}: {operator} at {seen}");
                }
            }
        }
    }
}
