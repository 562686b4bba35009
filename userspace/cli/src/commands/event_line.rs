//! An event as one line of a table: when, whose, how bad, what came of it, what it was, in words.
//!
//! Names that a container chose are made safe for a terminal.

use std::fmt::Write as _;

use paddock_agent::event::{Actor, Event, Kind, NamespaceTarget, Peer, Verdict};

use crate::{human, table};

pub(super) fn fit(line: &str, width: Option<usize>) -> String {
    width.map_or_else(|| line.to_owned(), |width| table::cut(line, width))
}

pub(super) fn row(time: &str, container: &str, verdict: &str, result: &str, what: &str) -> String {
    let container = table::cut(container, 14);
    format!("{time:<12} {container:<14} {verdict:<7} {result:<8} {what}")
}

pub(super) fn line(event: &Event) -> String {
    let (verdict, result, what) = describe(&event.kind);
    let container = event.container.as_deref().unwrap_or("-");
    row(
        &human::clock(event.time_ns),
        &human::printable(container),
        verdict,
        &result,
        &human::printable(&what),
    )
}

/// An event in words.
pub(super) fn what(kind: &Kind) -> String {
    describe(kind).2
}

/// Verdict, result and the rest in words.
fn describe(kind: &Kind) -> (&'static str, String, String) {
    match kind {
        Kind::Container {
            action,
            exit_code,
            oom_killed,
        } => {
            let result = exit_code.map_or_else(|| "-".to_owned(), |code| format!("exit {code}"));
            let oom = if *oom_killed == Some(true) {
                ", out of memory"
            } else {
                ""
            };
            ("-", result, format!("container {action}{oom}"))
        }
        Kind::NamespaceCall {
            syscall,
            actor,
            outcome,
            errno,
            fd,
            targets,
            verdict,
            ..
        } => {
            let verdict = verdict_word(*verdict);
            let targets: Vec<String> = targets.iter().map(target).collect();
            let fd = fd.map_or_else(String::new, |fd| format!(" fd {fd}"));
            let what = format!("{syscall} {}{fd} by {}", targets.join(" "), who(actor));
            (
                verdict,
                errno.clone().unwrap_or_else(|| outcome.clone()),
                what,
            )
        }
        Kind::Activity {
            outcome,
            errno,
            verdict,
            ..
        } => (
            verdict_word(*verdict),
            errno.clone().unwrap_or_else(|| outcome.clone()),
            activity(kind),
        ),
        Kind::Denial { .. } | Kind::Reaction { .. } => {
            let (result, what) = by_policy(kind);
            ("policy", result, what)
        }
        Kind::Tampering {
            what,
            outcome,
            actor,
            object,
        } => {
            let by = actor.as_ref().map_or_else(|| "somebody".to_owned(), who);
            let object = object
                .as_deref()
                .map_or_else(String::new, |one| format!(" {one}"));
            (
                "tampering",
                outcome.clone(),
                format!("{what}{object} of paddock by {by}"),
            )
        }
        Kind::OomKill { .. } => ("oom", "killed".to_owned(), oom_kill(kind)),
        Kind::Exec { actor, filename } => (
            "-",
            "-".to_owned(),
            format!("exec {filename} by {}", who(actor)),
        ),
        Kind::Exit {
            actor,
            exit_code,
            signal,
        } => {
            let result = signal.map_or_else(
                || format!("exit {exit_code}"),
                |signal| format!("signal {signal}"),
            );
            ("-", result, format!("exit of {}", who(actor)))
        }
        Kind::Lost { count } => (
            "-",
            "lost".to_owned(),
            format!("{count} events: not stored, or this reader was too slow"),
        ),
        Kind::Limited { .. } => ("-", "limited".to_owned(), limited(kind)),
        Kind::Cgroup {
            action,
            actor,
            path,
            ..
        } => (
            "-",
            "-".to_owned(),
            format!("cgroup {action} {} by {}", short(path), who(actor)),
        ),
    }
}

