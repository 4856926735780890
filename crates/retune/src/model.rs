use std::collections::BTreeSet;
use std::path::Path;

use retune_adapt::Options;
use retune_adapt::peft::{self, AdapterFiles, Applied, Method};
use retune_adapt::tasks::{
    self, ColumnNames, EncoderWithHead, Form, FormSettings, HeadOutput, Reading, Task, ThresholdUse,
    WantedProblemType,
};
use retune_data::{Examples, LabelMap, Tokens};
use retune_model::families::{self, Family, HeadKind};
use retune_model::formats::HfConfig;
use retune_model::tokenizer::Tokenizer;
use retune_model::{Batch, Forward, Hooks};
use retune_tensor::random::Key;
use retune_tensor::{DType, Device, ParamId, Parameters, Result as TensorResult, Tape, Var};

use crate::base_precision::{self, BasePrecision};
use crate::{Card, Error, FileSettings, ModelSettings, Result, Source, labelling};

/// A model with a task, whole: tokenizer, encoder, head, weights, labels.
pub struct TextModel {
    /// Where it came from.
    pub source: Source,
    /// Its `config.json`.
    pub config: HfConfig,
    /// What its encoder is.
    pub family: &'static dyn Family,
    /// From text to tokens.
    pub tokenizer: Tokenizer,
    /// What it does.
    pub task: &'static dyn Task,
    /// Encoder and head.
    pub network: EncoderWithHead,
    /// All weights.
    pub parameters: Parameters,
    /// What the method put at the encoder's sites.
    pub hooks: Hooks,
    /// What its logits mean: labels, targets, loss, decoding.
    pub form: Box<dyn Form>,
    /// What adjusted it: the method that was asked for, or the one that made the adapter at the source.
    pub method: &'static dyn Method,
    /// What the method did, and so how the model is saved.
    pub applied: Applied,
    /// What is trained beside.
    pub also: Vec<ParamId>,
    /// Whether it has a pooler that an adapter would have left as it was.
    pub with_pooler: bool,
    /// Names of the tensors that neither the base nor an adapter has: they were drawn anew.
    pub fresh: Vec<String>,
    /// What flows through its blocks.
    pub dtype: DType,
    /// What frozen matrices of its base are kept as.
    pub base_precision: BasePrecision,
    /// Whether training computes these once more on the way back.
    pub recompute: bool,
    /// Tensors of the base that nobody asked for, such as pretraining heads.
    pub unused: Vec<String>,
}

/// What is done to a pretrained model on the way in.
pub(crate) struct Adjustment<'a> {
    /// Where its weights live: on [`Device::Meta`] it costs no memory and computes nothing.
    pub device: Device,
    /// What is trained.
    pub method: &'static dyn Method,
    /// The method's own settings.
    pub options: &'a Options,
    /// What is trained beside, by patterns of names.
    pub train_also: &'a [String],
    /// Whether the pooler is trained too, whatever the method.
    pub train_pooler: bool,
    /// What is learnt.
    pub task: &'static dyn Task,
    /// What its logits mean.
    pub form: Box<dyn Form>,
    /// Whether a head that is there was trained for these labels.
    pub keep_head: bool,
    /// Replaces the model's own dropouts.
    pub dropout: Option<f32>,
    /// Draws new weights.
    pub seed: u64,
    /// What flows through its blocks.
    pub dtype: DType,
    /// What frozen matrices are kept as where no result will hold them.
    pub base_precision: BasePrecision,
    /// Whether its blocks keep nothing while training but what goes into them.
    pub recompute: bool,
    /// Whether nothing will be trained and saved.
    pub finished: bool,
}

impl TextModel {
    /// Opens a finished model, to evaluate it or to predict: a result of a run, a fine-tuned folder of transformers, an
    /// adapter of `peft`. Errors if it has no head, or one without labels.
    pub fn open(settings: &ModelSettings) -> Result<Self> {
        Self::open_as(settings, tasks::USUAL)
    }

