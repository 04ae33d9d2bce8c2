//! What is counted, and what the counts must be.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gort::runtime::RuntimeMetrics;
use gort_tests::Count;

thread_local! {
    static RUNTIME_THREAD: Cell<bool> = const { Cell::new(false) };
}

/// For the hooks: whether this thread is one of the runtime's.
pub(crate) fn on_runtime_thread(is: bool) {
    RUNTIME_THREAD.set(is);
}

/// More tasks than a round ever has.
const TASKS: usize = 1 << 16;

/// One round's counters.
#[derive(Debug)]
pub(crate) struct Ledger {
    name: String,
    multi_thread: bool,
    next: AtomicUsize,
    /// By task: how often its future, and its output, was dropped.
    future_drops: Box<[AtomicU8]>,
    output_drops: Box<[AtomicU8]>,
    pub(crate) polls: Count,
    pub(crate) futures_dropped: Count,
    pub(crate) outputs_made: Count,
    pub(crate) outputs_dropped: Count,
    pub(crate) jobs_spawned: Count,
    pub(crate) jobs_dropped: Count,
    pub(crate) jobs_run: Count,
    pub(crate) joined: Count,
    pub(crate) cancelled: Count,
    pub(crate) panicked: Count,
    pub(crate) parks: Count,
    pub(crate) wakes: Count,
    pub(crate) retakes: Count,
}

fn counters() -> Box<[AtomicU8]> {
    (0..TASKS).map(|_| AtomicU8::new(0)).collect()
}

/// A broken promise ends the process: the panic of a task would only be a `JoinError`.
#[track_caller]
pub(crate) fn fail(ledger: &Ledger, what: &str) -> ! {
    eprintln!("stress ({}): {what}\n{}", ledger.name, ledger.dump());
    std::process::abort();
}

impl Ledger {
    pub(crate) fn new(name: String, multi_thread: bool) -> Self {
        Self {
            name,
            multi_thread,
            next: AtomicUsize::new(0),
            future_drops: counters(),
            output_drops: counters(),
            polls: Count::new(),
            futures_dropped: Count::new(),
            outputs_made: Count::new(),
            outputs_dropped: Count::new(),
            jobs_spawned: Count::new(),
            jobs_dropped: Count::new(),
            jobs_run: Count::new(),
            joined: Count::new(),
            cancelled: Count::new(),
            panicked: Count::new(),
            parks: Count::new(),
            wakes: Count::new(),
            retakes: Count::new(),
        }
    }

    fn dump(&self) -> String {
        format!(
            "spawned {} polls {} futures dropped {} outputs made {} dropped {} \
             jobs spawned {} run {} dropped {} joined {} cancelled {} panicked {} \
             parks {} wakes {} retakes {}",
            self.spawned(),
            self.polls.get(),
            self.futures_dropped.get(),
            self.outputs_made.get(),
            self.outputs_dropped.get(),
            self.jobs_spawned.get(),
            self.jobs_run.get(),
            self.jobs_dropped.get(),
            self.joined.get(),
            self.cancelled.get(),
            self.panicked.get(),
            self.parks.get(),
            self.wakes.get(),
            self.retakes.get(),
        )
    }

    pub(crate) fn spawned(&self) -> usize {
        self.next.load(SeqCst)
    }

    /// Futures and jobs that have been made and not dropped.
    pub(crate) fn alive(&self) -> usize {
        let dropped = self.futures_dropped.get() + self.jobs_dropped.get();
        self.spawned() + self.jobs_spawned.get() - dropped
    }

    /// A number for a new task.
    pub(crate) fn new_task(&self) -> usize {
        let id = self.next.fetch_add(1, SeqCst);
        assert!(id < TASKS, "a round has at most {TASKS} tasks");
        id
    }

    /// A task's future is dropped, having been polled or not.
    pub(crate) fn future_dropped(&self, id: usize, polled: bool) {
        if self.future_drops[id].fetch_add(1, SeqCst) != 0 {
            fail(self, &format!("the future of task {id} was dropped twice"));
        }
        // One that was never polled may be dropped where it was spawned: the runtime was closed.
        if self.multi_thread && polled && !RUNTIME_THREAD.get() {
            let thread = std::thread::current();
            fail(
                self,
                &format!("the future of task {id} was dropped on the foreign {thread:?}"),
            );
        }
        self.futures_dropped.add();
    }

