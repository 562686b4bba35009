//! Network devices of the host's in a container: moved there, named, with their addresses, and
//! given back when the container is not made after all.
//!
//! runtime-spec's `linux.netDevices`. The kernel takes a moved device down and its addresses off;
//! permanent ones of global scope are set again and the device is set up. Once the container is
//! made, its devices are its own: with its namespace the kernel sends physical ones to the initial
//! namespace and ends virtual ones. Kernels from 5.10. The caller is single-threaded: it is in the
//! container's network namespace for the length of one call.
//!
//! rtnetlink is spoken here: six requests, of whose answers an index, a name, flags and addresses
//! are read. netlink-packet-route would parse every attribute of every device for them, in four
//! more crates, refuse lists that have one it misreads, and still leave the socket to us.
#![forbid(unsafe_code)]

mod message;
mod rtnetlink;

use std::{
    fs::File,
    io,
    os::{fd::AsFd as _, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    sched::{CloneFlags, setns},
};

use self::{
    message::{Address, LONGEST_NAME, Link},
    rtnetlink::Socket,
};

/// The kernel puts a number that is free in its place.
const TEMPLATE: &str = "%d";

/// A device of the launcher's network namespace, and its name in the container's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetDevice {
    pub name: String,
    /// May be a template, with one `%d`.
    pub target: String,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{op} {}", path.display())]
    Namespace {
        op: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "linux.netDevices: the container's network namespace is the runtime's own; give it another"
    )]
    SameNamespace,
    #[error("network device {name:?}: there is none in the runtime's network namespace")]
    Missing { name: String },
    #[error("network device {name:?}: is the loopback, which cannot be moved")]
    Loopback { name: String },
    #[error(
        "network device {name:?}: the container's network namespace has a {target:?} already; choose another name"
    )]
    Exists { name: String, target: String },
    #[error("network device {name:?}: {op}")]
    Failed {
        name: String,
        op: &'static str,
        #[source]
        source: io::Error,
    },
}

/// What was moved, and how it was before.
#[derive(Debug)]
pub struct Moved {
    home: Side,
    inside: Side,
    devices: Vec<Device>,
}

#[derive(Debug)]
struct Side {
    namespace: File,
    socket: Socket,
}

#[derive(Debug)]
struct Device {
    /// Inside.
    index: i32,
    name: String,
    addresses: Vec<Address>,
    was_up: bool,
}

impl NetDevice {
    pub fn is_template(&self) -> bool {
        self.target.contains(TEMPLATE)
    }

    /// What is new inside under one of these names is the device that was moved.
    fn may_be(&self, name: &str) -> bool {
        let is_made = || {
            let (head, tail) = self.target.split_once(TEMPLATE)?;
            let number = name.strip_prefix(head)?.strip_suffix(tail)?;
            number.parse::<u32>().ok()
        };
        name == self.name || name == self.target || is_made().is_some()
    }
}

/// The kernel's rules (dev_valid_name), without `%`, which is a template's.
pub fn is_valid_name(name: &str) -> bool {
    // isspace() of lib/ctype.c, byte by byte: a no-break space of Latin-1 is one.
    let is_space = |byte: u8| matches!(byte, b'\t'..=b'\r' | b' ' | 0xa0);
    let is_wrong = |byte: u8| is_space(byte) || matches!(byte, b'\0' | b'/' | b':' | b'%');
    !matches!(name, "" | "." | "..") && name.len() <= LONGEST_NAME && !name.bytes().any(is_wrong)
}

/// A name, or a template of names.
pub fn is_valid_target(target: &str) -> bool {
    let one = target.replacen(TEMPLATE, "00", 1);
    is_valid_name(&one)
}

impl Moved {
    /// Nothing yet. `pid` is a child that has not been waited for, in the container's network
    /// namespace.
    pub fn none(pid: i32) -> Result<Self, Error> {
        let home = open(Path::new("/proc/self/ns/net"))?;
        let path = PathBuf::from(format!("/proc/{pid}/ns/net"));
        let namespace = open(&path)?;
        if identity(&home, &path)? == identity(&namespace, &path)? {
            return Err(Error::SameNamespace);
        }
        let fail = |op| {
            let path = path.clone();
            move |errno: Errno| Error::Namespace {
                op,
                path,
                source: errno.into(),
            }
        };
        let socket = Socket::open().map_err(fail("open a netlink socket beside"))?;
        setns(&namespace, CloneFlags::CLONE_NEWNET).map_err(fail("enter"))?;
        let inside = Socket::open();
        setns(&home, CloneFlags::CLONE_NEWNET).map_err(fail("return from"))?;
        Ok(Self {
            home: Side {
                namespace: home,
                socket,
            },
            inside: Side {
                namespace,
                socket: inside.map_err(fail("open a netlink socket in"))?,
            },
            devices: Vec::new(),
        })
    }

