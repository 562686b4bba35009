//! What the kernel asks before the act by a capability only.
//!
//! It may ask several times in a call, and the call may go on without: these are only refused
//! here, and counted under audit when they have happened.

use aya_ebpf::{macros::lsm, programs::LsmContext};
use paddock_abi::{activity::Activity, namespace::Target};

use super::{anybody, bound, call, namespace};

/// <https://github.com/torvalds/linux/blob/v6.18/include/uapi/linux/capability.h>
const CAP_DAC_READ_SEARCH: i32 = 2;
const CAP_SYS_MODULE: i32 = 16;
const CAP_SYS_RAWIO: i32 = 17;
const CAP_SYS_ADMIN: i32 = 21;

#[lsm(hook = "capable")]
fn lsm_capable(ctx: LsmContext) -> i32 {
    if !anybody() {
        return 0;
    }
    match ctx.arg::<i32>(2) {
        CAP_SYS_ADMIN => namespace::before_call(),
        CAP_SYS_MODULE => refuse(
            call::DELETE_MODULE,
            call::DELETE_MODULE,
            Activity::Module,
            Target::Host,
        ),
        CAP_SYS_RAWIO => refuse(call::IOPL, call::IOPERM, Activity::RawMemory, Target::Host),
        CAP_DAC_READ_SEARCH => refuse(
            call::OPEN_BY_HANDLE_AT,
            call::I386_OPEN_BY_HANDLE_AT,
            Activity::OpenByHandle,
            Target::Own,
        ),
        _ => 0,
    }
}

/// In one of two calls.
#[inline(always)]
fn refuse(one: u64, other: u64, activity: Activity, target: Target) -> i32 {
    let Some(bound) = bound() else { return 0 };
    let call = call::current();
    if call != one && call != other {
        return 0;
    }
    bound.refuse_act(activity, target)
}
