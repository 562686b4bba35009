//! rtnetlink's messages to the byte: what is asked, and the little that is read of the answers.
//!
//! rtnetlink(7), netlink(7). Answers are the kernel's; one that is cut short is EBADMSG.
#![forbid(unsafe_code)]

use nix::{errno::Errno, libc};

/// Of a message and of an attribute.
const ALIGNMENT: usize = 4;
const HEADER: usize = 16;
/// NLA_TYPE_MASK: the rest are flags of the type.
const TYPE: u16 = 0x3fff;
/// IFNAMSIZ without the NUL.
pub(super) const LONGEST_NAME: usize = 15;

/// A message on its way to the kernel, without a sequence number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request(Vec<u8>);

/// One of an answer's.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Message<'a> {
    pub kind: u16,
    pub flags: u16,
    pub sequence: u32,
    pub body: &'a [u8],
}

/// `struct ifinfomsg` and IFLA_IFNAME.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub index: i32,
    flags: u32,
    pub name: String,
}

/// `struct ifaddrmsg` with its attributes as they came: whatever the kernel knows of an address
/// is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub index: i32,
    family: u8,
    prefix: u8,
    short_flags: u8,
    scope: u8,
    attributes: Vec<(u16, Vec<u8>)>,
}

impl Request {
    pub(super) fn new(kind: u16, flags: i32, body: &[u8]) -> Self {
        let flags = u16::try_from(flags | libc::NLM_F_REQUEST).unwrap_or_default();
        let mut bytes = vec![0; 4];
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        // Sequence number and port, which is the socket's to fill in.
        bytes.extend([0; 8]);
        bytes.extend(body);
        Self(bytes)
    }

    pub(super) fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        pad(&mut self.0);
        let length = u16::try_from(ALIGNMENT + value.len()).unwrap_or(u16::MAX);
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self
    }

    pub(super) fn name(self, name: &str) -> Self {
        self.attribute(libc::IFLA_IFNAME, &terminated(name))
    }

    pub(super) fn bytes(&self, sequence: u32) -> Vec<u8> {
        let mut bytes = self.0.clone();
        pad(&mut bytes);
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        bytes[..4].copy_from_slice(&length.to_ne_bytes());
        bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        bytes
    }
}

/// `struct ifinfomsg`.
pub(super) fn link_header(index: i32, flags: i32, change: i32) -> Vec<u8> {
    // AF_UNSPEC and no hardware type.
    let words = [0, index, flags, change];
    words.into_iter().flat_map(i32::to_ne_bytes).collect()
}

/// `struct ifaddrmsg` that asks for all.
pub(super) fn any_address() -> [u8; 8] {
    [0; 8]
}

/// All messages of one datagram.
pub(super) fn messages(mut datagram: &[u8]) -> nix::Result<Vec<Message<'_>>> {
    let mut found = Vec::new();
    while !datagram.is_empty() {
        let length = usize::try_from(u32_at(datagram, 0)?).unwrap_or(usize::MAX);
        let message = datagram.get(..length).ok_or(Errno::EBADMSG)?;
        found.push(Message {
            kind: u16_at(message, 4)?,
            flags: u16_at(message, 6)?,
            sequence: u32_at(message, 8)?,
            body: message.get(HEADER..).ok_or(Errno::EBADMSG)?,
        });
        datagram = datagram.get(aligned(length)..).unwrap_or_default();
    }
    Ok(found)
}

/// Of NLMSG_ERROR, whose 0 is an acknowledgement, and of NLMSG_DONE.
pub(super) fn error(body: &[u8]) -> nix::Result<()> {
    match u32_at(body, 0)?.cast_signed() {
        0 => Ok(()),
        negative => Err(Errno::from_raw(negative.wrapping_neg())),
    }
}

impl Link {
    pub(super) fn read(body: &[u8]) -> nix::Result<Self> {
        let name = attributes(body, 16)?
            .into_iter()
            .find(|(kind, _)| *kind == libc::IFLA_IFNAME)
            .ok_or(Errno::EBADMSG)?;
        Ok(Self {
            index: u32_at(body, 4)?.cast_signed(),
            flags: u32_at(body, 8)?,
            name: text(name.1),
        })
    }

    pub(super) fn is_up(&self) -> bool {
        self.has(libc::IFF_UP)
    }

    pub(super) fn is_loopback(&self) -> bool {
        self.has(libc::IFF_LOOPBACK)
    }

    fn has(&self, flag: i32) -> bool {
        self.flags & flag.cast_unsigned() != 0
    }
}

