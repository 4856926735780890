//! What a run is told. Each field is a flag of the command line and a key of a run file, written once: here.

use std::path::PathBuf;

use retune_adapt::tasks::{self, ColumnNames, Reading, Task, WantedProblemType};
use retune_data::ReadOptions;
use retune_model::hub::HubSettings;
use serde::{Deserialize, Serialize};

use crate::inputs::{Rename, one_or_more};

/// Where a model is.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", default)]
#[cfg_attr(feature = "clap", derive(clap::Args))]
pub struct ModelSettings {
    /// The pretrained model: a folder with config.json, weights and a tokenizer; a GGUF file; a result of an earlier
    /// run; or, where there is no such folder, a model's id on the hub, owner/name, which is fetched into the cache once
    #[cfg_attr(feature = "clap", arg(long, value_name = "DIR|ID", help_heading = "Model"))]
    pub model: Option<PathBuf>,
    /// The branch, tag or commit of a model on the hub [default: main]
    #[cfg_attr(
        feature = "clap",
        arg(long, value_name = "NAME", help_heading = "Model", hide_short_help = true)
    )]
    pub revision: Option<String>,
    /// The base of an adapter, where it is no longer at the place that the adapter names
    #[cfg_attr(
        feature = "clap",
        arg(long, value_name = "DIR|ID", help_heading = "Model", hide_short_help = true)
    )]
    pub base: Option<PathBuf>,
    /// Use an adapter on a base whose weights are not those it was trained on
    #[cfg_attr(feature = "clap", arg(long, num_args = 0..=1, default_missing_value = "true", hide_possible_values = true, value_name = "true|false", help_heading = "Model", hide_short_help = true))]
    pub allow_other_base: Option<bool>,
    /// What a label is: single-label, multi-label or regression [default: by the label column, or as the model was trained]
    #[cfg_attr(
        feature = "clap",
        arg(long, value_name = "NAME", help_heading = "Model", hide_short_help = true)
    )]
    pub problem_type: Option<String>,
    /// From which probability on a row of several labels is given one: a number, or tuned for each label on the evaluation
    /// rows of the training [default: tuned where there are such rows, else 0.5]; of questions, by how much no answer must be
    /// likelier than the best to be given [default: tuned, else 0; always an answer if each question of the training has one]
    #[cfg_attr(
        feature = "clap",
        arg(long, value_name = "tuned|SHARE", help_heading = "Model", hide_short_help = true)
    )]
    pub thresholds: Option<String>,
    /// What flows through the model, and its frozen matrices: f32, or bf16, which takes half the memory and, where the
    /// processor multiplies bf16, less time; trained weights, norms, sums and losses stay f32 [default: f32]
    #[cfg_attr(
        feature = "clap",
        arg(long, value_name = "f32|bf16", help_heading = "Model", hide_short_help = true)
    )]
    pub precision: Option<String>,
    /// What the frozen matrices of the base are kept as, where the result does not hold them: f32, bf16, int8 (8 bits, a factor
    /// a row), nf4 (4 bits, QLoRA), or as-is, the blocks of its file; products read them a part at a time [default: as-is for
    /// a GGUF file, else as --precision]
    #[cfg_attr(
        feature = "clap",
        arg(long, value_name = "f32|bf16|int8|nf4|as-is", help_heading = "Model", hide_short_help = true)
    )]
    pub base_precision: Option<String>,
    /// How many tokens of a text two windows share, where a question is asked about more than a row holds [default: 128, or
    /// as the model was trained]
    #[cfg_attr(
        feature = "clap",
        arg(long, value_name = "TOKENS", help_heading = "Model", hide_short_help = true)
    )]
    pub doc_stride: Option<usize>,
    /// Which tokens a language model learns: answers (what the assistant says, or what comes behind a prompt), or all
    /// [default: answers, or as the model was trained]
    #[cfg_attr(
        feature = "clap",
        arg(long, value_name = "answers|all", help_heading = "Model", hide_short_help = true)
    )]
    pub loss_on: Option<String>,
    /// Whether prompts and completions become turns of a chat, as the model's own template writes them: own, or none, which
    /// leaves them as they are; conversations cannot do without [default: own where the model has one, or as it was trained]
    #[cfg_attr(
        feature = "clap",
        arg(long, value_name = "own|none", help_heading = "Model", hide_short_help = true)
    )]
    pub chat_template: Option<String>,
    /// The longest answer to a question [default: 30, or as the model was trained]
    #[cfg_attr(
        feature = "clap",
        arg(long, value_name = "TOKENS", help_heading = "Model", hide_short_help = true)
    )]
    pub max_answer_length: Option<usize>,
    /// How many of the likeliest answers to a question are told [default: 20]
    #[cfg_attr(
        feature = "clap",
        arg(long, value_name = "N", help_heading = "Model", hide_short_help = true)
    )]
    pub n_best: Option<usize>,
    /// How the hub is reached [default: as the environment says]
    #[serde(skip)]
    #[cfg_attr(feature = "clap", arg(skip))]
    pub hub: Option<HubSettings>,
}

