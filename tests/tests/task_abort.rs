//! Abort at every state of a task, from everywhere.

#![allow(
    clippy::waker_clone_wake,
    reason = "a wake by value is another path than one by reference"
)]

use std::task::Poll;

use gort::task::yield_now;
use gort_tests::{
    Count, Gate, Probe, Threads, WORKERS, Watchdog, current_thread, multi_thread,
    on_each_multi_thread, on_each_runtime, wait_until, yield_until,
};

/// On a current-thread runtime a spawned task has not been polled before `block_on` yields.
#[test]
fn before_the_first_poll() {
    let runtime = current_thread().build().unwrap();
    let probe = Probe::new();
    runtime.block_on(async {
        let task = gort::spawn(probe.future());
        task.abort();
        assert!(!task.is_finished(), "its future has not been dropped yet");
        assert_eq!(probe.drops(), 0);
        assert!(task.await.unwrap_err().is_cancelled());
    });
    assert_eq!((probe.polls(), probe.drops()), (0, 1));
}

/// With every worker held, a spawned task stays queued.
#[test]
fn queued() {
    for workers in WORKERS {
        let _watchdog = Watchdog::new("queued");
        let mut builder = multi_thread(workers);
        let threads = Threads::of(&mut builder);
        let runtime = builder.build().unwrap();
        let (gate, held) = (Gate::new(), Count::new());
        for _ in 0..workers {
            let (gate, held) = (gate.clone(), held.clone());
            runtime.spawn(async move {
                held.add();
                gate.pass();
            });
        }
        wait_until("every worker is held", || held.get() == workers);
        let probe = Probe::new();
        let task = runtime.spawn(probe.future());
        let abort = task.abort_handle();
        abort.abort();
        abort.abort();
        task.abort();
        assert!(!task.is_finished());
        gate.open();
        assert!(runtime.block_on(task).unwrap_err().is_cancelled());
        assert!(abort.is_finished());
        assert_eq!(probe.polls(), 0);
        assert!(threads.contains(probe.dropped_on()));
    }
}

#[test]
fn parked() {
    on_each_runtime(|runtime| {
        let probe = Probe::new();
        let task = runtime.spawn(probe.future());
        runtime.block_on(yield_until("the first poll", || probe.polls() == 1));
        let abort = task.abort_handle();
        assert_eq!(abort.id(), task.id());
        assert!(!abort.is_finished());
        abort.abort();
        assert!(runtime.block_on(task).unwrap_err().is_cancelled());
        assert!(abort.is_finished());
        assert_eq!((probe.polls(), probe.drops()), (1, 1));
    });
}

/// The poll that runs goes on to its end, and its future is dropped by the thread that polled it.
#[test]
fn running() {
    on_each_multi_thread(|runtime| {
        for returns_ready in [false, true] {
            let (entered, gate) = (Count::new(), Gate::new());
            let task = {
                let (entered, gate) = (entered.clone(), gate.clone());
                runtime.spawn(std::future::poll_fn(move |_| {
                    entered.add();
                    gate.pass();
                    if returns_ready {
                        Poll::Ready(7)
                    } else {
                        Poll::Pending
                    }
                }))
            };
            wait_until("the poll has begun", || entered.get() == 1);
            task.abort();
            assert!(!task.is_finished());
            gate.open();
            let result = runtime.block_on(task);
            if returns_ready {
                assert_eq!(
                    result.unwrap(),
                    7,
                    "a poll that ends ready is not cancelled"
                );
            } else {
                assert!(result.unwrap_err().is_cancelled());
            }
            assert_eq!(entered.get(), 1);
        }
    });
}

/// Aborted while it runs, and woken too: cancelled, not polled again.
#[test]
fn running_and_woken() {
    on_each_multi_thread(|runtime| {
        let (entered, gate) = (Count::new(), Gate::new());
        let task = {
            let (entered, gate) = (entered.clone(), gate.clone());
            runtime.spawn(std::future::poll_fn(move |cx| {
                cx.waker().wake_by_ref();
                entered.add();
                gate.pass();
                Poll::<()>::Pending
            }))
        };
        wait_until("the poll has begun", || entered.get() == 1);
        task.abort();
        gate.open();
        assert!(runtime.block_on(task).unwrap_err().is_cancelled());
        assert_eq!(entered.get(), 1);
    });
}

#[test]
fn by_itself() {
    on_each_runtime(|runtime| {
        let (send, receive) = gort::sync::oneshot::channel::<gort::task::AbortHandle>();
        let after = Count::new();
        let count = after.clone();
        let task = runtime.spawn(async move {
            receive.await.unwrap().abort();
            count.add();
            yield_now().await;
            count.add();
        });
        send.send(task.abort_handle()).unwrap();
        assert!(runtime.block_on(task).unwrap_err().is_cancelled());
        assert_eq!(after.get(), 1, "the poll ends, the next one never begins");
    });
}

