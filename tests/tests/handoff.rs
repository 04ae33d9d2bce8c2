//! A P is taken from an M in the middle of a poll: the other tasks go on, and so does the poll.
//!
//! Nobody decides to take one yet but the hidden `Handle::__retake`.

use std::sync::Arc;
use std::time::Duration;

use gort::runtime::Runtime;
use gort::task::JoinHandle;
use gort_tests::{Count, Gate, WORKERS, Watchdog, current_thread, multi_thread, wait_until};

/// A task that is stuck in its first poll until `gate` opens, and then does `after`.
fn stuck(runtime: &Runtime, gate: &Gate, after: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    let (entered, inside, gate) = (Count::new(), Count::new(), gate.clone());
    let seen = entered.clone();
    let task = runtime.spawn(async move {
        seen.add();
        gate.pass();
        after();
        inside.add();
        gort::task::yield_now().await;
        inside.add();
    });
    wait_until("the poll has begun", || entered.get() == 1);
    task
}

/// Takes the P of every worker that is stuck, of which there are `count`.
fn retake_all(runtime: &Runtime, count: usize) {
    let metrics = runtime.metrics();
    let retaken = || -> u64 { metrics.processors().iter().map(|p| p.retaken).sum() };
    let before = retaken();
    let mut p = 0;
    wait_until("every stuck P is taken", || {
        p += 1;
        runtime.handle().__retake(p);
        retaken() >= before + count as u64
    });
}

async fn many_tasks() {
    let tasks: Vec<_> = (0..1_000)
        .map(|n| {
            gort::spawn(async move {
                gort::task::yield_now().await;
                n
            })
        })
        .collect();
    for (n, task) in tasks.into_iter().enumerate() {
        assert_eq!(task.await.unwrap(), n);
    }
}

#[test]
fn others_go_on() {
    for workers in WORKERS {
        let _watchdog = Watchdog::new("others go on");
        let runtime = multi_thread(workers).build().unwrap();
        let gate = Gate::new();
        let tasks: Vec<_> = (0..workers)
            .map(|_| stuck(&runtime, &gate, || {}))
            .collect();
        // Queued behind the stuck polls, on their own Ps too.
        let waiting = runtime.spawn(many_tasks());
        retake_all(&runtime, workers);
        runtime.block_on(async {
            waiting.await.unwrap();
            gort::spawn(many_tasks()).await.unwrap();
        });
        assert!(tasks.iter().all(|task| !task.is_finished()));
        gate.open();
        runtime.block_on(async {
            for task in tasks {
                task.await.unwrap();
            }
        });
    }
}

/// What is in the ring and in `runnext` of the P goes with it.
#[test]
fn queued_tasks_go_with_it() {
    for workers in WORKERS {
        let _watchdog = Watchdog::new("queued tasks");
        let runtime = multi_thread(workers).build().unwrap();
        let (gate, done) = (Gate::new(), Count::new());
        let tasks: Vec<_> = (0..workers)
            .map(|_| {
                let (gate, done, entered) = (gate.clone(), done.clone(), Count::new());
                let seen = entered.clone();
                let task = runtime.spawn(async move {
                    for _ in 0..600 {
                        let done = done.clone();
                        gort::spawn(async move { done.add() });
                    }
                    seen.add();
                    gate.pass();
                });
                wait_until("the poll has spawned", || entered.get() == 1);
                task
            })
            .collect();
        retake_all(&runtime, workers);
        wait_until("what was queued has run", || done.get() == 600 * workers);
        gate.open();
        runtime.block_on(async {
            for task in tasks {
                task.await.unwrap();
            }
        });
    }
}

/// The poll that lost its P uses the runtime as before.
#[test]
fn the_poll_goes_on() {
    for workers in WORKERS {
        let _watchdog = Watchdog::new("the poll goes on");
        let runtime = multi_thread(workers).build().unwrap();
        let gate = Gate::new();
        let (done, woken) = (Count::new(), Arc::new(gort::sync::Notify::new()));
        let waiter = runtime.spawn({
            let woken = woken.clone();
            async move { woken.notified().await }
        });
        let task = {
            let done = done.clone();
            stuck(&runtime, &gate, move || {
                // Spawns, a wake, a timer, a blocking job: all without a P.
                for _ in 0..300 {
                    let done = done.clone();
                    gort::spawn(async move {
                        gort::time::sleep(Duration::from_millis(1)).await;
                        done.add();
                    });
                }
                woken.notify_one();
                gort::task::spawn_blocking(move || done.add());
            })
        };
        retake_all(&runtime, 1);
        gate.open();
        runtime.block_on(async {
            task.await.unwrap();
            waiter.await.unwrap();
        });
        wait_until("what the poll started has ended", || done.get() == 301);
    }
}

