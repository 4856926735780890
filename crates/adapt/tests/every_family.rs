//! Every family with a head and with adapters: what is drawn anew, what is trained and saved, and that adapters of `peft`
//! give its logits, loss and gradients (see `oracle/tiny_bert.py`,
//! `oracle/tiny_encoders.py` and `oracle/tiny_decoders.py`).

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may stop at the first surprise")]

mod golden;

use golden::{Case, folder, given, is_virtual, options, relative, starts_near};
use retune_adapt::peft::{self, Adapter, Applied, METHODS};
use retune_adapt::tasks::EncoderWithHead;
use retune_model::families::{self, HeadKind};
use retune_model::formats::Weights;
use retune_tensor::Device;
use retune_tensor::random::Key;

/// What is expected of a family's head and adapters.
struct Expected {
    /// A checkpoint with a head, and with an adapter of `peft` under `lora/`.
    tuned: &'static str,
    /// One as it was pretrained.
    pretrained: &'static str,
    /// The last layer.
    last: &'static str,
    /// Whether that has a bias.
    bias: bool,
    /// The layers under it, where the checkpoint lacks them, and the modules that `peft` copies for all of the head.
    inner: Option<&'static str>,
    /// What else the head has.
    norm: &'static [&'static str],
    modules: &'static [&'static str],
    /// Whether the inner layers are the classifier's own, trained by LoRA wherever they come from.
    whole: bool,
    /// What LoRA is on, if nobody says.
    targets: &'static [&'static str],
}

const BLOCK: [&str; 6] = [
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "intermediate.dense",
    "output.dense",
];

/// A family without an entry here has no test: that is an error of whoever added it.
fn expected(model_type: &str) -> Expected {
    let dense = Expected {
        tuned: "roberta-classifier",
        pretrained: "roberta-masked",
        last: "classifier.out_proj",
        bias: true,
        inner: Some("classifier.dense"),
        norm: &[],
        modules: &["classifier"],
        whole: true,
        targets: &BLOCK,
    };
    match model_type {
        "bert" => Expected {
            tuned: "bert-classifier",
            pretrained: "bert-bare",
            last: "classifier",
            bias: true,
            inner: Some("bert.pooler.dense"),
            norm: &[],
            modules: &["classifier", "pooler"],
            whole: false,
            targets: &BLOCK,
        },
        // One file holds the three.
        "roberta" | "camembert" => dense,
        "xlm-roberta" => Expected { pretrained: "xlm-roberta-bare", ..dense },
        "distilbert" => Expected {
            tuned: "distilbert-classifier",
            pretrained: "distilbert-masked",
            last: "classifier",
            bias: true,
            inner: Some("pre_classifier"),
            norm: &[],
            modules: &["classifier", "pre_classifier"],
            whole: true,
            targets: &[
                "attention.q_lin",
                "attention.k_lin",
                "attention.v_lin",
                "attention.out_lin",
                "ffn.lin1",
                "ffn.lin2",
            ],
        },
        "electra" => Expected { tuned: "electra-classifier", pretrained: "electra-discriminator", ..dense },
        "modernbert" => Expected {
            tuned: "modernbert-classifier",
            pretrained: "modernbert-bare",
            last: "classifier",
            bias: true,
            inner: Some("head.dense"),
            norm: &["head.norm.weight"],
            modules: &["classifier", "head"],
            whole: false,
            targets: &["attn.Wqkv", "attn.Wo", "mlp.Wi", "mlp.Wo"],
        },
        "gpt2" => Expected {
            tuned: "gpt2-classifier",
            pretrained: "gpt2-causal",
            last: "score",
            bias: false,
            inner: None,
            norm: &[],
            modules: &["score"],
            whole: false,
            targets: &["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"],
        },
        // One file holds the blocks of the four.
        "llama" => llama("llama-causal"),
        "mistral" => llama("mistral-causal"),
        "qwen2" => llama("qwen2-causal"),
        "qwen3" => llama("qwen3-causal"),
        other => panic!("`{other}` has no entry in this table"),
    }
}

