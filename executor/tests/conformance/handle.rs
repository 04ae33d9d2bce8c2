//! gort's own contract: handles, the reaper, refusals, the choice of the back end.

use crate::dynamic::Built;
use crate::support::{
    STACK, THREADS, Threads, command, gettid, is_root, join, proc_lines, run_child, skip,
    wait_until,
};
use gort::__conformance::{ThreadBackend, selected};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Barrier, Mutex, mpsc};

pub(crate) fn tid_and_is_finished(threads: Threads) {
    for _ in 0..20 {
        let go_on = Arc::new(Barrier::new(2));
        let tid = Arc::new(AtomicI32::new(0));
        let (g, t) = (go_on.clone(), tid.clone());
        let handle = threads.spawn(move || {
            t.store(gettid(), Ordering::Relaxed);
            g.wait();
            g.wait();
        });
        go_on.wait();
        assert_eq!(handle.tid(), tid.load(Ordering::Relaxed));
        assert!(!handle.is_finished());
        go_on.wait();
        wait_until("it is finished", || handle.is_finished());
        join(handle);
    }
}

pub(crate) fn panic_is_the_result(threads: Threads) {
    let handle = threads.spawn(|| panic!("in {}", gettid()));
    let text = format!("in {}", handle.tid());
    let payload = handle.join().expect_err("it panicked");
    assert_eq!(payload.downcast_ref::<String>(), Some(&text));
    let handle = threads.spawn(|| std::panic::resume_unwind(Box::new(77_u8)));
    assert_eq!(
        handle.join().expect_err("it panicked").downcast_ref(),
        Some(&77_u8)
    );
}

pub(crate) fn dropped_handles_are_reaped(threads: Threads) {
    let cycle = |rounds| {
        for _ in 0..rounds {
            let go_on = Arc::new(Barrier::new(THREADS + 1));
            for _ in 0..THREADS {
                let go_on = go_on.clone();
                // Dropped while the thread certainly runs.
                drop(threads.spawn(move || {
                    go_on.wait();
                }));
            }
            go_on.wait();
        }
        // Only these are left, and the next spawn takes them up.
        wait_until("all have ended", || {
            proc_lines("status") > 0 && tasks() <= 2
        });
        join(threads.spawn(|| {}));
    };
    cycle(10);
    let before = proc_lines("maps");
    cycle(300);
    let after = proc_lines("maps");
    // A mapping has four lines and the cache sixteen mappings; 1200 threads would have 4800.
    assert!(
        after <= before + 100,
        "mappings grew from {before} to {after}"
    );
}

fn tasks() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

/// A thread that joins itself would wait for ever; it panics instead.
pub(crate) fn join_itself(threads: Threads) {
    let (sender, receiver) = mpsc::channel();
    let (told, tells) = mpsc::channel();
    let receiver = Mutex::new(receiver);
    let handle = threads.spawn(move || {
        let own = receiver.lock().unwrap().recv().unwrap();
        let joined = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let own: gort::__conformance::Handle = own;
            own.join()
        }));
        told.send(joined.is_err()).unwrap();
    });
    sender.send(handle).unwrap();
    assert!(tells.recv().unwrap(), "joining itself did not panic");
}

pub(crate) fn bad_name(threads: Threads) {
    let error = threads
        .try_spawn("a\0b", STACK, || {})
        .expect_err("NUL in a name");
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
}

/// Sets a limit of the process and returns the one before.
fn limit(resource: libc::__rlimit_resource_t, soft: libc::rlim_t) -> libc::rlim_t {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the calls read and write the structure.
    unsafe {
        assert_eq!(libc::getrlimit(resource, &mut limit), 0);
        let before = limit.rlim_cur;
        limit.rlim_cur = soft.min(limit.rlim_max);
        assert_eq!(libc::setrlimit(resource, &limit), 0);
        before
    }
}

pub(crate) fn refused_by_nproc(threads: Threads) {
    // What is to be refused is the thread, not the check of the back end.
    join(threads.spawn(|| {}));
    if is_root() {
        // The limit does not hold for root. The user has no other processes.
        // SAFETY: changes the identity of this item's own process.
        assert_eq!(unsafe { libc::setuid(54_321) }, 0);
    }
    let before = limit(libc::RLIMIT_NPROC, 1);
    let error = match threads.try_spawn("refused", STACK, || {}) {
        Ok(handle) => {
            join(handle);
            return skip("refused_by_nproc", &"this user may exceed RLIMIT_NPROC");
        }
        Err(error) => error,
    };
    let text = error.to_string();
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock, "{text}");
    for hint in [
        "\"refused\"",
        "21 times",
        "`ulimit -u`",
        "is 1",
        "threads-max",
        "pid_max",
    ] {
        assert!(text.contains(hint), "{hint} is missing in: {text}");
    }
    limit(libc::RLIMIT_NPROC, before);
    // Nothing is left over that would hinder the next ones.
    for _ in 0..3 {
        threads.each(|_| {
            // SAFETY: -1 leaves each id as it is, but goes through all threads.
            assert_eq!(unsafe { libc::setresuid(u32::MAX, u32::MAX, u32::MAX) }, 0);
        });
    }
}

