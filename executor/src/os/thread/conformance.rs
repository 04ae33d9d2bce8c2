//! What `executor/tests/conformance` needs to start threads on either back end. Not public API.

use super::{Backend, JoinHandle, Options};
use crate::runtime::ThreadBackend;
use std::io;

/// A started thread.
#[derive(Debug)]
pub struct Handle(JoinHandle);

/// Starts a thread.
pub fn spawn(
    name: &str,
    stack_size: usize,
    backend: ThreadBackend,
    f: impl FnOnce() + Send + 'static,
) -> io::Result<Handle> {
    let options = Options {
        name: name.into(),
        stack_size,
        backend,
    };
    super::spawn(&options, Box::new(f)).map(Handle)
}

/// `"raw"` or `"std"`, and the reason for a fallback.
pub fn selected(backend: ThreadBackend) -> io::Result<(&'static str, Option<&'static str>)> {
    let selected = super::selected(backend)?;
    let name = match selected.backend {
        Backend::Raw => "raw",
        Backend::Std => "std",
    };
    Ok((name, selected.fallback))
}

impl Handle {
    /// Waits for the end of the thread.
    pub fn join(self) -> std::thread::Result<()> {
        self.0.join()
    }

    /// The thread's id.
    pub fn tid(&self) -> i32 {
        self.0.tid()
    }

    /// Whether the thread has ended.
    pub fn is_finished(&self) -> bool {
        self.0.is_finished()
    }
}
