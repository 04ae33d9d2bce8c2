//! One thread's parking place, which may be a futex or somebody else's blocking call.
//!
//! | state | meaning | `unpark` does |
//! |---|---|---|
//! | EMPTY | the owner runs | leaves NOTIFIED: the next park returns at once |
//! | NOTIFIED | an unpark has not been consumed yet | nothing |
//! | PARKED | the owner sleeps on the futex | leaves NOTIFIED and wakes the futex |
//! | ELSEWHERE | the owner blocks in a call that somebody can interrupt (netpoll) | leaves NOTIFIED and tells the caller to interrupt it |
//!
//! # Orderings
//!
//! `unpark` is a Release swap, which every consuming operation of the owner (an Acquire swap or
//! compare-exchange of the same word) pairs with: what the unparker wrote before is visible to the
//! owner after. The swap to and from PARKED needs no more: the word itself is all that the kernel
//! compares.

use std::time::Duration;

use crate::facade::sync::atomic::{
    AtomicU32,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};

const EMPTY: u32 = 0;
const NOTIFIED: u32 = 1;
const PARKED: u32 = 2;
const ELSEWHERE: u32 = 3;

/// See the module's doc. Any thread may unpark; one thread, the owner, parks.
#[derive(Debug)]
pub(crate) struct Parker {
    state: AtomicU32,
    #[cfg(loom)]
    model: (loom::sync::Mutex<()>, loom::sync::Condvar),
}

/// What the caller of [`Parker::unpark`] must do.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unpark {
    /// Nothing more.
    Done,
    /// The owner blocks elsewhere: interrupt it there.
    Interrupt,
}

impl Parker {
    pub(crate) fn new() -> Self {
        Self {
            state: AtomicU32::new(EMPTY),
            #[cfg(loom)]
            model: (loom::sync::Mutex::new(()), loom::sync::Condvar::new()),
        }
    }

    /// Consumes a notification, sleeping until there is one or `timeout` is over. False: it timed
    /// out. Owner only.
    pub(crate) fn park(&self, timeout: Option<Duration>) -> bool {
        if self
            .state
            .compare_exchange(EMPTY, PARKED, Acquire, Acquire)
            .is_err()
        {
            return self.consume();
        }
        let deadline = timeout.and_then(|timeout| std::time::Instant::now().checked_add(timeout));
        loop {
            let left = deadline.map(|at| at.saturating_duration_since(std::time::Instant::now()));
            if left == Some(Duration::ZERO) {
                return self.consume();
            }
            self.sleep(left);
            if self.state.load(Relaxed) == NOTIFIED {
                return self.consume();
            }
        }
    }

    /// Announces that the owner goes to block elsewhere. False: it has been notified meanwhile
    /// (the notification is consumed) and must not. Owner only.
    #[must_use]
    pub(crate) fn begin_elsewhere(&self) -> bool {
        if self
            .state
            .compare_exchange(EMPTY, ELSEWHERE, Acquire, Acquire)
            .is_ok()
        {
            return true;
        }
        self.consume();
        false
    }

    /// Back from elsewhere; consumes the notification, if there is one. Owner only.
    pub(crate) fn end_elsewhere(&self) {
        self.consume();
    }

    fn consume(&self) -> bool {
        // AcqRel: Acquire pairs with `unpark`; the Release half keeps EMPTY from being seen
        // before the owner's last look.
        self.state.swap(EMPTY, AcqRel) == NOTIFIED
    }

    /// Makes the owner's present or next park return.
    pub(crate) fn unpark(&self) -> Unpark {
        match self.state.swap(NOTIFIED, Release) {
            PARKED => {
                self.rouse();
                Unpark::Done
            }
            ELSEWHERE => Unpark::Interrupt,
            _ => Unpark::Done,
        }
    }

    #[cfg(not(loom))]
    fn sleep(&self, timeout: Option<Duration>) {
        super::futex::wait(&self.state, PARKED, timeout);
    }

    #[cfg(not(loom))]
    fn rouse(&self) {
        super::futex::wake_one(&self.state);
    }

    #[cfg(loom)]
    fn sleep(&self, _: Option<Duration>) {
        let guard = self.model.0.lock().unwrap();
        if self.state.load(Relaxed) == PARKED {
            drop(self.model.1.wait(guard).unwrap());
        }
    }

    #[cfg(loom)]
    fn rouse(&self) {
        let _guard = self.model.0.lock().unwrap();
        self.model.1.notify_one();
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use crate::facade::UnsafeCell;
    use loom::sync::Arc;

    /// An unpark is never lost, and what was written before it is visible after the park.
    #[test]
    fn loom_parker() {
        loom::model(|| {
            let shared = Arc::new((Parker::new(), UnsafeCell::new(0)));
            let other = shared.clone();
            let thread = loom::thread::spawn(move || {
                // SAFETY: the owner reads only after the park.
                other.1.with_mut(|value| unsafe { *value = 1 });
                assert_eq!(other.0.unpark(), Unpark::Done);
            });
            assert!(shared.0.park(None));
            // SAFETY: the writer is done, which the park has made visible.
            assert_eq!(shared.1.with(|value| unsafe { *value }), 1);
            thread.join().unwrap();
        });
    }

    /// Blocking elsewhere: either the unparker is told to interrupt, or the owner does not block.
    #[test]
    fn loom_parker_elsewhere() {
        loom::model(|| {
            let shared = Arc::new(Parker::new());
            let other = shared.clone();
            let thread = loom::thread::spawn(move || other.unpark());
            let blocked = shared.begin_elsewhere();
            if blocked {
                shared.end_elsewhere();
            }
            let unpark = thread.join().unwrap();
            if unpark == Unpark::Interrupt {
                assert!(blocked);
            } else {
                // The notification came before or after the call; it is not lost if after.
                let _ = blocked;
            }
        });
    }
}
