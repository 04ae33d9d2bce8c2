//! The G: a task, from `spawn` to the moment its memory is free again.
//!
//! # One cell
//!
//! ```text
//!   Cell<F>  (one slab cell of a size class; `slab.rs`)
//!   ┌──────────────────────────────┬───────────────────────────────────┐
//!   │ Header, 72 bytes             │ Stage<F>                          │
//!   │ state · next · vtable ·      │ Future(F)  →  Output(..)  → Empty │
//!   │ scheduler · id · join waker ·│ (a future too large for the       │
//!   │ spawn site · queued at       │  largest class: a Box of the same)│
//!   └──────────────────────────────┴───────────────────────────────────┘
//! ```
//!
//! # Who may touch which field
//!
//! | field | read | written |
//! |---|---|---|
//! | `state` | anyone | by transitions only (`state.rs`) |
//! | `next` | whoever owns the `Runnable` (queue) or the free cell (free list) | same |
//! | `vtable`, `scheduler`, `id`, `location`, `class` | any reference | before `State::init` |
//! | `queued_at` | the M that dequeues | whoever queues; a queue hands it over |
//! | `join_waker` | see `State::set_join_waker` | same |
//! | `stage` | the holder of RUNNING; after COMPLETE the `JoinHandle` or completer | same |
//!
//! # Life cycle
//!
//! 1. `spawn` takes a cell, writes header and future, makes the state live: [`Task`].
//! 2. The [`Runnable`] goes to a queue. An M takes it and calls [`Runnable::run`].
//! 3. The poll parks, is queued again, or completes; completing wakes the `JoinHandle` and gives
//!    up the task's own reference.
//! 4. The last reference, on whichever thread, drops what is left in the cell and returns it to
//!    the slab; then the cell's share in the scheduler's life is given back.
//!
//! User code (polls, drops, wakers) runs only in `harness.rs` and `join.rs`, never under a lock
//! and never with the M's mark up (`sched/ownership.rs`).

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
