//! Every task through one table, on one tiny BERT: its head, its loss and its logits are those of transformers, its answers those
//! of a slow plain reading of the logits, a row among others is the row alone, and every method trains it, saves it and gives it
//! back (see `oracle/every_task.py`).

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may stop at the first surprise")]

mod golden;

use std::path::{Path, PathBuf};

use golden::{given, options, relative};
use retune_adapt::AdaptError;
use retune_adapt::peft::{self, Applied, METHODS, Model};
use retune_adapt::tasks::{
    Answer, AnswerSearch, EncoderWithHead, Form, FormSettings, HeadOutput, LanguageSettings, LossOptions,
    QuestionSettings, Reading, TASKS, Targets, Task, Thresholds, WantedProblemType,
};
use retune_data::{Examples, Label, ProblemType, Tokens};
use retune_model::families::{self, HeadKind};
use retune_model::formats::{Weights, write_safetensors};
use retune_model::tokenizer::Tokenizer;
use retune_model::{Forward, Hooks};
use retune_tensor::random::Key;
use retune_tensor::{DType, Device, Gradients, Parameters, Tape, Tensor, Var};

const MAX_LENGTH: usize = 30;
const QUESTIONS: QuestionSettings =
    QuestionSettings { doc_stride: 6, search: AnswerSearch { n_best: 3, max_answer_length: 4 } };

/// What is expected of a task's form.
struct Expected {
    /// What its files are called.
    name: &'static str,
    /// Its labels, in the order of the logits.
    labels: &'static [&'static str],
    /// Whether it has logits for each token.
    reads_tokens: bool,
    /// What logits say, as plainly as it can be written down.
    plain: fn(&Rows, &[Vec<f32>]) -> Vec<Said>,
}

/// A form without an entry here has no test: that is an error of whoever added it.
fn expected(task: &dyn Task, problem_type: Option<ProblemType>) -> Expected {
    match (task.name(), problem_type) {
        ("text-classification", Some(ProblemType::SingleLabel)) => Expected {
            name: "single-label",
            labels: &["lost", "other", "pay"],
            reads_tokens: false,
            plain: |rows, logits| logits.iter().map(|row| vec![rows.label(largest(row))]).collect(),
        },
        ("text-classification", Some(ProblemType::MultiLabel)) => Expected {
            name: "multi-label",
            labels: &["card", "lost", "money"],
            reads_tokens: false,
            plain: |rows, logits| {
                let chosen = |row: &Vec<f32>| {
                    (0..3).filter(|label| row[*label] > 0.0).map(|label| rows.label(label)).collect()
                };
                logits.iter().map(chosen).collect()
            },
        },
        ("text-classification", Some(ProblemType::Regression)) => Expected {
            name: "regression",
            labels: &["LABEL_0"],
            reads_tokens: false,
            plain: |_, logits| logits.iter().map(|row| vec![row[0].to_string()]).collect(),
        },
        ("token-classification", None) => Expected {
            name: "token-classification",
            labels: &["B-act", "B-land", "I-act", "I-land", "O"],
            reads_tokens: true,
            plain: plain_entities,
        },
        ("question-answering", None) => Expected {
            name: "question-answering",
            labels: &["start", "end"],
            reads_tokens: true,
            plain: plain_answers,
        },
        other => panic!("{other:?} has no entry in this table"),
    }
}

/// An answer in words.
type Said = Vec<String>;

fn said(answer: &Answer) -> Said {
    match answer {
        Answer::Class { label, .. } => vec![label.clone()],
        Answer::Labels { labels, .. } => labels.clone(),
        Answer::Number { score } => vec![score.to_string()],
        Answer::Entities { entities, .. } => entities
            .iter()
            .map(|one| format!("{} {} {} {}", one.start, one.end, one.text, one.kind))
            .collect(),
        Answer::Span { n_best, .. } => {
            n_best.iter().map(|one| format!("{:?} {:?} {}", one.start, one.end, one.answer)).collect()
        }
    }
}

fn largest(values: &[f32]) -> usize {
    (0..values.len()).rev().max_by(|a, b| values[*a].total_cmp(&values[*b])).unwrap()
}

