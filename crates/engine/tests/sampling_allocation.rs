//! After construction a sampler allocates nothing.
#![allow(clippy::unwrap_used, clippy::panic)] // tests

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use roofline_engine::sampling::Sampler;

struct Counting;

thread_local! {
    // Per thread: the test harness allocates on its own whenever it likes.
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

fn count() {
    ALLOCATIONS.with(|n| n.set(n.get() + 1));
}

// SAFETY: every call goes to the system allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise about `layout` is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `pointer` came from `System` with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: `pointer` came from `System` with this layout; the caller's promise about `size` is passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

#[test]
fn a_drawn_token_allocates_nothing() {
    let chains = [
        "temperature=0",
        "temperature=0.8",
        "chain=llamacpp,temperature=0.8,top_k=40,top_p=0.95,min_p=0.05,repetition_penalty=1.1",
        "temperature=1.2,top_p=0.9,typical_p=0.9,no_repeat_ngram=3,logit_bias=5:-inf,dry_multiplier=0.8,dry_breakers=3",
        "chain=typical_p;top_k;top_p;penalties;dry,typical_p=0.99,top_k=5000,top_p=0.8,presence_penalty=1,dry_multiplier=1",
    ];
    let logits: Vec<f32> = (0..20_000).map(|i| ((i * 7919) % 20_000) as f32 * 1e-3).collect();
    for text in chains {
        let mut sampler = Sampler::new(text.parse().unwrap(), logits.len(), 400).unwrap();
        sampler.accept(&[1, 2, 3, 1, 2, 3, 1, 2]).unwrap();
        sampler.top_logprobs(&logits, 10).unwrap();
        let before = ALLOCATIONS.get();
        for _ in 0..300 {
            let draw = sampler.sample(&logits).unwrap();
            sampler.top_logprobs(&logits, 10).unwrap();
            sampler.accept(&[draw.token]).unwrap();
        }
        assert_eq!(ALLOCATIONS.get() - before, 0, "{text}");
    }
}