/// `setns host by nsenter[4711], walls/joining`, `pause by walls/joining`; the result first.
fn by_policy(kind: &Kind) -> (String, String) {
    match kind {
        Kind::Denial {
            activity,
            actor,
            target,
            action,
            policy,
            rule,
            peer,
            capability,
            device,
            file,
            ..
        } => {
            let result = if action == "audit" {
                "allowed"
            } else {
                "denied"
            };
            let by = policy.as_deref().zip(rule.as_deref());
            let by = by.map_or_else(String::new, |(policy, rule)| format!(", {policy}/{rule}"));
            let peer = peer.as_ref().map(peer_in_words);
            let file = file
                .as_ref()
                .map(|file| format!("{} of {}", file.operation, human::printable(&file.path)));
            let named = [peer, capability.clone(), device.clone(), file];
            let named = named.into_iter().flatten().next();
            let target = named.unwrap_or_else(|| target.clone());
            let whose = actor
                .as_ref()
                .map_or_else(String::new, |actor| format!(" by {}", who(actor)));
            let what = format!("{activity} {target}{whose}{by}");
            (result.to_owned(), what)
        }
        Kind::Reaction {
            action,
            policy,
            rule,
            outcome,
            detail,
        } => {
            let detail = detail
                .as_ref()
                .map_or_else(String::new, |detail| format!(": {detail}"));
            (
                outcome.clone(),
                format!("{action} by {policy}/{rule}{detail}"),
            )
        }
        _ => (String::new(), String::new()),
    }
}

/// `tail[4711], main process at 64 MiB of /jobs, ancestor (memcg, as a group), for sh[4712]`.
fn oom_kill(kind: &Kind) -> String {
    let Kind::OomKill {
        victim,
        trigger,
        constraint,
        limit_bytes,
        main_process,
        level,
        limit_cgroup,
        group,
        ..
    } = kind
    else {
        return String::new();
    };
    let limit =
        limit_bytes.map_or_else(String::new, |limit| format!(" at {}", human::bytes(limit)));
    let main = if *main_process { ", main process" } else { "" };
    let whose = match level.as_deref() {
        Some(level @ ("nested" | "ancestor")) => {
            let path = limit_cgroup.as_deref().unwrap_or("a cgroup that is gone");
            format!(" of {path}, {level}")
        }
        _ => String::new(),
    };
    let all = if *group { ", as a group" } else { "" };
    let by = if trigger.pid == victim.pid {
        String::new()
    } else {
        format!(", for {}", who(trigger))
    };
    format!(
        "{}{main}{limit}{whose} ({constraint}{all}){by}",
        who(victim)
    )
}

fn limited(kind: &Kind) -> String {
    let Kind::Limited {
        action,
        reason,
        withheld,
    } = kind
    else {
        return String::new();
    };
    format!("telling less ({reason}) {action}, {withheld} records withheld")
}

/// `ptrace of host pid 4711 by gdb[4712]`.
fn activity(kind: &Kind) -> String {
    let Kind::Activity {
        activity,
        actor,
        target,
        object,
        place,
        other_pid,
        other_container,
        ..
    } = kind
    else {
        return String::new();
    };
    let mut what = format!("{activity} of {target}");
    let mut add = |word: &str, text: Option<String>| {
        if let Some(text) = text {
            let _ = write!(what, " {word}{text}");
        }
    };
    add("", object.clone());
    add("in ", place.clone());
    add("pid ", other_pid.map(|pid| pid.to_string()));
    add("of ", other_container.clone());
    add("by ", Some(who(actor)));
    what
}

fn verdict_word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Benign => "benign",
        Verdict::Notable => "notable",
        Verdict::EscapeAttempt => "attempt",
        Verdict::Escape => "escape",
    }
}

/// A path with whole ids cut to their first 12 digits, as `ps` shows them.
fn short(path: &str) -> String {
    let is_id = |part: &str| part.len() == 64 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    let parts = path.split('/').map(|part| {
        if is_id(part) {
            part.get(..12).unwrap_or(part)
        } else {
            part
        }
    });
    parts.collect::<Vec<_>>().join("/")
}

