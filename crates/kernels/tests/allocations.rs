//! Preparing activations and multiplying allocate nothing, on any thread.
#![allow(clippy::unwrap_used)] // the lint exempts test functions, not their helpers

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{Matrix, Random};
use roofline_kernels::{
    Activations, Isa, KernelTable, MatmulJob, PackedMatrix, Team, matmul, matmul_experts,
};
use roofline_weights::Format;

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: forwards to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::SeqCst);
        // SAFETY: the caller's contract is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

#[test]
fn a_product_allocates_nothing() {
    let team = Team::new(3).unwrap();
    // A thread allocates while it starts: wait until each has run a tile.
    let here = AtomicUsize::new(0);
    team.run(3, &|_, _| {
        here.fetch_add(1, Ordering::SeqCst);
        while here.load(Ordering::SeqCst) < 3 {
            std::thread::yield_now();
        }
    });
    let mut random = Random(20);
    let (rows, cols) = (40, 512);
    for isa in Isa::available() {
        let table = KernelTable::detect(Some(isa)).unwrap();
        for (format, mapped) in Format::ALL.into_iter().flat_map(|format| [(format, false), (format, true)]) {
            let mut matrix = |rows| {
                let matrix = Matrix::random(format, rows, cols, &mut random);
                match mapped {
                    true => PackedMatrix::mapped(format, rows, cols, Arc::new(matrix)).unwrap(),
                    false => matrix.pack(&team),
                }
            };
            let w = matrix(100);
            let experts: Vec<_> = (0..3).map(|_| matrix(50)).collect();
            let x = random.floats(rows * cols);
            let mut activations = Activations::with_capacity(rows, cols).unwrap();
            let (mut a, mut b, mut c) = (vec![0.0; rows * 100], vec![0.0; rows * 100], vec![0.0; rows * 50]);
            let mut run = |rows: usize| {
                activations.set(&table, &team, &x[..rows * cols], rows, cols, &[format]).unwrap();
                let mut jobs = [&mut a, &mut b].map(|out| MatmulJob {
                    w: &w,
                    bias: None,
                    out: &mut out[..rows * 100],
                    add: false,
                });
                matmul(&table, &team, &activations, &mut jobs).unwrap();
                let groups = [0..0, 0..rows, rows..rows];
                matmul_experts(&table, &team, &activations, &experts, &groups, &mut c[..rows * 50]).unwrap();
            };
            run(1);
            let before = ALLOCATIONS.load(Ordering::SeqCst);
            for rows in [1, 40, 2, 1] {
                run(rows);
            }
            assert_eq!(ALLOCATIONS.load(Ordering::SeqCst), before, "{isa} {format}, mapped {mapped}");
        }
    }
}
