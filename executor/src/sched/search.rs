//! How an M that holds a P looks for a task, in Go's order (`findRunnable`).
//!
//! 1. Every `event_interval` rounds: timers and sockets, without waiting; then those that yielded.
//! 2. Every `global_queue_interval` rounds: one task of the global queue.
//! 3. `runnext`, then the ring.
//! 4. A share of the global queue.
//! 5. Those that yielded, after timers and sockets.
//! 6. Other Ps: their rings, and in the last pass `runnext`, if not too many Ms search already.
//! 7. The global queue again.
//!
//! Nothing found, the M gives its P up and parks (`park.rs`), which looks at all queues once more.

use std::time::{Duration, Instant};

use super::processor::Processor;
use super::worker::{Held, Worker};
use crate::task::Runnable;
use crate::wake_list::WakeList;

/// What a search found.
pub(super) enum Found<'a> {
    Task(Held<'a>, Runnable),
    Nothing(Held<'a>),
    /// The P was taken while wakers ran.
    Lost,
}

impl Worker {
    /// Looks for a task where one may be, in Go's order: every so often the global queue, then
    /// `runnext` and the ring, then elsewhere.
    pub(super) fn find<'a>(&'a self, mut held: Held<'a>) -> Found<'a> {
        let scheduler = &*self.scheduler;
        let local = held.local();
        local.until_events -= 1;
        if local.until_events == 0 {
            local.until_events = scheduler.config.event_interval;
            match self.poll_events(held) {
                Some(again) => held = again,
                None => return Found::Lost,
            }
            // A busy ring must not keep those that yielded from their turn.
            self.undefer(&mut held);
        }
        let local = held.local();
        local.until_global -= 1;
        if local.until_global == 0 {
            local.until_global = scheduler.config.global_queue_interval;
            if let Some(task) = scheduler.global.pop_one() {
                held.p.stats.from_global.add(1);
                // The rest of a chain was in nobody's sight for a moment.
                self.owes_notify.set(!scheduler.global.is_empty());
                return Found::Task(held, task);
            }
        }
        let p = held.p;
        if let Some(task) = held.local().pop(p) {
            return Found::Task(held, task);
        }
        self.find_elsewhere(held)
    }

    /// The P's own queue is empty.
    fn find_elsewhere<'a>(&'a self, mut held: Held<'a>) -> Found<'a> {
        if let Some(task) = self.take_global(&mut held) {
            return Found::Task(held, task);
        }
        if !held.local().deferred.is_empty() {
            // Who yields lets sockets and timers go first.
            match self.poll_events(held) {
                Some(again) => held = again,
                None => return Found::Lost,
            }
            self.undefer(&mut held);
            let p = held.p;
            if let Some(task) = held.local().pop(p) {
                return Found::Task(held, task);
            }
        }
        if let Some(task) = self.steal(&mut held) {
            return Found::Task(held, task);
        }
        match self.take_global(&mut held) {
            Some(task) => Found::Task(held, task),
            None => Found::Nothing(held),
        }
    }

    /// Puts the tasks that yielded behind the others, where thieves find them.
    fn undefer(&self, held: &mut Held<'_>) {
        let any = held.with_spill(|local, p, spill| local.undefer(p, spill));
        if any && held.p.ring.len() > 1 {
            self.owes_notify.set(true);
        }
    }

    /// Takes a fair share of the global queue: one task to run, the others into the ring.
    fn take_global(&self, held: &mut Held<'_>) -> Option<Runnable> {
        let scheduler = &*self.scheduler;
        if scheduler.global.is_empty() {
            return None;
        }
        // Go's and tokio's share.
        let share = (scheduler.global.len() / scheduler.processors.len() + 1).min(128);
        let mut first = None;
        let mut taken = 0;
        while taken < share {
            let Some(mut chain) = scheduler.global.pop() else {
                break;
            };
            taken += chain.len();
            if first.is_none() {
                first = chain.pop();
            }
            while held.p.ring.free() != 0 {
                let Some(task) = chain.pop() else { break };
                held.with_spill(|local, p, spill| {
                    let _ = local.push_back(p, task, spill);
                });
            }
            if !chain.is_empty() {
                taken -= chain.len();
                scheduler.global.push(chain);
                break;
            }
        }
        held.p.stats.from_global.add(taken as u64);
        if taken > 1 {
            // What is in the ring now was in nobody's sight for a moment: an M that looked
            // meanwhile has gone to sleep.
            self.owes_notify.set(true);
        }
        first
    }

    /// Steals from the other Ps, in a random order, in four passes: ring, ring, ring, and on the
    /// last one `runnext` too (Go's `stealWork`).
    fn steal(&self, held: &mut Held<'_>) -> Option<Runnable> {
        let processors = &self.scheduler.processors;
        if processors.len() == 1 || (!self.spinning.get() && !self.scheduler.idle.start_spinning())
        {
            return None;
        }
        self.spinning.set(true);
        for pass in 0..4 {
            let random = held.local().rng.next();
            for victim in self.scheduler.steal_order.visit(random) {
                if victim == held.p.index {
                    continue;
                }
                let victim = &processors[victim as usize];
                let task = victim.ring.steal_into(&held.p.ring).or_else(|| {
                    if pass == 3 {
                        steal_runnext(victim)
                    } else {
                        None
                    }
                });
                if let Some(task) = task {
                    held.p.stats.stolen.add(1 + held.p.ring.len() as u64);
                    // SAFETY: a ring or `runnext` holds `Runnable`s, and this one was handed out.
                    return Some(unsafe { Runnable::from_raw(task) });
                }
            }
        }
        None
    }

    /// Looks at timers and sockets without waiting, and wakes what is due. `None`: the P was taken
    /// while the wakers ran.
    fn poll_events<'a>(&'a self, held: Held<'a>) -> Option<Held<'a>> {
        let scheduler = &*self.scheduler;
        let mut wakes = self.wakes.take();
        if !scheduler.netpoll.is_empty() {
            if let Some(mut poller) = scheduler.netpoll.try_lock() {
                held.p.stats.netpolls.add(1);
                scheduler.poll_netpoll(&mut poller, Some(Duration::ZERO), &mut wakes);
            }
        }
        scheduler.expire_timers(&mut wakes);
        if wakes.is_empty() {
            self.wakes.replace(wakes);
            return Some(held);
        }
        held.leave();
        self.wake_all(wakes);
        if self
            .p_hint()
            .is_none_or(|p| !self.scheduler.processors[p as usize].ring.is_empty())
        {
            self.scheduler.notify();
        }
        self.enter()
    }

    /// Wakes what netpoll or timers gathered, as one batch; the caller sees to the wake-up of
    /// others. Mark down.
    pub(super) fn wake_all(&self, mut wakes: WakeList) {
        self.batch.set(true);
        wakes.wake_all();
        self.batch.set(false);
        self.wakes.replace(wakes);
    }
}

/// A thief on its last pass leaves the holder some time to run the task itself, which it does
/// unless it sits in a long poll (Go sleeps for 3 µs here).
fn steal_runnext(victim: &Processor) -> Option<std::ptr::NonNull<crate::task::Header>> {
    let seen = victim.runnext.peek();
    if seen.is_null() {
        return None;
    }
    let tick = victim.ownership.tick();
    let until = Instant::now() + Duration::from_micros(3);
    while Instant::now() < until {
        std::hint::spin_loop();
    }
    if victim.ownership.tick() != tick {
        return None;
    }
    victim.runnext.take_if(seen)
}
