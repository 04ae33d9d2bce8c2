//! One P's timers, and the entry that a sleep shares with them.
//!
//! # The life of an entry
//!
//! | state | in the heap | waker | means | leaves it by |
//! |---|---|---|---|---|
//! | idle | no | none | made, not armed yet | [`TimerQueue::arm`] |
//! | registered | yes | of the last poll, if any | waits for its deadline | `arm` again (new deadline, same state) · [`TimerQueue::expire`] → fired · [`TimerQueue::complete`] → fired · [`TimerQueue::cancel`] → dropped · [`TimerQueue::close`] → dead |
//! | fired | no | taken | its deadline passed, or it was completed | `arm` → registered |
//! | dead | no | taken | the runtime has shut down | never |
//!
//! Firing takes the entry out of the heap under the queue's lock and only what is in the heap can
//! fire, so an entry that fired does not fire again until its owner arms it again. Only the owner
//! (the one `Sleep` that holds the entry, through `&mut`) arms, completes, cancels and polls; any
//! thread may expire and close. An entry stays with the queue it was made for: wherever the owner
//! runs, it is found by its index there.
//!
//! # Locks
//!
//! The queue's lock guards the heap, `closed`, the stores to `next`, and the positions of the
//! queue's entries. An entry's own lock guards its state and waker, so that a task that polls its
//! sleep again and again contends with nobody. Order: queue, then entry; never two queues, never
//! two entries. No user code runs under either: wakers are cloned and dropped outside and woken
//! by the caller.

use super::error::Error;
use super::heap::Heap;
use crate::facade::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use crate::facade::sync::{Mutex, MutexGuard};
use crate::wake_list::WakeList;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Waker};

/// `TimerQueue::next` when there is no timer. Later than every deadline.
pub(super) const NEVER: u64 = u64::MAX;

/// The position of an entry that is not in the heap.
const NOT_QUEUED: usize = usize::MAX;

/// Nothing that can panic for a user's reason runs under these locks, so a poisoned one says
/// nothing about the data.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a sleep and the queue share.
#[derive(Debug)]
pub(super) struct Entry {
    /// Index in the heap. Written under the queue's lock. Relaxed: read under it too, except by
    /// the owner in `TimerQueue::cancel`, which explains itself.
    position: AtomicUsize,
    cell: Mutex<Cell>,
}

#[derive(Debug)]
struct Cell {
    state: State,
    waker: Option<Waker>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    Registered,
    Fired,
    Dead,
}

impl Entry {
    pub(super) fn new() -> Self {
        Self {
            position: AtomicUsize::new(NOT_QUEUED),
            cell: Mutex::new(Cell {
                state: State::Idle,
                waker: None,
            }),
        }
    }

    /// Where the entry is in its queue's heap.
    pub(super) fn position(&self) -> Option<usize> {
        // Relaxed: see the field.
        Some(self.position.load(Ordering::Relaxed)).filter(|&index| index != NOT_QUEUED)
    }

    /// For the heap, under the queue's lock.
    pub(super) fn set_position(&self, position: Option<usize>) {
        // Relaxed: see the field.
        self.position
            .store(position.unwrap_or(NOT_QUEUED), Ordering::Relaxed);
    }

    pub(super) fn has_fired(&self) -> bool {
        lock(&self.cell).state == State::Fired
    }

    /// Whether the entry has fired; if it has not, `cx`'s waker is woken when it does, instead of
    /// that of an earlier poll.
    pub(super) fn poll(&self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        // Declared before the guard, so dropped after it: a waker's drop is user code.
        let mut fresh = None;
        loop {
            let mut cell = lock(&self.cell);
            match cell.state {
                State::Idle => unreachable!("a sleep is armed before its entry is polled"),
                State::Fired => return Poll::Ready(Ok(())),
                State::Dead => return Poll::Ready(Err(Error::shutdown())),
                State::Registered => {}
            }
            match &cell.waker {
                Some(waker) if waker.will_wake(cx.waker()) => return Poll::Pending,
                _ => {}
            }
            if fresh.is_some() {
                std::mem::swap(&mut cell.waker, &mut fresh);
                return Poll::Pending;
            }
            // Clone outside the lock, then look again: it may have fired in between.
            drop(cell);
            fresh = Some(cx.waker().clone());
        }
    }

