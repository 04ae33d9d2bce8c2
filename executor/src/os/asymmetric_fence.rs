//! A fence whose cost is paid by one side only.
//!
//! # What it is for
//!
//! Dekker's pattern: two threads each announce something and then look for the other's
//! announcement, and at least one of them must see it.
//!
//! ```text
//!   fast thread              slow thread
//!   store X                  store Y
//!   light()                  heavy()
//!   load Y                   load X
//! ```
//!
//! With a `SeqCst` fence on both sides that holds by the memory model, but the fast thread then
//! pays a full barrier (some 20 cycles and a drained store buffer) every time it passes. An M
//! passes whenever it enters or leaves scheduler code; sysmon looks a few hundred times a second.
//! So the fast side compiles to no instruction beyond a predictable branch, and the slow side
//! makes the kernel run the barrier on the fast thread's behalf:
//! `membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED)` interrupts every CPU that runs a thread of this
//! process.
//!
//! # Why it is sound
//!
//! `membarrier(2)` promises that between its call and its return every thread of the process has
//! passed a point `p` at which all its memory accesses that precede `p` in program order are
//! ordered, for everyone, before those that follow `p` (a running thread by the interrupt, one
//! that is not running by the context switch), and the call itself is a full barrier for its
//! caller. Where is `p` in the instruction stream of the fast thread?
//!
//! * After `store X`: the store is visible to the slow thread's `load X`, which follows the call.
//!   The slow thread sees X.
//! * Before `store X`: then `load Y` comes after `p` too, since the compiler fence in [`light`]
//!   keeps it behind `store X` in the instruction stream. It is ordered after `p`, and the slow
//!   thread's `store Y`, which precedes the call, is visible by then. The fast thread sees Y.
//!
//! That both miss would need `p` before the store and after the load, which the compiler fence
//! excludes. The argument is about machine code: the Rust memory model knows nothing of
//! membarrier, so loom cannot check this pair. Under `cfg(loom)` both sides are `SeqCst` fences,
//! which is the form the models prove; the litmus test at the end of this file exercises both
//! forms on the real machine.
//!
//! # Which form is used
//!
//! Decided once per process, at the first [`init`] or [`heavy`]: the asymmetric form if the kernel
//! registers the process for it (Linux 4.14 or newer, not forbidden by seccomp) and
//! `GORT_NO_MEMBARRIER=1` is not set; otherwise `SeqCst` fences on both sides.
//!
//! The two sides never disagree in the dangerous direction. [`light`] drops to a compiler fence
//! only once the decision for membarrier is published, and from the decision on every [`heavy`]
//! calls membarrier. A `light` that does not see the decision yet executes a full fence, which
//! pairs with membarrier as well as with a fence.

#[cfg(not(loom))]
use std::sync::OnceLock;
#[cfg(not(loom))]
use std::sync::atomic::{AtomicBool, Ordering, compiler_fence, fence};

/// True once this process is registered for membarrier; never goes back to false.
///
/// Relaxed everywhere: it publishes nothing but itself, and reading a stale `false` costs a full
/// fence, which is right too (see the module's last section).
#[cfg(not(loom))]
static ASYMMETRIC: AtomicBool = AtomicBool::new(false);

/// Takes the decision early, so that the first M already runs on the cheap side. The runtime's
/// builder calls it; registering is fastest while the process has a single thread.
#[cfg(not(loom))]
pub(crate) fn init() {
    is_asymmetric();
}

/// The fast side: orders the caller's earlier stores before its later loads, with respect to a
/// thread that calls [`heavy`] between its own store and load.
#[cfg(not(loom))]
#[inline(always)]
pub(crate) fn light() {
    if ASYMMETRIC.load(Ordering::Relaxed) {
        // Pairs with the barrier that membarrier, in `heavy`, runs on this thread.
        compiler_fence(Ordering::SeqCst);
    } else {
        // Pairs with the fence, or the membarrier, in `heavy`.
        fence(Ordering::SeqCst);
    }
}

/// The slow side: a full barrier in the caller and, in effect, in every thread between its
/// [`light`] and what surrounds it. Takes some microseconds.
///
/// Returns `false` if the barrier did not take place: the kernel refused a call for which it had
/// registered the process, which happens where a seccomp filter is installed after start-up. The
/// caller then knows nothing of the other side and must withdraw what it announced.
#[cfg(not(loom))]
#[must_use = "without the barrier the caller must act as if the other side had come first"]
pub(crate) fn heavy() -> bool {
    if is_asymmetric() {
        membarrier::private_expedited()
    } else {
        // Pairs with the fence in `light`, which is never weaker when this branch is taken.
        fence(Ordering::SeqCst);
        true
    }
}

/// Whether [`light`] is free because [`heavy`] calls membarrier; takes the decision if it has not
/// been taken. For the runtime's diagnostics.
#[cfg(not(loom))]
pub(crate) fn is_asymmetric() -> bool {
    static DECISION: OnceLock<bool> = OnceLock::new();
    *DECISION.get_or_init(|| {
        let forbidden = std::env::var_os("GORT_NO_MEMBARRIER").is_some_and(|v| v == "1");
        let asymmetric = !forbidden && membarrier::register();
        ASYMMETRIC.store(asymmetric, Ordering::Relaxed);
        asymmetric
    })
}

#[cfg(loom)]
pub(crate) use modelled::{heavy, init, is_asymmetric, light};

