//! What a ruleset says of paths, as the kernel half walks it: a node for each name on the way to a
//! path that a rule names, with what holds there.

use std::collections::BTreeMap;

use paddock_policy::Ruleset;
use paddock_probe::{
    PathName,
    path::{NAME_LEN, OPERATIONS, PathNode, PathRoot, RULE_NAMES, begin_bit, length_bit},
    policy::action,
};

/// More names than the kernel half keeps of a path, or longer ones.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{path} has more than {RULE_NAMES} names, or one of more than {NAME_LEN} bytes; let rules name \
     a directory above it"
)]
pub(crate) struct TooDeep {
    path: String,
}

/// Where the walk begins, and the names below.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Paths {
    pub(super) root: PathRoot,
    pub(super) names: Vec<PathName>,
}

pub(super) fn paths(ruleset: &Ruleset) -> Result<Paths, TooDeep> {
    let mut paths = Paths::default();
    // By directory and name, the place among `names`.
    let mut places: BTreeMap<(u32, &str), usize> = BTreeMap::new();
    // Above comes before what is below.
    for said in &ruleset.paths {
        paths.root.any = 1;
        for (lost, cell) in paths.root.lost.cells.iter_mut().zip(said.cells) {
            *lost = strictest(*lost, cell);
        }
        let way: Vec<&str> = said
            .path
            .split('/')
            .filter(|name| !name.is_empty())
            .collect();
        if way.len() > RULE_NAMES || way.iter().any(|name| name.len() > NAME_LEN) {
            return Err(TooDeep {
                path: said.path.clone(),
            });
        }
        let mut above: Option<usize> = None;
        for name in way {
            let number = paths.names.len();
            let directory = paths.node(above);
            directory.lengths |= length_bit(name.len());
            directory.begins |= name.bytes().next().map_or(0, begin_bit);
            directory.within = said.cells.into_iter().fold(directory.within, strictest);
            let (directory, cells) = (directory.number, directory.cells);
            let place = *places.entry((directory, name)).or_insert_with(|| {
                paths.names.push(PathName {
                    directory,
                    name: name.as_bytes().to_vec(),
                    node: PathNode {
                        // The root's is 0.
                        number: u32::try_from(number + 1).unwrap_or(u32::MAX),
                        cells,
                        ..PathNode::default()
                    },
                });
                number
            });
            above = Some(place);
        }
        paths.node(above).cells = said.cells;
    }
    Ok(paths)
}

impl Paths {
    fn node(&mut self, place: Option<usize>) -> &mut PathNode {
        let named = place.and_then(|place| self.names.get_mut(place));
        named.map_or(&mut self.root.node, |named| &mut named.node)
    }
}

fn strictest(one: u16, other: u16) -> u16 {
    if action(other) > action(one) {
        other
    } else {
        one
    }
}

const _: () = assert!(OPERATIONS == paddock_policy::model::operation::COUNT);

#[cfg(test)]
mod tests {
    use paddock_policy::{compile, parse};
    use paddock_probe::{
        path::operation,
        policy::{ACTION_ALLOW, ACTION_AUDIT, ACTION_DENY},
    };

    use super::*;

    fn built(text: &str) -> Paths {
        let policy = parse(text.as_bytes()).unwrap();
        paths(&compile(&[&policy]).unwrap()).unwrap()
    }

    /// As `names.rs` of the kernel half walks: the node, and whether it is the path's own.
    fn walked<'p>(paths: &'p Paths, path: &str) -> (&'p PathNode, bool) {
        let mut node = &paths.root.node;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            let below = paths
                .names
                .iter()
                .find(|one| one.directory == node.number && one.name == name.as_bytes());
            let begins = name.bytes().next().map_or(0, begin_bit);
            let passes = node.lengths & length_bit(name.len()) != 0 && node.begins & begins != 0;
            match below.filter(|_| passes) {
                Some(one) => node = &one.node,
                None => return (node, false),
            }
        }
        (node, true)
    }

    fn read(paths: &Paths, path: &str) -> u16 {
        action(walked(paths, path).0.cells[operation::READ])
    }

    const RULES: &str = "name = \"p\"\nmode = \"enforce\"\n\
        [[rule]]\nfile = { path = \"/data\", operation = [\"read\", \"remove\"] }\n\
        [[rule]]\neffect = \"allow\"\nfile = { path = \"/data/pub\", operation = \"read\" }\n\
        [[rule]]\nmode = \"audit\"\nfile = { path = \"/data/pub/a/b\", operation = \"read\" }\n\
        [[rule]]\nfile = { path = \"/etc/ssl/private\", operation = \"read\" }\n";

    #[test]
    fn the_longest_path_decides() {
        let paths = built(RULES);
        for (path, want) in [
            ("/", ACTION_ALLOW),
            ("/data", ACTION_DENY),
            ("/data/x/y", ACTION_DENY),
            ("/datas", ACTION_ALLOW),
            ("/dat", ACTION_ALLOW),
            ("/data/pub", ACTION_ALLOW),
            ("/data/pub/a", ACTION_ALLOW),
            ("/data/pub/a/b", ACTION_AUDIT),
            ("/data/pub/a/b/c", ACTION_AUDIT),
            ("/data/pub/a/bb", ACTION_ALLOW),
            ("/data/public", ACTION_DENY),
            ("/etc/ssl/private/key", ACTION_DENY),
            ("/etc/ssl/certs", ACTION_ALLOW),
            ("/etc/passwd", ACTION_ALLOW),
        ] {
            assert_eq!(read(&paths, path), want, "{path}");
        }
        let removed = |path| action(walked(&paths, path).0.cells[operation::REMOVE]);
        assert_eq!(removed("/data/pub/a/b"), ACTION_DENY);
        // What cannot be told is as the strictest.
        let lost = paths.root.lost.cells.map(action);
        assert_eq!(lost, [ACTION_DENY, 0, 0, ACTION_DENY, 0]);
        assert_eq!(paths.root.any, 1);
    }

    #[test]
    fn a_directory_on_the_way_knows_what_is_said_below_it() {
        let paths = built(RULES);
        let within = |path| {
            let (node, whole) = walked(&paths, path);
            (action(node.within), whole)
        };
        assert_eq!(within("/etc"), (ACTION_DENY, true));
        assert_eq!(within("/etc/ssl"), (ACTION_DENY, true));
        assert_eq!(within("/etc/ssl/private"), (ACTION_ALLOW, true));
        assert!(!within("/etc/apt").1);
        assert_eq!(within("/data/pub"), (ACTION_DENY, true));
    }

    #[test]
    fn nothing_said_is_nothing() {
        assert_eq!(
            built("name = \"p\"\ndeny = [\"mount\"]\n"),
            Paths::default()
        );
    }

    #[test]
    fn a_path_of_more_names_than_are_kept_is_an_error() {
        let path = "/a".repeat(RULE_NAMES + 1);
        let text = format!("name = \"p\"\n[[rule]]\nexec = \"{path}\"\n");
        let policy = parse(text.as_bytes()).unwrap();
        let error = paths(&compile(&[&policy]).unwrap()).unwrap_err();
        let want = format!(
            "{path} has more than 16 names, or one of more than 64 bytes; let rules name a directory \
             above it"
        );
        assert_eq!(error.to_string(), want);
    }
}
