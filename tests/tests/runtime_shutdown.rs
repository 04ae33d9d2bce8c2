//! The end of a runtime: what is dropped where, what is waited for, what the handles say.

#![allow(
    clippy::async_yields_async,
    reason = "handles that go from task to task are what is tested"
)]

use std::time::Duration;

use gort::task::JoinHandle;
use gort_tests::{
    Count, Gate, Probe, Threads, WORKERS, Watchdog, current_thread, multi_thread,
    on_each_multi_thread, on_each_runtime, panic_message, wait_until, yield_until,
};

fn assert_cancelled<T>(task: JoinHandle<T>) {
    let other = current_thread().build().unwrap();
    let error = other.block_on(task).err().expect("no output");
    assert!(error.is_cancelled());
}

/// Parked, queued and yielding tasks: each future is dropped once, on a thread of the runtime.
#[test]
fn futures_are_dropped_on_runtime_threads() {
    for workers in WORKERS {
        let _watchdog = Watchdog::new("drops on runtime threads");
        let mut builder = multi_thread(workers);
        let threads = Threads::of(&mut builder);
        let runtime = builder.build().unwrap();
        let probes: Vec<_> = (0..500).map(|_| Probe::new()).collect();
        let mut handles = Vec::new();
        for (n, probe) in probes.iter().enumerate() {
            let future = probe.future();
            handles.push(runtime.spawn(async move {
                if n % 2 == 0 {
                    future.await;
                } else {
                    let _future = future;
                    loop {
                        gort::task::yield_now().await;
                    }
                }
            }));
        }
        wait_until("some are parked", || probes[0].polls() == 1);
        drop(runtime);
        for (n, probe) in probes.iter().enumerate() {
            // One that was never polled may still be on its way in, dropped by its spawner.
            assert!(threads.contains(probe.dropped_on()), "future {n}");
        }
        handles.into_iter().for_each(assert_cancelled);
    }
}

/// A current-thread runtime has no threads: the one that drops it does the dropping.
#[test]
fn futures_are_dropped_on_the_dropping_thread() {
    let runtime = current_thread().build().unwrap();
    let probes: Vec<_> = (0..10).map(|_| Probe::new()).collect();
    let mut handles: Vec<_> = probes[..5]
        .iter()
        .map(|probe| runtime.spawn(probe.future()))
        .collect();
    runtime.block_on(yield_until("the first polls", || {
        probes[..5].iter().all(|probe| probe.polls() == 1)
    }));
    // And some that were never polled.
    handles.extend(
        probes[5..]
            .iter()
            .map(|probe| runtime.spawn(probe.future())),
    );
    let dropping = std::thread::spawn(move || drop(runtime));
    let thread = dropping.thread().id();
    dropping.join().unwrap();
    for probe in &probes {
        assert_eq!(probe.dropped_on(), thread);
    }
    handles.into_iter().for_each(assert_cancelled);
}

/// Destructors find the runtime, may spawn (cancelled at once), wake, abort and block the thread.
#[test]
fn destructors_use_the_runtime() {
    struct OnDrop(Count, Probe);
    impl Drop for OnDrop {
        fn drop(&mut self) {
            let late = gort::spawn(self.1.future());
            late.abort();
            drop(late);
            drop(gort::task::spawn_blocking(|| {
                unreachable!("the pool is closed")
            }));
            self.0.add();
        }
    }
    on_each_runtime(|runtime| {
        let builder =
            if runtime.handle().runtime_flavor() == gort::runtime::RuntimeFlavor::CurrentThread {
                &mut current_thread()
            } else {
                &mut multi_thread(runtime.metrics().num_workers())
            };
        let runtime = builder.build().unwrap();
        let (polled, dropped) = (Count::new(), Count::new());
        let probes: Vec<_> = (0..20).map(|_| Probe::new()).collect();
        for probe in &probes {
            let (polled, on_drop) = (polled.clone(), OnDrop(dropped.clone(), probe.clone()));
            runtime.spawn(async move {
                let _on_drop = on_drop;
                polled.add();
                std::future::pending::<()>().await;
            });
        }
        runtime.block_on(yield_until("all are parked", || polled.get() == 20));
        drop(runtime);
        assert_eq!(dropped.get(), 20);
        for probe in &probes {
            assert_eq!((probe.polls(), probe.drops()), (0, 1));
        }
    });
}

