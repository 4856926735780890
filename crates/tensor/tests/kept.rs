//! What a backward keeps of the results of norms and activations: nothing, since they are made again to the bit.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod draw;

use std::sync::Arc;

use draw::draw;
use retune_tensor::backend::{Activation, Layout};
use retune_tensor::ops::{
    LayerNormOptions, Linear, LowRank, add, cast, gate, gated, layer_norm, linear, rms_norm,
};
use retune_tensor::{
    DType, Device, Gradient, Gradients, Kept, ParamId, Parameters, Result, Tape, Tensor, Var, memory,
};

const TOKENS: usize = 37;

/// A tape with trained inputs of such shapes, of which the first `activations` flow as `dtype`.
fn inputs(tape: &Tape, shapes: &[&[usize]], activations: usize, dtype: DType) -> Vec<Var> {
    let mut parameters = Parameters::new();
    for (index, shape) in shapes.iter().enumerate() {
        let id = parameters.add(format!("input {index}"), draw(&format!("kept{index}"), shape)).unwrap();
        parameters.get_mut(id).trainable = true;
    }
    let vars = parameters.iter().map(|(id, _)| tape.parameter(&parameters, id));
    vars.enumerate()
        .map(|(index, var)| if index < activations { cast(tape, &var, dtype).unwrap() } else { var })
        .collect()
}

#[test]
fn what_is_made_again_has_the_bits_that_it_had() {
    // Rows that end within a vector, and more of them than a block holds.
    const WIDE: usize = 1037;
    let layout = Arc::new(Layout::new(&[TOKENS], &[0]));
    let with = |activation| {
        let layout = layout.clone();
        move |tape: &Tape, vars: &[Var]| {
            let low_rank = Some(LowRank { a: &vars[3], b: &vars[4], scale: 0.7, dropout: None });
            let all = Linear { low_rank, activation, ..Linear::plain(&vars[1], Some(&vars[2])) };
            linear(tape, &vars[0], &layout, all)
        }
    };
    let normed = |biased| {
        let layout = layout.clone();
        move |tape: &Tape, vars: &[Var]| {
            let options = LayerNormOptions {
                weight: &vars[2],
                bias: Some(&vars[3]).filter(|_| biased),
                epsilon: 1e-5,
                residual: Some(&vars[1]),
                dropout: None,
            };
            layer_norm(tape, &vars[0], &layout, options)
        }
    };
    type Op<'a> = Box<dyn Fn(&Tape, &[Var]) -> Result<Var> + 'a>;
    let shapes_of_linear: &[&[usize]] = &[&[TOKENS, 24], &[WIDE, 24], &[WIDE], &[3, 24], &[WIDE, 3]];
    let shapes_of_norm: &[&[usize]] = &[&[TOKENS, WIDE], &[TOKENS, WIDE], &[WIDE], &[WIDE]];
    let mut ops: Vec<(&str, &[&[usize]], usize, Op<'_>)> = vec![
        ("layer_norm", shapes_of_norm, 2, Box::new(normed(true))),
        ("layer_norm without a bias", shapes_of_norm, 2, Box::new(normed(false))),
        (
            "rms_norm",
            &[&[TOKENS, WIDE], &[WIDE]],
            1,
            Box::new(|tape, vars| rms_norm(tape, &vars[0], &vars[1], 1e-5)),
        ),
        (
            "gate",
            &[&[TOKENS, WIDE], &[TOKENS, WIDE]],
            2,
            Box::new(|tape, vars| gate(tape, &vars[0], &vars[1], Activation::Silu)),
        ),
        (
            "gated",
            &[&[TOKENS, 2 * WIDE]],
            1,
            Box::new(|tape, vars| gated(tape, &vars[0], Activation::GeluTanh)),
        ),
    ];
    for activation in
        [Activation::Gelu, Activation::GeluTanh, Activation::Relu, Activation::Silu, Activation::Tanh]
    {
        ops.push(("linear", shapes_of_linear, 1, Box::new(with(activation))));
    }
    for dtype in [DType::F32, DType::Bf16] {
        for (name, shapes, activations, op) in &ops {
            let tape = Tape::recording();
            let out = op(&tape, &inputs(&tape, shapes, *activations, dtype)).unwrap();
            let kept = out.keep();
            assert!(matches!(kept, Kept::Remade(_)), "{name} in {dtype}");
            let made = kept.value().unwrap();
            assert!(!made.shares(out.value()), "{name} in {dtype}");
            let values = |value: &retune_tensor::Tensor| {
                let var = cast(&Tape::inference(), &Var::constant(value.clone()), DType::F32).unwrap();
                var.value().f32().iter().map(|x| x.to_bits()).collect::<Vec<u32>>()
            };
            assert_eq!(values(&made), values(out.value()), "{name} in {dtype}");
        }
    }
}

#[test]
fn it_is_made_once_for_all_that_read_it_and_is_gone_with_the_last() {
    let tape = Tape::recording();
    let vars = inputs(&tape, &[&[5, 8], &[8]], 0, DType::F32);
    let out = rms_norm(&tape, &vars[0], &vars[1], 1e-5).unwrap();
    let (first, second) = (out.keep(), out.keep());
    drop(out);
    let first = first.value().unwrap();
    let second = second.value().unwrap();
    assert!(first.shares(&second));
    drop(first);
    assert!(second.is_unique(), "nothing else holds it any more");
}

