//! TCP networking.
//!
//! [`TcpListener`] accepts connections, [`TcpStream`] is one, [`TcpSocket`] is one that is still
//! being configured. Names and behaviour are tokio's; the streams implement tokio's
//! [`AsyncRead`](crate::io::AsyncRead) and [`AsyncWrite`](crate::io::AsyncWrite), and futures-io's
//! traits of the same names behind the feature `futures-io`.
//!
//! A socket belongs to the runtime in whose context it was made: that runtime reports its
//! readiness, whichever task or thread uses it. Once the runtime has shut down, waiting on the
//! socket is an error.
//!
//! # Cancel safety
//!
//! Futures of this module that wait (`accept`, `readable`, `peek` and so on) may be dropped at any
//! time; nothing is lost. The exceptions say so.

mod addr;
pub mod tcp;

pub(crate) use addr::to_socket_addrs;
pub use addr::{ToSocketAddrs, lookup_host};
pub use tcp::listener::TcpListener;
pub use tcp::socket::TcpSocket;
pub use tcp::stream::TcpStream;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;

/// The outcome of `attempt` for the first address it succeeds with, or its last error.
async fn first_that_works<T, F: Future<Output = io::Result<T>>>(
    addrs: impl ToSocketAddrs,
    mut attempt: impl FnMut(SocketAddr) -> F,
) -> io::Result<T> {
    let mut last_error = None;
    for addr in to_socket_addrs(addrs).await? {
        match attempt(addr).await {
            Ok(socket) => return Ok(socket),
            Err(e) => last_error = Some(e),
        }
    }
    Err(last_error.unwrap_or_else(|| {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            "the given name or list has no address in it",
        )
    }))
}

/// Refuses a socket that would block its worker in every call.
fn require_nonblocking(socket: &impl AsFd) -> io::Result<()> {
    if socket2::SockRef::from(socket).nonblocking()? {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidInput,
        "the socket is in blocking mode and would block the whole worker: call \
         set_nonblocking(true) before from_std",
    ))
}

#[cfg(test)]
mod tests;
