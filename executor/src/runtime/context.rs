//! PROVISIONAL context so that net/ and time/ can be written before the scheduler lands.
//! The lead replaces the bodies; the signatures stay.
use crate::netpoll::Netpoll;
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
