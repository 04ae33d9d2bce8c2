//! `JoinHandle`: awaited, moved, dropped, polled with changing wakers, from anywhere; task ids.

#![allow(
    clippy::async_yields_async,
    reason = "handles that go from task to task are what is tested"
)]

use std::collections::HashSet;
use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use gort::task::{self, JoinHandle};
use gort_tests::{
    Count, Probe, Threads, WORKERS, Watchdog, counting_waker, current_thread, multi_thread,
    on_each_runtime, panic_message, wait_until, yield_until,
};

fn poll<T>(handle: &mut JoinHandle<T>, waker: &std::task::Waker) -> Poll<T> {
    Pin::new(handle)
        .poll(&mut Context::from_waker(waker))
        .map(Result::unwrap)
}

/// Only the waker of the last poll is woken, and exactly once.
#[test]
fn changing_wakers() {
    on_each_runtime(|runtime| {
        let probe = Probe::new();
        let mut handle = runtime.spawn(probe.future());
        let wakers: Vec<_> = (0..5).map(|_| counting_waker()).collect();
        for (_, waker) in &wakers {
            assert!(poll(&mut handle, waker).is_pending());
            assert!(poll(&mut handle, waker).is_pending());
        }
        // And back to one that it had before.
        assert!(poll(&mut handle, &wakers[1].1).is_pending());
        runtime.block_on(yield_until("the first poll", || probe.polls() == 1));
        probe.finish();
        runtime.block_on(yield_until("completion", || wakers[1].0.get() == 1));
        assert!(poll(&mut handle, &wakers[0].1).is_ready());
        let wakes: Vec<_> = wakers.iter().map(|(count, _)| count.get()).collect();
        assert_eq!(wakes, [0, 1, 0, 0, 0]);
    });
}

/// The handle is polled with new wakers while the task completes: no wake is lost.
#[test]
fn changing_wakers_race_with_completion() {
    for workers in WORKERS {
        let _watchdog = Watchdog::new("changing wakers");
        let runtime = multi_thread(workers).build().unwrap();
        for _ in 0..500 {
            let probe = Probe::new();
            let mut handle = runtime.spawn(probe.future());
            probe.finish();
            let mut last = counting_waker();
            let output = loop {
                match poll(&mut handle, &last.1) {
                    Poll::Ready(output) => break output,
                    Poll::Pending if last.0.get() > 0 => {}
                    Poll::Pending => {
                        let next = counting_waker();
                        if let Poll::Ready(output) = poll(&mut handle, &next.1) {
                            break output;
                        }
                        last = next;
                        if handle.is_finished() {
                            wait_until("the last waker is woken", || last.0.get() == 1);
                        }
                    }
                }
            };
            drop(output);
            assert_eq!((probe.drops(), probe.output_drops()), (1, 1));
        }
    }
}

#[test]
fn moved_between_tasks_and_threads() {
    on_each_runtime(|runtime| {
        let probe = Probe::new();
        let mut handle = runtime.spawn(probe.future());
        let (count, waker) = counting_waker();
        assert!(poll(&mut handle, &waker).is_pending());
        let outer = runtime.spawn(async move {
            assert!(gort::select! {
                biased;
                _ = &mut handle => false,
                () = task::yield_now() => true,
            });
            handle
        });
        let mut handle = runtime.block_on(outer).unwrap();
        let handle = std::thread::spawn(move || {
            assert!(poll(&mut handle, std::task::Waker::noop()).is_pending());
            handle
        })
        .join()
        .unwrap();
        probe.finish();
        drop(runtime.block_on(handle).unwrap());
        assert_eq!(count.get(), 0, "the first waker was replaced");
    });
}

#[test]
fn awaited_from_another_runtime() {
    let _watchdog = Watchdog::new("another runtime");
    let one = multi_thread(2).build().unwrap();
    let two = multi_thread(1).build().unwrap();
    let three = current_thread().build().unwrap();
    let probe = Probe::new();
    let inner = one.spawn(probe.future());
    let middle = two.spawn(async move { inner.await.unwrap() });
    let outer = three.spawn(async move { middle.await.unwrap() });
    std::thread::scope(|scope| {
        scope.spawn(|| {
            wait_until("the first poll", || probe.polls() == 1);
            probe.finish();
        });
        drop(three.block_on(outer).unwrap());
    });
    assert_eq!(probe.output_drops(), 1);
}

