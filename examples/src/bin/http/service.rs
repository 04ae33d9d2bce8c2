//! The routes: a to-do list in memory, with JSON in and out.
//!
//! hyper calls [`Service::answer`] for every request, on whichever worker runs the connection's
//! task. The list is behind an ordinary `Mutex`: it is held for a moment and never over an `await`.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use gort::runtime::Handle;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue, LOCATION};
use hyper::{Method, Request, Response, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// A larger body is refused: nobody may fill the memory with one request.
const MAX_BODY: usize = 64 * 1024;
/// Nor with many.
const MAX_TODOS: usize = 100_000;
/// `GET /todos` shows that many, the newest.
const PAGE: usize = 100;

/// What clients send for a to-do. For a new one the title is needed; in a change what is missing
/// stays as it is.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    title: Option<String>,
    done: Option<bool>,
}

/// A to-do, as clients see it.
#[derive(Clone, Serialize)]
struct Todo {
    id: u64,
    title: String,
    done: bool,
}

type Answer = Response<Full<Bytes>>;

/// Everything that outlives a request.
pub(crate) struct Service {
    todos: Mutex<BTreeMap<u64, Todo>>,
    // Relaxed wherever these are used: they count, and order nothing.
    next_id: AtomicU64,
    served: AtomicU64,
    in_flight: AtomicUsize,
    started: Instant,
    runtime: Handle,
}

impl Service {
    /// A service without to-dos, which reports on `runtime`.
    pub(crate) fn new(runtime: Handle) -> Self {
        Self {
            todos: Mutex::default(),
            next_id: AtomicU64::new(1),
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
        self.todos().is_empty()
    }

    fn todos(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Todo>> {
        self.todos.lock().expect("no handler panics with the list")
    }

    /// Answers one request. What the client did wrong becomes a response, too.
    pub(crate) async fn answer(&self, request: Request<Incoming>) -> Result<Answer, Infallible> {
        /// Counts also the requests whose client goes away, which drops this future.
        struct InFlight<'a>(&'a Service);
        impl Drop for InFlight<'_> {
            fn drop(&mut self) {
                self.0.in_flight.fetch_sub(1, Relaxed);
            }
        }
        self.in_flight.fetch_add(1, Relaxed);
        let _in_flight = InFlight(self);
        let answer = self.route(request).await.unwrap_or_else(|failed| failed);
        self.served.fetch_add(1, Relaxed);
        Ok(answer)
    }

    async fn route(&self, request: Request<Incoming>) -> Result<Answer, Answer> {
        let path = request.uri().path().to_owned();
        let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
        let method = request.method().clone();
        match (&method, segments.as_slice()) {
            (&Method::GET, [""]) => Ok(page()),
            (&Method::GET, ["health"]) => Ok(self.health()),
            (&Method::GET, ["metrics"]) => Ok(self.metrics()),
            (&Method::GET, ["slow", millis]) => slow(number(millis)?).await,
            (&Method::GET, ["todos"]) => Ok(self.list()),
            (&Method::POST, ["todos"]) => self.create(input(request).await?),
            (&Method::GET, ["todos", id]) => self.read(number(id)?),
            (&Method::PUT, ["todos", id]) => {
                let id = number(id)?;
                self.update(id, input(request).await?)
            }
            (&Method::DELETE, ["todos", id]) => self.delete(number(id)?),
            (_, ["" | "health" | "metrics"] | ["slow", _]) => Err(not_allowed("GET")),
            (_, ["todos"]) => Err(not_allowed("GET, POST")),
            (_, ["todos", _]) => Err(not_allowed("GET, PUT, DELETE")),
            _ => Err(failure(
                StatusCode::NOT_FOUND,
                "there is nothing here; / lists what there is",
            )),
        }
    }

    fn health(&self) -> Answer {
        json_answer(
            StatusCode::OK,
            &json!({
                "status": "ok",
                "uptime_seconds": self.started.elapsed().as_secs(),
                "served": self.served(),
                "in_flight": self.in_flight(),
            }),
        )
    }

    fn list(&self) -> Answer {
        let newest: Vec<Todo> = self.todos().values().rev().take(PAGE).cloned().collect();
        json_answer(StatusCode::OK, &newest)
    }

    fn create(&self, input: Input) -> Result<Answer, Answer> {
        let todo = Todo {
            id: self.next_id.fetch_add(1, Relaxed),
            title: input
                .title
                .ok_or_else(|| bad("a to-do needs a \"title\""))?,
            done: input.done.unwrap_or(false),
        };
        let mut todos = self.todos();
        if todos.len() >= MAX_TODOS {
            let full = "there are too many to-dos: delete some";
            return Err(failure(StatusCode::INSUFFICIENT_STORAGE, full));
        }
        todos.insert(todo.id, todo.clone());
        drop(todos);
        let mut answer = json_answer(StatusCode::CREATED, &todo);
        let location = HeaderValue::try_from(format!("/todos/{}", todo.id));
        answer
            .headers_mut()
            .insert(LOCATION, location.expect("visible ASCII"));
        Ok(answer)
    }

