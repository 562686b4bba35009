//! The flags for limits, of `run` and of `update`. Names are docker's where docker has one,
//! else podman's or the kernel's.

mod values;

use std::collections::BTreeMap;

use paddock_cgroups::{
    CpuLimits, CpusetLimits, Device, IoLimits, Limits, MemoryLimits, RdmaLimit, parse::PERIOD,
};

/// What `--help` lists of these is what people use; `--help-all` (of `update`, `--help`) the rest.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Limits")]
pub(crate) struct LimitFlags {
    /// Memory, such as 256m; -1 is unlimited
    #[arg(short, long, value_name = "BYTES", value_parser = values::memory, allow_negative_numbers = true)]
    pub(crate) memory: Option<i64>,
    /// Memory and swap together; -1 is unlimited swap
    #[arg(long, value_name = "BYTES", value_parser = values::memory, allow_negative_numbers = true)]
    memory_swap: Option<i64>,
    /// Memory that reclaim spares while it can
    #[arg(long, value_name = "BYTES", value_parser = values::memory_mark, allow_negative_numbers = true)]
    memory_reservation: Option<i64>,
    /// CPUs' worth of time, such as 0.5
    #[arg(long, value_name = "NUMBER", value_parser = values::cpus, conflicts_with_all = ["cpu_quota", "cpu_period"])]
    cpus: Option<i64>,
    /// Weight against others, 2 to 262144 (default: 1024)
    #[arg(long, value_name = "SHARES", value_parser = values::cpu_shares)]
    cpu_shares: Option<u64>,
    /// CPUs to run on, such as 0-2,5
    #[arg(long, value_name = "LIST", value_parser = values::cpuset)]
    cpuset_cpus: Option<String>,
    /// Most processes and threads; -1 or 0 is unlimited
    #[arg(long, value_name = "NUMBER", value_parser = values::pids_limit, allow_negative_numbers = true)]
    pids_limit: Option<i64>,
    /// Read at most so many bytes a second from a block device
    #[arg(long, value_name = "DEVICE:BYTES", value_parser = values::device_bytes)]
    device_read_bps: Vec<(Device, u64)>,
    /// Write at most so many bytes a second
    #[arg(long, value_name = "DEVICE:BYTES", value_parser = values::device_bytes)]
    device_write_bps: Vec<(Device, u64)>,
    /// Read at most so many times a second
    #[arg(long, value_name = "DEVICE:NUMBER", value_parser = values::device_number)]
    device_read_iops: Vec<(Device, u64)>,
    /// Write at most so many times a second
    #[arg(long, value_name = "DEVICE:NUMBER", value_parser = values::device_number)]
    device_write_iops: Vec<(Device, u64)>,

    /// Memory above which it is slowed down and reclaimed from (v2)
    #[arg(long, value_name = "BYTES", value_parser = values::memory_mark, allow_negative_numbers = true, hide_short_help = true)]
    memory_high: Option<i64>,
    /// Memory that is never reclaimed (v2)
    #[arg(long, value_name = "BYTES", value_parser = values::memory_mark, allow_negative_numbers = true, hide_short_help = true)]
    memory_min: Option<i64>,
    /// How readily its memory is swapped out, 0 to 100 (v1)
    #[arg(long, value_name = "NUMBER", value_parser = values::swappiness, hide_short_help = true)]
    memory_swappiness: Option<u64>,
    /// When out of memory all of it is killed, not one process (v2)
    #[arg(long, value_name = "true|false", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_short_help = true, hide_possible_values = true)]
    oom_group: Option<bool>,
    /// When out of memory it waits and nothing is killed (v1)
    #[arg(long, value_name = "true|false", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_short_help = true, hide_possible_values = true)]
    oom_kill_disable: Option<bool>,
    /// Microseconds of each period; -1 is unlimited
    #[arg(long, value_name = "US", value_parser = values::cpu_quota, allow_negative_numbers = true, hide_short_help = true)]
    cpu_quota: Option<i64>,
    /// Length of a period, 1000 to 1000000 (default: 100000)
    #[arg(long, value_name = "US", value_parser = values::cpu_period, hide_short_help = true)]
    cpu_period: Option<u64>,
    /// Unused time that may be saved up for later
    #[arg(long, value_name = "US", value_parser = values::microseconds, hide_short_help = true)]
    cpu_burst: Option<u64>,
    /// Run only when nothing else wants to
    #[arg(long, value_name = "true|false", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_short_help = true, hide_possible_values = true)]
    cpu_idle: Option<bool>,
    /// Real-time of each real-time period (v1)
    #[arg(long, value_name = "US", value_parser = values::microseconds, hide_short_help = true)]
    cpu_rt_runtime: Option<u64>,
    /// Length of a real-time period (v1)
    #[arg(long, value_name = "US", value_parser = values::microseconds, hide_short_help = true)]
    cpu_rt_period: Option<u64>,
    /// Memory nodes to use, such as 0-1
    #[arg(long, value_name = "LIST", value_parser = values::cpuset, hide_short_help = true)]
    cpuset_mems: Option<String>,
    /// Weight of its reads and writes against others', 10 to 1000
    #[arg(long, value_name = "WEIGHT", value_parser = values::blkio_weight, hide_short_help = true)]
    blkio_weight: Option<u64>,
    /// The same, at one block device
    #[arg(long, value_name = "DEVICE:WEIGHT", value_parser = values::device_weight, hide_short_help = true)]
    blkio_weight_device: Vec<(Device, u64)>,
    /// Huge pages by their size, such as 2MB=64m
    #[arg(long, value_name = "SIZE=BYTES", value_parser = values::hugetlb, hide_short_help = true)]
    hugetlb_limit: Vec<(String, u64)>,
    /// Handles and objects of an RDMA device; max is unlimited
    #[arg(long, value_name = "DEVICE=hca_handle=NUMBER,hca_object=NUMBER", value_parser = values::rdma, hide_short_help = true)]
    rdma_limit: Vec<(String, RdmaLimit)>,
    /// A resource that the host has few of, such as sev=4; -1 is unlimited
    #[arg(long, value_name = "RESOURCE=NUMBER", value_parser = values::misc, hide_short_help = true)]
    misc_limit: Vec<(String, i64)>,
    /// Any cgroup v2 file, such as memory.high=64m
    #[arg(long, value_name = "FILE=VALUE", value_parser = values::pair, hide_short_help = true)]
    cgroup_conf: Vec<(String, String)>,
}

