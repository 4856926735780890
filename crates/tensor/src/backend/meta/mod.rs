//! Nothing is computed: the ops allocate and free as they would, and the ledger counts. What the products would take is
//! added up.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::{
    Activation, AdamW, AttentionInputs, AttentionSaved, AttentionShape, Backend, BinaryCrossEntropy,
    CachedRow, Cayley, CrossEntropy, Dropout, Ends, KroneckerSum, LayerNorm, LayerNormSaved, Layout, Product,
    RmsNorm, Rotary, attention_product,
};
use crate::dtype::{Values, ValuesMut};

/// The kernels of [`crate::Device::Meta`].
pub struct Meta;

/// The one instance.
pub static META: Meta = Meta;

static FLOPS: AtomicU64 = AtomicU64::new(0);
static WORKSPACE: AtomicUsize = AtomicUsize::new(0);
static ATTENTION: AtomicUsize = AtomicUsize::new(0);

/// The most bytes that a product's packed operand would have taken so far, and that an attention would on each thread.
pub(crate) fn workspaces() -> [usize; 2] {
    [&WORKSPACE, &ATTENTION].map(|most| most.load(Ordering::Relaxed))
}

fn seen_attention(shape: AttentionShape, inputs: &AttentionInputs<'_>) {
    let bytes = super::cpu::attention::workspace(shape, inputs.layout, inputs.queries, inputs.query.dtype());
    ATTENTION.fetch_max(bytes, Ordering::Relaxed);
}

/// The floating point operations of all products since the last call: two for each multiplication with its addition.
/// What is done to single values is left out, as everywhere in the field.
pub fn take_flops() -> u64 {
    FLOPS.swap(0, Ordering::Relaxed)
}

fn count(flops: usize) {
    FLOPS.fetch_add(flops as u64, Ordering::Relaxed);
}

