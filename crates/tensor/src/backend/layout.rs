//! Where the rows of a batch lie.

/// How a ragged batch lies in memory: row `i` is the tokens `cu_seqlens[i]..cu_seqlens[i + 1]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    cu_seqlens: Vec<usize>,
    row_ids: Vec<u64>,
    counters: Vec<[u32; 3]>,
}

impl Layout {
    /// Rows of these lengths; `row_ids` are the rows' stable numbers in their file, which key the random draws.
    ///
    /// # Panics
    /// If there are more of the one than of the other.
    pub fn new(lengths: &[usize], row_ids: &[u64]) -> Self {
        assert_eq!(lengths.len(), row_ids.len(), "layout: a row has one length and one id");
        let mut cu_seqlens = vec![0];
        let mut counters = Vec::new();
        for (length, id) in lengths.iter().zip(row_ids) {
            counters.extend((0..*length).map(|position| [position as u32, *id as u32, (*id >> 32) as u32]));
            cu_seqlens.push(counters.len());
        }
        Layout { cu_seqlens, row_ids: row_ids.to_vec(), counters }
    }

    /// One "token" a row, for values that are pooled already.
    pub fn pooled(&self) -> Layout {
        Layout::new(&vec![1; self.rows()], &self.row_ids)
    }

    /// Each row behind `count` more tokens.
    pub fn behind(&self, count: usize) -> Layout {
        self.behind_each(&vec![count; self.rows()])
    }

    /// The same, each row with a count of its own.
    pub fn behind_each(&self, counts: &[usize]) -> Layout {
        let lengths = self.cu_seqlens.windows(2).zip(counts).map(|(ends, count)| ends[1] - ends[0] + count);
        Layout::new(&lengths.collect::<Vec<_>>(), &self.row_ids)
    }

    /// The same rows, each with its first token at a position of its own: the rest of rows whose beginning is known.
    ///
    /// # Panics
    /// If there are not as many positions as rows.
    pub fn starting_at(&self, positions: &[usize]) -> Layout {
        assert_eq!(positions.len(), self.rows(), "layout: a row begins at one position");
        let mut later = self.clone();
        for (ends, first) in self.cu_seqlens.windows(2).zip(positions) {
            later.counters[ends[0]..ends[1]].iter_mut().for_each(|[position, ..]| *position += *first as u32);
        }
        later
    }

    /// Some of the rows, one after another, each at the positions that it has.
    pub fn of_rows(&self, rows: &[usize]) -> Layout {
        let mut some = Layout::new(&[], &[]);
        for row in rows {
            some.counters.extend(&self.counters[self.cu_seqlens[*row]..self.cu_seqlens[row + 1]]);
            some.cu_seqlens.push(some.counters.len());
            some.row_ids.push(self.row_ids[*row]);
        }
        some
    }

    /// The position of each token.
    pub fn positions(&self) -> impl Iterator<Item = u32> + '_ {
        self.counters.iter().map(|[position, ..]| *position)
    }

    /// The offsets of the rows, and the end of the last.
    pub fn cu_seqlens(&self) -> &[usize] {
        &self.cu_seqlens
    }

    /// The rows' stable numbers.
    pub fn row_ids(&self) -> &[u64] {
        &self.row_ids
    }

    /// How many rows.
    pub fn rows(&self) -> usize {
        self.row_ids.len()
    }

    /// How many tokens over all rows.
    pub fn tokens(&self) -> usize {
        self.counters.len()
    }

    /// The place of each token that keys its draws: position in the row, then the row id's two halves.
    pub(crate) fn counters(&self) -> &[[u32; 3]] {
        &self.counters
    }
}
