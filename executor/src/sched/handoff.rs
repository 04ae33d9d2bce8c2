//! Taking a P from an M that is stuck in a poll, and handing it to another.
//!
//! The protocol is in `ownership.rs`. Who decides *when* (sysmon) comes later; what is here is
//! complete and used by the stress tests.
//!
//! A P that is taken goes to another M at once and not to the idle list, since an idle P's queues
//! are empty and this one's are not: a parked M if there is one, otherwise a new one. If none can
//! be started, what is queued on the P goes to the global queue before the P goes to the idle list.

use std::sync::Arc;
use std::sync::PoisonError;

use super::idle::Wake;
use super::ownership::Observed;
use super::scheduler::Scheduler;

impl Scheduler {
    /// What the holder of a P is doing, to be compared with a later look: the same value again
    /// means that it is still in the same poll.
    pub(crate) fn observe(&self, p: u32) -> Option<Observed> {
        self.processors[p as usize].ownership.observe()
    }

    /// Takes the P from the M that was observed, if it is still in the same poll. True: another M
    /// has it now.
    pub(crate) fn retake(&self, p: u32, observed: Observed) -> bool {
        if self.config.flavor.is_current_thread() {
            // The only M there is.
            return false;
        }
        let processor = &self.processors[p as usize];
        let machine = {
            let machines = self.machines();
            Arc::clone(&machines.all[observed.machine() as usize])
        };
        {
            let _one_taker = self.takers.lock().unwrap_or_else(PoisonError::into_inner);
            if !processor.ownership.take(observed, &machine.mark) {
                return false;
            }
            // The taker is the holder now, and the only writer of the P's counters.
            processor.stats.retaken.add(1);
        }
        match self.idle.hand_over(p) {
            Wake::Start(p) => {
                if let Err(error) = self.start_machine(Some(p)) {
                    // SAFETY: the P is taken, and no M could be made to have it: its data is the
                    // taker's, this thread's.
                    let queued = unsafe { processor.local() }.drain(processor);
                    self.global.push(queued);
                    self.start_refused(p, &error);
                }
            }
            unpark => self.carry_out(unpark),
        }
        true
    }
}