/// How a file is read.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", default)]
#[cfg_attr(feature = "clap", derive(clap::Args))]
pub struct FileSettings {
    /// The column with the texts, where it is not found by itself
    #[cfg_attr(feature = "clap", arg(long, value_name = "NAME", help_heading = "Data"))]
    pub text_column: Option<String>,
    /// The column with the labels, where it is not found by itself
    #[cfg_attr(feature = "clap", arg(long, value_name = "NAME", help_heading = "Data"))]
    pub label_column: Option<String>,
    /// The column with the second text of each row, for tasks on pairs
    #[cfg_attr(
        feature = "clap",
        arg(long, value_name = "NAME", help_heading = "Data", hide_short_help = true)
    )]
    pub pair_column: Option<String>,
    /// What stands between the labels of a row that may have several, such as ";"; JSON lists need none
    #[cfg_attr(
        feature = "clap",
        arg(long, value_name = "TEXT", help_heading = "Data", hide_short_help = true)
    )]
    pub label_separator: Option<String>,
    /// Other names for columns of the files, such as utterance=text,intent=label
    #[cfg_attr(
        feature = "clap",
        arg(long, value_name = "OLD=NEW,...", help_heading = "Data", hide_short_help = true)
    )]
    pub rename: Option<Rename>,
    /// How the tags of words are written, or what spans become: iob1, iob2, bioes, bmes or bilou [default: as the tags look;
    /// iob2 for spans]
    #[cfg_attr(
        feature = "clap",
        arg(long, value_name = "NAME", help_heading = "Data", hide_short_help = true)
    )]
    pub tag_scheme: Option<String>,
    /// csv, tsv, jsonl, json, squad, parquet, conll, text (a text a file) or lines (a text a line), where the content does not tell
    #[cfg_attr(
        feature = "clap",
        arg(long, value_name = "NAME", help_heading = "Data", hide_short_help = true)
    )]
    pub format: Option<String>,
    /// Such as gbk or latin1, where the file is not UTF-8
    #[cfg_attr(
        feature = "clap",
        arg(long, value_name = "NAME", help_heading = "Data", hide_short_help = true)
    )]
    pub encoding: Option<String>,
}

