//! Values in blocks of a few bits each, with factors that a block shares: how quantised weights lie, in files and in memory.

mod gguf;
mod own;

/// How many values of a tensor lie together, and as what. Whatever is computed of them is computed in f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BlockType {
    /// 16 bits, IEEE 754: each value a block of its own.
    F16,
    /// 32 values of 4 bits with a factor. This and what follows up to Q6_K are GGUF's, as ggml lays them out.
    Q4_0,
    /// The same with a least value.
    Q4_1,
    /// 32 values of 5 bits with a factor.
    Q5_0,
    /// The same with a least value.
    Q5_1,
    /// 32 values of 8 bits with a factor.
    Q8_0,
    /// 256 values of 4 bits; each 32 of them have a factor and a least value, of 6 bits each.
    Q4K,
    /// The same of 5 bits.
    Q5K,
    /// 256 values of 6 bits; each 16 of them have a factor of 8 bits.
    Q6K,
    /// 32 values of 4 bits, the quantiles of a normal distribution (QLoRA); each 8 of them have a factor of 6 bits.
    Nf4,
    /// Values of 8 bits with a factor a row.
    Int8,
}

/// The most values of a block.
const MOST: usize = 256;

impl BlockType {
    /// Those that GGUF files have.
    pub const IN_FILES: [BlockType; 9] = [
        BlockType::F16,
        BlockType::Q4_0,
        BlockType::Q4_1,
        BlockType::Q5_0,
        BlockType::Q5_1,
        BlockType::Q8_0,
        BlockType::Q4K,
        BlockType::Q5K,
        BlockType::Q6K,
    ];

    /// As the format calls it.
    pub fn name(self) -> &'static str {
        match self {
            BlockType::F16 => "F16",
            BlockType::Q4_0 => "Q4_0",
            BlockType::Q4_1 => "Q4_1",
            BlockType::Q5_0 => "Q5_0",
            BlockType::Q5_1 => "Q5_1",
            BlockType::Q8_0 => "Q8_0",
            BlockType::Q4K => "Q4_K",
            BlockType::Q5K => "Q5_K",
            BlockType::Q6K => "Q6_K",
            BlockType::Nf4 => "nf4",
            BlockType::Int8 => "int8",
        }
    }

    /// Values of a block.
    pub fn values(self) -> usize {
        match self {
            BlockType::F16 | BlockType::Int8 => 1,
            BlockType::Nf4 => own::NF4,
            BlockType::Q4_0 | BlockType::Q4_1 | BlockType::Q5_0 | BlockType::Q5_1 | BlockType::Q8_0 => 32,
            BlockType::Q4K | BlockType::Q5K | BlockType::Q6K => 256,
        }
    }

    /// Bytes of a block; those of blocks that are made here have more behind them all.
    pub fn block_bytes(self) -> usize {
        match self {
            BlockType::F16 => 2,
            BlockType::Int8 => 1,
            BlockType::Nf4 => own::NF4_BYTES,
            BlockType::Q4_0 => 18,
            BlockType::Q4_1 => 20,
            BlockType::Q5_0 => 22,
            BlockType::Q5_1 => 24,
            BlockType::Q8_0 => 34,
            BlockType::Q4K => 144,
            BlockType::Q5K => 176,
            BlockType::Q6K => 210,
        }
    }

    /// Bytes of `len` values in rows of `columns`; the last block is whole.
    pub fn bytes(self, len: usize, columns: usize) -> usize {
        let apart = match self {
            BlockType::Nf4 => own::nf4_apart(len),
            BlockType::Int8 => 4 * len.div_ceil(columns.max(1)),
            _ => 0,
        };
        len.div_ceil(self.values()) * self.block_bytes() + apart
    }

    /// Whether such blocks are made here, of other values.
    pub fn is_made(self) -> bool {
        matches!(self, BlockType::Nf4 | BlockType::Int8)
    }

    /// Writes `values`, in rows of `columns`, as blocks into `out`, which has their bytes. Other blocks than those that are made
    /// here are left as they were.
    pub(crate) fn quantise(self, values: &[f32], columns: usize, out: &mut [u8]) {
        match self {
            BlockType::Nf4 => own::nf4(values, out),
            BlockType::Int8 => own::int8(values, columns, out),
            _ => {}
        }
    }

    /// Writes what whole blocks of a file hold: `out` has a place for each value of `bytes`.
    pub fn dequantise(self, bytes: &[u8], out: &mut [f32]) {
        match self {
            BlockType::F16 => gguf::each(bytes, out, gguf::f16),
            BlockType::Q4_0 => gguf::each(bytes, out, gguf::q4_0),
            BlockType::Q4_1 => gguf::each(bytes, out, gguf::q4_1),
            BlockType::Q5_0 => gguf::each(bytes, out, gguf::q5_0),
            BlockType::Q5_1 => gguf::each(bytes, out, gguf::q5_1),
            BlockType::Q8_0 => gguf::each(bytes, out, gguf::q8_0),
            BlockType::Q4K => gguf::each(bytes, out, gguf::q4_k),
            BlockType::Q5K => gguf::each(bytes, out, gguf::q5_k),
            BlockType::Q6K => gguf::each(bytes, out, gguf::q6_k),
            // These are not read without what lies behind them.
            BlockType::Nf4 | BlockType::Int8 => {}
        }
    }
}

