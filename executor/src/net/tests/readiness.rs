use std::future::{Future, poll_fn};
use std::io::{self, Read, Write};
use std::pin::pin;
use std::sync::Arc;
use std::thread;

use super::{Reactor, assert_pending, pair, run};
use crate::io::{AsyncReadExt, AsyncWriteExt, Interest};
use crate::wake_list::WakeList;

#[test]
fn try_read_and_readable_take_turns() {
    run(async {
        let (stream, mut peer) = pair().await;
        let mut buf = [0; 16];
        let error = stream.try_read(&mut buf).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        for round in 0..50u8 {
            {
                let mut readable = pin!(stream.readable());
                assert_pending(readable.as_mut()).await;
                peer.write_all(&[round; 3]).unwrap();
                readable.await.unwrap();
            }
            assert_eq!(stream.try_read(&mut buf).unwrap(), 3);
            assert_eq!(buf[..3], [round; 3]);
            let error = stream.try_read(&mut buf).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        }
    });
}

#[test]
fn ready_reports_what_is_asked_for() {
    run(async {
        let (stream, mut peer) = pair().await;
        let both = Interest::READABLE | Interest::WRITABLE;
        let ready = stream.ready(both).await.unwrap();
        assert!(ready.is_writable() && !ready.is_readable());
        peer.write_all(b"x").unwrap();
        let ready = stream.ready(Interest::READABLE).await.unwrap();
        assert!(ready.is_readable() && !ready.is_writable());
        poll_fn(|cx| stream.poll_read_ready(cx)).await.unwrap();
        poll_fn(|cx| stream.poll_write_ready(cx)).await.unwrap();
    });
}

#[test]
fn an_operation_of_the_callers_own() {
    run(async {
        let (stream, mut peer) = pair().await;
        let receive = || {
            let mut buf = [std::mem::MaybeUninit::uninit(); 8];
            socket2::SockRef::from(&stream).recv(&mut buf)
        };
        let never = stream.try_io(Interest::READABLE, || -> io::Result<()> {
            panic!("not ready: must not be tried")
        });
        assert_eq!(never.unwrap_err().kind(), io::ErrorKind::WouldBlock);

        let mut received = pin!(stream.async_io(Interest::READABLE, receive));
        assert_pending(received.as_mut()).await;
        peer.write_all(b"abc").unwrap();
        assert_eq!(received.await.unwrap(), 3);

        peer.write_all(b"de").unwrap();
        stream.readable().await.unwrap();
        assert_eq!(stream.try_io(Interest::READABLE, receive).unwrap(), 2);
        let error = stream
            .try_io(Interest::WRITABLE, || -> io::Result<()> {
                Err(io::Error::other("mine"))
            })
            .unwrap_err();
        assert_eq!(error.to_string(), "mine");
    });
}

#[test]
fn out_of_band_data_is_priority_for_those_who_ask_only() {
    run(async {
        let (stream, peer) = pair().await;
        socket2::SockRef::from(&peer)
            .send_out_of_band(b"!")
            .unwrap();
        // Streams register for reading and writing: the byte is no data, and wakes nobody.
        let ready = stream.ready(Interest::WRITABLE).await.unwrap();
        assert!(!ready.is_priority());
    });
}

#[test]
fn a_stream_moves_between_tasks_while_it_waits() {
    let reactor = Reactor::start();
    reactor.block_on(async {
        let (stream, mut peer) = pair().await;
        let stream = Arc::new(stream);
        // This task leaves its waker in the slot and goes away; the last one counts.
        assert_pending(pin!(poll_fn(|cx| stream.poll_read_ready(cx)))).await;
        thread::scope(|scope| {
            scope.spawn(|| {
                reactor.block_on(async {
                    let mut ready = pin!(poll_fn(|cx| stream.poll_read_ready(cx)));
                    assert_pending(ready.as_mut()).await;
                    peer.write_all(b"x").unwrap();
                    ready.await.unwrap();
                })
            });
        });
    });
}

#[test]
fn after_shutdown_waiting_fails_and_dropping_works() {
    let reactor = Reactor::start();
    let (mut stream, mut peer) = reactor.block_on(async { pair().await });
    reactor.block_on(async {
        {
            let mut buf = [0; 1];
            let mut read = pin!(stream.read(&mut buf));
            assert_pending(read.as_mut()).await;
            let mut woken = WakeList::new();
            reactor.netpoll.shutdown(&mut woken);
            woken.wake_all();
            let error = read.await.unwrap_err();
            assert!(error.to_string().contains("shutting down"), "{error}");
        }
        assert!(stream.read_u8().await.is_err());
        assert!(stream.write_all(b"x").await.is_err());
        assert!(stream.readable().await.is_err());
        assert!(stream.peek(&mut [0; 1]).await.is_err());
        let error = stream.try_read(&mut [0; 1]).unwrap_err();
        assert_ne!(
            error.kind(),
            io::ErrorKind::WouldBlock,
            "would never be ready"
        );
    });
    // What was writable before can still be written without waiting.
    assert_eq!(stream.try_write(b"bye").unwrap(), 3);
    drop(reactor);
    drop(stream);
    let mut all = Vec::new();
    peer.read_to_end(&mut all).unwrap();
    assert_eq!(all, b"bye");
}

/// With a budget in force (a tokio runtime's `block_on` sets one), a task whose socket is always
/// ready yields all the same.
#[test]
fn an_always_ready_socket_takes_part_in_the_budget() {
    const BYTES: usize = 1000;
    let reactor = Reactor::start();
    let (mut stream, mut peer) = reactor.block_on(async { pair().await });
    peer.write_all(&[0; BYTES]).unwrap();
    let mut yields = 0;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut read_all = pin!(async {
            for _ in 0..BYTES {
                stream.read_u8().await.unwrap();
            }
        });
        poll_fn(|cx| {
            let poll = read_all.as_mut().poll(cx);
            yields += usize::from(poll.is_pending());
            poll
        })
        .await
    });
    // tokio's budget is 128 operations.
    assert!(yields >= BYTES / 128, "{yields}");
}

#[test]
#[should_panic(expected = "there is no gort runtime running")]
fn outside_a_runtime_it_panics() {
    let listener = std::net::TcpListener::bind(super::ANY_PORT).unwrap();
    listener.set_nonblocking(true).unwrap();
    let _ = crate::net::TcpListener::from_std(listener);
}
