//! A socket (or another mio source) in the reactor: what the types of `net` are made of.
//!
//! Every operation has the same shape: wait until the source is believed ready, try the
//! non-blocking system call, and if it would block after all, forget the readiness and wait again.
//! Like tokio's own I/O, each counts against the task's cooperative budget, so that a task whose
//! socket is always ready still yields now and then.

use std::future::poll_fn;
use std::io;
use std::ops::Deref;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use mio::Token;
use mio::event::Source;
use tokio::task::coop;

use super::Netpoll;
use super::readiness::{Direction, ReadyEvent, ScheduledIo};
use crate::io::{Interest, Ready};
use crate::runtime::context;

/// A source that the runtime's netpoll watches. Derefs to the source; deregisters when dropped,
/// on any thread, even after the runtime.
#[derive(Debug)]
pub(crate) struct Registration<S: Source> {
    /// None only after `into_source`, which consumes the registration.
    source: Option<S>,
    token: Token,
    io: Arc<ScheduledIo>,
    netpoll: Arc<Netpoll>,
}

/// What a successful operation says about the next one.
#[derive(Debug)]
pub(crate) enum Progress<R> {
    /// The source may well be ready still.
    More(R),
    /// The kernel's buffer ran out (read) or full (write): the next operation would block, and
    /// epoll will report when it no longer does. Saves the system call that would find out.
    Exhausted(R),
}

impl<S: Source> Registration<S> {
    /// Registers `source` with the current runtime.
    ///
    /// # Panics
    ///
    /// Outside a runtime, or if its I/O is not enabled.
    #[track_caller]
    pub(crate) fn new(mut source: S, interest: Interest) -> io::Result<Self> {
        let netpoll = context::netpoll();
        let (token, io) = netpoll.register(&mut source, interest)?;
        Ok(Self::from_parts(source, token, io, netpoll))
    }

    /// From what [`Netpoll::register`] returned for `source`.
    pub(super) fn from_parts(
        source: S,
        token: Token,
        io: Arc<ScheduledIo>,
        netpoll: Arc<Netpoll>,
    ) -> Self {
        Registration {
            source: Some(source),
            token,
            io,
            netpoll,
        }
    }

    /// Takes the source out of the reactor.
    pub(crate) fn into_source(mut self) -> io::Result<S> {
        let mut source = self.source.take().expect("taken only here");
        self.netpoll.deregister(&mut source, self.token)?;
        Ok(source)
    }

    /// Waits in the readers' slot. Of several tasks the last is woken.
    pub(crate) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_ready(cx, Direction::Read)
    }

    /// Waits in the writers' slot. Of several tasks the last is woken.
    pub(crate) fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_ready(cx, Direction::Write)
    }

    fn poll_ready(&self, cx: &mut Context<'_>, direction: Direction) -> Poll<io::Result<()>> {
        let budget = ready!(coop::poll_proceed(cx));
        ready!(self.io.poll_ready(cx, direction))?;
        budget.made_progress();
        Poll::Ready(Ok(()))
    }

    /// Runs `f` when the source is readable, until it does not return `WouldBlock`.
    pub(crate) fn poll_read_io<R>(
        &self,
        cx: &mut Context<'_>,
        f: impl FnMut() -> io::Result<Progress<R>>,
    ) -> Poll<io::Result<R>> {
        self.poll_io(cx, Direction::Read, f)
    }

    /// Runs `f` when the source is writable, until it does not return `WouldBlock`.
    pub(crate) fn poll_write_io<R>(
        &self,
        cx: &mut Context<'_>,
        f: impl FnMut() -> io::Result<Progress<R>>,
    ) -> Poll<io::Result<R>> {
        self.poll_io(cx, Direction::Write, f)
    }

    fn poll_io<R>(
        &self,
        cx: &mut Context<'_>,
        direction: Direction,
        mut f: impl FnMut() -> io::Result<Progress<R>>,
    ) -> Poll<io::Result<R>> {
        let budget = ready!(coop::poll_proceed(cx));
        loop {
            let event = ready!(self.io.poll_ready(cx, direction))?;
            if let Some(result) = self.attempt(event, &mut f) {
                budget.made_progress();
                return Poll::Ready(result);
            }
        }
    }

    /// Runs `f` when the source is ready for `interest`, until it does not return `WouldBlock`.
    /// Any number of tasks may do so at once.
    pub(crate) async fn async_io<R>(
        &self,
        interest: Interest,
        mut f: impl FnMut() -> io::Result<R>,
    ) -> io::Result<R> {
        loop {
            let event = self.io.ready(interest).await?;
            let budget = poll_fn(coop::poll_proceed).await;
            if let Some(result) = self.attempt(event, || f().map(Progress::More)) {
                budget.made_progress();
                return result;
            }
        }
    }

    /// Runs `f` if the source is believed ready for `interest`, else returns `WouldBlock`.
    pub(crate) fn try_io<R>(
        &self,
        interest: Interest,
        f: impl FnOnce() -> io::Result<R>,
    ) -> io::Result<R> {
        let event = self.io.try_ready(interest)?;
        self.attempt(event, || f().map(Progress::More))
            .unwrap_or_else(|| Err(io::ErrorKind::WouldBlock.into()))
    }

    /// Tries the operation on the strength of `event`. None if it would block.
    fn attempt<R>(
        &self,
        event: ReadyEvent,
        f: impl FnOnce() -> io::Result<Progress<R>>,
    ) -> Option<io::Result<R>> {
        match f() {
            Ok(Progress::More(value)) => Some(Ok(value)),
            Ok(Progress::Exhausted(value)) => {
                self.io.clear(event);
                Some(Ok(value))
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                self.io.clear(event);
                None
            }
            Err(e) => Some(Err(e)),
        }
    }

    /// Waits for any of `interest`, beside any number of other tasks. Cancel safe.
    pub(crate) async fn readiness(&self, interest: Interest) -> io::Result<Ready> {
        Ok(self.io.ready(interest).await?.ready)
    }

    /// Believes the source ready without an event.
    pub(crate) fn assume_ready(&self, ready: Ready) {
        self.io.assume_ready(ready);
    }
}

impl<S: Source> Deref for Registration<S> {
    type Target = S;

    fn deref(&self) -> &S {
        self.source.as_ref().expect("taken only by into_source")
    }
}

impl<S: Source> Drop for Registration<S> {
    fn drop(&mut self) {
        if let Some(source) = &mut self.source {
            // It fails only if somebody else has closed the descriptor: then there is nothing left
            // to delete, and nobody to tell.
            let _ = self.netpoll.deregister(source, self.token);
        }
        self.io.clear_wakers();
    }
}

// As for std's and tokio's sockets: a panic leaves behind nothing that later calls could not bear;
// the shared state is atomics, and locks under which no user code runs.
impl<S: Source> UnwindSafe for Registration<S> {}
impl<S: Source> RefUnwindSafe for Registration<S> {}
