//! Every family against transformers: hidden states, logits, loss and every gradient of tiny random models, in the forms
//! in which checkpoints come (see `oracle/tiny_bert.py`, `oracle/tiny_encoders.py` and `oracle/tiny_decoders.py`).

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may stop at the first surprise")]

use std::path::{Path, PathBuf};

use retune_model::families::{self, HeadKind};
use retune_model::formats::Weights;
use retune_model::layers::Linear;
use retune_model::{Batch, BatchRow, Forward, Hooks, Init};
use retune_tensor::backend::Activation;
use retune_tensor::random::Key;
use retune_tensor::{DType, Device, Gradients, Parameters, Tape, Tensor, ops};
use serde::Deserialize;

#[derive(Deserialize)]
struct Rows {
    input_ids: Vec<Vec<u32>>,
    token_type_ids: Vec<Vec<u32>>,
    labels: Vec<u32>,
    num_labels: usize,
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// The largest difference, as a share of the largest reference value.
fn relative(got: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(got.len(), expected.len());
    let scale = expected.iter().fold(0.0f32, |max, x| max.max(x.abs()));
    got.iter().zip(expected).fold(0.0f32, |max, (a, b)| max.max((a - b).abs())) / scale.max(1e-12)
}

struct Case {
    parameters: Parameters,
    encoder: Box<dyn families::Encoder>,
    classifier: Linear,
    expected: Weights,
    rows: Rows,
}

impl Case {
    fn open(name: &str) -> Self {
        let folder = folder(name);
        let rows: Rows =
            serde_json::from_str(&std::fs::read_to_string(folder.join("expected.json")).unwrap()).unwrap();
        let expected = Weights::open(folder.join("expected.safetensors")).unwrap();
        let mut opened = families::open(&folder, HeadKind::Sequence, Device::Cpu, Key::new(1)).unwrap();
        let hidden = opened.encoder.hidden_size();
        let classifier = Linear::load_or_init_with(
            &mut opened.checkpoint,
            opened.encoder.head().name,
            hidden,
            rows.num_labels,
            Init::Normal(0.02),
            opened.encoder.head().bias,
        );
        let loaded = opened.checkpoint.finish().unwrap();
        let mut parameters = loaded.parameters;
        // What the checkpoint lacks was drawn anew: the reference says what it drew.
        for name in &loaded.fresh {
            let value = expected.read_f32(&format!("init.{name}")).unwrap();
            let id = parameters.find(name).unwrap();
            let shape = parameters.get(id).value.shape().to_vec();
            parameters.get_mut(id).value = Tensor::from_slice(Device::Cpu, &shape, &value).unwrap();
        }
        let fresh = expected.names().filter(|name| name.starts_with("init.")).count();
        assert_eq!(fresh, loaded.fresh.len(), "{name}: drawn anew: {:?}", loaded.fresh);
        parameters.iter_mut().for_each(|(_, parameter)| parameter.trainable = true);
        Case { parameters, encoder: opened.encoder, classifier: classifier.unwrap(), expected, rows }
    }

    fn batch(&self, rows: std::ops::Range<usize>) -> Batch {
        Batch::new(rows.map(|row| BatchRow {
            id: row as u64,
            input_ids: &self.rows.input_ids[row],
            token_type_ids: &self.rows.token_type_ids[row],
        }))
    }

