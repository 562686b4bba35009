//! Reading kernel memory at offsets known since load.
//!
//! No branches: the helper itself refuses addresses that are not the kernel's and zeroes what it
//! cannot read, so a walk through a null pointer ends in zeros. With a branch per read the
//! verifier of 6.1 would follow every combination of failures.

use core::mem::MaybeUninit;

use aya_ebpf::{Global, helpers::generated::bpf_probe_read_kernel};

/// Types whose zero is a value.
pub(crate) trait Plain: Copy {}
impl Plain for u8 {}
impl Plain for i16 {}
impl Plain for u16 {}
impl Plain for i32 {}
impl Plain for u32 {}
impl Plain for u64 {}
impl Plain for [u8; 16] {}
impl Plain for [u32; 3] {}
impl Plain for [u64; 2] {}
impl Plain for [u64; 3] {}

/// How a structure's fields are read.
pub(crate) trait Reader {
    fn field<T: Plain>(base: u64, offset: &Global<u32>) -> T;

    #[inline(always)]
    fn pointer(base: u64, offset: &Global<u32>) -> u64 {
        Self::field(base, offset)
    }
}

/// By the helper, whatever the address.
pub(crate) struct Anywhere;

/// By a load, a fraction of the helper's instructions: from a structure whose type the verifier
/// knows, as the current task's, and what its pointers lead to. The kernel reads zero where a
/// pointer leads nowhere.
pub(crate) struct Typed;

impl Reader for Anywhere {
    #[inline(always)]
    fn field<T: Plain>(base: u64, offset: &Global<u32>) -> T {
        field(base, offset)
    }
}

impl Reader for Typed {
    #[inline(always)]
    fn field<T: Plain>(base: u64, offset: &Global<u32>) -> T {
        let address = base.wrapping_add(u64::from(offset.load())) as *const T;
        // SAFETY: the verifier takes it only where it knows that there is such a field; T is
        // plain data.
        unsafe { address.read_volatile() }
    }
}

/// A field of the structure at `base`; zero where it cannot be read.
#[inline(always)]
pub(crate) fn field<T: Plain>(base: u64, offset: &Global<u32>) -> T {
    at(base.wrapping_add(u64::from(offset.load())))
}

/// A pointer field; 0 where it is null or cannot be read.
#[inline(always)]
pub(crate) fn pointer(base: u64, offset: &Global<u32>) -> u64 {
    field(base, offset)
}

#[inline(always)]
pub(crate) fn at<T: Plain>(address: u64) -> T {
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: the helper writes all of `value`, on failure with zeros, and never faults; T is
    // plain data.
    unsafe {
        let size = size_of::<T>() as u32;
        bpf_probe_read_kernel(value.as_mut_ptr().cast(), size, address as *const _);
        value.assume_init()
    }
}
