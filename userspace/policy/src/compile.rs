//! Policies that select a container to one set of answers: each lookup of the kernel half finds
//! the one cell that holds, whatever statements stand behind it.
//!
//! Exceptions are resolved here. A node of a path, net or device has the answer for itself and
//! for all below it that has no node of its own, so that the longest match is enough; a node
//! that allows stays in the list, since it ends what a wider one denies.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use paddock_abi::{
    activity::Activity,
    namespace::{NS_TYPES, NsType, Target},
    policy::{
        ACTION_ALLOW, ACTION_AUDIT, ACTION_DENY, ACTION_KILL, POLICY_CELLS, RULES, action, cell,
        policy_index,
    },
};

use crate::{
    model::{
        Cidr, Device, DeviceKind, Disarm, Mode, Network, Policy, Reaction, Rule, Verb,
        WhenUnenforceable, direction, operation, protocol,
    },
    named::{TARGETS, bit},
    nested::{self, Nested},
    scope::{Scope, holds},
};

/// What holds for a container.
#[derive(Clone, Debug)]
pub struct Ruleset {
    /// By [`policy_index`], [`POLICY_CELLS`] of them; a target of none is as an unknown one.
    pub cells: Vec<u16>,
    /// By type, then by [`Target`].
    pub namespaces: [[u16; 8]; NS_TYPES],
    /// By number.
    pub capabilities: [u16; 64],
    pub devices: Vec<DeviceNode>,
    pub networks: Vec<NetworkNode>,
    pub paths: Vec<PathNode>,
    /// By name.
    pub syscalls: Vec<(String, u16)>,
    /// What the number in a cell stands for.
    pub rules: Vec<RuleInfo>,
}

/// A rule that forbids, for those who count and tell its hits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleInfo {
    pub policy: String,
    pub rule: String,
    pub mode: Mode,
    pub reaction: Reaction,
    pub disarm: Option<Disarm>,
    pub when_unenforceable: WhenUnenforceable,
}

/// The one with most numbers that fits a device decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceNode {
    pub kind: DeviceKind,
    pub major: Option<u32>,
    pub minor: Option<u32>,
    /// Of reading, writing, making.
    pub cells: [u16; 3],
}

/// The longest net that a peer lies in decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkNode {
    pub net: Cidr,
    /// None has what another has; what is in none is allowed.
    pub answers: Vec<NetworkAnswer>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetworkAnswer {
    /// One of [`direction`].
    pub direction: u8,
    /// One of [`protocol`].
    pub protocol: u8,
    /// From and to, both included.
    pub ports: (u16, u16),
    pub cell: u16,
}

/// The longest path that a file's lies below decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathNode {
    pub path: String,
    /// In the order of [`operation::NAMES`].
    pub cells: [u16; operation::COUNT],
}

/// More rules forbid than cells can tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{rules} rules hold for one container, more than {RULES}; remove policies or narrow what they select"
)]
pub struct TooManyRules {
    pub rules: usize,
}

/// A reach with its consequence.
#[derive(Debug)]
struct Statement<'p> {
    scope: Scope<'p>,
    posture: bool,
    cell: u16,
}

/// All of a policy, or those of it that may hold, in the order of its file.
type Statements<'a, 'p> = Vec<&'a Statement<'p>>;

/// The policies that select a container, in an order that is always the same.
pub fn compile(policies: &[&Policy]) -> Result<Ruleset, TooManyRules> {
    let mut rules = Vec::new();
    let mut all = Vec::new();
    for policy in policies {
        all.push(statements(policy, &mut rules));
    }
    if rules.len() > RULES {
        return Err(TooManyRules { rules: rules.len() });
    }
    let nesting = Nesting::of(&all);
    let all: Vec<Statements<'_, '_>> = all
        .iter()
        .map(|statements| {
            let others = statements.iter();
            others
                .filter(|one| nested::key(&one.scope).is_none())
                .collect()
        })
        .collect();
    let syscalls: BTreeSet<&str> = every(&all)
        .filter_map(|statement| match statement.scope {
            Scope::Syscall(name) => Some(name),
            _ => None,
        })
        .collect();
    let call = |name: &str| {
        let of = |scope: &Scope<'_>| matches!(scope, Scope::Syscall(other) if *other == name);
        (name.to_owned(), decide(&all, of))
    };
    Ok(Ruleset {
        cells: activities(&all),
        namespaces: namespaces(&all),
        capabilities: std::array::from_fn(|number| {
            let bit = 1_u64 << number;
            decide(
                &all,
                |scope| matches!(scope, Scope::Capabilities(bits) if bits & bit != 0),
            )
        }),
        devices: devices(&all),
        networks: networks(&nesting),
        paths: paths(&nesting),
        syscalls: syscalls.into_iter().map(call).collect(),
        rules,
    })
}

