//! Keeps the process small at rest: one heap for all threads, and free heap is returned after a burst of work.

use std::time::Duration;

/// How long a process has nothing to do before its free heap is returned: what it needs again at once it had better keep.
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

/// Returns free pages of the heap to the system.
///
/// The allocator alone keeps them for the next burst, which may never come.
#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "the C library's own function, declared unsafe as all of them")]
pub fn trim() {
    // SAFETY: malloc_trim(3) may be called at any time by any thread; it touches free memory only.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Other C libraries do so by themselves.
#[cfg(not(target_env = "gnu"))]
pub fn trim() {}
