//! The methods: one file each, one line in [`METHODS`]. A method says what is trained of a model and may put hooks at
//! its sites; the trainer and the models never ask which one it was.

pub mod adalora;
mod adapter;
mod bitfit;
mod bottleneck;
pub mod combine;
mod compacter;
pub mod dora;
mod during;
mod files;
mod form;
mod full;
mod head;
mod houlsby;
pub mod ia3;
mod keys;
pub mod loha;
pub mod lokr;
pub mod lora;
mod norms;
pub mod oft;
mod p_tuning;
mod p_tuning_v2;
mod parallel_adapter;
mod pattern;
mod pfeiffer;
mod prefix_tuning;
mod prompt_tuning;
mod ranges;
mod selection;
mod sites;
mod svd;
mod top_layers;
pub mod vera;
mod virtual_tokens;
mod weight;

use std::path::Path;

use retune_model::Hooks;
use retune_model::families::{Encoder, HeadKind};
use retune_model::layers::Linear;
use retune_model::tokenizer::Tokenizer;
use retune_tensor::random::Key;
use retune_tensor::{Device, ParamId, Parameters, Tensor};

pub use during::{DuringTraining, Update};
pub use files::AdapterFiles;
pub use form::{BaseCard, Form};

use crate::{AdaptError, OptionSpec, Options, nearest};

/// Every method.
pub static METHODS: &[&dyn Method] = &[
    &full::Full,
    &head::Head,
    &bitfit::BitFit,
    &norms::Norms,
    &top_layers::TopLayers,
    &lora::Lora,
    &dora::Dora,
    &adalora::AdaLora,
    &vera::Vera,
    &ia3::Ia3,
    &loha::LoHa,
    &lokr::LoKr,
    &oft::Oft,
    &houlsby::METHOD,
    &pfeiffer::METHOD,
    &parallel_adapter::METHOD,
    &compacter::METHOD,
    &prefix_tuning::PrefixTuning,
    &p_tuning_v2::PTuningV2,
    &prompt_tuning::PromptTuning,
    &p_tuning::PTuning,
];

/// A way to adapt a pretrained model.
pub trait Method: Send + Sync {
    /// Its name on the command line.
    fn name(&self) -> &'static str;

    /// What it trains, in one line.
    fn summary(&self) -> &'static str;

    /// When to choose it, in one line.
    fn when(&self) -> &'static str;

    /// Where it is described.
    fn paper(&self) -> &'static str;

