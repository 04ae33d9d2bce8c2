//! A task's place in a queue, and chains of them.

use std::mem::ManuallyDrop;
use std::panic::Location;
use std::ptr::NonNull;

use super::header::{Header, TaskRef};
use super::state::ToRunning;
use super::{Id, slab};
use crate::sched::Scheduler;

/// The right to run a task: at most one exists for a task at a time (SCHEDULED). It owns a
/// reference. Dropping it unrun, as shutdown does with what is left in the queues, gives up the
/// reference only.
#[derive(Debug)]
#[must_use]
pub(crate) struct Runnable(TaskRef);

/// What a turn left of the `Runnable`.
#[derive(Debug)]
#[must_use]
pub(crate) enum Polled {
    /// The task waits for a waker, or has ended.
    Parked,
    /// The task was woken meanwhile, and is to be queued again.
    Woken(Runnable),
    /// The task yielded, and is to be queued behind everything else.
    Yielded(Runnable),
}

impl Runnable {
    /// # Safety
    /// The caller owns the task's `Runnable`, by a transition to SCHEDULED or [`Self::into_raw`].
    pub(crate) unsafe fn from_raw(cell: NonNull<Header>) -> Self {
        // SAFETY: the `Runnable`'s reference is handed over.
        Self(unsafe { TaskRef::from_raw(cell) })
    }

    pub(crate) fn into_raw(self) -> NonNull<Header> {
        self.0.into_raw()
    }

    pub(crate) fn id(&self) -> Id {
        self.0.id()
    }

    /// Where the task was spawned.
    #[allow(dead_code, reason = "the reports of the hand-off issue name it")]
    pub(crate) fn location(&self) -> &'static Location<'static> {
        self.0.location()
    }

    /// Polls the task, or drops its future if it was aborted.
    #[inline]
    pub(crate) fn run(self) -> Polled {
        let task = ManuallyDrop::new(self.0);
        let vtable = task.vtable();
        match task.state().to_running() {
            // SAFETY: RUNNING is ours and we hold the `Runnable`'s reference, which the function
            // takes over.
            ToRunning::Poll => unsafe { (vtable.poll)(task.as_ptr()) },
            ToRunning::Cancel => {
                // SAFETY: as above.
                unsafe { (vtable.cancel)(task.as_ptr()) };
                Polled::Parked
            }
            ToRunning::Nothing => Polled::Parked,
            ToRunning::Free => {
                // SAFETY: the transition dropped the last reference.
                unsafe { (vtable.free)(task.as_ptr()) };
                Polled::Parked
            }
        }
    }

    /// Drops the future unpolled, here and now; the handle says cancelled.
    pub(crate) fn cancel(self) {
        // Queued, as the `Runnable` shows, so it is only marked.
        self.0.abort();
        let _completed = self.run();
    }

    pub(crate) fn set_queued_at(&mut self, at: u32) {
        // SAFETY: we own the `Runnable`.
        unsafe { Header::set_queued_at(self.0.as_ptr(), at) }
    }

    /// The mark left by `set_queued_at`, taken.
    pub(crate) fn take_queued_at(&mut self) -> u32 {
        // SAFETY: we own the `Runnable`.
        unsafe {
            let at = Header::queued_at(self.0.as_ptr());
            if at != 0 {
                Header::set_queued_at(self.0.as_ptr(), 0);
            }
            at
        }
    }
}

/// Linked `Runnable`s, first to run at the head: one item of the global queue.
#[derive(Debug, Default)]
#[must_use]
pub(crate) struct Chain {
    head: Option<NonNull<Header>>,
    tail: Option<NonNull<Header>>,
    len: usize,
}

// SAFETY: a chain owns its `Runnable`s, which may be run on any thread.
unsafe impl Send for Chain {}

impl Chain {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn push(&mut self, runnable: Runnable) {
        let cell = runnable.into_raw();
        // SAFETY: we own the `Runnable` of `cell` and of `tail`, hence their links.
        unsafe {
            Header::set_next(cell, None);
            match self.tail {
                Some(tail) => Header::set_next(tail, Some(cell)),
                None => self.head = Some(cell),
            }
        }
        self.tail = Some(cell);
        self.len += 1;
    }

    pub(crate) fn pop(&mut self) -> Option<Runnable> {
        let cell = self.head?;
        // SAFETY: the chain owns the `Runnable` of `cell` and hands it out.
        unsafe {
            self.head = Header::next(cell);
            if self.head.is_none() {
                self.tail = None;
            }
            self.len -= 1;
            Some(Runnable::from_raw(cell))
        }
    }
}

impl From<Runnable> for Chain {
    fn from(runnable: Runnable) -> Self {
        let mut chain = Chain::default();
        chain.push(runnable);
        chain
    }
}

impl Drop for Chain {
    fn drop(&mut self) {
        while let Some(runnable) = self.pop() {
            drop(runnable);
        }
    }
}

/// Cancels every task of `scheduler` that nobody is polling: their futures are dropped here and
/// now. Those being polled are dropped by their poller when it returns.
pub(crate) fn shut_down_all(scheduler: &Scheduler) {
    slab::for_each(|cell| {
        // SAFETY: `for_each` hands a reference over.
        let task = unsafe { TaskRef::from_raw(cell) };
        if std::ptr::eq(task.scheduler(), scheduler) {
            shut_down(task);
        }
    });
}

/// Cancels one task, unless somebody is polling it.
pub(super) fn shut_down(task: TaskRef) {
    if task.state().shut_down() {
        let vtable = task.vtable();
        // SAFETY: `shut_down` made us the one that RUNs it; our reference goes with it.
        unsafe { (vtable.cancel)(task.into_raw()) };
    }
}
