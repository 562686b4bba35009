//! i386's two doors to many calls: socketcall(2) and ipc(2), their first argument the number.
//!
//! A rule that names `socket` must hold for `socketcall(1, …)` too, as libseccomp has it. A
//! rule with conditions can't: the real arguments lie in memory.

use crate::rules::{Condition, Test};

const SOCKETCALL: [(&str, u64); 20] = [
    ("socket", 1),
    ("bind", 2),
    ("connect", 3),
    ("listen", 4),
    ("accept", 5),
    ("getsockname", 6),
    ("getpeername", 7),
    ("socketpair", 8),
    ("send", 9),
    ("recv", 10),
    ("sendto", 11),
    ("recvfrom", 12),
    ("shutdown", 13),
    ("setsockopt", 14),
    ("getsockopt", 15),
    ("sendmsg", 16),
    ("recvmsg", 17),
    ("accept4", 18),
    ("recvmmsg", 19),
    ("sendmmsg", 20),
];

const IPC: [(&str, u64); 12] = [
    ("semop", 1),
    ("semget", 2),
    ("semctl", 3),
    ("semtimedop", 4),
    ("msgsnd", 11),
    ("msgrcv", 12),
    ("msgget", 13),
    ("msgctl", 14),
    ("shmat", 21),
    ("shmdt", 22),
    ("shmget", 23),
    ("shmctl", 24),
];

/// The door's name and the condition that it is this call, where there is one.
pub(crate) fn door(name: &str) -> Option<(&'static str, Condition)> {
    let find = |table: &[(&str, u64)]| table.iter().find(|(call, _)| *call == name).map(|x| x.1);
    let (door, number) = match (find(&SOCKETCALL), find(&IPC)) {
        (Some(number), _) => ("socketcall", number),
        (None, Some(number)) => ("ipc", number),
        (None, None) => return None,
    };
    let test = Test::Equal(number);
    Some((door, Condition { index: 0, test }))
}
