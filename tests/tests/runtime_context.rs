//! Which runtime is current where, and what may not be done there.

use std::time::Duration;

use futures_task::{FutureObj, Spawn};
use gort::runtime::{Handle, Runtime};
use gort_tests::{
    Count, WORKERS, Watchdog, current_thread, multi_thread, on_each_runtime, panic_message,
    wait_until, yield_until,
};

fn current() -> Option<u64> {
    Handle::try_current().ok().map(|handle| handle.id())
}

#[test]
fn none_outside() {
    let error = Handle::try_current().unwrap_err();
    assert!(error.is_missing_context() && !error.is_thread_local_destroyed());
    assert!(error.to_string().contains("no gort runtime"));
    let told = error.to_string();
    assert_eq!(panic_message(|| drop(Handle::current())), told);
    assert_eq!(panic_message(|| drop(gort::spawn(async {}))), told);
    assert_eq!(
        panic_message(|| drop(gort::task::spawn_blocking(|| {}))),
        told
    );
    assert_eq!(
        panic_message(|| drop(gort::time::sleep(Duration::ZERO))),
        told
    );
}

#[test]
fn none_in_thread_local_destructors() {
    struct Looks(Count);
    impl Drop for Looks {
        fn drop(&mut self) {
            match Handle::try_current() {
                Ok(_) => panic!("there is a runtime"),
                // Which of the two depends on the order of the destructors.
                Err(error) => {
                    assert!(error.is_missing_context() != error.is_thread_local_destroyed());
                }
            }
            self.0.add();
        }
    }
    thread_local! {
        static BEFORE: std::cell::RefCell<Option<Looks>> = const { std::cell::RefCell::new(None) };
        static AFTER: std::cell::RefCell<Option<Looks>> = const { std::cell::RefCell::new(None) };
    }
    on_each_runtime(|runtime| {
        let count = Count::new();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                BEFORE.set(Some(Looks(count.clone())));
                runtime.block_on(async { assert!(current().is_some()) });
                AFTER.set(Some(Looks(count.clone())));
            });
        });
        wait_until("both destructors have run", || count.get() == 2);
    });
}

#[test]
fn everywhere_inside() {
    on_each_runtime(|runtime| {
        let id = Some(runtime.handle().id());
        assert_eq!(current(), None);
        runtime.block_on(async {
            assert_eq!(current(), id);
            assert_eq!(gort::spawn(async { current() }).await.unwrap(), id);
            let nested = gort::task::spawn_blocking(move || {
                assert_eq!(current(), id);
                let inner = Handle::current().block_on(gort::spawn(async { current() }));
                assert_eq!(inner.unwrap(), id);
                Handle::current()
            });
            assert_eq!(Some(nested.await.unwrap().id()), id);
        });
        assert_eq!(current(), None);
        assert_eq!(runtime.handle().block_on(async { current() }), id);
        let guard = runtime.enter();
        assert_eq!(current(), id);
        drop(guard);
        assert_eq!(current(), None);
    });
}

#[test]
fn nested_enter() {
    let (one, two) = (
        multi_thread(1).build().unwrap(),
        current_thread().build().unwrap(),
    );
    let (first, second) = (Some(one.handle().id()), Some(two.handle().id()));
    let outer = one.enter();
    {
        let _inner = two.enter();
        assert_eq!(current(), second);
        {
            let handle = one.handle().clone();
            let _again = handle.enter();
            assert_eq!(current(), first);
        }
        assert_eq!(current(), second);
    }
    assert_eq!(current(), first);
    // `block_on` inside of a guard, and a guard inside of `block_on`.
    two.block_on(async {
        assert_eq!(current(), second);
        let _guard = one.enter();
        assert_eq!(current(), first);
        assert_eq!(gort::spawn(async { current() }).await.unwrap(), first);
    });
    assert_eq!(current(), first);
    drop(outer);
    assert_eq!(current(), None);
}

/// On a thread of its own: the order is broken there for good.
#[test]
fn guards_out_of_order() {
    std::thread::spawn(|| {
        let (one, two) = (
            multi_thread(1).build().unwrap(),
            multi_thread(1).build().unwrap(),
        );
        let outer = one.enter();
        let inner = two.enter();
        let message = panic_message(|| drop(outer));
        assert!(message.contains("reverse order"), "{message}");
        drop(inner);
    })
    .join()
    .unwrap();
}

