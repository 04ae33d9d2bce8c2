//! Addresses and names.

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use crate::blocking::spawn_blocking;

/// What can be turned into socket addresses, without blocking: the argument of
/// [`TcpStream::connect`](super::TcpStream::connect) and its like.
///
/// Implemented for [`SocketAddr`], [`SocketAddrV4`] and [`SocketAddrV6`], for pairs of an IP
/// address and a port, for `&[SocketAddr]`, and for names: `"host:port"` as `str` or `String`, and
/// `(host, port)`. A name that is not an IP address is looked up by the system's resolver, on a
/// thread of the blocking pool.
///
/// The trait is sealed: it has no methods to call and cannot be implemented elsewhere.
pub trait ToSocketAddrs: sealed::Resolve {}

/// Looks `host` up.
///
/// The iterator is empty if the name exists and has no address. There is no more to it than the
/// system's resolver (`getaddrinfo`) offers; take a DNS library where that is not enough.
///
/// # Errors
///
/// If the name cannot be resolved.
///
/// # Panics
///
/// Outside a runtime, if there is a name to look up.
///
/// # Cancel safety
///
/// Dropping the future leaves a lookup that runs to its end, and discards its result.
///
/// # Examples
///
/// ```no_run
/// # async fn example() -> std::io::Result<()> {
/// for addr in gort::net::lookup_host("localhost:3000").await? {
///     println!("{addr}");
/// }
/// # Ok(())
/// # }
/// ```
pub async fn lookup_host<T>(host: T) -> io::Result<impl Iterator<Item = SocketAddr>>
where
    T: ToSocketAddrs,
{
    to_socket_addrs(host).await
}

/// The addresses of `addrs`; looked up if need be.
pub(crate) fn to_socket_addrs(addrs: impl ToSocketAddrs) -> sealed::Resolving {
    addrs.resolve(sealed::Internal)
}

mod sealed {
    use std::io;
    use std::net::SocketAddr;

    use crate::task::JoinHandle;

    #[doc(hidden)]
    pub trait Resolve {
        fn resolve(&self, _: Internal) -> Resolving;
    }

    /// Cannot be named outside, so that nobody calls `resolve` through a bound on the public trait.
    #[doc(hidden)]
    #[derive(Debug)]
    pub struct Internal;

    #[doc(hidden)]
    #[derive(Debug)]
    pub enum Resolving {
        Known(Option<Addrs>),
        LookingUp(JoinHandle<io::Result<std::vec::IntoIter<SocketAddr>>>),
    }

    #[doc(hidden)]
    #[derive(Debug)]
    pub enum Addrs {
        One(std::option::IntoIter<SocketAddr>),
        Many(std::vec::IntoIter<SocketAddr>),
    }
}

use sealed::{Addrs, Internal, Resolve, Resolving};

impl Resolving {
    fn known(addr: impl Into<SocketAddr>) -> Self {
        Resolving::Known(Some(Addrs::One(Some(addr.into()).into_iter())))
    }

    fn look_up<A>(name: A) -> Self
    where
        A: std::net::ToSocketAddrs<Iter = std::vec::IntoIter<SocketAddr>> + Send + 'static,
    {
        Resolving::LookingUp(spawn_blocking(move || name.to_socket_addrs()))
    }
}

impl Future for Resolving {
    type Output = io::Result<Addrs>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Resolving::Known(addrs) => {
                Poll::Ready(Ok(addrs.take().expect("polled after it was ready")))
            }
            Resolving::LookingUp(lookup) => {
                // The outer error: the runtime has shut down before the lookup began.
                Poll::Ready(ready!(Pin::new(lookup).poll(cx))?.map(Addrs::Many))
            }
        }
    }
}

impl Iterator for Addrs {
    type Item = SocketAddr;

    fn next(&mut self) -> Option<SocketAddr> {
        match self {
            Addrs::One(addr) => addr.next(),
            Addrs::Many(addrs) => addrs.next(),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        match self {
            Addrs::One(addr) => addr.size_hint(),
            Addrs::Many(addrs) => addrs.size_hint(),
        }
    }
}

impl<T: ToSocketAddrs + ?Sized> ToSocketAddrs for &T {}
impl<T: Resolve + ?Sized> Resolve for &T {
    fn resolve(&self, _: Internal) -> Resolving {
        (**self).resolve(Internal)
    }
}

impl ToSocketAddrs for SocketAddr {}
impl Resolve for SocketAddr {
    fn resolve(&self, _: Internal) -> Resolving {
        Resolving::known(*self)
    }
}

impl ToSocketAddrs for SocketAddrV4 {}
impl Resolve for SocketAddrV4 {
    fn resolve(&self, _: Internal) -> Resolving {
        Resolving::known(*self)
    }
}

impl ToSocketAddrs for SocketAddrV6 {}
impl Resolve for SocketAddrV6 {
    fn resolve(&self, _: Internal) -> Resolving {
        Resolving::known(*self)
    }
}

impl ToSocketAddrs for (IpAddr, u16) {}
impl Resolve for (IpAddr, u16) {
    fn resolve(&self, _: Internal) -> Resolving {
        Resolving::known(*self)
    }
}

impl ToSocketAddrs for (Ipv4Addr, u16) {}
impl Resolve for (Ipv4Addr, u16) {
    fn resolve(&self, _: Internal) -> Resolving {
        Resolving::known(*self)
    }
}

impl ToSocketAddrs for (Ipv6Addr, u16) {}
impl Resolve for (Ipv6Addr, u16) {
    fn resolve(&self, _: Internal) -> Resolving {
        Resolving::known(*self)
    }
}

impl ToSocketAddrs for &[SocketAddr] {}
impl Resolve for &[SocketAddr] {
    fn resolve(&self, _: Internal) -> Resolving {
        // Owned: the future does not borrow its argument.
        let addrs = Vec::from(*self);
        Resolving::Known(Some(Addrs::Many(addrs.into_iter())))
    }
}

impl ToSocketAddrs for str {}
impl Resolve for str {
    fn resolve(&self, _: Internal) -> Resolving {
        match self.parse::<SocketAddr>() {
            Ok(addr) => Resolving::known(addr),
            Err(_) => Resolving::look_up(self.to_owned()),
        }
    }
}

impl ToSocketAddrs for String {}
impl Resolve for String {
    fn resolve(&self, _: Internal) -> Resolving {
        self.as_str().resolve(Internal)
    }
}

impl ToSocketAddrs for (&str, u16) {}
impl Resolve for (&str, u16) {
    fn resolve(&self, _: Internal) -> Resolving {
        let (host, port) = *self;
        match host.parse::<IpAddr>() {
            Ok(ip) => Resolving::known((ip, port)),
            Err(_) => Resolving::look_up((host.to_owned(), port)),
        }
    }
}

impl ToSocketAddrs for (String, u16) {}
impl Resolve for (String, u16) {
    fn resolve(&self, _: Internal) -> Resolving {
        (self.0.as_str(), self.1).resolve(Internal)
    }
}
