//! TCP services on the real runtime, under load and under bad luck.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use gort::io::{AsyncReadExt, AsyncWriteExt};
use gort::net::{TcpListener, TcpSocket, TcpStream};
use gort_tests::{
    Count, Watchdog, current_thread, in_child, multi_thread, on_each_runtime, wait_until,
};

/// An echo service on the current runtime; ends with it.
async fn echo_service() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    gort::spawn(async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => drop(gort::spawn(echo(stream))),
                // As a service must: an error at accept is that connection's, or passes.
                Err(_) => gort::time::sleep(Duration::from_millis(1)).await,
            }
        }
    });
    address
}

async fn echo(mut stream: TcpStream) {
    let mut buffer = vec![0; 16 << 10];
    loop {
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(n) => {
                if stream.write_all(&buffer[..n]).await.is_err() {
                    return;
                }
            }
        }
    }
}

async fn round_trip(stream: &mut TcpStream, message: &[u8]) -> std::io::Result<()> {
    stream.write_all(message).await?;
    let mut back = vec![0; message.len()];
    stream.read_exact(&mut back).await?;
    assert_eq!(back, message);
    Ok(())
}

#[test]
fn many_connections() {
    on_each_runtime(|runtime| {
        runtime.block_on(async {
            let address = echo_service().await;
            let clients: Vec<_> = (0..200_u32)
                .map(|n| {
                    gort::spawn(async move {
                        let mut stream = TcpStream::connect(address).await.unwrap();
                        stream.set_nodelay(true).unwrap();
                        for round in 0..20_u32 {
                            let message = (n * 1_000 + round).to_le_bytes().repeat(50);
                            round_trip(&mut stream, &message).await.unwrap();
                        }
                    })
                })
                .collect();
            for client in clients {
                client.await.unwrap();
            }
        });
    });
}

/// More data than all buffers hold, both ways at once.
#[test]
fn large_transfers() {
    on_each_runtime(|runtime| {
        runtime.block_on(async {
            let address = echo_service().await;
            let clients: Vec<_> = (0..4_u8)
                .map(|n| {
                    gort::spawn(async move {
                        let stream = TcpStream::connect(address).await.unwrap();
                        let (mut reader, mut writer) = stream.into_split();
                        let data: Vec<u8> =
                            (0..4_000_000_u32).map(|i| (i % 251) as u8 ^ n).collect();
                        let expected = data.clone();
                        let writing = gort::spawn(async move {
                            writer.write_all(&data).await.unwrap();
                            writer.shutdown().await.unwrap();
                        });
                        let mut back = Vec::new();
                        reader.read_to_end(&mut back).await.unwrap();
                        writing.await.unwrap();
                        assert!(back == expected, "the bytes came back changed");
                    })
                })
                .collect();
            for client in clients {
                client.await.unwrap();
            }
        });
    });
}

/// A reader that does not read: the writer waits, and goes on when the reader does.
#[test]
fn slow_readers() {
    on_each_runtime(|runtime| {
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let total = 8 << 20;
            let written = Count::new();
            let writer = {
                let written = written.clone();
                gort::spawn(async move {
                    let (mut stream, _) = listener.accept().await.unwrap();
                    let chunk = vec![5; 64 << 10];
                    for _ in 0..total / chunk.len() {
                        stream.write_all(&chunk).await.unwrap();
                        written.add();
                    }
                })
            };
            let mut stream = TcpStream::connect(address).await.unwrap();
            // Until nothing moves any more: the writer waits.
            let mut before = usize::MAX;
            while before != written.get() || before == 0 {
                before = written.get();
                gort::time::sleep(Duration::from_millis(50)).await;
            }
            assert!(!writer.is_finished(), "8 MiB fit in no socket buffer");
            let mut received = 0;
            let mut buffer = vec![0; 10_000];
            loop {
                let n = stream.read(&mut buffer).await.unwrap();
                if n == 0 {
                    break;
                }
                received += n;
            }
            writer.await.unwrap();
            assert_eq!(received, total);
        });
    });
}