    /// Moves one more. Where this fails, the device is as it was or [`Self::give_back`] makes
    /// it so.
    pub fn take(&mut self, wanted: &NetDevice) -> Result<(), Error> {
        let name = &wanted.name;
        let fail = |op| move |errno| failed(name, op, errno);
        let link = self.home.socket.link(name).map_err(fail("find"))?;
        // The kernel finds it by an alternative name, too, which is no name to keep.
        let Some(link) = link.filter(|link| link.name == *name) else {
            return Err(Error::Missing { name: name.clone() });
        };
        if link.is_loopback() {
            return Err(Error::Loopback { name: name.clone() });
        }
        let exists = || Error::Exists {
            name: name.clone(),
            target: wanted.target.clone(),
        };
        let inside = &mut self.inside.socket;
        let look = "look into the container's network namespace";
        if !wanted.is_template() && inside.link(&wanted.target).map_err(fail(look))?.is_some() {
            return Err(exists());
        }
        let read = self.home.socket.addresses(link.index);
        let addresses = read.map_err(fail("read its addresses"))?;
        let before = inside.links().map_err(fail(look))?;
        let namespace = self.inside.namespace.as_fd();
        let asked = self
            .home
            .socket
            .move_link(link.index, namespace, &wanted.target);
        let after = inside.links().map_err(fail(look))?;
        let is_new = |link: &Link| before.iter().all(|old| old.index != link.index);
        let arrived = after
            .into_iter()
            .find(|link| is_new(link) && wanted.may_be(&link.name));
        if let Some(arrived) = &arrived {
            self.devices.push(Device {
                index: arrived.index,
                name: name.clone(),
                addresses: addresses.clone(),
                was_up: link.is_up(),
            });
        }
        asked.map_err(|errno| match errno {
            Errno::EEXIST => exists(),
            errno => failed(name, "move it to the container", errno),
        })?;
        let arrived = arrived.ok_or_else(|| failed(name, look, Errno::ENODEV))?;
        let names = (&**name, &*arrived.name);
        for address in addresses.iter().filter(|one| one.is_permanent_and_global()) {
            inside
                .add(address, arrived.index, names)
                .map_err(fail("set an address of its own in the container"))?;
        }
        inside
            .set_up(arrived.index)
            .map_err(fail("set it up in the container"))
    }

    /// All to where they were, with name, addresses and state; what could not be.
    pub fn give_back(mut self) -> Vec<Error> {
        let devices = std::mem::take(&mut self.devices);
        let mut errors = Vec::new();
        // The last one first: its name may be one that an earlier one had.
        for device in devices.iter().rev() {
            if let Err(error) = self.restore(device, &mut errors) {
                errors.push(error);
            }
        }
        errors
    }

    fn restore(&mut self, device: &Device, errors: &mut Vec<Error>) -> Result<(), Error> {
        let name = &device.name;
        let fail = |op| move |errno| failed(name, op, errno);
        let back = "take it back from the container's network namespace";
        self.inside
            .socket
            .move_link(device.index, self.home.namespace.as_fd(), name)
            .map_err(fail(back))?;
        let home = &mut self.home.socket;
        let link = home.link(name).map_err(fail(back))?;
        let index = link.ok_or_else(|| failed(name, back, Errno::ENODEV))?.index;
        for address in device.addresses.iter().filter(|one| !one.is_temporary()) {
            let set = home.add(address, index, (name, name));
            errors.extend(set.map_err(fail("set an address of its own again")).err());
        }
        if device.was_up {
            home.set_up(index).map_err(fail("set it up again"))?;
        }
        Ok(())
    }
}

fn failed(name: &str, op: &'static str, errno: Errno) -> Error {
    Error::Failed {
        name: name.to_owned(),
        op,
        source: errno.into(),
    }
}

fn open(path: &Path) -> Result<File, Error> {
    File::open(path).map_err(|source| Error::Namespace {
        op: "open",
        path: path.to_owned(),
        source,
    })
}

/// A namespace's device and inode (namespaces(7)).
fn identity(namespace: &File, path: &Path) -> Result<(u64, u64), Error> {
    let found = namespace.metadata().map_err(|source| Error::Namespace {
        op: "identify",
        path: path.to_owned(),
        source,
    })?;
    Ok((found.dev(), found.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_kernels() {
        for name in ["eth0", "a", "a23456789012345", "...", "enp0s3.100", "ä"] {
            assert!(is_valid_name(name), "{name:?}");
            assert!(is_valid_target(name), "{name:?}");
        }
        for name in [
            "",
            ".",
            "..",
            "a/b",
            "a b",
            "a\tb",
            "a\u{b}",
            "a\nb",
            "a:b",
            "a\0",
            "a2345678901234567",
            "a234567890123456",
            // Its second byte is 0xa0.
            "à",
            "50%",
            "a%s",
        ] {
            assert!(!is_valid_name(name), "{name:?}");
            assert!(!is_valid_target(name), "{name:?}");
        }
    }

    #[test]
    fn a_template_has_one_number() {
        for target in ["eth%d", "%d", "a%db", "a234567890123%d"] {
            assert!(is_valid_target(target), "{target:?}");
            assert!(!is_valid_name(target), "{target:?}");
        }
        for target in ["eth%d%d", "%%d", "%d%", "a/%d", "a2345678901234%d"] {
            assert!(!is_valid_target(target), "{target:?}");
        }
    }

    #[test]
    fn what_arrives_is_known_by_its_name() {
        let device = |target: &str| NetDevice {
            name: "eth0".into(),
            target: target.into(),
        };
        assert!(device("net1").may_be("net1") && device("net1").may_be("eth0"));
        assert!(!device("net1").may_be("net2"));
        assert!(device("n%dx").may_be("n7x"));
        assert!(!device("n%dx").may_be("nx") && !device("n%dx").may_be("n7"));
    }
}
