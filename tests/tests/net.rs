//! Sockets on whole runtimes: many connections, and sockets at and after the end of a runtime.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use gort::io::{AsyncReadExt, AsyncWriteExt};
use gort::net::{TcpListener, TcpStream};
use gort::runtime::{Builder, Runtime};

const ANY_PORT: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);
/// When a blocking std peer counts as hung.
const HUNG: Duration = Duration::from_secs(60);

fn runtimes() -> Vec<Runtime> {
    let multi = |workers| {
        Builder::new_multi_thread()
            .worker_threads(workers)
            .enable_all()
            .build()
            .unwrap()
    };
    let mut all = vec![Builder::new_current_thread().enable_all().build().unwrap()];
    all.extend([1, 2, 4, 8].map(multi));
    all
}

async fn echo_server() -> SocketAddr {
    let listener = TcpListener::bind(ANY_PORT).await.unwrap();
    let addr = listener.local_addr().unwrap();
    gort::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            gort::spawn(async move {
                let (mut read, mut write) = stream.split();
                gort::io::copy(&mut read, &mut write).await.unwrap();
                write.shutdown().await.unwrap();
            });
        }
    });
    addr
}

#[test]
fn many_connections_echo() {
    const CONNECTIONS: u32 = 100;
    const MESSAGES: u32 = 20;
    for runtime in runtimes() {
        runtime.block_on(async {
            let addr = echo_server().await;
            let clients: Vec<_> = (0..CONNECTIONS)
                .map(|client| {
                    gort::spawn(async move {
                        let mut stream = TcpStream::connect(addr).await.unwrap();
                        for message in 0..MESSAGES {
                            stream.write_u32(client << 16 | message).await.unwrap();
                            let echo = stream.read_u32().await.unwrap();
                            assert_eq!(echo, client << 16 | message);
                        }
                        stream.shutdown().await.unwrap();
                        assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0);
                    })
                })
                .collect();
            for client in clients {
                client.await.unwrap();
            }
        });
    }
}

#[test]
fn halves_in_two_tasks_carry_more_than_any_buffer_holds() {
    const LEN: usize = 4 << 20;
    let pattern = || (0..LEN).map(|i| (i % 251) as u8).collect::<Vec<_>>();
    for runtime in runtimes() {
        runtime.block_on(async {
            let addr = echo_server().await;
            let (mut read, mut write) = TcpStream::connect(addr).await.unwrap().into_split();
            let sender = gort::spawn(async move {
                write.write_all(&pattern()).await.unwrap();
                // Dropping the half ends the stream.
            });
            let receiver = gort::spawn(async move {
                let mut all = Vec::new();
                read.read_to_end(&mut all).await.unwrap();
                all
            });
            sender.await.unwrap();
            assert!(receiver.await.unwrap() == pattern());
        });
    }
}

#[test]
fn names_are_looked_up_off_the_workers() {
    for runtime in runtimes() {
        runtime.block_on(async {
            let addr = echo_server().await;
            // "localhost" may mean ::1 first; one of its addresses answers.
            let stream = TcpStream::connect(("localhost", addr.port()))
                .await
                .unwrap();
            assert_eq!(stream.peer_addr().unwrap(), addr);
        });
    }
}

/// Dropping the runtime drops its tasks, and with them their sockets: the peers see the end.
#[test]
fn dropping_the_runtime_closes_the_sockets_of_its_tasks() {
    for runtime in runtimes() {
        let addr = runtime.block_on(echo_server());
        let mut peers: Vec<_> = (0..10)
            .map(|_| {
                let peer = std::net::TcpStream::connect(addr).unwrap();
                peer.set_read_timeout(Some(HUNG)).unwrap();
                peer
            })
            .collect();
        runtime.block_on(async {
            // All ten are accepted once an eleventh, behind them in the queue, is served.
            let mut last = TcpStream::connect(addr).await.unwrap();
            last.write_u8(1).await.unwrap();
            last.read_u8().await.unwrap();
        });
        drop(runtime);
        for peer in &mut peers {
            assert_eq!(peer.read(&mut [0; 1]).unwrap(), 0);
        }
        assert!(std::net::TcpStream::connect(addr).is_err(), "closed too");
    }
}

/// Sockets that outlive their runtime: waiting is an error, not a hang, also on another runtime.
#[test]
fn a_socket_that_outlives_its_runtime_says_so() {
    for runtime in runtimes() {
        let listener = std::net::TcpListener::bind(ANY_PORT).unwrap();
        let addr = listener.local_addr().unwrap();
        let (mut stream, accepting) = runtime.block_on(async {
            let stream = TcpStream::connect(addr).await.unwrap();
            (stream, TcpListener::bind(ANY_PORT).await.unwrap())
        });
        let (mut peer, _) = listener.accept().unwrap();
        peer.write_all(b"x").unwrap();
        drop(runtime);

        let other = Builder::new_current_thread().enable_all().build().unwrap();
        other.block_on(async {
            for error in [
                stream.read_u8().await.unwrap_err(),
                stream.readable().await.unwrap_err(),
                accepting.accept().await.unwrap_err(),
            ] {
                assert!(error.to_string().contains("shutting down"), "{error}");
            }
            // The way out that the message names.
            let mut stream = TcpStream::from_std(stream.into_std().unwrap()).unwrap();
            assert_eq!(stream.read_u8().await.unwrap(), b'x');
        });
    }
}

/// A task that waits on a socket of another runtime is woken by that runtime's reactor.
#[test]
fn a_socket_is_used_from_another_runtime() {
    for runtime in runtimes() {
        let addr = runtime.block_on(echo_server());
        let mut stream = runtime.block_on(TcpStream::connect(addr)).unwrap();
        let other = Builder::new_multi_thread()
            .worker_threads(1)
            .build()
            .unwrap();
        let task = other.spawn(async move {
            for i in 0..100 {
                stream.write_u8(i).await.unwrap();
                assert_eq!(stream.read_u8().await.unwrap(), i);
            }
        });
        // A current-thread runtime polls only while it is driven.
        runtime.block_on(task).unwrap();
    }
}

#[test]
#[should_panic(expected = "enable_io")]
fn without_io_it_panics_and_says_what_to_enable() {
    let runtime = Builder::new_current_thread().build().unwrap();
    let _ = runtime.block_on(TcpListener::bind(ANY_PORT));
}
