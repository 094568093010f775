//! Every cache policy against its definition: what each lane keeps and what the model then says; see
//! `golden/policies/README.md`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

mod support;

use roofline_engine::{KvFormat, Model, Session, SessionOptions};
use roofline_weights::{Checkpoint, blocks};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use support::{load, max_difference};

/// Logits of an f32 engine with an f32 cache against the float64 reference, whose attention is dense over what is kept.
const TOLERANCE: f32 = 1e-5;

/// Kept positions, ascending: `[layer][kv_head]`.
type Kept = Vec<Vec<Vec<usize>>>;

struct Case {
    spec: String,
    ids: Vec<u32>,
    prompt: usize,
    logits: Vec<f32>, // (ids - prompt + 1, vocab)
    after_prompt: Kept,
    at_end: Kept,
}

impl Case {
    fn name(&self) -> String {
        format!("{} ({} + {})", self.spec, self.prompt, self.ids.len() - self.prompt)
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/policies")
}

fn cases(model: &str) -> Vec<Case> {
    let text = std::fs::read_to_string(folder().join(format!("{model}.json"))).unwrap();
    let json: Value = serde_json::from_str(&text).unwrap();
    let tensors = Checkpoint::open_safetensors(folder().join(format!("{model}.safetensors"))).unwrap();
    let number = |value: &Value| value.as_u64().unwrap() as usize;
    let text = |value: &Value| value.as_str().unwrap().to_string();
    let case = |case: &Value| {
        let ids = json["ids"][text(&case["ids"])].as_array().unwrap();
        let view = tensors.tensor(&text(&case["logits"])).unwrap();
        let mut logits = vec![0.0; view.shape.iter().product()];
        blocks::decode(view.format, view.bytes, &mut logits).unwrap();
        Case {
            spec: text(&case["spec"]),
            ids: ids.iter().take(number(&case["total"])).map(|id| number(id) as u32).collect(),
            prompt: number(&case["prompt"]),
            logits,
            after_prompt: kept(&case["after_prompt"]),
            at_end: kept(&case["at_end"]),
        }
    };
    json["cases"].as_array().unwrap().iter().map(case).collect()
}

fn kept(lanes: &Value) -> Kept {
    let layer =
        |layer: &Value| layer.as_array().unwrap().iter().map(|lane| ranges(lane.as_str().unwrap())).collect();
    lanes.as_array().unwrap().iter().map(layer).collect()
}

/// `"0-2,5"` as 0, 1, 2, 5.
fn ranges(text: &str) -> Vec<usize> {
    let one = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        first.parse::<usize>().unwrap()..=last.parse::<usize>().unwrap()
    };
    text.split(',').filter(|part| !part.is_empty()).flat_map(one).collect()
}

/// A session under the policy, its pattern file found beside the goldens.
fn session(model: &Arc<Model>, spec: &str, chunk: usize) -> Session {
    let spec = spec.replace("pattern=", &format!("pattern={}/", folder().display()));
    let cache = spec.parse().unwrap_or_else(|error| panic!("{spec}: {error}"));
    let options =
        SessionOptions { cache, kv_format: KvFormat::F32.into(), chunk, ..SessionOptions::default() };
    Session::new(model.clone(), options).unwrap_or_else(|error| panic!("{spec}: {error}"))
}

/// The first lane that keeps something else, with what is missing and what is too much.
fn sets_differ(session: &Session, expected: &Kept) -> Option<String> {
    for (layer, lanes) in expected.iter().enumerate() {
        for (kv_head, expected) in lanes.iter().enumerate() {
            let mut kept = session.cache_positions(layer, kv_head);
            kept.sort_unstable();
            if kept != *expected {
                let missing: Vec<_> = expected.iter().filter(|position| !kept.contains(position)).collect();
                let surplus: Vec<_> = kept.iter().filter(|position| !expected.contains(position)).collect();
                return Some(format!(
                    "layer {layer} KV head {kv_head}: missing {missing:?}, surplus {surplus:?}"
                ));
            }
        }
    }
    None
}