/// Spawned while the runtime shuts down, from outside and from a poll that goes on.
#[test]
fn spawn_during_the_shutdown() {
    for workers in WORKERS {
        let _watchdog = Watchdog::new("spawn during the shutdown");
        let runtime = multi_thread(workers).build().unwrap();
        let handle = runtime.handle().clone();
        let (gate, entered) = (Gate::new(), Count::new());
        let probe = Probe::new();
        let holder = {
            let (gate, entered, probe) = (gate.clone(), entered.clone(), probe.clone());
            runtime.spawn(async move {
                entered.add();
                gate.pass();
                // The runtime is closed, its worker still in this poll.
                gort::spawn(probe.future())
            })
        };
        wait_until("the poll has begun", || entered.get() == 1);
        let spawner = std::thread::spawn(move || {
            let mut cancelled = 0;
            while cancelled < 200 {
                let probe = Probe::new();
                probe.finish();
                let task = handle.spawn(probe.future());
                match handle.block_on(task) {
                    Ok(_) => assert_eq!(probe.polls(), 1),
                    Err(error) => {
                        assert!(error.is_cancelled());
                        cancelled += 1;
                    }
                }
                assert_eq!(probe.drops(), 1);
                if cancelled == 1 {
                    gate.open();
                }
                if workers == 1 && !gate.is_open() {
                    // The only worker is held: what it does not run is cancelled all the same.
                    continue;
                }
            }
        });
        // With one worker held, the spawner's first task waits for the shutdown.
        drop(runtime);
        spawner.join().unwrap();
        let inner = current_thread().build().unwrap().block_on(holder);
        match inner {
            Ok(inner) => assert_cancelled(inner),
            Err(error) => assert!(error.is_cancelled()),
        }
        assert_eq!((probe.polls(), probe.drops()), (0, 1));
    }
}

#[test]
fn spawn_after_the_shutdown() {
    for builder in [&mut current_thread(), &mut multi_thread(2)] {
        let runtime = builder.build().unwrap();
        let handle = runtime.handle().clone();
        drop(runtime);
        let probe = Probe::new();
        let task = handle.spawn(probe.future());
        assert_eq!(probe.dropped_on(), std::thread::current().id());
        assert!(task.is_finished());
        assert_cancelled(task);
        let ran = Count::new();
        let seen = ran.clone();
        assert_cancelled(handle.spawn_blocking(move || seen.add()));
        assert_eq!((probe.polls(), ran.get()), (0, 0));
        let _guard = handle.enter();
        assert_cancelled(gort::spawn(async {}));
        // What needs no runtime still runs.
        assert_eq!(handle.block_on(async { 4 }), 4);
    }
}

#[test]
fn the_drop_waits_for_polls_and_jobs() {
    on_each_multi_thread(|outer| {
        let runtime = multi_thread(outer.metrics().num_workers()).build().unwrap();
        let (gate, entered, ended) = (Gate::new(), Count::new(), Count::new());
        let body = || {
            let (gate, entered, ended) = (gate.clone(), entered.clone(), ended.clone());
            move || {
                entered.add();
                gate.pass();
                ended.add();
            }
        };
        let (in_poll, in_job) = (body(), body());
        let poll = runtime.spawn(async move { in_poll() });
        let job = runtime.spawn_blocking(in_job);
        wait_until("both have begun", || entered.get() == 2);
        let handle = runtime.handle().clone();
        let opener = std::thread::spawn(move || {
            wait_until("the shutdown has begun", || {
                handle.block_on(handle.spawn_blocking(|| {})).is_err()
            });
            gate.open();
        });
        drop(runtime);
        assert_eq!(ended.get(), 2, "the drop returns after them");
        opener.join().unwrap();
        let other = current_thread().build().unwrap();
        assert!(other.block_on(poll).is_ok(), "the poll returned ready");
        assert!(other.block_on(job).is_ok());
    });
}

