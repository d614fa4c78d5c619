//! A steady step allocates nothing: neither training nor a forward pass, nor a tick that is saved.
#![allow(unsafe_code, reason = "an allocator that counts is an allocator")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};

use ndarray::{Array2, Array3};
use neurarch::prelude::*;

/// Counts what counted threads allocate, so that other tests may run beside this one.
struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// Whether allocations of this thread count. Needs neither memory nor a destructor, so the allocator may ask at any time.
    static COUNTS: Cell<bool> = const { Cell::new(false) };
}

// SAFETY: everything is left to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if COUNTS.get() {
            ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        }
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, address: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(address, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Runs `deed` until it has its memory, then counts what it allocates ten times over, on any thread of its pool.
fn allocations(mut deed: impl FnMut() + Send) -> usize {
    let builder = rayon::ThreadPoolBuilder::new().num_threads(2);
    let pool = builder.start_handler(|_| COUNTS.set(true)).build().unwrap();
    pool.install(|| {
        // Which thread meets which tile is chance: give each time to meet the largest.
        (0..200).for_each(|_| deed());
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        (0..10).for_each(|_| deed());
        ALLOCATIONS.load(Ordering::Relaxed) - before
    })
}

#[test]
fn a_steady_step_allocates_nothing() {
    const MODELS: usize = 300;
    assert_eq!(allocations(|| drop(black_box(vec![0_u8]))), 10, "what a deed allocates counts");
    let mut world = World::new();
    let brain = Sequential::new().push(Linear::new(4, 16)).push(ReLU).push(Dropout { p: 0.1 });
    let brain = brain.push(Linear::new(16, 2));
    let population = world.spawn_population(&brain, MODELS, Seed(1)).unwrap().id();
    world.population_mut(population).unwrap().insert(Adam::default()).unwrap();
    let x = Array3::<f32>::ones((MODELS, 8, 4));
    let targets = Array2::<i64>::ones((MODELS, 8));
    let loss = CrossEntropyLoss { label_smoothing: 0.1, ..CrossEntropyLoss::default() };

    let mut losses = vec![0.0; MODELS];
    let training = allocations(|| {
        world
            .population_mut(population)
            .unwrap()
            .train_step_into(&x, &targets, &loss, &mut losses)
            .unwrap();
    });
    assert_eq!(training, 0, "training");

    let mut tick = 0;
    world.population_mut(population).unwrap().keep_snapshots(8).unwrap();
    let saving = allocations(|| {
        let mut brains = world.population_mut(population).unwrap();
        brains.train_step_into(&x, &targets, &loss, &mut losses).unwrap();
        brains.save_snapshot(tick).unwrap();
        tick += 1;
    });
    assert_eq!(saving, 0, "a tick that is saved");
    world.population_mut(population).unwrap().forget_snapshots().unwrap();

    let mut y = Array3::<f32>::zeros((MODELS, 8, 2));
    let keeping = allocations(|| {
        world.population_mut(population).unwrap().forward_into(&x, y.view_mut()).unwrap()
    });
    assert_eq!(keeping, 0, "a forward pass in training mode");

    world.population_mut(population).unwrap().eval().unwrap();
    world.set_grad_enabled(false);
    let forward = allocations(|| {
        world.population_mut(population).unwrap().forward_into(&x, y.view_mut()).unwrap()
    });
    assert_eq!(forward, 0, "a forward pass in evaluation mode");
}
