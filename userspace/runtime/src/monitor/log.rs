//! `log.jsonl`: every line of output, bounded: a full file becomes `log.jsonl.1`, that one
//! `.2`, and so on up to the number that is kept. A container's next run goes on in them.
//!
//! A file that can't be written (no space) never stops the workload: lines are counted as lost,
//! and the next one that can be written is preceded by a line that says how many.
#![forbid(unsafe_code)]

use std::{
    collections::VecDeque,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::identity::now_ns;
use crate::{record::LogLine, spec::LogLimits};

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
    /// The file that is written last; before it those that a follower may still have to open.
    files: VecDeque<Arc<File>>,
    /// How many files came before the first of `files`: with it, a file's number for life.
    before: u64,
    /// Bytes in the last file.
    size: u64,
    /// A rotation took the last file's name away and could not make another.
    broken: bool,
    /// Lines without an end so far.
    partial: [Vec<u8>; 2],
    lost: u64,
    limits: LogLimits,
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
    /// Goes on where an earlier run stopped.
    pub(super) fn open(directory: &Path, limits: LogLimits) -> io::Result<Self> {
        let path = directory.join("log.jsonl");
        let file = open(&path)?;
        let mut size = file.metadata()?.len();
        if size > 0 {
            // A monitor killed while it wrote leaves half a line, which ends here.
            let mut last = [0];
            file.read_exact_at(&mut last, size - 1)?;
            if last != *b"\n" {
                (&file).write_all(b"\n")?;
                size += 1;
            }
        }
        Ok(Self {
            path,
            files: VecDeque::from([Arc::new(file)]),
            before: 0,
            size,
            broken: false,
            partial: [Vec::new(), Vec::new()],
            lost: 0,
            limits,
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

    /// Writes lines that have no end: at the end of all.
    pub(super) fn flush(&mut self) {
        for stream in Stream::BOTH {
            if !self.partial[stream as usize].is_empty() {
                self.end_line(stream);
            }
        }
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
        if self.broken || (self.size > 0 && self.size + length > self.limits.max_size) {
            self.rotate()?;
        }
        let Some(file) = self.files.back() else {
            return Err(io::ErrorKind::NotFound.into());
        };
        (&**file).write_all(&json).inspect_err(|_| {
            // No half lines: what follows would be glued to it.
            let _ = file.set_len(self.size);
        })?;
        self.size += length;
        Ok(())
    }

    /// Every file moves one on; the oldest goes with that.
    fn rotate(&mut self) -> io::Result<()> {
        if !self.broken {
            let older = self.limits.max_files.saturating_sub(1);
            for number in (1..older).rev() {
                // One that is not there yet has nowhere to go.
                let _ = fs::rename(
                    older_file(&self.path, number),
                    older_file(&self.path, number + 1),
                );
            }
            if older == 0 {
                fs::remove_file(&self.path)?;
            } else {
                fs::rename(&self.path, older_file(&self.path, 1))?;
            }
            self.broken = true;
        }
        self.files.push_back(Arc::new(open(&self.path)?));
        self.broken = false;
        self.size = 0;
        Ok(())
    }

    /// What earlier files are kept, oldest first, and the number of the one written now.
    pub(super) fn kept(&self) -> (VecDeque<File>, u64) {
        let older = (1..self.limits.max_files).rev();
        let files = older.filter_map(|number| File::open(older_file(&self.path, number)).ok());
        (files.collect(), self.newest())
    }

    /// The number of the file that is written.
    pub(super) fn newest(&self) -> u64 {
        self.before + self.files.len() as u64 - 1
    }

    /// A file by its number, as long as somebody may need it.
    pub(super) fn file(&self, number: u64) -> Option<&Arc<File>> {
        let index = usize::try_from(number.checked_sub(self.before)?).ok()?;
        self.files.get(index)
    }

    /// Nobody needs files with lower numbers than this any more.
    pub(super) fn release(&mut self, number: u64) {
        while self.before < number.min(self.newest()) {
            self.files.pop_front();
            self.before += 1;
        }
    }
}

fn older_file(path: &Path, number: u32) -> PathBuf {
    path.with_extension(format!("jsonl.{number}"))
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
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

        fn numbers(&self, name: &str) -> Vec<u32> {
            let lines = self.lines(name);
            lines
                .iter()
                .map(|line| line.text.trim().parse().unwrap())
                .collect()
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    fn limits(max_size: u64, max_files: u32) -> LogLimits {
        LogLimits {
            max_size,
            max_files,
        }
    }

    #[test]
    fn lines_are_whole_however_they_come() {
        let scratch = Scratch::new("lines");
        let mut log = Log::open(&scratch.0, LogLimits::default()).unwrap();
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
        let mut log = Log::open(&scratch.0, LogLimits::default()).unwrap();
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
    fn as_many_files_as_asked_for_are_kept_without_a_gap() {
        for kept in [1, 2, 4] {
            let scratch = Scratch::new(&format!("rotate{kept}"));
            let mut log = Log::open(&scratch.0, limits(1000, kept)).unwrap();
            for number in 0..100 {
                log.append(Stream::Stdout, format!("{number}\n").as_bytes());
            }
            let mut all = Vec::new();
            for number in (1..kept).rev() {
                all.extend(scratch.numbers(&format!("log.jsonl.{number}")));
            }
            all.extend(scratch.numbers("log.jsonl"));
            let first = *all.first().unwrap();
            assert_eq!(all, (first..100).collect::<Vec<_>>());
            let files: Vec<_> = fs::read_dir(&scratch.0).unwrap().flatten().collect();
            assert_eq!(files.len(), kept as usize);
            for file in files {
                assert!(file.metadata().unwrap().len() <= 1000);
            }
        }
    }

    #[test]
    fn a_next_run_goes_on_after_half_a_line() {
        let scratch = Scratch::new("again");
        let mut log = Log::open(&scratch.0, LogLimits::default()).unwrap();
        log.append(Stream::Stdout, b"1\n");
        drop(log);
        let path = scratch.0.join("log.jsonl");
        let mut torn = OpenOptions::new().append(true).open(&path).unwrap();
        torn.write_all(b"{\"time_ns\":1,\"str").unwrap();
        let mut log = Log::open(&scratch.0, LogLimits::default()).unwrap();
        log.append(Stream::Stdout, b"2\n");
        let text = fs::read_to_string(&path).unwrap();
        let whole: Vec<LogLine> = text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect();
        assert_eq!(text.lines().count(), 3);
        assert_eq!(
            (whole[0].text.as_str(), whole[1].text.as_str()),
            ("1\n", "2\n")
        );
    }
}
