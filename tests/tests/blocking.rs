//! `spawn_blocking`: limits, the queue, the end of idle threads, abort, panics, nesting.

use std::time::Duration;

use gort::runtime::Handle;
use gort::task::spawn_blocking;
use gort_tests::{
    Count, Gate, Probe, Watchdog, current_thread, message, multi_thread, on_each_runtime,
    panic_message, wait_until, yield_until,
};

#[test]
fn results() {
    on_each_runtime(|runtime| {
        runtime.block_on(async {
            let jobs: Vec<_> = (0..300).map(|n| spawn_blocking(move || n * 2)).collect();
            for (n, job) in jobs.into_iter().enumerate() {
                assert_eq!(job.await.unwrap(), n * 2);
            }
        });
        let job = runtime.spawn_blocking(|| String::from("from outside"));
        assert_eq!(runtime.block_on(job).unwrap(), "from outside");
    });
}

/// No more than the maximum run at once; the others wait, and run in order.
#[test]
fn at_most_max_at_once() {
    for max in [1, 3] {
        let _watchdog = Watchdog::new("at most max at once");
        let runtime = multi_thread(2).max_blocking_threads(max).build().unwrap();
        let metrics = runtime.metrics();
        let (gate, running) = (Gate::new(), Count::new());
        let holders: Vec<_> = (0..max)
            .map(|_| {
                let (gate, running) = (gate.clone(), running.clone());
                runtime.spawn_blocking(move || {
                    running.add();
                    gate.pass();
                })
            })
            .collect();
        wait_until("all threads are held", || running.get() == max);
        let order = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let queued: Vec<_> = (0..20)
            .map(|n| {
                let order = order.clone();
                runtime.spawn_blocking(move || order.lock().unwrap().push(n))
            })
            .collect();
        assert_eq!(metrics.blocking_queue_depth(), 20);
        assert_eq!(metrics.num_blocking_threads(), max);
        assert_eq!(metrics.num_idle_blocking_threads(), 0);
        assert!(order.lock().unwrap().is_empty());
        gate.open();
        runtime.block_on(async {
            for job in holders.into_iter().chain(queued) {
                job.await.unwrap();
            }
        });
        assert_eq!(order.lock().unwrap().len(), 20);
        if max == 1 {
            assert_eq!(*order.lock().unwrap(), (0..20).collect::<Vec<_>>());
        }
        assert_eq!(metrics.num_blocking_threads(), max);
        wait_until("all threads are idle", || {
            metrics.num_idle_blocking_threads() == max
        });
    }
}

/// A thread that waits takes the next job; a second one is started only if none waits.
#[test]
fn threads_are_used_again() {
    let runtime = multi_thread(1).build().unwrap();
    let metrics = runtime.metrics();
    for _ in 0..50 {
        runtime.block_on(runtime.spawn_blocking(|| {})).unwrap();
        wait_until("the thread waits", || {
            metrics.num_idle_blocking_threads() == 1
        });
    }
    assert_eq!(metrics.num_blocking_threads(), 1);
}

#[test]
fn idle_threads_end() {
    let _watchdog = Watchdog::new("idle threads end");
    let stopped = Count::new();
    let seen = stopped.clone();
    let runtime = current_thread()
        .thread_keep_alive(Duration::from_millis(10))
        .on_thread_stop(move || seen.add())
        .build()
        .unwrap();
    let metrics = runtime.metrics();
    for round in 1..4 {
        let gate = Gate::new();
        let jobs: Vec<_> = (0..5)
            .map(|_| {
                let gate = gate.clone();
                runtime.spawn_blocking(move || gate.pass())
            })
            .collect();
        assert_eq!(metrics.num_blocking_threads(), 5);
        gate.open();
        runtime.block_on(async {
            for job in jobs {
                job.await.unwrap();
            }
        });
        wait_until("all have ended", || {
            metrics.num_blocking_threads() == 0 && stopped.get() == 5 * round
        });
    }
}

/// Jobs that come as threads time out are not lost.
#[test]
fn jobs_race_with_the_keep_alive() {
    let _watchdog = Watchdog::new("the keep-alive race");
    let runtime = current_thread()
        .thread_keep_alive(Duration::from_micros(200))
        .build()
        .unwrap();
    for n in 0..400_u64 {
        runtime.block_on(runtime.spawn_blocking(|| {})).unwrap();
        std::thread::sleep(Duration::from_micros(n % 8 * 50));
    }
}

#[test]
fn panics() {
    on_each_runtime(|runtime| {
        let job = runtime.spawn_blocking(|| panic!("in a job"));
        let id = job.id();
        let error = runtime.block_on(job).unwrap_err();
        assert_eq!(error.id(), id);
        assert_eq!(message(&*error.into_panic()), "in a job");
        // The thread lives.
        assert_eq!(runtime.block_on(runtime.spawn_blocking(|| 5)).unwrap(), 5);
    });
}

