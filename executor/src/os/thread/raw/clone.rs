//! The `clone` system call with a new stack, which no C wrapper offers in the form needed here.
//!
//! libc's `clone()` wants a C function with an exit code, and `clone3` is ENOSYS under valgrind. So
//! the call is written out here, with unwind information (CFI) that ends every backtrace of an M at
//! this function.

use std::arch::global_asm;
use std::io;

/// The assembler symbol carries the version, so that two versions of gort can be linked into one
/// program.
macro_rules! symbol {
    () => {
        concat!(
            "gort_clone_",
            env!("CARGO_PKG_VERSION_MAJOR"),
            "_",
            env!("CARGO_PKG_VERSION_MINOR"),
            "_",
            env!("CARGO_PKG_VERSION_PATCH"),
        )
    };
}

// long gort_clone(flags, stack, parent_tid, child_tid, tls, entry, argument)
//                 rdi    rsi    rdx         rcx        r8   r9     [rsp + 8]
global_asm!(
    ".text",
    ".p2align 4",
    concat!(".globl ", symbol!()),
    // Hidden: a library that links gort does not export it.
    concat!(".hidden ", symbol!()),
    concat!(".type ", symbol!(), ", @function"),
    concat!(symbol!(), ":"),
    ".cfi_startproc",
    // The kernel takes the fourth argument in r10, because `syscall` overwrites rcx.
    "mov r10, rcx",
    // The child wakes with the parent's registers but its own stack, so what it is to call waits
    // there: first the entry, then its argument. The ABI wants rsp on 16 bytes before a call, and
    // so it is again after both pops.
    "and rsi, -16",
    "mov rax, [rsp + 8]",
    "mov [rsi - 8], rax",
    "mov [rsi - 16], r9",
    "sub rsi, 16",
    // rdi, rsi, rdx, r10 and r8 already hold flags, stack, parent_tid, child_tid and tls.
    "mov eax, {sys_clone}",
    "syscall",
    // 0 in the child; the child's id or a negated errno in the parent.
    "test rax, rax",
    "jz 2f",
    "ret",
    // From here on in the child. It has no caller: an undefined return address ends a backtrace,
    // and a zero frame pointer ends one that follows frame pointers.
    "2:",
    ".cfi_undefined rip",
    "xor ebp, ebp",
    "pop rax",
    "pop rdi",
    // start_thread(pthread) does not return: it ends the thread itself.
    "call rax",
    "ud2",
    ".cfi_endproc",
    concat!(".size ", symbol!(), ", . - ", symbol!()),
    sys_clone = const libc::SYS_clone,
);

unsafe extern "C" {
    #[link_name = symbol!()]
    fn gort_clone(
        flags: u64,
        stack: *mut u8,
        parent_tid: *mut i32,
        child_tid: *mut u32,
        tls: *mut u8,
        entry: usize,
        argument: *mut u8,
    ) -> i64;
}

/// What pthread_create passes, no more and no less: the kernel must see an ordinary thread.
const FLAGS: libc::c_int = libc::CLONE_VM // one address space
    | libc::CLONE_FS // one working directory and umask
    | libc::CLONE_FILES // one table of file descriptors
    | libc::CLONE_SIGHAND // one table of signal handlers
    | libc::CLONE_THREAD // one process
    | libc::CLONE_SYSVSEM // one list of semaphore undos
    | libc::CLONE_SETTLS // fs points to our struct pthread from the first instruction
    | libc::CLONE_PARENT_SETTID // the id stands in struct pthread before clone returns
    | libc::CLONE_CHILD_CLEARTID; // cleared, with a futex wake, when the thread is gone: the join

/// A thread to be: everything the kernel needs to know.
#[derive(Debug)]
pub(super) struct Clone {
    /// The end of the stack, which grows down from here.
    pub(super) stack_top: *mut u8,
    /// Where the kernel stores the id before `clone` returns.
    pub(super) tid: *mut i32,
    /// What the kernel clears when the thread has ended.
    pub(super) clear_tid: *mut u32,
    /// struct pthread: the thread pointer, and the argument of `entry`.
    pub(super) pthread: *mut u8,
    /// glibc's start_thread.
    pub(super) entry: usize,
}

impl Clone {
    /// Makes the thread. Returns its id.
    ///
    /// # Safety
    ///
    /// Every address must be as described above, `entry` must be a function that takes `pthread`
    /// and never returns, and the memory must stay until the kernel has cleared `clear_tid`. No
    /// signal handler may run on the new thread before it is complete: the caller blocks signals.
    pub(super) unsafe fn call(&self) -> io::Result<i32> {
        // SAFETY: the caller vouches for the addresses. The child never returns through this
        // frame, as it runs on its own stack from its first instruction.
        let rc = unsafe {
            gort_clone(
                FLAGS as u64,
                self.stack_top,
                self.tid,
                self.clear_tid,
                self.pthread,
                self.entry,
                self.pthread,
            )
        };
        match i32::try_from(rc) {
            Ok(tid) if tid > 0 => Ok(tid),
            _ => Err(io::Error::from_raw_os_error(-rc as i32)),
        }
    }
}
