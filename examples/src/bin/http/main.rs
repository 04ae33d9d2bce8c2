//! The main job: an HTTP/1.1 service with JSON in and out, on gort and hyper 1.
//!
//! Without flags it serves on a free port of 127.0.0.1, puts itself under load for a few seconds,
//! shuts down gracefully, and prints what the clients saw and what the scheduler did. With
//! `--serve` it serves until Ctrl-C.
//!
//! | file | |
//! |---|---|
//! | `args.rs` | the flags |
//! | `server.rs` | accepting, and the graceful shutdown |
//! | `service.rs` | the routes |
//! | `todos.rs`, `metrics.rs` | what is behind them: a to-do list, and the scheduler's counters |
//! | `reply.rs` | answers in JSON |
//! | `load.rs` | the clients |
//! | `report.rs` | latencies and tables |

mod args;
mod load;
mod metrics;
mod reply;
mod report;
mod server;
mod service;
mod todos;

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use args::{Args, Mode};
use gort::net::TcpListener;
use gort::runtime::{Builder, Handle};
use gort::signal::unix::{SignalKind, signal};
use report::thousands;
use server::Server;
use service::Service;

/// How long requests that run may go on after Ctrl-C.
const GRACE: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let args = match Args::parse(std::env::args().skip(1)) {
        Ok(Some(args)) => args,
        Ok(None) => {
            print!("{}", args::HELP);
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("{error}\nTry --help.");
            return ExitCode::from(2);
        }
    };
    match start(args) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn start(args: Args) -> Result<ExitCode, Box<dyn Error>> {
    let mut builder = Builder::new_multi_thread();
    if let Some(workers) = args.workers {
        builder.worker_threads(workers);
    }
    let runtime = builder
        .enable_all()
        .build()
        .map_err(|error| format!("the runtime cannot start: {error}"))?;
    match args.mode {
        Mode::Serve { address } => runtime.block_on(serve(address))?,
        Mode::Load {
            connections,
            duration,
        } => return runtime.block_on(run_load(connections, duration)),
    }
    Ok(ExitCode::SUCCESS)
}

async fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), String> {
    let bound = async {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    };
    bound.await.map_err(|error: io::Error| {
        let hint = match error.kind() {
            io::ErrorKind::AddrInUse => {
                ": another program listens there; choose another port, or 0 for any"
            }
            io::ErrorKind::PermissionDenied => ": ports below 1024 are root's; take a higher one",
            io::ErrorKind::AddrNotAvailable => ": this machine does not have that address",
            _ => "",
        };
        format!("cannot listen on {address}: {error}{hint}")
    })
}

/// `--serve`: until Ctrl-C or SIGTERM.
async fn serve(address: SocketAddr) -> Result<(), Box<dyn Error>> {
    let (listener, address) = bind(address).await?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let service = Arc::new(Service::new(Handle::current()));
    let server = Server::start(listener, Arc::clone(&service));
    println!("Serving on http://{address} until Ctrl-C. Try, in another terminal:\n");
    println!("  curl http://{address}/health");
    println!("  curl http://{address}/todos -d '{{\"title\":\"read the README\"}}'");
    println!("  curl http://{address}/todos");
    println!("  curl http://{address}/metrics");
    println!("  curl http://{address}/slow/5000     # then Ctrl-C here: it is still answered");
    println!("  wrk -t2 -c64 -d5s http://{address}/health\n");

    gort::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    let running = service.in_flight();
    println!("\nNo new connections. Waiting at most {GRACE:?} for {running} running requests;");
    println!("Ctrl-C again to stop at once.");
    gort::select! {
        left = server.shut_down(GRACE) => match left {
            0 => println!("All connections are closed."),
            left => println!("{left} connections did not finish in time and are dropped."),
        },
        _ = interrupt.recv() => println!("Stopped at once."),
    }
    println!("\n{} requests were served.\n", thousands(service.served()));
    println!("{}", Handle::current().metrics());
    Ok(())
}

/// Without `--serve`: server and clients in this process, for a while.
async fn run_load(connections: usize, duration: Duration) -> Result<ExitCode, Box<dyn Error>> {
    load::check_descriptors(connections)?;
    let (listener, address) = bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let service = Arc::new(Service::new(Handle::current()));
    let server = Server::start(listener, Arc::clone(&service));
    println!(
        "http://{address}: {connections} keep-alive connections for {duration:?} on {} workers",
        Handle::current().metrics().num_workers()
    );

    let begin = Instant::now();
    let mut load = load::start(address, connections, begin + duration);
    let result = gort::select! {
        result = load.finish() => result,
        _ = interrupt.recv() => {
            println!("Ctrl-C: stopping early");
            load.stop();
            load.finish().await
        }
    };
    let elapsed = begin.elapsed();
    // Read before the shutdown, while all threads are there to be asked.
    let metrics = Handle::current().metrics().to_string();
    let left = server.shut_down(GRACE).await;

    println!("\n{}", report::Report::new(&result, elapsed));
    println!("{metrics}");
    let whole = left == 0 && service.is_empty();
    if !whole {
        println!("After the shutdown {left} connections were left, or to-dos were.");
    }
    let good = whole && result.errors == 0 && result.latency.count() > 0;
    Ok(if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
