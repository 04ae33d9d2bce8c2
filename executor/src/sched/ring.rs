//! A P's run queue: a ring with one producer and many consumers.
//!
//! The producer, and its cheap consumer, is whoever holds the P with the mark up
//! (`ownership.rs`); any M may steal. After Go's `runq` (`runtime/proc.go`): head and tail count
//! up for ever, the slot is the count modulo the capacity, and a thief copies the slots *before*
//! it claims them by moving the head.
//!
//! # Orderings
//!
//! * `tail` is stored Release by the producer after it has written the slot; a thief loads it
//!   Acquire before it reads the slot.
//! * `head` moves by a Release compare-exchange after the slots have been read; the producer loads
//!   it Acquire before it overwrites them.
//! * A thief that reads slots which the producer is overwriting finds at its compare-exchange that
//!   the head has moved (the producer overwrites only what lies before the head), and discards
//!   what it read. Head and tail are 64 bits wide on the supported targets, so they do not wrap.

use std::ptr::{self, NonNull};

use crate::facade::sync::atomic::{
    AtomicPtr, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};

/// 256: both Go's `runq` and tokio's queue have this size; half of it is a spill. Four under loom
/// to reach the full ring in few steps.
#[cfg(not(loom))]
pub(crate) const CAPACITY: usize = 256;
#[cfg(loom)]
pub(crate) const CAPACITY: usize = 4;

const MASK: usize = CAPACITY - 1;

/// See the module's doc.
#[derive(Debug)]
pub(crate) struct Ring<T> {
    head: Padded<AtomicUsize>,
    tail: Padded<AtomicUsize>,
    slots: Box<[AtomicPtr<T>]>,
}

/// On a cache line of its own (two, for the adjacent-line prefetcher): thieves write the head
/// while the producer writes the tail.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Padded<T>(pub(crate) T);

impl<T> std::ops::Deref for Padded<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// What is in the way of a push: half of a full ring, oldest first.
pub(crate) type Spill<T> = [Option<NonNull<T>>; CAPACITY / 2];

impl<T> Ring<T> {
    pub(crate) fn new() -> Self {
        Self {
            head: Padded(AtomicUsize::new(0)),
            tail: Padded(AtomicUsize::new(0)),
            slots: (0..CAPACITY)
                .map(|_| AtomicPtr::new(ptr::null_mut()))
                .collect(),
        }
    }

