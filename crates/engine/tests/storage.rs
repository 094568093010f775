//! What holds for every storage format of the cache: neither chunks nor threads change a bit where rows are rounded one by
//! one, sealed pages are counted as what they are, and the logits stay as near as the format allows.
#![allow(clippy::unwrap_used, clippy::panic)] // a test fails by panicking

mod support;

use roofline_engine::{CacheError, CacheSpec, EngineError, KvFormats, Model, Session, SessionOptions};
use std::path::Path;
use std::sync::Arc;
use support::load;

/// The demo model: trained, 6 layers, 8 query heads on 2 KV heads of 32 channels, a context of 2048.
fn demo(threads: usize) -> Arc<Model> {
    load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../cli/demo"), threads)
}

const LANES: u64 = 12; // (6 layers, 2 KV heads)

/// Token ids with repetition and order in them, as text has.
fn text(len: usize) -> Vec<u32> {
    let mut state = 12345u64;
    (0..len)
        .map(|i| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            if i % 7 == 3 { 17 } else { (300 + (state >> 33) % 2000) as u32 }
        })
        .collect()
}

fn open(model: &Arc<Model>, kv: &str, cache: &str, chunk: usize) -> Session {
    let (cache, kv_format) = (cache.parse().unwrap(), kv.parse().unwrap());
    Session::new(model.clone(), SessionOptions { cache, kv_format, chunk, ..SessionOptions::default() })
        .unwrap()
}

/// Logits after the prompt and after each token decoded behind it.
fn run(session: &mut Session, ids: &[u32], prompt: usize) -> Vec<f32> {
    session.prefill(&ids[..prompt]).unwrap();
    let mut all = session.logits().unwrap().to_vec();
    ids[prompt..].iter().for_each(|&id| all.extend_from_slice(session.decode(id).unwrap()));
    all
}

/// Root mean square of the difference over that of the reference, both about their mean per row: adding a number to all
/// logits changes nothing.
fn relative(got: &[f32], want: &[f32], vocab: usize) -> f64 {
    let (mut error, mut size) = (0.0, 0.0);
    for (got, want) in got.chunks(vocab).zip(want.chunks(vocab)) {
        let mean = |row: &[f32]| row.iter().map(|x| f64::from(*x)).sum::<f64>() / vocab as f64;
        let (got_mean, want_mean) = (mean(got), mean(want));
        for (got, want) in got.iter().zip(want) {
            let (got, want) = (f64::from(*got) - got_mean, f64::from(*want) - want_mean);
            error += (got - want) * (got - want);
            size += want * want;
        }
    }
    (error / size).sqrt()
}

#[test]
fn chunks_and_threads_change_no_bit_where_rows_are_rounded_one_by_one() {
    let ids = text(300);
    for kv in ["i8", "q8_0", "k=i8,v=f16", "k=bf16,v=q8_0", "k=f32,v=i8"] {
        let whole = run(&mut open(&demo(1), kv, "full", 512), &ids, 290);
        for (threads, chunk) in [(1, 1), (1, 7), (2, 64), (2, 512)] {
            let again = run(&mut open(&demo(threads), kv, "full", chunk), &ids, 290);
            assert!(again == whole, "{kv}, chunks of {chunk}, {threads} threads");
        }
    }
}

#[test]
fn threads_change_no_bit_of_sealed_pages() {
    let ids = text(330);
    for kv in ["kivi4", "kvquant3", "k=kivi2,v=i8"] {
        let alone = run(&mut open(&demo(1), kv, "full", 64), &ids, 310);
        assert!(run(&mut open(&demo(2), kv, "full", 64), &ids, 310) == alone, "{kv}");
    }
}

/// Decoded token by token, so that each row reads what a generating model would find sealed. The bounds are twice what was
/// measured; `docs/kv-formats.md` has the figures.
#[test]
fn logits_are_as_near_to_those_of_f32_as_the_format_allows() {
    let (model, ids) = (demo(2), text(500));
    let vocab = model.config().vocab_size;
    let exact = run(&mut open(&model, "f32", "full", 512), &ids, 1);
    for (kv, bound) in BOUNDS {
        let error = relative(&run(&mut open(&model, kv, "full", 512), &ids, 1), &exact, vocab);
        println!("{kv}: {error:.2e}");
        assert!(error > 0.0 && error < bound, "{kv}: {error:.2e}");
    }
}

const BOUNDS: [(&str, f64); 10] = [
    ("f16", 3.4e-4),
    ("bf16", 2.6e-3),
    ("q8_0", 6.9e-3),
    ("i8", 6.9e-3),
    ("k=i8,v=f16", 6.7e-3),
    ("k=f16,v=i8", 2.3e-3),
    ("kivi4", 5.4e-3),
    ("kvquant4", 5.0e-3),
    ("kvquant3", 1.2e-2),
    ("kivi2", 2.6e-2),
];

