//! One trait, a folder of kernels for each device. Kernels see plain slices that the ops have checked.

pub mod cpu;
pub mod meta;
pub mod profile;

use crate::random::Key;

/// A matrix seen through strides, so that a transposed operand is no copy.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a> {
    /// The values it is a view of.
    pub data: &'a [f32],
    /// Rows and columns.
    pub shape: [usize; 2],
    /// How far apart the next row and the next column are.
    pub strides: [usize; 2],
}

impl<'a> Matrix<'a> {
    /// `data` as `[rows, columns]`, row by row.
    pub fn new(data: &'a [f32], rows: usize, columns: usize) -> Self {
        Matrix { data, shape: [rows, columns], strides: [columns, 1] }
    }

    /// The same values with rows and columns exchanged.
    pub fn t(self) -> Self {
        let ([rows, columns], [down, right]) = (self.shape, self.strides);
        Matrix { data: self.data, shape: [columns, rows], strides: [right, down] }
    }

    /// `count` rows from `first` on.
    pub fn rows(self, first: usize, count: usize) -> Self {
        let data = self.data.get(first * self.strides[0]..).unwrap_or_default();
        Matrix { data, shape: [count, self.shape[1]], ..self }
    }

    /// `count` columns from `first` on.
    pub fn columns(self, first: usize, count: usize) -> Self {
        self.t().rows(first, count).t()
    }

    /// Whether `data` holds all that the shape says.
    pub(crate) fn is_inside(&self) -> bool {
        let [rows, columns] = self.shape;
        rows == 0
            || columns == 0
            || (rows - 1) * self.strides[0] + (columns - 1) * self.strides[1] < self.data.len()
    }
}

/// `scale * left right`.
#[derive(Debug, Clone, Copy)]
pub struct Product<'a> {
    /// `[m, k]`.
    pub left: Matrix<'a>,
    /// `[k, n]`.
    pub right: Matrix<'a>,
    /// A factor.
    pub scale: f32,
}

/// What is applied to a block of a product while it is in cache.
#[derive(Default)]
pub struct Ends<'a> {
    /// Added to each row: `[n]`.
    pub bias: Option<&'a [f32]>,
    /// Applied last.
    pub activation: Activation,
    /// Where the values before the activation are kept for the backward: `[m, n]`.
    pub before_activation: Option<&'a mut [f32]>,
}

/// A function applied to each value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Activation {
    /// x
    #[default]
    Identity,
    /// x Phi(x), Phi the normal distribution by erf (Hendrycks and Gimpel 2016).
    Gelu,
    /// The approximation of GELU by tanh, which GPT-2 uses.
    GeluTanh,
    /// max(x, 0)
    Relu,
    /// x sigmoid(x)
    Silu,
    /// tanh(x)
    Tanh,
}

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
        let lengths: Vec<usize> = self.cu_seqlens.windows(2).map(|ends| ends[1] - ends[0] + count).collect();
        Layout::new(&lengths, &self.row_ids)
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

/// Dropout without a stored mask (Srivastava et al. 2014): the mask is drawn again wherever it is needed.
#[derive(Debug, Clone, Copy)]
pub struct Dropout {
    /// The chance that a value becomes zero; the others are divided by what remains.
    pub probability: f32,
    /// (seed, epoch, site).
    pub key: Key,
}

/// The sizes of an attention.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AttentionShape {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; a divisor of `heads`.
    pub kv_heads: usize,
    /// Channels of a head.
    pub head_size: usize,
    /// What the scores are multiplied with.
    pub scale: f32,
    /// Whether a token sees only itself and those before it.
    pub causal: bool,
    /// How many tokens it sees to either side of itself; all of its row where none is given.
    pub window: Option<usize>,
}

/// Rotary positions: see [`crate::ops::rotary`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rotary {
    /// Channels of a head; even.
    pub head_size: usize,
    /// The base of the wavelengths: the longest is nearly `2 pi theta` tokens.
    pub theta: f32,
}

/// How a skew-symmetric matrix Q becomes a rotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cayley {
    /// (I - Q) (I + Q)^-1
    Exact,
    /// Its Neumann series, cut: I + 2 Q + 2 Q^2 + ... + Q^(terms - 1).
    Neumann {
        /// How many powers, that of 0 included.
        terms: usize,
    },
}

