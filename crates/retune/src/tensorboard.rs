//! A run as TensorBoard reads it: scalars by step, in an event file beside `events.jsonl`.
//!
//! The format is TFRecord (length, checksum, bytes, checksum) around protocol buffers of six fields, written here by hand.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use retune_train::{Event, Observer};

use crate::{Error, Result};

const PREFIX: &str = "events.out.tfevents.";
/// In the place of the machine's name, which is nobody's business; it tells these files from another program's.
const HOST: &str = ".retune.";

/// The event file of one run, or of one part of an interrupted run.
pub(crate) struct TensorBoard {
    file: BufWriter<File>,
    /// The training's clock at the last step.
    seconds: f64,
}

impl TensorBoard {
    /// Begins a file in `folder`. A run that goes on begins another one: `done` are the steps that lie behind it, and whatever
    /// older files have of later ones is no longer shown. Where none lie behind it, the older files go.
    pub fn create(folder: &Path, done: u64) -> Result<Self> {
        if done == 0 {
            Self::remove(folder)?;
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        let mut part = 0;
        let (path, file) = loop {
            let path = folder.join(format!("{PREFIX}{now:010}{HOST}{}.{part}", std::process::id()));
            match OpenOptions::new().create_new(true).append(true).open(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => part += 1,
                file => break (path, file),
            }
        };
        let file = file.map_err(|error| Error::write(&path, "create", error))?;
        let mut board = TensorBoard { file: BufWriter::new(file), seconds: 0.0 };
        board.begin(done).map_err(|error| Error::write(&path, "write", error))?;
        Ok(board)
    }

    fn begin(&mut self, done: u64) -> io::Result<()> {
        let version = bytes(3, b"brain.Event:2");
        self.record(&[&double(1, now())[..], &version].concat())?;
        if done > 0 {
            // A session that starts (status 1) at a step hides that step and all later ones of the files before it.
            let start = bytes(7, &number(1, 1));
            self.record(&[&double(1, now())[..], &number(2, done + 1), &start].concat())?;
        }
        self.file.flush()
    }

    /// Removes what earlier runs left in `folder`.
    pub fn remove(folder: &Path) -> Result<()> {
        let entries = fs::read_dir(folder).map_err(|error| Error::write(folder, "list", error))?;
        for path in entries.flatten().map(|entry| entry.path()) {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with(PREFIX) && name.contains(HOST) {
                fs::remove_file(&path).map_err(|error| Error::write(&path, "replace it", error))?;
            }
        }
        Ok(())
    }

    fn scalars<'a>(
        &mut self,
        step: u64,
        scalars: impl IntoIterator<Item = (&'a str, f64)>,
    ) -> io::Result<()> {
        let event = scalar_event(now(), step, scalars);
        self.record(&event)
    }

    fn record(&mut self, data: &[u8]) -> io::Result<()> {
        self.file.write_all(&framed(data))
    }
}

impl Observer for TensorBoard {
    fn event(&mut self, event: &Event) -> io::Result<()> {
        match event {
            Event::Step { step, loss, learning_rate, gradient_norm, tokens, seconds, .. } => {
                // The clock of a run that goes on may begin anew.
                let took = if *seconds > self.seconds { seconds - self.seconds } else { *seconds };
                self.seconds = *seconds;
                let scalars = [
                    ("train/loss", *loss),
                    ("train/learning_rate", *learning_rate),
                    ("train/gradient_norm", *gradient_norm),
                    ("train/tokens_per_second", *tokens as f64 / took.max(1e-9)),
                ];
                self.scalars(*step, scalars)?;
                if step.is_multiple_of(10) { self.file.flush() } else { Ok(()) }
            }
            Event::Evaluation { step, loss, metrics, .. } => {
                let named: Vec<_> =
                    metrics.iter().map(|(name, value)| (format!("eval/{name}"), *value)).collect();
                let metrics = named.iter().map(|(name, value)| (name.as_str(), *value));
                self.scalars(*step, std::iter::once(("eval/loss", *loss)).chain(metrics))?;
                self.file.flush()
            }
            _ => self.file.flush(),
        }
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}

/// An `Event` with a `Summary` of one `Value` a scalar.
fn scalar_event<'a>(time: f64, step: u64, scalars: impl IntoIterator<Item = (&'a str, f64)>) -> Vec<u8> {
    let value =
        |(tag, value): (&str, f64)| bytes(1, &[bytes(1, tag.as_bytes()), float(2, value as f32)].concat());
    let summary: Vec<u8> = scalars.into_iter().flat_map(value).collect();
    [double(1, time), number(2, step), bytes(5, &summary)].concat()
}

