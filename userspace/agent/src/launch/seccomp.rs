//! The filter of a container's processes: compiled once for a profile and a set of capabilities.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use nix::sys::utsname::uname;
use paddock_probe::question_pin;
use paddock_runtime::spec::Asking;
use paddock_seccomp::{
    Arch, Filter, Host, Profile, asking_filter, default_filter, hardened_filter, passes_setns,
};

use super::{Error, request::capabilities};
use crate::{
    api::{CreateRequest, Seccomp},
    shared::Shared,
};

/// More different profiles than a host has; past it all are forgotten.
const MOST: usize = 64;

type Key = (Seccomp, Vec<String>);

/// By what they were made of. A filter has some 6 kB.
#[derive(Debug, Default)]
pub(crate) struct Filters {
    made: Mutex<HashMap<Key, Filter>>,
}

impl Filters {
    /// `None` for a container that is to have none.
    pub(super) fn of(&self, request: &CreateRequest) -> Result<Option<Filter>, Error> {
        if request.seccomp == Seccomp::Unconfined {
            return Ok(None);
        }
        let key = (request.seccomp.clone(), capabilities(request)?);
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(filter) = made.get(&key) {
            return Ok(Some(filter.clone()));
        }
        let filter = compile(&key)?;
        if made.len() >= MOST {
            made.clear();
        }
        made.insert(key, filter.clone());
        Ok(Some(filter))
    }
}

/// Whether a container's setns can be judged before it happens, by what.
#[derive(Debug)]
pub(super) struct Setns {
    pub(super) asking: Option<Asking>,
    /// Each is asked about, or none gets past the container's own filter.
    pub(super) before: bool,
}

/// For a process that starts now under `filter`.
pub(super) fn setns(shared: &Shared, filter: Option<&Filter>) -> Result<Setns, Error> {
    let arch = Arch::native();
    let passes = match (filter, arch) {
        (Some(filter), Some(arch)) => passes_setns(filter, arch),
        _ => true,
    };
    let served = shared.kernel.serves("question");
    let asking = match arch.filter(|_| served && passes) {
        Some(arch) => Some(Asking {
            filter: asking_filter(arch)
                .map_err(|error| Error::invalid(format!("seccomp filter: {error}")))?,
            program: question_pin(&shared.instance.pin_dir()),
        }),
        None => None,
    };
    Ok(Setns {
        before: asking.is_some() || !passes,
        asking,
    })
}

fn compile((seccomp, capabilities): &Key) -> Result<Filter, Error> {
    let wrong = |what: &dyn std::fmt::Display| Error::invalid(format!("seccomp profile: {what}"));
    let host = Host {
        arch: Arch::native().ok_or_else(|| {
            wrong(&"none for this machine's architecture: --security-opt seccomp=unconfined")
        })?,
        kernel: kernel_version(),
        capabilities,
    };
    let filter = match seccomp {
        Seccomp::Profile(text) => Profile::parse(text)
            .and_then(|profile| profile.compile(&host))
            .map_err(|error| wrong(&error))?,
        Seccomp::Hardened => hardened_filter(&host).map_err(|error| wrong(&error))?,
        Seccomp::Default | Seccomp::Unconfined => {
            default_filter(&host).map_err(|error| wrong(&error))?
        }
    };
    if filter.notifies {
        return Err(wrong(
            &"SCMP_ACT_NOTIFY needs a listener, which a container of paddock's has not",
        ));
    }
    if !filter.unknown.is_empty() {
        tracing::info!(
            "seccomp profile: syscalls unknown here, ignored: {}",
            filter.unknown.join(" ")
        );
    }
    Ok(filter)
}

/// `6.1.0-13-amd64` is (6, 1). What cannot be read is the oldest kernel there is.
fn kernel_version() -> (u32, u32) {
    let version = || {
        let uname = uname().ok()?;
        let mut parts = uname.release().to_str()?.split(['.', '-']);
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    };
    version().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::launch::request::tests::request;

    fn filter(seccomp: Seccomp, cap_add: &[&str]) -> Result<Option<Filter>, String> {
        let request = CreateRequest {
            seccomp,
            cap_add: cap_add.iter().map(ToString::to_string).collect(),
            ..request()
        };
        Filters::default()
            .of(&request)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn the_kernel_has_a_version() {
        assert!(kernel_version() >= (5, 10), "{:?}", kernel_version());
    }

    #[test]
    fn capabilities_choose_the_rules() {
        let plain = filter(Seccomp::Default, &[]).unwrap().unwrap();
        let admin = filter(Seccomp::Default, &["SYS_ADMIN"]).unwrap().unwrap();
        assert!(
            plain != admin && plain.unknown.len() == 1,
            "{:?}",
            plain.unknown
        );
        assert_eq!(filter(Seccomp::Unconfined, &[]), Ok(None));
    }

    #[test]
    fn a_filter_is_made_once() {
        let filters = Filters::default();
        for _ in 0..3 {
            filters.of(&request()).unwrap();
        }
        assert_eq!(filters.made.lock().unwrap().len(), 1);
    }

    #[test]
    fn a_profile_that_cannot_work_is_refused() {
        let refused = |text: &str| filter(Seccomp::Profile(text.to_owned()), &[]).unwrap_err();
        assert!(refused("{").starts_with("seccomp profile: EOF"));
        let asks = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mount"],"action":"SCMP_ACT_NOTIFY"}]}"#;
        assert!(refused(asks).contains("listener"));
    }
}
