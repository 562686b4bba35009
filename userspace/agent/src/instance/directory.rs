//! The state directory itself: there, a directory, root's, and nobody else's to look into.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _},
    path::Path,
};

use super::Error;

/// Makes or checks it; `true` when it was made.
pub(super) fn prepare(dir: &Path) -> Result<bool, Error> {
    let failed = |op| {
        move |source| Error::Io {
            op,
            path: dir.to_owned(),
            source,
        }
    };
    match fs::DirBuilder::new().mode(0o700).create(dir) {
        Ok(()) => return Ok(true),
        Err(source) if source.kind() == io::ErrorKind::AlreadyExists => {}
        Err(source) => return Err(failed("make state directory")(source)),
    }
    let found = fs::metadata(dir).map_err(failed("look at state directory"))?;
    let unsafe_because = |reason: &str| {
        Err(Error::Unsafe {
            path: dir.to_owned(),
            reason: reason.to_owned(),
        })
    };
    if !found.is_dir() {
        return unsafe_because("is not a directory");
    }
    if found.uid() != nix::unistd::geteuid().as_raw() {
        return unsafe_because("belongs to another user");
    }
    let mode = found.permissions().mode() & 0o7777;
    if mode & 0o022 != 0 {
        return unsafe_because("can be written by others: choose one of paddock's own");
    }
    if mode & 0o077 != 0 {
        // A fresh `mkdir`; one with content may be somebody's whose readers we would lock out.
        let mut entries = fs::read_dir(dir).map_err(failed("list state directory"))?;
        if entries.next().is_some() {
            return Err(Error::Unsafe {
                path: dir.to_owned(),
                reason: format!("can be read by others: chmod 700 {}", dir.display()),
            });
        }
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700))
            .map_err(failed("set mode of state directory"))?;
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set_mode(dir: &Path, mode: u32) {
        fs::set_permissions(dir, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn only_private_directories_are_taken() {
        let dir = crate::fixture::Dir::new();
        let state = dir.path().join("state");
        assert!(prepare(&state).unwrap(), "made");
        assert!(!prepare(&state).unwrap(), "there already");

        set_mode(&state, 0o755);
        prepare(&state).unwrap();
        assert_eq!(fs::metadata(&state).unwrap().mode() & 0o777, 0o700);

        fs::write(state.join("x"), "").unwrap();
        set_mode(&state, 0o755);
        assert!(
            prepare(&state)
                .unwrap_err()
                .to_string()
                .contains("chmod 700")
        );
        set_mode(&state, 0o1777);
        assert!(matches!(prepare(&state), Err(Error::Unsafe { .. })));
        assert!(matches!(
            prepare(&state.join("x")),
            Err(Error::Unsafe { .. })
        ));
        assert!(matches!(
            prepare(&dir.path().join("a/b")),
            Err(Error::Io { .. })
        ));
    }
}
