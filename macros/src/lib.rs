//! The attribute macros of gort.
