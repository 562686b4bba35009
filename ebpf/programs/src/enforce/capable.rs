//! Capabilities: what policy says of using one, and what the kernel asks before an act by a
//! capability only.
//!
//! It is asked after the kernel's own answer, so only about what a process has, and it may be asked
//! several times in a call, which may go on without. Acts are only refused here, and counted under
//! audit when they have happened; of a capability each asking is one use, refused or counted.

use aya_ebpf::{helpers::generated::bpf_send_signal, macros::lsm, programs::LsmContext};
use paddock_abi::{
    activity::Activity,
    counters::Ring,
    namespace::Target,
    policy::{ACTION_ALLOW, ACTION_AUDIT, ACTION_KILL, CAPABILITY_CELLS, action},
    record::{CapabilityDenial, kind},
};

use super::{
    Bound, EPERM, Held, SIGKILL, anybody, bound, call, count, mount, namespace, own_action,
};
use crate::{
    admit::asking_is_told,
    count::{tell, write_header},
    once::{Runs, once},
    task::{Identity, own_credentials},
};

/// <https://github.com/torvalds/linux/blob/v6.18/include/uapi/linux/capability.h>
const CAP_DAC_READ_SEARCH: u32 = 2;
const CAP_SYS_MODULE: u32 = 16;
const CAP_SYS_RAWIO: u32 = 17;
pub(super) const CAP_SYS_ADMIN: u32 = 21;
/// The kernel looks what it may show, and nobody has tried anything:
/// <https://github.com/torvalds/linux/blob/v6.18/include/linux/security.h>
const CAP_OPT_NOAUDIT: u32 = 2;

#[lsm(hook = "capable")]
fn lsm_capable(ctx: LsmContext) -> i32 {
    if !anybody() {
        return 0;
    }
    let capability = ctx.arg::<u32>(2);
    let (bound, refused) = if capability == CAP_SYS_ADMIN {
        let Some(asked) = administration() else {
            return 0;
        };
        asked
    } else {
        let Some(bound) = bound() else { return 0 };
        (bound, act(&bound, capability))
    };
    if refused != 0 {
        return refused;
    }
    // overlayfs asks with those of who mounted it, to read what is in its layers.
    if ctx.arg::<u64>(0) != own_credentials() {
        return 0;
    }
    bound.answer_use(capability, ctx.arg::<u32>(3) & CAP_OPT_NOAUDIT != 0)
}

/// By CAP_SYS_ADMIN. Who is in a namespace call was found at its entry.
#[inline(always)]
fn administration() -> Option<(Bound, i32)> {
    let number = call::current();
    if call::is_of_namespaces(number)
        && let Some(call) = namespace::call_in_flight()
    {
        let who = Identity::of_call(call);
        let held = Held::of(&who)?;
        // Set-up, or let through already: the kernel asks twice.
        if call.exempt != 0 || call.let_through == held.ruleset {
            return None;
        }
        let bound = Bound::by(held)?;
        return Some((bound, namespace::before_call(&bound, call)));
    }
    let bound = bound()?;
    Some((bound, mount::before_call(&bound, number)))
}

#[inline(always)]
fn act(bound: &Bound, capability: u32) -> i32 {
    match capability {
        CAP_SYS_MODULE => refuse(
            bound,
            [call::DELETE_MODULE, call::DELETE_MODULE],
            Activity::Module,
            Target::Host,
        ),
        CAP_SYS_RAWIO => refuse(
            bound,
            [call::IOPL, call::IOPERM],
            Activity::RawMemory,
            Target::Host,
        ),
        CAP_DAC_READ_SEARCH => refuse(
            bound,
            [call::OPEN_BY_HANDLE_AT, call::I386_OPEN_BY_HANDLE_AT],
            Activity::OpenByHandle,
            Target::Own,
        ),
        _ => 0,
    }
}

/// In one of two calls.
#[inline(always)]
fn refuse(bound: &Bound, calls: [u64; 2], activity: Activity, target: Target) -> i32 {
    let call = call::current();
    if call != calls[0] && call != calls[1] {
        return 0;
    }
    bound.refuse_act(activity, target)
}

impl Bound {
    #[inline(always)]
    fn use_cell(&self, capability: u32) -> u16 {
        let index = capability as usize & (CAPABILITY_CELLS - 1);
        // SAFETY: below the array's length, as in `Bound::cell`.
        unsafe {
            self.answers
                .capabilities
                .as_ptr()
                .add(index)
                .read_volatile()
        }
    }

    /// Whether nothing is to be said of using it.
    #[inline(always)]
    pub(super) fn allows_use(&self, capability: u32) -> bool {
        action(self.use_cell(capability)) == ACTION_ALLOW
    }

    #[inline(always)]
    fn answer_use(&self, capability: u32, silent: bool) -> i32 {
        let cell = self.use_cell(capability);
        let action = own_action(cell);
        if action == ACTION_ALLOW {
            return 0;
        }
        if action == ACTION_AUDIT {
            // While two generations of programs are here both are asked.
            if !silent && once(Runs::NewestFirst) {
                self.tell_use(cell, action, capability);
            }
            return 0;
        }
        if !silent {
            self.tell_use(cell, action, capability);
            if action == ACTION_KILL {
                // SAFETY: the helper has no preconditions. Where it fails the use does, too.
                unsafe { bpf_send_signal(SIGKILL) };
            }
        }
        EPERM
    }

    #[inline(always)]
    fn tell_use(&self, cell: u16, action: u16, capability: u32) {
        let key = self.hit(cell, action);
        count(key);
        if !asking_is_told(self.who.slot, capability) {
            return;
        }
        tell(
            Ring::Critical,
            self.who.slot,
            #[inline(always)]
            |record: *mut CapabilityDenial| {
                // SAFETY: reserved memory of this record's size; each field is written.
                unsafe {
                    write_header(
                        &raw mut (*record).header,
                        kind::CAPABILITY_DENIAL,
                        self.who.slot,
                        &self.who,
                    );
                    (&raw mut (*record).ruleset).write(key.ruleset);
                    (&raw mut (*record).rule).write(key.rule);
                    (&raw mut (*record).action).write(key.action);
                    (&raw mut (*record).capability).write(capability);
                }
            },
        );
    }
}