#[test]
fn half_closed() {
    on_each_runtime(|runtime| {
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let server = gort::spawn(async move {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut all = String::new();
                stream.read_to_string(&mut all).await.unwrap();
                assert_eq!(all, "request");
                // The other direction is still open.
                gort::task::yield_now().await;
                stream.write_all(b"response").await.unwrap();
                all
            });
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"request").await.unwrap();
            stream.shutdown().await.unwrap();
            let error = stream.write_all(b"more").await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::BrokenPipe);
            let mut all = String::new();
            stream.read_to_string(&mut all).await.unwrap();
            assert_eq!(all, "response");
            server.await.unwrap();
        });
    });
}

#[test]
fn refused() {
    on_each_runtime(|runtime| {
        runtime.block_on(async {
            let address = {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                listener.local_addr().unwrap()
            };
            let tries: Vec<_> = (0..50)
                .map(|_| gort::spawn(TcpStream::connect(address)))
                .collect();
            for result in tries {
                let error = result.await.unwrap().unwrap_err();
                assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
            }
        });
    });
}

/// A peer that resets: an error to whoever reads or writes, and the service serves on.
#[test]
fn reset_by_the_peer() {
    on_each_runtime(|runtime| {
        runtime.block_on(async {
            let address = echo_service().await;
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let target = listener.local_addr().unwrap();
            for _ in 0..20 {
                // In the middle of the echo's work.
                let mut rude = TcpStream::connect(address).await.unwrap();
                rude.write_all(&[1; 100_000]).await.unwrap();
                rude.set_zero_linger().unwrap();
                drop(rude);
                // Seen from the side that is reset, while it waits.
                let (peer, accepted) = gort::join!(TcpStream::connect(target), listener.accept());
                let (peer, mut mine) = (peer.unwrap(), accepted.unwrap().0);
                let reading = gort::spawn(async move { mine.read(&mut [0; 10]).await });
                gort::task::yield_now().await;
                peer.set_zero_linger().unwrap();
                drop(peer);
                let error = reading.await.unwrap().unwrap_err();
                assert_eq!(error.kind(), ErrorKind::ConnectionReset);
            }
            let mut stream = TcpStream::connect(address).await.unwrap();
            round_trip(&mut stream, b"still there").await.unwrap();
        });
    });
}

/// No descriptors left: accept and connect say so, and the service goes on when there are some.
#[test]
fn out_of_descriptors() {
    in_child(
        "out_of_descriptors",
        |_| {},
        || {
            let open = || std::fs::read_dir("/proc/self/fd").unwrap().count() as u64;
            on_each_runtime(|runtime| {
                runtime.block_on(async {
                    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                    let address = listener.local_addr().unwrap();
                    let (refusals, served) = (Count::new(), Count::new());
                    {
                        let (refusals, served) = (refusals.clone(), served.clone());
                        gort::spawn(async move {
                            loop {
                                match listener.accept().await {
                                    Ok((stream, _)) => {
                                        served.add();
                                        drop(gort::spawn(echo(stream)));
                                    }
                                    Err(error) => {
                                        assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
                                        refusals.add();
                                        gort::time::sleep(Duration::from_millis(1)).await;
                                    }
                                }
                            }
                        });
                    }
                    // A client that gets the last descriptor: its peer cannot be accepted.
                    let socket = TcpSocket::new_v4().unwrap();
                    limit(open() + 8);
                    let mut spare = Vec::new();
                    while let Ok(file) = std::fs::File::open("/dev/null") {
                        spare.push(file);
                    }
                    let mut stream = socket.connect(address).await.unwrap();
                    while refusals.get() < 3 {
                        gort::time::sleep(Duration::from_millis(1)).await;
                    }
                    let error = TcpStream::connect(address).await.unwrap_err();
                    assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
                    assert_eq!(served.get(), 0);
                    drop(spare);
                    limit(1024);
                    round_trip(&mut stream, b"late but served").await.unwrap();
                    assert_eq!(served.get(), 1);
                    let mut another = TcpStream::connect(address).await.unwrap();
                    round_trip(&mut another, b"as if nothing had been")
                        .await
                        .unwrap();
                });
            });
        },
    );
}

