//! The reactor driven from outside: wake-ups, signals, shutdown, many sockets.

use std::future::{Future, poll_fn};
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use super::testing::{self, Reactor, assert_pending, in_child, no_more_descriptors, wait_until};
use super::{Netpoll, Progress, Registration};
use crate::io::{Interest, Ready};
use crate::wake_list::WakeList;

const BOTH: Interest = Interest::READABLE.add(Interest::WRITABLE);

/// A connection over loopback: the end under test, and its peer.
fn pair() -> (mio::net::TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (peer, _) = listener.accept().unwrap();
    ours.set_nonblocking(true).unwrap();
    (mio::net::TcpStream::from_std(ours), peer)
}

fn read(stream: &mio::net::TcpStream, buf: &mut [u8]) -> io::Result<usize> {
    (&mut &*stream).read(buf)
}

#[test]
fn wake_before_poll_is_not_lost_and_counts_once() {
    let netpoll = Netpoll::new(4).unwrap();
    netpoll.wake();
    netpoll.wake();
    let mut woken = WakeList::new();
    let mut poller = netpoll.try_lock().unwrap();
    // A poll that does not wait leaves the note for one that would.
    poller.poll(Some(Duration::ZERO), &mut woken).unwrap();
    poller.poll(None, &mut woken).unwrap();
    assert!(woken.is_empty());
    // It is used up: this one runs into its timeout, and would return at once otherwise.
    let start = std::time::Instant::now();
    let timeout = Duration::from_millis(5);
    poller.poll(Some(timeout), &mut woken).unwrap();
    assert!(start.elapsed() >= timeout);
}

#[test]
fn wake_interrupts_a_blocked_poll_every_time() {
    const ROUNDS: usize = 2_000;
    let netpoll = Arc::new(Netpoll::new(4).unwrap());
    let returned = Arc::new(AtomicUsize::new(0));
    let poller = thread::spawn({
        let (netpoll, returned) = (netpoll.clone(), returned.clone());
        move || {
            let mut woken = WakeList::new();
            while returned.load(Ordering::Relaxed) < ROUNDS {
                netpoll.try_lock().unwrap().poll(None, &mut woken).unwrap();
                returned.fetch_add(1, Ordering::Release);
            }
        }
    });
    for round in 0..ROUNDS {
        // The poller may be anywhere: before the poll, in it, or just out of it.
        netpoll.wake();
        // A late eventfd write may have let it return once too often already.
        wait_until("poll returned", || returned.load(Ordering::Acquire) > round);
    }
    poller.join().unwrap();
}

#[test]
fn a_signal_is_not_an_error() {
    extern "C" fn nothing(_: libc::c_int) {}
    // SAFETY: an all-zero sigaction is valid; the handler does nothing, so it is safe in any
    // context, and no other test uses SIGUSR2.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as usize;
        assert_eq!(
            libc::sigaction(libc::SIGUSR2, &action, std::ptr::null_mut()),
            0
        );
    }
    let netpoll = Arc::new(Netpoll::new(4).unwrap());
    let (send_id, id) = mpsc::channel();
    let poller = thread::spawn({
        let netpoll = netpoll.clone();
        move || {
            // SAFETY: no preconditions.
            send_id.send(unsafe { libc::pthread_self() }).unwrap();
            let mut woken = WakeList::new();
            netpoll.try_lock().unwrap().poll(None, &mut woken)
        }
    });
    let id = id.recv().unwrap();
    // Until one has hit it inside epoll_wait.
    wait_until("poll returned", || {
        if !poller.is_finished() {
            // SAFETY: the thread has not been joined, so its id is valid even after its end.
            unsafe { libc::pthread_kill(id, libc::SIGUSR2) };
        }
        poller.is_finished()
    });
    poller.join().unwrap().expect("EINTR is no error");
}

#[test]
fn only_one_polls_at_a_time() {
    let netpoll = Netpoll::new(4).unwrap();
    let poller = netpoll.try_lock();
    assert!(poller.is_some());
    assert!(netpoll.try_lock().is_none());
    drop(poller);
    assert!(netpoll.try_lock().is_some());
}