/// A record: the length and its checksum, the bytes and theirs.
fn framed(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    [&length[..], &masked(&length), data, &masked(data)].concat()
}

/// A CRC-32C, turned so that the checksum of bytes which hold checksums stays a good one.
fn masked(data: &[u8]) -> [u8; 4] {
    crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

/// Castagnoli's polynomial, bit by bit: the records are small.
fn crc32c(data: &[u8]) -> u32 {
    !data.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg()))
    })
}

/// A protocol buffer's integer, seven bits a byte.
fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value > 0x7f {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

fn number(field: u64, value: u64) -> Vec<u8> {
    [varint(field << 3), varint(value)].concat()
}

fn double(field: u64, value: f64) -> Vec<u8> {
    [&varint(field << 3 | 1)[..], &value.to_le_bytes()].concat()
}

fn float(field: u64, value: f32) -> Vec<u8> {
    [&varint(field << 3 | 5)[..], &value.to_le_bytes()].concat()
}

fn bytes(field: u64, value: &[u8]) -> Vec<u8> {
    [&varint(field << 3 | 2)[..], &varint(value.len() as u64), value].concat()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn checksums_are_those_of_the_standard() {
        // RFC 3720, B.4.
        assert_eq!(crc32c(b""), 0);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(crc32c(&(0..32).collect::<Vec<u8>>()), 0x46dd_794e);
    }

    #[test]
    fn numbers_are_seven_bits_a_byte() {
        assert_eq!(varint(0), [0]);
        assert_eq!(varint(127), [0x7f]);
        assert_eq!(varint(300), [0xac, 0x02]);
        assert_eq!(varint(u64::MAX).len(), 10);
    }

    #[test]
    fn the_bytes_are_those_of_tensorboard() {
        // Made by `oracle/tensorboard_events.py --bytes`: its own record writer and protocol buffers.
        let version = [&double(1, 1.5)[..], &bytes(3, b"brain.Event:2")].concat();
        let hex = |data: &[u8]| data.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(hex(&framed(&version)), VERSION);
        let start = [&double(1, 1.5)[..], &number(2, 301), &bytes(7, &number(1, 1))].concat();
        assert_eq!(hex(&framed(&start)), START);
        let scalars = [("train/loss", 0.75), ("eval/précision", -1e-3)];
        assert_eq!(hex(&framed(&scalar_event(1.5, 300, scalars))), SCALARS);
    }

    const VERSION: &str = "1800000000000000a37f4b2209000000000000f83f1a0d627261696e2e4576656e743a322a28646c";
    const START: &str = "100000000000000095fbfe1809000000000000f83f10ad023a020801d17949d4";
    const SCALARS: &str = "39000000000000008b0737f109000000000000f83f10ac022a2b0a110a0a747261696e2f\
        6c6f7373150000403f0a160a0f6576616c2f7072c3a9636973696f6e156f1283bab2477fc0";

    #[test]
    fn a_file_a_part_and_nothing_of_others_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let names = || {
            let mut names: Vec<String> = fs::read_dir(folder.path())
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        };
        fs::write(folder.path().join("events.out.tfevents.1.other.7.0"), b"mine").unwrap();
        for done in [0, 20] {
            let mut board = TensorBoard::create(folder.path(), done).unwrap();
            let metrics = BTreeMap::from([("accuracy".to_string(), 0.5)]);
            let (loss, best, seconds) = (f64::NAN, true, 0.1);
            board.event(&Event::Evaluation { step: 30, epoch: 1.0, loss, metrics, best, seconds }).unwrap();
        }
        assert_eq!(names().len(), 3);
        // It starts again at the beginning.
        TensorBoard::create(folder.path(), 0).unwrap();
        assert_eq!(names().len(), 2);
        TensorBoard::remove(folder.path()).unwrap();
        assert_eq!(names(), ["events.out.tfevents.1.other.7.0"]);
    }
}
