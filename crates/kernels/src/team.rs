//! A team of threads that runs the tiles of one operation at a time.
//!
//! A token is some hundred short operations, each followed by a barrier, so what counts is the cost of a region, not
//! of a task. Workers live as long as the team, spin for a short while when they have nothing to do and then sleep.
//! Each has a share of the tiles and takes from others' when it is through. A region does not wait for workers that have
//! not come: whoever runs when it opens takes tiles, the caller among them, and when none are left it is closed to
//! latecomers. A worker steps aside between two tiles, outside of the region, before the system would stop it within one
//! and leave the others waiting for as long as a neighbour has its core.

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::bands::Bands;
use crate::error::KernelError;
use crate::shared_slice::SharedSlice;
use crate::shares::{Padded, Shares};

/// How long a thread without work spins before it sleeps. Waking a sleeper costs 5 to 50 µs, and between two
/// regions of a token the caller works alone for less than that.
const SPIN: Duration = Duration::from_micros(60);

/// How long a worker runs before it lets others have its processor, if any want it. Linux stops a thread at a tick of its
/// clock, every 1 to 4 ms, once it has had its slice of some 3 ms: who yields before that is hardly ever stopped in a tile.
/// Beside an endless loop on the second of two cores decode gains a fifth, prompts up to a tenth; without one nothing
/// changes (docs/kernels-log.md).
const STINT: Duration = Duration::from_millis(1);

/// What one tile is handed to: `(tile, worker)`.
type Tile<'a> = dyn Fn(usize, usize) + Sync + 'a;

/// The region word: generation in the upper half, [`OPEN`], and the number of workers inside in the low bits.
const OPEN: u64 = 1 << 31;
const INSIDE: u64 = OPEN - 1;
const GENERATION: u64 = 1 << 32;

/// On one line: who sees the region open has the job.
struct Region {
    word: AtomicU64,
    /// What its tiles are handed to. Written by the caller while the region is closed and empty.
    job: UnsafeCell<Option<*const Tile<'static>>>,
}

struct Shared {
    region: Padded<Region>,
    shares: Shares,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    stop: AtomicBool,
    polite: bool, // more threads than processors: yield while waiting
    asleep: AtomicUsize,
    caller_asleep: AtomicBool,
    bed: Mutex<()>,
    opened: Condvar,
    emptied: Condvar,
}

// SAFETY: everything but the job synchronises itself. It is written only by the one caller that holds `Team::turn`,
// while the region is closed and nobody is inside, and read only by threads inside the region (`Shared::enter`
// acquires what the opening store released). The closure it points to is `Sync`.
unsafe impl Sync for Shared {}
// SAFETY: as above; the pointer in the job is used only between the opening of a region and the return of `Team::run`.
unsafe impl Send for Shared {}

thread_local! {
    /// The region that this thread is inside of: address of the team's `Shared`, and worker number.
    static INSIDE_OF: Cell<(usize, usize)> = const { Cell::new((0, 0)) };
}

/// A fixed number of threads, the caller included, that run tiles together.
pub struct Team {
    shared: Arc<Shared>,
    turn: Mutex<()>,
    workers: Vec<JoinHandle<()>>,
    bands: Bands,
}

impl Team {
    /// A team of `threads`, of which `threads - 1` are started; the caller of [`run`](Team::run) is the other one.
    ///
    /// # Errors
    /// [`KernelError::NoThreads`] for 0, [`KernelError::ThreadSpawn`] when the system refuses a thread.
    pub fn new(threads: usize) -> Result<Team, KernelError> {
        if threads == 0 {
            return Err(KernelError::NoThreads);
        }
        let processors = std::thread::available_parallelism().map_or(1, |n| n.get());
        let shared = Arc::new(Shared {
            region: Padded(Region { word: AtomicU64::new(0), job: UnsafeCell::new(None) }),
            shares: Shares::new(threads),
            panic: Mutex::new(None),
            stop: AtomicBool::new(false),
            polite: threads > processors,
            asleep: AtomicUsize::new(0),
            caller_asleep: AtomicBool::new(false),
            bed: Mutex::new(()),
            opened: Condvar::new(),
            emptied: Condvar::new(),
        });
        let bands = Bands::new(threads);
        let mut team = Team { shared, turn: Mutex::new(()), workers: Vec::new(), bands };
        for worker in 1..threads {
            let shared = Arc::clone(&team.shared);
            let started = std::thread::Builder::new()
                .name(format!("roofline-{worker}"))
                .spawn(move || shared.work(worker))
                .map_err(|source| KernelError::ThreadSpawn { worker, threads, source })?;
            team.workers.push(started);
        }
        Ok(team)
    }

