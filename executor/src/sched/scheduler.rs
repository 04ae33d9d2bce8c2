//! The state that all Ms of a runtime share, and what any thread may ask of it.
//!
//! # How long it lives
//!
//! The `Scheduler` is in an `Arc`, held by the runtime, its handles and its Ms. Task cells, which
//! may outlive all of these, hold *shares* instead, so that a spawn does not count on a contended
//! word: each P takes a block of shares in advance and hands them to the cells that it makes.
//! `shares` is one for the runtime itself (until shutdown is complete), plus those in the Ps'
//! hands, plus one a live cell; while it is not zero, it stands for one strong count of the `Arc`.

use std::future::Future;
use std::io;
use std::panic::Location;
use std::ptr::NonNull;
use std::sync::atomic::{
    AtomicBool, AtomicU64, AtomicUsize,
    Ordering::{AcqRel, Acquire, Relaxed, SeqCst},
    fence,
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::config::Config;
use super::global::Global;
use super::idle::{Idle, Wake};
use super::machine::Machine;
use super::order::StealOrder;
use super::ownership::MACHINES;
use super::processor::{Processor, Pushed};
use super::shutdown::Life;
use super::worker::Worker;
use crate::blocking;
use crate::netpoll::{Netpoll, Poller};
use crate::os::parker::Unpark;
use crate::os::{asymmetric_fence, thread};
use crate::runtime::{Handle, context};
use crate::task::{self, Chain, Header, Id, JoinHandle, Runnable};
use crate::time::driver::Timers;
use crate::wake_list::WakeList;

/// Shares that a P takes at once: one contended addition per 256 spawns.
const SHARES: usize = 256;

/// See the module's doc.
#[derive(Debug)]
pub(crate) struct Scheduler {
    /// Names the runtime in metrics and traces.
    pub(crate) id: u64,
    pub(crate) config: Config,
    pub(crate) processors: Box<[Processor]>,
    pub(super) steal_order: StealOrder,
    pub(crate) global: Global,
    pub(crate) idle: Idle<Arc<Machine>>,
    pub(crate) netpoll: Arc<Netpoll>,
    pub(crate) timers: Arc<Timers>,
    pub(crate) blocking: blocking::Pool,
    pub(super) machines: Mutex<Machines>,
    /// Set once, at the beginning of the shutdown.
    pub(super) closed: AtomicBool,
    pub(crate) life: Life,
    /// Excludes takers of Ps from each other (`handoff.rs`).
    pub(super) takers: Mutex<()>,
    shares: AtomicUsize,
    this: This,
    /// Time zero of `latency_clock`.
    started: Instant,
    /// Tasks spawned and completed where there is no M to count them.
    spawned_outside: AtomicU64,
    completed_outside: AtomicU64,
    /// Machines that could not be started when they were wanted.
    pub(crate) refused_machines: AtomicU64,
}

/// The scheduler's own address, as its `Arc` gives it.
#[derive(Debug)]
struct This(*const Scheduler);

// SAFETY: only used to count the `Arc` up and down, which any thread may do that has a count.
unsafe impl Send for This {}
// SAFETY: as above.
unsafe impl Sync for This {}

/// Every M that the runtime ever had, by number, and the threads to be joined.
#[derive(Debug, Default)]
pub(super) struct Machines {
    pub(super) all: Vec<Arc<Machine>>,
    pub(super) threads: Vec<thread::JoinHandle>,
    /// Numbers of Ms that have ended, to be used again by the next.
    free: Vec<Arc<Machine>>,
}

impl Scheduler {
    /// A scheduler without Ms.
    ///
    /// # Errors
    ///
    /// What netpoll cannot be made for.
    pub(crate) fn new(config: Config) -> io::Result<Arc<Self>> {
        static NEXT_ID: AtomicU64 = AtomicU64::new(1);
        asymmetric_fence::init();
        let id = NEXT_ID.fetch_add(1, Relaxed);
        let netpoll = Arc::new(Netpoll::new(config.io_events)?);
        let timers = {
            let netpoll = Arc::clone(&netpoll);
            let unpark = Box::new(move || netpoll.wake());
            Arc::new(Timers::new(config.processors as usize, unpark))
        };
        let fifo = config.flavor.is_current_thread();
        let count = config.processors;
        let scheduler = Arc::new_cyclic(|this| Self {
            this: This(this.as_ptr()),
            id,
            processors: (0..count)
                .map(|index| Processor::new(index, fifo, id as u32))
                .collect(),
            steal_order: StealOrder::new(count),
            global: Global::new(),
            idle: Idle::new(count),
            netpoll,
            timers,
            blocking: blocking::Pool::new(config.max_blocking_threads),
            machines: Mutex::default(),
            closed: AtomicBool::new(false),
            life: Life::new(),
            takers: Mutex::new(()),
            shares: AtomicUsize::new(1),
            started: Instant::now(),
            spawned_outside: AtomicU64::new(0),
            completed_outside: AtomicU64::new(0),
            refused_machines: AtomicU64::new(0),
            config,
        });
        // The strong count that the shares stand for, until `release_shares` finds none left.
        std::mem::forget(Arc::clone(&scheduler));
        Ok(scheduler)
    }

    /// The `Arc` that this is in; `self` is alive, so it is too.
    pub(crate) fn arc(&self) -> Arc<Self> {
        // SAFETY: the pointer is the `Arc`'s own; whoever has the borrow keeps a strong count, or
        // a share that stands for one.
        unsafe {
            Arc::increment_strong_count(self.this.0);
            Arc::from_raw(self.this.0)
        }
    }

    pub(super) fn machines(&self) -> MutexGuard<'_, Machines> {
        self.machines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_closed(&self) -> bool {
        // Acquire pairs with the store in `close`; what the closer did before is visible.
        self.closed.load(Acquire)
    }

    // ---- Queues ------------------------------------------------------------------------------

    /// Queues a task that became runnable, from any thread: onto the P of the calling M if it is
    /// one of this runtime's, otherwise onto the global queue.
    pub(crate) fn schedule(&self, task: Runnable) {
        let mut task = Some(task);
        context::with_worker(|worker| {
            if !std::ptr::eq(self, &*worker.scheduler) {
                return;
            }
            if let Some(mut held) = worker.enter() {
                let batch = worker.is_batch();
                let task = task.take().expect("scheduled once");
                let pushed = held.push(task, !batch);
                drop(held);
                if pushed == Pushed::Shared && !batch {
                    self.notify();
                }
            } else if let Some(task) = task.take() {
                // The M, which keeps the scheduler alive, has lost its P.
                self.push_global(task);
            }
        });
        if let Some(mut task) = task {
            // From here on the task may be run and freed at any moment, and with it what kept the
            // scheduler alive for this call.
            let this = self.arc();
            if task.id().is_sampled() {
                task.set_queued_at(this.latency_clock());
            }
            this.push_global(task);
        }
    }

    /// Queues tasks where there is no P.
    pub(crate) fn push_global(&self, tasks: impl Into<Chain>) {
        self.global.push(tasks);
        fence(SeqCst);
        // The fence pairs with the one in `close`: either the drain there sees the push, or this
        // sees `closed` and drains itself.
        if self.is_closed() {
            self.drain_global();
        } else if self.idle.wants_wake() {
            self.notify_slow();
        }
    }

    /// The tasks were cancelled, or will be, by the registry; here they only lose their place.
    pub(super) fn drain_global(&self) {
        while let Some(chain) = self.global.pop() {
            drop(chain);
        }
    }

    /// Whether an M without a P, or about to give it up, would find something to run.
    pub(super) fn has_work(&self) -> bool {
        !self.global.is_empty() || self.processors.iter().any(Processor::has_work)
    }

    /// After a push that others should know of: wakes an M if none is looking for work.
    #[inline]
    pub(crate) fn notify(&self) {
        // The pusher's half of the pattern in `idle.rs`.
        fence(SeqCst);
        if self.idle.wants_wake() {
            self.notify_slow();
        }
    }

    #[cold]
    fn notify_slow(&self) {
        let may_start = !self.config.flavor.is_current_thread();
        if let Some(wake) = self.idle.wake_one(may_start) {
            self.carry_out(wake);
        }
    }

    pub(super) fn carry_out(&self, wake: Wake<Arc<Machine>>) {
        match wake {
            Wake::Unpark(machine) => self.unpark(&machine),
            Wake::Start(p) => {
                if let Err(error) = self.start_machine(Some(p)) {
                    self.start_refused(p, &error);
                }
            }
        }
    }

    /// The M that `p` was meant for could not be made: the P is idle again. Its queues are empty.
    pub(super) fn start_refused(&self, p: u32, error: &io::Error) {
        self.idle.cancel_start(p);
        // The start counted as a spinner that others relied on: look again in its place.
        fence(SeqCst);
        if self.has_work() {
            if let Some(Wake::Unpark(machine)) = self.idle.wake_one(false) {
                self.unpark(&machine);
            }
        }
        if self.is_closed() {
            return;
        }
        self.refused_machines.fetch_add(1, Relaxed);
        tracing::error!(
            runtime = self.id,
            %error,
            "a worker thread could not be started; its processor stays idle until one can be"
        );
    }

    pub(crate) fn unpark(&self, machine: &Machine) {
        if machine.parker.unpark() == Unpark::Interrupt {
            self.netpoll.wake();
        }
    }

    // ---- Machines ----------------------------------------------------------------------------

    /// Starts an M, which begins with `p` (and then counts as spinning) or parks.
    pub(crate) fn start_machine(&self, p: Option<u32>) -> io::Result<()> {
        // User code, so before anything is counted.
        let options = self.thread_options();
        let scheduler = self.arc();
        if !self.life.machine_starts() {
            return Err(io::Error::other("the runtime is shutting down"));
        }
        let machine = self.register_machine();
        match p {
            Some(p) => machine.assign_p(p),
            // Listed before it runs, so that a wake-up in the meantime finds it.
            None => {
                self.idle.park(&machine, None, false);
            }
        }
        let body = {
            let machine = Arc::clone(&machine);
            Box::new(move || run_machine(scheduler, machine))
        };
        match thread::spawn(&options, body) {
            Ok(thread) => {
                let mut machines = self.machines();
                machines.threads.retain(|thread| !thread.is_finished());
                machines.threads.push(thread);
                Ok(())
            }
            Err(error) => {
                if p.is_some() {
                    machine.take_assigned();
                } else {
                    // Nothing has been spawned yet on a runtime that is being built.
                    let _removed = self.idle.remove(&machine, false);
                }
                self.retire_machine(machine);
                self.machine_ended();
                Err(error)
            }
        }
    }

    /// What the next thread is to look like.
    pub(crate) fn thread_options(&self) -> thread::Options {
        thread::Options {
            name: self.config.thread_name.make(),
            ..self.config.thread.clone()
        }
    }

    /// An M has ended, or could not be started. The last one of a closed runtime finishes it.
    fn machine_ended(&self) {
        if self.life.machine_ended() && self.is_closed() {
            self.finish();
        }
    }

    /// A number and a place in the table for an M that starts.
    pub(crate) fn register_machine(&self) -> Arc<Machine> {
        let mut machines = self.machines();
        if let Some(machine) = machines.free.pop() {
            return machine;
        }
        let number = machines.all.len() as u32;
        assert!(number < MACHINES, "more threads than Linux can have");
        let machine = Arc::new(Machine::new(number));
        machines.all.push(Arc::clone(&machine));
        machine
    }

    /// Every M that there ever was.
    pub(crate) fn all_machines(&self) -> Vec<Arc<Machine>> {
        self.machines().all.clone()
    }

    /// The M has ended: its number may be used again.
    pub(crate) fn retire_machine(&self, machine: Arc<Machine>) {
        machine.tid.store(0, Relaxed);
        self.machines().free.push(machine);
    }

    // ---- Tasks -------------------------------------------------------------------------------

    /// Makes a task and queues it. On a closed runtime the future is dropped here and the handle
    /// says cancelled.
    #[inline]
    pub(crate) fn spawn<F>(
        &self,
        future: F,
        location: &'static Location<'static>,
    ) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let mut future = Some(future);
        let mut join = None;
        context::with_worker(|worker| {
            if !std::ptr::eq(self, &*worker.scheduler) || self.is_closed() {
                return;
            }
            let Some(mut held) = worker.enter() else {
                return;
            };
            let future = future.take().expect("spawned once");
            let caches = held.caches();
            if caches.shares == 0 {
                self.add_shares(SHARES);
                caches.shares = SHARES;
            }
            caches.shares -= 1;
            let id = caches.ids.next();
            // SAFETY: the cell gets the share taken above, and the future is `Send`.
            let spawned = unsafe {
                task::new(
                    Some(&mut caches.cells),
                    future,
                    NonNull::from(self),
                    id,
                    location,
                )
            };
            let pushed = held.push(spawned.runnable, true);
            drop(held);
            worker.machine.stats.spawned.add(1);
            if pushed == Pushed::Shared {
                self.notify();
            }
            join = Some(spawned.join);
        });
        match join {
            Some(join) => join,
            None => self.spawn_outside(future.expect("not spawned yet"), location),
        }
    }

    /// The same from a thread without a P.
    fn spawn_outside<F>(
        &self,
        future: F,
        location: &'static Location<'static>,
    ) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let spawned = self.new_outside(future, location);
        let mut runnable = spawned.runnable;
        if self.is_closed() {
            runnable.cancel();
        } else {
            if runnable.id().is_sampled() {
                runnable.set_queued_at(self.latency_clock());
            }
            self.push_global(runnable);
            // The registry's walk may have come before this task: see `close`.
            if self.is_closed() {
                spawned.join.abort_now();
            }
        }
        spawned.join
    }

    /// A task that is queued nowhere yet.
    pub(crate) fn new_outside<F>(
        &self,
        future: F,
        location: &'static Location<'static>,
    ) -> task::Spawned<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.add_shares(1);
        self.spawned_outside.fetch_add(1, Relaxed);
        // SAFETY: the cell gets the share just added, and the future is `Send`.
        unsafe { task::new(None, future, NonNull::from(self), Id::next(), location) }
    }

    /// Counts a completed task.
    #[inline]
    pub(crate) fn task_completed(&self) {
        let mut counted = false;
        context::with_worker(|worker| {
            if std::ptr::eq(self, &*worker.scheduler) {
                worker.machine.stats.completed.add(1);
                counted = true;
            }
        });
        if !counted {
            self.completed_outside.fetch_add(1, Relaxed);
        }
    }

    /// Tasks that have been spawned, and that have completed, so far.
    pub(crate) fn task_counts(&self) -> (u64, u64) {
        let machines = self.machines();
        // Completed first: a task that completes in between is then not counted as unborn.
        let completed = self.completed_outside.load(Relaxed)
            + machines
                .all
                .iter()
                .map(|m| m.stats.completed.get())
                .sum::<u64>();
        let spawned = self.spawned_outside.load(Relaxed)
            + machines
                .all
                .iter()
                .map(|m| m.stats.spawned.get())
                .sum::<u64>();
        (spawned, completed)
    }

    // ---- Shares ------------------------------------------------------------------------------

    /// Whether no task's cell is left, with `in_hand` shares in the Ps' hands. Only when no M is
    /// left, so that the counts stand still but for cells that are freed.
    pub(super) fn has_no_cells(&self, in_hand: usize) -> bool {
        // Acquire pairs with the AcqRel of those that freed the last cells.
        self.shares.load(Acquire) == 1 + in_hand
    }

    fn add_shares(&self, count: usize) {
        // Relaxed: the caller lives on a share, or on the `Arc`.
        if self.shares.fetch_add(count, Relaxed) == 0 {
            // A spawn after the shutdown, by way of a handle's `Arc`. Nobody can bring the count
            // back to zero before this: the shares just added are still the caller's.
            std::mem::forget(self.arc());
        }
    }

    /// Gives shares back.
    ///
    /// # Safety
    /// The caller owns `count` shares of `scheduler`, and does not touch it afterwards unless by
    /// another share or `Arc`.
    pub(super) unsafe fn release_shares(scheduler: NonNull<Self>, count: usize) {
        // SAFETY: the shares keep it alive.
        let (shares, this) = unsafe { (&scheduler.as_ref().shares, scheduler.as_ref().this.0) };
        // AcqRel: the last one to go sees all that the others did.
        if shares.fetch_sub(count, AcqRel) == count {
            // SAFETY: the strong count forgotten when the shares last left zero, in `new` or
            // `add_shares`. Each time that they do one is forgotten, and each time that they
            // come back to zero one is given back here.
            unsafe { Arc::decrement_strong_count(this) };
        }
    }

    // ---- Time and sockets ---------------------------------------------------------------------

    /// A clock for run-queue latencies: units of 64 ns since the start, never 0, which wrap after
    /// 4 minutes and a half.
    pub(crate) fn latency_clock(&self) -> u32 {
        ((self.started.elapsed().as_nanos() >> 6) as u32).max(1)
    }

    /// Nanoseconds since the clock showed `then`.
    pub(crate) fn latency_since(&self, then: u32) -> u64 {
        u64::from(self.latency_clock().wrapping_sub(then)) << 6
    }

    pub(super) fn poll_netpoll(
        &self,
        poller: &mut Poller<'_>,
        timeout: Option<Duration>,
        wakes: &mut WakeList,
    ) {
        if let Err(error) = poller.poll(timeout, wakes) {
            // Not a socket's error: epoll itself failed, so nothing would ever be ready again, and
            // a panic would end one M and leave the service without eyes.
            eprintln!(
                "gort: fatal: epoll_wait failed ({error}), so no socket can be waited for any \
                 more; is there code in this process that closes descriptors it does not own?"
            );
            std::process::abort();
        }
    }

    /// Takes the wakers of every timer that is due, of all Ps: an idle P has nobody else.
    pub(super) fn expire_timers(&self, wakes: &mut WakeList) {
        let Some(next) = self.timers.next_deadline() else {
            return;
        };
        let now = crate::time::Instant::now();
        if next > now {
            return;
        }
        for queue in 0..self.timers.queues() {
            self.timers.expire(queue, now, wakes);
        }
    }
}

