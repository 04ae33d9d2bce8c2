//! gort: Go's scheduler for futures.
//!
//! ```
//! #[gort::main]
//! async fn main() {
//!     let task = gort::spawn(async { "hello from a task" });
//!     println!("{}", task.await.expect("the task did not panic"));
//! }
//! ```
//!
//! Go's scheduler keeps apart the task (**G**), the OS thread (**M**) and the right to run tasks
//! (**P**). In gort a G is a future, each P owns a run queue, and an M runs tasks only while it
//! holds a P. Names and documented behaviour are tokio's, whose runtime-agnostic parts ([`sync`],
//! the [`io`] traits, `select!`, `join!`) are re-exported here.
//!
//! | module | |
//! |---|---|
//! | [`runtime`] | build a runtime, run futures on it, look at what it does |
//! | [`task`] | spawn, join, abort, yield |
//! | [`net`], [`io`], [`time`], [`signal`], [`sync`] | sockets, I/O traits, timers, signals, channels and locks |
//!
//! # Features
//!
//! * `macros` (default): `#[gort::main]`, `#[gort::test]`, `select!`, `join!`, `try_join!`.
//! * `futures-io`: futures-io's `AsyncRead` and `AsyncWrite` on the sockets.
//! * `hyper`: hyper 1's executor, timer and I/O traits, in the module `gort::hyper`.
#![deny(unsafe_op_in_unsafe_fn)]

// The modules with a loom model are compiled under `--cfg loom`, everything else is not.
pub(crate) mod facade;
pub(crate) mod os;
pub(crate) mod quietly;
pub(crate) mod sched;

#[cfg(not(loom))]
pub(crate) mod blocking;
#[cfg(all(feature = "hyper", not(loom)))]
pub mod hyper;
#[cfg(not(loom))]
pub mod io;
#[cfg(not(loom))]
pub mod net;
#[cfg(not(loom))]
pub(crate) mod netpoll;
#[cfg(not(loom))]
pub mod runtime;
#[cfg(not(loom))]
pub mod signal;
#[cfg(not(loom))]
pub mod sync;
#[cfg(not(loom))]
pub mod task;
#[cfg(loom)]
pub(crate) mod task;
pub mod time;
pub(crate) mod wake_list;

#[cfg(not(loom))]
mod root;
#[cfg(not(loom))]
pub use root::*;

/// For `tests/conformance`; not part of the API.
#[cfg(not(loom))]
#[doc(hidden)]
pub mod __conformance {
    pub use crate::os::thread::conformance::{Handle, selected, spawn};
    pub use crate::runtime::ThreadBackend;
}
