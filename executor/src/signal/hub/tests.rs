//! Every test has a signal of its own: they share the process.

use super::super::ctrl_c;
use super::super::unix::{Signal, SignalKind, signal};
use super::*;
use crate::netpoll::testing::{Reactor, run};
use std::sync::atomic::AtomicUsize;

fn raise(kind: SignalKind) {
    // SAFETY: raise takes an integer, and a handler for the signal is installed.
    assert_eq!(unsafe { libc::raise(kind.as_raw_value()) }, 0);
}

/// Real-time signals have no meaning of their own.
fn real_time(n: c_int) -> SignalKind {
    SignalKind::from_raw(libc::SIGRTMIN() + n)
}

/// Whether a signal is reported without waiting.
fn now(signal: &mut Signal) -> bool {
    let poll = signal.poll_recv(&mut Context::from_waker(Waker::noop()));
    matches!(poll, Poll::Ready(Some(())))
}

#[test]
fn ctrl_c_completes_at_each_sigint() {
    run(async {
        for _ in 0..3 {
            let mut waiting = pin!(ctrl_c());
            let mut first = true;
            let result = poll_fn(|cx| {
                let poll = waiting.as_mut().poll(cx);
                if std::mem::take(&mut first) {
                    assert!(poll.is_pending(), "an earlier SIGINT counts");
                    raise(SignalKind::interrupt());
                }
                poll
            });
            result.await.unwrap();
        }
        // Nobody listens now, and the process lives on.
        raise(SignalKind::interrupt());
    });
}

#[test]
fn what_came_before_does_not_count() {
    let reactor = Reactor::start();
    let kind = real_time(6);
    let mut early = reactor.block_on(async { signal(kind).unwrap() });
    for _ in 0..1_000 {
        raise(kind);
        let mut late = reactor.block_on(async { signal(kind).unwrap() });
        assert!(!now(&mut late));
        assert!(now(&mut early));
    }
}

#[test]
fn every_listener_hears_it_once() {
    run(async {
        let kind = SignalKind::user_defined1();
        let mut a = signal(kind).unwrap();
        let mut b = signal(kind).unwrap();
        let mut other = signal(SignalKind::user_defined2()).unwrap();
        raise(kind);
        a.recv().await.unwrap();
        let mut late = signal(kind).unwrap();
        b.recv().await.unwrap();
        assert!(![&mut a, &mut b, &mut late, &mut other].into_iter().any(now));
        raise(kind);
        late.recv().await.unwrap();
        a.recv().await.unwrap();
        drop(a);
        b.recv().await.unwrap();
    });
}

#[test]
fn a_dropped_recv_loses_nothing() {
    run(async {
        let kind = real_time(1);
        let mut signal = signal(kind).unwrap();
        let mut probe = super::super::unix::signal(kind).unwrap();
        {
            let mut recv = pin!(signal.recv());
            let poll = recv.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            assert!(poll.is_pending());
            raise(kind);
            probe.recv().await.unwrap();
        }
        assert!(now(&mut signal));
    });
}

#[test]
fn several_runtimes_hear_the_same_signal() {
    let kind = real_time(2);
    let (one, two) = (Reactor::start(), Reactor::start());
    let mut in_one = one.block_on(async { signal(kind).unwrap() });
    let mut in_two = two.block_on(async { signal(kind).unwrap() });
    raise(kind);
    two.block_on(in_two.recv()).unwrap();
    one.block_on(in_one.recv()).unwrap();
    // One runtime ends; the other goes on.
    drop((in_one, one));
    raise(kind);
    two.block_on(in_two.recv()).unwrap();
}

#[test]
fn the_last_listener_takes_the_hub_along() {
    let reactor = Reactor::start();
    let kind = real_time(3);
    let (a, b) = reactor.block_on(async { (signal(kind).unwrap(), signal(kind).unwrap()) });
    let hub = Arc::downgrade(&a.listener._hub);
    let known = Arc::downgrade(&a.listener.kind);
    drop(a);
    assert!(!reactor.netpoll.is_empty());
    drop(b);
    assert!(reactor.netpoll.is_empty());
    assert_eq!((hub.strong_count(), known.strong_count()), (0, 0));
    let mut again = reactor.block_on(async { signal(kind).unwrap() });
    raise(kind);
    reactor.block_on(again.recv()).unwrap();
}

#[test]
fn shutdown_tells_the_listeners() {
    let reactor = Reactor::start();
    let kind = real_time(4);
    let mut waiting = reactor.block_on(async { signal(kind).unwrap() });
    let mut woken = WakeList::new();
    reactor.netpoll.shutdown(&mut woken);
    woken.wake_all();
    reactor.block_on(async {
        assert_eq!(waiting.recv().await, None);
        assert_eq!(waiting.recv().await, None);
        assert!(signal(kind).is_err(), "the hub is closed");
    });
    drop(waiting);
    let refused = reactor.block_on(async { signal(kind) }).unwrap_err();
    assert!(refused.to_string().contains("shutting down"), "{refused}");
}

#[test]
fn signals_that_cannot_be_handled_are_refused() {
    run(async {
        for number in [-1, 0, 1_000, libc::SIGKILL, libc::SIGSTOP, libc::SIGSEGV] {
            let refused = signal(SignalKind::from_raw(number)).unwrap_err();
            assert!(
                refused.to_string().contains(&number.to_string()),
                "{refused}"
            );
        }
    });
}

#[test]
fn kinds_and_numbers() {
    assert_eq!(SignalKind::from(libc::SIGTERM), SignalKind::terminate());
    assert_eq!(c_int::from(SignalKind::hangup()), libc::SIGHUP);
}

/// Signals from one thread, listeners that come and go on others: after the last signal everyone
/// who listened before it hears of it.
#[test]
fn no_signal_is_lost_between_threads() {
    const ROUNDS: usize = 300;
    const LISTENERS: usize = 4;
    let kind = real_time(5);
    let reactor = Reactor::start();
    // What each listener has heard; a round begins when all have heard of the last one.
    let heard: [AtomicUsize; LISTENERS] = Default::default();
    let listeners: Vec<_> = (0..LISTENERS)
        .map(|_| reactor.block_on(async { signal(kind).unwrap() }))
        .collect();
    std::thread::scope(|s| {
        for (mut listener, heard) in listeners.into_iter().zip(&heard) {
            let reactor = &reactor;
            s.spawn(move || {
                reactor.block_on(async {
                    for _ in 0..ROUNDS {
                        let passing = signal(kind).unwrap();
                        listener.recv().await.unwrap();
                        drop(passing);
                        // Release: pairs with the Acquire below, which begins the next round.
                        heard.fetch_add(1, Ordering::Release);
                    }
                });
            });
        }
        for round in 1..=ROUNDS {
            raise(kind);
            crate::netpoll::testing::wait_until("all have heard it", || {
                heard.iter().all(|n| n.load(Ordering::Acquire) == round)
            });
        }
    });
}