/// `egress tcp 10.0.0.1 port 443`
fn peer_in_words(peer: &Peer) -> String {
    let Peer {
        direction,
        protocol,
        address,
        port,
    } = peer;
    format!("{direction} {protocol} {address} port {port}")
}

/// `uts=host`.
fn target(target: &NamespaceTarget) -> String {
    format!("{}={}", target.namespace, target.target)
}

/// `nsenter[4711]`.
fn who(actor: &Actor) -> String {
    format!("{}[{}]", actor.comm, actor.pid)
}

/// Colours the whole line by how bad it is; the layout is done by now.
pub(super) fn paint(line: &str, event: &Event, colour: bool) -> String {
    let style = match &event.kind {
        Kind::NamespaceCall { verdict, .. } | Kind::Activity { verdict, .. } => match verdict {
            Verdict::Escape => "1;31",
            Verdict::EscapeAttempt => "33",
            Verdict::Benign | Verdict::Notable => return line.to_owned(),
        },
        Kind::OomKill { .. } => "35",
        Kind::Container { .. } => "36",
        _ => return line.to_owned(),
    };
    if colour {
        format!("\u{1b}[{style}m{line}\u{1b}[0m")
    } else {
        line.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn actor(comm: &str) -> Actor {
        Actor {
            pid: 4711,
            tid: 4711,
            uid: 0,
            comm: comm.into(),
            inner_pid: None,
            parent_pid: None,
            inner_uid: None,
            exe: None,
        }
    }

    fn event(kind: Kind) -> Event {
        Event {
            schema_version: 1,
            id: 1,
            time_ns: 1_700_000_000_123_456_789,
            container: Some("tunneler".into()),
            container_id: None,
            kind,
        }
    }

    fn escape(comm: &str) -> Event {
        event(Kind::NamespaceCall {
            syscall: "setns".into(),
            actor: actor(comm),
            outcome: "allowed".into(),
            errno: None,
            flags: 0,
            fd: Some(3),
            targets: vec![NamespaceTarget {
                namespace: "uts".into(),
                target: "host".into(),
                inode: Some(1),
            }],
            verdict: Verdict::Escape,
        })
    }

    #[test]
    fn an_escape_fits_80_columns_whole() {
        let text = line(&escape("nsenter"));
        assert_eq!(
            text,
            "22:13:20.123 tunneler       escape  allowed  setns uts=host fd 3 by nsenter[4711]"
        );
        assert!(fit(&text, Some(80)).chars().count() <= 80);
    }

    #[test]
    fn names_that_a_container_chose_are_made_safe() {
        let text = paint(&line(&escape("\u{1b}]0;x\u{7}")), &escape(""), false);
        assert!(
            text.contains("\\u{1b}]0;x\\u{7}") && !text.contains('\u{1b}'),
            "{text}"
        );
    }

    #[test]
    fn an_oom_kill_names_victim_and_limit() {
        let text = line(&event(Kind::OomKill {
            victim: actor("python3"),
            trigger: actor("python3"),
            constraint: "memcg".into(),
            limit_bytes: Some(64 << 20),
            main_process: true,
            level: Some("ancestor".into()),
            limit_cgroup: Some("/jobs".into()),
            group: true,
            rss_anon_bytes: Some(60 << 20),
            rss_file_bytes: None,
            rss_shmem_bytes: None,
            total_vm_bytes: None,
            oom_score_adj: None,
        }));
        assert!(
            text.ends_with("oom     killed   python3[4711], main process at 64 MiB of /jobs, ancestor (memcg, as a group)"),
            "{text}"
        );
    }

    #[test]
    fn ids_in_paths_are_short() {
        let id = "234d20a3f9c8".repeat(6);
        let path = format!("/paddock/1693a4a6/{}/sub", &id[..64]);
        assert_eq!(short(&path), "/paddock/1693a4a6/234d20a3f9c8/sub");
    }

    #[test]
    fn colour_only_when_wanted() {
        let event = escape("x");
        assert!(paint("line", &event, true).starts_with("\u{1b}[1;31mline"));
        assert_eq!(paint("line", &event, false), "line");
    }
}