    pub(crate) fn output_dropped(&self, id: usize) {
        if self.output_drops[id].fetch_add(1, SeqCst) != 0 {
            fail(self, &format!("the output of task {id} was dropped twice"));
        }
        self.outputs_dropped.add();
    }

    /// With every task at its end and the runtime still there, its own counters must agree.
    pub(crate) fn check_metrics(&self, metrics: &RuntimeMetrics) {
        let spawned = self.spawned() + self.jobs_spawned.get();
        // A future is dropped a moment before its task counts as complete.
        gort_tests::wait_until("the runtime counts no task alive", || {
            metrics.num_alive_tasks() == 0
        });
        assert_eq!(
            metrics.spawned_tasks_count(),
            spawned as u64,
            "{}",
            self.dump()
        );
        let by_p: u64 = metrics.processors().iter().map(|p| p.polls).sum();
        let by_m: u64 = metrics.machines().iter().map(|m| m.polls).sum();
        assert_eq!(by_p, by_m, "each poll is counted by its P and by its M");
        assert!(by_p >= self.polls.get() as u64);
        let retaken: u64 = metrics.processors().iter().map(|p| p.retaken).sum();
        assert_eq!(retaken, self.retakes.get() as u64);
    }

    /// After the runtime's end.
    pub(crate) fn check_end(&self) {
        let dump = self.dump();
        assert_eq!(
            self.futures_dropped.get(),
            self.spawned(),
            "{}: {dump}",
            self.name
        );
        assert_eq!(
            self.jobs_dropped.get(),
            self.jobs_spawned.get(),
            "{}: {dump}",
            self.name
        );
        gort_tests::wait_until("every output is dropped", || {
            self.outputs_dropped.get() == self.outputs_made.get()
        });
        for id in 0..self.spawned() {
            assert_eq!(self.future_drops[id].load(SeqCst), 1, "future {id}");
            assert!(self.output_drops[id].load(SeqCst) <= 1, "output {id}");
        }
        assert!(self.jobs_run.get() <= self.jobs_spawned.get());
    }

    /// Ends the process if nothing moves for a minute.
    pub(crate) fn watch(self: &Arc<Self>) -> Watch {
        let done = Arc::new(AtomicBool::new(false));
        let observed = Arc::new(Mutex::new(None::<RuntimeMetrics>));
        let thread = {
            let (ledger, done, observed) = (self.clone(), done.clone(), observed.clone());
            std::thread::spawn(move || {
                let mut last = (0, Instant::now());
                while !done.load(SeqCst) {
                    let moved = ledger.spawned()
                        + ledger.polls.get()
                        + ledger.futures_dropped.get()
                        + ledger.jobs_dropped.get();
                    if moved != last.0 {
                        last = (moved, Instant::now());
                    }
                    if last.1.elapsed() > Duration::from_secs(60) {
                        if let Some(metrics) = &*observed.lock().unwrap() {
                            eprintln!(
                                "{metrics}\nalive {} global {} idle Ps {} spinning {} \
                                 blocking threads {} idle {} queued {}",
                                metrics.num_alive_tasks(),
                                metrics.global_queue_depth(),
                                metrics.num_idle_processors(),
                                metrics.num_spinning(),
                                metrics.num_blocking_threads(),
                                metrics.num_idle_blocking_threads(),
                                metrics.blocking_queue_depth(),
                            );
                        }
                        fail(&ledger, "no progress for a minute");
                    }
                    std::thread::sleep(Duration::from_millis(2));
                }
            })
        };
        Watch {
            done,
            observed,
            thread: Some(thread),
        }
    }
}

/// See [`Ledger::watch`].
#[derive(Debug)]
pub(crate) struct Watch {
    done: Arc<AtomicBool>,
    observed: Arc<Mutex<Option<RuntimeMetrics>>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Watch {
    /// What to print beside the ledger.
    pub(crate) fn observe(&self, metrics: RuntimeMetrics) {
        *self.observed.lock().unwrap() = Some(metrics);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.done.store(true, SeqCst);
        let _ = self.thread.take().unwrap().join();
    }
}
