//! The thread team: every tile once, panics reach the caller, nested runs do not deadlock, idle workers sleep.
#![allow(clippy::unwrap_used)] // the lint exempts test functions, not their helpers

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use roofline_kernels::{KernelError, Team};

/// Runs `tiles` tiles and returns how often each was run, checking worker numbers on the way.
fn counts(team: &Team, tiles: usize) -> Vec<usize> {
    let counts: Vec<AtomicUsize> = (0..tiles).map(|_| AtomicUsize::new(0)).collect();
    team.run(tiles, &|tile, worker| {
        assert!(worker < team.threads());
        counts[tile].fetch_add(1, Ordering::Relaxed);
    });
    counts.into_iter().map(AtomicUsize::into_inner).collect()
}

#[test]
fn every_tile_runs_once_whatever_the_number_of_threads() {
    for threads in [1, 2, 3, 9] {
        let team = Team::new(threads).unwrap();
        assert_eq!(team.threads(), threads);
        for tiles in [0, 1, 2, 3, 64, 1000] {
            assert_eq!(counts(&team, tiles), vec![1; tiles], "{threads} threads, {tiles} tiles");
        }
        for round in 0..2000 {
            assert_eq!(counts(&team, 5), vec![1; 5], "{threads} threads, round {round}");
        }
    }
}

#[test]
fn sleeping_workers_come_back() {
    let team = Team::new(3).unwrap();
    for _ in 0..20 {
        std::thread::sleep(Duration::from_millis(2));
        assert_eq!(counts(&team, 100), vec![1; 100]);
    }
}

#[test]
fn a_team_of_no_threads_is_refused() {
    assert!(matches!(Team::new(0), Err(KernelError::NoThreads)));
}

#[test]
fn a_panic_in_a_tile_reaches_the_caller_and_the_team_lives_on() {
    for threads in [1, 2, 3] {
        let team = Team::new(threads).unwrap();
        for bad in [0, 57, 99] {
            let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                team.run(100, &|tile, _| assert!(tile != bad, "tile {bad} fell"));
            }));
            let payload = caught.unwrap_err();
            assert_eq!(payload.downcast_ref::<String>().unwrap(), &format!("tile {bad} fell"));
            assert_eq!(counts(&team, 100), vec![1; 100]);
        }
    }
}

#[test]
fn a_run_inside_a_tile_runs_there_under_the_same_number() {
    for threads in [1, 2, 4] {
        let team = Team::new(threads).unwrap();
        let inner = AtomicUsize::new(0);
        team.run(16, &|_, outer_worker| {
            team.run(10, &|_, worker| {
                assert_eq!(worker, outer_worker);
                inner.fetch_add(1, Ordering::Relaxed);
            });
        });
        assert_eq!(inner.into_inner(), 160);
    }
}

#[test]
fn one_team_inside_another_and_callers_on_several_threads() {
    let (outer, inner) = (Team::new(2).unwrap(), Team::new(3).unwrap());
    let total = AtomicUsize::new(0);
    outer.run(8, &|_, _| {
        inner.run(8, &|_, _| {
            total.fetch_add(1, Ordering::Relaxed);
        });
    });
    assert_eq!(total.load(Ordering::Relaxed), 64);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..200).for_each(|_| assert_eq!(counts(&outer, 7), vec![1; 7])));
        }
    });
}

#[test]
fn no_two_tiles_share_a_worker_number_at_one_time() {
    let team = Team::new(4).unwrap();
    let busy: Vec<AtomicUsize> = (0..4).map(|_| AtomicUsize::new(0)).collect();
    for _ in 0..200 {
        team.run(32, &|_, worker| {
            assert_eq!(busy[worker].fetch_add(1, Ordering::SeqCst), 0);
            std::hint::spin_loop();
            busy[worker].fetch_sub(1, Ordering::SeqCst);
        });
    }
}

#[test]
fn workers_that_step_aside_within_a_region_come_back_to_it() {
    for threads in [2, 3, 5] {
        let team = Team::new(threads).unwrap();
        let counts: Vec<AtomicUsize> = (0..20).map(|_| AtomicUsize::new(0)).collect();
        let done = AtomicUsize::new(0);
        team.run(counts.len(), &|tile, worker| {
            let since = Instant::now();
            if worker == 0 {
                // Until all the other tiles are done, each of which is more than a worker does in one go.
                while done.load(Ordering::SeqCst) < counts.len() - 1 {
                    assert!(since.elapsed() < Duration::from_secs(60), "{done:?} of {}", counts.len());
                    std::thread::yield_now();
                }
            }
            while since.elapsed() < Duration::from_micros(1500) {
                std::hint::spin_loop();
            }
            counts[tile].fetch_add(1, Ordering::SeqCst);
            done.fetch_add(1, Ordering::SeqCst);
        });
        assert!(counts.iter().all(|count| count.load(Ordering::SeqCst) == 1), "{threads}: {counts:?}");
    }
}

/// Processor time used by this process, in clock ticks of 1/100 s, all threads.
#[cfg(target_os = "linux")]
fn ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let after_name = stat.rsplit_once(')').unwrap().1;
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[test]
#[cfg(target_os = "linux")]
fn idle_workers_use_no_processor_time() {
    // A process of its own, so that the tests beside this one do not count.
    if std::env::var_os("ROOFLINE_IDLE_CHILD").is_none() {
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "idle_workers_use_no_processor_time", "--test-threads=1"])
            .env("ROOFLINE_IDLE_CHILD", "1")
            .status()
            .unwrap();
        assert!(status.success());
        return;
    }
    let team = Team::new(4).unwrap();
    assert_eq!(counts(&team, 100), vec![1; 100]);
    std::thread::sleep(Duration::from_millis(100));
    let before = ticks();
    std::thread::sleep(Duration::from_millis(500));
    let used = ticks() - before;
    // Three workers that spin would use 50 ticks each, or what the machine has of that.
    assert!(used <= 5, "idle for 50 ticks, {used} used");
}
