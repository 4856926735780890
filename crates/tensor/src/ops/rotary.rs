use std::sync::Arc;

use super::{copy, owned};
use crate::backend::{Layout, Rotary};
use crate::{Error, Result, Tape, Tensor, Var};

/// Rotary positions (Su et al. 2021, eq. 34): with `d` the head size, the channels `i` and `i + d / 2` of each head
/// are turned in their plane by `p f_i`, where `p` is the token's position in its row, and `f_i = theta^(-2 i / d)` unless
/// positions are stretched.
///
/// A query's product with a key then depends on how far they are apart, not on where they are. The pairs are those of
/// transformers (`rotate_half`), not the neighbours of the paper: checkpoints are trained for one or the other.
///
/// `x` and the result are `[tokens, heads * head_size]`. The backward turns back. Errors if sizes do not fit.
pub fn rotary(tape: &Tape, x: &Var, layout: &Arc<Layout>, rotary: &Rotary) -> Result<Var> {
    const OP: &str = "rotary";
    let (tokens, columns, head_size) = (x.value().rows(), x.value().columns(), rotary.head_size());
    if head_size == 0 || !columns.is_multiple_of(head_size) {
        return Err(Error::shape(OP, format!("heads of size {head_size}"), x.value().shape()));
    }
    if layout.tokens() != tokens {
        return Err(Error::shape(OP, format!("{} tokens", layout.tokens()), x.value().shape()));
    }
    let backend = x.value().device().backend();
    let mut value = copy(x.value())?;
    backend.rotary(value.values_mut()?, layout, rotary, false);
    Ok(tape.record(value, &[x], || {
        let (node, layout, rotary) = (x.node(), layout.clone(), rotary.clone());
        move |gradient: Tensor, sink: &mut crate::Sink<'_>| {
            let mut gradient = owned(gradient)?;
            backend.rotary(gradient.values_mut()?, &layout, &rotary, true);
            sink.add(node, gradient)
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::bf16;
    use crate::ops::check::{Check, layout};
    use crate::random::Key;
    use crate::{DType, Device};

    #[test]
    fn gradients_follow_finite_differences() {
        // Stretched as by YaRN, and rows that begin at positions of their own.
        let stretched = Rotary { frequencies: [0.9, 0.2, 0.03].into(), scale: 1.3 };
        let later = Arc::new(layout().starting_at(&[0, 7, 2, 40]));
        for (rotary_, layout) in [(&Rotary::new(6, 50.0), layout()), (&stretched, later)] {
            Check::new("rotary", &[&[11, 18]]).run(|tape, vars| rotary(tape, &vars[0], &layout, rotary_));
        }
    }

    #[test]
    fn heads_of_every_size_are_turned_by_the_formula() {
        // Less than a vector of any machine, several, and some that end within one.
        for head_size in [2usize, 16, 30, 32, 34, 64, 128] {
            let (tokens, half, turn) = (5, head_size / 2, Rotary::new(head_size, 100.0));
            let stream = &mut Key::new(7).with_name("x").stream();
            let values: Vec<f32> = (0..tokens * 2 * head_size).map(|_| stream.normal()).collect();
            let layout = Arc::new(Layout::new(&[tokens], &[0]));
            for dtype in [DType::F32, DType::Bf16] {
                let x = Tensor::from_slice(Device::Cpu, &[tokens, 2 * head_size], &values).unwrap();
                let x = x.to(dtype).unwrap();
                let given = x.to(DType::F32).unwrap();
                let out = rotary(&Tape::inference(), &Var::constant(x), &layout, &turn).unwrap();
                let out = out.value().to(DType::F32).unwrap();
                for (place, head) in given.f32().chunks_exact(head_size).enumerate() {
                    let got = &out.f32()[place * head_size..][..head_size];
                    for pair in 0..half {
                        let angle = f64::from((place / 2) as f32 * turn.frequencies[pair]);
                        let (sine, cosine) = (angle.sin() as f32, angle.cos() as f32);
                        let (a, b) = (head[pair], head[pair + half]);
                        for (got, want) in
                            [(got[pair], a * cosine - b * sine), (got[pair + half], b * cosine + a * sine)]
                        {
                            let want =
                                if dtype == DType::Bf16 { bf16::from_f32(want).to_f32() } else { want };
                            assert_eq!(got.to_bits(), want.to_bits(), "{head_size}, {dtype:?}, pair {pair}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_row_that_begins_later_is_the_end_of_a_longer_one() {
        let mut stream = Key::new(4).stream();
        let values: Vec<f32> = (0..9 * 6).map(|_| stream.normal()).collect();
        let turned = |values: &[f32], layout: Layout| {
            let x = Tensor::from_slice(crate::Device::Cpu, &[values.len() / 6, 6], values).unwrap();
            let (x, layout) = (Var::constant(x), Arc::new(layout));
            let out = rotary(&Tape::inference(), &x, &layout, &Rotary::new(6, 50.0)).unwrap();
            out.value().f32().to_vec()
        };
        let whole = turned(&values, Layout::new(&[9], &[0]));
        let end = turned(&values[5 * 6..], Layout::new(&[4], &[0]).starting_at(&[5]));
        assert_eq!(end, whole[5 * 6..]);
    }

    #[test]
    fn products_depend_on_the_distance_alone() {
        let mut stream = Key::new(3).stream();
        let token: Vec<f32> = (0..6).map(|_| stream.normal()).collect();
        let tokens = 9;
        let x = Tensor::from_slice(crate::Device::Cpu, &[tokens, 6], &token.repeat(tokens)).unwrap();
        let layout = Arc::new(Layout::new(&[tokens], &[0]));
        let out = rotary(&Tape::inference(), &Var::constant(x), &layout, &Rotary::new(6, 50.0)).unwrap();
        let at = |position: usize| &out.value().f32()[position * 6..][..6];
        let product = |i, j| at(i).iter().zip(at(j)).map(|(a, b)| a * b).sum::<f32>();
        assert_eq!(at(0), token, "the first position is not turned");
        assert!((product(1, 4) - product(5, 8)).abs() < 1e-5);
        assert!((product(1, 4) - product(1, 5)).abs() > 1e-2, "and depends on it");
    }

    #[test]
    fn sizes_that_do_not_fit_are_named() {
        let x = Var::constant(Tensor::zeros(crate::Device::Cpu, &[11, 18]).unwrap());
        for (head_size, expected) in [
            (0, "rotary: expected heads of size 0, got [11, 18]"),
            (4, "rotary: expected heads of size 4, got [11, 18]"),
        ] {
            let error = rotary(&Tape::inference(), &x, &layout(), &Rotary::new(head_size, 10.0));
            assert_eq!(error.unwrap_err().to_string(), expected);
        }
    }
}
