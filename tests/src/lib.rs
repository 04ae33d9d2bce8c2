//! The tests of gort: integration tests in `tests/`, a file a feature, and what they share.
//!
//! No test depends on speed: tests wait for conditions ([`wait_until`]), hold tasks at a point
//! ([`Gate`]) and count ([`Count`], [`Probe`]). A test that hangs is ended by its [`Watchdog`],
//! which says which one it was.

mod child;
mod probe;

pub use child::in_child;
pub use probe::{Count, Probe, counting_waker};

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use gort::runtime::{Builder, Runtime};

/// How long a condition may take before the test is given up: two cores that are shared with
/// everything else that runs on this machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `condition` holds; panics with `what` if it does not come to hold.
#[track_caller]
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "this never came to be: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// As [`wait_until`], for async code: lets other tasks run between two looks.
pub async fn yield_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "this never came to be: {what}");
        gort::task::yield_now().await;
    }
}

/// A door that threads block at until it is opened.
#[derive(Clone, Debug, Default)]
pub struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    /// A closed gate.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets everybody through, now and later.
    pub fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    /// Whether it has been opened.
    pub fn is_open(&self) -> bool {
        *self.0.0.lock().unwrap()
    }

    /// Blocks the thread until the gate is open.
    #[track_caller]
    pub fn pass(&self) {
        let open = self.0.0.lock().unwrap();
        let (open, _) = self
            .0
            .1
            .wait_timeout_while(open, PATIENCE, |open| !*open)
            .unwrap();
        assert!(*open, "this gate was never opened");
    }
}

/// Ends the process if the test has not ended after two minutes: a hang must name itself.
#[derive(Debug)]
pub struct Watchdog(Arc<AtomicBool>);

impl Watchdog {
    /// Watches until it is dropped.
    #[must_use]
    pub fn new(what: &str) -> Self {
        let done = Arc::new(AtomicBool::new(false));
        let test = std::thread::current().name().unwrap_or("?").to_owned();
        let (what, watched) = (what.to_owned(), done.clone());
        std::thread::spawn(move || {
            let start = Instant::now();
            while !watched.load(SeqCst) {
                if start.elapsed() > 2 * PATIENCE {
                    eprintln!("test {test} hangs ({what})");
                    std::process::abort();
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        Self(done)
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

/// The threads of a runtime, gathered by its hooks.
#[derive(Clone, Debug, Default)]
pub struct Threads(Arc<Mutex<HashSet<ThreadId>>>);

impl Threads {
    /// Gathers the threads of the runtimes that `builder` builds.
    pub fn of(builder: &mut Builder) -> Self {
        let threads = Self::default();
        let gather = threads.clone();
        builder.on_thread_start(move || {
            gather.0.lock().unwrap().insert(std::thread::current().id());
        });
        threads
    }

    /// Whether the thread was one of them.
    pub fn contains(&self, thread: ThreadId) -> bool {
        self.0.lock().unwrap().contains(&thread)
    }
}

/// A current-thread builder with everything enabled.
pub fn current_thread() -> Builder {
    let mut builder = Builder::new_current_thread();
    builder.enable_all();
    builder
}

/// A multi-thread builder with everything enabled.
pub fn multi_thread(workers: usize) -> Builder {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(workers).enable_all();
    builder
}

/// The worker counts that tests of the multi-thread flavor run with.
pub const WORKERS: [usize; 3] = [1, 2, 4];

/// Runs `test` on a runtime of each kind.
pub fn on_each_runtime(test: impl Fn(&Runtime)) {
    {
        let _watchdog = Watchdog::new("current-thread runtime");
        test(&current_thread().build().unwrap());
    }
    on_each_multi_thread(test);
}

/// Runs `test` on a multi-thread runtime of each of [`WORKERS`].
pub fn on_each_multi_thread(test: impl Fn(&Runtime)) {
    for workers in WORKERS {
        let _watchdog = Watchdog::new(&format!("multi-thread runtime, {workers} workers"));
        test(&multi_thread(workers).build().unwrap());
    }
}

/// The message of a panic.
pub fn message(payload: &(dyn std::any::Any + Send)) -> &str {
    payload
        .downcast_ref::<&'static str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("the payload is no string")
}

/// The message of the panic that `f` ends with.
#[track_caller]
pub fn panic_message(f: impl FnOnce()) -> String {
    let payload = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f))
        .expect_err("there should have been a panic");
    message(&*payload).to_owned()
}

/// The README's code, as documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
