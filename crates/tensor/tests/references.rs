//! Every op against PyTorch: the tensors of `golden/ops.safetensors`, which `oracle/ops.py` makes and describes.
//!
//! Errors are relative to the largest value of the reference.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod pass;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::Arc;

use pass::{pass, weighted};
use retune_tensor::backend::{Activation, AdamW, AttentionShape, Layout, Rotary};
use retune_tensor::ops::{
    BinaryCrossEntropyOptions, CrossEntropyOptions, LayerNormOptions, Linear, attention,
    binary_cross_entropy, cross_entropy, gated, layer_norm, linear, mean_rows, position_cross_entropy,
    rotary, squared_error,
};
use retune_tensor::{Device, Gradients, Parameters, Tape, Tensor, Var};
use safetensors::{Dtype, SafeTensors};

const TOLERANCE: f64 = 1e-5;

/// The references of one op. Dropping it asserts that each of them was asked for.
struct Golden {
    op: &'static str,
    file: SafeTensors<'static>,
    unread: RefCell<BTreeSet<String>>,
}

impl Golden {
    fn of(op: &'static str) -> Self {
        let file = SafeTensors::deserialize(include_bytes!("golden/ops.safetensors")).unwrap();
        let own = file.names().into_iter().filter(|name| name.split('.').next() == Some(op));
        let unread = RefCell::new(own.map(str::to_owned).collect());
        Golden { op, file, unread }
    }

    fn bytes(&self, name: &str, dtype: Dtype) -> (Vec<usize>, &[u8]) {
        let name = format!("{}.{name}", self.op);
        self.unread.borrow_mut().remove(&name);
        let view = self.file.tensor(&name).unwrap();
        assert_eq!(view.dtype(), dtype, "{name}");
        (view.shape().to_vec(), view.data())
    }

    fn tensor(&self, name: &str) -> Tensor {
        let (shape, bytes) = self.bytes(name, Dtype::F32);
        let values: Vec<f32> = bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        Tensor::from_slice(Device::Cpu, &shape, &values).unwrap()
    }

    fn scalar(&self, name: &str) -> f32 {
        self.tensor(name).item().unwrap()
    }

    fn integers(&self, name: &str) -> Vec<u32> {
        let (_, bytes) = self.bytes(name, Dtype::I64);
        bytes.as_chunks().0.iter().map(|bytes| u32::try_from(i64::from_le_bytes(*bytes)).unwrap()).collect()
    }

    fn layout(&self) -> Arc<Layout> {
        let cu_seqlens = self.integers("cu_seqlens");
        let lengths: Vec<_> = cu_seqlens.windows(2).map(|ends| (ends[1] - ends[0]) as usize).collect();
        Arc::new(Layout::new(&lengths, &[0, 1, 2]))
    }

    fn check(&self, name: &str, got: &Tensor) {
        let want = self.tensor(name);
        assert_eq!(got.shape(), want.shape(), "{}.{name}", self.op);
        let largest = want.f32().iter().fold(0.0f64, |max, x| max.max(f64::from(x.abs())));
        for (place, (got, want)) in got.f32().iter().zip(want.f32()).enumerate() {
            let error = (f64::from(*got) - f64::from(*want)).abs();
            // A NaN is no small error, hence not `error > ...`.
            let fits = error <= TOLERANCE * largest;
            assert!(fits, "{}.{name}[{place}]: got {got}, expected {want} (largest {largest})", self.op);
        }
    }
}

impl Drop for Golden {
    fn drop(&mut self) {
        let unread = self.unread.borrow();
        assert!(std::thread::panicking() || unread.is_empty(), "references never compared: {unread:?}");
    }
}

#[test]
fn every_reference_belongs_to_a_test() {
    let file = SafeTensors::deserialize(include_bytes!("golden/ops.safetensors")).unwrap();
    let ops: BTreeSet<_> = file.names().into_iter().filter_map(|name| name.split('.').next()).collect();
    let tested = [
        "activation",
        "adamw",
        "attention",
        "binary_cross_entropy",
        "clip",
        "cross_entropy",
        "gated",
        "layer_norm",
        "mean_rows",
        "position_cross_entropy",
        "rotary",
        "squared_error",
    ];
    assert_eq!(ops, BTreeSet::from(tested));
}

const ACTIVATIONS: [(&str, Activation); 5] = [
    ("gelu", Activation::Gelu),
    ("gelu_tanh", Activation::GeluTanh),
    ("silu", Activation::Silu),
    ("relu", Activation::Relu),
    ("tanh", Activation::Tanh),
];