fn assert_refused(f: impl FnOnce()) {
    let message = panic_message(f);
    assert!(
        message.contains("Cannot start a runtime from within a runtime"),
        "{message}"
    );
    assert!(
        message.contains("spawn_blocking"),
        "it says what to do: {message}"
    );
}

#[test]
fn block_on_inside_block_on() {
    on_each_runtime(|runtime| {
        let other = current_thread().build().unwrap();
        let third = multi_thread(1).build().unwrap();
        runtime.block_on(async {
            assert_refused(|| runtime.block_on(async {}));
            assert_refused(|| runtime.handle().block_on(async {}));
            assert_refused(|| other.block_on(async {}));
            assert_refused(|| third.block_on(async {}));
            assert_refused(|| Handle::current().block_on(async {}));
            gort::task::spawn_blocking(|| {}).await.unwrap();
        });
        let in_task = runtime.spawn(async {
            assert_refused(|| Handle::current().block_on(async {}));
            assert_refused(|| current_thread().build().unwrap().block_on(async {}));
            // A runtime may be made here, and used, but not be waited for.
            let inner = multi_thread(1).build().unwrap();
            let sum = inner.spawn(async { 1 + 1 }).await.unwrap();
            inner.shutdown_background();
            sum
        });
        assert_eq!(runtime.block_on(in_task).unwrap(), 2);
        // The refusals have left nothing behind.
        assert_eq!(runtime.block_on(async { 3 }), 3);
    });
}

#[test]
fn several_runtimes() {
    let _watchdog = Watchdog::new("several runtimes");
    let runtimes: Vec<Runtime> = (0..8)
        .map(|n| {
            if n % 3 == 0 {
                current_thread().build().unwrap()
            } else {
                multi_thread(n % 3).build().unwrap()
            }
        })
        .collect();
    let handles: Vec<_> = runtimes.iter().map(|r| r.handle().clone()).collect();
    std::thread::scope(|scope| {
        for runtime in &runtimes {
            let handles = &handles;
            scope.spawn(move || {
                runtime.block_on(async {
                    // Each spawns on those with threads of their own, and checks where it ran.
                    for handle in handles {
                        if handle.runtime_flavor() == gort::runtime::RuntimeFlavor::CurrentThread {
                            continue;
                        }
                        for _ in 0..50 {
                            let ran_on = handle.spawn(async { current() }).await.unwrap();
                            assert_eq!(ran_on, Some(handle.id()));
                        }
                    }
                });
            });
        }
    });
}

#[test]
fn futures_task_spawn() {
    on_each_runtime(|runtime| {
        let done = Count::new();
        let seen = done.clone();
        let handle = runtime.handle().clone();
        assert!(handle.status().is_ok());
        let future = Box::new(async move {
            assert!(current().is_some());
            seen.add();
        });
        handle.spawn_obj(FutureObj::new(future)).unwrap();
        runtime.block_on(yield_until("the object has run", || done.get() == 1));
    });
    for workers in WORKERS {
        let runtime = multi_thread(workers).build().unwrap();
        let handle = runtime.handle().clone();
        drop(runtime);
        assert!(handle.status().unwrap_err().is_shutdown());
        let error = handle.spawn_obj(FutureObj::new(Box::new(async {})));
        assert!(error.unwrap_err().is_shutdown());
    }
}

/// Debug output of the face names what it shows and does not hang or panic.
#[test]
fn debug() {
    on_each_runtime(|runtime| {
        assert!(format!("{runtime:?}").contains("Runtime"));
        assert!(format!("{:?}", runtime.handle()).contains("Handle"));
        assert!(format!("{:?}", runtime.enter()).contains("EnterGuard"));
        let task = runtime.spawn(async {});
        assert!(format!("{task:?}").contains("JoinHandle"));
        assert!(format!("{:?}", task.abort_handle()).contains("AbortHandle"));
        assert!(format!("{:?}", runtime.metrics()).contains("RuntimeMetrics"));
        runtime.block_on(task).unwrap();
    });
}
