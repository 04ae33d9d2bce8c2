//! The smallest program: spawn tasks and wait for what they return.
//!
//! `cargo run --bin hello`

// `#[gort::main]` starts a runtime with one worker per CPU and runs `main` on it.
#[gort::main]
async fn main() {
    // A task begins to run at once, on any worker. It must own what it uses: hence `move`.
    let squares: Vec<_> = (1..=10u64)
        .map(|n| gort::spawn(async move { n * n }))
        .collect();

    // Waiting for a task gives its output, or an error if it panicked or was aborted.
    let mut sum = 0;
    for square in squares {
        sum += square.await.expect("the task did not panic");
    }
    println!("Hello from gort: the squares from 1 to 10 add up to {sum}.");
    assert_eq!(sum, 385);

    // A panic stays in its task: it is printed, as every panic is, the worker goes on, and whoever
    // waits is told.
    let error = gort::spawn(async { divide(1, 0) })
        .await
        .expect_err("dividing by zero panics");
    println!("A task failed, the program goes on: {error}.");
    assert!(error.is_panic());
}

fn divide(a: u32, b: u32) -> u32 {
    a / b
}
