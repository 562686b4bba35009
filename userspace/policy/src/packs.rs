//! Policies that the binary brings along.

/// A file as it could lie on disk.
#[derive(Clone, Copy, Debug)]
pub struct Pack {
    pub name: &'static str,
    pub text: &'static str,
}

pub const PACKS: [Pack; 2] = [
    Pack {
        name: "escape",
        text: include_str!("../packs/escape.toml"),
    },
    Pack {
        name: "hardened",
        text: include_str!("../packs/hardened.toml"),
    },
];

impl Pack {
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Self> {
        PACKS.iter().find(|pack| pack.name == name)
    }
}
