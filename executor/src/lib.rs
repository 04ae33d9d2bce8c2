//! gort: Go's scheduler for futures.

pub(crate) mod facade;
pub mod io;
pub mod net;
pub(crate) mod netpoll;
pub(crate) mod os;
pub mod runtime;
pub mod signal;
pub mod time;
pub(crate) mod wake_list;
