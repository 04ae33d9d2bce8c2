//! Child processes, fork, the end of the process, and faults.

use crate::support::{STACK, THREADS, Threads, errno, in_forked_child, join, wait_until};
use std::cell::Cell;
use std::ffi::{c_char, c_int, c_void};
use std::hint::black_box;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

pub(crate) fn commands(threads: Threads) {
    threads.each(|i| {
        let mut child = Command::new("sh")
            .args(["-c", &format!("echo $(({i} + 1)); cat")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(b"input").unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            format!("{}\ninput", i + 1)
        );
        // With pre_exec std forks; without it uses posix_spawn. SAFETY: the hook does nothing.
        let status = unsafe { Command::new("true").pre_exec(|| Ok(())).status() };
        assert!(status.unwrap().success());

        let arguments = [c"true".as_ptr().cast_mut(), ptr::null_mut()];
        let environment: [*mut c_char; 1] = [ptr::null_mut()];
        let (mut pid, mut status) = (0, -1);
        // SAFETY: the strings and the arrays, which end in null, live through the calls.
        unsafe {
            assert_eq!(libc::system(c"exit 3".as_ptr()), 3 << 8);
            let (arguments, environment) = (arguments.as_ptr(), environment.as_ptr());
            let (file, null) = (c"true".as_ptr(), ptr::null());
            let rc = libc::posix_spawnp(&mut pid, file, null, ptr::null(), arguments, environment);
            assert_eq!(rc, 0);
            assert_eq!(libc::waitpid(pid, &mut status, 0), pid);
        }
        assert_eq!(status, 0);
    });
}

pub(crate) fn fork_in_a_thread(threads: Threads) {
    // std locks a table when a thread starts or ends; no fork may come at that moment.
    let meet = Barrier::new(THREADS);
    threads.each(move |_| {
        meet.wait();
        for _ in 0..3 {
            in_forked_child(|| {
                let texts: Vec<String> = (0..100).map(|i| i.to_string()).collect();
                println!("{} texts in the child", texts.len());
                assert_eq!(std::thread::spawn(move || texts.len()).join().unwrap(), 100);
                // And once more from there.
                in_forked_child(|| {});
            });
        }
        meet.wait();
    });
}

pub(crate) fn fork_and_start_again(threads: Threads) {
    join(threads.spawn(move || {
        in_forked_child(|| {
            threads.each(|_| {
                assert_eq!(vec![1_u8; 1000].len(), 1000);
                // SAFETY: -1 leaves each id as it is, but goes through all threads of the child.
                assert_eq!(unsafe { libc::setresuid(u32::MAX, u32::MAX, u32::MAX) }, 0);
            });
        });
    }));
}

pub(crate) fn fork_beside_running_threads(threads: Threads) {
    let stop = Arc::new(AtomicBool::new(false));
    let handles: Vec<_> = (0..THREADS)
        .map(|_| {
            let stop = stop.clone();
            threads.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    drop(black_box(vec![1_u8; 300]));
                    std::thread::sleep(Duration::from_micros(50));
                }
            })
        })
        .collect();
    for _ in 0..20 {
        in_forked_child(|| {
            threads.each(|_| drop(black_box(vec![2_u8; 5000])));
            assert_eq!(std::thread::spawn(|| 1).join().unwrap(), 1);
        });
        // Starts and ends of threads meet the forks too.
        join(threads.spawn(|| {}));
    }
    stop.store(true, Ordering::Relaxed);
    handles.into_iter().for_each(join);
}

/// In the child a handle from before the fork must neither hang nor touch a thread that is not
/// there.
pub(crate) fn handles_after_fork(threads: Threads) {
    let go_on = Arc::new(Barrier::new(4));
    let spawn = || {
        let go_on = go_on.clone();
        threads.spawn(move || {
            go_on.wait();
        })
    };
    let (joined, dropped) = (spawn(), spawn());
    // This one is with the reaper when the fork comes.
    drop(spawn());
    let mut both = Some((joined, dropped));
    in_forked_child(|| {
        let (joined, dropped) = both.take().expect("the child has its own copy");
        assert!(joined.is_finished());
        let error = joined.join().expect_err("there is no such thread");
        assert!(
            error
                .downcast_ref::<&str>()
                .is_some_and(|text| text.contains("fork"))
        );
        drop(dropped);
        threads.each(|_| {});
    });
    let (joined, dropped) = both.take().expect("the parent's is untouched");
    assert!(!joined.is_finished());
    go_on.wait();
    join(joined);
    join(dropped);
}

