//! Every golden model against transformers, and every way of computing the same thing against itself.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

mod support;

use roofline_engine::{Arithmetic, CacheSpec, Isa, KvFormat, Session, SessionOptions};
use std::path::Path;
use support::{Golden, all_logits, argmax, golden, goldens, load, load_for, max_difference, session};

/// DESIGN §8: float32 logits of spread ~1 within 1e-4 of transformers.
const TOLERANCE: f32 = 1e-4;

fn check_against_transformers(golden: &Golden, path: &Path, threads: usize, isa: Isa) {
    // The reference multiplies bf16 weights by f32, and so does exact arithmetic.
    let model = load_for(path, threads, Some(isa), Arithmetic::Exact);
    let vocab = model.config().vocab_size;
    let name = format!("{} ({}) on {isa}", golden.name, path.file_name().unwrap().to_string_lossy());

    let mut session = session(&model);
    let prompt = all_logits(&mut session, &golden.prompt);
    let difference = max_difference(&prompt, &golden.logits);
    assert!(difference <= TOLERANCE, "{name}: prompt logits differ by {difference}");

    for (i, &expected) in golden.continuation.iter().enumerate() {
        let logits = session.logits().unwrap();
        let difference = max_difference(logits, &golden.continuation_logits[i * vocab..(i + 1) * vocab]);
        assert!(difference <= TOLERANCE, "{name}: logits of generated token {i} differ by {difference}");
        assert_eq!(argmax(logits), expected, "{name}: generated token {i}");
        session.decode(expected).unwrap();
    }
}

#[test]
fn hugging_face_folders_agree_with_transformers() {
    for golden in goldens() {
        // Each level that the machine has, down to plain Rust: what runs elsewhere is tested here.
        for isa in Isa::available() {
            check_against_transformers(&golden, &golden.dir, 1, isa);
        }
    }
}

#[test]
fn gguf_files_agree_with_transformers() {
    let mut checked = 0;
    for golden in goldens() {
        let path = golden.dir.join("model.gguf");
        // GGUF has no key for GPT-NeoX's activation: exact gelu is run, and this model was made with `gelu_new`.
        if path.is_file() {
            check_against_transformers(&golden, &path, 2, Isa::widest());
            checked += 1;
        }
    }
    assert!(checked >= 8, "only {checked} GGUF files were there");
}

/// One prefill, token by token, any chunk and any thread count: bit for bit the same.
#[test]
fn incremental_chunked_and_threaded_are_bit_identical_to_one_prefill() {
    let both = [Arithmetic::Exact, Arithmetic::Fast];
    for (golden, arithmetic) in
        goldens().iter().flat_map(|golden| both.map(|arithmetic| (golden, arithmetic)))
    {
        let ids: Vec<u32> = golden.prompt.iter().chain(&golden.continuation).copied().collect();
        let load = |dir, threads| load_for(dir, threads, None, arithmetic);
        let model = load(&golden.dir, 1);
        let whole = all_logits(&mut session(&model), &ids);

        let mut incremental = session(&model);
        for (i, &id) in ids.iter().enumerate() {
            let logits = incremental.decode(id).unwrap();
            assert!(logits == &whole[i * logits.len()..][..logits.len()], "{}: token {i} alone", golden.name);
        }
        let threaded = load(&golden.dir, 3);
        for (chunk, model) in [(1, &threaded), (2, &model), (7, &threaded), (ids.len() - 1, &model)] {
            let options =
                SessionOptions { chunk, kv_format: KvFormat::F32.into(), ..SessionOptions::default() };
            let mut chunked = Session::new(model.clone(), options).unwrap();
            assert!(all_logits(&mut chunked, &ids) == whole, "{}: chunks of {chunk}", golden.name);
        }
    }
}

#[test]
fn a_static_cache_is_bit_identical_to_full_and_refuses_one_token_more() {
    for golden in goldens() {
        let ids = &golden.prompt;
        let model = load(&golden.dir, 1);
        let whole = all_logits(&mut session(&model), ids);
        let cache = CacheSpec::fixed(ids.len());
        let options = SessionOptions { cache, kv_format: KvFormat::F32.into(), ..SessionOptions::default() };
        let mut fixed = Session::new(model.clone(), options).unwrap();
        let reserved = fixed.cache_bytes();
        assert!(all_logits(&mut fixed, ids) == whole, "{}", golden.name);
        assert_eq!(fixed.cache_bytes().committed, reserved.committed);
        let refused = fixed.decode(0).unwrap_err().to_string();
        assert!(refused.contains("is full"), "{refused}");
        assert_eq!(fixed.tokens(), ids, "a refused token leaves no trace");
    }
}

