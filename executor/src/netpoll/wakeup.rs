//! Interrupting the M that blocks in netpoll, with as few system calls as can be.
//!
//! | state      | meaning                                        | `notify` does             |
//! |------------|------------------------------------------------|---------------------------|
//! | `IDLE`     | nobody blocks                                  | leaves a note, no syscall |
//! | `BLOCKED`  | an M blocks in epoll_wait, or is about to      | must write the eventfd    |
//! | `NOTIFIED` | a note lies there, or its writer is under way  | nothing                   |
//!
//! A note is never lost: it is taken by the blocking poll that is under way, which it interrupts,
//! or by the next one, which then does not block. Polls that do not wait leave it where it is. An
//! eventfd write that comes late, after the poll it was meant for has returned for another reason,
//! cuts the next one short; pollers expect that.
//!
//! All accesses are read-modify-writes with AcqRel on the one word, so each sees all before it: what
//! a thread did before `notify` is visible to the M after the `begin_block` or `end_block` that
//! takes the note.

use std::sync::atomic::{
    AtomicU8,
    Ordering::{AcqRel, Acquire},
};

const IDLE: u8 = 0;
const BLOCKED: u8 = 1;
const NOTIFIED: u8 = 2;

#[derive(Debug, Default)]
pub(super) struct Wakeup(AtomicU8);

impl Wakeup {
    /// Announces a poll that waits. False if a note was there (it is taken): poll, but do not wait.
    /// Only the holder of the poll lock calls it.
    #[must_use]
    pub(super) fn begin_block(&self) -> bool {
        // AcqRel and Acquire: pair with the swap in `notify`, whichever way they fall.
        let announced = self
            .0
            .compare_exchange(IDLE, BLOCKED, AcqRel, Acquire)
            .is_ok();
        if !announced {
            // Only `notify` runs beside us, and it leaves NOTIFIED as it is.
            self.0.swap(IDLE, AcqRel);
        }
        announced
    }

    /// Ends a poll that was announced, and takes the note that may have come meanwhile: the M is
    /// about to look for work anyway.
    pub(super) fn end_block(&self) {
        // AcqRel: pairs with the swap in `notify`, whose caller's work the M must now see.
        self.0.swap(IDLE, AcqRel);
    }

    /// Leaves a note. True if the caller must now write the eventfd.
    #[must_use]
    pub(super) fn notify(&self) -> bool {
        // AcqRel: pairs with the accesses in `begin_block` and `end_block`.
        self.0.swap(NOTIFIED, AcqRel) == BLOCKED
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_left_while_idle_is_taken_by_the_next_blocking_poll() {
        let wakeup = Wakeup::default();
        assert!(!wakeup.notify(), "nobody blocks: no system call");
        assert!(!wakeup.notify());
        assert!(!wakeup.begin_block(), "the note forbids to block");
        assert!(wakeup.begin_block(), "and was taken");
        wakeup.end_block();
    }

    #[test]
    fn only_the_first_of_many_notes_writes_the_eventfd() {
        let wakeup = Wakeup::default();
        assert!(wakeup.begin_block());
        assert!(wakeup.notify());
        assert!(!wakeup.notify());
        wakeup.end_block();
        assert!(
            wakeup.begin_block(),
            "the interrupted poll has taken the note"
        );
        wakeup.end_block();
    }
}
