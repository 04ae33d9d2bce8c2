//! A seeded random mix of everything that tasks do, in which every spawn, poll, wake, drop and
//! completion is counted: nothing is lost, nothing runs twice, every future and every output is
//! dropped exactly once, on a thread where that is allowed.
//!
//! `GORT_STRESS_SECS` says how long (default: 4 for each of the tests here), `GORT_STRESS_SEED`
//! repeats a run's choices, though not the kernel's. A run without progress for a minute is ended
//! with a dump of the counters.

mod ledger;
mod work;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use gort::runtime::{Builder, Handle, Runtime};
use gort_tests::{current_thread, multi_thread};
use ledger::Ledger;
use work::{Rng, Wakers, World};

/// One runtime, from its making to its end.
#[derive(Clone, Copy, Debug)]
enum End {
    /// Every task has ended of itself.
    Quiescent,
    /// In the middle of everything.
    Drop,
    Timeout,
    Background,
}

fn seconds() -> Duration {
    let text = std::env::var("GORT_STRESS_SECS").unwrap_or_else(|_| "4".into());
    Duration::from_secs(
        text.parse()
            .expect("GORT_STRESS_SECS is a number of seconds"),
    )
}

fn seed() -> u64 {
    match std::env::var("GORT_STRESS_SEED") {
        Ok(text) => text.parse().expect("GORT_STRESS_SEED is a number"),
        Err(_) => {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            now.unwrap().as_nanos() as u64
        }
    }
}

/// Rounds of `round` until the time is up.
fn rounds(name: &str, round: impl Fn(&mut Rng)) {
    work::silence_expected_panics();
    let seed = seed();
    eprintln!("stress {name}: GORT_STRESS_SEED={seed}");
    let start = Instant::now();
    let mut count = 0;
    while count == 0 || start.elapsed() < seconds() {
        let mut rng = Rng::new(seed.wrapping_add(count));
        round(&mut rng);
        count += 1;
    }
    eprintln!("stress {name}: {count} rounds");
}

fn end(rng: &mut Rng) -> End {
    match rng.below(6) {
        0 | 1 => End::Quiescent,
        2 | 3 => End::Drop,
        4 => End::Timeout,
        _ => End::Background,
    }
}

/// Threads that are no runtime's and meddle with one: they spawn, join, abort and take Ps.
struct Meddlers {
    stop: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Meddlers {
    fn start(world: &Arc<World>, handle: &Handle, rng: &mut Rng) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for _ in 0..2 {
            let (world, handle, stop) = (world.clone(), handle.clone(), stop.clone());
            let mut rng = Rng::new(rng.next());
            threads.push(std::thread::spawn(move || {
                while !stop.load(SeqCst) {
                    work::spawn_from_outside(&world, &handle, &mut rng);
                    rng.pause(200);
                }
            }));
        }
        if handle.runtime_flavor() == gort::runtime::RuntimeFlavor::MultiThread {
            let (world, handle, stop) = (world.clone(), handle.clone(), stop.clone());
            let mut rng = Rng::new(rng.next());
            threads.push(std::thread::spawn(move || {
                while !stop.load(SeqCst) {
                    if handle.__retake(rng.next() as usize) {
                        world.ledger.retakes.add();
                    }
                    rng.pause(100);
                }
            }));
        }
        Self { stop, threads }
    }

    fn stop(self) {
        self.stop.store(true, SeqCst);
        for thread in self.threads {
            thread.join().expect("a meddler panicked");
        }
    }
}

/// The bounds that every runtime here gets: few blocking threads, so that jobs queue; a short
/// keep-alive, so that threads end and start again; hooks, to know the runtime's threads.
fn build(mut builder: Builder, rng: &mut Rng) -> Runtime {
    builder
        .max_blocking_threads(1 + rng.below(4) as usize)
        .thread_keep_alive(Duration::from_millis(rng.below(30)))
        .global_queue_interval(1 + rng.below(61) as u32)
        .event_interval(1 + rng.below(61) as u32)
        .on_thread_start(|| ledger::on_runtime_thread(true))
        .on_thread_stop(|| ledger::on_runtime_thread(false));
    builder.build().expect("a runtime can be built")
}

