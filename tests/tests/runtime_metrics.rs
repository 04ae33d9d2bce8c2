//! The counters add up, and an idle runtime uses no CPU.

use std::time::Duration;

use gort_tests::{
    Count, Gate, WORKERS, Watchdog, current_thread, multi_thread, on_each_runtime, wait_until,
};

#[test]
fn counts_add_up() {
    on_each_runtime(|runtime| {
        let metrics = runtime.metrics();
        assert_eq!(metrics.spawned_tasks_count(), 0);
        runtime.block_on(async {
            let tasks: Vec<_> = (0..1_000)
                .map(|n| {
                    gort::spawn(async move {
                        for _ in 0..n % 5 {
                            gort::task::yield_now().await;
                        }
                    })
                })
                .collect();
            for task in tasks {
                task.await.unwrap();
            }
            gort::task::spawn_blocking(|| {}).await.unwrap();
        });
        assert_eq!(metrics.spawned_tasks_count(), 1_001);
        wait_until("no task is alive", || metrics.num_alive_tasks() == 0);
        wait_until("no task is queued", || metrics.global_queue_depth() == 0);
        let processors = metrics.processors();
        let by_p: u64 = processors.iter().map(|p| p.polls).sum();
        // One poll a task, and one a yield: 200 tasks each of 0, 1, 2, 3 and 4 yields.
        assert_eq!(by_p, 1_000 + 200 * (1 + 2 + 3 + 4));
        if !metrics.machines().is_empty() && metrics.machines()[0].thread_id.is_some() {
            let by_m: u64 = metrics.machines().iter().map(|m| m.polls).sum();
            assert_eq!(by_p, by_m);
        }
        for (index, p) in processors.iter().enumerate() {
            assert_eq!(p.index, index);
            assert!(p.from_runnext <= p.polls);
            assert_eq!((p.queued, p.retaken), (0, 0));
        }
        let latency = metrics.schedule_latency();
        assert!(latency.count() > 0 && latency.count() <= by_p);
        let table = metrics.to_string();
        assert!(
            table.contains("polls") && table.contains("retaken"),
            "{table}"
        );
    });
}

#[test]
fn alive_and_queued() {
    for workers in WORKERS {
        let _watchdog = Watchdog::new("alive and queued");
        let runtime = multi_thread(workers).build().unwrap();
        let metrics = runtime.metrics();
        let (gate, held) = (Gate::new(), Count::new());
        let mut tasks = Vec::new();
        for _ in 0..workers {
            let (gate, held) = (gate.clone(), held.clone());
            tasks.push(runtime.spawn(async move {
                held.add();
                gate.pass();
            }));
        }
        wait_until("every worker is held", || held.get() == workers);
        tasks.extend((0..100).map(|_| runtime.spawn(async {})));
        assert_eq!(metrics.num_alive_tasks(), workers + 100);
        assert_eq!(metrics.global_queue_depth(), 100);
        assert_eq!(
            (metrics.num_idle_processors(), metrics.num_spinning()),
            (0, 0)
        );
        gate.open();
        runtime.block_on(async {
            for task in tasks {
                task.await.unwrap();
            }
        });
        wait_until("all is idle", || {
            metrics.num_alive_tasks() == 0
                && metrics.num_idle_processors() == workers
                && metrics.num_spinning() == 0
        });
    }
}

/// More tasks than a ring holds: the surplus goes to the global queue and is counted.
#[test]
fn spills_are_counted() {
    let runtime = multi_thread(1).build().unwrap();
    runtime
        .block_on(runtime.spawn(async {
            for _ in 0..1_000 {
                gort::spawn(async {});
            }
        }))
        .unwrap();
    let metrics = runtime.metrics();
    wait_until("all have run", || metrics.num_alive_tasks() == 0);
    let p = &metrics.processors()[0];
    assert!(p.spilled > 0 && p.spilled <= 1_000);
    assert!(p.from_global >= p.spilled);
}

/// Idle means asleep: neither worker threads nor driver wake up, with sockets and timers pending.
#[test]
fn idle_uses_no_cpu() {
    for workers in WORKERS {
        let runtime = multi_thread(workers).build().unwrap();
        let metrics = runtime.metrics();
        runtime.block_on(async {
            let listener = gort::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            gort::spawn(async move { listener.accept().await.map(drop) });
            gort::spawn(gort::time::sleep(Duration::from_secs(3_600)));
            gort::task::yield_now().await;
        });
        let asleep = || {
            metrics.num_idle_processors() == workers
                && metrics
                    .machines()
                    .iter()
                    .map(|m| m.parks + m.netpoll_waits)
                    .sum::<u64>()
                    > 0
        };
        wait_until("the workers sleep", asleep);
        std::thread::sleep(Duration::from_millis(100));
        let used = || -> Duration { metrics.machines().iter().filter_map(|m| m.cpu_time).sum() };
        let before = used();
        std::thread::sleep(Duration::from_millis(500));
        let used = used() - before;
        assert!(
            used < Duration::from_millis(50),
            "{used:?} in 500 ms of idleness"
        );
    }
}

/// The driver of a current-thread runtime sleeps too, and so does one that waits beside it.
#[test]
fn idle_drivers_use_no_cpu() {
    fn thread_cpu() -> Duration {
        let mut time = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: clock_gettime writes the structure, which is ours.
        let result = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
        assert_eq!(result, 0);
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    }
    let runtime = current_thread().build().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let before = thread_cpu();
                runtime.block_on(async { gort::time::sleep(Duration::from_millis(500)).await });
                let used = thread_cpu() - before;
                assert!(
                    used < Duration::from_millis(50),
                    "{used:?} in 500 ms of idleness"
                );
            });
        }
    });
}