    /// The same, for the task `usual` where nobody said what it was trained to do.
    pub(crate) fn open_as(settings: &ModelSettings, usual: &'static dyn Task) -> Result<Self> {
        let source = Source::find(settings)?;
        let task = source.task()?.unwrap_or(usual);
        settings.check_task(task)?;
        let form = finished_form(settings, &source, task)?;
        let base_precision = settings.asked_base_precision(&source.base)?;
        let options = Options::default();
        // A finished model is changed by nothing; which method does not change it is all the same.
        let method = match &source.adapter {
            Some((reader, _)) => *reader,
            None => peft::find("head")?,
        };
        let model = Self::build(
            source,
            Adjustment {
                device: Device::Cpu,
                method,
                options: &options,
                train_also: &[],
                train_pooler: false,
                task,
                form,
                keep_head: true,
                dropout: None,
                seed: 0,
                dtype: settings.asked_precision()?,
                base_precision,
                recompute: false,
                finished: true,
            },
        )?;
        if let Some(name) = model.fresh.first() {
            let message = format!(
                "`{name}` is missing, so its answers would be noise; train it first with `retune train`"
            );
            return Err(Error::place(&model.source.folder, message));
        }
        Ok(model)
    }

    /// Builds the model at `source` for a task and a method. An adapter at the source keeps its values and its form.
    pub(crate) fn build(source: Source, adjustment: Adjustment<'_>) -> Result<Self> {
        let Adjustment { device, method, options, train_also, task, form, keep_head, dropout, seed, .. } =
            adjustment;
        let key = Key::new(seed).with_name("weights");
        let mut opened = families::open_as(
            &source.base,
            task.head(),
            device,
            key,
            adjustment.base_precision == BasePrecision::AsIs,
        )?;
        if let Some(dropout) = dropout {
            opened.encoder.set_dropout(dropout);
        }
        let tokenizer = Tokenizer::open(&source.base)?;
        // An adapter brings its own head; the base may have one of another task.
        let shape = opened.checkpoint.shape(&format!("{}.weight", opened.encoder.head().name));
        let other_head = shape.is_some_and(|shape| shape.first() != Some(&form.labels().len()));
        let keep_head = keep_head && !(source.adapter.is_some() && other_head);
        let network =
            EncoderWithHead::build(opened.encoder, &mut opened.checkpoint, keep_head, form.labels().len())?;
        let loaded = opened.checkpoint.finish()?;
        let (mut parameters, mut hooks) = (loaded.parameters, Hooks::new());
        let mut model = peft::Model {
            parameters: &mut parameters,
            hooks: &mut hooks,
            encoder: network.encoder(),
            classifier: network.classifier(),
            fresh: &loaded.fresh,
            trains_pooler: adjustment.train_pooler,
            tokenizer: Some(&tokenizer),
            seed: key,
        };
        let chosen = model.select(train_also)?;
        let mut applied = match &source.adapter {
            Some((_, files)) => method.load(&mut model, files)?,
            None => method.apply(&mut model, options)?,
        };
        applied.train_also(&mut model, &chosen)?;
        let base_has = |id| !loaded.fresh.contains(&model.parameters.get(id).name);
        let with_pooler = adjustment.train_pooler
            && matches!(applied, Applied::Adapter(_))
            && model.pooler().into_iter().any(base_has);
        let kept: Option<Vec<ParamId>> = match &applied {
            Applied::Model if adjustment.finished => Some(Vec::new()),
            // Its frozen weights are part of the result, which is to hold them as they came.
            Applied::Model => None,
            Applied::Adapter(adapter) => Some(adapter.tensors.iter().map(|(_, id)| *id).collect()),
        };
        match kept {
            Some(kept) => {
                let layers: Vec<_> = network.encoder().linears().iter().map(|linear| linear.weight).collect();
                adjustment.base_precision.keep(&mut parameters, &layers, &kept, adjustment.dtype)?;
            }
            None => parameters.widen(|_| true)?,
        }
        // What the base lacked is then the adapter's own.
        let fresh = if source.adapter.is_some() { Vec::new() } else { loaded.fresh };
        Ok(TextModel {
            source,
            config: opened.config,
            family: opened.family,
            tokenizer,
            task,
            network,
            parameters,
            hooks,
            form,
            method,
            applied,
            also: chosen,
            with_pooler,
            fresh,
            dtype: adjustment.dtype,
            base_precision: adjustment.base_precision,
            recompute: adjustment.recompute,
            unused: loaded.unused,
        })
    }

