//! What a caller waits for.

use std::fmt;
use std::ops::{BitOr, BitOrAssign};

use super::Ready;

// The bits stand where `Ready` has them; `Interest` has none for the closed states, which come
// with the direction they close.
const READABLE: usize = 0b00_0001;
const WRITABLE: usize = 0b00_0010;
const PRIORITY: usize = 0b01_0000;
const ERROR: usize = 0b10_0000;

/// The readiness that a caller wants to hear of, for methods such as
/// [`TcpStream::ready`](crate::net::TcpStream::ready).
///
/// Interests are combined with `|`.
///
/// ```
/// use gort::io::Interest;
///
/// let both = Interest::READABLE | Interest::WRITABLE;
/// assert!(both.is_readable() && both.is_writable());
/// assert_eq!(both.remove(Interest::WRITABLE), Some(Interest::READABLE));
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Interest(usize);

impl Interest {
    /// Data can be read, or the peer has closed its sending side.
    pub const READABLE: Interest = Interest(READABLE);
    /// Data can be written, or the receiving side is closed.
    pub const WRITABLE: Interest = Interest(WRITABLE);
    /// Priority (out-of-band) data is there, or the peer has closed its sending side.
    pub const PRIORITY: Interest = Interest(PRIORITY);
    /// The resource is in an error state. The system reports it in any case; this interest asks
    /// for it alone.
    pub const ERROR: Interest = Interest(ERROR);

    /// Whether readable is part of the interest.
    pub const fn is_readable(self) -> bool {
        self.0 & READABLE != 0
    }

    /// Whether writable is part of the interest.
    pub const fn is_writable(self) -> bool {
        self.0 & WRITABLE != 0
    }

    /// Whether priority data is part of the interest.
    pub const fn is_priority(self) -> bool {
        self.0 & PRIORITY != 0
    }

    /// Whether the error state is part of the interest.
    pub const fn is_error(self) -> bool {
        self.0 & ERROR != 0
    }

    /// Both interests together.
    #[must_use = "returns the sum and leaves the original as it is"]
    pub const fn add(self, other: Interest) -> Interest {
        Interest(self.0 | other.0)
    }

    /// What of this interest is not in `other`; `None` if nothing is left, as there is no empty
    /// interest.
    #[must_use = "returns the rest and leaves the original as it is"]
    pub fn remove(self, other: Interest) -> Option<Interest> {
        match self.0 & !other.0 {
            0 => None,
            rest => Some(Interest(rest)),
        }
    }

    /// The readiness that satisfies this interest.
    pub(crate) fn mask(self) -> Ready {
        let parts = [
            (self.is_readable(), Ready::READABLE | Ready::READ_CLOSED),
            (self.is_writable(), Ready::WRITABLE | Ready::WRITE_CLOSED),
            (self.is_priority(), Ready::PRIORITY | Ready::READ_CLOSED),
            (self.is_error(), Ready::ERROR),
        ];
        parts
            .into_iter()
            .filter(|&(wanted, _)| wanted)
            .fold(Ready::EMPTY, |mask, (_, ready)| mask | ready)
    }

    /// mio's interest for a registration. mio has none for errors, which epoll reports unasked, and
    /// none that is empty; an interest in errors alone registers for reading, and [`Self::mask`]
    /// hides what is not wanted.
    pub(crate) fn to_mio(self) -> mio::Interest {
        let parts = [
            (self.is_readable(), mio::Interest::READABLE),
            (self.is_writable(), mio::Interest::WRITABLE),
            (self.is_priority(), mio::Interest::PRIORITY),
        ];
        parts
            .into_iter()
            .filter(|&(wanted, _)| wanted)
            .map(|(_, interest)| interest)
            .reduce(mio::Interest::add)
            .unwrap_or(mio::Interest::READABLE)
    }
}

impl BitOr for Interest {
    type Output = Interest;

    fn bitor(self, other: Interest) -> Interest {
        self.add(other)
    }
}

impl BitOrAssign for Interest {
    fn bitor_assign(&mut self, other: Interest) {
        *self = *self | other;
    }
}

impl fmt::Debug for Interest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [
            (READABLE, "READABLE"),
            (WRITABLE, "WRITABLE"),
            (PRIORITY, "PRIORITY"),
            (ERROR, "ERROR"),
        ];
        let mut separator = "";
        for (bit, name) in names {
            if self.0 & bit != 0 {
                write!(f, "{separator}{name}")?;
                separator = " | ";
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removing_all_of_it_leaves_none() {
        let both = Interest::READABLE | Interest::WRITABLE;
        assert_eq!(both.remove(Interest::READABLE), Some(Interest::WRITABLE));
        assert_eq!(both.remove(both), None);
        assert_eq!(both.remove(Interest::ERROR), Some(both));
    }

    #[test]
    fn the_mask_brings_the_closed_states_of_its_directions() {
        assert_eq!(
            Interest::READABLE.mask(),
            Ready::READABLE | Ready::READ_CLOSED
        );
        assert_eq!(
            (Interest::WRITABLE | Interest::ERROR).mask(),
            Ready::WRITABLE | Ready::WRITE_CLOSED | Ready::ERROR
        );
        assert_eq!(
            Interest::PRIORITY.mask(),
            Ready::PRIORITY | Ready::READ_CLOSED
        );
    }

    #[test]
    fn no_interest_is_empty_for_mio() {
        assert!(Interest::ERROR.to_mio().is_readable());
        let all = Interest::READABLE | Interest::WRITABLE | Interest::PRIORITY;
        assert!(all.to_mio().is_readable());
        assert!(all.to_mio().is_writable());
        assert!(all.to_mio().is_priority());
    }

    #[test]
    fn debug_names_the_parts() {
        let interest = Interest::ERROR | Interest::READABLE;
        assert_eq!(format!("{interest:?}"), "READABLE | ERROR");
    }
}
