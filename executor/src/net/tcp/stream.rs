//! A connection.

use std::fmt;
use std::future::poll_fn;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BufMut;
use socket2::SockRef;

use super::split::{self, ReadHalf, WriteHalf};
use super::split_owned::{self, OwnedReadHalf, OwnedWriteHalf};
use crate::io::{AsyncRead, AsyncWrite, Interest, ReadBuf, Ready};
use crate::net::{ToSocketAddrs, first_that_works, require_nonblocking};
use crate::netpoll::{Progress, Registration};

/// A TCP connection.
///
/// Read and write it through [`AsyncReadExt`](crate::io::AsyncReadExt) and
/// [`AsyncWriteExt`](crate::io::AsyncWriteExt), or wait with [`ready`](Self::ready) and use the
/// `try_` methods, which take `&self`. [`split`](Self::split) and
/// [`into_split`](Self::into_split) let it be read and written at the same time.
///
/// Dropping it closes the connection; `shutdown` of `AsyncWriteExt` closes the writing direction
/// only.
///
/// The poll methods and `AsyncRead` and `AsyncWrite` remember one waiting task a direction, the
/// last; the `async` methods any number.
///
/// # Examples
///
/// ```no_run
/// use gort::io::{AsyncReadExt, AsyncWriteExt};
/// use gort::net::TcpStream;
///
/// # async fn example() -> std::io::Result<()> {
/// let mut stream = TcpStream::connect("127.0.0.1:8080").await?;
/// stream.write_all(b"ping").await?;
/// let mut answer = [0; 4];
/// stream.read_exact(&mut answer).await?;
/// # Ok(())
/// # }
/// ```
pub struct TcpStream {
    io: Registration<mio::net::TcpStream>,
}

// ---- Making one, and going back.
impl TcpStream {
    /// Connects to `addr`, the first of them that answers.
    ///
    /// # Errors
    ///
    /// That of the last address, or of the name lookup.
    ///
    /// # Panics
    ///
    /// Outside a runtime, or if its I/O is not enabled.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives the attempt up.
    pub async fn connect<A: ToSocketAddrs>(addr: A) -> io::Result<TcpStream> {
        first_that_works(addr, |addr| async move {
            TcpStream::finish_connect(mio::net::TcpStream::connect(addr)?).await
        })
        .await
    }

    /// Waits for the end of a connect that is under way.
    pub(super) async fn finish_connect(connecting: mio::net::TcpStream) -> io::Result<TcpStream> {
        let stream = TcpStream::new(connecting)?;
        // The socket becomes writable when the handshake has ended, either way.
        poll_fn(|cx| stream.io.poll_write_ready(cx)).await?;
        match stream.io.take_error()? {
            Some(e) => Err(e),
            None => Ok(stream),
        }
    }

    /// A connection that has just been accepted: it can surely be written, and a client that
    /// speaks first has often done so by now.
    pub(super) fn new_accepted(accepted: mio::net::TcpStream) -> io::Result<TcpStream> {
        let stream = TcpStream::new(accepted)?;
        stream.io.assume_ready(Ready::READABLE | Ready::WRITABLE);
        Ok(stream)
    }

    #[track_caller]
    fn new(stream: mio::net::TcpStream) -> io::Result<TcpStream> {
        Ok(TcpStream {
            io: Registration::new(stream, Interest::READABLE | Interest::WRITABLE)?,
        })
    }

    /// Takes over a stream of the standard library, which must be in non-blocking mode.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) if it is in blocking mode.
    ///
    /// # Panics
    ///
    /// Outside a runtime, or if its I/O is not enabled.
    #[track_caller]
    pub fn from_std(stream: std::net::TcpStream) -> io::Result<TcpStream> {
        require_nonblocking(&stream)?;
        TcpStream::new(mio::net::TcpStream::from_std(stream))
    }

    /// Makes it a stream of the standard library, still in non-blocking mode.
    pub fn into_std(self) -> io::Result<std::net::TcpStream> {
        self.io.into_source().map(Into::into)
    }

    /// Halves that borrow the stream: for reading and writing at the same time within one task.
    pub fn split(&mut self) -> (ReadHalf<'_>, WriteHalf<'_>) {
        split::split(self)
    }

    /// Halves that own the stream together, and may go to different tasks. Dropping the writing
    /// half shuts the writing direction down.
    pub fn into_split(self) -> (OwnedReadHalf, OwnedWriteHalf) {
        split_owned::split(self)
    }
}

