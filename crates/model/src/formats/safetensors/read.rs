//! Bytes of a file at a place, however few of them the system gives at once.

use std::fs::File;
use std::io;

/// Fills `bytes` with those of `file` from `start` on, without moving a place that threads would share.
pub(in crate::formats) fn read_at(file: &File, bytes: &mut [u8], start: usize) -> io::Result<()> {
    fill(bytes, start, |rest, start| {
        #[cfg(unix)]
        return std::os::unix::fs::FileExt::read_at(file, rest, start);
        #[cfg(windows)]
        return std::os::windows::fs::FileExt::seek_read(file, rest, start);
    })
}

/// Fills `bytes` by as many calls of `read` as that takes: it is given what is still empty and the byte of the file that
/// comes first there, and returns how many it read.
///
/// Errors if `read` does, but for an interruption, or if the file ends before `bytes` are full.
fn fill(
    bytes: &mut [u8],
    start: usize,
    mut read: impl FnMut(&mut [u8], u64) -> io::Result<usize>,
) -> io::Result<()> {
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        let place = start + filled;
        match read(rest, place as u64) {
            Ok(0) => {
                let end = start + bytes.len();
                let message = format!(
                    "it ends at byte {place} now, expected bytes up to {end}: it was cut short while it was open"
                );
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, message));
            }
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file that gives one byte at every second call, and an interruption at the others.
    fn slow(file: &[u8]) -> impl FnMut(&mut [u8], u64) -> io::Result<usize> {
        let mut calls = 0;
        move |rest, place| {
            calls += 1;
            if calls % 2 == 1 {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let Some(byte) = file.get(place as usize) else { return Ok(0) };
            rest[0] = *byte;
            Ok(1)
        }
    }

    #[test]
    fn bytes_that_come_singly_between_interruptions_are_all_read() {
        let file: Vec<u8> = (0..97).collect();
        let mut bytes = [255; 41];
        fill(&mut bytes, 13, slow(&file)).unwrap();
        assert_eq!(bytes, file[13..54]);
        fill(&mut [], 1000, |_, _| panic!("nothing is to be read")).unwrap();
    }

    #[test]
    fn a_file_that_ends_early_tells_where_and_what_was_expected() {
        let error = fill(&mut [0; 41], 13, slow(&[7; 53])).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        let words = error.to_string();
        assert!(words.starts_with("it ends at byte 53 now, expected bytes up to 54: "), "{words}");
    }

    #[test]
    fn other_errors_end_it() {
        let error = fill(&mut [0; 3], 0, |_, _| Err(io::ErrorKind::PermissionDenied.into())).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    }
}
