//! Every byte that tensors hold, counted, and the pool which hands large blocks out again.
//!
//! A training step allocates and frees the same sizes over and over; asking the system each time costs a page fault
//! for every 4 KiB. Freed blocks are therefore kept, but never so many that kept and live bytes together exceed the
//! peak of live bytes so far: the pool makes nothing larger, and the resident size follows the counter.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use memmap2::MmapMut;

use crate::{Device, Error, Result};

/// Blocks from this size on are mapped and pooled; smaller ones are left to the system's allocator.
const POOLED: usize = 256 * 1024;

/// Bytes held by tensors of one device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Held now.
    pub current: usize,
    /// The most held at any moment since the start or [`reset_peak`].
    pub peak: usize,
}

/// What tensors of `device` hold.
pub fn usage(device: Device) -> Usage {
    let ledger = lock();
    ledger.usage[slot(device)]
}

/// Starts the peak of `device` again from what is held now.
pub fn reset_peak(device: Device) {
    let mut ledger = lock();
    let usage = &mut ledger.usage[slot(device)];
    usage.peak = usage.current;
}

/// Gives every kept block back to the system.
pub fn release_pool() {
    let mut ledger = lock();
    ledger.free.clear();
    ledger.kept = 0;
}

struct Ledger {
    usage: [Usage; 2],
    /// Kept blocks by size, each with the moment it was freed.
    free: BTreeMap<usize, Vec<(u64, MmapMut)>>,
    kept: usize,
    clock: u64,
}

