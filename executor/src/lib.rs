//! gort: Go's scheduler for futures.

pub(crate) mod facade;
pub(crate) mod netpoll;
pub mod net;
pub(crate) mod os;
pub mod runtime;
pub mod signal;
pub mod time;
pub(crate) mod wake_list;

/// For `tests/conformance`; not part of the API.
#[doc(hidden)]
pub mod __conformance {
    pub use crate::os::thread::conformance::{Handle, selected, spawn};
    pub use crate::runtime::ThreadBackend;
}
