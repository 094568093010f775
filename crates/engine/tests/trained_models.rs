//! Models that were really trained.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

mod support;

use roofline_engine::sampling::{Sampler, SamplerConfig};
use roofline_engine::{
    FinishReason, GenerateOptions, Generation, GenerationInput, Model, ModelFiles, Session,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;
use support::load;

/// Files that are not part of the project lie beside it.
fn beside_the_project(path: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data").join(path);
    if !path.exists() {
        println!("skipped: {} is not there", path.display());
        return None;
    }
    Some(path)
}

fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../cli/demo")
}

struct Told {
    text: String,
    ids: Vec<u32>,
    finish: Option<FinishReason>,
}

fn tell(model: &Arc<Model>, files: &ModelFiles, prompt: &[u32], options: GenerateOptions) -> Told {
    let mut session = Session::new(model.clone(), Default::default()).unwrap();
    let vocab = model.config().vocab_size;
    let mut sampler = Sampler::new(SamplerConfig::greedy(), vocab, session.context()).unwrap();
    let cancel = AtomicBool::new(false);
    let input = GenerationInput {
        session: &mut session,
        sampler: &mut sampler,
        tokenizer: files.tokenizer(),
        prompt,
        options,
        cancel: &cancel,
        called: Instant::now(),
    };
    let mut generation = Generation::start(input, &mut |_| {}).unwrap();
    let events: Vec<_> = generation.by_ref().map(|event| event.unwrap()).collect();
    assert!(events.windows(2).all(|pair| pair[0].at <= pair[1].at), "the clock goes forward");
    assert!(events.iter().all(|event| event.logprob <= 0.0 && event.logprob.is_finite()));
    Told {
        text: events.iter().map(|event| event.text.as_str()).collect(),
        ids: events.iter().map(|event| event.id).collect(),
        finish: generation.finish(),
    }
}

fn at_most(max_new_tokens: usize) -> GenerateOptions {
    GenerateOptions { max_new_tokens: Some(max_new_tokens), ..GenerateOptions::default() }
}

#[test]
fn stories260k_tells_of_lily() {
    let Some(path) = beside_the_project("models/stories260K/tinyllamas-stories-260k-f32.gguf") else {
        return;
    };
    let files = ModelFiles::open(&path).unwrap();
    let model = load(&path, 2);
    let tokenizer = files.tokenizer().unwrap();
    let begin = tokenizer.encode("", true, true).unwrap();
    let told = tell(&model, &files, &begin, at_most(60));
    let text = told.text.trim_start();
    assert!(text.starts_with("Once upon a time, there was a little girl named Lily"), "{text}");

    let stopped =
        tell(&model, &files, &begin, GenerateOptions { stop_texts: vec!["Lily".into()], ..at_most(60) });
    assert!(stopped.text.ends_with("named "), "{}", stopped.text);
    assert_eq!(stopped.finish, Some(FinishReason::Stop));

    let ends = GenerateOptions { stop_ids: vec![told.ids[5]], ..at_most(60) };
    let ended = tell(&model, &files, &begin, ends);
    assert_eq!(
        (ended.finish, &ended.ids[..]),
        (Some(FinishReason::Eos), &told.ids[..6]),
        "n counts the end token"
    );
}

/// `max_new_tokens` is a stop rule: the same answer under another cap holds the same bytes.
#[test]
fn the_cap_on_new_tokens_sizes_nothing() {
    let files = ModelFiles::open(&demo()).unwrap();
    let model = load(&demo(), 1);
    let prompt = files.tokenizer().unwrap().encode("It was a dark", true, true).unwrap();
    let first = tell(&model, &files, &prompt, at_most(9));
    let mut bytes = Vec::new();
    for cap in [16, 1024, 4096] {
        let mut session = Session::new(model.clone(), Default::default()).unwrap();
        let mut sampler = Sampler::new(SamplerConfig::greedy(), model.config().vocab_size, 4096).unwrap();
        let cancel = AtomicBool::new(false);
        let input = GenerationInput {
            session: &mut session,
            sampler: &mut sampler,
            tokenizer: files.tokenizer(),
            prompt: &prompt,
            options: GenerateOptions { stop_ids: vec![first.ids[8]], ..at_most(cap) },
            cancel: &cancel,
            called: Instant::now(),
        };
        let mut generation = Generation::start(input, &mut |_| {}).unwrap();
        let ids: Vec<u32> = generation.by_ref().map(|event| event.unwrap().id).collect();
        let moved = (generation.prefill_meter().total(), generation.decode_meter().total());
        bytes.push((ids, moved, session.cache_bytes()));
    }
    assert!(bytes.windows(2).all(|pair| pair[0] == pair[1]), "{bytes:?}");
}

#[test]
fn a_set_flag_ends_a_generation_and_keeps_the_session() {
    let files = ModelFiles::open(&demo()).unwrap();
    let model = load(&demo(), 1);
    let prompt = files.tokenizer().unwrap().encode("It was a dark and stormy night", true, true).unwrap();
    let mut session = Session::new(model.clone(), Default::default()).unwrap();
    let mut sampler = Sampler::new(SamplerConfig::greedy(), model.config().vocab_size, 4096).unwrap();
    let cancel = AtomicBool::new(false);
    let input = GenerationInput {
        session: &mut session,
        sampler: &mut sampler,
        tokenizer: files.tokenizer(),
        prompt: &prompt,
        options: at_most(100),
        cancel: &cancel,
        called: Instant::now(),
    };
    let mut generation = Generation::start(input, &mut |_| {}).unwrap();
    for _ in 0..3 {
        generation.next().unwrap().unwrap();
    }
    cancel.store(true, std::sync::atomic::Ordering::Relaxed);
    assert!(generation.next().is_none());
    assert_eq!(generation.finish(), Some(FinishReason::Cancelled));
    assert_eq!(session.tokens().len(), prompt.len() + 2, "the last token was drawn and not yet taken in");
    session.decode(1).unwrap();
}
