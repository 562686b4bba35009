//! Files of the operator's that say what root's agent does: read whole, and only where nobody but
//! root can write them.

use std::{
    fs::OpenOptions,
    io::{self, Read as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::Path,
};

use nix::{errno::Errno, fcntl::OFlag, unistd::geteuid};

const MAX_BYTES: u64 = 1 << 20;

/// Why one is not used; what it says follows the file's name and a colon.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}", cause(.0))]
    Read(#[from] io::Error),
    #[error("{0}")]
    Refused(&'static str),
}

fn cause(error: &io::Error) -> String {
    error.raw_os_error().map_or_else(
        || error.to_string(),
        |code| Errno::from_raw(code).desc().to_owned(),
    )
}

/// What a file has, and who may read it besides.
#[derive(Debug)]
pub struct Content {
    pub bytes: Vec<u8>,
    /// Others than its owner can read it.
    pub is_open: bool,
}

/// A link is followed: whoever may put one there may put a file there.
pub fn read(path: &Path) -> Result<Content, Error> {
    // A pipe would be waited for.
    let flags = OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits())
        .open(path)?;
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(Error::Refused("is no regular file"));
    }
    let known = [0, geteuid().as_raw()].contains(&found.uid());
    if !known || found.mode() & 0o022 != 0 {
        return Err(Error::Refused(
            "others than root can write it: chown root, chmod go-w",
        ));
    }
    let mut bytes = Vec::new();
    // It may grow meanwhile.
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > MAX_BYTES {
        return Err(Error::Refused("is larger than 1 MiB"));
    }
    Ok(Content {
        bytes,
        is_open: found.mode() & 0o044 != 0,
    })
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, Permissions},
        os::unix::fs::PermissionsExt as _,
    };

    use super::*;
    use crate::fixture::Dir;

    #[test]
    fn only_what_root_alone_writes_and_nothing_that_never_ends() {
        let dir = Dir::new();
        let path = dir.path().join("file");
        let file = fs::File::create(&path).unwrap();
        let told = |path: &Path| read(path).map(|_| ()).map_err(|error| error.to_string());
        let mode = |bits| fs::set_permissions(&path, Permissions::from_mode(bits)).unwrap();
        mode(0o644);
        assert_eq!(told(&path), Ok(()));
        assert!(read(&path).unwrap().is_open);
        mode(0o600);
        assert!(!read(&path).unwrap().is_open);
        mode(0o620);
        assert_eq!(
            told(&path),
            Err("others than root can write it: chown root, chmod go-w".to_owned())
        );
        mode(0o600);
        file.set_len(MAX_BYTES).unwrap();
        assert_eq!(told(&path), Ok(()));
        file.set_len(MAX_BYTES + 1).unwrap();
        assert_eq!(told(&path), Err("is larger than 1 MiB".to_owned()));
        let refused = Err("is no regular file".to_owned());
        assert_eq!(told(Path::new("/dev/zero")), refused);
        assert_eq!(told(Path::new("/")), refused);
        assert_eq!(
            told(Path::new("/nowhere")),
            Err("No such file or directory".to_owned())
        );
    }
}
