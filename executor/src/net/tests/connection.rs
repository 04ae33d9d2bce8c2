use std::future::poll_fn;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::pin::Pin;
use std::task::Poll;
use std::thread;
use std::time::Duration;

use super::{ANY_PORT, Reactor, assert_pending, pair, run, std_listener};
use crate::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest, ReadBuf};
use crate::net::{TcpListener, TcpSocket, TcpStream};

/// Bytes that show when one is lost, doubled or moved.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 251) as u8).collect()
}

#[test]
fn both_ways_at_once_and_more_than_any_buffer_holds() {
    const LEN: usize = 8 << 20;
    run(async {
        let listener = TcpListener::bind(ANY_PORT).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let echo = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (mut read, mut write) = stream.split();
            let n = crate::io::copy(&mut read, &mut write).await.unwrap();
            write.shutdown().await.unwrap();
            n
        };
        let client = async {
            let (mut read, mut write) = TcpStream::connect(addr).await.unwrap().into_split();
            let send = async {
                write.write_all(&pattern(LEN)).await.unwrap();
                write.shutdown().await.unwrap();
            };
            let receive = async {
                let mut all = Vec::new();
                read.read_to_end(&mut all).await.unwrap();
                all
            };
            tokio::join!(send, receive).1
        };
        let (echoed, received) = tokio::join!(echo, client);
        assert_eq!(echoed, LEN as u64);
        assert!(received == pattern(LEN));
    });
}

#[test]
fn a_slow_reader_holds_the_writer_up_and_gets_everything() {
    run(async {
        let (mut stream, mut peer) = pair().await;
        // Fill the buffers: nobody reads yet.
        let mut sent = 0;
        let chunk = pattern(251 * 64);
        loop {
            stream.writable().await.unwrap();
            match stream.try_write(&chunk[sent % 251..]) {
                Ok(n) => sent += n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) => panic!("{e}"),
            }
        }
        let reader = thread::spawn(move || {
            let mut all = Vec::new();
            peer.read_to_end(&mut all).unwrap();
            all
        });
        let rest = pattern(251 + (1 << 20));
        let rest = &rest[sent % 251..];
        stream.write_all(rest).await.unwrap();
        stream.shutdown().await.unwrap();
        let all = reader.join().unwrap();
        assert!(all == pattern(sent + rest.len()));
    });
}

#[test]
fn a_refused_connection_is_an_error() {
    run(async {
        // A port that is taken, so that no other test gets it, but does not listen.
        let taken = TcpSocket::new_v4().unwrap();
        taken.bind(ANY_PORT.into()).unwrap();
        let addr = taken.local_addr().unwrap();
        let error = TcpStream::connect(addr).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        let error = TcpSocket::new_v4()
            .unwrap()
            .connect(addr)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);

        // Of several addresses the first that answers is taken.
        let (_listener, good) = std_listener();
        let stream = TcpStream::connect(&[addr, good][..]).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), good);
    });
}

#[test]
fn a_reset_peer_is_an_error_to_the_reader_and_the_writer() {
    run(async {
        let (mut stream, peer) = pair().await;
        socket2::SockRef::from(&peer)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
        // The reset arrives while the reader waits.
        let mut buf = [0; 8];
        let read = {
            let mut read = std::pin::pin!(stream.read(&mut buf));
            assert_pending(read.as_mut()).await;
            drop(peer);
            read.await
        };
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        let ready = stream
            .ready(Interest::READABLE | Interest::WRITABLE | Interest::ERROR)
            .await
            .unwrap();
        assert!(ready.is_read_closed() && ready.is_write_closed() && ready.is_error());
        let error = stream.write_all(b"anyone?").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        stream.shutdown().await.expect("no error: it is gone");
    });
}

#[test]
fn zero_linger_resets_the_peer() {
    run(async {
        let (stream, mut peer) = pair().await;
        stream.set_zero_linger().unwrap();
        drop(stream);
        let error = peer.read(&mut [0; 1]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    });
}

#[test]
fn half_closed_by_the_peer_it_can_still_be_written() {
    run(async {
        let (mut stream, mut peer) = pair().await;
        peer.write_all(b"last words").unwrap();
        peer.shutdown(Shutdown::Write).unwrap();
        let mut all = String::new();
        assert_eq!(stream.read_to_string(&mut all).await.unwrap(), 10);
        assert_eq!(all, "last words");
        // The end stays the end.
        assert_eq!(stream.read(&mut [0; 4]).await.unwrap(), 0);
        assert_eq!(stream.try_read(&mut [0; 4]).unwrap(), 0);
        assert!(
            stream
                .ready(Interest::READABLE)
                .await
                .unwrap()
                .is_read_closed()
        );

        stream.write_all(b"answer").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = String::new();
        peer.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "answer");
    });
}

