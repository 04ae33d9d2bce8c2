//! The LIFO slot of a P: the task that the running one made ready.
//!
//! It runs next, while what it will read is still in the cache. Unlike tokio's it can be stolen
//! (a long poll would otherwise strand the task it has just woken), but only on a thief's last
//! pass. After Go's `runnext`.
//!
//! Only the holder of the P puts a task in; anyone may take it. A pointer that comes back (taken,
//! run, made ready and put in again) cannot confuse a thief: whatever is in the slot is there to
//! be run.
//!
//! Putting a task into the empty slot wakes nobody: it runs next here, and a wake-up for each
//! would cost more than it gives (tokio measured 8.5 % of CPU in its #8065). If something is
//! displaced, that goes to the ring, and the push to the ring is what the wake-up protocol
//! (`idle.rs`) is about.
//!
//! # Orderings
//!
//! Putting is Release and taking Acquire, so the taker sees the task as the putter left it.

use std::ptr::{self, NonNull};

use crate::facade::sync::atomic::{
    AtomicPtr,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};

/// See the module's doc.
#[derive(Debug)]
pub(crate) struct RunNext<T>(AtomicPtr<T>);

impl<T> RunNext<T> {
    pub(crate) fn new() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }

    /// Puts a task in and returns the one that it displaces. Holder of the P only.
    #[inline]
    pub(crate) fn put(&self, item: NonNull<T>) -> Option<NonNull<T>> {
        if self.0.load(Relaxed).is_null() {
            // Nobody else puts, so it stays empty until this store.
            self.0.store(item.as_ptr(), Release);
            return None;
        }
        NonNull::new(self.0.swap(item.as_ptr(), AcqRel))
    }

    /// Takes the task. Holder of the P, or (last pass) a thief.
    #[inline]
    pub(crate) fn take(&self) -> Option<NonNull<T>> {
        // The look first: an empty slot, the usual case, costs no locked instruction. A task put
        // in by this thread is seen; of another's, the wake-up protocol sees to it.
        if self.0.load(Relaxed).is_null() {
            return None;
        }
        NonNull::new(self.0.swap(ptr::null_mut(), Acquire))
    }

    /// What is in the slot, to be compared with a later look.
    pub(crate) fn peek(&self) -> *mut T {
        self.0.load(Acquire)
    }

    /// Takes `item` if it is still the one in the slot.
    pub(crate) fn take_if(&self, item: *mut T) -> Option<NonNull<T>> {
        self.0
            .compare_exchange(item, ptr::null_mut(), Acquire, Relaxed)
            .ok()
            .and_then(NonNull::new)
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::sync::Arc;

    /// The holder puts and takes while a thief tries: each task goes to exactly one of them.
    #[test]
    fn loom_runnext() {
        loom::model(|| {
            let item = |number| NonNull::<u8>::new(ptr::without_provenance_mut(number)).unwrap();
            let slot = Arc::new(RunNext::<u8>::new());
            let other = slot.clone();
            let thief = loom::thread::spawn(move || {
                let seen = other.peek();
                if seen.is_null() {
                    None
                } else {
                    other.take_if(seen)
                }
            });
            let mut taken = Vec::new();
            taken.extend(slot.put(item(1)));
            taken.extend(slot.put(item(2)));
            taken.extend(slot.take());
            taken.extend(slot.put(item(3)));
            taken.extend(thief.join().unwrap());
            taken.extend(slot.take());
            taken.sort();
            assert_eq!(taken, [item(1), item(2), item(3)]);
        });
    }
}
