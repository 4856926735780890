//! Files that are packed with gzip (RFC 1952) or Zstandard (RFC 8878).

use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;

use flate2::Compression;
use flate2::bufread::MultiGzDecoder;
use flate2::write::GzEncoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
use ruzstd::encoding::{CompressionLevel, compress_to_vec};

/// What packs a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packing {
    Gzip,
    Zstd,
}

impl Packing {
    /// What packs a file that begins so. Its name has no say.
    pub fn of(head: &[u8]) -> Option<Self> {
        match head {
            [0x1f, 0x8b, ..] => Some(Packing::Gzip),
            // A frame, or one to be skipped before it.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Some(Packing::Zstd),
            _ => None,
        }
    }

    /// The bytes that `reader` has packed. They error if they are cut short or damaged.
    pub fn unpack(self, reader: impl Read + 'static) -> Box<dyn Read> {
        const BUFFER: usize = 128 << 10;
        let reader = BufReader::with_capacity(BUFFER, reader);
        match self {
            Packing::Gzip => Box::new(Gzip(MultiGzDecoder::new(reader))),
            Packing::Zstd => Box::new(Zstd { reader, frame: FrameDecoder::new(), begun: false }),
        }
    }
}

/// Writes what `content` writes, packed with gzip or Zstandard where the name of `path` ends in `.gz` or `.zst`.
///
/// # Errors
/// Those of `content` and of `writer`.
pub fn write_packed(
    path: &Path,
    writer: &mut dyn Write,
    content: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    let ending = path.extension().map(|ending| ending.to_ascii_lowercase());
    match ending.as_ref().and_then(|ending| ending.to_str()) {
        Some("gz") => {
            let mut packed = GzEncoder::new(writer, Compression::default());
            content(&mut packed)?;
            packed.finish().map(drop)
        }
        Some("zst") => {
            // One frame, since not all readers go on behind the first; the crate makes it of what is all there.
            let mut plain = Vec::new();
            content(&mut plain)?;
            writer.write_all(&compress_to_vec(plain.as_slice(), CompressionLevel::Fastest))
        }
        _ => content(writer),
    }
}

struct Gzip<R>(MultiGzDecoder<R>);

impl<R: BufRead> Read for Gzip<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => cut_short("gzip"),
            io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => damaged("gzip", &error),
            _ => error,
        })
    }
}

/// Frames, one after the other; the crate reads one, and leaves its checksum to the caller.
struct Zstd<R> {
    reader: R,
    frame: FrameDecoder,
    /// Whether a frame is under way.
    begun: bool,
}

impl<R: BufRead> Zstd<R> {
    /// Begins the next frame; false where there is none.
    fn begin(&mut self) -> io::Result<bool> {
        while !self.reader.fill_buf()?.is_empty() {
            match self.frame.reset(&mut self.reader) {
                Ok(()) => {
                    self.begun = true;
                    return Ok(true);
                }
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => {
                    let length = u64::from(length);
                    if io::copy(&mut self.reader.by_ref().take(length), &mut io::sink())? < length {
                        return Err(cut_short("zstd"));
                    }
                }
                Err(error) => return Err(self.fault(&error)),
            }
        }
        Ok(false)
    }

    fn end(&mut self) -> io::Result<()> {
        self.begun = false;
        let (stored, found) = (self.frame.get_checksum_from_data(), self.frame.get_calculated_checksum());
        match stored {
            Some(stored) if found != Some(stored) => {
                Err(damaged("zstd", &"the checksum is not that of the content"))
            }
            _ => Ok(()),
        }
    }

    fn fault(&mut self, error: &FrameDecoderError) -> io::Error {
        // The crate has an error for each place where bytes may be missing; what they have in common is the end.
        match self.reader.fill_buf() {
            Ok([]) => cut_short("zstd"),
            Ok(_) => damaged("zstd", error),
            Err(_) => io::Error::other(error.to_string()),
        }
    }
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if !self.begun && !self.begin()? {
                return Ok(0);
            }
            let read = self.frame.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            if self.frame.is_finished() {
                self.end()?;
                continue;
            }
            let block = self.frame.decode_blocks(&mut self.reader, BlockDecodingStrategy::UptoBlocks(1));
            if let Err(error) = block {
                return Err(self.fault(&error));
            }
        }
    }
}

fn cut_short(what: &str) -> io::Error {
    let message = format!("the {what} data ends too early, as the file was cut short: bring the whole file");
    io::Error::new(io::ErrorKind::UnexpectedEof, message)
}

fn damaged(what: &str, error: &dyn std::fmt::Display) -> io::Error {
    let message = format!("the {what} data is damaged ({error}): bring the file anew");
    io::Error::new(io::ErrorKind::InvalidData, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(name: &str, bytes: &[u8]) -> Vec<u8> {
        let mut packed = Vec::new();
        write_packed(Path::new(name), &mut packed, |writer| writer.write_all(bytes)).unwrap();
        packed
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        packed("rows.csv.GZ", bytes)
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        packed("rows.zst", bytes)
    }

    fn unpacked(packed: Vec<u8>) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let packing = Packing::of(&packed).expect("a packed file");
        packing.unpack(io::Cursor::new(packed)).read_to_end(&mut bytes).map(|_| bytes)
    }

    #[test]
    fn parts_follow_each_other_and_what_is_missing_is_told() {
        let text: Vec<u8> = (0..300_000u32).flat_map(|i| (i % 977 * (i % 31)).to_le_bytes()).collect();
        for pack in [gzip, zstd] {
            let packed = pack(&text);
            assert!(packed.len() < text.len());
            let two = [packed.clone(), pack(b""), pack(b"end")].concat();
            assert!(unpacked(two).unwrap() == [&text[..], b"end"].concat());
            for cut in [packed.len() - 1, packed.len() / 2, 17, 9] {
                let error = unpacked(packed[..cut].to_vec()).unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{cut}: {error}");
            }
            for place in [packed.len() / 2, packed.len() - 3] {
                let mut wrong = packed.clone();
                wrong[place] ^= 0x11;
                assert!(unpacked(wrong).is_err(), "{place}");
            }
            let error = unpacked([&packed[..], b"something else"].concat()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
        }
        let skipped = [b"\x51\x2a\x4d\x18\x03\0\0\0abc".as_slice(), &zstd(b"x")].concat();
        assert_eq!(unpacked(skipped).unwrap(), b"x");
    }
}
