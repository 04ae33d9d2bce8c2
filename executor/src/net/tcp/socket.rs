//! A socket before it connects or listens.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, RawFd};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use super::listener::TcpListener;
use super::stream::TcpStream;

/// A TCP socket that is neither connected nor listening, to set options that must be set by then.
///
/// It belongs to no runtime until [`connect`](Self::connect) or [`listen`](Self::listen).
///
/// # Examples
///
/// ```no_run
/// # async fn example() -> std::io::Result<()> {
/// let socket = gort::net::TcpSocket::new_v4()?;
/// socket.set_reuseaddr(true)?;
/// socket.bind("127.0.0.1:8080".parse().unwrap())?;
/// let listener = socket.listen(1024)?;
/// # drop(listener);
/// # Ok(())
/// # }
/// ```
pub struct TcpSocket {
    socket: Socket,
}

impl TcpSocket {
    /// A socket for IPv4 (non-blocking, close-on-exec).
    pub fn new_v4() -> io::Result<TcpSocket> {
        Self::new(Domain::IPV4)
    }

    /// A socket for IPv6 (non-blocking, close-on-exec).
    pub fn new_v6() -> io::Result<TcpSocket> {
        Self::new(Domain::IPV6)
    }

    fn new(domain: Domain) -> io::Result<TcpSocket> {
        let socket = Socket::new(domain, Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
        Ok(TcpSocket { socket })
    }

    /// Takes over a socket of the standard library that has been made but not connected, for
    /// instance by socket2. It must be in non-blocking mode.
    pub fn from_std_stream(std_stream: std::net::TcpStream) -> TcpSocket {
        TcpSocket {
            socket: std_stream.into(),
        }
    }

    /// Binds it to a local address.
    pub fn bind(&self, addr: SocketAddr) -> io::Result<()> {
        self.socket.bind(&addr.into())
    }

    /// Connects to `addr`.
    ///
    /// # Errors
    ///
    /// If the peer refuses or does not answer.
    ///
    /// # Panics
    ///
    /// Outside a runtime, or if its I/O is not enabled.
    pub async fn connect(self, addr: SocketAddr) -> io::Result<TcpStream> {
        match self.socket.connect(&addr.into()) {
            Err(e) if e.raw_os_error() != Some(libc::EINPROGRESS) => return Err(e),
            _ => {}
        }
        let connecting = mio::net::TcpStream::from_std(self.socket.into());
        TcpStream::finish_connect(connecting).await
    }

    /// Listens, with room for `backlog` connections that wait to be accepted (Linux allows up to
    /// `/proc/sys/net/core/somaxconn`).
    ///
    /// # Panics
    ///
    /// Outside a runtime, or if its I/O is not enabled.
    #[track_caller]
    pub fn listen(self, backlog: u32) -> io::Result<TcpListener> {
        self.socket
            .listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
        TcpListener::new(mio::net::TcpListener::from_std(self.socket.into()))
    }

    /// The address that it is bound to.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()?.as_socket().ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                "the socket's address is neither IPv4 nor IPv6",
            )
        })
    }

    /// Takes the pending error of the socket (`SO_ERROR`), if there is one.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.socket.take_error()
    }
}

// ---- Options.
impl TcpSocket {
    /// Sets the `SO_KEEPALIVE` option: whether an idle connection is probed.
    pub fn set_keepalive(&self, keepalive: bool) -> io::Result<()> {
        self.socket.set_keepalive(keepalive)
    }

    /// The `SO_KEEPALIVE` option.
    pub fn keepalive(&self) -> io::Result<bool> {
        self.socket.keepalive()
    }

    /// Sets the `SO_REUSEADDR` option: bind to an address that old connections still linger on.
    pub fn set_reuseaddr(&self, reuseaddr: bool) -> io::Result<()> {
        self.socket.set_reuse_address(reuseaddr)
    }

    /// The `SO_REUSEADDR` option.
    pub fn reuseaddr(&self) -> io::Result<bool> {
        self.socket.reuse_address()
    }

    /// Sets the `SO_REUSEPORT` option: let several listeners share a port.
    pub fn set_reuseport(&self, reuseport: bool) -> io::Result<()> {
        self.socket.set_reuse_port(reuseport)
    }

    /// The `SO_REUSEPORT` option.
    pub fn reuseport(&self) -> io::Result<bool> {
        self.socket.reuse_port()
    }