/// The body of an M's thread.
fn run_machine(scheduler: Arc<Scheduler>, machine: Arc<Machine>) {
    // SAFETY: gettid has no preconditions.
    machine.tid.store(unsafe { libc::gettid() }, Relaxed);
    scheduler.config.hooks.started();
    let worker = Worker::new(Arc::clone(&scheduler), Arc::clone(&machine));
    // Nothing below is known to panic; if it does, the M must be counted out all the same.
    struct Ended(Arc<Scheduler>, Arc<Machine>);
    impl Drop for Ended {
        fn drop(&mut self) {
            self.0.retire_machine(Arc::clone(&self.1));
            self.0.machine_ended();
            self.0.config.hooks.stopped();
        }
    }
    let ended = Ended(Arc::clone(&scheduler), machine);
    context::run_worker(&worker, &Handle::new(Arc::clone(&scheduler)), || {
        worker.run_machine();
        if scheduler.is_closed() {
            scheduler.walk_once();
        }
    });
    drop(worker);
    drop(ended);
}

/// A task's cell is empty: back to the free lists, and its share to the scheduler.
///
/// # Safety
/// `cell` is a free cell of `class` that nobody else holds, made for `scheduler`, whose share it
/// gives up.
pub(crate) unsafe fn free_cell(scheduler: NonNull<Scheduler>, class: usize, cell: NonNull<Header>) {
    let mut kept = false;
    let mut recycled = false;
    context::with_worker(|worker| {
        if let Some(mut held) = worker.enter() {
            let own = std::ptr::eq(scheduler.as_ptr(), &*worker.scheduler);
            let caches = held.caches();
            // SAFETY: the caller's contract.
            unsafe { task::recycle(Some(&mut caches.cells), class, cell) };
            recycled = true;
            if own && caches.shares < 2 * SHARES {
                caches.shares += 1;
                kept = true;
            }
        }
    });
    // SAFETY: the caller's contract; each happens once.
    unsafe {
        if !recycled {
            task::recycle(None, class, cell);
        }
        if !kept {
            Scheduler::release_shares(scheduler, 1);
        }
    }
}