fn characters(text: &str, byte: u32) -> usize {
    text[..byte as usize].chars().count()
}

/// The tag of each word is that of the token that begins with it; an entity goes on while the tags say so.
fn plain_entities(rows: &Rows, logits: &[Vec<f32>]) -> Vec<Said> {
    let examples: Vec<_> = rows.examples.iter().map(Result::unwrap).collect();
    let said = |(row, example): (usize, &retune_data::Example)| {
        let Some(Label::Words(words)) = &example.label else { panic!("{example:?}") };
        let window = rows.tokens.windows().row(row).unwrap();
        let tag = |word: &retune_data::Word| {
            let token = window.spans.iter().position(|span| span[0] == word.start).unwrap() + window.begins;
            rows.label(largest(&logits[row][5 * token..][..5]))
        };
        let mut found: Vec<(u32, u32, String)> = Vec::new();
        let mut before = String::from("O");
        for word in words {
            let tag = tag(word);
            let kind = tag.split_once('-').map_or("", |(_, kind)| kind).to_string();
            let goes_on = tag.starts_with('I') && before.ends_with(&format!("-{kind}"));
            match found.last_mut().filter(|_| goes_on) {
                Some(last) => last.1 = word.end,
                None if tag != "O" => found.push((word.start, word.end, kind)),
                None => {}
            }
            before = tag;
        }
        let text = &example.text;
        let words = |(start, end, kind): (u32, u32, String)| {
            let part = &text[start as usize..end as usize];
            format!("{} {} {part} {kind}", characters(text, start), characters(text, end))
        };
        found.into_iter().map(words).collect()
    };
    examples.iter().enumerate().map(said).collect()
}

/// All pairs of a start and an end in all windows, sorted.
fn plain_answers(rows: &Rows, logits: &[Vec<f32>]) -> Vec<Said> {
    let examples: Vec<_> = rows.examples.iter().map(Result::unwrap).collect();
    let mut answers: Vec<Vec<(f32, usize, usize)>> = vec![Vec::new(); examples.len()];
    for (row, logits) in logits.iter().enumerate() {
        let window = rows.tokens.windows().row(row).unwrap();
        for (first, begins) in window.spans.iter().enumerate() {
            for (last, ends) in
                window.spans.iter().enumerate().filter(|(last, _)| (first..first + 4).contains(last))
            {
                let score = logits[2 * (window.begins + first)] + logits[2 * (window.begins + last) + 1];
                answers[window.example].push((score, begins[0] as usize, ends[1] as usize));
            }
        }
    }
    let best = |(mut all, example): (Vec<(f32, usize, usize)>, &retune_data::Example)| {
        all.sort_by(|a, b| b.0.total_cmp(&a.0));
        let mut kept: Said = Vec::new();
        for (_, start, end) in all {
            let places = [start, end].map(|byte| Some(example.text[..byte].chars().count()));
            let one = format!("{:?} {:?} {}", places[0], places[1], &example.text[start..end]);
            if !kept.contains(&one) {
                kept.push(one);
            }
        }
        kept.truncate(3);
        kept
    };
    answers.into_iter().zip(examples.iter()).map(best).collect()
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/every_task")
}

/// A task's rows, as it reads them.
struct Rows {
    task: &'static dyn Task,
    expected: Expected,
    examples: Examples,
    form: Box<dyn Form>,
    tokens: Tokens,
    targets: Box<dyn Targets>,
}

impl Rows {
    fn label(&self, index: usize) -> String {
        self.expected.labels[index].to_string()
    }

    fn all(&self) -> Vec<usize> {
        (0..self.tokens.len()).collect()
    }
}

/// The rows of every form of every task of encoders; language models are decoders, and `language.rs` has theirs.
fn every_task() -> Vec<Rows> {
    let of_encoders = TASKS.iter().filter(|task| task.head() != HeadKind::Language);
    let forms = of_encoders.flat_map(|task| {
        let mut kinds: Vec<_> = task.forms().iter().map(|form| form.problem_type).collect();
        kinds.dedup();
        kinds.into_iter().map(move |kind| (*task, kind))
    });
    forms.map(|(task, problem_type)| open(task, problem_type)).collect()
}