#[test]
fn bytes_are_those_of_the_pages_as_they_are() {
    let (model, ids) = (demo(1), text(400));
    // Bytes of a slot as it is written and of a sealed page, 32 channels.
    for (kv, slot, sealed_page) in [
        ("i8", 68, 0),
        ("q8_0", 68, 0),
        ("k=i8,v=f16", 98, 0),
        ("kivi4", 128, 64 * 40),
        ("kivi2", 128, 64 * 24),
        ("kvquant4", 128, 2 * 1024 + 32 * 4 + 64 * 4 + 2 * 20 * 4),
        ("k=kivi2,v=i8", 64 + 34, 64 * (12 + 34)),
    ] {
        let mut session = open(&model, kv, "full", 512);
        let mut peak = 0;
        for (i, &id) in ids.iter().enumerate() {
            session.decode(id).unwrap();
            let seen = i as u64 + 1;
            let sealed = if sealed_page > 0 { seen.saturating_sub(128) / 64 } else { 0 };
            let hot_pages = seen.div_ceil(64) - sealed;
            let bytes = session.cache_bytes();
            assert_eq!(
                bytes.live,
                LANES * ((seen - 64 * sealed) * slot + sealed * sealed_page),
                "{kv} at {seen}"
            );
            assert_eq!(
                bytes.committed,
                LANES * (hot_pages * 64 * slot + sealed * sealed_page),
                "{kv} at {seen}"
            );
            peak = peak.max(bytes.committed);
            assert!(bytes.peak >= peak && bytes.peak <= peak + LANES * sealed_page, "{kv} at {seen}");
        }
    }
}

#[test]
fn tokens_come_back_as_far_as_pages_are_open() {
    let (model, ids) = (demo(1), text(330));
    let mut session = open(&model, "kivi4", "full", 64);
    let whole = run(&mut session, &ids, 320);
    // 330 seen: 192 and more are sealed.
    let error = session.rollback(139).unwrap_err();
    assert!(
        matches!(&error, EngineError::Cache(CacheError::Sealed { wanted: 139, possible: 138, .. })),
        "{error}"
    );
    assert!(error.to_string().contains("kivi4") && error.to_string().contains("138"), "{error}");
    session.rollback(10).unwrap();
    let vocab = model.config().vocab_size;
    let mut again = Vec::new();
    ids[320..].iter().for_each(|&id| again.extend_from_slice(session.decode(id).unwrap()));
    assert!(again == whole[vocab..], "what was sealed meanwhile was due anyway");
    session.rollback(330).unwrap();
    assert_eq!(session.cache_bytes().committed, 0);
    assert!(run(&mut session, &ids, 320) == whole, "from the beginning again");
}

#[test]
fn forks_share_what_is_sealed_and_seal_apart() {
    let (model, ids) = (demo(1), text(400));
    let mut trunk = open(&model, "k=kivi2,v=kivi4", "full", 64);
    trunk.prefill(&ids[..250]).unwrap();
    let mut branch = trunk.fork().unwrap();
    let mut of_trunk = Vec::new();
    ids[250..].iter().for_each(|&id| of_trunk.extend_from_slice(trunk.decode(id).unwrap()));
    let mut of_branch = Vec::new();
    ids[250..].iter().for_each(|&id| of_branch.extend_from_slice(branch.decode(id).unwrap()));
    assert!(of_trunk == of_branch);
    assert_eq!(trunk.cache_bytes().committed, branch.cache_bytes().committed);
}

#[test]
fn eight_bits_go_with_policies_that_evict() {
    let (model, ids) = (demo(1), text(260));
    for kv in ["i8", "q8_0", "k=i8,v=f16"] {
        let full = run(&mut open(&model, kv, "full", 64), &ids, 200);
        for wide in
            ["static:300", "h2o:heavy=200,recent=100", "snapkv:budget=300", "quest:budget=320,dense_layers=0"]
        {
            assert!(run(&mut open(&model, kv, wide, 64), &ids, 200) == full, "{kv} {wide}");
        }
        for tight in [
            "h2o:heavy=20,recent=20",
            "snapkv:budget=64,window=16",
            "streaming:sinks=4,window=60",
            "tova:budget=48",
        ] {
            let mut session = open(&model, kv, tight, 64);
            let logits = run(&mut session, &ids, 200);
            assert!(logits.iter().all(|x| x.is_finite()) && logits != full, "{kv} {tight}");
            let slot = if kv == "k=i8,v=f16" { 98 } else { 68 };
            assert!(
                session.cache_bytes().live <= LANES * 124 * slot,
                "{kv} {tight}: {:?}",
                session.cache_bytes()
            );
        }
    }
}

#[test]
fn sealing_and_policies_that_move_slots_refuse_each_other_by_name() {
    let model = demo(1);
    for cache in ["static:300", "h2o:heavy=20,recent=20", "streaming:sinks=4,window=60", "quest:budget=64"] {
        let kv_format: KvFormats = "k=kivi4,v=i8".parse().unwrap();
        let spec: CacheSpec = cache.parse().unwrap();
        let name = spec.to_string();
        let options = SessionOptions { cache: spec, kv_format, ..SessionOptions::default() };
        let Err(error) = Session::new(model.clone(), options) else { panic!("{cache} was taken") };
        let error = error.to_string();
        let refused = error.contains("kivi4") && (error.contains(&name) || error.contains("16 slots"));
        assert!(refused, "{error}");
    }
}
