//! Each option of the builder has its effect.

use std::collections::HashSet;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gort::runtime::{Builder, RuntimeFlavor, ThreadBackend};
use gort_tests::{
    Count, Gate, Watchdog, current_thread, in_child, multi_thread, on_each_runtime, panic_message,
    wait_until,
};

fn gettid() -> i32 {
    // SAFETY: gettid has no preconditions.
    unsafe { libc::gettid() }
}

fn comm(tid: i32) -> String {
    let path = format!("/proc/self/task/{tid}/comm");
    std::fs::read_to_string(path).unwrap().trim_end().to_owned()
}

/// The kernel ids of all worker threads.
fn worker_tids(runtime: &gort::runtime::Runtime) -> Vec<i32> {
    let metrics = runtime.metrics();
    let tids = || -> Vec<i32> {
        let machines = metrics.machines();
        machines.iter().filter_map(|m| m.thread_id).collect()
    };
    wait_until("every worker runs", || {
        tids().len() == metrics.num_workers()
    });
    tids()
}

#[test]
fn defaults() {
    let runtime = multi_thread(2).build().unwrap();
    assert_eq!(
        runtime.handle().runtime_flavor(),
        RuntimeFlavor::MultiThread
    );
    for tid in worker_tids(&runtime) {
        assert_eq!(comm(tid), "gort-worker");
    }
    let single = current_thread().build().unwrap();
    assert_eq!(
        single.handle().runtime_flavor(),
        RuntimeFlavor::CurrentThread
    );
    assert_eq!(single.metrics().num_workers(), 1);
    assert!(
        single.metrics().machines().is_empty(),
        "no thread of its own"
    );
}

#[test]
fn worker_threads() {
    for workers in [1, 3, 16, 100] {
        let _watchdog = Watchdog::new("worker threads");
        let runtime = multi_thread(workers).build().unwrap();
        assert_eq!(runtime.metrics().num_workers(), workers);
        assert_eq!(worker_tids(&runtime).len(), workers);
        // That many polls at once.
        let barrier = Arc::new(std::sync::Barrier::new(workers));
        let tasks: Vec<_> = (0..workers)
            .map(|_| {
                let barrier = barrier.clone();
                runtime.spawn(async move {
                    barrier.wait();
                    gettid()
                })
            })
            .collect();
        let on: HashSet<_> = tasks
            .into_iter()
            .map(|task| runtime.block_on(task).unwrap())
            .collect();
        assert_eq!(on.len(), workers, "each on a thread of its own");
    }
}

#[test]
fn zero_is_refused() {
    type Set = fn(&mut Builder);
    let options: [(&str, Set); 5] = [
        ("Worker threads", |b| drop(b.worker_threads(0).clone())),
        ("Max blocking threads", |b| {
            drop(b.max_blocking_threads(0).clone())
        }),
        ("global_queue_interval", |b| {
            drop(b.global_queue_interval(0).clone())
        }),
        ("event_interval", |b| drop(b.event_interval(0).clone())),
        ("max_io_events_per_tick", |b| {
            drop(b.max_io_events_per_tick(0).clone())
        }),
    ];
    for (name, set) in options {
        let message = panic_message(|| set(&mut Builder::new_multi_thread()));
        assert!(message.contains(name), "{message}");
    }
}

#[test]
fn absurd_worker_counts_are_an_error() {
    let error = multi_thread(1 << 20).build().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    assert!(error.to_string().contains("1048576"), "{error}");
}

#[test]
fn workers_from_the_environment() {
    in_child(
        "workers_from_the_environment",
        |command| {
            command.env("GORT_WORKERS", "7");
        },
        || {
            let runtime = Builder::new_multi_thread().build().unwrap();
            assert_eq!(runtime.metrics().num_workers(), 7);
            // The builder's word is the last.
            assert_eq!(multi_thread(3).build().unwrap().metrics().num_workers(), 3);
            assert_eq!(current_thread().build().unwrap().metrics().num_workers(), 1);
        },
    );
}

#[test]
fn a_bad_environment_is_explained() {
    in_child(
        "a_bad_environment_is_explained",
        |command| {
            command.env("GORT_WORKERS", "several");
        },
        || {
            let message = panic_message(|| drop(Builder::new_multi_thread().build()));
            assert!(message.contains("GORT_WORKERS") && message.contains("several"));
            assert!(multi_thread(1).build().is_ok());
        },
    );
}

