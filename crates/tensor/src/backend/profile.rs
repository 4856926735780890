//! What each kernel takes: the processor's kernels behind a stopwatch. Off, it costs nothing but a flag that is read.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::cpu::CPU;
use super::{
    Activation, AdamW, AttentionInputs, AttentionSaved, AttentionShape, Backend, BinaryCrossEntropy,
    CachedRow, Cayley, CrossEntropy, Dropout, Ends, KroneckerSum, LayerNorm, LayerNormSaved, Layout, Matrix,
    Product, RmsNorm, Rotary,
};
use crate::dtype::{Values, ValuesMut};

/// One call of a kernel.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// The kernel.
    pub name: &'static str,
    /// The sizes that tell its calls apart: rows, columns, depth of a product; nothing for others.
    pub sizes: Option<[usize; 3]>,
    /// When it began, from the start of the profile.
    pub start: Duration,
    /// What it took.
    pub duration: Duration,
    /// Floating point operations of its products.
    pub flops: usize,
    /// Read and written, each operand once.
    pub bytes: usize,
}

static RUNNING: AtomicBool = AtomicBool::new(false);
static SPANS: Mutex<Option<(Instant, Vec<Span>)>> = Mutex::new(None);

fn spans() -> MutexGuard<'static, Option<(Instant, Vec<Span>)>> {
    SPANS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Begins to note what the kernels of [`crate::Device::Cpu`] take.
pub fn start() {
    *spans() = Some((Instant::now(), Vec::new()));
    RUNNING.store(true, Ordering::Relaxed);
}

/// Ends it: all calls since [`start`], in order.
pub fn stop() -> Vec<Span> {
    RUNNING.store(false, Ordering::Relaxed);
    spans().take().map(|(_, spans)| spans).unwrap_or_default()
}

pub(crate) fn is_running() -> bool {
    RUNNING.load(Ordering::Relaxed)
}

/// The kernels of the processor, timed.
pub(crate) struct Profiled;

/// The one instance.
pub(crate) static PROFILED: Profiled = Profiled;

fn timed<R>(
    name: &'static str,
    sizes: Option<[usize; 3]>,
    flops: usize,
    bytes: usize,
    work: impl FnOnce() -> R,
) -> R {
    let begun = Instant::now();
    let result = work();
    let duration = begun.elapsed();
    if let Some((start, spans)) = &mut *spans() {
        let start = begun.duration_since(*start);
        spans.push(Span { name, sizes, start, duration, flops, bytes });
    }
    result
}

/// What a slice takes in memory.
trait Bytes {
    fn bytes(&self) -> usize;
}

impl Bytes for [f32] {
    fn bytes(&self) -> usize {
        size_of_val(self)
    }
}

impl Bytes for Values<'_> {
    fn bytes(&self) -> usize {
        self.dtype().bytes(self.len(), self.len()).unwrap_or(usize::MAX)
    }
}

impl Bytes for ValuesMut<'_> {
    fn bytes(&self) -> usize {
        self.as_ref().bytes()
    }
}

/// The same of an optional one.
fn bytes(values: Option<&impl Bytes>) -> usize {
    values.map_or(0, Bytes::bytes)
}