/// A training: what to `train`, on what, how. What is not given is chosen, and said.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", default)]
#[cfg_attr(feature = "clap", derive(clap::Args))]
pub struct TrainSettings {
    /// Where the pretrained model is
    #[serde(flatten)]
    #[cfg_attr(feature = "clap", command(flatten))]
    pub model: ModelSettings,
    /// The rows to learn from: a file (CSV, TSV, JSONL, JSON or Parquet, as it is or in gzip or zstd), a folder of them or a
    /// pattern such as "part-*.csv"; may be given several times
    #[serde(with = "one_or_more")]
    #[cfg_attr(feature = "clap", arg(long, value_name = "FILE", help_heading = "Data"))]
    pub train: Option<Vec<PathBuf>>,
    /// Rows to evaluate on while training; they choose the best weights, so keep a test file for `evaluate`
    #[serde(with = "one_or_more")]
    #[cfg_attr(feature = "clap", arg(long, value_name = "FILE", help_heading = "Data"))]
    pub eval: Option<Vec<PathBuf>>,
    /// Share of the training rows held back for that where no --eval is given; 0 trains on all of them [default: 0.1]
    #[cfg_attr(
        feature = "clap",
        arg(long, value_name = "SHARE", help_heading = "Data", hide_short_help = true)
    )]
    pub eval_split: Option<f64>,
    /// Take a sample of this many training rows, stratified by label
    #[cfg_attr(
        feature = "clap",
        arg(long, value_name = "ROWS", help_heading = "Data", hide_short_help = true)
    )]
    pub limit: Option<usize>,
    /// How the files are read
    #[serde(flatten)]
    #[cfg_attr(feature = "clap", command(flatten))]
    pub file: FileSettings,
    /// What is learnt; found from the data
    #[cfg_attr(
        feature = "clap",
        arg(long, value_name = "NAME", help_heading = "Data", hide_short_help = true)
    )]
    pub task: Option<String>,
    /// What is trained of the model: see `retune methods` [default: by the size of the model]
    #[cfg_attr(feature = "clap", arg(long, value_name = "NAME", help_heading = "Method"))]
    pub method: Option<String>,
    /// Train these parameters of the model as well, by parts of their names: norms, layer.5, *.bias, pooler
    #[cfg_attr(feature = "clap", arg(long, value_name = "NAMES"))]
    pub train_also: Option<String>,
    /// Train the pooler under the classifier whatever the method; false leaves that to the method, and adapters then keep
    /// the base's, as in peft [default: true; an adapter goes on with what it has]
    #[cfg_attr(
        feature = "clap",
        arg(
            long,
            value_name = "true|false",
            hide_possible_values = true,
            help_heading = "Method",
            hide_short_help = true
        )
    )]
    pub train_pooler: Option<bool>,
    /// The folder for the result
    #[cfg_attr(feature = "clap", arg(long, value_name = "DIR", help_heading = "Run"))]
    pub output: Option<PathBuf>,
    /// Replace what an earlier run left in the output folder
    #[cfg_attr(feature = "clap", arg(long, num_args = 0..=1, default_missing_value = "true", hide_possible_values = true, value_name = "true|false", help_heading = "Run"))]
    pub overwrite: Option<bool>,
    /// Longer texts are cut to this many tokens [default: 512, of causal-lm 1,024, or what the model can]
    #[cfg_attr(feature = "clap", arg(long, value_name = "TOKENS", help_heading = "Data"))]
    pub max_length: Option<usize>,
    /// How often every row is seen [default: 3, more where the rows are few]
    #[cfg_attr(feature = "clap", arg(long, value_name = "N", help_heading = "Training"))]
    pub epochs: Option<f64>,
    /// Rows in a batch [default: 32]
    #[cfg_attr(feature = "clap", arg(long, value_name = "ROWS", help_heading = "Training"))]
    pub batch_size: Option<usize>,
    /// Gather batches by tokens instead of rows
    #[cfg_attr(
        feature = "clap",
        arg(long, value_name = "TOKENS", help_heading = "Training", hide_short_help = true)
    )]
    pub batch_tokens: Option<usize>,
    /// Batches in a step, for large steps in little memory; the result is that of one large batch [default: 1]
    #[cfg_attr(
        feature = "clap",
        arg(long, value_name = "BATCHES", help_heading = "Training", hide_short_help = true)
    )]
    pub accumulation: Option<usize>,
    /// The highest learning rate [default: the method's]
    #[cfg_attr(
        feature = "clap",
        arg(long, visible_alias = "lr", value_name = "RATE", help_heading = "Training")
    )]
    pub learning_rate: Option<f64>,
    /// adamw, or adamw-8bit: its moments take 2 bytes a trained value and not 8, but for embeddings and small tensors
    /// [default: adamw]
    #[cfg_attr(
        feature = "clap",
        arg(long, value_name = "NAME", help_heading = "Training", hide_short_help = true)
    )]
    pub optimizer: Option<String>,
    /// Keep nothing of a block but what goes into it, and compute it once more on the way back: long rows and large models in
    /// much less memory, for about a third more time, with the same result
    #[cfg_attr(feature = "clap", arg(long, num_args = 0..=1, default_missing_value = "true", hide_possible_values = true, value_name = "true|false", help_heading = "Training", hide_short_help = true))]
    pub recompute: Option<bool>,
    /// How it goes on after the warm-up: linear, cosine or constant [default: linear]
    #[cfg_attr(
        feature = "clap",
        arg(long, value_name = "NAME", help_heading = "Training", hide_short_help = true)
    )]
    pub schedule: Option<String>,
    /// Steps of rising learning rate: a share of all below 1, a number from 1 on [default: 0.06]
    #[cfg_attr(
        feature = "clap",
        arg(long, value_name = "SHARE", help_heading = "Training", hide_short_help = true)
    )]
    pub warmup: Option<f64>,
    /// Pull of the weights towards 0, biases and norms left out [default: 0.01]
    #[cfg_attr(
        feature = "clap",
        arg(long, value_name = "RATE", help_heading = "Training", hide_short_help = true)
    )]
    pub weight_decay: Option<f64>,
    /// Longer gradients are cut to this norm [default: 1]
    ///
    /// 0 leaves them as they are. Without --accumulation each weight is then updated as soon as its gradient is there,
    /// and the gradient is freed: with --method full that saves up to a quarter of the memory (`retune plan` says how
    /// much).
    #[cfg_attr(
        feature = "clap",
        arg(long, value_name = "NORM", help_heading = "Training", hide_short_help = true)
    )]
    pub max_grad_norm: Option<f64>,
    /// Share of each target that is spread over all labels [default: 0]
    #[cfg_attr(
        feature = "clap",
        arg(long, value_name = "SHARE", help_heading = "Training", hide_short_help = true)
    )]
    pub label_smoothing: Option<f64>,
    /// none, or balanced: rare labels weigh more [default: none]
    #[cfg_attr(
        feature = "clap",
        arg(long, value_name = "NAME", help_heading = "Training", hide_short_help = true)
    )]
    pub class_weights: Option<String>,
    /// Every dropout of the model itself [default: as its configuration says]
    #[cfg_attr(
        feature = "clap",
        arg(long, value_name = "SHARE", help_heading = "Training", hide_short_help = true)
    )]
    pub model_dropout: Option<f64>,
    /// Draws the split, new weights, the order of rows and dropout: the same seed gives the same bits [default: 1]
    #[cfg_attr(feature = "clap", arg(long, value_name = "N", help_heading = "Training"))]
    pub seed: Option<u64>,
    /// false sees the rows in the order of the file [default: true]
    #[cfg_attr(
        feature = "clap",
        arg(
            long,
            hide_possible_values = true,
            value_name = "true|false",
            help_heading = "Training",
            hide_short_help = true
        )
    )]
    pub shuffle: Option<bool>,
    /// When to evaluate: epoch, or a number of steps [default: epoch]
    #[cfg_attr(
        feature = "clap",
        arg(long, value_name = "WHEN", help_heading = "Evaluation", hide_short_help = true)
    )]
    pub eval_every: Option<String>,
    /// Stop after this many evaluations without a better one [default: never]
    #[cfg_attr(
        feature = "clap",
        arg(long, value_name = "N", help_heading = "Evaluation", hide_short_help = true)
    )]
    pub early_stopping: Option<u64>,
    /// Which weights are the result: best (by the evaluation) or last [default: best, last without an evaluation]; a whole
    /// number is that of --keep-checkpoints
    #[cfg_attr(
        feature = "clap",
        arg(long, value_name = "best|last|N", help_heading = "Evaluation", hide_short_help = true)
    )]
    pub keep: Option<String>,
    /// Refuse to train while the first look finds anything wrong
    #[cfg_attr(feature = "clap", arg(long, num_args = 0..=1, default_missing_value = "true", hide_possible_values = true, value_name = "true|false", help_heading = "Run", hide_short_help = true))]
    pub strict: Option<bool>,
    /// That of the head, classifier and pooler [default: 0.003 for a new head, or --learning-rate where that is higher; else
    /// --learning-rate]
    #[cfg_attr(
        feature = "clap",
        arg(long, value_name = "RATE", help_heading = "Training", hide_short_help = true)
    )]
    pub head_learning_rate: Option<f64>,
    /// The rate of each layer, as a share of that of the one above it, such as 0.9 [default: 1, the same for all]
    #[cfg_attr(
        feature = "clap",
        arg(long, value_name = "SHARE", help_heading = "Training", hide_short_help = true)
    )]
    pub layer_decay: Option<f64>,
    /// What a loss far above the recent ones does: tell, skip (its update), stop, rewind (to a checkpoint) [default: tell]
    #[cfg_attr(
        feature = "clap",
        arg(long, value_name = "WHAT", help_heading = "Training", hide_short_help = true)
    )]
    pub on_spike: Option<String>,
    /// When to write a checkpoint: steps, such as 500, a time, such as 30s, 10m or 2h, or never [default: 10m]
    #[cfg_attr(
        feature = "clap",
        arg(long, value_name = "WHEN", help_heading = "Run", hide_short_help = true)
    )]
    pub save_every: Option<String>,
    /// How many of them stay [default: 2]
    #[cfg_attr(feature = "clap", arg(long, value_name = "N", help_heading = "Run", hide_short_help = true))]
    pub keep_checkpoints: Option<usize>,
    /// Go on with the run in the output folder, from its newest checkpoint, with the settings it was begun with
    #[cfg_attr(feature = "clap", arg(long, num_args = 0..=1, default_missing_value = "true", hide_possible_values = true, value_name = "true|false", help_heading = "Run"))]
    pub resume: Option<bool>,
    /// Threads; they change the speed and nothing else [default: all cores]
    #[cfg_attr(feature = "clap", arg(long, value_name = "N", help_heading = "Run", hide_short_help = true))]
    pub threads: Option<usize>,
    /// The method's own settings, such as rank
    #[serde(flatten)]
    #[cfg_attr(feature = "clap", arg(skip))]
    pub method_options: serde_json::Map<String, serde_json::Value>,
}