fn every<'a, 'p>(all: &'a [Statements<'a, 'p>]) -> impl Iterator<Item = &'a Statement<'p>> {
    all.iter().flatten().copied()
}

fn statements<'p>(policy: &'p Policy, rules: &mut Vec<RuleInfo>) -> Vec<Statement<'p>> {
    let mut statements = Vec::new();
    for rule in &policy.rules {
        let cell = match rule.verb {
            Verb::Allow => ACTION_ALLOW,
            Verb::Deny => {
                // Past the last number the whole is refused.
                let number = u16::try_from(rules.len()).unwrap_or(u16::MAX);
                rules.push(RuleInfo {
                    policy: policy.name.clone(),
                    rule: rule.name.clone(),
                    mode: rule.mode,
                    reaction: rule.reaction,
                    disarm: rule.disarm,
                    when_unenforceable: policy.when_unenforceable,
                });
                cell(action_of(rule), number)
            }
        };
        let of = |scope| Statement {
            scope,
            posture: rule.posture,
            cell,
        };
        statements.extend(rule.matches.iter().map(Scope::from).map(of));
    }
    statements
}

/// What a rule's hit leads to, `ACTION_*`.
pub(crate) const fn action_of(rule: &Rule) -> u16 {
    match (rule.verb, rule.mode, rule.reaction) {
        (Verb::Allow, ..) => ACTION_ALLOW,
        (Verb::Deny, Mode::Audit, _) => ACTION_AUDIT,
        (Verb::Deny, Mode::Enforce, Reaction::Kill) => ACTION_KILL,
        (Verb::Deny, Mode::Enforce, _) => ACTION_DENY,
    }
}

/// In each policy the narrowest statement of those that hold; of the policies the strictest.
fn decide(all: &[Statements<'_, '_>], of: impl Fn(&Scope<'_>) -> bool) -> u16 {
    let of_one = |statements: &Statements<'_, '_>| {
        let holding = statements.iter().filter(|statement| of(&statement.scope));
        // The first of several that are equal.
        let narrowest = holding.min_by_key(|statement| rank(statement));
        narrowest.map_or(0, |statement| statement.cell)
    };
    all.iter().map(of_one).fold(0, strictest)
}

fn rank(statement: &Statement<'_>) -> Rank {
    rank_of(statement.posture, &statement.scope, action(statement.cell))
}

/// The least decides.
pub(crate) type Rank = (bool, u64, Reverse<u16>);

pub(crate) fn rank_of(posture: bool, scope: &Scope<'_>, action: u16) -> Rank {
    (posture, scope.width(), Reverse(action))
}

/// The first where both are as strict.
const fn strictest(one: u16, other: u16) -> u16 {
    if action(other) > action(one) {
        other
    } else {
        one
    }
}

fn activities(all: &[Statements<'_, '_>]) -> Vec<u16> {
    let mut cells = vec![0; POLICY_CELLS];
    for activity in Activity::ALL {
        for target in TARGETS {
            let answer = decide(
                all,
                |scope| matches!(scope, Scope::Acts(rule) if rule.holds(*activity, target)),
            );
            cells[policy_index(*activity, target)] = answer;
            if target == Target::Unknown {
                cells[policy_index(*activity, Target::None)] = answer;
            }
        }
    }
    cells
}

fn namespaces(all: &[Statements<'_, '_>]) -> [[u16; 8]; NS_TYPES] {
    let mut cells = [[0; 8]; NS_TYPES];
    for ty in NsType::ALL {
        for target in TARGETS {
            let of = |scope: &Scope<'_>| {
                matches!(scope, Scope::Namespaces(namespaces)
                    if namespaces.types & ty.bit() != 0 && namespaces.targets & bit(target) != 0)
            };
            cells[ty.index()][target as usize] = decide(all, of);
        }
    }
    cells
}

fn devices(all: &[Statements<'_, '_>]) -> Vec<DeviceNode> {
    let nodes: BTreeSet<_> = every(all)
        .filter_map(|statement| match statement.scope {
            Scope::Device(device) => Some((device.kind, device.major, device.minor)),
            _ => None,
        })
        .collect();
    let node = |(kind, major, minor)| DeviceNode {
        kind,
        major,
        minor,
        cells: std::array::from_fn(|index| {
            let node = Device {
                kind,
                major,
                minor,
                access: 1 << index,
            };
            let of = |scope: &Scope<'_>| {
                matches!(scope, Scope::Device(wide)
                    if holds(wide, &node) && wide.access & node.access != 0)
            };
            decide(all, of)
        }),
    };
    nodes.into_iter().map(node).collect()
}

/// Statements about nets and paths, and which of them hold at each of these.
struct Nesting<'a, 'p> {
    /// Policy by policy, each with its policy's place.
    all: Vec<(usize, &'a Statement<'p>)>,
    nested: Nested,
    policies: usize,
}

