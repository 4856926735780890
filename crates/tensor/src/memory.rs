//! Every byte that tensors hold, counted, and the arena which they are cut from.
//!
//! A training step allocates and frees much the same sizes over and over; asking the system each time costs a page
//! fault for every 4 KiB, a sixth of a step's time. Tensors are therefore cut from large maps, best fit first, and freed
//! ranges that touch become one again. Pages that were never used cost nothing, so the resident size follows the peak
//! of live bytes.

use std::collections::BTreeMap;
use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, PoisonError};

use memmap2::{MmapMut, MmapOptions};

use crate::blocks::Blocks;
use crate::dtype::{DType, Values, ValuesMut};
use crate::{Device, Error, Result};

/// Tensors from this size on are cut from the arena; smaller ones are left to the system's allocator.
const LARGE: usize = 64 * 1024;

/// Ranges begin at multiples of this: a cache line, and the widest vector.
const ALIGN: usize = 64;

/// Address space is taken in pieces of this size, or of one tensor where that is larger.
const MAP: usize = 1 << 30;

/// Bytes held by tensors of one device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Held now.
    pub current: usize,
    /// The most held at any moment since the start or [`reset_peak`].
    pub peak: usize,
    /// The most of the arena that was ever written to since then: the peak, and what lay unused between its ranges.
    /// This is what the system counts as resident.
    pub touched: usize,
}

/// What tensors of `device` hold.
pub fn usage(device: Device) -> Usage {
    let ledger = lock();
    Usage { touched: ledger.ranges(device).map(|ranges| ranges.touched).sum(), ..ledger.usage[slot(device)] }
}

/// Starts the peak of `device` again from what is held now.
pub fn reset_peak(device: Device) {
    let mut ledger = lock();
    let usage = &mut ledger.usage[slot(device)];
    usage.peak = usage.current;
    match device {
        Device::Cpu => ledger.maps.iter_mut().for_each(|map| map.ranges.forget()),
        Device::Meta => ledger.imagined.iter_mut().for_each(Ranges::forget),
    }
}

/// What the system says that this process holds in memory: tensors and all else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resident {
    /// Held now, in bytes.
    pub current: usize,
    /// The most since the process began.
    pub peak: usize,
}

/// The resident memory of this process; none where the system does not tell.
pub fn resident() -> Option<Resident> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let bytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.trim().strip_suffix("kB")?.trim().parse::<usize>().ok()? * 1024)
    };
    Some(Resident { current: bytes("VmRSS:")?, peak: bytes("VmHWM:")? })
}

/// About what the kernels hold beside tensors: on each thread packed rows, and the operands and scores of the largest
/// attention that [`Device::Meta`] has seen; and the packed operand of its largest product. The ledger does not see these,
/// as they belong to no tensor.
pub fn kernel_buffers() -> usize {
    const A_THREAD: usize = 1 << 20;
    let [product, attention] = crate::backend::meta::workspaces();
    (A_THREAD + attention) * rayon::current_num_threads() + product
}

/// Whether the system would give so much address space. Errors with what it says if not. For what cannot fail in order later,
/// as a thread that finds no memory once it has begun.
pub fn would_fit(bytes: usize) -> std::io::Result<()> {
    MmapOptions::new().len(bytes.max(1)).map_anon().map(drop)
}

struct Ledger {
    usage: [Usage; 2],
    maps: Vec<Map>,
    /// The maps that there would be for [`Device::Meta`], cut in the same way: what lies unused between ranges is then
    /// known too.
    imagined: Vec<Ranges>,
}

static LEDGER: Mutex<Ledger> = Mutex::new(Ledger {
    usage: [Usage { current: 0, peak: 0, touched: 0 }; 2],
    maps: Vec::new(),
    imagined: Vec::new(),
});

/// A thread that panicked while it held the lock left counters that are still sound.
fn lock() -> MutexGuard<'static, Ledger> {
    LEDGER.lock().unwrap_or_else(PoisonError::into_inner)
}

fn slot(device: Device) -> usize {
    match device {
        Device::Cpu => 0,
        Device::Meta => 1,
    }
}

