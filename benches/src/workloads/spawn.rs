//! Starting tasks and waiting for their outputs.

use std::future::Future;
use std::hint::black_box;
use std::pin::Pin;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::Workload;
use crate::rt::Runtime;

/// Levels of the fork-join tree: a task for each of its nodes, 4095 in all.
const TREE_LEVELS: u32 = 12;

pub(super) fn workloads<R: Runtime>() -> Vec<Workload<R>> {
    vec![
        Workload::task("spawn and join, one at a time", 100_000, spawn_join::<R>),
        Workload::task(
            "spawn 100 k from inside, then join all",
            100_000,
            spawn_inside::<R>,
        ),
        Workload::outside(
            "spawn 100 k from outside, then join all",
            100_000,
            spawn_outside::<R>,
        ),
        Workload::task("chained spawn", 200_000, chained::<R>),
        Workload::task("fork-join, a tree of 4095 tasks", 30, fork_join::<R>),
    ]
}

async fn spawn_join<R: Runtime>(tasks: u64) -> Duration {
    let mut sum = 0;
    let start = Instant::now();
    for i in 0..tasks {
        sum += R::join(R::spawn(async move { black_box(i) })).await;
    }
    let elapsed = start.elapsed();
    assert_eq!(sum, sum_below(tasks));
    elapsed
}

async fn spawn_inside<R: Runtime>(tasks: u64) -> Duration {
    let mut handles = Vec::with_capacity(tasks as usize);
    let start = Instant::now();
    for i in 0..tasks {
        handles.push(R::spawn(async move { black_box(i) }));
    }
    let sum = join_all::<R>(handles).await;
    let elapsed = start.elapsed();
    assert_eq!(sum, sum_below(tasks));
    elapsed
}

fn spawn_outside<R: Runtime>(rt: &R, tasks: u64) -> Duration {
    let mut handles = Vec::with_capacity(tasks as usize);
    let start = Instant::now();
    for i in 0..tasks {
        handles.push(rt.spawn_outside(async move { black_box(i) }));
    }
    let sum = rt.block_on(join_all::<R>(handles));
    let elapsed = start.elapsed();
    assert_eq!(sum, sum_below(tasks));
    elapsed
}

async fn join_all<R: Runtime>(handles: Vec<R::JoinHandle<u64>>) -> u64 {
    let mut sum = 0;
    for handle in handles {
        sum += R::join(handle).await;
    }
    sum
}

fn sum_below(n: u64) -> u64 {
    n * n.saturating_sub(1) / 2
}

/// Each task spawns the next one and ends.
async fn chained<R: Runtime>(tasks: u64) -> Duration {
    fn link<R: Runtime>(before: u64, tasks: u64, done: oneshot::Sender<u64>) {
        R::detach(R::spawn(async move {
            let so_far = black_box(before + 1);
            if so_far < tasks {
                link::<R>(so_far, tasks, done);
            } else {
                done.send(so_far)
                    .expect("the workload waits for the last link");
            }
        }));
    }

    let (done, last) = oneshot::channel();
    let start = Instant::now();
    link::<R>(0, tasks, done);
    let ran = last.await.expect("the last link reports");
    let elapsed = start.elapsed();
    assert_eq!(ran, tasks);
    elapsed
}

async fn fork_join<R: Runtime>(trees: u64) -> Duration {
    /// Counts the nodes of a tree. The box is what recursion costs on every runtime.
    fn node<R: Runtime>(levels: u32) -> Pin<Box<dyn Future<Output = u64> + Send>> {
        Box::pin(async move {
            if levels == 1 {
                return black_box(1);
            }
            let left = R::spawn(node::<R>(levels - 1));
            let right = R::spawn(node::<R>(levels - 1));
            R::join(left).await + R::join(right).await + 1
        })
    }

    let mut nodes = 0;
    let start = Instant::now();
    for _ in 0..trees {
        nodes += R::join(R::spawn(node::<R>(TREE_LEVELS))).await;
    }
    let elapsed = start.elapsed();
    assert_eq!(nodes, trees * ((1 << TREE_LEVELS) - 1));
    elapsed
}