// ---- Readiness.
impl TcpStream {
    /// Waits until the stream is ready for some of `interest`, and says for what.
    ///
    /// Readiness is a hint: the operation may still return
    /// [`WouldBlock`](io::ErrorKind::WouldBlock), after which `ready` waits for the next event.
    /// Use one of the `try_` methods, since only they take note of that.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use gort::io::Interest;
    /// # async fn example(stream: gort::net::TcpStream) -> std::io::Result<()> {
    /// let mut buf = [0; 1024];
    /// loop {
    ///     let ready = stream.ready(Interest::READABLE | Interest::ERROR).await?;
    ///     if ready.is_error() {
    ///         return Err(stream.take_error()?.unwrap_or(std::io::ErrorKind::Other.into()));
    ///     }
    ///     match stream.try_read(&mut buf) {
    ///         Ok(0) => return Ok(()),
    ///         Ok(n) => println!("{n} bytes"),
    ///         Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
    ///         Err(e) => return Err(e),
    ///     }
    /// }
    /// # }
    /// ```
    pub async fn ready(&self, interest: Interest) -> io::Result<Ready> {
        self.io.readiness(interest).await
    }

    /// Waits until there is something to read, or the end. As `ready(Interest::READABLE)`.
    pub async fn readable(&self) -> io::Result<()> {
        self.ready(Interest::READABLE).await.map(drop)
    }

    /// Waits until there is room to write. As `ready(Interest::WRITABLE)`.
    pub async fn writable(&self) -> io::Result<()> {
        self.ready(Interest::WRITABLE).await.map(drop)
    }

    /// [`readable`](Self::readable) for hand-written futures: of several tasks the last is woken.
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io.poll_read_ready(cx)
    }

    /// [`writable`](Self::writable) for hand-written futures: of several tasks the last is woken.
    pub fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io.poll_write_ready(cx)
    }
}

// ---- Operations.
impl TcpStream {
    /// Reads what is there, without waiting. 0 is the end of the stream (or an empty `buf`).
    ///
    /// # Errors
    ///
    /// [`WouldBlock`](io::ErrorKind::WouldBlock) if there is nothing to read.
    pub fn try_read(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.io.try_io(Interest::READABLE, || (&*self.io).read(buf))
    }

    /// [`try_read`](Self::try_read) into several buffers, one after the other.
    pub fn try_read_vectored(&self, bufs: &mut [io::IoSliceMut<'_>]) -> io::Result<usize> {
        self.io
            .try_io(Interest::READABLE, || (&*self.io).read_vectored(bufs))
    }

    /// [`try_read`](Self::try_read) into the spare room of `buf`, which it advances.
    pub fn try_read_buf<B: BufMut>(&self, buf: &mut B) -> io::Result<usize> {
        self.io.try_io(Interest::READABLE, || {
            // SAFETY: the slice is only given to recv, which writes initialized bytes; nobody else
            // can touch it while `buf` is borrowed.
            let room = unsafe { buf.chunk_mut().as_uninit_slice_mut() };
            let n = SockRef::from(&*self.io).recv(room)?;
            // SAFETY: recv has initialized the first n bytes of the chunk.
            unsafe { buf.advance_mut(n) };
            Ok(n)
        })
    }

    /// Writes what there is room for, without waiting.
    ///
    /// # Errors
    ///
    /// [`WouldBlock`](io::ErrorKind::WouldBlock) if there is no room.
    pub fn try_write(&self, buf: &[u8]) -> io::Result<usize> {
        self.io
            .try_io(Interest::WRITABLE, || (&*self.io).write(buf))
    }

    /// [`try_write`](Self::try_write) from several buffers, one after the other.
    pub fn try_write_vectored(&self, bufs: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.io
            .try_io(Interest::WRITABLE, || (&*self.io).write_vectored(bufs))
    }

    /// Runs `f`, an operation of the caller's own on this socket, if the stream is ready for
    /// `interest`.
    ///
    /// `f` must make a non-blocking system call on this socket, and return
    /// [`WouldBlock`](io::ErrorKind::WouldBlock) only if that call did: the stream then counts as
    /// not ready until the next event. It should not use the other methods of this type.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if the stream is not ready, and what `f` returns.
    pub fn try_io<R>(
        &self,
        interest: Interest,
        f: impl FnOnce() -> io::Result<R>,
    ) -> io::Result<R> {
        self.io.try_io(interest, f)
    }

    /// Runs `f` whenever the stream is ready for `interest`, until it returns something other than
    /// [`WouldBlock`](io::ErrorKind::WouldBlock). The rules of [`try_io`](Self::try_io) hold.
    pub async fn async_io<R>(
        &self,
        interest: Interest,
        f: impl FnMut() -> io::Result<R>,
    ) -> io::Result<R> {
        self.io.async_io(interest, f).await
    }

    /// Waits for data and copies it to `buf` without taking it from the stream. 0 is the end.
    pub async fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.io
            .async_io(Interest::READABLE, || self.io.peek(buf))
            .await
    }

