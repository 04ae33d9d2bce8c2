//! The epoll instance, the poll lock, and the way in and out for sockets.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};
use std::time::Duration;

use mio::event::Source;
use mio::{Events, Poll, Registry, Token, Waker};

use super::readiness::ScheduledIo;
use super::slots::{Refused, Registrations, TIMER_TOKEN, WAKE_TOKEN};
use super::timerfd::TimerFd;
use super::wakeup::Wakeup;
use super::{lock, shut_down_error};
use crate::io::{Interest, Ready};
use crate::wake_list::WakeList;

/// How many events are delivered under one hold of the registrations lock. Each costs some 50 ns
/// and now and then a cache miss, so that a task that accepts or closes a connection meanwhile
/// waits a few microseconds and not for a batch of a thousand.
const EVENTS_PER_LOCK: usize = 64;

/// The reactor of one runtime. See the module documentation.
#[derive(Debug)]
pub(crate) struct Netpoll {
    /// The poll lock.
    inner: Mutex<Inner>,
    /// Adds and deletes sockets while another thread polls.
    registry: Registry,
    registrations: Mutex<Registrations>,
    /// The registrations' number, to be read without their lock.
    len: AtomicUsize,
    wakeup: Wakeup,
    eventfd: Waker,
}

#[derive(Debug)]
struct Inner {
    poll: Poll,
    events: Events,
    timer: TimerFd,
}

impl Netpoll {
    /// A reactor that takes up to `events` events from the system at a time.
    ///
    /// # Errors
    ///
    /// If the epoll instance, its eventfd or its timerfd cannot be made: mostly for want of descriptors.
    pub(crate) fn new(events: usize) -> io::Result<Netpoll> {
        let poll = Poll::new().map_err(|e| cannot("create the epoll instance", &e))?;
        let registry = poll
            .registry()
            .try_clone()
            .map_err(|e| cannot("duplicate the epoll descriptor", &e))?;
        let eventfd =
            Waker::new(&registry, WAKE_TOKEN).map_err(|e| cannot("create the eventfd", &e))?;
        let timer =
            TimerFd::new(&registry, TIMER_TOKEN).map_err(|e| cannot("create the timerfd", &e))?;
        Ok(Netpoll {
            inner: Mutex::new(Inner {
                poll,
                events: Events::with_capacity(events.max(1)),
                timer,
            }),
            registry,
            registrations: Mutex::default(),
            len: AtomicUsize::new(0),
            wakeup: Wakeup::default(),
            eventfd,
        })
    }

    /// The right to poll, if nobody has it.
    pub(crate) fn try_lock(&self) -> Option<Poller<'_>> {
        let inner = match self.inner.try_lock() {
            Ok(inner) => inner,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        Some(Poller {
            netpoll: self,
            inner,
        })
    }

    /// Interrupts the thread that blocks in [`Poller::poll`], or the next one that would, which
    /// then returns at once. A system call only if one blocks, and only for the first of several
    /// calls.
    pub(crate) fn wake(&self) {
        if self.wakeup.notify() {
            // mio resets the counter before it would overflow; nothing else can fail but for a
            // descriptor that somebody else has closed.
            self.eventfd.wake().unwrap_or_else(|e| {
                panic!(
                    "gort: cannot write to the eventfd that interrupts epoll_wait ({e}); is there \
                     code in this process that closes descriptors it does not own?"
                )
            });
        }
    }

    /// Whether no socket is registered, so that a poll which does not wait would be in vain.
    pub(crate) fn is_empty(&self) -> bool {
        // Relaxed: a hint. The thread that registered a socket sees its own store, and it looks
        // here itself before it parks.
        self.len.load(Relaxed) == 0
    }