    /// Enters a state that is not `Registered` and hands out the waker to wake.
    fn finish(&self, state: State) -> Option<Waker> {
        let mut cell = lock(&self.cell);
        cell.state = state;
        cell.waker.take()
    }
}

/// The timers of one P, on cache lines of its own (two, as the prefetcher fetches pairs).
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct TimerQueue {
    /// The earliest deadline in the heap, or `NEVER`. Written under the lock.
    next: AtomicU64,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    heap: Heap,
    /// Set at shutdown, for good.
    closed: bool,
}

impl TimerQueue {
    pub(super) fn new() -> Self {
        Self {
            next: AtomicU64::new(NEVER),
            inner: Mutex::new(Inner {
                heap: Heap::default(),
                closed: false,
            }),
        }
    }

    /// The earliest deadline, or [`NEVER`], without taking the lock.
    pub(super) fn next(&self) -> u64 {
        // Relaxed: `driver` puts a fence before it, which pairs with the one after `arm`.
        self.next.load(Ordering::Relaxed)
    }

    /// Registers `entry` for `deadline`, wherever it is in its life, and returns whether it is now
    /// the first of the queue: then whoever sleeps past `deadline` must be told.
    pub(super) fn arm(&self, entry: &Arc<Entry>, deadline: u64) -> bool {
        let mut inner = lock(&self.inner);
        if inner.closed {
            let waker = entry.finish(State::Dead);
            drop(inner);
            // The owner is at work on the sleep just now, and polls it or drops it.
            drop(waker);
            return false;
        }
        inner.heap.put(entry, deadline);
        lock(&entry.cell).state = State::Registered;
        let first = entry.position() == Some(0);
        self.update_next(&inner);
        first
    }

    /// Takes a registered entry out as if its deadline had passed, and returns its waker.
    pub(super) fn complete(&self, entry: &Entry) -> Option<Waker> {
        let removed = self.take(entry);
        let waker = entry.finish(State::Fired);
        drop(removed);
        waker
    }

    /// Takes an entry out, if it is in, because its owner has no more use for it.
    pub(super) fn cancel(&self, entry: &Entry) {
        // Relaxed, without the lock: only the owner, which is the caller, puts the entry in. If it
        // reads that the entry is out, the entry stays out; if what it reads is old, `take` finds
        // out under the lock.
        if entry.position().is_some() {
            self.take(entry);
        }
    }

    fn take(&self, entry: &Entry) -> Option<Arc<Entry>> {
        let mut inner = lock(&self.inner);
        let removed = inner.heap.remove(entry);
        self.update_next(&inner);
        drop(inner);
        removed
    }

    /// Brings `next` up to date with the heap.
    fn update_next(&self, inner: &Inner) {
        // Relaxed: whoever lowers it puts a fence after it (`driver`), and whoever acts on the
        // value before it was raised looks once too often.
        self.next
            .store(inner.heap.first().unwrap_or(NEVER), Ordering::Relaxed);
    }

    /// Fires every entry whose deadline is `now` or earlier and puts the wakers into `out`.
    /// Returns how many fired. Costs one load if none is due.
    pub(super) fn expire(&self, now: u64, out: &mut WakeList) -> usize {
        // Relaxed: a hint. Whoever misses a timer just armed looks again before it sleeps.
        if self.next.load(Ordering::Relaxed) > now {
            return 0;
        }
        let mut fired = 0;
        let mut inner = lock(&self.inner);
        while let Some(entry) = inner.heap.pop_due(now) {
            fired += 1;
            if let Some(waker) = entry.finish(State::Fired) {
                out.push(waker);
            }
        }
        self.update_next(&inner);
        fired
    }

    /// Refuses timers from now on; those that wait become dead and their wakers go to `out`.
    pub(super) fn close(&self, out: &mut WakeList) {
        let mut inner = lock(&self.inner);
        inner.closed = true;
        for entry in inner.heap.take_all() {
            if let Some(waker) = entry.finish(State::Dead) {
                out.push(waker);
            }
        }
        self.update_next(&inner);
    }
}
