//! What a container's monitor asks the kernel half before a setns goes on, and the answer.
//!
//! The program is run by `BPF_PROG_TEST_RUN`: the words are its context, the answer is what it
//! returns.

/// A setns that waits at its entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// Of the thread that calls, as the pid namespace of whoever asks has it.
    pub tid: u32,
    /// The call's arguments.
    pub fd: i32,
    pub flags: u32,
}

/// Words of a question.
pub const WORDS: usize = 3;

impl Question {
    #[must_use]
    #[inline]
    pub const fn words(self) -> [u64; WORDS] {
        [
            self.tid as u64,
            self.fd.cast_unsigned() as u64,
            self.flags as u64,
        ]
    }

    #[must_use]
    #[inline]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the kernel takes these arguments as 32 bits, too"
    )]
    pub const fn of([tid, fd, flags]: [u64; WORDS]) -> Self {
        Self {
            tid: tid as u32,
            fd: (fd as u32).cast_signed(),
            flags: flags as u32,
        }
    }
}

/// What is to become of the call.
pub mod verdict {
    pub const GO_ON: u32 = 0;
    /// EPERM; counted and told already.
    pub const REFUSE: u32 = 1;
    /// Likewise, and the process gets SIGKILL.
    pub const KILL: u32 = 2;
    /// There is no such thread.
    pub const GONE: u32 = 3;
}

/// Process ids are below 2^22.
const TGID_BITS: u32 = 24;

/// A verdict, and the process that it is about.
#[must_use]
#[inline]
pub const fn answer(verdict: u32, tgid: u32) -> u32 {
    verdict << TGID_BITS | tgid & ((1 << TGID_BITS) - 1)
}

/// The reverse of [`answer`].
#[must_use]
pub const fn read_answer(answer: u32) -> (u32, u32) {
    (answer >> TGID_BITS, answer & ((1 << TGID_BITS) - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_survive_the_way() {
        let question = Question {
            tid: 4_194_303,
            fd: -1,
            flags: 0x4000_0000,
        };
        assert_eq!(Question::of(question.words()), question);
        // What a 64-bit register holds above is nobody's.
        let [tid, fd, flags] = question.words();
        let high = 7 << 32;
        assert_eq!(Question::of([tid, fd | high, flags | high]), question);
        for verdict in [
            verdict::GO_ON,
            verdict::REFUSE,
            verdict::KILL,
            verdict::GONE,
        ] {
            assert_eq!(
                read_answer(answer(verdict, 4_194_303)),
                (verdict, 4_194_303)
            );
        }
    }
}
