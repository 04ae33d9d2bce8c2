//! gort inside of a program that is not async: threads of its own, which need something async
//! done now and then.
//!
//! `cargo run --bin embed`

use std::error::Error;
use std::io::{Read, Write};
use std::thread;
use std::time::Duration;

use gort::io::{AsyncReadExt, AsyncWriteExt};
use gort::net::TcpListener;
use gort::runtime::Runtime;
use gort::sync::{mpsc, oneshot};

/// What a plain thread asks the async side for: a number, and where to send twice of it.
type Job = (u64, oneshot::Sender<u64>);

fn main() -> Result<(), Box<dyn Error>> {
    // The program owns the runtime; its workers run beside the program's own threads.
    let runtime = Runtime::new()?;

    // 1. `block_on`: do something async, and wait for it here.
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
    let address = listener.local_addr()?;

    // 2. `spawn`: let it run in the background. An async server ...
    let server = runtime.spawn(async move {
        let (mut stream, _) = listener.accept().await?;
        let mut name = String::new();
        stream.read_to_string(&mut name).await?;
        stream.write_all(format!("hello {name}").as_bytes()).await
    });
    // ... and a client that knows nothing of async.
    let mut client = std::net::TcpStream::connect(address)?;
    client.write_all(b"plain thread")?;
    client.shutdown(std::net::Shutdown::Write)?;
    let mut greeting = String::new();
    client.read_to_string(&mut greeting)?;
    runtime.block_on(server)??;
    println!("The async server said: {greeting}.");
    assert_eq!(greeting, "hello plain thread");

    // 3. A `Handle` goes to other threads. It is cheap to clone.
    let threads: Vec<_> = (0..4u64)
        .map(|n| {
            let handle = runtime.handle().clone();
            thread::spawn(move || {
                let task = handle.spawn(async move {
                    gort::time::sleep(Duration::from_millis(5)).await;
                    n * n
                });
                // Blocks this thread only; inside async code it would panic.
                handle.block_on(task).expect("the task does not panic")
            })
        })
        .collect();
    let squares: Vec<u64> = threads.into_iter().map(|t| t.join().unwrap()).collect();
    println!("Four threads got {squares:?} from four tasks.");
    assert_eq!(squares, [0, 1, 4, 9]);

    // 4. A long-lived task as a service for threads. Channels have a blocking side.
    let (jobs, mut inbox) = mpsc::channel::<Job>(8);
    let service = runtime.spawn(async move {
        let mut done = 0u64;
        // Ends when the last sender is dropped.
        while let Some((number, reply)) = inbox.recv().await {
            // Fails if the asker has gone away: its affair.
            let _ = reply.send(2 * number);
            done += 1;
        }
        done
    });
    thread::scope(|scope| {
        for number in 0..4 {
            let jobs = jobs.clone();
            scope.spawn(move || {
                let (reply, answer) = oneshot::channel();
                jobs.blocking_send((number, reply)).expect("it receives");
                assert_eq!(answer.blocking_recv(), Ok(2 * number));
            });
        }
    });
    drop(jobs);
    let done = runtime.block_on(service)?;
    println!("The service did {done} jobs for plain threads.");
    assert_eq!(done, 4);

    // 5. The other way round: async code that must call something that blocks.
    let lines = runtime.block_on(async {
        gort::task::spawn_blocking(|| std::fs::read_to_string("/proc/self/status")).await
    })??;
    assert!(lines.starts_with("Name:"));

    // 6. Dropping the runtime waits for polls and closures that run; this waits at most so long.
    runtime.shutdown_timeout(Duration::from_secs(5));
    Ok(())
}
