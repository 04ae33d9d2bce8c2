//! Stacks and coroutines, free of any executor.
//!
//! A [`Coroutine`] is a function with a stack of its own. It can stop in the middle, in any depth of
//! calls, and give control and a value back to whoever resumed it; later it goes on where it was.
//!
//! ```
//! use gort_stackful::{Coroutine, CoroutineState, Stack};
//!
//! let stack = Stack::new(64 * 1024)?;
//! let mut sum = Coroutine::new(stack, |suspender, first: u32| {
//!     let mut total = first;
//!     while total < 10 {
//!         total += suspender.suspend(total);
//!     }
//!     format!("{total} in all")
//! });
//!
//! assert_eq!(sum.resume(3), CoroutineState::Yielded(3));
//! assert_eq!(sum.resume(4), CoroutineState::Yielded(7));
//! assert_eq!(sum.resume(5), CoroutineState::Complete("12 in all".to_string()));
//! # Ok::<(), gort_stackful::StackError>(())
//! ```
//!
//! # What is here
//!
//! - [`Stack`]: one memory mapping with a guard below it, and an error that says what to do when the
//!   system has no more.
//! - [`Coroutine`]: resume and suspend by values; a panic goes to the resumer; dropping a suspended
//!   coroutine unwinds its stack, so that its destructors run.
//! - The context switch for x86_64 and aarch64 on Linux. Panics, backtraces and debuggers see the
//!   frames of a coroutine down to its first, and stop there.
//!
//! # What is not here yet
//!
//! - *Many small stacks.* Each [`Stack`] is a mapping of its own, guarded by `mprotect`, so that the
//!   kernel's limit on mappings (`vm.max_map_count`) stops at some 32,000 of them. Arenas with size
//!   classes, caches of warm stacks and kernel guard regions will lift that.
//! - *A report of an overflow.* Running over the end of a stack hits the guard and ends the process
//!   with SIGSEGV; nothing names the coroutine yet.
//! - *Growth.* A stack has the size that it was made with.
//! - *Signals.* A handler that was installed without `SA_ONSTACK` runs on the coroutine's stack.
//!   That takes some 3 KB (x86_64 with AVX-512) beside what the handler itself needs.
//! - *A look at a suspended coroutine:* its backtrace, its high-water mark.
//! - Floating-point control registers (MXCSR, the x87 control word, FPCR) belong to the thread: a
//!   coroutine that changes one changes it for its resumer too.
//! - Shadow stacks (CET) and AddressSanitizer are not told about the switch.

#[cfg(not(all(
    target_os = "linux",
    target_pointer_width = "64",
    any(target_arch = "x86_64", target_arch = "aarch64")
)))]
compile_error!("gort-stackful switches stacks on 64-bit Linux on x86_64 and aarch64 only");

mod arch;
mod coroutine;
mod stack;

pub use coroutine::{Coroutine, CoroutineState, Suspender};
pub use stack::{Stack, StackError};
