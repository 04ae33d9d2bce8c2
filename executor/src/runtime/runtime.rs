//! `Runtime`.

use std::fmt;
use std::future::Future;
use std::io;
use std::time::Duration;

use super::metrics::RuntimeMetrics;
use super::{Builder, EnterGuard, Handle, block_on, context};
use crate::sched::Wait;
use crate::task::JoinHandle;

/// An async runtime: processors, the threads that run them, timers and sockets.
///
/// # Shutdown
///
/// Dropping the runtime cancels every task: a parked one's future is dropped, one that is being
/// polled is dropped when its poll returns. The drop waits for those polls, and for
/// [`spawn_blocking`](crate::task::spawn_blocking) closures that have begun, without a limit;
/// [`shutdown_timeout`](Self::shutdown_timeout) and
/// [`shutdown_background`](Self::shutdown_background) have one.
///
/// # Panics
///
/// The drop panics inside async code, whose thread it would block. (The shutdown has begun
/// nevertheless.)
pub struct Runtime {
    handle: Handle,
}

/// The flavors of a runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RuntimeFlavor {
    /// Tasks run on the thread that is in `block_on`.
    CurrentThread,
    /// Tasks run on threads of the runtime's own.
    MultiThread,
}

impl Runtime {
    /// A multi-thread runtime with the default settings, I/O and time enabled.
    ///
    /// # Errors
    ///
    /// As [`Builder::build`].
    pub fn new() -> io::Result<Self> {
        Builder::new_multi_thread().enable_all().build()
    }

    pub(super) fn from_handle(handle: Handle) -> Self {
        Self { handle }
    }

    /// A handle to this runtime, to be given to other threads.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Runs a future to completion on the calling thread, with this runtime current, and returns
    /// its output.
    ///
    /// On a multi-thread runtime the future itself runs on the calling thread and what it spawns
    /// on the runtime's. On a current-thread runtime the calling thread runs the spawned tasks,
    /// timers and sockets too; with several threads in `block_on`, one of them does, and when its
    /// future is done another takes over.
    ///
    /// # Panics
    ///
    /// Inside async code, whose thread it would block; and if the future panics.
    #[track_caller]
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        if self.handle.scheduler().config.flavor.is_current_thread() {
            block_on::drive_on(&self.handle, future)
        } else {
            block_on::park_on(&self.handle, future)
        }
    }

    /// Spawns a task; see [`Handle::spawn`].
    #[track_caller]
    pub fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.handle.spawn(future)
    }

    /// Runs a closure that blocks; see [`task::spawn_blocking`](crate::task::spawn_blocking).
    #[track_caller]
    pub fn spawn_blocking<F, R>(&self, f: F) -> JoinHandle<R>
    where
        F: FnOnce() -> R + Send + 'static,
        R: Send + 'static,
    {
        self.handle.spawn_blocking(f)
    }

    /// Makes the runtime current on this thread; see [`Handle::enter`].
    pub fn enter(&self) -> EnterGuard<'_> {
        self.handle.enter()
    }

    /// What the runtime's processors, machines and queues are doing.
    pub fn metrics(&self) -> RuntimeMetrics {
        self.handle.metrics()
    }

    /// Shuts the runtime down and waits at most `timeout` for polls and blocking closures that
    /// run. What does not end in time is left behind and ends when it does.
    ///
    /// # Panics
    ///
    /// Inside async code, unless `timeout` is zero.
    #[track_caller]
    pub fn shutdown_timeout(self, timeout: Duration) {
        if timeout.is_zero() {
            return self.shutdown_background();
        }
        let runtime = std::mem::ManuallyDrop::new(self);
        runtime.shut_down(Wait::AtMost(timeout));
        // SAFETY: taken out once; the `Runtime` around it is not dropped.
        drop(unsafe { std::ptr::read(&runtime.handle) });
    }

    /// Shuts the runtime down without waiting for anything. May be called inside async code.
    pub fn shutdown_background(self) {
        let runtime = std::mem::ManuallyDrop::new(self);
        runtime.shut_down(Wait::Not);
        // SAFETY: as in `shutdown_timeout`.
        drop(unsafe { std::ptr::read(&runtime.handle) });
    }

    #[track_caller]
    fn shut_down(&self, wait: Wait) {
        let waits = !matches!(wait, Wait::Not);
        if waits && context::is_driving() {
            self.handle.scheduler().shut_down(Wait::Not);
            assert!(
                std::thread::panicking(),
                "Cannot drop a runtime in a context where blocking is not allowed: a `Runtime` \
                 was dropped inside async code. Drop it outside, for example in \
                 `task::spawn_blocking`, or use `Runtime::shutdown_background`"
            );
        } else {
            self.handle.scheduler().shut_down(wait);
        }
    }
}

impl Drop for Runtime {
    #[track_caller]
    fn drop(&mut self) {
        self.shut_down(Wait::Forever);
    }
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runtime")
            .field("handle", &self.handle)
            .finish()
    }
}

impl std::panic::UnwindSafe for Runtime {}
impl std::panic::RefUnwindSafe for Runtime {}
