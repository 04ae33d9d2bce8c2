//! CPU clocks of other threads.

use std::mem::MaybeUninit;
use std::time::Duration;

/// The CPU time that a thread of this process has used; `None` if there is no such thread.
pub(crate) fn thread_cpu_time(tid: i32) -> Option<Duration> {
    // The kernel's encoding of a thread's clock (`CPUCLOCK_SCHED` 2, `CPUCLOCK_PERTHREAD_MASK` 4
    // in linux/posix-timers.h), which is what `pthread_getcpuclockid` returns.
    let clock: libc::clockid_t = (!tid << 3) | 2 | 4;
    let mut time = MaybeUninit::<libc::timespec>::uninit();
    // SAFETY: the kernel writes the timespec, or fails for a clock that does not exist.
    let time = unsafe {
        if libc::clock_gettime(clock, time.as_mut_ptr()) != 0 {
            return None;
        }
        time.assume_init()
    };
    Some(Duration::new(
        time.tv_sec.try_into().ok()?,
        time.tv_nsec.try_into().ok()?,
    ))
}
