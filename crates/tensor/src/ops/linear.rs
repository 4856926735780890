use std::sync::Arc;

use super::{check_dropout, copy, owned, same_device};
use crate::backend::{Activation, Dropout, Ends, Layout, Matrix, Product};
use crate::{Error, Kept, Result, Tape, Tensor, Var};

/// What a linear layer is made of.
#[derive(Clone, Copy)]
pub struct Linear<'a> {
    /// `[out, in]`, as checkpoints store it; `[in, out]` where it is `transposed`.
    pub weight: &'a Var,
    /// Whether the weight is kept the other way round, as in GPT-2.
    pub transposed: bool,
    /// `[out]`
    pub bias: Option<&'a Var>,
    /// Added before the activation.
    pub low_rank: Option<LowRank<'a>>,
    /// Applied to the result.
    pub activation: Activation,
}

impl<'a> Linear<'a> {
    /// A weight and a bias alone.
    pub fn plain(weight: &'a Var, bias: Option<&'a Var>) -> Self {
        Linear { weight, transposed: false, bias, low_rank: None, activation: Activation::Identity }
    }
}

/// A low-rank branch beside a weight (Hu et al. 2021, eq. 3): `scale * dropout(x) a^T b^T`.
#[derive(Clone, Copy)]
pub struct LowRank<'a> {
    /// `[rank, in]`
    pub a: &'a Var,
    /// `[out, rank]`
    pub b: &'a Var,
    /// `alpha / rank`, or what the method says.
    pub scale: f32,
    /// On what goes into `a`.
    pub dropout: Option<Dropout>,
}

