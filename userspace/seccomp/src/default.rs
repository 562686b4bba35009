//! The profile of a container that asks for none: what Docker's lets through, and no more.
//!
//! The rules are those of moby's default profile (`seccomp/default.json`, v0.3.0): an allow
//! list, EPERM for the rest, some calls only with the capability that makes them useful. One
//! rule is stricter: the kernel reads a socket's family as 32 bits, so that
//! `socket(AF_VSOCK | 1 << 32)` passes a comparison of the whole register; here the upper half
//! must be zero. Still open, as in Docker: i386's socketcall, whose arguments lie in memory.

use crate::{
    Arch, Host,
    action::{ALLOW, Action, EPERM},
    rules::{Condition, Rule, Rules, Test},
};

const ENOSYS: u16 = 38;

/// Paths, directories, metadata, mounts seen.
const FILES: &str = "access chdir chmod chown chown32 creat faccessat faccessat2 fchdir fchmod \
    fchmodat fchmodat2 fchown fchown32 fchownat fgetxattr flistxattr fremovexattr fsetxattr \
    fstat fstat64 fstatat64 fstatfs fstatfs64 futimesat getcwd getdents getdents64 getxattr \
    getxattrat lchown lchown32 lgetxattr link linkat listmount listxattr listxattrat llistxattr \
    lremovexattr lsetxattr lstat lstat64 mkdir mkdirat mknod mknodat name_to_handle_at \
    newfstatat open openat openat2 readlink readlinkat removexattr removexattrat rename renameat \
    renameat2 rmdir setxattr setxattrat stat stat64 statfs statfs64 statmount statx symlink \
    symlinkat truncate truncate64 umask unlink unlinkat utime utimensat utimensat_time64 utimes";

/// Descriptors and what is read and written through them.
const DESCRIPTORS: &str = "_llseek cachestat close close_range copy_file_range dup dup2 dup3 \
    fadvise64 fadvise64_64 fallocate fcntl fcntl64 fdatasync flock fsync ftruncate ftruncate64 \
    io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit \
    ioctl lseek memfd_create memfd_secret pipe pipe2 pread64 preadv preadv2 pwrite64 pwritev \
    pwritev2 read readahead readv sendfile sendfile64 splice sync sync_file_range syncfs tee \
    vmsplice write writev";

/// Waiting for something to happen.
const EVENTS: &str = "_newselect epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait \
    epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 fanotify_mark inotify_add_watch \
    inotify_init inotify_init1 inotify_rm_watch pause poll ppoll ppoll_time64 pselect6 \
    pselect6_time64 select signalfd signalfd4";

const MEMORY: &str = "brk madvise map_shadow_stack membarrier mincore mlock mlock2 mlockall mmap \
    mmap2 mprotect mremap mseal msync munlock munlockall munmap pkey_alloc pkey_free \
    pkey_mprotect process_mrelease remap_file_pages";

/// Life of processes and threads, and their limits.
const PROCESSES: &str = "execve execveat exit exit_group fork get_robust_list get_thread_area \
    getcpu getpgid getpgrp getpid getppid getpriority getrlimit getrusage getsid gettid \
    ioprio_get ioprio_set pidfd_open prctl prlimit64 restart_syscall riscv_hwprobe rseq \
    sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr \
    sched_getparam sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64 \
    sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield \
    set_robust_list set_thread_area set_tid_address setpgid setpriority setrlimit setsid sysinfo \
    ugetrlimit uname uretprobe vfork wait4 waitid waitpid";

/// Who a process is; confining itself further.
const CREDENTIALS: &str = "capget capset getegid getegid32 geteuid geteuid32 getgid getgid32 \
    getgroups getgroups32 getrandom getresgid getresgid32 getresuid getresuid32 getuid getuid32 \
    landlock_add_rule landlock_create_ruleset landlock_restrict_self seccomp setfsgid setfsgid32 \
    setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setregid setregid32 setresgid \
    setresgid32 setresuid setresuid32 setreuid setreuid32 setuid setuid32";

const SIGNALS: &str = "kill pidfd_send_signal rt_sigaction rt_sigpending rt_sigprocmask \
    rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 \
    rt_tgsigqueueinfo sigaltstack sigprocmask sigreturn tgkill tkill";

const TIME: &str = "adjtimex alarm clock_adjtime clock_adjtime64 clock_getres \
    clock_getres_time64 clock_gettime clock_gettime64 clock_nanosleep clock_nanosleep_time64 \
    getitimer gettimeofday nanosleep setitimer time timer_create timer_delete timer_getoverrun \
    timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create timerfd_gettime \
    timerfd_gettime64 timerfd_settime timerfd_settime64 times";

