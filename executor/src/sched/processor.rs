//! The P: the right to run tasks, with the queues and caches that go with it.

use std::collections::VecDeque;
use std::ptr::NonNull;

use super::ownership::Ownership;
use super::ring::{Padded, Ring};
use super::runnext::RunNext;
use super::stats::ProcessorStats;
use crate::facade::UnsafeCell;
use crate::runtime::histogram::Histogram;
use crate::task::{Cache, Chain, Header, IdRange, Runnable};

/// At most so many tasks in a row come from `runnext`, so that two tasks that wake each other
/// cannot starve the ring. tokio's cap (its #5712); Go bounds the time instead.
const RUNNEXT_STREAK: u32 = 3;

/// Of the transitions to runnable, every 8th is timed, as Go's `gTrackingPeriod`.
const LATENCY_PERIOD: u32 = 8;

/// See the module's doc. Anyone may steal from the queues; `local` and the producer's end of the
/// ring are the holder's.
#[derive(Debug)]
pub(crate) struct Processor {
    pub(crate) index: u32,
    pub(crate) ownership: Padded<Ownership>,
    pub(crate) ring: Ring<Header>,
    pub(crate) runnext: Padded<RunNext<Header>>,
    local: UnsafeCell<Local>,
    pub(crate) stats: Padded<ProcessorStats>,
    /// How long tasks sat in a queue before this P ran them.
    pub(crate) latency: Histogram,
}

// SAFETY: `local` is reached only through `Held` (worker.rs), which exists for one thread at a
// time by the protocol of `ownership.rs`; the rest is atomic. What the queues hold are
// `Runnable`s, which may go to any thread.
unsafe impl Sync for Processor {}
// SAFETY: as above.
unsafe impl Send for Processor {}

/// What only the holder touches.
#[derive(Debug)]
pub(crate) struct Local {
    /// Scheduling rounds left until the next look at sockets and timers, and until the next one
    /// at the global queue. (Counted down: a division in every round would cost more than the
    /// rest of it.)
    pub(crate) until_events: u32,
    pub(crate) until_global: u32,
    runnext_streak: u32,
    latency_tick: u32,
    pub(crate) rng: Rng,
    /// Tasks that yielded; moved to the ring's tail after a look at everything else.
    pub(crate) deferred: VecDeque<Runnable>,
    /// A current-thread runtime's queue instead of `runnext` and ring: strictly first in, first
    /// out and unbounded, as tokio's, whose order its users' tests rely on.
    fifo: Option<VecDeque<Runnable>>,
    pub(crate) cells: Cache,
    pub(crate) ids: IdRange,
    /// Shares in the scheduler's life, taken in advance (`Scheduler::shares`).
    pub(crate) shares: usize,
}

/// Marsaglia's xorshift32: the order of victims needs no quality, only speed.
#[derive(Debug)]
pub(crate) struct Rng(u32);

impl Rng {
    pub(crate) fn new(seed: u32) -> Self {
        Self(seed | 1)
    }

    pub(crate) fn next(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0
    }
}

/// Where a task goes, and whether others must be told.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Pushed {
    /// The task took the empty `runnext`: it runs next here, so nobody is woken for it.
    Next,
    /// Something is in the ring, or the global queue, that another P could run.
    Shared,
}

impl Processor {
    pub(crate) fn new(index: u32, fifo: bool, seed: u32) -> Self {
        Self {
            index,
            ownership: Padded(Ownership::new()),
            ring: Ring::new(),
            runnext: Padded(RunNext::new()),
            local: UnsafeCell::new(Local {
                until_events: 1,
                until_global: 1,
                runnext_streak: 0,
                latency_tick: 0,
                rng: Rng::new(seed.wrapping_mul(0x9E37_79B9).wrapping_add(index)),
                deferred: VecDeque::new(),
                fifo: fifo.then(VecDeque::new),
                cells: Cache::new(),
                ids: IdRange::new(),
                shares: 0,
            }),
            stats: Padded::default(),
            latency: Histogram::new(),
        }
    }

    /// The holder's data.
    ///
    /// # Safety
    /// The caller holds the P with its mark up, keeps no other borrow of `local`, and lets this
    /// one end before it lowers the mark or calls user code.
    #[allow(clippy::mut_from_ref, reason = "exclusive by the ownership protocol")]
    #[inline(always)]
    pub(crate) unsafe fn local(&self) -> &mut Local {
        // SAFETY: by contract nobody else touches it.
        self.local.with_mut(|local| unsafe { &mut *local })
    }

