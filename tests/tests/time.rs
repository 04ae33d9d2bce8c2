//! Timers on the real runtime.

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::task::Context;
use std::time::Duration;

use gort::time::{Instant, interval, sleep, sleep_until, timeout, timeout_at};
use gort_tests::{Count, Watchdog, counting_waker, multi_thread, on_each_runtime, wait_until};

const MS: Duration = Duration::from_millis(1);

#[test]
fn never_early_and_in_order() {
    on_each_runtime(|runtime| {
        let order = Arc::new(Mutex::new(Vec::new()));
        runtime.block_on(async {
            let start = Instant::now();
            // Deadlines far enough apart to be seen in order by one task after another.
            let tasks: Vec<_> = [9, 3, 7, 1, 5]
                .into_iter()
                .map(|n: u32| {
                    let order = order.clone();
                    gort::spawn(async move {
                        let deadline = start + 10 * n * MS;
                        sleep_until(deadline).await;
                        assert!(Instant::now() >= deadline, "early");
                        order.lock().unwrap().push((Instant::now(), n));
                    })
                })
                .collect();
            for task in tasks {
                task.await.unwrap();
            }
        });
        assert_eq!(order.lock().unwrap().len(), 5);
    });
}

/// Due at once, on one thread: by deadline, not by order of making.
#[test]
fn those_that_are_due_together() {
    let runtime = gort_tests::current_thread().build().unwrap();
    let order = Arc::new(Mutex::new(Vec::new()));
    runtime.block_on(async {
        let start = Instant::now();
        let tasks: Vec<_> = [4, 1, 3, 5, 2]
            .into_iter()
            .map(|n: u32| {
                let order = order.clone();
                gort::spawn(async move {
                    sleep_until(start + (100 + n) * MS).await;
                    order.lock().unwrap().push(n);
                })
            })
            .collect();
        // Let them register, then be late for all of them.
        for _ in 0..20 {
            gort::task::yield_now().await;
        }
        std::thread::sleep(110 * MS);
        for task in tasks {
            task.await.unwrap();
        }
    });
    assert_eq!(*order.lock().unwrap(), [1, 2, 3, 4, 5]);
}

#[test]
fn timeouts() {
    on_each_runtime(|runtime| {
        runtime.block_on(async {
            // Ready at once wins even over a limit of zero.
            assert_eq!(timeout(Duration::ZERO, async { 5 }).await.unwrap(), 5);
            let past = Instant::now() - MS;
            assert_eq!(timeout_at(past, async { 6 }).await.unwrap(), 6);
            assert!(timeout(MS, std::future::pending::<()>()).await.is_err());
            assert!(timeout(Duration::ZERO, sleep(MS)).await.is_err());
            assert!(timeout(Duration::MAX, sleep(MS)).await.is_ok());
            // The future that ran out is dropped.
            let probe = gort_tests::Probe::new();
            assert!(timeout(MS, probe.future()).await.is_err());
            assert_eq!(probe.drops(), 1);
            // In tasks, many.
            let tasks: Vec<_> = (0..200_u32)
                .map(|n| {
                    gort::spawn(async move {
                        let slow = n % 2 == 0;
                        let work = sleep(if slow { 3_600_000 * MS } else { MS });
                        let limit = if slow { MS } else { 3_600_000 * MS };
                        assert_eq!(timeout(limit, work).await.is_err(), slow);
                    })
                })
                .collect();
            for task in tasks {
                task.await.unwrap();
            }
        });
    });
}

#[test]
fn zero_and_huge() {
    on_each_runtime(|runtime| {
        runtime.block_on(async {
            sleep(Duration::ZERO).await;
            sleep_until(Instant::now() - MS).await;
            let (count, waker) = counting_waker();
            let mut cx = Context::from_waker(&waker);
            for duration in [
                Duration::MAX,
                Duration::from_secs(u64::MAX),
                Duration::from_secs(1 << 40),
            ] {
                let mut huge = Box::pin(sleep(duration));
                assert!(huge.as_mut().poll(&mut cx).is_pending());
                sleep(MS).await;
                assert!(huge.as_mut().poll(&mut cx).is_pending());
            }
            assert_eq!(count.get(), 0);
        });
    });
}

