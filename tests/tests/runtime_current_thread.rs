//! The current-thread flavor: order, several drivers, `Handle::block_on`.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gort::task::yield_now;
use gort_tests::{Count, Probe, Watchdog, current_thread, wait_until, yield_until};

/// Tasks run in the order in which they became ready, however many there are.
#[test]
fn first_in_first_out() {
    let runtime = current_thread().build().unwrap();
    let order = Arc::new(Mutex::new(Vec::new()));
    runtime.block_on(async {
        let tasks: Vec<_> = (0..2_000)
            .map(|n| {
                let order = order.clone();
                gort::spawn(async move { order.lock().unwrap().push(n) })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
    assert_eq!(*order.lock().unwrap(), (0..2_000).collect::<Vec<_>>());
}

/// Also those that tasks wake, and spawn: behind what was there.
#[test]
#[allow(clippy::async_yields_async, reason = "the handle is the task's output")]
fn woken_tasks_go_to_the_back() {
    let runtime = current_thread().build().unwrap();
    let order = Arc::new(Mutex::new(Vec::new()));
    runtime.block_on(async {
        let (send, receive) = gort::sync::oneshot::channel::<()>();
        let log = |name: &'static str| {
            let order = order.clone();
            move || order.lock().unwrap().push(name)
        };
        let woken = {
            let log = log("woken");
            gort::spawn(async move {
                receive.await.unwrap();
                log();
            })
        };
        yield_now().await;
        let (first, second, spawned) = (log("first"), log("second"), log("spawned"));
        let first = gort::spawn(async move {
            first();
            send.send(()).unwrap();
            gort::spawn(async move { spawned() })
        });
        let second = gort::spawn(async move { second() });
        first.await.unwrap().await.unwrap();
        second.await.unwrap();
        woken.await.unwrap();
    });
    assert_eq!(
        *order.lock().unwrap(),
        ["first", "second", "woken", "spawned"]
    );
}

/// Nothing runs while nobody is in `block_on`; what was spawned meanwhile runs then.
#[test]
fn tasks_wait_for_a_driver() {
    let runtime = current_thread().build().unwrap();
    let probes: Vec<_> = (0..10).map(|_| Probe::new()).collect();
    let tasks: Vec<_> = probes
        .iter()
        .map(|probe| {
            probe.finish();
            runtime.spawn(probe.future())
        })
        .collect();
    assert!(probes.iter().all(|probe| probe.polls() == 0));
    runtime.block_on(async {
        for task in tasks {
            task.await.unwrap();
        }
    });
    // A task outlives one `block_on` and goes on in the next.
    let probe = Probe::new();
    let task = runtime.spawn(probe.future());
    runtime.block_on(yield_until("the first poll", || probe.polls() == 1));
    probe.finish();
    assert_eq!(probe.polls(), 1);
    runtime.block_on(task).unwrap();
}

/// All tasks run on the driving thread.
#[test]
fn on_the_driving_thread() {
    let runtime = current_thread().build().unwrap();
    let here = std::thread::current().id();
    runtime.block_on(async {
        for _ in 0..100 {
            let thread = gort::spawn(async { std::thread::current().id() })
                .await
                .unwrap();
            assert_eq!(thread, here);
            let thread = gort::task::spawn_blocking(|| std::thread::current().id());
            assert_ne!(thread.await.unwrap(), here);
        }
    });
}

/// Several threads in `block_on`: one drives; when it leaves, another does.
#[test]
fn drivers_take_over() {
    let _watchdog = Watchdog::new("drivers take over");
    let runtime = current_thread().build().unwrap();
    let stop = AtomicBool::new(false);
    let counter = Count::new();
    let background = {
        let counter = counter.clone();
        runtime.spawn(async move {
            loop {
                counter.add();
                gort::time::sleep(Duration::from_micros(100)).await;
            }
        })
    };
    std::thread::scope(|scope| {
        // One that stays, several that come and go.
        let runtime = &runtime;
        let stop = &stop;
        scope.spawn(move || {
            runtime.block_on(async {
                while !stop.load(SeqCst) {
                    gort::time::sleep(Duration::from_millis(1)).await;
                }
            });
        });
        let others: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(move || {
                    for _ in 0..200 {
                        runtime.block_on(async {
                            gort::spawn(async { yield_now().await }).await.unwrap();
                        });
                    }
                })
            })
            .collect();
        for other in others {
            other.join().unwrap();
        }
        // Whoever is left drives: the background task goes on.
        let before = counter.get();
        wait_until("somebody drives", || counter.get() > before + 10);
        stop.store(true, SeqCst);
    });
    let before = counter.get();
    runtime.block_on(yield_until("this thread drives", || {
        counter.get() > before + 3
    }));
    background.abort();
    assert!(runtime.block_on(background).unwrap_err().is_cancelled());
}

/// The future of a driver that is not driving is woken by tasks, timers and foreign threads.
#[test]
fn every_driver_is_woken() {
    let _watchdog = Watchdog::new("every driver is woken");
    let runtime = current_thread().build().unwrap();
    let barrier = std::sync::Barrier::new(4);
    std::thread::scope(|scope| {
        for n in 0..4 {
            let (runtime, barrier) = (&runtime, &barrier);
            scope.spawn(move || {
                for _ in 0..100 {
                    barrier.wait();
                    runtime.block_on(async {
                        match n {
                            0 => gort::spawn(async {}).await.unwrap(),
                            1 => gort::time::sleep(Duration::from_micros(50)).await,
                            2 => gort::task::spawn_blocking(|| {}).await.unwrap(),
                            _ => {
                                let (send, receive) = gort::sync::oneshot::channel();
                                std::thread::spawn(move || send.send(()).unwrap());
                                receive.await.unwrap();
                            }
                        }
                    });
                }
            });
        }
    });
}

/// `Handle::block_on` runs its own future only; somebody else must drive the tasks.
#[test]
fn handle_block_on() {
    let _watchdog = Watchdog::new("Handle::block_on");
    let runtime = current_thread().build().unwrap();
    let handle = runtime.handle().clone();
    assert_eq!(handle.block_on(async { 1 }), 1);
    let probe = Probe::new();
    probe.finish();
    let task = handle.spawn(probe.future());
    let (waits, driven) = (Count::new(), Count::new());
    std::thread::scope(|scope| {
        let (waits, driven) = (&waits, &driven);
        scope.spawn(move || {
            let result = handle.block_on(async {
                waits.add();
                task.await
            });
            assert!(result.is_ok());
            driven.add();
        });
        wait_until("it waits", || waits.get() == 1);
        assert_eq!(probe.polls(), 0, "nobody drives");
        runtime.block_on(async {
            while driven.get() == 0 {
                gort::time::sleep(Duration::from_millis(1)).await;
            }
        });
    });
    assert_eq!(probe.polls(), 1);
}

/// A panic in one driver's future leaves the runtime to the others.
#[test]
fn a_driver_panics() {
    let _watchdog = Watchdog::new("a driver panics");
    let runtime = current_thread().build().unwrap();
    let (send, receive) = gort::sync::oneshot::channel::<()>();
    std::thread::scope(|scope| {
        let runtime = &runtime;
        let waiting = scope.spawn(move || runtime.block_on(async { receive.await.unwrap() }));
        let message = gort_tests::panic_message(|| {
            runtime.block_on(async {
                yield_now().await;
                panic!("a driver's own");
            });
        });
        assert_eq!(message, "a driver's own");
        send.send(()).unwrap();
        waiting.join().unwrap();
    });
}

/// The driver's own future and the tasks share the turns.
#[test]
fn the_main_future_starves_nobody_and_is_not_starved() {
    let runtime = current_thread().build().unwrap();
    let turns = Count::new();
    let stop = Arc::new(AtomicBool::new(false));
    runtime.block_on(async {
        let tasks: Vec<_> = (0..3)
            .map(|_| {
                let (turns, stop) = (turns.clone(), stop.clone());
                gort::spawn(async move {
                    while !stop.load(SeqCst) {
                        turns.add();
                        yield_now().await;
                    }
                })
            })
            .collect();
        // Its own turns: a main future that yields lets each task run.
        for _ in 0..100 {
            let before = turns.get();
            yield_until("the tasks have had a turn", || turns.get() > before).await;
        }
        stop.store(true, SeqCst);
        for task in tasks {
            task.await.unwrap();
        }
    });
}
