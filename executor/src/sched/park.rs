//! How an M without work parks: on its futex, or in netpoll if nobody is there.
//!
//! From `Idle::park` until it is handed a P, or takes itself off, the M is on the idle list; it
//! stays there through wake-ups that turn out to be about nothing, so that whoever wants an M sees
//! it and starts no new one.
//!
//! ```text
//!   list ─▶ look again ─▶ block ─▶ handed a P, or took an idle one for the work it saw ─▶ run
//!               ▲            │
//!               └────────────┘ nothing for it
//! ```

use super::idle::TakeP;
use super::worker::{Main, Worker};
use crate::netpoll::Poller;

/// How a park ended.
#[must_use]
pub(super) enum Parked {
    /// There may be something to do: off the list, perhaps with a P.
    Again,
    /// The M has been idle for too long and is not needed: off the list, it must end.
    Ends,
}

impl Worker {
    /// Puts the P, if there is one, and this M on the idle lists, looks at everything once more,
    /// and blocks until there is something to do.
    pub(super) fn park(&self, p: Option<u32>, main: &impl Main) -> Parked {
        let spinning = self.spinning.replace(false);
        let surplus = self.scheduler.idle.park(&self.machine, p, spinning);
        self.block(surplus, main)
    }

    /// The same for an M that is on the list already, one of `surplus` that are not needed.
    pub(super) fn block(&self, surplus: usize, main: &impl Main) -> Parked {
        let scheduler = &*self.scheduler;
        // A thread in `block_on` stays until its future is done, needed or not.
        let may_end = surplus > 0 && !scheduler.config.flavor.is_current_thread();
        let keep_alive = may_end.then_some(scheduler.config.thread_keep_alive);
        loop {
            if scheduler.is_closed() || main.is_woken() {
                // False: it has been handed a P meanwhile, which `run` finds.
                let _removed = scheduler.idle.remove(&self.machine, false);
                return Parked::Again;
            }
            // Work is for an M that can get a P: without an idle one, those who hold the Ps will
            // see to it.
            if scheduler.has_work() {
                match scheduler.idle.take_p(&self.machine) {
                    TakeP::Taken(p) => {
                        self.machine.assign_p(p);
                        return Parked::Again;
                    }
                    TakeP::Assigned => return Parked::Again,
                    TakeP::NoneIdle => {}
                }
            }
            scheduler.config.hooks.parked();
            let (mut listed, mut timed_out) = (true, false);
            match scheduler.netpoll.try_lock() {
                Some(poller) => listed = self.block_in_netpoll(poller),
                None => {
                    self.machine.stats.parks.add(1);
                    timed_out = !self.machine.parker.park(keep_alive);
                }
            }
            scheduler.config.hooks.unparked();
            // With a P for netpoll's events (which may have been taken again meanwhile), or
            // handed one.
            if !listed || self.machine.is_assigned() {
                return Parked::Again;
            }
            if timed_out && scheduler.idle.remove(&self.machine, true) {
                return Parked::Ends;
            }
        }
    }

    /// Blocks in netpoll until a socket is ready, the next timer is due, or somebody unparks this
    /// M; then wakes what is due, onto an idle P if there is one. False: the M is off the idle
    /// list, with that P or the one that it was handed.
    fn block_in_netpoll(&self, mut poller: Poller<'_>) -> bool {
        let scheduler = &*self.scheduler;
        if !self.machine.parker.begin_elsewhere() {
            return true;
        }
        self.machine.stats.netpoll_waits.add(1);
        let mut wakes = self.wakes.take();
        let timeout = scheduler.timers.prepare_sleep();
        scheduler.poll_netpoll(&mut poller, timeout, &mut wakes);
        scheduler.timers.end_sleep();
        drop(poller);
        self.machine.parker.end_elsewhere();
        scheduler.expire_timers(&mut wakes);
        if wakes.is_empty() {
            self.wakes.replace(wakes);
            return true;
        }
        let taken = match scheduler.idle.take_p(&self.machine) {
            TakeP::Taken(p) => Some(p),
            TakeP::Assigned => self.machine.take_assigned(),
            TakeP::NoneIdle => None,
        };
        if let Some(p) = taken {
            // `run` goes on with the P, unless it is taken while the wakers run.
            self.acquire(p).leave();
            // The wakers are user code and may take their time: meanwhile this M looks for
            // nothing, and must not keep others from it.
            self.stop_spinning();
        }
        self.wake_all(wakes);
        // One of the tasks is for this M.
        if taken.is_none_or(|p| scheduler.processors[p as usize].ring.len() > 1) {
            scheduler.notify();
        }
        taken.is_none()
    }
}
