use std::sync::Arc;

use retune_tensor::backend::Layout;

/// One row of a batch, as the tokenizer made it.
#[derive(Debug, Clone, Copy)]
pub struct BatchRow<'a> {
    /// The row's stable number in its file: it keys the row's random draws.
    pub id: u64,
    /// Token ids, special tokens included.
    pub input_ids: &'a [u32],
    /// For each token the part of a pair that it belongs to.
    pub token_type_ids: &'a [u32],
}

/// Rows laid end to end, with their offsets: ragged, never padded.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Where each row begins and ends.
    pub layout: Arc<Layout>,
    /// The same rows after pooling, one value each.
    pub pooled: Arc<Layout>,
    /// `[tokens]`
    pub input_ids: Arc<[u32]>,
    /// `[tokens]`
    pub token_type_ids: Arc<[u32]>,
}

impl Batch {
    /// Lays `rows` end to end. A row's missing type ids are 0.
    pub fn new<'a>(rows: impl IntoIterator<Item = BatchRow<'a>>) -> Self {
        let (mut lengths, mut ids) = (Vec::new(), Vec::new());
        let (mut input_ids, mut token_type_ids) = (Vec::new(), Vec::new());
        for row in rows {
            lengths.push(row.input_ids.len());
            ids.push(row.id);
            input_ids.extend_from_slice(row.input_ids);
            token_type_ids.extend(
                row.token_type_ids.iter().copied().chain(std::iter::repeat(0)).take(row.input_ids.len()),
            );
        }
        let layout = Layout::new(&lengths, &ids);
        Batch {
            pooled: Arc::new(layout.pooled()),
            layout: Arc::new(layout),
            input_ids: input_ids.into(),
            token_type_ids: token_type_ids.into(),
        }
    }

    /// Some of the rows, one after another.
    pub fn of_rows(&self, rows: &[usize]) -> Batch {
        let ends = self.layout.cu_seqlens();
        let some = Batch::new(rows.iter().map(|row| BatchRow {
            id: self.layout.row_ids()[*row],
            input_ids: &self.input_ids[ends[*row]..ends[row + 1]],
            token_type_ids: &self.token_type_ids[ends[*row]..ends[row + 1]],
        }));
        Batch { layout: Arc::new(self.layout.of_rows(rows)), ..some }
    }

    /// How many rows.
    pub fn rows(&self) -> usize {
        self.layout.rows()
    }

    /// How many tokens, all of them real.
    pub fn tokens(&self) -> usize {
        self.layout.tokens()
    }
}
