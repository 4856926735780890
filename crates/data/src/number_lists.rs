//! Lists of numbers of rows, where they would be too many for memory.

use crate::error::DataError;
use crate::store::{self, Store, put_varint, take_varint};

/// Lists of numbers, written once in order and then read in any. They are in memory while they are few, and else in a file
/// without a name: of each list half a byte stays. Small numbers take a byte, the largest five.
#[derive(Debug, Default)]
pub struct NumberLists {
    lists: Store,
    /// The bytes of a list while it is written.
    list: Vec<u8>,
}

impl NumberLists {
    /// Adds a list.
    ///
    /// # Errors
    /// The system has no room for it.
    pub fn push(&mut self, numbers: impl IntoIterator<Item = u32>) -> Result<(), DataError> {
        self.list.clear();
        numbers.into_iter().for_each(|number| put_varint(&mut self.list, u64::from(number)));
        self.lists.push(&self.list)
    }

    /// The list at `index`.
    ///
    /// # Errors
    /// The system cannot read it again, or there is none.
    pub fn get(&self, index: usize) -> Result<Vec<u32>, DataError> {
        let bytes = self.lists.get(index)?.ok_or_else(store::damaged)?;
        let (mut numbers, mut at) = (Vec::new(), 0);
        while at < bytes.len() {
            let number = take_varint(&bytes, &mut at).and_then(|number| u32::try_from(number).ok());
            numbers.push(number.ok_or_else(store::damaged)?);
        }
        Ok(numbers)
    }

    /// How many lists there are.
    pub fn len(&self) -> usize {
        self.lists.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_come_back() {
        let list = |index: u32| {
            (0..index % 7).map(move |number| number.wrapping_mul(index.wrapping_mul(2_654_435_761)))
        };
        let mut lists = NumberLists::default();
        (0..3000).for_each(|index| lists.push(list(index)).unwrap());
        lists.push([u32::MAX, 0]).unwrap();
        for index in [0, 6, 7, 2999, 20] {
            assert_eq!(lists.get(index as usize).unwrap(), list(index).collect::<Vec<_>>());
        }
        assert_eq!((lists.get(3000).unwrap(), lists.len()), (vec![u32::MAX, 0], 3001));
        assert!(lists.get(3001).is_err());
    }
}
