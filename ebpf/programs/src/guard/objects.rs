//! Maps, programs and links: nobody else gets a descriptor of one.
//!
//! A read-only one of a map would do: a program may write through it, and so may a map of maps.
//! A link's pin is opened without a question; what can be done with its descriptor is asked for.

use aya_ebpf::{macros::lsm, programs::LsmContext};
use paddock_abi::guard::{ObjectKey, Tampered, mode};

use super::{current_mode, show, touched};
use crate::{
    maps::GUARDED,
    offsets::*,
    read::{Reader, Typed, at, field, pointer},
    selftest,
    target::file_of,
    task,
};

/// <https://github.com/torvalds/linux/blob/v6.18/include/uapi/linux/bpf.h>
const LINK_UPDATE: u32 = 29;
const LINK_GET_FD_BY_ID: u32 = 30;
const LINK_DETACH: u32 = 34;

#[lsm(hook = "bpf")]
fn guard_bpf(ctx: LsmContext) -> i32 {
    show();
    let command = ctx.arg::<u32>(0);
    if selftest::on() {
        selftest::observe(selftest::GUARD, task::current(), i64::from(command));
        return 0;
    }
    if current_mode() == mode::OFF {
        return 0;
    }
    let id = match command {
        // The first word of each: an id, or a descriptor.
        LINK_GET_FD_BY_ID => at(ctx.arg(1)),
        LINK_UPDATE | LINK_DETACH => {
            let file = file_of(at(ctx.arg(1)));
            field(pointer(file, &OFF_FILE_PRIVATE_DATA), &OFF_BPF_LINK_ID)
        }
        _ => return 0,
    };
    reached(Tampered::Link, id)
}

#[lsm(hook = "bpf_map")]
fn guard_bpf_map(ctx: LsmContext) -> i32 {
    if current_mode() == mode::OFF {
        return 0;
    }
    reached(Tampered::Map, Typed::field(ctx.arg(0), &OFF_BPF_MAP_ID))
}

#[lsm(hook = "bpf_prog")]
fn guard_bpf_prog(ctx: LsmContext) -> i32 {
    if current_mode() == mode::OFF {
        return 0;
    }
    let aux = Typed::pointer(ctx.arg(0), &OFF_BPF_PROG_AUX);
    reached(Tampered::Program, Typed::field(aux, &OFF_BPF_AUX_ID))
}

#[inline(always)]
fn reached(kind: Tampered, id: u32) -> i32 {
    let key = ObjectKey {
        kind: kind as u32,
        id,
    };
    if GUARDED.get_ptr_mut(key).is_none() {
        return 0;
    }
    touched(kind, id)
}
