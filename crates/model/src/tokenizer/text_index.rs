//! From a text to its id, and from a pair of ids to what they merge into: the tables that are built at every start.
//!
//! A vocabulary has 150 thousand texts, and as many merges of which each looks three of them up. With the standard
//! library's hash, made for keys of strangers, and a text on the heap for each, that was a tenth of a second.

use std::hash::{BuildHasher, Hasher, RandomState};

/// No id: ids stay below 2²⁴.
const EMPTY: u32 = u32::MAX;

/// Ids by text, without the texts: whoever asks compares those that have the same hash.
pub(super) struct TextIndex {
    slots: Vec<(u32, u32)>, // a power of two of (hash, id), at most half of them taken
    taken: usize,
    seed: Seed,
}

impl TextIndex {
    /// For about `known` texts.
    pub(super) fn with_capacity(known: usize) -> TextIndex {
        let slots = vec![(0, EMPTY); (2 * known).next_power_of_two().max(16)];
        TextIndex { slots, taken: 0, seed: Seed::new() }
    }

    /// The id of `text`, which `is_text` knows by its id.
    pub(super) fn get(&self, text: &str, is_text: impl Fn(u32) -> bool) -> Option<u32> {
        let hash = self.seed.hash(text.as_bytes());
        self.slots[self.find(hash, is_text)].some_id()
    }

    /// Enters `text` at `id`, unless it is there: then its id.
    pub(super) fn insert(&mut self, text: &str, id: u32, is_text: impl Fn(u32) -> bool) -> Option<u32> {
        if 2 * (self.taken + 1) > self.slots.len() {
            self.grow();
        }
        let hash = self.seed.hash(text.as_bytes());
        let at = self.find(hash, is_text);
        let there = self.slots[at].some_id();
        if there.is_none() {
            self.slots[at] = (hash, id);
            self.taken += 1;
        }
        there
    }

    /// The slot of a text, or the free one where it would be.
    fn find(&self, hash: u32, is_text: impl Fn(u32) -> bool) -> usize {
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        while let (other, Some(id)) = (self.slots[at].0, self.slots[at].some_id()) {
            if other == hash && is_text(id) {
                break;
            }
            at = (at + 1) & mask;
        }
        at
    }

    fn grow(&mut self) {
        let larger = vec![(0, EMPTY); 2 * self.slots.len()];
        for (hash, id) in std::mem::replace(&mut self.slots, larger) {
            if id != EMPTY {
                let at = self.find(hash, |_| false);
                self.slots[at] = (hash, id);
            }
        }
    }
}

trait Slot {
    fn some_id(&self) -> Option<u32>;
}

impl Slot for (u32, u32) {
    fn some_id(&self) -> Option<u32> {
        Some(self.1).filter(|id| *id != EMPTY)
    }
}

/// A number that differs from run to run, so that no file is made of texts that collide.
#[derive(Clone, Copy)]
struct Seed(u64);

impl Seed {
    fn new() -> Seed {
        Seed(RandomState::new().hash_one(0) | 1)
    }

    fn hash(self, bytes: &[u8]) -> u32 {
        let (words, rest) = bytes.as_chunks::<8>();
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        let mut hash = self.0 ^ bytes.len() as u64;
        for word in words.iter().chain([&last]) {
            hash = fold(hash ^ u64::from_le_bytes(*word), self.0 ^ 0x9e37_79b9_7f4a_7c15);
        }
        (hash ^ hash >> 32) as u32
    }
}

/// Both halves of a product.
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

/// Hashes pairs of ids.
#[derive(Clone, Copy)]
pub(super) struct PairHash(Seed);

impl PairHash {
    pub(super) fn new() -> PairHash {
        PairHash(Seed::new())
    }
}

impl BuildHasher for PairHash {
    type Hasher = PairHasher;

    fn build_hasher(&self) -> PairHasher {
        PairHasher { seed: self.0.0, state: 0 }
    }
}

pub(super) struct PairHasher {
    seed: u64,
    state: u64,
}

impl Hasher for PairHasher {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u32(u32::from(*byte)));
    }

    fn write_u32(&mut self, id: u32) {
        self.state = fold(self.state ^ u64::from(id) ^ self.seed, 0x9e37_79b9_7f4a_7c15 ^ self.seed);
    }

    fn finish(&self) -> u64 {
        self.state
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_found_and_others_are_not() {
        let texts: Vec<String> = (0..5000).map(|i| format!("{}{i}", "x".repeat(i % 19))).collect();
        let mut index = TextIndex::with_capacity(3);
        for (id, text) in texts.iter().enumerate() {
            assert_eq!(index.insert(text, id as u32, |id| texts[id as usize] == *text), None);
        }
        for (id, text) in texts.iter().enumerate() {
            let is_text = |id: u32| texts[id as usize] == *text;
            assert_eq!(index.get(text, is_text), Some(id as u32));
            assert_eq!(index.insert(text, 9, is_text), Some(id as u32));
        }
        assert_eq!(index.get("y", |id| texts[id as usize] == "y"), None);
    }

    #[test]
    fn hashes_of_similar_texts_and_pairs_spread() {
        let seed = Seed::new();
        let low = |hash: u64| (hash & 0xff) as usize;
        let mut counts = [[0; 256]; 2];
        let pairs = PairHash::new();
        for i in 0..25_600_u32 {
            counts[0][low(u64::from(seed.hash(&i.to_be_bytes())))] += 1;
            counts[1][low(pairs.hash_one((i % 160, i / 160)))] += 1;
        }
        // 100 each with a deviation of 10.
        assert!(counts.as_flattened().iter().all(|count| (40..180).contains(count)), "{counts:?}");
    }
}