#[test]
fn thread_names() {
    let runtime = multi_thread(2)
        .thread_name("a-name-that-is-too-long")
        .build()
        .unwrap();
    for tid in worker_tids(&runtime) {
        assert_eq!(comm(tid), "a-name-that-is-", "Linux keeps 15 bytes");
    }
    let name = runtime.spawn_blocking(|| comm(gettid()));
    assert_eq!(runtime.block_on(name).unwrap(), "a-name-that-is-");

    let calls = AtomicUsize::new(0);
    let runtime = multi_thread(3)
        .thread_name_fn(move || format!("number-{}", calls.fetch_add(1, SeqCst)))
        .build()
        .unwrap();
    let names: HashSet<_> = worker_tids(&runtime).into_iter().map(comm).collect();
    let expected = ["number-0", "number-1", "number-2"].map(String::from);
    assert_eq!(names, HashSet::from(expected));
}

#[test]
fn a_name_with_nul_is_an_error() {
    let error = multi_thread(1).thread_name("a\0b").build().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    assert!(error.to_string().contains("NUL"), "{error}");
}

/// Goes down the stack to `depth` bytes below `top`; counts the frames.
#[inline(never)]
fn dig(top: usize, depth: usize) -> usize {
    let frame = std::hint::black_box([1_u8; 1024]);
    if top.saturating_sub(&raw const frame as usize) >= depth {
        return usize::from(frame[0]);
    }
    dig(top, depth) + usize::from(std::hint::black_box(&frame)[512])
}

fn dig_from_here(depth: usize) -> usize {
    let here = 0_u8;
    dig(&raw const here as usize, depth)
}

#[test]
fn thread_stack_size() {
    const BYTES: usize = 16 << 20;
    for backend in [ThreadBackend::Auto, ThreadBackend::Std] {
        let runtime = multi_thread(1)
            .thread_backend(backend)
            .thread_stack_size(BYTES)
            .build()
            .unwrap();
        // More than the default could hold, in a poll and in a blocking closure.
        let depth = 12 << 20;
        let polled = runtime.spawn(async move { dig_from_here(depth) });
        assert!(runtime.block_on(polled).unwrap() > 1);
        let blocking = runtime.spawn_blocking(move || dig_from_here(depth));
        assert!(runtime.block_on(blocking).unwrap() > 1);
    }
}

#[test]
fn thread_backends() {
    for backend in [
        ThreadBackend::Auto,
        ThreadBackend::Std,
        ThreadBackend::RawClone,
    ] {
        let runtime = match multi_thread(2).thread_backend(backend).build() {
            Ok(runtime) => runtime,
            // Allowed where the self-check does not pass; the error says which and what to do.
            Err(error) => {
                assert_eq!(backend, ThreadBackend::RawClone);
                assert_eq!(error.kind(), std::io::ErrorKind::Unsupported);
                assert!(error.to_string().contains("ThreadBackend"), "{error}");
                continue;
            }
        };
        assert_eq!(runtime.block_on(runtime.spawn(async { 5 })).unwrap(), 5);
        // What runs is visible, and so is the reason where it is not the first choice.
        let metrics = runtime.metrics();
        let expected = match (backend, std::env::var("GORT_THREAD_BACKEND").as_deref()) {
            (ThreadBackend::Auto, Ok("std")) => ThreadBackend::Std,
            (ThreadBackend::Auto, _) if metrics.thread_fallback_reason().is_some() => {
                ThreadBackend::Std
            }
            (ThreadBackend::Auto, _) => ThreadBackend::RawClone,
            (named, _) => named,
        };
        assert_eq!(metrics.thread_backend(), expected);
    }
}

