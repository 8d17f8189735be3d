//! Memory for a process whose work is done after some milliseconds.

use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::ptr;
use core::sync::atomic::{AtomicUsize, Ordering};

/// Bytes that are handed out one after the other. Starting a container takes some 300 KB.
const BYTES: usize = CHUNKS * CHUNK;
/// What is given back at once.
const CHUNK: usize = 32 * 1024;
const CHUNKS: usize = 16;

#[repr(align(4096))]
struct Bytes(UnsafeCell<[u8; BYTES]>);

// SAFETY: each byte belongs to whom it was handed out to; `NEXT` says which were.
unsafe impl Sync for Bytes {}

static ARENA: Bytes = Bytes(UnsafeCell::new([0; BYTES]));
static NEXT: AtomicUsize = AtomicUsize::new(0);
/// How many pieces of each chunk somebody has.
static LIVE: [AtomicUsize; CHUNKS] = [const { AtomicUsize::new(0) }; CHUNKS];

/// An allocator that hands the first half megabyte out without looking back, and asks another when it is used up. Only
/// what was handed out last is taken back. musl's own allocator takes a tenth of the processor time of starting a
/// container, and gives pages back that are wanted again at once. [`crate::give_memory_back`] gives them back in the end.
#[derive(Debug)]
pub struct Arena<A>(pub A);

fn start() -> usize {
    ARENA.0.get() as usize
}

/// The place of a pointer in the arena.
fn place(pointer: *mut u8) -> Option<usize> {
    (pointer as usize).checked_sub(start()).filter(|place| *place < BYTES)
}

/// Counts a piece of the chunk of this place in or out.
fn count(place: usize, comes: bool) {
    if let Some(live) = LIVE.get(place / CHUNK) {
        match comes {
            true => live.fetch_add(1, Ordering::SeqCst),
            false => live.fetch_sub(1, Ordering::SeqCst),
        };
    }
}

fn take(layout: Layout) -> Option<*mut u8> {
    if layout.size() > CHUNK || layout.align() > 4096 {
        return None;
    }
    let mut next = NEXT.load(Ordering::SeqCst);
    loop {
        // The arena begins at a page: what is aligned in it is aligned. No piece is in two chunks.
        let mut place = next.checked_next_multiple_of(layout.align())?;
        if place / CHUNK != (place + layout.size().max(1) - 1) / CHUNK {
            place = place.checked_next_multiple_of(CHUNK)?;
        }
        let end = place.checked_add(layout.size()).filter(|end| *end <= BYTES)?;
        // Counted first: a chunk that `NEXT` has left behind has every piece counted.
        count(place, true);
        match NEXT.compare_exchange_weak(next, end, Ordering::SeqCst, Ordering::SeqCst) {
            // SAFETY: within the arena, and nobody else's.
            Ok(_) => return Some(unsafe { ARENA.0.get().cast::<u8>().add(place) }),
            Err(other) => {
                count(place, false);
                next = other;
            }
        }
    }
}

/// What was handed out last is there to be handed out again; other pieces are only counted.
fn give(place: usize, size: usize) {
    let _ = NEXT.compare_exchange(place + size, place, Ordering::SeqCst, Ordering::SeqCst);
    count(place, false);
}

/// Gives the pages of chunks back that nobody has anything of, and that nothing is handed out of any more.
pub(crate) fn give_back() {
    let next = NEXT.load(Ordering::SeqCst);
    for (index, live) in LIVE.iter().enumerate() {
        if (index + 1) * CHUNK <= next && live.load(Ordering::SeqCst) == 0 {
            crate::host::forget_pages(start() + index * CHUNK, CHUNK);
        }
    }
}

// SAFETY: memory comes from `take`, which gives each byte to one, or from the other allocator, and goes back to where it
// came from.
unsafe impl<A: GlobalAlloc> GlobalAlloc for Arena<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        take(layout).unwrap_or_else(|| unsafe { self.0.alloc(layout) })
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        match place(pointer) {
            Some(place) => give(place, layout.size()),
            // SAFETY: the caller's promise; it is the other's.
            None => unsafe { self.0.dealloc(pointer, layout) },
        }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let Some(place) = place(pointer) else {
            // SAFETY: the caller's promise; it is the other's.
            return unsafe { self.0.realloc(pointer, layout, size) };
        };
        let (end, wanted) = (place + layout.size(), place.saturating_add(size));
        let is_one_chunk = wanted > 0 && place / CHUNK == (wanted - 1) / CHUNK;
        if is_one_chunk && NEXT.compare_exchange(end, wanted, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
            return pointer;
        }
        if size <= layout.size() {
            return pointer;
        }
        // SAFETY: the caller's promise: not zero, and not too large with this alignment.
        let new = unsafe { self.alloc(Layout::from_size_align_unchecked(size, layout.align())) };
        if !new.is_null() {
            // SAFETY: both are as long, and the new one is nobody else's.
            unsafe { ptr::copy_nonoverlapping(pointer, new, layout.size()) };
            give(place, layout.size());
        }
        new
    }
}
