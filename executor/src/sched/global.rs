//! The global queue: what no P has room for, and what is made ready where there is no P.
//!
//! An item is a chain of linked tasks, so that the spill of half a ring is one push. Any thread
//! pushes; Ms that hold a P take.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crossbeam_deque::{Injector, Steal};

use crate::task::{Chain, Runnable};

/// See the module's doc.
#[derive(Debug)]
pub(crate) struct Global {
    chains: Injector<Chain>,
    /// How many tasks wait, for the size of a batch and for metrics. Counted up before the push
    /// and down after the take, so never below the truth. Relaxed: a hint; whether there is work
    /// is the injector's to say.
    tasks: AtomicUsize,
}

impl Global {
    pub(crate) fn new() -> Self {
        Self {
            chains: Injector::new(),
            tasks: AtomicUsize::new(0),
        }
    }

    /// Adds tasks at the back. The caller then has to see to a wake-up, and to `closed`.
    pub(crate) fn push(&self, chain: impl Into<Chain>) {
        let chain = chain.into();
        if chain.is_empty() {
            return;
        }
        self.tasks.fetch_add(chain.len(), Relaxed);
        self.chains.push(chain);
    }

    /// Takes the chain at the front.
    pub(crate) fn pop(&self) -> Option<Chain> {
        loop {
            match self.chains.steal() {
                Steal::Success(chain) => {
                    self.tasks.fetch_sub(chain.len(), Relaxed);
                    return Some(chain);
                }
                Steal::Empty => return None,
                // Lost against another M: it has made progress.
                Steal::Retry => std::hint::spin_loop(),
            }
        }
    }

    /// Takes one task: the first of the chain at the front, whose rest goes to the back.
    pub(crate) fn pop_one(&self) -> Option<Runnable> {
        let mut chain = self.pop()?;
        let runnable = chain.pop();
        self.push(chain);
        runnable
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.chains.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.tasks.load(Relaxed)
    }
}
