//! Prepare: pretrained models as they lie on disk (weights, configurations, tokenizers), and the families of models
//! that are built from them.
//!
//! [`families::open`] reads a folder; layers take their tensors from a [`Checkpoint`]; a pass goes through a
//! [`Forward`] with a ragged [`Batch`]. A model knows no method: a method steps in at named [`sites`]. A
//! batch may mix rows of several adapters: see [`Mixture`].

mod batch;
mod cache;
mod chat_template;
mod checkpoint;
mod error;
pub mod families;
pub mod formats;
mod forward;
pub mod hub;
pub mod layers;
mod mixed;
mod sampling;
pub mod sites;
pub mod tokenizer;

pub use batch::{Batch, BatchRow};
pub use cache::KvCache;
pub use chat_template::ChatTemplate;
pub use checkpoint::{Aliases, Checkpoint, Init, Loaded};
pub use error::{ModelError, TensorProblem};
pub use forward::Forward;
pub use mixed::{Adapted, Mixture, share_base};
pub use sampling::Sampling;
pub use sites::{Hooks, LinearHook, Merged, SubLayerHook, VirtualTokens};