/// Start and stop run once on each thread, on the thread itself; park and unpark go in pairs.
#[test]
fn thread_hooks() {
    let _watchdog = Watchdog::new("thread hooks");
    let started = Arc::new(Mutex::new(Vec::new()));
    let stopped = Arc::new(Mutex::new(Vec::new()));
    let (parks, unparks) = (Count::new(), Count::new());
    let mut builder = multi_thread(3);
    {
        let (started, stopped) = (started.clone(), stopped.clone());
        let (parks, unparks) = (parks.clone(), unparks.clone());
        builder
            .on_thread_start(move || started.lock().unwrap().push(gettid()))
            .on_thread_stop(move || stopped.lock().unwrap().push(gettid()))
            .on_thread_park(move || parks.add())
            .on_thread_unpark(move || unparks.add());
    }
    let runtime = builder.build().unwrap();
    runtime.block_on(runtime.spawn_blocking(|| {})).unwrap();
    runtime.block_on(async {
        for _ in 0..20 {
            gort::spawn(gort::time::sleep(Duration::from_millis(1)))
                .await
                .unwrap();
        }
    });
    wait_until("all workers sleep", || {
        parks.get() == unparks.get() + 3 && started.lock().unwrap().len() == 4
    });
    assert!(stopped.lock().unwrap().is_empty());
    drop(runtime);
    let sorted = |tids: &Mutex<Vec<i32>>| {
        let mut tids = tids.lock().unwrap().clone();
        tids.sort();
        tids
    };
    assert_eq!(sorted(&started), sorted(&stopped));
    assert_eq!(
        started.lock().unwrap().iter().collect::<HashSet<_>>().len(),
        4
    );
    assert_eq!(parks.get(), unparks.get());
    assert!(parks.get() >= 20);
}

/// A current-thread runtime has no threads, but its driver parks.
#[test]
fn hooks_of_the_current_thread_flavor() {
    let (starts, parks, unparks) = (Count::new(), Count::new(), Count::new());
    let mut builder = current_thread();
    {
        let (starts, parks, unparks) = (starts.clone(), parks.clone(), unparks.clone());
        builder
            .on_thread_start(move || starts.add())
            .on_thread_park(move || parks.add())
            .on_thread_unpark(move || unparks.add());
    }
    let runtime = builder.build().unwrap();
    runtime.block_on(async { gort::time::sleep(Duration::from_millis(5)).await });
    assert_eq!(starts.get(), 0);
    assert!(parks.get() >= 1);
    assert_eq!(parks.get(), unparks.get());
}

/// A panic in a hook is reported and goes no further.
#[test]
fn panicking_hooks() {
    let _watchdog = Watchdog::new("panicking hooks");
    let runtime = multi_thread(2)
        .on_thread_start(|| panic!("on start"))
        .on_thread_stop(|| panic!("on stop"))
        .on_thread_park(|| panic!("on park"))
        .on_thread_unpark(|| panic!("on unpark"))
        .build()
        .unwrap();
    for _ in 0..10 {
        runtime.block_on(runtime.spawn(async {})).unwrap();
        let nap = gort::time::Duration::from_millis(1);
        let slept = runtime.spawn(async move { gort::time::sleep(nap).await });
        runtime.block_on(slept).unwrap();
    }
    drop(runtime);
}

/// With an interval of 1 a task from outside comes before those that keep the P busy.
#[test]
fn global_queue_interval() {
    // How many polls of a busy P pass until a task from outside has its turn.
    fn polls_before(interval: u32) -> usize {
        let runtime = multi_thread(1)
            .global_queue_interval(interval)
            .build()
            .unwrap();
        let (gate, polls) = (Gate::new(), Count::new());
        let holder = {
            let (gate, polls) = (gate.clone(), polls.clone());
            runtime.spawn(async move {
                // 200 tasks in the ring, which stays busy for that long.
                for _ in 0..200 {
                    let polls = polls.clone();
                    gort::spawn(async move { polls.add() });
                }
                gate.pass();
            })
        };
        wait_until("the worker is held", || {
            runtime.metrics().processors()[0].queued >= 100
        });
        let outside = {
            let polls = polls.clone();
            runtime.spawn(async move { polls.get() })
        };
        gate.open();
        runtime.block_on(holder).unwrap();
        runtime.block_on(outside).unwrap()
    }
    assert!(polls_before(1) <= 2);
    let usual = polls_before(31);
    assert!((1..=32).contains(&usual), "{usual}");
    assert_eq!(polls_before(1_000), 200, "only when the ring is empty");
}

