//! What a filter answers, in the kernel's numbers: `SECCOMP_RET_*` of
//! [seccomp(2)](https://man7.org/linux/man-pages/man2/seccomp.2.html), all there since 5.0.

pub(crate) const EPERM: u16 = 1;
/// `SCMP_ACT_KILL`, what libseccomp answers to a foreign architecture.
pub(crate) const KILL_THREAD: u32 = 0;
pub(crate) const ALLOW: u32 = 0x7fff_0000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    KillThread,
    KillProcess,
    Trap,
    Errno(u16),
    Notify,
    Trace(u16),
    Log,
    Allow,
}

impl Action {
    pub(crate) const fn value(self) -> u32 {
        match self {
            Self::KillThread => KILL_THREAD,
            Self::KillProcess => 0x8000_0000,
            Self::Trap => 0x0003_0000,
            Self::Errno(errno) => 0x0005_0000 | errno as u32,
            Self::Notify => 0x7fc0_0000,
            Self::Trace(data) => 0x7ff0_0000 | data as u32,
            Self::Log => 0x7ffc_0000,
            Self::Allow => ALLOW,
        }
    }
}
