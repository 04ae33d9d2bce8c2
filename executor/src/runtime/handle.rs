//! `Handle` and `EnterGuard`.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::sync::Arc;

use futures_task::{FutureObj, Spawn, SpawnError};

use super::block_on;
use super::context::{self, ContextGuard};
use super::metrics::RuntimeMetrics;
use super::runtime::RuntimeFlavor;
use crate::sched::Scheduler;
use crate::sched::config::Flavor;
use crate::task::JoinHandle;

/// A reference to a runtime. Cheap to clone; does not keep the runtime running.
///
/// After the runtime has shut down, `spawn` drops the future and returns a handle that says
/// cancelled.
#[derive(Clone)]
pub struct Handle {
    scheduler: Arc<Scheduler>,
}

/// Keeps a runtime current on this thread; see [`Handle::enter`].
///
/// Guards must be dropped in the reverse order of their making, or the drop panics.
#[derive(Debug)]
#[must_use = "the runtime is current only while the guard lives"]
pub struct EnterGuard<'a> {
    _context: ContextGuard,
    _runtime: std::marker::PhantomData<&'a Handle>,
}

impl Handle {
    pub(crate) fn new(scheduler: Arc<Scheduler>) -> Self {
        Self { scheduler }
    }

    pub(crate) fn scheduler(&self) -> &Arc<Scheduler> {
        &self.scheduler
    }

    /// The runtime that is current on this thread: that of the task or blocking closure being run,
    /// or the one last entered.
    ///
    /// # Panics
    ///
    /// If there is none.
    #[track_caller]
    pub fn current() -> Self {
        context::current()
    }

    /// As [`current`](Self::current), without the panic.
    ///
    /// # Errors
    ///
    /// If no runtime is current on this thread, or the thread is ending and its thread-locals are
    /// gone.
    pub fn try_current() -> Result<Self, TryCurrentError> {
        context::with_current(Self::clone)
    }

    /// Makes the runtime current on this thread until the guard is dropped, so that sockets,
    /// timers and [`gort::spawn`](crate::spawn) find it outside of async code.
    ///
    /// # Examples
    ///
    /// ```
    /// let runtime = gort::runtime::Runtime::new()?;
    /// let _guard = runtime.enter();
    /// gort::spawn(async { /* runs on `runtime` */ });
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn enter(&self) -> EnterGuard<'_> {
        EnterGuard {
            _context: context::enter(self),
            _runtime: std::marker::PhantomData,
        }
    }

    /// Spawns a task. It begins to run at once, whether or not the handle is awaited.
    #[track_caller]
    pub fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.scheduler.spawn(future, std::panic::Location::caller())
    }

    /// Runs a closure that blocks on a thread that is meant for it; see
    /// [`task::spawn_blocking`](crate::task::spawn_blocking).
    #[track_caller]
    pub fn spawn_blocking<F, R>(&self, f: F) -> JoinHandle<R>
    where
        F: FnOnce() -> R + Send + 'static,
        R: Send + 'static,
    {
        self.scheduler
            .spawn_blocking(f, std::panic::Location::caller())
    }

    /// Runs a future to completion on the calling thread, with this runtime current.
    ///
    /// On a current-thread runtime this does not run the runtime's tasks, timers and sockets:
    /// that takes a thread in [`Runtime::block_on`](super::Runtime::block_on).
    ///
    /// # Panics
    ///
    /// Inside async code, whose thread it would block; and if the future panics.
    #[track_caller]
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        block_on::park_on(self, future)
    }

    /// Whether the runtime has its own threads.
    pub fn runtime_flavor(&self) -> RuntimeFlavor {
        match self.scheduler.config.flavor {
            Flavor::MultiThread => RuntimeFlavor::MultiThread,
            Flavor::CurrentThread => RuntimeFlavor::CurrentThread,
        }
    }

    /// A number that names this runtime among those that run now.
    pub fn id(&self) -> u64 {
        self.scheduler.id
    }

    /// What the runtime's processors, machines and queues are doing.
    pub fn metrics(&self) -> RuntimeMetrics {
        RuntimeMetrics::new(Arc::clone(&self.scheduler))
    }

    /// For gort's own tests: whether the P could be taken from the poll that it is in.
    #[doc(hidden)]
    pub fn __retake(&self, p: usize) -> bool {
        let p = p as u32 % self.scheduler.config.processors;
        match self.scheduler.observe(p) {
            Some(observed) => self.scheduler.retake(p, observed),
            None => false,
        }
    }
}

impl Spawn for Handle {
    /// Spawns a boxed future; the task is detached.
    fn spawn_obj(&self, future: FutureObj<'static, ()>) -> Result<(), SpawnError> {
        if self.scheduler.is_closed() {
            return Err(SpawnError::shutdown());
        }
        drop(Handle::spawn(self, future));
        Ok(())
    }

    fn status(&self) -> Result<(), SpawnError> {
        if self.scheduler.is_closed() {
            Err(SpawnError::shutdown())
        } else {
            Ok(())
        }
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle")
            .field("runtime", &self.scheduler.id)
            .field("flavor", &self.runtime_flavor())
            .finish_non_exhaustive()
    }
}

/// No runtime is current; see [`Handle::try_current`].
#[derive(Clone, Debug)]
pub struct TryCurrentError {
    thread_local_destroyed: bool,
}

impl TryCurrentError {
    pub(crate) fn missing() -> Self {
        Self {
            thread_local_destroyed: false,
        }
    }

    pub(crate) fn thread_local_destroyed() -> Self {
        Self {
            thread_local_destroyed: true,
        }
    }

    /// Whether there is no runtime because none was entered.
    pub fn is_missing_context(&self) -> bool {
        !self.thread_local_destroyed
    }

    /// Whether there is no runtime because the thread is ending.
    pub fn is_thread_local_destroyed(&self) -> bool {
        self.thread_local_destroyed
    }
}

impl fmt::Display for TryCurrentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.thread_local_destroyed {
            "there is no gort runtime here: the thread is ending and its context is gone"
        } else {
            "there is no gort runtime running on this thread: call this inside `#[gort::main]`, \
             a task or `Runtime::block_on`, or keep a guard of `Runtime::enter` alive"
        })
    }
}

impl Error for TryCurrentError {}
