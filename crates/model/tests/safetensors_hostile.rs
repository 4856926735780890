//! Safetensors files that lie: each is refused with words, none panics, none makes the reader take memory that the
//! file does not pay for.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may stop at the first surprise")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use retune_model::ModelError;
use retune_model::formats::{Weights, write_safetensors};
use safetensors::SafeTensors;

/// The largest single allocation that any test here asked for.
static LARGEST: AtomicUsize = AtomicUsize::new(0);

struct Watched;

#[expect(
    unsafe_code,
    reason = "an allocator that notes the sizes asked for, to show that lies cost no memory"
)]
// SAFETY: every call goes on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Watched = Watched;

/// No file here has more than a few kilobytes; test threads and buffers take more than those, but not much.
const PAID_FOR: usize = 4 << 20;

fn file(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend((0..data).map(|i| (i * 37 % 251) as u8));
    bytes
}

/// Opens `bytes` as a file and reads every tensor.
fn read_all(folder: &Path, bytes: &[u8]) -> Result<usize, ModelError> {
    let path = folder.join("模型.safetensors");
    // Writing over a file of a moment ago makes some file systems wait for the disk; a new one does not.
    let _ = fs::remove_file(&path);
    fs::write(&path, bytes).unwrap();
    let weights = Weights::open(&path)?;
    let mut elements = 0;
    for name in weights.names() {
        match weights.read_f32(name) {
            Ok(values) => {
                assert_eq!(values.len(), weights.info(name).unwrap().shape.iter().product::<usize>());
                elements += values.len();
            }
            // A type that is no weight is listed, and refused only when it is read.
            Err(ModelError::Tensors { .. }) => {}
            Err(other) => panic!("{other}"),
        }
    }
    Ok(elements)
}

const SOUND: &str = concat!(
    r#"{"__metadata__":{"format":"pt"},"w":{"dtype":"F32","shape":[3,2],"data_offsets":[0,24]},"#,
    r#""è.b":{"dtype":"BF16","shape":[5],"data_offsets":[24,34]},"#,
    r#""empty":{"dtype":"F16","shape":[0,7],"data_offsets":[34,34]},"#,
    r#""ids":{"dtype":"I64","shape":[1],"data_offsets":[34,42]}}"#
);

#[test]
fn a_file_cut_anywhere_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let whole = file(SOUND, 42);
    assert_eq!(read_all(folder.path(), &whole).unwrap(), 6 + 5);
    for length in 0..whole.len() {
        let error = read_all(folder.path(), &whole[..length]).unwrap_err().to_string();
        assert!(error.contains("模型.safetensors: "), "{length}: {error}");
    }
    let mut longer = whole;
    longer.push(0);
    let error = read_all(folder.path(), &longer).unwrap_err().to_string();
    assert!(
        error.ends_with(
            "data offset 42: expected the end of the file after the last tensor, got 1 more bytes"
        )
    );
    assert!(LARGEST.load(Relaxed) < PAID_FOR);
}

/// A small generator (splitmix64), so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }
}

#[test]
fn flipped_bytes_never_panic_and_never_pass_where_the_format_crate_refuses() {
    let folder = tempfile::tempdir().unwrap();
    let whole = file(SOUND, 42);
    let mut random = Random(20_240_607);
    let (mut accepted, mut refused) = (0, 0);
    for round in 0..4000 {
        let mut bytes = whole.clone();
        for _ in 0..=random.below(3) {
            let at = random.below(if round % 2 == 0 { bytes.len() } else { SOUND.len() + 8 });
            bytes[at] = match random.below(3) {
                // What keeps JSON sound finds its way deeper than noise does.
                0 => b"0123456789{}[],:\" "[random.below(18)],
                1 => bytes[at] ^ (1 << random.below(8)),
                _ => random.below(256) as u8,
            };
        }
        match read_all(folder.path(), &bytes) {
            Ok(_) => {
                accepted += 1;
                assert!(SafeTensors::deserialize(&bytes).is_ok(), "round {round}");
            }
            Err(error) => {
                refused += 1;
                // Two tensors of one name are what the crate lets pass.
                let twice = error.to_string().contains("named twice");
                assert!(twice || SafeTensors::deserialize(&bytes).is_err(), "round {round}: {error}");
            }
        }
    }
    assert!(
        accepted > 100 && refused > 100,
        "{accepted} accepted, {refused} refused: the test tells nothing"
    );
    assert!(LARGEST.load(Relaxed) < PAID_FOR, "{}", LARGEST.load(Relaxed));
}

