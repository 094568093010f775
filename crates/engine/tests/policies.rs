//! What holds for every cache policy: a budget that is never reached changes no bit, a prompt is computed before anything
//! of it is evicted, and neither threads nor chunks change what a policy does.
#![allow(clippy::unwrap_used, clippy::panic)] // a test fails by panicking

mod support;

use roofline_engine::{CacheSpec, EngineError, KvFormat, Model, Session, SessionOptions};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use support::{load, max_difference};

/// The demo model: trained, 6 layers, 8 query heads on 2 KV heads, a context of 2048.
fn demo(threads: usize) -> Arc<Model> {
    load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../cli/demo"), threads)
}

/// Token ids with repetition and order in them, as text has.
fn text(len: usize) -> Vec<u32> {
    let mut state = 12345u64;
    (0..len)
        .map(|i| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let fresh = 300 + (state >> 33) % 2000;
            if i % 7 == 3 { 17 } else { fresh as u32 }
        })
        .collect()
}

fn options(cache: &str) -> SessionOptions {
    let cache = cache.parse().unwrap_or_else(|error| panic!("{error}"));
    SessionOptions { cache, kv_format: KvFormat::F32.into(), ..SessionOptions::default() }
}

fn open(model: &Arc<Model>, cache: &str) -> Session {
    Session::new(model.clone(), options(cache)).unwrap()
}

/// Logits after the prompt and after each token decoded behind it, one row after the other.
fn run(session: &mut Session, ids: &[u32], prompt: usize) -> Vec<f32> {
    session.prefill(&ids[..prompt]).unwrap();
    let mut all = session.logits().unwrap().to_vec();
    for &id in &ids[prompt..] {
        all.extend_from_slice(session.decode(id).unwrap());
    }
    all
}

/// Every policy that fits the demo model, with a budget that 300 tokens exceed.
const TIGHT: [&str; 14] = [
    "streaming:sinks=4,window=60",
    "streaming:sinks=0,window=33",
    "streaming:sinks=70,window=20,positions=true",
    "quest:budget=64,dense_layers=1",
    "quest:budget=64,dense_layers=0,page=32,select=head",
    "snapkv:budget=64,window=16",
    "pyramidkv:budget=40",
    "adakv:budget=64,window=16",
    "adakv:budget=64,window=4,base=keydiff",
    "chunkkv:budget=64,window=16,pinned=3",
    "h2o:heavy=20,recent=20",
    "tova:budget=48,pinned=2",
    "knorm:budget=64+quest:budget=32,dense_layers=0",
    "expected:budget=64",
];

/// The same policies with budgets that 300 tokens do not reach.
const WIDE: [&str; 13] = [
    "static:300",
    "static:8MiB",
    "streaming:sinks=4,window=300",
    "quest:budget=320,dense_layers=0",
    "snapkv:budget=300",
    "pyramidkv:budget=300",
    "adakv:budget=300,window=16",
    "chunkkv:budget=300",
    "h2o:heavy=200,recent=100",
    "tova:budget=300",
    "keydiff:budget=300+quest:budget=320",
    "expected:budget=300",
    "knorm:budget=8MiB",
];

#[test]
fn a_budget_that_is_never_reached_changes_no_bit() {
    let model = demo(2);
    let ids = text(300);
    for cache in WIDE {
        let slots = cache.parse::<CacheSpec>().unwrap().quest().map(|quest| quest.page);
        // The order of summation depends on nothing but the slot, whatever the pages.
        let want = run(&mut open(&model, "full"), &ids, 260);
        let have = run(&mut open(&model, cache), &ids, 260);
        assert!(have == want, "{cache}: {} ({slots:?})", max_difference(&have, &want));
    }
}

#[test]
fn a_prompt_is_computed_before_any_of_it_is_evicted() {
    let model = demo(1);
    let ids = text(300);
    let mut full = open(&model, "full");
    full.prefill(&ids).unwrap();
    for cache in TIGHT.into_iter().filter(|cache| !cache.starts_with("streaming")) {
        let mut session = open(&model, cache);
        session.prefill(&ids).unwrap();
        assert!(session.logits().unwrap() == full.logits().unwrap(), "{cache}");
        let same_after_one_more = session.decode(5).unwrap() == full.decode(5).unwrap();
        assert!(!same_after_one_more, "{cache} evicted nothing");
        full.rollback(1).unwrap();
        full.decode(ids[299]).unwrap();
        full.rollback(1).unwrap();
        full.rollback(1).unwrap();
        full.decode(ids[299]).unwrap();
    }
}

