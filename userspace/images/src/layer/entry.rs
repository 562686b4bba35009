//! What an entry is to become: its name taken apart and checked, its type known.
//!
//! Names are relative to the root: a leading slash is dropped, as tar does; `..` has no honest
//! use and is refused. Whiteouts are OCI's: `.wh.NAME` hides a name of the layers below,
//! `.wh..wh..opq` all of its directory's.

use std::ffi::CString;

use super::tar::Entry;

/// The kernel's limits, from `limits.h`: PATH_MAX with its NUL, NAME_MAX.
const MOST_PATH: usize = 4095;
const MOST_NAME: usize = 255;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    #[error("its name is longer than {MOST_PATH} bytes, or a part of it than {MOST_NAME}: refused")]
    TooLong,
    #[error("'..' in its name: refused")]
    Parent,
    #[error("a NUL in its name: refused")]
    Nul,
    #[error("replaces the root: refused")]
    Root,
    #[error("no whiteout names this: refused")]
    Whiteout,
    #[error("it links to nothing: refused")]
    NoTarget,
    #[error("owner {0} is out of range: refused")]
    Owner(u64),
    #[error("a sparse file: tar it without --sparse")]
    Sparse,
    #[error("of unknown type '{0}': refused")]
    Type(char),
    #[error("xattr {0} is overlayfs' own: refused")]
    Overlay(String),
    #[error("xattr with a NUL or no name: refused")]
    Xattr,
}

/// A name in the root: the directories to it, and its last part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Name {
    /// Joined by `/`; empty for one in the root itself.
    pub(super) parent: Vec<u8>,
    pub(super) last: CString,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// The root itself, always a directory.
    Root,
    /// The parent's content below is hidden.
    Opaque {
        parent: Vec<u8>,
    },
    Whiteout(Name),
    /// Of a union file system before overlayfs, without meaning here.
    Ignored,
    Directory(Name),
    File(Name),
    Symlink(Name, CString),
    HardLink(Name, Name),
    Device(Name, Special),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Special {
    Character,
    Block,
    Fifo,
}

const WHITEOUT: &[u8] = b".wh.";
const META: &[u8] = b".wh..wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

impl Shape {
    pub(super) fn of(entry: &Entry) -> Result<Self, Refused> {
        for owner in [entry.uid, entry.gid] {
            // The last one means "no change" to the kernel.
            if owner >= u64::from(u32::MAX) {
                return Err(Refused::Owner(owner));
            }
        }
        if entry.sparse {
            return Err(Refused::Sparse);
        }
        for (key, _) in &entry.xattrs {
            let overlay = [&b"trusted.overlay."[..], b"user.overlay."];
            if overlay.iter().any(|prefix| key.starts_with(prefix)) {
                return Err(Refused::Overlay(crate::error::shown(key)));
            }
            if key.is_empty() || key.contains(&0) {
                return Err(Refused::Xattr);
            }
        }
        let Some(name) = Name::of(&entry.path)? else {
            // A type change of the root: CVE-2021-29136.
            return match entry.kind {
                b'5' => Ok(Self::Root),
                _ => Err(Refused::Root),
            };
        };
        if name.parent.split(|&byte| byte == b'/').any(is_whiteout) {
            return Err(Refused::Whiteout);
        }
        if is_whiteout(name.last.as_bytes()) {
            return Self::whiteout(name);
        }
        // Old archives mark a directory by its slash alone.
        let slash = entry.path.ends_with(b"/");
        Ok(match entry.kind {
            0 | b'0' | b'7' if slash => Self::Directory(name),
            0 | b'0' | b'7' => Self::File(name),
            b'1' => {
                let target = Name::of(&entry.link)?.ok_or(Refused::NoTarget)?;
                Self::HardLink(name, target)
            }
            b'2' if entry.link.is_empty() => return Err(Refused::NoTarget),
            b'2' if entry.link.len() > MOST_PATH => return Err(Refused::TooLong),
            b'2' => {
                let target = CString::new(entry.link.clone()).map_err(|_| Refused::Nul)?;
                Self::Symlink(name, target)
            }
            b'3' => Self::Device(name, Special::Character),
            b'4' => Self::Device(name, Special::Block),
            b'5' => Self::Directory(name),
            b'6' => Self::Device(name, Special::Fifo),
            other => {
                return Err(Refused::Type(
                    other.escape_ascii().next().map_or('?', char::from),
                ));
            }
        })
    }

