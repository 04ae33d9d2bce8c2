//! Idle Ps, parked Ms, spinning Ms, and the protocol that wakes neither too few nor too many.
//!
//! After Go's `wakep`/`findRunnable`: work may only be found late, never lost, and a wake-up
//! starts an M only if no other is already looking.
//!
//! # The pieces
//!
//! * An M *spins* while it holds a P but has no work and looks for some.
//! * `counts` packs the number of spinning Ms and of idle Ps into one word.
//! * `lists` (a lock) holds the idle Ps and the parked Ms, LIFO: the one parked last is warmest.
//!   An M is on the list exactly while nobody has handed it a P since it parked.
//!
//! # The protocol
//!
//! ```text
//!   queue work:  push task;         SeqCst fence*;  read counts: idle P and no spinner → wake one
//!   park:        P to idle, spinner out (one SeqCst RMW);  fence;  look at every queue once more
//!   stop to spin (work found):  spinner out (SeqCst RMW);  fence;  anything else queued → wake one
//! ```
//!
//! Either the pusher sees the idle P, or the parking M sees the task: store and load of each side
//! have a SeqCst fence between them (\* or are SeqCst themselves, see `runnext.rs`). A pusher that
//! stays quiet because of a spinner relies on it: a spinner always ends by one of the last two
//! lines, both of which look again after the count has gone down.
//!
//! # Lock order
//!
//! `lists` is a leaf: nothing is called while it is held. The parked M is unparked after.

use crate::facade::sync::Mutex;
use crate::facade::sync::atomic::{
    AtomicU64,
    Ordering::{Relaxed, SeqCst},
    fence,
};

const SPINNING_ONE: u64 = 1 << 32;
const IDLE_MASK: u64 = SPINNING_ONE - 1;

/// See the module's doc. `M` names a machine.
#[derive(Debug)]
pub(crate) struct Idle<M> {
    counts: AtomicU64,
    processors: u32,
    lists: Mutex<Lists<M>>,
}

#[derive(Debug)]
struct Lists<M> {
    ps: Vec<u32>,
    ms: Vec<M>,
}

/// A machine that the idle lists can hold.
pub(crate) trait Parked: Clone {
    /// Hands a P over; called under the lock, before the machine is unparked.
    fn assign(&self, p: u32);
    /// Whether it is the same machine.
    fn is(&self, other: &Self) -> bool;
}

/// A P on its way to an M that will spin; the count includes it.
#[must_use]
#[derive(Debug)]
pub(crate) enum Wake<M> {
    /// The P has been assigned: unpark this machine.
    Unpark(M),
    /// No machine is parked: start one with this P, or give it back by [`Idle::cancel_start`].
    Start(u32),
}

/// A parked machine's attempt to get a P by itself.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum TakeP {
    /// Taken: the machine is off the list, and counts as spinning.
    Taken(u32),
    /// Somebody has handed the machine a P: it is in its hands, and it counts as spinning.
    Assigned,
    /// No P is idle; the machine stays on the list.
    NoneIdle,
}

fn idle(counts: u64) -> u64 {
    counts & IDLE_MASK
}

fn spinning(counts: u64) -> u64 {
    counts >> 32
}

impl<M: Parked> Idle<M> {
    /// All Ps are idle, no M exists.
    pub(crate) fn new(processors: u32) -> Self {
        Self {
            counts: AtomicU64::new(processors.into()),
            processors,
            // The P with the lowest number is taken first.
            lists: Mutex::new(Lists {
                ps: (0..processors).rev().collect(),
                ms: Vec::new(),
            }),
        }
    }

    fn lists(&self) -> impl std::ops::DerefMut<Target = Lists<M>> + '_ {
        self.lists
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// After a push: whether somebody must be woken. The push must be a SeqCst operation, or be
    /// followed by a SeqCst fence.
    #[inline]
    pub(crate) fn wants_wake(&self) -> bool {
        let counts = self.counts.load(SeqCst);
        idle(counts) != 0 && spinning(counts) == 0
    }

