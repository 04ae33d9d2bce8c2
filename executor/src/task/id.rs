//! Task ids.

use std::fmt;
use std::num::NonZeroU64;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::Header;

/// An opaque number that names a task among all tasks of the process that live now or lived
/// before: ids are not used again.
///
/// Ids are given out to each worker in blocks, so they say nothing about the order of spawning.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id(NonZeroU64);

/// How many ids a P takes at once: one contended addition per 1024 spawns.
const BLOCK: u64 = 1024;

static NEXT: AtomicU64 = AtomicU64::new(1);

impl Id {
    /// A single id, for a spawn from a thread without a P.
    pub(crate) fn next() -> Self {
        Self::from_counter(NEXT.fetch_add(1, Relaxed))
    }

    fn from_counter(value: u64) -> Self {
        // 2^64 spawns do not happen: at 100 million a second it takes 5,800 years.
        Self(NonZeroU64::new(value).expect("task ids are exhausted"))
    }

    /// Whether a transition of this task is timed where there is no P to count transitions: the
    /// same share of them, if ids are as good as random.
    pub(crate) fn is_sampled(self) -> bool {
        self.0.get() % 8 == 0
    }

    /// The id of a live task that the caller has a reference to.
    pub(super) fn of(cell: NonNull<Header>) -> Self {
        // SAFETY: private to the task module, whose callers hold a reference; the field does not
        // change while the cell lives.
        unsafe { (*cell.as_ptr()).id }
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Id").field(&self.0.get()).finish()
    }
}

/// A P's block of ids. Relaxed throughout: ids are only ever compared.
#[derive(Debug)]
pub(crate) struct IdRange {
    next: u64,
    end: u64,
}

impl IdRange {
    pub(crate) const fn new() -> Self {
        Self { next: 0, end: 0 }
    }

    #[inline]
    pub(crate) fn next(&mut self) -> Id {
        if self.next == self.end {
            self.next = NEXT.fetch_add(BLOCK, Relaxed);
            self.end = self.next + BLOCK;
        }
        let id = Id::from_counter(self.next);
        self.next += 1;
        id
    }
}

/// The [`Id`] of the task that is being polled, or dropped, on this thread.
///
/// # Panics
///
/// Outside of a task. The future that `block_on` runs is not a task.
#[track_caller]
pub fn id() -> Id {
    try_id()
        .expect("gort::task::id() was called outside of a task: only a spawned future has an id")
}

/// The [`Id`] of the task that is being polled, or dropped, on this thread; `None` outside of one.
pub fn try_id() -> Option<Id> {
    super::current::id()
}
