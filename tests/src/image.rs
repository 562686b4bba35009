//! Images for scenarios, byte by byte: a tar that can say anything, and an OCI layout around it.
//!
//! Nothing here is paddock's code; digests are coreutils', compression is gzip's and zstd's.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

const BLOCK: usize = 512;

/// A tar in the making.
#[derive(Clone, Debug, Default)]
pub struct Tar(Vec<u8>);

/// One entry; what is not said is 0, empty, or root's.
#[derive(Clone, Debug, Default)]
pub struct Entry<'a> {
    pub name: &'a str,
    /// The type flag.
    pub kind: u8,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub link: &'a str,
    pub device: (u32, u32),
    pub content: &'a [u8],
    /// PAX records before it.
    pub records: &'a [(&'a str, &'a [u8])],
}

/// When every entry was changed last.
pub const MODIFIED: i64 = 1_700_000_000;

impl Tar {
    pub fn new() -> Self {
        Self::default()
    }

    #[must_use]
    pub fn entry(mut self, entry: &Entry<'_>) -> Self {
        let mut records: Vec<(&str, &[u8])> = entry.records.to_vec();
        if entry.name.len() > 100 {
            records.push(("path", entry.name.as_bytes()));
        }
        if entry.link.len() > 100 {
            records.push(("linkpath", entry.link.as_bytes()));
        }
        if !records.is_empty() {
            let body: Vec<u8> = records
                .iter()
                .flat_map(|(key, value)| record(key, value))
                .collect();
            let header = Entry {
                name: "pax",
                kind: b'x',
                mode: 0o644,
                content: &body,
                ..Entry::default()
            };
            self.header(&header);
            self.content(&body);
        }
        self.header(entry);
        self.content(entry.content);
        self
    }

    #[must_use]
    pub fn directory(self, name: &str, mode: u32) -> Self {
        self.entry(&Entry {
            name,
            kind: b'5',
            mode,
            ..Entry::default()
        })
    }

    #[must_use]
    pub fn file(self, name: &str, mode: u32, content: &[u8]) -> Self {
        self.entry(&Entry {
            name,
            kind: b'0',
            mode,
            content,
            ..Entry::default()
        })
    }

    #[must_use]
    pub fn symlink(self, name: &str, link: &str) -> Self {
        self.entry(&Entry {
            name,
            kind: b'2',
            mode: 0o777,
            link,
            ..Entry::default()
        })
    }

    #[must_use]
    pub fn hard_link(self, name: &str, link: &str) -> Self {
        self.entry(&Entry {
            name,
            kind: b'1',
            mode: 0o644,
            link,
            ..Entry::default()
        })
    }

    /// With the two blocks of zeros at its end.
    pub fn finish(mut self) -> Vec<u8> {
        self.0.extend([0; 2 * BLOCK]);
        self.0
    }

    fn header(&mut self, entry: &Entry<'_>) {
        let mut block = [0_u8; BLOCK];
        let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &entry.name.as_bytes()[..entry.name.len().min(100)]);
        put(100, format!("{:07o}", entry.mode).as_bytes());
        put(108, format!("{:07o}", entry.uid).as_bytes());
        put(116, format!("{:07o}", entry.gid).as_bytes());
        put(124, format!("{:011o}", entry.content.len()).as_bytes());
        put(136, format!("{MODIFIED:011o}").as_bytes());
        put(148, b"        ");
        put(156, &[entry.kind]);
        put(157, &entry.link.as_bytes()[..entry.link.len().min(100)]);
        put(257, b"ustar\x0000");
        put(329, format!("{:07o}", entry.device.0).as_bytes());
        put(337, format!("{:07o}", entry.device.1).as_bytes());
        let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0.extend(block);
    }

    fn content(&mut self, content: &[u8]) {
        self.0.extend(content);
        let padding = (BLOCK - content.len() % BLOCK) % BLOCK;
        self.0.extend(std::iter::repeat_n(0, padding));
    }
}

/// `LENGTH KEY=VALUE\n`, LENGTH counting itself.
fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while rest + length.to_string().len() != length {
        length = rest + length.to_string().len();
    }
    [format!("{length} {key}=").as_bytes(), value, b"\n"].concat()
}

/// A static busybox under the names that scenarios use.
pub fn busybox() -> Result<Tar> {
    const NAMES: [&str; 15] = [
        "cat", "echo", "false", "grep", "ls", "mkdir", "mv", "printf", "pwd", "seq", "sh", "sleep",
        "stat", "tr", "true",
    ];
    let program = fs::read("/bin/busybox").context("read /bin/busybox")?;
    let tar = Tar::new()
        .directory("bin/", 0o755)
        .file("bin/busybox", 0o755, &program);
    Ok(NAMES.iter().fold(tar, |tar, name| {
        tar.symlink(&format!("bin/{name}"), "busybox")
    }))
}

/// `sha256:HEX`, by coreutils (or busybox, in a guest).
pub fn digest(bytes: &[u8]) -> Result<String> {
    let text = filter(&["sha256sum"], bytes)?;
    let hex = String::from_utf8(text)?;
    Ok(format!(
        "sha256:{}",
        hex.split_whitespace().next().context("no digest")?
    ))
}

/// Standard output of a program that is given `bytes`.
pub fn filter(command: &[&str], bytes: &[u8]) -> Result<Vec<u8>> {
    let mut child = Command::new(command[0])
        .args(&command[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {}", command[0]))?;
    let mut stdin = child.stdin.take().context("no stdin")?;
    let bytes = bytes.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&bytes));
    let output = child.wait_with_output()?;
    writer.join().map_err(|_| anyhow::anyhow!("writer"))??;
    ensure!(output.status.success(), "{}: {}", command[0], output.status);
    Ok(output.stdout)
}

