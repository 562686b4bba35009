//! Bytes of a ring to a [`Record`].

use std::{
    ffi::CStr,
    net::{Ipv4Addr, Ipv6Addr},
};

use paddock_abi::{
    activity::{Activity, Verdict},
    counters::{Constraint, Level, NsSyscall, Ring},
    guard::Tampered,
    namespace::{NS_TYPES, NsType, Target},
    record::{COMM_LEN, EXE_LEN, OBJECT_LEN, PATH_LEN, UNMAPPED, UNREAD, cgroup_op, kind},
};

use crate::{
    Actor, Body, CapabilityDenial, CgroupKey, CgroupOp, Denial, DeviceDenial, Memory,
    NamespaceTarget, PathDenial, PeerDenial, Record, Slot, Tampering,
};

/// `None`: no known kind, or not its size.
pub(crate) fn decode(ring: Ring, bytes: &[u8]) -> Option<Record> {
    let mut reader = Reader { bytes };
    let kind = reader.u32()?;
    let slot = Slot(reader.u32()?);
    let time_ns = reader.u64()?;
    let actor = actor(&mut reader)?;
    let body = match kind {
        kind::NS_CALL => ns_call(&mut reader)?,
        kind::OOM => oom(&mut reader)?,
        kind::CGROUP => cgroup(&mut reader)?,
        kind::EXEC => Body::Exec {
            filename: reader.text::<PATH_LEN>()?,
        },
        kind::EXIT => exit(&mut reader)?,
        kind::ACTIVITY => activity(&mut reader)?,
        kind::DENIAL => denial(&mut reader)?,
        kind::PATH_DENIAL => path_denial(&mut reader)?,
        kind::PEER_DENIAL => peer_denial(&mut reader)?,
        kind::CAPABILITY_DENIAL => capability_denial(&mut reader)?,
        kind::DEVICE_DENIAL => device_denial(&mut reader)?,
        kind::TAMPERING => tampering(&mut reader)?,
        _ => return None,
    };
    reader.bytes.is_empty().then_some(Record {
        ring,
        time_ns,
        slot,
        actor,
        body,
    })
}

fn actor(reader: &mut Reader<'_>) -> Option<Actor> {
    let cgroup_id = reader.u64()?;
    let hierarchy = reader.u32()?;
    Some(Actor {
        tgid: reader.u32()?,
        tid: reader.u32()?,
        uid: reader.u32()?,
        inner_tgid: reader.u32()?,
        parent_tgid: reader.u32()?,
        inner_uid: inner_uid(reader)?,
        comm: reader.text::<COMM_LEN>()?,
        exe: reader.text::<EXE_LEN>()?,
        cgroup: CgroupKey::from_parts(hierarchy, cgroup_id),
    })
}

/// `None` is a record that is too short.
#[expect(clippy::option_option, reason = "the inner one is the value")]
fn inner_uid(reader: &mut Reader<'_>) -> Option<Option<u32>> {
    let uid = reader.u32()?;
    let _pad = reader.u32()?;
    Some((uid != UNMAPPED).then_some(uid))
}

fn ns_call(reader: &mut Reader<'_>) -> Option<Body> {
    let flags = reader.u64()?;
    let syscall = match reader.u32()? {
        0 => NsSyscall::Setns,
        1 => NsSyscall::Unshare,
        2 => NsSyscall::Clone,
        _ => return None,
    };
    let fd = reader.i32()?;
    let ret = reader.i32()?;
    let verdict = verdict(reader.u32()?)?;
    let _requested = reader.u32()?;
    let changed = reader.u32()?;
    let target: [u8; NS_TYPES] = reader.array()?;
    let mut targets = Vec::new();
    for namespace in NsType::ALL {
        let inum = reader.u32()?;
        let target = class(target[namespace.index()])?;
        if target != Target::None {
            targets.push(NamespaceTarget {
                namespace,
                target,
                inum: (inum != 0).then_some(inum),
                changed: changed & namespace.bit() != 0,
            });
        }
    }
    let fd = (syscall == NsSyscall::Setns).then_some(fd);
    Some(Body::NsCall {
        syscall,
        flags,
        fd,
        ret,
        verdict,
        targets,
    })
}