fn open(task: &'static dyn Task, problem_type: Option<ProblemType>) -> Rows {
    let expected = expected(task, problem_type);
    let file = folder().join(format!("{}.jsonl", expected.name));
    let known = problem_type.map(WantedProblemType::Known).unwrap_or_default();
    let reading = Reading { problem_type: known, labelled: true, ..Reading::default() };
    let corpus = task.read(std::slice::from_ref(&file), &reading).unwrap();
    let labels = corpus.file.labels(&corpus.examples).unwrap();
    assert_eq!(labels.names(), expected.labels, "{}", expected.name);
    let problem_type = problem_type.unwrap_or_default();
    // There is always an answer, and a label is given from a half on.
    let threshold = if task.name() == "question-answering" { f32::INFINITY } else { 0.5 };
    let thresholds = Thresholds::Set(vec![threshold; labels.len()]);
    let form = task
        .form(FormSettings {
            problem_type,
            labels,
            thresholds,
            questions: QUESTIONS,
            language: LanguageSettings::default(),
        })
        .unwrap();
    let tokenizer = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/golden/tokenizer/uncased");
    let tokens = form.tokens(&corpus.examples, &Tokenizer::open(tokenizer).unwrap(), MAX_LENGTH).unwrap();
    let targets = form.targets(&corpus.examples, &tokens, &file, LossOptions::default()).unwrap();
    Rows { task, expected, examples: corpus.examples, form, tokens, targets }
}

/// A model for a task, and what was done to it.
struct Head {
    network: EncoderWithHead,
    parameters: Parameters,
    hooks: Hooks,
    applied: Applied,
}

impl Head {
    /// The model in `folder`, with its own head or that of the reference values, and what `adjust` makes of it.
    fn open(
        folder: &Path,
        rows: &Rows,
        own_head: bool,
        adjust: impl FnOnce(&mut Model<'_>) -> Result<Applied, AdaptError>,
    ) -> Self {
        let seed = Key::new(3);
        let mut opened = families::open(folder, rows.task.head(), Device::Cpu, seed).unwrap();
        let outputs = rows.expected.labels.len();
        let network =
            EncoderWithHead::build(opened.encoder, &mut opened.checkpoint, own_head, outputs).unwrap();
        let loaded = opened.checkpoint.finish().unwrap();
        let (mut parameters, mut hooks) = (loaded.parameters, Hooks::new());
        let reference = reference();
        for (id, part) in network.classifier().parameters().zip(["weight", "bias"]) {
            let name = format!("{}.{part}", rows.expected.name);
            let shape = parameters.get(id).value.shape().to_vec();
            assert_eq!(shape, if part == "bias" { vec![outputs] } else { vec![outputs, 12] }, "{name}");
            if !own_head {
                let values = reference.read_f32(&name).unwrap();
                parameters.get_mut(id).value = Tensor::from_slice(Device::Cpu, &shape, &values).unwrap();
            }
        }
        let mut model = Model {
            parameters: &mut parameters,
            hooks: &mut hooks,
            encoder: network.encoder(),
            classifier: network.classifier(),
            fresh: &loaded.fresh,
            trains_pooler: false,
            tokenizer: None,
            seed,
        };
        let applied = adjust(&mut model).unwrap();
        Head { network, parameters, hooks, applied }
    }

    fn var(&self, tape: &Tape, rows: &Rows, chosen: &[usize]) -> Var {
        let batch = &rows.tokens.batch(chosen).unwrap();
        let (parameters, hooks) = (&self.parameters, &self.hooks);
        let forward = Forward {
            tape,
            parameters,
            hooks,
            batch,
            dropout: None,
            mixture: None,
            dtype: DType::F32,
            recompute: false,
            cache: None,
        };
        self.network.logits(&forward).unwrap()
    }

    fn logits(&self, rows: &Rows, chosen: &[usize]) -> Vec<f32> {
        self.var(&Tape::inference(), rows, chosen).value().f32().to_vec()
    }

    fn loss(&self, tape: &Tape, rows: &Rows) -> Var {
        let all = rows.all();
        let logits = self.var(tape, rows, &all);
        let batch = rows.tokens.batch(&all).unwrap();
        let output = HeadOutput::of_logits(tape, &batch, logits);
        rows.targets.loss(&output, &all, rows.targets.denominator(&all)).unwrap()
    }

    /// Puts it in a folder, as a result is.
    fn save(&self, rows: &Rows, method: &dyn peft::Method, into: &Path) {
        let tensors: Vec<(String, Tensor)> = match &self.applied {
            Applied::Model => {
                std::fs::copy(folder().join("model/config.json"), into.join("config.json")).unwrap();
                self.parameters.iter().map(|(_, one)| (one.name.clone(), one.value.clone())).collect()
            }
            Applied::Adapter(adapter) => {
                let file = method.file(adapter, &self.hooks, &self.parameters).unwrap();
                let base = peft::BaseCard {
                    path: &folder().join("model"),
                    revision: None,
                    model_type: "bert",
                    class: "BertModel",
                    task_type: rows.task.head().peft_task_type(),
                    hidden_size: 12,
                    labels: rows.form.labels().names(),
                };
                for (name, document) in file.documents(&base) {
                    std::fs::write(into.join(name), serde_json::to_vec(&document).unwrap()).unwrap();
                }
                for (name, tensors) in file.weights() {
                    write(&into.join(name), tensors.into_iter().map(|(name, value)| (name.clone(), value)));
                }
                return;
            }
        };
        write(&into.join("model.safetensors"), tensors.iter().map(|(name, value)| (name.clone(), value)));
    }
}

fn write<'t>(path: &Path, tensors: impl IntoIterator<Item = (String, &'t Tensor)>) {
    let all: Vec<_> =
        tensors.into_iter().map(|(name, value)| (name, value.shape().to_vec(), value.f32())).collect();
    write_safetensors(path, &all, &Default::default()).unwrap();
}

