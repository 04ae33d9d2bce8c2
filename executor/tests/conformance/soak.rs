//! Everything at once, at random: starts and joins by the thousand while the process changes its
//! identity, forks, loads and unloads libraries, and sends signals.
//!
//! Two seconds by default; `GORT_SOAK_SECONDS` sets another time.

use crate::dynamic::{Built, INITIAL, INITIAL_EXEC};
use crate::support::{Random, STACK, Threads, in_forked_child, join};
use gort::__conformance::Handle;
use std::ffi::c_int;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// One seed per root thread, the same in every run.
const SEEDS: [u64; 4] = [0x9e37_79b9, 0x85eb_ca6b, 0xc2b2_ae35, 0x27d4_eb2f];

struct World {
    threads: Threads,
    /// `None` where there is no compiler.
    library: Option<Built>,
    stop: AtomicBool,
    started: AtomicUsize,
    done: [AtomicUsize; 6],
}

pub(crate) fn churn(threads: Threads) {
    let seconds = std::env::var("GORT_SOAK_SECONDS").map_or(2, |s| s.parse().expect("a number"));
    extern "C" fn nothing(_: c_int) {}
    // SAFETY: the handler does nothing.
    unsafe { libc::signal(libc::SIGUSR1, nothing as *const () as usize) };
    let world = Arc::new(World {
        threads,
        library: Built::new("tls.c", &[INITIAL_EXEC]).ok(),
        stop: AtomicBool::new(false),
        started: AtomicUsize::new(0),
        done: [const { AtomicUsize::new(0) }; 6],
    });
    let roots: Vec<_> = SEEDS
        .into_iter()
        .map(|seed| {
            let world = world.clone();
            threads.spawn(move || work(&world, Random(seed), 0))
        })
        .collect();
    std::thread::sleep(Duration::from_secs(seconds));
    world.stop.store(true, Ordering::Relaxed);
    roots.into_iter().for_each(join);
    let done: Vec<_> = world
        .done
        .iter()
        .map(|n| n.load(Ordering::Relaxed))
        .collect();
    let started = world.started.load(Ordering::Relaxed);
    println!("{started} threads; joins, setresuid, fork, dlopen, signals, malloc: {done:?}");
    assert!(
        started > 100 && done.iter().all(|&n| n > 0),
        "{started} {done:?}"
    );
}

/// A thread's life: a few random deeds, at the root until the end.
fn work(world: &Arc<World>, mut random: Random, depth: usize) {
    let mut children: Vec<Handle> = Vec::new();
    let mut left = if depth == 0 {
        usize::MAX
    } else {
        1 + random.below(6)
    };
    while left > 0 && !world.stop.load(Ordering::Relaxed) {
        left -= 1;
        let deed = match random.below(100) {
            0..40 => {
                if depth < 3 && children.len() < 6 {
                    children.push(start(world, &mut random, depth + 1));
                }
                continue;
            }
            40..60 => {
                children.pop().into_iter().for_each(join);
                0
            }
            // glibc's own pthread_create deadlocks when setresuid and dlopen meet it (2.36).
            60..70 if world.threads.is_raw() => {
                // SAFETY: -1 leaves each id as it is, but goes through all threads.
                assert_eq!(unsafe { libc::setresuid(u32::MAX, u32::MAX, u32::MAX) }, 0);
                1
            }
            60..70 => 1,
            70..73 => {
                in_forked_child(|| {
                    drop(vec![1_u8; 100]);
                    // std locks a table of its own when a thread starts or ends, which a fork
                    // at that moment leaves locked in the child for ever.
                    if world.threads.is_raw() {
                        join(world.threads.spawn(|| drop(vec![1_u8; 100])));
                    }
                });
                2
            }
            73..85 => {
                if let Some(library) = &world.library {
                    assert_eq!(library.open().get(), INITIAL);
                }
                3
            }
            85..91 => {
                for child in children.iter().filter(|child| !child.is_finished()) {
                    // It may have ended since; the tid is not used again so soon.
                    // SAFETY: tgkill touches no memory.
                    unsafe {
                        let pid = libc::getpid();
                        libc::syscall(libc::SYS_tgkill, pid, child.tid(), libc::SIGUSR1);
                    }
                }
                4
            }
            _ => {
                let blocks: Vec<Box<[u8]>> = (0..200).map(|i| vec![1; 16 + i * 7].into()).collect();
                drop(std::hint::black_box(blocks));
                5
            }
        };
        world.done[deed].fetch_add(1, Ordering::Relaxed);
    }
    // Some are joined, others left to the reaper.
    for child in children {
        if random.below(2) == 0 {
            join(child);
        }
    }
}

fn start(world: &Arc<World>, random: &mut Random, depth: usize) -> Handle {
    world.started.fetch_add(1, Ordering::Relaxed);
    let (inside, seed) = (world.clone(), random.below(1 << 30) as u64 + 1);
    // Two sizes, so that cached mappings do not always fit.
    let size = STACK / (1 + random.below(2));
    let child = move || work(&inside, Random(seed), depth);
    world
        .threads
        .try_spawn("soak", size, child)
        .unwrap_or_else(|e| panic!("{e}"))
}