    fn logits(&self, tape: &Tape, batch: &Batch) -> (Tensor, retune_tensor::Var) {
        let hooks = Hooks::new();
        let forward = Forward {
            tape,
            parameters: &self.parameters,
            hooks: &hooks,
            batch,
            dropout: None,
            mixture: None,
            dtype: DType::F32,
            recompute: false,
            cache: None,
        };
        let silent = Tape::inference();
        let hidden = self.encoder.encode(&Forward { tape: &silent, ..forward }).unwrap();
        let pooled = self.encoder.head_input(&forward).unwrap();
        let logits = self.classifier.forward(&forward, &pooled, &batch.pooled, Activation::Identity).unwrap();
        (hidden.value().clone(), logits)
    }
}

fn check(name: &str) {
    let case = Case::open(name);
    let expect = |what: &str, got: &[f32]| {
        let error = relative(got, &case.expected.read_f32(what).unwrap());
        assert!(error < 1e-4, "{name}: {what}: relative error {error}");
    };
    let tape = Tape::recording();
    let all = case.batch(0..case.rows.labels.len());
    let (hidden, logits) = case.logits(&tape, &all);
    expect("hidden", hidden.f32());
    expect("logits", logits.value().f32());
    let options = ops::CrossEntropyOptions {
        class_weights: None,
        label_smoothing: 0.0,
        denominator: case.rows.labels.len() as f32,
    };
    let loss = ops::cross_entropy(&tape, &logits, &case.rows.labels, options).unwrap();
    expect("loss", loss.value().f32());
    let mut gradients = Gradients::new();
    tape.backward(&loss, &mut gradients).unwrap();
    for (id, parameter) in case.parameters.iter() {
        let gradient =
            gradients.get(id).unwrap_or_else(|| panic!("{name}: no gradient of {}", parameter.name));
        let keys = ["self.key.bias", "k_lin.bias"];
        if keys.iter().any(|end| parameter.name.ends_with(end)) {
            // Softmax does not see what is added to all scores of a row: exactly 0, and f32 leaves a little.
            assert!(gradient.f32().iter().all(|g| g.abs() < 1e-4), "{name}: {}", parameter.name);
            continue;
        }
        expect(&format!("grad.{}", parameter.name), &gradient.f32());
    }
    let references = case.expected.names().filter(|name| name.starts_with("grad.")).count();
    assert_eq!(references, case.parameters.iter().count(), "{name}: gradients compared");

    // Packed is alone: the same row, in a batch and by itself.
    let together = logits.value().f32();
    for row in 0..case.rows.labels.len() {
        let (_, alone) = case.logits(&Tape::inference(), &case.batch(row..row + 1));
        let columns = case.rows.num_labels;
        let error = relative(alone.value().f32(), &together[row * columns..(row + 1) * columns]);
        assert!(error < 1e-5, "{name}: row {row} alone: {error}");
    }
}

/// Folders under `golden`, and the family of each. A family without one has no test: that is an error of whoever added
/// it.
const CASES: [(&str, &str); 26] = [
    ("bert-classifier", "bert"),
    // f16, neither prefix nor pooler.
    ("bert-bare", "bert"),
    ("bert-bare-pooler-bf16", "bert"),
    ("bert-sharded", "bert"),
    ("bert-pretraining", "bert"),
    ("roberta-classifier", "roberta"),
    // f16, another padding token, a pretraining head that is not asked for.
    ("roberta-masked", "roberta"),
    // bf16, no prefix, a pooler that is not asked for.
    ("xlm-roberta-bare", "xlm-roberta"),
    ("camembert-classifier", "camembert"),
    ("distilbert-classifier", "distilbert"),
    ("distilbert-masked", "distilbert"),
    ("distilbert-bare", "distilbert"),
    // Embeddings that are narrower than the hidden states.
    ("electra-classifier", "electra"),
    ("electra-discriminator", "electra"),
    // A window in the last block, no biases.
    ("modernbert-classifier", "modernbert"),
    // f16, the mean of a row, every bias, the old names of the configuration's keys.
    ("modernbert-masked", "modernbert"),
    // bf16, no prefix, no head.
    ("modernbert-bare", "modernbert"),
    // Rows that end with the padding token.
    ("gpt2-classifier", "gpt2"),
    ("gpt2-causal", "gpt2"),
    // bf16, no prefix.
    ("gpt2-bare", "gpt2"),
    ("llama-classifier", "llama"),
    ("llama-causal", "llama"),
    ("llama-biased", "llama"),
    ("mistral-causal", "mistral"),
    ("qwen2-causal", "qwen2"),
    ("qwen3-causal", "qwen3"),
];

/// Those of them that are language models.
const LANGUAGE: [&str; 6] = [
    "gpt2-causal",
    // Tied, fewer key heads, stretched as Llama 3.
    "llama-causal",
    // f16, every bias, heads wider than the stream, YaRN by the old keys.
    "llama-biased",
    // bf16, each block with a window.
    "mistral-causal",
    // Windows in the upper blocks, positions stretched evenly.
    "qwen2-causal",
    // Heads of another width than the stream shares out.
    "qwen3-causal",
];

#[derive(Deserialize)]
struct LanguageRows {
    input_ids: Vec<Vec<u32>>,
    /// -100 where nothing is to be learnt.
    labels: Vec<Vec<i64>>,
}

impl LanguageRows {
    fn batch(&self, rows: std::ops::Range<usize>) -> Batch {
        Batch::new(rows.map(|row| BatchRow {
            id: row as u64,
            input_ids: &self.input_ids[row],
            token_type_ids: &[],
        }))
    }

