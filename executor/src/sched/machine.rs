//! The M as the others see it: the part of an OS thread's state that is shared.

use std::sync::Arc;
use std::sync::atomic::{
    AtomicI32, AtomicU32,
    Ordering::{Acquire, Relaxed, Release},
};

use super::idle::Parked;
use super::ownership::Mark;
use super::ring::Padded;
use super::stats::MachineStats;
use crate::os::parker::Parker;

const NO_P: u32 = u32::MAX;

/// See the module's doc. Its thread-local part is `worker::Worker`.
#[derive(Debug)]
pub(crate) struct Machine {
    /// The M's number in its runtime: the index in the scheduler's table, never used again.
    pub(crate) number: u32,
    pub(crate) mark: Padded<Mark>,
    pub(crate) parker: Parker,
    /// The P that has been handed to it. Release by the giver, Acquire by the M.
    assigned: AtomicU32,
    /// The kernel's thread id; 0 before it runs and after it ended.
    pub(crate) tid: AtomicI32,
    pub(crate) stats: MachineStats,
}

impl Machine {
    pub(crate) fn new(number: u32) -> Self {
        Self {
            number,
            mark: Padded(Mark::new()),
            parker: Parker::new(),
            assigned: AtomicU32::new(NO_P),
            tid: AtomicI32::new(0),
            stats: MachineStats::default(),
        }
    }

    /// The P that the M has been handed, if any; the M's own thread only.
    pub(crate) fn take_assigned(&self) -> Option<u32> {
        if self.assigned.load(Relaxed) == NO_P {
            return None;
        }
        // Acquire pairs with `assign`.
        Some(self.assigned.swap(NO_P, Acquire)).filter(|p| *p != NO_P)
    }

    /// Whether it has been handed a P that it has not taken yet; the M's own thread only.
    pub(crate) fn is_assigned(&self) -> bool {
        self.assigned.load(Relaxed) != NO_P
    }

    pub(crate) fn assign_p(&self, p: u32) {
        debug_assert_eq!(self.assigned.load(Relaxed), NO_P);
        self.assigned.store(p, Release);
    }
}

impl Parked for Arc<Machine> {
    fn assign(&self, p: u32) {
        self.assign_p(p);
    }

    fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(self, other)
    }
}