fn llama(pretrained: &'static str) -> Expected {
    Expected {
        tuned: "llama-classifier",
        pretrained,
        last: "score",
        bias: false,
        inner: None,
        norm: &[],
        modules: &["score"],
        whole: false,
        targets: &[
            "self_attn.q_proj",
            "self_attn.k_proj",
            "self_attn.v_proj",
            "self_attn.o_proj",
            "mlp.gate_proj",
            "mlp.up_proj",
            "mlp.down_proj",
        ],
    }
}

impl Expected {
    /// The parameters of the last layer.
    fn last_parameters(&self) -> Vec<String> {
        let all = parameters(self.last);
        all.into_iter().take(1 + usize::from(self.bias)).collect()
    }

    /// Those of the layers under it.
    fn inner_parameters(&self) -> Vec<String> {
        self.inner.map(parameters).into_iter().flatten().collect()
    }
}

fn all() -> impl Iterator<Item = Expected> {
    families::FAMILIES.iter().map(|family| expected(family.model_type()))
}

fn parameters(layer: &str) -> [String; 2] {
    ["weight", "bias"].map(|part| format!("{layer}.{part}"))
}

fn strings(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

fn lora(base: &str, keep_head: bool) -> Case {
    let lora = peft::find("lora").unwrap();
    Case::open(base, keep_head, |model| lora.apply(model, &options(&[]))).unwrap()
}

fn adapter(case: &Case) -> &Adapter {
    match &case.applied {
        Applied::Adapter(adapter) => adapter,
        Applied::Model => panic!("LoRA is an adapter"),
    }
}

#[test]
fn a_head_of_other_classes_is_drawn_anew_and_one_of_the_same_is_kept() {
    for expected in all() {
        let Expected { tuned, pretrained, last, norm, .. } = expected;
        let head = expected.last_parameters();
        assert!(Case::base(tuned, true).fresh.is_empty(), "{tuned}");
        // The layers under the last are kept, as transformers keeps them.
        assert_eq!(Case::base(tuned, false).fresh, head, "{tuned}");
        let fresh = [expected.inner_parameters(), strings(norm), head.clone()].concat();
        assert_eq!(Case::base(pretrained, true).fresh, fresh, "{pretrained}");
        let mut opened =
            families::open(&folder(tuned), HeadKind::Sequence, Device::Cpu, Key::new(3)).unwrap();
        let classifier = EncoderWithHead::build(opened.encoder, &mut opened.checkpoint, false, 11).unwrap();
        let loaded = opened.checkpoint.finish().unwrap();
        assert_eq!((classifier.classifier().name.as_str(), loaded.fresh), (last, head), "{tuned}");
        assert_eq!(loaded.parameters.get(classifier.classifier().weight).value.rows(), 11, "{tuned}");
        // A head that is asked for must fit.
        let mut opened =
            families::open(&folder(tuned), HeadKind::Sequence, Device::Cpu, Key::new(3)).unwrap();
        EncoderWithHead::build(opened.encoder, &mut opened.checkpoint, true, 11).unwrap();
        let error = opened.checkpoint.finish().unwrap_err().to_string();
        assert!(error.contains(&format!("`{last}.weight` should have shape [11, ")), "{tuned}: {error}");
    }
}

#[test]
fn every_method_starts_at_the_pretrained_model_and_trains_the_head() {
    for expected in all() {
        let Expected { tuned, pretrained, .. } = expected;
        for method in METHODS {
            let is_virtual = is_virtual(*method);
            if is_virtual && tuned.starts_with("modernbert") {
                continue;
            }
            let given = options(&given(*method));
            for base in [tuned, pretrained] {
                let case = Case::open(base, true, |model| method.apply(model, &given)).unwrap();
                let moved = relative(&case.logits(), &Case::base(base, true).logits());
                // Some adapters start near the pretrained model, not at it; virtual tokens change its attention.
                let near = if starts_near(*method) { 0.05 } else { 0.0 };
                assert!(is_virtual || moved <= near, "{} on {base}: {moved}", method.name());
                assert!(!is_virtual || moved > 0.0, "{} on {base}", method.name());
                let gradients = case.gradients();
                for (id, parameter) in case.parameters.iter() {
                    let reached = gradients.get(id).is_some();
                    assert_eq!(
                        reached,
                        parameter.trainable,
                        "{} on {base}: {}",
                        method.name(),
                        parameter.name
                    );
                }
                let inner = if base == tuned { Vec::new() } else { expected.inner_parameters() };
                for name in [expected.last_parameters(), inner].concat() {
                    assert!(case.trained().contains(&name.as_str()), "{} on {base}: {name}", method.name());
                }
            }
        }
    }
}

#[test]
fn an_adapter_names_what_peft_must_copy_and_the_layers_of_the_encoder() {
    for expected in all() {
        let Expected { tuned, pretrained, norm, modules, whole, targets, .. } = expected;
        let case = lora(pretrained, true);
        let config = &adapter(&case).config;
        assert_eq!(config["modules_to_save"].as_array().unwrap(), modules, "{pretrained}");
        assert_eq!(config["target_modules"].as_array().unwrap(), targets, "{pretrained}");
        for name in [expected.last_parameters(), expected.inner_parameters(), strings(norm)].concat() {
            assert!(
                case.saved().contains(&format!("base_model.model.{name}").as_str()),
                "{pretrained}: {name}"
            );
        }
        // `peft` copies a module whole: none of it may be left out of the file.
        let case = lora(tuned, true);
        for inner in expected.inner_parameters() {
            let saved = case.saved().contains(&format!("base_model.model.{inner}").as_str());
            assert_eq!(saved, whole, "{tuned}: {inner}");
        }
        let modules = if whole { modules } else { &modules[..1] };
        assert_eq!(adapter(&case).config["modules_to_save"].as_array().unwrap(), modules, "{tuned}");
    }
    let case = lora("electra-classifier", true);
    let told = adapter(&case).config["target_modules"].as_array().unwrap();
    assert_eq!((told[0].as_str(), told.len()), (Some("electra.embeddings_project"), 7));
}

#[test]
fn logits_loss_and_gradients_are_those_of_peft_and_names_stay() {
    for Expected { tuned, .. } in all() {
        let folder = folder(tuned).join("lora");
        let (method, files) = peft::open_adapter(&folder).unwrap();
        let case = Case::open(tuned, false, |model| method.load(model, &files)).unwrap();
        let expected = Weights::open(folder.join("expected.safetensors")).unwrap();
        let expect = |what: &str, got: &[f32]| {
            let error = relative(got, &expected.read_f32(what).unwrap());
            assert!(error < 1e-4, "{tuned}: {what}: relative error {error}");
        };
        expect("logits", &case.logits());
        expect("loss", &[case.loss()]);
        let gradients = case.gradients();
        for (saved, id) in &adapter(&case).tensors {
            let gradient = gradients.get(*id).unwrap_or_else(|| panic!("{tuned}: no gradient of {saved}"));
            expect(&format!("grad.{saved}"), &gradient.f32());
        }
        let references = expected.names().filter(|name| name.starts_with("grad.")).count();
        assert_eq!(case.trained().len(), references, "{tuned}");
        let mut saved = case.saved();
        saved.sort_unstable();
        let weights = Weights::open(folder.join("adapter_model.safetensors")).unwrap();
        assert_eq!(saved, weights.names().collect::<Vec<_>>(), "{tuned}");
        // An adapter that does nothing would pass much of this.
        let without = relative(&Case::base(tuned, true).logits(), &expected.read_f32("logits").unwrap());
        assert!(without > 0.01, "{tuned}: the base alone is {without} away");
    }
}
