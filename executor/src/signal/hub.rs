//! What brings signals into a runtime: one eventfd, watched by its netpoll.
//!
//! ```text
//!   signal ─▶ handler (any thread): raised := true, write the eventfd
//!                                                   │ epoll
//!             netpoll's wakers (an M, no locks) ◀───┘
//!                  └▶ Dispatcher::wake ─▶ read the eventfd, take every `raised`, wake the listeners
//! ```
//!
//! The handler does only what a signal handler may: a store and a `write`. The rest runs in the
//! waker with which the hub waits for its own eventfd, so there is neither a thread nor a task
//! for it.
//!
//! # Life cycle
//!
//! A runtime's hub is made by its first listener, kept alive by its listeners and dropped with the
//! last. Its actions are then taken out of the process's handler. The handler itself
//! (signal-hook-registry's) stays for good, so the default action does not come back. The waker
//! that netpoll keeps refers to the hub weakly. If netpoll shuts down first, the hub is closed:
//! all listeners are told, and later ones are refused.
//!
//! # Nothing is lost
//!
//! The handler raises the flag before it writes, and the dispatcher reads the eventfd before it
//! takes the flags. A signal whose flag is missed by one pass has its write behind that pass's
//! read: the eventfd is readable again and there is another pass.
//!
//! # Locks
//!
//! `HUBS`, then a hub's `kinds`, then those of netpoll and of signal-hook-registry; a kind's
//! `listeners` is taken with no other. User code (wakers) runs under none of them.

use crate::io::Interest;
use crate::netpoll::{Netpoll, Progress, Registration};
use crate::runtime::context;
use crate::wake_list::WakeList;
use mio::event::Source;
use mio::unix::SourceFd;
use mio::{Registry, Token};
use slab::Slab;
use std::collections::BTreeMap;
use std::ffi::c_int;
use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Wake, Waker, ready};
use tokio::task::coop;

/// The hubs of all runtimes that have listeners, by their netpoll. The weak reference keeps a
/// netpoll's address from being used again.
static HUBS: Mutex<Vec<(Weak<Netpoll>, Weak<Hub>)>> = Mutex::new(Vec::new());

/// No user code runs under these locks, and nothing under them is left half-changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The error of a listener whose runtime has shut down.
pub(super) fn closed() -> io::Error {
    io::Error::other(
        "the runtime that was to report this signal is shutting down or gone: listen in a runtime \
         that lives as long as the listener",
    )
}

/// The signals of one runtime.
#[derive(Debug)]
pub(super) struct Hub {
    eventfd: Arc<EventFd>,
    registration: Registration<Watched>,
    kinds: Mutex<Kinds>,
}

#[derive(Debug, Default)]
struct Kinds {
    by_number: BTreeMap<c_int, (Arc<Kind>, signal_hook_registry::SigId)>,
    /// Netpoll has shut down; for good.
    closed: bool,
}

impl Hub {
    /// The current runtime's hub.
    #[track_caller]
    pub(super) fn current() -> io::Result<Arc<Self>> {
        let netpoll = context::netpoll();
        let mut hubs = lock(&HUBS);
        hubs.retain(|(_, hub)| hub.strong_count() > 0);
        let known = hubs
            .iter()
            .find(|(of, _)| Weak::as_ptr(of) == Arc::as_ptr(&netpoll));
        // Only the hub that is returned is upgraded: another one might be dropped here, under the
        // lock.
        if let Some(hub) = known.and_then(|(_, hub)| hub.upgrade()) {
            return Ok(hub);
        }
        let eventfd = Arc::new(EventFd::new()?);
        let watched = Watched(Arc::clone(&eventfd));
        let hub = Arc::new(Self {
            eventfd,
            registration: Registration::new(watched, Interest::READABLE)?,
            kinds: Mutex::default(),
        });
        hubs.push((Arc::downgrade(&netpoll), Arc::downgrade(&hub)));
        drop(hubs);
        // The first pass finds nothing and leaves the waker.
        hub.dispatch();
        Ok(hub)
    }

