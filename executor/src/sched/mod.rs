//! The scheduler: Go's G, M and P.
//!
//! | file | owns |
//! |---|---|
//! | `scheduler.rs` | the runtime's shared state; spawning and scheduling; starting Ms |
//! | `worker.rs`, `search.rs`, `park.rs` | the M as it runs: polls tasks, finds them, parks |
//! | `processor.rs` | the P: queues and caches |
//! | `machine.rs` | the M as others see it |
//! | `ring.rs`, `runnext.rs`, `global.rs` | the queues |
//! | `ownership.rs` | who holds a P, and how it is taken from an M in the middle of a poll |
//! | `handoff.rs` | taking a P and handing it to another M |
//! | `idle.rs` | idle Ps, parked and spinning Ms, wake-ups |
//! | `shutdown.rs` | the end of a runtime |
//! | `budget.rs`, `order.rs`, `stats.rs`, `config.rs` | cooperative budget, order of victims, counters, settings |
//!
//! Each concurrent mechanism has its state table, its orderings and its place in the lock order
//! in its own file's doc, and a loom model at the end of it.

pub(crate) mod idle;
pub(crate) mod ownership;
pub(crate) mod ring;
pub(crate) mod runnext;

#[cfg(not(loom))]
pub(crate) mod budget;
#[cfg(not(loom))]
pub(crate) mod config;
#[cfg(not(loom))]
mod global;
#[cfg(not(loom))]
mod handoff;
#[cfg(not(loom))]
pub(crate) mod machine;
#[cfg(not(loom))]
mod order;
#[cfg(not(loom))]
mod park;
#[cfg(not(loom))]
pub(crate) mod processor;
#[cfg(not(loom))]
mod scheduler;
#[cfg(not(loom))]
mod search;
#[cfg(not(loom))]
mod shutdown;
#[cfg(not(loom))]
pub(crate) mod stats;
#[cfg(not(loom))]
pub(crate) mod worker;

#[cfg(not(loom))]
pub(crate) use scheduler::{Scheduler, free_cell};
#[cfg(not(loom))]
pub(crate) use shutdown::{Wait, wait_while};