    /// Memory of each worker to pack weights in.
    pub(crate) fn bands(&self) -> &Bands {
        &self.bands
    }

    /// Threads of the team, the caller included.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `tile(i, worker)` once for each `i` in `0..tiles`, in no fixed order, and returns when all are done.
    ///
    /// `worker` is below [`threads`](Team::threads), and no two tiles run at the same time under one number. A call
    /// from inside a tile of the same team runs there and then, under that tile's number. Callers on different
    /// threads take turns. Allocates nothing.
    ///
    /// # Panics
    /// With the payload of the first tile that panicked; tiles not yet begun may then be left out.
    pub fn run(&self, tiles: usize, tile: &Tile<'_>) {
        let Ok(tiles) = u32::try_from(tiles) else {
            const MOST: usize = u32::MAX as usize;
            (0..tiles).step_by(MOST).for_each(|first| {
                self.run(MOST.min(tiles - first), &|i, worker| tile(first + i, worker));
            });
            return;
        };
        let team = Arc::as_ptr(&self.shared) as usize;
        let (inside_of, worker) = INSIDE_OF.get();
        if inside_of == team {
            (0..tiles).for_each(|i| tile(i as usize, worker));
            return;
        }
        let turn = lock(&self.turn);
        INSIDE_OF.set((team, 0));
        let outcome = if self.workers.is_empty() || tiles <= 1 {
            catch_unwind(AssertUnwindSafe(|| (0..tiles).for_each(|i| tile(i as usize, 0)))).err()
        } else {
            self.shared.lead(tiles, tile)
        };
        INSIDE_OF.set((inside_of, worker));
        drop(turn);
        if let Some(payload) = outcome {
            resume_unwind(payload);
        }
    }

    /// Works on every item, each on one thread, in one region.
    pub fn each<T: Send>(&self, items: &mut [T], work: &(dyn Fn(usize, &mut T) + Sync)) {
        let shared = SharedSlice::new(items);
        self.run(shared.len(), &|i, _| {
            // SAFETY: each item is one tile.
            work(i, unsafe { &mut shared.part(i, 1)[0] });
        });
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        drop(lock(&self.shared.bed)); // whoever is about to sleep has either seen `stop` or is on the bed by now
        self.shared.opened.notify_all();
        for worker in self.workers.drain(..) {
            // A worker catches what tiles throw, so joining can only fail if the thread was killed from outside.
            let _ = worker.join();
        }
    }
}

impl Shared {
    /// The caller's side of a region. Returns the payload of the first panic.
    fn lead(&self, tiles: u32, tile: &Tile<'_>) -> Option<Box<dyn Any + Send>> {
        // SAFETY: only the lifetime changes. The region is closed and empty again before this function returns (it
        // cannot unwind in between: tiles run under `catch_unwind`), so nobody calls `tile` after it has ended.
        let tile: *const Tile<'static> = unsafe { std::mem::transmute(std::ptr::from_ref(tile)) };
        // SAFETY: the region is closed and empty, and `Team::turn` keeps other callers away.
        unsafe { *self.region.0.job.get() = Some(tile) };
        self.shares.deal(tiles);
        let word = &self.region.0.word;
        let closed = word.load(Ordering::Relaxed);
        // Sequentially consistent, as is the load of `asleep`: a worker adds itself to `asleep` before it looks at the
        // region for the last time, so either it sees this opening or it is seen here.
        word.store(closed.wrapping_add(GENERATION) | OPEN, Ordering::SeqCst);
        if self.asleep.load(Ordering::SeqCst) > 0 {
            drop(lock(&self.bed));
            self.opened.notify_all();
        }
        self.take_tiles(0, || false);
        word.fetch_and(!OPEN, Ordering::SeqCst);
        self.wait_until_empty();
        // SAFETY: closed and empty again.
        unsafe { *self.region.0.job.get() = None };
        lock(&self.panic).take()
    }

    /// Runs tiles until none are left, or until it is `enough` after one of them. Only for threads inside the region.
    /// Returns whether it was enough.
    fn take_tiles(&self, worker: usize, enough: impl Fn() -> bool) -> bool {
        // SAFETY: this thread is inside the region, during which nobody writes the job.
        let Some(tile) = (unsafe { *self.region.0.job.get() }) else { return false };
        // SAFETY: the closure outlives the region (`lead` waits for it to be empty).
        let tile = unsafe { &*tile };
        while let Some(i) = self.shares.take(worker) {
            if let Err(payload) = catch_unwind(AssertUnwindSafe(|| tile(i as usize, worker))) {
                self.shares.clear();
                lock(&self.panic).get_or_insert(payload);
                return false;
            }
            if enough() {
                return true;
            }
        }
        false
    }