    /// The names of its head's parameters among `parameters`, pooler included.
    pub(crate) fn head(&self, parameters: &Parameters) -> BTreeSet<String> {
        let below = self.network.encoder().head_parameters();
        let ids = self.network.classifier().parameters().chain(below);
        ids.map(|id| parameters.get(id).name.clone()).collect()
    }

    /// Whether its last layer was drawn anew, and so knows nothing.
    pub(crate) fn has_fresh_head(&self) -> bool {
        let head = &self.parameters.get(self.network.classifier().weight).name;
        self.fresh.contains(head)
    }

    /// The labels, in the order of the logits.
    pub fn labels(&self) -> &LabelMap {
        self.form.labels()
    }

    /// The longest text, in tokens, that it should be given: what it was trained on, or what it can take.
    pub fn max_length(&self, wanted: Option<usize>) -> Result<usize> {
        let most = self.longest();
        let least = self.tokenizer.special_tokens(false) + 1;
        match wanted {
            Some(length) if length > most || length < least => {
                let message = match self.hooks.virtual_tokens() {
                    0 => format!("expected {least} to {most} tokens for this model, got {length}"),
                    count => format!(
                        "expected {least} to {most} tokens for this model, as {count} of its positions are those of \
                         virtual tokens, got {length}"
                    ),
                };
                Err(Error::Setting { flag: "max-length", message })
            }
            Some(length) => Ok(length),
            None => {
                let usual = self.task.usual_max_length();
                Ok(self.source.card.as_ref().map_or(usual, |card| card.max_length).min(most))
            }
        }
    }

    /// The longest text, in tokens, that it can take.
    pub(crate) fn longest(&self) -> usize {
        self.network.encoder().max_length().saturating_sub(self.hooks.virtual_tokens())
    }

    /// The tokens of `examples`, cut at `max_length`. Errors if the encoder has no embedding for one of them, with its
    /// line: the tokenizer is then not the model's.
    pub(crate) fn tokens(&self, examples: &Examples, max_length: usize) -> Result<Tokens> {
        let tokens = self.form.tokens(examples, &self.tokenizer, max_length)?;
        let [vocab, types] = ["vocab_size", "type_vocab_size"].map(|key| self.config.optional_usize(key));
        let (vocab, types) = (vocab?.unwrap_or(usize::MAX), types?.unwrap_or(usize::MAX));
        let known = tokens.ids_end() as usize <= vocab && (types > 1 || !tokens.has_types());
        for row in 0..if known { 0 } else { tokens.len() } {
            let (batch, line) = (tokens.batch(&[row])?, tokens.line(row));
            let beyond = |ids: &[u32], size: usize| ids.iter().copied().find(|id| *id as usize >= size);
            let message = if let Some(id) = beyond(&batch.input_ids, vocab) {
                let token = self.tokenizer.id_to_token(id).unwrap_or_default();
                format!(
                    "line {line} of the data has the token `{token}` with the number {id}, and the model knows only \
                     {vocab}: is the tokenizer another model's?"
                )
            } else if beyond(&batch.token_type_ids, types).is_some() {
                format!(
                    "line {line} of the data has two texts, and the model was made for one: its `type_vocab_size` is 1"
                )
            } else {
                continue;
            };
            return Err(Error::place(&self.source.base, message));
        }
        Ok(tokens)
    }

    /// What is to be known of its weights: those that are new, and those of the base that are left aside.
    pub(crate) fn sentences(&self) -> Vec<String> {
        let mut said = Vec::new();
        let count = self.hooks.virtual_tokens();
        if count > 0 {
            said.push(format!(
                "{count} of the model's {} positions are those of virtual tokens: texts of up to {} tokens are read whole",
                self.network.encoder().max_length(),
                self.longest()
            ));
        }
        let fresh: Vec<_> = self.fresh.iter().filter_map(|name| name.strip_suffix(".weight")).collect();
        if !fresh.is_empty() {
            said.push(format!("new weights, trained from scratch: {}", fresh.join(", ")));
        }
        if !self.also.is_empty() {
            let count: usize = self.also.iter().map(|id| self.parameters.get(*id).value.len()).sum();
            said.push(format!("trained beside: {count} parameters in {} tensors", self.also.len()));
        }
        if self.with_pooler {
            said.push(
                "the pooler is trained with the head; --train-pooler false leaves it as the base has it"
                    .into(),
            );
        }
        let unused: Vec<_> = self.unused.iter().filter(|name| !families::is_buffer(name)).collect();
        if let Some(first) = unused.first() {
            said.push(format!("{} tensors of the base are not used, such as {first}", unused.len()));
        }
        said.extend(base_precision::said(&self.parameters, self.base_precision));
        said.extend(self.adapter_said());
        said
    }

