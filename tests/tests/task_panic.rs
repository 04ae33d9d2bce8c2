//! A panic in user code reaches the `JoinHandle`, or nobody; it never takes a worker down.

use std::future::Future;
use std::panic::panic_any;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use gort::runtime::Runtime;
use gort_tests::{Count, Probe, message, on_each_runtime, yield_until};

/// Panics when it is dropped.
struct Bomb(&'static str);

impl Drop for Bomb {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic!("{}", self.0);
        }
    }
}

/// Every worker still runs tasks: as many at once as there are workers.
fn assert_alive(runtime: &Runtime) {
    runtime.block_on(async {
        let tasks: Vec<_> = (0..100)
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
    });
    let parties = runtime.metrics().num_workers();
    if runtime.handle().runtime_flavor() == gort::runtime::RuntimeFlavor::MultiThread {
        let barrier = Arc::new(std::sync::Barrier::new(parties));
        let tasks: Vec<_> = (0..parties)
            .map(|_| {
                let barrier = barrier.clone();
                runtime.spawn(async move {
                    barrier.wait();
                })
            })
            .collect();
        runtime.block_on(async {
            for task in tasks {
                task.await.unwrap();
            }
        });
    }
}

#[test]
fn in_poll() {
    on_each_runtime(|runtime| {
        let error = runtime.block_on(async {
            let task = gort::spawn(async { panic!("at {}", "the first poll") });
            let id = task.id();
            let error = task.await.unwrap_err();
            assert_eq!(error.id(), id);
            error
        });
        assert!(error.is_panic());
        assert!(!error.is_cancelled());
        let display = error.to_string();
        assert!(display.contains("panicked") && display.contains("at the first poll"));
        assert!(display.contains(&error.id().to_string()));
        assert!(format!("{error:?}").contains("at the first poll"));
        assert_eq!(message(&*error.into_panic()), "at the first poll");

        let error = runtime.block_on(async {
            gort::spawn(async {
                gort::task::yield_now().await;
                panic_any(7_u8)
            })
            .await
            .unwrap_err()
        });
        assert!(error.to_string().contains("panicked"));
        assert_eq!(
            error.try_into_panic().unwrap().downcast_ref::<u8>(),
            Some(&7)
        );
        assert_alive(runtime);
    });
}

#[test]
fn a_cancellation_is_no_panic() {
    on_each_runtime(|runtime| {
        runtime.block_on(async {
            let task = gort::spawn(std::future::pending::<()>());
            task.abort();
            let error = task.await.unwrap_err();
            assert!(error.is_cancelled() && !error.is_panic());
            assert!(error.to_string().contains("cancelled"));
            let error = error.try_into_panic().unwrap_err();
            let id = error.id();
            let io = std::io::Error::from(error);
            assert_eq!(io.kind(), std::io::ErrorKind::Other);
            assert!(io.to_string().contains(&id.to_string()));
        });
    });
}

#[test]
#[should_panic(expected = "is a cancellation, not a panic")]
fn into_panic_of_a_cancellation() {
    on_each_runtime(|runtime| {
        let task = runtime.spawn(std::future::pending::<()>());
        task.abort();
        let _payload = runtime.block_on(task).unwrap_err().into_panic();
    });
}

/// The future panics as it is dropped after it returned ready.
#[test]
fn in_the_drop_of_a_completed_future() {
    struct Completes(#[allow(dead_code, reason = "for its drop")] Bomb);
    impl Future for Completes {
        type Output = Probe;
        fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Probe> {
            Poll::Ready(Probe::new())
        }
    }
    on_each_runtime(|runtime| {
        let task = runtime.spawn(Completes(Bomb("in the future's drop")));
        let error = runtime.block_on(task).unwrap_err();
        assert_eq!(message(&*error.into_panic()), "in the future's drop");
        assert_alive(runtime);
    });
}

#[test]
fn in_the_drop_of_an_aborted_future() {
    on_each_runtime(|runtime| {
        for parked in [false, true] {
            let polled = Count::new();
            let counter = polled.clone();
            let bomb = Bomb("in the aborted future's drop");
            let task = runtime.spawn(async move {
                let _bomb = &bomb;
                counter.add();
                std::future::pending::<()>().await;
            });
            if parked {
                runtime.block_on(yield_until("the first poll", || polled.get() == 1));
            }
            task.abort();
            let error = runtime.block_on(task).unwrap_err();
            assert!(error.is_panic());
            assert_eq!(
                message(&*error.into_panic()),
                "in the aborted future's drop"
            );
        }
        assert_alive(runtime);
    });
}

/// Panics in poll, and again as it is dropped, and the second payload panics too as *it* is
/// dropped.
#[test]
fn in_everything() {
    struct Everything;
    impl Future for Everything {
        type Output = ();
        fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
            panic!("in poll");
        }
    }
    impl Drop for Everything {
        fn drop(&mut self) {
            panic_any(Bomb("in the drop of the payload of the future's drop"));
        }
    }
    on_each_runtime(|runtime| {
        let task = runtime.spawn(Everything);
        let error = runtime.block_on(task).unwrap_err();
        assert_eq!(message(&*error.into_panic()), "in poll");
        assert_alive(runtime);
    });
}

