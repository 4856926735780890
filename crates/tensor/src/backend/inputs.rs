//! What kernels are given.

use std::sync::Arc;

use super::Layout;
use crate::dtype::{Values, ValuesMut};
use crate::random::Key;

/// A matrix seen through strides, so that a transposed operand is no copy.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a> {
    /// The values it is a view of.
    pub data: Values<'a>,
    /// Rows and columns.
    pub shape: [usize; 2],
    /// How far apart the next row and the next column are.
    pub strides: [usize; 2],
}

impl<'a> Matrix<'a> {
    /// `data` as `[rows, columns]`, row by row.
    pub fn new(data: impl Into<Values<'a>>, rows: usize, columns: usize) -> Self {
        Matrix { data: data.into(), shape: [rows, columns], strides: [columns, 1] }
    }

    /// The same values with rows and columns exchanged.
    pub fn t(self) -> Self {
        let ([rows, columns], [down, right]) = (self.shape, self.strides);
        Matrix { data: self.data, shape: [columns, rows], strides: [right, down] }
    }

    /// `count` rows from `first` on.
    pub fn rows(self, first: usize, count: usize) -> Self {
        Matrix { data: self.data.from(first * self.strides[0]), shape: [count, self.shape[1]], ..self }
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
    /// Where the values before the activation are kept for the backward: `[m, n]`, of the output's type.
    pub before_activation: Option<ValuesMut<'a>>,
}

impl Ends<'_> {
    /// Whether nothing is applied.
    pub(super) fn are_none(&self) -> bool {
        self.bias.is_none() && self.activation == Activation::Identity && self.before_activation.is_none()
    }
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
#[derive(Debug, Clone, PartialEq)]
pub struct Rotary {
    /// By how much each pair of channels of a head is turned a position: half as many as a head has channels.
    pub frequencies: Arc<[f32]>,
    /// What is turned is multiplied with this as well: 1, but where positions are stretched by YaRN.
    pub scale: f32,
}

impl Rotary {
    /// Those of heads of an even size, as they were published: the longest wavelength is nearly `2 pi theta` tokens.
    pub fn new(head_size: usize, theta: f32) -> Self {
        // Rounded where transformers rounds: at thousands of positions the last bit of a frequency is 1e-3 of an angle.
        let frequency = |pair: usize| 1.0 / theta.powf((2 * pair) as f32 / head_size as f32);
        Rotary { frequencies: (0..head_size / 2).map(frequency).collect(), scale: 1.0 }
    }

    /// Channels of a head.
    pub fn head_size(&self) -> usize {
        2 * self.frequencies.len()
    }
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
    pub query: Values<'a>,
    /// What is asked.
    pub key: Values<'a>,
    /// What is answered.
    pub value: Values<'a>,
    /// The rows of keys and values; a query sees its own row only.
    pub layout: &'a Layout,
    /// The rows of the queries: the same, or the first tokens of each row where only these go on.
    pub queries: &'a Layout,
    /// Dropped from the probabilities.
    pub dropout: Option<Dropout>,
}

/// What a cache has of a row: its keys and values, each `[length, kv_heads * head_size]` and perhaps room behind.
#[derive(Debug, Clone, Copy)]
pub struct CachedRow<'a> {
    /// What is asked.
    pub key: Values<'a>,
    /// What is answered.
    pub value: Values<'a>,
    /// How many there are; the last of them are those of the tokens that ask.
    pub length: usize,
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

/// The inputs of layer norm.
pub struct LayerNorm<'a> {
    /// `[tokens, columns]`
    pub x: Values<'a>,
    /// Added to it, if any.
    pub residual: Option<Values<'a>>,
    /// Applied to `x` first, with the layout that keys it.
    pub dropout: Option<(Dropout, &'a Layout)>,
    /// `[columns]`
    pub weight: &'a [f32],
    /// `[columns]`; zero if none.
    pub bias: Option<&'a [f32]>,
    /// Added to the variance.
    pub epsilon: f32,
}

/// The inputs of RMS norm.
pub struct RmsNorm<'a> {
    /// `[groups, columns]`
    pub x: Values<'a>,
    /// `[columns]`
    pub weight: &'a [f32],
    /// Added to the mean of the squares.
    pub epsilon: f32,
}

/// What layer norm keeps for its backward.
pub struct LayerNormSaved<'a> {
    /// `[tokens, columns]`, before weight and bias.
    pub normal: Values<'a>,
    /// One over the standard deviation of each row.
    pub rstd: &'a [f32],
    /// `[columns]`
    pub weight: &'a [f32],
}

/// Floating point operations of one product of queries and keys over all rows and heads.
pub(super) fn attention_product(shape: AttentionShape, inputs: &AttentionInputs<'_>) -> usize {
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
    /// The logarithms of the sums of its exponentials: `[heads, queries]`.
    pub lse: &'a [f32],
    /// The gradient of the output.
    pub gradient: Values<'a>,
}
