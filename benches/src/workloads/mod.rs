//! The workloads, a module a group.
//!
//! [`Workload::prepare`] sets up what does not belong to the measured time (connections, tasks
//! that live long) on a runtime and returns a [`Run`], which may then be called again and again.
//! A run does the number of operations that it is told, measures the time itself, and panics if
//! the result is wrong.

mod channels;
mod http;
mod net;
mod runtime;
mod scheduling;
mod spawn;

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use crate::WORKERS;
use crate::process::{self, Resource};
use crate::rt::{self, Runtime};

/// Does a number of operations and returns how long they took.
pub type Run = Box<dyn FnMut(u64) -> Duration>;

/// One workload, for a runtime of kind `R`.
pub struct Workload<R> {
    /// The name in reports; the same for every runtime.
    pub name: &'static str,
    /// How many operations make a run of some ten milliseconds or more on the machines that we
    /// know.
    pub ops: u64,
    prepare: Box<dyn Fn(Arc<R>) -> Result<Run, String>>,
}

impl<R> fmt::Debug for Workload<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Workload")
            .field("name", &self.name)
            .field("ops", &self.ops)
            .finish()
    }
}

impl<R: Runtime> Workload<R> {
    /// A workload whose body runs as a task of the runtime.
    fn task<F>(name: &'static str, ops: u64, body: fn(u64) -> F) -> Self
    where
        F: Future<Output = Duration> + Send + 'static,
    {
        Self::outside(name, ops, move |rt, ops| rt.run(body(ops)))
    }

    /// A workload whose body runs on a thread that does not belong to the runtime.
    fn outside(
        name: &'static str,
        ops: u64,
        body: impl Fn(&R, u64) -> Duration + Copy + 'static,
    ) -> Self {
        Self::prepared(name, ops, move |rt| Ok(Box::new(move |ops| body(&rt, ops))))
    }

    /// A workload that sets something up first; the error says why it cannot run here.
    fn prepared(
        name: &'static str,
        ops: u64,
        prepare: impl Fn(Arc<R>) -> Result<Run, String> + 'static,
    ) -> Self {
        Self {
            name,
            ops,
            prepare: Box::new(prepare),
        }
    }

    /// Sets the workload up on `rt`, which the [`Run`] keeps alive.
    ///
    /// # Errors
    ///
    /// Why this machine cannot run it.
    pub fn prepare(&self, rt: Arc<R>) -> Result<Run, String> {
        (self.prepare)(rt)
    }
}

/// The groups, in the order of reports. Each is a criterion target too.
pub const GROUPS: [&str; 6] = ["spawn", "scheduling", "channels", "net", "http", "runtime"];

/// The workloads of one of the [`GROUPS`], in an order that all runtimes share.
///
/// # Panics
///
/// If there is no such group.
pub fn group<R: Runtime>(name: &str) -> Vec<Workload<R>> {
    match name {
        "spawn" => spawn::workloads(),
        "scheduling" => scheduling::workloads(),
        "channels" => channels::workloads(),
        "net" => net::workloads(),
        "http" => http::workloads(),
        "runtime" => runtime::workloads(),
        other => panic!("no group {other:?}; there are {GROUPS:?}"),
    }
}

/// A runtime under test, its type forgotten.
#[derive(Debug)]
pub struct Contender {
    /// The name in reports.
    pub name: &'static str,
    list: fn(&str) -> Vec<(&'static str, u64)>,
    prepare: fn(&str, usize) -> Result<Run, String>,
    measure: fn(Resource) -> f64,
}

impl Contender {
    /// Every runtime that takes part.
    pub fn all() -> Vec<Self> {
        vec![
            Self::of::<rt::Gort>(),
            Self::of::<rt::Tokio>(),
            Self::of::<rt::Smol>(),
        ]
    }

    fn of<R: Runtime>() -> Self {
        Self {
            name: R::NAME,
            list: |name| group::<R>(name).iter().map(|w| (w.name, w.ops)).collect(),
            prepare: |name, index| group::<R>(name)[index].prepare(Arc::new(R::new(WORKERS))),
            measure: process::measure::<R>,
        }
    }

    /// Name and number of operations of each workload of a group.
    pub fn list(&self, group: &str) -> Vec<(&'static str, u64)> {
        (self.list)(group)
    }

    /// Sets up the workload at `index` of a group on a new runtime, which the [`Run`] owns.
    ///
    /// # Errors
    ///
    /// Why this machine cannot run it.
    pub fn prepare(&self, group: &str, index: usize) -> Result<Run, String> {
        (self.prepare)(group, index)
    }

    /// Measures in this process, which should be fresh.
    pub fn measure(&self, resource: Resource) -> f64 {
        (self.measure)(resource)
    }
}
