//! Where task cells live: type-stable slabs, which are also the registry of all tasks.
//!
//! A slab is 64 KiB of one size class, aligned to its size, mapped once and never unmapped: the
//! word at the start of every cell is a [`State`] for as long as the process runs, and all zeroes
//! means free. That is what lets wakers and handles outlive their runtime, lets `spawn` go
//! without a registry lock, and lets [`for_each`] walk every task of the process.
//!
//! # Who owns a free cell
//!
//! ```text
//!   P's Cache (no lock, LIFO)  ── half, when full ──▶  Pool of the class (a mutex)
//!            ▲                                              │   slab: free list + never-used tail
//!            └──────────── half, when empty ────────────────┘
//! ```
//!
//! After Go's `gfree` lists. A thread without a P takes and returns single cells at the pool.
//! The pool keeps each free cell on its own slab's list, so that it knows when a slab is wholly
//! free; beyond [`KEEP_EMPTY`] such slabs, the memory goes back to the system (`MADV_DONTNEED`)
//! and the slab starts over as zeroes.
//!
//! # Lock order
//!
//! `POOLS[class]` before `SLABS`. Neither is held while user code runs.

use std::alloc::{Layout, handle_alloc_error};
use std::ptr::{self, NonNull};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Header;

/// Cell sizes. The step between two is at most 1.5×, so at most a third of a cell is slack. The
/// smallest one is for the many tasks that only wait for one thing.
pub(super) const CLASSES: [usize; 13] = [
    96, 128, 160, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096,
];
/// What an inline future may ask for; every class is a multiple of it.
pub(super) const CELL_ALIGN: usize = 32;
/// Larger futures are boxed.
pub(super) const LARGEST: usize = CLASSES[CLASSES.len() - 1];

/// 16 pages: the largest class still has 15 cells a slab, and a partly used slab of the smallest
/// one wastes little.
const SLAB_SIZE: usize = 64 << 10;
/// Slabs are mapped this many at a time (1 MiB), to keep the number of mappings small.
const SLABS_PER_MAP: usize = 16;
/// Wholly free slabs that a class keeps resident, so that a load that comes and goes does not
/// fault its memory in again each time: 256 KiB a class.
const KEEP_EMPTY: usize = 4;
const PAGE: usize = 4096;

/// The class for a cell of `size` bytes.
pub(super) const fn class_of(size: usize) -> usize {
    let mut class = 0;
    while CLASSES[class] < size {
        class += 1;
    }
    class
}

/// How many cells a P keeps of a class: 256, a ring's worth, but at most 64 KiB.
const fn cache_limit(class: usize) -> usize {
    let by_size = (64 << 10) / CLASSES[class];
    if by_size < 256 { by_size } else { 256 }
}

/// An intrusive list of free cells, linked through `Header::next`.
#[derive(Debug)]
struct FreeList {
    head: Option<NonNull<Header>>,
    len: usize,
}

impl FreeList {
    const fn new() -> Self {
        Self { head: None, len: 0 }
    }

    /// # Safety
    /// `cell` is free and on no other list.
    unsafe fn push(&mut self, cell: NonNull<Header>) {
        // SAFETY: a free cell's link belongs to the list that it is on, which is this one now;
        // registry walkers read only the state word.
        unsafe { Header::set_next(cell, self.head) };
        self.head = Some(cell);
        self.len += 1;
    }

    fn pop(&mut self) -> Option<NonNull<Header>> {
        let cell = self.head?;
        // SAFETY: the cell is on this list, so its link is ours to read.
        self.head = unsafe { Header::next(cell) };
        self.len -= 1;
        Some(cell)
    }
}

/// The first bytes of a slab. Everything in it is guarded by the lock of its class's pool, but
/// for `cell_size`, which never changes.
#[derive(Debug)]
#[repr(C, align(128))]
struct Slab {
    cell_size: usize,
    free: FreeList,
    /// Cells handed out at least once since the memory was last all zeroes.
    carved: usize,
    capacity: usize,
}

impl Slab {
    const fn capacity(cell_size: usize) -> usize {
        (SLAB_SIZE - size_of::<Slab>()) / cell_size
    }

    /// No free cell is left: the slab is not in its pool's `partial`.
    fn is_used_up(&self) -> bool {
        self.free.len == 0 && self.carved == self.capacity
    }

    /// The address of cell `index`; the arithmetic stays inside the slab.
    fn cell(slab: NonNull<Slab>, cell_size: usize, index: usize) -> NonNull<Header> {
        debug_assert!(index < Slab::capacity(cell_size));
        // SAFETY: index < capacity, so the offset lies within the slab's mapping.
        unsafe { slab.byte_add(size_of::<Slab>() + index * cell_size).cast() }
    }

    /// The slab that a cell lies in: slabs are aligned to their size.
    fn of(cell: NonNull<Header>) -> NonNull<Slab> {
        let addr = cell.as_ptr().map_addr(|addr| addr & !(SLAB_SIZE - 1));
        // SAFETY: a cell's slab begins at a non-null multiple of SLAB_SIZE below it.
        unsafe { NonNull::new_unchecked(addr.cast()) }
    }
}

