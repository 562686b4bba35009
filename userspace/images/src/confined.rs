//! The walls around unpacking: a thread that Landlock lets change nothing but the layer's root.
//!
//! A layer is hostile, and what parses it runs as root. Its thread may make, change and remove
//! below the root it was given, and list directories there; nothing else can be opened (EACCES),
//! nor can a TCP port be bound or connected to, nor a process outside be signalled where the
//! kernel has those rules (6.7, 6.12). What was opened before, the blob among it, stays as it
//! is. Needs Linux 5.19 with Landlock on: before, it allows no hard link between directories,
//! which layers are full of. Without it the work is done unconfined: [`Walls::None`].

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    panic::resume_unwind,
    thread,
};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible as _, PathBeneath,
    Ruleset, RulesetAttr as _, RulesetCreatedAttr as _, RulesetError, RulesetStatus, Scope,
};

/// What stands between the work and the rest of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Walls {
    Landlock,
    /// This kernel has none.
    None,
}

/// Does `work` in a thread that is confined to the directory `root`. Failing to confine it,
/// where the kernel could, is an error and no work.
pub(crate) fn confined<T: Send>(
    root: BorrowedFd<'_>,
    work: impl FnOnce(Walls) -> T + Send,
) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().spawn_scoped(scope, || {
            let walls = confine(root).map_err(io::Error::other)?;
            Ok(work(walls))
        })?;
        thread.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}

/// The calling thread, for good.
fn confine(root: impl AsFd) -> Result<Walls, RulesetError> {
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::SoftRequirement)
        .handle_access(AccessFs::from_all(ABI::V2))?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(ABI::V9))?
        .handle_access(AccessNet::from_all(ABI::V4))?
        .scope(Scope::from_all(ABI::V6))?
        .create()?
        .add_rule(PathBeneath::new(root, allowed()))?
        .restrict_self()?;
    Ok(match status.ruleset {
        RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced => Walls::Landlock,
        RulesetStatus::NotEnforced => Walls::None,
    })
}

/// A layer's files are written and never read or executed.
fn allowed() -> BitFlags<AccessFs> {
    AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::ReadDir
        | AccessFs::RemoveDir
        | AccessFs::RemoveFile
        | AccessFs::MakeChar
        | AccessFs::MakeDir
        | AccessFs::MakeReg
        | AccessFs::MakeFifo
        | AccessFs::MakeBlock
        | AccessFs::MakeSym
        | AccessFs::Refer
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, File},
        io::ErrorKind,
        net::TcpListener,
    };

    use super::*;
    use crate::fixture::TempDir;

    /// Which kernel this is, by itself: its list of security modules.
    fn has_landlock() -> bool {
        fs::read_to_string("/sys/kernel/security/lsm").is_ok_and(|list| list.contains("landlock"))
    }

    #[test]
    fn only_below_the_root_is_anything_changed() {
        let dir = TempDir::new();
        let (inside, outside) = (dir.path().join("inside"), dir.path().join("outside"));
        fs::create_dir(&inside).unwrap();
        fs::create_dir(inside.join("sub")).unwrap();
        fs::write(&outside, "old").unwrap();
        let root = File::open(&inside).unwrap();
        let refused = confined(root.as_fd(), |walls| {
            fs::write(inside.join("a"), "new").unwrap();
            // What only Linux 5.19 can allow.
            fs::hard_link(inside.join("a"), inside.join("sub/b")).unwrap();
            fs::remove_file(inside.join("a")).unwrap();
            let tried = [
                fs::write(&outside, "new"),
                fs::read(&outside).map(drop),
                fs::create_dir(dir.path().join("made")),
                fs::rename(inside.join("sub"), dir.path().join("moved")),
                fs::remove_file(&outside),
            ];
            (walls, tried.map(|one| one.err().map(|error| error.kind())))
        });
        let (walls, refused) = refused.unwrap();
        match walls {
            Walls::Landlock => {
                let denied = Some(ErrorKind::PermissionDenied);
                assert_eq!(refused[..3], [denied; 3]);
                assert!(refused[3].is_some(), "a directory went out");
                assert_eq!(refused[4], denied);
                assert_eq!(fs::read_to_string(&outside).unwrap(), "old");
            }
            Walls::None => {
                assert!(!has_landlock());
                assert_eq!(refused, [None; 5]);
            }
        }
        // Nobody else is confined.
        fs::write(dir.path().join("later"), "").unwrap();
        assert!(TcpListener::bind("127.0.0.1:0").is_ok());
    }
}