/// Made and polled on one worker, then moved to another; made on a thread that is no worker.
#[test]
fn across_threads() {
    for workers in [1, 2, 4] {
        let _watchdog = Watchdog::new("sleeps across threads");
        let runtime = multi_thread(workers).build().unwrap();
        let other = multi_thread(1).build().unwrap();
        for n in 0..50_u32 {
            let sleeping = {
                let _guard = runtime.enter();
                Box::pin(sleep(n % 5 * MS))
            };
            // Driven by another runtime, by a foreign thread, by its own.
            match n % 3 {
                0 => other.block_on(other.spawn(sleeping)).unwrap(),
                1 => runtime.handle().block_on(sleeping),
                _ => runtime.block_on(runtime.spawn(sleeping)).unwrap(),
            }
        }
        // Its waker changes hands while it waits.
        let mut moving = {
            let _guard = runtime.enter();
            Box::pin(sleep(20 * MS))
        };
        let (first, second) = (counting_waker(), counting_waker());
        assert!(
            moving
                .as_mut()
                .poll(&mut Context::from_waker(&first.1))
                .is_pending()
        );
        let early = moving.as_mut().poll(&mut Context::from_waker(&second.1));
        if early.is_pending() {
            wait_until("the second waker is woken", || second.0.get() == 1);
            assert!(
                moving
                    .as_mut()
                    .poll(&mut Context::from_waker(&second.1))
                    .is_ready()
            );
        }
        assert_eq!(
            first.0.get(),
            0,
            "the first waker was replaced before the time"
        );
    }
}

/// A busy worker's timers are fired by another, or by it between two polls.
#[test]
fn beside_busy_tasks() {
    on_each_runtime(|runtime| {
        runtime.block_on(async {
            let stop = gort_tests::Gate::new();
            let busy: Vec<_> = (0..8)
                .map(|_| {
                    let stop = stop.clone();
                    gort::spawn(async move {
                        while !stop.is_open() {
                            gort::task::yield_now().await;
                        }
                    })
                })
                .collect();
            for _ in 0..20 {
                gort::spawn(sleep(MS)).await.unwrap();
            }
            stop.open();
            for task in busy {
                task.await.unwrap();
            }
        });
    });
}

/// Many sleeps, most of them dropped before their time, in no order.
#[test]
fn many_dropped() {
    on_each_runtime(|runtime| {
        runtime.block_on(async {
            let woken = Count::new();
            let tasks: Vec<_> = (0..5_000_u64)
                .map(|n| {
                    let woken = woken.clone();
                    gort::spawn(async move {
                        if n % 10 == 0 {
                            sleep(Duration::from_micros(n % 7_000)).await;
                            woken.add();
                        } else {
                            sleep(Duration::from_secs(3_600 + n * 7_919 % 1_000)).await;
                        }
                    })
                })
                .collect();
            for (n, task) in tasks.iter().enumerate() {
                if n % 10 != 0 {
                    task.abort();
                }
            }
            for (n, task) in tasks.into_iter().enumerate() {
                assert_eq!(task.await.is_ok(), n % 10 == 0);
            }
            assert_eq!(woken.get(), 500);
        });
    });
}

/// A sleep that is set to a nearer moment wakes the worker that already sleeps.
#[test]
fn reset_to_earlier() {
    on_each_runtime(|runtime| {
        runtime.block_on(async {
            let mut sleeping = Box::pin(sleep(Duration::from_secs(3_600)));
            let (count, waker) = counting_waker();
            let mut cx = Context::from_waker(&waker);
            assert!(sleeping.as_mut().poll(&mut cx).is_pending());
            sleep(MS).await;
            sleeping.as_mut().reset(Instant::now() + MS);
            assert_eq!(count.get(), 0);
            sleeping.await;
        });
    });
}

#[test]
fn intervals() {
    on_each_runtime(|runtime| {
        let ticking = runtime.spawn(async {
            let start = Instant::now();
            let mut ticks = interval(2 * MS);
            for n in 0..10_u32 {
                let tick = ticks.tick().await;
                assert!(tick >= start + n * 2 * MS);
                assert!(Instant::now() >= tick);
            }
        });
        runtime.block_on(ticking).unwrap();
    });
}