#[test]
fn lies_are_told_by_tensor() {
    let folder = tempfile::tempdir().unwrap();
    let one = |entry: &str| file(&format!(r#"{{"w":{entry}}}"#), 24);
    let two = |a: &str, b: &str| {
        file(
            &format!(
                r#"{{"a":{{"dtype":"F32","shape":[3],"data_offsets":{a}}},"b":{{"dtype":"F32","shape":[3],"data_offsets":{b}}}}}"#
            ),
            24,
        )
    };
    let mut not_text = file(SOUND, 42);
    not_text[20] = 0xFF;
    for (bytes, expected) in [
        (vec![], "start: expected the header's length in 8 bytes, got an empty file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a".to_vec(), "got a git-lfs pointer"),
        (
            b"PK\x03\x04 archive/data.pkl".to_vec(),
            "got a zip archive, as PyTorch's pickles are: these are never loaded",
        ),
        (
            u64::MAX.to_le_bytes().to_vec(),
            "byte 0: expected a header length of at most 100000000, got 18446744073709551615",
        ),
        (99_999_999_u64.to_le_bytes().to_vec(), "byte 0: expected a header length of at most 0"),
        (not_text, "header, byte 20: expected UTF-8 text"),
        (file("", 0), "header: expected a JSON object of tensors"),
        (file("[]", 0), "header: expected a JSON object of tensors"),
        (file("{\"a\":1}", 0), "tensor `a`: "),
        (file(&"[".repeat(100_000), 0), "header: expected a JSON object of tensors"),
        (
            file(
                r#"{"w":{"dtype":"F32","shape":[6],"data_offsets":[0,24]},"w":{"dtype":"F32","shape":[6],"data_offsets":[0,24]}}"#,
                24,
            ),
            "`w` named twice",
        ),
        (file(r#"{"__metadata__":{"a":"1","a":"2"}}"#, 0), "`a` named twice"),
        (file(r#"{"__metadata__":{"a":1}}"#, 0), "expected a string"),
        (
            one(r#"{"dtype":"F32","shape":[7],"data_offsets":[0,24]}"#),
            "tensor `w`: expected 28 bytes for F32 of shape [7], got 24",
        ),
        (
            one(r#"{"dtype":"F32","shape":[6],"dtype":"F16","data_offsets":[0,24]}"#),
            "tensor `w`: duplicate field `dtype`",
        ),
        (one(r#"{"dtype":"F32","shape":[6]}"#), "tensor `w`: missing field `data_offsets`"),
        (one(r#"{"dtype":"F33","shape":[6],"data_offsets":[0,24]}"#), "tensor `w`: unknown variant `F33`"),
        (
            one(r#"{"dtype":"F32","shape":[-6],"data_offsets":[0,24]}"#),
            "tensor `w`: invalid value: integer `-6`",
        ),
        (
            one(r#"{"dtype":"F32","shape":[6],"data_offsets":[24,0]}"#),
            "tensor `w`: expected its bytes to start at offset 0, got 24: unused bytes",
        ),
        (
            one(r#"{"dtype":"F32","shape":[6],"data_offsets":[0,4096]}"#),
            "tensor `w`: expected its bytes to end between offsets 0 and 24, got 4096: the file was cut short",
        ),
        (
            one(r#"{"dtype":"F32","shape":[4],"data_offsets":[8,24]}"#),
            "tensor `w`: expected its bytes to start at offset 0, got 8: unused bytes",
        ),
        (
            one(r#"{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,24]}"#),
            "tensor `w`: expected a size in whole bytes that memory can address, got F32 of shape [4611686018427387904, 4]",
        ),
        (
            one(r#"{"dtype":"F4","shape":[3],"data_offsets":[0,24]}"#),
            "tensor `w`: expected a size in whole bytes",
        ),
        (
            two("[0,12]", "[8,20]"),
            "tensor `b`: expected its bytes to start at offset 12, got 8: bytes shared with another tensor",
        ),
        (
            two("[0,12]", "[0,12]"),
            "tensor `b`: expected its bytes to start at offset 12, got 0: bytes shared with another tensor",
        ),
        (
            two("[0,12]", "[13,25]"),
            "tensor `b`: expected its bytes to start at offset 12, got 13: unused bytes",
        ),
        (
            two("[12,24]", "[18446744073709551615,3]"),
            "tensor `a`: expected its bytes to start at offset 0, got 12",
        ),
    ] {
        let error = read_all(folder.path(), &bytes).unwrap_err().to_string();
        assert!(error.contains("模型.safetensors: "), "{error}");
        assert!(error.contains(expected), "expected {expected:?} in {error}");
        assert!(error.len() < 1000, "{error}");
    }
    assert!(LARGEST.load(Relaxed) < PAID_FOR);
}

#[test]
fn types_that_are_no_weights_are_listed_and_refused_when_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.safetensors");
    fs::write(&path, file(SOUND, 42)).unwrap();
    let weights = Weights::open(&path).unwrap();
    assert_eq!(weights.names().collect::<Vec<_>>(), ["empty", "ids", "w", "è.b"]);
    assert!(weights.read_f32("ids").unwrap_err().to_string().contains("`ids` is of type I64, which counts"));
    let error = weights.read_f32("è.c").unwrap_err().to_string();
    assert!(error.ends_with("1 of the tensors does not fit:\n  `è.c` is missing"), "{error}");
    let error = weights.read_f32_into("w", &mut [0.0; 5]).unwrap_err().to_string();
    assert!(error.contains("`w` should have shape [5], has [3, 2]"), "{error}");
    assert!(weights.read_f32("empty").unwrap().is_empty());
}

/// A folder with an index over two shards, `a` in the first and `b` in the second.
fn sharded(weight_map: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let none = BTreeMap::new();
    let tensor = |name: &str| vec![(name.to_string(), vec![1, 3], &[1.0, 2.0, 3.0][..])];
    write_safetensors(folder.path().join("1.safetensors"), &tensor("a"), &none).unwrap();
    write_safetensors(folder.path().join("2.safetensors"), &tensor("b"), &none).unwrap();
    write_safetensors(folder.path().join("3.safetensors"), &tensor("a"), &none).unwrap();
    let index = format!(r#"{{"metadata": {{"total_size": 24}}, "weight_map": {weight_map}}}"#);
    fs::write(folder.path().join("model.safetensors.index.json"), index).unwrap();
    folder
}

#[test]
fn an_index_that_lies_is_refused() {
    let whole = sharded(r#"{"a": "1.safetensors", "b": "2.safetensors"}"#);
    let weights = Weights::open(whole.path()).unwrap();
    assert_eq!(weights.path_of("b").unwrap().file_name().unwrap(), "2.safetensors");
    assert_eq!(weights.files().len(), 2);

    for (weight_map, expected) in [
        (
            r#"{"a": "1.safetensors", "b": "4.safetensors", "c": "5.safetensors"}"#,
            "no file `4.safetensors`, `5.safetensors`",
        ),
        (
            r#"{"a": "1.safetensors", "c": "2.safetensors"}"#,
            "tensor `c`: expected it to lie in `2.safetensors`, got no such tensor",
        ),
        (
            r#"{"a": "2.safetensors", "b": "1.safetensors"}"#,
            "tensor `a`: expected it to lie in `2.safetensors`, got it in `1.safetensors`",
        ),
        (
            r#"{"a": "1.safetensors", "b": "3.safetensors"}"#,
            "tensor `a`: expected each tensor in one shard only, got another of this name in",
        ),
        (r#"{"a": "1.safetensors", "a": "2.safetensors"}"#, "`a` named twice"),
        (
            r#"{"a": "../1.safetensors"}"#,
            "expected the name of a file in the same folder, got `../1.safetensors`",
        ),
        (r#"{"a": "/etc/passwd"}"#, "expected the name of a file in the same folder, got `/etc/passwd`"),
        (r#"{"a": ".."}"#, "expected the name of a file in the same folder, got `..`"),
        (r#"{"a": "x\\1.safetensors"}"#, "expected the name of a file in the same folder"),
        (r#"{"a": ""}"#, "expected the name of a file in the same folder, got ``"),
        (r#"{"a": "pytorch_model-00001.bin"}"#, "never loaded"),
        (r#"{"a": 1}"#, "line 1, column "),
        ("7", "line 1, column "),
    ] {
        let folder = sharded(weight_map);
        let error = Weights::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains(expected), "{weight_map}: {error}");
    }
}

#[test]
fn pickles_and_empty_folders_say_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Weights::open(folder.path()).unwrap_err().to_string();
    assert!(
        open().ends_with(
            "expected model.safetensors or model.safetensors.index.json, the folder holds nothing"
        )
    );
    fs::write(folder.path().join("model.onnx"), b"x").unwrap();
    assert!(open().ends_with("the folder holds `model.onnx`"));

    fs::write(folder.path().join("pytorch_model.bin"), b"x").unwrap();
    assert!(open().contains("\n    from transformers import AutoModel\n"), "{}", open());
    let config = r#"{"architectures": ["BertForSequenceClassification"]}"#;
    fs::write(folder.path().join("config.json"), config).unwrap();
    let error = open();
    assert!(error.contains("pytorch_model.bin: a pickle, which can run any code"), "{error}");
    assert!(error.contains("\n    from transformers import BertForSequenceClassification\n"), "{error}");
    assert!(error.contains("safe_serialization=True"), "{error}");
    fs::write(folder.path().join("config.json"), r#"{"architectures": ["os; import evil"]}"#).unwrap();
    assert!(!open().contains("evil"));

    assert!(
        Weights::open(folder.path().join("pytorch_model.bin"))
            .unwrap_err()
            .to_string()
            .contains("never loaded")
    );
    assert!(
        Weights::open(folder.path().join("no/such"))
            .unwrap_err()
            .to_string()
            .contains("no/such: cannot open: ")
    );
    fs::create_dir(folder.path().join("model.safetensors")).unwrap();
    assert!(open().contains("model.safetensors: not a regular file"), "{}", open());
}

#[test]
fn a_file_that_is_cut_short_while_it_is_open_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.safetensors");
    let values: Vec<f32> = (0..200_001).map(|x| x as f32).collect();
    let tensors = [("a", &values[..7]), ("b", &values[..])];
    let tensors: Vec<_> = tensors.map(|(name, v)| (name.to_string(), vec![v.len()], v)).into();
    write_safetensors(&path, &tensors, &BTreeMap::new()).unwrap();
    let weights = Weights::open(&path).unwrap();
    assert!(weights.read_f32("b").unwrap() == values);
    let length = fs::metadata(&path).unwrap().len();
    fs::File::options().write(true).open(&path).unwrap().set_len(length - 100_000).unwrap();
    assert_eq!(weights.read_f32("a").unwrap(), &values[..7]);
    let error = weights.read_f32("b").unwrap_err().to_string();
    assert!(error.contains("w.safetensors: cannot read: it ends at byte "), "{error}");
    assert!(error.contains("it was cut short while it was open"), "{error}");
}