    /// The tokens that tell the next, among all tokens, and what that is.
    fn told(&self) -> (Vec<usize>, Vec<u32>) {
        let (mut tokens, mut targets, mut start) = (Vec::new(), Vec::new(), 0);
        for labels in &self.labels {
            for (place, label) in labels.iter().enumerate().skip(1) {
                if let Ok(label) = u32::try_from(*label) {
                    tokens.push(start + place - 1);
                    targets.push(label);
                }
            }
            start += labels.len();
        }
        (tokens, targets)
    }
}

fn check_language(name: &str) {
    let folder = folder(name);
    let rows: LanguageRows =
        serde_json::from_str(&std::fs::read_to_string(folder.join("language.json")).unwrap()).unwrap();
    let expected = Weights::open(folder.join("language.safetensors")).unwrap();
    let mut opened = families::open(&folder, HeadKind::Language, Device::Cpu, Key::new(1)).unwrap();
    let vocabulary = opened.encoder.head().vocabulary.unwrap();
    let hidden_size = opened.encoder.hidden_size();
    let checkpoint = &mut opened.checkpoint;
    let head = Linear::vocabulary(checkpoint, "lm_head", hidden_size, vocabulary).unwrap();
    let loaded = opened.checkpoint.finish().unwrap();
    assert!(
        loaded.fresh.is_empty() && loaded.unused.is_empty(),
        "{name}: {:?} {:?}",
        loaded.fresh,
        loaded.unused
    );
    let mut parameters = loaded.parameters;
    parameters.iter_mut().for_each(|(_, parameter)| parameter.trainable = true);
    let expect = |what: &str, got: &[f32]| {
        let error = relative(got, &expected.read_f32(what).unwrap());
        assert!(error < 1e-4, "{name}: {what}: relative error {error}");
    };
    let hooks = Hooks::new();
    let run = |tape: &Tape, batch: &Batch, dtype| {
        let (parameters, hooks) = (&parameters, &hooks);
        let forward = Forward {
            tape,
            parameters,
            hooks,
            batch,
            dropout: None,
            mixture: None,
            dtype,
            recompute: false,
            cache: None,
        };
        let hidden = opened.encoder.head_input(&forward).unwrap();
        let logits = head.forward(&forward, &hidden, &batch.layout, Activation::Identity).unwrap();
        (hidden, forward.parameter(head.weight), logits)
    };
    let tape = Tape::recording();
    let all = rows.batch(0..rows.labels.len());
    let (hidden, weight, logits) = run(&tape, &all, DType::F32);
    expect("hidden", hidden.value().f32());
    expect("logits", logits.value().f32());
    let (tokens, targets) = rows.told();
    let count = targets.len() as f32;
    let told = ops::select_rows(&tape, &hidden, &tokens).unwrap();
    let loss = ops::vocabulary_cross_entropy(&tape, &told, &weight, &targets, count).unwrap();
    expect("loss", loss.value().f32());
    let losses = ops::vocabulary_losses(told.value(), weight.value(), &targets).unwrap();
    expect("loss", &[losses.f32().iter().sum::<f32>() / count]);
    let mut gradients = Gradients::new();
    tape.backward(&loss, &mut gradients).unwrap();
    for (id, parameter) in parameters.iter() {
        let gradient =
            gradients.get(id).unwrap_or_else(|| panic!("{name}: no gradient of {}", parameter.name));
        if parameter.name.ends_with("k_proj.bias") && name != "llama-biased" {
            // As for other keys, where positions do not turn them.
            continue;
        }
        expect(&format!("grad.{}", parameter.name), &gradient.f32());
    }
    let references = expected.names().filter(|name| name.starts_with("grad.")).count();
    assert_eq!(references, parameters.iter().count(), "{name}: gradients compared");

    // Packed is alone.
    let columns = vocabulary.size;
    for (row, ends) in all.layout.cu_seqlens().windows(2).enumerate() {
        let (_, _, alone) = run(&Tape::inference(), &rows.batch(row..row + 1), DType::F32);
        let error =
            relative(alone.value().f32(), &logits.value().f32()[ends[0] * columns..ends[1] * columns]);
        assert!(error < 1e-5, "{name}: row {row} alone: {error}");
    }
    // In bf16 the same, but for its rounding.
    let (narrow, ..) = run(&Tape::inference(), &all, DType::Bf16);
    let narrow = narrow.value().to(DType::F32).unwrap();
    let apart = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>();
    let wide = hidden.value().f32();
    let share = (apart(narrow.f32(), wide) / apart(&vec![0.0; wide.len()], wide)).sqrt();
    assert!(share < 0.05, "{name}: {share} apart in bf16");
}

#[test]
fn language_models_are_those_of_transformers() {
    LANGUAGE.iter().for_each(|name| check_language(name));
}

#[test]
fn hidden_states_logits_loss_and_gradients_are_those_of_transformers() {
    CASES.iter().for_each(|(name, _)| check(name));
}

#[test]
fn every_family_has_a_case() {
    for family in families::FAMILIES {
        let known = CASES.iter().find(|(_, model_type)| *model_type == family.model_type());
        let (name, _) = known.unwrap_or_else(|| panic!("`{}` has no case", family.model_type()));
        let opened = families::open(&folder(name), HeadKind::Sequence, Device::Cpu, Key::new(1)).unwrap();
        assert_eq!(opened.family.model_type(), family.model_type());
        assert_eq!(opened.encoder.head().name, family.head_name(HeadKind::Sequence), "{name}");
        // The longest row is as long as transformers can take: of RoBERTa's positions, the first are never a text's.
        let longest = Case::open(name).rows.input_ids.iter().map(Vec::len).max().unwrap();
        assert_eq!(opened.encoder.max_length(), longest, "{name}");
        for words in [family.summary(), &family.class(HeadKind::Sequence)] {
            assert!(!words.is_empty() && !words.ends_with('.'), "{name}: {words}");
        }
    }
}

#[test]
fn positions_that_leave_no_room_are_refused() {
    for (change, expected) in [
        (("pad_token_id", serde_json::Value::Null), "`pad_token_id`: expected the padding token's number"),
        (
            ("max_position_embeddings", 2.into()),
            "`max_position_embeddings`: expected more than 2, as positions",
        ),
        (("position_embedding_type", "relative_key".into()), "expected `absolute`, got `relative_key`"),
        (("is_decoder", true.into()), "`is_decoder`: expected false"),
    ] {
        let at = tempfile::tempdir().unwrap();
        let golden = folder("roberta-classifier");
        std::fs::copy(golden.join("model.safetensors"), at.path().join("model.safetensors")).unwrap();
        let config = std::fs::read_to_string(golden.join("config.json")).unwrap();
        let mut config: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&config).unwrap();
        config.insert(change.0.into(), change.1);
        std::fs::write(at.path().join("config.json"), serde_json::Value::Object(config).to_string()).unwrap();
        let error = families::open(at.path(), HeadKind::Sequence, Device::Cpu, Key::new(1))
            .err()
            .unwrap()
            .to_string();
        assert!(error.contains(expected), "{error}");
    }
}
