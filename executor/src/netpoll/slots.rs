//! The table from epoll tokens to sockets.
//!
//! A token is a slab index in its low bits and a generation above. Slots are reused at once;
//! generations count registrations, so the token of a socket that is gone matches its successor
//! only if an event stayed undelivered for a whole cycle of generations, and then costs that one a
//! spurious readiness, which every reader must bear anyway.

use std::sync::Arc;

use mio::Token;
use slab::Slab;

use super::readiness::ScheduledIo;

/// Half and half on 64 bits. 24 and 8 on 32 bits, where the index must still reach the number of
/// descriptors a process can have (Linux's `fs.nr_open` starts at 2^20).
const INDEX_BITS: u32 = if usize::BITS == 64 { 32 } else { 24 };
const INDEX_MASK: usize = (1 << INDEX_BITS) - 1;
const GENERATION_MASK: usize = usize::MAX >> INDEX_BITS;

/// The tokens of the eventfd and the timerfd: their index is never given to a slot.
pub(super) const WAKE_TOKEN: Token = Token(usize::MAX);
pub(super) const TIMER_TOKEN: Token = Token(INDEX_MASK);

#[derive(Debug, Default)]
pub(super) struct Registrations {
    slots: Slab<Slot>,
    next_generation: usize,
    shut_down: bool,
}

#[derive(Debug)]
struct Slot {
    generation: usize,
    io: Arc<ScheduledIo>,
}

/// Why no slot was given.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    ShutDown,
    Full,
}

impl Registrations {
    pub(super) fn insert(&mut self, io: Arc<ScheduledIo>) -> Result<Token, Refused> {
        if self.shut_down {
            return Err(Refused::ShutDown);
        }
        let entry = self.slots.vacant_entry();
        let index = entry.key();
        if index >= INDEX_MASK {
            return Err(Refused::Full);
        }
        let generation = self.next_generation & GENERATION_MASK;
        self.next_generation = self.next_generation.wrapping_add(1);
        entry.insert(Slot { generation, io });
        Ok(Token(generation << INDEX_BITS | index))
    }

    /// The socket that `token` was given to, unless it has been removed.
    pub(super) fn get(&self, token: Token) -> Option<&ScheduledIo> {
        let slot = self.slots.get(token.0 & INDEX_MASK)?;
        (slot.generation == token.0 >> INDEX_BITS).then_some(&*slot.io)
    }

    /// Frees the slot of `token`, and returns what it held for the caller to drop without the lock.
    pub(super) fn remove(&mut self, token: Token) -> Option<Arc<ScheduledIo>> {
        self.get(token)?;
        Some(self.slots.remove(token.0 & INDEX_MASK).io)
    }

    /// Empties the table for good.
    pub(super) fn shut_down(&mut self) -> Vec<Arc<ScheduledIo>> {
        self.shut_down = true;
        std::mem::take(&mut self.slots)
            .into_iter()
            .map(|(_, slot)| slot.io)
            .collect()
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reused_slot_does_not_answer_to_the_old_token() {
        let mut table = Registrations::default();
        let first = table.insert(Arc::default()).unwrap();
        assert!(table.get(first).is_some());
        assert!(table.remove(first).is_some());

        let second = table.insert(Arc::default()).unwrap();
        assert_eq!(first.0 & INDEX_MASK, second.0 & INDEX_MASK, "slot reused");
        assert!(table.get(first).is_none(), "stale token");
        assert!(table.remove(first).is_none(), "stale token");
        assert!(table.get(second).is_some());
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn generations_wrap_within_their_bits() {
        let mut table = Registrations {
            next_generation: GENERATION_MASK,
            ..Registrations::default()
        };
        let last = table.insert(Arc::default()).unwrap();
        let wrapped = table.insert(Arc::default()).unwrap();
        assert_eq!(last.0 >> INDEX_BITS, GENERATION_MASK);
        assert_eq!(wrapped.0 >> INDEX_BITS, 0);
        assert!(table.get(last).is_some() && table.get(wrapped).is_some());
        assert!(table.get(WAKE_TOKEN).is_none() && table.get(TIMER_TOKEN).is_none());
    }

    #[test]
    fn nothing_enters_after_shutdown() {
        let mut table = Registrations::default();
        let token = table.insert(Arc::default()).unwrap();
        assert_eq!(table.shut_down().len(), 1);
        assert!(table.get(token).is_none());
        assert_eq!(table.insert(Arc::default()), Err(Refused::ShutDown));
        assert_eq!(table.len(), 0);
    }
}
