//! Byte strings, written once in order and then read in any.
//!
//! They are in memory while they are small, and else in a file without a name, which goes with the process however that
//! ends. A million of them cost half a megabyte: the place of one in sixteen is kept, and the others are found from it.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Write};

use crate::error::DataError;

/// Up to here they stay in memory.
const IN_MEMORY: usize = 4 << 20;

/// So many bytes are gathered for one write, and read at once where all are read.
const BLOCK: usize = 256 << 10;

/// The place of one in so many is kept.
const STRIDE: usize = 16;

#[derive(Debug, Default)]
pub(crate) struct Store {
    file: Option<File>,
    /// How many bytes lie in the file.
    written: u64,
    /// What comes behind them.
    tail: Vec<u8>,
    /// Where every [`STRIDE`]th string begins.
    starts: Vec<u64>,
    len: usize,
}

impl Store {
    pub fn len(&self) -> usize {
        self.len
    }

    /// Errors if the system has no room for them.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), DataError> {
        if self.len.is_multiple_of(STRIDE) {
            self.starts.push(self.end());
        }
        put_varint(&mut self.tail, bytes.len() as u64);
        self.tail.extend_from_slice(bytes);
        self.len += 1;
        let most = if self.file.is_some() { BLOCK } else { IN_MEMORY };
        if self.tail.len() < most { Ok(()) } else { self.write().map_err(|error| failed("write", &error)) }
    }

    fn write(&mut self) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(tempfile::tempfile()?),
        };
        file.write_all(&self.tail)?;
        self.written += self.tail.len() as u64;
        self.tail.clear();
        self.tail.shrink_to(BLOCK);
        Ok(())
    }

    fn end(&self) -> u64 {
        self.written + self.tail.len() as u64
    }

    /// The string at `index`; none beyond the last. Errors if the system cannot read it again.
    pub fn get(&self, index: usize) -> Result<Option<Cow<'_, [u8]>>, DataError> {
        if index >= self.len {
            return Ok(None);
        }
        let block = index / STRIDE;
        let bytes = self.read(self.start(block), self.start(block + 1))?;
        let mut at = 0;
        for _ in 0..index % STRIDE {
            next(&bytes, &mut at).ok_or_else(damaged)?;
        }
        let range = next(&bytes, &mut at).ok_or_else(damaged)?;
        part(&bytes, range).map(Some)
    }

    /// All of them, in order.
    pub fn iter(&self) -> Iter<'_> {
        Iter { store: self, next: 0, bytes: Cow::Borrowed(&[]), at: 0, loaded: 0 }
    }

    /// Where the block begins; the end of all behind the last.
    fn start(&self, block: usize) -> u64 {
        self.starts.get(block).copied().unwrap_or_else(|| self.end())
    }

    fn read(&self, from: u64, to: u64) -> Result<Cow<'_, [u8]>, DataError> {
        let in_tail = |place: u64| usize::try_from(place.saturating_sub(self.written)).unwrap_or(usize::MAX);
        let tail = self.tail.get(in_tail(from)..in_tail(to)).ok_or_else(damaged)?;
        let Some(file) = self.file.as_ref().filter(|_| from < self.written) else {
            return Ok(Cow::Borrowed(tail));
        };
        let mut bytes = vec![0; usize::try_from(to.min(self.written) - from).unwrap_or(usize::MAX)];
        read_at(file, &mut bytes, from).map_err(|error| failed("read", &error))?;
        bytes.extend_from_slice(tail);
        Ok(Cow::Owned(bytes))
    }
}

/// All strings of a store.
#[derive(Debug)]
pub(crate) struct Iter<'s> {
    store: &'s Store,
    next: usize,
    bytes: Cow<'s, [u8]>,
    at: usize,
    /// The first string that is not in `bytes`.
    loaded: usize,
}

impl<'s> Iter<'s> {
    /// Reads the blocks from that of the next string on.
    fn load(&mut self) -> Result<(), DataError> {
        let first = self.next / STRIDE;
        let from = self.store.start(first);
        let mut last = first + 1;
        while last < self.store.starts.len() && self.store.start(last + 1) - from <= BLOCK as u64 {
            last += 1;
        }
        self.bytes = self.store.read(from, self.store.start(last))?;
        self.at = 0;
        self.loaded = (last * STRIDE).min(self.store.len);
        self.pass(self.next - first * STRIDE)
    }

    fn pass(&mut self, count: usize) -> Result<(), DataError> {
        (0..count).try_for_each(|_| next(&self.bytes, &mut self.at).map(drop).ok_or_else(damaged))
    }