fn class(target: u8) -> Option<Target> {
    Target::ALL.into_iter().find(|class| *class as u8 == target)
}

fn oom(reader: &mut Reader<'_>) -> Option<Body> {
    let victim_cgroup = reader.u64()?;
    let victim_hierarchy = reader.u32()?;
    let constraint = match reader.u32()? {
        0 => Constraint::Memcg,
        1 => Constraint::Host,
        2 => Constraint::Cpuset,
        _ => return None,
    };
    let limit_bytes = reader.u64()?;
    let limit_cgroup = reader.u64()?;
    let limit_hierarchy = reader.u32()?;
    let trigger_slot = Slot(reader.u32()?);
    let (tgid, thread, uid) = (reader.u32()?, reader.u32()?, reader.u32()?);
    let victim_known = reader.u32()? != 0;
    let level = match reader.u32()? {
        0 => Level::Own,
        1 => Level::Nested,
        2 => Level::Ancestor,
        3 => Level::Host,
        _ => return None,
    };
    let group = reader.u32()? != 0;
    let mut size = || Some(reader.u64()?).map(|bytes| (bytes != UNREAD).then_some(bytes));
    let [rss_file, rss_anon, rss_shmem, total_vm] = [size()?, size()?, size()?, size()?];
    let oom_score_adj = reader.i32()?;
    let _pad = reader.u32()?;
    let comm = reader.text::<COMM_LEN>()?;
    let cgroup = CgroupKey::from_parts(victim_hierarchy, victim_cgroup);
    Some(Body::OomKill {
        victim: Actor {
            tgid,
            tid: thread,
            uid,
            inner_tgid: 0,
            parent_tgid: 0,
            inner_uid: None,
            comm,
            exe: String::new(),
            cgroup,
        },
        victim_known,
        memory: Memory {
            rss_anon,
            rss_file,
            rss_shmem,
            total_vm,
            oom_score_adj: victim_known.then_some(oom_score_adj),
        },
        level,
        group,
        trigger_slot,
        constraint,
        limit_bytes: (limit_bytes != 0).then_some(limit_bytes),
        limit_cgroup: CgroupKey::from_parts(limit_hierarchy, limit_cgroup),
    })
}

fn cgroup(reader: &mut Reader<'_>) -> Option<Body> {
    let op = reader.u32()?;
    let birth = op == cgroup_op::BIRTH;
    let op = match op {
        cgroup_op::MKDIR | cgroup_op::BIRTH => CgroupOp::Mkdir,
        cgroup_op::ATTACH => CgroupOp::Attach,
        cgroup_op::RMDIR => CgroupOp::Rmdir,
        _ => return None,
    };
    let hierarchy = reader.u32()?;
    let (id, parent_id) = (reader.u64()?, reader.u64()?);
    let moved = (reader.u32()?, reader.u32()?);
    Some(Body::Cgroup {
        op,
        birth,
        cgroup: CgroupKey::from_parts(hierarchy, id),
        id,
        parent_id,
        path: reader.text::<PATH_LEN>()?,
        moved: (op == CgroupOp::Attach).then_some(moved),
    })
}

fn activity(reader: &mut Reader<'_>) -> Option<Body> {
    let number = reader.u32()?;
    let activity = *Activity::ALL.get(usize::try_from(number).ok()?)?;
    let target = class(u8::try_from(reader.u32()?).ok()?)?;
    let verdict = verdict(reader.u32()?)?;
    let ret = reader.i32()?;
    let args = [reader.u64()?, reader.u64()?, reader.u64()?, reader.u64()?];
    let (other_tgid, other_slot) = (reader.u32()?, reader.u32()?);
    Some(Body::Activity {
        activity,
        target,
        verdict,
        ret,
        args,
        other_tgid: (other_tgid != 0).then_some(other_tgid),
        other_slot: Slot(other_slot),
        object: reader.text::<OBJECT_LEN>()?,
        place: reader.text::<OBJECT_LEN>()?,
    })
}

