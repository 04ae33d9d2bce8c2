//! What a scheduler is built with.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::os::thread;
use crate::quietly::quietly;

/// Which threads hold the Ps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flavor {
    /// The runtime's own Ms.
    MultiThread,
    /// One P, held by whichever thread is in `Runtime::block_on`.
    CurrentThread,
}

impl Flavor {
    pub(crate) fn is_current_thread(self) -> bool {
        self == Self::CurrentThread
    }
}

/// See the methods of `runtime::Builder` for what each means.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) flavor: Flavor,
    pub(crate) processors: u32,
    pub(crate) thread_name: ThreadName,
    pub(crate) thread: thread::Options,
    pub(crate) thread_keep_alive: Duration,
    pub(crate) max_blocking_threads: usize,
    pub(crate) global_queue_interval: u32,
    pub(crate) event_interval: u32,
    pub(crate) io_events: usize,
    pub(crate) enable_io: bool,
    pub(crate) enable_time: bool,
    pub(crate) hooks: Hooks,
}

/// Names threads; called once a thread.
#[derive(Clone)]
pub(crate) struct ThreadName(pub(crate) Arc<dyn Fn() -> String + Send + Sync>);

impl ThreadName {
    /// The next name. User code: mark down, no locks.
    pub(crate) fn make(&self) -> String {
        // A panic has been reported by the hook; a thread without its name is better than none.
        let mut name = None;
        quietly(|| name = Some((self.0)()));
        name.unwrap_or_else(|| "gort-worker".into())
    }
}

impl fmt::Debug for ThreadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ThreadName")
    }
}

pub(crate) type Hook = Option<Arc<dyn Fn() + Send + Sync>>;

/// The user's callbacks. Always called with the mark down; a panic in one is reported by the
/// panic hook and goes no further.
#[derive(Clone, Default)]
pub(crate) struct Hooks {
    pub(crate) thread_start: Hook,
    pub(crate) thread_stop: Hook,
    pub(crate) thread_park: Hook,
    pub(crate) thread_unpark: Hook,
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hooks")
    }
}

fn call(hook: &Hook) {
    if let Some(hook) = hook {
        quietly(|| hook());
    }
}

impl Hooks {
    pub(crate) fn started(&self) {
        call(&self.thread_start);
    }

    pub(crate) fn stopped(&self) {
        call(&self.thread_stop);
    }

    pub(crate) fn parked(&self) {
        call(&self.thread_park);
    }

    pub(crate) fn unparked(&self) {
        call(&self.thread_unpark);
    }
}
