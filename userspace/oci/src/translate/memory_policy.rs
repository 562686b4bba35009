//! `linux.memoryPolicy`: on which NUMA nodes memory comes from, set_mempolicy(2).

use oci_spec::runtime::{Linux, LinuxMemoryPolicy, MemoryPolicyFlagType, MemoryPolicyModeType};
use paddock_runtime::direct::MemoryPolicy;

use crate::error::Error;

/// No kernel is built for more (`CONFIG_NODES_SHIFT` is 10 at most).
const MOST_NODES: usize = 1024;

/// The numbers of linux/mempolicy.h.
pub(crate) fn memory_policy(linux: &Linux) -> Result<Option<MemoryPolicy>, Error> {
    let Some(wanted) = linux.memory_policy() else {
        return Ok(None);
    };
    let mode = match wanted.mode() {
        MemoryPolicyModeType::MpolDefault => 0,
        MemoryPolicyModeType::MpolPreferred => 1,
        MemoryPolicyModeType::MpolBind => 2,
        MemoryPolicyModeType::MpolInterleave => 3,
        MemoryPolicyModeType::MpolLocal => 4,
        MemoryPolicyModeType::MpolPreferredMany => 5,
        MemoryPolicyModeType::MpolWeightedInterleave => 6,
    };
    let flags = wanted.flags().iter().flatten().map(|flag| match flag {
        MemoryPolicyFlagType::MpolFNumaBalancing => 1 << 13,
        MemoryPolicyFlagType::MpolFRelativeNodes => 1 << 14,
        MemoryPolicyFlagType::MpolFStaticNodes => 1 << 15,
    });
    let text = wanted.nodes().clone().unwrap_or_default();
    let nodes = mask(&text).ok_or_else(|| {
        Error::config(format!(
            "linux.memoryPolicy.nodes: expected numbers below {MOST_NODES} and ranges, such as 0-3,7, not '{}'",
            crate::config::shorten(&text)
        ))
    })?;
    Ok(Some(MemoryPolicy {
        mode: flags.fold(mode, |all, flag| all | flag),
        nodes,
        shown: shown(wanted, &text),
    }))
}

fn shown(wanted: &LinuxMemoryPolicy, nodes: &str) -> String {
    let flags = wanted.flags().iter().flatten();
    let flags = flags.fold(String::new(), |all, flag| all + "|" + &flag.to_string());
    format!("{}{flags} of nodes '{nodes}'", wanted.mode())
}

/// A bit a node; none at all is an empty mask.
fn mask(text: &str) -> Option<Vec<usize>> {
    let bits = usize::BITS as usize;
    let mut mask = vec![0; MOST_NODES / bits];
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse()
            .ok()
            .filter(|node| digits && *node < MOST_NODES)
    };
    for range in text.split(',').map(str::trim).filter(|_| !text.is_empty()) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (number(first)?, number(last)?);
        if first > last {
            return None;
        }
        for node in first..=last {
            *mask.get_mut(node / bits)? |= 1 << (node % bits);
        }
    }
    if mask.iter().all(|word| *word == 0) {
        mask.clear();
    }
    Some(mask)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_a_mask() {
        assert_eq!(mask(""), Some(vec![]));
        assert_eq!(mask("0").unwrap()[0], 1);
        assert_eq!(mask("0-2,4").unwrap()[0], 0b1_0111);
        assert_eq!(mask("64").unwrap()[1], 1);
        for wrong in [
            "bad", "1024", "10284838", "2-1", "1-", "-1", ",", "0,,1", "+1",
        ] {
            assert_eq!(mask(wrong), None, "{wrong}");
        }
    }
}