#[test]
fn values_that_no_gradient_comes_back_to_and_other_values_are_kept_themselves() {
    let tape = Tape::recording();
    let vars = inputs(&tape, &[&[5, 8], &[5, 8]], 0, DType::F32);
    let frozen = Var::constant(draw("frozen", &[5, 8]));
    let weight = Var::constant(draw("weight", &[8]));
    let layout = Arc::new(Layout::new(&[5], &[0]));
    for value in [
        rms_norm(&tape, &frozen, &weight, 1e-5).unwrap(),
        add(&tape, &vars[0], &vars[1], &layout, None).unwrap(),
        rms_norm(&Tape::inference(), &frozen, &weight, 1e-5).unwrap(),
    ] {
        assert!(value.keep().value().unwrap().shares(value.value()));
    }
}

/// A norm, two layers that read it, the one with an activation and a layer behind that; `[TOKENS, 8]` of as many.
fn block(tape: &Tape, parameters: &Parameters, x: &Var, ids: &[ParamId; 6]) -> Result<Var> {
    let layout = Arc::new(Layout::new(&[TOKENS], &[0]));
    let [weight, bias, up, side, down, scale] = ids.map(|id| tape.parameter(parameters, id));
    let options =
        LayerNormOptions { weight: &weight, bias: Some(&bias), epsilon: 1e-5, residual: None, dropout: None };
    let normal = layer_norm(tape, x, &layout, options)?;
    let activated = Linear { activation: Activation::Gelu, ..Linear::plain(&up, None) };
    let wide = linear(tape, &normal, &layout, activated)?;
    let side = linear(tape, &normal, &layout, Linear::plain(&side, None))?;
    drop(normal);
    let narrow = linear(tape, &wide, &layout, Linear::plain(&down, None))?;
    rms_norm(tape, &add(tape, &narrow, &side, &layout, None)?, &scale, 1e-5)
}

fn parameters_of_block(make: impl Fn(&str, &[usize]) -> Tensor) -> (Parameters, [ParamId; 6]) {
    let mut parameters = Parameters::new();
    let shapes: [&[usize]; 6] = [&[8], &[8], &[32, 8], &[8, 8], &[8, 32], &[8]];
    let mut number = 0;
    let ids = shapes.map(|shape| {
        number += 1;
        let name = format!("weight {number}");
        let id = parameters.add(&name, make(&name, shape)).unwrap();
        parameters.get_mut(id).trainable = true;
        id
    });
    (parameters, ids)
}

/// A scalar whose gradient by `out` is `out`.
fn loss(tape: &Tape, out: &Var) -> Var {
    let (node, value) = (out.node(), out.value().clone());
    let scalar = Tensor::zeros(Device::Cpu, &[]).unwrap();
    tape.record(scalar, &[out], || move |_: Tensor, sink: &mut retune_tensor::Sink<'_>| sink.add(node, value))
}

#[test]
fn weights_can_be_written_as_soon_as_their_gradient_is_complete() {
    let x = Var::constant(draw("x", &[TOKENS, 8]));
    let bits = |gradient: &Gradient| {
        gradient.to_dense().unwrap().f32().iter().map(|x| x.to_bits()).collect::<Vec<u32>>()
    };
    let (parameters, ids) = parameters_of_block(draw);
    let tape = Tape::recording();
    let out = block(&tape, &parameters, &x, &ids).unwrap();
    let scalar = loss(&tape, &out);
    drop(out);
    let mut gradients = Gradients::new();
    tape.backward(&scalar, &mut gradients).unwrap();
    let kept = ids.map(|id| bits(gradients.get(id).unwrap()));
    for recomputed in [false, true] {
        let (mut parameters, ids) = parameters_of_block(draw);
        let tape = Tape::recording();
        let out = match recomputed {
            false => block(&tape, &parameters, &x, &ids),
            true => tape.recompute(&parameters, &[&x], move |tape, parameters, inputs| {
                block(tape, parameters, &inputs[0], &ids)
            }),
        };
        let scalar = loss(&tape, &out.unwrap());
        let mut found = ids.map(|_| Vec::new());
        tape.backward_each(&scalar, |id, gradient| {
            // Errors if anything still holds the weight; and what is made again afterwards would differ.
            parameters.get_mut(id).value.f32_mut()?.fill(f32::NAN);
            found[ids.iter().position(|one| *one == id).unwrap()] = bits(&gradient);
            Ok(())
        })
        .unwrap();
        assert_eq!(found, kept, "recomputed: {recomputed}");
    }
}

#[test]
fn between_the_passes_only_what_the_ops_hold_themselves_is_there() {
    // On the device that counts and that no other test here uses.
    let on_meta = |_: &str, shape: &[usize]| Tensor::zeros(Device::Meta, shape).unwrap();
    let (parameters, ids) = parameters_of_block(on_meta);
    let x = Var::constant(on_meta("x", &[TOKENS, 8]));
    let before = memory::usage(Device::Meta).current;
    let tape = Tape::recording();
    let out = block(&tape, &parameters, &x, &ids).unwrap();
    let held = memory::usage(Device::Meta).current - before;
    // The norm before its affine map, the values before their activation, the sum that the last norm reads, and its result;
    // a number a token of each norm.
    let values = TOKENS * (8 + 32 + 8 + 8 + 2);
    let rounding = 6 * 64;
    assert!((4 * values..4 * values + rounding).contains(&held), "{held} bytes, expected {}", 4 * values);
    drop((tape, out));
}
