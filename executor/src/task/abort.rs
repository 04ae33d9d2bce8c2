//! `AbortHandle`.

use std::fmt;

use super::Id;
use super::header::TaskRef;

/// Permission to abort a spawned task, without the permission to await its output.
///
/// Dropping the handle does not abort the task. It may outlive the task and the runtime.
#[derive(Clone)]
pub struct AbortHandle {
    task: TaskRef,
}

impl AbortHandle {
    pub(super) fn new(task: TaskRef) -> Self {
        Self { task }
    }

    /// Aborts the task: at its next turn its future is dropped instead of polled. See
    /// [`JoinHandle::abort`](super::JoinHandle::abort).
    pub fn abort(&self) {
        self.task.abort();
    }

    /// Whether the task has finished: completed, panicked, or been cancelled. An aborted task has
    /// not finished until its future has been dropped.
    pub fn is_finished(&self) -> bool {
        self.task.state().is_complete()
    }

    /// The task's [`Id`].
    pub fn id(&self) -> Id {
        self.task.id()
    }
}

// The handle shows nothing of the future, so a panic in it cannot be observed half-way.
impl std::panic::UnwindSafe for AbortHandle {}
impl std::panic::RefUnwindSafe for AbortHandle {}

impl fmt::Debug for AbortHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AbortHandle")
            .field("id", &self.id())
            .finish()
    }
}