    /// Ends the service: whoever waits on a socket is woken (by the caller, from `woken`) to an
    /// error, and later waits and registrations fail. Sockets can still be dropped. An M that
    /// blocks is interrupted.
    pub(crate) fn shutdown(&self, woken: &mut WakeList) {
        let sockets = {
            let mut registrations = lock(&self.registrations);
            let sockets = registrations.shut_down();
            self.publish_len(&registrations);
            sockets
        };
        for io in &sockets {
            io.shut_down(woken);
        }
        drop(sockets);
        self.wake();
    }

    /// Adds `source` to epoll.
    pub(super) fn register(
        &self,
        source: &mut impl Source,
        interest: Interest,
    ) -> io::Result<(Token, Arc<ScheduledIo>)> {
        let io = Arc::new(ScheduledIo::default());
        let token = {
            let mut registrations = lock(&self.registrations);
            let token = registrations.insert(io.clone());
            self.publish_len(&registrations);
            token
        }
        .map_err(|refused| match refused {
            Refused::ShutDown => shut_down_error(),
            Refused::Full => io::Error::other("no token left for another socket in this runtime"),
        })?;
        // If a shutdown comes in between, the socket is marked and all waits on it fail.
        match self.registry.register(source, token, interest.to_mio()) {
            Ok(()) => Ok((token, io)),
            Err(e) => {
                self.free_slot(token);
                Err(cannot_register(e))
            }
        }
    }

    /// Deletes `source` from epoll and frees its slot.
    ///
    /// The slot is freed even if epoll refuses, as it does if somebody has closed the descriptor:
    /// should a duplicate of it live on in epoll, its events find no slot.
    pub(super) fn deregister(&self, source: &mut impl Source, token: Token) -> io::Result<()> {
        let deleted = self.registry.deregister(source);
        self.free_slot(token);
        deleted
    }

    fn free_slot(&self, token: Token) {
        let io = {
            let mut registrations = lock(&self.registrations);
            let io = registrations.remove(token);
            self.publish_len(&registrations);
            io
        };
        drop(io);
    }

    fn publish_len(&self, registrations: &MutexGuard<'_, Registrations>) {
        // Relaxed: read as a hint in `is_empty`; the lock orders the stores.
        self.len.store(registrations.len(), Relaxed);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.len.load(Relaxed)
    }
}

/// The right to poll: the guard of the poll lock.
///
/// Drop it before waking what [`Poller::poll`] gathered, so that the tasks' Ms can poll.
#[derive(Debug)]
pub(crate) struct Poller<'a> {
    netpoll: &'a Netpoll,
    inner: MutexGuard<'a, Inner>,
}

impl Poller<'_> {
    /// Takes events from the system and moves the wakers of those who wait for them to `woken`.
    ///
    /// `timeout` is how long to wait for the first event: not at all (zero), so long, or for ever
    /// (`None`). It may return earlier with nothing, and does so after [`Netpoll::wake`] or when a
    /// signal handler has run.
    ///
    /// # Errors
    ///
    /// What epoll_wait reports, other than EINTR: its descriptor has been closed by somebody else.
    pub(crate) fn poll(
        &mut self,
        timeout: Option<Duration>,
        woken: &mut WakeList,
    ) -> io::Result<()> {
        let Inner {
            poll,
            events,
            timer,
        } = &mut *self.inner;
        let result = match timeout {
            Some(Duration::ZERO) => poll.poll(events, timeout),
            _ if !self.netpoll.wakeup.begin_block() => poll.poll(events, Some(Duration::ZERO)),
            _ => {
                if let Some(timeout) = timeout {
                    timer.arm_for_fraction(timeout);
                }
                let result = poll.poll(events, timeout);
                self.netpoll.wakeup.end_block();
                result
            }
        };
        match result {
            Ok(()) => {
                self.dispatch(woken);
                Ok(())
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(e) => Err(cannot("wait for events with epoll_wait", &e)),
        }
    }

    fn dispatch(&self, woken: &mut WakeList) {
        let mut events = self.inner.events.iter().peekable();
        while events.peek().is_some() {
            let registrations = lock(&self.netpoll.registrations);
            for event in events.by_ref().take(EVENTS_PER_LOCK) {
                // Neither eventfd nor timerfd nor a stale event has a socket.
                if let Some(io) = registrations.get(event.token()) {
                    io.dispatch(Ready::from_mio(event), woken);
                }
            }
        }
    }
}

