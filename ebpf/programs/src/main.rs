//! The kernel half: one file per family of hooks.
//!
//! Nothing here may panic, allocate or trust a pointer: every kernel structure is read with
//! `bpf_probe_read_kernel` at offsets that the loader took from the running kernel's BTF and
//! checks with a self-test. A read that fails makes a value unknown, never a call fail.
//! Kernels: 5.10 and later; which hook serves is the loader's choice (`paddock-probe`).
#![no_std]
#![no_main]
#![feature(asm_experimental_arch, stmt_expr_attributes)]
#![expect(
    clippy::inline_always,
    reason = "a subprogram passes at most five arguments and loses the verifier's knowledge of them"
)]
#![expect(
    clippy::needless_pass_by_value,
    reason = "aya's entry points hand their context over by value"
)]
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the kernel packs ids, flags and results into words of another width"
)]
#![expect(
    clippy::wildcard_imports,
    reason = "offsets are one vocabulary; a hook names those it reads where it reads them"
)]
#![expect(
    clippy::needless_range_loop,
    reason = "the verifier wants a bound that is a constant, not a slice's length"
)]

mod activity;
mod admit;
mod birth;
mod cgroup;
mod clone;
mod count;
mod enforce;
mod guard;
mod limit;
mod maps;
mod member;
mod names;
mod ns;
mod offsets;
mod once;
mod oom;
mod owner;
mod process;
mod read;
mod selftest;
mod setup;
mod target;
mod task;
mod traffic;
mod word;

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
