//! Settings with nothing left open: each is what was given, or what is chosen where nothing was.

use std::path::{Path, PathBuf};

use retune_adapt::peft::Method;
use retune_adapt::tasks::{Form, FormSettings, LossOptions, TaskRows, ThresholdUse, Thresholds};
use retune_adapt::{Options, nearest};
use retune_data::ProblemType;
use retune_tensor::random::Key;
use retune_tensor::{DType, Parameters};
use retune_train::{
    AdamWSettings, Batching, EvalEvery, MomentKind, OnSpike, Plan, SaveEvery, Settings, Shape,
};
use serde_json::{Value, json};

use crate::base_precision::BasePrecision;
use crate::dataset::{self, Examples};
use crate::every::{eval_every, save_every};
use crate::labelling::AskedThresholds;
use crate::listener::Listener;
use crate::rates::{LayerRates, NEW_HEAD, Rates};
use crate::{Error, Result, Source, TextModel, TrainSettings, choices, inputs, labelling};

pub(crate) struct Resolved<'a> {
    given: &'a TrainSettings,
    pub method: &'static dyn Method,
    pub options: Options,
    /// Patterns of parameters that are trained beside.
    pub train_also: Vec<String>,
    /// Whether the pooler is, too.
    pub train_pooler: bool,
    pub dropout: Option<f32>,
    /// What flows through the model.
    pub dtype: DType,
    /// What its frozen matrices are kept as.
    pub base_precision: BasePrecision,
    /// Whether blocks are computed once more on the way back.
    pub recompute: bool,
    pub batching: Batching,
    pub accumulation: usize,
    pub shuffle: bool,
    pub class_weights: Option<String>,
    pub loss: LossOptions,
    pub keep: Option<String>,
    /// The learning rate of the head; the model says it where nobody does.
    pub head_learning_rate: f64,
    pub layer_decay: f64,
    pub keep_checkpoints: usize,
    /// All that the trainer is told; when to evaluate and what to keep depend on whether there are rows for it.
    pub train: Settings,
}

