//! What models are built of. A layer holds parameter ids and sizes; values come from [`crate::Forward`].

mod decoder;
mod embedding;
mod layer_norm;
mod linear;
mod post_norm;
mod prefix;
mod rms_norm;
mod sub_layer;
mod token_embeddings;

pub use decoder::{DecoderBlock, DecoderDropout, DecoderRows, FeedForward, Norm, Projections};
pub use embedding::Embedding;
pub use layer_norm::LayerNorm;
pub use linear::Linear;
pub use post_norm::{PostNormDropout, PostNormEncoder, PostNormNames, PostNormSizes, Wanted};
pub use prefix::VirtualTokenSizes;
pub use rms_norm::RmsNorm;
pub use sub_layer::{Part, SubLayer, SubLayerInputs};
pub use token_embeddings::{TokenEmbeddings, TokenEmbeddingsSizes, prompts, without_prompt};