impl Ledger {
    fn count(&mut self, device: Device, bytes: usize) {
        let usage = &mut self.usage[slot(device)];
        usage.current += bytes;
        usage.peak = usage.peak.max(usage.current);
    }

    fn ranges(&self, device: Device) -> Box<dyn Iterator<Item = &Ranges> + '_> {
        match device {
            Device::Cpu => Box::new(self.maps.iter().map(|map| &map.ranges)),
            Device::Meta => Box::new(self.imagined.iter()),
        }
    }

    /// A range of `bytes`, a multiple of [`ALIGN`]: the smallest free one that holds it, of the first map that has one.
    fn cut(&mut self, bytes: usize) -> std::io::Result<Place> {
        for (number, map) in self.maps.iter_mut().enumerate() {
            if let Some(place) = map.cut(number, bytes) {
                return Ok(place);
            }
        }
        let mut map = Map::new(bytes)?;
        let place = map.cut(self.maps.len(), bytes);
        self.maps.push(map);
        place.ok_or_else(|| std::io::ErrorKind::OutOfMemory.into())
    }

    /// The same where there is no memory.
    fn imagine(&mut self, bytes: usize) -> (usize, usize) {
        for (number, ranges) in self.imagined.iter_mut().enumerate() {
            if let Some(offset) = ranges.cut(bytes) {
                return (number, offset);
            }
        }
        let mut ranges = Ranges::new(bytes.max(MAP));
        let offset = ranges.cut(bytes).unwrap_or_default();
        self.imagined.push(ranges);
        (self.imagined.len() - 1, offset)
    }
}

/// One large map, and what is cut from it.
struct Map {
    memory: MmapMut,
    ranges: Ranges,
}

/// A range that was cut.
#[derive(Debug)]
struct Place {
    start: NonNull<u8>,
    map: usize,
    offset: usize,
}

impl Map {
    fn new(bytes: usize) -> std::io::Result<Self> {
        // Where address space is rationed, take what is needed and no more.
        let wanted = |size| MmapOptions::new().len(size).map_anon();
        let memory = wanted(bytes.max(MAP)).or_else(|_| wanted(bytes))?;
        // Fewer and larger pages where the system has them; it is free to refuse.
        #[cfg(target_os = "linux")]
        let _ = memory.advise(memmap2::Advice::HugePage);
        let ranges = Ranges::new(memory.len());
        Ok(Map { memory, ranges })
    }

    fn cut(&mut self, map: usize, bytes: usize) -> Option<Place> {
        let offset = self.ranges.cut(bytes)?;
        let start = NonNull::new(self.memory.as_mut_ptr().wrapping_add(offset))?;
        Some(Place { start, map, offset })
    }
}

/// Which ranges of a map are free.
struct Ranges {
    /// Of the whole map.
    length: usize,
    /// Length by start.
    free: BTreeMap<usize, usize>,
    /// The end of the last range ever cut.
    touched: usize,
}

impl Ranges {
    fn new(length: usize) -> Self {
        Ranges { length, free: BTreeMap::from([(0, length)]), touched: 0 }
    }

    /// Counts what was touched from what is held now.
    fn forget(&mut self) {
        let last = self.free.last_key_value().map(|(start, length)| (*start, start + length));
        self.touched = last.filter(|(_, end)| *end == self.length).map_or(self.length, |(start, _)| start);
    }

    fn cut(&mut self, bytes: usize) -> Option<usize> {
        let fits = self.free.iter().filter(|(_, length)| **length >= bytes);
        let (offset, length) =
            fits.min_by_key(|(offset, length)| (**length, **offset)).map(|(o, l)| (*o, *l))?;
        self.free.remove(&offset);
        if length > bytes {
            self.free.insert(offset + bytes, length - bytes);
        }
        self.touched = self.touched.max(offset + bytes);
        Some(offset)
    }

    /// Takes a range back, and joins it with the free ones that it touches.
    fn give_back(&mut self, mut offset: usize, mut bytes: usize) {
        if let Some(length) = self.free.remove(&(offset + bytes)) {
            bytes += length;
        }
        if let Some((before, length)) = self.free.range(..offset).next_back().map(|(o, l)| (*o, *l))
            && before + length == offset
        {
            offset = before;
            bytes += length;
        }
        self.free.insert(offset, bytes);
    }
}

