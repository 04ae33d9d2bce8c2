//! Starting and ending the OS threads behind the Ms.
//!
//! # Contract
//!
//! [`spawn`] starts a thread that runs a closure once and catches its panic; the [`JoinHandle`] is
//! the only way to learn the outcome. Whatever back end does the work, a thread
//!
//! - inherits its creator's signal mask, CPU affinity and scheduling policy, as a pthread does;
//! - carries the first 15 bytes of its name where `ps`, `top` and debuggers look (`comm`);
//! - has a stack of at least `stack_size` bytes below which a guard page lies, and a stack of its
//!   own for signal handlers, so that an overflow is reported by thread name before the abort;
//! - runs the destructors of its thread locals, Rust's, C++'s and pthread's;
//! - is always joined and never detached: a handle that is dropped goes to the [`reaper`].
//!
//! # Back ends
//!
//! [`raw`] makes the thread with the `clone` system call on a mapping that gort owns, and is what
//! [`ThreadBackend::Auto`] takes where its start-up check passes: x86_64 with dynamically linked
//! glibc. [`std_thread`] is `std::thread`, for everything else. [`selected`] says which of the two
//! runs and why the first was not taken.
//!
//! The environment variable `GORT_THREAD_BACKEND` (`raw`, `std` or `auto`, read once) answers for
//! `Auto`, so that an operator can change the back end of a service without building it again. It
//! does not touch a builder that names a back end. `raw` means [`ThreadBackend::RawClone`]: it also
//! tries a glibc newer than those that were measured, and fails rather than fall back. Any other
//! value is an error of every `spawn` under `Auto`, not a warning: whoever sets it is hunting a
//! fault and must not be left to believe that it took effect.
//!
//! # Refusals
//!
//! `EAGAIN` means that a limit on threads was reached, often for a moment only. It is tried again
//! [`RETRIES`] times with growing pauses and then returned with the limits in force and what to do
//! about them ([`limits`]).
//!
//! # After `fork`
//!
//! Only the forking thread exists in the child. A handle from before the fork then reads as
//! finished, and joining it is an error at once instead of a wait for ever ([`fork`]). New threads
//! may be started in the child; nothing here holds a lock that a lost thread could have kept. There
//! are two exceptions. A fork in the milliseconds in which another thread makes the very first spawn
//! of the process leaves the child unable to spawn. And std::thread has such a lock (its table of
//! stacks): with that back end a child may hang in its first spawn if it was forked while another
//! thread started or ended.

mod fork;
mod job;
mod limits;
mod reaper;
mod std_thread;

#[cfg(all(target_arch = "x86_64", target_os = "linux", target_env = "gnu"))]
mod raw;
#[cfg(not(all(target_arch = "x86_64", target_os = "linux", target_env = "gnu")))]
#[path = "raw_unavailable.rs"]
mod raw;

pub(crate) mod conformance;

use crate::runtime::ThreadBackend;
use job::Job;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// How often `EAGAIN` is tried again, with pauses of 1, 2, 3 … ms: 210 ms in all. Go's
/// `retryOnEAGAIN` waits as often and as long.
const RETRIES: u32 = 20;

/// The variable that answers for [`ThreadBackend::Auto`].
const ENV: &str = "GORT_THREAD_BACKEND";

/// What a new thread is to look like.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// Shown by `ps` and debuggers, which keep 15 bytes. Must not contain NUL.
    pub(crate) name: String,
    /// Bytes of stack, rounded up to whole pages and to the system's minimum.
    pub(crate) stack_size: usize,
    pub(crate) backend: ThreadBackend,
}

/// The back end that really runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backend {
    Raw,
    Std,
}

/// The answer of [`selected`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Selected {
    pub(crate) backend: Backend,
    /// Why `Auto` could not take the raw back end. `None` where nothing was given up.
    pub(crate) fallback: Option<&'static str>,
}

/// Which back end serves `asked`. The first call that considers the raw one runs its start-up
/// check, which takes from half a millisecond to ten.
///
/// # Errors
///
/// `RawClone` was asked for and is not possible here, or `GORT_THREAD_BACKEND` makes no sense.
pub(crate) fn selected(asked: ThreadBackend) -> io::Result<Selected> {
    let asked = match asked {
        ThreadBackend::Auto => from_environment()?,
        named => named,
    };
    let (backend, fallback) = match asked {
        ThreadBackend::Std => (Backend::Std, None),
        ThreadBackend::RawClone => match raw::available(raw::Versions::Any) {
            Ok(()) => (Backend::Raw, None),
            Err(reason) => return Err(impossible(reason)),
        },
        ThreadBackend::Auto => match raw::available(raw::Versions::Known) {
            Ok(()) => (Backend::Raw, None),
            Err(reason) => {
                report_fallback(reason);
                (Backend::Std, Some(reason))
            }
        },
    };
    Ok(Selected { backend, fallback })
}

fn impossible(reason: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::Unsupported,
        format!(
            "ThreadBackend::RawClone (or {ENV}=raw) was asked for, but threads cannot be made by \
             raw clone here: {reason}. Use ThreadBackend::Auto or ThreadBackend::Std"
        ),
    )
}

/// Tells the log once that `Auto` fell back, as a warning where raw clone is normally possible.
fn report_fallback(reason: &str) {
    static REPORTED: AtomicBool = AtomicBool::new(false);
    // Relaxed: the flag only counts, nothing is published through it.
    if REPORTED.swap(true, Ordering::Relaxed) {
        return;
    }
    if raw::EXPECTED {
        tracing::warn!(target: "gort::thread", reason, "OS threads come from std::thread, not from raw clone");
    } else {
        tracing::info!(target: "gort::thread", reason, "OS threads come from std::thread");
    }
}