    fn whiteout(name: Name) -> Result<Self, Refused> {
        let last = name.last.as_bytes();
        if last == OPAQUE {
            return Ok(Self::Opaque {
                parent: name.parent,
            });
        }
        if last.starts_with(META) {
            return Ok(Self::Ignored);
        }
        match &last[WHITEOUT.len()..] {
            b"" | b"." | b".." => Err(Refused::Whiteout),
            hidden => {
                let last = CString::new(hidden).map_err(|_| Refused::Nul)?;
                Ok(Self::Whiteout(Name { last, ..name }))
            }
        }
    }
}

impl Name {
    /// `None` is the root.
    fn of(path: &[u8]) -> Result<Option<Self>, Refused> {
        if path.len() > MOST_PATH {
            return Err(Refused::TooLong);
        }
        if path.contains(&0) {
            return Err(Refused::Nul);
        }
        let mut parts: Vec<&[u8]> = Vec::new();
        for part in path.split(|&byte| byte == b'/') {
            match part {
                b"" | b"." => {}
                b".." => return Err(Refused::Parent),
                part if part.len() > MOST_NAME => return Err(Refused::TooLong),
                part => parts.push(part),
            }
        }
        let Some(last) = parts.pop() else {
            return Ok(None);
        };
        Ok(Some(Self {
            parent: parts.join(&b'/'),
            last: CString::new(last).map_err(|_| Refused::Nul)?,
        }))
    }

    pub(super) fn path(&self) -> Vec<u8> {
        if self.parent.is_empty() {
            return self.last.as_bytes().to_vec();
        }
        [&self.parent, self.last.as_bytes()].join(&b'/')
    }
}

fn is_whiteout(part: &[u8]) -> bool {
    part.starts_with(WHITEOUT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str, kind: u8) -> Entry {
        Entry {
            path: path.into(),
            link: b"target".to_vec(),
            kind,
            ..Entry::default()
        }
    }

    fn name(parent: &str, last: &str) -> Name {
        Name {
            parent: parent.into(),
            last: CString::new(last).unwrap(),
        }
    }

    fn shape(path: &str, kind: u8) -> Result<Shape, Refused> {
        Shape::of(&entry(path, kind))
    }

    #[test]
    fn names_are_relative_to_the_root() {
        assert_eq!(shape("./a//b/./c", b'0'), Ok(Shape::File(name("a/b", "c"))));
        assert_eq!(shape("/etc/x", 0), Ok(Shape::File(name("etc", "x"))));
        assert_eq!(shape("a/", b'0'), Ok(Shape::Directory(name("", "a"))));
        for root in ["", ".", "/", "././/"] {
            assert_eq!(shape(root, b'5'), Ok(Shape::Root));
            assert_eq!(shape(root, b'2'), Err(Refused::Root));
            assert_eq!(shape(root, b'1'), Err(Refused::Root));
        }
        for parent in ["..", "a/../b", "/../x", "a/.."] {
            assert_eq!(shape(parent, b'5'), Err(Refused::Parent));
        }
        assert_eq!(shape(&"d/".repeat(10_000), b'5'), Err(Refused::TooLong));
        assert_eq!(shape(&"d".repeat(256), b'5'), Err(Refused::TooLong));
        assert_eq!(shape("a\0b", b'0'), Err(Refused::Nul));
    }

    #[test]
    fn whiteouts_name_something() {
        assert_eq!(shape("a/.wh.b", b'0'), Ok(Shape::Whiteout(name("a", "b"))));
        assert_eq!(
            shape("a/.wh..wh..opq", b'0'),
            Ok(Shape::Opaque {
                parent: b"a".into()
            })
        );
        assert_eq!(shape(".wh..wh.plnk", b'5'), Ok(Shape::Ignored));
        for wrong in [".wh.", ".wh..", ".wh...", ".wh.a/b", "x/.wh.a/.wh.b"] {
            assert_eq!(shape(wrong, b'0'), Err(Refused::Whiteout), "{wrong}");
        }
    }

    #[test]
    fn what_no_layer_has_is_refused() {
        let refused = |change: fn(&mut Entry)| {
            let mut entry = entry("x", b'2');
            change(&mut entry);
            Shape::of(&entry).unwrap_err()
        };
        assert_eq!(refused(|e| e.link.clear()), Refused::NoTarget);
        assert_eq!(
            refused(|e| e.uid = u64::from(u32::MAX)),
            Refused::Owner(u64::from(u32::MAX))
        );
        assert_eq!(refused(|e| e.sparse = true), Refused::Sparse);
        assert_eq!(refused(|e| e.kind = b'Z'), Refused::Type('Z'));
        assert_eq!(
            refused(|e| e
                .xattrs
                .push((b"trusted.overlay.redirect".to_vec(), b"/".to_vec()))),
            Refused::Overlay("trusted.overlay.redirect".into())
        );
        assert!(matches!(
            shape("x", b'1'),
            Ok(Shape::HardLink(_, target)) if target == name("", "target")
        ));
    }
}
