//! The context switch on aarch64 (AAPCS64).
//!
//! A stack that has not run, and the context that `at_start` made for it:
//!
//! ```text
//!              (high addresses)
//!            ┌──────────────────┐
//!            │ control block of │
//!            │ the coroutine    │        Context
//! stack_top ─┼──────────────────┤◄────── sp         multiple of 16
//!            │                  │        pc ───────► the start code below
//!            │ nothing yet      │        x29        the argument of entry
//!            │                  │        x19        entry
//!            ╞══════════════════╡
//!            │ guard            │
//!            └──────────────────┘
//! ```
//!
//! Just after the start code has called `entry`, the stack is still empty: the return address is in
//! x30 and points into the start code, whose frame description says that it has no caller.
//!
//! A suspended side. Nothing is pushed: what the compiler must keep, it has spilled in its own frame
//! before the switch, because the switch declares all other registers overwritten:
//!
//! ```text
//!            │ frames of the    │
//!            │ callers          │        Context
//!            ├──────────────────┤        pc ───────► label 2 in `switch`, inlined here
//!            │ frame that holds │        x29, x19   as they were
//!            │ the switch       │
//!            ├──────────────────┤◄────── sp
//!            │ free             │
//! ```

use core::arch::{asm, global_asm};

/// Where one side of a switch stands. The assembly knows the offsets.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Context {
    sp: usize,  // 0
    pc: usize,  // 8
    x29: usize, // 16
    x19: usize, // 24
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
    ".cfi_undefined x30", // no caller: unwinding ends in this frame
    "hint 36",            // bti j: a jump may land here where branch targets are enforced
    "mov x0, x29",        // the argument, where a C function expects it
    "mov x29, xzr",       // ends the chain of frame pointers too
    "blr x19",            // entry
    "brk 1",              // entry does not return
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
        sp: 0,
        pc: 0,
        x29: 0,
        x19: 0,
    };

    /// A context that calls `entry(argument)` at `stack_top`, which is a multiple of 16.
    pub(crate) fn at_start<T>(
        stack_top: *mut u8,
        entry: unsafe extern "C" fn(*mut T) -> !,
        argument: *mut T,
    ) -> Self {
        debug_assert!(stack_top.addr() % 16 == 0);
        Self {
            sp: stack_top.expose_provenance(),
            pc: gort_stackful_0_1_start as *const () as usize,
            x29: argument.expose_provenance(),
            x19: entry as *const () as usize,
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
    // SAFETY: the caller keeps the contract. All registers are declared overwritten, save sp, x29
    // and x19, which this saves and restores itself, and x18, which is the platform's and which no
    // compiled code of this thread changes. The stack of this side is not touched.
    unsafe {
        asm!(
            "adr x2, 2f",            // where this side goes on
            "mov x3, sp",            // sp cannot be stored directly
            "stp x3, x2, [x0]",      // from.sp, from.pc
            "stp x29, x19, [x0, 16]",// from.x29, from.x19: the compiler's frame and base pointers
            ".cfi_remember_state",   // this function's frame, as it was
            ".cfi_undefined x30",    // until the jump, it is nobody's: the call chain ends
            "ldp x3, x2, [x1]",      // to.sp, to.pc
            "ldp x29, x19, [x1, 16]",// to.x29, to.x19
            "mov sp, x3",            // from here on the other stack
            "br x2",                 // label 2 of the other side, or the start code
            ".cfi_restore_state",    // this function's frame again
            "2:",                    // a switch back arrives here, with sp, x29 and x19 restored
            "hint 36",               // bti j: a jump may land here where branch targets are enforced
            inout("x0") from => _,
            inout("x1") to => _,
            lateout("x20") _, lateout("x21") _, lateout("x22") _, lateout("x23") _,
            lateout("x24") _, lateout("x25") _, lateout("x26") _, lateout("x27") _,
            lateout("x28") _, lateout("x30") _,
            lateout("v8") _, lateout("v9") _, lateout("v10") _, lateout("v11") _,
            lateout("v12") _, lateout("v13") _, lateout("v14") _, lateout("v15") _,
            clobber_abi("C"),
        );
    }
}

/// The running stack's pointer.
#[inline(always)]
pub(crate) fn stack_pointer() -> usize {
    let sp: usize;
    // SAFETY: reads one register.
    unsafe { asm!("mov {}, sp", out(reg) sp, options(nomem, nostack, preserves_flags)) };
    sp
}
