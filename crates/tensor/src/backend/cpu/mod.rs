//! Kernels for the processor: plain loops that the compiler vectorises for what the machine can do (chosen at run
//! time), products by a kernel of our own, work cut into blocks fixed by shape and shared out by rayon. Kernels are generic
//! over the type of activations: values are widened as they are read and rounded as they are written.

mod activation;
mod adamw;
mod adamw_8bit;
pub(super) mod attention;
mod cached_attention;
pub mod ceiling;
mod elementwise;
mod embedding;
mod factors;
mod gate;
pub(super) mod gemm;
mod kronecker_sum;
mod loss;
mod mask;
mod math;
mod norm;
pub(crate) mod parallel;
mod pool;
mod rms_norm;
mod rotary;
mod rotate;
mod select;
mod token_loss;
mod transpose;

use super::{
    Activation, AdamW, AttentionInputs, AttentionSaved, AttentionShape, Backend, BinaryCrossEntropy,
    CachedRow, Cayley, CrossEntropy, Dropout, Ends, KroneckerSum, LayerNorm, LayerNormSaved, Layout, Product,
    RmsNorm, Rotary,
};
use crate::dtype::{Element, Values, ValuesMut, with_values, with_values_mut};

/// The kernels of [`crate::Device::Cpu`].
pub struct Cpu;

/// The one instance.
pub static CPU: Cpu = Cpu;

