//! The examples of gort.