    /// A listener that hears of the signals from now on.
    pub(super) fn listen(self: Arc<Self>, number: c_int) -> io::Result<Listener> {
        let mut kinds = lock(&self.kinds);
        if kinds.closed {
            return Err(closed());
        }
        let kind = match kinds.by_number.get(&number) {
            Some((kind, _)) => Arc::clone(kind),
            None => {
                let kind = Arc::new(Kind::default());
                let action = self.install(number, Arc::clone(&kind))?;
                kinds.by_number.insert(number, (Arc::clone(&kind), action));
                kind
            }
        };
        drop(kinds);
        let mut out = WakeList::new();
        let (key, seen) = kind.enter(&mut out);
        out.wake_all();
        Ok(Listener {
            kind,
            key,
            seen,
            _hub: self,
        })
    }

    /// Has the process's handler of that signal report to this hub too.
    fn install(&self, number: c_int, kind: Arc<Kind>) -> io::Result<signal_hook_registry::SigId> {
        if number <= 0 || signal_hook_registry::FORBIDDEN.contains(&number) {
            return Err(io::Error::other(format!(
                "cannot listen for signal {number}: it is not one that a program may handle this \
                 way (SIGKILL and SIGSTOP cannot be caught, and SIGILL, SIGFPE and SIGSEGV report \
                 faults of the running instruction)"
            )));
        }
        let eventfd = Arc::clone(&self.eventfd);
        let action = move || {
            // Release: pairs with the swap in `Kind::hear`.
            kind.raised.store(true, Ordering::Release);
            eventfd.raise();
        };
        // SAFETY: the action is async-signal-safe: a store and write(2), no locks, no allocation,
        // no panic. signal-hook-registry saves errno around it, and drops it, with the two
        // references in it, outside of the handler and when no handler runs it.
        unsafe { signal_hook_registry::register(number, action) }.map_err(|e| {
            io::Error::new(
                e.kind(),
                format!("cannot install a handler for signal {number}: {e}"),
            )
        })
    }

    /// Reads the eventfd until it is empty, passing on what was raised, and leaves the waker for
    /// the next time.
    fn dispatch(self: &Arc<Self>) {
        let waker = Waker::from(Arc::new(Dispatcher(Arc::downgrade(self))));
        let mut cx = Context::from_waker(&waker);
        let mut out = WakeList::new();
        let mut ended = false;
        while !ended {
            let read = poll_fn(|cx| {
                self.registration
                    .poll_read_io(cx, || self.eventfd.drain().map(Progress::Exhausted))
            });
            // This is no task: it must not wait for the budget of the one that ran here before.
            match pin!(coop::unconstrained(read)).poll(&mut cx) {
                Poll::Pending => return,
                Poll::Ready(Ok(())) => {}
                // Netpoll has shut down.
                Poll::Ready(Err(_)) => ended = true,
            }
            self.pass_on(ended, &mut out);
            out.wake_all();
        }
    }

    /// Tells the listeners of every signal that was raised, or, at the end, all of them.
    fn pass_on(&self, ended: bool, out: &mut WakeList) {
        let mut kinds = lock(&self.kinds);
        kinds.closed |= ended;
        let all: Vec<_> = kinds
            .by_number
            .values()
            .map(|(k, _)| Arc::clone(k))
            .collect();
        drop(kinds);
        for kind in all {
            kind.notify(ended, out);
        }
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        let kinds = self.kinds.get_mut().unwrap_or_else(PoisonError::into_inner);
        for (_, action) in kinds.by_number.values() {
            signal_hook_registry::unregister(*action);
        }
    }
}

/// The waker that waits for the eventfd.
struct Dispatcher(Weak<Hub>);

impl Wake for Dispatcher {
    fn wake(self: Arc<Self>) {
        if let Some(hub) = self.0.upgrade() {
            hub.dispatch();
        }
    }
}

/// One signal in one runtime.
#[derive(Debug, Default)]
struct Kind {
    /// Set by the handler, taken under the lock of `listeners`.
    raised: AtomicBool,
    listeners: Mutex<Listeners>,
}

#[derive(Debug, Default)]
struct Listeners {
    /// How often the signal was found raised.
    generation: u64,
    closed: bool,
    /// Who waits, and the places of those who do not.
    wakers: Slab<Option<Waker>>,
}

