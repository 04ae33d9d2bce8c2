//! Running over the end of a stack hits the guard, and nothing else.
//!
//! The test program starts itself again, because the child does not survive.

use gort_stackful::{Coroutine, Stack, Suspender};
use std::hint::black_box;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

const CHILD: &str = "GORT_STACKFUL_OVERFLOW";

/// Runs this test alone in a child, which takes the branch for [`CHILD`]; tells the signal.
fn signal_of_child(test: &str, how: &str) -> (Option<i32>, String) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(CHILD, how)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.signal(), text)
}

#[expect(unconditional_recursion, reason = "this is what overflows the stack")]
fn recurse(depth: u64) -> u64 {
    let frame = black_box([depth; 16]);
    recurse(depth + 1) + black_box(frame)[3]
}

// Kept out of its caller, whose frame it would make too large for every branch.
#[inline(never)]
fn one_frame() -> u8 {
    let frame = black_box([1_u8; 1 << 20]);
    black_box(&frame)[black_box(77)]
}

#[test]
fn overflow_is_sigsegv() {
    if let Ok(how) = std::env::var(CHILD) {
        let stack = Stack::new(16 * 1024).unwrap();
        let mut coroutine = Coroutine::new(stack, move |_: &Suspender<(), ()>, ()| {
            match how.as_str() {
                "recursion" => drop(black_box(recurse(0))),
                "one frame" => drop(black_box(one_frame())),
                // The control: less than the stack holds.
                _ => drop(black_box([0_u8; 1024])),
            }
        });
        coroutine.resume(());
        println!("survived");
        return;
    }
    let (signal, text) = signal_of_child("overflow_is_sigsegv", "none");
    assert!(
        signal.is_none() && text.contains("survived"),
        "{signal:?} {text}"
    );
    for how in ["recursion", "one frame"] {
        let (signal, text) = signal_of_child("overflow_is_sigsegv", how);
        assert_eq!(signal, Some(libc::SIGSEGV), "{how}: {text}");
        assert!(!text.contains("survived"), "{how}");
    }
}
