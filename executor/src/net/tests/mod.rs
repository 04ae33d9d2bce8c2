//! The sockets against real peers on loopback, most of them the standard library's.
//!
//! They use the public surface of `net` and `io` and `run`, which drives a future in the context
//! of a reactor: nothing else ties them to this crate's insides.

mod addr;
mod connection;
mod listener;
mod readiness;
mod split;
mod types;

use std::net::{Ipv4Addr, SocketAddr};

use crate::net::TcpStream;
use crate::netpoll::testing::{HUNG, Reactor, assert_pending, in_child, no_more_descriptors, run};

const ANY_PORT: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);

/// A std listener on a port of its own.
fn std_listener() -> (std::net::TcpListener, SocketAddr) {
    let listener = std::net::TcpListener::bind(ANY_PORT).unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

/// A stream of ours, and its peer as a blocking std stream that does not block for ever.
async fn pair() -> (TcpStream, std::net::TcpStream) {
    let (listener, addr) = std_listener();
    let stream = TcpStream::connect(addr).await.unwrap();
    let (peer, _) = listener.accept().unwrap();
    peer.set_read_timeout(Some(HUNG)).unwrap();
    peer.set_write_timeout(Some(HUNG)).unwrap();
    (stream, peer)
}