impl Kind {
    /// A place for a new listener, and the generation it starts from. What was raised before is
    /// for those who listened then: their wakers go to `out`.
    fn enter(&self, out: &mut WakeList) -> (usize, u64) {
        let mut listeners = lock(&self.listeners);
        self.hear(&mut listeners, out);
        (listeners.wakers.insert(None), listeners.generation)
    }

    /// Tells the listeners if the signal was raised, or that this is the end.
    fn notify(&self, ended: bool, out: &mut WakeList) {
        let mut listeners = lock(&self.listeners);
        self.hear(&mut listeners, out);
        if ended {
            listeners.closed = true;
            listeners.take_wakers(out);
        }
    }

    /// Turns a raised flag into a generation. Under the lock, so that it is one step for those who
    /// enter.
    fn hear(&self, listeners: &mut Listeners, out: &mut WakeList) {
        // Acquire: pairs with the store in the handler.
        if self.raised.swap(false, Ordering::Acquire) {
            listeners.generation += 1;
            listeners.take_wakers(out);
        }
    }
}

impl Listeners {
    fn take_wakers(&mut self, out: &mut WakeList) {
        for (_, waker) in &mut self.wakers {
            if let Some(waker) = waker.take() {
                out.push(waker);
            }
        }
    }
}

/// A place among the listeners of one signal.
#[derive(Debug)]
pub(super) struct Listener {
    kind: Arc<Kind>,
    key: usize,
    /// The last generation that was reported.
    seen: u64,
    /// Keeps the eventfd watched.
    _hub: Arc<Hub>,
}

impl Listener {
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<()>> {
        let budget = ready!(coop::poll_proceed(cx));
        // Cloned before the lock and dropped after it, as both are user code.
        let mut waker = Some(cx.waker().clone());
        let mut listeners = lock(&self.kind.listeners);
        let heard = if listeners.closed {
            None
        } else if listeners.generation != self.seen {
            self.seen = listeners.generation;
            Some(())
        } else {
            std::mem::swap(&mut listeners.wakers[self.key], &mut waker);
            return Poll::Pending;
        };
        budget.made_progress();
        Poll::Ready(heard)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let waker = lock(&self.kind.listeners).wakers.remove(self.key);
        // Outside of the lock, and before the hub goes.
        drop(waker);
    }
}

/// The counter that the handler writes and netpoll watches.
#[derive(Debug)]
struct EventFd(OwnedFd);

impl EventFd {
    fn new() -> io::Result<Self> {
        // SAFETY: eventfd takes two integers.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd == -1 {
            let e = io::Error::last_os_error();
            return Err(io::Error::new(
                e.kind(),
                format!("cannot make the eventfd that reports signals to the runtime: {e}"),
            ));
        }
        // SAFETY: `fd` was just made, and nobody else owns it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Makes it readable. For signal handlers.
    fn raise(&self) {
        let one = 1_u64.to_ne_bytes();
        // SAFETY: `one` is 8 readable bytes, what an eventfd wants; `self` keeps the descriptor
        // open. It can fail only because the counter is full, and then it is readable.
        unsafe { libc::write(self.0.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }

    /// Takes the counter back to zero; `WouldBlock` if it is.
    fn drain(&self) -> io::Result<()> {
        let mut count = [0_u8; 8];
        // SAFETY: `count` is 8 writable bytes of this frame; `self` keeps the descriptor open.
        let n = unsafe { libc::read(self.0.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
        if n == -1 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}

/// The eventfd as a source of netpoll.
#[derive(Debug)]
struct Watched(Arc<EventFd>);

impl Source for Watched {
    fn register(
        &mut self,
        registry: &Registry,
        token: Token,
        interests: mio::Interest,
    ) -> io::Result<()> {
        SourceFd(&self.0.0.as_raw_fd()).register(registry, token, interests)
    }

    fn reregister(
        &mut self,
        registry: &Registry,
        token: Token,
        interests: mio::Interest,
    ) -> io::Result<()> {
        SourceFd(&self.0.0.as_raw_fd()).reregister(registry, token, interests)
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        SourceFd(&self.0.0.as_raw_fd()).deregister(registry)
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