impl<'a, 'p> Nesting<'a, 'p> {
    fn of(policies: &'a [Vec<Statement<'p>>]) -> Self {
        let (mut all, mut keys) = (Vec::new(), Vec::new());
        for (policy, statements) in policies.iter().enumerate() {
            for statement in statements {
                if let Some(key) = nested::key(&statement.scope) {
                    keys.push((all.len(), key));
                    all.push((policy, statement));
                }
            }
        }
        Self {
            all,
            nested: Nested::of(keys),
            policies: policies.len(),
        }
    }

    /// By net or path, one statement's place.
    fn nodes<N: Ord>(&self, of: impl Fn(&Scope<'p>) -> Option<N>) -> BTreeMap<N, usize> {
        let statements = self.all.iter().enumerate();
        statements
            .filter_map(|(place, (_, statement))| Some((of(&statement.scope)?, place)))
            .collect()
    }

    /// Those that hold where the one at `place` does, by policy.
    fn holding(&self, place: usize) -> Vec<Statements<'a, 'p>> {
        let mut holding = vec![Vec::new(); self.policies];
        let places = self.nested.around(place).into_iter();
        for (policy, statement) in places.filter_map(|place| self.all.get(place)) {
            holding[*policy].push(*statement);
        }
        holding
    }
}

fn paths(nesting: &Nesting<'_, '_>) -> Vec<PathNode> {
    let nodes = nesting.nodes(|scope| match scope {
        Scope::Path { path, .. } => Some(*path),
        _ => None,
    });
    let node = |(path, place): (&str, usize)| {
        let holding = nesting.holding(place);
        let cell = |index: usize| {
            let of = |scope: &Scope<'_>| matches!(scope, Scope::Path { operations, .. } if operations & (1 << index) != 0);
            decide(&holding, of)
        };
        PathNode {
            path: path.to_owned(),
            cells: std::array::from_fn(cell),
        }
    };
    nodes.into_iter().map(node).collect()
}

fn networks(nesting: &Nesting<'_, '_>) -> Vec<NetworkNode> {
    let nodes = nesting.nodes(|scope| match scope {
        Scope::Network(network) => Some(network.net),
        _ => None,
    });
    let node = |(net, place)| NetworkNode {
        net,
        answers: answers(&nesting.holding(place)),
    };
    nodes.into_iter().map(node).collect()
}

/// Ports are cut where any range begins or ends, and each statement fills its pieces, the one
/// that decides last: many ranges cost little more than few.
fn answers(holding: &[Statements<'_, '_>]) -> Vec<NetworkAnswer> {
    let here = |statements: &Statements<'_, '_>| -> Vec<(Network, u16)> {
        let mut here: Vec<_> = statements
            .iter()
            .filter_map(|statement| match statement.scope {
                Scope::Network(network) => Some((*statement, network)),
                _ => None,
            })
            .collect();
        here.sort_by_key(|(statement, _)| Reverse(rank(statement)));
        // Of equal ones the first in the file decides.
        here.chunk_by_mut(|(one, _), (other, _)| rank(one) == rank(other))
            .for_each(<[_]>::reverse);
        here.into_iter()
            .map(|(statement, network)| (network, statement.cell))
            .collect()
    };
    let policies: Vec<_> = holding.iter().map(here).collect();
    let mut starts = BTreeSet::from([0]);
    for (network, _) in policies.iter().flatten() {
        starts.insert(network.ports.0);
        starts.extend(network.ports.1.checked_add(1));
    }
    let starts: Vec<u16> = starts.into_iter().collect();
    let mut answers = Vec::new();
    for direction in [direction::OUT, direction::IN] {
        for protocol in [protocol::TCP, protocol::UDP, protocol::OTHER] {
            let cells = policies
                .iter()
                .fold(vec![0; starts.len()], |cells, policy| {
                    let own = pieces(policy, &starts, direction, protocol);
                    let both = cells.into_iter().zip(own);
                    both.map(|(cell, own)| strictest(cell, own)).collect()
                });
            let mut index = 0;
            for run in cells.chunk_by(|one, other| one == other) {
                let from = starts[index];
                index += run.len();
                let to = starts.get(index).map_or(u16::MAX, |next| next - 1);
                if action(run[0]) != ACTION_ALLOW {
                    answers.push(NetworkAnswer {
                        direction,
                        protocol,
                        ports: (from, to),
                        cell: run[0],
                    });
                }
            }
        }
    }
    answers
}

/// One policy's answer for each piece of the ports; later statements go over earlier ones.
fn pieces(policy: &[(Network, u16)], starts: &[u16], direction: u8, protocol: u8) -> Vec<u16> {
    let mut cells = vec![0; starts.len()];
    for (network, cell) in policy {
        if network.directions & direction != 0 && network.protocols & protocol != 0 {
            let from = starts.partition_point(|start| *start < network.ports.0);
            let to = starts.partition_point(|start| *start <= network.ports.1);
            cells[from..to].fill(*cell);
        }
    }
    cells
}
