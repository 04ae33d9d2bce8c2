//! The portable back end: `std::thread`.
//!
//! std gives the thread its guard page and its signal stack, and its own handler reports an
//! overflow by thread name before it aborts. What it does not do, retry and explain a refusal, the
//! caller adds for both back ends alike.

use super::Options;
use super::job::Job;
use std::io;
use std::sync::Arc;

pub(super) struct Thread(std::thread::JoinHandle<()>);

/// One attempt. `job` is untouched if it fails.
pub(super) fn start(options: &Options, job: &Arc<Job>) -> io::Result<Thread> {
    let job = job.clone();
    std::thread::Builder::new()
        .name(options.name.clone())
        .stack_size(options.stack_size)
        .spawn(move || job.run())
        .map(Thread)
}

impl Thread {
    pub(super) fn is_finished(&self) -> bool {
        self.0.is_finished()
    }

    /// Waits for the end of the thread.
    ///
    /// # Panics
    ///
    /// If a thread joins itself.
    pub(super) fn join(self) {
        if let Err(panic) = self.0.join() {
            // The job catches its closure's panic, so this one comes from dropping what is left
            // of the job: std's own policy for a panic in a destructor of a thread's state.
            std::panic::resume_unwind(panic);
        }
    }
}