impl<'a> Resolved<'a> {
    /// Errors if a setting cannot be, before anything is read for long.
    pub fn new(given: &'a TrainSettings, source: &Source, listener: &mut dyn Listener) -> Result<Self> {
        let method = choices::method(given.method.as_deref(), source)?;
        listener.say(&method.why);
        let method = method.value;
        if source.adapter.is_some()
            && let Some(name) = given.method_options.keys().next()
        {
            let message =
                format!("`{name}` belongs to the adapter that training goes on from, and cannot change");
            return Err(Error::Setting { flag: "model", message });
        }
        let learning_rate = given.learning_rate.unwrap_or(method.learning_rate());
        if given.learning_rate.is_none() {
            listener.say(&format!("learning rate {learning_rate}: the usual one of {}", method.name()));
        }
        // As it will be used: a number that f32 rounds to 0, 1 or infinity is one.
        let rate = |x: f64| x as f32 > 0.0 && (x as f32).is_finite();
        number("learning-rate", learning_rate, rate, "above 0")?;
        let head_learning_rate = given.head_learning_rate.unwrap_or(learning_rate);
        number("head-learning-rate", head_learning_rate, rate, "above 0")?;
        number(
            "epochs",
            given.epochs.unwrap_or(3.0),
            |x| x > 0.0 && x <= 1e6,
            "above 0 and up to a million",
        )?;
        let warmup = given.warmup.unwrap_or(0.06);
        number("warmup", warmup, |x| x >= 0.0, "from 0 on")?;
        let weight_decay = given.weight_decay.unwrap_or(0.01);
        number("weight-decay", weight_decay, |x| (0.0..1.0).contains(&x), "at least 0 and below 1")?;
        let max_grad_norm = given.max_grad_norm.unwrap_or(1.0);
        number("max-grad-norm", max_grad_norm, |x| x >= 0.0, "from 0 on")?;
        let label_smoothing = given.label_smoothing.unwrap_or(0.0);
        number("label-smoothing", label_smoothing, share, "at least 0 and below 1")?;
        if let Some(share) = given.eval_split {
            number("eval-split", share, |x| (0.0..1.0).contains(&x), "at least 0 and below 1")?;
        }
        if let Some(dropout) = given.model_dropout {
            number("model-dropout", dropout, share, "at least 0 and below 1")?;
        }
        let batching = match (given.batch_size, given.batch_tokens) {
            (Some(_), Some(_)) => {
                let message = "batches are gathered by --batch-size or by --batch-tokens; give one of them";
                return Err(Error::Setting { flag: "batch-tokens", message: message.into() });
            }
            (_, Some(tokens)) => Batching::Tokens(at_least_1("batch-tokens", tokens)?),
            (rows, None) => Batching::Rows(at_least_1("batch-size", rows.unwrap_or(32))?),
        };
        let layer_decay = given.layer_decay.unwrap_or(1.0);
        number("layer-decay", layer_decay, |x| x > 0.0 && x <= 1.0, "above 0 and up to 1")?;
        let save_every = save_every(given.save_every.as_deref())?;
        let on_spike =
            match one_of("on-spike", given.on_spike.as_deref(), &["tell", "skip", "stop", "rewind"])? {
                None | Some("tell") => OnSpike::Tell,
                Some("skip") => OnSpike::Skip,
                Some("stop") => OnSpike::Stop,
                Some(_) => OnSpike::Rewind,
            };
        if on_spike == OnSpike::Rewind && !matches!(save_every, SaveEvery::Steps(_)) {
            let message = "to rewind there must be checkpoints after a number of steps; give --save-every 100, for example";
            return Err(Error::Setting { flag: "on-spike", message: message.into() });
        }
        if given.keep.as_deref().is_some_and(|keep| keep.parse::<u64>().is_ok()) {
            // The command line reads such a number as the other setting.
            let message = "it says which weights are the result, best or last; how many checkpoints stay says \
                           --keep-checkpoints";
            return Err(Error::Setting { flag: "keep", message: message.into() });
        }
        let keep = one_of("keep", given.keep.as_deref(), &["best", "last"])?;
        one_of("class-weights", given.class_weights.as_deref(), &["none", "balanced"])?;
        let schedule = match one_of("schedule", given.schedule.as_deref(), &["linear", "cosine", "constant"])?
        {
            None | Some("linear") => Shape::Linear,
            Some("cosine") => Shape::Cosine,
            Some(_) => Shape::Constant,
        };
        if let Some(limit) = given.limit {
            at_least_1("limit", limit)?;
        }
        if given.early_stopping == Some(0) {
            let message = "expected at least 1 evaluation to wait for, got 0";
            return Err(Error::Setting { flag: "early-stopping", message: message.into() });
        }
        Ok(Resolved {
            given,
            method,
            options: Options(given.method_options.clone()),
            train_also: patterns(given.train_also.as_deref()),
            train_pooler: given.train_pooler.unwrap_or(source.adapter.is_none()),
            dropout: given.model_dropout.map(|dropout| dropout as f32),
            dtype: given.model.asked_precision()?,
            base_precision: given.model.asked_base_precision(&source.base)?,
            recompute: given.recompute.unwrap_or(false),
            batching,
            accumulation: at_least_1("accumulation", given.accumulation.unwrap_or(1))?,
            shuffle: given.shuffle.unwrap_or(true),
            class_weights: given.class_weights.clone(),
            loss: LossOptions {
                balanced: given.class_weights.as_deref() == Some("balanced"),
                label_smoothing: label_smoothing as f32,
            },
            keep: keep.map(str::to_string),
            head_learning_rate,
            layer_decay,
            keep_checkpoints: at_least_1("keep-checkpoints", given.keep_checkpoints.unwrap_or(2))?,
            train: Settings {
                // Where it is not given it is chosen with the plan, once the rows are counted.
                epochs: given.epochs.unwrap_or(3.0),
                learning_rate,
                schedule,
                warmup,
                adamw: AdamWSettings {
                    weight_decay: weight_decay as f32,
                    moments: moments(given.optimizer.as_deref())?,
                    ..AdamWSettings::default()
                },
                max_grad_norm: Some(max_grad_norm).filter(|norm| *norm > 0.0),
                seed: dataset::seed(given),
                eval_every: eval_every(given.eval_every.as_deref())?,
                patience: given.early_stopping,
                keep_best: true,
                save_every,
                on_spike,
            },
        })
    }

