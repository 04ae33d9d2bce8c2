//! Stands in for `raw/` where it cannot be built: same face, no thread.

use super::Options;
use super::job::Job;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;

/// Whether falling back is worth a warning.
pub(super) const EXPECTED: bool = false;

const REASON: &str = if cfg!(target_arch = "x86_64") {
    "raw clone needs glibc, and this program is built for another C library"
} else {
    "raw clone is written for x86_64 only"
};

pub(super) enum Versions {
    Known,
    Any,
}

pub(super) struct Thread(Infallible);

pub(super) fn available(_: Versions) -> Result<(), &'static str> {
    Err(REASON)
}

pub(super) fn start(_: &Options, _: &Arc<Job>) -> io::Result<Thread> {
    Err(io::Error::new(io::ErrorKind::Unsupported, REASON))
}

impl Thread {
    pub(super) fn tid(&self) -> i32 {
        match self.0 {}
    }

    pub(super) fn is_finished(&self) -> bool {
        match self.0 {}
    }

    pub(super) fn join(self) {
        match self.0 {}
    }
}
