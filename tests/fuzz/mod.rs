//! A fuzzer for stable Rust, which the crates' tests share. An input is made again by its target's name and its number.
//!
//! `RETUNE_FUZZ_INPUTS` says how many inputs a target gets (a few hundred without it, for every run of the tests), and
//! `RETUNE_FUZZ_FIRST` the number of the first. `scripts/fuzz` runs millions.

#![allow(dead_code, reason = "each of the crates that share it uses its own part of it")]

mod allocation;
mod mutate;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub(crate) use mutate::Random;

const INPUTS: u64 = 300;
/// What an input may take, whatever its length: more than any needs, and far less than a lie could ask for.
const SLOWEST: Duration = Duration::from_secs(5);
const MEMORY: usize = 64 << 20;
const MEMORY_A_BYTE: usize = 256;

/// What takes input from outside.
pub(crate) struct Target<'a> {
    pub(crate) name: &'a str,
    /// How many times as long as the cheapest targets' its inputs take: it gets so many times fewer.
    pub(crate) cost: u64,
    /// Good inputs.
    pub(crate) seeds: Vec<Vec<u8>>,
    /// Words of the format.
    pub(crate) dictionary: &'a [&'a str],
}

/// One input.
pub(crate) struct Input<'a> {
    /// Which seed it was made from.
    pub(crate) seed: usize,
    pub(crate) bytes: &'a [u8],
    /// For whatever else the target draws.
    pub(crate) random: Random,
}

impl Input<'_> {
    pub(crate) fn text(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(self.bytes)
    }
}

impl Target<'_> {
    /// Gives the target its inputs. Fails, saying which one it was, if one panics, takes too long or too much memory.
    pub(crate) fn run(&self, mut take: impl FnMut(&mut Input<'_>)) {
        let (first, inputs) = (setting("RETUNE_FUZZ_FIRST", 0), setting("RETUNE_FUZZ_INPUTS", INPUTS));
        let inputs = inputs.div_ceil(self.cost);
        let start = Instant::now();
        for number in first..first + inputs {
            let mut random = Random::of(self.name, number);
            // The seeds themselves come first.
            let is_seed = number < self.seeds.len() as u64;
            let seed = if is_seed { number as usize } else { random.below(self.seeds.len()) };
            let mut bytes = self.seeds[seed].clone();
            if !is_seed {
                mutate::mutate(&mut random, &mut bytes, &self.seeds, self.dictionary);
            }
            let told = Told { target: self.name, number, bytes: &bytes };
            let mut once = || {
                let begun = Instant::now();
                allocation::begin();
                take(&mut Input { seed, bytes: &bytes, random: random.clone() });
                (allocation::peak(), begun.elapsed())
            };
            let (peak, mut seconds) = once();
            if seconds > SLOWEST {
                // The whole process may have been stopped meanwhile: what is slow is slow twice.
                seconds = once().1;
            }
            let most = MEMORY + MEMORY_A_BYTE * bytes.len();
            assert!(peak <= most, "{peak} bytes of memory for an input of {}", bytes.len());
            assert!(
                seconds <= SLOWEST,
                "{:.1} s for an input of {} bytes",
                seconds.as_secs_f64(),
                bytes.len()
            );
            drop(told);
        }
        // What scripts/fuzz makes its table of.
        println!("fuzzed {} {inputs} {:.1}", self.name, start.elapsed().as_secs_f64());
    }
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{name}: {value}")))
}

/// Tells of the input if it was the last.
struct Told<'a> {
    target: &'a str,
    number: u64,
    bytes: &'a [u8],
}

impl Drop for Told<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let Told { target, number, bytes } = *self;
        let path = std::env::temp_dir().join(format!("retune-fuzz-{target}-{number}"));
        let kept =
            fs::write(&path, bytes).map_or_else(|error| error.to_string(), |()| path.display().to_string());
        let shown = bytes[..bytes.len().min(2000)].escape_ascii();
        eprintln!("finding {target} {number}: RETUNE_FUZZ_FIRST={number} makes it again; {kept}\n{shown}");
    }
}

/// A folder in memory, where the system has one.
pub(crate) fn folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.unwrap_or_else(|error| panic!("a folder for the inputs: {error}"))
}

/// Puts the bytes there; a new file, as an old one may be mapped.
pub(crate) fn write(path: &Path, bytes: impl AsRef<[u8]>) {
    let _ = fs::remove_file(path);
    fs::write(path, bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

/// Reads a good file.
pub(crate) fn read(path: impl AsRef<Path>) -> Vec<u8> {
    let path = path.as_ref();
    fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The folders in which the model crate's golden files lie.
pub(crate) fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/golden").join(name)
}

/// A safetensors file whose header's length is right again, if its header can be told from its data.
pub(crate) fn with_length(bytes: &[u8]) -> Option<Vec<u8>> {
    let header = bytes.get(8..)?;
    let end = header.windows(2).position(|pair| pair == b"}}")? + 2;
    let end = end + header[end..].iter().take_while(|byte| **byte == b' ').count();
    Some([&(end as u64).to_le_bytes()[..], header].concat())
}
