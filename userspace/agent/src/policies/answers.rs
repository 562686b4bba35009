//! A ruleset as the kernel half looks it up.

use paddock_policy::Ruleset;
use paddock_probe::{Activity, Answers, NS_TYPES, POLICY_CELLS, Target, path::PathRoot, policy};

use super::{
    devices::{TooManyDevices, devices},
    means::{Here, Means},
    peers::asks_of_peers,
};

/// What cannot be kept from happening here is only counted.
pub(super) fn answers(
    ruleset: &Ruleset,
    paths: PathRoot,
    here: &Here,
) -> Result<Answers, TooManyDevices> {
    let mut answers = Answers {
        cells: [0; POLICY_CELLS],
        namespaces: [0; NS_TYPES * 8],
        capabilities: ruleset.capabilities,
        devices: devices(ruleset)?,
        paths,
        ingress: asks_of_peers(ruleset).into(),
    };
    for activity in Activity::ALL {
        let means = here.means(*activity);
        for target in Target::ALL {
            let index = policy::policy_index(*activity, target);
            let said = ruleset.cells.get(index).copied();
            if let (Some(cell), Some(said)) = (answers.cells.get_mut(index), said) {
                *cell = served(said, means);
            }
        }
    }
    for (ty, cells) in ruleset.namespaces.iter().enumerate() {
        for target in Target::ALL {
            let activities = match target {
                Target::New => &[Activity::Unshare, Activity::Clone][..],
                _ => &[Activity::Setns],
            };
            let means = activities.iter().map(|one| here.means(*one));
            let worst = means.max().unwrap_or(Means::Unseen);
            let index = policy::namespace_index(ty, target);
            let said = cells.get(target as usize).copied();
            if let (Some(cell), Some(said)) = (answers.namespaces.get_mut(index), said) {
                *cell = served(said, worst);
            }
        }
    }
    Ok(answers)
}

fn served(cell: u16, means: Means) -> u16 {
    let forbids = policy::action(cell) > policy::ACTION_AUDIT;
    if !forbids || means < Means::Count {
        return cell;
    }
    policy::cell(policy::ACTION_AUDIT, policy::rule(cell))
}
