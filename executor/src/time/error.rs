//! The errors of timers.

use std::{error, fmt, io};

/// Why a timer could not do its work.
///
/// gort itself meets one kind, shutdown: the runtime whose clock the timer hangs on has ended. The
/// other kinds exist for code that was written for tokio's timers.
#[derive(Clone, Copy, Debug)]
pub struct Error(Kind);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Shutdown,
    AtCapacity,
    Invalid,
}

impl Error {
    /// The error of a timer whose runtime has shut down. It is permanent.
    pub fn shutdown() -> Self {
        Self(Kind::Shutdown)
    }

    /// Whether the runtime of the timer has shut down.
    pub fn is_shutdown(&self) -> bool {
        self.0 == Kind::Shutdown
    }

    /// The error of a timer system that is full. gort's has no limit.
    pub fn at_capacity() -> Self {
        Self(Kind::AtCapacity)
    }

    /// Whether there were too many timers.
    pub fn is_at_capacity(&self) -> bool {
        self.0 == Kind::AtCapacity
    }

    /// The error of a duration that the timer system cannot represent. gort takes every duration.
    pub fn invalid() -> Self {
        Self(Kind::Invalid)
    }

    /// Whether the duration was too long.
    pub fn is_invalid(&self) -> bool {
        self.0 == Kind::Invalid
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Kind::Shutdown => {
                "the runtime that this timer belongs to has shut down, so it can never fire; \
                 drop timers before their runtime, or create them in one that is still running"
            }
            Kind::AtCapacity => "there are too many timers to add another one",
            Kind::Invalid => "the duration is longer than a timer can measure",
        })
    }
}

impl error::Error for Error {}

/// The error of [`timeout`](super::timeout()) and [`timeout_at`](super::timeout_at): the time was
/// up before the future completed.
#[derive(Debug, PartialEq, Eq)]
pub struct Elapsed(());

impl Elapsed {
    pub(crate) fn new() -> Self {
        Self(())
    }
}

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // tokio's words: programs match on them.
        f.write_str("deadline has elapsed")
    }
}

impl error::Error for Elapsed {}

/// An [`io::Error`] of the kind [`TimedOut`](io::ErrorKind::TimedOut).
impl From<Elapsed> for io::Error {
    fn from(_: Elapsed) -> Self {
        io::ErrorKind::TimedOut.into()
    }
}