impl Backend for Meta {
    fn zero(&self, _: ValuesMut<'_>) {}
    fn copy(&self, _: Values<'_>, _: ValuesMut<'_>) {}
    fn add_assign(&self, _: ValuesMut<'_>, _: Values<'_>) {}
    fn scale(&self, _: ValuesMut<'_>, _: f32) {}
    fn kronecker_sum(&self, _: &KroneckerSum<'_>, _: &mut [f32]) {}
    fn kronecker_sum_backward(&self, _: &KroneckerSum<'_>, _: &[f32], _: &mut [&mut [f32]; 3]) {}
    fn sum_of_squares(&self, _: &[f32]) -> f64 {
        0.0
    }
    fn sum_of_squares_of_rows(&self, _: &[f32], _: &[u32], _: [usize; 2]) -> f64 {
        0.0
    }
    fn gemm(&self, out: ValuesMut<'_>, products: &[Product<'_>], _: bool, _: Ends<'_>) {
        WORKSPACE.fetch_max(super::cpu::gemm::workspace(out.dtype(), products), Ordering::Relaxed);
        for Product { left, right, .. } in products {
            count(2 * left.shape[0] * left.shape[1] * right.shape[1]);
        }
    }
    fn activation_backward(&self, _: Activation, _: Values<'_>, _: ValuesMut<'_>) {}
    fn activation(&self, _: Activation, _: Values<'_>, _: ValuesMut<'_>) {}
    fn sum_rows(&self, _: Values<'_>, _: &mut [f32], _: bool) {}
    fn gated(&self, _: Activation, _: Values<'_>, _: usize, _: ValuesMut<'_>) {}
    fn gated_backward(&self, _: Activation, _: Values<'_>, _: Values<'_>, _: usize, _: ValuesMut<'_>) {}
    fn gate(&self, _: Activation, _: Values<'_>, _: Values<'_>, _: ValuesMut<'_>) {}
    fn gate_backward(
        &self,
        _: Activation,
        _: Values<'_>,
        _: Values<'_>,
        _: Values<'_>,
        _: [ValuesMut<'_>; 2],
    ) {
    }
    fn rotary(&self, _: ValuesMut<'_>, _: &Layout, _: &Rotary, _: bool) {}
    fn dropout(&self, _: ValuesMut<'_>, _: &Layout, _: Dropout) {}
    fn embedding(&self, _: &[(Values<'_>, &[u32])], _: usize, _: ValuesMut<'_>) {}
    fn embedding_backward(&self, _: Values<'_>, _: &[u32], _: usize, _: Option<u32>, _: &mut [f32]) {}
    fn select_rows(&self, _: Values<'_>, _: &[usize], _: usize, _: ValuesMut<'_>) {}
    fn select_rows_backward(&self, _: Values<'_>, _: &[usize], _: usize, _: ValuesMut<'_>) {}
    fn prepend_rows(&self, _: Values<'_>, _: Values<'_>, _: &[usize], _: usize, _: ValuesMut<'_>) {}
    fn select_columns(&self, _: Values<'_>, _: [usize; 2], _: usize, _: ValuesMut<'_>) {}
    fn select_columns_backward(&self, _: Values<'_>, _: [usize; 2], _: usize, _: ValuesMut<'_>) {}
    fn transpose(&self, _: Values<'_>, _: [usize; 2], _: ValuesMut<'_>) {}
    fn mean_rows(&self, _: &[f32], _: &Layout, _: usize, _: &mut [f32]) {}
    fn mean_rows_backward(&self, _: &[f32], _: &Layout, _: usize, _: &mut [f32], _: bool) {}
    fn layer_norm(&self, _: &LayerNorm<'_>, _: ValuesMut<'_>, _: ValuesMut<'_>, _: &mut [f32]) {}
    fn affine(&self, _: Values<'_>, _: &[f32], _: Option<&[f32]>, _: ValuesMut<'_>) {}
    fn layer_norm_backward(
        &self,
        _: Values<'_>,
        _: &LayerNormSaved<'_>,
        _: Option<ValuesMut<'_>>,
        _: Option<(&mut [f32], bool)>,
        _: Option<(&mut [f32], bool)>,
    ) {
    }
    fn rms_norm(&self, _: &RmsNorm<'_>, _: ValuesMut<'_>, _: &mut [f32]) {}
    fn rms_norm_backward(&self, _: Values<'_>, _: &RmsNorm<'_>, _: &[f32], _: ValuesMut<'_>, _: bool) {}
    fn rms_norm_weight_backward(&self, _: Values<'_>, _: &RmsNorm<'_>, _: &[f32], _: &mut [f32], _: bool) {}
    fn attention(&self, shape: AttentionShape, inputs: AttentionInputs<'_>, _: ValuesMut<'_>, _: &mut [f32]) {
        seen_attention(shape, &inputs);
        count(2 * attention_product(shape, &inputs));
    }
    fn attention_backward(
        &self,
        shape: AttentionShape,
        inputs: AttentionInputs<'_>,
        _: AttentionSaved<'_>,
        _: [ValuesMut<'_>; 3],
    ) {
        seen_attention(shape, &inputs);
        // The scores again, and a product for each of the four gradients.
        count(5 * attention_product(shape, &inputs));
    }
    fn attention_cached(
        &self,
        _: AttentionShape,
        _: Values<'_>,
        _: &Layout,
        _: &[CachedRow<'_>],
        _: ValuesMut<'_>,
    ) {
    }
    fn cross_entropy(&self, _: &[f32], _: usize, _: &CrossEntropy<'_>, _: &mut [f32], _: Option<&mut [f32]>) {
    }
    fn token_losses(&self, _: &mut [f32], _: &[u32], _: &mut [f32], _: Option<f32>) {}
    fn binary_cross_entropy(
        &self,
        _: &[f32],
        _: usize,
        _: &BinaryCrossEntropy<'_>,
        _: &mut [f32],
        _: Option<&mut [f32]>,
    ) {
    }
    fn squared_error(&self, _: &[f32], _: &[f32], _: f32, _: &mut [f32], _: Option<&mut [f32]>) {}
    fn scale_columns(&self, _: &[f32], _: &[f32], _: Ends<'_>, _: &mut [f32]) {}
    fn scale_rows(&self, _: &[f32], _: &[f32], _: &mut [f32]) {}
    fn dot_columns(&self, _: &[f32], _: &[f32], _: &mut [f32], _: bool) {}
    fn dot_rows(&self, _: &[f32], _: &[f32], _: &mut [f32], _: bool) {}
    fn divide_by_root(&self, _: &[f32], _: &[f32], _: &mut [f32]) {}
    fn kronecker(&self, _: [&[f32]; 2], _: [[usize; 2]; 2], _: f32, _: &mut [f32]) {}
    fn kronecker_backward(&self, _: [&[f32]; 2], _: [[usize; 2]; 2], _: f32, _: &[f32], _: [&mut [f32]; 2]) {}
    fn rotate_blocks(
        &self,
        _: &[f32],
        [rows, columns]: [usize; 2],
        _: &[f32],
        block: usize,
        _: bool,
        _: &mut [f32],
    ) {
        count(2 * rows * columns * block);
    }
    fn cayley(&self, _: &[f32], _: usize, _: Cayley, _: &mut [f32]) {}
    fn cayley_backward(&self, _: &[f32], _: usize, _: Cayley, _: &[f32], _: &mut [f32]) {}
    fn adamw(&self, _: AdamW, _: &[f32], _: &mut [f32], _: [&mut [f32]; 2]) {}
    fn adamw_8bit(&self, _: AdamW, _: &[f32], _: &mut [f32], _: [(&mut [u8], &mut [f32]); 2]) {}
    fn adamw_rows(
        &self,
        _: &[AdamW],
        _: (&[u32], &[u32]),
        _: Option<&[f32]>,
        _: usize,
        _: &mut [f32],
        _: [&mut [f32]; 2],
    ) {
    }
}