/// The inputs of an attention: `query` `[queries, heads * head_size]`, the others `[tokens, kv_heads * head_size]`.
#[derive(Clone, Copy)]
pub struct AttentionInputs<'a> {
    /// What asks.
    pub query: &'a [f32],
    /// What is asked.
    pub key: &'a [f32],
    /// What is answered.
    pub value: &'a [f32],
    /// The rows of keys and values; a query sees its own row only.
    pub layout: &'a Layout,
    /// The rows of the queries: the same, or the first tokens of each row where only these go on.
    pub queries: &'a Layout,
    /// Dropped from the probabilities.
    pub dropout: Option<Dropout>,
}

/// Cross-entropy of logits against one class a row.
#[derive(Clone, Copy)]
pub struct CrossEntropy<'a> {
    /// The right class of each row.
    pub targets: &'a [u32],
    /// A weight for each class.
    pub class_weights: Option<&'a [f32]>,
    /// How much of the target is spread over all classes (Szegedy et al. 2016).
    pub label_smoothing: f32,
    /// What the sum over rows is divided by: the whole step's, so that accumulation changes nothing.
    pub denominator: f32,
}

/// Binary cross-entropy of logits, each against its own target.
#[derive(Clone, Copy)]
pub struct BinaryCrossEntropy<'a> {
    /// The wanted probability of each logit: as many as logits.
    pub targets: &'a [f32],
    /// What a target of 1 weighs against one of 0, a column each.
    pub positive_weights: Option<&'a [f32]>,
    /// What the sum is divided by: the whole step's, so that accumulation changes nothing.
    pub denominator: f32,
}

/// One step of AdamW (Loshchilov and Hutter 2019), as PyTorch computes it.
#[derive(Debug, Clone, Copy)]
pub struct AdamW {
    /// The rate of this step.
    pub learning_rate: f32,
    /// Decays of the two moments.
    pub betas: [f32; 2],
    /// Keeps the division sound.
    pub epsilon: f32,
    /// Decoupled decay of the weights.
    pub weight_decay: f32,
    /// Steps done, this one included.
    pub step: u64,
    /// What the gradient is multiplied with first (clipping).
    pub gradient_scale: f32,
}

/// The factors of a sum of Kronecker products.
#[derive(Clone, Copy)]
pub struct KroneckerSum<'a> {
    /// `[n, n, n]`
    pub rule: &'a [f32],
    /// `[n, down, rank]`
    pub left: &'a [f32],
    /// `[n, rank, across]`
    pub right: &'a [f32],
    /// n, down, across, rank.
    pub sizes: [usize; 4],
}