fn reference() -> Weights {
    Weights::open(folder().join("expected.safetensors")).unwrap()
}

fn pretrained(rows: &Rows) -> Head {
    Head::open(&folder().join("model"), rows, false, |_| Ok(Applied::Model))
}

/// Logits of each row of a batch, one's after the other's.
fn each(rows: &Rows, logits: &[f32]) -> Vec<Vec<f32>> {
    let outputs = rows.expected.labels.len();
    let mut rest = logits;
    let mut row = |row: usize| {
        let length = outputs * if rows.expected.reads_tokens { rows.tokens.length(row) } else { 1 };
        let (here, more) = rest.split_at(length);
        rest = more;
        here.to_vec()
    };
    let all = rows.all().into_iter().map(&mut row).collect();
    assert!(rest.is_empty(), "{}", rows.expected.name);
    all
}

#[test]
fn heads_logits_and_losses_are_those_of_transformers() {
    for rows in every_task() {
        let name = rows.expected.name;
        assert_eq!(rows.task.head().reads_tokens(), rows.expected.reads_tokens, "{name}");
        let head = pretrained(&rows);
        let expected = |what: &str| reference().read_f32(&format!("{name}.{what}")).unwrap();
        let apart = relative(&head.logits(&rows, &rows.all()), &expected("logits"));
        assert!(apart < 1e-5, "{name}: logits are {apart} away");
        let loss = head.loss(&Tape::inference(), &rows).value().item().unwrap();
        let apart = relative(&[loss], &expected("loss"));
        assert!(apart < 1e-5, "{name}: the loss is {loss}, {apart} away");
        // An evaluation counts the same loss, a batch at a time.
        let logits = each(&rows, &head.logits(&rows, &rows.all()));
        let mut score = rows.targets.score(Default::default());
        logits.iter().enumerate().for_each(|(row, logits)| score.add(&[row], logits).unwrap());
        let measured = score.measure(None);
        let apart = (measured.loss - f64::from(loss)).abs();
        assert!(apart < 1e-5, "{name}: an evaluation says {} for {loss}", measured.loss);
        assert!(measured.metrics.get(rows.form.spec().decides).is_some(), "{name}");
    }
}

