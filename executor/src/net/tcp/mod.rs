//! The halves of a [`TcpStream`](super::TcpStream).

pub(super) mod listener;
pub(super) mod socket;
mod split;
mod split_owned;
pub(super) mod stream;

#[cfg(feature = "futures-io")]
mod futures_io;

pub use split::{ReadHalf, WriteHalf};
pub use split_owned::{OwnedReadHalf, OwnedWriteHalf, ReuniteError};
