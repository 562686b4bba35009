//! The system calls whose end is looked at: for each a program on its body and one on its
//! tracepoint, for the loader to choose from.

use aya_ebpf::{
    EbpfContext,
    macros::{fexit, tracepoint},
    programs::{FExitContext, TracePointContext},
};

use super::{file, mount, process, socket, surface};
use crate::{
    offsets::*,
    once::{Runs, once},
    read::{Typed, at, field},
    task,
};

/// `sys_exit_*`: the result.
const TP_RET: u64 = 16;

/// A system call that has ended: its saved registers and its result.
pub(super) struct Call {
    regs: u64,
    pub(super) ret: i64,
}

impl Call {
    #[inline(always)]
    pub(super) fn arg0(&self) -> u64 {
        field(self.regs, &OFF_REGS_ARG0)
    }

    #[inline(always)]
    pub(super) fn arg1(&self) -> u64 {
        field(self.regs, &OFF_REGS_ARG1)
    }

    #[inline(always)]
    pub(super) fn arg2(&self) -> u64 {
        field(self.regs, &OFF_REGS_ARG2)
    }

    #[inline(always)]
    pub(super) fn arg3(&self) -> u64 {
        field(self.regs, &OFF_REGS_ARG3)
    }

    #[inline(always)]
    fn of_tracepoint(ctx: &TracePointContext) -> Self {
        Self {
            regs: task::registers(),
            ret: at::<u64>(ctx.as_ptr() as u64 + TP_RET).cast_signed(),
        }
    }

    #[inline(always)]
    fn of_body(ctx: &FExitContext) -> Self {
        // Where a call may be left out of a kernel before 5.18, its type has an argument of a
        // type that is not there, which the verifier lets nobody read.
        let regs = if OFF_REGS_ON_STACK.load() == 0 {
            ctx.arg(0)
        } else {
            task::registers()
        };
        Self {
            regs,
            ret: ctx.arg(1),
        }
    }
}

macro_rules! ends {
    ($($fexit:ident $tracepoint:ident $judge:path;)*) => {
        $(
            #[fexit]
            fn $fexit(ctx: FExitContext) -> i32 {
                if once(Runs::NewestFirst) {
                    $judge(&Call::of_body(&ctx));
                }
                0
            }

            #[tracepoint]
            fn $tracepoint(ctx: TracePointContext) -> u32 {
                if once(Runs::NewestLast) {
                    $judge(&Call::of_tracepoint(&ctx));
                }
                0
            }
        )*
    };
}

ends! {
    fexit_mount sys_exit_mount mount::mount;
    fexit_move_mount sys_exit_move_mount mount::move_mount;
    fexit_open_tree sys_exit_open_tree mount::open_tree;
    fexit_fsopen sys_exit_fsopen mount::fsopen;
    fexit_pivot_root sys_exit_pivot_root mount::pivot_root;
    fexit_chroot sys_exit_chroot mount::chroot;
    fexit_chdir sys_exit_chdir mount::chdir;
    fexit_fchdir sys_exit_fchdir mount::chdir;
    fexit_ptrace sys_exit_ptrace process::ptrace;
    fexit_process_vm_readv sys_exit_process_vm_readv process::process_vm;
    fexit_process_vm_writev sys_exit_process_vm_writev process::process_vm;
    fexit_pidfd_getfd sys_exit_pidfd_getfd process::pidfd_getfd;
    fexit_bpf sys_exit_bpf surface::bpf;
    fexit_init_module sys_exit_init_module surface::module;
    fexit_finit_module sys_exit_finit_module surface::module;
    fexit_delete_module sys_exit_delete_module surface::module;
    fexit_kexec_load sys_exit_kexec_load surface::kexec;
    fexit_kexec_file_load sys_exit_kexec_file_load surface::kexec;
    fexit_perf_event_open sys_exit_perf_event_open surface::perf_event;
    fexit_io_uring_setup sys_exit_io_uring_setup surface::io_uring;
    fexit_keyctl sys_exit_keyctl surface::keyctl;
    fexit_add_key sys_exit_add_key surface::keyctl;
    fexit_request_key sys_exit_request_key surface::keyctl;
    fexit_userfaultfd sys_exit_userfaultfd surface::userfaultfd;
    fexit_iopl sys_exit_iopl surface::io_port;
    fexit_ioperm sys_exit_ioperm surface::io_port;
    fexit_mknod sys_exit_mknod file::mknod;
    fexit_mknodat sys_exit_mknodat file::mknodat;
    fexit_open_by_handle_at sys_exit_open_by_handle_at file::open_by_handle;
    fexit_connect sys_exit_connect socket::connect;
}

macro_rules! opens {
    ($($tracepoint:ident;)*) => {
        $(
            #[tracepoint]
            fn $tracepoint(ctx: TracePointContext) -> u32 {
                // No register is needed: the descriptor says all.
                if once(Runs::NewestLast) {
                    file::opened_as(at::<u64>(ctx.as_ptr() as u64 + TP_RET).cast_signed());
                }
                0
            }
        )*
    };
}

opens! {
    sys_exit_open;
    sys_exit_openat;
    sys_exit_openat2;
    sys_exit_creat;
}

/// Every way to open, io_uring's too, comes through here.
#[fexit]
fn fexit_security_file_open(ctx: FExitContext) -> i32 {
    let file = ctx.arg(0);
    if ctx.arg::<i32>(1) == 0 && !file::of_a_layer::<Typed>(file) && once(Runs::NewestFirst) {
        file::opened::<Typed>(file);
    }
    0
}
