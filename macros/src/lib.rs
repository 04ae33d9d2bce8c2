//! The attribute macros of gort: [`main`] and [`test`](macro@test).
//!
//! Use them through gort, as `#[gort::main]` and `#[gort::test]`. Both turn an `async fn` into a
//! plain one that builds a runtime and blocks on the body; what they write is what you would write
//! yourself with `gort::runtime::Builder`, and nothing more:
//!
//! ```text
//! #[gort::main(worker_threads = 2)]        fn main() -> Result<(), Error> {
//! async fn main() -> Result<(), Error> {       gort::runtime::Builder::new_multi_thread()
//!     serve().await                      =>        .worker_threads(2).enable_all().build().expect(..)
//! }                                                .block_on(async { serve().await })
//!                                          }
//! ```
//!
//! `options` reads the arguments, `expand` reads the function and writes the new one. Both work on
//! `proc_macro2` tokens, so that the unit tests can look at every expansion and every message.

mod expand;
mod options;

use proc_macro::TokenStream;

/// Runs an `async fn` on a new runtime. Meant for `main`, and works on any function.
///
/// # Arguments
///
/// | argument | value | default |
/// |---|---|---|
/// | `flavor` | `"multi_thread"`, or `"current_thread"`: everything on the calling thread | `"multi_thread"` |
/// | `worker_threads` | how many tasks may run at once, at least 1; `multi_thread` only | what `Builder::worker_threads` documents: the CPUs this process may use |
/// | `crate` | the path under which gort is known here, as a string | `"gort"` |
///
/// I/O and time are enabled. The body itself runs on the calling thread and is not a task of the
/// scheduler; `gort::spawn` what should run on a worker.
///
/// # Panics
///
/// The function panics if the runtime cannot be built, for instance because the system refuses a
/// thread. Use `gort::runtime::Builder` to handle that as an error.
///
/// # Under another name
///
/// An attribute cannot see which name the crate got in `Cargo.toml`. If that is not `gort`, say so:
///
/// ```toml
/// [dependencies]
/// tokio = { package = "gort", version = "0.1" }
/// ```
///
/// ```
/// # use gort as tokio;
/// #[tokio::main(crate = "tokio")]
/// async fn main() {}
/// ```
///
/// One `use tokio as gort;` at the head of a module does the same for all attributes in it.
///
/// # Examples
///
/// ```
/// #[gort::main]
/// async fn main() -> Result<(), Box<dyn std::error::Error>> {
///     let answer = gort::spawn(async { 42 }).await?;
///     assert_eq!(answer, 42);
///     Ok(())
/// }
/// ```
///
/// Two workers, or none but the calling thread:
///
/// ```
/// #[gort::main(flavor = "multi_thread", worker_threads = 2)]
/// async fn two_workers() -> u32 {
///     gort::spawn(async { 1 }).await.unwrap()
/// }
///
/// #[gort::main(flavor = "current_thread")]
/// async fn one_thread() -> u32 {
///     gort::spawn(async { 2 }).await.unwrap()
/// }
///
/// assert_eq!(two_workers() + one_thread(), 3);
/// ```
///
/// # What does not compile
///
/// A function that is not `async`:
///
/// ```compile_fail
/// #[gort::main]
/// fn main() {}
/// ```
///
/// Workers on the calling thread's own scheduler:
///
/// ```compile_fail
/// #[gort::main(flavor = "current_thread", worker_threads = 2)]
/// async fn main() {}
/// ```
///
/// No workers at all:
///
/// ```compile_fail
/// #[gort::main(worker_threads = 0)]
/// async fn main() {}
/// ```
///
/// A body of another type than the function says:
///
/// ```compile_fail
/// #[gort::main]
/// async fn main() -> Result<(), std::io::Error> {
///     "not a result"
/// }
/// ```
#[proc_macro_attribute]
pub fn main(args: TokenStream, item: TokenStream) -> TokenStream {
    expand::attribute(expand::Attribute::Main, args.into(), item.into()).into()
}

/// Runs an `async fn` as a test, on a runtime of its own.
///
/// The arguments are those of [`macro@main`]; here `flavor` is `"current_thread"` by default, which
/// makes the order in which tasks run the same on every run. Other attributes of the test, such as
/// `#[should_panic]` and `#[ignore]`, keep their meaning, and so does a `Result` that it returns.
///
/// # Panics
///
/// The test fails if its runtime cannot be built.
///
/// # Examples
///
/// ```no_run
/// #[gort::test]
/// async fn adds_up() {
///     assert_eq!(gort::spawn(async { 1 + 1 }).await.unwrap(), 2);
/// }
///
/// #[gort::test(flavor = "multi_thread", worker_threads = 2)]
/// #[should_panic(expected = "refused")]
/// async fn refuses() {
///     gort::spawn(async { panic!("refused") }).await.unwrap_or_else(|e| {
///         std::panic::resume_unwind(e.into_panic())
///     })
/// }
/// ```
///
/// # What does not compile
///
/// Workers without the scheduler that has them:
///
/// ```compile_fail
/// #[gort::test(worker_threads = 2)]
/// async fn needs_the_flavor() {}
/// ```
///
/// A second `#[test]`, with which the test would run twice:
///
/// ```compile_fail
/// #[gort::test]
/// #[test]
/// async fn twice() {}
/// ```
#[proc_macro_attribute]
pub fn test(args: TokenStream, item: TokenStream) -> TokenStream {
    expand::attribute(expand::Attribute::Test, args.into(), item.into()).into()
}
