//! What the C library keeps of memory that was freed.
#![expect(unsafe_code, reason = "malloc_trim has no safe wrapper")]

/// Gives it back to the kernel: a start that needed much for a moment does not stay that large.
/// Walks the whole heap, some milliseconds.
pub fn give_back() {
    // SAFETY: it has no preconditions, and takes the locks of the heap itself.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}
