//! Fan-out: ask many at once, take what comes in time, and abort the rest.
//!
//! `cargo run --bin fan_out`

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use gort::sync::mpsc;
use gort::time::{sleep, timeout_at};

const BACKENDS: usize = 100;

/// Stands for something that a task holds: a connection, a permit. Dropping it gives it back.
struct Held(Arc<AtomicUsize>);

impl Held {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        // Relaxed, here and below: the count is read after the tasks have been joined.
        count.fetch_add(1, Relaxed);
        Held(Arc::clone(count))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// Stands for a request to a backend: the even ones answer within 25 ms, the odd ones never.
async fn ask(backend: usize, held: Held) -> usize {
    if backend % 2 == 0 {
        sleep(Duration::from_micros(250 * backend as u64)).await;
    } else {
        std::future::pending::<()>().await;
    }
    drop(held);
    backend * 1000
}

#[gort::main]
async fn main() {
    let held = Arc::new(AtomicUsize::new(0));
    let (answers, mut incoming) = mpsc::unbounded_channel();

    let tasks: Vec<_> = (0..BACKENDS)
        .map(|backend| {
            let (answers, held) = (answers.clone(), Held::new(&held));
            gort::spawn(async move {
                let answer = ask(backend, held).await;
                // Fails only if nobody wants answers any more.
                let _ = answers.send((backend, answer));
            })
        })
        .collect();

    // All answers together have this much time. Half of the backends will use it up.
    let begin = Instant::now();
    let deadline = gort::time::Instant::now() + Duration::from_secs(1);
    let mut in_time = Vec::new();
    while let Ok(Some((backend, answer))) = timeout_at(deadline, incoming.recv()).await {
        assert_eq!(answer, backend * 1000);
        in_time.push(backend);
    }
    println!(
        "{} of {BACKENDS} backends answered within {:.1?}.",
        in_time.len(),
        begin.elapsed()
    );

    // Dropping a `JoinHandle` would leave its task running. `abort` drops the task's future, and
    // with it what it holds.
    let (mut finished, mut aborted) = (0, 0);
    for task in &tasks {
        task.abort();
    }
    for task in tasks {
        match task.await {
            Ok(()) => finished += 1,
            Err(error) if error.is_cancelled() => aborted += 1,
            Err(error) => panic!("a backend's task failed: {error}"),
        }
    }
    println!("{finished} tasks had finished, {aborted} were aborted.");

    assert_eq!(finished, in_time.len());
    assert_eq!(finished + aborted, BACKENDS);
    assert!(in_time.iter().all(|backend| backend % 2 == 0));
    assert!(aborted >= BACKENDS / 2);
    // Joined means dropped: nothing is held any more.
    assert_eq!(held.load(Relaxed), 0);
}