    /// Sets the `SO_SNDBUF` option, in bytes. Linux doubles the value and has its own limits.
    pub fn set_send_buffer_size(&self, size: u32) -> io::Result<()> {
        self.socket.set_send_buffer_size(size as usize)
    }

    /// The `SO_SNDBUF` option, in bytes as the system counts them.
    pub fn send_buffer_size(&self) -> io::Result<u32> {
        self.socket.send_buffer_size().map(|n| n as u32)
    }

    /// Sets the `SO_RCVBUF` option, in bytes. Linux doubles the value and has its own limits. Set
    /// it before connecting or listening: it decides on the window that is announced.
    pub fn set_recv_buffer_size(&self, size: u32) -> io::Result<()> {
        self.socket.set_recv_buffer_size(size as usize)
    }

    /// The `SO_RCVBUF` option, in bytes as the system counts them.
    pub fn recv_buffer_size(&self) -> io::Result<u32> {
        self.socket.recv_buffer_size().map(|n| n as u32)
    }

    /// Sets the `SO_LINGER` option: how long a close waits for unsent data (whole seconds).
    #[deprecated = "with `SO_LINGER` dropping the socket blocks the worker; \
                    use `set_zero_linger` to reset the connection on drop"]
    pub fn set_linger(&self, dur: Option<Duration>) -> io::Result<()> {
        self.socket.set_linger(dur)
    }

    /// Lets dropping the socket reset the connection (RST): `SO_LINGER` with zero.
    pub fn set_zero_linger(&self) -> io::Result<()> {
        self.socket.set_linger(Some(Duration::ZERO))
    }

    /// The `SO_LINGER` option.
    pub fn linger(&self) -> io::Result<Option<Duration>> {
        self.socket.linger()
    }

    /// Sets the `TCP_NODELAY` option: whether small writes are sent at once.
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        self.socket.set_tcp_nodelay(nodelay)
    }

    /// The `TCP_NODELAY` option.
    pub fn nodelay(&self) -> io::Result<bool> {
        self.socket.tcp_nodelay()
    }

    /// The `IPV6_TCLASS` option: the traffic class of IPv6 packets.
    pub fn tclass_v6(&self) -> io::Result<u32> {
        self.socket.tclass_v6()
    }

    /// Sets the `IPV6_TCLASS` option.
    pub fn set_tclass_v6(&self, tclass: u32) -> io::Result<()> {
        self.socket.set_tclass_v6(tclass)
    }

    /// The `IP_TOS` option: the type of service of IPv4 packets.
    pub fn tos_v4(&self) -> io::Result<u32> {
        self.socket.tos_v4()
    }

    /// Sets the `IP_TOS` option.
    pub fn set_tos_v4(&self, tos: u32) -> io::Result<()> {
        self.socket.set_tos_v4(tos)
    }

    /// The old name of [`tos_v4`](Self::tos_v4).
    #[doc(hidden)]
    #[deprecated = "renamed to `tos_v4`: the option is IPv4's"]
    pub fn tos(&self) -> io::Result<u32> {
        self.tos_v4()
    }

    /// The old name of [`set_tos_v4`](Self::set_tos_v4).
    #[doc(hidden)]
    #[deprecated = "renamed to `set_tos_v4`: the option is IPv4's"]
    pub fn set_tos(&self, tos: u32) -> io::Result<()> {
        self.set_tos_v4(tos)
    }

    /// The `SO_BINDTODEVICE` option: the name of the network interface it is bound to.
    pub fn device(&self) -> io::Result<Option<Vec<u8>>> {
        self.socket.device()
    }

    /// Sets the `SO_BINDTODEVICE` option; `None` lifts it.
    pub fn bind_device(&self, interface: Option<&[u8]>) -> io::Result<()> {
        self.socket.bind_device(interface)
    }
}

impl fmt::Debug for TcpSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.socket.fmt(f)
    }
}

impl AsRawFd for TcpSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl AsFd for TcpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl FromRawFd for TcpSocket {
    /// The descriptor should be a TCP socket in non-blocking mode.
    ///
    /// # Safety
    ///
    /// As for every `from_raw_fd`: it must be open, and owned by nobody else.
    unsafe fn from_raw_fd(fd: RawFd) -> TcpSocket {
        // SAFETY: the caller hands over the sole ownership of an open descriptor.
        let socket = unsafe { Socket::from_raw_fd(fd) };
        TcpSocket { socket }
    }
}

impl IntoRawFd for TcpSocket {
    fn into_raw_fd(self) -> RawFd {
        self.socket.into_raw_fd()
    }
}
