//! The benches of gort.
