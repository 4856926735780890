//! Safetensors that are sound: read as other programs wrote them, and written as other programs read them.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use retune_model::formats::{BertConfig, Dtype, Encoding, HfConfig, Weights, write_safetensors};
use safetensors::SafeTensors;
use safetensors::tensor::{TensorView, serialize};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn tensors() -> Vec<(String, Vec<usize>, Vec<f32>)> {
    let values = |n: usize| (0..n).map(|i| (i as f32 * 0.731).sin() * 1e3).collect();
    vec![
        ("z.weight".to_string(), vec![5, 3], values(15)),
        ("encoder.layer.10.bias".to_string(), vec![7], values(7)),
        ("encoder.layer.2.bias".to_string(), vec![], vec![f32::NAN]),
        ("пустой".to_string(), vec![0, 4], vec![]),
        ("a \"quoted\"\nname".to_string(), vec![1, 1, 9001], values(9001)),
    ]
}

fn borrowed(tensors: &[(String, Vec<usize>, Vec<f32>)]) -> Vec<(String, Vec<usize>, &[f32])> {
    tensors.iter().map(|(name, shape, values)| (name.clone(), shape.clone(), values.as_slice())).collect()
}

#[test]
fn written_bytes_are_those_of_the_format_crate() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let tensors = tensors();
    let bytes: Vec<Vec<u8>> =
        tensors.iter().map(|(_, _, v)| v.iter().flat_map(|x| x.to_le_bytes()).collect()).collect();
    let views = || {
        tensors.iter().zip(&bytes).map(|((name, shape, _), bytes)| {
            (name.as_str(), TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap())
        })
    };
    for metadata in [vec![], vec![("format", "pt")]] {
        let metadata: BTreeMap<String, String> =
            metadata.into_iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        write_safetensors(&path, &borrowed(&tensors), &metadata).unwrap();
        let theirs = (!metadata.is_empty()).then(|| HashMap::from_iter(metadata));
        assert_eq!(fs::read(&path).unwrap(), serialize(views(), theirs).unwrap());
    }
}

#[test]
fn the_same_tensors_give_the_same_bytes_in_any_order() {
    let folder = tempfile::tempdir().unwrap();
    let metadata: BTreeMap<String, String> =
        (0..20).map(|i| (format!("key {i}"), "é\u{0}\"".repeat(i))).collect();
    let mut tensors = tensors();
    let write = |tensors: &[_], name: &str| {
        let path = folder.path().join(name);
        write_safetensors(&path, &borrowed(tensors), &metadata).unwrap();
        fs::read(path).unwrap()
    };
    let first = write(&tensors, "a.safetensors");
    tensors.rotate_left(2);
    assert_eq!(write(&tensors, "b.safetensors"), first);

    let theirs = SafeTensors::read_metadata(&first).unwrap().1;
    assert_eq!(theirs.metadata().clone().unwrap().into_iter().collect::<BTreeMap<_, _>>(), metadata);
    let weights = Weights::open(folder.path().join("a.safetensors")).unwrap();
    assert_eq!(weights.metadata(), &metadata);
    for (name, shape, values) in &tensors {
        assert_eq!(&weights.info(name).unwrap().shape, shape);
        let read = weights.read_f32(name).unwrap();
        assert!(read.iter().map(|x| x.to_bits()).eq(values.iter().map(|x| x.to_bits())), "{name}");
    }
}

#[test]
fn tensors_that_do_not_fit_are_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let refused = |tensors: &[(&str, Vec<usize>, &[f32])]| {
        let tensors: Vec<_> =
            tensors.iter().map(|(name, shape, values)| (name.to_string(), shape.clone(), *values)).collect();
        write_safetensors(&path, &tensors, &BTreeMap::new()).unwrap_err().to_string()
    };
    assert!(refused(&[("w", vec![2, 2], &[1.0; 3])]).contains("`w` should have shape [2, 2], has [3]"));
    assert!(refused(&[("w", vec![], &[])]).contains("`w` should have shape [], has [0]"));
    assert!(
        refused(&[("w", vec![1], &[1.0]), ("w", vec![1], &[1.0])]).contains("tensor `w`: expected names")
    );
    assert!(refused(&[("__metadata__", vec![1], &[1.0])]).contains("tensor `__metadata__`: expected names"));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn shards_hold_what_the_format_crate_reads_in_them() {
    let weights = Weights::open(golden("bert-sharded")).unwrap();
    assert!(weights.files().len() > 1);
    let mut seen = 0;
    for path in weights.files() {
        let bytes = fs::read(path).unwrap();
        for (name, view) in SafeTensors::deserialize(&bytes).unwrap().iter() {
            assert_eq!(weights.path_of(name), Some(path));
            assert_eq!(weights.info(name).unwrap().shape, view.shape());
            let read = weights.read_f32(name).unwrap();
            let theirs = view.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b).to_bits());
            assert!(read.iter().map(|x| x.to_bits()).eq(theirs), "{name}");
            seen += 1;
        }
    }
    assert_eq!(seen, weights.names().len());
}

#[test]
fn configurations_of_transformers_are_read() {
    for name in ["bert-bare", "bert-bare-pooler-bf16", "bert-classifier", "bert-pretraining", "bert-sharded"]
    {
        let config = BertConfig::new(&HfConfig::open(golden(name)).unwrap()).unwrap();
        let weights = Weights::open(golden(name)).unwrap();
        let table = |ending: &str| {
            let found = weights.names().find(|name| name.ends_with(ending)).unwrap();
            weights.info(found).unwrap().shape.clone()
        };
        assert_eq!(table("word_embeddings.weight"), [config.vocab_size, config.hidden_size]);
        assert_eq!(table("position_embeddings.weight"), [config.max_position_embeddings, config.hidden_size]);
        assert_eq!(table("token_type_embeddings.weight"), [config.type_vocab_size, config.hidden_size]);
        assert_eq!(table("layer.0.intermediate.dense.bias"), [config.intermediate_size]);
        let layers = weights.names().filter(|name| name.ends_with("attention.self.query.bias")).count();
        assert_eq!(layers, config.num_hidden_layers);
    }
    let wide = Weights::open(golden("bert-bare-pooler-bf16")).unwrap();
    assert!(wide.names().any(|name| wide.info(name).unwrap().dtype == Encoding::Plain(Dtype::BF16)));
}