    /// What can be set.
    fn options(&self) -> &'static [OptionSpec] {
        &[]
    }

    /// The learning rate if nobody says, for AdamW with batches of about 32.
    fn learning_rate(&self) -> f64;

    /// Rates to try: a lower, the usual and a higher one.
    fn usual_learning_rates(&self) -> [f64; 3] {
        let usual = self.learning_rate();
        [usual * 0.4, usual, usual * 2.5]
    }

    /// Says what is trained: marks parameters, adds its own, puts hooks at sites.
    fn apply(&self, model: &mut Model<'_>, options: &Options) -> Result<Applied, AdaptError>;

    /// The parameters that `name` is told with where gradients fail: those that belong together at one place, of which
    /// some may have none at the start. By default the layer.
    fn group<'n>(&self, name: &'n str) -> &'n str {
        sites::layer(name)
    }

    /// What it does while `parameters` are trained: `options` are those of [`Method::apply`], and there will be
    /// `total_steps`.
    fn during_training(
        &self,
        adapter: &Adapter,
        parameters: &Parameters,
        options: &Options,
        total_steps: u64,
    ) -> Result<Option<Box<dyn DuringTraining>>, AdaptError> {
        let _ = (adapter, parameters, options, total_steps);
        Ok(None)
    }

    /// What is written of a trained adapter: by default its tensors as they are, and what is computed of others.
    fn file(
        &self,
        adapter: &Adapter,
        hooks: &Hooks,
        parameters: &Parameters,
    ) -> Result<AdapterFile, AdaptError> {
        let mut file = adapter.empty_file();
        let value = |id: ParamId| parameters.get(id).value.clone();
        file.tensors.extend(adapter.tensors.iter().map(|(name, id)| (name.clone(), value(*id))));
        let computed = adapter.computed(hooks, parameters)?;
        file.tensors.extend(computed.map(|(name, value)| (name.to_string(), value)));
        Ok(file)
    }

    /// Whether its result can be weights of the base, so that it costs nothing at inference; else why it cannot.
    fn merges(&self) -> Result<(), &'static str> {
        Err("its result is a whole model already")
    }

    /// Puts what it learnt into the weights of the base, in f32, and takes its hooks away: the model is then whole.
    /// Errors with the reason if it has no such weights.
    fn merge(&self, model: &mut Model<'_>) -> Result<(), AdaptError> {
        let method = self.name().to_string();
        self.merges().map_err(|why| AdaptError::Merge { method, why: why.to_string() })?;
        sites::merge(self.name(), model)
    }

    /// Whether `config`, the `adapter_config.json` of a folder, is its own; then [`Method::load`] reads it.
    fn reads(&self, config: &AdapterFiles) -> bool {
        let _ = config;
        false
    }

    /// Whether training can go on from a saved adapter as this method: by default, from its own. Errors with the reason
    /// where it cannot from its own either, as what would be trained is not in the file.
    fn goes_on(&self, files: &AdapterFiles) -> Result<bool, AdaptError> {
        Ok(self.reads(files))
    }

    /// Puts a saved adapter on the model, with its values. Errors for methods that save whole models.
    fn load(&self, model: &mut Model<'_>, files: &AdapterFiles) -> Result<Applied, AdaptError> {
        let _ = model;
        let message = format!("the method `{}` saves whole models, not adapters", self.name());
        Err(AdaptError::Adapter { path: files.folder().to_path_buf(), message })
    }
}

/// What a method sees of a model.
pub struct Model<'a> {
    /// All weights.
    pub parameters: &'a mut Parameters,
    /// The sites.
    pub hooks: &'a mut Hooks,
    /// The encoder.
    pub encoder: &'a dyn Encoder,
    /// The last layer of the task's head.
    pub classifier: &'a Linear,
    /// Names of the tensors that the base lacked: they are trained by every method.
    pub fresh: &'a [String],
    /// Whether every method trains what lies under the classifier too. It is pretrained for an end of its own, and in models
    /// of sentences it is a leftover; `peft` keeps it.
    pub trains_pooler: bool,
    /// Its tokenizer, where there is one.
    pub tokenizer: Option<&'a Tokenizer>,
    /// What new weights are drawn from.
    pub seed: Key,
}

