//! Several runtimes in one process, each with threads and settings of its own.
//!
//! Why one would: work that must not wait for other work. Here requests run on one runtime and
//! reports, which burn CPU, on another, so that a report never sits on a request's worker.
//!
//! `cargo run --bin many_runtimes`

use std::io;

use gort::runtime::{Builder, Runtime};
use gort::sync::oneshot;

fn runtime(name: &str, workers: usize) -> io::Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(workers)
        // Seen in `top -H` and in debuggers. Linux keeps 15 bytes of it.
        .thread_name(name)
        .enable_all()
        .build()
}

/// The name that the system has for the calling thread.
///
/// Not `std::thread::current().name()`, which knows only of threads that std has started.
fn thread_name() -> String {
    let name = std::fs::read_to_string("/proc/thread-self/comm").expect("procfs");
    name.trim_end().to_owned()
}

/// Counts the primes below `limit`, slowly.
fn report(limit: u32) -> usize {
    let prime = |n: &u32| (2..*n).take_while(|d| d * d <= *n).all(|d| n % d != 0);
    (2..limit).filter(prime).count()
}

fn main() -> io::Result<()> {
    let requests = runtime("requests", 2)?;
    let reports = runtime("reports", 1)?;

    // A request hands its report to the other runtime and waits for it, without blocking its own:
    // a `JoinHandle` can be awaited on any runtime, and channels join any two tasks.
    let reports_handle = reports.handle().clone();
    let (primes, asked_on, counted_on) = requests.block_on(async move {
        gort::spawn(async move {
            let asked_on = thread_name();
            let (primes, counted_on) = reports_handle
                .spawn(async { (report(20_000), thread_name()) })
                .await
                .expect("the report does not panic");
            (primes, asked_on, counted_on)
        })
        .await
        .expect("the request does not panic")
    });
    println!("\"{asked_on}\" asked, \"{counted_on}\" counted: {primes} primes below 20000.");
    assert_eq!(primes, 2262);
    assert_eq!((&*asked_on, &*counted_on), ("requests", "reports"));

    // `enter` says which runtime `gort::spawn` means in plain code; the last one entered counts.
    let (spawned_on_reports, spawned_on_requests) = {
        let _outer = requests.enter();
        let inner = reports.enter();
        let on_reports = gort::spawn(async { thread_name() });
        drop(inner);
        (on_reports, gort::spawn(async { thread_name() }))
    };

    // A current-thread runtime has no worker: its tasks run on this thread, inside `block_on`.
    let local = Builder::new_current_thread().enable_all().build()?;
    local.block_on(async {
        let here = gort::spawn(async { std::thread::current().id() });
        assert_eq!(here.await.unwrap(), std::thread::current().id());
        assert_eq!(spawned_on_reports.await.unwrap(), "reports");
        assert_eq!(spawned_on_requests.await.unwrap(), "requests");
    });

    // Each ends by itself: its tasks are cancelled, the others' run on.
    let (never, lost) = oneshot::channel::<()>();
    let waits = reports.spawn(async move {
        std::future::pending::<()>().await;
        drop(never);
    });
    drop(reports);
    requests.block_on(async {
        assert!(waits.await.unwrap_err().is_cancelled());
        // The future, with what it owned, has been dropped.
        assert!(lost.await.is_err());
        let still_here = gort::spawn(async { thread_name() });
        assert_eq!(still_here.await.unwrap(), "requests");
    });
    println!("The reports' runtime has ended, the requests' has not.");
    Ok(())
}
