//! A decoded token allocates nothing, and a stop rule sizes nothing. Alone in its binary: the allocator
//! counts.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

mod support;

use roofline_engine::{Arithmetic, CacheSpec, KvFormat, Session, SessionOptions};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use support::{golden, load, load_mapped};

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is the system allocator's, with the caller's arguments.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(at, layout, size) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn allocations_of(work: impl FnOnce()) -> usize {
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    work();
    ALLOCATIONS.load(Ordering::Relaxed) - before
}

/// Runs without the test harness: its own threads allocate, and the counter counts every thread.
fn main() {
    a_decoded_token_allocates_nothing();
    a_capped_policy_allocates_nothing_and_grows_by_nothing_for_a_hundred_thousand_tokens();
    println!("2 passed, 0 failed");
}

/// Once its budget is full, a policy that evicts takes the page it has just given back.
fn a_capped_policy_allocates_nothing_and_grows_by_nothing_for_a_hundred_thousand_tokens() {
    let golden = golden("llama_gqa_tied");
    let model = load(&golden.dir, 1);
    let context = model.config().context_length;
    for (cache, tokens) in [
        ("streaming:sinks=2,window=20", 100_000),
        ("streaming:sinks=0,window=7", 100_000),
        ("streaming:sinks=4,window=9,positions=true", context),
        ("h2o:heavy=6,recent=6", context),
        ("tova:budget=13", context),
    ] {
        let options = SessionOptions { cache: cache.parse().unwrap(), ..SessionOptions::default() };
        let mut session = Session::new(model.clone(), options).unwrap();
        session.prefill(&golden.prompt).unwrap();
        for id in 0..if tokens > context { 400 } else { 70 } {
            session.decode(id % 7).unwrap();
        }
        let full = session.cache_bytes();
        let seen = session.tokens().len();
        let count = allocations_of(|| {
            for id in seen..tokens {
                session.decode(id as u32 % 11).unwrap();
                assert_eq!(session.cache_bytes(), full, "{cache} at {id}");
            }
        });
        assert!(session.tokens().len() >= tokens, "{cache}");
        // The list of ids seen doubles now and then; nothing else grows.
        assert!(count <= 20, "{cache}: {count} allocations");
    }
}

/// A thread allocates while it starts, which on a tiny model can be after the first tokens: every worker has to have
/// done a tile before allocations count.
fn wait_for_workers(model: &roofline_engine::Model) {
    let team = model.cpu().team();
    let seen = AtomicUsize::new(0);
    while seen.load(Ordering::Relaxed) != (1 << team.threads()) - 1 {
        team.run(64, &|_, worker| {
            seen.fetch_or(1 << worker, Ordering::Relaxed);
            std::thread::sleep(std::time::Duration::from_micros(50));
        });
    }
}

fn a_decoded_token_allocates_nothing() {
    for name in ["llama_gqa_tied", "qwen3", "gpt_neox_parallel", "olmoe_64_experts"] {
        let golden = golden(name);
        for (threads, mapped) in [(1, false), (2, false), (1, true), (2, true)] {
            let model = match mapped {
                true => load_mapped(&golden.dir, threads, Arithmetic::Exact),
                false => load(&golden.dir, threads),
            };
            wait_for_workers(&model);
            for cache in [CacheSpec::fixed(100), CacheSpec::Full] {
                let options = SessionOptions {
                    cache: cache.clone(),
                    kv_format: KvFormat::F16.into(),
                    ..SessionOptions::default()
                };
                let mut session = Session::new(model.clone(), options).unwrap();
                session.prefill(&golden.prompt).unwrap();
                session.decode(1).unwrap();
                let pages = session.cache_bytes().committed;
                let count = allocations_of(|| {
                    for id in 0..16 {
                        session.decode(id).unwrap();
                    }
                });
                assert_eq!(session.cache_bytes().committed, pages, "the test is to stay inside one page");
                assert_eq!(count, 0, "{name}, {threads} threads, {cache}, mapped {mapped}");

                let rollbacks = allocations_of(|| session.rollback(3).unwrap());
                assert_eq!(rollbacks, 0, "{name}: a rollback allocates");
            }
        }
    }
}
