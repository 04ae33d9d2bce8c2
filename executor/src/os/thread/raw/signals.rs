//! The calling thread's signal mask, through the system call itself.
//!
//! glibc's `pthread_sigmask` silently leaves its two internal signals open; here they matter:
//! 32 (SIGCANCEL) and 33 (SIGSETXID, with which `setuid` and its kin reach every thread).

use std::marker::PhantomData;
use std::ptr;

const SIGCANCEL: u32 = 32;
const SIGSETXID: u32 = 33;

const fn bit(signal: u32) -> u64 {
    1 << (signal - 1)
}

/// A set of signals, one bit each, as the kernel keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Set(pub(super) u64);

/// Nothing may run on this thread but the code that follows.
pub(super) const ALL: Set = Set(!0);
/// Wherever glibc's stack-list lock is waited for: a `setuid` caller holds that lock until every
/// thread has answered SIGSETXID, so who waits for the lock must still be able to answer.
pub(super) const ALL_BUT_SETXID: Set = Set(!bit(SIGSETXID));
/// A new thread before it sets its own mask: pthreads never run with glibc's own signals blocked.
pub(super) const ALL_BUT_INTERNAL: Set = Set(!(bit(SIGSETXID) | bit(SIGCANCEL)));

impl Set {
    /// The set without glibc's own signals, as pthread_create passes a mask on.
    pub(super) fn without_internal(self) -> Self {
        Self(self.0 & ALL_BUT_INTERNAL.0)
    }
}

/// Makes `set` the thread's mask and returns the one before.
pub(super) fn set_mask(set: Set) -> Set {
    let mut old = 0_u64;
    // SAFETY: the kernel reads and writes eight bytes each, and both are whole u64s of ours. A mask
    // cannot make memory unsafe: a handler that was installed soundly may run or wait at any time.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &raw const set.0,
            &raw mut old,
            size_of::<u64>(),
        );
    }
    Set(old)
}

/// Signals stay blocked while this lives; then the mask from before returns. Not `Send`: the mask
/// belongs to the thread.
#[derive(Debug)]
pub(super) struct Blocked {
    before: Set,
    _thread: PhantomData<*const ()>,
}

impl Blocked {
    pub(super) fn new(set: Set) -> Self {
        Self {
            before: set_mask(set),
            _thread: PhantomData,
        }
    }

    /// Blocks a different set from here on.
    pub(super) fn switch(&self, set: Set) {
        set_mask(set);
    }

    /// The mask that returns at the end.
    pub(super) fn before(&self) -> Set {
        self.before
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        set_mask(self.before);
    }
}

/// Makes `[base, base + len)` the thread's stack for handlers installed with `SA_ONSTACK`.
///
/// # Safety
///
/// The memory must be writable, unused by anything else, and stay so until the thread ends.
pub(super) unsafe fn set_signal_stack(base: *mut u8, len: usize) {
    let stack = libc::stack_t {
        ss_sp: base.cast(),
        ss_flags: 0,
        ss_size: len,
    };
    // SAFETY: the caller gives the memory; the kernel only reads the structure.
    let rc = unsafe { libc::sigaltstack(&stack, ptr::null_mut()) };
    // It fails only for a size below the kernel's minimum, and `mapping` starts from that minimum.
    debug_assert_eq!(rc, 0, "sigaltstack: {}", std::io::Error::last_os_error());
}
