use std::future::poll_fn;
use std::io::{self, Read, Write};
use std::pin::pin;

use super::{ANY_PORT, Reactor, assert_pending, in_child, no_more_descriptors, run};
use crate::io::{AsyncReadExt, AsyncWriteExt};
use crate::net::{TcpListener, TcpSocket, TcpStream};

#[test]
fn accept_knows_the_peer() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (client, accepted) = tokio::join!(TcpStream::connect(addr), listener.accept());
        let (client, (stream, peer)) = (client.unwrap(), accepted.unwrap());
        assert_eq!(client.local_addr().unwrap(), peer);
        assert_eq!(stream.peer_addr().unwrap(), peer);
    });
}

#[test]
fn poll_accept_one_by_one() {
    run(async {
        let listener = TcpListener::bind(ANY_PORT).await.unwrap();
        let addr = listener.local_addr().unwrap();
        for _ in 0..20 {
            let mut accept = pin!(poll_fn(|cx| listener.poll_accept(cx)));
            assert_pending(accept.as_mut()).await;
            let client = std::net::TcpStream::connect(addr).unwrap();
            let (_, peer) = accept.await.unwrap();
            assert_eq!(client.local_addr().unwrap(), peer);
        }
    });
}

#[test]
fn of_many_acceptors_each_gets_its_connection() {
    const ACCEPTORS: usize = 4;
    const EACH: usize = 25;
    let reactor = Reactor::start();
    let listener = reactor.block_on(async { TcpListener::bind(ANY_PORT).await.unwrap() });
    let addr = listener.local_addr().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..ACCEPTORS {
            scope.spawn(|| {
                reactor.block_on(async {
                    for _ in 0..EACH {
                        let (mut stream, _) = listener.accept().await.unwrap();
                        stream.write_all(b"x").await.unwrap();
                    }
                })
            });
        }
        for _ in 0..ACCEPTORS * EACH {
            let mut client = std::net::TcpStream::connect(addr).unwrap();
            client.read_exact(&mut [0; 1]).unwrap();
        }
    });
}

#[test]
fn a_cancelled_accept_loses_no_connection() {
    run(async {
        let listener = TcpListener::bind(ANY_PORT).await.unwrap();
        let addr = listener.local_addr().unwrap();
        for _ in 0..20 {
            let mut client = {
                let mut cancelled = pin!(listener.accept());
                assert_pending(cancelled.as_mut()).await;
                std::net::TcpStream::connect(addr).unwrap()
            };
            let (mut stream, peer) = listener.accept().await.unwrap();
            assert_eq!(peer, client.local_addr().unwrap());
            client.write_all(b"x").unwrap();
            assert_eq!(stream.read_u8().await.unwrap(), b'x');
        }
    });
}

#[test]
fn an_accepted_stream_can_be_used_at_once() {
    run(async {
        let listener = TcpListener::bind(ANY_PORT).await.unwrap();
        let mut client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        assert_eq!(stream.try_write(b"hello").unwrap(), 5);
        client.read_exact(&mut [0; 5]).unwrap();
        // Believed readable, and found out not to be.
        let error = stream.try_read(&mut [0; 1]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        client.write_all(b"x").unwrap();
        stream.readable().await.unwrap();
        assert_eq!(stream.try_read(&mut [0; 1]).unwrap(), 1);
    });
}

#[test]
fn an_address_in_use_is_an_error() {
    run(async {
        let first = TcpListener::bind(ANY_PORT).await.unwrap();
        let error = TcpListener::bind(first.local_addr().unwrap())
            .await
            .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    });
}

#[test]
fn listens_through_a_socket_and_through_std() {
    run(async {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseport(true).unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(u32::MAX).unwrap();
        let addr = listener.local_addr().unwrap();

        let listener = listener.into_std().unwrap();
        listener.set_nonblocking(false).unwrap();
        let error = TcpListener::from_std(listener.try_clone().unwrap()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        listener.set_nonblocking(true).unwrap();
        let listener = TcpListener::try_from(listener).unwrap();
        assert_eq!(listener.local_addr().unwrap(), addr);
        listener.set_ttl(17).unwrap();
        assert_eq!(listener.ttl().unwrap(), 17);

        let client = std::net::TcpStream::connect(addr).unwrap();
        let (stream, peer) = listener.accept().await.unwrap();
        assert_eq!(peer, client.local_addr().unwrap());
        assert_eq!(stream.ttl().unwrap(), 17, "inherited");
    });
}

#[test]
fn shutdown_ends_accept() {
    let reactor = Reactor::start();
    reactor.block_on(async {
        let listener = TcpListener::bind(ANY_PORT).await.unwrap();
        let mut accept = pin!(listener.accept());
        assert_pending(accept.as_mut()).await;
        let mut woken = crate::wake_list::WakeList::new();
        reactor.netpoll.shutdown(&mut woken);
        woken.wake_all();
        assert!(accept.await.is_err());
        assert!(listener.accept().await.is_err());
        assert!(TcpListener::bind(ANY_PORT).await.is_err());
    });
}

#[test]
fn accept_without_descriptors_fails_and_then_works() {
    let path = concat!(
        module_path!(),
        "::accept_without_descriptors_fails_and_then_works"
    );
    in_child(path, || {
        run(async {
            let listener = TcpListener::bind(ANY_PORT).await.unwrap();
            let addr = listener.local_addr().unwrap();
            let mut clients: Vec<_> = (0..3)
                .map(|_| std::net::TcpStream::connect(addr).unwrap())
                .collect();

            let limit = no_more_descriptors();
            for _ in 0..3 {
                let error = listener.accept().await.unwrap_err();
                assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
            }
            let error = TcpStream::connect(addr).await.unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
            drop(limit);

            // The connections have waited in the system's queue.
            for client in &mut clients {
                let (mut stream, peer) = listener.accept().await.unwrap();
                assert_eq!(peer, client.local_addr().unwrap());
                client.write_all(b"x").unwrap();
                assert_eq!(stream.read_u8().await.unwrap(), b'x');
            }
        });
    });
}
