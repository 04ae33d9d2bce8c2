//! hyper 1 on gort: its `rt` traits.
//!
//! hyper brings no runtime. It asks for one through traits, and here they are implemented:
//!
//! | hyper asks for | gort has | what it is |
//! |---|---|---|
//! | [`rt::Executor`](::hyper::rt::Executor) | [`GortExecutor`] | [`gort::spawn`](crate::spawn) |
//! | [`rt::Timer`](::hyper::rt::Timer), [`rt::Sleep`](::hyper::rt::Sleep) | [`GortTimer`] | [`gort::time`](crate::time) |
//! | [`rt::Read`](::hyper::rt::Read), [`rt::Write`](::hyper::rt::Write) | [`GortIo`] | anything that is `AsyncRead` and `AsyncWrite`, such as [`TcpStream`](crate::net::TcpStream) |
//!
//! Needs gort's feature `hyper`, which turns on no feature of hyper: choose yourself which of its
//! `client`, `server`, `http1` and `http2` you want.
//!
//! # Examples
//!
//! A server and a client, with HTTP/1.1 between them:
//!
//! ```
//! use std::convert::Infallible;
//! use std::time::Duration;
//!
//! use gort::hyper::{GortIo, GortTimer};
//! use gort::net::{TcpListener, TcpStream};
//! use http_body_util::{BodyExt, Empty, Full};
//! use hyper::body::{Bytes, Incoming};
//! use hyper::service::service_fn;
//! use hyper::{Request, Response};
//!
//! async fn hello(_: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
//!     Ok(Response::new(Full::from("hello")))
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # gort::runtime::Runtime::new()?.block_on(async {
//! let listener = TcpListener::bind("127.0.0.1:0").await?;
//! let address = listener.local_addr()?;
//! gort::spawn(async move {
//!     while let Ok((stream, _)) = listener.accept().await {
//!         let connection = hyper::server::conn::http1::Builder::new()
//!             .timer(GortTimer::new())
//!             .header_read_timeout(Duration::from_secs(10))
//!             .serve_connection(GortIo::new(stream), service_fn(hello));
//!         gort::spawn(connection);
//!     }
//! });
//!
//! let stream = TcpStream::connect(address).await?;
//! let (mut client, connection) =
//!     hyper::client::conn::http1::handshake(GortIo::new(stream)).await?;
//! gort::spawn(connection);
//! let request = Request::get("/").header("host", "localhost").body(Empty::<Bytes>::new())?;
//! let response = client.send_request(request).await?;
//! assert_eq!(response.into_body().collect().await?.to_bytes(), "hello");
//! # Ok(())
//! # })
//! # }
//! ```

mod io;
mod timer;

use std::future::Future;

pub use io::GortIo;
pub use timer::GortTimer;

/// Spawns hyper's background work as tasks of the current runtime.
///
/// HTTP/2 needs one, on both sides; HTTP/1 does not. The tasks are detached.
///
/// # Panics
///
/// `execute`, and with it whatever in hyper calls it, panics outside of a runtime, as
/// [`gort::spawn`](crate::spawn) does.
///
/// # Examples
///
/// ```
/// use gort::hyper::GortExecutor;
/// use hyper::rt::Executor;
///
/// # gort::runtime::Runtime::new().unwrap().block_on(async {
/// let (done, wait) = gort::sync::oneshot::channel();
/// GortExecutor::new().execute(async move { done.send(42) });
/// assert_eq!(wait.await, Ok(42));
/// # });
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct GortExecutor;

impl GortExecutor {
    /// An executor for whichever runtime is current when it is used.
    pub fn new() -> Self {
        Self
    }
}

impl<F> ::hyper::rt::Executor<F> for GortExecutor
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        drop(crate::spawn(future));
    }
}