fn shut_down(runtime: Runtime, end: End, world: &World) {
    match end {
        End::Quiescent | End::Drop => drop(runtime),
        End::Timeout => runtime.shutdown_timeout(Duration::from_secs(120)),
        End::Background => {
            runtime.shutdown_background();
            world.wait_for_nothing_alive();
        }
    }
}

/// A round on a multi-thread runtime.
fn multi_round(workers: usize, rng: &mut Rng) {
    let end = end(rng);
    let ledger = Arc::new(Ledger::new(format!("{workers} workers, {end:?}"), true));
    let watch = ledger.watch();
    let wakers = Wakers::start(rng);
    let runtime = build(multi_thread(workers), rng);
    let world = World::new(ledger.clone(), &wakers, 2_000 + rng.below(3_000) as usize);
    let metrics = runtime.metrics();
    watch.observe(metrics.clone());
    let meddlers = Meddlers::start(&world, runtime.handle(), rng);
    let roots = 20 + rng.below(60);
    runtime.block_on(async {
        for _ in 0..roots {
            work::spawn(&world, rng.next());
        }
    });
    match end {
        End::Quiescent => {
            world.wait_for_budget();
            meddlers.stop();
            world.wait_for_nothing_alive();
            ledger.check_metrics(&metrics);
            shut_down(runtime, end, &world);
        }
        _ => {
            rng.pause(20_000);
            shut_down(runtime, end, &world);
            meddlers.stop();
        }
    }
    wakers.stop();
    drop(watch);
    ledger.check_end();
}

/// A round on a current-thread runtime, which two threads drive.
fn current_round(rng: &mut Rng) {
    let end = end(rng);
    let ledger = Arc::new(Ledger::new(format!("current thread, {end:?}"), false));
    let watch = ledger.watch();
    let wakers = Wakers::start(rng);
    let runtime = build(current_thread(), rng);
    let world = World::new(ledger.clone(), &wakers, 1_000 + rng.below(1_000) as usize);
    let metrics = runtime.metrics();
    watch.observe(metrics.clone());
    let meddlers = Meddlers::start(&world, runtime.handle(), rng);
    let roots = 10 + rng.below(40);
    let seeds: Vec<u64> = (0..roots).map(|_| rng.next()).collect();
    let leave = AtomicBool::new(false);
    let drive = |until: &dyn Fn() -> bool| {
        runtime.block_on(async {
            while !until() {
                gort::time::sleep(Duration::from_millis(1)).await;
            }
        });
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(|| drive(&|| leave.load(SeqCst)));
        runtime.block_on(async {
            for seed in seeds {
                work::spawn(&world, seed);
            }
        });
        match end {
            End::Quiescent => {
                drive(&|| world.budget_is_spent());
                meddlers.stop.store(true, SeqCst);
                drive(&|| ledger.alive() == 0);
            }
            _ => {
                let until = Instant::now() + Duration::from_micros(rng.below(20_000));
                drive(&|| Instant::now() >= until);
            }
        }
        leave.store(true, SeqCst);
        other.join().expect("the other driver panicked");
    });
    if matches!(end, End::Quiescent) {
        ledger.check_metrics(&metrics);
    }
    shut_down(runtime, end, &world);
    meddlers.stop();
    wakers.stop();
    drop(watch);
    ledger.check_end();
}

#[test]
fn one_worker() {
    rounds("with 1 worker", |rng| multi_round(1, rng));
}

#[test]
fn two_workers() {
    rounds("with 2 workers", |rng| multi_round(2, rng));
}

#[test]
fn four_workers() {
    rounds("with 4 workers", |rng| multi_round(4, rng));
}

#[test]
fn eight_workers() {
    rounds("with 8 workers", |rng| multi_round(8, rng));
}

#[test]
fn sixteen_workers() {
    rounds("with 16 workers", |rng| multi_round(16, rng));
}

#[test]
fn current_thread_flavor() {
    rounds("of the current-thread flavor", current_round);
}