#[test]
fn threads_and_chunks_change_nothing() {
    let ids = text(330);
    for cache in TIGHT {
        let want = run(&mut open(&demo(1), cache), &ids, 300);
        let have = run(&mut open(&demo(2), cache), &ids, 300);
        assert!(have == want, "{cache}: two threads");
        for chunk in [1, 17, 64, 299] {
            let mut session = Session::new(demo(2), SessionOptions { chunk, ..options(cache) }).unwrap();
            let have = run(&mut session, &ids, 300);
            // Windows drop whole pages, after which sums are grouped differently: equal within rounding.
            let tolerance = if cache.starts_with("streaming") { 1e-4 } else { 0.0 };
            let difference = max_difference(&have, &want);
            assert!(difference <= tolerance, "{cache}, chunks of {chunk}: {difference}");
        }
    }
}

#[test]
fn streaming_in_one_prefill_equals_token_by_token() {
    let model = demo(2);
    let ids = text(400);
    for cache in TIGHT.into_iter().filter(|cache| cache.starts_with("streaming")) {
        let mut parallel = Vec::new();
        let mut session = open(&model, cache);
        session
            .prefill_logits(&ids, &mut |_, logits| {
                parallel.extend_from_slice(logits);
                ControlFlow::Continue(())
            })
            .unwrap();
        let single = run(&mut open(&model, cache), &ids, 1);
        let difference = max_difference(&parallel, &single);
        assert!(difference < 1e-4, "{cache}: {difference}");
    }
}

#[test]
fn lanes_hold_what_the_budget_says() {
    let model = demo(1);
    let ids = text(300);
    let heads = model.config().n_kv_heads;
    for (cache, slots) in [
        ("streaming:sinks=4,window=60", 64),
        ("snapkv:budget=64,window=16", 64),
        ("chunkkv:budget=64,window=16", 64),
        ("h2o:heavy=20,recent=20", 40),
        ("tova:budget=48", 48),
        ("knorm:budget=64", 64),
        ("keydiff:budget=20%", 60),
        ("expected:budget=64,pinned=9", 64),
    ] {
        let mut session = open(&model, cache);
        session.prefill(&ids).unwrap();
        for layer in 0..model.config().n_layers {
            for head in 0..heads {
                let kept = session.cache_positions(layer, head);
                assert_eq!(kept.len(), slots, "{cache}");
                assert!(kept.windows(2).all(|pair| pair[0] < pair[1]), "{cache}: {kept:?}");
            }
        }
        let bytes = session.cache_bytes();
        let slot_bytes = (2 * 4 * model.config().head_dim) as u64;
        let lanes = (model.config().n_layers * heads) as u64;
        assert_eq!(bytes.live, lanes * slots as u64 * slot_bytes, "{cache}");
        assert!(
            bytes.committed >= bytes.live && bytes.committed <= lanes * 3 * 64 * slot_bytes,
            "{cache}: {bytes:?}"
        );
        // Compression by layer: never more than one whole layer beside what the others keep.
        let whole_layer = heads as u64 * 300u64.next_multiple_of(64) * slot_bytes;
        if !cache.starts_with("streaming") {
            assert!(bytes.peak <= bytes.committed + whole_layer, "{cache}: {bytes:?}");
        }
    }
    // AdaKV's lanes compete: unequal, and the sum is the budget's within its rounding.
    let mut session = open(&model, "adakv:budget=64,window=16");
    session.prefill(&ids).unwrap();
    for layer in 0..model.config().n_layers {
        let lens: Vec<usize> = (0..heads).map(|head| session.cache_positions(layer, head).len()).collect();
        assert!(lens.iter().sum::<usize>().abs_diff(64 * heads) <= heads.div_ceil(2), "{lens:?}");
    }
}

