//! Asynchronous I/O: traits, helpers and readiness.
//!
//! The traits and helpers need no runtime, so they are the `tokio` crate's own, re-exported: code
//! written against [`AsyncRead`] and [`AsyncWrite`] works with gort's sockets as it stands, and a
//! type that implements them works here and there. [`Interest`] and [`Ready`] belong to the
//! reactor and are gort's, with tokio's names and meaning.

mod interest;
mod ready;

pub use interest::Interest;
pub use ready::Ready;

#[doc(no_inline)]
pub use std::io::{Error, ErrorKind, Result, SeekFrom};

// Traits.
pub use tokio::io::{
    AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncSeek, AsyncSeekExt, AsyncWrite,
    AsyncWriteExt, ReadBuf,
};

// Helpers and the types that they return.
pub use tokio::io::{
    BufReader, BufStream, BufWriter, Chain, DuplexStream, Empty, Join, Lines, ReadHalf, Repeat,
    SimplexStream, Sink, Split, Take, WriteHalf, copy, copy_bidirectional,
    copy_bidirectional_with_sizes, copy_buf, duplex, empty, join, repeat, simplex, sink, split,
};
