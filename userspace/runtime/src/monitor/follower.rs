//! A client's way through the log: every file that is kept, then the one being written, and on
//! across rotations. It holds the files it reads, so that none is lost under it.
#![forbid(unsafe_code)]

use std::{collections::VecDeque, fs::File, os::unix::fs::FileExt as _, sync::Arc};

use super::log::Log;
use crate::protocol::{Reply, encode};

/// Bytes of the log in one packet.
const CHUNK: usize = 32 * 1024;

/// Rotations that it may be behind before output waits for it: what is deleted under its name
/// still takes space while it is open here.
const FILES_BEHIND: u64 = 4;

#[derive(Debug)]
pub(super) struct Follower {
    /// Written by earlier runs, or before this client came.
    older: VecDeque<File>,
    /// The file of this run that comes next.
    number: u64,
    current: Option<Arc<File>>,
    offset: u64,
    /// Rotations since.
    behind: u64,
    /// It has been told that it has seen all so far.
    marked: bool,
}

impl Follower {
    pub(super) fn new(log: &Log) -> Self {
        let (older, number) = log.kept();
        Self {
            older,
            number,
            current: None,
            offset: 0,
            behind: 0,
            marked: false,
        }
    }

    pub(super) fn needs(&self) -> u64 {
        self.number
    }

    pub(super) fn is_behind(&self) -> bool {
        self.behind > FILES_BEHIND
    }

    /// The next part of it as a packet; `None` when it has caught up.
    pub(super) fn next(&mut self, log: &Log) -> Option<Vec<u8>> {
        loop {
            if let Some(bytes) = self.read(log) {
                return Some(encode(Reply::Logged, &bytes));
            }
            if self.older.pop_front().is_some() {
                self.offset = 0;
            } else if log.file(self.number + 1).is_some() {
                self.number += 1;
                self.current = None;
                self.offset = 0;
            } else if self.marked {
                return None;
            } else {
                self.marked = true;
                return Some(encode(Reply::Logged, b""));
            }
        }
    }

    /// `None` at the end of a file, and where it cannot be read.
    fn read(&mut self, log: &Log) -> Option<Vec<u8>> {
        self.behind = log.newest().saturating_sub(self.number);
        if self.current.is_none() {
            self.current = log.file(self.number).cloned();
        }
        let file = match self.older.front() {
            Some(file) => file,
            None => self.current.as_deref()?,
        };
        let mut buffer = vec![0; CHUNK];
        let length = file.read_at(&mut buffer, self.offset).ok()?;
        buffer.truncate(length);
        self.offset += length as u64;
        (length > 0).then_some(buffer)
    }
}
