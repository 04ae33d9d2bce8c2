//! async-executor with async-io: what the smol crate gives to a service that wants several
//! threads.
//!
//! smol has no runtime object, so this is the arrangement of its documentation: threads that run
//! one shared `Executor` inside `smol::block_on`, which also drives I/O and timers.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::thread;
use std::time::Duration;

use smol::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::Semaphore;

use super::Runtime;

type Executor = Arc<smol::Executor<'static>>;

thread_local! {
    /// The executor that this thread works for: what `spawn` inside a task finds.
    static CURRENT: RefCell<Option<Executor>> = const { RefCell::new(None) };
}

/// A few threads that run one `smol::Executor`.
#[derive(Debug)]
pub struct Smol {
    executor: Executor,
    /// Never has a permit; closing it ends the threads.
    stop: Arc<Semaphore>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Smol {
    fn work(executor: Executor, stop: &Semaphore) {
        CURRENT.set(Some(executor.clone()));
        let closed = smol::block_on(executor.run(stop.acquire())).is_err();
        assert!(closed, "the stop semaphore has no permits");
        CURRENT.set(None);
    }
}

impl Drop for Smol {
    fn drop(&mut self) {
        self.stop.close();
        for thread in self.threads.drain(..) {
            thread.join().expect("a worker of smol panicked");
        }
    }
}

impl Runtime for Smol {
    const NAME: &'static str = "smol";

    type JoinHandle<T: Send + 'static> = smol::Task<T>;
    type Listener = smol::net::TcpListener;
    type Stream = smol::net::TcpStream;
    type HyperIo = HyperIo<Self::Stream>;

    fn new(workers: usize) -> Self {
        let executor = Executor::default();
        let stop = Arc::new(Semaphore::new(0));
        let start = |_| {
            let (executor, stop) = (executor.clone(), stop.clone());
            thread::Builder::new()
                .name("smol-worker".into())
                .spawn(move || Self::work(executor, &stop))
                .unwrap_or_else(|e| panic!("cannot start a worker of smol: {e}"))
        };
        let threads = (0..workers).map(start).collect();
        Self {
            executor,
            stop,
            threads,
        }
    }

    fn block_on<F: Future>(&self, future: F) -> F::Output {
        // Not `smol::block_on`: this thread would then drive I/O as one more worker.
        smol::future::block_on(future)
    }

    fn spawn_outside<F>(&self, future: F) -> Self::JoinHandle<F::Output>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        self.executor.spawn(future)
    }

    fn spawn<F>(future: F) -> Self::JoinHandle<F::Output>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        CURRENT.with_borrow(|executor| {
            executor
                .as_ref()
                .expect("spawn outside of a worker of smol")
                .spawn(future)
        })
    }

    fn join<T: Send + 'static>(handle: Self::JoinHandle<T>) -> impl Future<Output = T> + Send {
        handle
    }

    fn detach<T: Send + 'static>(handle: Self::JoinHandle<T>) {
        handle.detach();
    }

    fn yield_now() -> impl Future<Output = ()> + Send {
        smol::future::yield_now()
    }

    async fn sleep(duration: Duration) {
        smol::Timer::after(duration).await;
    }

    async fn listen() -> io::Result<Self::Listener> {
        smol::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await
    }

    fn local_addr(listener: &Self::Listener) -> io::Result<SocketAddr> {
        listener.local_addr()
    }

    async fn accept(listener: &Self::Listener) -> io::Result<Self::Stream> {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    async fn connect(addr: SocketAddr) -> io::Result<Self::Stream> {
        let stream = smol::net::TcpStream::connect(addr).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    async fn read(stream: &mut Self::Stream, buffer: &mut [u8]) -> io::Result<usize> {
        stream.read(buffer).await
    }

    async fn read_exact(stream: &mut Self::Stream, buffer: &mut [u8]) -> io::Result<()> {
        stream.read_exact(buffer).await
    }

    async fn write_all(stream: &mut Self::Stream, bytes: &[u8]) -> io::Result<()> {
        stream.write_all(bytes).await
    }

    fn hyper_io(stream: Self::Stream) -> Self::HyperIo {
        HyperIo(stream)
    }
}

/// futures-io's traits as hyper's.
#[derive(Debug)]
pub struct HyperIo<T>(T);

impl<T: AsyncRead + Unpin> hyper::rt::Read for HyperIo<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buffer: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        // futures-io reads into initialised memory only.
        let unfilled = buffer.initialize_unfilled();
        let n = ready!(Pin::new(&mut self.0).poll_read(cx, unfilled))?;
        assert!(
            n <= buffer.remaining(),
            "the reader claims more than it was given room for"
        );
        // SAFETY: `initialize_unfilled` initialised all that remains, and `n` is no more than that.
        unsafe { buffer.advance(n) };
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> hyper::rt::Write for HyperIo<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_close(cx)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, buffers)
    }
}
