//! The clients: keep-alive connections, each making one request after the other.
//!
//! Each connection plays one user of the to-do list, and checks every answer: status, id and
//! content. A wrong answer counts as an error just as a broken connection does.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Instant;

use gort::hyper::GortIo;
use gort::net::TcpStream;
use gort::task::JoinHandle;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request, StatusCode, header};
use serde_json::{Value, json};

use crate::report::Latency;

/// What the clients saw.
#[derive(Default)]
pub(crate) struct Outcome {
    /// Of the requests that were answered as they should be.
    pub(crate) latency: Latency,
    pub(crate) errors: u64,
    pub(crate) first_error: Option<String>,
}

/// The clients at work.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Outcome>>,
    outcome: Outcome,
}

/// Starts `connections` clients, which go on until `deadline`.
pub(crate) fn start(address: SocketAddr, connections: usize, deadline: Instant) -> Load {
    let stop = Arc::new(AtomicBool::new(false));
    let client = |number| gort::spawn(run(address, number, deadline, Arc::clone(&stop)));
    let clients = (0..connections).map(client).collect();
    Load {
        stop,
        clients,
        outcome: Outcome::default(),
    }
}

impl Load {
    /// Makes the clients end after the round that they are in.
    pub(crate) fn stop(&self) {
        // Relaxed: only the value counts.
        self.stop.store(true, Relaxed);
    }

    /// Waits for all clients. Cancel safe: may be called again.
    pub(crate) async fn finish(&mut self) -> Outcome {
        while let Some(client) = self.clients.last_mut() {
            let one = client.await.expect("a client does not panic");
            self.clients.pop();
            self.outcome.latency.merge(&one.latency);
            self.outcome.errors += one.errors;
            self.outcome.first_error = self.outcome.first_error.take().or(one.first_error);
        }
        std::mem::take(&mut self.outcome)
    }
}

async fn run(
    address: SocketAddr,
    number: usize,
    deadline: Instant,
    stop: Arc<AtomicBool>,
) -> Outcome {
    let mut outcome = Outcome::default();
    // An error ends the connection's part: one that goes on would count the same error a
    // thousand times a second.
    let played = async {
        let mut client = connect(address).await?;
        while Instant::now() < deadline && !stop.load(Relaxed) {
            round(&mut client, number, &mut outcome.latency).await?;
        }
        Ok::<(), Box<dyn Error + Send + Sync>>(())
    };
    if let Err(error) = played.await {
        outcome.errors = 1;
        outcome.first_error = Some(format!("connection {number}: {error}"));
    }
    outcome
}

type Failure = Box<dyn Error + Send + Sync>;

struct Client {
    http: SendRequest<Full<Bytes>>,
    host: String,
}

async fn connect(address: SocketAddr) -> Result<Client, Failure> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (http, connection) = handshake(GortIo::new(stream)).await?;
    // Moves the bytes; ends when `http` is dropped. Its errors come out of `send_request` too.
    gort::spawn(connection);
    let host = address.to_string();
    Ok(Client { http, host })
}

/// What one user does: writes a to-do, reads it, ticks it off, looks at the service's health, and
/// deletes the to-do.
async fn round(client: &mut Client, number: usize, latency: &mut Latency) -> Result<(), Failure> {
    let title = format!("to-do of connection {number}");
    let new = json!({ "title": title });
    let created = client
        .request(latency, Method::POST, "/todos", Some(&new), 201)
        .await?;
    let id = created["id"].as_u64().ok_or("a to-do without id")?;
    let path = format!("/todos/{id}");
    let read = client
        .request(latency, Method::GET, &path, None, 200)
        .await?;
    expect(&read, &json!({ "id": id, "title": title, "done": false }))?;
    let done = json!({ "done": true });
    let ticked = client
        .request(latency, Method::PUT, &path, Some(&done), 200)
        .await?;
    expect(&ticked, &json!({ "id": id, "title": title, "done": true }))?;
    let health = client
        .request(latency, Method::GET, "/health", None, 200)
        .await?;
    expect(&health["status"], &json!("ok"))?;
    client
        .request(latency, Method::DELETE, &path, None, 204)
        .await?;
    Ok(())
}

impl Client {
    /// Makes one request and reads the whole answer; that is what `latency` is about.
    async fn request(
        &mut self,
        latency: &mut Latency,
        method: Method,
        path: &str,
        body: Option<&Value>,
        expected: u16,
    ) -> Result<Value, Failure> {
        let bytes = body.map_or(Bytes::new(), |body| body.to_string().into());
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, &self.host);
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let request = request.body(Full::new(bytes))?;
        let begin = Instant::now();
        self.http.ready().await?;
        let response = self.http.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        let took = begin.elapsed();
        if status.as_u16() != expected {
            let body = String::from_utf8_lossy(&body);
            return Err(format!("{path}: {status} instead of {expected}: {body}").into());
        }
        let value = match status {
            StatusCode::NO_CONTENT => Value::Null,
            _ => serde_json::from_slice(&body)?,
        };
        latency.record(took);
        Ok(value)
    }
}

fn expect(got: &Value, wanted: &Value) -> Result<(), String> {
    if got == wanted {
        Ok(())
    } else {
        Err(format!("got {got} instead of {wanted}"))
    }
}

/// Each connection needs a descriptor at both ends; better said at once than found out half-way.
pub(crate) fn check_descriptors(connections: usize) -> Result<(), String> {
    // Standard streams, epoll, timerfd, eventfds, listener, and what the shell left open.
    let needed = 2 * connections as u64 + 32;
    let Ok(limits) = std::fs::read_to_string("/proc/self/limits") else {
        // Without /proc it has to be found out half-way.
        return Ok(());
    };
    // "Max open files   <soft>   <hard>   files"; "unlimited" is no number and no problem.
    let line = limits
        .lines()
        .find_map(|l| l.strip_prefix("Max open files"));
    let soft: Option<u64> = line.and_then(|l| l.split_whitespace().next()?.parse().ok());
    match soft {
        Some(soft) if soft < needed => Err(format!(
            "{connections} connections, with both ends in this process, need some {needed} file \
             descriptors, and it may open {soft}. Try `ulimit -n {needed}` before, or fewer \
             --connections."
        )),
        _ => Ok(()),
    }
}