    /// What is named as training rows.
    pub fn train(&self) -> &[PathBuf] {
        self.given.train.as_deref().unwrap_or_default()
    }

    /// The same in words.
    pub fn train_path(&self) -> PathBuf {
        inputs::together(self.train())
    }

    /// What is named as evaluation rows.
    pub fn eval(&self) -> Option<&[PathBuf]> {
        self.given.eval.as_deref()
    }

    /// The folder for the result, where one is named.
    pub fn output(&self) -> Option<&Path> {
        self.given.output.as_deref()
    }

    /// Chooses how often the rows are seen, where nobody said: three times, or as often as makes a few hundred steps of
    /// them, since a new head and a new task take steps and not rows. Says so.
    pub fn choose_epochs(&mut self, plan: &Plan, listener: &mut dyn Listener) {
        const STEPS: u64 = 200;
        const MOST: u64 = 20;
        if self.given.epochs.is_some() {
            return;
        }
        let steps = plan.total_steps(1.0).max(1);
        let epochs = STEPS.div_ceil(steps).clamp(3, MOST);
        self.train.epochs = epochs as f64;
        let why = if epochs == 3 { "the usual number" } else { "more than the usual 3, as the rows are few" };
        listener.say(&format!(
            "epochs {epochs}: {why}, {} steps together; --epochs changes that",
            epochs * steps
        ));
    }

    /// What the trainer is told, once it is known whether there is anything to evaluate on.
    /// Errors if settings ask for evaluations that cannot be.
    pub fn train_settings(&self, evaluates: bool) -> Result<Settings> {
        let mut settings = self.train.clone();
        if !evaluates {
            settings.eval_every = EvalEvery::Never;
            let given = self.given;
            let asked = [
                ("early-stopping", given.early_stopping.is_some()),
                ("eval-every", given.eval_every.is_some()),
                ("keep", given.keep.as_deref() == Some("best")),
            ];
            if let Some((flag, _)) = asked.into_iter().find(|(_, asked)| *asked) {
                let message = "there are no rows to evaluate on; give --eval FILE or --eval-split 0.1";
                return Err(Error::Setting { flag, message: message.into() });
            }
        }
        settings.keep_best = evaluates && self.keep.as_deref() != Some("last");
        Ok(settings)
    }

    /// Chooses the learning rate of the head, where nobody said: a higher one if it was drawn anew and something else is
    /// trained too. Says so.
    pub fn choose_head_rate(&mut self, model: &TextModel, listener: &mut dyn Listener) {
        let learning_rate = self.train.learning_rate;
        let head = model.head(&model.parameters);
        let alone = model.parameters.trainable().all(|(_, parameter)| head.contains(&parameter.name));
        if self.given.head_learning_rate.is_some()
            || alone
            || !model.has_fresh_head()
            || learning_rate >= NEW_HEAD
        {
            return;
        }
        self.head_learning_rate = NEW_HEAD;
        listener.say(&format!(
            "learning rate of the head {NEW_HEAD}: it is new; --head-learning-rate changes that"
        ));
    }

    /// The share of the learning rate that each of `parameters` gets, which are those of `model`.
    pub fn rates(&self, model: &TextModel, parameters: &Parameters) -> Rates {
        let names = parameters.iter().map(|(_, parameter)| parameter.name.as_str());
        Rates {
            head: model.head(parameters),
            head_share: self.head_learning_rate / self.train.learning_rate,
            layers: (self.layer_decay < 1.0).then(|| LayerRates::new(self.layer_decay, names)),
        }
    }

    /// Which rows are seen when.
    pub fn plan(&self, rows: &TaskRows) -> Result<Plan> {
        let lengths = (0..rows.tokens.len()).map(|row| rows.tokens.length(row));
        let shuffle = self.shuffle.then(|| Key::new(self.train.seed).with_name("order of rows"));
        Ok(Plan::new(lengths, self.batching, self.accumulation, shuffle)?)
    }

