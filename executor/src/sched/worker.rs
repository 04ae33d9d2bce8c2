//! The M as it runs: holding a P, finding tasks, polling them, parking.
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
use std::time::{Duration, Instant};

use super::budget::Budget;
use super::idle::TakeP;
use super::machine::Machine;
use super::ownership::Claim;
use super::processor::{Local, Processor, Pushed};
use super::scheduler::Scheduler;
use crate::task::{Chain, Polled, Runnable};
use crate::wake_list::WakeList;

/// The thread-local part of an M.
pub(crate) struct Worker {
    pub(crate) scheduler: Arc<Scheduler>,
    pub(crate) machine: Arc<Machine>,
    /// The P that this M holds, unless it has been taken since.
    held: Cell<Option<(u32, Claim)>>,
    /// Counted in `Idle` as one that looks for work.
    spinning: Cell<bool>,
    /// While a batch of wakers runs: tasks go behind the others, and one wake-up serves for all.
    batch: Cell<bool>,
    wakes: RefCell<WakeList>,
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
    p: &'a Processor,
    claim: Claim,
}

/// Why `work` came back without a P.
enum Stopped {
    /// The P was taken, or given up: park, or take what has been assigned.
    NoP,
    /// `Main` is done, or the runtime shuts down.
    Finished,
}

