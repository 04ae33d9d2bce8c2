//! Bugs that were found once, each by the shortest program that shows it.

use std::time::Duration;

use gort_tests::{Watchdog, current_thread, multi_thread};

/// A spawn through a handle after the shutdown counted the scheduler's memory down once too often:
/// the next owner freed it under the others.
#[test]
fn spawns_after_the_shutdown_leave_the_scheduler_alone() {
    for builder in [&mut current_thread(), &mut multi_thread(2)] {
        let runtime = builder.build().unwrap();
        let handle = runtime.handle().clone();
        drop(runtime);
        for _ in 0..100 {
            let task = handle.spawn(async {});
            assert!(handle.block_on(task).unwrap_err().is_cancelled());
            let job = handle.spawn_blocking(|| {});
            assert!(handle.block_on(job).unwrap_err().is_cancelled());
        }
        // Each of these reads memory that was freed by then.
        let clones: Vec<_> = (0..100).map(|_| handle.clone()).collect();
        assert!(clones.iter().all(|clone| clone.id() == handle.id()));
        assert_eq!(handle.metrics().num_alive_tasks(), 0);
    }
}

/// A second thread in `block_on` of a current-thread runtime took itself for a surplus worker, and
/// panicked after the keep-alive.
#[test]
fn a_second_driver_outlives_the_keep_alive() {
    let _watchdog = Watchdog::new("two drivers");
    let keep_alive = Duration::from_millis(1);
    let runtime = current_thread()
        .thread_keep_alive(keep_alive)
        .build()
        .unwrap();
    let barrier = std::sync::Barrier::new(3);
    let (send, receive) = gort::sync::watch::channel(false);
    std::thread::scope(|scope| {
        let drivers: Vec<_> = (0..3)
            .map(|_| {
                let mut receive = receive.clone();
                let (runtime, barrier) = (&runtime, &barrier);
                scope.spawn(move || {
                    runtime.block_on(async {
                        // All are in `block_on` now, and one of them drives.
                        barrier.wait();
                        receive.wait_for(|done| *done).await.unwrap();
                    });
                })
            })
            .collect();
        // Not a matter of speed: the longer, the surer it fails without the fix.
        std::thread::sleep(20 * keep_alive);
        send.send(true).unwrap();
        for driver in drivers {
            driver
                .join()
                .expect("a driver stays until its future is done");
        }
    });
}