    /// Claims the right to wake one M and finds it a P. `None`: another did, or no P is idle.
    pub(crate) fn wake_one(&self, may_start: bool) -> Option<Wake<M>> {
        let mut counts = self.counts.load(SeqCst);
        loop {
            if idle(counts) == 0 || spinning(counts) != 0 {
                return None;
            }
            match self
                .counts
                .compare_exchange(counts, counts + SPINNING_ONE, SeqCst, SeqCst)
            {
                Ok(_) => break,
                Err(actual) => counts = actual,
            }
        }
        let mut lists = self.lists();
        let machine = lists.ms.last().cloned();
        let p = if machine.is_some() || may_start {
            lists.ps.pop()
        } else {
            None
        };
        let Some(p) = p else {
            // Every idle P was taken between the claim and the lock, by Ms that count as spinning
            // since and look at the queues before they stop; or nobody is there to be woken, and
            // whoever comes looks first. So a pusher that relied on this claim relies on them.
            // Under the lock, so that no P becomes idle before the claim is withdrawn.
            self.counts.fetch_sub(SPINNING_ONE, SeqCst);
            return None;
        };
        self.counts.fetch_sub(1, SeqCst);
        Some(match machine {
            Some(machine) => {
                lists.ms.pop();
                machine.assign(p);
                Wake::Unpark(machine)
            }
            None => Wake::Start(p),
        })
    }

    /// A P with work in its queues, taken from its M, goes to another. May be one spinner more
    /// than the protocol would start; it looks again before it stops, like any other.
    pub(crate) fn hand_over(&self, p: u32) -> Wake<M> {
        let mut lists = self.lists();
        self.counts.fetch_add(SPINNING_ONE, SeqCst);
        match lists.ms.pop() {
            Some(machine) => {
                machine.assign(p);
                Wake::Unpark(machine)
            }
            None => Wake::Start(p),
        }
    }

    /// The machine for a `Wake::Start` could not be made: the P is idle again.
    pub(crate) fn cancel_start(&self, p: u32) {
        let mut lists = self.lists();
        lists.ps.push(p);
        self.counts.fetch_add(1, SeqCst);
        self.counts.fetch_sub(SPINNING_ONE, SeqCst);
    }

    /// Puts a machine on the list and, if it has one, its P too; `spinning` says whether it
    /// counted as such. Returns how many parked Ms there are beyond the idle Ps. After it the
    /// caller must look at every queue once more (the fence is in here).
    pub(crate) fn park(&self, machine: &M, p: Option<u32>, spinning: bool) -> usize {
        let mut lists = self.lists();
        lists.ms.push(machine.clone());
        if let Some(p) = p {
            lists.ps.push(p);
            self.counts.fetch_add(1, SeqCst);
        }
        if spinning {
            self.counts.fetch_sub(SPINNING_ONE, SeqCst);
        }
        let surplus = lists.ms.len().saturating_sub(lists.ps.len());
        drop(lists);
        fence(SeqCst);
        surplus
    }

    /// A parked machine has seen work, or has wakers to wake: it wants a P.
    pub(crate) fn take_p(&self, machine: &M) -> TakeP {
        let mut lists = self.lists();
        let Some(position) = lists.ms.iter().rposition(|other| other.is(machine)) else {
            return TakeP::Assigned;
        };
        let Some(p) = lists.ps.pop() else {
            return TakeP::NoneIdle;
        };
        lists.ms.remove(position);
        // One P less, one spinner more; two steps, as no reader relies on the sum.
        self.counts.fetch_add(SPINNING_ONE, SeqCst);
        self.counts.fetch_sub(1, SeqCst);
        TakeP::Taken(p)
    }

    /// A machine that does not hold a P wants one, without being parked.
    pub(crate) fn take_p_directly(&self) -> Option<u32> {
        let p = self.lists().ps.pop()?;
        self.counts.fetch_add(SPINNING_ONE, SeqCst);
        self.counts.fetch_sub(1, SeqCst);
        Some(p)
    }

    /// A P without a machine goes to the list, as when its M ends.
    pub(crate) fn put_p(&self, p: u32) {
        let mut lists = self.lists();
        lists.ps.push(p);
        self.counts.fetch_add(1, SeqCst);
        drop(lists);
        fence(SeqCst);
    }

    /// Takes a machine off the list because it ends. False: it has been handed a P and must not.
    /// With `only_surplus`, false too if the idle Ps need it.
    #[must_use]
    pub(crate) fn remove(&self, machine: &M, only_surplus: bool) -> bool {
        let mut lists = self.lists();
        if only_surplus && lists.ms.len() <= lists.ps.len() {
            return false;
        }
        match lists.ms.iter().rposition(|other| other.is(machine)) {
            Some(position) => {
                lists.ms.remove(position);
                true
            }
            None => false,
        }
    }

    /// The parked machines, for shutdown.
    pub(crate) fn parked(&self) -> Vec<M> {
        self.lists().ms.clone()
    }

    /// An M that holds a P and found nothing asks to spin. At most half of the busy Ps do: the
    /// limit keeps a busy service from wasting its cores on searches (Go's rule).
    #[must_use]
    pub(crate) fn start_spinning(&self) -> bool {
        // A heuristic, so two Ms that pass at once do no harm.
        let counts = self.counts.load(Relaxed);
        let busy = u64::from(self.processors).saturating_sub(idle(counts));
        if 2 * spinning(counts) >= busy {
            return false;
        }
        self.counts.fetch_add(SPINNING_ONE, SeqCst);
        true
    }

