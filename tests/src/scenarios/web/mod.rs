//! The metrics end by exporter-toolkit's web file, on systemd's socket, and against those who
//! would keep it busy. On the host only: guests carry no curl, openssl or Prometheus.

mod clients;
mod files;
mod seats;
mod socket;
mod terms;

use crate::runner::Scenario;

pub const ALL: &[&[Scenario]] = &[terms::ALL, clients::ALL, socket::ALL, seats::ALL];
