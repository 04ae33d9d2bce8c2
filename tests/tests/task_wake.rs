//! Wakes: from the task itself, from tasks, from foreign threads, late, many at once.

#![allow(
    clippy::waker_clone_wake,
    reason = "a wake by value is another path than one by reference"
)]

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::mpsc;
use std::task::{Context, Poll, Waker};

use gort_tests::{
    Count, Probe, WORKERS, Watchdog, current_thread, multi_thread, on_each_runtime, wait_until,
};

/// A task that wakes itself in its poll is polled again, exactly once a wake-up.
#[test]
fn by_itself() {
    on_each_runtime(|runtime| {
        for wakes in [1, 2, 5] {
            let mut polls = 0;
            let task = runtime.spawn(poll_fn(move |cx| {
                polls += 1;
                if polls > 100 {
                    return Poll::Ready(polls);
                }
                for _ in 0..wakes {
                    cx.waker().wake_by_ref();
                    cx.waker().clone().wake();
                }
                Poll::Pending
            }));
            assert_eq!(runtime.block_on(task).unwrap(), 101);
        }
    });
}

/// Wakes before the poll count as one.
#[test]
fn many_before_the_poll_are_one() {
    let runtime = current_thread().build().unwrap();
    let probe = Probe::new();
    let task = runtime.spawn(probe.future());
    runtime.block_on(gort_tests::yield_until("the first poll", || {
        probe.polls() == 1
    }));
    let waker = probe.waker();
    for _ in 0..10 {
        waker.wake_by_ref();
    }
    runtime.block_on(async {
        for _ in 0..10 {
            gort::task::yield_now().await;
        }
    });
    assert_eq!(probe.polls(), 2);
    probe.finish();
    runtime.block_on(task).unwrap();
    assert_eq!(probe.polls(), 3);
}

/// One message a poll goes to a foreign thread, which wakes the task: nothing is lost, and no
/// wake-up makes two polls.
#[test]
fn from_a_foreign_thread() {
    on_each_runtime(|runtime| {
        let (send, receive) = mpsc::channel::<Waker>();
        let waking = std::thread::spawn(move || {
            let mut count = 0;
            for waker in receive {
                count += 1;
                waker.wake();
            }
            count
        });
        let tasks: Vec<_> = (0..10)
            .map(|_| {
                let send = send.clone();
                let mut polls = 0;
                runtime.spawn(poll_fn(move |cx| {
                    polls += 1;
                    if polls > 500 {
                        return Poll::Ready(());
                    }
                    send.send(cx.waker().clone()).unwrap();
                    Poll::Pending
                }))
            })
            .collect();
        drop(send);
        runtime.block_on(async {
            for task in tasks {
                task.await.unwrap();
            }
        });
        assert_eq!(waking.join().unwrap(), 5_000);
    });
}

/// What the waking thread wrote before is visible to the poll, also when the wake finds the task
/// woken already.
#[test]
fn publishes_what_came_before() {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    static VALUES: [AtomicUsize; 4] = [const { AtomicUsize::new(0) }; 4];
    on_each_runtime(|runtime| {
        for round in 1..200 {
            let probe = Probe::new();
            let seen = probe.clone();
            let task = runtime.spawn(async move {
                let mut future = seen.future();
                poll_fn(|cx| {
                    let _ = Pin::new(&mut future).poll(cx);
                    if VALUES.iter().all(|value| value.load(Relaxed) >= round) {
                        Poll::Ready(())
                    } else {
                        Poll::Pending
                    }
                })
                .await;
            });
            runtime.block_on(gort_tests::yield_until("the first poll", || {
                probe.polls() >= 1
            }));
            let waker = probe.waker();
            std::thread::scope(|scope| {
                for value in &VALUES {
                    let waker = waker.clone();
                    scope.spawn(move || {
                        value.store(round, Relaxed);
                        waker.wake();
                    });
                }
            });
            runtime.block_on(task).unwrap();
        }
        for value in &VALUES {
            value.store(0, Relaxed);
        }
    });
}

/// Two tasks that only wake each other keep neither a third nor the queue from running.
#[test]
fn ping_pong_starves_nobody() {
    on_each_runtime(|runtime| {
        runtime.block_on(async {
            let (to_b, mut at_b) = gort::sync::mpsc::channel::<()>(1);
            let (to_a, mut at_a) = gort::sync::mpsc::channel::<()>(1);
            let a = gort::spawn(async move {
                while to_b.send(()).await.is_ok() && at_a.recv().await.is_some() {}
            });
            let b = gort::spawn(async move {
                while at_b.recv().await.is_some() && to_a.send(()).await.is_ok() {}
            });
            for _ in 0..50 {
                let third = gort::spawn(async {
                    for _ in 0..10 {
                        gort::task::yield_now().await;
                    }
                });
                third.await.unwrap();
            }
            a.abort();
            let _ = a.await;
            b.await.unwrap();
        });
    });
}