    /// [`peek`](Self::peek) for hand-written futures: of several tasks that read or peek, the last
    /// is woken.
    pub fn poll_peek(
        &self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<usize>> {
        self.io.poll_read_io(cx, || {
            let n = fill(buf, |room| SockRef::from(&*self.io).peek(room))?;
            Ok(Progress::More(n))
        })
    }

    pub(super) fn poll_read_shared(
        &self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.io.poll_read_io(cx, || {
            let room = buf.remaining();
            let n = fill(buf, |room| SockRef::from(&*self.io).recv(room))?;
            // A short read has emptied the kernel's buffer. (Not if it stopped at an urgent byte,
            // which nobody sends any more: the rest then comes with the next segment.)
            Ok(match 0 < n && n < room {
                true => Progress::Exhausted(()),
                false => Progress::More(()),
            })
        })
    }

    pub(super) fn poll_write_shared(
        &self,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.io.poll_write_io(cx, || {
            let n = (&*self.io).write(buf)?;
            // A short write has filled the kernel's buffer, and asked for the event that follows.
            Ok(match 0 < n && n < buf.len() {
                true => Progress::Exhausted(n),
                false => Progress::More(n),
            })
        })
    }

    pub(super) fn poll_write_vectored_shared(
        &self,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // Never Exhausted: a short write may mean IOV_MAX buffers and no more.
        self.io
            .poll_write_io(cx, || (&*self.io).write_vectored(bufs).map(Progress::More))
    }

    /// Shuts the writing direction down; not an error if the connection is gone.
    pub(super) fn shutdown_write(&self) -> io::Result<()> {
        match self.io.shutdown(Shutdown::Write) {
            Err(e) if e.kind() == io::ErrorKind::NotConnected => Ok(()),
            result => result,
        }
    }
}

/// Lets `receive` fill the spare room of `buf`, which is advanced by what it returns.
fn fill(
    buf: &mut ReadBuf<'_>,
    receive: impl FnOnce(&mut [std::mem::MaybeUninit<u8>]) -> io::Result<usize>,
) -> io::Result<usize> {
    // SAFETY: `receive` is one of socket2's, which only write initialized bytes to it; nobody else
    // can touch it while `buf` is borrowed.
    let n = receive(unsafe { buf.unfilled_mut() })?;
    // SAFETY: the system call has initialized the first n bytes.
    unsafe { buf.assume_init(n) };
    buf.advance(n);
    Ok(n)
}

// ---- Addresses and options.
impl TcpStream {
    /// The address of this end.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.io.local_addr()
    }

    /// The address of the other end.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.io.peer_addr()
    }

    /// Takes the pending error of the socket (`SO_ERROR`), if there is one.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.io.take_error()
    }

    /// The `TCP_NODELAY` option: whether small writes are sent at once (Nagle's algorithm off).
    pub fn nodelay(&self) -> io::Result<bool> {
        self.io.nodelay()
    }

    /// Sets the `TCP_NODELAY` option.
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        self.io.set_nodelay(nodelay)
    }

    /// The `TCP_QUICKACK` option: whether acknowledgements are sent at once.
    pub fn quickack(&self) -> io::Result<bool> {
        SockRef::from(self).tcp_quickack()
    }

    /// Sets the `TCP_QUICKACK` option. Linux resets it when it sees fit.
    pub fn set_quickack(&self, quickack: bool) -> io::Result<()> {
        SockRef::from(self).set_tcp_quickack(quickack)
    }

    /// The `SO_LINGER` option: how long a close waits for unsent data (whole seconds).
    pub fn linger(&self) -> io::Result<Option<Duration>> {
        SockRef::from(self).linger()
    }

    /// Sets the `SO_LINGER` option.
    #[deprecated = "with `SO_LINGER` dropping the socket blocks the worker; \
                    use `set_zero_linger` to reset the connection on drop"]
    pub fn set_linger(&self, dur: Option<Duration>) -> io::Result<()> {
        SockRef::from(self).set_linger(dur)
    }

    /// Lets dropping the socket reset the connection (RST) and discard unsent data: `SO_LINGER`
    /// with zero, the one value that does not block.
    pub fn set_zero_linger(&self) -> io::Result<()> {
        SockRef::from(self).set_linger(Some(Duration::ZERO))
    }

    /// The `IP_TTL` option: how many hops a packet may make.
    pub fn ttl(&self) -> io::Result<u32> {
        self.io.ttl()
    }

    /// Sets the `IP_TTL` option.
    pub fn set_ttl(&self, ttl: u32) -> io::Result<()> {
        self.io.set_ttl(ttl)
    }
}

impl AsyncRead for TcpStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_read_shared(cx, buf)
    }
}

impl AsyncWrite for TcpStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_shared(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored_shared(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Nothing is buffered outside the system: always ready.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Shuts the writing direction down.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.shutdown_write())
    }
}

impl TryFrom<std::net::TcpStream> for TcpStream {
    type Error = io::Error;

    /// As [`TcpStream::from_std`].
    fn try_from(stream: std::net::TcpStream) -> io::Result<Self> {
        Self::from_std(stream)
    }
}

impl AsRef<TcpStream> for TcpStream {
    fn as_ref(&self) -> &TcpStream {
        self
    }
}

impl fmt::Debug for TcpStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (*self.io).fmt(f)
    }
}

impl AsRawFd for TcpStream {
    fn as_raw_fd(&self) -> RawFd {
        self.io.as_raw_fd()
    }
}

impl AsFd for TcpStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.io.as_fd()
    }
}
