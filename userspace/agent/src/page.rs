//! What a browser sees at `/`: which containers live, what they use, how their walls stand, and
//! what happened last. Made when asked, by itself: no script, nothing from elsewhere.

use std::{collections::HashMap, fmt, fmt::Write as _};

use paddock_probe::NsType;

use crate::{
    api::{ContainerStats, ContainerSummary, Origin, State},
    container::Container,
    event::{Event, Kind, Verdict},
    readers,
    shared::Shared,
};

/// Of what happened last.
const EVENTS: usize = 25;
/// A container's command and name are its own choice, and may be long.
const LONGEST: usize = 60;

const HEAD: &str = "<!DOCTYPE html><html lang=\"en\"><head><meta charset=\"utf-8\">\
<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
<meta http-equiv=\"refresh\" content=\"5\"><title>paddock</title><style>\
:root{color-scheme:light dark;--line:#8885;--bad:#c33;--host:#667;--shared:#b80;--own:#283;--soft:#888}\
body{font:15px/1.4 system-ui,sans-serif;margin:1rem auto;max-width:72rem;padding:0 .8rem}\
h1{font-size:1.3rem;margin:0}h2{font-size:1.05rem;margin:1.4rem 0 .4rem}\
p{margin:.3rem 0}nav a{margin-right:1rem}.scroll{overflow-x:auto}\
table{border-collapse:collapse;width:100%}th,td{padding:.25rem .5rem;text-align:left;\
border-bottom:1px solid var(--line);white-space:nowrap}th{font-weight:600}\
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}\
.bad{color:var(--bad);font-weight:600}.soft{color:var(--soft)}\
.ns td{text-align:center;padding:.2rem .3rem}.ns td:first-child,.ns th:first-child{text-align:left}\
.ns span{display:inline-block;min-width:3.2rem;border-radius:.25rem;padding:0 .3rem;color:#fff}\
.host{background:var(--host)}.shared{background:var(--shared)}.own{background:var(--own)}\
.bar{display:inline-block;width:5rem;height:.6rem;border:1px solid var(--line);vertical-align:middle}\
.bar i{display:block;height:100%;background:var(--own)}.bar i.near{background:var(--bad)}.ns th{text-align:center}td.what{white-space:normal}\
@media(max-width:40rem){body{padding:0 .5rem}.wide{display:none}table{font-size:.85rem}th,td{padding:.25rem .2rem}\
.ns td,.ns th{padding:.2rem .1rem}.ns span{min-width:0;font-size:.68rem;padding:0 .1rem}.ns th{font-size:.65rem}}\
</style></head><body>";

/// The whole page. Blocking: cgroup files.
pub(crate) fn page(shared: &Shared) -> String {
    let containers: Vec<_> = shared
        .registry
        .all()
        .into_iter()
        .filter(|container| !container.life().removed)
        .collect();
    let mut text = String::from(HEAD);
    head(&mut text, shared);
    let rows = readers::of_each(&containers, |container| {
        (
            container.summary(&shared.kernel, &shared.hierarchies),
            container.use_now(&shared.kernel, &shared.hierarchies),
        )
    });
    table(&mut text, &rows);
    let running: Vec<&Container> = containers
        .iter()
        .map(AsRef::as_ref)
        .filter(|container| container.state() == State::Running)
        .collect();
    walls(&mut text, shared, &running);
    let history = shared.bus.snapshot().history;
    let last = history.iter().rev().filter(|event| is_told(&event.kind));
    events(&mut text, last.take(EVENTS).map(AsRef::as_ref));
    text.push_str("</body></html>\n");
    text
}

fn head(text: &mut String, shared: &Shared) {
    let _ = write!(
        text,
        "<h1>paddock on {}</h1>",
        Text(
            std::fs::read_to_string("/proc/sys/kernel/hostname")
                .unwrap_or_default()
                .trim()
        )
    );
    if let Some(reason) = shared.kernel.unavailable() {
        let _ = write!(
            text,
            "<p class=\"bad\">No kernel half, containers are not watched: {}</p>",
            Text(reason)
        );
    }
    let all = shared.kernel.capabilities();
    let off: Vec<&str> = all
        .iter()
        .filter(|status| status.rung.is_none())
        .map(|status| status.capability.as_str())
        .collect();
    let _ = write!(
        text,
        "<p class=\"soft\">{} of {} capabilities served{}{}; paddock {}</p>\
         <nav><a href=\"/metrics\">Metrics</a><a href=\"/healthz\">Health</a>\
         <a href=\"/readyz\">Readiness</a></nav>",
        all.len() - off.len(),
        all.len(),
        if off.is_empty() { "" } else { ", not: " },
        Text(&off.join(", ")),
        env!("CARGO_PKG_VERSION")
    );
}

