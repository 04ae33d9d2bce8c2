//! Answers: JSON, also for what went wrong.

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;
use serde_json::json;

/// What goes back to the client.
pub(crate) type Answer = Response<Full<Bytes>>;

/// `value` as JSON.
pub(crate) fn json_of(status: StatusCode, value: &impl Serialize) -> Answer {
    let body = serde_json::to_vec(value).expect("strings, numbers and booleans");
    let mut answer = Response::new(Full::from(body));
    *answer.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    answer.headers_mut().insert(CONTENT_TYPE, json);
    answer
}

/// What the client should know of a failure.
pub(crate) fn failure(status: StatusCode, message: &str) -> Answer {
    json_of(status, &json!({ "error": message }))
}

/// The request makes no sense.
pub(crate) fn bad(message: &str) -> Answer {
    failure(StatusCode::BAD_REQUEST, message)
}

/// The path is right and the method is not.
pub(crate) fn not_allowed(allowed: &'static str) -> Answer {
    let message = format!("only {allowed} here");
    let mut answer = failure(StatusCode::METHOD_NOT_ALLOWED, &message);
    answer
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static(allowed));
    answer
}