    /// What is to be known of its adapter's configuration.
    pub(crate) fn adapter_said(&self) -> Vec<String> {
        let Some((_, files)) = &self.source.adapter else { return Vec::new() };
        let keys = files.unknown_keys();
        let unknown = (!keys.is_empty()).then(|| {
            format!(
                "{}: keys that are not known here, kept as they are and not followed: {}",
                files.folder().join(AdapterFiles::CONFIG).display(),
                keys.join(", ")
            )
        });
        unknown.into_iter().chain(self.other_base_said()).collect()
    }

    /// That an adapter was trained on blocks that its base is not kept in now, or the other way round.
    fn other_base_said(&self) -> Option<String> {
        let trained = self.source.card.as_ref()?.settings.get("base_precision")?.as_str()?;
        let now = self.base_precision.name();
        let in_blocks = |name: &str| ["nf4", "int8"].contains(&name);
        (trained != now && (in_blocks(trained) || in_blocks(now))).then(|| {
            format!("it was trained on its base in {trained} and answers on it in {now}; --base-precision {trained} gives the training's numbers")
        })
    }

    /// Errors if it was trained on two texts a row and is given one, or the other way round, whose answer would be
    /// nonsense; `flag` is the one that gives the second.
    pub(crate) fn check_pair(&self, has_pair: bool, flag: &'static str) -> Result<()> {
        let Some(card) = &self.source.card else { return Ok(()) };
        let message = match &card.columns.pair {
            Some(pair) if !has_pair => format!(
                "the model was trained on two texts a row, the second in the column `{pair}`; give the second text: \
                 --pair-column names its column of a file, --pair goes with --text"
            ),
            None if has_pair => {
                "the model was trained on one text a row, and is given two; leave it out".into()
            }
            _ => return Ok(()),
        };
        Err(Error::Setting { flag, message })
    }

    /// The same for the columns of the file at `path`, which `file` may have named.
    pub(crate) fn check_columns(
        &self,
        columns: &ColumnNames,
        file: &FileSettings,
        path: &Path,
    ) -> Result<()> {
        if let (Some(pair), None) = (&columns.pair, &file.pair_column)
            && let Some(ColumnNames { text, pair: None, .. }) = self.trained_columns()
        {
            let message = format!(
                "`{}` and `{}` are taken for two texts a row by their names, and the model was trained on one, in the \
                 column `{text}`; name the one to read with --text-column",
                columns.text, pair
            );
            return Err(Error::place(path, message));
        }
        self.check_pair(columns.pair.is_some(), "pair-column")
    }

    /// What is to be known of its answers to rows with these tokens.
    pub(crate) fn said_of(&self, tokens: &Tokens) -> impl Iterator<Item = String> {
        let of_tokens = self.form.tokens_said(tokens);
        of_tokens.into_iter().chain(self.thresholds_said()).chain(self.adapter_said())
    }

    /// What is to be known of the thresholds, where there are any.
    pub(crate) fn thresholds_said(&self) -> Option<String> {
        let problem_type = self.form.spec().problem_type.unwrap_or_default();
        let tuned = self.source.card.as_ref().and_then(|card| card.thresholds.as_ref())?;
        let said = match (self.task.thresholds(problem_type), tuned.as_slice()) {
            (ThresholdUse::Nothing, _) | (ThresholdUse::NoAnswer, []) => return None,
            (ThresholdUse::NoAnswer, [at, ..]) => format!(
                "no answer is given where it is likelier than the best by {at:.3}, as the training found, unless \
                 --thresholds says otherwise"
            ),
            (ThresholdUse::Labels, tuned) => {
                let (low, high) =
                    tuned.iter().fold((1.0f32, 0.0f32), |(low, high), at| (low.min(*at), high.max(*at)));
                format!(
                    "thresholds: those of the training's result, from {low:.3} to {high:.3}, unless --thresholds says otherwise"
                )
            }
        };
        Some(said)
    }