#[test]
fn activations() {
    let golden = Golden::of("activation");
    // A linear layer of one channel and weight one is its activation.
    let one = Tensor::from_slice(Device::Cpu, &[1, 1], &[1.0]).unwrap();
    let column = |name| golden.tensor(name).reshape(&[203, 1]).unwrap();
    let layout = Arc::new(Layout::new(&[203], &[0]));
    for (name, activation) in ACTIVATIONS {
        let (y, gradients) = pass(&[column("x"), one.clone()], Some(&column("dy")), |tape, vars| {
            linear(tape, &vars[0], &layout, Linear { activation, ..Linear::plain(&vars[1], None) })
        });
        golden.check(&format!("{name}.y"), &y.reshape(&[203]).unwrap());
        golden.check(&format!("{name}.dx"), &gradients[0].reshape(&[203]).unwrap());
    }
}

#[test]
fn layer_norms() {
    let golden = Golden::of("layer_norm");
    let inputs = ["x", "weight", "residual", "bias"].map(|name| golden.tensor(name));
    let layout = Arc::new(Layout::new(&[7], &[0]));
    let dy = golden.tensor("dy");
    let norm = |tape: &Tape, vars: &[Var], epsilon| {
        let (weight, residual, bias) = (&vars[1], Some(&vars[2]), vars.get(3));
        let options = LayerNormOptions { weight, bias, epsilon, residual, dropout: None };
        layer_norm(tape, &vars[0], &layout, options)
    };
    let (y, gradients) = pass(&inputs[..3], Some(&dy), |tape, vars| norm(tape, vars, 1e-5));
    golden.check("no_bias.y", &y);
    for (name, gradient) in ["dx", "dweight", "dx"].into_iter().zip(&gradients) {
        golden.check(&format!("no_bias.{name}"), gradient);
    }
    for (case, epsilon) in [("eps1e-12", 1e-12), ("eps1e-5", 1e-5)] {
        let (y, gradients) = pass(&inputs, Some(&dy), |tape, vars| norm(tape, vars, epsilon));
        golden.check(&format!("{case}.y"), &y);
        for (name, gradient) in ["dx", "dweight", "dx", "dbias"].into_iter().zip(&gradients) {
            golden.check(&format!("{case}.{name}"), gradient);
        }
    }
}

#[test]
fn cross_entropies() {
    let golden = Golden::of("cross_entropy");
    let (logits, labels) = (golden.tensor("logits"), golden.integers("labels"));
    let (weights, smoothing) = (golden.tensor("class_weights"), golden.scalar("label_smoothing"));
    let total: f32 = labels.iter().map(|label| weights.f32()[*label as usize]).sum();
    let weighted = Some(weights.f32());
    for (case, class_weights, label_smoothing) in [
        ("plain", None, 0.0),
        ("weighted", weighted, 0.0),
        ("smoothed", None, smoothing),
        ("weighted_smoothed", weighted, smoothing),
    ] {
        let denominator = class_weights.map_or(9.0, |_| total);
        let (loss, gradients) = pass(std::slice::from_ref(&logits), None, |tape, vars| {
            let options = CrossEntropyOptions { class_weights, label_smoothing, denominator };
            cross_entropy(tape, &vars[0], &labels, options)
        });
        golden.check(&format!("{case}.loss"), &loss);
        golden.check(&format!("{case}.dlogits"), &gradients[0]);
    }
}

#[test]
fn binary_cross_entropies() {
    let golden = Golden::of("binary_cross_entropy");
    let (logits, targets) = (golden.tensor("logits"), golden.tensor("targets"));
    let weights = golden.tensor("positive_weights");
    for (case, positive_weights) in [("plain", None), ("weighted", Some(weights.f32()))] {
        let (loss, gradients) = pass(std::slice::from_ref(&logits), None, |tape, vars| {
            let options = BinaryCrossEntropyOptions { positive_weights, denominator: 35.0 };
            binary_cross_entropy(tape, &vars[0], targets.f32(), options)
        });
        golden.check(&format!("{case}.loss"), &loss);
        golden.check(&format!("{case}.dlogits"), &gradients[0]);
    }
}

#[test]
fn squared_errors() {
    let golden = Golden::of("squared_error");
    let (predictions, targets) = (golden.tensor("predictions"), golden.tensor("targets"));
    let (loss, gradients) = pass(std::slice::from_ref(&predictions), None, |tape, vars| {
        squared_error(tape, &vars[0], targets.f32(), 9.0)
    });
    golden.check("plain.loss", &loss);
    golden.check("plain.dpredictions", &gradients[0]);
}

#[test]
fn position_cross_entropies() {
    let golden = Golden::of("position_cross_entropy");
    let (scores, labels, layout) = (golden.tensor("scores"), golden.integers("labels"), golden.layout());
    let labels: Vec<Option<u32>> = labels.into_iter().map(Some).collect();
    let (loss, gradients) = pass(std::slice::from_ref(&scores), None, |tape, vars| {
        position_cross_entropy(tape, &vars[0], &layout, &labels, 3.0)
    });
    golden.check("plain.loss", &loss);
    golden.check("plain.dscores", &gradients[0]);
}

