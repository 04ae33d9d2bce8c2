//! The port: one file a mechanism.
pub(crate) mod thread;