/// The memory of one tensor; given back and uncounted when dropped.
#[derive(Debug)]
pub(crate) struct Block {
    store: Store,
    device: Device,
    /// What the ledger counted.
    bytes: usize,
    dtype: DType,
    /// The values it holds.
    len: usize,
    /// Those of a row.
    columns: usize,
}

#[derive(Debug)]
enum Store {
    /// The number of an imagined map, and the offset in it; none for what would be small.
    Meta(Option<(usize, usize)>),
    // u128, so that vectors of 16 bytes are aligned.
    Heap(Vec<u128>),
    Arena(Place),
}

#[expect(unsafe_code, reason = "a block owns its range of a map, which is plain memory")]
// SAFETY: the range is the block's alone from the cut to the drop, and plain values are Send.
unsafe impl Send for Place {}
#[expect(unsafe_code, reason = "a block owns its range of a map, which is plain memory")]
// SAFETY: it is written through `&mut Block` only.
unsafe impl Sync for Place {}

impl Block {
    /// Room for `len` values in rows of `columns`. What is in them is unspecified but initialised (whatever the range held before), zero
    /// where `zeroed`; in debug builds NaN, so that a test sees a value that was never written.
    pub(crate) fn new(
        device: Device,
        dtype: DType,
        [len, columns]: [usize; 2],
        zeroed: bool,
    ) -> Result<Self> {
        let mut ledger = lock();
        let live = ledger.usage[slot(device)].current;
        let wanted = dtype.bytes(len, columns).filter(|bytes| *bytes <= isize::MAX as usize / 2);
        let Some(wanted) = wanted else {
            let source = std::io::ErrorKind::OutOfMemory.into();
            return Err(Error::OutOfMemory { bytes: usize::MAX, live, source });
        };
        let bytes = wanted.next_multiple_of(ALIGN);
        let store = if device == Device::Meta {
            Store::Meta((bytes >= LARGE).then(|| ledger.imagine(bytes)))
        } else if bytes < LARGE {
            Store::Heap(vec![0; bytes / 16])
        } else {
            Store::Arena(ledger.cut(bytes).map_err(|source| Error::OutOfMemory { bytes, live, source })?)
        };
        ledger.count(device, bytes);
        drop(ledger);
        let mut block = Block { store, device, bytes, dtype, len, columns };
        if zeroed {
            block.bytes_mut().fill(0);
        } else if cfg!(debug_assertions) {
            // All ones are a NaN of every type.
            block.bytes_mut().fill(0xFF);
        }
        Ok(block)
    }

    pub(crate) fn device(&self) -> Device {
        self.device
    }

    pub(crate) fn dtype(&self) -> DType {
        self.dtype
    }