/// A job in the queue is cancelled, its closure dropped unrun; one that runs goes on.
#[test]
fn abort() {
    on_each_runtime(|outer| {
        let mut builder =
            if outer.handle().runtime_flavor() == gort::runtime::RuntimeFlavor::CurrentThread {
                current_thread()
            } else {
                multi_thread(outer.metrics().num_workers())
            };
        let runtime = builder.max_blocking_threads(1).build().unwrap();
        let (gate, running) = (Gate::new(), Count::new());
        let holder = {
            let (gate, running) = (gate.clone(), running.clone());
            runtime.spawn_blocking(move || {
                running.add();
                gate.pass();
                11
            })
        };
        wait_until("the first one runs", || running.get() == 1);
        let (ran, probe) = (Count::new(), Probe::new());
        let queued = {
            let (ran, guard) = (ran.clone(), probe.future());
            runtime.spawn_blocking(move || {
                let _guard = guard;
                ran.add();
            })
        };
        queued.abort();
        holder.abort();
        assert!(!holder.is_finished());
        gate.open();
        assert!(runtime.block_on(queued).unwrap_err().is_cancelled());
        assert_eq!(runtime.block_on(holder).unwrap(), 11);
        assert_eq!((ran.get(), probe.drops()), (0, 1));
    });
}

#[test]
fn nested() {
    on_each_runtime(|runtime| {
        let id = runtime.handle().id();
        let job = runtime.spawn_blocking(move || {
            assert_eq!(Handle::current().id(), id);
            let inner = spawn_blocking(move || {
                assert_eq!(Handle::current().id(), id);
                gort::spawn(async { 1 })
            });
            let task = Handle::current().block_on(inner).unwrap();
            Handle::current().block_on(async {
                gort::time::sleep(Duration::from_millis(1)).await;
                assert!(panic_message(|| Handle::current().block_on(async {})).contains("runtime"));
                task.await.unwrap() + spawn_blocking(|| 1).await.unwrap()
            })
        });
        assert_eq!(runtime.block_on(job).unwrap(), 2);
        // A runtime of its own, inside of a job.
        let job = runtime.spawn_blocking(|| {
            let own = current_thread().build().unwrap();
            own.block_on(async { gort::spawn(async { 6 }).await.unwrap() })
        });
        assert_eq!(runtime.block_on(job).unwrap(), 6);
    });
}

/// Jobs keep no task from running.
#[test]
fn tasks_run_beside_jobs() {
    on_each_runtime(|runtime| {
        let (gate, running) = (Gate::new(), Count::new());
        let jobs: Vec<_> = (0..8)
            .map(|_| {
                let (gate, running) = (gate.clone(), running.clone());
                runtime.spawn_blocking(move || {
                    running.add();
                    gate.pass();
                })
            })
            .collect();
        runtime.block_on(async {
            yield_until("all jobs run", || running.get() == 8).await;
            for n in 0..100 {
                assert_eq!(gort::spawn(async move { n }).await.unwrap(), n);
            }
            gate.open();
            for job in jobs {
                job.await.unwrap();
            }
        });
    });
}

/// The drop of the runtime cancels what is queued and waits for what runs.
#[test]
fn shutdown() {
    for builder in [&mut current_thread(), &mut multi_thread(2)] {
        let _watchdog = Watchdog::new("shutdown with jobs");
        let runtime = builder.max_blocking_threads(1).build().unwrap();
        let handle = runtime.handle().clone();
        let (gate, running, ended) = (Gate::new(), Count::new(), Count::new());
        let holder = {
            let (gate, running, ended) = (gate.clone(), running.clone(), ended.clone());
            runtime.spawn_blocking(move || {
                running.add();
                gate.pass();
                ended.add();
            })
        };
        wait_until("the first one runs", || running.get() == 1);
        let ran = Count::new();
        let queued: Vec<_> = (0..20)
            .map(|_| {
                let ran = ran.clone();
                runtime.spawn_blocking(move || ran.add())
            })
            .collect();
        let opener = std::thread::spawn(move || {
            wait_until("the shutdown has begun", || {
                handle.block_on(handle.spawn_blocking(|| {})).is_err()
            });
            gate.open();
        });
        drop(runtime);
        opener.join().unwrap();
        assert_eq!((ended.get(), ran.get()), (1, 0));
        let other = current_thread().build().unwrap();
        other.block_on(holder).unwrap();
        for job in queued {
            assert!(other.block_on(job).unwrap_err().is_cancelled());
        }
    }
}
