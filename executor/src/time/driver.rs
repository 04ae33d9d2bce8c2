//! The timers of a runtime: one queue a P, and the word that says how long the poller sleeps.
//!
//! Deadlines are kept in nanoseconds since the runtime's start. A timer never fires early; how
//! late it fires is up to how often the Ps look and how finely the poller can sleep.
//!
//! # The sleeping M
//!
//! At most one M at a time blocks in netpoll. Before it does, it asks [`Timers::prepare_sleep`]
//! for how long, and afterwards it calls [`Timers::end_sleep`]. A timer that is armed for an
//! earlier moment, from any thread, must wake it. The two meet in Dekker's pattern:
//!
//! ```text
//!   the M that goes to sleep            a thread that arms a timer
//!   sleep_until := FOREVER              queue.next := deadline
//!   fence                               fence
//!   read every queue.next               read sleep_until
//!   sleep_until := the least of them    deadline < sleep_until: take it back to AWAKE and unpark
//! ```
//!
//! Between the two SeqCst fences one of the two reads sees the other side's store: either the M
//! counts the new deadline in, or the arming thread sees that somebody sleeps too long. The
//! accesses themselves can be Relaxed. The M's last step, which only spares needless wake-ups, is
//! a compare-exchange from FOREVER: it must not cover up an AWAKE. The arming thread that moves
//! the word to AWAKE is the one that calls the hook, so that a burst of early timers costs one
//! wake-up. Only a timer that is now the first of its queue needs the right-hand side: before any
//! other there is one that did it.
//!
//! The hook must be *latched*, as an eventfd is: called before the M blocks, it keeps the M from
//! blocking.
//!
//! The loom models (`driver/models.rs`) check this, and firing against polling, cancelling and
//! shutdown.

use super::Instant;
use super::error::Error;
use super::queue::{Entry, NEVER, TimerQueue};
use crate::facade::sync::atomic::{AtomicU64, Ordering, fence};
use crate::wake_list::WakeList;
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// `sleep_until` while no M sleeps: no deadline is earlier than this.
const AWAKE: u64 = 0;
/// `sleep_until` while the M that sleeps has no timer to wait for: every deadline is earlier.
const FOREVER: u64 = NEVER;

/// The timers of one runtime.
pub(crate) struct Timers {
    /// Time zero of all deadlines.
    start: Instant,
    queues: Box<[TimerQueue]>,
    /// Until when the M in netpoll sleeps, or `AWAKE`, or `FOREVER`.
    sleep_until: AtomicU64,
    /// Ends the sleep of the M in netpoll.
    unpark: Box<dyn Fn() + Send + Sync>,
}

impl Timers {
    /// `queues` timer queues (at least one), one a P. `unpark` ends the sleep that an M announces
    /// with [`prepare_sleep`](Self::prepare_sleep); it is called without locks, on any thread, and
    /// is latched (see the module).
    pub(crate) fn new(queues: usize, unpark: Box<dyn Fn() + Send + Sync>) -> Self {
        assert!(queues > 0, "a runtime has at least one timer queue");
        Self {
            start: Instant::now(),
            queues: (0..queues).map(|_| TimerQueue::new()).collect(),
            sleep_until: AtomicU64::new(AWAKE),
            unpark,
        }
    }

    /// The number of queues.
    pub(crate) fn queues(&self) -> usize {
        self.queues.len()
    }

    /// Fires what is due in one queue, with the wakers appended to `out` for the caller to wake
    /// when it holds no lock. Returns how many timers fired. One load if none is due; any thread
    /// may look into any queue.
    pub(crate) fn expire(&self, queue: usize, now: Instant, out: &mut WakeList) -> usize {
        self.queues[queue].expire(self.nanos(now), out)
    }