    fn take(&mut self) -> Result<Cow<'s, [u8]>, DataError> {
        if self.next >= self.loaded {
            self.load()?;
        }
        self.next += 1;
        let range = next(&self.bytes, &mut self.at).ok_or_else(damaged)?;
        match &self.bytes {
            Cow::Borrowed(bytes) => part(&Cow::Borrowed(bytes), range),
            Cow::Owned(bytes) => bytes.get(range).map(|bytes| Cow::Owned(bytes.to_vec())).ok_or_else(damaged),
        }
    }
}

impl<'s> Iterator for Iter<'s> {
    type Item = Result<Cow<'s, [u8]>, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        (self.next < self.store.len).then(|| self.take())
    }

    /// Passes `count` of them, unread where they are far.
    fn nth(&mut self, count: usize) -> Option<Self::Item> {
        let next = self.next.saturating_add(count);
        if next < self.loaded {
            if let Err(error) = self.pass(count) {
                return Some(Err(error));
            }
        } else {
            self.loaded = 0;
        }
        self.next = next;
        self.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.store.len.saturating_sub(self.next);
        (left, Some(left))
    }
}

/// Where the string at `at` lies, and `at` is moved behind it.
fn next(bytes: &[u8], at: &mut usize) -> Option<std::ops::Range<usize>> {
    let length = usize::try_from(take_varint(bytes, at)?).ok()?;
    let from = *at;
    *at = from.checked_add(length).filter(|end| *end <= bytes.len())?;
    Some(from..*at)
}

fn part<'b>(bytes: &Cow<'b, [u8]>, range: std::ops::Range<usize>) -> Result<Cow<'b, [u8]>, DataError> {
    match bytes {
        Cow::Borrowed(bytes) => bytes.get(range).map(Cow::Borrowed),
        Cow::Owned(bytes) => bytes.get(range).map(|bytes| Cow::Owned(bytes.to_vec())),
    }
    .ok_or_else(damaged)
}

/// Writes `value` in seven bits a byte, the lowest first: small numbers are one byte.
pub(crate) fn put_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

/// The number at `at`, which is moved behind it; none where there is none.
pub(crate) fn take_varint(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.get(*at)?;
        *at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn failed(action: &str, error: &io::Error) -> DataError {
    DataError::system(format!(
        "cannot {action} the rows in a temporary file in {}: {error}; TMPDIR names another folder for it",
        std::env::temp_dir().display()
    ))
}

pub(crate) fn damaged() -> DataError {
    DataError::system("the rows in the temporary file are not those that were written: is the disk damaged?")
}

#[cfg(unix)]
pub(crate) fn read_at(file: &File, bytes: &mut [u8], at: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, at)
}

#[cfg(windows)]
pub(crate) fn read_at(file: &File, mut bytes: &mut [u8], mut at: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        let read = std::os::windows::fs::FileExt::seek_read(file, bytes, at)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        bytes = &mut bytes[read..];
        at += read as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn string(index: usize) -> Vec<u8> {
        vec![index as u8; index * index % 301 + usize::from(index % 5000 == 7) * 100_000]
    }

    /// In memory, in a file, and partly in each.
    #[test]
    fn what_is_written_is_read_in_any_order() {
        for count in [0, 1, 16, 17, 1000, 200_000] {
            let mut store = Store::default();
            (0..count).for_each(|index| store.push(&string(index)).unwrap());
            assert_eq!((store.len(), store.file.is_some()), (count, count == 200_000));
            assert!(store.get(count).unwrap().is_none());
            for index in (0..count).rev().step_by(count / 50 + 1) {
                assert!(store.get(index).unwrap().unwrap() == string(index), "{index} of {count}");
            }
            let all =
                store.iter().zip(0..).filter(|(bytes, index)| *bytes.as_ref().unwrap() == string(*index));
            assert_eq!(all.count(), count);
            for step in [2, 17, 4096] {
                let some = store.iter().step_by(step).zip((0..).step_by(step));
                assert!(
                    some.into_iter().all(|(bytes, index)| bytes.unwrap() == string(index)),
                    "{count} by {step}"
                );
                assert_eq!(store.iter().step_by(step).count(), count.div_ceil(step));
            }
        }
    }

    #[test]
    fn numbers_are_as_long_as_they_are_large() {
        for (value, length) in [(0, 1), (127, 1), (128, 2), (16_383, 2), (16_384, 3), (u64::MAX, 10)] {
            let (mut bytes, mut at) = (Vec::new(), 0);
            put_varint(&mut bytes, value);
            assert_eq!((bytes.len(), take_varint(&bytes, &mut at), at), (length, Some(value), length));
            assert_eq!(take_varint(&bytes[..length - 1], &mut 0), None);
        }
    }
}