    /// Whether the model's head was trained for these labels and can go on. Errors if it was not, and an adapter cannot
    /// be without it.
    pub fn keeps_head(
        &self,
        known: Option<&[String]>,
        head: Option<ProblemType>,
        examples: &Examples,
        source: &Source,
    ) -> Result<bool> {
        let wanted = examples.problem_type;
        let (task, made_for) = (examples.task, source.task()?);
        if let Some(other) = made_for.filter(|other| other.name() != task.name()) {
            let message = format!(
                "the adapter was trained for {}, and the data is of {}; start from its base instead",
                other.name(),
                task.name()
            );
            return match &source.adapter {
                Some(_) => Err(Error::Setting { flag: "model", message }),
                None => Ok(false),
            };
        }
        let same_type = !task.has_problem_types() || head.unwrap_or_default() == wanted;
        if source.adapter.is_some() && !same_type {
            let message = format!(
                "the adapter was trained for {}, and the data is of problem type {wanted}; start from its base instead",
                head.unwrap_or_default()
            );
            return Err(Error::Setting { flag: "model", message });
        }
        // The one output of a number is the same whatever it is called.
        let one_number = task.has_problem_types() && wanted == ProblemType::Regression;
        let same_outputs = one_number || task.fixed_outputs();
        let named =
            same_type && (same_outputs || known.is_some_and(|known| known == examples.labels.names()));
        if source.adapter.is_none() || named {
            return Ok(named);
        }
        let message = match known {
            Some(known) => format!(
                "the adapter was trained for {} labels ({}), and the data has others ({}); start from its base instead",
                known.len(),
                shown(known),
                shown(examples.labels.names())
            ),
            None => "nobody named the labels of the adapter, so their order cannot be known; name them in the `id2label` \
                     of its base's config.json"
                .into(),
        };
        Err(Error::Setting { flag: "model", message })
    }

    /// What is learnt of `examples`. Errors if thresholds are asked for that cannot be.
    pub fn form(&self, examples: &Examples) -> Result<Box<dyn Form>> {
        let problem_type = examples.problem_type;
        let asked = self.given.model.asked_thresholds(examples.task, problem_type)?;
        let labels = examples.labels.clone();
        let used = examples.task.thresholds(problem_type);
        let number = labelling::usual_thresholds(used, labels.len()).len();
        let thresholds = match examples.no_answer() {
            Some(no_answer) if used == ThresholdUse::NoAnswer && asked.is_none() => {
                Thresholds::Set(vec![no_answer])
            }
            _ => labelling::thresholds_to_train(asked, number, examples.untunable())?,
        };
        let questions = self.given.model.questions(None)?;
        let language = self.given.model.language(None)?;
        Ok(examples.task.form(FormSettings { problem_type, labels, thresholds, questions, language })?)
    }

    /// The thresholds that need no tuning.
    pub fn set_thresholds(&self, examples: &Examples) -> Result<Option<Vec<f32>>> {
        let used = examples.task.thresholds(examples.problem_type);
        Ok(match self.given.model.asked_thresholds(examples.task, examples.problem_type)? {
            Some(AskedThresholds::Same(share)) => {
                Some(vec![share; labelling::usual_thresholds(used, examples.labels.len()).len()])
            }
            // One that is never passed is what goes without saying.
            None if used == ThresholdUse::NoAnswer => examples
                .no_answer()
                .filter(|threshold| threshold.is_finite())
                .map(|threshold| vec![threshold]),
            Some(AskedThresholds::Tuned) | None => None,
        })
    }

    /// Whether thresholds are to be found on the evaluation rows.
    pub fn tunes_thresholds(&self, examples: &Examples) -> bool {
        let asked = self.given.model.asked_thresholds(examples.task, examples.problem_type);
        match (examples.task.thresholds(examples.problem_type), asked) {
            (ThresholdUse::Nothing, _) | (_, Ok(Some(AskedThresholds::Same(_))) | Err(_)) => false,
            (ThresholdUse::NoAnswer, Ok(None)) => examples.no_answer().is_none(),
            _ => true,
        }
    }

