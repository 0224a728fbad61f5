//! Keeps the process small at rest: one heap for all threads, and what a burst of work needed is given back.
//!
//! ```text
//!  at work ── REST without work: give_back ──> at rest ── woken, and parked again: the program's pages ──> at rest
//!     ^───────────────────────────────── at_work ─┘
//! ```

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Without anything to do for so long, a process is at rest: what it needs again at once it had better keep.
pub const IDLE_BEFORE_TRIM: Duration = Duration::from_secs(2);

/// To be called before any second thread: all threads then share one heap.
///
/// The C library's default gives a thread a heap of its own when two want memory at once. Here the second one only
/// ever helps out for a moment (a task's copy, a name's address), and what it leaves behind in its heap would stay.
#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "the C library's own function, declared unsafe as all of them")]
pub fn single_arena() {
    // SAFETY: mallopt(3) sets a number; it may be called at any time.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Other C libraries do so by themselves.
#[cfg(not(target_env = "gnu"))]
pub fn single_arena() {}

/// Nothing but waiting is left to do.
static RESTING: AtomicBool = AtomicBool::new(false);

/// There is work: what it needs is kept until it is given back.
pub fn mark_active() {
    RESTING.store(false, Ordering::Relaxed);
}

/// Returns free pages of the heap to the system, and the pages of the program that are mapped; from now on the process
/// is at rest.
///
/// The allocator alone keeps free pages for the next burst, which may never come. Of the program a start and a burst
/// need nearly all, and rest a third; what is needed again is mapped again from the system's cache, without a read.
pub fn trim() {
    RESTING.store(true, Ordering::Relaxed);
    release_free_heap();
    advise(libc::MADV_DONTNEED);
}

/// A thread is about to wait. At rest it has only seen that there is nothing to do, and its pages go at once.
pub fn parked() {
    if RESTING.load(Ordering::Relaxed) {
        advise(libc::MADV_DONTNEED);
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
fn advise(advice: libc::c_int) {
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
        libc::madvise(std::ptr::with_exposed_provenance_mut(from), length, advice);
    }
}

/// Other C libraries give memory back by themselves, and other linkers have other symbols.
#[cfg(not(target_env = "gnu"))]
fn release_free_heap() {}

#[cfg(not(target_env = "gnu"))]
fn advise(_: libc::c_int) {}
