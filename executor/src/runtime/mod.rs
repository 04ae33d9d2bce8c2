//! The runtime: building one, running futures on it, looking at it.
//!
//! A [`Runtime`] owns a scheduler with its threads; a [`Handle`] refers to one. `#[gort::main]`
//! makes one for you.
//!
//! ```
//! use gort::runtime::Builder;
//!
//! let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
//! let answer = runtime.block_on(async {
//!     let task = gort::spawn(async { 6 * 7 });
//!     task.await.expect("the task did not panic")
//! });
//! assert_eq!(answer, 42);
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! # Two flavors
//!
//! * *Multi-thread*: `worker_threads` processors (P), each held by a thread (M) of the runtime's
//!   own; tasks are stolen between them.
//! * *Current-thread*: one P, held by the thread that is in [`Runtime::block_on`]. Tasks run only
//!   while some thread is, in the order in which they became ready.

mod block_on;
mod builder;
pub(crate) mod context;
mod handle;
pub(crate) mod histogram;
mod metrics;
#[allow(
    clippy::module_inception,
    reason = "the file is named for its type, as elsewhere"
)]
mod runtime;
mod schedtrace;

pub use builder::{Builder, ThreadBackend};
pub use handle::{EnterGuard, Handle, TryCurrentError};
pub use histogram::HistogramSnapshot;
pub use metrics::{MachineMetrics, ProcessorMetrics, RuntimeMetrics};
pub use runtime::{Runtime, RuntimeFlavor};