impl LimitFlags {
    pub(crate) fn limits(&self) -> Limits {
        let signed = |time: Option<u64>| time.and_then(|time| i64::try_from(time).ok());
        Limits {
            memory: MemoryLimits {
                limit: self.memory,
                swap: self.memory_swap,
                reservation: self.memory_reservation,
                high: self.memory_high,
                min: self.memory_min,
                swappiness: self.memory_swappiness,
                oom_group: self.oom_group,
                oom_kill_disable: self.oom_kill_disable,
            },
            cpu: CpuLimits {
                shares: self.cpu_shares,
                quota: self.cpus.or(self.cpu_quota),
                period: self.cpus.map(|_| PERIOD).or(self.cpu_period),
                burst: self.cpu_burst,
                idle: self.cpu_idle,
                rt_runtime: signed(self.cpu_rt_runtime),
                rt_period: self.cpu_rt_period,
            },
            cpuset: CpusetLimits {
                cpus: self.cpuset_cpus.clone(),
                mems: self.cpuset_mems.clone(),
            },
            io: IoLimits {
                weight: self.blkio_weight,
                device_weight: map(&self.blkio_weight_device),
                read_bps: map(&self.device_read_bps),
                write_bps: map(&self.device_write_bps),
                read_iops: map(&self.device_read_iops),
                write_iops: map(&self.device_write_iops),
            },
            pids: self.pids_limit,
            hugetlb: map(&self.hugetlb_limit),
            rdma: map(&self.rdma_limit),
            misc: map(&self.misc_limit),
            unified: map(&self.cgroup_conf),
        }
    }
}

/// Of two for one device the last counts.
fn map<K: Ord + Clone, V: Clone>(pairs: &[(K, V)]) -> BTreeMap<K, V> {
    pairs.iter().cloned().collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        limits: LimitFlags,
    }

    fn limits(words: &[&str]) -> Result<Limits, clap::Error> {
        let line = ["x"].iter().chain(words);
        Ok(Line::try_parse_from(line)?.limits.limits())
    }

    #[test]
    fn each_flag_reaches_its_field() {
        let found = limits(&[
            "-m",
            "1.5g",
            "--memory-swap",
            "-1",
            "--memory-reservation=0",
            "--cpus",
            "0.1",
            "--cpu-shares",
            "512",
            "--cpuset-cpus",
            "0",
            "--pids-limit",
            "0",
            "--oom-group",
            "--cpu-idle=false",
            "--hugetlb-limit",
            "2MB=4m",
            "--rdma-limit",
            "mlx5_0=hca_object=9,hca_handle=max",
            "--misc-limit",
            "sev=-1",
            "--cgroup-conf",
            "misc.max=sev 5",
        ])
        .unwrap();
        let memory = found.memory;
        assert_eq!(
            (memory.limit, memory.swap, memory.reservation),
            (Some(1_610_612_736), Some(-1), Some(0))
        );
        assert_eq!(memory.oom_group, Some(true));
        let cpu = found.cpu;
        assert_eq!((cpu.quota, cpu.period), (Some(10_000), Some(100_000)));
        assert_eq!((cpu.shares, cpu.idle), (Some(512), Some(false)));
        assert_eq!(found.cpuset.cpus.as_deref(), Some("0"));
        assert_eq!(found.pids, Some(-1));
        assert_eq!(found.hugetlb["2MB"], 4 << 20);
        let rdma = &found.rdma["mlx5_0"];
        assert_eq!((rdma.hca_handles, rdma.hca_objects), (None, Some(9)));
        assert_eq!(found.misc["sev"], -1);
        assert_eq!(found.unified["misc.max"], "sev 5");
        assert_eq!(limits(&[]).unwrap(), Limits::default());
    }

    #[test]
    fn cpus_is_quota_and_period_in_one() {
        for words in [
            ["--cpus=1", "--cpu-quota=5000"],
            ["--cpus=1", "--cpu-period=5000"],
        ] {
            assert!(limits(&words).is_err(), "{words:?}");
        }
        let found = limits(&["--cpu-quota", "-1", "--cpu-period", "5000"]).unwrap();
        assert_eq!((found.cpu.quota, found.cpu.period), (Some(-1), Some(5000)));
    }
}