/// Positions of 3,000 tokens were a quarter of what was left of them.
#[test]
fn what_is_kept_beside_the_pages_shrinks_with_a_prompt() {
    let (model, prompt, lanes) = (demo(1), 900, 12);
    for cache in ["snapkv:budget=64,window=16", "adakv:budget=64,window=16", "h2o:heavy=32,recent=32"] {
        let mut session = open(&model, cache);
        session.prefill(&text(prompt)).unwrap();
        let metadata = session.cache_bytes().metadata;
        assert!(metadata < (4 * prompt * lanes / 3) as u64, "{cache}: {metadata} bytes beside the pages");
    }
}

#[test]
fn what_can_be_taken_back_is_as_if_never_seen_and_the_rest_is_refused() {
    let model = demo(1);
    let ids = text(330);
    for cache in
        ["snapkv:budget=64,window=16", "adakv:budget=64", "quest:budget=64,dense_layers=0", "tova:budget=90%"]
    {
        let mut session = open(&model, cache);
        run(&mut session, &ids[..310], 300);
        let possible = if cache.starts_with("quest") { 200 } else { 9 };
        if cache.starts_with("tova") {
            let error = session.rollback(200).unwrap_err().to_string();
            assert!(error.contains("evicted") && error.contains("--cache full"), "{error}");
            continue;
        }
        session.rollback(possible).unwrap();
        let have = session.decode(7).unwrap().to_vec();
        let mut never = open(&model, cache);
        run(&mut never, &ids[..310 - possible], (310 - possible).min(300));
        assert_eq!(have, never.decode(7).unwrap(), "{cache}");
        if !cache.starts_with("quest") {
            let error = session.rollback(20).unwrap_err().to_string();
            assert!(error.contains("only the last 2"), "{error}");
        }
    }
    let mut session = open(&model, "streaming:sinks=4,window=60");
    run(&mut session, &ids[..60], 50);
    session.rollback(8).unwrap();
    let have = session.decode(7).unwrap().to_vec();
    let mut never = open(&model, "streaming:sinks=4,window=60");
    run(&mut never, &ids[..52], 50);
    assert_eq!(have, never.decode(7).unwrap());
    run(&mut session, &ids[60..], 100);
    assert!(session.rollback(200).is_err());
    session.rollback(session.tokens().len()).unwrap();
    assert_eq!(session.cache_bytes().live, 0);
    let fresh = run(&mut open(&model, "streaming:sinks=4,window=60"), &ids, 200);
    assert_eq!(run(&mut session, &ids, 200), fresh, "after all tokens were taken back");
}

#[test]
fn forks_of_every_policy_go_separate_ways() {
    let model = demo(1);
    let ids = text(330);
    for cache in TIGHT {
        let mut trunk = open(&model, cache);
        run(&mut trunk, &ids[..310], 300);
        let mut branch = trunk.fork().unwrap();
        let mut alone = open(&model, cache);
        run(&mut alone, &ids[..310], 300);
        for step in 0..20 {
            branch.decode(900 + step).unwrap();
            let have = trunk.decode(ids[310 + step as usize]).unwrap().to_vec();
            assert_eq!(have, alone.decode(ids[310 + step as usize]).unwrap(), "{cache}, step {step}");
        }
    }
}

/// A second turn goes on from what the first one left; positions continue from tokens seen.
#[test]
fn turns_follow_each_other_under_every_policy() {
    let model = demo(1);
    let ids = text(330);
    for cache in TIGHT {
        let mut session = open(&model, cache);
        run(&mut session, &ids[..210], 200);
        session.prefill(&ids[210..300]).unwrap();
        session.decode(3).unwrap();
        assert_eq!(session.tokens().len(), 301, "{cache}");
        let newest = session.cache_positions(0, 0).last().copied();
        assert_eq!(newest, Some(300), "{cache}");
    }
}