fn limit(files: u64) {
    let limit = libc::rlimit {
        rlim_cur: files,
        rlim_max: 1024,
    };
    // SAFETY: setrlimit reads the structure, which is ours.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) }, 0);
}

/// A socket belongs to the runtime that it was made in, and works from another.
#[test]
fn used_from_another_runtime() {
    for workers in [1, 2] {
        let _watchdog = Watchdog::new("two runtimes");
        let home = multi_thread(workers).build().unwrap();
        let away = multi_thread(workers).build().unwrap();
        let third = current_thread().build().unwrap();
        let address = home.block_on(echo_service());
        let mut stream = away.block_on(TcpStream::connect(address)).unwrap();
        third.block_on(async {
            for n in 0..100_u32 {
                round_trip(&mut stream, &n.to_le_bytes()).await.unwrap();
            }
        });
        // The halves in two runtimes at once.
        let (mut reader, mut writer) = stream.into_split();
        let writing = home.spawn(async move {
            for n in 0..100_u32 {
                writer.write_all(&n.to_le_bytes()).await.unwrap();
            }
            writer
        });
        third.block_on(async {
            for n in 0..100 {
                assert_eq!(reader.read_u32_le().await.unwrap(), n);
            }
        });
        drop(home.block_on(writing).unwrap());
    }
}

/// After its runtime's end a socket gives an error, at once and to those that wait: never a hang.
#[test]
fn used_after_the_shutdown() {
    for builder in [&mut current_thread(), &mut multi_thread(2)] {
        let _watchdog = Watchdog::new("sockets after the shutdown");
        let runtime = builder.build().unwrap();
        let other = multi_thread(2).build().unwrap();
        let (listener, mut idle, mut waiting) = runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let streams = gort::join!(TcpStream::connect(address), TcpStream::connect(address));
            (listener, streams.0.unwrap(), streams.1.unwrap())
        });
        let listener = Arc::new(listener);
        let polled = Count::new();
        let reading = {
            let polled = polled.clone();
            other.spawn(async move {
                polled.add();
                waiting.read(&mut [0; 1]).await
            })
        };
        let accepting = {
            let (polled, listener) = (polled.clone(), listener.clone());
            other.spawn(async move {
                // The two that wait in the backlog first; they stay open.
                let first = listener.accept().await.unwrap();
                let second = listener.accept().await.unwrap();
                polled.add();
                let third = listener.accept().await.map(drop);
                (third, first, second)
            })
        };
        wait_until("both have begun", || polled.get() == 2);
        drop(runtime);
        assert!(other.block_on(reading).unwrap().is_err());
        let (third, mut first, _second) = other.block_on(accepting).unwrap();
        assert!(third.is_err());
        other.block_on(async {
            assert!(idle.read(&mut [0; 1]).await.is_err());
            // Accepted on the other runtime, so that one's, and as good as before.
            idle.try_write(b"x").unwrap();
            assert_eq!(first.0.read_u8().await.unwrap(), b'x');
            assert!(listener.accept().await.is_err());
        });
    }
}

#[test]
fn name_resolution() {
    on_each_runtime(|runtime| {
        runtime.block_on(async {
            let address = echo_service().await;
            let found: Vec<_> = gort::net::lookup_host(("localhost", address.port()))
                .await
                .unwrap()
                .collect();
            assert!(found.iter().all(|found| found.ip().is_loopback()));
            assert!(found.contains(&address), "{found:?}");
            let name = format!("localhost:{}", address.port());
            let mut stream = TcpStream::connect(name).await.unwrap();
            round_trip(&mut stream, b"by name").await.unwrap();
            let bad = TcpStream::connect("no port in here").await.unwrap_err();
            assert_eq!(bad.kind(), ErrorKind::InvalidInput);
        });
    });
}