/// The runtime goes; the handle of an unfinished task says so to whoever awaits it.
#[test]
fn awaited_while_the_runtime_goes() {
    for workers in WORKERS {
        let _watchdog = Watchdog::new("while the runtime goes");
        let runtime = multi_thread(workers).build().unwrap();
        let other = current_thread().build().unwrap();
        let probe = Probe::new();
        let handle = runtime.spawn(probe.future());
        wait_until("the first poll", || probe.polls() == 1);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| other.block_on(handle));
            drop(runtime);
            assert!(waiting.join().unwrap().unwrap_err().is_cancelled());
        });
    }
}

/// A detached task runs on; its output is dropped by the runtime.
#[test]
fn detached() {
    for workers in WORKERS {
        let _watchdog = Watchdog::new("detached");
        let mut builder = multi_thread(workers);
        let threads = Threads::of(&mut builder);
        let runtime = builder.build().unwrap();
        for late in [false, true] {
            let probe = Probe::new();
            let handle = runtime.spawn(probe.future());
            if late {
                wait_until("the first poll", || probe.polls() == 1);
                drop(handle);
                probe.finish();
            } else {
                drop(handle);
                probe.finish();
            }
            wait_until("the output is dropped", || probe.output_drops() == 1);
            assert!(threads.contains(probe.dropped_on()));
            assert!(threads.contains(probe.output_dropped_on()));
        }
    }
}

/// The output of a completed task goes with the handle, on its thread.
#[test]
fn dropped_after_completion() {
    on_each_runtime(|runtime| {
        let probe = Probe::new();
        probe.finish();
        let handle = runtime.spawn(probe.future());
        runtime.block_on(yield_until("completion", || handle.is_finished()));
        assert_eq!((probe.drops(), probe.output_drops()), (1, 0));
        drop(handle);
        assert_eq!(probe.output_dropped_on(), std::thread::current().id());
    });
}

/// Dropped while the task completes, with and without a registered waker.
#[test]
fn dropped_during_completion() {
    for workers in WORKERS {
        let _watchdog = Watchdog::new("dropped during completion");
        let runtime = multi_thread(workers).build().unwrap();
        for round in 0..1_000 {
            let probe = Probe::new();
            probe.finish();
            let mut handle = runtime.spawn(probe.future());
            let (_, waker) = counting_waker();
            if round % 2 == 0 {
                drop(poll(&mut handle, &waker));
            }
            drop(handle);
            wait_until("the output is dropped", || probe.output_drops() == 1);
            assert_eq!(probe.drops(), 1);
        }
    }
}

/// A handle that was ready must not be polled again, as any future.
#[test]
fn polled_after_completion() {
    on_each_runtime(|runtime| {
        let mut handle = runtime.spawn(async { 1 });
        assert_eq!(runtime.block_on(&mut handle).unwrap(), 1);
        assert!(handle.is_finished());
        let message = panic_message(|| drop(runtime.block_on(&mut handle)));
        assert!(message.contains("polled after completion"), "{message}");
    });
}

/// A deep chain of tasks, each awaiting the next.
#[test]
fn a_chain_of_joins() {
    fn link(left: u32) -> Pin<Box<dyn Future<Output = u32> + Send>> {
        Box::pin(async move {
            if left == 0 {
                return 0;
            }
            gort::spawn(link(left - 1)).await.unwrap() + 1
        })
    }
    on_each_runtime(|runtime| {
        assert_eq!(runtime.block_on(link(10_000)), 10_000);
    });
}

#[test]
fn ids() {
    on_each_runtime(|runtime| {
        assert!(task::try_id().is_none());
        let seen = runtime.block_on(async {
            let handles: Vec<_> = (0..1_000)
                .map(|_| {
                    gort::spawn(async {
                        let before = task::id();
                        task::yield_now().await;
                        assert_eq!(task::try_id(), Some(before));
                        before
                    })
                })
                .collect();
            let mut seen = HashSet::new();
            for handle in handles {
                let id = handle.id();
                assert_eq!(handle.abort_handle().id(), id);
                assert_eq!(handle.await.unwrap(), id);
                assert!(seen.insert(id), "ids are unique");
            }
            seen
        });
        let outside = runtime.spawn(async { task::id() });
        let id = outside.id();
        assert!(!seen.contains(&id));
        assert_eq!(runtime.block_on(outside).unwrap(), id);
        assert!(
            id.to_string().parse::<u64>().is_ok(),
            "an id prints as a number"
        );
        assert!(task::try_id().is_none());
    });
}

