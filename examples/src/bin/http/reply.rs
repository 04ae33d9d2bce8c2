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

/// What went wrong, as the client should know it.
pub(crate) struct Failure {
    status: StatusCode,
    message: String,
    /// The methods that would have been right, if it was that.
    allow: Option<&'static str>,
}

impl Failure {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            allow: None,
        }
    }

    /// The request makes no sense.
    pub(crate) fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// The path is right and the method is not.
    pub(crate) fn not_allowed(allow: &'static str) -> Self {
        let message = format!("only {allow} here");
        Self {
            allow: Some(allow),
            ..Self::new(StatusCode::METHOD_NOT_ALLOWED, message)
        }
    }
}

impl From<Failure> for Answer {
    fn from(failure: Failure) -> Self {
        let mut answer = json_of(failure.status, &json!({ "error": failure.message }));
        if let Some(allow) = failure.allow {
            let allow = HeaderValue::from_static(allow);
            answer.headers_mut().insert(ALLOW, allow);
        }
        answer
    }
}
