//! Channels and locks for tasks: tokio's, which need no runtime and work here unchanged.
//!
//! gort sets their cooperative budget before each poll, so that a task which never has to wait
//! for one of them still lets others run now and then.

pub use tokio::sync::*;
