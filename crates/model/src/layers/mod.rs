//! What models are built of. A layer holds parameter ids and sizes; values come from [`crate::Forward`].

mod embedding;
mod layer_norm;
mod linear;

pub use embedding::Embedding;
pub use layer_norm::LayerNorm;
pub use linear::Linear;
