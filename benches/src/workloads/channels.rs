//! Tasks that talk through `tokio::sync::mpsc`, which every runtime here can use.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::Workload;
use crate::rt::Runtime;

const PRODUCERS: u64 = 64;

pub(super) fn workloads<R: Runtime>() -> Vec<Workload<R>> {
    vec![
        Workload::task("channel ping-pong, two tasks", 100_000, ping_pong::<R>),
        Workload::task("mpsc fan-in, 64 producers", 320_000, fan_in::<R>),
    ]
}

/// One message goes back and forth; an operation is a round trip.
async fn ping_pong<R: Runtime>(round_trips: u64) -> Duration {
    let (ping, mut pinged) = mpsc::channel(1);
    let (pong, mut ponged) = mpsc::channel(1);
    let start = Instant::now();
    let server = R::spawn(async move {
        while let Some(message) = pinged.recv().await {
            pong.send(message + 1)
                .await
                .expect("the client waits for the answer");
        }
    });
    let client = R::spawn(async move {
        let mut message = 0_u64;
        for _ in 0..round_trips {
            ping.send(message)
                .await
                .expect("the server waits for messages");
            message = ponged.recv().await.expect("an answer");
        }
        message
    });
    let last = R::join(client).await;
    let elapsed = start.elapsed();
    R::join(server).await;
    assert_eq!(last, round_trips);
    elapsed
}

/// Many producers, one consumer, a queue that is often full.
async fn fan_in<R: Runtime>(messages: u64) -> Duration {
    let each = messages / PRODUCERS;
    let (sender, mut receiver) = mpsc::channel(128);
    let start = Instant::now();
    for _ in 0..PRODUCERS {
        let sender = sender.clone();
        R::detach(R::spawn(async move {
            for i in 0..each {
                sender.send(i).await.expect("the consumer lives");
            }
        }));
    }
    drop(sender);
    let (mut count, mut sum) = (0, 0);
    while let Some(i) = receiver.recv().await {
        count += 1;
        sum += i;
    }
    let elapsed = start.elapsed();
    assert_eq!(count, each * PRODUCERS);
    assert_eq!(sum, each * each.saturating_sub(1) / 2 * PRODUCERS);
    elapsed
}