#[test]
fn after_a_rollback_the_tokens_were_never_seen() {
    for golden in goldens() {
        let model = load(&golden.dir, 1);
        let mut session = session(&model);
        session.prefill(&golden.prompt).unwrap();
        let before = session.cache_bytes();
        for &id in &golden.continuation {
            session.decode(id).unwrap();
        }
        session.rollback(golden.continuation.len()).unwrap();
        assert!(session.logits().is_err(), "the logits belong to a token that was taken back");
        assert_eq!(
            (session.cache_bytes().live, session.cache_bytes().committed),
            (before.live, before.committed)
        );
        let vocab = model.config().vocab_size;
        for (i, &id) in golden.continuation.iter().enumerate().skip(1) {
            let logits = session.decode(golden.continuation[i - 1]).unwrap();
            assert_eq!(argmax(logits), id, "{}: token {i}", golden.name);
            assert!(max_difference(logits, &golden.continuation_logits[i * vocab..][..vocab]) <= TOLERANCE);
        }
        assert!(session.rollback(session.tokens().len() + 1).is_err());
    }
}

#[test]
fn forks_go_separate_ways_from_shared_pages() {
    for cache in [CacheSpec::Full, CacheSpec::fixed(100)] {
        let golden = golden("llama_gqa_tied");
        let model = load(&golden.dir, 1);
        let options = SessionOptions { cache, kv_format: KvFormat::F32.into(), ..SessionOptions::default() };
        let mut trunk = Session::new(model.clone(), options.clone()).unwrap();
        trunk.prefill(&golden.prompt).unwrap();
        let mut branch = trunk.fork().unwrap();
        assert_eq!(branch.logits().unwrap(), trunk.logits().unwrap());

        let alone = |next: u32| {
            let mut session = Session::new(model.clone(), options.clone()).unwrap();
            session.prefill(&golden.prompt).unwrap();
            session.decode(next).unwrap().to_vec()
        };
        for step in 0..3 {
            assert_eq!(branch.decode(5 + step).unwrap().len(), model.config().vocab_size);
            trunk.decode(9 + step).unwrap();
        }
        branch.rollback(3).unwrap();
        trunk.rollback(3).unwrap();
        assert_eq!(branch.decode(5).unwrap(), alone(5));
        assert_eq!(trunk.decode(9).unwrap(), alone(9));
    }
}

/// Keys and values in 16 bits: near the f32 cache, and not it.
#[test]
fn sixteen_bit_caches_are_close_and_half_the_bytes() {
    let golden = golden("qwen3");
    let model = load(&golden.dir, 1);
    let mut reference = session(&model);
    let whole = all_logits(&mut reference, &golden.prompt);
    for (kv_format, tolerance) in [(KvFormat::F16, 5e-3), (KvFormat::Bf16, 5e-2)] {
        let options = SessionOptions { kv_format: kv_format.into(), ..SessionOptions::default() };
        let mut narrow = Session::new(model.clone(), options).unwrap();
        let difference = max_difference(&all_logits(&mut narrow, &golden.prompt), &whole);
        assert!(difference > 0.0 && difference <= tolerance, "{kv_format:?}: {difference}");
        assert_eq!(2 * narrow.cache_bytes().live, reference.cache_bytes().live);
    }
}

#[test]
fn prompts_that_cannot_run_are_refused_with_the_numbers() {
    let golden = golden("llama_mha");
    let model = load(&golden.dir, 1);
    let (vocab, context) = (model.config().vocab_size, model.config().context_length);
    let mut session = session(&model);
    assert!(session.logits().is_err());
    let refused = |result: Result<(), roofline_engine::EngineError>| result.unwrap_err().to_string();
    assert!(refused(session.prefill(&[])).contains("empty"));
    let error = refused(session.prefill(&[0, vocab as u32]));
    assert!(error.contains(&vocab.to_string()) && error.contains("position 1"), "{error}");
    let error = refused(session.prefill(&vec![0; context + 1]));
    assert!(error.contains(&context.to_string()) && error.contains(&(context + 1).to_string()), "{error}");
    assert_eq!(session.tokens(), &[] as &[u32]);
    session.prefill(&vec![0; context]).unwrap();
    assert!(session.decode(0).is_err());
    for context in [0, context + 1] {
        let options = SessionOptions { context: Some(context), ..SessionOptions::default() };
        assert!(Session::new(model.clone(), options).is_err());
    }
}
