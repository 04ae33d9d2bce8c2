//! What this thread is to the runtimes of the process.
//!
//! | value | set by | for |
//! |---|---|---|
//! | `HANDLE` | `Runtime::enter`, `block_on`, Ms and blocking threads | `Handle::current`, `gort::spawn`, sockets, timers |
//! | `WORKER` | an M, for as long as it runs | waking and spawning onto the own P |
//! | `DRIVING` | `block_on`, Ms | refusing to block inside async code |

use std::cell::{Cell, RefCell};
use std::ptr;
use std::sync::Arc;

use super::Handle;
use super::handle::TryCurrentError;
use crate::netpoll::Netpoll;
use crate::sched::worker::Worker;
use crate::time::driver::Timers;

thread_local! {
    static WORKER: Cell<*const Worker> = const { Cell::new(ptr::null()) };
    static DRIVING: Cell<bool> = const { Cell::new(false) };
    static HANDLE: RefCell<Current> = const { RefCell::new(Current { handle: None, depth: 0 }) };
}

struct Current {
    handle: Option<Handle>,
    /// How many guards are alive, to notice one that is dropped out of order.
    depth: usize,
}

/// Calls `f` with the M that this thread is, if it is one.
#[inline(always)]
pub(crate) fn with_worker(f: impl FnOnce(&Worker)) {
    let worker = WORKER.get();
    if !worker.is_null() {
        // SAFETY: set by `run_worker` for as long as it borrows the worker, on this thread.
        f(unsafe { &*worker });
    }
}

/// Makes this thread an M of `handle`'s runtime while `f` runs.
pub(crate) fn run_worker(worker: &Worker, handle: &Handle, f: impl FnOnce()) {
    /// Puts everything back as it was, whatever guards a task has leaked meanwhile.
    struct Reset(*const Worker, bool, Option<Current>);
    impl Drop for Reset {
        fn drop(&mut self) {
            WORKER.set(self.0);
            DRIVING.set(self.1);
            if let Some(current) = self.2.take() {
                // Gone with the thread: nothing to restore. The old value is dropped outside of
                // the borrow.
                let _old = HANDLE.try_with(|cell| cell.replace(current));
            }
        }
    }
    let inside = Current {
        handle: Some(handle.clone()),
        depth: 0,
    };
    let outside = HANDLE.with(|cell| cell.replace(inside));
    let _reset = Reset(WORKER.replace(worker), DRIVING.replace(true), Some(outside));
    f();
}

/// Marks this thread as one that drives async code while `f` runs, so that nothing inside blocks
/// it.
///
/// # Panics
///
/// If it already is.
#[track_caller]
pub(crate) fn drive<R>(handle: &Handle, f: impl FnOnce() -> R) -> R {
    struct Reset;
    impl Drop for Reset {
        fn drop(&mut self) {
            DRIVING.set(false);
        }
    }
    assert_not_driving();
    DRIVING.set(true);
    let _reset = Reset;
    let _guard = enter(handle);
    f()
}

/// # Panics
///
/// If this thread is polling async code.
#[track_caller]
pub(crate) fn assert_not_driving() {
    assert!(
        !is_driving(),
        "Cannot start a runtime from within a runtime: `block_on` was called inside async code, \
         whose thread it would block. Await the future instead, or move the call to \
         `task::spawn_blocking`"
    );
}

/// Marks this thread as one that must not block, until the guard is dropped.
pub(crate) fn forbid_blocking() -> impl Drop {
    struct Reset(bool);
    impl Drop for Reset {
        fn drop(&mut self) {
            DRIVING.set(self.0);
        }
    }
    Reset(DRIVING.replace(true))
}

/// Whether this thread is polling async code, and so must not block.
pub(crate) fn is_driving() -> bool {
    DRIVING.get()
}

/// Restores the context that was current before.
#[derive(Debug)]
pub(crate) struct ContextGuard {
    before: Option<Handle>,
    depth: usize,
    /// The context is the thread's.
    _not_send: std::marker::PhantomData<*mut ()>,
}

/// Makes `handle` current on this thread until the guard is dropped.
pub(crate) fn enter(handle: &Handle) -> ContextGuard {
    HANDLE.with_borrow_mut(|current| {
        current.depth += 1;
        ContextGuard {
            before: current.handle.replace(handle.clone()),
            depth: current.depth,
            _not_send: std::marker::PhantomData,
        }
    })
}

impl Drop for ContextGuard {
    fn drop(&mut self) {
        // Gone with the thread: nothing to restore.
        let restored = HANDLE.try_with(|current| {
            let mut current = current.borrow_mut();
            if current.depth != self.depth {
                return Err(());
            }
            current.depth -= 1;
            // The old value is dropped by the caller, outside of the borrow.
            Ok(std::mem::replace(&mut current.handle, self.before.take()))
        });
        if let Ok(Err(())) = restored {
            assert!(
                std::thread::panicking(),
                "`EnterGuard` values were dropped out of order: guards that `enter` returns must \
                 be dropped in the reverse order of their making"
            );
        }
    }
}

/// Calls `f` with the current runtime's handle.
#[inline]
pub(crate) fn with_current<R>(f: impl FnOnce(&Handle) -> R) -> Result<R, TryCurrentError> {
    HANDLE
        .try_with(|current| match &current.borrow().handle {
            Some(handle) => Ok(f(handle)),
            None => Err(TryCurrentError::missing()),
        })
        .unwrap_or_else(|_| Err(TryCurrentError::thread_local_destroyed()))
}

/// The current runtime's handle.
///
/// # Panics
///
/// Outside of a runtime.
#[track_caller]
pub(crate) fn current() -> Handle {
    match with_current(Handle::clone) {
        Ok(handle) => handle,
        Err(error) => panic!("{error}"),
    }
}

/// The current runtime's netpoll.
///
/// # Panics
///
/// Outside of a runtime, and in one whose builder did not enable I/O.
#[track_caller]
pub(crate) fn netpoll() -> Arc<Netpoll> {
    let handle = current();
    assert!(
        handle.scheduler().config.enable_io,
        "A socket was used in a runtime without I/O: call `enable_io` or `enable_all` on the \
         runtime's builder"
    );
    Arc::clone(&handle.scheduler().netpoll)
}

/// The current runtime's timers, and the queue to use: the current P's, or one chosen by the
/// thread.
///
/// # Panics
///
/// Outside of a runtime, and in one whose builder did not enable time.
#[track_caller]
pub(crate) fn timers() -> (Arc<Timers>, usize) {
    let handle = current();
    let scheduler = handle.scheduler();
    assert!(
        scheduler.config.enable_time,
        "A timer was used in a runtime without timers: call `enable_time` or `enable_all` on the \
         runtime's builder"
    );
    let timers = Arc::clone(&scheduler.timers);
    let mut queue = None;
    with_worker(|worker| {
        if ptr::eq(&*worker.scheduler, &**scheduler) {
            queue = worker.p_hint();
        }
    });
    let queue = queue.map_or_else(thread_number, |p| p as usize) % timers.queues();
    (timers, queue)
}

/// A number that differs from thread to thread.
fn thread_number() -> usize {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        // Relaxed: only that the numbers differ matters.
        static NUMBER: usize = NEXT.fetch_add(1, Relaxed);
    }
    NUMBER.with(|number| *number)
}