    fn read(&self, id: u64) -> Result<Answer, Answer> {
        let todo = self.todos().get(&id).cloned().ok_or_else(|| no_todo(id))?;
        Ok(json_answer(StatusCode::OK, &todo))
    }

    fn update(&self, id: u64, input: Input) -> Result<Answer, Answer> {
        let mut todos = self.todos();
        let todo = todos.get_mut(&id).ok_or_else(|| no_todo(id))?;
        todo.done = input.done.unwrap_or(todo.done);
        if let Some(title) = input.title {
            todo.title = title;
        }
        let todo = todo.clone();
        drop(todos);
        Ok(json_answer(StatusCode::OK, &todo))
    }

    fn delete(&self, id: u64) -> Result<Answer, Answer> {
        self.todos().remove(&id).ok_or_else(|| no_todo(id))?;
        let mut answer = Response::new(Full::default());
        *answer.status_mut() = StatusCode::NO_CONTENT;
        Ok(answer)
    }

    /// What the scheduler did so far.
    fn metrics(&self) -> Answer {
        let metrics = self.runtime.metrics();
        let processors: Vec<Value> = metrics
            .processors()
            .iter()
            .map(|p| {
                json!({
                    "p": p.index, "polls": p.polls, "runnext": p.from_runnext,
                    "global": p.from_global, "stolen": p.stolen, "spilled": p.spilled,
                    "netpolls": p.netpolls, "retaken": p.retaken, "queued": p.queued,
                })
            })
            .collect();
        let machines: Vec<Value> = metrics
            .machines()
            .iter()
            .map(|m| {
                json!({
                    "m": m.number, "thread": m.thread_id, "polls": m.polls, "parks": m.parks,
                    "netpoll_waits": m.netpoll_waits, "cpu_ms": m.cpu_time.map(|t| t.as_millis()),
                })
            })
            .collect();
        let latency = metrics.schedule_latency();
        let micros = |percent| latency.percentile(percent).as_nanos() as f64 / 1000.0;
        json_answer(
            StatusCode::OK,
            &json!({
                "tasks": {
                    "alive": metrics.num_alive_tasks(), "spawned": metrics.spawned_tasks_count(),
                    "global_queue": metrics.global_queue_depth(),
                },
                "processors": processors,
                "machines": machines,
                "run_queue_latency_us": {
                    "samples": latency.count(),
                    "p50": micros(50.0), "p90": micros(90.0), "p99": micros(99.0),
                    "p99.9": micros(99.9), "max": micros(100.0),
                },
            }),
        )
    }
}

/// Takes its time, to show what happens to a running request at Ctrl-C.
async fn slow(millis: u64) -> Result<Answer, Answer> {
    if millis > 60_000 {
        return Err(bad("/slow takes at most 60000 milliseconds"));
    }
    gort::time::sleep(Duration::from_millis(millis)).await;
    Ok(json_answer(StatusCode::OK, &json!({ "waited_ms": millis })))
}

async fn input(request: Request<Incoming>) -> Result<Input, Answer> {
    let body = Limited::new(request.into_body(), MAX_BODY);
    let bytes = match body.collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            let message = format!("a body has at most {MAX_BODY} bytes");
            return Err(failure(StatusCode::PAYLOAD_TOO_LARGE, &message));
        }
        Err(error) => return Err(bad(&format!("the body broke off: {error}"))),
    };
    serde_json::from_slice(&bytes).map_err(|error| bad(&format!("the body: {error}")))
}

fn number(text: &str) -> Result<u64, Answer> {
    text.parse()
        .map_err(|_| bad(&format!("{text:?} is not a number")))
}

fn page() -> Answer {
    let mut answer = Response::new(Full::from(include_str!("page.html")));
    let html = HeaderValue::from_static("text/html; charset=utf-8");
    answer.headers_mut().insert(CONTENT_TYPE, html);
    answer
}

fn json_answer(status: StatusCode, value: &impl Serialize) -> Answer {
    let body = serde_json::to_vec(value).expect("strings, numbers and booleans");
    let mut answer = Response::new(Full::from(body));
    *answer.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    answer.headers_mut().insert(CONTENT_TYPE, json);
    answer
}

fn failure(status: StatusCode, message: &str) -> Answer {
    json_answer(status, &json!({ "error": message }))
}

fn bad(message: &str) -> Answer {
    failure(StatusCode::BAD_REQUEST, message)
}

fn no_todo(id: u64) -> Answer {
    failure(StatusCode::NOT_FOUND, &format!("there is no to-do {id}"))
}

fn not_allowed(allowed: &'static str) -> Answer {
    let message = format!("only {allowed} here");
    let mut answer = failure(StatusCode::METHOD_NOT_ALLOWED, &message);
    answer
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static(allowed));
    answer
}
