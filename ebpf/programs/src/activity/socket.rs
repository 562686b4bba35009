//! Connections to a container runtime's socket.

use paddock_abi::{
    activity::Activity,
    key::{FileKey, runtime_file},
    namespace::Target,
};

use super::{Act, Text, judge, syscalls::Call, watched};
use crate::{
    maps::RUNTIME_FILES,
    offsets::*,
    read::{field, pointer},
    selftest,
    target::file_of,
    task,
};

const AF_UNIX: u16 = 1;

/// After a connect: the peer's own inode tells whose socket it is, not the path that was given.
#[inline(always)]
pub(super) fn connect(call: &Call) {
    let task = task::current();
    let file = file_of(call.arg0() as i32);
    let sock = pointer(pointer(file, &OFF_FILE_PRIVATE_DATA), &OFF_SOCKET_SK);
    let family: u16 = field(sock, &OFF_SOCK_FAMILY);
    if selftest::on() {
        selftest::observe(selftest::CONNECT, task, i64::from(family));
        return;
    }
    if family != AF_UNIX || call.ret < 0 {
        return;
    }
    let Some((_, who)) = watched() else { return };
    // The accepted side carries the listener's path.
    let Some(dentry) = runtimes(pointer(sock, &OFF_UNIX_PEER), who.slot) else {
        return;
    };
    judge(
        &who,
        &Act {
            object: Text::Kernel(pointer(dentry, &OFF_DENTRY_NAME)),
            ..Act::new(Activity::RuntimeSocket, Target::Host, call.ret)
        },
    );
}

/// The entry of a unix socket's file where it is a runtime's, and not that of the agent in the
/// container of `slot` itself.
#[inline(always)]
pub(crate) fn runtimes(sock: u64, slot: u32) -> Option<u64> {
    let path = sock.wrapping_add(u64::from(OFF_UNIX_PATH.load()));
    let dentry = pointer(path, &OFF_PATH_DENTRY);
    let inode = pointer(dentry, &OFF_DENTRY_INODE);
    if inode == 0 {
        return None;
    }
    let key = FileKey {
        inode: field(inode, &OFF_INODE_NUMBER),
        device: field(pointer(inode, &OFF_INODE_SB), &OFF_SB_DEV),
        pad: 0,
    };
    let kind = RUNTIME_FILES.get_ptr(key)?;
    // SAFETY: a live map value that only user space writes.
    let kind = unsafe { kind.read_volatile() };
    runtime_file::is_socket_for(kind, slot).then_some(dentry)
}
