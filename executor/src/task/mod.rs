//! Tasks: spawning, awaiting and aborting them.
//!
//! A task is a future that a runtime drives. [`spawn`] starts one and returns a [`JoinHandle`],
//! which gives its output, or a [`JoinError`] that says whether it panicked or was cancelled.
//! [`spawn_blocking`] does the same for a closure that blocks.
//!
//! ```
//! # gort::runtime::Runtime::new().unwrap().block_on(async {
//! let patient = gort::spawn(std::future::pending::<()>());
//! patient.abort();
//! assert!(patient.await.unwrap_err().is_cancelled());
//!
//! let careless = gort::spawn(async { panic!("on purpose") });
//! assert!(careless.await.unwrap_err().is_panic());
//! # });
//! ```
//!
//! A task runs until it waits for something; one that computes for long should
//! [`yield_now`] now and then, or use `spawn_blocking`.

// How a task is laid out, who may touch which field and how it lives: `header.rs`. Its states:
// `state.rs`. Its memory: `slab.rs`.

pub(crate) mod state;

#[cfg(not(loom))]
mod abort;
#[cfg(not(loom))]
mod current;
#[cfg(not(loom))]
mod error;
#[cfg(not(loom))]
mod harness;
#[cfg(not(loom))]
mod header;
#[cfg(not(loom))]
mod id;
#[cfg(not(loom))]
mod join;
#[cfg(not(loom))]
mod runnable;
#[cfg(not(loom))]
mod slab;
#[cfg(not(loom))]
mod waker;
#[cfg(not(loom))]
mod yield_now;

#[cfg(not(loom))]
pub use crate::blocking::spawn_blocking;
#[cfg(not(loom))]
pub use crate::root::spawn;
#[cfg(not(loom))]
pub use tokio::task::coop;

#[cfg(not(loom))]
pub use self::{
    abort::AbortHandle,
    error::JoinError,
    id::{Id, id, try_id},
    join::JoinHandle,
    yield_now::yield_now,
};

#[cfg(not(loom))]
pub(crate) use self::harness::{Spawned, new, recycle};
#[cfg(not(loom))]
pub(crate) use self::{
    header::Header,
    id::IdRange,
    runnable::{Chain, Polled, Runnable, shut_down_all},
    slab::Cache,
};