impl Model<'_> {
    /// Marks a parameter as trained.
    pub fn train(&mut self, id: ParamId) {
        self.parameters.get_mut(id).trainable = true;
    }

    /// Whether the head is the base's own: a language model's, which every method but `head` and `full` leaves as it is.
    pub fn keeps_head(&self) -> bool {
        self.encoder.head().kind == HeadKind::Language
    }

    /// Marks the classifier as trained, and whatever the base lacked: without training these are noise. The classifier
    /// is every module whose name ends so, as `peft` takes it: all of RoBERTa's head, but BERT's pooler only where that is
    /// asked for.
    pub fn train_head(&mut self) {
        if self.keeps_head() {
            return;
        }
        for id in self.classifier.parameters() {
            self.train(id);
        }
        for id in self.encoder.head_parameters() {
            if self.is_classifier(id) {
                self.train(id);
            }
        }
        if self.trains_pooler {
            self.pooler().into_iter().for_each(|id| self.train(id));
        }
        for name in self.fresh {
            if let Some(id) = self.parameters.find(name) {
                self.train(id);
            }
        }
    }

    /// What of the head is no part of the classifier, and has no hook.
    pub fn pooler(&self) -> Vec<ParamId> {
        let hooked = |id| self.hooks.linear(sites::layer(&self.parameters.get(id).name)).is_some();
        let below = self.encoder.head_parameters().into_iter();
        below.filter(|id| !self.is_classifier(*id) && !hooked(*id)).collect()
    }

    fn is_classifier(&self, id: ParamId) -> bool {
        self.module(id).ends_with(&self.module(self.classifier.weight))
    }

    /// Marks the layers under the classifier as trained, pretrained or not: the pooler, or what the family has for it.
    pub fn train_pooler(&mut self) {
        for id in self.encoder.head_parameters() {
            self.train(id);
        }
    }

    /// The module of the head that `peft` copies whole to train the parameter `id`, by the end of its name: `pooler` for
    /// `bert.pooler.dense.weight`, `classifier` for `classifier.out_proj.bias` and for `classifier.weight`.
    fn module(&self, id: ParamId) -> String {
        let mut parts = self.parameters.get(id).name.rsplit('.').skip(1);
        let layer = parts.next().unwrap_or_default();
        parts.next().unwrap_or(layer).to_string()
    }

    /// Every linear layer that an adapter may name, those of the head included.
    pub fn all_linears(&self) -> Vec<&Linear> {
        let mut all = self.encoder.linears();
        all.extend(self.encoder.head_linears());
        if !self.keeps_head() {
            all.push(self.classifier);
        }
        all
    }

    /// Where its tensors live.
    pub fn device(&self) -> Device {
        self.parameters.get(self.classifier.weight).value.device()
    }
}

/// The configuration of a method that has none.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct NoOptions {}

/// What a method did to a model.
#[derive(Debug, Clone, PartialEq)]
pub enum Applied {
    /// It changes weights of the model itself: the result is a whole model.
    Model,
    /// It adds to the model: the result is an adapter.
    Adapter(Adapter),
}

/// What an adapter is made of.
#[derive(Debug, Clone, PartialEq)]
pub struct Adapter {
    /// Which library that is.
    pub form: Form,
    /// `adapter_config.json`, but for the base.
    pub config: serde_json::Map<String, serde_json::Value>,
    /// The tensors: the name in the file, and the parameter.
    pub tensors: Vec<(String, ParamId)>,
    /// The name in the file of the virtual tokens, where they are no parameter and come of some: see
    /// [`Adapter::computed`].
    pub virtual_tokens: Option<String>,
}

/// An adapter as it is written, in the form of the library which has its kind.
#[derive(Debug, Clone)]
pub struct AdapterFile {
    /// Which library that is.
    pub form: Form,
    /// `adapter_config.json`, but for the base.
    pub config: serde_json::Map<String, serde_json::Value>,
    /// By name.
    pub tensors: Vec<(String, Tensor)>,
}

/// The method `name`. Errors if there is none, with the near miss.
pub fn find(name: &str) -> Result<&'static dyn Method, AdaptError> {
    let names = || METHODS.iter().map(|method| method.name());
    METHODS.iter().copied().find(|method| method.name() == name).ok_or_else(|| AdaptError::Unknown {
        kind: "method",
        name: name.to_string(),
        hint: nearest(name, names()).map(|near| format!(", did you mean `{near}`?")).unwrap_or_default(),
        known: names().collect::<Vec<_>>().join(", "),
    })
}

/// Reads the adapter in `folder` and finds the method that made it. Errors if none here did.
pub fn open_adapter(folder: &Path) -> Result<(&'static dyn Method, AdapterFiles), AdaptError> {
    let files = AdapterFiles::open(folder)?;
    match METHODS.iter().copied().find(|method| method.reads(&files)) {
        Some(method) => Ok((method, files)),
        None => Err(files.error(format!("adapters of type {} are not read", files.kind()))),
    }
}