fn table(text: &mut String, rows: &[(ContainerSummary, Option<ContainerStats>)]) {
    text.push_str("<h2>Containers</h2>");
    if rows.is_empty() {
        text.push_str(
            "<p class=\"soft\">None: <code>paddock run</code> starts one, others are found.</p>",
        );
        return;
    }
    text.push_str(
        "<div class=\"scroll\"><table><tr><th>Name<th class=\"wide\">Image<th>State\
         <th class=\"n wide\">CPU<th class=\"n\">Memory<th class=\"wide\"><th class=\"n\">OOM<th class=\"n\">Escapes</tr>",
    );
    for (container, stats) in rows {
        let count = |count: u64| {
            let class = if count > 0 { "n bad" } else { "n" };
            format!("<td class=\"{class}\">{count}")
        };
        let _ = write!(
            text,
            "<tr><td>{}<td class=\"wide\">{}<td>{}",
            Text(&container.name),
            Text(&container.image),
            state(container)
        );
        match stats {
            Some(stats) => used(text, stats),
            None => text.push_str("<td class=\"wide\"><td><td class=\"wide\">"),
        }
        let _ = write!(
            text,
            "{}{}</tr>",
            count(container.oom_kills),
            count(container.escapes)
        );
    }
    text.push_str("</table></div>");
}

fn state(container: &ContainerSummary) -> String {
    let word = match container.state {
        State::Created => "created",
        State::Running => "running",
        State::Paused => "paused",
        State::Restarting => "restarting",
        State::Exited => "exited",
    };
    let code = container
        .exit_code
        .filter(|_| container.state == State::Exited)
        .map_or_else(String::new, |code| format!(" ({code})"));
    let found = match container.origin {
        Origin::Launched => "",
        Origin::Found => ", found",
    };
    format!("{word}{code}{found}")
}

fn used(text: &mut String, stats: &ContainerStats) {
    let percent = stats
        .cpu_percent
        .map_or_else(String::new, |percent| format!("{percent:.1} %"));
    let memory = stats.stats.memory_working_set_bytes;
    let _ = write!(
        text,
        "<td class=\"n wide\">{percent}<td class=\"n\">{}<td class=\"wide\">",
        memory.map_or_else(String::new, mebibytes)
    );
    let limit = stats.stats.memory_limit_bytes.filter(|limit| *limit > 0);
    if let Some((memory, limit)) = memory.zip(limit) {
        let share = (memory.saturating_mul(100) / limit).min(100);
        let near = if share >= 90 { " class=\"near\"" } else { "" };
        let _ = write!(
            text,
            "<span class=\"bar\"><i style=\"width:{share}%\"{near}></i></span> \
             <span class=\"soft\">of {}</span>",
            mebibytes(limit)
        );
    }
}

fn mebibytes(bytes: u64) -> String {
    let tenths = bytes.saturating_mul(10) >> 20;
    format!("{}.{} MiB", tenths / 10, tenths % 10)
}

/// Which walls each has for itself, which with whom: a row a container, a column a type.
fn walls(text: &mut String, shared: &Shared, running: &[&Container]) {
    text.push_str("<h2>Namespaces</h2>");
    if running.is_empty() {
        text.push_str("<p class=\"soft\">Nobody runs.</p>");
        return;
    }
    let mut with: HashMap<(usize, u32), u32> = HashMap::new();
    for container in running {
        for (index, inode) in container.facts().namespaces.iter().enumerate() {
            *with.entry((index, *inode)).or_default() += 1;
        }
    }
    text.push_str("<div class=\"scroll\"><table class=\"ns\"><tr><th>");
    for kind in NsType::ALL {
        let _ = write!(text, "<th>{}", kind.name());
    }
    text.push_str("</tr>");
    let host = shared.kernel.host();
    for container in running {
        let _ = write!(text, "<tr><td>{}", Text(&container.name));
        let namespaces = container.facts().namespaces;
        for kind in NsType::ALL {
            let index = kind.index();
            let inode = namespaces[index];
            let count = with.get(&(index, inode)).copied().unwrap_or(0);
            let (class, word) = match (inode, count) {
                (0, _) => {
                    text.push_str("<td class=\"soft\">?");
                    continue;
                }
                _ if inode == host[index] => ("host", "host".to_owned()),
                (_, 2..) => ("shared", format!("…{:03}", inode % 1000)),
                _ => ("own", "own".to_owned()),
            };
            let _ = write!(
                text,
                "<td><span class=\"{class}\" title=\"{}:[{inode}]\">{word}</span>",
                kind.name()
            );
        }
        text.push_str("</tr>");
    }
    text.push_str(
        "</table></div><p class=\"soft\">own: nobody else's here; host: the host's, by its \
         configuration; a number: shared by those with the same one.</p>",
    );
}

