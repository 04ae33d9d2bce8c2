//! Waiting for a 32-bit word to change: `futex(2)`, private to the process.

use std::ptr;
use std::time::Duration;

use std::sync::atomic::AtomicU32;

/// Sleeps while `word` is `expected`, at most for `timeout`. May return early for any reason
/// (a wake, a signal, a change before the call), so callers look at the word again.
pub(crate) fn wait(word: &AtomicU32, expected: u32, timeout: Option<Duration>) {
    // A timeout too long for the kernel (some 10^11 years) is none.
    let timeout = timeout.and_then(|timeout| {
        Some(libc::timespec {
            tv_sec: timeout.as_secs().try_into().ok()?,
            tv_nsec: timeout.subsec_nanos().into(),
        })
    });
    let timeout = timeout.as_ref().map_or(ptr::null(), ptr::from_ref);
    // SAFETY: the kernel reads the word, which the reference keeps alive, and the timeout, which
    // lives on this frame. Relative timeouts of FUTEX_WAIT count on CLOCK_MONOTONIC. The result
    // is of no interest: every outcome makes the caller look again.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG,
            expected,
            timeout,
        );
    }
}

/// Wakes one thread that waits on `word`.
pub(crate) fn wake_one(word: &AtomicU32) {
    // SAFETY: the kernel uses the address as a key only.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG,
            1,
        );
    }
}
