//! A socket that accepts connections.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::task::{Context, Poll, ready};

use super::stream::TcpStream;
use crate::io::Interest;
use crate::net::{ToSocketAddrs, first_that_works, require_nonblocking};
use crate::netpoll::{Progress, Registration};

/// A TCP socket that listens for connections.
///
/// # Examples
///
/// ```no_run
/// use gort::net::TcpListener;
///
/// # async fn example() -> std::io::Result<()> {
/// let listener = TcpListener::bind("127.0.0.1:8080").await?;
/// loop {
///     let (stream, peer) = listener.accept().await?;
///     println!("{peer} is here");
///     drop(stream);
/// }
/// # }
/// ```
pub struct TcpListener {
    io: Registration<mio::net::TcpListener>,
}

impl TcpListener {
    /// Listens on `addr`, the first of them that can be bound. Port 0 asks the system for a free
    /// port; [`local_addr`](Self::local_addr) tells which.
    ///
    /// Sets `SO_REUSEADDR` and leaves the backlog to the standard library's choice; for other
    /// settings use [`TcpSocket`](crate::net::TcpSocket).
    ///
    /// # Errors
    ///
    /// That of the last address, or of the name lookup.
    ///
    /// # Panics
    ///
    /// Outside a runtime, or if its I/O is not enabled.
    pub async fn bind<A: ToSocketAddrs>(addr: A) -> io::Result<TcpListener> {
        first_that_works(addr, |addr| async move {
            TcpListener::new(mio::net::TcpListener::bind(addr)?)
        })
        .await
    }

    #[track_caller]
    pub(super) fn new(listener: mio::net::TcpListener) -> io::Result<TcpListener> {
        Ok(TcpListener {
            io: Registration::new(listener, Interest::READABLE)?,
        })
    }

    /// Waits for a connection, and returns it with the peer's address.
    ///
    /// # Errors
    ///
    /// An error concerns the one connection, or the moment, and not the listener: go on calling
    /// `accept`. With `EMFILE` or `ENFILE` the connection stays in the system's queue and the next
    /// call tries again at once; free descriptors, or wait a little.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses no connection.
    pub async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let (stream, peer) = self
            .io
            .async_io(Interest::READABLE, || self.io.accept())
            .await?;
        Ok((TcpStream::new_accepted(stream)?, peer))
    }

    /// [`accept`](Self::accept) for hand-written futures. Of several tasks that call it, only the
    /// last is woken.
    pub fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
        let (stream, peer) = ready!(
            self.io
                .poll_read_io(cx, || self.io.accept().map(Progress::More))
        )?;
        Poll::Ready(TcpStream::new_accepted(stream).map(|stream| (stream, peer)))
    }

    /// Takes over a listener of the standard library, which must be in non-blocking mode.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) if it is in blocking mode.
    ///
    /// # Panics
    ///
    /// Outside a runtime, or if its I/O is not enabled.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn example() -> std::io::Result<()> {
    /// let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    /// listener.set_nonblocking(true)?;
    /// let listener = gort::net::TcpListener::from_std(listener)?;
    /// # Ok(())
    /// # }
    /// ```
    #[track_caller]
    pub fn from_std(listener: std::net::TcpListener) -> io::Result<TcpListener> {
        require_nonblocking(&listener)?;
        TcpListener::new(mio::net::TcpListener::from_std(listener))
    }

    /// Makes it a listener of the standard library, still in non-blocking mode.
    pub fn into_std(self) -> io::Result<std::net::TcpListener> {
        self.io.into_source().map(Into::into)
    }

    /// The address that it listens on.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.io.local_addr()
    }

    /// The `IP_TTL` option: how many hops a packet may make.
    pub fn ttl(&self) -> io::Result<u32> {
        self.io.ttl()
    }

    /// Sets the `IP_TTL` option for this socket, which accepted connections inherit.
    pub fn set_ttl(&self, ttl: u32) -> io::Result<()> {
        self.io.set_ttl(ttl)
    }
}

impl TryFrom<std::net::TcpListener> for TcpListener {
    type Error = io::Error;

    /// As [`TcpListener::from_std`].
    fn try_from(listener: std::net::TcpListener) -> io::Result<Self> {
        Self::from_std(listener)
    }
}

impl fmt::Debug for TcpListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (*self.io).fmt(f)
    }
}

impl AsRawFd for TcpListener {
    fn as_raw_fd(&self) -> RawFd {
        self.io.as_raw_fd()
    }
}

impl AsFd for TcpListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.io.as_fd()
    }
}
