//! Gives memory back that a burst of work has left free in the heap.

/// Returns free pages to the system; the allocator alone keeps them for the next burst, which may never come.
#[cfg(target_env = "gnu")]
#[expect(
    unsafe_code,
    reason = "the C library's own function, which the libc crate declares unsafe as all of them"
)]
pub fn give_back() {
    // SAFETY: malloc_trim(3) may be called at any time by any thread; it touches free memory only.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Other C libraries give memory back by themselves.
#[cfg(not(target_env = "gnu"))]
pub fn give_back() {}