fn denial(reader: &mut Reader<'_>) -> Option<Body> {
    let number = reader.u32()?;
    let activity = *Activity::ALL.get(usize::try_from(number).ok()?)?;
    let target = class(u8::try_from(reader.u32()?).ok()?)?;
    let ruleset = reader.u32()?;
    let rule = reader.u32()?;
    let action = u16::try_from(reader.u32()?).ok()?;
    let other_tgid = reader.u32()?;
    Some(Body::Denial(Denial {
        activity,
        target,
        ruleset,
        rule,
        action,
        other_tgid: (other_tgid != 0).then_some(other_tgid),
    }))
}

fn peer_denial(reader: &mut Reader<'_>) -> Option<Body> {
    let (ruleset, rule) = (reader.u32()?, reader.u32()?);
    let action = u16::try_from(reader.u32()?).ok()?;
    let port = reader.u16()?;
    let [way, family] = reader.array()?;
    let address: [u8; 16] = reader.array()?;
    let [a, b, c, d, ..] = address;
    Some(Body::PeerDenial(PeerDenial {
        ruleset,
        rule,
        action,
        direction: way >> 4,
        protocol: way & 0xf,
        address: match family {
            4 => Ipv4Addr::new(a, b, c, d).into(),
            6 => Ipv6Addr::from(address).into(),
            _ => return None,
        },
        port,
    }))
}

fn path_denial(reader: &mut Reader<'_>) -> Option<Body> {
    Some(Body::PathDenial(PathDenial {
        ruleset: reader.u32()?,
        rule: reader.u32()?,
        action: u16::try_from(reader.u32()?).ok()?,
        operation: usize::try_from(reader.u32()?).ok()?,
        path: reader.text::<{ 2 * PATH_LEN }>()?,
    }))
}

fn capability_denial(reader: &mut Reader<'_>) -> Option<Body> {
    Some(Body::CapabilityDenial(CapabilityDenial {
        ruleset: reader.u32()?,
        rule: reader.u32()?,
        action: u16::try_from(reader.u32()?).ok()?,
        capability: reader.u32()?,
    }))
}

fn device_denial(reader: &mut Reader<'_>) -> Option<Body> {
    let (ruleset, rule) = (reader.u32()?, reader.u32()?);
    let action = u16::try_from(reader.u32()?).ok()?;
    let (major, minor) = (reader.u32()?, reader.u32()?);
    Some(Body::DeviceDenial(DeviceDenial {
        ruleset,
        rule,
        action,
        kind: reader.u16()?,
        major,
        minor,
        access: reader.u16()?,
    }))
}

fn tampering(reader: &mut Reader<'_>) -> Option<Body> {
    let what = *Tampered::ALL.get(usize::try_from(reader.u32()?).ok()?)?;
    let denied = reader.u32()? != 0;
    let id = reader.u32()?;
    let _pad = reader.u32()?;
    Some(Body::Tampering(Tampering {
        what,
        denied,
        id: (id != 0).then_some(id),
    }))
}

fn verdict(number: u32) -> Option<Verdict> {
    Verdict::ALL
        .into_iter()
        .find(|verdict| *verdict as u32 == number)
}

/// The status word of wait(2): low seven bits the signal, the next byte the code.
fn exit(reader: &mut Reader<'_>) -> Option<Body> {
    let status = reader.i32()?;
    let _pad = reader.u32()?;
    let signal = status & 0x7f;
    Some(if signal == 0 {
        Body::Exit {
            code: Some((status >> 8) & 0xff),
            signal: None,
        }
    } else {
        Body::Exit {
            code: None,
            signal: Some(signal),
        }
    })
}

struct Reader<'a> {
    bytes: &'a [u8],
}

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.bytes.split_first_chunk::<N>()?;
        self.bytes = rest;
        Some(*head)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_ne_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_ne_bytes)
    }

    fn i32(&mut self) -> Option<i32> {
        self.array().map(i32::from_ne_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_ne_bytes)
    }

    /// Up to the NUL: what is behind it is old memory.
    fn text<const N: usize>(&mut self) -> Option<String> {
        let bytes: [u8; N] = self.array()?;
        let text = CStr::from_bytes_until_nul(&bytes).map_or(&bytes[..], CStr::to_bytes);
        Some(String::from_utf8_lossy(text).into_owned())
    }
}
