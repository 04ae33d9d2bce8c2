//! The tests of gort.