impl TrainSettings {
    /// These settings, and where they ask to resume a run, those that it was begun with for all that they do not say.
    /// Errors if those cannot be read.
    pub fn resumed(&self) -> crate::Result<Self> {
        crate::resume::settings(self)
    }
}

impl FileSettings {
    pub(crate) fn read_options(&self) -> crate::Result<ReadOptions> {
        let format = self.format.as_deref().map(str::parse).transpose()?;
        let rename = self.rename.clone().unwrap_or_default().0;
        Ok(ReadOptions { format, encoding: self.encoding.clone(), rename, ..ReadOptions::default() })
    }

    /// What is known of a file for `task` before it is read; `trained` is what a model was trained on. Errors if a flag is for
    /// another task.
    pub(crate) fn reading<'a>(
        &'a self,
        task: &dyn Task,
        trained: Option<&'a ColumnNames>,
        problem_type: WantedProblemType,
        labelled: bool,
    ) -> crate::Result<Reading<'a>> {
        tasks::check_flags(task, self.given())?;
        Ok(Reading {
            options: self.read_options()?,
            text: self.text_column.as_deref(),
            label: self.label_column.as_deref(),
            pair: self.pair_column.as_deref(),
            label_separator: self.label_separator.as_deref(),
            tag_scheme: self.tag_scheme.as_deref(),
            trained,
            labels: None,
            problem_type,
            labelled,
        })
    }
}
