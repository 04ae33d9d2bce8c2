//! The system refuses threads or descriptors: a clear error, no abort, nothing left behind.

use std::os::unix::process::CommandExt;
use std::process::Command;

use gort::runtime::ThreadBackend;
use gort_tests::{Gate, current_thread, in_child, multi_thread, panic_message, wait_until};

/// Users that run nothing else here, one a test: RLIMIT_NPROC counts all threads of a user, and
/// does not bind root.
const LONELY_USERS: u32 = 64_700;

fn limit(resource: libc::__rlimit_resource_t, value: u64) {
    let limit = libc::rlimit {
        rlim_cur: value,
        rlim_max: value,
    };
    // SAFETY: setrlimit reads the structure, which is ours.
    assert_eq!(unsafe { libc::setrlimit(resource, &limit) }, 0);
}

fn entries(dir: &str) -> usize {
    std::fs::read_dir(dir).unwrap().count()
}

/// Runs `body` as lonely user `number`, from a copy of this binary that this user may run.
fn as_lonely_user(number: u32, test: &str, body: impl FnOnce()) {
    // SAFETY: geteuid has no preconditions.
    let root = unsafe { libc::geteuid() } == 0;
    if !root && std::env::var_os("GORT_TEST_CHILD").is_none() {
        eprintln!("{test}: only root can become another user; nothing tested");
        return;
    }
    let copy = std::env::temp_dir().join(format!("gort-{test}-{}", std::process::id()));
    in_child(
        test,
        |command| {
            std::fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
            let mut other = Command::new(&copy);
            other
                .args(["--exact", test, "--nocapture", "--test-threads=1"])
                .env("GORT_TEST_CHILD", test)
                .current_dir("/")
                .stdin(std::process::Stdio::null())
                .stdout(std::process::Stdio::piped())
                .stderr(std::process::Stdio::piped())
                .uid(LONELY_USERS + number);
            *command = other;
        },
        body,
    );
    let _ = std::fs::remove_file(&copy);
}

/// As many as the limit allows are started, the refusal is the error, and they end again.
#[test]
fn threads_refused_to_build() {
    as_lonely_user(0, "threads_refused_to_build", || {
        let before = entries("/proc/self/task");
        limit(libc::RLIMIT_NPROC, before as u64 + 4);
        for backend in [ThreadBackend::Auto, ThreadBackend::Std] {
            let descriptors = entries("/proc/self/fd");
            let error = multi_thread(16)
                .thread_backend(backend)
                .build()
                .unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
            let text = error.to_string();
            for part in ["worker thread 5 of 16", "ulimit -u", "worker_threads"] {
                assert!(text.contains(part), "{part} is not in: {text}");
            }
            wait_until("what had been started has ended", || {
                entries("/proc/self/task") == before && entries("/proc/self/fd") == descriptors
            });
            // What fits can be built, before and after.
            let runtime = multi_thread(2).thread_backend(backend).build().unwrap();
            assert_eq!(runtime.block_on(runtime.spawn(async { 3 })).unwrap(), 3);
        }
    });
}

/// A blocking thread is refused: with one there the job waits for it, with none the caller hears.
#[test]
fn threads_refused_to_spawn_blocking() {
    as_lonely_user(1, "threads_refused_to_spawn_blocking", || {
        let before = entries("/proc/self/task");
        let runtime = current_thread()
            .thread_keep_alive(std::time::Duration::from_millis(1))
            .build()
            .unwrap();
        // One that works first, for the self-check of the raw back end needs a thread too.
        runtime.block_on(runtime.spawn_blocking(|| {})).unwrap();
        wait_until("its thread has ended", || {
            runtime.metrics().num_blocking_threads() == 0 && entries("/proc/self/task") == before
        });
        limit(libc::RLIMIT_NPROC, before as u64);
        let message = panic_message(|| drop(runtime.spawn_blocking(|| {})));
        assert!(message.contains("ulimit -u"), "{message}");
        // The runtime is no worse for it.
        assert_eq!(runtime.block_on(runtime.spawn(async { 3 })).unwrap(), 3);
        drop(runtime);
    });
}

/// A thread is refused when a P has been taken: its work is done by the others.
#[test]
fn threads_refused_to_a_hand_off() {
    as_lonely_user(2, "threads_refused_to_a_hand_off", || {
        let runtime = multi_thread(2).build().unwrap();
        runtime.block_on(runtime.spawn(async {})).unwrap();
        let tasks = entries("/proc/self/task");
        limit(libc::RLIMIT_NPROC, tasks as u64);
        let gate = Gate::new();
        let held = gort_tests::Count::new();
        let stuck: Vec<_> = (0..2)
            .map(|_| {
                let (gate, held) = (gate.clone(), held.clone());
                runtime.spawn(async move {
                    held.add();
                    gate.pass();
                })
            })
            .collect();
        wait_until("both workers are stuck", || held.get() == 2);
        let queued = runtime.spawn(async { 5 });
        let retaken = (0..2).filter(|p| runtime.handle().__retake(*p)).count();
        assert!(retaken > 0);
        wait_until("the refusal is counted", || {
            runtime.metrics().refused_threads_count() > 0
        });
        gate.open();
        assert_eq!(runtime.block_on(queued).unwrap(), 5);
        for task in stuck {
            runtime.block_on(task).unwrap();
        }
        wait_until("both Ps are idle", || {
            runtime.metrics().num_idle_processors() == 2
        });
    });
}

/// No descriptors for epoll: an error, and nothing left behind.
#[test]
fn descriptors_refused_to_build() {
    in_child(
        "descriptors_refused_to_build",
        |_| {},
        || {
            // Once before, for what a process opens only once.
            drop(multi_thread(1).build().unwrap());
            let (tasks, open) = (entries("/proc/self/task"), entries("/proc/self/fd"));
            for spare in 0..3 {
                // `entries` counts the descriptor that it reads the directory with.
                limit_soft(open as u64 - 1 + spare);
                for builder in [&mut current_thread(), &mut multi_thread(2)] {
                    if let Err(error) = builder.build() {
                        assert_eq!(error.raw_os_error().unwrap_or(libc::EMFILE), libc::EMFILE);
                    } else {
                        assert!(spare > 0, "without a descriptor there is no epoll");
                    }
                }
                limit_soft(1024);
                wait_until("nothing is left", || {
                    entries("/proc/self/task") == tasks && entries("/proc/self/fd") == open
                });
            }
            drop(multi_thread(2).build().unwrap());
        },
    );
}

fn limit_soft(value: u64) {
    let limit = libc::rlimit {
        rlim_cur: value,
        rlim_max: 1024,
    };
    // SAFETY: setrlimit reads the structure, which is ours.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) }, 0);
}