/// What is wrong with the case in a prefill of chunks of `chunk` rows.
fn check(model: &Arc<Model>, case: &Case, chunk: usize) -> Vec<String> {
    let vocab = model.config().vocab_size;
    let mut wrong = Vec::new();
    let mut session = session(model, &case.spec, chunk);
    session.prefill(&case.ids[..case.prompt]).unwrap();
    let mut worst = max_difference(session.logits().unwrap(), &case.logits[..vocab]);
    if worst > TOLERANCE {
        wrong.push(format!("logits after the prompt differ by {worst}"));
    }
    wrong.extend(sets_differ(&session, &case.after_prompt).map(|why| format!("after the prompt, {why}")));
    for (i, &id) in case.ids[case.prompt..].iter().enumerate() {
        let expected = &case.logits[(i + 1) * vocab..(i + 2) * vocab];
        let difference = max_difference(session.decode(id).unwrap(), expected);
        if difference > TOLERANCE && worst <= TOLERANCE {
            wrong.push(format!("logits first differ after decode step {i}, by {difference}"));
        }
        worst = worst.max(difference);
    }
    wrong.extend(sets_differ(&session, &case.at_end).map(|why| format!("at the end, {why}")));
    wrong
}

fn check_all(name: &str, at_least: usize) {
    let cases = cases(name);
    assert!(cases.len() >= at_least, "only {} cases of {name} were there", cases.len());
    let model = load(&folder().join(name), 1);
    let mut wrong = Vec::new();
    for case in &cases {
        for chunk in [512, 29] {
            let found = check(&model, case, chunk);
            wrong.extend(found.iter().map(|why| format!("{}, chunks of {chunk}: {why}", case.name())));
        }
    }
    assert!(wrong.is_empty(), "{name}:\n{}", wrong.join("\n"));
}

#[test]
fn llama_with_grouped_heads_follows_every_definition() {
    check_all("llama", 27);
}

#[test]
fn gpt_neox_with_partial_rotary_follows_the_definitions() {
    check_all("gpt_neox", 12);
}

#[test]
fn qwen3_with_normalised_heads_follows_the_definitions() {
    check_all("qwen3", 13);
}

#[test]
fn olmoe_with_experts_follows_the_definitions() {
    check_all("olmoe", 7);
}

/// The same bits on two threads as on one, whatever was chosen.
#[test]
fn thread_count_changes_nothing() {
    let (one, two) = (load(&folder().join("llama"), 1), load(&folder().join("llama"), 2));
    for case in cases("llama") {
        let mut sessions = [session(&one, &case.spec, 64), session(&two, &case.spec, 64)];
        for session in &mut sessions {
            session.prefill(&case.ids[..case.prompt]).unwrap();
        }
        for &id in &case.ids[case.prompt..] {
            let [a, b] = &mut sessions;
            assert_eq!(a.decode(id).unwrap(), b.decode(id).unwrap(), "{}", case.name());
        }
    }
}

/// A budget that the sequence never reaches is the full cache, bit for bit.
#[test]
fn a_budget_beyond_the_sequence_is_full() {
    let model = load(&folder().join("llama"), 1);
    let ids = &cases("llama")[0].ids;
    for spec in [
        "static:256",
        "streaming:sinks=4,window=252",
        "quest:budget=256,page=16,dense_layers=1",
        "snapkv:budget=256,window=16",
        "pyramidkv:budget=256,window=8",
        "adakv:budget=256,window=16",
        "h2o:heavy=128,recent=128",
        "tova:budget=256",
        "knorm:budget=256",
        "keydiff:budget=256",
        "chunkkv:budget=256,window=16",
        "expected:budget=256",
    ] {
        let (mut full, mut capped) = (session(&model, "full", 64), session(&model, spec, 64));
        full.prefill(&ids[..100]).unwrap();
        capped.prefill(&ids[..100]).unwrap();
        assert_eq!(full.logits().unwrap(), capped.logits().unwrap(), "{spec}");
        for &id in &ids[100..] {
            assert_eq!(full.decode(id).unwrap(), capped.decode(id).unwrap(), "{spec}");
        }
    }
}
