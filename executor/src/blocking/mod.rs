//! `spawn_blocking`: closures that may block, on threads that never hold a P.
//!
//! A job is a task like any other, whose future runs the closure at its only poll; so it has the
//! same `JoinHandle`, and abort and shutdown cancel it while it waits in the queue. The threads
//! are made like Ms, on demand up to `max_blocking_threads`, and end after `thread_keep_alive`
//! without work.
//!
//! # Lock order
//!
//! `state` is a leaf; threads are started, jobs run, and jobs dropped without it.

use std::collections::VecDeque;
use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

use crate::os::thread;
use crate::runtime::{Handle, context};
use crate::sched::{Scheduler, wait_while};
use crate::task::{JoinHandle, Runnable};

/// The queue and the threads of one runtime.
#[derive(Debug)]
pub(crate) struct Pool {
    max_threads: usize,
    state: Mutex<State>,
    /// A job was queued, or the pool closed.
    work: Condvar,
    /// A thread ended.
    ended: Condvar,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Runnable>,
    /// Threads that run a job, wait, or are being started.
    threads: usize,
    /// Of these, the ones that wait for a job (or have been woken for one and not got it yet).
    waiting: usize,
    closed: bool,
    handles: Vec<thread::JoinHandle>,
}

/// The future of a job.
struct Job<F>(Option<F>);

// Never pinned structurally: the closure is moved out at the only poll.
impl<F> Unpin for Job<F> {}

impl<F: FnOnce() -> T, T> Future for Job<F> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<T> {
        let job = self.0.take().expect("a blocking job is polled once");
        Poll::Ready(job())
    }
}

/// Runs a blocking closure on a thread that is meant for it, and returns a handle to its result.
///
/// The closure may block: read a file, resolve a name, compute. At most
/// [`max_blocking_threads`](crate::runtime::Builder::max_blocking_threads) run at once; further
/// ones wait in a queue. [`abort`](JoinHandle::abort) cancels one that waits, and has no effect on
/// one that runs. Dropping the runtime waits for those that run;
/// [`shutdown_timeout`](crate::runtime::Runtime::shutdown_timeout) does not.
///
/// # Panics
///
/// Outside of a runtime's context, and if no thread can be started and none is there.
///
/// # Examples
///
/// ```
/// # gort::runtime::Runtime::new()?.block_on(async {
/// let lines = gort::task::spawn_blocking(|| {
///     std::fs::read_to_string("/proc/self/status").map(|text| text.lines().count())
/// })
/// .await
/// .expect("the closure did not panic")?;
/// assert!(lines > 0);
/// # std::io::Result::Ok(())
/// # })?;
/// # std::io::Result::Ok(())
/// ```
#[track_caller]
pub fn spawn_blocking<F, R>(f: F) -> JoinHandle<R>
where
    F: FnOnce() -> R + Send + 'static,
    R: Send + 'static,
{
    context::current().spawn_blocking(f)
}

impl Scheduler {
    /// Queues a blocking closure.
    pub(crate) fn spawn_blocking<F, R>(
        &self,
        f: F,
        location: &'static Location<'static>,
    ) -> JoinHandle<R>
    where
        F: FnOnce() -> R + Send + 'static,
        R: Send + 'static,
    {
        let spawned = self.new_outside(Job(Some(f)), location);
        if let Err(refused) = self.queue_blocking(spawned.runnable) {
            refused.cancel();
        }
        spawned.join
    }

    /// The job comes back if the runtime is shutting down.
    fn queue_blocking(&self, job: Runnable) -> Result<(), Runnable> {
        let pool = &self.blocking;
        {
            let mut state = pool.state();
            if state.closed {
                return Err(job);
            }
            state.queue.push_back(job);
            // Each waiting thread takes one of the queued jobs; only beyond that one is missing.
            if state.queue.len() <= state.waiting {
                drop(state);
                pool.work.notify_one();
                return Ok(());
            }
            if state.threads == pool.max_threads {
                return Ok(());
            }
            state.threads += 1;
        }
        self.start_blocking_thread();
        Ok(())
    }

    /// The caller has counted the thread in.
    fn start_blocking_thread(&self) {
        let scheduler = self.arc();
        let options = self.thread_options();
        match thread::spawn(&options, Box::new(move || run_thread(&scheduler))) {
            Ok(handle) => {
                let mut state = self.blocking.state();
                state.handles.retain(|handle| !handle.is_finished());
                state.handles.push(handle);
            }
            Err(error) => {
                let threads = {
                    let mut state = self.blocking.state();
                    state.threads -= 1;
                    state.threads
                };
                self.blocking.ended.notify_all();
                // With another thread there, the job only waits longer.
                assert!(
                    threads != 0,
                    "spawn_blocking: no thread could be started and none is there to wait for: {error}"
                );
                tracing::warn!(%error, threads, "a blocking thread could not be started");
            }
        }
    }
}

fn run_thread(scheduler: &Arc<Scheduler>) {
    scheduler.config.hooks.started();
    let _context = context::enter(&Handle::new(Arc::clone(scheduler)));
    while let Some(job) = scheduler.blocking.next(scheduler) {
        // A job completes at its first poll, so it never comes back.
        let _none = job.run();
    }
    scheduler.blocking.ended.notify_all();
    scheduler.config.hooks.stopped();
}

impl Pool {
    pub(crate) fn new(max_threads: usize) -> Self {
        Self {
            max_threads,
            state: Mutex::default(),
            work: Condvar::new(),
            ended: Condvar::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next job, waited for; `None` when the thread must end.
    fn next(&self, scheduler: &Scheduler) -> Option<Runnable> {
        let mut state = self.state();
        let mut deadline = None;
        loop {
            if let Some(job) = state.queue.pop_front() {
                return Some(job);
            }
            // Counted out in the same breath: a job that is queued after this must not rely on
            // this thread.
            if state.closed {
                state.threads -= 1;
                return None;
            }
            let now = Instant::now();
            let deadline = *deadline
                .get_or_insert_with(|| now.checked_add(scheduler.config.thread_keep_alive));
            if deadline.is_some_and(|deadline| deadline <= now) {
                state.threads -= 1;
                return None;
            }
            state.waiting += 1;
            state = match deadline {
                None => self
                    .work
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    self.work
                        .wait_timeout(state, deadline - now)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0
                }
            };
            state.waiting -= 1;
        }
    }

    /// No more jobs: the queued ones are cancelled, their closures dropped here; the threads
    /// that wait end, those that run a job end after it.
    pub(crate) fn close(&self) {
        let queue = {
            let mut state = self.state();
            state.closed = true;
            std::mem::take(&mut state.queue)
        };
        self.work.notify_all();
        for job in queue {
            job.cancel();
        }
    }

    /// Waits until every thread has ended; false if `deadline` came first.
    pub(crate) fn wait(&self, deadline: Option<Instant>) -> bool {
        wait_while(&self.ended, self.state(), deadline, |state| {
            state.threads != 0
        })
    }

    /// Joins the threads, which have all ended but for their thread-local destructors.
    pub(crate) fn join(&self) {
        let handles = std::mem::take(&mut self.state().handles);
        for handle in handles {
            // A panic has been reported by the hook on its own thread.
            let _ = handle.join();
        }
    }

    /// Threads, idle threads, and jobs that wait.
    pub(crate) fn snapshot(&self) -> (usize, usize, usize) {
        let state = self.state();
        (state.threads, state.waiting, state.queue.len())
    }
}
