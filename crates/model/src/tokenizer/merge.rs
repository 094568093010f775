//! The one algorithm under both tokenizers: join neighbouring symbols, best pair first, until no pair is left.
//!
//! A heap of candidate pairs over a doubly linked list: n log n for any text, where scanning for the best pair
//! after each merge would be n² on a megabyte without a space.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

/// Works off one sequence of symbols `S`; a pair's priority is `P`, the greatest first, the leftmost of equals.
/// Kept between sequences so that their buffers are reused.
pub(crate) struct Merger<S, P> {
    nodes: Vec<Node<S>>,               // (symbols)
    heap: BinaryHeap<Candidate<S, P>>, // (pairs not yet tried)
}

struct Node<S> {
    symbol: S,
    prev: u32,
    next: u32,
    dead: bool,
}

struct Candidate<S, P> {
    priority: P,
    left: u32,
    right: u32,
    /// What stood there when the candidate was made; a merge since then makes it stale.
    pair: (S, S),
    merged: S,
}

const NONE: u32 = u32::MAX;

impl<S: Copy + PartialEq, P: Ord + Copy> Merger<S, P> {
    pub(crate) fn new() -> Self {
        Self { nodes: Vec::new(), heap: BinaryHeap::new() }
    }

    /// Merges `symbols` while `join` gives a pair's priority and result; returns what is left, in order.
    ///
    /// The caller sees to it that there are fewer than `u32::MAX` symbols.
    pub(crate) fn run<'m>(
        &'m mut self,
        symbols: impl Iterator<Item = S>,
        join: impl Fn(S, S) -> Option<(P, S)>,
    ) -> impl Iterator<Item = S> + 'm {
        self.heap.clear();
        self.nodes.clear();
        self.nodes.extend(symbols.zip(0u32..).map(|(symbol, at)| Node {
            symbol,
            prev: at.checked_sub(1).unwrap_or(NONE),
            next: at + 1,
            dead: false,
        }));
        if let Some(last) = self.nodes.last_mut() {
            last.next = NONE;
        }
        for right in 1..self.nodes.len() as u32 {
            self.propose(right - 1, right, &join);
        }
        while let Some(best) = self.heap.pop() {
            self.apply(best, &join);
        }
        self.nodes.iter().filter(|node| !node.dead).map(|node| node.symbol)
    }

    fn propose(&mut self, left: u32, right: u32, join: &impl Fn(S, S) -> Option<(P, S)>) {
        let pair = (self.nodes[left as usize].symbol, self.nodes[right as usize].symbol);
        if let Some((priority, merged)) = join(pair.0, pair.1) {
            self.heap.push(Candidate { priority, left, right, pair, merged });
        }
    }

    fn apply(&mut self, best: Candidate<S, P>, join: &impl Fn(S, S) -> Option<(P, S)>) {
        let (left, right) = (best.left as usize, best.right as usize);
        let fresh = !self.nodes[left].dead
            && !self.nodes[right].dead
            && (self.nodes[left].symbol, self.nodes[right].symbol) == best.pair;
        if !fresh {
            return;
        }
        let next = self.nodes[right].next;
        self.nodes[right].dead = true;
        self.nodes[left].symbol = best.merged;
        self.nodes[left].next = next;
        if next != NONE {
            self.nodes[next as usize].prev = best.left;
            self.propose(best.left, next, join);
        }
        let prev = self.nodes[left].prev;
        if prev != NONE {
            self.propose(prev, best.left, join);
        }
    }
}

impl<S, P: Ord + Copy> Candidate<S, P> {
    fn key(&self) -> (P, Reverse<u32>) {
        (self.priority, Reverse(self.left))
    }
}

impl<S, P: Ord + Copy> PartialEq for Candidate<S, P> {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl<S, P: Ord + Copy> Eq for Candidate<S, P> {}

impl<S, P: Ord + Copy> PartialOrd for Candidate<S, P> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<S, P: Ord + Copy> Ord for Candidate<S, P> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Pairs of small numbers join to their sum; which pairs do, and how eagerly, is arbitrary but fixed.
    fn join(a: u32, b: u32) -> Option<(Reverse<u32>, u32)> {
        let mixed = a.wrapping_mul(0x9E37_79B1) ^ b.wrapping_mul(0x85EB_CA6B);
        (a + b < 12 && !mixed.is_multiple_of(3)).then_some((Reverse(mixed % 7), a + b))
    }

    /// The definition: find the best pair, leftmost of equals, join it, start over.
    fn by_scanning(mut symbols: Vec<u32>) -> Vec<u32> {
        loop {
            let best = (1..symbols.len())
                .filter_map(|i| join(symbols[i - 1], symbols[i]).map(|(p, s)| (p, Reverse(i), s)))
                .max();
            let Some((_, Reverse(i), merged)) = best else { return symbols };
            symbols[i - 1] = merged;
            symbols.remove(i);
        }
    }

    proptest! {
        #[test]
        fn same_as_scanning_for_the_best_pair(symbols in prop::collection::vec(0u32..6, 0..60)) {
            let mut merger = Merger::new();
            let merged: Vec<u32> = merger.run(symbols.iter().copied(), join).collect();
            prop_assert_eq!(merged, by_scanning(symbols));
        }
    }
}
