//! A prefill that is asked to stop does so within a layer, and the session is as if the step under way had never begun.
#![allow(clippy::unwrap_used)] // a test fails by panicking

mod support;

use roofline_engine::sampling::{Sampler, SamplerConfig};
use roofline_engine::{
    CacheSpec, EngineError, FinishReason, GenerateOptions, Generation, GenerationInput, KvFormat, Session,
    SessionOptions,
};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use support::{golden, load};

const CHUNK: usize = 5;

fn options(cache: CacheSpec) -> SessionOptions {
    SessionOptions { cache, chunk: CHUNK, kv_format: KvFormat::F32.into(), ..SessionOptions::default() }
}

#[test]
fn wherever_a_prefill_is_stopped_the_rest_gives_the_logits_of_one_never_stopped() {
    for cache in [CacheSpec::Full, CacheSpec::fixed(40)] {
        let golden = golden("llama_gqa_tied");
        let model = load(&golden.dir, 2);
        let ids = &golden.prompt;
        let layers = model.config().n_layers;
        assert!(layers > 1 && ids.len() > CHUNK && ids.len() <= 40);
        let mut whole = Session::new(model.clone(), options(cache.clone())).unwrap();
        let mut calls = 0;
        whole
            .prefill_with(ids, &mut |_| {
                calls += 1;
                ControlFlow::Continue(())
            })
            .unwrap();
        // Between layers and after each step.
        assert_eq!(calls, ids.len().div_ceil(CHUNK) * layers);

        for stop_at in 1..=calls {
            let mut session = Session::new(model.clone(), options(cache.clone())).unwrap();
            let (mut calls, mut done) = (0, 0);
            let stopped = session.prefill_with(ids, &mut |so_far| {
                (calls, done) = (calls + 1, so_far);
                if calls == stop_at { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            assert!(matches!(stopped, Err(EngineError::Cancelled)), "{stopped:?}");
            assert_eq!((calls, session.tokens()), (stop_at, &ids[..done]));
            let live = session.cache_bytes().live;
            assert_eq!(live, done as u64 * whole.cache_bytes().live / ids.len() as u64);
            if done < ids.len() {
                session.prefill(&ids[done..]).unwrap();
            }
            assert_eq!(session.logits().unwrap(), whole.logits().unwrap(), "stopped at call {stop_at}");
            assert_eq!(session.cache_bytes(), whole.cache_bytes());
        }
    }
}

#[test]
fn a_generation_cancelled_in_its_first_layer_has_seen_nothing_and_yields_nothing() {
    let golden = golden("llama_gqa_tied");
    let model = load(&golden.dir, 1);
    let mut session = Session::new(model.clone(), options(CacheSpec::Full)).unwrap();
    let mut sampler = Sampler::new(SamplerConfig::default(), model.config().vocab_size, 64).unwrap();
    let cancel = AtomicBool::new(false);
    let input = GenerationInput {
        session: &mut session,
        sampler: &mut sampler,
        tokenizer: None,
        prompt: &golden.prompt,
        options: GenerateOptions::default(),
        cancel: &cancel,
        called: Instant::now(),
    };
    let mut generation = Generation::start(input, &mut |_| cancel.store(true, Ordering::Relaxed)).unwrap();
    assert_eq!(generation.finish(), Some(FinishReason::Cancelled));
    assert!(generation.next().is_none());
    assert!(session.tokens().is_empty());
}