#[test]
fn a_panic_without_a_p() {
    for workers in WORKERS {
        let _watchdog = Watchdog::new("panic without a P");
        let runtime = multi_thread(workers).build().unwrap();
        let gate = Gate::new();
        let task = stuck(&runtime, &gate, || panic!("without a P"));
        retake_all(&runtime, 1);
        gate.open();
        assert!(runtime.block_on(task).unwrap_err().is_panic());
        runtime.block_on(async { gort::spawn(many_tasks()).await.unwrap() });
    }
}

/// Many polls stuck at once, more than there are Ps; then the shutdown while they are.
#[test]
fn more_polls_than_processors() {
    for workers in WORKERS {
        let _watchdog = Watchdog::new("more polls than processors");
        let runtime = multi_thread(workers).build().unwrap();
        let gate = Gate::new();
        let mut tasks = Vec::new();
        for _ in 0..12 {
            tasks.push(stuck(&runtime, &gate, || {}));
            retake_all(&runtime, 1);
        }
        assert!(runtime.metrics().machines().len() > 12);
        runtime.block_on(async { gort::spawn(many_tasks()).await.unwrap() });
        let opener = {
            let gate = gate.clone();
            let handle = runtime.handle().clone();
            std::thread::spawn(move || {
                // Once the shutdown has begun, a spawn says cancelled.
                wait_until("the shutdown has begun", || {
                    let task = handle.spawn(async {});
                    handle.block_on(task).is_err()
                });
                gate.open();
            })
        };
        drop(runtime);
        opener.join().unwrap();
        let other = current_thread().build().unwrap();
        for task in tasks {
            assert!(other.block_on(task).unwrap_err().is_cancelled());
        }
    }
}

/// An M that comes back without a P parks, also while others have work: it once looked for work
/// without end that it could not take.
#[test]
fn without_a_p_no_cpu_is_used() {
    let _watchdog = Watchdog::new("no CPU without a P");
    let runtime = multi_thread(1).build().unwrap();
    let gates: Vec<_> = (0..8).map(|_| Gate::new()).collect();
    let tasks: Vec<_> = gates
        .iter()
        .map(|gate| {
            let task = stuck(&runtime, gate, || {});
            retake_all(&runtime, 1);
            task
        })
        .collect();
    // The only P is in the hands of this one, which nobody takes it from.
    let last = Gate::new();
    let holder = stuck(&runtime, &last, || {});
    let polls = Count::new();
    let queued = {
        let polls = polls.clone();
        runtime.spawn(async move { polls.add() })
    };
    gates.iter().for_each(Gate::open);
    let metrics = runtime.metrics();
    let cpu = || -> Duration {
        let machines = metrics.machines();
        machines.iter().filter_map(|m| m.cpu_time).sum()
    };
    wait_until("the eight polls have returned", || {
        metrics.global_queue_depth() == 9
    });
    let before = cpu();
    std::thread::sleep(Duration::from_millis(400));
    let used = cpu() - before;
    assert!(
        used < Duration::from_millis(200),
        "{used:?} of CPU in 400 ms"
    );
    assert_eq!(polls.get(), 0);
    last.open();
    runtime.block_on(async {
        queued.await.unwrap();
        holder.await.unwrap();
        for task in tasks {
            task.await.unwrap();
        }
    });
}

/// There is nobody to hand the P of a current-thread runtime to.
#[test]
fn not_on_a_current_thread_runtime() {
    let runtime = current_thread().build().unwrap();
    let handle = runtime.handle().clone();
    runtime.block_on(async move {
        gort::spawn(async move { assert!((0..100).all(|p| !handle.__retake(p))) })
            .await
            .unwrap();
    });
}
