#!/usr/bin/env python3
"""Records what libseccomp makes of a profile: PROFILE.json -> PROFILE.bpf.

    apt-get install python3-seccomp
    /usr/bin/python3 userspace/seccomp/tests/libseccomp/record.py userspace/seccomp/tests/libseccomp/*.json

The rules go in as runc puts them in. Names that the installed libseccomp does not know are
taken out of the profile's file, so that both sides compile the same. Recorded with Debian 12's
libseccomp 2.5.4; the unit tests compare.
"""

import json
import sys

import seccomp

ARCHES = {
    "SCMP_ARCH_X86_64": seccomp.Arch.X86_64,
    "SCMP_ARCH_X86": seccomp.Arch.X86,
    "SCMP_ARCH_X32": seccomp.Arch.X32,
    "SCMP_ARCH_AARCH64": seccomp.Arch.AARCH64,
    "SCMP_ARCH_ARM": seccomp.Arch.ARM,
}
OPS = {
    "SCMP_CMP_NE": seccomp.NE,
    "SCMP_CMP_LT": seccomp.LT,
    "SCMP_CMP_LE": seccomp.LE,
    "SCMP_CMP_EQ": seccomp.EQ,
    "SCMP_CMP_GE": seccomp.GE,
    "SCMP_CMP_GT": seccomp.GT,
    "SCMP_CMP_MASKED_EQ": seccomp.MASKED_EQ,
}


def action(name, errno):
    errno = 1 if errno is None else errno
    return {
        "SCMP_ACT_KILL": seccomp.KILL,
        "SCMP_ACT_KILL_PROCESS": seccomp.KILL_PROCESS,
        "SCMP_ACT_TRAP": seccomp.TRAP,
        "SCMP_ACT_ERRNO": seccomp.ERRNO(errno),
        "SCMP_ACT_TRACE": seccomp.TRACE(errno),
        "SCMP_ACT_LOG": seccomp.LOG,
        "SCMP_ACT_NOTIFY": seccomp.NOTIFY,
        "SCMP_ACT_ALLOW": seccomp.ALLOW,
    }[name]


def known(name):
    try:
        return any(seccomp.resolve_syscall(arch, name) != -1 for arch in ARCHES.values())
    except Exception:
        return False


def condition(arg):
    if arg["op"] == "SCMP_CMP_MASKED_EQ":
        return seccomp.Arg(arg["index"], OPS[arg["op"]], arg["value"], arg["valueTwo"])
    return seccomp.Arg(arg["index"], OPS[arg["op"]], arg["value"])


for path in sys.argv[1:]:
    with open(path) as file:
        profile = json.load(file)
    default = action(profile["defaultAction"], profile.get("defaultErrnoRet"))
    filter = seccomp.SyscallFilter(defaction=default)
    arches = [ARCHES[name] for name in profile["architectures"]]
    for arch in arches:
        if not filter.exist_arch(arch):
            filter.add_arch(arch)
    for arch in set(ARCHES.values()) - set(arches):
        if filter.exist_arch(arch):
            filter.remove_arch(arch)
    for rule in profile["syscalls"]:
        rule["names"] = [name for name in rule["names"] if known(name)]
        what = action(rule["action"], rule.get("errnoRet"))
        if what == default:
            continue
        args = [condition(arg) for arg in rule.get("args", [])]
        for name in rule["names"]:
            filter.add_rule(what, name, *args)
    profile["syscalls"] = [rule for rule in profile["syscalls"] if rule["names"]]
    with open(path, "w") as file:
        rules = ",\n".join("  " + json.dumps(rule) for rule in profile.pop("syscalls"))
        head = json.dumps(profile, indent=1)[:-2]
        file.write(head + ',\n "syscalls": [\n' + rules + "\n ]\n}\n")
    with open(path.removesuffix(".json") + ".bpf", "wb") as file:
        filter.export_bpf(file)