/// The free cells of one class that no P holds.
#[derive(Debug)]
struct Pool {
    /// Slabs with at least one free or never-used cell.
    partial: Vec<NonNull<Slab>>,
    /// How many of `partial` are wholly free and resident (their cells have been used).
    empty: usize,
}

// SAFETY: a pool's pointers lead to slabs, which live as long as the process and are only touched
// under the pool's lock.
unsafe impl Send for Pool {}

static POOLS: [Mutex<Pool>; CLASSES.len()] = [const {
    Mutex::new(Pool {
        partial: Vec::new(),
        empty: 0,
    })
}; CLASSES.len()];

/// Every slab of the process (as addresses, with the size of their cells), and the mapped ones
/// that no class uses yet.
#[derive(Debug)]
struct Slabs {
    used: Vec<(NonNull<Slab>, usize)>,
    spare: Vec<NonNull<Slab>>,
}

// SAFETY: as for `Pool`: plain addresses of memory that is never unmapped.
unsafe impl Send for Slabs {}

static SLABS: Mutex<Slabs> = Mutex::new(Slabs {
    used: Vec::new(),
    spare: Vec::new(),
});

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No user code runs under these locks; the only panic possible is a failed allocation in
    // `Vec`, which leaves the lists as they were.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Slabs {
    /// A fresh slab for cells of `cell_size` bytes.
    fn add(&mut self, cell_size: usize) -> NonNull<Slab> {
        if self.spare.is_empty() {
            self.map();
        }
        let slab = self.spare.pop().expect("map() left spare slabs");
        // SAFETY: the slab was just mapped (zeroed, aligned, large enough) and nobody else has
        // its address yet.
        unsafe {
            slab.write(Slab {
                cell_size,
                free: FreeList::new(),
                carved: 0,
                capacity: Slab::capacity(cell_size),
            });
        }
        self.used.push((slab, cell_size));
        slab
    }

    fn map(&mut self) {
        let size = SLAB_SIZE * SLABS_PER_MAP;
        // One slab more than needed, so that an aligned run of slabs fits; the rest is unmapped.
        // SAFETY: a fresh private anonymous mapping touches no existing memory.
        let base = unsafe {
            libc::mmap(
                ptr::null_mut(),
                size + SLAB_SIZE,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            handle_alloc_error(Layout::from_size_align(size, SLAB_SIZE).expect("constant layout"));
        }
        let base = base.cast::<u8>();
        let lead = base.align_offset(SLAB_SIZE);
        // SAFETY: `lead` < SLAB_SIZE, so both the unmapped ends and the slabs lie within the
        // mapping just made, which nobody else knows.
        unsafe {
            if lead != 0 {
                libc::munmap(base.cast(), lead);
            }
            libc::munmap(base.add(lead + size).cast(), SLAB_SIZE - lead);
            self.spare.extend((0..SLABS_PER_MAP).rev().map(|index| {
                NonNull::new_unchecked(base.add(lead + index * SLAB_SIZE).cast::<Slab>())
            }));
        }
    }
}

impl Pool {
    fn take(&mut self, class: usize) -> NonNull<Header> {
        let slab = match self.partial.last() {
            Some(slab) => *slab,
            None => {
                let slab = lock(&SLABS).add(CLASSES[class]);
                self.partial.push(slab);
                slab
            }
        };
        // SAFETY: slab headers are guarded by this pool's lock, which the caller holds, and live
        // for ever.
        let header = unsafe { &mut *slab.as_ptr() };
        if header.carved != 0 && header.free.len == header.carved {
            self.empty -= 1;
        }
        let cell = header.free.pop().unwrap_or_else(|| {
            let cell = Slab::cell(slab, header.cell_size, header.carved);
            header.carved += 1;
            cell
        });
        if header.is_used_up() {
            self.partial.pop();
        }
        cell
    }

    /// # Safety
    /// `cell` is a free cell of this class that nobody else holds.
    unsafe fn put(&mut self, cell: NonNull<Header>) {
        let slab = Slab::of(cell);
        // SAFETY: as in `take`.
        let header = unsafe { &mut *slab.as_ptr() };
        if header.is_used_up() {
            self.partial.push(slab);
        }
        // SAFETY: the caller's contract.
        unsafe { header.free.push(cell) };
        if header.free.len == header.carved {
            self.empty += 1;
            if self.empty > KEEP_EMPTY {
                self.purge(slab);
            }
        }
    }

    /// Gives a wholly free slab's pages back to the system, but for the one with its header.
    /// Its state words then read as zeroes, which is what they were.
    fn purge(&mut self, slab: NonNull<Slab>) {
        // SAFETY: as in `take`.
        let header = unsafe { &mut *slab.as_ptr() };
        // SAFETY: every cell of the slab is free and in the slab's own list, which is reset here,
        // so nobody uses the pages but registry walkers, who load state words (zero before, zero
        // after). The range is inside the slab's mapping.
        let result = unsafe {
            libc::madvise(
                slab.as_ptr().byte_add(PAGE).cast(),
                SLAB_SIZE - PAGE,
                libc::MADV_DONTNEED,
            )
        };
        if result == 0 {
            header.free = FreeList::new();
            header.carved = 0;
            self.empty -= 1;
            // Used last: `take` looks at the end of `partial`.
            if let Some(position) = self.partial.iter().position(|other| *other == slab) {
                let slab = self.partial.swap_remove(position);
                self.partial.insert(0, slab);
            }
        }
    }
}

