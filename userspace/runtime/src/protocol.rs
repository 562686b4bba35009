//! Frames on a monitor's `monitor.sock` (SOCK_SEQPACKET, one frame a packet, JSON control and raw data).
//!
//! A packet is one kind byte and a payload. Clients may be many; each gets a copy of output.

/// Client to monitor.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Start the workload; answered to everybody by `Started` or `Failed`.
    Start = 1,
    /// This client wants output from now on (and, with payload `backlog`, what was logged before).
    Attach = 2,
    /// Bytes for stdin.
    Stdin = 3,
    /// Stdin's end of file.
    StdinEof = 4,
    /// `u16` rows, `u16` columns, little endian.
    Resize = 5,
    /// `i32` signal for the workload's first process, by pidfd.
    Signal = 6,
    /// Kill everything in the container's cgroup.
    Kill = 7,
}

/// Monitor to client.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// JSON [`crate::record::Started`]. Also sent at once to a client that connects later.
    Started = 1,
    /// JSON [`crate::record::Failed`].
    Failed = 2,
    Stdout = 3,
    Stderr = 4,
    /// JSON [`crate::record::Exit`]; the last packet, sent after the cgroup is gone.
    Exited = 5,
}
