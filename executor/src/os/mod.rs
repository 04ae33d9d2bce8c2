//! The port: what gort asks of the system, one file a mechanism.
//!
//! | file | contract |
//! |---|---|
//! | `thread/` | start an OS thread with a name, a stack size and a guard; join it; never leak one |
//! | `parker.rs`, `futex.rs` | put one thread to sleep until another wakes it, without losing a wake-up |
//! | `asymmetric_fence.rs` | a fence pair whose hot side is free |
//! | `cpu.rs` | how many CPUs this process may use |
//! | `clock.rs` | CPU time of another thread |

pub(crate) mod asymmetric_fence;
pub(crate) mod parker;

#[cfg(not(loom))]
pub(crate) mod clock;
#[cfg(not(loom))]
pub(crate) mod cpu;
#[cfg(not(loom))]
pub(crate) mod futex;
#[cfg(not(loom))]
pub(crate) mod thread;