    /// Whether a thief would find something at once. Not `runnext`, which is not announced to
    /// others either (`runnext.rs`): two tasks that wake each other would keep a second M looking.
    pub(crate) fn has_work(&self) -> bool {
        !self.ring.is_empty()
    }
}

impl Local {
    /// Whether this transition to runnable is one of those that are timed.
    #[inline]
    pub(crate) fn samples_latency(&mut self) -> bool {
        self.latency_tick = self.latency_tick.wrapping_add(1);
        self.latency_tick % LATENCY_PERIOD == 0
    }

    /// Puts a task where it runs next.
    #[inline]
    pub(crate) fn push_next(
        &mut self,
        p: &Processor,
        task: Runnable,
        global: &mut Chain,
    ) -> Pushed {
        if let Some(fifo) = &mut self.fifo {
            fifo.push_back(task);
            return Pushed::Next;
        }
        match p.runnext.put(task.into_raw()) {
            None => Pushed::Next,
            Some(displaced) => {
                self.push_ring(p, displaced, global);
                Pushed::Shared
            }
        }
    }

    /// Puts a task behind the others.
    pub(crate) fn push_back(
        &mut self,
        p: &Processor,
        task: Runnable,
        global: &mut Chain,
    ) -> Pushed {
        if let Some(fifo) = &mut self.fifo {
            fifo.push_back(task);
            return Pushed::Next;
        }
        self.push_ring(p, task.into_raw(), global);
        Pushed::Shared
    }

    /// Pushes to the ring; if it is full, half of it and the task end up in `global`.
    fn push_ring(&mut self, p: &Processor, mut task: NonNull<Header>, global: &mut Chain) {
        while let Err(back) = p.ring.push(task) {
            task = back;
            // None: a thief has made room.
            if let Some(half) = p.ring.spill() {
                // SAFETY: the ring held the tasks' `Runnable`s and has handed them out.
                half.into_iter()
                    .flatten()
                    .for_each(|task| global.push(unsafe { Runnable::from_raw(task) }));
                // SAFETY: it came from `into_raw` and is in no queue.
                global.push(unsafe { Runnable::from_raw(task) });
                p.stats.spilled.add(half.len() as u64 + 1);
                return;
            }
        }
    }

    /// The next task of this P's own.
    #[inline]
    pub(crate) fn pop(&mut self, p: &Processor) -> Option<Runnable> {
        if let Some(fifo) = &mut self.fifo {
            return fifo.pop_front();
        }
        if let Some(next) = p.runnext.take() {
            if self.runnext_streak < RUNNEXT_STREAK {
                self.runnext_streak += 1;
                p.stats.from_runnext.add(1);
                // SAFETY: whatever is in the slot is a `Runnable` that was put there.
                return Some(unsafe { Runnable::from_raw(next) });
            }
            // Its turn comes after the ring's. If the ring is full, the slot takes it back.
            if p.ring.push(next).is_err() {
                let displaced = p.runnext.put(next);
                debug_assert!(displaced.is_none(), "only the holder puts");
            }
        }
        self.runnext_streak = 0;
        // SAFETY: as above, for the ring.
        p.ring.pop().map(|task| unsafe { Runnable::from_raw(task) })
    }

    /// Moves tasks that yielded behind the others, oldest first, as many as the ring has room for;
    /// the rest keep their turn for the next time. True if there were any.
    pub(crate) fn undefer(&mut self, p: &Processor, global: &mut Chain) -> bool {
        let room = if self.fifo.is_some() {
            usize::MAX
        } else {
            p.ring.free()
        };
        let count = self.deferred.len().min(room);
        for _ in 0..count {
            let Some(task) = self.deferred.pop_front() else {
                break;
            };
            let _ = self.push_back(p, task, global);
        }
        count != 0
    }

    /// Empties every queue of the P, for shutdown.
    pub(crate) fn drain(&mut self, p: &Processor) -> Chain {
        let mut all = Chain::default();
        while let Some(task) = self.pop(p) {
            all.push(task);
        }
        self.deferred.drain(..).for_each(|task| all.push(task));
        all
    }
}
