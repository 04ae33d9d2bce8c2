//! `Builder`.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::{Handle, Runtime, schedtrace};
use crate::os::{cpu, thread};
use crate::sched::config::{Config, Flavor, Hook, Hooks, ThreadName};
use crate::sched::{Scheduler, Wait};

/// How the runtime's OS threads are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ThreadBackend {
    /// Raw `clone` where the start-up self-check passes, `std::thread` otherwise; the environment
    /// variable `GORT_THREAD_BACKEND` (`raw` or `std`) decides for this choice.
    #[default]
    Auto,
    /// Raw `clone`; `build()` fails where the self-check does not pass.
    RawClone,
    /// `std::thread`.
    Std,
}

/// Builds a [`Runtime`] with other settings than the default ones.
///
/// Names and meanings are those of tokio's builder. I/O and time are off until enabled, as there.
///
/// # Examples
///
/// ```
/// let runtime = gort::runtime::Builder::new_multi_thread()
///     .worker_threads(4)
///     .thread_name("my-service")
///     .enable_all()
///     .build()?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone)]
pub struct Builder {
    flavor: Flavor,
    worker_threads: Option<usize>,
    max_blocking_threads: usize,
    thread_name: ThreadName,
    thread_stack_size: usize,
    thread_keep_alive: Duration,
    thread_backend: ThreadBackend,
    global_queue_interval: u32,
    event_interval: u32,
    io_events: usize,
    enable_io: bool,
    enable_time: bool,
    hooks: Hooks,
}

/// Go's `schedtick % 61`, and tokio's default for the same: prime, so that it falls into step
/// with no period of the load's own.
const GLOBAL_QUEUE_INTERVAL: u32 = 61;
/// tokio's default: often enough that a busy worker notices its sockets, seldom enough that the
/// system call is lost in the noise.
const EVENT_INTERVAL: u32 = 61;
/// tokio's default, and `std::thread`'s.
const STACK_SIZE: usize = 2 << 20;
/// tokio's default.
const MAX_BLOCKING_THREADS: usize = 512;
/// tokio's default.
const THREAD_KEEP_ALIVE: Duration = Duration::from_secs(10);
/// tokio's default.
const IO_EVENTS: usize = 1024;
/// One processor costs some 10 KiB; more of them than this is a mistake, not a machine.
const MAX_WORKERS: usize = 1 << 16;

impl Builder {
    fn new(flavor: Flavor) -> Self {
        Self {
            flavor,
            worker_threads: None,
            max_blocking_threads: MAX_BLOCKING_THREADS,
            thread_name: ThreadName(Arc::new(|| "gort-worker".into())),
            thread_stack_size: STACK_SIZE,
            thread_keep_alive: THREAD_KEEP_ALIVE,
            thread_backend: ThreadBackend::Auto,
            global_queue_interval: GLOBAL_QUEUE_INTERVAL,
            event_interval: EVENT_INTERVAL,
            io_events: IO_EVENTS,
            enable_io: false,
            enable_time: false,
            hooks: Hooks::default(),
        }
    }

    /// A runtime with threads of its own.
    pub fn new_multi_thread() -> Self {
        Self::new(Flavor::MultiThread)
    }

    /// A runtime that runs on the thread that calls [`Runtime::block_on`].
    pub fn new_current_thread() -> Self {
        Self::new(Flavor::CurrentThread)
    }

    /// Enables sockets and timers.
    pub fn enable_all(&mut self) -> &mut Self {
        self.enable_io().enable_time()
    }

    /// Enables sockets and signals.
    pub fn enable_io(&mut self) -> &mut Self {
        self.enable_io = true;
        self
    }

    /// Enables sleeps, timeouts and intervals.
    pub fn enable_time(&mut self) -> &mut Self {
        self.enable_time = true;
        self
    }

    /// How many processors the runtime has: how many tasks run at the same time. Without effect on
    /// a current-thread runtime.
    ///
    /// The default is what the process may use: its CPU affinity mask, limited by its cgroup's CPU
    /// quota (v1 or v2). The environment variable `GORT_WORKERS` overrides the default.
    ///
    /// # Panics
    ///
    /// If `count` is 0.
    #[track_caller]
    pub fn worker_threads(&mut self, count: usize) -> &mut Self {
        assert!(count > 0, "Worker threads cannot be set to 0");
        self.worker_threads = Some(count);
        self
    }

    /// How many threads may run `spawn_blocking` closures at once. Default: 512.
    ///
    /// # Panics
    ///
    /// If `count` is 0.
    #[track_caller]
    pub fn max_blocking_threads(&mut self, count: usize) -> &mut Self {
        assert!(count > 0, "Max blocking threads cannot be set to 0");
        self.max_blocking_threads = count;
        self
    }

    /// The name of the runtime's threads; Linux shows its first 15 bytes. Default: `gort-worker`.
    pub fn thread_name(&mut self, name: impl Into<String>) -> &mut Self {
        let name = name.into();
        self.thread_name_fn(move || name.clone())
    }

    /// Makes the names of the runtime's threads; called once a thread, on whichever thread wants
    /// the new one. If it panics, the thread is called `gort-worker`.
    pub fn thread_name_fn<F>(&mut self, name: F) -> &mut Self
    where
        F: Fn() -> String + Send + Sync + 'static,
    {
        self.thread_name = ThreadName(Arc::new(name));
        self
    }

