//! [`GortIo`]: tokio's I/O traits as hyper's, and back.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use ::hyper::rt::{Read, ReadBufCursor, Write};
use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

pin_project! {
    /// Makes a stream of the one world a stream of the other.
    ///
    /// * Around something that is [`AsyncRead`] and [`AsyncWrite`], such as a
    ///   [`TcpStream`](crate::net::TcpStream), it is hyper's [`Read`] and [`Write`]: what
    ///   `serve_connection` and `handshake` want.
    /// * Around something that is hyper's [`Read`] and [`Write`], such as
    ///   `hyper::upgrade::Upgraded`, it is [`AsyncRead`] and [`AsyncWrite`]: what everybody else
    ///   wants.
    ///
    /// It adds no buffer and copies nothing; reads go straight into hyper's uninitialized memory,
    /// and writes are vectored where the inner stream's are.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use gort::hyper::GortIo;
    /// use gort::net::TcpStream;
    ///
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let stream = TcpStream::connect("127.0.0.1:8080").await?;
    /// let (client, connection) =
    ///     hyper::client::conn::http1::handshake(GortIo::new(stream)).await?;
    /// gort::spawn(connection);
    /// # let _: hyper::client::conn::http1::SendRequest<String> = client;
    /// # Ok(())
    /// # }
    /// ```
    #[derive(Clone, Copy, Debug, Default)]
    pub struct GortIo<T> {
        #[pin]
        inner: T,
    }
}

impl<T> GortIo<T> {
    /// Wraps `inner`.
    pub fn new(inner: T) -> Self {
        Self { inner }
    }

    /// What is inside.
    pub fn inner(&self) -> &T {
        &self.inner
    }

    /// What is inside.
    pub fn inner_mut(&mut self) -> &mut T {
        &mut self.inner
    }

    /// Takes the wrapper off.
    pub fn into_inner(self) -> T {
        self.inner
    }
}

impl<T: AsyncRead> Read for GortIo<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        // SAFETY: `ReadBuf` only ever adds to what is initialized: its safe methods take nothing
        // back, and for its unsafe ones whoever calls them has promised the same.
        let mut read = ReadBuf::uninit(unsafe { buf.as_mut() });
        let begin = read.filled().as_ptr();
        ready!(self.project().inner.poll_read(cx, &mut read))?;
        let filled = read.filled();
        // `AsyncRead` is a safe trait, and an implementation may put another `ReadBuf` in the
        // place of ours. hyper's memory would then not be what `filled` speaks of.
        assert_eq!(begin, filled.as_ptr(), "poll_read exchanged its buffer");
        let count = filled.len();
        // SAFETY: `filled` is initialized, and it begins where hyper's unfilled part does.
        unsafe { buf.advance(count) };
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite> Write for GortIo<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.project().inner.poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().inner.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().inner.poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.project().inner.poll_write_vectored(cx, bufs)
    }
}

impl<T: Read> AsyncRead for GortIo<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // SAFETY: hyper's `ReadBuf` only ever adds to what is initialized, as ours above.
        let mut read = hyper::rt::ReadBuf::uninit(unsafe { buf.unfilled_mut() });
        ready!(self.project().inner.poll_read(cx, read.unfilled()))?;
        // Nobody can have exchanged this one: the cursor does not give it out.
        let count = read.filled().len();
        // SAFETY: these bytes have been filled.
        unsafe { buf.assume_init(count) };
        buf.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl<T: Write> AsyncWrite for GortIo<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.project().inner.poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().inner.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().inner.poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.project().inner.poll_write_vectored(cx, bufs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::Builder;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    #[test]
    fn through_both_worlds_bytes_arrive_as_they_were_sent() {
        let runtime = Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            // A pipe of 7 bytes, so that reads and writes are partial.
            let (near, far) = duplex(7);
            // tokio's trait, hyper's, tokio's again.
            let mut near = GortIo::new(GortIo::new(near));
            let mut far = GortIo::new(GortIo::new(far));
            let sent: Vec<u8> = (0..10_000u32).map(|n| (n % 251) as u8).collect();
            let copy = sent.clone();
            let writer = crate::spawn(async move {
                near.write_all(&copy).await?;
                near.shutdown().await
            });
            let mut received = Vec::new();
            far.read_to_end(&mut received).await.unwrap();
            writer.await.unwrap().unwrap();
            assert!(received == sent);
        });
    }

    /// Counts the slices that it is given.
    struct Slices(usize);

    impl AsyncWrite for Slices {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &[u8],
        ) -> Poll<io::Result<usize>> {
            unreachable!("only vectored writes are made")
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn is_write_vectored(&self) -> bool {
            true
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bufs: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            self.0 += bufs.len();
            Poll::Ready(Ok(bufs.iter().map(|buf| buf.len()).sum()))
        }
    }

    #[test]
    fn vectored_writes_stay_vectored() {
        let mut io = GortIo::new(Slices(0));
        assert!(Write::is_write_vectored(&io));
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let slices = [IoSlice::new(b"head"), IoSlice::new(b"body")];
        let written = Write::poll_write_vectored(Pin::new(&mut io), &mut cx, &slices);
        assert!(matches!(written, Poll::Ready(Ok(8))));
        assert_eq!(io.into_inner().0, 2);
    }

    /// Reads by putting another buffer in the place of the one that it is given.
    struct Exchange;

    impl AsyncRead for Exchange {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            let mut other = ReadBuf::new(Box::leak(Box::new([7; 64])));
            other.set_filled(64);
            *buf = other;
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    #[should_panic(expected = "exchanged its buffer")]
    fn a_reader_that_exchanges_the_buffer_is_found_out() {
        let mut memory = [std::mem::MaybeUninit::uninit(); 16];
        let mut buf = hyper::rt::ReadBuf::uninit(&mut memory);
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut io = GortIo::new(Exchange);
        let _ = Read::poll_read(Pin::new(&mut io), &mut cx, buf.unfilled());
    }
}
