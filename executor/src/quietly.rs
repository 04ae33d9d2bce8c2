//! User code whose panic has nobody to go to: the drop of an output that nobody awaits, a waker
//! that netpoll or a timer wakes, a hook.
//!
//! The panic hook has reported the panic when it gets here; letting it unwind further would end an
//! M, and with it the service.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs `f`; a panic ends here.
#[inline]
pub(crate) fn quietly(f: impl FnOnce()) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(f)) {
        drop_payload(payload);
    }
}

/// Drops a panic payload, whose own drop may panic; that second one is leaked.
#[cold]
fn drop_payload(payload: Box<dyn Any + Send>) {
    if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(second);
    }
}