/// The id is there in the drops of future and output too.
#[test]
fn ids_in_drops() {
    struct SeesId(gort::sync::mpsc::UnboundedSender<Option<task::Id>>);
    impl Drop for SeesId {
        fn drop(&mut self) {
            let _ = self.0.send(task::try_id());
        }
    }
    on_each_runtime(|runtime| {
        let (send, mut receive) = gort::sync::mpsc::unbounded_channel();
        // An aborted future.
        let sees = SeesId(send.clone());
        let handle = runtime.spawn(async move {
            let _sees = sees;
            std::future::pending::<()>().await;
        });
        let id = handle.id();
        handle.abort();
        assert!(runtime.block_on(handle).unwrap_err().is_cancelled());
        assert_eq!(runtime.block_on(receive.recv()), Some(Some(id)));
        // A detached output.
        let sees = SeesId(send);
        let handle = runtime.spawn(async move {
            task::yield_now().await;
            sees
        });
        let id = handle.id();
        drop(handle);
        assert_eq!(runtime.block_on(receive.recv()), Some(Some(id)));
    });
}

/// A task that awaits its own handle waits until somebody aborts it; nothing else is hurt.
#[test]
fn awaits_itself() {
    on_each_runtime(|runtime| {
        let (send, receive) = gort::sync::oneshot::channel::<JoinHandle<()>>();
        let handle = runtime.spawn(async move { receive.await.unwrap().await.unwrap() });
        let abort = handle.abort_handle();
        send.send(handle).unwrap();
        runtime.block_on(async {
            for _ in 0..10 {
                task::yield_now().await;
            }
        });
        assert!(!abort.is_finished());
        abort.abort();
        runtime.block_on(yield_until("the end", || abort.is_finished()));
    });
}

/// Who yields lets everything that is ready run before it does again.
#[test]
fn yield_now_is_fair() {
    let runtime = current_thread().build().unwrap();
    runtime.block_on(async {
        let turns = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let handles: Vec<_> = (0..5)
            .map(|n| {
                let turns = turns.clone();
                gort::spawn(async move {
                    for _ in 0..20 {
                        turns.lock().unwrap().push(n);
                        task::yield_now().await;
                    }
                })
            })
            .collect();
        for handle in handles {
            handle.await.unwrap();
        }
        let turns = turns.lock().unwrap();
        for round in turns.chunks(5) {
            assert_eq!(
                round,
                [0, 1, 2, 3, 4],
                "every task has its turn in each round"
            );
        }
    });
}

/// A crowd of yielders does not keep a task that is woken from outside, a timer or a fresh task
/// from running.
#[test]
fn yielders_starve_nobody() {
    on_each_runtime(|runtime| {
        let (stop, turns) = (gort_tests::Gate::new(), Count::new());
        let handles: Vec<_> = (0..50)
            .map(|_| {
                let (stop, turns) = (stop.clone(), turns.clone());
                runtime.spawn(async move {
                    while !stop.is_open() {
                        turns.add();
                        task::yield_now().await;
                    }
                })
            })
            .collect();
        let (send, receive) = gort::sync::oneshot::channel();
        let woken = runtime.spawn(async move { receive.await.unwrap() });
        runtime.block_on(async {
            yield_until("they yield", || turns.get() > 500).await;
            std::thread::spawn(move || send.send(7).unwrap());
            assert_eq!(woken.await.unwrap(), 7);
            gort::time::sleep(std::time::Duration::from_millis(1)).await;
            assert_eq!(gort::spawn(async { 8 }).await.unwrap(), 8);
            stop.open();
            for handle in handles {
                handle.await.unwrap();
            }
        });
    });
}

/// `yield_now` outside of any runtime wakes itself.
#[test]
fn yield_now_outside() {
    let (count, waker) = counting_waker();
    let mut cx = Context::from_waker(&waker);
    let mut future = pin!(task::yield_now());
    assert!(future.as_mut().poll(&mut cx).is_pending());
    assert_eq!(count.get(), 1);
    assert!(future.as_mut().poll(&mut cx).is_ready());
    // The next task's poll must not take the note for its own.
    let runtime = current_thread().build().unwrap();
    let probe = Probe::new();
    probe.finish();
    drop(runtime.block_on(runtime.spawn(probe.future())).unwrap());
    assert_eq!(probe.polls(), 1);
}