#[test]
fn completed() {
    on_each_runtime(|runtime| {
        let probe = Probe::new();
        probe.finish();
        let task = runtime.spawn(probe.future());
        let abort = task.abort_handle();
        runtime.block_on(yield_until("completion", || task.is_finished()));
        abort.abort();
        task.abort();
        assert_eq!(probe.output_drops(), 0);
        let output = runtime.block_on(task).unwrap();
        abort.abort();
        assert!(abort.is_finished());
        assert_eq!(
            (probe.polls(), probe.drops(), probe.output_drops()),
            (1, 1, 0)
        );
        drop(output);
        assert_eq!(probe.output_drops(), 1);
    });
}

#[test]
fn wake_after_abort_and_after_completion() {
    on_each_runtime(|runtime| {
        // Aborted, its waker kept.
        let probe = Probe::new();
        let task = runtime.spawn(probe.future());
        runtime.block_on(yield_until("the first poll", || probe.polls() == 1));
        let waker = probe.waker();
        task.abort();
        waker.wake_by_ref();
        assert!(runtime.block_on(task).unwrap_err().is_cancelled());
        for _ in 0..3 {
            waker.wake_by_ref();
            #[allow(
                clippy::waker_clone_wake,
                reason = "the wake by value is what is tested"
            )]
            waker.clone().wake();
        }
        // Completed, its waker kept.
        let second = Probe::new();
        let task = runtime.spawn(second.future());
        runtime.block_on(yield_until("the first poll", || second.polls() == 1));
        let late = second.waker();
        second.finish();
        drop(runtime.block_on(task).unwrap());
        late.wake_by_ref();
        late.wake();
        waker.wake();
        runtime.block_on(async {
            for _ in 0..10 {
                yield_now().await;
            }
        });
        assert_eq!((probe.polls(), probe.drops()), (1, 1));
        assert_eq!((second.polls(), second.drops()), (2, 1));
    });
}

/// Abort from a foreign thread races with wakes from another; the future is dropped exactly once.
#[test]
fn races_with_wakes() {
    on_each_multi_thread(|runtime| {
        for round in 0..300 {
            let probe = Probe::new();
            let task = runtime.spawn(probe.future());
            if round % 2 == 0 {
                wait_until("the first poll", || probe.polls() >= 1);
            }
            let abort = task.abort_handle();
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    if round % 3 == 0 {
                        probe.finish();
                    } else if round % 2 == 0 {
                        probe.waker().wake();
                    }
                });
                scope.spawn(|| abort.abort());
            });
            match runtime.block_on(task) {
                Ok(_) => assert_eq!(round % 3, 0),
                Err(error) => assert!(error.is_cancelled()),
            }
            assert_eq!(probe.drops(), 1);
        }
    });
}

/// Abort handles are of use after the task, the handle and the runtime.
#[test]
fn handle_after_the_runtime() {
    for workers in WORKERS {
        let _watchdog = Watchdog::new("abort handle after the runtime");
        let runtime = multi_thread(workers).build().unwrap();
        let probe = Probe::new();
        let task = runtime.spawn(probe.future());
        let abort = task.abort_handle();
        wait_until("the first poll", || probe.polls() == 1);
        let waker = probe.waker();
        drop(runtime);
        assert_eq!(probe.drops(), 1);
        abort.abort();
        waker.wake();
        assert!(abort.is_finished() && task.is_finished());
        let clone = abort.clone();
        drop(abort);
        clone.abort();
        drop(clone);
        let other = current_thread().build().unwrap();
        assert!(other.block_on(task).unwrap_err().is_cancelled());
    }
}

/// Many tasks, all aborted while they run, park and wake each other.
#[test]
fn a_crowd() {
    on_each_runtime(|runtime| {
        let (started, dropped) = (Count::new(), Count::new());
        struct OnDrop(Count);
        impl Drop for OnDrop {
            fn drop(&mut self) {
                self.0.add();
            }
        }
        runtime.block_on(async {
            let tasks: Vec<_> = (0..2_000)
                .map(|n| {
                    let (started, guard) = (started.clone(), OnDrop(dropped.clone()));
                    gort::spawn(async move {
                        let _guard = guard;
                        started.add();
                        loop {
                            if n % 2 == 0 {
                                yield_now().await;
                            } else {
                                std::future::pending::<()>().await;
                            }
                        }
                    })
                })
                .collect();
            yield_until("half of them have started", || started.get() > 1_000).await;
            for task in &tasks {
                task.abort();
            }
            for task in tasks {
                assert!(task.await.unwrap_err().is_cancelled());
            }
        });
        assert_eq!(dropped.get(), 2_000);
    });
}
