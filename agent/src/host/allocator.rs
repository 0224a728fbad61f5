//! Keeps the process small at rest: one heap for all threads, and what a burst of work needed goes back to the system.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A process that was idle for this long trims its memory: what it needs again at once it had better keep.
pub const IDLE_BEFORE_TRIM: Duration = Duration::from_secs(2);

/// A block of this size or more is mapped by itself, and goes back to the system when it is freed. In bytes.
#[cfg(target_env = "gnu")]
const MMAP_THRESHOLD: libc::c_int = 64 << 10;

/// Free memory at the heap's end goes back to the system from this size on. In bytes.
#[cfg(target_env = "gnu")]
const TRIM_THRESHOLD: libc::c_int = 64 << 10;

/// The heap grows by this much more than was asked for. In bytes.
#[cfg(target_env = "gnu")]
const TOP_PAD: libc::c_int = 4 << 10;

/// Keeps the heap tight; to be called before any second thread.
///
/// The C library's default gives a thread a heap of its own when two want memory at once. Here the second one only
/// ever helps out for a moment (a task's copy, a name's address), and what it leaves behind in its heap would stay.
/// By default it also raises the size from which a block is mapped by itself, up to 32 MiB, whenever such a block is freed:
/// after one large answer of the store, all later ones would lie in the heap and leave holes in it.
#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "the C library's own function, declared unsafe as all of them")]
pub fn keep_tight() {
    let settings = [
        (libc::M_ARENA_MAX, 1),
        (libc::M_MMAP_THRESHOLD, MMAP_THRESHOLD),
        (libc::M_TRIM_THRESHOLD, TRIM_THRESHOLD),
        (libc::M_TOP_PAD, TOP_PAD),
    ];
    for (setting, value) in settings {
        // SAFETY: mallopt(3) sets a number; it may be called at any time.
        unsafe {
            libc::mallopt(setting, value);
        }
    }
}

/// Other C libraries have no such settings.
#[cfg(not(target_env = "gnu"))]
pub fn keep_tight() {}

/// Returns free pages of the heap, and mapped pages of the program, to the system.
///
/// The allocator alone keeps free pages for the next burst, which may never come. Of the program, a start and a burst map
/// nearly all, and rest needs a third: the promise of 12 MiB with a thousand orders counts these pages, too. The kernel
/// maps again what is needed again, from its cache and without a read.
pub fn trim() {
    RESTING.store(true, Ordering::Relaxed);
    release_free_heap();
    unmap_program();
}

/// Nothing but waiting is left to do.
static RESTING: AtomicBool = AtomicBool::new(false);

/// There is work: what it needs is kept until the next [`trim`].
pub fn mark_active() {
    RESTING.store(false, Ordering::Relaxed);
}

/// A thread is about to wait. At rest it has only seen that there is nothing to do, and its pages go at once: without
/// this an idle agent grows to twice its bound of 4 MiB (PSS) within a minute.
pub fn parked() {
    if RESTING.load(Ordering::Relaxed) {
        unmap_program();
    }
}

#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "the C library's own function, declared unsafe as all of them")]
fn release_free_heap() {
    // SAFETY: malloc_trim(3) may be called at any time by any thread; it touches free memory only.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "the C library's own function, declared unsafe as all of them")]
fn unmap_program() {
    unsafe extern "C" {
        // The linker's own symbols: the first byte of the program, and the one after its code.
        static __executable_start: u8;
        static etext: u8;
    }
    // SAFETY: between the two symbols are headers, constants and code, all mapped from the file and never written to:
    // mapped or not, an access finds the same bytes (madvise(2)).
    unsafe {
        // With larger pages the call is refused, and nothing is given back.
        let page = 4096;
        let from = (&raw const __executable_start).addr().next_multiple_of(page);
        let length = ((&raw const etext).addr() / page * page).saturating_sub(from);
        libc::madvise(std::ptr::with_exposed_provenance_mut(from), length, libc::MADV_DONTNEED);
    }
}

/// Other C libraries give memory back by themselves, and other linkers have other symbols.
#[cfg(not(target_env = "gnu"))]
fn release_free_heap() {}

#[cfg(not(target_env = "gnu"))]
fn unmap_program() {}
