//! A route netlink socket: requests about devices and addresses of the namespace it was made in.
#![forbid(unsafe_code)]

use std::{
    io::IoSliceMut,
    os::fd::{AsRawFd as _, BorrowedFd, OwnedFd},
};

use nix::{
    errno::Errno,
    libc,
    sys::socket::{
        AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recvmsg, send,
        socket,
    },
};

use super::message::{self, Address, Link, Message, Request};

/// The kernel's own datagrams are at most 32 KiB.
const BUFFER: usize = 64 << 10;
/// How often a list is asked for that changed while it was told.
const TRIES: usize = 16;

#[derive(Debug)]
pub(super) struct Socket {
    fd: OwnedFd,
    sequence: u32,
}

/// An answer's messages, without their headers.
#[derive(Debug, Default)]
struct Answer {
    bodies: Vec<Vec<u8>>,
    /// What it lists changed meanwhile.
    is_interrupted: bool,
}

impl Socket {
    /// In the caller's network namespace, and of that ever after.
    pub(super) fn open() -> nix::Result<Self> {
        let fd = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkRoute,
        )?;
        Ok(Self { fd, sequence: 0 })
    }

    /// `None`: no device has this name.
    pub(super) fn link(&mut self, name: &str) -> nix::Result<Option<Link>> {
        let header = message::link_header(0, 0, 0);
        let request = Request::new(libc::RTM_GETLINK, libc::NLM_F_ACK, &header).name(name);
        match self.ask(&request) {
            Ok(answer) => answer
                .bodies
                .first()
                .map(|body| Link::read(body))
                .transpose(),
            Err(Errno::ENODEV) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    pub(super) fn links(&mut self) -> nix::Result<Vec<Link>> {
        let header = message::link_header(0, 0, 0);
        let request = Request::new(libc::RTM_GETLINK, libc::NLM_F_DUMP, &header);
        self.list(&request, Link::read)
    }

    /// A device's, in the kernel's order: an IPv4 network's first address is its primary one.
    pub(super) fn addresses(&mut self, index: i32) -> nix::Result<Vec<Address>> {
        let header = message::any_address();
        let request = Request::new(libc::RTM_GETADDR, libc::NLM_F_DUMP, &header);
        let mut found = self.list(&request, Address::read)?;
        found.retain(|address| address.index == index);
        Ok(found)
    }

    /// Moves a device and names it. Should its new name be taken by then, it may be there under
    /// its old one, though this fails.
    pub(super) fn move_link(
        &mut self,
        index: i32,
        namespace: BorrowedFd<'_>,
        name: &str,
    ) -> nix::Result<()> {
        let header = message::link_header(index, 0, 0);
        let request = Request::new(libc::RTM_NEWLINK, libc::NLM_F_ACK, &header)
            .attribute(libc::IFLA_NET_NS_FD, &namespace.as_raw_fd().to_ne_bytes())
            .name(name);
        self.ask(&request).map(drop)
    }

    pub(super) fn set_up(&mut self, index: i32) -> nix::Result<()> {
        let header = message::link_header(index, libc::IFF_UP, libc::IFF_UP);
        let request = Request::new(libc::RTM_NEWLINK, libc::NLM_F_ACK, &header);
        self.ask(&request).map(drop)
    }

    /// Sets an address of a device that had one name on another, or on itself under a new one.
    pub(super) fn add(
        &mut self,
        address: &Address,
        index: i32,
        names: (&str, &str),
    ) -> nix::Result<()> {
        self.ask(&address.request(index, names)).map(drop)
    }

    fn list<T>(
        &mut self,
        request: &Request,
        read: fn(&[u8]) -> nix::Result<T>,
    ) -> nix::Result<Vec<T>> {
        for _ in 0..TRIES {
            let answer = self.ask(request)?;
            if !answer.is_interrupted {
                return answer.bodies.iter().map(|body| read(body)).collect();
            }
        }
        Err(Errno::EBUSY)
    }

    /// Until it is acknowledged or the list is at its end.
    fn ask(&mut self, request: &Request) -> nix::Result<Answer> {
        self.sequence += 1;
        send(
            self.fd.as_raw_fd(),
            &request.bytes(self.sequence),
            MsgFlags::empty(),
        )?;
        let mut buffer = vec![0; BUFFER];
        let mut answer = Answer::default();
        loop {
            let length = self.receive(&mut buffer)?;
            let datagram = message::messages(&buffer[..length])?;
            let own = datagram
                .into_iter()
                .filter(|message| message.sequence == self.sequence);
            for message in own {
                let Message { flags, body, .. } = message;
                answer.is_interrupted |= i32::from(flags) & libc::NLM_F_DUMP_INTR != 0;
                match i32::from(message.kind) {
                    libc::NLMSG_ERROR | libc::NLMSG_DONE => {
                        return message::error(body).map(|()| answer);
                    }
                    _ => answer.bodies.push(body.to_vec()),
                }
            }
        }
    }

    /// The next datagram of the kernel's: in its own namespace, a container's root may write to
    /// this socket, too.
    fn receive(&self, buffer: &mut [u8]) -> nix::Result<usize> {
        loop {
            let mut parts = [IoSliceMut::new(buffer)];
            let fd = self.fd.as_raw_fd();
            let received = recvmsg::<NetlinkAddr>(fd, &mut parts, None, MsgFlags::empty());
            let received = match received {
                Err(Errno::EINTR) => continue,
                other => other?,
            };
            if received.address.is_none_or(|sender| sender.pid() != 0) {
                continue;
            }
            if received.flags.contains(MsgFlags::MSG_TRUNC) {
                return Err(Errno::EMSGSIZE);
            }
            return Ok(received.bytes);
        }
    }
}