/// What `GORT_THREAD_BACKEND` says in place of `Auto`.
fn from_environment() -> io::Result<ThreadBackend> {
    static SAYS: OnceLock<Result<ThreadBackend, String>> = OnceLock::new();
    SAYS.get_or_init(|| match std::env::var_os(ENV) {
        None => Ok(ThreadBackend::Auto),
        Some(value) => match value.to_str() {
            Some("auto" | "") => Ok(ThreadBackend::Auto),
            Some("raw") => Ok(ThreadBackend::RawClone),
            Some("std") => Ok(ThreadBackend::Std),
            _ => Err(format!("{ENV} is {value:?}: expected raw, std or auto")),
        },
    })
    .clone()
    .map_err(|message| io::Error::new(io::ErrorKind::InvalidInput, message))
}

/// Starts a thread that runs `f`.
///
/// # Errors
///
/// The system refused (the error says which limits are in force), the name holds a NUL byte, or
/// the back end asked for is not possible here ([`selected`]). `f` is dropped on this thread then.
pub(crate) fn spawn(options: &Options, f: Box<dyn FnOnce() + Send>) -> io::Result<JoinHandle> {
    if options.name.as_bytes().contains(&0) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("a thread name must not contain NUL: {:?}", options.name),
        ));
    }
    let backend = selected(options.backend)?.backend;
    fork::register()?;

    let job = Arc::new(Job::new(f));
    let mut attempt = 0;
    loop {
        // Before every attempt: a finished thread that nobody joined may be what the limit lacks.
        reaper::reap();
        let started = match backend {
            Backend::Raw => raw::start(options, &job).map(Thread::Raw),
            Backend::Std => std_thread::start(options, &job).map(Thread::Std),
        };
        match started {
            Ok(thread) => return Ok(JoinHandle::new(thread, job)),
            Err(e) if e.raw_os_error() == Some(libc::EAGAIN) && attempt < RETRIES => {
                attempt += 1;
                std::thread::sleep(Duration::from_millis(attempt.into()));
            }
            Err(e) => return Err(limits::explain(&e, options, attempt)),
        }
    }
}

/// A thread as its back end knows it.
enum Thread {
    Raw(raw::Thread),
    Std(std_thread::Thread),
}

/// The owner of a thread. Dropped without [`join`](Self::join), it hands the thread to the reaper.
pub(crate) struct JoinHandle {
    /// `None` only while `join` or `drop` is taking the handle apart.
    thread: Option<Thread>,
    job: Arc<Job>,
    /// The [`fork::generation`] in which the thread was started.
    generation: u32,
}

impl JoinHandle {
    fn new(thread: Thread, job: Arc<Job>) -> Self {
        Self {
            thread: Some(thread),
            job,
            generation: fork::generation(),
        }
    }

    /// Waits until the thread has ended, its thread-local destructors included, and returns the
    /// closure's panic, if any.
    ///
    /// # Panics
    ///
    /// If a thread joins itself, which could never return.
    pub(crate) fn join(mut self) -> std::thread::Result<()> {
        if self.lost_in_fork() {
            return Err(Box::new(
                "the thread was started before fork() and does not exist in this process",
            ));
        }
        match self.thread.take() {
            Some(Thread::Raw(thread)) => thread.join(),
            Some(Thread::Std(thread)) => thread.join(),
            None => unreachable!("only join and drop take the thread, and both end the handle"),
        }
        let result = self.job.take_result();
        reaper::reap();
        result.unwrap_or_else(|| {
            Err(Box::new(
                "the thread ended without finishing its closure (pthread_exit or cancellation)",
            ))
        })
    }

    /// The kernel's id of the thread (`gettid`), the one in `/proc/self/task`. It may be reused
    /// once the thread has ended. With the std back end this waits until the thread runs.
    pub(crate) fn tid(&self) -> i32 {
        match &self.thread {
            Some(Thread::Raw(thread)) => thread.tid(),
            Some(Thread::Std(_)) => self.job.tid(),
            None => unreachable!("only join and drop take the thread, and both end the handle"),
        }
    }

    /// Whether `join` would return without waiting for the closure. Never blocks.
    pub(crate) fn is_finished(&self) -> bool {
        self.lost_in_fork()
            || match &self.thread {
                Some(Thread::Raw(thread)) => thread.is_finished(),
                Some(Thread::Std(thread)) => thread.is_finished(),
                None => true,
            }
    }

    fn lost_in_fork(&self) -> bool {
        self.generation != fork::generation()
    }
}

impl Drop for JoinHandle {
    fn drop(&mut self) {
        let Some(thread) = self.thread.take() else {
            return;
        };
        if self.lost_in_fork() {
            // Not even dropped: std would detach it, and glibc free what this process's copy of it
            // no longer describes.
            std::mem::forget(thread);
        } else {
            reaper::adopt(JoinHandle {
                thread: Some(thread),
                job: self.job.clone(),
                generation: self.generation,
            });
        }
    }
}

impl fmt::Debug for JoinHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let backend = match &self.thread {
            Some(Thread::Raw(_)) => Some(Backend::Raw),
            Some(Thread::Std(_)) => Some(Backend::Std),
            None => None,
        };
        f.debug_struct("JoinHandle")
            .field("backend", &backend)
            .field("finished", &self.is_finished())
            .finish_non_exhaustive()
    }
}