/// What somebody who looks wants to see; the rest is in `paddock events`.
fn is_told(kind: &Kind) -> bool {
    match kind {
        Kind::NamespaceCall { verdict, .. } | Kind::Activity { verdict, .. } => {
            *verdict >= Verdict::EscapeAttempt
        }
        Kind::OomKill { .. }
        | Kind::Denial { .. }
        | Kind::Tampering { .. }
        | Kind::Reaction { .. }
        | Kind::Container { .. } => true,
        _ => false,
    }
}

fn events<'e>(text: &mut String, last: impl Iterator<Item = &'e Event>) {
    text.push_str("<h2>What happened last, UTC</h2><div class=\"scroll\"><table>");
    for event in last {
        let (class, what) = words(&event.kind);
        let time = humantime::format_rfc3339_seconds(
            std::time::UNIX_EPOCH + std::time::Duration::from_nanos(event.time_ns),
        )
        .to_string();
        // `2026-01-02T15:04:05Z`
        let clock = time.get(11..19).unwrap_or(&time);
        let _ = write!(
            text,
            "<tr><td class=\"soft\" title=\"{time}\">{clock}<td>{}<td class=\"what {class}\">{}</tr>",
            Text(event.container.as_deref().unwrap_or("-")),
            Text(&what)
        );
    }
    text.push_str("</table></div>");
}

fn words(kind: &Kind) -> (&'static str, String) {
    match kind {
        Kind::NamespaceCall {
            syscall,
            actor,
            verdict,
            targets,
            ..
        } => {
            let targets: Vec<_> = targets
                .iter()
                .map(|one| format!("{} of {}", one.namespace, one.target))
                .collect();
            judged(
                *verdict,
                syscall,
                &targets.join(", "),
                &actor.comm,
                actor.pid,
            )
        }
        Kind::Activity {
            activity,
            actor,
            verdict,
            target,
            ..
        } => judged(*verdict, activity, target, &actor.comm, actor.pid),
        Kind::OomKill { victim, .. } => (
            "bad",
            format!("out of memory: {}[{}] killed", victim.comm, victim.pid),
        ),
        Kind::Denial {
            activity,
            action,
            actor,
            policy,
            rule,
            ..
        } => {
            let by = policy.as_deref().zip(rule.as_deref());
            let by = by.map_or_else(String::new, |(policy, rule)| format!(" by {policy}/{rule}"));
            let who = actor.as_ref().map_or_else(
                || "a peer".to_owned(),
                |actor| format!("{}[{}]", actor.comm, actor.pid),
            );
            ("", format!("{action}{by}: {activity}, {who}"))
        }
        Kind::Tampering { what, outcome, .. } => ("bad", format!("tampering: {what}, {outcome}")),
        Kind::Reaction {
            action,
            policy,
            rule,
            outcome,
            ..
        } => ("", format!("{action} by {policy}/{rule}: {outcome}")),
        Kind::Container {
            action, exit_code, ..
        } => {
            let code = exit_code.map_or_else(String::new, |code| format!(", exit code {code}"));
            ("soft", format!("{action}{code}"))
        }
        other => ("", other.name().to_owned()),
    }
}

fn judged(
    verdict: Verdict,
    call: &str,
    target: &str,
    comm: &str,
    pid: i32,
) -> (&'static str, String) {
    let (class, word) = match verdict {
        Verdict::Escape => ("bad", "escape"),
        Verdict::EscapeAttempt => ("", "attempt"),
        Verdict::Benign | Verdict::Notable => ("soft", ""),
    };
    (class, format!("{word}: {call} {target} by {comm}[{pid}]"))
}

/// Chosen by anybody: no markup, no control characters, not longer than a line.
struct Text<'t>(&'t str);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (count, character) in self.0.chars().enumerate() {
            if count == LONGEST {
                return f.write_str("…");
            }
            match character {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                    f.write_str("\u{fffd}")?;
                }
                other if other.is_control() => f.write_str("\u{fffd}")?,
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_container_chose_is_no_markup() {
        let shown = Text("<script>alert('x')</script>&\"\u{1b}[2J\u{202e}").to_string();
        assert_eq!(
            shown,
            "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&amp;&quot;\u{fffd}[2J\u{fffd}"
        );
        let long = Text(&"é".repeat(100)).to_string();
        assert_eq!(long.chars().count(), LONGEST + 1);
    }

    #[test]
    fn sizes_are_read_at_a_glance() {
        assert_eq!(mebibytes(64 << 20), "64.0 MiB");
        assert_eq!(mebibytes(1_600_000), "1.5 MiB");
    }
}
