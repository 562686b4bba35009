//! `log.jsonl`: every line of output, bounded: at [`ROTATE_AT`] the file becomes `log.jsonl.1`.
//!
//! A file that can't be written (no space) never stops the workload: lines are counted as lost,
//! and the next one that can be written is preceded by a line that says how many.
#![forbid(unsafe_code)]

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use super::identity::now_ns;
use crate::record::LogLine;

pub(super) const ROTATE_AT: u64 = 10 << 20;

/// A longer line is cut into several, each without its line feed but the last.
pub(super) const LONGEST_LINE: usize = 16 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    Stdout,
    Stderr,
}

#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    file: Option<File>,
    size: u64,
    /// How often it was rotated: names a file across its renaming.
    generation: u64,
    /// Lines without an end so far.
    partial: [Vec<u8>; 2],
    lost: u64,
    limit: u64,
}

impl Stream {
    pub(super) const BOTH: [Self; 2] = [Self::Stdout, Self::Stderr];

    fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

impl Log {
    pub(super) fn create(directory: &Path, limit: u64) -> io::Result<Self> {
        let path = directory.join("log.jsonl");
        let file = open_new(&path)?;
        let partial = [Vec::new(), Vec::new()];
        Ok(Self {
            path,
            file: Some(file),
            size: 0,
            generation: 0,
            partial,
            lost: 0,
            limit,
        })
    }

    pub(super) fn append(&mut self, stream: Stream, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let partial = &mut self.partial[stream as usize];
            let room = LONGEST_LINE - partial.len();
            let end = bytes
                .iter()
                .position(|byte| *byte == b'\n')
                .map(|at| at + 1);
            let take = end.unwrap_or(bytes.len()).min(room);
            let (head, tail) = bytes.split_at(take);
            partial.extend_from_slice(head);
            bytes = tail;
            if partial.ends_with(b"\n") || partial.len() == LONGEST_LINE {
                self.end_line(stream);
            }
        }
    }

    /// Writes lines that have no end yet: before live output follows a replay, and at the end
    /// of all. `true` when there were any.
    pub(super) fn flush(&mut self) -> bool {
        let mut any = false;
        for stream in Stream::BOTH {
            if !self.partial[stream as usize].is_empty() {
                self.end_line(stream);
                any = true;
            }
        }
        any
    }

    fn end_line(&mut self, stream: Stream) {
        let bytes = std::mem::take(&mut self.partial[stream as usize]);
        if self.lost > 0 {
            let text = format!("paddock: {} lines could not be logged\n", self.lost);
            if self.write(Stream::Stderr, text).is_err() {
                self.lost += 1;
                return;
            }
            self.lost = 0;
        }
        if self
            .write(stream, String::from_utf8_lossy(&bytes).into_owned())
            .is_err()
        {
            self.lost += 1;
        }
    }

    fn write(&mut self, stream: Stream, text: String) -> io::Result<()> {
        let line = LogLine {
            time_ns: now_ns(),
            stream: stream.name().to_owned(),
            text,
        };
        let mut json = serde_json::to_vec(&line)?;
        json.push(b'\n');
        let length = json.len() as u64;
        if self.size + length > self.limit {
            self.rotate()?;
        }
        let Some(file) = &mut self.file else {
            return Err(io::ErrorKind::NotFound.into());
        };
        file.write_all(&json).inspect_err(|_| {
            // No half lines: what follows would be glued to it.
            let _ = file.set_len(self.size);
        })?;
        self.size += length;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        fs::rename(&self.path, self.old())?;
        self.file = None;
        self.generation += 1;
        self.size = 0;
        self.file = Some(open_new(&self.path)?);
        Ok(())
    }

    fn old(&self) -> PathBuf {
        self.path.with_extension("jsonl.1")
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// Opens a generation for reading, while it is kept.
    pub(super) fn open(&self, generation: u64) -> Option<File> {
        let path = match self.generation - generation {
            0 => self.path.clone(),
            1 => self.old(),
            _ => return None,
        };
        File::open(path).ok()
    }
}

fn open_new(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path =
                std::env::temp_dir().join(format!("paddock-log-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn lines(&self, name: &str) -> Vec<LogLine> {
            let text = fs::read_to_string(self.0.join(name)).unwrap();
            text.lines()
                .map(|line| serde_json::from_str(line).unwrap())
                .collect()
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn lines_are_whole_however_they_come() {
        let scratch = Scratch::new("lines");
        let mut log = Log::create(&scratch.0, ROTATE_AT).unwrap();
        log.append(Stream::Stdout, b"on");
        log.append(Stream::Stderr, b"err\n");
        log.append(Stream::Stdout, b"e\ntwo");
        log.flush();
        let lines = scratch.lines("log.jsonl");
        let seen: Vec<_> = lines
            .iter()
            .map(|l| (l.stream.as_str(), l.text.as_str()))
            .collect();
        assert_eq!(
            seen,
            [("stderr", "err\n"), ("stdout", "one\n"), ("stdout", "two")]
        );
    }

    #[test]
    fn a_long_line_is_cut() {
        let scratch = Scratch::new("long");
        let mut log = Log::create(&scratch.0, ROTATE_AT).unwrap();
        log.append(Stream::Stdout, &vec![b'x'; LONGEST_LINE + 5]);
        log.flush();
        let lengths: Vec<_> = scratch
            .lines("log.jsonl")
            .iter()
            .map(|l| l.text.len())
            .collect();
        assert_eq!(lengths, [LONGEST_LINE, 5]);
    }

    #[test]
    fn two_files_are_kept() {
        let scratch = Scratch::new("rotate");
        let mut log = Log::create(&scratch.0, 1000).unwrap();
        for number in 0..100 {
            log.append(Stream::Stdout, format!("{number}\n").as_bytes());
        }
        assert_eq!(scratch.lines("log.jsonl").last().unwrap().text, "99\n");
        let first = scratch.lines("log.jsonl")[0]
            .text
            .trim()
            .parse::<u32>()
            .unwrap();
        let before = scratch
            .lines("log.jsonl.1")
            .last()
            .unwrap()
            .text
            .trim()
            .parse::<u32>()
            .unwrap();
        assert_eq!(before + 1, first);
        assert!(fs::metadata(scratch.0.join("log.jsonl.1")).unwrap().len() <= 1000);
        assert_eq!(fs::read_dir(&scratch.0).unwrap().count(), 2);
    }
}
