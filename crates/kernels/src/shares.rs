//! Who runs which tiles of a region: each worker a run of them, and what others have left when its own are done.
//!
//! Neighbouring tiles read neighbouring memory. A worker that goes on where it stopped keeps what the processor has
//! begun to fetch, and in the next region finds in its own cache what it wrote in this one. One cursor for all, which
//! this was before, mixes the workers' tiles, and its cache line goes back and forth with each.

use std::sync::atomic::{AtomicU64, Ordering};

/// Keeps what different threads write on different cache lines (128: adjacent lines are fetched in pairs).
#[repr(align(128))]
pub(crate) struct Padded<T>(pub T);

/// The tiles that each worker has yet to begin, as `first..end`: `first` in the lower half of a word, `end` in the
/// upper one. A tile is in one word at a time, or begun.
pub(crate) struct Shares(Box<[Padded<AtomicU64>]>);

fn word(first: u32, end: u32) -> u64 {
    u64::from(first) | u64::from(end) << 32
}

fn range(word: u64) -> (u32, u32) {
    (word as u32, (word >> 32) as u32)
}

impl Shares {
    /// Of so many workers, all empty.
    pub fn new(workers: usize) -> Shares {
        Shares((0..workers).map(|_| Padded(AtomicU64::new(0))).collect())
    }

    /// Deals out tiles `0..tiles`, the first workers more where they do not go round: worker 0, who calls, is there
    /// before the others. Only while nobody takes any.
    pub fn deal(&self, tiles: u32) {
        let workers = self.0.len() as u64;
        let bound = |worker: usize| (u64::from(tiles) * worker as u64).div_ceil(workers) as u32;
        for (worker, share) in self.0.iter().enumerate() {
            share.0.store(word(bound(worker), bound(worker + 1)), Ordering::Relaxed);
        }
    }

    /// The next tile for `worker`; `None` when all are begun.
    pub fn take(&self, worker: usize) -> Option<u32> {
        let own = &self.0[worker].0;
        let mut seen = own.load(Ordering::Relaxed);
        loop {
            let (first, end) = range(seen);
            if first >= end {
                return self.steal(worker);
            }
            match own.compare_exchange_weak(seen, word(first + 1, end), Ordering::Relaxed, Ordering::Relaxed)
            {
                Ok(_) => return Some(first),
                Err(now) => seen = now,
            }
        }
    }

    /// Takes the second half of what the next worker that has something left has left. `worker` has nothing.
    fn steal(&self, worker: usize) -> Option<u32> {
        let workers = self.0.len();
        for victim in (1..workers).map(|on| &self.0[(worker + on) % workers].0) {
            let mut seen = victim.load(Ordering::Relaxed);
            loop {
                let (first, end) = range(seen);
                if first >= end {
                    break;
                }
                let middle = first + (end - first) / 2;
                match victim.compare_exchange_weak(
                    seen,
                    word(first, middle),
                    Ordering::Relaxed,
                    Ordering::Relaxed,
                ) {
                    Ok(_) => {
                        // Nobody else writes to a share that is empty.
                        self.0[worker].0.store(word(middle + 1, end), Ordering::Relaxed);
                        return Some(middle);
                    }
                    Err(now) => seen = now,
                }
            }
        }
        None
    }

    /// Takes everything away. What a worker steals at the same moment may escape.
    pub fn clear(&self) {
        self.0.iter().for_each(|share| share.0.store(0, Ordering::Relaxed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_worker_goes_through_its_share_and_then_halves_what_others_have() {
        let shares = Shares::new(3);
        shares.deal(12); // 0..4, 4..8, 8..12
        let take = |worker, tiles: usize| -> Vec<_> { (0..tiles).map(|_| shares.take(worker)).collect() };
        assert_eq!(take(0, 5), [Some(0), Some(1), Some(2), Some(3), Some(6)]); // worker 1 comes late
        assert_eq!(take(2, 5), [Some(8), Some(9), Some(10), Some(11), Some(7)]); // the last of what worker 0 stole
        assert_eq!(take(1, 3), [Some(4), Some(5), None]);
        assert_eq!(take(0, 1), [None]);
        shares.deal(10);
        shares.clear();
        assert_eq!(shares.take(1), None);
    }

    #[test]
    fn shares_adjoin_and_the_caller_has_one() {
        for workers in 1..=9 {
            let shares = Shares::new(workers);
            for tiles in [0, 1, 2, 3, 8, 9, 10, 1000, u32::MAX - 1, u32::MAX] {
                shares.deal(tiles);
                let mut next = 0;
                for (first, end) in shares.0.iter().map(|share| range(share.0.load(Ordering::Relaxed))) {
                    assert!(first == next && end >= first, "{workers} workers, {tiles} tiles");
                    next = end;
                }
                assert_eq!(next, tiles, "{workers} workers");
                assert_eq!(shares.take(0), (tiles > 0).then_some(0), "{workers} workers, {tiles} tiles");
            }
        }
    }

    #[test]
    fn one_worker_alone_runs_every_tile_once() {
        for (workers, tiles) in [(1, 5), (3, 2), (7, 3), (7, 1000)] {
            let shares = Shares::new(workers);
            shares.deal(tiles);
            let mut taken: Vec<_> = std::iter::from_fn(|| shares.take(workers - 1)).collect();
            taken.sort();
            assert_eq!(taken, (0..tiles).collect::<Vec<_>>(), "{workers} workers");
        }
    }
}
