//! Signals of the operating system, as futures.
//!
//! - [`ctrl_c`] waits for one Ctrl-C.
//! - [`unix::signal`] listens for any signal, as often as it comes.
//!
//! Both need a runtime with I/O (`Builder::enable_io` or `Builder::enable_all`).
//!
//! # Inside
//!
//! A signal handler may do next to nothing. Ours sets a flag and writes to an eventfd which the
//! runtime's netpoll watches; what wakes tasks runs afterwards, outside of the handler, where
//! netpoll's wakers run. `hub.rs` has the details.

mod hub;
pub mod unix;

use std::io;

/// Completes when the process receives `SIGINT`, which a terminal sends for Ctrl-C.
///
/// It listens from its first poll on: signals that came before do not count. Any number of tasks
/// in any number of runtimes may wait, and one signal completes all of them.
///
/// # The default is gone
///
/// The first poll installs a signal handler, for the whole process and for as long as it lives.
/// From then on `SIGINT` no longer ends the process, **also when nothing waits for it any more**:
/// a program that handles the first Ctrl-C by a graceful shutdown should decide what a second one
/// does, for instance by waiting for it too.
///
/// # Errors
///
/// If the handler cannot be installed, or its eventfd cannot be made or watched (mostly for want of
/// descriptors), and if the runtime shuts down while the future waits.
///
/// # Panics
///
/// If it is polled outside of a runtime, or in one that has no I/O.
///
/// # Cancel safety
///
/// Dropping the future loses a signal that has come and was not reported yet. To miss none between
/// two waits, keep a [`unix::Signal`].
///
/// # Examples
///
/// ```no_run
/// # async fn serve() {}
/// # async fn example() -> std::io::Result<()> {
/// tokio::select! {
///     () = serve() => {}
///     result = gort::signal::ctrl_c() => {
///         result?;
///         println!("shutting down");
///     }
/// }
/// # Ok(())
/// # }
/// ```
pub async fn ctrl_c() -> io::Result<()> {
    let mut interrupts = unix::signal(unix::SignalKind::interrupt())?;
    match interrupts.recv().await {
        Some(()) => Ok(()),
        None => Err(hub::closed()),
    }
}