#[test]
fn readiness_is_armed_again_after_would_block() {
    let reactor = Reactor::start();
    let (ours, mut peer) = pair();
    reactor.block_on(async {
        let registration = Registration::new(ours, BOTH).unwrap();
        for round in 0..100u8 {
            let mut waiting = pin!(registration.async_io(Interest::READABLE, || {
                let mut buf = [0; 16];
                let n = read(&registration, &mut buf)?;
                Ok((n, buf[0]))
            }));
            // Nothing there: WouldBlock has been seen, and readiness cleared, before the peer
            // writes.
            assert_pending(waiting.as_mut()).await;
            peer.write_all(&[round]).unwrap();
            assert_eq!(waiting.await.unwrap(), (1, round));
        }
    });
}

/// Polled by hand, so that no second event can come in between.
#[test]
fn exhausted_means_no_further_system_call() {
    let netpoll = Arc::new(Netpoll::new(4).unwrap());
    let poll = |timeout| {
        let mut woken = WakeList::new();
        netpoll
            .try_lock()
            .unwrap()
            .poll(timeout, &mut woken)
            .unwrap();
    };
    let (mut ours, mut peer) = pair();
    let (token, io) = netpoll.register(&mut ours, BOTH).unwrap();
    let is_readable = || io.try_ready(Interest::READABLE).is_ok();

    peer.write_all(b"abc").unwrap();
    while !is_readable() {
        poll(None);
    }
    poll(Some(Duration::ZERO));
    let registration = Registration::from_parts(ours, token, io.clone(), netpoll.clone());
    let n = testing::block_on(poll_fn(|cx| {
        registration.poll_read_io(cx, || {
            read(&registration, &mut [0; 16]).map(Progress::Exhausted)
        })
    }));
    assert_eq!(n.unwrap(), 3);
    let tried = registration.try_io(Interest::READABLE, || -> io::Result<()> {
        panic!("the readiness was used up")
    });
    assert_eq!(tried.unwrap_err().kind(), io::ErrorKind::WouldBlock);
    peer.write_all(b"d").unwrap();
    while !is_readable() {
        poll(None);
    }
}

#[test]
fn a_dropped_registration_leaves_no_trace() {
    let reactor = Reactor::start();
    let (ours, peer) = pair();
    reactor.block_on(async {
        assert!(reactor.netpoll.is_empty());
        let registration = Registration::new(ours, BOTH).unwrap();
        assert!(!reactor.netpoll.is_empty());
        let ours = registration.into_source().unwrap();
        assert!(reactor.netpoll.is_empty());
        // epoll would refuse a descriptor that it still knows.
        drop(Registration::new(ours, BOTH).unwrap());
        assert!(reactor.netpoll.is_empty());
    });
    assert_eq!((&peer).read(&mut [0; 1]).unwrap(), 0, "closed");
}

#[test]
fn a_source_registered_twice_is_refused_and_frees_its_slot() {
    let reactor = Reactor::start();
    let (mut ours, _peer) = pair();
    reactor.block_on(async {
        let mut same = {
            use std::os::fd::{AsRawFd, FromRawFd};
            // SAFETY: ManuallyDrop below never closes the borrowed descriptor.
            unsafe { mio::net::TcpStream::from_raw_fd(ours.as_raw_fd()) }
        };
        let (token, _io) = reactor.netpoll.register(&mut ours, BOTH).unwrap();
        let error = reactor.netpoll.register(&mut same, BOTH).unwrap_err();
        std::mem::forget(same);
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert!(error.to_string().contains("already registered"), "{error}");
        assert_eq!(reactor.netpoll.len(), 1);
        reactor.netpoll.deregister(&mut ours, token).unwrap();
    });
}

