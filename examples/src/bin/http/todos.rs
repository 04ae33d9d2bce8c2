//! A to-do list in memory.
//!
//! It is behind an ordinary `Mutex`, which is right where a lock is held for a moment and never
//! over an `await`.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

use http_body_util::Full;
use hyper::header::{HeaderValue, LOCATION};
use hyper::{Response, StatusCode};
use serde::{Deserialize, Serialize};

use crate::reply::{Answer, Failure, json_of};

/// Nobody may fill the memory with many requests.
const MAX_TODOS: usize = 100_000;
/// The list shows that many, the newest.
const PAGE: usize = 100;

/// What clients send for a to-do. A new one needs a title; in a change, what is missing stays as
/// it is.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Input {
    title: Option<String>,
    done: Option<bool>,
}

/// What clients get.
#[derive(Clone, Serialize)]
struct Todo {
    id: u64,
    title: String,
    done: bool,
}

#[derive(Default)]
struct List {
    todos: BTreeMap<u64, Todo>,
    last_id: u64,
}

/// The list.
#[derive(Default)]
pub(crate) struct Todos(Mutex<List>);

impl Todos {
    fn lock(&self) -> MutexGuard<'_, List> {
        self.0.lock().expect("nothing panics with the lock held")
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lock().todos.is_empty()
    }

    pub(crate) fn list(&self) -> Answer {
        let newest: Vec<Todo> = {
            let list = self.lock();
            list.todos.values().rev().take(PAGE).cloned().collect()
        };
        json_of(StatusCode::OK, &newest)
    }

    pub(crate) fn create(&self, input: Input) -> Result<Answer, Failure> {
        let title = input
            .title
            .ok_or_else(|| Failure::bad("a to-do needs a \"title\""))?;
        let mut list = self.lock();
        if list.todos.len() >= MAX_TODOS {
            let full = "there are too many to-dos: delete some";
            return Err(Failure::new(StatusCode::INSUFFICIENT_STORAGE, full));
        }
        list.last_id += 1;
        let todo = Todo {
            id: list.last_id,
            title,
            done: input.done.unwrap_or(false),
        };
        list.todos.insert(todo.id, todo.clone());
        drop(list);
        let mut answer = json_of(StatusCode::CREATED, &todo);
        let location = HeaderValue::try_from(format!("/todos/{}", todo.id));
        let location = location.expect("a path of letters and digits");
        answer.headers_mut().insert(LOCATION, location);
        Ok(answer)
    }

    pub(crate) fn read(&self, id: u64) -> Result<Answer, Failure> {
        let todo = self.lock().todos.get(&id).cloned();
        Ok(json_of(StatusCode::OK, &todo.ok_or_else(|| missing(id))?))
    }

    pub(crate) fn update(&self, id: u64, input: Input) -> Result<Answer, Failure> {
        let mut list = self.lock();
        let todo = list.todos.get_mut(&id).ok_or_else(|| missing(id))?;
        todo.done = input.done.unwrap_or(todo.done);
        if let Some(title) = input.title {
            todo.title = title;
        }
        let todo = todo.clone();
        drop(list);
        Ok(json_of(StatusCode::OK, &todo))
    }

    pub(crate) fn delete(&self, id: u64) -> Result<Answer, Failure> {
        let removed = self.lock().todos.remove(&id);
        removed.ok_or_else(|| missing(id))?;
        let mut answer = Response::new(Full::default());
        *answer.status_mut() = StatusCode::NO_CONTENT;
        Ok(answer)
    }
}

fn missing(id: u64) -> Failure {
    Failure::new(StatusCode::NOT_FOUND, format!("there is no to-do {id}"))
}
