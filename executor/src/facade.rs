//! The loom facade: the atomics, cells and locks that the modelled modules use.
//!
//! Under `--cfg loom` these are loom's, so that the models explore the interleavings of the real
//! code; otherwise they are std's, with `UnsafeCell` given loom's closure interface so that both
//! compile from one source. Only modules with a loom model (`sched`, `task`, `os::parker`) use the
//! facade; everything else uses std directly.

#[cfg(loom)]
pub(crate) use loom::{cell::UnsafeCell, sync};

#[cfg(not(loom))]
pub(crate) use std::sync;

/// `std::cell::UnsafeCell` behind loom's interface: access only inside a closure, so that loom can
/// see when it begins and ends.
#[cfg(not(loom))]
#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

#[cfg(not(loom))]
impl<T> UnsafeCell<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(std::cell::UnsafeCell::new(value))
    }

    #[inline(always)]
    pub(crate) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
        f(self.0.get())
    }
}
