//! The end of a runtime.
//!
//! 1. `close` sets `closed`: spawns now return a cancelled handle, and wakes that come too late
//!    drain the global queue themselves.
//! 2. Every M is woken. Each drops its place in the queues as soon as it is out of the poll it
//!    may be in, runs `on_thread_stop`, and ends.
//! 3. The first M to get there (one more is started if all are stuck in polls), and once more the last
//!    one, walk the registry: every task that nobody polls is cancelled, its future dropped there.
//!    (The second walk catches what the last polls spawned.) A current-thread runtime has no Ms: the thread that drops it does this.
//! 4. Queued blocking jobs are tasks too and cancelled with them; those that run are waited for,
//!    as [`Wait`] says.
//! 5. The last M closes netpoll and timers: leaf futures that outlive the runtime get an error.
//! 6. Whoever waits joins the threads. What does not end in time is left behind; its scheduler
//!    lives on by reference count.

use std::ptr::NonNull;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, fence};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::scheduler::Scheduler;
use crate::runtime::{Handle, context};
use crate::task;
use crate::wake_list::WakeList;

/// A poll that goes on for so long after the shutdown began is not about to end: Go's time slice
/// (`forcePreemptNS`).
const STUCK_AFTER: Duration = Duration::from_millis(10);

/// How long a shutdown waits for polls and blocking jobs that run.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wait {
    Forever,
    AtMost(Duration),
    Not,
}

/// How many Ms live, and how far the shutdown is.
#[derive(Debug)]
pub(crate) struct Life {
    state: Mutex<State>,
    changed: Condvar,
    /// Whether an M has begun the first walk over the registry.
    walked: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    machines: usize,
    /// `finish` has begun: no M lives, and none will.
    finishing: bool,
    finished: bool,
}

impl Life {
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::default(),
            changed: Condvar::new(),
            walked: AtomicBool::new(false),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// False: the runtime is past the point where an M could still be of use.
    #[must_use]
    pub(super) fn machine_starts(&self) -> bool {
        let mut state = self.state();
        if state.finishing {
            return false;
        }
        state.machines += 1;
        true
    }

    /// True: it was the last one.
    #[must_use]
    pub(super) fn machine_ended(&self) -> bool {
        let mut state = self.state();
        state.machines -= 1;
        state.machines == 0
    }

    pub(crate) fn machines(&self) -> usize {
        self.state().machines
    }

    /// Waits for `finish`; false if `wait` was over before.
    fn wait_finished(&self, deadline: Option<Instant>) -> bool {
        wait_while(&self.changed, self.state(), deadline, |state| {
            !state.finished
        })
    }
}

/// Waits while `condition` holds; false if `deadline` came first.
pub(crate) fn wait_while<T>(
    changed: &Condvar,
    mut state: MutexGuard<'_, T>,
    deadline: Option<Instant>,
    condition: impl Fn(&T) -> bool,
) -> bool {
    while condition(&state) {
        state = match deadline {
            None => changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            Some(deadline) => {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return false;
                }
                changed
                    .wait_timeout(state, left)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0
            }
        };
    }
    true
}

impl Scheduler {
    /// Shuts the runtime down. The caller is not one of its Ms unless `wait` is `Not`.
    pub(crate) fn shut_down(&self, wait: Wait) {
        let deadline = match wait {
            Wait::Forever => None,
            // A timeout that no clock can show is none.
            Wait::AtMost(timeout) => Instant::now().checked_add(timeout),
            Wait::Not => Some(Instant::now()),
        };
        self.close();
        let finished = match wait {
            Wait::Not => {
                self.help_cancelling();
                self.life.wait_finished(deadline)
            }
            Wait::Forever | Wait::AtMost(_) => {
                let stuck = Instant::now() + STUCK_AFTER;
                self.life
                    .wait_finished(Some(deadline.map_or(stuck, |at| at.min(stuck))))
                    || {
                        self.help_cancelling();
                        self.life.wait_finished(deadline)
                    }
            }
        };
        let blocking_ended = self.blocking.wait(deadline);
        if finished {
            let threads = std::mem::take(&mut self.machines().threads);
            // They are past their last line of gort's code, but for thread-local destructors.
            if !matches!(wait, Wait::Not) {
                for thread in threads {
                    // A panic has been reported by the hook on its own thread.
                    let _ = thread.join();
                }
            }
        }
        if blocking_ended && !matches!(wait, Wait::Not) {
            self.blocking.join();
        }
    }

    fn close(&self) {
        if self.closed.swap(true, SeqCst) {
            return;
        }
        fence(SeqCst);
        self.blocking.close();
        self.drain_global();
        for machine in self.machines().all.iter() {
            self.unpark(machine);
        }
        // Ms that are starting see `closed` before they park. With none at all (current-thread
        // flavor, or the last one ended meanwhile), this thread does the rest.
        if self.life.machines() == 0 {
            self.finish();
        }
    }

    /// If all Ms are in polls that do not end, starts one more, which sees to the other tasks.
    fn help_cancelling(&self) {
        let (spawned, completed) = self.task_counts();
        if spawned == completed || !self.idle.parked().is_empty() || self.life.machines() == 0 {
            return;
        }
        // If it cannot be started, the tasks have to wait for those polls.
        if let Err(error) = self.start_machine(None) {
            tracing::debug!(%error, "no thread to cancel tasks while all workers are busy");
        }
    }

    /// An M is about to end because of the shutdown: the first one walks the registry.
    pub(super) fn walk_once(&self) {
        // A service that has ended its tasks itself needs no walk. The counts may be a moment
        // old: what is missed here is for `finish`, which counts exactly.
        let (spawned, completed) = self.task_counts();
        if spawned != completed && !self.life.walked.swap(true, SeqCst) {
            task::shut_down_all(self);
        }
    }

    /// The last step, by the last M, or by the closing thread if there is none. Runs once.
    pub(super) fn finish(&self) {
        {
            let mut state = self.life.state();
            if state.finishing || state.machines != 0 {
                return;
            }
            state.finishing = true;
        }
        // Destructors may ask for the current runtime, as in tokio.
        let _context = context::enter(&Handle::new(self.arc()));
        let _no_blocking = context::forbid_blocking();
        let in_hand = self.retire_processors();
        if !self.has_no_cells(in_hand) {
            task::shut_down_all(self);
        }
        self.drain_global();
        let mut wakes = WakeList::new();
        self.netpoll.shutdown(&mut wakes);
        self.timers.shutdown(&mut wakes);
        wakes.wake_all();
        self.life.state().finished = true;
        self.life.changed.notify_all();
        // SAFETY: the runtime's own share and those of its Ps. The caller lives on an `Arc`.
        unsafe { Scheduler::release_shares(NonNull::from(self), 1 + in_hand) };
    }

    /// Empties the Ps for good, and returns the shares that they had in hand. For `finish` only.
    fn retire_processors(&self) -> usize {
        let mut shares = 0;
        for p in &self.processors {
            // SAFETY: no M is left and none can start (`finishing`), so nobody holds any P, and
            // `finish`, which runs once, is the only one here.
            let (queued, taken) = unsafe {
                let local = p.local();
                let queued = local.drain(p);
                local.cells.flush();
                (queued, std::mem::take(&mut local.shares))
            };
            shares += taken;
            // Runs user code, if it is a task's last reference.
            drop(queued);
        }
        shares
    }
}
