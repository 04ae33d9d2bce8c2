//! netpoll (helper N writes this)
#[derive(Debug)]
pub(crate) struct Netpoll {}