const SOCKETS: &str = "accept accept4 bind connect getpeername getsockname getsockopt listen \
    recv recvfrom recvmmsg recvmmsg_time64 recvmsg send sendmmsg sendmsg sendto setsockopt \
    shutdown socketcall socketpair";

/// Futexes, message queues, semaphores, shared memory.
const COMMUNICATION: &str = "futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake \
    ipc mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend \
    mq_timedsend_time64 mq_unlink msgctl msgget msgrcv msgsnd semctl semget semop semtimedop \
    semtimedop_time64 shmat shmctl shmdt shmget";

/// What a capability opens.
const BY_CAPABILITY: [(&str, &str); 13] = [
    ("CAP_BPF", "bpf"),
    ("CAP_DAC_READ_SEARCH", "open_by_handle_at"),
    ("CAP_PERFMON", "perf_event_open"),
    (
        "CAP_SYS_ADMIN",
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie \
        lsm_get_self_attr lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount \
        open_tree perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog \
        umount umount2 unshare",
    ),
    ("CAP_SYS_BOOT", "reboot"),
    ("CAP_SYS_CHROOT", "chroot"),
    ("CAP_SYS_MODULE", "delete_module finit_module init_module"),
    (
        "CAP_SYS_NICE",
        "get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
    ),
    ("CAP_SYS_PACCT", "acct"),
    (
        "CAP_SYS_PTRACE",
        "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace",
    ),
    ("CAP_SYS_RAWIO", "ioperm iopl"),
    (
        "CAP_SYS_TIME",
        "clock_settime clock_settime64 settimeofday stime",
    ),
    ("CAP_SYS_TTY_CONFIG", "vhangup"),
];
const SYSLOG: (&str, &str) = ("CAP_SYSLOG", "syslog");

/// Safe to leave to every process since ptrace can't get around a filter any more.
const PTRACE: &str = "process_vm_readv process_vm_writev ptrace";
const PTRACE_SINCE: (u32, u32) = (4, 8);

/// `PER_LINUX` and `PER_LINUX32`, both with and without `UNAME26`, and asking.
const PERSONALITIES: [u64; 5] = [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

const AF_ALG: u64 = 38;
const AF_VSOCK: u64 = 40;

/// All of `CLONE_NEW*` but time's, which clone can't say.
const CLONE_NAMESPACES: u64 = 0x7e02_0000;

/// For a container with these capabilities in its bounding set, on this host.
pub(crate) fn rules(host: &Host<'_>) -> Rules {
    let mut rules = Rules::new(Action::Errno(EPERM).value(), host.arch.family());
    let mut allow = |names: &str| rules.push(names, ALLOW, &[]);
    for names in [
        FILES,
        DESCRIPTORS,
        EVENTS,
        MEMORY,
        PROCESSES,
        CREDENTIALS,
        SIGNALS,
        TIME,
        SOCKETS,
        COMMUNICATION,
    ] {
        allow(names);
    }
    if host.kernel >= PTRACE_SINCE {
        allow(PTRACE);
    }
    match host.arch {
        Arch::X86_64 | Arch::X32 => allow("arch_prctl modify_ldt"),
        Arch::X86 => allow("modify_ldt"),
        Arch::Aarch64 | Arch::Arm => allow(
            "arm_fadvise64_64 arm_sync_file_range breakpoint cacheflush set_tls sync_file_range2",
        ),
    }
    for (capability, names) in BY_CAPABILITY.into_iter().chain([SYSLOG]) {
        if host.has(capability) {
            allow(names);
        }
    }
    if !host.has("CAP_SYS_ADMIN") {
        let no_namespace = Test::MaskedEqual {
            mask: CLONE_NAMESPACES,
            value: 0,
        };
        rules.push("clone", ALLOW, &[on(0, no_namespace)]);
        // Its flags are in memory, out of a filter's sight: libc falls back to clone.
        rules.push("clone3", Action::Errno(ENOSYS).value(), &[]);
    }
    for value in PERSONALITIES {
        rules.push("personality", ALLOW, &[on(0, Test::Equal(value))]);
    }
    rules.push("socket", ALLOW, &[on(0, Test::Less(AF_ALG))]);
    rules.push("socket", ALLOW, &[on(0, Test::Equal(AF_ALG + 1))]);
    let upper_half_zero = on(0, Test::LessOrEqual(u64::from(u32::MAX)));
    rules.push(
        "socket",
        ALLOW,
        &[on(0, Test::Greater(AF_VSOCK)), upper_half_zero],
    );
    rules
}

pub(crate) const fn on(index: u8, test: Test) -> Condition {
    Condition { index, test }
}

impl Rules {
    pub(crate) fn push(&mut self, names: &str, action: u32, conditions: &[Condition]) {
        self.list.push(Rule {
            names: names.split_whitespace().map(str::to_owned).collect(),
            action,
            conditions: conditions.to_vec(),
        });
    }
}
