//! Who finds a needle far back: a constructed model that answers QUERY i with the value that once followed KEY i, by
//! attention in its third layer (`golden/retrieval/README.md`). No policy can be right here without keeping the needle.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

mod support;

use roofline_engine::{KvFormat, Model, Session, SessionOptions};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use support::{argmax, load};

struct Task {
    unknown: u32, // the token that says "not seen"
    cases: Vec<Case>,
}

struct Case {
    prompt: Vec<u32>,  // needle, distractors, the question near the end
    decoded: Vec<u32>, // the question again, token by token
    needle: usize,     // where the value stands
    answer: u32,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/retrieval")
}

/// Three bits of a multiplicative hash of the position: one of eight filler ids.
fn filler(first: u32, position: usize) -> u32 {
    first + ((position as u32).wrapping_mul(2_654_435_761) >> 29)
}

fn task() -> Task {
    let json: Value =
        serde_json::from_str(&std::fs::read_to_string(folder().join("cases.json")).unwrap()).unwrap();
    let number = |value: &Value| value.as_u64().unwrap() as u32;
    let id = |name: &str| number(&json["ids"][name]);
    let case = |case: &Value| {
        let length = number(&case["length"]) as usize;
        let query = id("query") + number(&case["ask"]);
        let mut prompt: Vec<u32> = (0..length).map(|position| filler(id("filler"), position)).collect();
        prompt[0] = id("begin");
        for needle in case["needles"].as_array().unwrap() {
            let at = number(&needle[0]) as usize;
            prompt[at] = id("key") + number(&needle[1]);
            prompt[at + 1] = id("value") + number(&needle[2]);
        }
        prompt[length - id("question") as usize] = query;
        let decoded = (0..3).map(|i| filler(id("filler"), length + i)).chain([query]).collect();
        let needle = number(&case["needles"][0][0]) as usize + 1;
        Case { prompt, decoded, needle, answer: number(&case["answer"]) }
    };
    Task { unknown: id("unknown"), cases: json["cases"].as_array().unwrap().iter().map(case).collect() }
}

fn answer(model: &Arc<Model>, case: &Case, spec: &str, kv_format: KvFormat) -> (u32, Session) {
    let cache = spec.parse().unwrap_or_else(|error| panic!("{spec}: {error}"));
    let options = SessionOptions { cache, kv_format: kv_format.into(), ..SessionOptions::default() };
    let mut session = Session::new(model.clone(), options).unwrap();
    session.prefill(&case.prompt).unwrap();
    for &id in &case.decoded {
        session.decode(id).unwrap();
    }
    (argmax(session.logits().unwrap()), session)
}

fn found(spec: &str, kv_format: KvFormat) -> usize {
    let (model, task) = (load(&folder(), 2), task());
    task.cases.iter().filter(|case| answer(&model, case, spec, kv_format).0 == case.answer).count()
}

#[test]
fn there_are_enough_cases() {
    let task = task();
    assert!(task.cases.len() >= 20);
    assert!(task.cases.iter().any(|case| case.prompt.len() > 4000));
    assert!(task.cases.iter().all(|case| case.prompt.len() - case.needle > 64));
}

#[test]
fn full_finds_every_needle() {
    assert_eq!(found("full", KvFormat::F32), task().cases.len());
    assert_eq!(found("full", KvFormat::F16), task().cases.len());
}

#[test]
fn quest_finds_every_needle_in_a_sixteenth_of_the_pages() {
    assert_eq!(found("quest:budget=256,page=16,dense_layers=2", KvFormat::F32), task().cases.len());
}

/// The question stands inside the observation window, so its attention says what to keep.
#[test]
fn snapkv_and_adakv_keep_what_the_question_looks_at() {
    for spec in [
        "snapkv:budget=128,window=32,kernel=7,pool=max",
        "adakv:budget=128,window=32,kernel=7,pool=max,alpha=0.2",
    ] {
        assert_eq!(found(spec, KvFormat::F32), task().cases.len(), "{spec}");
    }
}

/// The needle is evicted, and the model says so.
#[test]
fn streaming_cannot_find_what_left_its_window() {
    let (model, task) = (load(&folder(), 2), task());
    for case in &task.cases {
        let (said, session) = answer(&model, case, "streaming:sinks=4,window=60", KvFormat::F32);
        assert!(!session.cache_positions(2, 1).contains(&case.needle));
        assert_eq!(said, task.unknown, "needle at {} of {}", case.needle, case.prompt.len());
    }
}
