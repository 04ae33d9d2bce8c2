//! Wakers gathered under a lock and woken after it is released.
//!
//! A waker's vtable is user code: it may take locks, drop futures, spawn. So netpoll and timers
//! never call one while they hold a lock; they push it here and the caller wakes them when it
//! holds none (and, on an M, once it has a P to wake them onto).

use std::task::Waker;

use crate::quietly::quietly;

/// A reusable list of wakers.
#[derive(Debug, Default)]
pub(crate) struct WakeList {
    wakers: Vec<Waker>,
}

impl WakeList {
    pub(crate) const fn new() -> Self {
        Self { wakers: Vec::new() }
    }

    pub(crate) fn push(&mut self, waker: Waker) {
        self.wakers.push(waker);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.wakers.is_empty()
    }

    /// Wakes all, oldest first, and keeps the capacity. A waker that panics, which gort's own never
    /// do, costs the others nothing.
    pub(crate) fn wake_all(&mut self) {
        for waker in self.wakers.drain(..) {
            quietly(|| waker.wake());
        }
    }
}