#[test]
fn a_cancelled_prompt_leaves_the_session_as_it_was() {
    let model = demo(1);
    let ids = text(330);
    for cache in TIGHT {
        let mut session = open(&model, cache);
        run(&mut session, &ids[..210], 200);
        let mut twin = session.fork().unwrap();
        let mut calls = 0;
        let cancelled = session.prefill_with(&ids[210..300], &mut |_| {
            calls += 1;
            if calls == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert!(matches!(cancelled, Err(EngineError::Cancelled)), "{cache}");
        assert_eq!(session.tokens().len(), 210, "{cache}");
        let have = session.decode(11).unwrap().to_vec();
        assert_eq!(have, twin.decode(11).unwrap(), "{cache}");
    }
}

#[test]
fn policies_that_do_not_fit_the_model_are_refused_with_the_way_out() {
    let model = demo(1);
    let refused = |cache: &str| Session::new(model.clone(), options(cache)).err().unwrap().to_string();
    for (cache, hint) in [
        ("streaming:sinks=4,window=2044", "window=2043 or less"),
        ("streaming:sinks=2047", "leave no window"),
        ("snapkv:budget=4096", "budget=2048 or less"),
        ("snapkv:budget=1%", "at least 33"),
        ("adakv:budget=1KiB", "at least 33"),
        ("h2o:heavy=2000,recent=100", "more than the model's context"),
        ("h2o:heavy=10,recent=10,pinned=11", "heavy=11"),
        ("quest:budget=5000", "budget=2048 or less"),
        ("static:100B", "nothing would fit"),
        ("duo:pattern=/nowhere/gates.tsv", "/nowhere/gates.tsv"),
    ] {
        let error = refused(cache);
        assert!(error.contains(hint), "{cache}: {error}");
    }
}

#[test]
fn a_pattern_of_another_model_is_refused() {
    let model = demo(1);
    let dir = std::env::temp_dir().join(format!("roofline-pattern-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let path = dir.join("gates.tsv");
    let spec = format!("duo:pattern={},sinks=4,recent=30", path.display());
    for (text, hint) in [
        ("1\t0\n", "1 lines"),
        ("1 0 1\n1 0 1\n1 0 1\n1 0 1\n1 0 1\n1 0 1\n", "3 gates"),
        ("1 0\n1 0\n1 x\n1 0\n1 0\n1 0\n", "line 3: `x`"),
    ] {
        std::fs::write(&path, text).unwrap();
        let error = Session::new(model.clone(), options(&spec)).err().unwrap().to_string();
        assert!(error.contains(hint), "{error}");
    }
    std::fs::write(&path, "0.9\t0.1\n".repeat(6)).unwrap();
    let mut session = Session::new(model.clone(), options(&spec)).unwrap();
    session.prefill(&text(300)).unwrap();
    assert_eq!(session.cache_positions(3, 0).len(), 300);
    assert_eq!(session.cache_positions(3, 1).len(), 34);
    std::fs::remove_dir_all(&dir).unwrap();
}

/// Attention of the dense model to what a policy did not read: nothing under a wide budget, less the larger the budget.
#[test]
fn missed_attention_is_what_was_not_read() {
    let model = demo(1);
    let ids = text(330);
    let missed = |cache: &str| {
        let (mut dense, mut policy) = (open(&model, "full"), open(&model, cache));
        dense.observe();
        policy.observe();
        run(&mut dense, &ids[..310], 300);
        run(&mut policy, &ids[..310], 300);
        let missed = dense.missed_attention(&policy).unwrap();
        policy.decode(1).unwrap();
        assert!(dense.missed_attention(&policy).is_err(), "other tokens");
        missed
    };
    for wide in
        ["full", "snapkv:budget=400", "quest:budget=400,dense_layers=0", "streaming:sinks=0,window=400"]
    {
        assert_eq!(missed(wide), 0.0, "{wide}");
    }
    for name in [
        "snapkv:window=8,budget=",
        "quest:dense_layers=0,budget=",
        "quest:dense_layers=0,select=head,budget=",
        "tova:budget=",
    ] {
        let shares = [32, 96, 200].map(|budget| missed(&format!("{name}{budget}")));
        assert!(
            shares[0] > shares[1] && shares[1] > shares[2] && shares[2] > 0.0 && shares[0] < 1.0,
            "{name}: {shares:?}"
        );
    }
}