#[test]
fn a_row_in_a_batch_equals_the_row_alone() {
    for rows in every_task() {
        let head = pretrained(&rows);
        let together = each(&rows, &head.logits(&rows, &rows.all()));
        for (row, logits) in together.iter().enumerate() {
            let apart = relative(&head.logits(&rows, &[row]), logits);
            assert!(apart < 1e-5, "{}: row {row}: {apart}", rows.expected.name);
        }
    }
}

#[test]
fn answers_are_those_of_a_plain_reading() {
    for rows in every_task() {
        let lengths: Vec<usize> =
            each(&rows, &pretrained(&rows).logits(&rows, &rows.all())).iter().map(Vec::len).collect();
        let mut different = std::collections::BTreeSet::new();
        for seed in 0..50 {
            let mut draw = Key::new(seed).stream();
            let logits: Vec<Vec<f32>> = lengths
                .iter()
                .map(|length| (0..*length).map(|_| draw.uniform() * 8.0 - 4.0).collect())
                .collect();
            let mut decode = rows.form.decode(&rows.examples, &rows.tokens).unwrap();
            let mut found = Vec::new();
            // Two rows at a time, so that examples end in the middle of a batch and begin in another.
            for pair in rows.all().chunks(2) {
                let logits: Vec<f32> = pair.iter().flat_map(|row| logits[*row].clone()).collect();
                found.extend(decode.add(pair, &logits).unwrap().iter().map(|one| said(&one.answer)));
            }
            assert_eq!(found, (rows.expected.plain)(&rows, &logits), "{}, seed {seed}", rows.expected.name);
            different.extend(found);
        }
        assert!(different.len() > 2, "{}: {different:?}", rows.expected.name);
    }
}

#[test]
fn every_method_trains_it_saves_it_and_gives_it_back() {
    for rows in every_task() {
        for method in METHODS {
            let what = format!("{} by {}", rows.expected.name, method.name());
            let options = options(&given(*method));
            let mut head =
                Head::open(&folder().join("model"), &rows, false, |model| method.apply(model, &options));
            let tape = Tape::recording();
            let loss = head.loss(&tape, &rows);
            let mut gradients = Gradients::new();
            tape.backward(&loss, &mut gradients).unwrap();
            for (id, parameter) in head.parameters.iter() {
                let reached = gradients.get(id).is_some();
                assert_eq!(reached, parameter.trainable, "{what}: {}", parameter.name);
            }
            let last = head.network.classifier().weight;
            assert!(head.parameters.get(last).trainable, "{what}: the head is not trained");
            // Away from the start, so that what is not saved shows.
            let trained: Vec<_> = head.parameters.trainable().map(|(id, _)| id).collect();
            for (salt, id) in trained.into_iter().enumerate() {
                let value = &mut head.parameters.get_mut(id).value;
                let moved = value
                    .f32()
                    .iter()
                    .enumerate()
                    .map(|(index, x)| x + (((index + salt) * 29 % 17) as f32 - 8.0) * 0.01);
                *value = Tensor::from_slice(Device::Cpu, value.shape(), &moved.collect::<Vec<_>>()).unwrap();
            }
            let saved = tempfile::tempdir().unwrap();
            head.save(&rows, *method, saved.path());
            let again = match &head.applied {
                Applied::Model => Head::open(saved.path(), &rows, true, |_| Ok(Applied::Model)),
                Applied::Adapter(_) => {
                    let (reader, files) = peft::open_adapter(saved.path()).unwrap();
                    Head::open(&folder().join("model"), &rows, false, |model| reader.load(model, &files))
                }
            };
            let (before, behind) = (head.logits(&rows, &rows.all()), again.logits(&rows, &rows.all()));
            assert_eq!(before, behind, "{what}");
            let start = pretrained(&rows).logits(&rows, &rows.all());
            assert!(relative(&before, &start) > 1e-3, "{what}: nothing has moved");
        }
    }
}
