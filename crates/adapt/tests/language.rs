//! Language models with adapters: what is trained, and that adapters of `peft` give its logits, loss and gradients (see
//! `oracle/tiny_decoders.py`).

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may stop at the first surprise")]

mod golden;

use golden::{folder, given, is_virtual, options, relative, starts_near};
use retune_adapt::AdaptError;
use retune_adapt::peft::{self, Applied, METHODS, Model};
use retune_adapt::tasks::EncoderWithHead;
use retune_model::families::{self, HeadKind};
use retune_model::formats::Weights;
use retune_model::{Adapted, Batch, BatchRow, Forward, Hooks, KvCache, Mixture, Sampling};
use retune_tensor::random::Key;
use retune_tensor::{DType, Device, Gradients, Parameters, Tape, Tensor};
use serde::Deserialize;

/// One of each kind of block.
const MODELS: [&str; 6] =
    ["gpt2-causal", "llama-causal", "llama-biased", "mistral-causal", "qwen2-causal", "qwen3-causal"];

#[derive(Deserialize)]
struct Rows {
    input_ids: Vec<Vec<u32>>,
    labels: Vec<Vec<i64>>,
}

/// A language model with a method on it.
struct Case {
    parameters: Parameters,
    hooks: Hooks,
    network: EncoderWithHead,
    rows: Rows,
    applied: Applied,
}