/// How many polls pass before a busy worker sees a timer that is due.
#[test]
fn event_interval() {
    fn polls_before(interval: u32) -> usize {
        let runtime = current_thread().event_interval(interval).build().unwrap();
        runtime.block_on(async move {
            // The first round looks at once; from here on the interval counts.
            gort::task::yield_now().await;
            let mut sleep = Box::pin(gort::time::sleep(Duration::from_millis(1)));
            let (count, fired) = (Count::new(), Count::new());
            // One that always has a turn to wait for, by waking itself without yielding.
            let busy = {
                let (count, fired) = (count.clone(), fired.clone());
                gort::spawn(std::future::poll_fn(move |cx| {
                    if fired.get() > 0 {
                        return std::task::Poll::Ready(());
                    }
                    count.add();
                    cx.waker().wake_by_ref();
                    std::task::Poll::Pending
                }))
            };
            std::future::poll_fn(|cx| {
                if sleep.as_mut().poll(cx).is_pending() {
                    // Due before anybody can look again.
                    std::thread::sleep(Duration::from_millis(3));
                    return std::task::Poll::Pending;
                }
                fired.add();
                std::task::Poll::Ready(())
            })
            .await;
            busy.await.unwrap();
            count.get()
        })
    }
    use std::future::Future;
    assert!(polls_before(1) <= 3);
    let usual = polls_before(40);
    assert!((30..=42).contains(&usual), "{usual}");
    let rare = polls_before(500);
    assert!((400..=502).contains(&rare), "{rare}");
}

#[test]
fn io_and_time_must_be_enabled() {
    for builder in [
        &mut Builder::new_current_thread(),
        Builder::new_multi_thread().worker_threads(1),
    ] {
        let runtime = builder.build().unwrap();
        let message = panic_message(|| {
            runtime.block_on(async { gort::time::sleep(Duration::ZERO).await });
        });
        assert!(message.contains("enable_time"), "{message}");
        let message = panic_message(|| {
            let bound = runtime.block_on(gort::net::TcpListener::bind("127.0.0.1:0"));
            drop(bound);
        });
        assert!(message.contains("enable_io"), "{message}");
        let runtime = builder.enable_io().enable_time().build().unwrap();
        runtime.block_on(async {
            gort::time::sleep(Duration::ZERO).await;
            gort::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        });
    }
}

/// A builder builds many, all alike.
#[test]
fn one_builder_many_runtimes() {
    let _watchdog = Watchdog::new("many runtimes");
    let mut builder = multi_thread(2);
    builder.thread_name("twin");
    let runtimes: Vec<_> = (0..10).map(|_| builder.build().unwrap()).collect();
    let clone = builder.clone().build().unwrap();
    let ids: HashSet<_> = runtimes
        .iter()
        .map(|runtime| runtime.handle().id())
        .collect();
    assert_eq!(ids.len(), 10);
    for runtime in runtimes.iter().chain([&clone]) {
        assert_eq!(worker_tids(runtime).len(), 2);
        let name = runtime.spawn(async { comm(gettid()) });
        assert_eq!(runtime.block_on(name).unwrap(), "twin");
    }
}

/// Everything that a runtime takes from the system it gives back.
#[test]
fn nothing_is_left_behind() {
    in_child(
        "nothing_is_left_behind",
        |_| {},
        || {
            let entries = |dir: &str| std::fs::read_dir(Path::new(dir)).unwrap().count();
            let round = || {
                on_each_runtime(|runtime| {
                    runtime.block_on(async {
                        gort::time::sleep(Duration::from_millis(1)).await;
                        gort::task::spawn_blocking(|| {}).await.unwrap();
                        let listener = gort::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
                        let address = listener.local_addr().unwrap();
                        let (client, server) =
                            gort::join!(gort::net::TcpStream::connect(address), listener.accept());
                        drop((client.unwrap(), server.unwrap()));
                    });
                });
            };
            round();
            let descriptors = entries("/proc/self/fd");
            for _ in 0..5 {
                round();
            }
            assert_eq!(entries("/proc/self/fd"), descriptors);
            // The main thread, the one of this test, and the watchdogs on their way out.
            wait_until("every thread has ended", || entries("/proc/self/task") <= 2);
        },
    );
}
