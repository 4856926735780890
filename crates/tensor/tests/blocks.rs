//! Quantised blocks against `golden/blocks.safetensors`, which `oracle/blocks.py` makes and describes.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use retune_tensor::{BlockType, Blocks};
use safetensors::SafeTensors;

fn golden(name: &str) -> (Vec<u8>, Vec<f32>) {
    let file = SafeTensors::deserialize(include_bytes!("golden/blocks.safetensors")).unwrap();
    let bytes = |end: &str| file.tensor(&format!("{name}.{end}")).unwrap().data().to_vec();
    let values = bytes("values");
    (bytes("blocks"), values.as_chunks().0.iter().map(|value| f32::from_le_bytes(*value)).collect())
}

#[test]
fn each_type_is_read_to_the_bit() {
    for kind in BlockType::ALL.into_iter().filter(|kind| *kind != BlockType::F16) {
        let (bytes, values) = golden(kind.name());
        assert_eq!(bytes.len(), kind.bytes(values.len()), "{kind}");
        let blocks = Blocks::new(kind, &bytes, values.len());
        let same = |got: &[f32], want: &[f32]| {
            assert_eq!(got.len(), want.len());
            for (place, (got, want)) in got.iter().zip(want).enumerate() {
                assert_eq!(got.to_bits(), want.to_bits(), "{kind} {place}: {got} {want}");
            }
        };
        same(&blocks.dense(), &values);
        // Any part, as products read it.
        for (first, count) in
            [(0, 1), (1, 7), (31, 2), (33, 300), (255, 258), (511, 513), (values.len() - 3, 3)]
        {
            let mut out = vec![0.0; count];
            blocks.from(first).read(&mut out);
            same(&out, &values[first..first + count]);
        }
        // What is not there is left alone.
        let mut out = [7.0; 5];
        blocks.from(values.len() - 2).read(&mut out);
        same(&out, &[&values[values.len() - 2..], &[7.0; 3]].concat());
        assert!(blocks.from(values.len() + 9).is_empty());
    }
}
