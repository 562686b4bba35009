//! AppArmor: whether a profile could confine a program here, asked before anything is made.
//!
//! The kernel itself is asked, by a thread that sets the profile for an exec it never comes to:
//! that takes no securityfs, and finds what the launch will find. Which file says that AppArmor
//! is on is the kernel's `security/apparmor/lsm.c`; a kernel built without it has no such file.
#![forbid(unsafe_code)]

use std::{fs, io, thread};

/// In the place of a profile's name: none.
pub const UNCONFINED: &str = "unconfined";

/// Of the plan.
pub(crate) const STEP: &str = "apparmor profile";

const ENABLED: &str = "/sys/module/apparmor/parameters/enabled";
const OWN: &str = "/proc/thread-self/attr/apparmor/exec";

/// The kernel cuts what is longer than a page; names are paths at most.
const LONGEST: usize = 1024;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "apparmor profile {0:?}: no name of a profile: expected 1 to {LONGEST} characters, none of them a control character, no space at its ends"
    )]
    Name(String),
    #[error(
        "apparmor profile '{profile}': AppArmor is not on in this kernel ({ENABLED} is not Y): leave it out, or boot with it"
    )]
    NotEnabled { profile: String },
    #[error(
        "apparmor profile '{profile}': not loaded in this kernel: load it by `apparmor_parser -r FILE`, or see what is there by `aa-status`"
    )]
    NotLoaded { profile: String },
    #[error("apparmor profile '{profile}': the kernel does not give it ({OWN})")]
    Refused {
        profile: String,
        #[source]
        source: io::Error,
    },
}

pub fn is_enabled() -> bool {
    fs::read_to_string(ENABLED).is_ok_and(|text| text.starts_with('Y'))
}

/// Whether a program could be executed under `profile`. Without AppArmor everything is
/// unconfined, so that can always be had.
pub fn check(profile: &str) -> Result<(), Error> {
    check_name(profile)?;
    let name = || profile.to_owned();
    if !is_enabled() {
        return if profile == UNCONFINED {
            Ok(())
        } else {
            Err(Error::NotEnabled { profile: name() })
        };
    }
    let words = format!("exec {profile}");
    let asked = thread::scope(|scope| {
        let thread = scope.spawn(|| fs::write(OWN, words));
        thread
            .join()
            .unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))
    });
    match asked {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(Error::NotLoaded { profile: name() })
        }
        Err(source) => Err(Error::Refused {
            profile: name(),
            source,
        }),
    }
}

/// Whether the kernel takes it as it is given: it trims, and cuts what is long, so that another
/// profile could be found.
pub fn check_name(profile: &str) -> Result<(), Error> {
    let valid = (1..=LONGEST).contains(&profile.len())
        && profile.trim() == profile
        && !profile.contains(char::is_control);
    if valid {
        return Ok(());
    }
    Err(Error::Name(profile.chars().take(40).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_the_kernel_takes() {
        for name in ["docker-default", "/usr/bin/man", ":ns:profile", "a//&b"] {
            assert!(check_name(name).is_ok(), "{name}");
        }
        let long = "x".repeat(LONGEST + 1);
        for name in ["", " a", "a ", "a\nb", "a\0", long.as_str()] {
            let said = check_name(name).unwrap_err().to_string();
            assert!(said.len() < 250 && !said.contains('\n'), "{said}");
        }
    }

    #[test]
    fn a_profile_that_is_not_there_is_refused_by_the_kernels_word() {
        let refused = check("paddock-no-such-profile").unwrap_err();
        if is_enabled() {
            assert!(matches!(refused, Error::NotLoaded { .. }), "{refused}");
        } else {
            assert!(matches!(refused, Error::NotEnabled { .. }), "{refused}");
        }
        assert!(check(UNCONFINED).is_ok());
    }
}
