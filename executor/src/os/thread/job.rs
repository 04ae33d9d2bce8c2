//! What a thread is to do and what came of it: the part that both back ends share.
//!
//! Owned by the handle and the thread together. The closure stays here until the thread takes it,
//! so a start that the system refused can be tried again with the same closure. Both locks are
//! held for a move only and never across user code, so they are never poisoned.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

pub(super) struct Job {
    f: Mutex<Option<Box<dyn FnOnce() + Send>>>,
    outcome: Mutex<Outcome>,
    started: Condvar,
}

#[derive(Default)]
struct Outcome {
    /// 0 until the thread runs.
    tid: i32,
    result: Option<std::thread::Result<()>>,
}

impl Job {
    pub(super) fn new(f: Box<dyn FnOnce() + Send>) -> Self {
        Self {
            f: Mutex::new(Some(f)),
            outcome: Mutex::default(),
            started: Condvar::new(),
        }
    }

    /// Runs the closure on the current thread. Its panic becomes the result.
    pub(super) fn run(&self) {
        // SAFETY: gettid takes nothing and touches no memory.
        self.outcome().tid = unsafe { libc::gettid() };
        self.started.notify_all();
        let f = self.f.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(f) = f {
            // Unwind safe: after a panic nothing of the closure is looked at any more.
            let result = catch_unwind(AssertUnwindSafe(f));
            self.outcome().result = Some(result);
        }
    }

    /// The id of the thread that runs the job; waits until one does.
    pub(super) fn tid(&self) -> i32 {
        self.started
            .wait_while(self.outcome(), |outcome| outcome.tid == 0)
            .unwrap_or_else(PoisonError::into_inner)
            .tid
    }

    /// The result, once the thread has ended. `None` if it left before the closure returned.
    pub(super) fn take_result(&self) -> Option<std::thread::Result<()>> {
        self.outcome().result.take()
    }

    fn outcome(&self) -> MutexGuard<'_, Outcome> {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job").finish_non_exhaustive()
    }
}
