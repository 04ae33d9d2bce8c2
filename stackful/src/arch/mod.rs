//! The context switch: one file an architecture, all with the same four items.
//!
//! - [`Context`]: where one side of a switch stands. For a suspended side, everything that the switch
//!   does not declare to the compiler as overwritten: stack pointer, place to go on, and the two
//!   registers that the compiler keeps for itself and cannot save for us.
//! - `Context::at_start(stack_top, entry, argument)`: a context that has not run; switching to it
//!   calls `entry(argument)` at `stack_top`, in a frame at which unwinding ends.
//! - `switch(from, to)`: saves the running side in `from` and goes on with the one in `to`. It
//!   returns when something switches back.
//! - `stack_pointer()`.
//!
//! # Contract of `switch`
//!
//! `to` holds a context that was saved by `switch` or made by `at_start`, was not switched to since,
//! and whose stack is intact. Both sides run on one thread. `entry` never returns and never unwinds.
//!
//! # Cost
//!
//! The switch is inlined, and declares every register overwritten, so that the compiler saves those
//! in use and no others. Both directions jump through memory: no `call` or `ret` crosses from one
//! stack to the other, which keeps the processor's prediction of returns in step.
//!
//! # Unwinding
//!
//! Suspended frames are whole: the directives of the function around the switch describe them at the
//! place to go on. Between the change of the stack pointer and the jump they would describe the
//! wrong stack; there, the directives say that the call chain ends, for profilers and debuggers that
//! look from a signal.

#[cfg(target_arch = "x86_64")]
#[path = "x86_64.rs"]
mod imp;

#[cfg(target_arch = "aarch64")]
#[path = "aarch64.rs"]
mod imp;

pub(crate) use imp::{Context, stack_pointer, switch};
