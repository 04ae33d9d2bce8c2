//! The port: one file a mechanism.
pub(crate) mod asymmetric_fence;
pub(crate) mod cpu;
pub(crate) mod thread;
