//! Keys and values of tokens that a decoder has seen, so that a row goes on without going through them again.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use retune_tensor::backend::{AttentionShape, Layout};
use retune_tensor::ops::{self, KeyValues};
use retune_tensor::{Result, Var};

use crate::{Batch, BatchRow, Forward};

/// What the blocks of a decoder keep of some rows. The first pass with it reads the rows' beginnings, prefixes and prompts
/// included; each later one reads what comes behind: see [`KvCache::batch`].
#[derive(Debug, Default)]
pub struct KvCache {
    /// For each row, each block's.
    rows: RefCell<Vec<Vec<KeyValues>>>,
    /// How many positions of each row are known, those of virtual tokens included.
    lengths: RefCell<Vec<usize>>,
    begun: Cell<bool>,
}

impl KvCache {
    /// Of so many rows, with nothing in it.
    pub fn new(rows: usize) -> Self {
        KvCache {
            rows: RefCell::new(vec![Vec::new(); rows]),
            lengths: RefCell::new(vec![0; rows]),
            begun: Cell::default(),
        }
    }

    /// The next tokens of each row, at the positions behind those that are known.
    ///
    /// # Panics
    /// If there are not as many as rows.
    pub fn batch<'a>(&self, rows: impl IntoIterator<Item = BatchRow<'a>>) -> Batch {
        let batch = Batch::new(rows);
        let layout = Arc::new(batch.layout.starting_at(&self.lengths.borrow()));
        Batch { layout, ..batch }
    }

    /// How many positions of each row are known.
    pub fn lengths(&self) -> Vec<usize> {
        self.lengths.borrow().clone()
    }

    /// Forgets what a row knows from the position `length` on. Nothing happens where it knows no more.
    pub fn forget(&self, row: usize, length: usize) {
        if let Some(known) = self.lengths.borrow_mut().get_mut(row) {
            *known = length.min(*known);
        }
    }

    /// Goes on with some of the rows alone, which rise, and frees the others.
    pub fn keep(&self, rows: &[usize]) {
        let mut place = 0;
        self.rows.borrow_mut().retain(|_| {
            place += 1;
            rows.binary_search(&(place - 1)).is_ok()
        });
        let mut lengths = self.lengths.borrow_mut();
        *lengths = rows.iter().filter_map(|row| lengths.get(*row).copied()).collect();
    }

    /// What the block `index` finds: `inputs` are its queries, keys and values of the pass, `keys` lays the latter out, and
    /// `queries` the former where what stands before is known; before that its attention is what `first` makes.
    pub(crate) fn attend(
        &self,
        index: usize,
        [query, key, value]: [&Var; 3],
        [queries, keys]: [&Layout; 2],
        shape: AttentionShape,
        first: impl FnOnce() -> Result<Var>,
    ) -> Result<Var> {
        let mut rows = self.rows.borrow_mut();
        let known = self.lengths.borrow();
        let (key, value) = (key.value(), value.value());
        for ((row, length), ends) in rows.iter_mut().zip(&*known).zip(keys.cu_seqlens().windows(2)) {
            while row.len() <= index {
                row.push(KeyValues::new(key.device(), key.dtype(), key.columns())?);
            }
            row[index].put(*length, [key, value], ends[0]..ends[1])?;
        }
        if !self.begun.get() {
            return first();
        }
        let ends = queries.cu_seqlens().windows(2);
        let lengths = known.iter().zip(ends).map(|(length, ends)| length + ends[1] - ends[0]);
        let rows: Vec<_> = rows.iter().map(|row| &row[index]).zip(lengths).collect();
        ops::attention_cached(query, queries, &rows, shape)
    }

    /// All blocks have seen the rows that `keys` lays out.
    pub(crate) fn advance(&self, keys: &Layout) {
        let ends = keys.cu_seqlens().windows(2);
        self.lengths.borrow_mut().iter_mut().zip(ends).for_each(|(known, ends)| *known += ends[1] - ends[0]);
        self.begun.set(true);
    }
}

impl Forward<'_> {
    /// Whether the rows' beginnings are known already, and with them what stands before them.
    pub(crate) fn goes_on(&self) -> bool {
        self.cache.is_some_and(|cache| cache.begun.get())
    }
}