/// What a search for a task found.
enum Found<'a> {
    Task(Held<'a>, Runnable),
    Nothing(Held<'a>),
    /// The P was taken while wakers ran.
    Lost,
}

impl<'a> Held<'a> {
    #[inline(always)]
    fn local(&mut self) -> &mut Local {
        // SAFETY: a `Held` is the proof that this M holds the P with its mark up, there is one of
        // them at a time on this thread (made by `enter` and `acquire` only, and no code between
        // runs user code), and the borrow ends with this one of `self`.
        unsafe { self.p.local() }
    }

    /// Runs `f` with the P's data and a chain for what spills to the global queue.
    #[inline(always)]
    fn with_spill<R>(&mut self, f: impl FnOnce(&mut Local, &Processor, &mut Chain) -> R) -> R {
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
    fn leave(self) {}

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
    fn acquire(&self, index: u32) -> Held<'_> {
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

    /// The life of an M: until the runtime shuts down, the M has been idle for too long, or
    /// `main` is done.
    pub(crate) fn run(&self, main: &mut impl Main) {
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
            if self.park(None, main) {
                return;
            }
        }
    }

    /// The P that this M has been handed or, if work waits, an idle one: a fresh or a returning M
    /// does not wait for somebody to notice it.
    fn find_p(&self) -> Option<Held<'_>> {
        let index = match self.machine.take_assigned() {
            Some(index) => index,
            None if self.scheduler.has_work() => self.scheduler.idle.take_p_directly()?,
            None => return None,
        };
        Some(self.acquire(index))
    }

    /// Runs tasks for as long as this M holds its P.
    fn work<'a>(&'a self, mut held: Held<'a>, main: &mut impl Main) -> Stopped {
        loop {
            if self.scheduler.is_closed() {
                self.retire(held);
                return Stopped::Finished;
            }
            if main.is_woken() {
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
            match self.find(held) {
                Found::Task(with, task) => match self.poll_task(with, task) {
                    Some(again) => held = again,
                    None => return Stopped::NoP,
                },
                Found::Nothing(with) if main.is_woken() => held = with,
                Found::Nothing(with) => {
                    let p = with.release();
                    self.park(Some(p), main);
                    return Stopped::NoP;
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
        if self.spinning.get() {
            self.stop_spinning();
        }
        held.p.stats.polls.add(1);
        self.machine.stats.polls.add(1);
        held.claim = held.p.ownership.next_poll(held.claim);
        self.held.set(Some((held.p.index, held.claim)));
        held.leave();

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
                    self.scheduler.notify();
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
    fn stop_spinning(&self) {
        if self.spinning.replace(false)
            && self.scheduler.idle.stop_spinning()
            && self.scheduler.has_work()
        {
            self.scheduler.notify();
        }
    }

    /// Looks for a task where one may be, in Go's order: every so often the global queue, then
    /// `runnext` and the ring, then elsewhere.
    fn find<'a>(&'a self, mut held: Held<'a>) -> Found<'a> {
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
            held.with_spill(|local, p, spill| local.undefer(p, spill));
        }
        let local = held.local();
        local.until_global -= 1;
        if local.until_global == 0 {
            local.until_global = scheduler.config.global_queue_interval;
            if let Some(task) = scheduler.global.pop_one() {
                held.p.stats.from_global.add(1);
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
            held.with_spill(|local, p, spill| local.undefer(p, spill));
            let p = held.p;
            if p.ring.len() > 1 {
                self.scheduler.notify();
            }
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
        self.enter()
    }

    /// Wakes what netpoll or timers gathered, as one batch. Mark down.
    fn wake_all(&self, mut wakes: WakeList) {
        self.batch.set(true);
        wakes.wake_all();
        self.batch.set(false);
        self.wakes.replace(wakes);
        if self
            .p_hint()
            .is_none_or(|p| self.scheduler.processors[p as usize].ring.len() > 1)
        {
            self.scheduler.notify();
        }
    }

    /// Puts the P, if there is one, and this M on the idle lists, looks at everything once more,
    /// and blocks until there is something to do. True: the M must end.
    fn park(&self, p: Option<u32>, main: &impl Main) -> bool {
        let scheduler = &*self.scheduler;
        let surplus = scheduler
            .idle
            .park(&self.machine, p, self.spinning.replace(false));
        // Work is for an M that can get a P: without an idle one those who hold the Ps will see
        // to it, and an M that came back from losing its P would only spin here.
        let wanted = scheduler.idle.has_idle_p() && scheduler.has_work();
        if scheduler.is_closed() || main.is_woken() || wanted {
            self.leave_idle_list();
            return false;
        }
        scheduler.config.hooks.parked();
        let timed_out = match scheduler.netpoll.try_lock() {
            Some(poller) => {
                self.block_in_netpoll(poller);
                false
            }
            None => {
                self.machine.stats.parks.add(1);
                // A thread in `block_on` stays until its future is done, needed or not.
                let may_end = surplus > 0 && !scheduler.config.flavor.is_current_thread();
                let keep_alive = may_end.then_some(scheduler.config.thread_keep_alive);
                !self.machine.parker.park(keep_alive)
            }
        };
        scheduler.config.hooks.unparked();
        if timed_out && scheduler.idle.remove(&self.machine, true) {
            return true;
        }
        self.leave_idle_list();
        false
    }

    /// Off the idle list, with a P if there is work for it. `run` finds the P in `assigned`, or
    /// parks again, which must not list the M twice.
    fn leave_idle_list(&self) {
        let idle = &self.scheduler.idle;
        if self.held.get().is_some() {
            // It came back from netpoll with a P, and so off the list.
            return;
        }
        if self.scheduler.has_work() {
            match idle.take_p(&self.machine) {
                TakeP::Taken(p) => return self.machine.assign_p(p),
                TakeP::Assigned => return,
                TakeP::NoneIdle => {}
            }
        }
        // False: it has been handed a P at this moment.
        let _removed = idle.remove(&self.machine, false);
    }

    /// Blocks in netpoll until a socket is ready, the next timer is due, or somebody unparks this
    /// M; then wakes what is due, onto an idle P if there is one.
    fn block_in_netpoll(&self, mut poller: crate::netpoll::Poller<'_>) {
        let scheduler = &*self.scheduler;
        if !self.machine.parker.begin_elsewhere() {
            return;
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
            return;
        }
        let taken = match scheduler.idle.take_p(&self.machine) {
            TakeP::Taken(p) => Some(p),
            TakeP::Assigned => self.machine.take_assigned(),
            TakeP::NoneIdle => None,
        };
        match taken {
            Some(p) => {
                // `run` goes on with the P, unless it is taken while the wakers run.
                self.acquire(p).leave();
                self.wake_all(wakes);
            }
            None => self.wake_all(wakes),
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
        self.spinning_done();
        self.scheduler.relay();
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