impl Case {
    fn open(name: &str, adjust: impl FnOnce(&mut Model<'_>) -> Result<Applied, AdaptError>) -> Self {
        let folder = folder(name);
        let rows = std::fs::read_to_string(folder.join("language.json")).unwrap();
        let rows: Rows = serde_json::from_str(&rows).unwrap();
        let seed = Key::new(3);
        let mut opened = families::open(&folder, HeadKind::Language, Device::Cpu, seed).unwrap();
        let network = EncoderWithHead::build(opened.encoder, &mut opened.checkpoint, true, 0).unwrap();
        let loaded = opened.checkpoint.finish().unwrap();
        let (mut parameters, mut hooks) = (loaded.parameters, Hooks::new());
        let applied = adjust(&mut Model {
            parameters: &mut parameters,
            hooks: &mut hooks,
            encoder: network.encoder(),
            classifier: network.classifier(),
            fresh: &loaded.fresh,
            tokenizer: None,
            trains_pooler: false,
            seed,
        })
        .unwrap();
        Case { parameters, hooks, network, rows, applied }
    }

    fn base(name: &str) -> Self {
        Case::open(name, |_| Ok(Applied::Model))
    }

    /// Logits of all tokens, loss and gradients; rows are as long as virtual tokens leave room for.
    fn run(&self) -> (Vec<f32>, f32, Gradients) {
        let room = self.network.encoder().max_length() - self.hooks.virtual_tokens();
        let cut = |row: usize| self.rows.input_ids[row].len().min(room);
        let batch = Batch::new((0..self.rows.labels.len()).map(|row| BatchRow {
            id: row as u64,
            input_ids: &self.rows.input_ids[row][..cut(row)],
            token_type_ids: &[],
        }));
        let (mut tokens, mut targets) = (Vec::new(), Vec::new());
        for (row, ends) in batch.layout.cu_seqlens().windows(2).enumerate() {
            let labels = &self.rows.labels[row][..cut(row)];
            for (place, label) in labels.iter().enumerate().skip(1).filter(|(_, label)| **label >= 0) {
                tokens.push(ends[0] + place - 1);
                targets.push(u32::try_from(*label).unwrap());
            }
        }
        let tape = &Tape::recording();
        let (parameters, hooks, batch) = (&self.parameters, &self.hooks, &batch);
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
        let silent = Tape::inference();
        let logits = self.network.logits(&Forward { tape: &silent, ..forward }).unwrap();
        let tape = Tape::recording();
        let forward = Forward { tape: &tape, ..forward };
        let output = self.network.output(&forward).unwrap();
        let loss = output.vocabulary_loss(&tokens, &targets, targets.len() as f32).unwrap();
        let value = loss.value().item().unwrap();
        let mean = output.vocabulary_losses(&tokens, &targets).unwrap().f32().iter().sum::<f32>();
        assert!((mean / targets.len() as f32 - value).abs() < 1e-5 * value);
        drop(output);
        let mut gradients = Gradients::new();
        tape.backward(&loss, &mut gradients).unwrap();
        (logits.value().f32().to_vec(), value, gradients)
    }
}

#[test]
fn every_method_starts_at_the_pretrained_model_and_leaves_its_head() {
    for name in MODELS {
        let (base, ..) = Case::base(name).run();
        for method in METHODS {
            if method.name() == "bitfit" && name != "gpt2-causal" && !name.ends_with("biased") {
                continue;
            }
            let given = options(&given(*method));
            let case = Case::open(name, |model| method.apply(model, &given));
            let (logits, _, gradients) = case.run();
            if !is_virtual(*method) {
                let moved = relative(&logits, &base);
                let near = if starts_near(*method) { 0.05 } else { 0.0 };
                assert!(moved <= near, "{} on {name}: {moved}", method.name());
            }
            for (id, parameter) in case.parameters.iter() {
                let reached = gradients.get(id).is_some();
                assert_eq!(reached, parameter.trainable, "{} on {name}: {}", method.name(), parameter.name);
            }
            let head = case.parameters.get(case.network.classifier().weight);
            let own = ["full", "head"].contains(&method.name());
            assert_eq!(head.trainable, own, "{} on {name}: {}", method.name(), head.name);
            if let Applied::Adapter(adapter) = &case.applied
                && let Some(modules) = adapter.config.get("modules_to_save")
            {
                assert_eq!(modules.as_array().map(Vec::len), Some(0), "{} on {name}", method.name());
            }
        }
    }
}

#[test]
fn adapters_of_peft_give_its_logits_loss_and_gradients() {
    for name in ["gpt2-causal", "llama-causal"] {
        let folder = folder(name).join("lora-language");
        let (method, files) = peft::open_adapter(&folder).unwrap();
        let case = Case::open(name, |model| method.load(model, &files));
        let expected = Weights::open(folder.join("expected.safetensors")).unwrap();
        let expect = |what: &str, got: &[f32]| {
            let error = relative(got, &expected.read_f32(what).unwrap());
            assert!(error < 1e-4, "{name}: {what}: relative error {error}");
        };
        let (logits, loss, gradients) = case.run();
        expect("logits", &logits);
        expect("loss", &[loss]);
        let Applied::Adapter(adapter) = &case.applied else { panic!("LoRA is an adapter") };
        for (saved, id) in &adapter.tensors {
            let gradient = gradients.get(*id).unwrap_or_else(|| panic!("{name}: no gradient of {saved}"));
            expect(&format!("grad.{saved}"), &gradient.f32());
        }
        let references = expected.names().filter(|name| name.starts_with("grad.")).count();
        assert_eq!(adapter.tensors.len(), references, "{name}");
        let without = relative(&Case::base(name).run().0, &expected.read_f32("logits").unwrap());
        assert!(without > 0.01, "{name}: the base alone is {without} away");
    }
}

#[test]
fn what_is_merged_computes_the_same() {
    for name in ["gpt2-causal", "qwen3-causal"] {
        for method in METHODS.iter().filter(|method| method.merges().is_ok()) {
            let mut case = Case::open(name, |model| method.apply(model, &options(&given(*method))));
            let stream = &mut Key::new(7).with_name(method.name()).stream();
            // Far from where it started.
            for (_, parameter) in case.parameters.iter_mut().filter(|(_, parameter)| parameter.trainable) {
                parameter.value.f32_mut().unwrap().iter_mut().for_each(|x| *x += 0.1 * stream.normal());
            }
            let (before, ..) = case.run();
            method
                .merge(&mut Model {
                    parameters: &mut case.parameters,
                    hooks: &mut case.hooks,
                    encoder: case.network.encoder(),
                    classifier: case.network.classifier(),
                    fresh: &[],
                    tokenizer: None,
                    trains_pooler: false,
                    seed: Key::new(3),
                })
                .unwrap();
            let (after, ..) = case.run();
            let apart = relative(&after, &before);
            assert!(apart < 1e-4, "{} on {name}: {apart}", method.name());
            assert!(relative(&before, &Case::base(name).run().0) > 1e-3, "{} on {name}", method.name());
        }
    }
}

impl Case {
    /// The logits of what comes behind each row of `batch`, which `cache` may know the beginnings of.
    fn next(&self, batch: &Batch, cache: Option<&KvCache>, dtype: DType) -> Tensor {
        let tape = &Tape::inference();
        let (parameters, hooks, recompute) = (&self.parameters, &self.hooks, false);
        let (dropout, mixture) = (None, None);
        let forward = Forward { tape, parameters, hooks, batch, dropout, mixture, dtype, recompute, cache };
        self.network.output(&forward).unwrap().logits_of_last().unwrap()
    }

