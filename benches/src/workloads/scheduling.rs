//! Running and waking tasks that exist already.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot};

use super::Workload;
use crate::rt::Runtime;

/// Tasks that are alive at once where a workload wants many.
const CROWD: u64 = 1000;

pub(super) fn workloads<R: Runtime>() -> Vec<Workload<R>> {
    vec![
        Workload::task("yield, a single task", 200_000, yield_single::<R>),
        Workload::task("yield, 1000 tasks", 400_000, yield_crowd::<R>),
        Workload::task(
            "ping-pong with spawn, 1000 pairs at once",
            30_000,
            ping_pong::<R>,
        ),
        Workload::outside(
            "wake from a foreign thread and reply",
            10_000,
            wake_and_reply::<R>,
        ),
        Workload::outside(
            "wake 1000 tasks from a foreign thread",
            100_000,
            wake_crowd::<R>,
        ),
    ]
}

async fn yield_single<R: Runtime>(yields: u64) -> Duration {
    let start = Instant::now();
    for _ in 0..black_box(yields) {
        R::yield_now().await;
    }
    start.elapsed()
}

async fn yield_crowd<R: Runtime>(yields: u64) -> Duration {
    let each = yields / CROWD;
    let mut handles = Vec::with_capacity(CROWD as usize);
    let start = Instant::now();
    for _ in 0..CROWD {
        handles.push(R::spawn(async move {
            let mut yielded = 0;
            for _ in 0..each {
                R::yield_now().await;
                yielded += 1;
            }
            black_box(yielded)
        }));
    }
    let mut yielded = 0;
    for handle in handles {
        yielded += R::join(handle).await;
    }
    let elapsed = start.elapsed();
    assert_eq!(yielded, each * CROWD);
    elapsed
}

/// Each task spawns a partner, sends it a message and waits for the answer.
async fn ping_pong<R: Runtime>(pairs: u64) -> Duration {
    async fn pair<R: Runtime>(i: u64) -> u64 {
        let (ping, pinged) = oneshot::channel();
        let (pong, ponged) = oneshot::channel();
        R::detach(R::spawn(async move {
            let message: u64 = pinged.await.expect("a ping");
            pong.send(message + 1).expect("somebody waits for the pong");
        }));
        ping.send(i).expect("the partner waits for the ping");
        ponged.await.expect("a pong")
    }

    let mut sum = 0;
    let mut handles = Vec::with_capacity(CROWD as usize);
    let start = Instant::now();
    for _ in 0..pairs / CROWD {
        handles.extend((0..CROWD).map(|i| R::spawn(pair::<R>(i))));
        for handle in handles.drain(..) {
            sum += R::join(handle).await;
        }
    }
    let elapsed = start.elapsed();
    assert_eq!(sum, (pairs / CROWD) * (CROWD * (CROWD + 1) / 2));
    elapsed
}

/// A count that a foreign thread can wait for. The counting side needs no runtime either.
struct Tally {
    count: AtomicU64,
    waiter: Thread,
}

impl Tally {
    /// For the calling thread to wait on.
    fn new() -> Arc<Self> {
        Arc::new(Self {
            count: AtomicU64::new(0),
            waiter: thread::current(),
        })
    }

    /// Counts one, and wakes the waiter at each multiple of `wake_at`.
    fn add(&self, wake_at: u64) {
        // Release: pairs with the Acquire load in `wait`, so what was counted happened before.
        let count = self.count.fetch_add(1, Ordering::Release) + 1;
        if count % wake_at == 0 {
            self.waiter.unpark();
        }
    }

    fn wait(&self, at_least: u64) {
        // Acquire: pairs with the Release in `add`.
        while self.count.load(Ordering::Acquire) < at_least {
            thread::park();
        }
    }
}

/// The latency of a wake that finds the runtime idle, both ways.
fn wake_and_reply<R: Runtime>(rt: &R, wakes: u64) -> Duration {
    let tally = Tally::new();
    let notify = Arc::new(Notify::new());
    let task = rt.spawn_outside({
        let (tally, notify) = (tally.clone(), notify.clone());
        async move {
            for _ in 0..wakes {
                notify.notified().await;
                tally.add(1);
            }
        }
    });
    let start = Instant::now();
    for i in 1..=wakes {
        notify.notify_one();
        tally.wait(i);
    }
    let elapsed = start.elapsed();
    rt.block_on(R::join(task));
    elapsed
}

/// The throughput of wakes from outside: each round wakes all tasks and waits until all have run.
fn wake_crowd<R: Runtime>(rt: &R, wakes: u64) -> Duration {
    let rounds = wakes / CROWD;
    let tally = Tally::new();
    let (tasks, notifies): (Vec<_>, Vec<_>) = (0..CROWD)
        .map(|_| {
            let notify = Arc::new(Notify::new());
            let woken = notify.clone();
            let tally = tally.clone();
            let task = rt.spawn_outside(async move {
                for _ in 0..rounds {
                    woken.notified().await;
                    tally.add(CROWD);
                }
            });
            (task, notify)
        })
        .unzip();
    let start = Instant::now();
    for round in 1..=rounds {
        notifies.iter().for_each(|notify| notify.notify_one());
        tally.wait(round * CROWD);
    }
    let elapsed = start.elapsed();
    for task in tasks {
        rt.block_on(R::join(task));
    }
    elapsed
}
