//! HTTP/1.1 with hyper 1: a server and keep-alive clients over loopback, on one runtime.

use std::convert::Infallible;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Empty, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::SendRequest;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, header};
use pin_project_lite::pin_project;

use super::{Run, Workload};
use crate::process;
use crate::rt::Runtime;

const BODY: &[u8] = b"{\"message\":\"Hello, World!\"}";

type Client = SendRequest<Empty<Bytes>>;

pub(super) fn workloads<R: Runtime>() -> Vec<Workload<R>> {
    let http = |name, connections, timeout, ops| {
        Workload::prepared(name, ops, move |rt| prepare::<R>(rt, connections, timeout))
    };
    vec![
        http("HTTP, 1 keep-alive connection", 1, false, 3_000),
        http("HTTP, 64 keep-alive connections", 64, false, 9_600),
        http("HTTP, 64 connections with header timeouts", 64, true, 9_600),
    ]
}

fn prepare<R: Runtime>(rt: Arc<R>, connections: usize, timeout: bool) -> Result<Run, String> {
    process::need_files(2 * connections)?;
    let mut clients = rt.run(connect::<R>(connections, timeout));
    Ok(Box::new(move |ops| {
        let each = ops / connections as u64;
        let (elapsed, back) = rt.run(exchange::<R>(std::mem::take(&mut clients), each));
        clients = back;
        elapsed
    }))
}

async fn connect<R: Runtime>(connections: usize, timeout: bool) -> Vec<Client> {
    let listener = R::listen().await.expect("listen on 127.0.0.1");
    let addr = R::local_addr(&listener).expect("the listener's address");
    let acceptor = R::spawn(async move {
        for _ in 0..connections {
            let stream = R::accept(&listener).await.expect("accept");
            R::detach(R::spawn(serve::<R>(stream, timeout)));
        }
    });
    let mut clients = Vec::with_capacity(connections);
    for _ in 0..connections {
        let stream = R::connect(addr).await.expect("connect over loopback");
        let (client, connection) = hyper::client::conn::http1::handshake(R::hyper_io(stream))
            .await
            .expect("hyper's handshake");
        // Ends when its client is dropped.
        R::detach(R::spawn(async move { drop(connection.await) }));
        clients.push(client);
    }
    R::join(acceptor).await;
    clients
}

/// `timeout` says whether the client has limited time for the head of each request, which sets and
/// drops a timer for each.
async fn serve<R: Runtime>(stream: R::Stream, timeout: bool) {
    async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        let mut response = Response::new(Full::new(Bytes::from_static(BODY)));
        if request.uri().path() != "/" {
            *response.status_mut() = StatusCode::NOT_FOUND;
        }
        let json = header::HeaderValue::from_static("application/json");
        response.headers_mut().insert(header::CONTENT_TYPE, json);
        Ok(response)
    }

    let mut builder = hyper::server::conn::http1::Builder::new();
    if timeout {
        builder
            .timer(Timer(PhantomData::<R>))
            .header_read_timeout(Duration::from_secs(30));
    }
    let connection = builder.serve_connection(R::hyper_io(stream), service_fn(answer));
    // An error means that the client went away, which is how a workload ends.
    drop(connection.await);
}

async fn exchange<R: Runtime>(clients: Vec<Client>, each: u64) -> (Duration, Vec<Client>) {
    let start = Instant::now();
    let tasks: Vec<_> = clients
        .into_iter()
        .map(|client| R::spawn(request(client, each)))
        .collect();
    let mut clients = Vec::with_capacity(tasks.len());
    for task in tasks {
        clients.push(R::join(task).await);
    }
    (start.elapsed(), clients)
}

async fn request(mut client: Client, requests: u64) -> Client {
    for _ in 0..requests {
        let request = Request::get("/")
            .header(header::HOST, "localhost")
            .body(Empty::new())
            .expect("a well-formed request");
        client.ready().await.expect("the connection is open");
        let response = client.send_request(request).await.expect("a response");
        assert_eq!(response.status(), StatusCode::OK);
        let body = response
            .into_body()
            .collect()
            .await
            .expect("the whole body")
            .to_bytes();
        assert_eq!(body, BODY);
    }
    client
}

pin_project! {
    struct Sleep<F> {
        #[pin]
        future: F,
    }
}

impl<F: Future<Output = ()> + Send + Sync + 'static> hyper::rt::Sleep for Sleep<F> {}

impl<F: Future<Output = ()>> Future for Sleep<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.project().future.poll(cx)
    }
}

/// The timers of a runtime for hyper.
#[derive(Clone)]
struct Timer<R>(PhantomData<R>);

impl<R: Runtime> hyper::rt::Timer for Timer<R> {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn hyper::rt::Sleep>> {
        Box::pin(Sleep {
            future: R::sleep(duration),
        })
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn hyper::rt::Sleep>> {
        self.sleep(deadline.saturating_duration_since(Instant::now()))
    }
}
