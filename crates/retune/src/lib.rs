//! Fine-tune pretrained language models: the library's front door.
//!
//! [`recipe::train`] is the idea itself, the five steps on one screen: prepare, load, adjust, train, evaluate and save.
//! A result is opened again with [`TextModel::open`], and then [`evaluate`]d or used to [`predict`].

mod artefact;
mod base_precision;
pub mod bench;
mod checkpoints;
mod choices;
pub mod combine;
mod dataset;
pub mod doctor;
mod error;
pub mod evaluate;
mod every;
#[cfg(test)]
mod fuzz;
pub mod generate;
mod given;
mod inputs;
pub mod inspect;
mod labelling;
mod listener;
mod located;
mod manifest;
pub mod merge;
pub mod mixed;
mod model;
mod new_folder;
pub mod plan;
pub mod predict;
mod rates;
pub mod recipe;
mod resolved;
mod resume;
mod run_folder;
mod sample;
mod settings;
mod source;
mod stopped;
mod tensorboard;
mod workshop;

pub use artefact::{Card, DataCard, Receipt};
pub use base_precision::BasePrecision;
pub use doctor::{Diagnosis, Finding, Machine, doctor, doctor_on};
pub use error::{Error, Result};
pub use generate::{Chat, GenerateSettings, Generator};
pub use inputs::Rename;
pub use listener::Listener;
pub use located::{Origin, fetch};
pub use model::TextModel;
pub use plan::{Cost, plan};
pub use recipe::{Report, train};
pub use settings::{FileSettings, ModelSettings, TrainSettings};
pub use source::Source;

pub use retune_adapt::peft::METHODS;
pub use retune_adapt::peft::combine::Combination;
pub use retune_adapt::tasks::{Answer, LabelScore, Metrics, TASKS, shown};
pub use retune_adapt::{Kind, OptionSpec, nearest};
pub use retune_data::ProblemType;
pub use retune_model::families::FAMILIES;
pub use retune_model::hub::{HubSettings, Transfer};
pub use retune_tensor::{DType, Device, memory};
pub use retune_train::{Batching, Event, Observer, OnSpike};