#[test]
fn attentions() {
    let golden = Golden::of("attention");
    let inputs = ["q", "k", "v"].map(|name| golden.tensor(name));
    let layout = golden.layout();
    for (case, causal, window) in [
        ("full", false, None),
        ("causal", true, None),
        ("window", false, Some(2)),
        ("causal_window", true, Some(2)),
    ] {
        let scale = 1.0 / 5.0f32.sqrt();
        let shape = AttentionShape { heads: 3, kv_heads: 3, head_size: 5, scale, causal, window };
        let (y, gradients) = pass(&inputs, Some(&golden.tensor("dy")), |tape, vars| {
            attention(tape, [&vars[0], &vars[1], &vars[2]], &layout, shape, None)
        });
        golden.check(&format!("{case}.y"), &y);
        for (name, gradient) in ["dq", "dk", "dv"].into_iter().zip(&gradients) {
            golden.check(&format!("{case}.{name}"), gradient);
        }
    }
}

#[test]
fn rotations() {
    let golden = Golden::of("rotary");
    let (layout, turned) = (golden.layout(), Rotary::new(6, golden.scalar("theta")));
    let (y, gradients) = pass(&[golden.tensor("x")], Some(&golden.tensor("dy")), |tape, vars| {
        rotary(tape, &vars[0], &layout, &turned)
    });
    golden.check("y", &y);
    golden.check("dx", &gradients[0]);
}

#[test]
fn gates() {
    let golden = Golden::of("gated");
    for (name, activation) in ACTIVATIONS {
        let (y, gradients) = pass(&[golden.tensor("x")], Some(&golden.tensor("dy")), |tape, vars| {
            gated(tape, &vars[0], activation)
        });
        golden.check(&format!("{name}.y"), &y);
        golden.check(&format!("{name}.dx"), &gradients[0]);
    }
}

#[test]
fn means_of_rows() {
    let golden = Golden::of("mean_rows");
    let layout = golden.layout();
    let (y, gradients) = pass(&[golden.tensor("x")], Some(&golden.tensor("dy")), |tape, vars| {
        mean_rows(tape, &vars[0], &layout)
    });
    golden.check("y", &y);
    golden.check("dx", &gradients[0]);
}

#[test]
fn adamw() {
    let golden = Golden::of("adamw");
    let (grads, rates) = (golden.tensor("grads"), golden.tensor("learning_rates"));
    let (betas, epsilon) = (["beta1", "beta2"].map(|name| golden.scalar(name)), golden.scalar("eps"));
    for (case, weight_decay) in [("decay", golden.scalar("weight_decay")), ("no_decay", 0.0)] {
        let mut weight = golden.tensor("start").f32().to_vec();
        let [mut m, mut v] = [0, 1].map(|_| Tensor::zeros(Device::Cpu, &[17]).unwrap());
        let mut trace = Vec::new();
        for (step, (gradient, learning_rate)) in (1..).zip(grads.f32().chunks(17).zip(rates.f32())) {
            // A power of two loses no bits, so the scale of clipping is tried on the way.
            let gradient: Vec<f32> = gradient.iter().map(|g| g * 4.0).collect();
            let learning_rate = *learning_rate;
            let step = AdamW { learning_rate, betas, epsilon, weight_decay, step, gradient_scale: 0.25 };
            let moments = [m.f32_mut().unwrap(), v.f32_mut().unwrap()];
            Device::Cpu.backend().adamw(step, &gradient, &mut weight, moments);
            trace.extend_from_slice(&weight);
        }
        let trace = Tensor::from_slice(Device::Cpu, &[10, 17], &trace).unwrap();
        golden.check(&format!("{case}.params"), &trace);
        golden.check(&format!("{case}.m"), &m);
        golden.check(&format!("{case}.v"), &v);
    }
}

#[test]
fn clipping_by_the_global_norm() {
    let golden = Golden::of("clip");
    for case in ["over", "under"] {
        let (mut parameters, mut gradients) = (Parameters::new(), Gradients::new());
        let ids = ["a", "b"].map(|name| {
            let id = parameters.add(name, golden.tensor(name)).unwrap();
            parameters.get_mut(id).trainable = true;
            let tape = Tape::recording();
            let var: Var = tape.parameter(&parameters, id);
            let loss = weighted(&tape, &var, &golden.tensor(name));
            tape.backward(&loss, &mut gradients).unwrap();
            id
        });
        let norm = gradients.norm();
        golden.check("norm", &Tensor::from_slice(Device::Cpu, &[], &[norm as f32]).unwrap());
        // As torch.nn.utils.clip_grad_norm_ has it.
        let coefficient = f64::from(golden.scalar(&format!("{case}.max_norm"))) / (norm + 1e-6);
        gradients.scale(coefficient.min(1.0) as f32).unwrap();
        for (name, id) in ["a", "b"].into_iter().zip(ids) {
            golden.check(&format!("{case}.{name}"), &gradients.get(id).unwrap().to_dense().unwrap());
        }
    }
}