impl Address {
    pub(super) fn read(body: &[u8]) -> nix::Result<Self> {
        let header = body.get(..8).ok_or(Errno::EBADMSG)?;
        Ok(Self {
            index: u32_at(body, 4)?.cast_signed(),
            family: header[0],
            prefix: header[1],
            short_flags: header[2],
            scope: header[3],
            attributes: attributes(body, 8)?
                .into_iter()
                .map(|(kind, value)| (kind, value.to_vec()))
                .collect(),
        })
    }

    /// Set by somebody to stay, and valid beyond its link: what the specification has kept.
    pub(super) fn is_permanent_and_global(&self) -> bool {
        self.flags() & libc::IFA_F_PERMANENT != 0 && self.scope == libc::RT_SCOPE_UNIVERSE
    }

    /// IPv6's privacy addresses: the kernel makes and forgets them by itself.
    pub(super) fn is_temporary(&self) -> bool {
        i32::from(self.family) == libc::AF_INET6 && self.flags() & libc::IFA_F_TEMPORARY != 0
    }

    /// The header has room for the first eight flags only.
    fn flags(&self) -> u32 {
        self.attributes
            .iter()
            .find(|(kind, _)| *kind == libc::IFA_FLAGS)
            .and_then(|(_, value)| u32_at(value, 0).ok())
            .unwrap_or_else(|| self.short_flags.into())
    }

    /// Sets it on another device; its label is the device's name, or begins with it.
    pub(super) fn request(&self, index: i32, (old, new): (&str, &str)) -> Request {
        let mut header = vec![self.family, self.prefix, self.short_flags, self.scope];
        header.extend(index.to_ne_bytes());
        let flags = libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_REPLACE;
        let request = Request::new(libc::RTM_NEWADDR, flags, &header);
        self.attributes
            .iter()
            .fold(request, |request, (kind, value)| {
                if *kind != libc::IFA_LABEL {
                    return request.attribute(*kind, value);
                }
                match relabel(&text(value), old, new) {
                    Some(label) => request.attribute(*kind, &terminated(&label)),
                    None => request,
                }
            })
    }
}

/// `None`: the kernel's own choice, the device's name.
fn relabel(label: &str, old: &str, new: &str) -> Option<String> {
    let Some(rest) = label.strip_prefix(old) else {
        return Some(label.to_owned());
    };
    let label = format!("{new}{rest}");
    (rest.starts_with(':') && label.len() <= LONGEST_NAME).then_some(label)
}

fn attributes(body: &[u8], after: usize) -> nix::Result<Vec<(u16, &[u8])>> {
    let mut rest = body.get(after..).ok_or(Errno::EBADMSG)?;
    let mut found = Vec::new();
    while rest.len() >= ALIGNMENT {
        let length = usize::from(u16_at(rest, 0)?);
        let value = rest.get(ALIGNMENT..length).ok_or(Errno::EBADMSG)?;
        found.push((u16_at(rest, 2)? & TYPE, value));
        rest = rest.get(aligned(length)..).unwrap_or_default();
    }
    Ok(found)
}

fn u32_at(bytes: &[u8], at: usize) -> nix::Result<u32> {
    let four = bytes.get(at..).and_then(<[u8]>::first_chunk);
    four.map(|four| u32::from_ne_bytes(*four))
        .ok_or(Errno::EBADMSG)
}

fn u16_at(bytes: &[u8], at: usize) -> nix::Result<u16> {
    let two = bytes.get(at..).and_then(<[u8]>::first_chunk);
    two.map(|two| u16::from_ne_bytes(*two))
        .ok_or(Errno::EBADMSG)
}

fn aligned(length: usize) -> usize {
    length.next_multiple_of(ALIGNMENT)
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(aligned(bytes.len()), 0);
}

fn terminated(name: &str) -> Vec<u8> {
    [name.as_bytes(), b"\0"].concat()
}

