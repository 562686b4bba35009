//! The monitor's part of a trace: what it does for the child, and the words to the numbers that
//! the child tells. What can be read back is read back from /proc.
#![forbid(unsafe_code)]

use std::fs;

use paddock_cgroups::Cgroup;

use crate::{
    network::Networks,
    plan::{Enter, Plan, calls::clone_flags},
    protocol::MAX_PACKET,
    trace::{Trace, Traced},
};

/// All but the cgroup's, which the child makes later.
const NAMESPACES: [&str; 7] = ["ipc", "mnt", "net", "pid", "time", "user", "uts"];

/// Leaves room for the rest of the packet that they go in.
const LIMIT: usize = MAX_PACKET - 4096;

#[derive(Debug)]
pub(super) struct Told {
    trace: Trace,
    calls: Vec<(&'static str, String)>,
    exec: String,
}

impl Told {
    /// The start was asked for.
    pub(super) fn new(mut trace: Trace) -> Self {
        trace.done("monitor", "asked to start it");
        Self {
            trace,
            calls: Vec::new(),
            exec: String::new(),
        }
    }

    pub(super) fn start_ns(&self) -> u64 {
        self.trace.start_ns()
    }

    /// The plan is made, and devices are limited.
    pub(super) fn prepared(&mut self, plan: &Plan, device_rules: usize) {
        self.calls = plan.calls();
        self.exec = plan.exec_call();
        if device_rules > 0 {
            let how = format!("{device_rules} of the cgroup, in force");
            self.trace.done("device rules", &how);
        }
    }

    pub(super) fn cloned(&mut self, pid: i32, plan: &Plan, into_cgroup: bool) {
        let mut flags = clone_flags(plan.clone_flags);
        if into_cgroup {
            flags.push_str("|CLONE_INTO_CGROUP");
        }
        for join in &plan.joins {
            let how = format!("setns({}), by its parent", join.path.display());
            self.trace.done("join namespace", &how);
        }
        let how = format!("clone3({}), process {pid}", flags.trim_start_matches('|'));
        self.trace.done("clone", &how);
        if plan.enter.is_none() {
            self.namespaces(pid, &NAMESPACES);
        }
    }

    pub(super) fn provided(&mut self, pid: i32, plan: &Plan, cgroup: &Cgroup) {
        if plan.maps.is_some() {
            for file in ["uid_map", "gid_map"] {
                let path = format!("/proc/{pid}/{file}");
                let shown = fs::read_to_string(&path).unwrap_or_default();
                let ranges: Vec<String> = shown
                    .lines()
                    .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
                    .collect();
                let how = format!("write {path}, reads {}", ranges.join(", "));
                self.trace.done("id map", &how);
            }
        }
        for tasks in cgroup.v1_tasks() {
            let how = format!("write {}", tasks.display());
            self.trace.done("join cgroup", &how);
        }
    }

    pub(super) fn networked(&mut self, networks: &Networks) {
        for one in &networks.attachments {
            let addresses: Vec<_> = one.addresses().iter().map(ToString::to_string).collect();
            let how = format!(
                "CNI ADD {} {}: {}",
                one.network.name,
                one.interface,
                addresses.join(" ")
            );
            self.trace.done("join network", &how);
        }
    }

    pub(super) fn entered(&mut self, pid: i32, enter: &Enter) {
        let how = format!("setns(CLONE_NEWUSER), {}", clone_flags(enter.new));
        self.trace.done("join user namespace", &how);
        self.namespaces(pid, &NAMESPACES);
    }

    /// The child's own words.
    pub(super) fn done(&mut self, index: u32, micros: i32) {
        let index = usize::try_from(index).unwrap_or(usize::MAX);
        if let Some((what, how)) = self.calls.get(index) {
            let at_us = u32::try_from(micros).unwrap_or(0);
            self.trace.done_at(at_us, what, how);
        }
    }

    /// All of it. The program runs, or has ended already and then has no namespaces any more.
    pub(super) fn executed(mut self, pid: i32) -> Vec<Traced> {
        let exec = std::mem::take(&mut self.exec);
        self.trace.done("exec", &exec);
        self.namespaces(pid, &["cgroup"]);
        self.trace.into_steps(LIMIT)
    }

    fn namespaces(&mut self, pid: i32, names: &[&str]) {
        for name in names {
            let link = |of: &str| fs::read_link(format!("/proc/{of}/ns/{name}"));
            let Ok(found) = link(&pid.to_string()) else {
                continue;
            };
            let own = link("self").is_ok_and(|own| own == found);
            let whose = if own { ", the host's" } else { "" };
            let how = format!("{}{whose}", found.display());
            self.trace.done("namespace", &how);
        }
    }
}