/// With a limit the shutdown leaves a stuck poll and a stuck job behind, and they end in peace.
#[test]
fn shutdown_timeout_and_background() {
    for workers in WORKERS {
        for background in [false, true] {
            let _watchdog = Watchdog::new("shutdown with a limit");
            let runtime = multi_thread(workers).build().unwrap();
            let handle = runtime.handle().clone();
            let (gate, entered) = (Gate::new(), Count::new());
            let inside = Probe::new();
            let poll = {
                let (gate, entered, inside) = (gate.clone(), entered.clone(), inside.future());
                runtime.spawn(async move {
                    entered.add();
                    gate.pass();
                    inside.await
                })
            };
            let job = {
                let (gate, entered) = (gate.clone(), entered.clone());
                runtime.spawn_blocking(move || {
                    entered.add();
                    gate.pass();
                    7
                })
            };
            wait_until("both have begun", || entered.get() == 2);
            let parked = Probe::new();
            let third = runtime.spawn(parked.future());
            if background {
                runtime.shutdown_background();
            } else {
                runtime.shutdown_timeout(Duration::from_millis(20));
            }
            // It returned, though neither has ended.
            assert!(!poll.is_finished() && !job.is_finished());
            assert_cancelled(handle.spawn(async {}));
            gate.open();
            let other = current_thread().build().unwrap();
            assert!(other.block_on(poll).unwrap_err().is_cancelled());
            assert_eq!(inside.drops(), 1);
            assert_eq!(other.block_on(job).unwrap(), 7);
            assert!(other.block_on(third).unwrap_err().is_cancelled());
            assert_eq!(parked.drops(), 1);
            wait_until("its threads have ended", || {
                handle
                    .metrics()
                    .machines()
                    .iter()
                    .all(|m| m.thread_id.is_none())
                    && handle.metrics().num_blocking_threads() == 0
            });
        }
    }
}

/// A limit that is not needed is not waited for, and a huge one is no overflow.
#[test]
fn shutdown_timeout_returns_early() {
    for timeout in [Duration::from_secs(10_000), Duration::MAX] {
        for builder in [&mut current_thread(), &mut multi_thread(2)] {
            let _watchdog = Watchdog::new("shutdown_timeout returns early");
            let runtime = builder.build().unwrap();
            let probe = Probe::new();
            let task = runtime.spawn(probe.future());
            runtime.shutdown_timeout(timeout);
            assert_eq!(probe.drops(), 1);
            assert_cancelled(task);
        }
    }
}

#[test]
fn dropped_inside_async_code() {
    on_each_runtime(|runtime| {
        for flavor in 0..2 {
            let inner = if flavor == 0 {
                current_thread().build().unwrap()
            } else {
                multi_thread(2).build().unwrap()
            };
            let handle = inner.handle().clone();
            let probe = Probe::new();
            let task = inner.spawn(probe.future());
            let message = runtime.block_on(async { panic_message(|| drop(inner)) });
            assert!(message.contains("Cannot drop a runtime"), "{message}");
            assert!(message.contains("shutdown_background"), "{message}");
            // The shutdown has begun nevertheless.
            assert_cancelled(handle.spawn(async {}));
            assert_cancelled(task);
            assert_eq!(probe.drops(), 1);
        }
        let inner = multi_thread(1).build().unwrap();
        let message = runtime
            .block_on(async { panic_message(|| inner.shutdown_timeout(Duration::from_secs(1))) });
        assert!(message.contains("Cannot drop a runtime"), "{message}");
        // Allowed: in a blocking closure, and without waiting.
        runtime.block_on(async {
            let inner = multi_thread(1).build().unwrap();
            gort::task::spawn_blocking(move || drop(inner))
                .await
                .unwrap();
            multi_thread(1).build().unwrap().shutdown_background();
            multi_thread(1)
                .build()
                .unwrap()
                .shutdown_timeout(Duration::ZERO);
        });
    });
}