/// Slots are reused all the time under a poller that has events of their predecessors in hand.
/// A mix-up shows as a wrong byte, or as a reader that is never woken.
#[test]
fn slots_are_reused_under_load() {
    const THREADS: u8 = 4;
    const ROUNDS: u8 = 100;
    let reactor = Arc::new(Reactor::start());
    let threads: Vec<_> = (0..THREADS)
        .map(|id| {
            let reactor = reactor.clone();
            thread::spawn(move || {
                for round in 0..ROUNDS {
                    let mut open: Vec<_> = (0..8).map(|_| pair()).collect();
                    let (ours, mut peer) = open.remove(3);
                    reactor.block_on(async {
                        let others: Vec<_> = open
                            .into_iter()
                            .map(|(ours, mut peer)| {
                                peer.write_all(b"unread").unwrap();
                                (Registration::new(ours, BOTH).unwrap(), peer)
                            })
                            .collect();
                        let registration = Registration::new(ours, BOTH).unwrap();
                        // Events of these are under way now, or not yet, or delivered.
                        drop(others);
                        let expected = [id, round];
                        peer.write_all(&expected).unwrap();
                        let mut buf = [0; 2];
                        let n = registration
                            .async_io(Interest::READABLE, || read(&registration, &mut buf))
                            .await
                            .unwrap();
                        assert_eq!(buf[..n], expected[..n]);
                    });
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(reactor.netpoll.len(), 0);
}

#[test]
fn dropped_by_other_threads_while_the_poller_blocks_and_after_it_is_gone() {
    let reactor = Reactor::start();
    let (first, mut first_peer) = pair();
    let (second, mut second_peer) = pair();
    let (first, second) = reactor.block_on(async {
        (
            Registration::new(first, BOTH).unwrap(),
            Registration::new(second, BOTH).unwrap(),
        )
    });
    let netpoll = Arc::downgrade(&reactor.netpoll);
    thread::spawn(move || drop(first)).join().unwrap();
    assert_eq!(reactor.netpoll.len(), 1);
    assert_eq!(first_peer.read(&mut [0; 1]).unwrap(), 0);

    reactor.netpoll.shutdown(&mut WakeList::new());
    drop(reactor);
    assert!(netpoll.upgrade().is_some(), "kept by the registration");
    thread::spawn(move || drop(second)).join().unwrap();
    assert_eq!(second_peer.read(&mut [0; 1]).unwrap(), 0);
    assert!(netpoll.upgrade().is_none());
}

#[test]
fn shutdown_ends_all_waiting() {
    let reactor = Reactor::start();
    let (ours, _peer) = pair();
    let (late, _late_peer) = pair();
    reactor.block_on(async {
        let registered = Registration::new(ours, BOTH).unwrap();
        let registration = &registered;
        let mut slot = pin!(poll_fn(|cx| registration.poll_read_ready(cx)));
        let mut listed = pin!(registration.readiness(Interest::READABLE));
        let mut io =
            pin!(registration.async_io(Interest::READABLE, || read(registration, &mut [0; 1])));
        poll_fn(|cx| {
            assert!(slot.as_mut().poll(cx).is_pending());
            assert!(listed.as_mut().poll(cx).is_pending());
            assert!(io.as_mut().poll(cx).is_pending());
            Poll::Ready(())
        })
        .await;

        let netpoll = reactor.netpoll.clone();
        let thread = thread::spawn(move || {
            let mut woken = WakeList::new();
            netpoll.shutdown(&mut woken);
            woken.wake_all();
        });
        for error in [
            slot.await.unwrap_err(),
            listed.await.unwrap_err(),
            io.await.unwrap_err(),
        ] {
            assert!(error.to_string().contains("shutting down"), "{error}");
        }
        thread.join().unwrap();

        let later = registration.readiness(Interest::WRITABLE).await;
        assert!(later.is_err());
        assert!(Registration::new(late, BOTH).is_err());
        assert!(reactor.netpoll.is_empty());
    });
}

#[test]
fn every_waiter_of_one_socket_is_woken() {
    const WAITERS: usize = 8;
    let reactor = Arc::new(Reactor::start());
    let (ours, mut peer) = pair();
    let registration = Arc::new(reactor.block_on(async { Registration::new(ours, BOTH).unwrap() }));
    let waiting = Arc::new(AtomicUsize::new(0));
    let threads: Vec<_> = (0..WAITERS)
        .map(|_| {
            let (registration, waiting) = (registration.clone(), waiting.clone());
            thread::spawn(move || {
                testing::block_on(async {
                    let mut ready = pin!(registration.readiness(Interest::READABLE));
                    poll_fn(|cx| {
                        let poll = ready.as_mut().poll(cx);
                        waiting.fetch_add(1, Ordering::Release);
                        poll
                    })
                    .await
                    .unwrap()
                })
            })
        })
        .collect();
    wait_until("all wait", || waiting.load(Ordering::Acquire) == WAITERS);
    peer.write_all(b"x").unwrap();
    for thread in threads {
        assert_eq!(thread.join().unwrap(), Ready::READABLE);
    }
}

#[test]
fn without_descriptors_new_says_so() {
    let path = concat!(module_path!(), "::without_descriptors_new_says_so");
    in_child(path, || {
        let limit = no_more_descriptors();
        let error = Netpoll::new(4).unwrap_err();
        drop(limit);
        let text = error.to_string();
        assert!(
            text.contains("epoll") && text.contains("ulimit -n"),
            "{text}"
        );
    });
}
