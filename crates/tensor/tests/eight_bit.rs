//! AdamW with moments of a byte a value against bitsandbytes (`oracle/eight_bit.py`), and its limits.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use retune_tensor::backend::AdamW;
use retune_tensor::random::Key;
use retune_tensor::{Device, EightBit, Tensor, adamw_8bit, memory};
use safetensors::SafeTensors;

fn golden(name: &str) -> Vec<f32> {
    let file = SafeTensors::deserialize(include_bytes!("golden/eight_bit.safetensors")).unwrap();
    let tensor = file.tensor(name).unwrap();
    tensor.data().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

fn step(step: u64, learning_rate: f32, betas: [f32; 2]) -> AdamW {
    AdamW { learning_rate, betas, epsilon: 1e-8, weight_decay: 0.1, step, gradient_scale: 1.0 }
}

fn moments(len: usize) -> [EightBit; 2] {
    [0, 1].map(|_| EightBit::zeros(Device::Cpu, len).unwrap())
}

fn codes(values: &EightBit) -> Vec<u8> {
    bytemuck::cast_slice(values.tensors()[0].f32()).to_vec()
}

fn tensor(values: &[f32]) -> Tensor {
    Tensor::from_slice(Device::Cpu, &[values.len()], values).unwrap()
}

#[test]
fn values_have_the_places_that_the_authors_give_them() {
    let (x, expected, largest) = (golden("values.x"), golden("values.codes"), golden("values.largest"));
    // With a decay of 0 the first moment is the gradient, and its codes are those of the gradient.
    let (mut weight, mut moments) = (tensor(&vec![0.0; x.len()]), moments(x.len()));
    adamw_8bit(step(1, 0.0, [0.0, 0.999]), &tensor(&x), &mut weight, &mut moments).unwrap();
    assert_eq!(moments[0].tensors()[1].f32(), largest);
    let places = golden("signed");
    for (place, (got, expected)) in codes(&moments[0]).into_iter().zip(expected).enumerate() {
        let x = x[place] / largest[place / 256];
        let [got, best] = [usize::from(got), expected as usize].map(|code| (places[code] - x).abs());
        assert!(got <= best + 2e-7 * x.abs(), "value {place}: {x}");
    }
}

#[test]
fn steps_are_those_of_the_paper() {
    let (start, grads, rates) = (golden("adamw.start"), golden("adamw.grads"), golden("adamw.rates"));
    let n = start.len();
    let (mut weight, mut moments) = (tensor(&start), moments(n));
    let mut trace = Vec::new();
    for (number, (gradient, rate)) in (1..).zip(grads.chunks(n).zip(&rates)) {
        adamw_8bit(step(number, *rate, [0.9, 0.999]), &tensor(gradient), &mut weight, &mut moments).unwrap();
        trace.push(weight.f32().to_vec());
    }
    let apart = |got: &[f32], expected: &[f32]| {
        let [moved, apart] = [&start, got]
            .map(|values| -> f32 { expected.iter().zip(values).map(|(a, b)| (a - b).abs()).sum() });
        apart / moved
    };
    let (first, last) = (&trace[0], &trace[trace.len() - 1]);
    let params = golden("adamw.params");
    for (share, most) in [
        (apart(first, &params[..n]), 1e-4),
        (apart(last, &params[n..]), 1e-3),
        // Whose places are not all the nearest.
        (apart(last, &golden("adamw.bitsandbytes")), 0.03),
    ] {
        assert!(share < most, "{share} of the way is more than {most}");
    }
    for (moment, name) in moments.iter().zip(["m", "v"]) {
        let [expected, largest] = ["codes", "largest"].map(|what| golden(&format!("adamw.{name}.{what}")));
        for (got, expected) in moment.tensors()[1].f32().iter().zip(largest) {
            assert!((got - expected).abs() < 1e-3 * expected, "{name}: {got} {expected}");
        }
        // A value at the edge between two places may fall to either, and goes on from there.
        let near = |(got, expected): &(u8, &f32)| (f32::from(*got) - **expected).abs() <= 1.0;
        let close = codes(moment).into_iter().zip(&expected).filter(near).count();
        assert!(close as f32 >= 0.998 * n as f32, "{name}: {close} of {n}");
    }
}

#[test]
fn a_byte_a_value_is_what_they_take() {
    let before = memory::usage(Device::Meta).current;
    let held = EightBit::zeros(Device::Meta, 1_000_000).unwrap();
    // A byte each, and four for each 256, in whole cache lines.
    assert_eq!(memory::usage(Device::Meta).current - before, 1_000_000 + 15_680);
    drop(held);
}

#[test]
fn small_values_beside_large_ones_make_no_large_steps() {
    // The squares of small gradients are far below the least place beside those of large ones. Then the gradients are 0.
    let n = 300;
    let gradient: Vec<f32> = (0..n).map(|i| if i % 7 == 0 { 1.0 } else { 1e-5 }).collect();
    let (mut weight, mut moments) = (tensor(&vec![0.0; n]), moments(n));
    for number in 1..30 {
        let gradient = if number < 4 { tensor(&gradient) } else { tensor(&vec![0.0; n]) };
        let before = weight.f32().to_vec();
        adamw_8bit(step(number, 1e-3, [0.9, 0.999]), &gradient, &mut weight, &mut moments).unwrap();
        let moved = weight.f32().iter().zip(before).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(moved < 1.5e-3, "step {number}: {moved}");
    }
}

#[test]
fn the_same_bits_on_any_number_of_threads() {
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let stream = &mut Key::new(5).stream();
            let mut draw = || tensor(&(0..70_001).map(|_| stream.normal()).collect::<Vec<_>>());
            let (mut weight, mut moments) = (draw(), moments(70_001));
            for number in 1..4 {
                adamw_8bit(step(number, 1e-2, [0.9, 0.999]), &draw(), &mut weight, &mut moments).unwrap();
            }
            let bits: Vec<u32> = weight.f32().iter().map(|x| x.to_bits()).collect();
            (bits, moments.each_ref().map(codes))
        })
    };
    assert!(run(1) == run(2) && run(1) == run(5));
}