/// A layer: what it is packed as, and the digest of what it is unpacked.
#[derive(Clone, Debug)]
pub struct Layer {
    pub blob: Vec<u8>,
    pub diff_id: String,
    pub media_type: &'static str,
}

impl Layer {
    pub fn plain(tar: Vec<u8>) -> Result<Self> {
        Ok(Self {
            diff_id: digest(&tar)?,
            blob: tar,
            media_type: "application/vnd.oci.image.layer.v1.tar",
        })
    }

    pub fn gzip(tar: &[u8]) -> Result<Self> {
        Ok(Self {
            diff_id: digest(tar)?,
            blob: filter(&["gzip", "-c"], tar)?,
            media_type: "application/vnd.oci.image.layer.v1.tar+gzip",
        })
    }

    pub fn zstd(tar: &[u8]) -> Result<Self> {
        Ok(Self {
            diff_id: digest(tar)?,
            blob: filter(&["zstd", "-qc"], tar)?,
            media_type: "application/vnd.oci.image.layer.v1.tar+zstd",
        })
    }
}

/// An image as blobs: what a layout or a registry serves.
#[derive(Clone, Debug)]
pub struct Image {
    /// By digest.
    pub blobs: Vec<(String, Vec<u8>)>,
    pub manifest: String,
    pub id: String,
    pub size: usize,
}

pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

impl Image {
    /// `config`: the `config` object of the image's.
    pub fn new(layers: &[Layer], config: &Value) -> Result<Self> {
        let diff_ids: Vec<_> = layers.iter().map(|layer| &layer.diff_id).collect();
        let config = serde_json::to_vec(&json!({
            "architecture": architecture(), "os": "linux", "config": config,
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        }))?;
        let mut blobs = Vec::new();
        let mut described = Vec::new();
        for layer in layers {
            let digest = digest(&layer.blob)?;
            described.push(
                json!({"mediaType": layer.media_type, "digest": digest, "size": layer.blob.len()}),
            );
            blobs.push((digest, layer.blob.clone()));
        }
        let id = digest(&config)?;
        let manifest = serde_json::to_vec(&json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": id, "size": config.len()},
            "layers": described,
        }))?;
        let name = digest(&manifest)?;
        let size = manifest.len();
        blobs.push((id.clone(), config));
        blobs.push((name.clone(), manifest));
        Ok(Self {
            blobs,
            manifest: name,
            id,
            size,
        })
    }

    pub fn blob(&self, digest: &str) -> Option<&[u8]> {
        let found = self.blobs.iter().find(|(name, _)| name == digest);
        found.map(|(_, bytes)| bytes.as_slice())
    }

    /// Adds it to a layout, as `tag`, for this machine; an entry for another one comes first.
    pub fn write(&self, dir: &Path, tag: &str) -> Result<()> {
        let blobs = dir.join("blobs/sha256");
        fs::create_dir_all(&blobs)?;
        fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
        for (digest, bytes) in &self.blobs {
            fs::write(blobs.join(&digest[7..]), bytes)?;
        }
        let path = dir.join("index.json");
        let mut index: Value = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)?,
            Err(_) => json!({"schemaVersion": 2, "manifests": []}),
        };
        index["manifests"]
            .as_array_mut()
            .context("no manifests")?
            .push(json!({
                "mediaType": MANIFEST, "digest": self.manifest, "size": self.size,
                "annotations": {"org.opencontainers.image.ref.name": tag},
            }));
        fs::write(path, serde_json::to_vec(&index)?)?;
        Ok(())
    }
}

/// Go's word.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Every file below, one line each: type, mode, owner, size, device, link target, content.
pub fn listing(root: &Path) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    walk(root, root, &mut lines)?;
    lines.sort();
    Ok(lines)
}

fn walk(root: &Path, path: &Path, lines: &mut Vec<String>) -> Result<()> {
    use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
    let found = fs::symlink_metadata(path).with_context(|| path.display().to_string())?;
    let kind = found.file_type();
    let what = if kind.is_symlink() {
        format!("-> {}", fs::read_link(path)?.display())
    } else if kind.is_file() {
        digest(&fs::read(path)?)?
    } else if kind.is_char_device() || kind.is_block_device() {
        format!("device {:x}", found.rdev())
    } else {
        String::new()
    };
    let names = if kind.is_dir() { 0 } else { found.nlink() };
    // Tar programs differ in whether they set those of the others.
    let modified = if kind.is_file() { found.mtime() } else { 0 };
    lines.push(format!(
        "{} {:o} {}:{} links {names} time {modified} {what}",
        path.strip_prefix(root)?.display(),
        found.mode(),
        found.uid(),
        found.gid(),
    ));
    if kind.is_dir() {
        for entry in fs::read_dir(path)? {
            walk(root, &entry?.path(), lines)?;
        }
    }
    Ok(())
}

/// Names alone, for what is to be unchanged.
pub fn names(root: &Path) -> Vec<PathBuf> {
    let mut names = Vec::new();
    let mut todo = vec![root.to_owned()];
    while let Some(path) = todo.pop() {
        for entry in fs::read_dir(&path).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                todo.push(entry.path());
            }
            names.push(entry.path());
        }
    }
    names.sort();
    names
}