    /// The columns that it was trained on, if that is known.
    pub(crate) fn trained_columns(&self) -> Option<&ColumnNames> {
        self.source.card.as_ref().map(|card| &card.columns)
    }

    /// What is known of a file of rows for it before it is read. Errors if a flag is for another task.
    pub(crate) fn reading<'a>(
        &'a self,
        file: &'a FileSettings,
        problem_type: WantedProblemType,
        labelled: bool,
    ) -> Result<Reading<'a>> {
        let reading = file.reading(self.task, self.trained_columns(), problem_type, labelled)?;
        Ok(Reading { labels: Some(self.labels()), ..reading })
    }

    /// A pass over a batch as far as the head's last layer, with weights that the trainer may hold.
    pub(crate) fn output<'a>(
        &'a self,
        parameters: &'a Parameters,
        tape: &'a Tape,
        batch: &'a Batch,
        dropout: Option<Key>,
    ) -> TensorResult<HeadOutput<'a>> {
        let (hooks, dtype, recompute) = (&self.hooks, self.dtype, self.recompute);
        let (mixture, cache) = (None, None);
        let forward = Forward { tape, parameters, hooks, batch, dropout, mixture, dtype, recompute, cache };
        self.network.output(&forward)
    }

    /// The logits of a batch, `[rows, labels]`, or `[tokens, labels]` where the head reads tokens. `dropout` keys the draws of an epoch while training.
    pub fn logits(&self, tape: &Tape, batch: &Batch, dropout: Option<Key>) -> TensorResult<Var> {
        self.logits_with(&self.parameters, tape, batch, dropout)
    }

    /// The same, with weights that the trainer holds.
    pub(crate) fn logits_with(
        &self,
        parameters: &Parameters,
        tape: &Tape,
        batch: &Batch,
        dropout: Option<Key>,
    ) -> TensorResult<Var> {
        self.output(parameters, tape, batch, dropout)?.logits()
    }
}

/// What a finished model says. Errors if that is not told, or its head cannot say it.
fn finished_form(
    settings: &ModelSettings,
    source: &Source,
    task: &'static dyn Task,
) -> Result<Box<dyn Form>> {
    let stated = source.problem_type()?;
    let problem_type = match (settings.asked_problem_type()?, stated) {
        (Some(asked), Some(stated)) if asked != stated => {
            let message = format!("the model was made for {stated}, got {asked}");
            return Err(Error::Setting { flag: "problem-type", message });
        }
        (asked, stated) => asked.or(stated).unwrap_or_default(),
    };
    let names = source.labels()?.map_or_else(|| placeholders(source), Ok)?;
    let outputs = names.len();
    task.fits(problem_type, outputs).map_err(|message| Error::place(&source.folder, message))?;
    let tuned = source.card.as_ref().and_then(|card| card.thresholds.as_deref());
    let usual = labelling::usual_thresholds(task.thresholds(problem_type), outputs);
    if let Some(tuned) = tuned.filter(|tuned| tuned.len() != usual.len()) {
        let expected = match usual.len() {
            1 => "one".into(),
            _ => format!("one for each of {outputs} labels"),
        };
        let message = format!("`thresholds`: expected {expected}, got {}", tuned.len());
        return Err(Error::place(&source.folder.join(Card::FILE), message));
    }
    let asked = settings.asked_thresholds(task, problem_type)?;
    let thresholds = labelling::thresholds(asked, tuned, usual)?;
    let questions = settings.questions(source.card.as_ref().map(Card::questions))?;
    let language = settings.language(source.card.as_ref().map(Card::language))?;
    let labels = match task.head() {
        HeadKind::Language => LabelMap::of_text(),
        _ => LabelMap::new(names)?,
    };
    Ok(task.form(FormSettings { problem_type, labels, thresholds, questions, language })?)
}

/// Names for the classes of a head that nobody named, as transformers calls them.
fn placeholders(source: &Source) -> Result<Vec<String>> {
    // transformers writes no names for two classes that nobody named.
    Ok((0..source.adapter_classes()?.unwrap_or(2)).map(|class| format!("LABEL_{class}")).collect())
}