/// The symmetric form under loom, whose fences only exist inside a model.
#[cfg(loom)]
mod modelled {
    use loom::sync::atomic::{Ordering, fence};

    pub(crate) fn init() {}

    pub(crate) fn light() {
        // Pairs with the fence in `heavy`.
        fence(Ordering::SeqCst);
    }

    pub(crate) fn heavy() -> bool {
        // Pairs with the fence in `light`.
        fence(Ordering::SeqCst);
        true
    }

    pub(crate) fn is_asymmetric() -> bool {
        false
    }
}

/// The two commands of `membarrier(2)` that this module uses.
#[cfg(not(loom))]
mod membarrier {
    // The numbers of linux/membarrier.h.
    const PRIVATE_EXPEDITED: libc::c_int = 1 << 3;
    const REGISTER_PRIVATE_EXPEDITED: libc::c_int = 1 << 4;

    /// Announces to the kernel that this process will use the barrier. Idempotent; inherited by
    /// fork, reset by exec.
    pub(super) fn register() -> bool {
        call(REGISTER_PRIVATE_EXPEDITED)
    }

    /// Runs a full barrier on every CPU that executes a thread of this process.
    pub(super) fn private_expedited() -> bool {
        call(PRIVATE_EXPEDITED)
    }

    fn call(command: libc::c_int) -> bool {
        // SAFETY: membarrier reads its three integers and touches no memory of the caller; an
        // unknown command or a kernel without the call is reported as an error.
        unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) == 0 }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;
    use std::thread;

    /// One round's variables, each on a cache line of its own so that the stores really sit in
    /// the store buffers while the loads run.
    #[derive(Default)]
    #[repr(align(128))]
    struct Line(AtomicU32);

    /// Runs `rounds` Dekker rounds between two threads and returns how often (only the fast side
    /// saw, only the slow side saw, both saw). Panics if both missed.
    fn dekker(rounds: usize, light: fn(), heavy: fn()) -> [usize; 3] {
        let x: Vec<Line> = (0..rounds).map(|_| Line::default()).collect();
        let y: Vec<Line> = (0..rounds).map(|_| Line::default()).collect();
        // How many rounds each side has begun: a round starts when both have come to it.
        let begun = [Line::default(), Line::default()];
        let meet = |me: usize, round: usize| {
            // Release/Acquire between the two sides' counters keeps rounds apart.
            begun[me].0.store(round as u32 + 1, Ordering::Release);
            let mut spins = 0;
            while begun[1 - me].0.load(Ordering::Acquire) <= round as u32 {
                spins += 1;
                if spins % 64 == 0 {
                    // There may be one CPU only.
                    thread::yield_now();
                }
                std::hint::spin_loop();
            }
        };
        let side = |me: usize, mine: &[Line], other: &[Line], barrier: fn()| -> Vec<bool> {
            (0..rounds)
                .map(|round| {
                    meet(me, round);
                    // Relaxed: the fence under test is all that orders the two.
                    mine[round].0.store(1, Ordering::Relaxed);
                    barrier();
                    other[round].0.load(Ordering::Relaxed) == 1
                })
                .collect()
        };
        let (fast, slow) = thread::scope(|s| {
            let fast = s.spawn(|| side(0, &x, &y, light));
            let slow = side(1, &y, &x, heavy);
            (fast.join().unwrap(), slow)
        });
        let mut seen = [0; 3];
        for (round, pair) in fast.into_iter().zip(slow).enumerate() {
            match pair {
                (true, false) => seen[0] += 1,
                (false, true) => seen[1] += 1,
                (true, true) => seen[2] += 1,
                (false, false) => panic!("round {round} of {rounds}: both sides missed"),
            }
        }
        seen
    }

    #[test]
    fn litmus_in_the_mode_of_this_process() {
        init();
        let seen = dekker(20_000, light, || assert!(heavy()));
        println!(
            "asymmetric: {}, [fast, slow, both] = {seen:?}",
            is_asymmetric()
        );
        assert_eq!(seen.iter().sum::<usize>(), 20_000);
    }

    #[test]
    fn litmus_asymmetric() {
        if !membarrier::register() {
            println!("skipped: this kernel does not offer membarrier");
            return;
        }
        let light = || compiler_fence(Ordering::SeqCst);
        let seen = dekker(20_000, light, || assert!(membarrier::private_expedited()));
        println!("[fast, slow, both] = {seen:?}");
        assert_eq!(seen.iter().sum::<usize>(), 20_000);
    }

    #[test]
    fn litmus_symmetric() {
        let full = || fence(Ordering::SeqCst);
        let seen = dekker(20_000, full, full);
        println!("[fast, slow, both] = {seen:?}");
        assert_eq!(seen.iter().sum::<usize>(), 20_000);
    }

    #[test]
    fn the_environment_forces_the_fallback() {
        // The decision is taken once per process, so it is looked at in a child.
        const NAME: &str = "os::asymmetric_fence::tests::the_environment_forces_the_fallback";
        if std::env::var_os("GORT_NO_MEMBARRIER").is_some_and(|v| v == "1") {
            assert!(!is_asymmetric());
            assert!(heavy(), "the fallback cannot fail");
            return;
        }
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", NAME, "--nocapture"])
            .env("GORT_NO_MEMBARRIER", "1")
            .output()
            .unwrap();
        let stdout = String::from_utf8_lossy(&child.stdout);
        assert!(child.status.success(), "{stdout}");
        assert!(
            stdout.contains("1 passed"),
            "the child ran no test: {stdout}"
        );
    }
}