    /// The earliest deadline of all queues.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        match self.earliest() {
            NEVER => None,
            nanos => Some(self.start + Duration::from_nanos(nanos)),
        }
    }

    /// Announces that the calling M is about to block in netpoll and returns for how long it may:
    /// `None` means until something else wakes it. From here to [`end_sleep`](Self::end_sleep), a
    /// timer that is armed for an earlier moment calls the hook.
    ///
    /// For one M at a time: the one that owns netpoll.
    pub(crate) fn prepare_sleep(&self) -> Option<Duration> {
        self.prepare_sleep_at(Instant::now)
    }

    fn prepare_sleep_at(&self, now: impl FnOnce() -> Instant) -> Option<Duration> {
        // Relaxed, with the fence: the sleeper's half of the module's pattern.
        self.sleep_until.store(FOREVER, Ordering::Relaxed);
        // Pairs with the fence in `unpark_before`.
        fence(Ordering::SeqCst);
        let earliest = self.earliest();
        // Relaxed: the word carries nothing but itself. Failure means that a timer was armed
        // meanwhile and the hook has been called or is about to be: netpoll returns at once, so it
        // does not matter that `earliest` may lack that timer.
        let _ = self.sleep_until.compare_exchange(
            FOREVER,
            earliest,
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
        match earliest {
            NEVER => None,
            nanos => Some(Duration::from_nanos(
                nanos.saturating_sub(self.nanos(now())),
            )),
        }
    }

    /// The M that announced its sleep is back.
    pub(crate) fn end_sleep(&self) {
        // Relaxed: whoever reads the old value unparks an M that is awake, which costs a system
        // call and nothing else.
        self.sleep_until.store(AWAKE, Ordering::Relaxed);
    }

    /// Ends the service: sleeps that wait, and all later ones, fail instead of waiting for ever.
    /// The wakers of those that wait go to `out`.
    pub(crate) fn shutdown(&self, out: &mut WakeList) {
        for queue in &self.queues {
            queue.close(out);
        }
    }

    fn earliest(&self) -> u64 {
        let nexts = self.queues.iter().map(TimerQueue::next);
        nexts.min().expect("there is at least one queue")
    }

    /// `instant` as a deadline: what lies before the start is zero, and what does not fit (some 584
    /// years later) is the last deadline there is.
    fn nanos(&self, instant: Instant) -> u64 {
        let nanos = instant.saturating_duration_since(self.start).as_nanos();
        u64::try_from(nanos).map_or(NEVER - 1, |nanos| nanos.min(NEVER - 1))
    }

    fn arm(&self, queue: usize, entry: &Arc<Entry>, deadline: Instant) {
        let deadline = self.nanos(deadline);
        if self.queues[queue].arm(entry, deadline) {
            self.unpark_before(deadline);
        }
    }

    /// Wakes the M in netpoll if it would sleep past `deadline`.
    fn unpark_before(&self, deadline: u64) {
        // Between the store in `TimerQueue::arm` and the load below: the arming half of the
        // module's pattern. Pairs with the fence in `prepare_sleep_at`.
        fence(Ordering::SeqCst);
        // Relaxed here and in the claim: the word carries nothing but itself.
        let mut until = self.sleep_until.load(Ordering::Relaxed);
        while deadline < until {
            let claim = self.sleep_until.compare_exchange_weak(
                until,
                AWAKE,
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
            match claim {
                Ok(_) => return (self.unpark)(),
                Err(now) => until = now,
            }
        }
    }
}

impl fmt::Debug for Timers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timers")
            .field("queues", &self.queues.len())
            .field("next_deadline", &self.next_deadline())
            .finish_non_exhaustive()
    }
}

/// A sleep's side: it owns at most one entry and takes it out of the queue when it is dropped.
#[derive(Debug)]
pub(super) struct Timer {
    timers: Arc<Timers>,
    queue: usize,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    /// Not armed: never polled, or disarmed.
    Idle,
    /// In the queue, or fired from it since the last look.
    Armed(Arc<Entry>),
    /// Over. Polls are ready until the next reset.
    Elapsed,
}

impl Timer {
    pub(super) fn new(timers: Arc<Timers>, queue: usize) -> Self {
        Self {
            timers,
            queue,
            phase: Phase::Idle,
        }
    }

    /// Arms the timer for `deadline` if it is not armed, and says whether it has fired.
    pub(super) fn poll(
        &mut self,
        deadline: Instant,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Error>> {
        if matches!(self.phase, Phase::Idle) {
            self.reset(deadline, Instant::now());
        }
        let Phase::Armed(entry) = &self.phase else {
            return Poll::Ready(Ok(()));
        };
        let result = entry.poll(cx);
        if matches!(result, Poll::Ready(Ok(()))) {
            self.phase = Phase::Elapsed;
        }
        result
    }

    /// Arms the timer for `deadline`, whatever it did before. A task that waits for it is woken if
    /// the deadline is not after `now`, and keeps waiting otherwise.
    pub(super) fn reset(&mut self, deadline: Instant, now: Instant) {
        if deadline <= now {
            if let Phase::Armed(entry) = std::mem::replace(&mut self.phase, Phase::Elapsed) {
                if let Some(waker) = self.timers.queues[self.queue].complete(&entry) {
                    waker.wake();
                }
            }
            return;
        }
        if !matches!(self.phase, Phase::Armed(_)) {
            self.phase = Phase::Armed(Arc::new(Entry::new()));
        }
        if let Phase::Armed(entry) = &self.phase {
            self.timers.arm(self.queue, entry, deadline);
        }
    }

    /// Takes the timer back to where it was before the first poll.
    pub(super) fn disarm(&mut self) {
        if let Phase::Armed(entry) = std::mem::replace(&mut self.phase, Phase::Idle) {
            self.timers.queues[self.queue].cancel(&entry);
        }
    }

    pub(super) fn is_elapsed(&self) -> bool {
        match &self.phase {
            Phase::Idle => false,
            Phase::Armed(entry) => entry.has_fired(),
            Phase::Elapsed => true,
        }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.disarm();
    }
}

#[cfg(all(test, loom))]
mod models;
#[cfg(all(test, not(loom)))]
pub(super) mod rig;
#[cfg(all(test, not(loom)))]
mod stress;
#[cfg(all(test, not(loom)))]
mod tests;
