//! Nothing is computed: the ops allocate and free as they would, and the ledger counts.

use super::{
    Activation, AdamW, AttentionInputs, AttentionSaved, AttentionShape, Backend, CrossEntropy, Dropout, Ends,
    LayerNorm, LayerNormSaved, Layout, Product, Rotary,
};

/// The kernels of [`crate::Device::Meta`].
pub struct Meta;

/// The one instance.
pub static META: Meta = Meta;

impl Backend for Meta {
    fn zero(&self, _: &mut [f32]) {}
    fn copy(&self, _: &[f32], _: &mut [f32]) {}
    fn add_assign(&self, _: &mut [f32], _: &[f32]) {}
    fn scale(&self, _: &mut [f32], _: f32) {}
    fn sum_of_squares(&self, _: &[f32]) -> f64 {
        0.0
    }
    fn gemm(&self, _: &mut [f32], _: &[Product<'_>], _: bool, _: Ends<'_>) {}
    fn activation_backward(&self, _: Activation, _: &[f32], _: &mut [f32]) {}
    fn sum_rows(&self, _: &[f32], _: &mut [f32], _: bool) {}
    fn gated(&self, _: Activation, _: &[f32], _: usize, _: &mut [f32]) {}
    fn gated_backward(&self, _: Activation, _: &[f32], _: &[f32], _: usize, _: &mut [f32]) {}
    fn rotary(&self, _: &mut [f32], _: &Layout, _: Rotary, _: bool) {}
    fn dropout(&self, _: &mut [f32], _: &Layout, _: Dropout) {}
    fn embedding(&self, _: &[(&[f32], &[u32])], _: usize, _: &mut [f32]) {}
    fn embedding_backward(&self, _: &[f32], _: &[u32], _: usize, _: Option<u32>, _: &mut [f32]) {}
    fn select_rows(&self, _: &[f32], _: &[usize], _: usize, _: &mut [f32]) {}
    fn select_rows_backward(&self, _: &[f32], _: &[usize], _: usize, _: &mut [f32]) {}
    fn select_columns(&self, _: &[f32], _: [usize; 2], _: usize, _: &mut [f32]) {}
    fn select_columns_backward(&self, _: &[f32], _: [usize; 2], _: usize, _: &mut [f32]) {}
    fn mean_rows(&self, _: &[f32], _: &Layout, _: usize, _: &mut [f32]) {}
    fn mean_rows_backward(&self, _: &[f32], _: &Layout, _: usize, _: &mut [f32], _: bool) {}
    fn layer_norm(&self, _: &LayerNorm<'_>, _: &mut [f32], _: &mut [f32], _: &mut [f32]) {}
    fn layer_norm_backward(
        &self,
        _: &[f32],
        _: &LayerNormSaved<'_>,
        _: Option<&mut [f32]>,
        _: Option<(&mut [f32], bool)>,
        _: Option<(&mut [f32], bool)>,
    ) {
    }
    fn attention(&self, _: AttentionShape, _: AttentionInputs<'_>, _: &mut [f32], _: &mut [f32]) {}
    fn attention_backward(
        &self,
        _: AttentionShape,
        _: AttentionInputs<'_>,
        _: AttentionSaved<'_>,
        _: [&mut [f32]; 3],
    ) {
    }
    fn cross_entropy(&self, _: &[f32], _: usize, _: &CrossEntropy<'_>, _: &mut [f32], _: Option<&mut [f32]>) {
    }
    fn adamw(&self, _: AdamW, _: &[f32], _: &mut [f32], _: [&mut [f32]; 2]) {}
}
