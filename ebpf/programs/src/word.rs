//! Short names as one number: compared at once, where a loop over bytes would be a path each.

use aya_ebpf::helpers::generated::{bpf_probe_read_kernel_str, bpf_probe_read_user_str};

const SIZE: u32 = 16;

/// A name of at most 15 bytes.
pub(crate) const fn word<const N: usize>(name: &[u8; N]) -> u128 {
    const { assert!(N < SIZE as usize) };
    let mut bytes = [0; SIZE as usize];
    let mut index = 0;
    while index < N {
        bytes[index] = name[index];
        index += 1;
    }
    u128::from_ne_bytes(bytes)
}

/// The first 15 bytes at a kernel address.
#[inline(always)]
pub(crate) fn kernel_word(address: u64) -> u128 {
    let mut word = 0_u128;
    // SAFETY: the helper writes at most the length given, and never faults.
    unsafe { bpf_probe_read_kernel_str((&raw mut word).cast(), SIZE, address as *const _) };
    word
}

/// The first 15 bytes at a user address.
#[inline(always)]
pub(crate) fn user_word(address: u64) -> u128 {
    let mut word = 0_u128;
    // SAFETY: as in `kernel_word`.
    unsafe { bpf_probe_read_user_str((&raw mut word).cast(), SIZE, address as *const _) };
    word
}