impl Backend for Profiled {
    fn zero(&self, values: ValuesMut<'_>) {
        timed("zero", None, 0, values.bytes(), || CPU.zero(values));
    }
    fn copy(&self, from: Values<'_>, to: ValuesMut<'_>) {
        timed("copy", None, 0, 2 * to.bytes(), || CPU.copy(from, to));
    }
    fn add_assign(&self, sum: ValuesMut<'_>, more: Values<'_>) {
        timed("add_assign", None, 0, 3 * sum.bytes(), || CPU.add_assign(sum, more));
    }
    fn scale(&self, values: ValuesMut<'_>, factor: f32) {
        timed("scale", None, 0, 2 * values.bytes(), || CPU.scale(values, factor));
    }
    fn sum_of_squares(&self, values: &[f32]) -> f64 {
        timed("sum_of_squares", None, 0, values.bytes(), || CPU.sum_of_squares(values))
    }
    fn sum_of_squares_of_rows(&self, values: &[f32], rows: &[u32], shape: [usize; 2]) -> f64 {
        timed("sum_of_squares", None, 0, values.bytes(), || CPU.sum_of_squares_of_rows(values, rows, shape))
    }
    fn gemm(&self, out: ValuesMut<'_>, products: &[Product<'_>], accumulate: bool, ends: Ends<'_>) {
        let sizes = products.first().map(|p| [p.left.shape[0], p.right.shape[1], p.left.shape[1]]);
        let area = |m: [usize; 2]| m[0] * m[1];
        let flops = products.iter().map(|p| 2 * area(p.left.shape) * p.right.shape[1]).sum();
        let read = |m: &Matrix<'_>| m.data.dtype().bytes(area(m.shape), m.shape[1]).unwrap_or(usize::MAX);
        let read: usize = products.iter().map(|p| read(&p.left) + read(&p.right)).sum();
        let outputs = 1 + usize::from(accumulate) + usize::from(ends.before_activation.is_some());
        let bytes = read + outputs * out.bytes();
        timed("gemm", sizes, flops, bytes, || CPU.gemm(out, products, accumulate, ends));
    }
    fn activation_backward(&self, activation: Activation, before: Values<'_>, gradient: ValuesMut<'_>) {
        timed("activation_backward", None, 0, 3 * before.bytes(), || {
            CPU.activation_backward(activation, before, gradient);
        });
    }
    fn activation(&self, activation: Activation, before: Values<'_>, out: ValuesMut<'_>) {
        timed("activation", None, 0, 2 * before.bytes(), || CPU.activation(activation, before, out));
    }
    fn sum_rows(&self, values: Values<'_>, out: &mut [f32], accumulate: bool) {
        timed("sum_rows", None, 0, values.bytes(), || CPU.sum_rows(values, out, accumulate));
    }
    fn gated(&self, activation: Activation, values: Values<'_>, columns: usize, out: ValuesMut<'_>) {
        timed("gated", None, 0, 3 * out.bytes(), || CPU.gated(activation, values, columns, out));
    }
    fn gated_backward(
        &self,
        activation: Activation,
        values: Values<'_>,
        gradient: Values<'_>,
        columns: usize,
        out: ValuesMut<'_>,
    ) {
        timed("gated_backward", None, 0, 5 * gradient.bytes(), || {
            CPU.gated_backward(activation, values, gradient, columns, out);
        });
    }
    fn gate(&self, activation: Activation, gate: Values<'_>, up: Values<'_>, out: ValuesMut<'_>) {
        timed("gate", None, 0, 3 * out.bytes(), || CPU.gate(activation, gate, up, out));
    }
    fn gate_backward(
        &self,
        activation: Activation,
        gate: Values<'_>,
        up: Values<'_>,
        gradient: Values<'_>,
        out: [ValuesMut<'_>; 2],
    ) {
        timed("gate_backward", None, 0, 5 * gradient.bytes(), || {
            CPU.gate_backward(activation, gate, up, gradient, out);
        });
    }
    fn rotary(&self, values: ValuesMut<'_>, layout: &Layout, rotary: &Rotary, back: bool) {
        timed("rotary", None, 0, 2 * values.bytes(), || CPU.rotary(values, layout, rotary, back));
    }
    fn dropout(&self, values: ValuesMut<'_>, layout: &Layout, dropout: Dropout) {
        timed("dropout", None, 0, 2 * values.bytes(), || CPU.dropout(values, layout, dropout));
    }
    fn embedding(&self, tables: &[(Values<'_>, &[u32])], columns: usize, out: ValuesMut<'_>) {
        timed("embedding", None, 0, (1 + tables.len()) * out.bytes(), || CPU.embedding(tables, columns, out));
    }
    fn embedding_backward(
        &self,
        gradient: Values<'_>,
        ids: &[u32],
        columns: usize,
        padding_idx: Option<u32>,
        table: &mut [f32],
    ) {
        timed("embedding_backward", None, 0, 3 * gradient.bytes(), || {
            CPU.embedding_backward(gradient, ids, columns, padding_idx, table);
        });
    }
    fn select_rows(&self, values: Values<'_>, index: &[usize], columns: usize, out: ValuesMut<'_>) {
        timed("select_rows", None, 0, 2 * out.bytes(), || CPU.select_rows(values, index, columns, out));
    }
    fn select_rows_backward(
        &self,
        gradient: Values<'_>,
        index: &[usize],
        columns: usize,
        out: ValuesMut<'_>,
    ) {
        timed("select_rows_backward", None, 0, 3 * gradient.bytes(), || {
            CPU.select_rows_backward(gradient, index, columns, out);
        });
    }
    fn select_columns(&self, values: Values<'_>, columns: [usize; 2], first: usize, out: ValuesMut<'_>) {
        timed("select_columns", None, 0, 2 * out.bytes(), || CPU.select_columns(values, columns, first, out));
    }
    fn select_columns_backward(
        &self,
        gradient: Values<'_>,
        columns: [usize; 2],
        first: usize,
        out: ValuesMut<'_>,
    ) {
        timed("select_columns_backward", None, 0, 3 * gradient.bytes(), || {
            CPU.select_columns_backward(gradient, columns, first, out);
        });
    }
    fn transpose(&self, values: Values<'_>, shape: [usize; 2], out: ValuesMut<'_>) {
        timed("transpose", None, 0, 2 * out.bytes(), || CPU.transpose(values, shape, out));
    }
    fn mean_rows(&self, values: &[f32], layout: &Layout, columns: usize, out: &mut [f32]) {
        timed("mean_rows", None, 0, values.bytes(), || CPU.mean_rows(values, layout, columns, out));
    }
    fn mean_rows_backward(
        &self,
        gradient: &[f32],
        layout: &Layout,
        columns: usize,
        out: &mut [f32],
        accumulate: bool,
    ) {
        timed("mean_rows_backward", None, 0, out.bytes(), || {
            CPU.mean_rows_backward(gradient, layout, columns, out, accumulate);
        });
    }
    fn layer_norm(&self, norm: &LayerNorm<'_>, out: ValuesMut<'_>, normal: ValuesMut<'_>, rstd: &mut [f32]) {
        let values = norm.x.bytes() + bytes(norm.residual.as_ref()) + out.bytes() + normal.bytes();
        timed("layer_norm", None, 0, values, || CPU.layer_norm(norm, out, normal, rstd));
    }
    fn affine(&self, normal: Values<'_>, weight: &[f32], bias: Option<&[f32]>, out: ValuesMut<'_>) {
        timed("affine", None, 0, 2 * normal.bytes(), || CPU.affine(normal, weight, bias, out));
    }
    fn layer_norm_backward(
        &self,
        gradient: Values<'_>,
        saved: &LayerNormSaved<'_>,
        dz: Option<ValuesMut<'_>>,
        dweight: Option<(&mut [f32], bool)>,
        dbias: Option<(&mut [f32], bool)>,
    ) {
        let values = 2 * gradient.bytes() + bytes(dz.as_ref());
        timed("layer_norm_backward", None, 0, values, || {
            CPU.layer_norm_backward(gradient, saved, dz, dweight, dbias);
        });
    }
    fn rms_norm(&self, norm: &RmsNorm<'_>, out: ValuesMut<'_>, rstd: &mut [f32]) {
        timed("rms_norm", None, 0, 2 * out.bytes(), || CPU.rms_norm(norm, out, rstd));
    }
    fn rms_norm_backward(
        &self,
        gradient: Values<'_>,
        norm: &RmsNorm<'_>,
        rstd: &[f32],
        dx: ValuesMut<'_>,
        accumulate: bool,
    ) {
        timed("rms_norm_backward", None, 0, 3 * gradient.bytes(), || {
            CPU.rms_norm_backward(gradient, norm, rstd, dx, accumulate);
        });
    }
    fn rms_norm_weight_backward(
        &self,
        gradient: Values<'_>,
        norm: &RmsNorm<'_>,
        rstd: &[f32],
        dweight: &mut [f32],
        accumulate: bool,
    ) {
        timed("rms_norm_weight_backward", None, 0, 2 * gradient.bytes(), || {
            CPU.rms_norm_weight_backward(gradient, norm, rstd, dweight, accumulate);
        });
    }
    fn attention(
        &self,
        shape: AttentionShape,
        inputs: AttentionInputs<'_>,
        out: ValuesMut<'_>,
        lse: &mut [f32],
    ) {
        let flops = 2 * super::attention_product(shape, &inputs);
        let values = inputs.query.bytes() + inputs.key.bytes() + inputs.value.bytes() + out.bytes();
        timed("attention", None, flops, values, || CPU.attention(shape, inputs, out, lse));
    }
    fn attention_backward(
        &self,
        shape: AttentionShape,
        inputs: AttentionInputs<'_>,
        saved: AttentionSaved<'_>,
        gradients: [ValuesMut<'_>; 3],
    ) {
        let flops = 5 * super::attention_product(shape, &inputs);
        let values =
            2 * (inputs.query.bytes() + inputs.key.bytes() + inputs.value.bytes() + saved.gradient.bytes());
        timed("attention_backward", None, flops, values, || {
            CPU.attention_backward(shape, inputs, saved, gradients);
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
        let width = shape.kv_heads * shape.head_size;
        let cached =
            |row: &CachedRow<'_>| query.dtype().bytes(2 * row.length * width, width).unwrap_or(usize::MAX);
        let values = query.bytes() + out.bytes() + rows.iter().map(cached).sum::<usize>();
        timed("attention_cached", None, 0, values, || {
            CPU.attention_cached(shape, query, queries, rows, out);
        });
    }
    fn cross_entropy(
        &self,
        logits: &[f32],
        classes: usize,
        loss: &CrossEntropy<'_>,
        out: &mut [f32],
        dlogits: Option<&mut [f32]>,
    ) {
        timed("cross_entropy", None, 0, 2 * logits.bytes(), || {
            CPU.cross_entropy(logits, classes, loss, out, dlogits);
        });
    }
    fn token_losses(&self, logits: &mut [f32], targets: &[u32], losses: &mut [f32], gradient: Option<f32>) {
        let bytes = 2 * size_of_val(&*logits);
        timed("token_losses", None, 0, bytes, || CPU.token_losses(logits, targets, losses, gradient));
    }
    fn binary_cross_entropy(
        &self,
        logits: &[f32],
        columns: usize,
        loss: &BinaryCrossEntropy<'_>,
        out: &mut [f32],
        dlogits: Option<&mut [f32]>,
    ) {
        timed("binary_cross_entropy", None, 0, 2 * logits.bytes(), || {
            CPU.binary_cross_entropy(logits, columns, loss, out, dlogits);
        });
    }
    fn squared_error(
        &self,
        predictions: &[f32],
        targets: &[f32],
        denominator: f32,
        out: &mut [f32],
        dpredictions: Option<&mut [f32]>,
    ) {
        timed("squared_error", None, 0, 3 * predictions.bytes(), || {
            CPU.squared_error(predictions, targets, denominator, out, dpredictions);
        });
    }
    fn scale_columns(&self, values: &[f32], factors: &[f32], ends: Ends<'_>, out: &mut [f32]) {
        let touched = 2 * out.bytes() + bytes(ends.before_activation.as_ref());
        timed("scale_columns", None, 0, touched, || CPU.scale_columns(values, factors, ends, out));
    }
    fn scale_rows(&self, values: &[f32], factors: &[f32], out: &mut [f32]) {
        timed("scale_rows", None, 0, 2 * out.bytes(), || CPU.scale_rows(values, factors, out));
    }
    fn dot_columns(&self, left: &[f32], right: &[f32], out: &mut [f32], accumulate: bool) {
        timed("dot_columns", None, 0, 2 * left.bytes(), || CPU.dot_columns(left, right, out, accumulate));
    }
    fn dot_rows(&self, left: &[f32], right: &[f32], out: &mut [f32], accumulate: bool) {
        timed("dot_rows", None, 0, 2 * left.bytes(), || CPU.dot_rows(left, right, out, accumulate));
    }
    fn divide_by_root(&self, values: &[f32], squares: &[f32], out: &mut [f32]) {
        timed("divide_by_root", None, 0, 3 * out.bytes(), || CPU.divide_by_root(values, squares, out));
    }
    fn kronecker(&self, factors: [&[f32]; 2], shapes: [[usize; 2]; 2], scale: f32, out: &mut [f32]) {
        timed("kronecker", None, 0, 2 * out.bytes(), || CPU.kronecker(factors, shapes, scale, out));
    }
    fn kronecker_backward(
        &self,
        factors: [&[f32]; 2],
        shapes: [[usize; 2]; 2],
        scale: f32,
        gradient: &[f32],
        out: [&mut [f32]; 2],
    ) {
        timed("kronecker_backward", None, 0, 2 * gradient.bytes(), || {
            CPU.kronecker_backward(factors, shapes, scale, gradient, out);
        });
    }
    fn kronecker_sum(&self, factors: &KroneckerSum<'_>, out: &mut [f32]) {
        let values = factors.sizes[0] * 2 * out.bytes();
        timed("kronecker_sum", None, 0, values, || CPU.kronecker_sum(factors, out));
    }
    fn kronecker_sum_backward(
        &self,
        factors: &KroneckerSum<'_>,
        gradient: &[f32],
        out: &mut [&mut [f32]; 3],
    ) {
        let values = factors.sizes[0] * gradient.bytes();
        timed("kronecker_sum_backward", None, 0, values, || {
            CPU.kronecker_sum_backward(factors, gradient, out);
        });
    }
    fn rotate_blocks(
        &self,
        values: &[f32],
        shape: [usize; 2],
        rotations: &[f32],
        block: usize,
        back: bool,
        out: &mut [f32],
    ) {
        let flops = 2 * out.len() * block;
        timed("rotate_blocks", None, flops, 2 * out.bytes() + rotations.bytes(), || {
            CPU.rotate_blocks(values, shape, rotations, block, back, out);
        });
    }
    fn cayley(&self, angles: &[f32], block: usize, kind: Cayley, out: &mut [f32]) {
        timed("cayley", None, 0, angles.bytes() + out.bytes(), || CPU.cayley(angles, block, kind, out));
    }
    fn cayley_backward(&self, angles: &[f32], block: usize, kind: Cayley, gradient: &[f32], out: &mut [f32]) {
        timed("cayley_backward", None, 0, 2 * angles.bytes() + gradient.bytes(), || {
            CPU.cayley_backward(angles, block, kind, gradient, out);
        });
    }
    fn prepend_rows(
        &self,
        prefix: Values<'_>,
        values: Values<'_>,
        index: &[usize],
        columns: usize,
        out: ValuesMut<'_>,
    ) {
        timed("prepend_rows", None, 0, 2 * out.bytes(), || {
            CPU.prepend_rows(prefix, values, index, columns, out);
        });
    }
    fn adamw(&self, step: AdamW, gradient: &[f32], weight: &mut [f32], moments: [&mut [f32]; 2]) {
        timed("adamw", None, 0, 7 * weight.bytes(), || CPU.adamw(step, gradient, weight, moments));
    }
    fn adamw_8bit(
        &self,
        step: AdamW,
        gradient: &[f32],
        weight: &mut [f32],
        moments: [(&mut [u8], &mut [f32]); 2],
    ) {
        timed("adamw_8bit", None, 0, 4 * weight.len(), || CPU.adamw_8bit(step, gradient, weight, moments));
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
        let values = 6 * rows.0.len() * columns * size_of::<f32>() + gradient.map_or(0, Bytes::bytes);
        timed("adamw_rows", None, 0, values, || {
            CPU.adamw_rows(steps, rows, gradient, columns, weight, moments);
        });
    }
}