    /// The stack size of the runtime's threads, in bytes. Default: 2 MiB.
    pub fn thread_stack_size(&mut self, bytes: usize) -> &mut Self {
        self.thread_stack_size = bytes;
        self
    }

    /// How long a thread that is not needed waits before it ends: one for blocking closures, or
    /// one beyond the number of processors. Default: 10 seconds.
    pub fn thread_keep_alive(&mut self, duration: Duration) -> &mut Self {
        self.thread_keep_alive = duration;
        self
    }

    /// How the runtime's OS threads are made.
    pub fn thread_backend(&mut self, backend: ThreadBackend) -> &mut Self {
        self.thread_backend = backend;
        self
    }

    /// After how many polls a processor takes a task from the global queue before its own.
    /// Default: 61.
    ///
    /// # Panics
    ///
    /// If `interval` is 0.
    #[track_caller]
    pub fn global_queue_interval(&mut self, interval: u32) -> &mut Self {
        assert!(interval > 0, "global_queue_interval must be greater than 0");
        self.global_queue_interval = interval;
        self
    }

    /// After how many polls a busy processor looks at sockets and timers. Default: 61.
    ///
    /// # Panics
    ///
    /// If `interval` is 0.
    #[track_caller]
    pub fn event_interval(&mut self, interval: u32) -> &mut Self {
        assert!(interval > 0, "event_interval must be greater than 0");
        self.event_interval = interval;
        self
    }

    /// How many socket events are taken from the system at once. Default: 1024.
    ///
    /// # Panics
    ///
    /// If `capacity` is 0.
    #[track_caller]
    pub fn max_io_events_per_tick(&mut self, capacity: usize) -> &mut Self {
        assert!(
            capacity > 0,
            "max_io_events_per_tick must be greater than 0"
        );
        self.io_events = capacity;
        self
    }

    /// Called on each of the runtime's threads when it starts.
    ///
    /// A panic in this or one of the other callbacks is reported by the panic hook and ignored.
    pub fn on_thread_start<F: Fn() + Send + Sync + 'static>(&mut self, f: F) -> &mut Self {
        self.hooks.thread_start = hook(f);
        self
    }

    /// Called on each of the runtime's threads before it ends.
    pub fn on_thread_stop<F: Fn() + Send + Sync + 'static>(&mut self, f: F) -> &mut Self {
        self.hooks.thread_stop = hook(f);
        self
    }

    /// Called on a worker thread just before it goes to sleep for want of work.
    pub fn on_thread_park<F: Fn() + Send + Sync + 'static>(&mut self, f: F) -> &mut Self {
        self.hooks.thread_park = hook(f);
        self
    }

    /// Called on a worker thread just after it woke up.
    pub fn on_thread_unpark<F: Fn() + Send + Sync + 'static>(&mut self, f: F) -> &mut Self {
        self.hooks.thread_unpark = hook(f);
        self
    }

    /// Builds the runtime and starts its threads.
    ///
    /// # Errors
    ///
    /// If a thread cannot be started (the error names the limit to look at), if
    /// [`ThreadBackend::RawClone`] was asked for and is not possible here, or if the descriptors
    /// for epoll cannot be had, or if `GORT_SCHEDTRACE` is set to nonsense. What had been started is ended again.
    ///
    /// # Panics
    ///
    /// If the number of workers comes from `GORT_WORKERS` and that is not a positive number.
    pub fn build(&mut self) -> io::Result<Runtime> {
        let processors = match self.flavor {
            Flavor::CurrentThread => 1,
            Flavor::MultiThread => self
                .worker_threads
                .unwrap_or_else(cpu::default_worker_count),
        };
        if processors > MAX_WORKERS {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{processors} worker threads were asked for; the most is {MAX_WORKERS}"),
            ));
        }
        let scheduler = Scheduler::new(Config {
            flavor: self.flavor,
            processors: processors as u32,
            thread_name: self.thread_name.clone(),
            thread: thread::Options {
                name: String::new(),
                stack_size: self.thread_stack_size,
                backend: self.thread_backend,
            },
            thread_keep_alive: self.thread_keep_alive,
            max_blocking_threads: self.max_blocking_threads,
            global_queue_interval: self.global_queue_interval,
            event_interval: self.event_interval,
            io_events: self.io_events,
            enable_io: self.enable_io,
            enable_time: self.enable_time,
            hooks: self.hooks.clone(),
        })?;
        if self.flavor == Flavor::MultiThread {
            for started in 0..processors {
                if let Err(error) = scheduler.start_machine(None) {
                    scheduler.shut_down(Wait::Forever);
                    return Err(io::Error::new(
                        error.kind(),
                        format!("worker thread {} of {processors}: {error}", started + 1),
                    ));
                }
            }
        }
        if let Err(error) = schedtrace::start(&scheduler) {
            scheduler.shut_down(Wait::Forever);
            return Err(error);
        }
        Ok(Runtime::from_handle(Handle::new(scheduler)))
    }
}

fn hook(f: impl Fn() + Send + Sync + 'static) -> Hook {
    Some(Arc::new(f))
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("flavor", &self.flavor)
            .field("worker_threads", &self.worker_threads)
            .field("max_blocking_threads", &self.max_blocking_threads)
            .field("thread_stack_size", &self.thread_stack_size)
            .field("thread_keep_alive", &self.thread_keep_alive)
            .field("thread_backend", &self.thread_backend)
            .finish_non_exhaustive()
    }
}