/// `activation(x weight^T + bias + scale dropout(x) a^T b^T)`
///
/// `x` is `[tokens, in]`, the result `[tokens, out]`; `layout` keys the dropout of the branch. What only the gradient
/// of a frozen weight would need is not saved. Errors if sizes or devices do not fit.
pub fn linear(tape: &Tape, x: &Var, layout: &Arc<Layout>, linear: Linear<'_>) -> Result<Var> {
    const OP: &str = "linear";
    let Linear { weight, transposed, bias, low_rank, activation } = linear;
    let (tokens, width) = (x.value().rows(), x.value().columns());
    let (rows, columns) = (weight.value().rows(), weight.value().columns());
    let (out_width, expected) = if transposed { (columns, rows) } else { (rows, columns) };
    if weight.value().shape() != [rows, columns] || width != expected {
        return Err(Error::shape(OP, format!("input of width {expected}"), x.value().shape()));
    }
    if let Some(bias) = bias {
        bias.value().expect(OP, &[out_width], "a bias of shape")?;
    }
    let mut inputs = vec![x, weight];
    inputs.extend(bias);
    if let Some(LowRank { a, b, dropout, .. }) = low_rank {
        let rank = a.value().rows();
        a.value().expect(OP, &[rank, width], "a low-rank a of shape")?;
        b.value().expect(OP, &[out_width, rank], "a low-rank b of shape")?;
        check_dropout(OP, dropout)?;
        if dropout.is_some() && layout.tokens() != tokens {
            return Err(Error::shape(OP, format!("{} tokens", layout.tokens()), x.value().shape()));
        }
        inputs.extend([a, b]);
    }
    let device = same_device(OP, x, &inputs)?;
    let backend = device.backend();

    let dtype = x.value().dtype();
    let mut value = Tensor::empty_as(device, dtype, &[tokens, out_width])?;
    let mut before = match activation {
        Activation::Identity => None,
        _ if !tape.is_recording() || inputs.iter().all(|input| !input.needs_gradient()) => None,
        _ => Some(Tensor::empty_as(device, dtype, &[tokens, out_width])?),
    };
    let down = low_rank.map(|branch| branch.down(x.value(), layout)).transpose()?;
    let mut products = vec![product(x.value(), false, weight.value(), !transposed, 1.0)];
    if let (Some(branch), Some(down)) = (&low_rank, &down) {
        products.push(product(down, false, branch.b.value(), true, branch.scale));
    }
    let before_activation = before.as_mut().map(Tensor::values_mut).transpose()?;
    let ends = Ends { bias: bias.map(|bias| bias.value().f32()), activation, before_activation };
    backend.gemm(value.values_mut()?, &products, false, ends);
    drop(products);

    let kept = before.clone();
    let recorded = tape.record(value, &inputs, || {
        let x_node = x.node();
        let (weight_node, bias_node) = (weight.node(), bias.and_then(Var::node));
        let needs_x = weight_node.is_some() || low_rank.is_some_and(|branch| branch.a.needs_gradient());
        let x_kept = needs_x.then(|| x.keep());
        let weight = x_node.map(|_| weight.value().clone());
        let branch = low_rank.map(|branch| Saved::new(&branch, down));
        let layout = layout.clone();
        move |mut gradient: Tensor, sink: &mut crate::Sink<'_>| {
            if let Some(before) = before {
                gradient = owned(gradient)?;
                backend.activation_backward(activation, before.values(), gradient.values_mut()?);
            }
            if bias_node.is_some() {
                sink.accumulate(bias_node, device, &[out_width], |sums, adds| {
                    backend.sum_rows(gradient.values(), sums, adds);
                    Ok(())
                })?;
            }
            let x_value = x_kept.map(Kept::value).transpose()?;
            if let (Some(_), Some(x)) = (weight_node, &x_value) {
                sink.accumulate(weight_node, device, &[rows, columns], |sums, adds| {
                    let (left, right) = if transposed { (x, &gradient) } else { (&gradient, x) };
                    let products = [product(left, true, right, false, 1.0)];
                    backend.gemm(sums.into(), &products, adds, Ends::default());
                    Ok(())
                })?;
            }
            // scale * gradient b: what comes back through the branch, [tokens, rank].
            let mut back = None;
            if let Some(branch) = &branch {
                back = Some(branch.backward(&gradient, x_value.as_ref(), &layout, sink)?);
            }
            drop(x_value);
            let Some(weight) = weight else { return Ok(()) };
            let mut products = vec![product(&gradient, false, &weight, transposed, 1.0)];
            match (&branch, &back) {
                (Some(Saved { a, dropout: None, .. }), Some(back)) => {
                    products.push(product(back, false, a, false, 1.0));
                }
                (Some(Saved { a, dropout: Some(dropout), .. }), Some(back)) => {
                    let mut through = Tensor::empty_as(device, dtype, &[tokens, width])?;
                    backend.gemm(
                        through.values_mut()?,
                        &[product(back, false, a, false, 1.0)],
                        false,
                        Ends::default(),
                    );
                    backend.dropout(through.values_mut()?, &layout, *dropout);
                    sink.add(x_node, through)?;
                }
                _ => {}
            }
            sink.accumulate_as(x_node, device, dtype, &[tokens, width], |sums, adds| {
                backend.gemm(sums, &products, adds, Ends::default());
                Ok(())
            })
        }
    });
    Ok(match kept {
        Some(before) => recorded.remade_by(|| {
            move || {
                let mut value = Tensor::empty_as(device, dtype, before.shape())?;
                backend.activation(activation, before.values(), value.values_mut()?);
                Ok(value)
            }
        }),
        None => recorded,
    })
}

impl LowRank<'_> {
    /// `dropout(x) a^T`: `[tokens, rank]`.
    fn down(&self, x: &Tensor, layout: &Layout) -> Result<Tensor> {
        down(x, self.a.value(), self.dropout, layout)
    }
}

fn down(x: &Tensor, a: &Tensor, dropout: Option<Dropout>, layout: &Layout) -> Result<Tensor> {
    let mut out = Tensor::empty(x.device(), &[x.rows(), a.rows()])?;
    let dropped = dropped(x, dropout, layout)?;
    let products = [product(&dropped, false, a, true, 1.0)];
    x.device().backend().gemm(out.values_mut()?, &products, false, Ends::default());
    Ok(out)
}

/// The input of the branch, drawn again wherever it is needed: a mask is never stored.
fn dropped(x: &Tensor, dropout: Option<Dropout>, layout: &Layout) -> Result<Tensor> {
    let Some(dropout) = dropout else { return Ok(x.clone()) };
    let mut dropped = copy(x)?;
    x.device().backend().dropout(dropped.values_mut()?, layout, dropout);
    Ok(dropped)
}

/// What a branch keeps for its backward.
struct Saved {
    a: Tensor,
    b: Tensor,
    nodes: [Option<crate::NodeId>; 2],
    scale: f32,
    dropout: Option<Dropout>,
    /// `dropout(x) a^T`, which the gradient of `b` needs.
    down: Option<Tensor>,
}

