//! TCP echo over loopback, server and clients in one process and on one runtime.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Run, Workload};
use crate::process;
use crate::rt::Runtime;

/// Bytes of a message: small, so that the runtime and not the copying is measured.
const MESSAGE: usize = 64;

pub(super) fn workloads<R: Runtime>() -> Vec<Workload<R>> {
    let echo = |name, connections, ops| {
        Workload::prepared(name, ops, move |rt| prepare::<R>(rt, connections))
    };
    vec![
        echo("TCP echo, 1 connection", 1, 5_000),
        echo("TCP echo, 64 connections", 64, 12_800),
        echo("TCP echo, 1000 connections", 1000, 20_000),
    ]
}

/// Makes the connections once: they are the same in all runs, so that neither the handshakes nor
/// the sockets in TIME_WAIT disturb a measurement.
fn prepare<R: Runtime>(rt: Arc<R>, connections: usize) -> Result<Run, String> {
    process::need_files(2 * connections)?;
    let mut streams = rt.run(connect::<R>(connections));
    Ok(Box::new(move |ops| {
        let each = ops / connections as u64;
        let clients = std::mem::take(&mut streams);
        let (elapsed, clients) = rt.run(exchange::<R>(clients, each));
        streams = clients;
        elapsed
    }))
}

async fn connect<R: Runtime>(connections: usize) -> Vec<R::Stream> {
    let listener = R::listen().await.expect("listen on 127.0.0.1");
    let addr = R::local_addr(&listener).expect("the listener's address");
    let acceptor = R::spawn(async move {
        for _ in 0..connections {
            let stream = R::accept(&listener).await.expect("accept");
            R::detach(R::spawn(serve::<R>(stream)));
        }
    });
    let mut streams = Vec::with_capacity(connections);
    for _ in 0..connections {
        streams.push(R::connect(addr).await.expect("connect over loopback"));
    }
    R::join(acceptor).await;
    streams
}

/// Echoes until the client closes the connection.
async fn serve<R: Runtime>(mut stream: R::Stream) {
    let mut buffer = [0; MESSAGE];
    // An error is the end as well: at shutdown the reactor may go before the client's half.
    while let Ok(n @ 1..) = R::read(&mut stream, &mut buffer).await {
        if R::write_all(&mut stream, &buffer[..n]).await.is_err() {
            return;
        }
    }
}

async fn exchange<R: Runtime>(streams: Vec<R::Stream>, each: u64) -> (Duration, Vec<R::Stream>) {
    let start = Instant::now();
    let clients: Vec<_> = streams
        .into_iter()
        .map(|stream| R::spawn(client::<R>(stream, each)))
        .collect();
    let mut streams = Vec::with_capacity(clients.len());
    for client in clients {
        streams.push(R::join(client).await);
    }
    (start.elapsed(), streams)
}

async fn client<R: Runtime>(mut stream: R::Stream, round_trips: u64) -> R::Stream {
    let mut sent = [0; MESSAGE];
    let mut received = [0; MESSAGE];
    for i in 0..round_trips {
        sent[..8].copy_from_slice(&i.to_le_bytes());
        R::write_all(&mut stream, &sent).await.expect("send");
        R::read_exact(&mut stream, &mut received)
            .await
            .expect("receive the echo");
        assert_eq!(sent, received);
    }
    stream
}
