//! What each P and each M did: counters with one writer, read by anyone.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A counter that one thread at a time writes: no locked instruction. Relaxed, as it orders
/// nothing; the writers of a P's counters follow each other through `ownership.rs`.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    #[inline(always)]
    pub(crate) fn add(&self, count: u64) {
        self.0
            .store(self.0.load(Relaxed).wrapping_add(count), Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A P's counters, written by its holder.
#[derive(Debug, Default)]
pub(crate) struct ProcessorStats {
    /// Polls begun.
    pub(crate) polls: Counter,
    /// Tasks that came from `runnext`.
    pub(crate) from_runnext: Counter,
    /// Tasks taken from the global queue.
    pub(crate) from_global: Counter,
    /// Tasks stolen from other Ps.
    pub(crate) stolen: Counter,
    /// Tasks spilled to the global queue.
    pub(crate) spilled: Counter,
    /// Looks at the sockets without waiting.
    pub(crate) netpolls: Counter,
    /// Times that the P was taken from an M in the middle of a poll.
    pub(crate) retaken: Counter,
}

/// An M's counters, written by its thread.
#[derive(Debug, Default)]
pub(crate) struct MachineStats {
    pub(crate) polls: Counter,
    pub(crate) spawned: Counter,
    pub(crate) completed: Counter,
    /// Times that it went to sleep on its futex.
    pub(crate) parks: Counter,
    /// Times that it blocked in netpoll.
    pub(crate) netpoll_waits: Counter,
}