pub(crate) fn refused_by_address_space(threads: Threads) {
    join(threads.spawn(|| {}));
    let before = limit(libc::RLIMIT_AS, 4 << 30);
    let error = threads
        .try_spawn("refused", 8 << 30, || {})
        .expect_err("8 GiB within 4 GiB");
    limit(libc::RLIMIT_AS, before);
    let text = error.to_string();
    // pthread_create reports EAGAIN where mmap said ENOMEM, so std's error names other limits.
    let hint = if threads.is_raw() {
        "`ulimit -v`"
    } else {
        "refused"
    };
    assert!(text.contains(hint), "{hint} is missing in: {text}");
    join(threads.spawn(|| {}));
}

/// The variable is read once a process, so each value needs one.
pub(crate) fn environment_overrides_auto(threads: Threads) {
    const ENV: &str = "GORT_THREAD_BACKEND";
    const NAMES: [&str; 2] = [
        "std_thread::handle::environment_overrides_auto",
        "raw_clone::handle::environment_overrides_auto",
    ];
    match std::env::var("GORT_CONFORMANCE_EXPECTED") {
        Err(_) => {
            let raw = if threads.is_raw() { "raw" } else { "std" };
            for (value, expected) in [(raw, raw), ("auto", "raw"), ("bogus", "an error")] {
                let mut child = command(NAMES[usize::from(threads.is_raw())]);
                child
                    .env(ENV, value)
                    .env("GORT_CONFORMANCE_EXPECTED", expected);
                let output = run_child(child);
                let stderr = String::from_utf8_lossy(&output.stderr);
                assert!(output.status.success(), "{ENV}={value}: {stderr}");
            }
        }
        Ok(expected) => match selected(ThreadBackend::Auto) {
            Ok((name, _)) => {
                assert_eq!(name, expected);
                join(Threads(ThreadBackend::Auto).spawn(|| {}));
            }
            Err(error) => {
                assert_eq!(expected, "an error");
                assert!(
                    error.to_string().contains("expected raw, std or auto"),
                    "{error}"
                );
                // A builder that names a back end is not concerned.
                join(threads.spawn(|| {}));
            }
        },
    }
}

/// Many threads meet at the boot, while others come and go.
pub(crate) fn first_spawn_is_raced(threads: Threads) {
    let start = Barrier::new(THREADS);
    std::thread::scope(|scope| {
        for i in 0..THREADS {
            let start = &start;
            scope.spawn(move || {
                start.wait();
                for _ in 0..50 {
                    if i % 2 == 0 {
                        join(threads.spawn(|| {}));
                    } else {
                        std::thread::spawn(|| {}).join().unwrap();
                    }
                }
            });
        }
    });
}

/// Somebody else's pthread_create may do more than glibc's, which raw clone would leave out.
pub(crate) fn wrapped_pthread_create(threads: Threads) {
    const NAME: &str = "raw_clone::handle::wrapped_pthread_create";
    const WRAPPED: &str = "GORT_CONFORMANCE_WRAPPED";
    if !threads.is_raw() {
        return;
    }
    if std::env::var_os(WRAPPED).is_some() {
        let (name, why) = selected(ThreadBackend::Auto).expect("Auto always finds one");
        assert_eq!(name, "std");
        assert!(why.is_some_and(|why| why.contains("wrapped")), "{why:?}");
        join(Threads(ThreadBackend::Auto).spawn(|| {}));
        let error = threads
            .try_spawn("m", STACK, || {})
            .expect_err("not possible here");
        assert_eq!(error.kind(), std::io::ErrorKind::Unsupported);
        assert!(error.to_string().contains("wrapped"), "{error}");
        return;
    }
    let library = match Built::new("interpose.c", &["-ldl"]) {
        Ok(library) => library,
        Err(why) => return skip("wrapped_pthread_create", &why),
    };
    let mut child = command(NAME);
    child
        .env(WRAPPED, "1")
        .env("LD_PRELOAD", library.path())
        // `Auto` is what is tested.
        .env_remove("GORT_THREAD_BACKEND");
    let output = run_child(child);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
}
