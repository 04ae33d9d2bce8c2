//! The M as it runs: holding a P, polling tasks. How it finds them is in `search.rs`, how it
//! parks in `park.rs`.
//!
//! # Life cycle
//!
//! ```text
//!             ┌───────────── handed a P, or found one idle with work left ────────────┐
//!             ▼                                                                       │
//!   [has P] find a task ── none ──▶ P to the idle list ─▶ look again ─▶ [no P] park ──┘
//!      ▲        │                                                  netpoll, if nobody is there,
//!      │        ▼                                                  else futex
//!      └── poll it (mark down) ── P was taken meanwhile ─────────────────▶ [no P]
//! ```
//!
//! # The mark
//!
//! [`Held`] stands for "this M holds its P and its mark is up"; only through it can the P's own
//! data be reached. User code runs only between [`Held::leave`] (or the drop of a `Held`) and the
//! next [`Worker::enter`], which may find that the P is gone.
//!
//! # Lock order
//!
//! The poll lock of netpoll, then the locks of timers and registrations, each released before
//! wakers run. `Idle`'s lock is a leaf.

use std::cell::{Cell, RefCell};
use std::mem::ManuallyDrop;
use std::sync::Arc;

use super::budget::Budget;
use super::machine::Machine;
use super::ownership::Claim;
use super::park::Parked;
use super::processor::{Local, Processor, Pushed};
use super::scheduler::Scheduler;
use super::search::Found;
use crate::task::{Chain, Polled, Runnable};
use crate::wake_list::WakeList;

/// The thread-local part of an M.
pub(crate) struct Worker {
    pub(crate) scheduler: Arc<Scheduler>,
    pub(crate) machine: Arc<Machine>,
    /// The P that this M holds, unless it has been taken since.
    pub(super) held: Cell<Option<(u32, Claim)>>,
    /// Counted in `Idle` as one that looks for work.
    pub(super) spinning: Cell<bool>,
    /// While a batch of wakers runs: tasks go behind the others, and one wake-up serves for all.
    pub(super) batch: Cell<bool>,
    /// Tasks were queued with the mark up; others are told when it is down.
    pub(super) owes_notify: Cell<bool>,
    pub(super) wakes: RefCell<WakeList>,
    budget: Budget,
}

/// What an M does beside running tasks: the future of `block_on`, on a current-thread runtime.
pub(crate) trait Main {
    /// Whether it must be polled now.
    fn is_woken(&self) -> bool;
    /// Polls it; true when it is done.
    fn poll(&mut self) -> bool;
}

/// The `Main` of an M that only runs tasks.
pub(crate) struct NoMain;

impl Main for NoMain {
    fn is_woken(&self) -> bool {
        false
    }

    fn poll(&mut self) -> bool {
        false
    }
}

/// An M that holds its P, with its mark up. See the module's doc.
pub(crate) struct Held<'a> {
    worker: &'a Worker,
    pub(super) p: &'a Processor,
    claim: Claim,
}

/// Why `work` came back without a P.
enum Stopped {
    /// The P was taken, or given up: park, or take what has been assigned.
    NoP,
    /// `Main` is done, or the runtime shuts down.
    Finished,
}

impl<'a> Held<'a> {
    #[inline(always)]
    pub(super) fn local(&mut self) -> &mut Local {
        // SAFETY: a `Held` is the proof that this M holds the P with its mark up, there is one of
        // them at a time on this thread (made by `enter` and `acquire` only, and no code between
        // runs user code), and the borrow ends with this one of `self`.
        unsafe { self.p.local() }
    }

    /// Runs `f` with the P's data and a chain for what spills to the global queue.
    #[inline(always)]
    pub(super) fn with_spill<R>(
        &mut self,
        f: impl FnOnce(&mut Local, &Processor, &mut Chain) -> R,
    ) -> R {
        let mut spill = Chain::default();
        let p = self.p;
        let result = f(self.local(), p, &mut spill);
        if !spill.is_empty() {
            self.worker.scheduler.global.push(spill);
        }
        result
    }

    /// Queues a task; `next`: to run before the others.
    #[inline]
    pub(crate) fn push(&mut self, mut task: Runnable, next: bool) -> Pushed {
        if self.local().samples_latency() {
            task.set_queued_at(self.worker.scheduler.latency_clock());
        }
        self.with_spill(|local, p, spill| {
            if next {
                local.push_next(p, task, spill)
            } else {
                local.push_back(p, task, spill)
            }
        })
    }