/// A task that owns its own runtime, and shuts it down from within.
#[test]
fn shut_down_from_within() {
    for workers in WORKERS {
        let _watchdog = Watchdog::new("shut down from within");
        let runtime = multi_thread(workers).build().unwrap();
        let handle = runtime.handle().clone();
        let (send, receive) = gort::sync::oneshot::channel::<gort::runtime::Runtime>();
        let probe = Probe::new();
        let parked = runtime.spawn(probe.future());
        let task = runtime.spawn(async move {
            receive.await.unwrap().shutdown_background();
            // The poll goes on to its end.
            9
        });
        send.send(runtime).unwrap();
        let other = current_thread().build().unwrap();
        assert_eq!(other.block_on(task).unwrap(), 9);
        assert_cancelled(parked);
        assert_eq!(probe.drops(), 1);
        wait_until("its threads have ended", || {
            handle
                .metrics()
                .machines()
                .iter()
                .all(|m| m.thread_id.is_none())
        });
    }
}

/// Panics in the futures' drops during the shutdown stay there.
#[test]
fn panicking_drops() {
    struct Bomb(Count);
    impl Drop for Bomb {
        fn drop(&mut self) {
            self.0.add();
            panic!("dropped at shutdown");
        }
    }
    for builder in [&mut current_thread(), &mut multi_thread(2)] {
        let _watchdog = Watchdog::new("panicking drops");
        let runtime = builder.build().unwrap();
        let (polled, dropped) = (Count::new(), Count::new());
        let tasks: Vec<_> = (0..10)
            .map(|_| {
                let (polled, bomb) = (polled.clone(), Bomb(dropped.clone()));
                runtime.spawn(async move {
                    let _bomb = bomb;
                    polled.add();
                    std::future::pending::<()>().await;
                })
            })
            .collect();
        runtime.block_on(yield_until("all are parked", || polled.get() == 10));
        drop(runtime);
        assert_eq!(dropped.get(), 10);
        let other = current_thread().build().unwrap();
        for task in tasks {
            assert!(other.block_on(task).unwrap_err().is_panic());
        }
    }
}

/// Leaf futures that outlive the runtime end with an error, never hang.
#[test]
fn sleeps_outlive_the_runtime() {
    for builder in [&mut current_thread(), &mut multi_thread(2)] {
        let _watchdog = Watchdog::new("sleeps outlive the runtime");
        let runtime = builder.build().unwrap();
        let other = current_thread().build().unwrap();
        let mut sleep = {
            let _guard = runtime.enter();
            Box::pin(gort::time::sleep(Duration::from_secs(3600)))
        };
        let (count, waker) = gort_tests::counting_waker();
        let mut cx = std::task::Context::from_waker(&waker);
        assert!(std::future::Future::poll(sleep.as_mut(), &mut cx).is_pending());
        drop(runtime);
        assert_eq!(count.get(), 1, "whoever waits is woken");
        let message = panic_message(|| other.block_on(sleep));
        assert!(message.contains("shut"), "{message}");
    }
}

/// Runtimes come and go, hundreds of them, some while they work.
#[test]
fn many_short_lives() {
    let _watchdog = Watchdog::new("many short lives");
    for round in 0..150 {
        let runtime = multi_thread(1 + round % 4).build().unwrap();
        let probes: Vec<_> = (0..round % 7).map(|_| Probe::new()).collect();
        let tasks: Vec<_> = probes
            .iter()
            .map(|probe| runtime.spawn(probe.future()))
            .collect();
        if round % 3 == 0 {
            runtime.block_on(runtime.spawn(async {})).unwrap();
        }
        drop(runtime);
        assert!(probes.iter().all(|probe| probe.drops() == 1));
        assert!(tasks.iter().all(|task| task.is_finished()));
    }
}
