//! A 4-ary min-heap of timers whose elements know where they are.
//!
//! Four children rather than two halve the levels that a new deadline climbs, and the children of
//! a node lie side by side in memory (Go's timer heap has four for the same reasons). Every
//! [`Entry`] holds its index, so that it can be moved or removed from the middle in O(log n).
//! Timers with equal deadlines come out in the order in which they were put in.

use super::queue::Entry;
use std::sync::Arc;

const CHILDREN: usize = 4;
/// Below this capacity the memory is kept, whatever the number of timers.
const SMALL: usize = 256;

#[derive(Debug, Default)]
pub(super) struct Heap {
    slots: Vec<Slot>,
    /// The order number of the next one put in.
    sequence: u64,
}

#[derive(Debug)]
struct Slot {
    /// Deadline first, order number second: compared as a pair.
    key: (u64, u64),
    entry: Arc<Entry>,
}

impl Heap {
    /// The earliest deadline.
    pub(super) fn first(&self) -> Option<u64> {
        self.slots.first().map(|slot| slot.key.0)
    }

    /// Puts `entry` in, or gives it a new deadline if it is in.
    pub(super) fn put(&mut self, entry: &Arc<Entry>, deadline: u64) {
        let key = (deadline, self.sequence);
        self.sequence += 1;
        match entry.position() {
            Some(index) => {
                debug_assert!(Arc::ptr_eq(&self.slots[index].entry, entry));
                self.slots[index].key = key;
                self.restore(index);
            }
            None => {
                let entry = Arc::clone(entry);
                self.slots.push(Slot { key, entry });
                self.restore(self.slots.len() - 1);
            }
        }
    }

    /// Takes `entry` out; `None` if it is not in.
    pub(super) fn remove(&mut self, entry: &Entry) -> Option<Arc<Entry>> {
        let index = entry.position()?;
        let removed = self.slots.swap_remove(index).entry;
        debug_assert!(std::ptr::eq(&*removed, entry));
        removed.set_position(None);
        if index < self.slots.len() {
            self.restore(index);
        }
        // A burst of timers must not hold its memory for ever; halving at a quarter keeps the
        // cost of shrinking proportional to the removals.
        if self.slots.capacity() > SMALL && self.slots.len() < self.slots.capacity() / 4 {
            self.slots.shrink_to(self.slots.capacity() / 2);
        }
        Some(removed)
    }

    /// Takes out the first timer whose deadline is `now` or earlier.
    pub(super) fn pop_due(&mut self, now: u64) -> Option<Arc<Entry>> {
        let due = self.slots.first().filter(|slot| slot.key.0 <= now)?;
        let entry = Arc::clone(&due.entry);
        self.remove(&entry)
    }

    /// Takes out all timers, in no particular order.
    pub(super) fn take_all(&mut self) -> impl Iterator<Item = Arc<Entry>> {
        std::mem::take(&mut self.slots).into_iter().map(|slot| {
            slot.entry.set_position(None);
            slot.entry
        })
    }

    /// Moves the slot at `index`, whose key may be anything, to where it belongs.
    fn restore(&mut self, index: usize) {
        let index = self.sift_up(index);
        self.sift_down(index);
    }

    fn sift_up(&mut self, mut index: usize) -> usize {
        while index > 0 {
            let parent = (index - 1) / CHILDREN;
            if self.slots[parent].key <= self.slots[index].key {
                break;
            }
            self.swap(parent, index);
            index = parent;
        }
        self.slots[index].entry.set_position(Some(index));
        index
    }

    fn sift_down(&mut self, mut index: usize) {
        loop {
            let first = index * CHILDREN + 1;
            let last = (first + CHILDREN).min(self.slots.len());
            let Some(least) = (first..last).min_by_key(|&child| self.slots[child].key) else {
                break;
            };
            if self.slots[index].key <= self.slots[least].key {
                break;
            }
            self.swap(index, least);
            index = least;
        }
        self.slots[index].entry.set_position(Some(index));
    }

    /// Swaps two slots and tells both entries.
    fn swap(&mut self, a: usize, b: usize) {
        self.slots.swap(a, b);
        self.slots[a].entry.set_position(Some(a));
        self.slots[b].entry.set_position(Some(b));
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// The heap order, and that every entry knows its index.
    fn check(heap: &Heap) {
        for (index, slot) in heap.slots.iter().enumerate() {
            assert_eq!(slot.entry.position(), Some(index));
            if index > 0 {
                assert!(heap.slots[(index - 1) / CHILDREN].key <= slot.key);
            }
        }
    }

    #[test]
    fn comes_out_by_deadline_then_by_order_of_arrival() {
        let mut heap = Heap::default();
        let deadlines = [5, 3, 9, 3, 1, 7, 3, 9, 0, 5, 5, 2];
        let entries: Vec<_> = deadlines.map(|_| Arc::new(Entry::new())).into();
        for (entry, deadline) in entries.iter().zip(deadlines) {
            heap.put(entry, deadline);
            check(&heap);
        }
        let mut expected: Vec<usize> = (0..deadlines.len()).collect();
        expected.sort_by_key(|&i| deadlines[i]);
        for i in expected {
            assert_eq!(heap.first(), Some(deadlines[i]));
            assert!(deadlines[i] == 0 || heap.pop_due(deadlines[i] - 1).is_none());
            let popped = heap.pop_due(deadlines[i]).unwrap();
            assert!(Arc::ptr_eq(&popped, &entries[i]));
            assert_eq!(popped.position(), None);
            check(&heap);
        }
        assert!(heap.first().is_none() && heap.pop_due(u64::MAX).is_none());
    }

    #[test]
    fn removal_from_anywhere_and_shrinking() {
        let mut heap = Heap::default();
        let entries: Vec<_> = (0..10_000).map(|_| Arc::new(Entry::new())).collect();
        for (i, entry) in entries.iter().enumerate() {
            heap.put(entry, (i as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40);
        }
        check(&heap);
        for entry in entries
            .iter()
            .step_by(2)
            .chain(entries.iter().skip(1).step_by(2))
        {
            assert!(Arc::ptr_eq(&heap.remove(entry).unwrap(), entry));
            assert!(heap.remove(entry).is_none());
        }
        assert!(heap.slots.is_empty() && heap.slots.capacity() <= SMALL);
        assert!(entries.iter().all(|entry| Arc::strong_count(entry) == 1));
    }
}
