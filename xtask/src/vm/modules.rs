//! The few kernel modules a guest needs, with those they depend on, uncompressed.
//!
//! Debian's packages carry no modules.dep (depmod writes it at installation), so each
//! module's own `.modinfo` is read for `depends=`.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::vm::kernel::Kernel;

const WANTED: [&str; 5] = ["overlay", "veth", "bridge", "dummy", "loop"];

/// Name and content, dependencies first.
pub(crate) fn load(kernel: &Kernel) -> Result<Vec<(String, Vec<u8>)>> {
    let mut files = BTreeMap::new();
    walk(&kernel.modules.join("kernel"), &mut files)?;
    let builtin = fs::read_to_string(kernel.modules.join("modules.builtin")).unwrap_or_default();
    let mut loaded = Vec::new();
    for name in WANTED {
        add(name, &files, &builtin, &mut loaded)?;
    }
    Ok(loaded)
}

fn add(
    name: &str,
    files: &BTreeMap<String, PathBuf>,
    builtin: &str,
    loaded: &mut Vec<(String, Vec<u8>)>,
) -> Result<()> {
    let is_builtin = || {
        builtin
            .lines()
            .filter_map(|line| Path::new(line).file_name()?.to_str())
            .any(|file| module_name(file) == Some(name.to_owned()))
    };
    if loaded.iter().any(|(seen, _)| seen == name) {
        return Ok(());
    }
    let Some(path) = files.get(name) else {
        if is_builtin() {
            return Ok(());
        }
        bail!("the kernel's package has no module {name}");
    };
    let content = read(path)?;
    for dependency in depends(&content) {
        add(&dependency, files, builtin, loaded)?;
    }
    loaded.push((name.to_owned(), content));
    Ok(())
}

fn walk(dir: &Path, files: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))? {
        let path = entry
            .with_context(|| format!("list {}", dir.display()))?
            .path();
        if path.is_dir() {
            walk(&path, files)?;
        } else if let Some(name) = path
            .file_name()
            .and_then(|file| module_name(file.to_str()?))
        {
            files.insert(name, path);
        }
    }
    Ok(())
}

/// `nf-x.ko.xz` is known to the kernel as `nf_x`.
fn module_name(file: &str) -> Option<String> {
    let stem = file.strip_suffix(".xz").unwrap_or(file);
    let stem = stem.strip_suffix(".zst").unwrap_or(stem);
    Some(stem.strip_suffix(".ko")?.replace('-', "_"))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let program = match path.extension().and_then(|ext| ext.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        _ => return fs::read(path).with_context(|| format!("read {}", path.display())),
    };
    let done = Command::new(program)
        .arg("-dc")
        .arg(path)
        .output()
        .with_context(|| format!("run {program}; install it by: apt-get install xz-utils zstd"))?;
    if !done.status.success() {
        bail!("{program} -dc {}: {}", path.display(), done.status);
    }
    Ok(done.stdout)
}

/// The comma-separated list behind `depends=` in the zero-terminated strings of `.modinfo`.
fn depends(content: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = content.windows(KEY.len()).position(|part| part == KEY) else {
        return Vec::new();
    };
    let rest = &content[at + KEY.len()..];
    let end = rest.iter().position(|&byte| byte == 0).unwrap_or(0);
    String::from_utf8_lossy(&rest[..end])
        .split(',')
        .filter(|name| !name.is_empty())
        .map(|name| name.replace('-', "_"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_read_from_modinfo() {
        let image = b"\x7fELF..\0license=GPL\0depends=libcrc32c,nf-x\0name=y\0";
        assert_eq!(depends(image), ["libcrc32c", "nf_x"]);
        assert!(depends(b"\0depends=\0x").is_empty());
        assert!(depends(b"nothing").is_empty());
    }

    #[test]
    fn names_are_the_kernels() {
        assert_eq!(module_name("nf-x.ko.xz").unwrap(), "nf_x");
        assert_eq!(module_name("veth.ko").unwrap(), "veth");
        assert_eq!(module_name("modules.order"), None);
    }
}
