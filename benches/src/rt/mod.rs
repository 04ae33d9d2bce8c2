//! What a workload may ask of a runtime, and the contenders.
//!
//! The functions without `self` must be called from inside a task of a runtime of that kind: like
//! the `tokio::spawn` they stand for, they find it by themselves.

mod smol;
mod tokio_api;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

pub use self::smol::Smol;
pub use self::tokio_api::Gort;
pub use self::tokio_api::Tokio;

/// A multi-threaded runtime. Dropping one ends its threads and the tasks that are left.
pub trait Runtime: Send + Sync + Sized + 'static {
    /// The name in reports.
    const NAME: &'static str;

    /// The handle of a spawned task. What dropping it does differs between runtimes: either
    /// [`join`](Self::join) or [`detach`](Self::detach) it.
    type JoinHandle<T: Send + 'static>: Send + 'static;

    /// A listening TCP socket.
    type Listener: Send + Sync + 'static;

    /// A TCP connection.
    type Stream: Send + Unpin + 'static;

    /// A TCP connection as hyper wants it.
    type HyperIo: hyper::rt::Read + hyper::rt::Write + Send + Unpin + 'static;

    /// Starts a runtime with I/O and time.
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    fn new(workers: usize) -> Self;

    /// Runs `future` on the calling thread, which must not belong to a runtime.
    fn block_on<F: Future>(&self, future: F) -> F::Output;

    /// Spawns from a thread that does not belong to the runtime.
    fn spawn_outside<F>(&self, future: F) -> Self::JoinHandle<F::Output>
    where
        F: Future<Output: Send + 'static> + Send + 'static;

    /// Spawns from inside a task.
    fn spawn<F>(future: F) -> Self::JoinHandle<F::Output>
    where
        F: Future<Output: Send + 'static> + Send + 'static;

    /// Waits for a task and returns its output.
    ///
    /// # Panics
    ///
    /// If the task panicked or was cancelled.
    fn join<T: Send + 'static>(handle: Self::JoinHandle<T>) -> impl Future<Output = T> + Send;

    /// Lets the task go on without its handle.
    fn detach<T: Send + 'static>(handle: Self::JoinHandle<T>);

    /// Lets other tasks run.
    fn yield_now() -> impl Future<Output = ()> + Send;

    /// Waits for `duration`.
    fn sleep(duration: Duration) -> impl Future<Output = ()> + Send + Sync + 'static;

    /// Listens on a free port of 127.0.0.1.
    fn listen() -> impl Future<Output = io::Result<Self::Listener>> + Send;

    /// The address that the listener got.
    fn local_addr(listener: &Self::Listener) -> io::Result<SocketAddr>;

    /// Accepts a connection and sets TCP_NODELAY.
    fn accept(listener: &Self::Listener) -> impl Future<Output = io::Result<Self::Stream>> + Send;

    /// Connects and sets TCP_NODELAY.
    fn connect(addr: SocketAddr) -> impl Future<Output = io::Result<Self::Stream>> + Send;

    /// Reads some bytes; 0 at the end of the stream.
    fn read(
        stream: &mut Self::Stream,
        buffer: &mut [u8],
    ) -> impl Future<Output = io::Result<usize>> + Send;

    /// Fills the whole buffer.
    fn read_exact(
        stream: &mut Self::Stream,
        buffer: &mut [u8],
    ) -> impl Future<Output = io::Result<()>> + Send;

    /// Writes the whole buffer.
    fn write_all(
        stream: &mut Self::Stream,
        bytes: &[u8],
    ) -> impl Future<Output = io::Result<()>> + Send;

    /// Wraps a connection for hyper.
    fn hyper_io(stream: Self::Stream) -> Self::HyperIo;

    /// Runs `future` as a task of the runtime and waits for its output.
    fn run<F>(&self, future: F) -> F::Output
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        let handle = self.spawn_outside(future);
        self.block_on(Self::join(handle))
    }
}
