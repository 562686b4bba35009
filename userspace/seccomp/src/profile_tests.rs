//! Reading: which rules hold where, and one line for whatever is wrong.

use super::*;

const HERE: Host<'_> = Host {
    arch: Arch::X86_64,
    kernel: (4, 7),
    capabilities: &[],
};

fn refused(text: &str) -> String {
    let error = match Profile::parse(text) {
        Ok(profile) => profile.compile(&HERE).unwrap_err(),
        Err(error) => error,
    };
    let line = error.to_string();
    assert!(!line.contains('\n') && line.len() < 1000, "{line}");
    line
}

/// A profile with one rule; `more` goes into the rule.
fn with_rule(more: &str) -> String {
    format!(
        r#"{{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{{"names":["read"],"action":"SCMP_ACT_ALLOW"{more}}}]}}"#
    )
}

#[test]
fn what_is_wrong_is_told_in_one_line() {
    for (text, says) in [
        (String::new(), "EOF"),
        ("[]".into(), "line 1"),
        ("{}".into(), "defaultAction"),
        (r#"{"defaultAction":"SCMP_ACT_MAYBE"}"#.into(), "SCMP_ACT_MAYBE"),
        (r#"{"defaultAction":7}"#.into(), "line 1"),
        (r#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#.into(), "SCMP_ACT_NOTIFY"),
        (
            r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":4096}"#.into(),
            "defaultErrnoRet: errno 4096",
        ),
        (
            r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_PDP11"]}"#.into(),
            "SCMP_ARCH_PDP11",
        ),
        (
            r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86"],"archMap":[{"architecture":"SCMP_ARCH_X86_64"}]}"#.into(),
            "archMap",
        ),
        (
            r#"{"defaultAction":"SCMP_ACT_ALLOW","flags":["SECCOMP_FILTER_FLAG_X"]}"#.into(),
            "SECCOMP_FILTER_FLAG_X",
        ),
        (
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"action":"SCMP_ACT_LOG"}]}"#.into(),
            "rule 1: no syscall",
        ),
        (with_rule(r#","name":"write""#), "'names'"),
        (with_rule(r#","errnoRet":1"#), "SCMP_ACT_ALLOW returns no errno"),
        (with_rule(r#","args":[{"index":6,"value":1,"op":"SCMP_CMP_EQ"}]"#), "argument 6"),
        (with_rule(r#","args":[{"index":0,"value":-1,"op":"SCMP_CMP_EQ"}]"#), "-1"),
        (with_rule(r#","args":[{"index":0,"value":1,"op":"SCMP_CMP_IN"}]"#), "SCMP_CMP_IN"),
        (with_rule(r#","args":[{"index":0,"op":"SCMP_CMP_EQ"}]"#), "value"),
        (with_rule(r#","includes":{"minKernel":"4"}"#), "4.8"),
        (with_rule(r#","includes":{"minKernel":"x.y"}"#), "x.y"),
        (with_rule(&format!(r#","args":{}"#, "[".repeat(100_000))), "line 1"),
        (with_rule(&format!(r#","x":"{}""#, "x".repeat(1 << 20))), "1048576"),
    ] {
        let line = refused(&text);
        assert!(line.contains(says), "{says:?} is not in {line:?}");
    }
}

#[test]
fn unknown_fields_and_other_machines_are_no_error() {
    let text = r#"{"defaultAction":"SCMP_ACT_ALLOW","comment":{"a":[1]},
        "architectures":["SCMP_ARCH_S390X","SCMP_ARCH_X86","SCMP_ARCH_NATIVE"],
        "flags":["SECCOMP_FILTER_FLAG_LOG","SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]}"#;
    let rules = Profile::parse(text).unwrap().rules(&HERE).unwrap();
    assert_eq!(rules.architectures, [Arch::X86_64, Arch::X86]);
    assert_eq!(rules.flags, 34);
}

#[test]
fn every_runtime_allows_speculation_unless_told_otherwise() {
    let rules = |text| Profile::parse(text).unwrap().rules(&HERE).unwrap();
    assert_eq!(
        rules(r#"{"defaultAction":"SCMP_ACT_ALLOW"}"#).flags,
        SPEC_ALLOW
    );
    assert_eq!(
        rules(r#"{"defaultAction":"SCMP_ACT_ALLOW","flags":[]}"#).flags,
        0
    );
}

#[test]
fn a_map_gives_the_hosts_companions() {
    let text = r#"{"defaultAction":"SCMP_ACT_ALLOW","archMap":[
        {"architecture":"SCMP_ARCH_AARCH64","subArchitectures":["SCMP_ARCH_ARM"]},
        {"architecture":"SCMP_ARCH_X86_64","subArchitectures":["SCMP_ARCH_X86","SCMP_ARCH_X32"]},
        {"architecture":"SCMP_ARCH_RISCV64","subArchitectures":null}]}"#;
    let profile = Profile::parse(text).unwrap();
    let archs = |arch| profile.rules(&Host { arch, ..HERE }).unwrap().architectures;
    assert_eq!(archs(Arch::X86_64), [Arch::X86_64, Arch::X86, Arch::X32]);
    assert_eq!(archs(Arch::Aarch64), [Arch::Aarch64, Arch::Arm]);
    assert_eq!(archs(Arch::Arm), [Arch::Arm]);
}

#[test]
fn conditions_on_the_host_choose_the_rules() {
    let admin = ["CAP_SYS_ADMIN".to_owned()];
    let new = Host {
        kernel: (6, 1),
        capabilities: &admin,
        ..HERE
    };
    for (more, old_has, new_has) in [
        ("", true, true),
        (r#","includes":{"caps":["CAP_SYS_ADMIN"]}"#, false, true),
        (r#","excludes":{"caps":["CAP_SYS_ADMIN"]}"#, true, false),
        (
            r#","includes":{"caps":["CAP_SYS_ADMIN","CAP_BPF"]}"#,
            false,
            false,
        ),
        (
            r#","excludes":{"caps":["CAP_SYS_ADMIN","CAP_BPF"]}"#,
            true,
            false,
        ),
        (r#","includes":{"minKernel":"4.8"}"#, false, true),
        (r#","excludes":{"minKernel":"4.8"}"#, true, false),
        (r#","includes":{"minKernel":""}"#, true, true),
        (r#","includes":{"arches":["amd64","x32"]}"#, true, true),
        (r#","includes":{"arches":["arm64"]}"#, false, false),
        (r#","excludes":{"arches":["amd64"]}"#, false, false),
        (r#","includes":{},"excludes":{}"#, true, true),
    ] {
        let profile = Profile::parse(&with_rule(more)).unwrap();
        let has = |host| !profile.rules(host).unwrap().list.is_empty();
        assert_eq!((has(&HERE), has(&new)), (old_has, new_has), "{more}");
    }
}

#[test]
fn two_tests_of_one_argument_are_alternatives() {
    let text = with_rule(
        r#","args":[{"index":0,"value":1,"op":"SCMP_CMP_EQ"},{"index":0,"value":2,"op":"SCMP_CMP_EQ"}]"#,
    );
    let rules = Profile::parse(&text).unwrap().rules(&HERE).unwrap().list;
    assert_eq!(rules.len(), 2);
    let text = with_rule(
        r#","args":[{"index":0,"value":1,"op":"SCMP_CMP_EQ"},{"index":1,"value":2,"op":"SCMP_CMP_EQ"}]"#,
    );
    let rules = Profile::parse(&text).unwrap().rules(&HERE).unwrap().list;
    assert_eq!((rules.len(), rules[0].conditions.len()), (1, 2));
}
