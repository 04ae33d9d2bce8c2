//! The context switch on x86_64 (System V ABI).
//!
//! A stack that has not run, and the context that `at_start` made for it:
//!
//! ```text
//!              (high addresses)
//!            ┌──────────────────┐
//!            │ control block of │
//!            │ the coroutine    │        Context
//! stack_top ─┼──────────────────┤◄────── rsp        multiple of 16
//!            │                  │        rip ──────► the start code below
//!            │ nothing yet      │        rbp         the argument of entry
//!            │                  │        rbx         entry
//!            ╞══════════════════╡
//!            │ guard            │
//!            └──────────────────┘
//! ```
//!
//! Just after the start code has called `entry`:
//!
//! ```text
//! stack_top ─┬──────────────────┐
//!            │ return address   │        into the start code, whose frame description says that
//!     rsp ──►├──────────────────┤        it has no caller: unwinding ends here
//!            │ frame of entry   │
//! ```
//!
//! A suspended side. Nothing is pushed: what the compiler must keep, it has spilled in its own frame
//! before the switch, because the switch declares all other registers overwritten:
//!
//! ```text
//!            │ frames of the    │
//!            │ callers          │        Context
//!            ├──────────────────┤        rip ──────► label 2 in `switch`, inlined here
//!            │ frame that holds │        rbp, rbx    as they were
//!            │ the switch       │
//!            ├──────────────────┤◄────── rsp
//!            │ free             │
//! ```

use core::arch::{asm, global_asm};

/// Where one side of a switch stands. The assembly knows the offsets.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Context {
    rsp: usize, // 0
    rip: usize, // 8
    rbp: usize, // 16
    rbx: usize, // 24
}

// The name carries the version, because two versions of this crate may be linked into one program.
global_asm!(
    ".pushsection .text.gort_stackful_start,\"ax\",@progbits",
    ".p2align 4",
    ".hidden gort_stackful_0_1_start", // visible to this program or library only
    ".globl gort_stackful_0_1_start",  // ... but in all of its object files
    ".type gort_stackful_0_1_start,@function",
    "gort_stackful_0_1_start:",
    ".cfi_startproc",
    ".cfi_undefined rip", // no caller: unwinding ends in this frame
    "mov rdi, rbp",       // the argument, where a C function expects it
    "xor ebp, ebp",       // ends the chain of frame pointers too
    "call rbx",           // entry; pushes 8 bytes on a multiple of 16, as the ABI wants
    "ud2",                // entry does not return
    ".cfi_endproc",
    ".size gort_stackful_0_1_start, . - gort_stackful_0_1_start",
    ".popsection",
);

unsafe extern "C" {
    fn gort_stackful_0_1_start();
}

impl Context {
    /// A context that no switch has filled yet.
    pub(crate) const EMPTY: Self = Self {
        rsp: 0,
        rip: 0,
        rbp: 0,
        rbx: 0,
    };

    /// A context that calls `entry(argument)` at `stack_top`, which is a multiple of 16.
    pub(crate) fn at_start<T>(
        stack_top: *mut u8,
        entry: unsafe extern "C" fn(*mut T) -> !,
        argument: *mut T,
    ) -> Self {
        debug_assert!(stack_top.addr() % 16 == 0);
        Self {
            rsp: stack_top.expose_provenance(),
            rip: gort_stackful_0_1_start as *const () as usize,
            rbp: argument.expose_provenance(),
            rbx: entry as *const () as usize,
        }
    }
}

/// Saves the running side in `from` and goes on with `to`; returns when `from` is switched to.
///
/// # Safety
///
/// The contract in the module above; both pointers are valid for the time of the call.
#[inline(always)]
pub(crate) unsafe fn switch(from: *mut Context, to: *const Context) {
    // SAFETY: the caller keeps the contract. All registers are declared overwritten, save rsp, rbp
    // and rbx, which this saves and restores itself. The stack of this side is not touched.
    unsafe {
        asm!(
            "lea rax, [rip + 2f]",   // where this side goes on
            "mov [rdi + 8], rax",    // from.rip
            "mov [rdi], rsp",        // from.rsp
            "mov [rdi + 16], rbp",   // from.rbp: the compiler's frame pointer
            "mov [rdi + 24], rbx",   // from.rbx: the compiler's base pointer
            ".cfi_remember_state",   // this function's frame, as it was
            ".cfi_undefined rip",    // until the jump, it is nobody's: the call chain ends
            "mov rsp, [rsi]",        // to.rsp: from here on the other stack
            "mov rbp, [rsi + 16]",   // to.rbp
            "mov rbx, [rsi + 24]",   // to.rbx
            "jmp [rsi + 8]",         // to.rip: label 2 of the other side, or the start code
            ".cfi_restore_state",    // this function's frame again
            "2:",                    // a switch back arrives here, with rsp, rbp and rbx restored
            inout("rdi") from => _,
            inout("rsi") to => _,
            lateout("r12") _, lateout("r13") _, lateout("r14") _, lateout("r15") _,
            clobber_abi("sysv64"),
        );
    }
}

/// The running stack's pointer.
#[inline(always)]
pub(crate) fn stack_pointer() -> usize {
    let sp: usize;
    // SAFETY: reads one register.
    unsafe { asm!("mov {}, rsp", out(reg) sp, options(nomem, nostack, preserves_flags)) };
    sp
}