fn cannot(what: &str, e: &io::Error) -> io::Error {
    let hint = match e.raw_os_error() {
        Some(libc::EMFILE) => {
            "; the process has all the descriptors it may have: close some, or raise its limit \
             (ulimit -n)"
        }
        Some(libc::ENFILE) => {
            "; the system has all the open files it may have: raise /proc/sys/fs/file-max"
        }
        _ => "",
    };
    io::Error::new(e.kind(), format!("the reactor cannot {what}: {e}{hint}"))
}

fn cannot_register(e: io::Error) -> io::Error {
    let why = match e.raw_os_error() {
        Some(libc::ENOSPC) => {
            "this user has all the epoll watches it may have: raise \
             /proc/sys/fs/epoll/max_user_watches"
        }
        Some(libc::EEXIST) => {
            "this descriptor is already registered: one socket object must own it alone"
        }
        Some(libc::EPERM) => "epoll does not support this kind of file",
        _ => return e,
    };
    io::Error::new(
        e.kind(),
        format!("the reactor cannot watch the socket: {e}; {why}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};

    /// The event of a socket that is dropped while a poller has it in hand must not reach the
    /// socket that takes its slot.
    #[test]
    fn a_stale_event_finds_nobody() {
        let netpoll = Netpoll::new(4).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let connect = || {
            let ours = TcpStream::connect(addr).unwrap();
            ours.set_nonblocking(true).unwrap();
            let (peer, _) = listener.accept().unwrap();
            (mio::net::TcpStream::from_std(ours), peer)
        };
        let (mut old, mut peer) = connect();
        let (old_token, old_io) = netpoll.register(&mut old, Interest::READABLE).unwrap();
        peer.write_all(b"x").unwrap();

        let mut poller = netpoll.try_lock().unwrap();
        let Inner { poll, events, .. } = &mut *poller.inner;
        poll.poll(events, None).unwrap();
        assert_eq!(events.iter().next().unwrap().token(), old_token);

        netpoll.deregister(&mut old, old_token).unwrap();
        let (mut new, _peer) = connect();
        let (new_token, new_io) = netpoll.register(&mut new, Interest::READABLE).unwrap();
        assert_ne!(old_token, new_token);

        poller.dispatch(&mut WakeList::new());
        assert!(old_io.try_ready(Interest::READABLE).is_err());
        assert!(new_io.try_ready(Interest::READABLE).is_err());
        netpoll.deregister(&mut new, new_token).unwrap();
    }
    /// Had only epoll_wait's rounded timeout ended the poll, there would be no event.
    #[test]
    fn a_fraction_of_a_millisecond_is_ended_by_the_timerfd() {
        let netpoll = Netpoll::new(4).unwrap();
        let mut poller = netpoll.try_lock().unwrap();
        for timeout in [Duration::from_micros(100), Duration::from_micros(2_500)] {
            let start = std::time::Instant::now();
            poller.poll(Some(timeout), &mut WakeList::new()).unwrap();
            assert!(start.elapsed() >= timeout);
            let tokens: Vec<_> = poller.inner.events.iter().map(|e| e.token()).collect();
            assert_eq!(tokens, [TIMER_TOKEN]);
        }
        // Whole milliseconds need none.
        let timeout = Duration::from_millis(1);
        poller.poll(Some(timeout), &mut WakeList::new()).unwrap();
        assert!(poller.inner.events.is_empty());
        // What does not fit the clock is as good as for ever.
        netpoll.wake();
        poller
            .poll(Some(Duration::MAX), &mut WakeList::new())
            .unwrap();
    }
}