    /// A spinner has found work. True: it was the last one, so it must look whether more is
    /// queued and wake another (the fence is in here).
    #[must_use]
    pub(crate) fn stop_spinning(&self) -> bool {
        let before = self.counts.fetch_sub(SPINNING_ONE, SeqCst);
        debug_assert!(spinning(before) > 0);
        fence(SeqCst);
        spinning(before) == 1
    }

    /// How many Ps are idle, how many Ms spin.
    pub(crate) fn snapshot(&self) -> (u32, u32) {
        let counts = self.counts.load(Relaxed);
        (idle(counts) as u32, spinning(counts) as u32)
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use crate::os::parker::Parker;
    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicU32, AtomicUsize};

    const NONE: u32 = u32::MAX;

    struct Machine {
        parker: Parker,
        assigned: AtomicU32,
    }

    impl Parked for Arc<Machine> {
        fn assign(&self, p: u32) {
            self.assigned.store(p, SeqCst);
        }
        fn is(&self, other: &Self) -> bool {
            Arc::ptr_eq(self, other)
        }
    }

    struct Model {
        idle: Idle<Arc<Machine>>,
        /// The queue: how many tasks wait.
        queue: AtomicUsize,
        done: AtomicUsize,
    }

    impl Model {
        fn push(&self) {
            self.queue
                .fetch_add(1, loom::sync::atomic::Ordering::Release);
            fence(SeqCst);
            self.notify();
        }

        fn notify(&self) {
            if !self.idle.wants_wake() {
                return;
            }
            match self.idle.wake_one(false) {
                Some(Wake::Unpark(machine)) => {
                    let _ = machine.parker.unpark();
                }
                Some(Wake::Start(_)) => unreachable!(),
                None => {}
            }
        }

        fn pop(&self) -> bool {
            let mut current = self.queue.load(SeqCst);
            while current != 0 {
                match self
                    .queue
                    .compare_exchange(current, current - 1, SeqCst, SeqCst)
                {
                    Ok(_) => return true,
                    Err(actual) => current = actual,
                }
            }
            false
        }

        /// An M's life until `total` tasks are done; it begins parked, without a P.
        fn work(&self, machine: &Arc<Machine>, total: usize) {
            loop {
                machine.parker.park(None);
                let mut p = machine.assigned.swap(NONE, SeqCst);
                while p != NONE {
                    let mut spinning = true;
                    while self.pop() {
                        if std::mem::take(&mut spinning)
                            && self.idle.stop_spinning()
                            && self.queue.load(SeqCst) != 0
                        {
                            self.notify();
                        }
                        if self.done.fetch_add(1, SeqCst) + 1 == total {
                            return;
                        }
                    }
                    self.idle.park(machine, Some(p), spinning);
                    p = NONE;
                    if self.queue.load(SeqCst) != 0 {
                        match self.idle.take_p(machine) {
                            TakeP::Taken(taken) => p = taken,
                            TakeP::Assigned => p = machine.assigned.swap(NONE, SeqCst),
                            TakeP::NoneIdle => {}
                        }
                    }
                }
            }
        }
    }

    fn model(pushers: usize) {
        let model = Arc::new(Model {
            idle: Idle::new(1),
            queue: AtomicUsize::new(0),
            done: AtomicUsize::new(0),
        });
        let machine = Arc::new(Machine {
            parker: Parker::new(),
            assigned: AtomicU32::new(NONE),
        });
        model.idle.park(&machine, None, false);
        let worker = {
            let (model, machine) = (model.clone(), machine.clone());
            loom::thread::spawn(move || model.work(&machine, 2))
        };
        let others: Vec<_> = (1..pushers)
            .map(|_| {
                let model = model.clone();
                loom::thread::spawn(move || model.push())
            })
            .collect();
        for _ in others.len()..2 {
            model.push();
        }
        for other in others {
            other.join().unwrap();
        }
        // Ends only if no wake-up was lost; loom reports the deadlock otherwise.
        worker.join().unwrap();
        assert_eq!(model.done.load(SeqCst), 2);
    }

    /// A pusher against an M that parks: the task is always run.
    #[test]
    fn loom_idle_one_pusher() {
        loom::model(|| model(1));
    }

    /// Two pushers: the spinner that the second relies on looks again.
    #[test]
    fn loom_idle_two_pushers() {
        loom::model(|| model(2));
    }
}
