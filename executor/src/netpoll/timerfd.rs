//! Timeouts finer than epoll_wait's.
//!
//! epoll_wait counts whole milliseconds, and mio rounds up, so a task that sleeps 100 µs would
//! sleep ten times that on an idle runtime. For a timeout with a fraction of a millisecond the
//! poller arms a timerfd, whose expiry is an event like any other. That is one system call more,
//! and only on an M that is about to block.
//!
//! A poll that something else ends leaves it armed. The next one arms it anew, or, if it has no
//! such timeout, may be cut short by it once: cheaper than a system call each time to disarm it.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};

#[derive(Debug)]
pub(super) struct TimerFd(OwnedFd);

impl TimerFd {
    pub(super) fn new(registry: &Registry, token: Token) -> io::Result<TimerFd> {
        // SAFETY: takes no pointers.
        let fd = unsafe {
            libc::timerfd_create(
                libc::CLOCK_MONOTONIC,
                libc::TFD_NONBLOCK | libc::TFD_CLOEXEC,
            )
        };
        if fd == -1 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call has just opened it, so nobody else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        // Edge-triggered, so that expiries need not be read.
        registry.register(&mut SourceFd(&fd.as_raw_fd()), token, Interest::READABLE)?;
        Ok(TimerFd(fd))
    }

    /// Arms it if epoll_wait would round `timeout`. Best effort: the caller gives epoll_wait the
    /// rounded timeout in any case.
    pub(super) fn arm_for_fraction(&self, timeout: Duration) {
        if timeout.subsec_nanos() % 1_000_000 == 0 {
            return;
        }
        let Ok(tv_sec) = libc::time_t::try_from(timeout.as_secs()) else {
            return;
        };
        let zero = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let once = libc::itimerspec {
            it_interval: zero,
            it_value: libc::timespec {
                tv_sec,
                tv_nsec: timeout.subsec_nanos() as libc::c_long,
            },
        };
        // SAFETY: reads a valid struct; a null old value is allowed.
        let armed =
            unsafe { libc::timerfd_settime(self.0.as_raw_fd(), 0, &once, std::ptr::null_mut()) };
        debug_assert_eq!(armed, 0, "{}", io::Error::last_os_error());
    }
}
