//! What the compiler must be able to say of the types and futures.

use std::future::Future;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, IntoRawFd};
use std::panic::{RefUnwindSafe, UnwindSafe};

use crate::io::{AsyncRead, AsyncWrite, Interest};
use crate::net::tcp::{OwnedReadHalf, OwnedWriteHalf, ReadHalf, ReuniteError, WriteHalf};
use crate::net::{TcpListener, TcpSocket, TcpStream, lookup_host};

fn socket<T: Send + Sync + Unpin + UnwindSafe + RefUnwindSafe + std::fmt::Debug>() {}
fn reads<T: AsyncRead + AsRef<TcpStream>>() {}
fn writes<T: AsyncWrite + AsRef<TcpStream>>() {}
fn descriptor<T: AsFd + AsRawFd>() {}
fn owned_descriptor<T: FromRawFd + IntoRawFd>() {}
fn send<F: Future + Send>(_: impl Fn() -> F) {}

#[test]
fn traits() {
    socket::<TcpListener>();
    socket::<TcpStream>();
    socket::<TcpSocket>();
    socket::<ReadHalf<'_>>();
    socket::<WriteHalf<'_>>();
    socket::<OwnedReadHalf>();
    socket::<OwnedWriteHalf>();
    socket::<ReuniteError>();
    reads::<TcpStream>();
    reads::<ReadHalf<'_>>();
    reads::<OwnedReadHalf>();
    writes::<TcpStream>();
    writes::<WriteHalf<'_>>();
    writes::<OwnedWriteHalf>();
    descriptor::<TcpListener>();
    descriptor::<TcpStream>();
    descriptor::<TcpSocket>();
    owned_descriptor::<TcpSocket>();
}

/// The futures can be spawned. Never called, only compiled.
#[allow(dead_code)]
fn futures(stream: &'static TcpStream, listener: &'static TcpListener) {
    send(|| TcpStream::connect("localhost:80"));
    send(|| TcpListener::bind(("localhost", 80)));
    send(|| lookup_host(String::new()));
    send(|| listener.accept());
    send(|| stream.ready(Interest::READABLE));
    send(|| stream.readable());
    send(|| stream.peek(Box::leak(Box::new([0; 1]))));
    send(|| stream.async_io(Interest::WRITABLE, || Ok(())));
    send(|| {
        TcpSocket::new_v4()
            .unwrap()
            .connect(([127, 0, 0, 1], 80).into())
    });
}
