//! At the kernel's limit on mappings there is an error that names it, and what was made still works.
//!
//! A program of its own: while the limit is reached, nothing else in the process gets memory.

use gort_stackful::{Coroutine, CoroutineState, Stack, StackError};

#[test]
fn limit_is_an_error_and_ends_when_stacks_go() {
    let allowed = std::fs::read_to_string("/proc/sys/vm/max_map_count").unwrap();
    let allowed: usize = allowed.trim().parse().unwrap();
    if allowed > 1 << 18 {
        println!("not run: vm.max_map_count is {allowed}, which would take gigabytes of tables");
        return;
    }
    // Room beforehand: at the limit this vector could not grow.
    let mut stacks = Vec::with_capacity(allowed);
    let error: StackError = loop {
        assert!(stacks.len() <= allowed, "no limit was met");
        match Stack::new(16 * 1024) {
            Ok(stack) => stacks.push(stack),
            Err(error) => break error,
        }
    };
    let made = stacks.len();
    let last = stacks.pop().unwrap();
    let mut coroutine = Coroutine::new(last, |suspender, n: u32| suspender.suspend(n + 1));
    let state = coroutine.resume(1);
    // Free some before anything allocates for a message.
    stacks.truncate(made / 2);

    assert_eq!(state, CoroutineState::Yielded(2));
    assert!(
        made > allowed / 2 - 1000,
        "only {made} stacks of {allowed} mappings"
    );
    let text = error.to_string();
    assert!(
        text.contains("vm.max_map_count") && text.contains("sysctl -w"),
        "{text}"
    );
    assert_eq!(error.as_io_error().raw_os_error(), Some(libc::ENOMEM));
    // And there is room again.
    Stack::new(4096).unwrap();
}