static LEDGER: Mutex<Ledger> = Mutex::new(Ledger {
    usage: [Usage { current: 0, peak: 0 }; 2],
    free: BTreeMap::new(),
    kept: 0,
    clock: 0,
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

/// What a block of `bytes` really takes: classes an eighth of a power of two apart, so that the ragged sizes of
/// one step fit the blocks of the last.
fn class(bytes: usize) -> usize {
    if bytes < POOLED {
        return bytes.next_multiple_of(16);
    }
    bytes.next_multiple_of((bytes.next_power_of_two() / 16).max(4096))
}

impl Ledger {
    fn count(&mut self, device: Device, bytes: usize) {
        let usage = &mut self.usage[slot(device)];
        usage.current += bytes;
        usage.peak = usage.peak.max(usage.current);
    }

    fn take(&mut self, bytes: usize) -> Option<MmapMut> {
        let blocks = self.free.get_mut(&bytes)?;
        let (_, block) = blocks.pop()?;
        self.kept -= bytes;
        Some(block)
    }

    /// Makes room for a new mapping: kept blocks go, the longest unused first, until the peak bounds the sum.
    fn shrink_for(&mut self, bytes: usize) -> Vec<MmapMut> {
        let usage = self.usage[slot(Device::Cpu)];
        let bound = usage.peak.max(usage.current + bytes);
        let mut dropped = Vec::new();
        while self.kept > 0 && usage.current + self.kept + bytes > bound {
            let oldest = self.free.iter().filter_map(|(size, blocks)| Some((blocks.first()?.0, *size))).min();
            let Some((_, size)) = oldest else { break };
            if let Some(blocks) = self.free.get_mut(&size) {
                dropped.push(blocks.remove(0).1);
                self.kept -= size;
            }
        }
        dropped
    }
}

/// The memory of one tensor; given back and uncounted when dropped.
#[derive(Debug)]
pub(crate) struct Block {
    store: Store,
    device: Device,
    /// What the ledger counted.
    bytes: usize,
    /// The `f32` values it holds.
    len: usize,
}

#[derive(Debug)]
enum Store {
    Meta,
    // u128, so that vectors of 16 bytes are aligned.
    Heap(Vec<u128>),
    Mapped(Option<MmapMut>),
}

impl Block {
    /// Room for `len` values. What is in them is unspecified but initialised (whatever the block held before),
    /// zero where `zeroed`; in debug builds NaN, so that a test sees a value that was never written.
    pub(crate) fn new(device: Device, len: usize, zeroed: bool) -> Result<Self> {
        let overflow = |live| Error::OutOfMemory {
            bytes: usize::MAX,
            live,
            source: std::io::Error::from(std::io::ErrorKind::OutOfMemory),
        };
        let mut ledger = lock();
        let live = ledger.usage[slot(device)].current;
        let wanted = len.checked_mul(size_of::<f32>()).filter(|bytes| *bytes <= isize::MAX as usize / 2);
        let bytes = class(wanted.ok_or_else(|| overflow(live))?);
        let (store, fresh) = if device == Device::Meta {
            (Store::Meta, true)
        } else if bytes < POOLED {
            (Store::Heap(vec![0; bytes / 16]), true)
        } else if let Some(block) = ledger.take(bytes) {
            (Store::Mapped(Some(block)), false)
        } else {
            let dropped = ledger.shrink_for(bytes);
            drop(dropped);
            let block =
                MmapMut::map_anon(bytes).map_err(|source| Error::OutOfMemory { bytes, live, source })?;
            (Store::Mapped(Some(block)), true)
        };
        ledger.count(device, bytes);
        drop(ledger);
        let mut block = Block { store, device, bytes, len };
        if zeroed && !fresh {
            block.f32_mut().fill(0.0);
        } else if !zeroed && cfg!(debug_assertions) {
            block.f32_mut().fill(f32::NAN);
        }
        Ok(block)
    }

    pub(crate) fn device(&self) -> Device {
        self.device
    }

    /// The values; none on [`Device::Meta`].
    pub(crate) fn f32(&self) -> &[f32] {
        match &self.store {
            Store::Heap(words) => &bytemuck::cast_slice(words)[..self.len],
            Store::Mapped(Some(map)) => &bytemuck::cast_slice(&map[..])[..self.len],
            Store::Meta | Store::Mapped(None) => &[],
        }
    }

    pub(crate) fn f32_mut(&mut self) -> &mut [f32] {
        match &mut self.store {
            Store::Heap(words) => &mut bytemuck::cast_slice_mut(words)[..self.len],
            Store::Mapped(Some(map)) => &mut bytemuck::cast_slice_mut(&mut map[..])[..self.len],
            Store::Meta | Store::Mapped(None) => &mut [],
        }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let mut ledger = lock();
        ledger.usage[slot(self.device)].current -= self.bytes;
        if let Store::Mapped(map) = &mut self.store
            && let Some(map) = map.take()
        {
            ledger.clock += 1;
            let freed = ledger.clock;
            ledger.kept += self.bytes;
            ledger.free.entry(self.bytes).or_default().push((freed, map));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_waste_at_most_an_eighth() {
        for bytes in [1, 16, 17, 262_143, 262_144, 262_145, 1_000_000, 47_000_001, 94_371_840] {
            let taken = class(bytes);
            assert!(taken >= bytes && taken <= bytes + bytes / 8 + 16, "{bytes} takes {taken}");
        }
    }

    #[test]
    fn bytes_are_counted_and_the_pool_stays_under_the_peak() {
        let start = usage(Device::Cpu).current;
        let large = Block::new(Device::Cpu, 1_000_000, true).unwrap();
        assert_eq!(usage(Device::Cpu).current - start, class(4_000_000));
        drop(large);
        assert_eq!(usage(Device::Cpu).current, start);
        // Another size must not be held beside the kept one.
        let other = Block::new(Device::Cpu, 900_000, false).unwrap();
        let ledger = lock();
        let cpu = ledger.usage[slot(Device::Cpu)];
        assert!(cpu.current + ledger.kept <= cpu.peak, "kept {} live {cpu:?}", ledger.kept);
        drop(ledger);
        drop(other);
        // A block that comes back from the pool is zero when zeros are asked for.
        let mut block = Block::new(Device::Cpu, 900_000, false).unwrap();
        block.f32_mut().fill(3.0);
        drop(block);
        assert!(Block::new(Device::Cpu, 900_000, true).unwrap().f32().iter().all(|x| *x == 0.0));
    }

    #[test]
    fn meta_counts_without_holding() {
        let block = Block::new(Device::Meta, 1 << 40, true).unwrap();
        assert_eq!(usage(Device::Meta).current, 4 << 40);
        assert!(block.f32().is_empty());
        drop(block);
        assert_eq!(usage(Device::Meta), Usage { current: 0, peak: 4 << 40 });
    }

    #[test]
    fn an_absurd_size_is_an_error() {
        let error = Block::new(Device::Cpu, usize::MAX / 4, true).unwrap_err().to_string();
        assert!(error.contains("out of memory"), "{error}");
    }
}