/// The kernels of a device. Every result is the same for any number of threads.
///
/// Slices are row-major with the sizes that the ops checked; `accumulate` adds to what the output holds.
pub trait Backend: Sync {
    /// `values = 0`
    fn zero(&self, values: &mut [f32]);
    /// `to = from`
    fn copy(&self, from: &[f32], to: &mut [f32]);
    /// `sum += more`
    fn add_assign(&self, sum: &mut [f32], more: &[f32]);
    /// `values *= factor`
    fn scale(&self, values: &mut [f32], factor: f32);
    /// The sum of squares, in f64.
    fn sum_of_squares(&self, values: &[f32]) -> f64;
    /// `out [m, n] (+)= ends(sum of products)`, each product of the same m and n.
    fn gemm(&self, out: &mut [f32], products: &[Product<'_>], accumulate: bool, ends: Ends<'_>);
    /// `gradient *= activation'(before)`
    fn activation_backward(&self, activation: Activation, before: &[f32], gradient: &mut [f32]);
    /// `out [columns] (+)= ` the sum over the rows of `values`.
    fn sum_rows(&self, values: &[f32], out: &mut [f32], accumulate: bool);
    /// `out [n across, n down] = ` the transpose of the sum over i of `rule_i (x) (left_i right_i)`.
    fn kronecker_sum(&self, factors: &KroneckerSum<'_>, out: &mut [f32]);
    /// Adds to `out` the gradients by rule, left and right.
    fn kronecker_sum_backward(&self, factors: &KroneckerSum<'_>, gradient: &[f32], out: &mut [&mut [f32]; 3]);
    /// `out [tokens, n] = activation(values[:, ..n]) * values[:, n..]`
    fn gated(&self, activation: Activation, values: &[f32], columns: usize, out: &mut [f32]);
    /// Overwrites `out [tokens, 2 n]` with the gradient by `values` of [`Backend::gated`].
    fn gated_backward(
        &self,
        activation: Activation,
        values: &[f32],
        gradient: &[f32],
        columns: usize,
        out: &mut [f32],
    );
    /// Turns the heads of `values` `[tokens, heads * head_size]` by their position in the row, or back.
    fn rotary(&self, values: &mut [f32], layout: &Layout, rotary: Rotary, back: bool);
    /// `values = dropout(values)`, `[tokens, channels]`; its own backward.
    fn dropout(&self, values: &mut [f32], layout: &Layout, dropout: Dropout);
    /// `out[t] = sum over tables of table[ids[t]]`
    fn embedding(&self, tables: &[(&[f32], &[u32])], columns: usize, out: &mut [f32]);
    /// `table[ids[t]] += gradient[t]` for each token but those of `padding_idx`.
    fn embedding_backward(
        &self,
        gradient: &[f32],
        ids: &[u32],
        columns: usize,
        padding_idx: Option<u32>,
        table: &mut [f32],
    );
    /// `out[i] = values[index[i]]`
    fn select_rows(&self, values: &[f32], index: &[usize], columns: usize, out: &mut [f32]);
    /// `out[index[i]] += gradient[i]`
    fn select_rows_backward(&self, gradient: &[f32], index: &[usize], columns: usize, out: &mut [f32]);
    /// `out[i]` = the row `index[i]` of `prefix` and `values`, one after another.
    fn prepend_rows(&self, prefix: &[f32], values: &[f32], index: &[usize], columns: usize, out: &mut [f32]);
    /// `out [rows, to] = values[:, first..first + to]`, where `values` is `[rows, from]` and `[from, to] = columns`.
    fn select_columns(&self, values: &[f32], columns: [usize; 2], first: usize, out: &mut [f32]);
    /// `out[:, first..first + to] += gradient`
    fn select_columns_backward(&self, gradient: &[f32], columns: [usize; 2], first: usize, out: &mut [f32]);
    /// `out[i]` = the mean over the tokens of row `i`; zero for a row without tokens.
    fn mean_rows(&self, values: &[f32], layout: &Layout, columns: usize, out: &mut [f32]);
    /// `out[t] (+)= gradient[i] / length`, for each token of row `i`.
    fn mean_rows_backward(
        &self,
        gradient: &[f32],
        layout: &Layout,
        columns: usize,
        out: &mut [f32],
        accumulate: bool,
    );
    /// Over `z = dropout(x) + residual`, row by row: `normal = (z - mean) rstd`, `out = normal * weight + bias`.
    fn layer_norm(&self, norm: &LayerNorm<'_>, out: &mut [f32], normal: &mut [f32], rstd: &mut [f32]);
    /// The gradient by z of layer norm, and what it adds to those of weight and bias.
    fn layer_norm_backward(
        &self,
        gradient: &[f32],
        saved: &LayerNormSaved<'_>,
        dz: Option<&mut [f32]>,
        dweight: Option<(&mut [f32], bool)>,
        dbias: Option<(&mut [f32], bool)>,
    );
    /// `out = softmax(scale query key^T) value`, block by block; keeps the logarithm of each sum in `lse`
    /// `[heads, queries]`.
    fn attention(&self, shape: AttentionShape, inputs: AttentionInputs<'_>, out: &mut [f32], lse: &mut [f32]);
    /// Overwrites the gradients of query, key and value.
    fn attention_backward(
        &self,
        shape: AttentionShape,
        inputs: AttentionInputs<'_>,
        saved: AttentionSaved<'_>,
        gradients: [&mut [f32]; 3],
    );
    /// The loss (a sum over rows, divided by the denominator) in `loss`, and its gradient by the logits.
    fn cross_entropy(
        &self,
        logits: &[f32],
        classes: usize,
        loss: &CrossEntropy<'_>,
        out: &mut [f32],
        dlogits: Option<&mut [f32]>,
    );
    /// The same of binary cross-entropy; `columns` logits a row.
    fn binary_cross_entropy(
        &self,
        logits: &[f32],
        columns: usize,
        loss: &BinaryCrossEntropy<'_>,
        out: &mut [f32],
        dlogits: Option<&mut [f32]>,
    );
    /// The same of `(prediction - target)^2`, one target a prediction.
    fn squared_error(
        &self,
        predictions: &[f32],
        targets: &[f32],
        denominator: f32,
        out: &mut [f32],
        dpredictions: Option<&mut [f32]>,
    );
    /// `out [rows, n] = ends(values * factors)`, each column with its own factor; one factor a value where there is one
    /// row.
    fn scale_columns(&self, values: &[f32], factors: &[f32], ends: Ends<'_>, out: &mut [f32]);
    /// `out[r] = values[r] * factors[r]`
    fn scale_rows(&self, values: &[f32], factors: &[f32], out: &mut [f32]);
    /// `out[c] (+)= ` the sum over the rows of `left * right`.
    fn dot_columns(&self, left: &[f32], right: &[f32], out: &mut [f32], accumulate: bool);
    /// `out[r] (+)= ` the sum over the columns of `left * right`.
    fn dot_rows(&self, left: &[f32], right: &[f32], out: &mut [f32], accumulate: bool);
    /// `out = values / sqrt(squares)`
    fn divide_by_root(&self, values: &[f32], squares: &[f32], out: &mut [f32]);
    /// `out += scale * left ⊗ right`, of two matrices of these shapes.
    fn kronecker(&self, factors: [&[f32]; 2], shapes: [[usize; 2]; 2], scale: f32, out: &mut [f32]);
    /// Overwrites the gradients by both factors.
    fn kronecker_backward(
        &self,
        factors: [&[f32]; 2],
        shapes: [[usize; 2]; 2],
        scale: f32,
        gradient: &[f32],
        out: [&mut [f32]; 2],
    );
    /// Multiplies each block of channels, as a row, with its own matrix of `rotations` `[blocks, block, block]`, or with
    /// that transposed.
    fn rotate_blocks(&self, values: &[f32], rotations: &[f32], block: usize, back: bool, out: &mut [f32]);
    /// Overwrites `out` `[blocks, block, block]` with the rotations of `angles`, the values above the diagonals of
    /// skew-symmetric matrices, row by row.
    fn cayley(&self, angles: &[f32], block: usize, kind: Cayley, out: &mut [f32]);
    /// Overwrites the gradient by the angles.
    fn cayley_backward(&self, angles: &[f32], block: usize, kind: Cayley, gradient: &[f32], out: &mut [f32]);
    /// Updates weight and moments.
    fn adamw(&self, step: AdamW, gradient: &[f32], weight: &mut [f32], moments: [&mut [f32]; 2]);
}

/// The inputs of layer norm.
pub struct LayerNorm<'a> {
    /// `[tokens, columns]`
    pub x: &'a [f32],
    /// Added to it, if any.
    pub residual: Option<&'a [f32]>,
    /// Applied to `x` first, with the layout that keys it.
    pub dropout: Option<(Dropout, &'a Layout)>,
    /// `[columns]`
    pub weight: &'a [f32],
    /// `[columns]`; zero if none.
    pub bias: Option<&'a [f32]>,
    /// Added to the variance.
    pub epsilon: f32,
}

/// What layer norm keeps for its backward.
pub struct LayerNormSaved<'a> {
    /// `[tokens, columns]`, before weight and bias.
    pub normal: &'a [f32],
    /// One over the standard deviation of each row.
    pub rstd: &'a [f32],
    /// `[columns]`
    pub weight: &'a [f32],
}

/// Floating point operations of one product of queries and keys over all rows and heads.
fn attention_product(shape: AttentionShape, inputs: &AttentionInputs<'_>) -> usize {
    let (queries, keys) = (inputs.queries.cu_seqlens(), inputs.layout.cu_seqlens());
    let pairs = queries.windows(2).zip(keys.windows(2)).map(|(q, k)| {
        let (queries, keys) = (q[1] - q[0], k[1] - k[0]);
        if shape.causal { queries * (keys + 1) / 2 } else { queries * keys }
    });
    2 * pairs.sum::<usize>() * shape.heads * shape.head_size
}

/// What attention keeps for its backward.
#[derive(Clone, Copy)]
pub struct AttentionSaved<'a> {
    /// The output.
    pub out: &'a [f32],
    /// `[heads, queries]`
    pub lse: &'a [f32],
    /// The gradient of the output.
    pub gradient: &'a [f32],
}