#[test]
fn half_closed_by_us_it_can_still_be_read() {
    run(async {
        let (mut stream, mut peer) = pair().await;
        stream.shutdown().await.unwrap();
        assert_eq!(peer.read(&mut [0; 1]).unwrap(), 0);
        peer.write_all(b"answer").unwrap();
        let mut buf = [0; 6];
        stream.read_exact(&mut buf).await.unwrap();
        assert_eq!(&buf, b"answer");
        let error = stream.write(b"x").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    });
}

/// A short read clears the readiness. The end that was reported in the same event must survive it.
#[test]
fn the_end_behind_a_short_read_is_seen() {
    run(async {
        for _ in 0..50 {
            let (mut stream, mut peer) = pair().await;
            peer.write_all(b"abc").unwrap();
            drop(peer);
            let mut buf = [0; 64];
            assert_eq!(stream.read(&mut buf).await.unwrap(), 3);
            assert_eq!(stream.read(&mut buf).await.unwrap(), 0);
        }
    });
}

#[test]
fn peek_takes_nothing() {
    run(async {
        let (mut stream, mut peer) = pair().await;
        peer.write_all(b"hello").unwrap();
        let mut buf = [0; 8];
        let n = stream.peek(&mut buf).await.unwrap();
        assert_eq!(&buf[..n], b"hello");

        let mut two = [0; 2];
        let mut two = ReadBuf::new(&mut two);
        let n = poll_fn(|cx| stream.poll_peek(cx, &mut two)).await.unwrap();
        assert_eq!((n, two.filled()), (2, &b"he"[..]));

        stream.read_exact(&mut buf[..5]).await.unwrap();
        assert_eq!(&buf[..5], b"hello");
        drop(peer);
        assert_eq!(stream.peek(&mut buf).await.unwrap(), 0);
    });
}

#[test]
fn reads_go_behind_what_the_buffer_holds() {
    run(async {
        let (mut stream, mut peer) = pair().await;
        peer.write_all(b"defg").unwrap();
        let mut buf = Vec::from(*b"abc");
        buf.reserve(64);
        assert_eq!(stream.read_buf(&mut buf).await.unwrap(), 4);
        assert_eq!(buf, b"abcdefg");
    });
}

#[test]
fn vectored() {
    run(async {
        let (mut stream, mut peer) = pair().await;
        assert!(stream.is_write_vectored());
        let parts = [IoSlice::new(b"ab"), IoSlice::new(b""), IoSlice::new(b"cde")];
        assert_eq!(stream.write_vectored(&parts).await.unwrap(), 5);
        assert_eq!(stream.try_write_vectored(&parts).unwrap(), 5);
        let mut buf = [0; 10];
        peer.read_exact(&mut buf).unwrap();
        assert_eq!(&buf, b"abcdeabcde");

        // More slices than one writev takes.
        let many = vec![IoSlice::new(b"x"); 5000];
        let mut sent = 0;
        while sent < many.len() {
            sent += stream.write_vectored(&many[sent..]).await.unwrap();
        }
        let mut buf = vec![0; many.len()];
        peer.read_exact(&mut buf).unwrap();
        assert!(buf.iter().all(|&b| b == b'x'));

        peer.write_all(b"12345").unwrap();
        let (mut first, mut second) = ([0; 2], [0; 8]);
        stream.readable().await.unwrap();
        let n = stream
            .try_read_vectored(&mut [IoSliceMut::new(&mut first), IoSliceMut::new(&mut second)])
            .unwrap();
        assert_eq!((n, &first, &second[..3]), (5, b"12", &b"345"[..]));
    });
}

#[test]
fn std_and_back() {
    let reactor = Reactor::start();
    reactor.block_on(async {
        let (stream, mut peer) = pair().await;
        let std = stream.into_std().unwrap();
        assert!(reactor.netpoll.is_empty());
        let error = (&std).read(&mut [0; 1]).unwrap_err();
        assert_eq!(
            error.kind(),
            io::ErrorKind::WouldBlock,
            "still non-blocking"
        );

        std.set_nonblocking(false).unwrap();
        let error = TcpStream::from_std(std.try_clone().unwrap()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert!(error.to_string().contains("set_nonblocking(true)"));

        std.set_nonblocking(true).unwrap();
        let mut stream = TcpStream::try_from(std).unwrap();
        peer.write_all(b"x").unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), b'x');
    });
}