/// Wakers that outlive the runtime do nothing, and are freed wherever they are dropped.
#[test]
fn kept_after_the_runtime() {
    for workers in WORKERS {
        let _watchdog = Watchdog::new("wakers after the runtime");
        let mut wakers = Vec::new();
        for _ in 0..20 {
            let runtime = multi_thread(workers).build().unwrap();
            let probes: Vec<_> = (0..50).map(|_| Probe::new()).collect();
            let handles: Vec<_> = probes
                .iter()
                .map(|probe| runtime.spawn(probe.future()))
                .collect();
            wait_until("all have been polled", || {
                probes.iter().all(|probe| probe.polls() == 1)
            });
            wakers.extend(probes.iter().map(Probe::waker));
            drop(runtime);
            for (probe, handle) in probes.iter().zip(&handles) {
                assert_eq!(probe.drops(), 1);
                assert!(handle.is_finished());
                probe.forget_waker();
            }
            // The cells of these may be used again at once by the next runtime's tasks.
        }
        let half = wakers.split_off(wakers.len() / 2);
        std::thread::spawn(move || half.into_iter().for_each(Waker::wake))
            .join()
            .unwrap();
        let runtime = multi_thread(workers).build().unwrap();
        runtime.block_on(async {
            gort::spawn(async move {
                for waker in wakers {
                    waker.wake_by_ref();
                    drop(waker);
                }
            })
            .await
            .unwrap();
        });
    }
}

/// A waker of one runtime's task is woken on another's worker.
#[test]
fn across_runtimes() {
    for workers in WORKERS {
        let _watchdog = Watchdog::new("across runtimes");
        let (one, two) = (
            multi_thread(workers).build().unwrap(),
            multi_thread(workers).build().unwrap(),
        );
        let (to_two, mut from_one) = gort::sync::mpsc::channel::<u32>(1);
        let (to_one, mut from_two) = gort::sync::mpsc::channel::<u32>(1);
        let ping = one.spawn(async move {
            for n in 0..2_000 {
                to_two.send(n).await.unwrap();
                assert_eq!(from_two.recv().await, Some(n));
            }
        });
        let pong = two.spawn(async move {
            while let Some(n) = from_one.recv().await {
                if to_one.send(n).await.is_err() {
                    break;
                }
            }
        });
        one.block_on(async {
            ping.await.unwrap();
            pong.await.unwrap();
        });
    }
}

/// A task is woken and dropped in the destructors of thread-locals, where no context is left.
#[test]
fn in_a_thread_local_destructor() {
    struct WakeOnExit(Option<Waker>, Count);
    impl Drop for WakeOnExit {
        fn drop(&mut self) {
            self.1.add();
            self.0.take().unwrap().wake();
        }
    }
    thread_local! {
        static LAST: std::cell::RefCell<Option<WakeOnExit>> = const { std::cell::RefCell::new(None) };
    }
    on_each_runtime(|runtime| {
        let probe = Probe::new();
        let task = runtime.spawn(probe.future());
        runtime.block_on(gort_tests::yield_until("the first poll", || {
            probe.polls() == 1
        }));
        let (waker, count) = (probe.waker(), Count::new());
        let seen = count.clone();
        std::thread::spawn(move || {
            LAST.set(Some(WakeOnExit(Some(waker), seen)));
            assert!(gort::runtime::Handle::try_current().is_err());
        })
        .join()
        .unwrap();
        assert_eq!(count.get(), 1);
        runtime.block_on(gort_tests::yield_until("the second poll", || {
            probe.polls() == 2
        }));
        task.abort();
        assert!(runtime.block_on(task).unwrap_err().is_cancelled());
    });
}

/// `will_wake` holds between polls of the same task, so that leaf futures need not clone.
#[test]
fn will_wake_is_stable() {
    on_each_runtime(|runtime| {
        let mut before: Option<Waker> = None;
        let mut polls = 0;
        let task = runtime.spawn(poll_fn(move |cx: &mut Context<'_>| {
            polls += 1;
            if let Some(before) = &before {
                assert!(before.will_wake(cx.waker()));
            }
            before = Some(cx.waker().clone());
            cx.waker().wake_by_ref();
            if polls == 20 {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        }));
        runtime.block_on(task).unwrap();
    });
}
