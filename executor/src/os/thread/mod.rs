//! PROVISIONAL: std::thread only. Helper A writes the real one with these signatures.
use crate::runtime::ThreadBackend;
use std::io;

#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) name: String,
    pub(crate) stack_size: usize,
    pub(crate) backend: ThreadBackend,
}

#[derive(Debug)]
pub(crate) struct JoinHandle(std::thread::JoinHandle<()>);

pub(crate) fn spawn(options: &Options, f: Box<dyn FnOnce() + Send>) -> io::Result<JoinHandle> {
    std::thread::Builder::new()
        .name(options.name.clone())
        .stack_size(options.stack_size)
        .spawn(f)
        .map(JoinHandle)
}

impl JoinHandle {
    pub(crate) fn is_finished(&self) -> bool {
        self.0.is_finished()
    }

    pub(crate) fn join(self) -> std::thread::Result<()> {
        self.0.join()
    }
}