#[test]
fn options() {
    run(async {
        let (stream, peer) = pair().await;
        assert_eq!(stream.local_addr().unwrap(), peer.peer_addr().unwrap());
        assert_eq!(stream.peer_addr().unwrap(), peer.local_addr().unwrap());
        for on in [true, false] {
            stream.set_nodelay(on).unwrap();
            assert_eq!(stream.nodelay().unwrap(), on);
            stream.set_quickack(on).unwrap();
            assert_eq!(stream.quickack().unwrap(), on);
        }
        stream.set_ttl(42).unwrap();
        assert_eq!(stream.ttl().unwrap(), 42);
        assert_eq!(stream.linger().unwrap(), None);
        stream.set_zero_linger().unwrap();
        assert_eq!(stream.linger().unwrap(), Some(Duration::ZERO));
        assert!(stream.take_error().unwrap().is_none());
        assert!(format!("{stream:?}").contains(&peer.local_addr().unwrap().to_string()));
    });
}

#[test]
fn a_socket_is_configured_before_it_connects() {
    run(async {
        let (listener, addr) = std_listener();
        let socket = TcpSocket::new_v4().unwrap();
        for on in [true, false] {
            socket.set_keepalive(on).unwrap();
            assert_eq!(socket.keepalive().unwrap(), on);
            socket.set_reuseaddr(on).unwrap();
            assert_eq!(socket.reuseaddr().unwrap(), on);
            socket.set_reuseport(on).unwrap();
            assert_eq!(socket.reuseport().unwrap(), on);
            socket.set_nodelay(on).unwrap();
            assert_eq!(socket.nodelay().unwrap(), on);
        }
        socket.set_send_buffer_size(64 << 10).unwrap();
        assert!(socket.send_buffer_size().unwrap() >= 64 << 10);
        socket.set_recv_buffer_size(64 << 10).unwrap();
        assert!(socket.recv_buffer_size().unwrap() >= 64 << 10);
        socket.set_tos_v4(0x10).unwrap();
        assert_eq!(socket.tos_v4().unwrap(), 0x10);
        socket.set_zero_linger().unwrap();
        assert_eq!(socket.linger().unwrap(), Some(Duration::ZERO));
        assert_eq!(socket.device().unwrap(), None);
        assert!(socket.take_error().unwrap().is_none());

        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let local = socket.local_addr().unwrap();
        let stream = socket.connect(addr).await.unwrap();
        let (_peer, peer_addr) = listener.accept().unwrap();
        assert_eq!(stream.local_addr().unwrap(), local);
        assert_eq!(peer_addr, local);
    });
}

#[test]
fn a_socket_made_elsewhere_connects() {
    run(async {
        let (listener, addr) = std_listener();
        let made = socket2::Socket::new(
            socket2::Domain::for_address(addr),
            socket2::Type::STREAM.nonblocking(),
            None,
        )
        .unwrap();
        let socket = TcpSocket::from_std_stream(made.into());
        let mut stream = socket.connect(addr).await.unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        peer.write_all(b"x").unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), b'x');
    });
}

#[test]
fn ipv6() {
    let Ok(probe) = std::net::TcpListener::bind("[::1]:0") else {
        eprintln!("skipped: this machine has no IPv6 loopback");
        return;
    };
    let addr: SocketAddr = probe.local_addr().unwrap();
    run(async {
        let socket = TcpSocket::new_v6().unwrap();
        socket.set_tclass_v6(0x20).unwrap();
        assert_eq!(socket.tclass_v6().unwrap(), 0x20);
        let stream = socket.connect(addr).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), addr);
    });
}

#[test]
fn flush_is_always_ready() {
    run(async {
        let (mut stream, _peer) = pair().await;
        poll_fn(|cx| {
            assert!(Pin::new(&mut stream).poll_flush(cx).is_ready());
            Poll::Ready(())
        })
        .await;
    });
}

#[cfg(feature = "futures-io")]
#[test]
fn the_traits_of_futures_io() {
    use futures_io::{AsyncRead as FuturesRead, AsyncWrite as FuturesWrite};
    run(async {
        let (mut stream, mut peer) = pair().await;
        let n = poll_fn(|cx| FuturesWrite::poll_write(Pin::new(&mut stream), cx, b"ping")).await;
        assert_eq!(n.unwrap(), 4);
        let parts = [IoSlice::new(b"po"), IoSlice::new(b"ng")];
        let (mut read, mut write) = stream.into_split();
        let n =
            poll_fn(|cx| FuturesWrite::poll_write_vectored(Pin::new(&mut write), cx, &parts)).await;
        assert_eq!(n.unwrap(), 4);
        poll_fn(|cx| FuturesWrite::poll_flush(Pin::new(&mut write), cx))
            .await
            .unwrap();
        poll_fn(|cx| FuturesWrite::poll_close(Pin::new(&mut write), cx))
            .await
            .unwrap();
        let mut all = Vec::new();
        peer.read_to_end(&mut all).unwrap();
        assert_eq!(all, b"pingpong");

        peer.write_all(b"answer").unwrap();
        let mut buf = [0; 16];
        let n = poll_fn(|cx| FuturesRead::poll_read(Pin::new(&mut read), cx, &mut buf)).await;
        assert_eq!(&buf[..n.unwrap()], b"answer");
    });
}
