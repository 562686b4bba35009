//! The stricter profile: the default's rules with less in them, for programs that serve and compute.
//!
//! What goes is what lets one process look into another, what has been a way into the kernel
//! more often than a use of it, and every door but the machine's own: i386's and x32's calls end
//! the program, so that socketcall, whose arguments no filter sees, is out of reach. Sockets are
//! Unix, IPv4, IPv6 and routing's netlink (which libc asks for addresses). A capability that is
//! given by name still opens what it opens in the default profile.

use crate::{
    Host,
    action::{ALLOW, Action},
    default::{self, on},
    rules::{Condition, Rules, Test},
};

/// Allowed by default and to nobody here; some come back below, under conditions.
const GONE: &str = "adjtimex clock_adjtime clock_adjtime64 fanotify_mark ioctl memfd_secret \
    modify_ldt name_to_handle_at personality process_mrelease remap_file_pages socket tee \
    vmsplice";

/// Left only to who has `CAP_SYS_PTRACE`.
const TRACING: &str = "process_vm_readv process_vm_writev ptrace";

const AF_UNIX: u64 = 1;
const AF_INET: u64 = 2;
const AF_INET6: u64 = 10;
const AF_NETLINK: u64 = 16;
const NETLINK_ROUTE: u64 = 0;

/// `PER_LINUX`, and asking.
const PERSONALITIES: [u64; 2] = [0, 0xffff_ffff];

/// Types into a terminal as if its user did; what a kernel without it answers
/// (`dev.tty.legacy_tiocsti`, 6.2) is EIO.
const TIOCSTI: u64 = 0x5412;
const EIO: u16 = 5;

/// An `int` for the kernel, whatever the rest of the register holds.
const INT: u64 = 0xffff_ffff;

pub(crate) fn rules(host: &Host<'_>) -> Rules {
    let mut rules = default::rules(host);
    rules.architectures = vec![host.arch];
    let traces = host.has("CAP_SYS_PTRACE");
    let gone = |name: &String| {
        let among = |list: &str| list.split_whitespace().any(|one| one == name);
        among(GONE) || (among(TRACING) && !traces)
    };
    for rule in &mut rules.list {
        rule.names.retain(|name| !gone(name));
    }
    rules.list.retain(|rule| !rule.names.is_empty());
    let is = |index, value| on(index, Test::MaskedEqual { mask: INT, value });
    for family in [AF_UNIX, AF_INET, AF_INET6] {
        rules.push("socket", ALLOW, &[is(0, family)]);
    }
    let route = [is(0, AF_NETLINK), is(2, NETLINK_ROUTE)];
    rules.push("socket", ALLOW, &route);
    for value in PERSONALITIES {
        rules.push("personality", ALLOW, &[is(0, value)]);
    }
    // The first that holds counts, as long as each has a condition.
    rules.push("ioctl", Action::Errno(EIO).value(), &[is(1, TIOCSTI)]);
    rules.push("ioctl", ALLOW, &[ALWAYS]);
    rules
}

const ALWAYS: Condition = on(0, Test::MaskedEqual { mask: 0, value: 0 });
