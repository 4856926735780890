//! Random inputs of the tests.

use retune_tensor::random::Key;
use retune_tensor::{Device, Tensor};

/// Standard normal values that `name` and `shape` decide.
pub(crate) fn draw(name: &str, shape: &[usize]) -> Tensor {
    let mut stream = Key::new(17).with_name(name).stream();
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| stream.normal()).collect();
    Tensor::from_slice(Device::Cpu, shape, &values).unwrap()
}
