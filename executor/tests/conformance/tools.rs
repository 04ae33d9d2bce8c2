//! Debuggers and checkers.

use crate::support::{THREADS, Threads, command, join, run_child, skip};
use std::hint::black_box;
use std::process::Command;
use std::sync::{Arc, Barrier};

/// The frame that the debugger must find in each thread.
#[inline(never)]
fn landmark(meet: &Barrier) {
    meet.wait();
    meet.wait();
    black_box(());
}

pub(crate) fn gdb_shows_every_thread(threads: Threads) {
    if let Err(e) = Command::new("gdb").arg("--version").output() {
        return skip("gdb_shows_every_thread", &format!("there is no gdb: {e}"));
    }
    let meet = Arc::new(Barrier::new(THREADS + 1));
    let handles: Vec<_> = (0..THREADS)
        .map(|_| {
            let meet = meet.clone();
            threads.spawn(move || landmark(&meet))
        })
        .collect();
    meet.wait();
    // SAFETY: lets any process of this user trace this one, also where that is restricted.
    unsafe { libc::prctl(libc::PR_SET_PTRACER, libc::PR_SET_PTRACER_ANY) };
    let mut gdb = Command::new("gdb");
    gdb.args(["-nx", "-batch", "-p", &std::process::id().to_string()])
        .args(["-ex", "set pagination off", "-ex", "thread apply all bt"]);
    let output = run_child(gdb);
    meet.wait();
    handles.into_iter().for_each(join);

    let shown = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    if errors.contains("ptrace") {
        return skip("gdb_shows_every_thread", &errors);
    }
    let found = shown.matches("tools::landmark").count();
    assert_eq!(found, THREADS, "{shown}\n{errors}");
    // Every backtrace ends at the thread's root, and not in the void.
    for bad in ["Backtrace stopped", "corrupt stack"] {
        assert!(
            !shown.contains(bad) && !errors.contains(bad),
            "{shown}\n{errors}"
        );
    }
    // libthread_db knows them as pthreads.
    assert!(shown.matches("(Thread 0x").count() > THREADS, "{shown}");
}

pub(crate) fn valgrind_finds_nothing(threads: Threads) {
    const UNDER_VALGRIND: &str = "GORT_CONFORMANCE_UNDER_VALGRIND";
    if std::env::var_os(UNDER_VALGRIND).is_some() {
        return under_valgrind(threads);
    }
    if let Err(e) = Command::new("valgrind").arg("--version").output() {
        return skip(
            "valgrind_finds_nothing",
            &format!("there is no valgrind: {e}"),
        );
    }
    let name = if threads.is_raw() {
        "raw_clone::tools::valgrind_finds_nothing"
    } else {
        "std_thread::tools::valgrind_finds_nothing"
    };
    let plain = command(name);
    let mut valgrind = Command::new("valgrind");
    valgrind
        .args(["--error-exitcode=99", "--quiet"])
        .arg(plain.get_program())
        .args(plain.get_args())
        .env(UNDER_VALGRIND, "1");
    for (key, value) in plain.get_envs() {
        valgrind.env(key, value.unwrap_or_default());
    }
    let output = run_child(valgrind);
    if String::from_utf8_lossy(&output.stderr).contains("Fatal error at startup") {
        return skip(
            "valgrind_finds_nothing",
            &"valgrind lacks the symbols of this libc",
        );
    }
    assert!(
        output.status.success(),
        "{}\n{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

fn under_valgrind(threads: Threads) {
    for _ in 0..3 {
        threads.each(|i| {
            let blocks: Vec<Box<[u8]>> = (0..100).map(|k| vec![i as u8; 16 + k].into()).collect();
            black_box(&blocks);
            let caught = std::panic::catch_unwind(|| std::panic::resume_unwind(Box::new(1)));
            assert!(caught.is_err());
            std::thread::spawn(|| drop(vec![1_u8; 100])).join().unwrap();
        });
    }
}