fn text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0);
    String::from_utf8_lossy(&value[..end.unwrap_or(value.len())]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIVERSE: u8 = 0;
    const LINK: u8 = 253;

    fn address(family: i32, flags: u8, scope: u8, attributes: &[(u16, &[u8])]) -> Address {
        let mut header = vec![u8::try_from(family).unwrap(), 24, flags, scope];
        header.extend(7_i32.to_ne_bytes());
        let request = Request::new(libc::RTM_NEWADDR, 0, &header);
        let request = attributes
            .iter()
            .fold(request, |all, (kind, value)| all.attribute(*kind, value));
        let bytes = request.bytes(1);
        Address::read(messages(&bytes).unwrap()[0].body).unwrap()
    }

    /// What `strace -e trace=network ip link set eth0 netns …` shows, on x86_64.
    #[test]
    #[cfg(target_endian = "little")]
    fn a_move_is_laid_out_as_the_kernel_reads_it() {
        let request = Request::new(libc::RTM_NEWLINK, libc::NLM_F_ACK, &link_header(3, 0, 0))
            .attribute(libc::IFLA_NET_NS_FD, &9_i32.to_ne_bytes())
            .name("eth10");
        let expected = [
            &[52, 0, 0, 0, 16, 0, 5, 0, 77, 0, 0, 0, 0, 0, 0, 0][..],
            &[0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            &[8, 0, 28, 0, 9, 0, 0, 0],
            &[10, 0, 3, 0, b'e', b't', b'h', b'1', b'0', 0, 0, 0],
        ];
        assert_eq!(request.bytes(77), expected.concat());
    }

    #[test]
    fn a_datagram_may_hold_several_messages() {
        let link = |index, name: &str| {
            Request::new(
                libc::RTM_NEWLINK,
                0,
                &link_header(index, libc::IFF_UP | libc::IFF_LOOPBACK, 0),
            )
            .attribute(libc::IFLA_MTU, &[0; 4])
            .name(name)
            .bytes(5)
        };
        let datagram = [link(1, "lo"), link(2, "x12345")].concat();
        let found = messages(&datagram).unwrap();
        assert_eq!((found.len(), found[1].sequence), (2, 5));
        let link = Link::read(found[1].body).unwrap();
        assert_eq!((link.index, &*link.name), (2, "x12345"));
        assert!(link.is_up() && link.is_loopback());
    }

    #[test]
    fn what_is_cut_short_is_refused() {
        let bytes = Request::new(libc::RTM_NEWLINK, 0, &link_header(1, 0, 0))
            .name("abc")
            .bytes(1);
        for length in 1..bytes.len() {
            assert_eq!(messages(&bytes[..length]), Err(Errno::EBADMSG), "{length}");
        }
        let body = messages(&bytes).unwrap()[0].body.to_vec();
        for length in 0..body.len() {
            assert_eq!(Link::read(&body[..length]), Err(Errno::EBADMSG), "{length}");
        }
        // A message, and an attribute, shorter than their own headers.
        assert_eq!(messages(&[4, 0, 0, 0]), Err(Errno::EBADMSG));
        let mut short = link_header(1, 0, 0);
        short.extend([0; 4]);
        assert_eq!(Link::read(&short), Err(Errno::EBADMSG));
        assert_eq!(error(&[0, 0]), Err(Errno::EBADMSG));
    }

    #[test]
    fn answers_are_an_errno_or_none() {
        assert_eq!(error(&0_i32.to_ne_bytes()), Ok(()));
        assert_eq!(error(&(-19_i32).to_ne_bytes()), Err(Errno::ENODEV));
    }

    #[test]
    fn only_permanent_global_addresses_are_kept() {
        let permanent = 0x80;
        let kept = |flags, scope, more: &[(u16, &[u8])]| {
            address(libc::AF_INET, flags, scope, more).is_permanent_and_global()
        };
        assert!(kept(permanent, UNIVERSE, &[]));
        assert!(!kept(0, UNIVERSE, &[]));
        assert!(!kept(permanent, LINK, &[]));
        // The attribute is the longer form of the header's.
        let long = 0x200_u32.to_ne_bytes();
        assert!(!kept(permanent, UNIVERSE, &[(libc::IFA_FLAGS, &long)]));
        assert!(address(libc::AF_INET6, 1, UNIVERSE, &[]).is_temporary());
        // The same bit is IPv4's secondary address.
        assert!(!address(libc::AF_INET, 1, UNIVERSE, &[]).is_temporary());
    }

    #[test]
    fn addresses_keep_their_attributes_and_change_their_device() {
        let local: (u16, &[u8]) = (libc::IFA_LOCAL, &[10, 1, 2, 3]);
        let unknown: (u16, &[u8]) = (99, &[1, 2, 3]);
        let before = address(
            libc::AF_INET,
            0x80,
            UNIVERSE,
            &[local, (libc::IFA_LABEL, b"eth0:1\0"), unknown],
        );
        let bytes = before.request(12, ("eth0", "net1")).bytes(1);
        let after = Address::read(messages(&bytes).unwrap()[0].body).unwrap();
        let expected = [local, (libc::IFA_LABEL, b"net1:1\0"), unknown];
        assert_eq!(after.index, 12);
        assert_eq!(
            after.attributes,
            expected.map(|(kind, value)| (kind, value.to_vec()))
        );
        assert_eq!((after.family, after.prefix, after.flags()), (2, 24, 0x80));
    }

    #[test]
    fn labels_follow_the_name() {
        assert_eq!(relabel("eth0", "eth0", "net1"), None);
        assert_eq!(relabel("eth0:x", "eth0", "b").as_deref(), Some("b:x"));
        assert_eq!(relabel("eth0:x", "eth0", "a23456789012345"), None);
        assert_eq!(relabel("other", "eth0", "b").as_deref(), Some("other"));
    }
}
