//! Compression, told by its first bytes and not by a media type that may lie.
//!
//! Both decoders are safe Rust. A zstd frame may ask for a window of any size; ruzstd refuses
//! what is above 100 MiB.

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::StreamingDecoder;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    pub(crate) fn of(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            _ => Self::None,
        }
    }
}

/// What `source` holds, decompressed. A stream that ends early is an error.
pub(crate) fn decoder<'a>(source: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut source = BufReader::with_capacity(128 << 10, source);
    Ok(match Compression::of(source.fill_buf()?) {
        Compression::None => Box::new(source),
        Compression::Gzip => Box::new(MultiGzDecoder::new(source)),
        Compression::Zstd => Box::new(Frames {
            source: Some(source),
            frame: None,
        }),
    })
}

/// One zstd frame after the other: pigz-like writers cut a layer into many, and leave
/// skippable ones between them.
struct Frames<R: BufRead> {
    source: Option<R>,
    frame: Option<Box<StreamingDecoder<R, ruzstd::decoding::FrameDecoder>>>,
}

impl<R: BufRead> Frames<R> {
    /// `false`: there is no more.
    fn open(&mut self) -> io::Result<bool> {
        let Some(mut source) = self.source.take() else {
            return Ok(false);
        };
        loop {
            if source.fill_buf()?.is_empty() {
                self.source = Some(source);
                return Ok(false);
            }
            if let [0x50..=0x5f, 0x2a, 0x4d, 0x18] = source.fill_buf()?.get(..4).unwrap_or_default()
            {
                skip(&mut source)?;
                continue;
            }
            let frame = StreamingDecoder::new(source).map_err(broken)?;
            self.frame = Some(Box::new(frame));
            return Ok(true);
        }
    }
}

/// Over a skippable frame: its magic number, its length, its bytes.
fn skip(source: &mut impl BufRead) -> io::Result<()> {
    let mut head = [0; 8];
    source.read_exact(&mut head)?;
    let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
    let skipped = io::copy(&mut source.take(length.into()), &mut io::sink())?;
    if skipped < u64::from(length) {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}

impl<R: BufRead> Read for Frames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if let Some(frame) = &mut self.frame {
                let read = frame.read(buffer).map_err(broken)?;
                if read > 0 {
                    return Ok(read);
                }
            } else if !self.open()? {
                return Ok(0);
            } else {
                continue;
            }
            self.source = self.frame.take().map(|frame| frame.into_inner());
        }
    }
}

fn broken(error: impl std::fmt::Display) -> io::Error {
    io::Error::other(format!("broken zstd: {error}"))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn decoded(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        decoder(bytes)?.read_to_end(&mut out)?;
        Ok(out)
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
    }

    #[test]
    fn members_and_frames_follow_each_other() {
        let text = b"layer ".repeat(10_000);
        assert_eq!(decoded(&text).unwrap(), text);
        for pack in [gzip as fn(&[u8]) -> Vec<u8>, zstd] {
            let twice = [pack(&text), pack(b"end")].concat();
            assert_eq!(decoded(&twice).unwrap(), [&text[..], b"end"].concat());
        }
        let skipped = [
            &[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3][..],
            &zstd(b"x"),
        ]
        .concat();
        assert_eq!(decoded(&skipped).unwrap(), b"x");
    }

    #[test]
    fn an_early_end_is_an_error() {
        let text = b"layer ".repeat(10_000);
        for whole in [gzip(&text), zstd(&text)] {
            assert!(decoded(&whole[..whole.len() - 5]).is_err());
        }
        assert!(decoded(&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1]).is_err());
    }
}
