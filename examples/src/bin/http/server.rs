//! Accepting connections, and the graceful shutdown.
//!
//! One `watch` channel does both halves of the shutdown. Its value says "stop": the acceptor ends,
//! and each connection closes after the request that it is answering. And each connection holds a
//! receiver, so the channel is closed when the last one is done.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use gort::hyper::{GortIo, GortTimer};
use gort::net::{TcpListener, TcpStream};
use gort::sync::watch;
use gort::task::JoinHandle;
use gort::time;
use hyper::server::conn::http1;
use hyper::service::service_fn;

use crate::service::Service;

/// A client that connects and then says nothing does not hold its connection for ever.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long to wait when a connection cannot be accepted: until descriptors are free again.
const ACCEPT_BACK_OFF: Duration = Duration::from_millis(50);

/// A server that is running.
pub(crate) struct Server {
    stop: watch::Sender<bool>,
    acceptor: JoinHandle<()>,
}

impl Server {
    /// Serves `service` on `listener`, in the background.
    pub(crate) fn start(listener: TcpListener, service: Arc<Service>) -> Self {
        let (stop, stopped) = watch::channel(false);
        let acceptor = gort::spawn(accept(listener, service, stopped));
        Self { stop, acceptor }
    }

    /// Stops accepting, lets running requests finish, and returns how many connections were still
    /// open after `grace`.
    pub(crate) async fn shut_down(self, grace: Duration) -> usize {
        self.stop.send_replace(true);
        match time::timeout(grace, self.stop.closed()).await {
            Ok(()) => {
                // The listener is closed, too.
                self.acceptor.await.expect("the acceptor does not panic");
                0
            }
            Err(time::error::Elapsed { .. }) => self.stop.receiver_count(),
        }
    }
}

async fn accept(listener: TcpListener, service: Arc<Service>, mut stopped: watch::Receiver<bool>) {
    let mut failing = false;
    loop {
        let accepted = gort::select! {
            accepted = listener.accept() => accepted,
            _ = stopped.changed() => return,
        };
        match accepted {
            Ok((stream, _)) => {
                failing = false;
                gort::spawn(connection(stream, Arc::clone(&service), stopped.clone()));
            }
            // The peer has hung up while it waited in the queue: nothing to serve.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                // Once, not twenty times a second.
                if !failing {
                    eprintln!("cannot accept connections for now: {error}");
                }
                failing = true;
                time::sleep(ACCEPT_BACK_OFF).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, service: Arc<Service>, mut stopped: watch::Receiver<bool>) {
    // Answers are written whole: waiting to fill a packet would only delay them. If the peer is
    // gone already, hyper will notice.
    let _ = stream.set_nodelay(true);
    let connection = http1::Builder::new()
        .timer(GortTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(
            GortIo::new(stream),
            service_fn(|request| service.answer(request)),
        );
    let mut connection = pin!(connection);
    let result = gort::select! {
        result = connection.as_mut() => result,
        _ = stopped.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    // The peer broke the protocol or the connection: its affair, not the server's. A service with
    // a log would write it there.
    drop(result);
}
