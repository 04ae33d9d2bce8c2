//! The routes, and what they count.
//!
//! hyper calls [`Service::answer`] for every request, on whichever worker runs the connection's
//! task.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use gort::runtime::Handle;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::metrics::Metrics;
use crate::reply::{Answer, Failure, json_of};
use crate::todos::Todos;

/// A larger body is refused: nobody may fill the memory with one request.
const MAX_BODY: usize = 64 * 1024;
/// In milliseconds.
const SLOWEST: u64 = 60_000;

/// Everything that outlives a request.
pub(crate) struct Service {
    todos: Todos,
    // Relaxed wherever these are used: they count, and order nothing.
    served: AtomicU64,
    in_flight: AtomicUsize,
    started: Instant,
    runtime: Handle,
}

/// One more request in flight, until it is dropped: also when the client goes away, which drops
/// the future that answers it.
struct InFlight<'a>(&'a AtomicUsize);

impl<'a> InFlight<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Relaxed);
        Self(count)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Service {
    /// A service without to-dos, which reports on `runtime`.
    pub(crate) fn new(runtime: Handle) -> Self {
        Self {
            todos: Todos::default(),
            served: AtomicU64::new(0),
            in_flight: AtomicUsize::new(0),
            started: Instant::now(),
            runtime,
        }
    }

    /// Requests that have been answered.
    pub(crate) fn served(&self) -> u64 {
        self.served.load(Relaxed)
    }

    /// Requests that are being answered now.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Relaxed)
    }

    /// Whether there are no to-dos.
    pub(crate) fn is_empty(&self) -> bool {
        self.todos.is_empty()
    }

    /// Answers one request. What the client did wrong becomes a response, too.
    pub(crate) async fn answer(&self, request: Request<Incoming>) -> Result<Answer, Infallible> {
        let _in_flight = InFlight::new(&self.in_flight);
        let answer = self.route(request).await.unwrap_or_else(Answer::from);
        self.served.fetch_add(1, Relaxed);
        Ok(answer)
    }

    async fn route(&self, request: Request<Incoming>) -> Result<Answer, Failure> {
        let (head, body) = request.into_parts();
        // hyper leaves the body away where HEAD was asked for.
        let method = match head.method {
            Method::HEAD => Method::GET,
            method => method,
        };
        let path: Vec<&str> = head.uri.path().trim_matches('/').split('/').collect();
        match (&method, path.as_slice()) {
            (&Method::GET, [""]) => Ok(page()),
            (&Method::GET, ["health"]) => Ok(self.health()),
            (&Method::GET, ["metrics"]) => Ok(self.metrics()),
            (&Method::GET, ["slow", millis]) => slow(number(millis)?).await,
            (&Method::GET, ["todos"]) => Ok(self.todos.list()),
            (&Method::POST, ["todos"]) => self.todos.create(input(body).await?),
            (&Method::GET, ["todos", id]) => self.todos.read(number(id)?),
            (&Method::PUT, ["todos", id]) => self.todos.update(number(id)?, input(body).await?),
            (&Method::DELETE, ["todos", id]) => self.todos.delete(number(id)?),
            (_, ["" | "health" | "metrics"] | ["slow", _]) => Err(Failure::not_allowed("GET")),
            (_, ["todos"]) => Err(Failure::not_allowed("GET, POST")),
            (_, ["todos", _]) => Err(Failure::not_allowed("GET, PUT, DELETE")),
            _ => Err(Failure::new(
                StatusCode::NOT_FOUND,
                "there is nothing here; / lists what there is",
            )),
        }
    }

    fn health(&self) -> Answer {
        let health = json!({
            "status": "ok",
            "uptime_seconds": self.started.elapsed().as_secs(),
            "served": self.served(),
            "in_flight": self.in_flight(),
        });
        json_of(StatusCode::OK, &health)
    }

    fn metrics(&self) -> Answer {
        json_of(StatusCode::OK, &Metrics::new(&self.runtime.metrics()))
    }
}

/// Takes its time, to show what happens to a running request at Ctrl-C.
async fn slow(millis: u64) -> Result<Answer, Failure> {
    if millis > SLOWEST {
        return Err(Failure::bad(format!("at most {SLOWEST} milliseconds")));
    }
    gort::time::sleep(Duration::from_millis(millis)).await;
    Ok(json_of(StatusCode::OK, &json!({ "waited_ms": millis })))
}

fn page() -> Answer {
    let mut answer = Response::new(Full::from(include_str!("page.html")));
    let html = HeaderValue::from_static("text/html; charset=utf-8");
    answer.headers_mut().insert(CONTENT_TYPE, html);
    answer
}

/// Reads a body of JSON.
async fn input<T: DeserializeOwned>(body: Incoming) -> Result<T, Failure> {
    let bytes = match Limited::new(body, MAX_BODY).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => {
            let message = format!("a body has at most {MAX_BODY} bytes");
            return Err(Failure::new(StatusCode::PAYLOAD_TOO_LARGE, message));
        }
        Err(error) => return Err(Failure::bad(format!("the body broke off: {error}"))),
    };
    serde_json::from_slice(&bytes).map_err(|error| Failure::bad(format!("the body: {error}")))
}

fn number(text: &str) -> Result<u64, Failure> {
    text.parse()
        .map_err(|_| Failure::bad(format!("{text:?} is not a number")))
}