    /// How many items there are: exact for the producer as far as its own side goes, a guess for
    /// others.
    pub(crate) fn len(&self) -> usize {
        let head = self.head.load(Acquire);
        let tail = self.tail.load(Acquire);
        tail.saturating_sub(head)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many pushes must succeed now. Producer only.
    pub(crate) fn free(&self) -> usize {
        // Relaxed: only the producer moves the tail.
        CAPACITY - (self.tail.load(Relaxed) - self.head.load(Acquire))
    }

    /// Adds an item at the tail, or gives it back if the ring is full. Producer only.
    #[inline]
    pub(crate) fn push(&self, item: NonNull<T>) -> Result<(), NonNull<T>> {
        let head = self.head.load(Acquire);
        let tail = self.tail.load(Relaxed);
        if tail - head >= CAPACITY {
            return Err(item);
        }
        self.slots[tail & MASK].store(item.as_ptr(), Relaxed);
        self.tail.store(tail + 1, Release);
        Ok(())
    }

    /// Takes the first half of a full ring; `None` if a thief has made room meanwhile. Producer
    /// only.
    pub(crate) fn spill(&self) -> Option<Spill<T>> {
        let head = self.head.load(Acquire);
        if self.tail.load(Relaxed) - head < CAPACITY {
            return None;
        }
        let mut half = [None; CAPACITY / 2];
        for (index, slot) in half.iter_mut().enumerate() {
            *slot = NonNull::new(self.slots[(head + index) & MASK].load(Relaxed));
        }
        // Release as every head move; a thief that came first makes it fail.
        self.head
            .compare_exchange(head, head + CAPACITY / 2, Release, Relaxed)
            .ok()?;
        Some(half)
    }

    /// Takes the item at the head. Producer only (a thief uses [`Ring::steal_into`]).
    #[inline]
    pub(crate) fn pop(&self) -> Option<NonNull<T>> {
        let mut head = self.head.load(Relaxed);
        // Relaxed: the producer's own store.
        let tail = self.tail.load(Relaxed);
        loop {
            if head == tail {
                return None;
            }
            let item = self.slots[head & MASK].load(Relaxed);
            // The producer overwrites slots itself, so Release is for form's sake only: it keeps
            // the rule that every head move follows its reads.
            match self
                .head
                .compare_exchange_weak(head, head + 1, Release, Relaxed)
            {
                Ok(_) => {
                    // Where the next item's first use would miss the cache, this hides half of it
                    // (1000 tasks that yield in turn: some 7 % less time). The slot may be stale: a
                    // prefetch of any address is harmless.
                    prefetch(self.slots[(head + 1) & MASK].load(Relaxed));
                    return NonNull::new(item);
                }
                Err(actual) => head = actual,
            }
        }
    }

    /// Steals half (rounded up) of this ring: one item is returned, the others go to `target`,
    /// whose producer the caller is.
    pub(crate) fn steal_into(&self, target: &Ring<T>) -> Option<NonNull<T>> {
        let target_tail = target.tail.load(Relaxed);
        let room = CAPACITY - (target_tail - target.head.load(Acquire));
        loop {
            let head = self.head.load(Acquire);
            let tail = self.tail.load(Acquire);
            let available = tail.saturating_sub(head);
            let count = (available - available / 2).min(room + 1);
            if count == 0 {
                return None;
            }
            if available > CAPACITY {
                // The two loads were far apart: read again (as Go does).
                continue;
            }
            let first = self.slots[head & MASK].load(Relaxed);
            for index in 1..count {
                let item = self.slots[(head + index) & MASK].load(Relaxed);
                // Not published until the tail moves, so no thief of ours can see it.
                target.slots[(target_tail + index - 1) & MASK].store(item, Relaxed);
            }
            // Release pairs with the victim's Acquire load of its head before it overwrites.
            if self
                .head
                .compare_exchange(head, head + count, Release, Relaxed)
                .is_ok()
            {
                if count > 1 {
                    target.tail.store(target_tail + count - 1, Release);
                }
                return NonNull::new(first);
            }
        }
    }
}

#[cfg(all(target_arch = "x86_64", not(loom)))]
#[inline(always)]
fn prefetch<T>(address: *mut T) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: a hint, without effect on memory or faults, for whatever address.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast_const().cast()) };
}

