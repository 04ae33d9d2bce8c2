//! tokio, and gort, which has tokio's API: one implementation, written once and compiled against
//! either crate.

use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Runtime;

macro_rules! implement {
    ($(#[$doc:meta])* $name:ident, $label:literal, $krate:ident) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name($krate::runtime::Runtime);

        impl Runtime for $name {
            const NAME: &'static str = $label;

            type JoinHandle<T: Send + 'static> = $krate::task::JoinHandle<T>;
            type Listener = $krate::net::TcpListener;
            type Stream = $krate::net::TcpStream;
            type HyperIo = TokioIo<Self::Stream>;

            fn new(workers: usize) -> Self {
                let runtime = $krate::runtime::Builder::new_multi_thread()
                    .worker_threads(workers)
                    .enable_all()
                    .build();
                Self(runtime.unwrap_or_else(|e| panic!("cannot start {}: {e}", $label)))
            }

            fn block_on<F: Future>(&self, future: F) -> F::Output {
                self.0.block_on(future)
            }

            fn spawn_outside<F>(&self, future: F) -> Self::JoinHandle<F::Output>
            where
                F: Future<Output: Send + 'static> + Send + 'static,
            {
                self.0.spawn(future)
            }

            fn spawn<F>(future: F) -> Self::JoinHandle<F::Output>
            where
                F: Future<Output: Send + 'static> + Send + 'static,
            {
                $krate::spawn(future)
            }

            async fn join<T: Send + 'static>(handle: Self::JoinHandle<T>) -> T {
                handle.await.unwrap_or_else(|e| panic!("a task of the workload failed: {e}"))
            }

            fn detach<T: Send + 'static>(handle: Self::JoinHandle<T>) {
                drop(handle);
            }

            fn yield_now() -> impl Future<Output = ()> + Send {
                $krate::task::yield_now()
            }

            fn sleep(duration: Duration) -> impl Future<Output = ()> + Send + Sync + 'static {
                $krate::time::sleep(duration)
            }

            async fn listen() -> io::Result<Self::Listener> {
                $krate::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await
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
                let stream = $krate::net::TcpStream::connect(addr).await?;
                stream.set_nodelay(true)?;
                Ok(stream)
            }

            async fn read(stream: &mut Self::Stream, buffer: &mut [u8]) -> io::Result<usize> {
                stream.read(buffer).await
            }

            async fn read_exact(stream: &mut Self::Stream, buffer: &mut [u8]) -> io::Result<()> {
                stream.read_exact(buffer).await.map(drop)
            }

            async fn write_all(stream: &mut Self::Stream, bytes: &[u8]) -> io::Result<()> {
                stream.write_all(bytes).await
            }

            fn hyper_io(stream: Self::Stream) -> Self::HyperIo {
                TokioIo::new(stream)
            }
        }
    };
}

implement! {
    /// tokio's multi-thread runtime.
    Tokio, "tokio", tokio
}

implement! {
    /// gort's multi-thread runtime.
    Gort, "gort", gort
}