    fn wait_until_empty(&self) {
        let empty = || self.region.0.word.load(Ordering::SeqCst) & INSIDE == 0;
        if self.spin_until(empty) {
            return;
        }
        let mut bed = lock(&self.bed);
        self.caller_asleep.store(true, Ordering::SeqCst);
        while !empty() {
            bed = self.emptied.wait(bed).unwrap_or_else(PoisonError::into_inner);
        }
        self.caller_asleep.store(false, Ordering::SeqCst);
    }

    /// The life of a worker.
    fn work(&self, worker: usize) {
        INSIDE_OF.set((std::ptr::from_ref(self) as usize, worker));
        let mut seen = 0; // generation of the last region that holds nothing more for this thread
        let mut stint = Instant::now();
        loop {
            let news = || {
                self.region.0.word.load(Ordering::SeqCst) / GENERATION != seen
                    || self.stop.load(Ordering::SeqCst)
            };
            if !self.spin_until(news) {
                let mut bed = lock(&self.bed);
                self.asleep.fetch_add(1, Ordering::SeqCst);
                while !news() {
                    bed = self.opened.wait(bed).unwrap_or_else(PoisonError::into_inner);
                }
                self.asleep.fetch_sub(1, Ordering::SeqCst);
            }
            if self.stop.load(Ordering::SeqCst) {
                return;
            }
            let (generation, entered) = self.enter();
            let mut steps_aside = false;
            if entered {
                steps_aside = self.take_tiles(worker, || stint.elapsed() > STINT);
                let left = self.region.0.word.fetch_sub(1, Ordering::SeqCst);
                if left & (OPEN | INSIDE) == 1 && self.caller_asleep.load(Ordering::SeqCst) {
                    drop(lock(&self.bed));
                    self.emptied.notify_one();
                }
            }
            if steps_aside {
                std::thread::yield_now();
                stint = Instant::now();
            } else {
                seen = generation;
            }
        }
    }

    /// Enters the region if it is open. Returns its generation and whether this thread is inside.
    fn enter(&self) -> (u64, bool) {
        let mut word = self.region.0.word.load(Ordering::SeqCst);
        while word & OPEN != 0 {
            match self.region.0.word.compare_exchange_weak(word, word + 1, Ordering::SeqCst, Ordering::SeqCst)
            {
                Ok(_) => return (word / GENERATION, true),
                Err(now) => word = now,
            }
        }
        (word / GENERATION, false)
    }

    /// Waits busily for up to [`SPIN`]. Returns whether the condition came true.
    fn spin_until(&self, condition: impl Fn() -> bool) -> bool {
        let mut since = None;
        loop {
            for _ in 0..32 {
                if condition() {
                    return true;
                }
                std::hint::spin_loop();
            }
            if self.polite {
                std::thread::yield_now();
            }
            if since.get_or_insert_with(Instant::now).elapsed() > SPIN {
                return condition();
            }
        }
    }
}

/// Locks; no data hides behind these mutexes that a panic could leave half written.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Physical cores that this process may use: hardware threads of one core counted once, the affinity mask and
/// cgroup quota respected. At least 1.
///
/// Two threads on one core share its vector units and its path to memory, so a second one gains nothing here.
pub fn physical_cores() -> usize {
    let logical = std::thread::available_parallelism().map_or(1, |n| n.get());
    cores_allowed().map_or(logical, |cores| cores.clamp(1, logical))
}

/// Distinct cores behind the processors of the affinity mask, as Linux tells it; `None` elsewhere.
fn cores_allowed() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    let mut cores = std::collections::BTreeSet::new();
    for cpu in parse_cpu_list(allowed)? {
        let path = format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
        cores.insert(std::fs::read_to_string(path).ok()?);
    }
    Some(cores.len())
}

/// Processor numbers of a list such as `0-3,8`.
fn parse_cpu_list(list: &str) -> Option<Vec<usize>> {
    let mut cpus = Vec::new();
    for range in list.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        // Linux knows at most some thousand processors; a wider range is not one of its lists.
        if last >= first.checked_add(1 << 16)? {
            return None;
        }
        cpus.extend(first..=last);
    }
    Some(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_lists_are_read_as_linux_writes_them() {
        assert_eq!(parse_cpu_list(" 0-3,8,10-11\n"), Some(vec![0, 1, 2, 3, 8, 10, 11]));
        assert_eq!(parse_cpu_list("0"), Some(vec![0]));
        for bad in ["", "a", "1-", "0-99999999999"] {
            assert_eq!(parse_cpu_list(bad), None, "{bad:?}");
        }
        let cores = physical_cores();
        assert!(cores >= 1 && cores <= std::thread::available_parallelism().unwrap().get());
    }
}
