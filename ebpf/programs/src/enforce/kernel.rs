//! Doors into the kernel itself.

use aya_ebpf::{macros::lsm, programs::LsmContext};
use paddock_abi::{activity::Activity, namespace::Target};

use super::{bound, call};
use crate::{
    activity::{bpf_target, concerns_others, perf_target},
    read::at,
    word::{kernel_word, word},
};

#[lsm(hook = "bpf")]
fn lsm_bpf(ctx: LsmContext) -> i32 {
    let command = u64::from(ctx.arg::<u32>(0));
    if !concerns_others(command) {
        return 0;
    }
    let Some(bound) = bound() else { return 0 };
    let first: u32 = at(ctx.arg(1));
    bound.refuse_act(Activity::Bpf, bpf_target(command, first))
}

/// finit_module; `READING_MODULE` and the two of kexec are numbers of an enum that stays.
#[lsm(hook = "kernel_read_file")]
fn lsm_kernel_read_file(ctx: LsmContext) -> i32 {
    loaded(ctx.arg(1))
}

/// init_module and kexec_load.
#[lsm(hook = "kernel_load_data")]
fn lsm_kernel_load_data(ctx: LsmContext) -> i32 {
    loaded(ctx.arg(0))
}

/// <https://github.com/torvalds/linux/blob/v6.18/include/linux/kernel_read_file.h>
#[inline(always)]
fn loaded(id: u32) -> i32 {
    const MODULE: u32 = 2;
    const KEXEC_IMAGE: u32 = 3;
    const KEXEC_INITRAMFS: u32 = 4;
    let activity = match id {
        MODULE => Activity::Module,
        KEXEC_IMAGE | KEXEC_INITRAMFS => Activity::Kexec,
        _ => return 0,
    };
    let Some(bound) = bound() else { return 0 };
    bound.refuse_act(activity, Target::Host)
}

/// perf_event_open asks it first, and may ask it again.
#[lsm(hook = "perf_event_open")]
fn lsm_perf_event_open(_ctx: LsmContext) -> i32 {
    let Some(bound) = bound() else { return 0 };
    if call::current() != call::PERF_EVENT_OPEN {
        return 0;
    }
    let found = perf_target(&bound.who);
    bound.refuse_act(Activity::PerfEvent, found.target)
}

/// Since 5.12: files that are no file's, by the name of what they are for.
#[lsm(hook = "inode_init_security_anon")]
fn lsm_inode_init_security_anon(ctx: LsmContext) -> i32 {
    // Of `struct qstr`, behind its hash and length.
    const NAME: u64 = 8;
    let Some(bound) = bound() else { return 0 };
    let name = kernel_word(at(ctx.arg::<u64>(1).wrapping_add(NAME)));
    let activity = if name == word(b"[io_uring]") {
        Activity::IoUring
    } else if name == word(b"[userfaultfd]") {
        Activity::Userfaultfd
    } else {
        return 0;
    };
    bound.refuse_act(activity, Target::Own)
}

/// Whatever is done with a key; a call may ask for several.
#[lsm(hook = "key_permission")]
fn lsm_key_permission(_ctx: LsmContext) -> i32 {
    let Some(bound) = bound() else { return 0 };
    bound.refuse_act(Activity::Keyctl, Target::Own)
}
