//! Stacks and coroutines.