    /// Every setting as it was used, for the card.
    pub fn as_json(&self, max_length: usize) -> Value {
        let Settings {
            epochs,
            learning_rate,
            schedule,
            warmup,
            adamw,
            max_grad_norm,
            seed,
            patience,
            on_spike,
            save_every,
            ..
        } = &self.train;
        // Elsewhere it changes no bit of the result.
        let rewinds_to = match (on_spike, save_every) {
            (OnSpike::Rewind, SaveEvery::Steps(steps)) => Some(*steps),
            _ => None,
        };
        let f32 = |value: f32| value.to_string().parse::<f64>().unwrap_or_default();
        json!({
            "method_options": self.options.0,
            "train_also": self.given.train_also,
            "train_pooler": self.train_pooler,
            "epochs": epochs,
            "batching": self.batching,
            "accumulation": self.accumulation,
            "learning_rate": learning_rate,
            "head_learning_rate": self.head_learning_rate,
            "layer_decay": self.layer_decay,
            "schedule": schedule,
            "warmup": warmup,
            "optimizer": adamw.moments.name(),
            "betas": adamw.betas.map(f32),
            "epsilon": f32(adamw.epsilon),
            "weight_decay": f32(adamw.weight_decay),
            "max_grad_norm": max_grad_norm,
            "label_smoothing": f32(self.loss.label_smoothing),
            "class_weights": self.class_weights,
            "thresholds": self.given.model.thresholds,
            "doc_stride": self.given.model.doc_stride,
            "max_answer_length": self.given.model.max_answer_length,
            "loss_on": self.given.model.loss_on,
            "chat_template": self.given.model.chat_template,
            "model_dropout": self.dropout.map(f32),
            "precision": self.dtype.name(),
            "base_precision": self.base_precision.name(),
            "seed": seed,
            "shuffle": self.shuffle,
            "eval_split": self.given.eval_split,
            "eval_every": self.given.eval_every,
            "early_stopping": patience,
            "keep": self.keep,
            "limit": self.given.limit,
            "on_spike": on_spike,
            "save_every": rewinds_to,
            "rename": self.given.file.rename,
            "format": self.given.file.format,
            "encoding": self.given.file.encoding,
            "max_length": max_length,
        })
    }
}

fn shown(names: &[String]) -> String {
    let first: Vec<_> = names.iter().take(4).map(String::as_str).collect();
    format!("{}{}", first.join(", "), if names.len() > 4 { " ..." } else { "" })
}

fn number(flag: &'static str, value: f64, holds: impl Fn(f64) -> bool, expected: &str) -> Result<()> {
    if value.is_finite() && holds(value) {
        return Ok(());
    }
    Err(Error::Setting { flag, message: format!("expected a number {expected}, got {value}") })
}

fn patterns(given: Option<&str>) -> Vec<String> {
    let names = given.into_iter().flat_map(|names| names.split(','));
    names.map(|name| name.trim().to_string()).filter(|name| !name.is_empty()).collect()
}

fn share(value: f64) -> bool {
    (0.0..1.0).contains(&(value as f32))
}

fn at_least_1(flag: &'static str, value: usize) -> Result<usize> {
    if value == 0 {
        return Err(Error::Setting { flag, message: "expected at least 1, got 0".into() });
    }
    Ok(value)
}

/// How the optimiser that is named keeps its moments.
pub(crate) fn moments(optimizer: Option<&str>) -> Result<MomentKind> {
    let name = one_of("optimizer", optimizer, &MomentKind::NAMES)?;
    Ok(name.and_then(MomentKind::of).unwrap_or_default())
}

fn one_of<'v>(flag: &'static str, value: Option<&'v str>, known: &[&str]) -> Result<Option<&'v str>> {
    let Some(value) = value else { return Ok(None) };
    if known.contains(&value) {
        return Ok(Some(value));
    }
    let near = nearest(value, known.iter().copied())
        .map(|near| format!("; did you mean {near}?"))
        .unwrap_or_default();
    Err(Error::Setting { flag, message: format!("expected {}, got `{value}`{near}", known.join(" or ")) })
}
