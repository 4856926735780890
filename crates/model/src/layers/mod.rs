//! What models are built of. A layer holds parameter ids and sizes; values come from [`crate::Forward`].

mod embedding;
mod layer_norm;
mod linear;
mod post_norm;
mod sub_layer;
mod token_embeddings;

pub use embedding::Embedding;
pub use layer_norm::LayerNorm;
pub use linear::Linear;
pub use post_norm::{
    PostNormDropout, PostNormEncoder, PostNormNames, PostNormSizes, VirtualTokenSizes, Wanted,
};
pub use sub_layer::{Part, SubLayer, SubLayerInputs};
pub use token_embeddings::{TokenEmbeddings, TokenEmbeddingsSizes, without_prompt};