    /// The P's task cells, ids and shares, for `spawn`.
    #[inline(always)]
    pub(crate) fn caches(&mut self) -> &mut Local {
        self.local()
    }

    /// Lowers the mark: user code may run.
    pub(super) fn leave(self) {}

    /// Gives the P up (the word only; the caller puts it on the idle list).
    fn release(self) -> u32 {
        let this = ManuallyDrop::new(self);
        this.p.ownership.release(this.claim);
        this.worker.held.set(None);
        this.worker.machine.mark.leave();
        this.p.index
    }
}

impl Drop for Held<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        self.worker.machine.mark.leave();
    }
}

impl Worker {
    pub(crate) fn new(scheduler: Arc<Scheduler>, machine: Arc<Machine>) -> Self {
        Self {
            scheduler,
            machine,
            held: Cell::new(None),
            spinning: Cell::new(false),
            batch: Cell::new(false),
            owes_notify: Cell::new(false),
            wakes: RefCell::new(WakeList::new()),
            budget: Budget::new(),
        }
    }

    /// Raises the mark, if the P is still this M's.
    #[inline(always)]
    pub(crate) fn enter(&self) -> Option<Held<'_>> {
        let (index, claim) = self.held.get()?;
        let p = &self.scheduler.processors[index as usize];
        if self.machine.mark.enter(&p.ownership, claim) {
            Some(Held {
                worker: self,
                p,
                claim,
            })
        } else {
            self.held.set(None);
            None
        }
    }

    /// Takes a P into possession that was assigned to this M or taken from the idle list; either
    /// way the M counts as spinning.
    pub(super) fn acquire(&self, index: u32) -> Held<'_> {
        let p = &self.scheduler.processors[index as usize];
        self.machine.mark.raise();
        let claim = p.ownership.acquire(self.machine.number);
        self.held.set(Some((index, claim)));
        if self.spinning.replace(true) {
            // It lost its P while it was looking for work, and has been counted twice now. The P
            // makes it a spinner again, so it is not the last one: nothing to look for here.
            let _last = self.scheduler.idle.stop_spinning();
        }
        Held {
            worker: self,
            p,
            claim,
        }
    }

    /// Whether queued tasks go behind the others for now, and nobody is woken for them.
    pub(crate) fn is_batch(&self) -> bool {
        self.batch.get()
    }

    /// The index of the P, for what is kept a P (timers); a hint.
    pub(crate) fn p_hint(&self) -> Option<u32> {
        self.held.get().map(|(index, _)| index)
    }

    /// The life of an M of the runtime's own, which has been put on the idle list already, unless
    /// it has been handed a P: until the runtime shuts down, or the M has been idle for too long.
    pub(crate) fn run_machine(&self) {
        let starts = if self.machine.is_assigned() {
            Parked::Again
        } else {
            self.block(0, &NoMain)
        };
        if let Parked::Again = starts {
            self.run(&mut NoMain);
        }
        self.spinning_done();
    }

    /// Runs tasks, holding a P or waiting for one, until `main` is done as well.
    pub(crate) fn run_main(&self, main: &mut impl Main) {
        self.run(main);
        self.spinning_done();
        self.scheduler.relay();
    }

    fn run(&self, main: &mut impl Main) {
        loop {
            if let Some(held) = self.enter().or_else(|| self.find_p()) {
                match self.work(held, main) {
                    Stopped::NoP => continue,
                    Stopped::Finished => return,
                }
            }
            if self.scheduler.is_closed() {
                return;
            }
            if main.is_woken() {
                // Another thread drives the runtime; this one's future needs no P.
                self.budget.refill();
                if main.poll() {
                    return;
                }
                continue;
            }
            if let Parked::Ends = self.park(None, main) {
                return;
            }
        }
    }

    /// The P that this M has been handed or, if work waits, an idle one: a fresh or a returning M
    /// does not wait for somebody to notice it. A thread in `block_on` of a current-thread runtime
    /// takes the idle P in any case: nobody else would look at timers and sockets while its future
    /// keeps it busy, and what that spawns belongs in the P's queue, in order.
    fn find_p(&self) -> Option<Held<'_>> {
        let drives = self.scheduler.config.flavor.is_current_thread();
        let index = match self.machine.take_assigned() {
            Some(index) => index,
            None if drives || self.scheduler.has_work() => self.scheduler.idle.take_p_directly()?,
            None => return None,
        };
        Some(self.acquire(index))
    }

    /// Runs tasks for as long as this M holds its P.
    fn work<'a>(&'a self, mut held: Held<'a>, main: &mut impl Main) -> Stopped {
        let mut until_main = 0;
        loop {
            if self.scheduler.is_closed() {
                self.retire(held);
                return Stopped::Finished;
            }
            if until_main == 0 && main.is_woken() {
                // As in tokio, the tasks that are ready have their turn before the next one of a
                // main future that keeps itself busy.
                until_main = self.scheduler.config.event_interval;
                held.leave();
                self.budget.refill();
                let done = main.poll();
                match self.enter() {
                    Some(again) => held = again,
                    None if done => return Stopped::Finished,
                    None => return Stopped::NoP,
                }
                if done {
                    self.hand_back(held);
                    return Stopped::Finished;
                }
            }
            until_main = until_main.saturating_sub(1);
            match self.find(held) {
                Found::Task(with, task) => match self.poll_task(with, task) {
                    Some(again) => held = again,
                    None => return Stopped::NoP,
                },
                Found::Nothing(mut with) => {
                    if main.is_woken() || !with.local().deferred.is_empty() {
                        until_main = 0;
                        held = with;
                        continue;
                    }
                    let p = with.release();
                    return match self.park(Some(p), main) {
                        Parked::Again => Stopped::NoP,
                        Parked::Ends => Stopped::Finished,
                    };
                }
                Found::Lost => return Stopped::NoP,
            }
        }
    }

    /// Polls one task. `None`: the P was taken meanwhile.
    #[inline]
    fn poll_task<'a>(&'a self, mut held: Held<'a>, mut task: Runnable) -> Option<Held<'a>> {
        let queued_at = task.take_queued_at();
        if queued_at != 0 {
            held.p
                .latency
                .record(self.scheduler.latency_since(queued_at));
        }
        held.p.stats.polls.add(1);
        self.machine.stats.polls.add(1);
        held.claim = held.p.ownership.next_poll(held.claim);
        self.held.set(Some((held.p.index, held.claim)));
        held.leave();

        // Mark down: starting a thread runs user code (its name, tracing).
        if self.spinning.get() {
            self.stop_spinning();
        }
        if self.owes_notify.replace(false) {
            self.scheduler.notify();
        }
        self.budget.refill();
        let polled = task.run();

        let held = self.enter();
        match (held, polled) {
            (held, Polled::Parked) => held,
            (Some(mut held), Polled::Yielded(task)) => {
                held.local().deferred.push_back(task);
                Some(held)
            }
            (Some(mut held), Polled::Woken(task)) => {
                if held.push(task, false) == Pushed::Shared {
                    self.owes_notify.set(true);
                }
                Some(held)
            }
            (None, Polled::Yielded(task) | Polled::Woken(task)) => {
                self.scheduler.push_global(task);
                None
            }
        }
    }

    /// Ends the search; if this was the last one to search, whatever else is queued gets another.
    /// Mark down.
    pub(super) fn stop_spinning(&self) {
        if self.spinning.replace(false)
            && self.scheduler.idle.stop_spinning()
            && self.scheduler.has_work()
        {
            self.scheduler.notify();
        }
    }

    /// `main` is done: the P goes back. What is queued on it goes to the global queue, as nobody
    /// looks into the queues of an idle P.
    fn hand_back(&self, mut held: Held<'_>) {
        let p = held.p;
        let queued = held.local().drain(p);
        self.scheduler.global.push(queued);
        let p = held.release();
        self.scheduler.idle.put_p(p);
    }

    fn spinning_done(&self) {
        if self.spinning.replace(false) {
            let _last = self.scheduler.idle.stop_spinning();
        }
    }

    /// The runtime shuts down: what is queued on this P loses its place (the registry cancels the
    /// tasks themselves).
    fn retire(&self, mut held: Held<'_>) {
        let p = held.p;
        let queued = held.local().drain(p);
        let p = held.release();
        self.scheduler.idle.put_p(p);
        self.spinning_done();
        drop(queued);
    }
}

impl Scheduler {
    /// A current-thread runtime's driver leaves: another thread that blocks on the runtime takes
    /// over, whether or not there is work.
    fn relay(&self) {
        if self.config.flavor.is_current_thread() {
            if let Some(machine) = self.idle.parked().last() {
                self.unpark(machine);
            }
        }
        if self.has_work() {
            self.notify();
        }
    }
}
