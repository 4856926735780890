//! A training as the tests ask for it.

use std::path::PathBuf;

use retune::evaluate::{Evaluation, evaluate};
use retune::predict::{self, Prediction};
use retune::{Error, Event, FileSettings, Listener, METHODS, ModelSettings, Observer, Report, TrainSettings};

use crate::tiny::Tiny;

/// Listens to all that a run tells.
#[derive(Default)]
pub(crate) struct Ear {
    pub(crate) said: Vec<String>,
    pub(crate) events: Vec<Event>,
    /// The step after which it interrupts.
    pub(crate) interrupt_after: Option<u64>,
}

impl Observer for Ear {
    fn event(&mut self, event: &Event) -> std::io::Result<()> {
        self.events.push(event.clone());
        Ok(())
    }

    fn interrupted(&self) -> bool {
        let step = |event: &Event| match event {
            Event::Step { step, .. } => Some(*step),
            _ => None,
        };
        let latest = self.events.iter().rev().find_map(step);
        self.interrupt_after.is_some_and(|after| latest >= Some(after))
    }
}

impl Listener for Ear {
    fn say(&mut self, sentence: &str) {
        self.said.push(sentence.to_string());
    }
}

impl Ear {
    /// The losses of the steps.
    pub(crate) fn losses(&self) -> Vec<f64> {
        let loss = |event: &Event| match event {
            Event::Step { loss, .. } => Some(*loss),
            _ => None,
        };
        self.events.iter().filter_map(loss).collect()
    }

    pub(crate) fn heard(&self, words: &str) -> bool {
        self.said.iter().any(|sentence| sentence.contains(words))
    }
}

/// The method's usual training of the tiny model: every row, two epochs, batches that do not divide the rows.
pub(crate) fn settings(tiny: &Tiny, method: &str, output: &str) -> TrainSettings {
    let known = METHODS.iter().find(|known| known.name() == method);
    let has = |name| known.is_some_and(|known| known.options().iter().any(|option| option.name == name));
    let mut method_options = serde_json::Map::new();
    // The defaults leave a tiny model no room for a text, and do not divide its width.
    for (name, value) in [("num-virtual-tokens", 4), ("phm-dim", 2), ("bottleneck-size", 4)] {
        if has(name) {
            method_options.insert(name.into(), value.into());
        }
    }
    TrainSettings {
        method_options,
        model: ModelSettings { model: Some(tiny.path("base")), ..ModelSettings::default() },
        train: Some(vec![tiny.path("train.csv")]),
        eval: Some(vec![tiny.path("test.csv")]),
        output: Some(tiny.path(output)),
        method: Some(method.to_string()),
        epochs: Some(2.0),
        batch_size: Some(7),
        learning_rate: Some(if method == "full" { 5e-3 } else { 2e-2 }),
        ..TrainSettings::default()
    }
}

pub(crate) fn train(settings: &TrainSettings) -> Result<(Report, Ear), Error> {
    let mut ear = Ear::default();
    retune::train(settings, &mut ear).map(|report| (report, ear))
}

/// The error of a training that cannot be, which the person who asked for it can mend.
pub(crate) fn refused(settings: &TrainSettings) -> String {
    let error = train(settings).map(|(report, _)| report).unwrap_err();
    assert_eq!(error.exit_code(), 2, "{error}");
    error.to_string()
}

pub(crate) fn model(folder: impl Into<PathBuf>) -> ModelSettings {
    ModelSettings { model: Some(folder.into()), ..ModelSettings::default() }
}

pub(crate) fn score(model: &ModelSettings, tiny: &Tiny, data: &str) -> Result<Evaluation, Error> {
    evaluate(model, None, &[tiny.path(data)], &FileSettings::default(), None)
}

/// Predictions, logits included, for texts that no training saw.
pub(crate) fn answers(model: &ModelSettings) -> Vec<Prediction> {
    let texts = ["my card is lost", "pay", "transfer the money !", "", "豈 un Ü € 丢了"];
    predict::texts(model, &texts.map(str::to_string), None, true).unwrap().0
}

/// The largest difference between two predictions' logits.
pub(crate) fn difference(left: &[Prediction], right: &[Prediction]) -> f32 {
    assert_eq!(left.len(), right.len());
    let logits =
        |all: &[Prediction]| all.iter().flat_map(|one| one.logits.clone().unwrap()).collect::<Vec<_>>();
    logits(left).iter().zip(logits(right)).fold(0.0, |max, (a, b)| max.max((a - b).abs()))
}
