//! Heads over tokens and over spans, of every family: logits, loss and gradients are those of transformers, and a row among
//! others has the logits that it has alone (see `oracle/token_heads.py`).

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may stop at the first surprise")]

mod golden;

use golden::{folder, relative};
use retune_adapt::tasks::EncoderWithHead;
use retune_model::families::{self, HeadKind};
use retune_model::formats::Weights;
use retune_model::{Batch, BatchRow, Forward, Hooks};
use retune_tensor::random::Key;
use retune_tensor::{DType, Device, Gradients, Parameters, Tape, Tensor, Var, ops};
use serde::Deserialize;

/// XLM-RoBERTa is RoBERTa with another vocabulary, and one file holds all decoders like Llama.
const CASES: [&str; 8] = [
    "bert-classifier",
    "roberta-classifier",
    "camembert-classifier",
    "distilbert-classifier",
    "electra-classifier",
    "modernbert-classifier",
    "gpt2-classifier",
    "llama-classifier",
];

#[derive(Deserialize)]
struct Rows {
    input_ids: Vec<Vec<u32>>,
    token_type_ids: Vec<Vec<u32>>,
}

struct Head {
    network: EncoderWithHead,
    parameters: Parameters,
    rows: Rows,
}

impl Head {
    fn open(case: &str, kind: HeadKind, outputs: usize, expected: &Weights, prefix: &str) -> Self {
        let folder = folder(case);
        let rows = std::fs::read_to_string(folder.join("expected.json")).unwrap();
        let mut opened = families::open(&folder, kind, Device::Cpu, Key::new(3)).unwrap();
        let network = EncoderWithHead::build(opened.encoder, &mut opened.checkpoint, false, outputs).unwrap();
        let mut parameters = opened.checkpoint.finish().unwrap().parameters;
        for (id, part) in network.classifier().parameters().zip(["weight", "bias"]) {
            let value = expected.read_f32(&format!("{prefix}.{part}")).unwrap();
            let shape = parameters.get(id).value.shape().to_vec();
            parameters.get_mut(id).value = Tensor::from_slice(Device::Cpu, &shape, &value).unwrap();
        }
        parameters.iter_mut().for_each(|(_, parameter)| parameter.trainable = true);
        Head { network, parameters, rows: serde_json::from_str(&rows).unwrap() }
    }

    fn logits(&self, tape: &Tape, rows: std::ops::Range<usize>) -> Var {
        let batch = Batch::new(rows.map(|row| BatchRow {
            id: row as u64,
            input_ids: &self.rows.input_ids[row],
            token_type_ids: &self.rows.token_type_ids[row],
        }));
        let hooks = Hooks::new();
        let (parameters, hooks) = (&self.parameters, &hooks);
        let forward = Forward {
            tape,
            parameters,
            hooks,
            batch: &batch,
            dropout: None,
            mixture: None,
            dtype: DType::F32,
            recompute: false,
            cache: None,
        };
        self.network.logits(&forward).unwrap()
    }
}

#[test]
fn logits_loss_and_gradients_are_those_of_transformers() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/token_heads.safetensors");
    let expected = Weights::open(path).unwrap();
    for case in CASES {
        for (kind, name, outputs) in [(HeadKind::Token, "token", 3), (HeadKind::Question, "question", 2)] {
            let decodes = ["gpt2", "llama"].iter().any(|family| case.starts_with(family));
            if decodes && kind == HeadKind::Question {
                let refused = families::open(&folder(case), kind, Device::Meta, Key::new(3)).err().unwrap();
                assert!(refused.to_string().contains("a model of questions over texts"), "{refused}");
                continue;
            }
            let prefix = format!("{case}.{name}");
            let expect = |what: &str, got: &[f32]| {
                let error = relative(got, &expected.read_f32(&format!("{prefix}.{what}")).unwrap());
                assert!(error < 1e-4, "{prefix}: {what}: relative error {error}");
            };
            let head = Head::open(case, kind, outputs, &expected, &prefix);
            let tape = Tape::recording();
            let count = head.rows.input_ids.len();
            let logits = head.logits(&tape, 0..count);
            expect("logits", logits.value().f32());
            let ids = head.rows.input_ids.iter().flatten();
            let targets: Vec<u32> = ids.map(|id| (7 * id + 3) % outputs as u32).collect();
            let options = ops::CrossEntropyOptions {
                class_weights: None,
                label_smoothing: 0.0,
                denominator: targets.len() as f32,
            };
            let loss = ops::cross_entropy(&tape, &logits, &targets, options).unwrap();
            expect("loss", loss.value().f32());
            let mut gradients = Gradients::new();
            tape.backward(&loss, &mut gradients).unwrap();
            expect("grad.weight", gradients.get(head.network.classifier().weight).unwrap().f32().as_ref());
            // No pooler and no other layer that this head has not.
            for (id, parameter) in head.parameters.iter() {
                assert!(gradients.get(id).is_some(), "{prefix}: no gradient of {}", parameter.name);
            }
            let alone: Vec<f32> = (0..count)
                .flat_map(|row| head.logits(&Tape::inference(), row..row + 1).value().f32().to_vec())
                .collect();
            let apart = relative(&alone, logits.value().f32());
            assert!(apart < 1e-5, "{prefix}: rows alone are {apart} away");
        }
    }
}

#[test]
fn classes_and_last_layers_are_called_as_in_transformers() {
    for (model_type, class, last) in [
        ("bert", "BertForQuestionAnswering", "qa_outputs"),
        ("roberta", "RobertaForQuestionAnswering", "qa_outputs"),
        ("xlm-roberta", "XLMRobertaForQuestionAnswering", "qa_outputs"),
        ("camembert", "CamembertForQuestionAnswering", "qa_outputs"),
        ("distilbert", "DistilBertForQuestionAnswering", "qa_outputs"),
        ("electra", "ElectraForQuestionAnswering", "qa_outputs"),
        ("modernbert", "ModernBertForQuestionAnswering", "classifier"),
    ] {
        let family = families::FAMILIES.iter().find(|family| family.model_type() == model_type).unwrap();
        assert_eq!(family.class(HeadKind::Question), class);
        assert_eq!(family.head_name(HeadKind::Question), last);
        assert_eq!(family.head_name(HeadKind::Token), "classifier");
        assert_eq!(family.class(HeadKind::Token), class.replace("QuestionAnswering", "TokenClassification"));
    }
    for (model_type, class, last) in [
        ("gpt2", "GPT2LMHeadModel", "classifier"),
        ("llama", "LlamaForCausalLM", "score"),
        ("mistral", "MistralForCausalLM", "score"),
        ("qwen2", "Qwen2ForCausalLM", "score"),
        ("qwen3", "Qwen3ForCausalLM", "score"),
    ] {
        let family = families::FAMILIES.iter().find(|family| family.model_type() == model_type).unwrap();
        assert_eq!(family.class(HeadKind::Language), class);
        assert_eq!(
            [HeadKind::Language, HeadKind::Sequence, HeadKind::Token].map(|kind| family.head_name(kind)),
            ["lm_head", "score", last]
        );
        let token = class.replace("LMHeadModel", "ForTokenClassification");
        assert_eq!(family.class(HeadKind::Token), token.replace("ForCausalLM", "ForTokenClassification"));
    }
}