    /// The longer of its rows, as far as there is room.
    fn long_rows(&self) -> Vec<&[u32]> {
        let room = self.network.encoder().max_length() - self.hooks.virtual_tokens();
        let rows = self.rows.input_ids.iter().filter(|row| row.len() > 4);
        rows.map(|row| &row[..row.len().min(room)]).collect()
    }
}

fn batch_of<'a>(rows: impl IntoIterator<Item = &'a [u32]>) -> Batch {
    Batch::new((0..).zip(rows).map(row_of))
}

fn row_of((id, input_ids): (u64, &[u32])) -> BatchRow<'_> {
    BatchRow { id, input_ids, token_type_ids: &[] }
}

/// Where the rows of a batch are cut: in uneven beginnings, two tokens, and the last.
fn cuts(row: usize, length: usize) -> [std::ops::Range<usize>; 3] {
    let first = length - 3 - row % 2;
    [0..first, first..length - 1, length - 1..length]
}

#[test]
fn rows_that_go_on_are_whole_rows() {
    for name in MODELS {
        for method in METHODS {
            if method.name() == "bitfit" && name != "gpt2-causal" && !name.ends_with("biased") {
                continue;
            }
            let mut case = Case::open(name, |model| method.apply(model, &options(&given(*method))));
            let stream = &mut Key::new(7).with_name(method.name()).stream();
            for (_, parameter) in case.parameters.iter_mut().filter(|(_, parameter)| parameter.trainable) {
                parameter.value.f32_mut().unwrap().iter_mut().for_each(|x| *x += 0.1 * stream.normal());
            }
            let rows = case.long_rows();
            let dtypes = [(DType::F32, 2e-5), (DType::Bf16, 0.1)];
            let both = ["lora", "p-tuning-v2", "prompt-tuning"].contains(&method.name());
            for (dtype, within) in dtypes.into_iter().take(if both { 2 } else { 1 }) {
                let whole = case.next(&batch_of(rows.iter().copied()), None, dtype);
                let cache = KvCache::new(rows.len());
                let mut last = None;
                for pass in 0..3 {
                    let parts = (0..)
                        .zip(&rows)
                        .map(|(id, row)| (id, &row[cuts(id as usize, row.len())[pass].clone()]));
                    last = Some(case.next(&cache.batch(parts.map(row_of)), Some(&cache), dtype));
                }
                let apart = relative(last.unwrap().f32(), whole.f32());
                assert!(apart < within, "{} on {name} in {dtype}: {apart}", method.name());
                let known: Vec<usize> =
                    rows.iter().map(|row| row.len() + case.hooks.virtual_tokens()).collect();
                assert_eq!(cache.lengths(), known);
            }
        }
    }
}

