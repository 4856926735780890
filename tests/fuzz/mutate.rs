//! Inputs that are nearly right: a seed, changed in a few of the ways in which files break or are made to.

/// Numbers that sit on an edge, as a text of the format has them.
const NUMBERS: [&str; 24] = [
    "0",
    "1",
    "-1",
    "2",
    "3",
    "7",
    "127",
    "128",
    "255",
    "256",
    "65535",
    "65536",
    "2147483647",
    "2147483648",
    "4294967295",
    "4294967296",
    "9223372036854775807",
    "18446744073709551615",
    "18446744073709551616",
    "1e308",
    "1e999",
    "-0.0",
    "0.5",
    "null",
];
/// The same, as bytes of a binary file.
const INTEGERS: [u64; 12] =
    [0, 1, 7, 0x7f, 0xff, 0x100, 0xffff, 0x7fff_ffff, 0xffff_ffff, 0x1_0000_0000, i64::MAX as u64, u64::MAX];
/// Inputs do not grow without end.
const LONGEST: usize = 1 << 20;

/// SplitMix64: the same draws on every machine.
#[derive(Clone)]
pub(crate) struct Random(u64);

impl Random {
    /// The stream of a target's input.
    pub(crate) fn of(target: &str, number: u64) -> Self {
        // FNV-1a, so that two targets with the same seeds get other inputs.
        let hash = target.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Random(hash ^ number.wrapping_mul(0x2545_f491_4f6c_dd1d))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `end`; 0 where that is 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        if end == 0 { 0 } else { (self.next() % end as u64) as usize }
    }

    /// Any place in so many bytes, and a short way from it, mostly very short.
    fn chunk(&mut self, length: usize) -> std::ops::Range<usize> {
        let start = self.below(length + 1);
        let most = match self.below(4) {
            0 => length - start,
            1 => 64,
            _ => 8,
        };
        start..start + self.below((length - start).min(most) + 1)
    }
}

/// A change of `bytes` or a few of them; `seeds` is what splices take from, `dictionary` the format's own words.
pub(crate) fn mutate(random: &mut Random, bytes: &mut Vec<u8>, seeds: &[Vec<u8>], dictionary: &[&str]) {
    loop {
        change(random, bytes, seeds, dictionary);
        bytes.truncate(LONGEST);
        // Half of the inputs have one change, as more of them mostly fail at the first.
        if random.below(2) == 0 {
            return;
        }
    }
}

fn change(random: &mut Random, bytes: &mut Vec<u8>, seeds: &[Vec<u8>], dictionary: &[&str]) {
    let length = bytes.len();
    let at = random.below(length);
    match random.below(14) {
        0 => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << random.below(8)),
        1 => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte = random.next() as u8),
        2 => bytes.truncate(at),
        3 => drop(bytes.drain(random.chunk(length))),
        4 => {
            let copy = bytes[random.chunk(length)].to_vec();
            bytes.splice(at..at, copy);
        }
        5 => {
            let moved: Vec<u8> = bytes.drain(random.chunk(length)).collect();
            let at = random.below(bytes.len() + 1);
            bytes.splice(at..at, moved);
        }
        6 => {
            // The head of one seed and the tail of another.
            let other = &seeds[random.below(seeds.len())];
            bytes.truncate(at);
            bytes.extend(&other[random.below(other.len())..]);
        }
        7 => {
            let other = &seeds[random.below(seeds.len())];
            let part = other[random.chunk(other.len())].to_vec();
            bytes.splice(random.chunk(length), part);
        }
        8 => {
            let integer = INTEGERS[random.below(INTEGERS.len())];
            let width = [1, 2, 4, 8][random.below(4)];
            bytes
                .iter_mut()
                .skip(at)
                .zip(integer.to_le_bytes())
                .take(width)
                .for_each(|(byte, new)| *byte = new);
        }
        9 | 10 => number(random, bytes, at),
        11 => value(random, bytes, at, dictionary),
        12 if !dictionary.is_empty() => {
            let word = dictionary[random.below(dictionary.len())].bytes();
            let end = if random.below(2) == 0 { at } else { random.chunk(length).end.max(at) };
            bytes.splice(at..end, word);
        }
        _ => {
            // The same many times, as nested brackets are.
            let byte =
                if random.below(2) == 0 { b"[{(\"\\,\n"[random.below(7)] } else { random.next() as u8 };
            let many = [2, 16, 130, 5000][random.below(4)];
            bytes.splice(at..at, std::iter::repeat_n(byte, many));
        }
    }
}

/// Another number in place of the next one that stands in the text.
fn number(random: &mut Random, bytes: &mut Vec<u8>, at: usize) {
    let Some(start) = bytes[at..].iter().position(u8::is_ascii_digit).map(|found| at + found) else { return };
    let is_part = |byte: &u8| byte.is_ascii_digit() || b".eE".contains(byte);
    let end =
        bytes[start..].iter().position(|byte| !is_part(byte)).map_or(bytes.len(), |length| start + length);
    let new = match random.below(3) {
        0 => random.below(70).to_string(),
        _ => NUMBERS[random.below(NUMBERS.len())].to_string(),
    };
    bytes.splice(start..end, new.into_bytes());
}

/// Another value in place of the one behind the next colon or comma.
fn value(random: &mut Random, bytes: &mut Vec<u8>, at: usize, dictionary: &[&str]) {
    const VALUES: [&str; 12] = [
        "null",
        "true",
        "false",
        "[]",
        "{}",
        "\"\"",
        "\"x\"",
        "[null]",
        "{\"\":0}",
        "-1",
        "1.5",
        "\"\\ud83d\\ude00\"",
    ];
    let Some(start) = bytes[at..].iter().position(|byte| b":,=".contains(byte)).map(|found| at + found + 1)
    else {
        return;
    };
    let ends = |byte: &u8| b",}]\n".contains(byte);
    let end = bytes[start..].iter().position(ends).map_or(bytes.len(), |length| start + length);
    let new = match random.below(4) {
        0 if !dictionary.is_empty() => dictionary[random.below(dictionary.len())],
        _ => VALUES[random.below(VALUES.len())],
    };
    bytes.splice(start..end, new.bytes());
}