impl Saved {
    fn new(branch: &LowRank<'_>, down: Option<Tensor>) -> Self {
        Saved {
            a: branch.a.value().clone(),
            b: branch.b.value().clone(),
            nodes: [branch.a.node(), branch.b.node()],
            scale: branch.scale,
            dropout: branch.dropout,
            down: down.filter(|_| branch.b.needs_gradient()),
        }
    }

    /// Sends the gradients of `a` and `b`; gives back `scale * gradient b`.
    fn backward(
        &self,
        gradient: &Tensor,
        x: Option<&Tensor>,
        layout: &Layout,
        sink: &mut crate::Sink<'_>,
    ) -> Result<Tensor> {
        let device = gradient.device();
        let backend = device.backend();
        let mut back = Tensor::empty(device, &[gradient.rows(), self.a.rows()])?;
        let products = [product(gradient, false, &self.b, false, self.scale)];
        backend.gemm(back.values_mut()?, &products, false, Ends::default());
        let [a_node, b_node] = self.nodes;
        if let Some(down) = &self.down {
            sink.accumulate(b_node, device, self.b.shape(), |sums, adds| {
                backend.gemm(
                    sums.into(),
                    &[product(gradient, true, down, false, self.scale)],
                    adds,
                    Ends::default(),
                );
                Ok(())
            })?;
        }
        if let (Some(_), Some(x)) = (a_node, x) {
            let dropped = dropped(x, self.dropout, layout)?;
            sink.accumulate(a_node, device, self.a.shape(), |sums, adds| {
                backend.gemm(
                    sums.into(),
                    &[product(&back, true, &dropped, false, 1.0)],
                    adds,
                    Ends::default(),
                );
                Ok(())
            })?;
        }
        Ok(back)
    }
}

/// `scale * left right`, each operand transposed where its flag says so.
fn product<'a>(left: &'a Tensor, left_t: bool, right: &'a Tensor, right_t: bool, scale: f32) -> Product<'a> {
    let view = |tensor: &'a Tensor, transposed| {
        let matrix = Matrix::new(tensor.values(), tensor.rows(), tensor.columns());
        if transposed { matrix.t() } else { matrix }
    };
    Product { left: view(left, left_t), right: view(right, right_t), scale }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::{Check, layout};
    use crate::random::Key;

    #[test]
    fn gradients_follow_finite_differences() {
        // Not relu, whose kink no finite step sees rightly; tests/references.rs holds it against PyTorch.
        let smooth = [Activation::Gelu, Activation::GeluTanh, Activation::Silu, Activation::Tanh];
        for activation in [Activation::Identity].into_iter().chain(smooth) {
            for (transposed, weight) in [(false, [5, 7]), (true, [7, 5])] {
                Check::new("linear", &[&[11, 7], &weight, &[5]]).run(|tape, vars| {
                    let plain = Linear::plain(&vars[1], Some(&vars[2]));
                    linear(tape, &vars[0], &layout(), Linear { transposed, activation, ..plain })
                });
            }
        }
    }

    #[test]
    fn a_branch_has_gradients_of_its_own() {
        for dropout in [None, Some(Dropout { probability: 0.4, key: Key::new(5) })] {
            for (transposed, weight) in [(false, [5, 7]), (true, [7, 5])] {
                Check::new("linear with branch", &[&[11, 7], &weight, &[5], &[3, 7], &[5, 3]]).run(
                    |tape, vars| {
                        let low_rank = Some(LowRank { a: &vars[3], b: &vars[4], scale: 7.0 / 3.0, dropout });
                        let plain = Linear::plain(&vars[1], Some(&vars[2]));
                        let activation = Activation::Gelu;
                        linear(
                            tape,
                            &vars[0],
                            &layout(),
                            Linear { transposed, low_rank, activation, ..plain },
                        )
                    },
                );
            }
        }
    }

    #[test]
    fn sizes_that_do_not_fit_are_named() {
        let tensor = |shape: &[usize]| Var::constant(Tensor::zeros(crate::Device::Cpu, shape).unwrap());
        let (x, weight) = (tensor(&[17, 384]), tensor(&[5, 768]));
        let error = linear(&Tape::inference(), &x, &layout(), Linear::plain(&weight, None)).unwrap_err();
        assert_eq!(error.to_string(), "linear: expected input of width 768, got [17, 384]");
    }
}