#[test]
fn a_row_goes_on_as_it_would_alone_and_what_is_forgotten_is_read_again() {
    for name in MODELS {
        let case = Case::base(name);
        let rows = case.long_rows();
        let run = |rows: &[(u64, &[u32])], kept: &[usize]| {
            let cache = KvCache::new(rows.len());
            let cut = |(id, row): &(u64, &[u32])| cuts(*id as usize, row.len());
            let part = |row: &(u64, &'_ [u32]), pass: usize| (row.0, row.1[cut(row)[pass].clone()].to_vec());
            let first: Vec<_> = rows.iter().map(|row| part(row, 0)).collect();
            case.next(
                &cache.batch(first.iter().map(|(id, ids)| row_of((*id, ids)))),
                Some(&cache),
                DType::F32,
            );
            cache.keep(kept);
            let second: Vec<_> = kept.iter().map(|place| part(&rows[*place], 1)).collect();
            let batch = || cache.batch(second.iter().map(|(id, ids)| row_of((*id, ids))));
            let once = case.next(&batch(), Some(&cache), DType::F32);
            for (row, place) in kept.iter().enumerate() {
                cache.forget(row, cut(&rows[*place])[0].len());
            }
            assert_eq!(case.next(&batch(), Some(&cache), DType::F32).f32(), once.f32(), "{name}");
            once.f32().to_vec()
        };
        let numbered: Vec<(u64, &[u32])> = (0..).zip(rows.iter().copied()).collect();
        let all: Vec<usize> = (0..rows.len()).collect();
        let together = run(&numbered, &all);
        let columns = together.len() / rows.len();
        assert!(rows.len() > 2);
        for (place, row) in numbered.iter().enumerate() {
            assert_eq!(run(&[*row], &[0]), together[place * columns..][..columns], "{name}: row {place}");
        }
        assert_eq!(run(&numbered, &all[1..]), together[columns..], "{name}: without the first");
    }
}

#[derive(Deserialize)]
struct Generated {
    prompts: Vec<Vec<u32>>,
    greedy: Vec<Vec<u32>>,
}

#[test]
fn the_likeliest_tokens_are_those_of_transformers() {
    for name in MODELS {
        let golden = std::fs::read_to_string(folder(name).join("generate.json")).unwrap();
        let Generated { prompts, greedy } = serde_json::from_str(&golden).unwrap();
        let case = Case::base(name);
        let cache = KvCache::new(prompts.len());
        let mut next = prompts.clone();
        let mut made = vec![Vec::new(); prompts.len()];
        for _ in 0..greedy[0].len() {
            let batch = cache.batch((0..).zip(&next).map(|(id, ids)| row_of((id, ids))));
            let logits = case.next(&batch, Some(&cache), DType::F32);
            for (row, logits) in logits.f32().chunks_exact(logits.columns()).enumerate() {
                let token = Sampling::default().next(logits, &[], Key::new(0)).unwrap();
                made[row].push(token);
                next[row] = vec![token];
            }
        }
        assert_eq!(made, greedy, "{name}");
    }
}

#[test]
fn rows_of_several_adapters_go_on_in_one_batch() {
    for name in ["gpt2-causal", "mistral-causal"] {
        let methods = ["lora", "p-tuning-v2", "prompt-tuning"].map(|method| peft::find(method).unwrap());
        let cases =
            methods.map(|method| Case::open(name, |model| method.apply(model, &options(&given(method)))));
        let room = cases.iter().map(|case| case.long_rows()[1].len()).min().unwrap();
        let rows: Vec<&[u32]> = cases[0].long_rows().iter().map(|row| &row[..row.len().min(room)]).collect();
        let adapted =
            cases.each_ref().map(|case| Adapted { parameters: &case.parameters, hooks: &case.hooks });
        let which = [2, 0, 1];
        let hidden = |which: &[usize], rows: &[(u64, &[u32])]| {
            let cache = KvCache::new(rows.len());
            let mut last = Vec::new();
            for pass in 0..3 {
                let parts =
                    rows.iter().map(|(id, row)| (*id, &row[cuts(*id as usize, row.len())[pass].clone()]));
                let batch = cache.batch(parts.map(row_of));
                let mixture = Mixture::new(&adapted, which, &batch).unwrap();
                let tape = Tape::inference();
                let forward =
                    Forward { cache: Some(&cache), ..Forward::mixed(&tape, &mixture, &batch, DType::F32) };
                last = cases[0].network.encoder().head_input(&forward).unwrap().value().f32().to_vec();
            }
            last
        };
        let numbered: Vec<(u64, &[u32])> = (0..).zip(rows.iter().copied()).collect();
        let together = hidden(&which, &numbered);
        let columns = together.len() / rows.len();
        for (place, row) in numbered.iter().enumerate() {
            assert_eq!(
                hidden(&which[place..=place], &[*row]),
                together[place * columns..][..columns],
                "{name}: {place}"
            );
        }
    }
}