impl Backend for Cpu {
    fn zero(&self, values: ValuesMut<'_>) {
        with_values_mut!(values, values => elementwise::zero(values));
    }
    fn copy(&self, from: Values<'_>, to: ValuesMut<'_>) {
        if let Values::Blocks(blocks) = from {
            return with_values_mut!(to, to => elementwise::copy_blocks(blocks, to));
        }
        with_values!(from, from => with_values_mut!(to, to => elementwise::copy(from, to)));
    }
    fn add_assign(&self, sum: ValuesMut<'_>, more: Values<'_>) {
        with_values_mut!(sum, sum => with_values!(more, more => elementwise::add_assign(sum, more)));
    }
    fn scale(&self, values: ValuesMut<'_>, factor: f32) {
        with_values_mut!(values, values => elementwise::scale(values, factor));
    }
    fn kronecker_sum(&self, factors: &KroneckerSum<'_>, out: &mut [f32]) {
        kronecker_sum::forward(factors, out);
    }
    fn kronecker_sum_backward(
        &self,
        factors: &KroneckerSum<'_>,
        gradient: &[f32],
        out: &mut [&mut [f32]; 3],
    ) {
        kronecker_sum::backward(factors, gradient, out);
    }
    fn sum_of_squares(&self, values: &[f32]) -> f64 {
        elementwise::sum_of_squares(values)
    }
    fn sum_of_squares_of_rows(&self, values: &[f32], rows: &[u32], shape: [usize; 2]) -> f64 {
        elementwise::sum_of_squares_of_rows(values, rows, shape)
    }
    fn gemm(&self, out: ValuesMut<'_>, products: &[Product<'_>], accumulate: bool, ends: Ends<'_>) {
        gemm::gemm(out, products, accumulate, ends);
    }
    fn activation_backward(&self, activation: Activation, before: Values<'_>, gradient: ValuesMut<'_>) {
        with_values_mut!(gradient, gradient => {
            activation::backward(activation, Element::of(before), gradient);
        });
    }
    fn activation(&self, activation: Activation, before: Values<'_>, out: ValuesMut<'_>) {
        with_values_mut!(out, out => activation::forward(activation, Element::of(before), out));
    }
    fn sum_rows(&self, values: Values<'_>, out: &mut [f32], accumulate: bool) {
        with_values!(values, values => elementwise::sum_rows(values, out, accumulate));
    }
    fn gated(&self, activation: Activation, values: Values<'_>, columns: usize, out: ValuesMut<'_>) {
        with_values_mut!(out, out => gate::forward_of_halves(activation, Element::of(values), columns, out));
    }
    fn gated_backward(
        &self,
        activation: Activation,
        values: Values<'_>,
        gradient: Values<'_>,
        columns: usize,
        out: ValuesMut<'_>,
    ) {
        with_values_mut!(out, out => {
            let (values, gradient) = (Element::of(values), Element::of(gradient));
            gate::backward_of_halves(activation, values, gradient, columns, out);
        });
    }
    fn gate(&self, activation: Activation, gate: Values<'_>, up: Values<'_>, out: ValuesMut<'_>) {
        with_values_mut!(out, out => gate::forward(activation, Element::of(gate), Element::of(up), out));
    }
    fn gate_backward(
        &self,
        activation: Activation,
        gate: Values<'_>,
        up: Values<'_>,
        gradient: Values<'_>,
        [dgate, dup]: [ValuesMut<'_>; 2],
    ) {
        with_values_mut!(dgate, dgate => {
            let inputs = [gate, up, gradient].map(Element::of);
            gate::backward(activation, inputs, [dgate, Element::of_mut(dup)]);
        });
    }
    fn rotary(&self, values: ValuesMut<'_>, layout: &Layout, rotary: &Rotary, back: bool) {
        with_values_mut!(values, values => rotary::turn(values, layout, rotary, back));
    }
    fn dropout(&self, values: ValuesMut<'_>, layout: &Layout, dropout: Dropout) {
        with_values_mut!(values, values => elementwise::dropout(values, layout, dropout));
    }
    fn embedding(&self, tables: &[(Values<'_>, &[u32])], columns: usize, out: ValuesMut<'_>) {
        with_values_mut!(out, out => embedding::forward(tables, columns, out));
    }
    fn embedding_backward(
        &self,
        gradient: Values<'_>,
        ids: &[u32],
        columns: usize,
        padding_idx: Option<u32>,
        table: &mut [f32],
    ) {
        with_values!(gradient, gradient => {
            embedding::backward(gradient, ids, columns, padding_idx, table);
        });
    }
    fn select_rows(&self, values: Values<'_>, index: &[usize], columns: usize, out: ValuesMut<'_>) {
        with_values_mut!(out, out => select::rows(Element::of(values), index, columns, out));
    }
    fn select_rows_backward(
        &self,
        gradient: Values<'_>,
        index: &[usize],
        columns: usize,
        out: ValuesMut<'_>,
    ) {
        with_values_mut!(out, out => select::rows_backward(Element::of(gradient), index, columns, out));
    }
    fn prepend_rows(
        &self,
        prefix: Values<'_>,
        values: Values<'_>,
        index: &[usize],
        columns: usize,
        out: ValuesMut<'_>,
    ) {
        with_values_mut!(out, out => {
            select::rows_of_both(Element::of(prefix), Element::of(values), index, columns, out);
        });
    }
    fn select_columns(&self, values: Values<'_>, columns: [usize; 2], first: usize, out: ValuesMut<'_>) {
        with_values_mut!(out, out => select::columns(Element::of(values), columns, first, out));
    }
    fn select_columns_backward(
        &self,
        gradient: Values<'_>,
        columns: [usize; 2],
        first: usize,
        out: ValuesMut<'_>,
    ) {
        with_values_mut!(out, out => {
            select::columns_backward(Element::of(gradient), columns, first, out);
        });
    }
    fn transpose(&self, values: Values<'_>, shape: [usize; 2], out: ValuesMut<'_>) {
        with_values_mut!(out, out => transpose::transpose(Element::of(values), shape, out));
    }
    fn mean_rows(&self, values: &[f32], layout: &Layout, columns: usize, out: &mut [f32]) {
        pool::mean(values, layout, columns, out);
    }
    fn mean_rows_backward(
        &self,
        gradient: &[f32],
        layout: &Layout,
        columns: usize,
        out: &mut [f32],
        accumulate: bool,
    ) {
        pool::mean_backward(gradient, layout, columns, out, accumulate);
    }
    fn layer_norm(&self, norm: &LayerNorm<'_>, out: ValuesMut<'_>, normal: ValuesMut<'_>, rstd: &mut [f32]) {
        with_values_mut!(out, out => norm::forward(norm, out, Element::of_mut(normal), rstd));
    }
    fn affine(&self, normal: Values<'_>, weight: &[f32], bias: Option<&[f32]>, out: ValuesMut<'_>) {
        with_values_mut!(out, out => norm::affine_rows(Element::of(normal), weight, bias, out));
    }
    fn layer_norm_backward(
        &self,
        gradient: Values<'_>,
        saved: &LayerNormSaved<'_>,
        dz: Option<ValuesMut<'_>>,
        dweight: Option<(&mut [f32], bool)>,
        dbias: Option<(&mut [f32], bool)>,
    ) {
        with_values!(gradient, gradient => norm::backward(gradient, saved, dz, dweight, dbias));
    }
    fn rms_norm(&self, norm: &RmsNorm<'_>, out: ValuesMut<'_>, rstd: &mut [f32]) {
        with_values_mut!(out, out => rms_norm::forward(norm, out, rstd));
    }
    fn rms_norm_backward(
        &self,
        gradient: Values<'_>,
        norm: &RmsNorm<'_>,
        rstd: &[f32],
        dx: ValuesMut<'_>,
        accumulate: bool,
    ) {
        with_values_mut!(dx, dx => rms_norm::backward(gradient, norm, rstd, dx, accumulate));
    }
    fn rms_norm_weight_backward(
        &self,
        gradient: Values<'_>,
        norm: &RmsNorm<'_>,
        rstd: &[f32],
        dweight: &mut [f32],
        accumulate: bool,
    ) {
        with_values!(gradient, gradient => {
            rms_norm::weight_backward(gradient, norm, rstd, dweight, accumulate);
        });
    }
    fn attention(
        &self,
        shape: AttentionShape,
        inputs: AttentionInputs<'_>,
        out: ValuesMut<'_>,
        lse: &mut [f32],
    ) {
        with_values_mut!(out, out => attention::forward(shape, inputs, out, lse));
    }
    fn attention_backward(
        &self,
        shape: AttentionShape,
        inputs: AttentionInputs<'_>,
        saved: AttentionSaved<'_>,
        gradients: [ValuesMut<'_>; 3],
    ) {
        let [query, key, value] = gradients;
        with_values_mut!(query, query => {
            let gradients = [query, Element::of_mut(key), Element::of_mut(value)];
            attention::backward(shape, inputs, saved, gradients);
        });
    }
    fn attention_cached(
        &self,
        shape: AttentionShape,
        query: Values<'_>,
        queries: &Layout,
        rows: &[CachedRow<'_>],
        out: ValuesMut<'_>,
    ) {
        with_values_mut!(out, out => cached_attention::forward(shape, Element::of(query), queries, rows, out));
    }
    fn cross_entropy(
        &self,
        logits: &[f32],
        classes: usize,
        loss: &CrossEntropy<'_>,
        out: &mut [f32],
        dlogits: Option<&mut [f32]>,
    ) {
        loss::cross_entropy(logits, classes, loss, out, dlogits);
    }
    fn token_losses(&self, logits: &mut [f32], targets: &[u32], losses: &mut [f32], gradient: Option<f32>) {
        token_loss::token_losses(logits, targets, losses, gradient);
    }
    fn binary_cross_entropy(
        &self,
        logits: &[f32],
        columns: usize,
        loss: &BinaryCrossEntropy<'_>,
        out: &mut [f32],
        dlogits: Option<&mut [f32]>,
    ) {
        loss::binary_cross_entropy(logits, columns, loss, out, dlogits);
    }
    fn squared_error(
        &self,
        predictions: &[f32],
        targets: &[f32],
        denominator: f32,
        out: &mut [f32],
        dpredictions: Option<&mut [f32]>,
    ) {
        loss::squared_error(predictions, targets, denominator, out, dpredictions);
    }
    fn scale_columns(&self, values: &[f32], factors: &[f32], ends: Ends<'_>, out: &mut [f32]) {
        factors::scale_columns(values, factors, ends, out);
    }
    fn scale_rows(&self, values: &[f32], factors: &[f32], out: &mut [f32]) {
        factors::scale_rows(values, factors, out);
    }
    fn dot_columns(&self, left: &[f32], right: &[f32], out: &mut [f32], accumulate: bool) {
        factors::dot_columns(left, right, out, accumulate);
    }
    fn dot_rows(&self, left: &[f32], right: &[f32], out: &mut [f32], accumulate: bool) {
        factors::dot_rows(left, right, out, accumulate);
    }
    fn divide_by_root(&self, values: &[f32], squares: &[f32], out: &mut [f32]) {
        factors::divide_by_root(values, squares, out);
    }
    fn kronecker(&self, factors: [&[f32]; 2], shapes: [[usize; 2]; 2], scale: f32, out: &mut [f32]) {
        factors::kronecker(factors, shapes, scale, out);
    }
    fn kronecker_backward(
        &self,
        factors: [&[f32]; 2],
        shapes: [[usize; 2]; 2],
        scale: f32,
        gradient: &[f32],
        out: [&mut [f32]; 2],
    ) {
        factors::kronecker_backward(factors, shapes, scale, gradient, out);
    }
    fn rotate_blocks(
        &self,
        values: &[f32],
        _: [usize; 2],
        rotations: &[f32],
        block: usize,
        back: bool,
        out: &mut [f32],
    ) {
        rotate::rotate_blocks(values, rotations, block, back, out);
    }
    fn cayley(&self, angles: &[f32], block: usize, kind: Cayley, out: &mut [f32]) {
        rotate::cayley(angles, block, kind, out);
    }
    fn cayley_backward(&self, angles: &[f32], block: usize, kind: Cayley, gradient: &[f32], out: &mut [f32]) {
        rotate::cayley_backward(angles, block, kind, gradient, out);
    }
    fn adamw(&self, step: AdamW, gradient: &[f32], weight: &mut [f32], moments: [&mut [f32]; 2]) {
        adamw::step(step, gradient, weight, moments);
    }
    fn adamw_8bit(
        &self,
        step: AdamW,
        gradient: &[f32],
        weight: &mut [f32],
        moments: [(&mut [u8], &mut [f32]); 2],
    ) {
        adamw_8bit::step(step, gradient, weight, moments);
    }
    fn adamw_rows(
        &self,
        steps: &[AdamW],
        rows: (&[u32], &[u32]),
        gradient: Option<&[f32]>,
        columns: usize,
        weight: &mut [f32],
        moments: [&mut [f32]; 2],
    ) {
        adamw::rows(steps, rows, gradient, columns, weight, moments);
    }
}
