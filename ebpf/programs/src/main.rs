//! The kernel half: one file per family of hooks.
//!
//! Nothing here may panic, allocate or trust a pointer: every kernel structure is read with
//! `bpf_probe_read_kernel` at offsets that the loader took from the running kernel's BTF and
//! checks with a self-test. A read that fails makes a value unknown, never a call fail.
//! Kernels: 6.1 and later; which hook serves is the loader's choice (`paddock-probe`).
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod cgroup;
mod clone;
mod count;
mod maps;
mod ns;
mod offsets;
mod oom;
mod owner;
mod process;
mod read;
mod selftest;
mod target;
mod task;

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
