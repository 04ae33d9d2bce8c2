//! Signals on the real runtime. Each in a child process: handlers are the process's.

use std::time::Duration;

use gort::signal::unix::{SignalKind, signal};
use gort_tests::{Count, in_child, on_each_runtime, wait_until};

fn kill(signal: i32) {
    // SAFETY: kill and getpid have no preconditions.
    assert_eq!(unsafe { libc::kill(libc::getpid(), signal) }, 0);
}

#[test]
fn ctrl_c() {
    in_child(
        "ctrl_c",
        |_| {},
        || {
            on_each_runtime(|runtime| {
                runtime.block_on(async {
                    let armed = Count::new();
                    let waiting: Vec<_> = (0..5)
                        .map(|_| {
                            let armed = armed.clone();
                            gort::spawn(async move {
                                let mut ctrl_c = std::pin::pin!(gort::signal::ctrl_c());
                                std::future::poll_fn(|cx| {
                                    let polled = std::future::Future::poll(ctrl_c.as_mut(), cx);
                                    armed.add();
                                    polled
                                })
                                .await
                            })
                        })
                        .collect();
                    gort_tests::yield_until("all listen", || armed.get() == 5).await;
                    kill(libc::SIGINT);
                    for waiter in waiting {
                        waiter.await.unwrap().unwrap();
                    }
                });
            });
        },
    );
}

/// One signal reaches every runtime; signals reach a runtime that sleeps.
#[test]
fn several_runtimes() {
    in_child(
        "several_runtimes",
        |_| {},
        || {
            let runtimes: Vec<_> = (1..4)
                .map(|n| gort_tests::multi_thread(n).build().unwrap())
                .collect();
            let (armed, seen) = (Count::new(), Count::new());
            for runtime in &runtimes {
                let (armed, seen) = (armed.clone(), seen.clone());
                runtime.spawn(async move {
                    let mut listener = signal(SignalKind::user_defined1()).unwrap();
                    armed.add();
                    while listener.recv().await.is_some() {
                        seen.add();
                    }
                });
            }
            wait_until("all listen", || armed.get() == 3);
            for round in 1..20 {
                kill(libc::SIGUSR1);
                wait_until("each has seen it", || seen.get() == 3 * round);
            }
        },
    );
}

/// System calls of workers that a signal interrupts go on: a service under a rain of signals.
#[test]
fn interrupted_system_calls() {
    in_child(
        "interrupted_system_calls",
        |_| {},
        || {
            on_each_runtime(|runtime| {
                // Before the first signal, which would end the process otherwise.
                let mut listener = {
                    let _guard = runtime.enter();
                    signal(SignalKind::user_defined2()).unwrap()
                };
                let stop = gort_tests::Gate::new();
                let rain = {
                    let stop = stop.clone();
                    std::thread::spawn(move || {
                        while !stop.is_open() {
                            kill(libc::SIGUSR2);
                            std::thread::sleep(Duration::from_micros(200));
                        }
                    })
                };
                runtime.block_on(under_rain(&mut listener));
                stop.open();
                rain.join().unwrap();
            });
        },
    );
}

async fn under_rain(listener: &mut gort::signal::unix::Signal) {
    for n in 0..100 {
        listener.recv().await.unwrap();
        gort::time::sleep(Duration::from_micros(300)).await;
        assert_eq!(gort::spawn(async move { n }).await.unwrap(), n);
        gort::task::spawn_blocking(|| std::thread::sleep(Duration::from_micros(300)))
            .await
            .unwrap();
    }
}