#[test]
fn in_the_drop_of_a_detached_output() {
    on_each_runtime(|runtime| {
        // Dropped by the worker, since the handle is gone.
        let done = Count::new();
        let counter = done.clone();
        drop(runtime.spawn(async move {
            gort::task::yield_now().await;
            counter.add();
            Bomb("in the output's drop")
        }));
        runtime.block_on(yield_until("completion", || done.get() == 1));

        // Dropped with the handle of a completed task: as in tokio the panic goes nowhere.
        let task = runtime.spawn(async { Bomb("in the output's drop") });
        runtime.block_on(yield_until("completion", || task.is_finished()));
        drop(task);

        // A payload that panics when it is dropped.
        let task = runtime.spawn(async { panic_any(Bomb("in the payload's drop")) });
        runtime.block_on(yield_until("completion", || task.is_finished()));
        drop(task);
        assert_alive(runtime);
    });
}

/// Wakers of somebody else that panic in `wake` or in `drop`.
#[test]
fn in_a_join_waker() {
    struct BadWake(
        #[allow(dead_code, reason = "for its drop")] Option<Bomb>,
        Count,
    );
    impl Wake for BadWake {
        fn wake(self: Arc<Self>) {
            self.wake_by_ref();
        }
        fn wake_by_ref(self: &Arc<Self>) {
            self.1.add();
            panic!("in wake");
        }
    }
    on_each_runtime(|runtime| {
        for drops_too in [false, true] {
            let probe = Probe::new();
            let wakes = Count::new();
            let mut task = runtime.spawn(probe.future());
            {
                let bomb = drops_too.then(|| Bomb("in the waker's drop"));
                let waker = Waker::from(Arc::new(BadWake(bomb, wakes.clone())));
                let polled = Pin::new(&mut task).poll(&mut Context::from_waker(&waker));
                assert!(polled.is_pending());
            }
            probe.finish();
            runtime.block_on(yield_until("completion", || {
                task.is_finished() && wakes.get() == 1
            }));
            assert_eq!(probe.drops(), 1);
            assert!(runtime.block_on(&mut task).is_ok());
            // The completer may still hold the waker; it is dropped with the handle, or by it.
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(task)));
        }
        assert_alive(runtime);
    });
}

#[test]
fn in_block_on() {
    on_each_runtime(|runtime| {
        for _ in 0..3 {
            let message = gort_tests::panic_message(|| {
                runtime.block_on(async { panic!("in block_on") });
            });
            assert_eq!(message, "in block_on");
        }
        assert!(gort::runtime::Handle::try_current().is_err());
        assert_alive(runtime);
    });
}

/// A panicking waker of a foreign leaf that a *task* wakes is the task's own panic.
#[test]
fn in_a_waker_that_a_task_wakes() {
    struct BadWake;
    impl Wake for BadWake {
        fn wake(self: Arc<Self>) {
            panic!("in a foreign wake");
        }
    }
    on_each_runtime(|runtime| {
        let error = runtime.block_on(async {
            gort::spawn(async { Waker::from(Arc::new(BadWake)).wake() })
                .await
                .unwrap_err()
        });
        assert_eq!(message(&*error.into_panic()), "in a foreign wake");
        assert_alive(runtime);
    });
}

/// Wakers that panic where the runtime itself wakes: timers.
#[test]
fn in_a_waker_that_a_timer_wakes() {
    struct BadWake(Count);
    impl Wake for BadWake {
        fn wake(self: Arc<Self>) {
            self.0.add();
            panic!("in a wake by a timer");
        }
    }
    on_each_runtime(|runtime| {
        let wakes = Count::new();
        let _guard = runtime.enter();
        let mut sleeps: Vec<_> = (0..3)
            .map(|_| Box::pin(gort::time::sleep(std::time::Duration::from_millis(5))))
            .collect();
        for sleep in &mut sleeps {
            let waker = Waker::from(Arc::new(BadWake(wakes.clone())));
            let polled = sleep.as_mut().poll(&mut Context::from_waker(&waker));
            assert!(polled.is_pending());
        }
        runtime.block_on(async {
            while wakes.get() < 3 {
                gort::time::sleep(std::time::Duration::from_millis(1)).await;
            }
        });
        assert_alive(runtime);
    });
}
