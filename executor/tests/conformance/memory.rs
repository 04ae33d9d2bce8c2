//! malloc, thread locals and stacks.

use crate::support::{Random, STACK, THREADS, Threads, join, proc_lines, resident};
use std::cell::{Cell, RefCell};
use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex, mpsc};

pub(crate) fn malloc(threads: Threads) {
    threads.each(|i| {
        let mut random = Random(i as u64 + 1);
        let mut live: Vec<Vec<u8>> = Vec::new();
        for round in 0..60_000_usize {
            // Mostly small blocks, now and then one that malloc takes from mmap.
            let most = if round % 97 == 0 { 200_000 } else { 700 };
            if live.len() > 300 {
                let block = live.swap_remove(random.below(300));
                assert_eq!(block.first(), block.last());
            }
            live.push(vec![round as u8; random.below(most)]);
        }
    });
}

pub(crate) fn free_on_another_thread(threads: Threads) {
    // Each thread frees what its neighbour allocated.
    let (senders, receivers): (Vec<_>, Vec<_>) =
        (0..THREADS).map(|_| mpsc::channel::<Box<[u8]>>()).unzip();
    let receivers: Vec<_> = receivers.into_iter().map(|r| Mutex::new(Some(r))).collect();
    let senders = Mutex::new(senders.into_iter().map(Some).collect::<Vec<_>>());
    threads.each(move |i| {
        let sender = senders.lock().unwrap()[(i + 1) % THREADS].take().unwrap();
        let receiver = receivers[i].lock().unwrap().take().unwrap();
        for k in 0..20_000_usize {
            sender.send(vec![k as u8; 16 + k % 900].into()).unwrap();
            if k > 50 {
                let block = receiver.recv().unwrap();
                assert_eq!(block.first(), block.last());
            }
        }
        drop(sender);
        assert_eq!(receiver.iter().count(), 51);
    });
}

static DROPS: AtomicUsize = AtomicUsize::new(0);

struct CountsDrops;

impl Drop for CountsDrops {
    fn drop(&mut self) {
        // A destructor may use another thread local.
        FRESH.set(FRESH.get() + 1);
        DROPS.fetch_add(1, Ordering::Relaxed);
    }
}

thread_local! {
    static FRESH: Cell<u32> = const { Cell::new(0x5a5a) };
    static ONE: RefCell<Option<CountsDrops>> = const { RefCell::new(None) };
    static MANY: RefCell<Vec<CountsDrops>> = const { RefCell::new(Vec::new()) };
}

pub(crate) fn thread_local_drop(threads: Threads) {
    threads.each(|_| {
        ONE.set(Some(CountsDrops));
        MANY.with_borrow_mut(|many| many.extend([CountsDrops, CountsDrops]));
    });
    // The join comes after the destructors, so the count is complete.
    assert_eq!(DROPS.load(Ordering::Relaxed), 3 * THREADS);
}

pub(crate) fn thread_locals_are_fresh(threads: Threads) {
    FRESH.set(1);
    // The later rounds run on mappings that earlier ones have used.
    for _ in 0..10 {
        threads.each(|_| {
            assert_eq!(FRESH.get(), 0x5a5a);
            assert!(MANY.with_borrow(Vec::is_empty));
            FRESH.set(2);
        });
    }
}

pub(crate) fn thousand_threads(threads: Threads) {
    const MANY: usize = 1000;
    let all = Arc::new(Barrier::new(MANY + 1));
    let handles: Vec<_> = (0..MANY)
        .map(|_| {
            let all = all.clone();
            threads
                .try_spawn("m", 128 << 10, move || {
                    all.wait();
                })
                .expect("a thousand threads")
        })
        .collect();
    // Opens only when all of them exist at the same time.
    all.wait();
    handles.into_iter().for_each(join);
}

pub(crate) fn no_growth_over_4000_threads(threads: Threads) {
    let cycle = |pairs: usize| {
        for _ in 0..pairs {
            let work = || {
                let blocks: Vec<Box<[u8]>> = (0..400).map(|i| vec![1; 16 + i * 2].into()).collect();
                black_box(&blocks);
                // SAFETY: both leave a buffer of the thread's behind that its end must free.
                unsafe {
                    libc::strerror(12345);
                    libc::dlopen(c"/nonexistent".as_ptr(), libc::RTLD_NOW);
                }
            };
            let pair = [threads.spawn(work), threads.spawn(work)];
            pair.into_iter().for_each(join);
        }
    };
    cycle(200);
    let before = (resident(), proc_lines("maps"));
    cycle(2000);
    let after = (resident(), proc_lines("maps"));
    // 2 MiB over 4000 threads are 524 bytes each: less than any leak that matters, more than what
    // malloc's arenas vary by.
    assert!(
        after.0 < before.0 + (2 << 20),
        "resident memory grew from {} to {}",
        before.0,
        after.0
    );
    assert!(
        after.1 < before.1 + 20,
        "mappings grew from {} to {}",
        before.1,
        after.1
    );
}

/// Uses some of the stack, in every page.
#[inline(never)]
fn descend(pages: usize) -> usize {
    let frame = black_box([pages as u8; 4096]);
    if pages == 0 {
        return 0;
    }
    descend(pages - 1) + usize::from(frame[pages] == pages as u8)
}

pub(crate) fn odd_stack_sizes(threads: Threads) {
    for size in [0, 1, 16 << 10, (64 << 10) + 1, 3_000_000, 64 << 20] {
        // Of small stacks nothing is asked but that the thread runs.
        let pages = if size > STACK / 2 { size / 4096 / 2 } else { 0 };
        let run = move || assert_eq!(descend(pages.min(200)), pages.min(200));
        join(
            threads
                .try_spawn("m", size, run)
                .unwrap_or_else(|e| panic!("{size}: {e}")),
        );
    }
    let refused = threads.try_spawn("m", usize::MAX / 2, || {});
    assert!(refused.is_err(), "half the address space as a stack");
}