impl std::fmt::Display for BlockType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Values that lie in blocks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Blocks<'a> {
    kind: BlockType,
    bytes: &'a [u8],
    /// Of all, and of a row.
    shape: [usize; 2],
    /// The place of the first that is meant.
    first: usize,
    /// One more than the place of the last.
    end: usize,
}

impl<'a> Blocks<'a> {
    /// `len` values in rows of `columns`; none where `bytes` are too few for them.
    pub fn new(kind: BlockType, bytes: &'a [u8], len: usize, columns: usize) -> Self {
        let end = if bytes.len() < kind.bytes(len, columns) { 0 } else { len };
        Blocks { kind, bytes, shape: [len, columns], first: 0, end }
    }

    /// How they lie.
    pub fn kind(self) -> BlockType {
        self.kind
    }

    /// How many there are.
    pub fn len(self) -> usize {
        self.end - self.first
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Those from `first` on; none where that lies beyond the end.
    pub fn from(self, first: usize) -> Self {
        Blocks { first: self.first.saturating_add(first).min(self.end), ..self }
    }

    /// Writes the first of them, as many as `out` has places; what is not there is left as it was.
    pub fn read(self, out: &mut [f32]) {
        let (values, bytes) = (self.kind.values(), self.kind.block_bytes());
        let wanted = out.len().min(self.len());
        let Some(mut out) = out.get_mut(..wanted) else { return };
        let [len, columns] = self.shape;
        match self.kind {
            BlockType::Nf4 => return own::read_nf4(self.bytes, len, self.first, out),
            BlockType::Int8 => return own::read_int8(self.bytes, len, columns, self.first, out),
            _ => {}
        }
        let (mut block, within) = (self.first / values, self.first % values);
        let part = |block: usize, within: usize, out: &mut [f32]| {
            let mut whole = [0.0; MOST];
            let from = self.bytes.get(block * bytes..(block + 1) * bytes).unwrap_or_default();
            self.kind.dequantise(from, &mut whole[..values]);
            out.copy_from_slice(&whole[within..within + out.len()]);
        };
        if within > 0 {
            let (beginning, rest) = out.split_at_mut((values - within).min(wanted));
            part(block, within, beginning);
            out = rest;
            block += 1;
        }
        let whole = out.len() / values;
        let (middle, end) = out.split_at_mut(whole * values);
        self.kind.dequantise(self.bytes.get(block * bytes..).unwrap_or_default(), middle);
        if !end.is_empty() {
            part(block + whole, 0, end);
        }
    }

    /// All of them.
    pub fn dense(self) -> Vec<f32> {
        let mut out = vec![0.0; self.len()];
        self.read(&mut out);
        out
    }
}
