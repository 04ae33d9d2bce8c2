//! PROVISIONAL context so that net/ and time/ can be written before the scheduler lands.
//! The lead replaces the bodies; the signatures stay.
use crate::netpoll::Netpoll;
use crate::time::driver::Timers;
use std::sync::Arc;

thread_local! {
    static NETPOLL: std::cell::RefCell<Option<Arc<Netpoll>>> = const { std::cell::RefCell::new(None) };
}

/// The current runtime's netpoll. Panics with tokio's wording outside a runtime, or when I/O is disabled.
#[track_caller]
pub(crate) fn netpoll() -> Arc<Netpoll> {
    NETPOLL.with(|n| n.borrow().clone()).expect("there is no reactor running")
}

#[allow(dead_code)]
pub(crate) fn set_netpoll_provisional(n: Option<Arc<Netpoll>>) {
    NETPOLL.with(|c| *c.borrow_mut() = n);
}

thread_local! {
    static TIMERS: std::cell::RefCell<Option<Arc<Timers>>> = const { std::cell::RefCell::new(None) };
}

/// The current runtime's timers and the queue to use here: that of the current P, or one chosen
/// by the thread. Panics outside a runtime, or when time is disabled.
#[track_caller]
pub(crate) fn timers() -> (Arc<Timers>, usize) {
    let Some(timers) = TIMERS.with(|t| t.borrow().clone()) else {
        panic!(
            "there is no runtime with timers here: create sleeps, timeouts and intervals inside \
             a gort runtime whose Builder had enable_time() or enable_all() called"
        );
    };
    let queue = thread_hash() % timers.queues();
    (timers, queue)
}

/// A number that differs from thread to thread.
fn thread_hash() -> usize {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        // Relaxed: only that the numbers differ matters.
        static ID: usize = NEXT.fetch_add(1, Ordering::Relaxed);
    }
    ID.with(|id| *id)
}

#[allow(dead_code)]
pub(crate) fn set_timers_provisional(t: Option<Arc<Timers>>) {
    TIMERS.with(|c| *c.borrow_mut() = t);
}
