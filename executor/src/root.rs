//! What stands at the crate's root.

use std::future::Future;

use crate::runtime::context;
use crate::task::JoinHandle;

#[cfg(feature = "macros")]
pub use gort_macros::{main, test};
pub use tokio::pin;
#[cfg(feature = "macros")]
pub use tokio::{join, select, try_join};

/// Spawns a task on the current runtime and returns a handle to its output.
///
/// The task begins to run at once, on this or another worker, whether or not the handle is
/// awaited. Dropping the handle detaches it.
///
/// # Panics
///
/// Outside of a runtime's context: inside of `#[gort::main]`, of a task and of
/// [`Runtime::block_on`](crate::runtime::Runtime::block_on) there is one, elsewhere
/// [`Runtime::enter`](crate::runtime::Runtime::enter) makes one.
///
/// # Examples
///
/// ```
/// # gort::runtime::Runtime::new().unwrap().block_on(async {
/// let squares: Vec<_> = (0..4u64).map(|n| gort::spawn(async move { n * n })).collect();
/// let mut sum = 0;
/// for square in squares {
///     sum += square.await.expect("the task did not panic");
/// }
/// assert_eq!(sum, 14);
/// # });
/// ```
#[track_caller]
pub fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let location = std::panic::Location::caller();
    let mut future = Some(future);
    let spawned = context::with_current(|handle| {
        let scheduler = handle.scheduler();
        if scheduler.is_closed() {
            // The future will be dropped, which must not happen inside of this borrow.
            return Err(handle.clone());
        }
        Ok(scheduler.spawn(future.take().expect("spawned once"), location))
    });
    match spawned {
        Ok(Ok(join)) => join,
        Ok(Err(closed)) => closed
            .scheduler()
            .spawn(future.take().expect("not spawned yet"), location),
        Err(error) => panic!("{error}"),
    }
}
