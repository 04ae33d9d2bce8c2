//! Which task this thread is polling, or dropping.

use std::cell::Cell;
use std::ptr::{self, NonNull};
use std::task::Waker;

use super::header::Header;
use super::{Id, waker};

/// A thread's notes on the task that it is busy with.
#[derive(Clone, Copy)]
struct Current {
    id: Option<Id>,
    /// The task being polled: only compared, never followed. Null while a task is being dropped.
    polled: *const Header,
    /// The task being polled asked to go behind the others.
    yielded: bool,
}

const NONE: Current = Current {
    id: None,
    polled: ptr::null(),
    yielded: false,
};

thread_local! {
    static CURRENT: Cell<Current> = const { Cell::new(NONE) };
}

/// Restores what was current before.
pub(super) struct Guard(Current);

impl Guard {
    /// For user code that is not a poll: drops of futures and outputs.
    pub(super) fn dropping(cell: NonNull<Header>) -> Self {
        Self(CURRENT.replace(Current {
            id: Some(Id::of(cell)),
            ..NONE
        }))
    }

    /// For a poll.
    #[inline]
    pub(super) fn polling(cell: NonNull<Header>) -> Self {
        Self(CURRENT.replace(Current {
            id: Some(Id::of(cell)),
            polled: cell.as_ptr(),
            yielded: false,
        }))
    }

    /// Whether the poll that this guard is for called [`yield_polled`].
    #[inline]
    pub(super) fn has_yielded(&self) -> bool {
        CURRENT.get().yielded
    }
}

impl Drop for Guard {
    #[inline]
    fn drop(&mut self) {
        CURRENT.set(self.0);
    }
}

/// The current task's id.
pub(super) fn id() -> Option<Id> {
    CURRENT.get().id
}

/// If `waker` is that of the task being polled on this thread, notes that it yields: its poll will
/// be followed by another turn, behind the others, without a wake.
#[inline]
pub(super) fn yield_polled(waker: &Waker) -> bool {
    let current = CURRENT.get();
    let own = waker::task_of(waker).is_some_and(|cell| ptr::eq(cell, current.polled));
    if own {
        CURRENT.set(Current {
            yielded: true,
            ..current
        });
    }
    own
}