/// Takes a cell without a P: from any thread.
pub(super) fn alloc_shared(class: usize) -> NonNull<Header> {
    lock(&POOLS[class]).take(class)
}

/// Returns a cell without a P: from any thread.
///
/// # Safety
/// `cell` came from `class`, its state is clear, and nobody else holds it.
pub(super) unsafe fn free_shared(class: usize, cell: NonNull<Header>) {
    // SAFETY: the caller's contract.
    unsafe { lock(&POOLS[class]).put(cell) }
}

/// A P's own free cells, by class.
#[derive(Debug)]
pub(crate) struct Cache {
    lists: [FreeList; CLASSES.len()],
}

// SAFETY: the cells on the lists are free and belong to this cache alone, whichever thread holds
// the P.
unsafe impl Send for Cache {}

impl Cache {
    pub(crate) const fn new() -> Self {
        Self {
            lists: [const { FreeList::new() }; CLASSES.len()],
        }
    }

    #[inline]
    pub(super) fn alloc(&mut self, class: usize) -> NonNull<Header> {
        match self.lists[class].pop() {
            Some(cell) => cell,
            None => self.refill(class),
        }
    }

    #[cold]
    fn refill(&mut self, class: usize) -> NonNull<Header> {
        let mut pool = lock(&POOLS[class]);
        for _ in 0..cache_limit(class) / 2 {
            let cell = pool.take(class);
            // SAFETY: the pool just gave the cell up.
            unsafe { self.lists[class].push(cell) };
        }
        pool.take(class)
    }

    /// # Safety
    /// As [`free_shared`].
    #[inline]
    pub(super) unsafe fn free(&mut self, class: usize, cell: NonNull<Header>) {
        if self.lists[class].len >= cache_limit(class) {
            self.spill(class, cache_limit(class) / 2);
        }
        // SAFETY: the caller's contract.
        unsafe { self.lists[class].push(cell) };
    }

    #[cold]
    fn spill(&mut self, class: usize, keep: usize) {
        let mut pool = lock(&POOLS[class]);
        while self.lists[class].len > keep {
            let cell = self.lists[class].pop().expect("counted above");
            // SAFETY: the cell was on this cache's list: free, of this class, ours.
            unsafe { pool.put(cell) };
        }
    }

    /// Returns every cell to the pools: the P is going away.
    pub(crate) fn flush(&mut self) {
        for class in 0..CLASSES.len() {
            if self.lists[class].len != 0 {
                self.spill(class, 0);
            }
        }
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        self.flush();
    }
}

/// Calls `f` with every live task of the process, each held by a reference that `f` takes over.
///
/// A task spawned while this runs may be missed; one that is freed is skipped.
pub(super) fn for_each(mut f: impl FnMut(NonNull<Header>)) {
    // A snapshot, so that `f` may spawn or free.
    let slabs: Vec<_> = lock(&SLABS).used.clone();
    for (slab, cell_size) in slabs {
        for index in 0..Slab::capacity(cell_size) {
            let cell = Slab::cell(slab, cell_size, index);
            // SAFETY: every cell of a slab, used or not, starts with a `State` word, for ever.
            if unsafe { Header::state(cell) }.try_ref() {
                f(cell);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_fit() {
        for (class, size) in CLASSES.into_iter().enumerate() {
            assert_eq!(size % CELL_ALIGN, 0);
            assert_eq!(class_of(size), class);
            assert_eq!(class_of(size - 1), class);
        }
    }

    #[test]
    fn cells_are_distinct_aligned_and_recycled() {
        let class = class_of(3000);
        let mut cache = Cache::new();
        let mut cells: Vec<_> = (0..500).map(|_| cache.alloc(class)).collect();
        for cell in &cells {
            assert_eq!(cell.as_ptr() as usize % CELL_ALIGN, 0);
            // SAFETY: a slab's cells start with a state word.
            let state = unsafe { Header::state(*cell) };
            assert!(!state.try_ref(), "a fresh cell is free");
        }
        cells.sort();
        for pair in cells.windows(2) {
            assert!(pair[1].as_ptr() as usize - pair[0].as_ptr() as usize >= CLASSES[class]);
        }
        for cell in &cells {
            // SAFETY: taken above, never made live.
            unsafe { cache.free(class, *cell) };
        }
        drop(cache);
        // All slabs but KEEP_EMPTY were purged; the cells come back and are still free.
        let again: Vec<_> = (0..500).map(|_| alloc_shared(class)).collect();
        let mut both = again.clone();
        both.sort();
        both.dedup();
        assert_eq!(both.len(), 500);
        for cell in again {
            // SAFETY: as above.
            unsafe { free_shared(class, cell) };
        }
    }
}
