//! Reading kernel memory at offsets known since load.

use aya_ebpf::{Global, helpers::bpf_probe_read_kernel};

/// A field of the structure at `base`; `None` for a null base or unreadable memory.
#[inline(always)]
pub(crate) fn field<T: Copy>(base: u64, offset: &Global<u32>) -> Option<T> {
    if base == 0 {
        return None;
    }
    at(base + u64::from(offset.load()))
}

/// A pointer field; 0 when it is null or cannot be read, so that walks end by themselves.
#[inline(always)]
pub(crate) fn pointer(base: u64, offset: &Global<u32>) -> u64 {
    field(base, offset).unwrap_or(0)
}

#[inline(always)]
pub(crate) fn at<T: Copy>(address: u64) -> Option<T> {
    // SAFETY: the helper checks the address itself and fails instead of faulting; T is plain data.
    unsafe { bpf_probe_read_kernel(address as *const T) }.ok()
}