    /// The values; none on [`Device::Meta`].
    pub(crate) fn values(&self) -> Values<'_> {
        match self.dtype {
            DType::F32 => Values::F32(bytemuck::cast_slice(self.bytes())),
            DType::Bf16 => Values::Bf16(bytemuck::cast_slice(self.bytes())),
            DType::Blocks(kind) => Values::Blocks(Blocks::new(kind, self.bytes(), self.len, self.columns)),
        }
    }

    /// The same to be written; none of blocks, whose bytes are written as such.
    pub(crate) fn values_mut(&mut self) -> Option<ValuesMut<'_>> {
        match self.dtype {
            DType::F32 => Some(ValuesMut::F32(bytemuck::cast_slice_mut(self.bytes_mut()))),
            DType::Bf16 => Some(ValuesMut::Bf16(bytemuck::cast_slice_mut(self.bytes_mut()))),
            DType::Blocks(_) => None,
        }
    }

    /// What was asked for: fits, or there would be no block.
    fn length(&self) -> usize {
        self.dtype.bytes(self.len, self.columns).unwrap_or_default()
    }

    fn bytes(&self) -> &[u8] {
        let length = self.length();
        match &self.store {
            Store::Heap(words) => &bytemuck::cast_slice(words)[..length],
            #[expect(unsafe_code, reason = "a block owns its range of a map, which is plain memory")]
            // SAFETY: the range was cut for this many bytes, is mapped until this block is dropped, and no one else has
            // it; an anonymous map begins as zeros.
            Store::Arena(place) => unsafe { std::slice::from_raw_parts(place.start.as_ptr(), length) },
            // Nothing, aligned for whatever it is taken for.
            Store::Meta(_) => bytemuck::cast_slice::<u128, u8>(&[]),
        }
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        let length = self.length();
        match &mut self.store {
            Store::Heap(words) => &mut bytemuck::cast_slice_mut(words)[..length],
            #[expect(unsafe_code, reason = "a block owns its range of a map, which is plain memory")]
            // SAFETY: as for reading, and this is the only borrow.
            Store::Arena(place) => unsafe { std::slice::from_raw_parts_mut(place.start.as_ptr(), length) },
            Store::Meta(_) => bytemuck::cast_slice_mut::<u128, u8>(&mut []),
        }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let mut ledger = lock();
        ledger.usage[slot(self.device)].current -= self.bytes;
        match &self.store {
            Store::Heap(_) | Store::Meta(None) => {}
            Store::Arena(place) => {
                if let Some(map) = ledger.maps.get_mut(place.map) {
                    map.ranges.give_back(place.offset, self.bytes);
                }
            }
            Store::Meta(Some((number, offset))) => {
                if let Some(ranges) = ledger.imagined.get_mut(*number) {
                    ranges.give_back(*offset, self.bytes);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_counted() {
        let start = usage(Device::Cpu).current;
        let large = Block::new(Device::Cpu, DType::F32, [1_000_001; 2], true).unwrap();
        assert_eq!(usage(Device::Cpu).current - start, 4_000_064);
        let half = Block::new(Device::Cpu, DType::Bf16, [1_000_001; 2], true).unwrap();
        assert_eq!(usage(Device::Cpu).current - start, 6_000_128);
        drop((large, half));
        assert_eq!(usage(Device::Cpu).current, start);
    }

    #[test]
    fn freed_ranges_become_one_again() {
        let mut ranges = Ranges::new(1 << 20);
        let places: Vec<_> = (0..8).map(|_| ranges.cut(4096).unwrap()).collect();
        for place in [3, 0, 1, 7, 5, 4, 6, 2] {
            ranges.give_back(places[place], 4096);
        }
        assert_eq!(ranges.free, BTreeMap::from([(0, 1 << 20)]));
        assert_eq!(ranges.touched, 8 * 4096);
        // The smallest that fits is taken, so that large ranges stay large.
        let held: Vec<_> = (0..3).map(|_| ranges.cut(8192).unwrap()).collect();
        ranges.give_back(held[1], 8192);
        assert_eq!(ranges.cut(4096), Some(held[1]));
        ranges.forget();
        assert_eq!(ranges.touched, 3 * 8192);
    }

    #[test]
    fn what_comes_back_is_zero_where_zeros_are_asked_for() {
        let mut block = Block::new(Device::Cpu, DType::F32, [900_000; 2], false).unwrap();
        block.bytes_mut().fill(3);
        drop(block);
        assert!(
            Block::new(Device::Cpu, DType::F32, [900_000; 2], true).unwrap().bytes().iter().all(|x| *x == 0)
        );
    }

    #[test]
    fn meta_counts_without_holding() {
        let block = Block::new(Device::Meta, DType::F32, [1 << 40; 2], true).unwrap();
        assert_eq!(usage(Device::Meta).current, 4 << 40);
        assert!(block.bytes().is_empty());
        drop(block);
        assert_eq!(usage(Device::Meta), Usage { current: 0, peak: 4 << 40, touched: 4 << 40 });
    }

    #[test]
    fn an_absurd_size_is_an_error() {
        let error = Block::new(Device::Cpu, DType::F32, [usize::MAX / 4; 2], true).unwrap_err().to_string();
        assert!(error.contains("out of memory"), "{error}");
    }
}