#[cfg(any(not(target_arch = "x86_64"), loom))]
fn prefetch<T>(_: *mut T) {}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn item(number: usize) -> NonNull<u8> {
        NonNull::new(ptr::without_provenance_mut(number + 1)).unwrap()
    }

    #[test]
    fn first_in_first_out() {
        let ring = Ring::new();
        for number in 0..CAPACITY {
            ring.push(item(number)).unwrap();
        }
        assert_eq!(ring.push(item(CAPACITY)), Err(item(CAPACITY)));
        assert_eq!(ring.len(), CAPACITY);
        for number in 0..CAPACITY {
            assert_eq!(ring.pop(), Some(item(number)));
        }
        assert_eq!(ring.pop(), None);
    }

    #[test]
    fn a_full_ring_spills_its_older_half() {
        let ring = Ring::new();
        assert!(ring.spill().is_none());
        for number in 0..CAPACITY {
            ring.push(item(number)).unwrap();
        }
        let half = ring.spill().unwrap();
        for (number, slot) in half.into_iter().enumerate() {
            assert_eq!(slot, Some(item(number)));
        }
        assert_eq!(ring.pop(), Some(item(CAPACITY / 2)));
        assert_eq!(ring.free(), CAPACITY / 2 + 1);
    }

    #[test]
    fn a_thief_takes_half() {
        let (victim, thief) = (Ring::new(), Ring::new());
        assert_eq!(victim.steal_into(&thief), None);
        for number in 0..7 {
            victim.push(item(number)).unwrap();
        }
        assert_eq!(victim.steal_into(&thief), Some(item(0)));
        assert_eq!(thief.len(), 3);
        assert_eq!(victim.len(), 3);
        assert_eq!(thief.pop(), Some(item(1)));
        assert_eq!(victim.pop(), Some(item(4)));
    }

    #[test]
    fn a_thief_with_a_full_ring_takes_one() {
        let (victim, thief) = (Ring::new(), Ring::new());
        for number in 0..CAPACITY {
            thief.push(item(number)).unwrap();
            victim.push(item(1000 + number)).unwrap();
        }
        assert_eq!(victim.steal_into(&thief), Some(item(1000)));
        assert_eq!(thief.len(), CAPACITY);
        assert_eq!(victim.len(), CAPACITY - 1);
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::sync::Arc;

    fn item(number: usize) -> NonNull<u8> {
        NonNull::new(ptr::without_provenance_mut(number + 1)).unwrap()
    }

    fn drain(ring: &Ring<u8>, into: &mut Vec<usize>) {
        while let Some(item) = ring.pop() {
            into.push(item.as_ptr().addr() - 1);
        }
    }

    fn check(mut seen: Vec<usize>, count: usize) {
        seen.sort_unstable();
        assert_eq!(
            seen,
            (0..count).collect::<Vec<_>>(),
            "every item exactly once"
        );
    }

    /// One producer that pushes, pops and spills; one thief. Nothing is lost or doubled.
    #[test]
    fn loom_ring_push_pop_steal() {
        loom::model(|| {
            let ring = Arc::new(Ring::<u8>::new());
            let victim = ring.clone();
            let thief = loom::thread::spawn(move || {
                let own = Ring::<u8>::new();
                let mut seen = Vec::new();
                if let Some(item) = victim.steal_into(&own) {
                    seen.push(item.as_ptr().addr() - 1);
                }
                drain(&own, &mut seen);
                seen
            });
            let mut seen = Vec::new();
            for number in 0..6 {
                if let Err(item) = ring.push(item(number)) {
                    match ring.spill() {
                        Some(half) => {
                            seen.extend(half.into_iter().map(|i| i.unwrap().as_ptr().addr() - 1));
                            ring.push(item).unwrap();
                        }
                        None => ring.push(item).unwrap(),
                    }
                }
                if number == 2 {
                    seen.extend(ring.pop().map(|item| item.as_ptr().addr() - 1));
                }
            }
            drain(&ring, &mut seen);
            seen.extend(thief.join().unwrap());
            check(seen, 6);
        });
    }

    /// Two thieves and the producer.
    #[test]
    fn loom_ring_two_thieves() {
        loom::model(|| {
            let ring = Arc::new(Ring::<u8>::new());
            for number in 0..3 {
                ring.push(item(number)).unwrap();
            }
            let thieves: Vec<_> = (0..2)
                .map(|_| {
                    let victim = ring.clone();
                    loom::thread::spawn(move || {
                        let own = Ring::<u8>::new();
                        let mut seen = Vec::new();
                        seen.extend(victim.steal_into(&own).map(|i| i.as_ptr().addr() - 1));
                        drain(&own, &mut seen);
                        seen
                    })
                })
                .collect();
            let mut seen = Vec::new();
            seen.extend(ring.pop().map(|item| item.as_ptr().addr() - 1));
            for thief in thieves {
                seen.extend(thief.join().unwrap());
            }
            drain(&ring, &mut seen);
            check(seen, 3);
        });
    }
}
