//! One batch whose rows use different adapters of one base: each row's logits are those of a batch of its own adapter.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may stop at the first surprise")]

mod golden;

use std::collections::BTreeMap;

use golden::{Case, given, options};
use retune_adapt::peft::{self, METHODS, Method};
use retune_model::{Adapted, Batch, Forward, Mixture, share_base};
use retune_tensor::{DType, Tape};

/// A method on a model, away from its start by `salt`.
fn moved(base: &str, method: &dyn Method, more: &[(&'static str, &'static str)], salt: usize) -> Case {
    let all = [given(method), more.to_vec()].concat();
    let mut case = Case::open(base, true, |model| method.apply(model, &options(&all))).unwrap();
    let trained: Vec<String> = case.trained().iter().map(ToString::to_string).collect();
    for (place, name) in trained.iter().enumerate() {
        let values = case.values(name);
        case.set(name, |index| values[index] + (((index + 7 * salt + place) * 29 % 17) as f32 - 8.0) * 0.02);
    }
    case
}

/// Rows of the golden batch, cut so that they fit behind anything.
fn batch(cases: &[Case], rows: &[usize]) -> Batch {
    let most = cases.iter().map(|case| case.hooks.virtual_tokens()).max().unwrap();
    cases[0].batch(rows, most - cases[0].hooks.virtual_tokens())
}

/// The logits of a batch whose row `r` uses `cases[which[r]]`, row by row.
fn mixed(cases: &[Case], which: &[usize], batch: &Batch) -> Vec<Vec<f32>> {
    let adapted: Vec<Adapted<'_>> =
        cases.iter().map(|case| Adapted { parameters: &case.parameters, hooks: &case.hooks }).collect();
    let mixture = Mixture::new(&adapted, which, batch).unwrap();
    let tape = Tape::inference();
    let forward = Forward::mixed(&tape, &mixture, batch, DType::F32);
    let parts = cases[0].classifier.logits_of_each(&forward).unwrap();
    let mut logits = BTreeMap::new();
    for (rows, part) in mixture.rows().zip(&parts) {
        let values = part.value().f32().chunks(part.value().columns());
        logits.extend(rows.iter().copied().zip(values.map(<[f32]>::to_vec)));
    }
    logits.into_values().collect()
}

/// The same of a row, in a batch of all rows under one adapter.
fn separate(case: &Case, batch: &Batch) -> Vec<Vec<f32>> {
    let (parameters, hooks, tape) = (&case.parameters, &case.hooks, &Tape::inference());
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
    let logits = case.classifier.logits(&forward).unwrap();
    logits.value().f32().chunks(logits.value().columns()).map(<[f32]>::to_vec).collect()
}

fn check(mut cases: Vec<Case>, what: &str) {
    let (first, others) = cases.split_first_mut().unwrap();
    others.iter_mut().for_each(|case| share_base(&mut case.parameters, &first.parameters));
    let count = first.rows.labels.len();
    let rows: Vec<usize> = (0..2 * count).map(|row| row % count).collect();
    let which: Vec<usize> = (0..rows.len()).map(|row| row * 5 % 7 % cases.len()).collect();
    let batch = batch(&cases, &rows);
    let alone: Vec<_> = cases.iter().map(|case| separate(case, &batch)).collect();
    let together = mixed(&cases, &which, &batch);
    assert_eq!(together.len(), rows.len());
    for (row, (logits, adapter)) in together.iter().zip(&which).enumerate() {
        assert_eq!(*logits, alone[*adapter][row], "{what}: row {row} of adapter {adapter}");
        // Another adapter says something else.
        assert!(cases.len() == 1 || *logits != alone[(adapter + 1) % cases.len()][row], "{what}: row {row}");
    }
}

#[test]
fn a_row_among_rows_of_other_adapters_equals_the_row_among_its_own() {
    let lora = peft::find("lora").unwrap();
    for method in METHODS {
        // Another number of virtual tokens, where it has any: rows are then lengthened by different numbers.
        let fewer: &[_] = if golden::is_virtual(*method) { &[("num-virtual-tokens", "2")] } else { &[] };
        let cases = vec![
            moved("bert-classifier", *method, &[], 1),
            moved("bert-classifier", lora, &[("target-modules", "query,output.dense")], 2),
            moved("bert-classifier", *method, fewer, 3),
            Case::base("bert-classifier", true),
        ];
        check(cases, method.name());
    }
}

#[test]
fn every_family_mixes() {
    let (lora, houlsby) = (peft::find("lora").unwrap(), peft::find("houlsby").unwrap());
    for base in ["roberta-classifier", "distilbert-classifier", "electra-classifier", "modernbert-classifier"]
    {
        let third = if base.starts_with("modern") { "norms" } else { "prompt-tuning" };
        let methods = [lora, houlsby, peft::find(third).unwrap(), peft::find("full").unwrap()];
        let cases =
            methods.iter().enumerate().map(|(salt, method)| moved(base, *method, &[], salt)).collect();
        check(cases, base);
    }
}

#[test]
fn adapters_of_other_labels_mix_and_one_alone_is_itself() {
    // Another number of classes: a head of its own size.
    let mut cases = vec![
        moved("bert-classifier", peft::find("lora").unwrap(), &[], 1),
        moved("bert-classifier", peft::find("ia3").unwrap(), &[], 2),
    ];
    let three = |values: Vec<f32>, columns: usize| values[..3 * columns].to_vec();
    for (name, columns) in [("classifier.weight", 20), ("classifier.bias", 1)] {
        let values = three(cases[1].values(name), columns);
        let id = cases[1].parameters.find(name).unwrap();
        let shape = if columns == 1 { vec![3] } else { vec![3, columns] };
        let tensor = retune_tensor::Tensor::from_slice(retune_tensor::Device::Cpu, &shape, &values).unwrap();
        cases[1].parameters.get_mut(id).value = tensor;
    }
    check(cases, "other labels");
    check(vec![moved("bert-classifier", peft::find("lora").unwrap(), &[], 1)], "one alone");
}

#[test]
fn what_the_base_has_is_there_once() {
    let mut cases = [1, 2].map(|salt| moved("bert-classifier", peft::find("lora").unwrap(), &[], salt));
    let [first, second] = &mut cases;
    share_base(&mut second.parameters, &first.parameters);
    for ((_, one), (_, other)) in first.parameters.iter().zip(second.parameters.iter()) {
        let shared = std::ptr::eq(one.value.f32(), other.value.f32());
        assert_eq!(shared, !one.trainable, "{}", one.name);
    }
}

#[test]
fn a_row_without_an_adapter_is_refused() {
    let case = Case::base("bert-classifier", true);
    let batch = case.batch(&[0, 1], 0);
    let adapted = [Adapted { parameters: &case.parameters, hooks: &case.hooks }];
    for which in [[0, 1].as_slice(), &[0]] {
        let error = Mixture::new(&adapted, which, &batch).err().unwrap().to_string();
        assert_eq!(error, "mixture: adapter 1 is out of range, expected less than 1");
    }
    assert!(Mixture::new(&[], &[], &batch).is_err());
}
