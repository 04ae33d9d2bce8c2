//! A reactor and a small `block_on`, for the tests of `netpoll` and `net`.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use super::Netpoll;
use crate::runtime::{Builder, Runtime};

/// When a test counts as hung. Nothing is expected to take any part of it.
pub(crate) const HUNG: Duration = Duration::from_secs(60);

/// A runtime for its netpoll's sake.
#[derive(Debug)]
pub(crate) struct Reactor {
    pub(crate) netpoll: Arc<Netpoll>,
    runtime: Runtime,
}

impl Reactor {
    pub(crate) fn start() -> Reactor {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        Reactor {
            netpoll: runtime.handle().scheduler().netpoll.clone(),
            runtime,
        }
    }

    /// Runs `future` on this thread, in the context of the reactor.
    pub(crate) fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        let _guard = self.runtime.enter();
        block_on(future)
    }
}

/// Runs `future` with a reactor of its own.
pub(crate) fn run<T>(future: impl Future<Output = T>) -> T {
    Reactor::start().block_on(future)
}

struct Unpark {
    thread: Thread,
    woken: AtomicBool,
}

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.woken.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

/// Runs `future` on this thread, and polls it when it is woken and at no other time.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let unpark = Arc::new(Unpark {
        thread: thread::current(),
        woken: AtomicBool::new(false),
    });
    let waker = Waker::from(unpark.clone());
    let mut cx = Context::from_waker(&waker);
    let start = Instant::now();
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
            return output;
        }
        while !unpark.woken.swap(false, Ordering::Acquire) {
            assert!(start.elapsed() < HUNG, "hung: nobody wakes the future");
            thread::park_timeout(HUNG);
        }
    }
}

/// Polls `future` once and requires that it waits.
pub(crate) async fn assert_pending<F: Future>(mut future: Pin<&mut F>) {
    poll_fn(|cx| {
        let ready = future.as_mut().poll(cx).is_ready();
        assert!(!ready, "ready, although nothing has happened yet");
        Poll::Ready(())
    })
    .await
}

/// Waits for a condition that another thread is about to bring about.
pub(crate) fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < HUNG, "never came true: {what}");
        thread::yield_now();
    }
}

/// Runs `body` in a process of its own, since it changes limits of its process: the test at `path`
/// (which starts with the crate's name) calls this, and is started a second time by itself.
pub(crate) fn in_child(path: &str, body: impl FnOnce()) {
    const MARK: &str = "GORT_TEST_CHILD";
    if std::env::var_os(MARK).is_some() {
        return body();
    }
    let (_crate, name) = path.split_once("::").expect("a path within the crate");
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(MARK, "1")
        .output()
        .unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && stdout.contains("1 passed"),
        "{name}: {}\n{stdout}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Lets the process have no further descriptor; returns what restores the limit when dropped.
pub(crate) fn no_more_descriptors() -> impl Drop {
    struct Restore(libc::rlimit);
    impl Drop for Restore {
        fn drop(&mut self) {
            // SAFETY: setrlimit reads a valid struct.
            assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &self.0) }, 0);
        }
    }
    let mut old = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: getrlimit writes a valid struct.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut old) }, 0);
    let none = libc::rlimit { rlim_cur: 0, ..old };
    // SAFETY: setrlimit reads a valid struct.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &none) }, 0);
    Restore(old)
}
