//! What a ruleset says of something that is on record.

use paddock_abi::{
    activity::Activity,
    namespace::NsType,
    policy::{ACTION_ALLOW, ACTION_AUDIT, ACTION_KILL, action, policy_index, rule},
};

use crate::{
    compile::{DeviceNode, NetworkAnswer, RuleInfo, Ruleset},
    explain::Peer,
    model::{Cidr, below, operation},
    named::{TARGETS, target_name},
    values::{capability_named, devices},
};

/// What would have come of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    Audit,
    Deny,
    Kill,
}

impl Action {
    /// Of `ACTION_*`; nothing of what is allowed.
    pub(crate) const fn of(action: u16) -> Option<Self> {
        match action {
            ACTION_ALLOW => None,
            ACTION_AUDIT => Some(Self::Audit),
            ACTION_KILL => Some(Self::Kill),
            _ => Some(Self::Deny),
        }
    }

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Audit => "audit",
            Self::Deny => "deny",
            Self::Kill => "kill",
        }
    }
}

/// A rule that forbids it.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'r> {
    pub action: Action,
    pub rule: &'r RuleInfo,
}

impl Ruleset {
    /// Of an activity and a target by their names in docs/verdicts.md; of unknown ones, nothing.
    #[must_use]
    pub fn activity(&self, name: &str, target: &str) -> Option<Answer<'_>> {
        self.answer(self.activity_cell(name, target))
    }

    /// Of setns, unshare or clone with the types and targets that it concerns: the strictest.
    #[must_use]
    pub fn namespace_call<'a>(
        &self,
        syscall: &str,
        targets: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> Option<Answer<'_>> {
        let mut strictest = ACTION_ALLOW;
        for (namespace, target) in targets {
            let named = self.activity_cell(syscall, target);
            for cell in [named, self.namespace_cell(namespace, target)] {
                if action(cell) > action(strictest) {
                    strictest = cell;
                }
            }
        }
        self.answer(strictest)
    }

    /// Of using one, by its name.
    #[must_use]
    pub fn capability(&self, name: &str) -> Option<Answer<'_>> {
        let number = capability_named(name)?.trailing_zeros();
        self.answer(*self.capabilities.get(usize::try_from(number).ok()?)?)
    }

    /// Of what is done to a device, as `c 1:3 rw`: the strictest.
    #[must_use]
    pub fn device(&self, what: &str) -> Option<Answer<'_>> {
        let mut strictest = ACTION_ALLOW;
        for one in devices(what).ok()? {
            let fits = |node: &&DeviceNode| {
                node.kind == one.kind
                    && (node.major.is_none() || node.major == one.major)
                    && (node.minor.is_none() || node.minor == one.minor)
            };
            // In their order the one with more numbers comes later.
            let Some(node) = self.devices.iter().rfind(fits) else {
                continue;
            };
            for (place, cell) in node.cells.iter().enumerate() {
                if one.access & (1 << place) != 0 && action(*cell) > action(strictest) {
                    strictest = *cell;
                }
            }
        }
        self.answer(strictest)
    }

    /// Of talking to somebody.
    #[must_use]
    pub fn peer(&self, peer: Peer) -> Option<Answer<'_>> {
        let own = Cidr::of(peer.address);
        let nets = self.networks.iter().filter(|node| node.net.covers(&own));
        let longest = nets.max_by_key(|node| node.net.bits)?;
        let fits = |one: &&NetworkAnswer| {
            let (from, to) = one.ports;
            one.direction == peer.direction
                && one.protocol == peer.protocol
                && (from..=to).contains(&peer.port)
        };
        self.answer(longest.answers.iter().find(fits)?.cell)
    }

    /// Of starting the program at an absolute path.
    #[must_use]
    pub fn exec(&self, path: &str) -> Option<Answer<'_>> {
        self.file("exec", path)
    }

    /// Of what is done to a file, by its name in files and an absolute path.
    #[must_use]
    pub fn file(&self, operation: &str, path: &str) -> Option<Answer<'_>> {
        let mut names = operation::NAMES.iter();
        let place = names.position(|name| *name == operation)?;
        let nodes = self.paths.iter().filter(|node| below(&node.path, path));
        let longest = nodes.max_by_key(|node| node.path.len());
        let cell = longest.map_or(ACTION_ALLOW, |node| node.cells[place]);
        self.answer(cell).or_else(|| {
            // A directory that is given another name takes what is below it along.
            let moved = 1 << place == operation::REMOVE;
            let below = self
                .paths
                .iter()
                .filter(|node| moved && node.path != path && below(path, &node.path));
            let cells = below.flat_map(|node| node.cells);
            self.answer(cells.fold(ACTION_ALLOW, |strictest, cell| {
                if action(cell) > action(strictest) {
                    cell
                } else {
                    strictest
                }
            }))
        })
    }

    /// Whether it says anything of files but of starting them.
    #[must_use]
    pub fn has_file_rules(&self) -> bool {
        let files = |index: &usize| (1 << index) & operation::FILES != 0;
        let says = |cells: &[u16; operation::COUNT]| {
            let mut of_files = (0..operation::COUNT).filter(files);
            of_files.any(|index| action(cells[index]) != ACTION_ALLOW)
        };
        self.paths.iter().any(|node| says(&node.cells))
    }

    fn activity_cell(&self, name: &str, target: &str) -> u16 {
        let mut activities = Activity::ALL.iter();
        let activity = activities.find(|activity| activity.name() == name);
        let target = TARGETS.into_iter().find(|one| target_name(*one) == target);
        let index = activity
            .zip(target)
            .map(|(activity, target)| policy_index(*activity, target));
        index
            .and_then(|index| self.cells.get(index))
            .map_or(ACTION_ALLOW, |cell| *cell)
    }

    fn namespace_cell(&self, namespace: &str, target: &str) -> u16 {
        let ty = NsType::ALL.into_iter().find(|ty| ty.name() == namespace);
        let target = TARGETS.into_iter().find(|one| target_name(*one) == target);
        ty.zip(target).map_or(ACTION_ALLOW, |(ty, target)| {
            self.namespaces[ty.index()][target as usize]
        })
    }

    fn answer(&self, cell: u16) -> Option<Answer<'_>> {
        let action = Action::of(action(cell))?;
        let rule = self.rules.get(usize::from(rule(cell)))?;
        Some(Answer { action, rule })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{compile, parse};

    fn said(answer: Option<Answer<'_>>) -> Option<(&'static str, &str)> {
        answer.map(|answer| (answer.action.name(), answer.rule.rule.as_str()))
    }

    #[test]
    fn the_rule_that_decides_answers() {
        let policy = parse(
            b"name = \"p\"\nmode = \"enforce\"\ndeny = [\"namespace-escape\"]\n\
              [[rule]]\nname = \"net\"\nreaction = \"kill\"\n\
              namespace = { type = \"net\", target = \"peer\" }\n\
              [[rule]]\nname = \"mounts\"\nmode = \"audit\"\nnamed = \"mount\"\n\
              [[rule]]\nname = \"clock\"\ncapability = \"SYS_TIME\"\n\
              [[rule]]\nname = \"tmp\"\nexec = \"/tmp\"\n\
              [[rule]]\nname = \"tool\"\neffect = \"allow\"\nexec = \"/tmp/tool\"\n",
        )
        .unwrap();
        let rules = compile(&[&policy]).unwrap();
        let call = |targets: &[(&'static str, &'static str)]| {
            said(rules.namespace_call("setns", targets.iter().copied()))
        };
        assert_eq!(call(&[("uts", "host")]), Some(("deny", "namespace-escape")));
        // The strictest of what one call asks for.
        assert_eq!(
            call(&[("uts", "host"), ("net", "peer")]),
            Some(("kill", "net"))
        );
        assert_eq!(call(&[("uts", "own")]), None);
        assert_eq!(call(&[]), None);
        assert_eq!(
            said(rules.activity("mount", "own")),
            Some(("audit", "mounts"))
        );
        assert_eq!(said(rules.activity("ptrace", "own")), None);
        // Of a newer agent.
        assert_eq!(said(rules.activity("teleport", "host")), None);
        assert_eq!(said(rules.activity("mount", "elsewhere")), None);
        assert_eq!(
            said(rules.capability("CAP_SYS_TIME")),
            Some(("deny", "clock"))
        );
        assert_eq!(said(rules.capability("SYS_TIME")), Some(("deny", "clock")));
        assert_eq!(said(rules.capability("CAP_CHOWN")), None);
        assert_eq!(said(rules.capability("CAP_FLIGHT")), None);
        assert_eq!(said(rules.exec("/tmp/a/miner")), Some(("deny", "tmp")));
        assert_eq!(said(rules.exec("/tmp/tool")), None);
        assert_eq!(said(rules.exec("/tmpfile")), None);
        assert_eq!(said(rules.exec("tmp/miner")), None);
    }
}
