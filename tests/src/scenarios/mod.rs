//! Every scenario, by area. A new file is added here and nowhere else.

use crate::runner::Scenario;

pub mod agent;
pub mod alerts;
pub mod apparmor;
pub mod article;
pub mod canary;
pub mod cgroups;
pub mod completions;
pub mod config;
pub mod corpus;
pub mod dashboards;
pub mod delegation;
pub mod devices;
pub mod events;
pub mod faults;
pub mod files;
pub mod found;
pub mod hardened;
pub mod hostile;
pub mod images;
pub mod init;
pub mod json;
pub mod kernel;
pub mod life;
pub mod limits;
pub mod metrics;
pub mod namespaces;
pub mod networks;
pub mod ns;
pub mod oci;
pub mod oom;
pub mod page;
pub mod policy;
pub mod portability;
pub mod privilege;
pub mod prometheus;
pub mod ps;
pub mod remap;
pub mod rootfs;
pub mod seccomp;
pub mod sharing;
pub mod stats;
pub mod top;
pub mod trace;
pub mod users;
pub mod web;

/// What asks the kernel half, which is another one on each kernel; of the corpus what is forbidden.
const OF_EACH_KERNEL: [&str; 15] = [
    "corpus::enforced::",
    "found::",
    "kernel::",
    "oom::",
    "policy::capability::",
    "policy::device::",
    "policy::found",
    "policy::network::",
    "policy::ingress::",
    "policy::path::",
    "policy::root_",
    "policy::setns",
    "policy::sysctl",
    "portability::",
    "prometheus::",
];
/// What asks a kernel for no more than files, sockets and terminals: left to this machine. Images
/// whose ids are mapped are not among it.
const OF_ANY_KERNEL: [&str; 24] = [
    "agent::counters_",
    "agent::demo_",
    "agent::exposition_",
    "agent::health_",
    "canary::is_not_waited_for",
    "completions::",
    "config::",
    "dashboards::",
    "events::",
    "faults::hostile_names",
    "faults::not_root",
    "faults::port_in_use",
    "faults::second_agent_refused",
    "faults::stale_socket_replaced",
    "images::",
    "json::",
    "page::",
    "policy::bad_files_",
    "policy::good_files_",
    "policy::needs_no_root",
    "policy::packs_",
    "policy::what_is_no_file_",
    "top::",
    "web::",
];
const MAPPED: &str = "images::remap_";

/// Those of each kernel, and of the others every `of`th, beginning with `which`.
pub fn share(all: Vec<Scenario>, which: usize, of: usize) -> Vec<Scenario> {
    let mut others = 0;
    all.into_iter()
        .filter(|scenario| {
            let is_one = |areas: &[&str]| areas.iter().any(|area| scenario.name.starts_with(area));
            if is_one(&OF_EACH_KERNEL) {
                return true;
            }
            if is_one(&OF_ANY_KERNEL) && !scenario.name.starts_with(MAPPED) {
                return false;
            }
            others += 1;
            (others - 1) % of == which - 1
        })
        .collect()
}

/// In the order they run: foundations first, so that the first failure is the telling one.
pub fn all() -> Vec<Scenario> {
    [
        cgroups::ALL,
        limits::ALL,
        limits::flags::ALL,
        limits::update::ALL,
        limits::pause::ALL,
        limits::restore::ALL,
        delegation::ALL,
        limits::ulimit::ALL,
        namespaces::ALL,
        sharing::ALL,
        networks::ALL,
        ns::ALL,
        privilege::ALL,
        seccomp::ALL,
        apparmor::ALL,
        devices::ALL,
        users::ALL,
        remap::ALL,
        hardened::ALL,
        files::ALL,
        rootfs::ALL,
        hostile::ALL,
        oci::verbs::ALL,
        oci::inside::ALL,
        oci::hooks::ALL,
        oci::hostile::ALL,
        oci::apparmor::ALL,
        oci::memory_policy::ALL,
        oci::scheduler::ALL,
        oci::listener::ALL,
        oci::net_devices::ALL,
        oci::podman::ALL,
        oci::found::ALL,
        oci::without_cgroups::ALL,
        life::ALL,
        trace::ALL,
        article::ALL,
        ps::ALL,
        init::ALL,
        life::stop::ALL,
        life::logs::ALL,
        life::attach::ALL,
        life::restart::ALL,
        life::oom::ALL,
        events::ALL,
        events::otlp::ALL,
        json::ALL,
        page::ALL,
        page::browser::ALL,
        metrics::ALL,
        stats::ALL,
        top::ALL,
        completions::ALL,
        oom::ALL,
        kernel::calls::ALL,
        kernel::counts::ALL,
        kernel::less::ALL,
        kernel::maps::ALL,
        kernel::swap::ALL,
        found::ALL,
        found::podman::ALL,
        policy::ALL,
        policy::capabilities::ALL,
        policy::devices::ALL,
        policy::disk::ALL,
        policy::enforced::ALL,
        policy::found::ALL,
        policy::guarded::ALL,
        policy::network::ALL,
        policy::ingress::ALL,
        policy::sysctl::ALL,
        policy::paths::ALL,
        policy::reactions::ALL,
        policy::recorded::ALL,
        policy::setns::ALL,
        portability::ALL,
        &corpus::all(),
        agent::ALL,
        config::ALL,
        canary::ALL,
        alerts::ALL,
        dashboards::ALL,
        prometheus::ALL,
        &web::ALL.concat(),
        &images::ALL.concat(),
        faults::ALL,
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use super::{OF_ANY_KERNEL, OF_EACH_KERNEL, all, share};

    #[test]
    fn shares_leave_out_what_any_kernel_does_alike() {
        let mut shared: Vec<_> = [1, 2]
            .into_iter()
            .flat_map(|which| share(all(), which, 2))
            .map(|scenario| scenario.name)
            .collect();
        shared.sort_unstable();
        shared.dedup();
        let mut whole: Vec<_> = all().iter().map(|scenario| scenario.name).collect();
        whole.sort_unstable();
        whole.dedup();
        whole.retain(|name| !shared.contains(name));
        let left_out = |name: &&str| OF_ANY_KERNEL.iter().any(|area| name.starts_with(area));
        assert!(!whole.is_empty() && whole.iter().all(left_out), "{whole:?}");
        assert!(shared.contains(&"images::remap_refused"));
        // A name that nobody has would leave its scenarios to one guest.
        for area in OF_EACH_KERNEL.iter().chain(&OF_ANY_KERNEL) {
            let names = all();
            let mut names = names.iter().map(|scenario| scenario.name);
            assert!(names.any(|name| name.starts_with(area)), "{area}");
        }
    }
}
