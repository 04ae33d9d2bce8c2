//! Signals by their Unix names.

use super::hub::{Hub, Listener};
use std::ffi::c_int;
use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};

/// Which signal to listen for.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
pub struct SignalKind(c_int);

impl SignalKind {
    /// Any signal, by its number.
    pub const fn from_raw(signum: c_int) -> Self {
        Self(signum)
    }

    /// The signal's number.
    ///
    /// ```
    /// # use gort::signal::unix::SignalKind;
    /// assert_eq!(SignalKind::interrupt().as_raw_value(), 2);
    /// ```
    pub const fn as_raw_value(&self) -> c_int {
        self.0
    }

    /// `SIGALRM`: a timer of `alarm` or `setitimer` is over. Ends the process by default.
    pub const fn alarm() -> Self {
        Self(libc::SIGALRM)
    }

    /// `SIGCHLD`: a child process has stopped or ended. Ignored by default.
    pub const fn child() -> Self {
        Self(libc::SIGCHLD)
    }

    /// `SIGHUP`: the terminal is gone; for services by custom: read the configuration again. Ends
    /// the process by default.
    pub const fn hangup() -> Self {
        Self(libc::SIGHUP)
    }

    /// `SIGINT`: Ctrl-C in the terminal. Ends the process by default.
    pub const fn interrupt() -> Self {
        Self(libc::SIGINT)
    }

    /// `SIGIO`: a file descriptor is ready, for those who asked for it. Ends the process by default.
    pub const fn io() -> Self {
        Self(libc::SIGIO)
    }

    /// `SIGPIPE`: a write to a pipe that nobody reads. Ends the process by default, but Rust
    /// programs ignore it from the start.
    pub const fn pipe() -> Self {
        Self(libc::SIGPIPE)
    }

    /// `SIGQUIT`: Ctrl-\ in the terminal. Ends the process with a core dump by default.
    pub const fn quit() -> Self {
        Self(libc::SIGQUIT)
    }

    /// `SIGTERM`: what `kill` and service managers send to have a process end. Ends it by default.
    pub const fn terminate() -> Self {
        Self(libc::SIGTERM)
    }

    /// `SIGUSR1`: yours to define. Ends the process by default.
    pub const fn user_defined1() -> Self {
        Self(libc::SIGUSR1)
    }

    /// `SIGUSR2`: yours to define. Ends the process by default.
    pub const fn user_defined2() -> Self {
        Self(libc::SIGUSR2)
    }

    /// `SIGWINCH`: the terminal's window has another size. Ignored by default.
    pub const fn window_change() -> Self {
        Self(libc::SIGWINCH)
    }
}

impl From<c_int> for SignalKind {
    fn from(signum: c_int) -> Self {
        Self::from_raw(signum)
    }
}

impl From<SignalKind> for c_int {
    fn from(kind: SignalKind) -> Self {
        kind.as_raw_value()
    }
}

/// Starts to listen for a signal.
///
/// Every listener of a signal hears of it, in all runtimes. The first one installs a signal
/// handler, which replaces what the system does by default **for as long as the process lives**,
/// also when all listeners have been dropped.
///
/// # Errors
///
/// If the number is none of a signal that a process may handle, the handler cannot be installed,
/// its eventfd cannot be made or watched (mostly for want of descriptors), or the runtime is
/// shutting down.
///
/// # Panics
///
/// If it is called outside of a runtime, or in one that has no I/O (see `Builder::enable_io`).
///
/// # Examples
///
/// ```no_run
/// use gort::signal::unix::{SignalKind, signal};
///
/// # async fn example() -> std::io::Result<()> {
/// let mut hangups = signal(SignalKind::hangup())?;
/// while hangups.recv().await.is_some() {
///     println!("reading the configuration again");
/// }
/// # Ok(())
/// # }
/// ```
#[track_caller]
pub fn signal(kind: SignalKind) -> io::Result<Signal> {
    let listener = Hub::current()?.listen(kind.0)?;
    Ok(Signal { listener })
}

/// Hears of every signal of one kind from its creation on: what [`signal`] returns.
///
/// Signals are not counted. Those that come before the listener looks are one to it, as they may
/// be one to the kernel already; but one that comes after it has looked is always reported.
#[derive(Debug)]
#[must_use = "a listener does nothing unless it is polled"]
pub struct Signal {
    pub(super) listener: Listener,
}

impl Signal {
    /// Waits for the next signal. `None` means that the runtime is shutting down, so that no
    /// signal will be reported any more.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a `recv` that is dropped before it completes has lost no signal.
    pub async fn recv(&mut self) -> Option<()> {
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// Polls for the next signal; `None` as in [`recv`](Self::recv).
    ///
    /// While it is pending, the waker of the last call is the one that is woken.
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<()>> {
        self.listener.poll(cx)
    }
}
