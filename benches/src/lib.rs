//! gort beside its peers: the same workloads on gort, tokio and smol.
//!
//! * [`rt`] is what a workload may ask of a runtime ([`rt::Runtime`]), implemented for each
//!   contender. A workload is one generic function, so every runtime runs the same code, and the
//!   compiler specialises it for each.
//! * [`workloads`] holds the workloads, a module a group. Each runs with [`WORKERS`] workers,
//!   takes its own time (what it sets up stays outside of it) and checks its own result.
//! * [`process`] holds what needs a process of its own: resident bytes a parked task, and the
//!   CPU time of an idle runtime.
//!
//! Two front ends run them: `cargo bench -p gort-benches` (criterion, `benches/`, a target a
//! group) and `cargo run --release -p gort-benches --bin report`, which interleaves the runtimes
//! and prints one table of ratios.
//!
//! All contenders use the channels of `tokio::sync`, which belong to no runtime, and the global
//! allocator of the platform.

pub mod process;
pub mod rt;
pub mod workloads;

/// Workers of every runtime under test.
pub const WORKERS: usize = 2;
