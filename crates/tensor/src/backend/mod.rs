//! One trait, a folder of kernels for each device. Kernels see plain slices that the ops have checked.

pub mod cpu;
mod inputs;
mod layout;
pub mod meta;
pub mod profile;

use inputs::attention_product;
pub use inputs::{
    Activation, AdamW, AttentionInputs, AttentionSaved, AttentionShape, BinaryCrossEntropy, CachedRow,
    Cayley, CrossEntropy, Dropout, Ends, KroneckerSum, LayerNorm, LayerNormSaved, Matrix, Product, RmsNorm,
    Rotary,
};
pub use layout::Layout;

use crate::dtype::{Values, ValuesMut};

/// The kernels of a device. Every result is the same for any number of threads.
///
/// Values are row-major with the sizes and types that the ops checked: activations and their gradients of one type, sums over them
/// and all else f32; `accumulate` adds to what the output holds.
pub trait Backend: Sync {
    /// `values = 0`
    fn zero(&self, values: ValuesMut<'_>);
    /// `to = from`, each value the nearest that there is where the types differ.
    fn copy(&self, from: Values<'_>, to: ValuesMut<'_>);
    /// `sum += more`
    fn add_assign(&self, sum: ValuesMut<'_>, more: Values<'_>);
    /// `values *= factor`
    fn scale(&self, values: ValuesMut<'_>, factor: f32);
    /// The sum of squares, in f64.
    fn sum_of_squares(&self, values: &[f32]) -> f64;
    /// The same bits for a table `[entries, columns]` that is 0 but for `values`, its `rows`, which rise.
    fn sum_of_squares_of_rows(&self, values: &[f32], rows: &[u32], shape: [usize; 2]) -> f64;
    /// `out [m, n] (+)= ends(sum of products)`, each product of the same m and n.
    fn gemm(&self, out: ValuesMut<'_>, products: &[Product<'_>], accumulate: bool, ends: Ends<'_>);
    /// `gradient *= activation'(before)`
    fn activation_backward(&self, activation: Activation, before: Values<'_>, gradient: ValuesMut<'_>);
    /// `out = f(before)`, as [`Ends::activation`] has it.
    fn activation(&self, activation: Activation, before: Values<'_>, out: ValuesMut<'_>);
    /// `out [columns] (+)= ` the sum over the rows of `values`.
    fn sum_rows(&self, values: Values<'_>, out: &mut [f32], accumulate: bool);
    /// `out [n across, n down] = ` the transpose of the sum over i of `rule_i (x) (left_i right_i)`.
    fn kronecker_sum(&self, factors: &KroneckerSum<'_>, out: &mut [f32]);
    /// Adds to `out` the gradients by rule, left and right.
    fn kronecker_sum_backward(&self, factors: &KroneckerSum<'_>, gradient: &[f32], out: &mut [&mut [f32]; 3]);
    /// `out [tokens, n] = activation(values[:, ..n]) * values[:, n..]`
    fn gated(&self, activation: Activation, values: Values<'_>, columns: usize, out: ValuesMut<'_>);
    /// Overwrites `out [tokens, 2 n]` with the gradient by `values` of [`Backend::gated`].
    fn gated_backward(
        &self,
        activation: Activation,
        values: Values<'_>,
        gradient: Values<'_>,
        columns: usize,
        out: ValuesMut<'_>,
    );
    /// `out = activation(gate) * up`
    fn gate(&self, activation: Activation, gate: Values<'_>, up: Values<'_>, out: ValuesMut<'_>);
    /// Overwrites the gradients by gate and by up.
    fn gate_backward(
        &self,
        activation: Activation,
        gate: Values<'_>,
        up: Values<'_>,
        gradient: Values<'_>,
        out: [ValuesMut<'_>; 2],
    );
    /// Turns the heads of `values` `[tokens, heads * head_size]` by their position in the row, or back.
    fn rotary(&self, values: ValuesMut<'_>, layout: &Layout, rotary: &Rotary, back: bool);
    /// `values = dropout(values)`, `[tokens, channels]`; its own backward.
    fn dropout(&self, values: ValuesMut<'_>, layout: &Layout, dropout: Dropout);
    /// `out[t] = sum over tables of table[ids[t]]`
    fn embedding(&self, tables: &[(Values<'_>, &[u32])], columns: usize, out: ValuesMut<'_>);
    /// `table[ids[t]] += gradient[t]` for each token but those of `padding_idx`.
    fn embedding_backward(
        &self,
        gradient: Values<'_>,
        ids: &[u32],
        columns: usize,
        padding_idx: Option<u32>,
        table: &mut [f32],
    );
    /// `out[i] = values[index[i]]`
    fn select_rows(&self, values: Values<'_>, index: &[usize], columns: usize, out: ValuesMut<'_>);
    /// `out[index[i]] += gradient[i]`
    fn select_rows_backward(&self, gradient: Values<'_>, index: &[usize], columns: usize, out: ValuesMut<'_>);
    /// `out[i]` = the row `index[i]` of `prefix` and `values`, one after another.
    fn prepend_rows(
        &self,
        prefix: Values<'_>,
        values: Values<'_>,
        index: &[usize],
        columns: usize,
        out: ValuesMut<'_>,
    );
    /// `out [rows, to] = values[:, first..first + to]`, where `values` is `[rows, from]` and `[from, to] = columns`.
    fn select_columns(&self, values: Values<'_>, columns: [usize; 2], first: usize, out: ValuesMut<'_>);
    /// `out[:, first..first + to] += gradient`
    fn select_columns_backward(
        &self,
        gradient: Values<'_>,
        columns: [usize; 2],
        first: usize,
        out: ValuesMut<'_>,
    );
    /// `out [columns, rows] = values^T`, where `[rows, columns] = shape`.
    fn transpose(&self, values: Values<'_>, shape: [usize; 2], out: ValuesMut<'_>);
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
    fn layer_norm(&self, norm: &LayerNorm<'_>, out: ValuesMut<'_>, normal: ValuesMut<'_>, rstd: &mut [f32]);
    /// `out = normal * weight + bias`, row by row, as [`Backend::layer_norm`] has it.
    fn affine(&self, normal: Values<'_>, weight: &[f32], bias: Option<&[f32]>, out: ValuesMut<'_>);
    /// The gradient by z of layer norm, and what it adds to those of weight and bias.
    fn layer_norm_backward(
        &self,
        gradient: Values<'_>,
        saved: &LayerNormSaved<'_>,
        dz: Option<ValuesMut<'_>>,
        dweight: Option<(&mut [f32], bool)>,
        dbias: Option<(&mut [f32], bool)>,
    );
    /// Over each group of `x`: `rstd = 1 / sqrt(mean(x^2) + epsilon)`, `out = x rstd weight`.
    fn rms_norm(&self, norm: &RmsNorm<'_>, out: ValuesMut<'_>, rstd: &mut [f32]);
    /// `dx (+)= ` the gradient by x of RMS norm.
    fn rms_norm_backward(
        &self,
        gradient: Values<'_>,
        norm: &RmsNorm<'_>,
        rstd: &[f32],
        dx: ValuesMut<'_>,
        accumulate: bool,
    );
    /// `dweight (+)= ` the gradient by its weight.
    fn rms_norm_weight_backward(
        &self,
        gradient: Values<'_>,
        norm: &RmsNorm<'_>,
        rstd: &[f32],
        dweight: &mut [f32],
        accumulate: bool,
    );
    /// `out = softmax(scale query key^T) value`, block by block; keeps the logarithm of each sum in `lse`
    /// `[heads, queries]`.
    fn attention(
        &self,
        shape: AttentionShape,
        inputs: AttentionInputs<'_>,
        out: ValuesMut<'_>,
        lse: &mut [f32],
    );
    /// Overwrites the gradients of query, key and value.
    fn attention_backward(
        &self,
        shape: AttentionShape,
        inputs: AttentionInputs<'_>,
        saved: AttentionSaved<'_>,
        gradients: [ValuesMut<'_>; 3],
    );
    /// `out = softmax(scale query key^T) value` of the last tokens of each row, causal: `queries` lays these out, one of `rows`
    /// for each of its.
    fn attention_cached(
        &self,
        shape: AttentionShape,
        query: Values<'_>,
        queries: &Layout,
        rows: &[CachedRow<'_>],
        out: ValuesMut<'_>,
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
    /// Of each row of `logits`, one for each of `targets`: the cross-entropy; with `gradient`, the logits become their
    /// gradient, multiplied with it.
    fn token_losses(&self, logits: &mut [f32], targets: &[u32], losses: &mut [f32], gradient: Option<f32>);
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
    /// Multiplies each block of channels of `values`, which are `shape`, as a row with its own matrix of `rotations`
    /// `[blocks, block, block]`, or with that transposed.
    fn rotate_blocks(
        &self,
        values: &[f32],
        shape: [usize; 2],
        rotations: &[f32],
        block: usize,
        back: bool,
        out: &mut [f32],
    );
    /// Overwrites `out` `[blocks, block, block]` with the rotations of `angles`, the values above the diagonals of
    /// skew-symmetric matrices, row by row.
    fn cayley(&self, angles: &[f32], block: usize, kind: Cayley, out: &mut [f32]);
    /// Overwrites the gradient by the angles.
    fn cayley_backward(&self, angles: &[f32], block: usize, kind: Cayley, gradient: &[f32], out: &mut [f32]);
    /// Updates weight and moments.
    fn adamw(&self, step: AdamW, gradient: &[f32], weight: &mut [f32], moments: [&mut [f32]; 2]);
    /// Updates weight and moments, each of which is codes and its blocks' largest magnitudes ([`crate::EightBit`]).
    fn adamw_8bit(
        &self,
        step: AdamW,
        gradient: &[f32],
        weight: &mut [f32],
        moments: [(&mut [u8], &mut [f32]); 2],
    );
    /// Updates some rows of a table and its moments, bit for bit as [`Backend::adamw`] would with all of it. The row
    /// `rows[i]` takes the steps from `from[i]` on, without a gradient but for the last where there is a `gradient`
    /// `[rows, columns]`. Rows rise.
    fn adamw_rows(
        &self,
        steps: &[AdamW],
        rows: (&[u32], &[u32]),
        gradient: Option<&[f32]>,
        columns: usize,
        weight: &mut [f32],
        moments: [&mut [f32]; 2],
    );
}
