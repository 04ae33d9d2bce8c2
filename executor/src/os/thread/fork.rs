//! How many `fork`s lie between the process's start and now.
//!
//! A thread handle remembers the generation it was made in. In a forked child the number is
//! higher, and handles from before the fork are known to stand for threads that do not exist there.
//! Without it, joining one would wait for ever: the kernel clears the word that a joiner waits on
//! when a thread ends, and in the child no such thread ever ends.

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

static GENERATION: AtomicU32 = AtomicU32::new(0);

/// The current generation. Relaxed here and in `in_child`: the only write happens in a child that
/// has a single thread, before any that could read it is started.
pub(super) fn generation() -> u32 {
    GENERATION.load(Ordering::Relaxed)
}

extern "C" fn in_child() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
}

/// Begins to count, once.
pub(super) fn register() -> io::Result<()> {
    static REGISTERED: OnceLock<i32> = OnceLock::new();
    // SAFETY: the handler only adds to an atomic, which is async-signal-safe, and lives as long as
    // this library: glibc removes the handlers of a library that is unloaded.
    match REGISTERED.get_or_init(|| unsafe { libc::pthread_atfork(None, None, Some(in_child)) }) {
        0 => Ok(()),
        errno => Err(io::Error::from_raw_os_error(*errno)),
    }
}
