//! A TCP server that sends back what it receives, and a few clients that try it.
//!
//! `cargo run --bin echo` tries it and ends. `cargo run --bin echo -- --serve [ADDR]` serves until
//! Ctrl-C; talk to it with `nc 127.0.0.1 7007`.

use std::error::Error;
use std::time::Duration;

use gort::io::{self, AsyncReadExt, AsyncWriteExt};
use gort::net::{TcpListener, TcpStream};
use gort::time::timeout;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

#[gort::main]
async fn main() -> Result<()> {
    let mut flags = std::env::args().skip(1);
    match flags.next().as_deref() {
        None => try_it().await,
        Some("--serve") => {
            let address = flags.next().unwrap_or_else(|| "127.0.0.1:7007".into());
            let listener = TcpListener::bind(&address)
                .await
                .map_err(|error| format!("cannot listen on {address}: {error}"))?;
            println!("Echoing on {} until Ctrl-C.", listener.local_addr()?);
            // Whichever is ready first; the other future is dropped.
            gort::select! {
                () = serve(listener) => unreachable!("it serves for ever"),
                interrupted = gort::signal::ctrl_c() => interrupted?,
            }
            Ok(())
        }
        Some(other) => Err(format!("there is no flag {other}; try --serve [ADDR]").into()),
    }
}

/// Accepts connections for ever, and gives each a task of its own.
async fn serve(listener: TcpListener) {
    loop {
        match listener.accept().await {
            // Parked at its socket, a connection's task costs some memory and no CPU.
            Ok((stream, _)) => drop(gort::spawn(echo(stream))),
            // An error is about one connection or, out of descriptors, about the moment: a server
            // waits and goes on.
            Err(error) => {
                eprintln!("cannot accept: {error}");
                gort::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// Returns how many bytes came, and went back.
async fn echo(mut stream: TcpStream) -> io::Result<u64> {
    let (mut reader, mut writer) = stream.split();
    io::copy(&mut reader, &mut writer).await
}

/// The server and ten clients, in one process.
async fn try_it() -> Result<()> {
    // Port 0: the system chooses a free one.
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let server = gort::spawn(serve(listener));

    let clients: Vec<_> = (0..10u8)
        .map(|number| {
            gort::spawn(async move {
                // Far more than the sockets' buffers hold: so the client must read while it
                // writes, or both ends would wait for each other.
                let message = vec![number; 1_000_000];
                let (mut reader, mut writer) = TcpStream::connect(address).await?.into_split();
                let sent = message.clone();
                let send = gort::spawn(async move {
                    writer.write_all(&sent).await?;
                    // Nothing more to say: this ends the server's `copy`, and so our reading.
                    writer.shutdown().await
                });
                let mut received = Vec::new();
                reader.read_to_end(&mut received).await?;
                send.await??;
                Ok::<bool, io::Error>(received == message)
            })
        })
        .collect();

    for client in clients {
        // On one machine this takes milliseconds; the limit is for the day on which it hangs.
        let same = timeout(Duration::from_secs(30), client).await???;
        assert!(same, "the echo differs from the call");
    }
    println!("10 clients sent a megabyte each to {address} and got it back unchanged.");

    // The server would go on for ever.
    server.abort();
    let stopped = server.await.expect_err("it was aborted");
    assert!(stopped.is_cancelled());
    Ok(())
}