pub(crate) fn exit_while_running(threads: Threads) {
    for i in 0..THREADS {
        let handle = threads.spawn(move || {
            if i == 0 {
                std::thread::sleep(Duration::from_millis(10));
                std::process::exit(7);
            }
            loop {
                drop(black_box(vec![1_u8; 100]));
            }
        });
        std::mem::forget(handle);
    }
    loop {
        std::thread::park();
    }
}

pub(crate) fn main_returns(threads: Threads) {
    let running = Arc::new(AtomicUsize::new(0));
    for _ in 0..THREADS {
        let running = running.clone();
        let handle = threads.spawn(move || {
            running.fetch_add(1, Ordering::Relaxed);
            loop {
                drop(black_box(vec![1_u8; 100]));
            }
        });
        std::mem::forget(handle);
    }
    wait_until("all run", || running.load(Ordering::Relaxed) == THREADS);
}

/// Recurses until the stack is used up.
#[inline(never)]
fn recurse(depth: usize) -> usize {
    let frame = black_box([depth; 100]);
    if depth == usize::MAX {
        return 0;
    }
    recurse(depth + 1) + frame[depth % 100]
}

pub(crate) fn overflow(threads: Threads) {
    // Beside threads that are fine, so that the right one must be found.
    let others: Vec<_> = (0..3).map(|_| threads.spawn(std::thread::park)).collect();
    let handle = threads.try_spawn("deep", STACK, || {
        black_box(recurse(0));
    });
    join(handle.unwrap());
    drop(others);
    panic!("a thread survived the overflow of its stack");
}

pub(crate) fn overflow_in_a_destructor(threads: Threads) {
    struct Recurses;
    impl Drop for Recurses {
        fn drop(&mut self) {
            black_box(recurse(0));
        }
    }
    thread_local! {
        static LAST: Cell<Option<Recurses>> = const { Cell::new(None) };
    }
    if !threads.is_raw() {
        // std gives its signal stack back before these destructors run: it dies without a word.
        // So that the item passes with the same ending, this one overflows in the closure.
        return overflow(threads);
    }
    join(
        threads
            .try_spawn("deep", STACK, || LAST.set(Some(Recurses)))
            .unwrap(),
    );
    panic!("a thread survived the overflow of its stack");
}

fn fault() {
    // SAFETY: not at all: the access is meant to fault. The address is in the first page, which
    // is never mapped.
    unsafe { ptr::without_provenance_mut::<u8>(8).write_volatile(1) };
}

pub(crate) fn fault_goes_to_the_default(threads: Threads) {
    join(threads.spawn(fault));
}

extern "C" fn exits(signal: c_int, info: *mut libc::siginfo_t, _: *mut c_void) {
    // SAFETY: the kernel's siginfo; _exit is async-signal-safe.
    unsafe {
        let right = signal == libc::SIGSEGV && (*info).si_addr().addr() == 8;
        libc::_exit(if right { 7 } else { 1 });
    }
}

pub(crate) fn fault_goes_to_the_handler_before(threads: Threads) {
    // Before the first thread is started, and so before gort's handler.
    // SAFETY: all zeroes is a valid sigaction.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = exits as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        assert_eq!(
            libc::sigaction(libc::SIGSEGV, &action, ptr::null_mut()),
            0,
            "{}",
            errno()
        );
    }
    join(threads.spawn(fault));
}

/// A SIGSEGV that was sent and not caused must not get lost between the handlers.
pub(crate) fn sent_signal_kills(threads: Threads) {
    // SAFETY: raise touches no memory.
    join(threads.spawn(|| assert_eq!(unsafe { libc::raise(libc::SIGSEGV) }, 0)));
    // std's handler, which comes next, leaves the signal to a fault that does not come again.
    // SAFETY: as above.
    join(threads.spawn(|| assert_eq!(unsafe { libc::raise(libc::SIGSEGV) }, 0)));
}
