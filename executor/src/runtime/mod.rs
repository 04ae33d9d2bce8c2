//! The face (provisional skeleton; the lead replaces it).
pub(crate) mod context;
pub(crate) mod histogram;

pub use histogram::HistogramSnapshot;

/// How the Ms' OS threads are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ThreadBackend {
    /// Raw `clone` where the start-up self-check passes, `std::thread` otherwise.
    #[default]
    Auto,
    /// Raw `clone`; `build()` fails where the self-check does not pass.
    RawClone,
    /// `std::thread`.
    Std,
}
