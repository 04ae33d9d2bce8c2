//! `JoinHandle`.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use super::header::TaskRef;
use super::state::State;
use super::{AbortHandle, Id, JoinError};
use crate::quietly::quietly;

/// Permission to await a spawned task, and to abort it.
///
/// Dropping the handle detaches the task: it runs on, and its output is dropped.
///
/// # Cancel safety
///
/// `&mut handle` may be used in `select!`: if another branch completes first the output is not
/// lost.
///
/// # Examples
///
/// ```
/// # let rt = gort::runtime::Runtime::new()?;
/// # rt.block_on(async {
/// let handle = gort::spawn(async { 6 * 7 });
/// assert_eq!(handle.await.expect("the task did not panic"), 42);
/// # });
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct JoinHandle<T> {
    /// Dropped by hand: the fast way of `drop` gives the reference up in its own transition.
    task: ManuallyDrop<TaskRef>,
    _output: PhantomData<T>,
}

// SAFETY: the handle moves the output, a `T`, to the thread that awaits it, and otherwise touches
// only what `TaskRef` may.
unsafe impl<T: Send> Send for JoinHandle<T> {}
// SAFETY: through `&JoinHandle` no `T` can be reached.
unsafe impl<T: Send> Sync for JoinHandle<T> {}

impl<T> std::panic::UnwindSafe for JoinHandle<T> {}
impl<T> std::panic::RefUnwindSafe for JoinHandle<T> {}
impl<T> Unpin for JoinHandle<T> {}

impl<T> JoinHandle<T> {
    /// The caller hands over the reference that JOIN_INTEREST stands for, of a task whose output
    /// is a `T`.
    pub(super) fn new(task: TaskRef) -> Self {
        Self {
            task: ManuallyDrop::new(task),
            _output: PhantomData,
        }
    }

    /// Aborts the task.
    ///
    /// A parked or queued task's future is dropped at its next turn, on a runtime thread; one that
    /// is being polled is dropped when the poll returns, unless it returns ready. Awaiting the
    /// handle then gives a [`JoinError`] with `is_cancelled()`, or the output, if the task had
    /// already completed.
    ///
    /// A `spawn_blocking` closure that has begun cannot be aborted.
    pub fn abort(&self) {
        self.task.abort();
    }

    /// Cancels the task here and now, unless somebody is polling it: for a spawn that raced with
    /// the shutdown of the runtime.
    pub(crate) fn abort_now(&self) {
        super::runnable::shut_down(TaskRef::clone(&self.task));
    }

    /// Whether the task has finished: completed, panicked, or been cancelled. An aborted task has
    /// not finished until its future has been dropped.
    pub fn is_finished(&self) -> bool {
        self.task.state().is_complete()
    }

    /// A handle that can abort the task but not await it.
    #[must_use = "an AbortHandle does nothing unless `.abort` is called"]
    pub fn abort_handle(&self) -> AbortHandle {
        AbortHandle::new(TaskRef::clone(&self.task))
    }

    /// The task's [`Id`].
    pub fn id(&self) -> Id {
        self.task.id()
    }

    fn slot(&self) -> *mut Option<Waker> {
        // SAFETY: our reference keeps the cell live; only the slot's address is taken.
        unsafe { (*self.task.as_ptr().as_ptr()).join_waker.get() }
    }

    /// True if the output is there; otherwise the waker is registered.
    fn poll_complete(&self, waker: &Waker) -> bool {
        let state: &State = self.task.state();
        if state.is_complete() {
            return true;
        }
        if state.has_join_waker() {
            // SAFETY: while JOIN_WAKER is set nobody writes the slot.
            let registered = unsafe { &*self.slot() };
            if registered
                .as_ref()
                .is_some_and(|registered| registered.will_wake(waker))
            {
                return false;
            }
            if !state.unset_join_waker() {
                return true;
            }
        }
        // JOIN_WAKER is unset and the task was not complete: the slot is ours. If it completes
        // meanwhile, the completer does not look at the slot.
        let waker = waker.clone();
        // SAFETY: see above; the old value, if any, is dropped by us alone.
        unsafe { *self.slot() = Some(waker) };
        if state.set_join_waker() {
            return false;
        }
        // SAFETY: the transition failed, so the slot is still ours.
        unsafe { *self.slot() = None };
        true
    }
}

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, JoinError>;

    /// # Panics
    ///
    /// When polled again after it was ready.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let coop = ready!(tokio::task::coop::poll_proceed(cx));
        if !self.poll_complete(cx.waker()) {
            return Poll::Pending;
        }
        coop.made_progress();
        // SAFETY: the task is complete while JOIN_INTEREST is set, so the output is ours, and by
        // construction it is a `T`.
        Poll::Ready(unsafe { self.task.take_output() })
    }
}

impl<T> Drop for JoinHandle<T> {
    fn drop(&mut self) {
        if self.task.state().drop_join_handle_fast() {
            return;
        }
        let dropped = self.task.state().drop_join_handle();
        if dropped.drop_output {
            // SAFETY: the task was complete when JOIN_INTEREST went: the output is ours.
            unsafe { (self.task.vtable().drop_output)(self.task.as_ptr()) };
        }
        if dropped.drop_waker {
            // SAFETY: the slot is ours: either the task is not complete and its completer will
            // not look, or it has given the slot back.
            let waker = unsafe { (*self.slot()).take() };
            // Its drop is user code: a panic there must not leak the task.
            quietly(|| drop(waker));
        }
        // SAFETY: the handle is being dropped and does not use the field again.
        unsafe { ManuallyDrop::drop(&mut self.task) };
    }
}

impl<T: fmt::Debug> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinHandle")
            .field("id", &self.id())
            .finish()
    }
}
