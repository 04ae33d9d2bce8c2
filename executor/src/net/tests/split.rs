use std::io::{Read, Write};
use std::thread;

use super::{Reactor, pair, run};
use crate::io::{AsyncReadExt, AsyncWriteExt, Interest};

#[test]
fn borrowed_halves() {
    run(async {
        let (mut stream, mut peer) = pair().await;
        let (local, remote) = (stream.local_addr().unwrap(), stream.peer_addr().unwrap());
        {
            let (mut read, mut write) = stream.split();
            assert_eq!(read.local_addr().unwrap(), local);
            assert_eq!(write.peer_addr().unwrap(), remote);
            assert_eq!(read.as_ref().peer_addr().unwrap(), remote);
            write.writable().await.unwrap();
            assert_eq!(write.try_write(b"ab").unwrap(), 2);
            write.write_all(b"cd").await.unwrap();
            let mut got = [0; 4];
            peer.read_exact(&mut got).unwrap();
            assert_eq!(&got, b"abcd");

            peer.write_all(b"efgh").unwrap();
            assert!(read.ready(Interest::READABLE).await.unwrap().is_readable());
            let mut buf = [0; 2];
            assert_eq!(read.peek(&mut buf).await.unwrap(), 2);
            assert_eq!(read.try_read(&mut buf).unwrap(), 2);
            assert_eq!(&buf, b"ef");
            let mut rest = Vec::with_capacity(8);
            assert_eq!(read.try_read_buf(&mut rest).unwrap(), 2);
            assert_eq!(rest, b"gh");
        }
        // Dropped halves have shut nothing down.
        stream.write_all(b"!").await.unwrap();
        peer.read_exact(&mut [0; 1]).unwrap();
    });
}

#[test]
fn a_borrowed_write_half_shuts_down() {
    run(async {
        let (mut stream, mut peer) = pair().await;
        stream.split().1.shutdown().await.unwrap();
        assert_eq!(peer.read(&mut [0; 1]).unwrap(), 0);
    });
}

#[test]
fn owned_halves_work_on_two_threads() {
    const ROUNDS: u32 = 1000;
    let reactor = Reactor::start();
    reactor.block_on(async {
        let (stream, peer) = pair().await;
        let (mut read, mut write) = stream.into_split();
        let echo = thread::spawn(move || {
            let mut peer = peer;
            let mut buf = [0; 4];
            for _ in 0..ROUNDS {
                peer.read_exact(&mut buf).unwrap();
                peer.write_all(&buf).unwrap();
            }
            assert_eq!(
                peer.read(&mut buf).unwrap(),
                0,
                "the write half was dropped"
            );
        });
        thread::scope(|scope| {
            scope.spawn(|| {
                reactor.block_on(async {
                    for i in 0..ROUNDS {
                        write.write_u32(i).await.unwrap();
                    }
                })
            });
            reactor.block_on(async {
                for i in 0..ROUNDS {
                    assert_eq!(read.read_u32().await.unwrap(), i);
                }
            });
        });
        drop(write);
        echo.join().unwrap();
    });
}

#[test]
fn dropping_the_owned_write_half_shuts_down_unless_forgotten() {
    run(async {
        let (stream, mut peer) = pair().await;
        let (mut read, write) = stream.into_split();
        drop(write);
        assert_eq!(peer.read(&mut [0; 1]).unwrap(), 0);
        peer.write_all(b"x").unwrap();
        assert_eq!(read.read_u8().await.unwrap(), b'x');

        let (stream, peer) = pair().await;
        let (_read, write) = stream.into_split();
        write.forget();
        peer.set_nonblocking(true).unwrap();
        let error = (&peer).read(&mut [0; 1]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock, "no end");
    });
}

#[test]
fn reunited_halves_are_the_stream_again() {
    run(async {
        let (one, mut one_peer) = pair().await;
        let (two, _two_peer) = pair().await;
        let (one_read, one_write) = one.into_split();
        let (two_read, two_write) = two.into_split();

        let error = one_read.reunite(two_write).unwrap_err();
        assert!(error.to_string().contains("different sockets"));
        let one_read = error.0;
        let two_write = error.1;

        let mut one = one_write.reunite(one_read).unwrap();
        let _two = two_read.reunite(two_write).unwrap();
        one.write_all(b"still open").await.unwrap();
        one_peer.read_exact(&mut [0; 10]).unwrap();
    });
}
