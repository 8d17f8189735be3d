//! Memory for a process whose work is done after some milliseconds.

use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::ptr;
use core::sync::atomic::{AtomicUsize, Ordering};

/// Bytes that are handed out one after the other. Starting a container takes some 300 KB.
const BYTES: usize = 512 * 1024;

#[repr(align(4096))]
struct Bytes(UnsafeCell<[u8; BYTES]>);

// SAFETY: each byte belongs to whom it was handed out to; `NEXT` says which were.
unsafe impl Sync for Bytes {}

static ARENA: Bytes = Bytes(UnsafeCell::new([0; BYTES]));
static NEXT: AtomicUsize = AtomicUsize::new(0);

/// An allocator that hands the first half megabyte out without looking back, and asks another when it is used up. Only
/// what was handed out last is taken back. musl's own allocator takes a tenth of the processor time of starting a
/// container, and gives pages back that are wanted again at once.
#[derive(Debug)]
pub struct Arena<A>(pub A);

fn start() -> usize {
    ARENA.0.get() as usize
}

/// The place of a pointer in the arena.
fn place(pointer: *mut u8) -> Option<usize> {
    (pointer as usize).checked_sub(start()).filter(|place| *place < BYTES)
}

fn take(layout: Layout) -> Option<*mut u8> {
    let mut next = NEXT.load(Ordering::Relaxed);
    loop {
        // The arena begins at a page: what is aligned in it is aligned, up to a page.
        let place = next.checked_next_multiple_of(layout.align()).filter(|_| layout.align() <= 4096)?;
        let end = place.checked_add(layout.size()).filter(|end| *end <= BYTES)?;
        match NEXT.compare_exchange_weak(next, end, Ordering::Relaxed, Ordering::Relaxed) {
            // SAFETY: within the arena, and nobody else's.
            Ok(_) => return Some(unsafe { ARENA.0.get().cast::<u8>().add(place) }),
            Err(other) => next = other,
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
            Some(place) => {
                let _ = NEXT.compare_exchange(place + layout.size(), place, Ordering::Relaxed, Ordering::Relaxed);
            }
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
        if wanted <= BYTES && NEXT.compare_exchange(end, wanted, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
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
        }
        new
    }
}
