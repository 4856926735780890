use std::sync::Arc;

use super::{check_dropout, owned, same_device, same_type};
use crate::backend::{Dropout, LayerNorm, LayerNormSaved, Layout};
use crate::{Error, Result, Tape, Tensor, Var};

/// What a layer norm does beside its norm.
#[derive(Clone, Copy)]
pub struct LayerNormOptions<'a> {
    /// `[columns]`
    pub weight: &'a Var,
    /// `[columns]`; zero if none.
    pub bias: Option<&'a Var>,
    /// Added to the variance.
    pub epsilon: f32,
    /// Added to the input after its dropout, `[tokens, columns]`.
    pub residual: Option<&'a Var>,
    /// On the input.
    pub dropout: Option<Dropout>,
}

/// `norm(dropout(x) + residual) * weight + bias` over each token (Ba et al. 2016, eq. 4).
///
/// `x` and the result are `[tokens, columns]`. Errors if sizes or devices do not fit.
pub fn layer_norm(tape: &Tape, x: &Var, layout: &Arc<Layout>, options: LayerNormOptions<'_>) -> Result<Var> {
    const OP: &str = "layer_norm";
    let LayerNormOptions { weight, bias, epsilon, residual, dropout } = options;
    let (tokens, columns) = (x.value().rows(), x.value().columns());
    weight.value().expect(OP, &[columns], "a weight of shape")?;
    if let Some(bias) = bias {
        bias.value().expect(OP, &[columns], "a bias of shape")?;
    }
    if let Some(residual) = residual {
        residual.value().expect(OP, x.value().shape(), "a residual of shape")?;
    }
    check_dropout(OP, dropout)?;
    if dropout.is_some() && layout.tokens() != tokens {
        return Err(Error::shape(OP, format!("{} tokens", layout.tokens()), x.value().shape()));
    }
    let mut inputs = vec![x, weight];
    inputs.extend(bias);
    inputs.extend(residual);
    let device = same_device(OP, x, &inputs)?;
    let backend = device.backend();

    let dtype = same_type(OP, x, residual.as_slice())?;
    let mut value = Tensor::empty_as(device, dtype, &[tokens, columns])?;
    let mut normal = Tensor::empty_as(device, dtype, &[tokens, columns])?;
    let mut rstd = Tensor::empty(device, &[tokens])?;
    let norm = LayerNorm {
        x: x.value().values(),
        residual: residual.map(|residual| residual.value().values()),
        dropout: dropout.map(|dropout| (dropout, &**layout)),
        weight: weight.value().f32(),
        bias: bias.map(|bias| bias.value().f32()),
        epsilon,
    };
    backend.layer_norm(&norm, value.values_mut()?, normal.values_mut()?, rstd.f32_mut()?);

    let kept = normal.clone();
    let recorded = tape.record(value, &inputs, || {
        let (x, residual) = (x.node(), residual.and_then(Var::node));
        let (weight_node, bias_node) = (weight.node(), bias.and_then(Var::node));
        let (weight, layout) = (weight.value().clone(), layout.clone());
        move |gradient: Tensor, sink: &mut crate::Sink<'_>| {
            let saved = LayerNormSaved { normal: normal.values(), rstd: rstd.f32(), weight: weight.f32() };
            sink.accumulate(weight_node, device, &[columns], |sums, adds| {
                backend.layer_norm_backward(gradient.values(), &saved, None, Some((sums, adds)), None);
                Ok(())
            })?;
            sink.accumulate(bias_node, device, &[columns], |sums, adds| {
                backend.layer_norm_backward(gradient.values(), &saved, None, None, Some((sums, adds)));
                Ok(())
            })?;
            if x.is_none() && residual.is_none() {
                return Ok(());
            }
            let mut dz = Tensor::empty_as(device, dtype, &[tokens, columns])?;
            backend.layer_norm_backward(gradient.values(), &saved, Some(dz.values_mut()?), None, None);
            drop((gradient, normal));
            if residual.is_some() {
                sink.add(residual, dz.clone())?;
            }
            if x.is_some() {
                let mut dx = dz;
                if let Some(dropout) = dropout {
                    dx = owned(dx)?;
                    backend.dropout(dx.values_mut()?, &layout, dropout);
                }
                sink.add(x, dx)?;
            }
            Ok(())
        }
    });
    Ok(recorded.remade_by(|| {
        let (weight, bias) = (weight.value().clone(), bias.map(|bias| bias.value().clone()));
        move || {
            let mut value = Tensor::empty_as(device, dtype, kept.shape())?;
            let bias = bias.as_ref().map(Tensor::f32);
            backend.affine(kept.values(), weight.f32(), bias, value.values_mut()?);
            Ok(value)
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::{Check, layout};
    use crate::random::Key;

    #[test]
    fn gradients_follow_finite_differences() {
        for dropout in [None, Some(Dropout { probability: 0.3, key: Key::new(9) })] {
            Check::new("layer_norm", &[&[11, 13], &[13], &[13], &[11, 13]]).run(|tape, vars| {
                let residual = Some(&vars[3]);
                let options = LayerNormOptions {
                    weight: &vars[1],
                    bias: Some(&vars[2]),
                    epsilon: 1e-5,
                    residual,
                    dropout,
                };
                layer_norm(tape, &vars[0], &layout(), options)
            });
        }
    }

    #[test]
    fn an_input_can_be_its_own_residual() {
        Check::new("layer_norm twice", &[&[11, 3], &[3], &[3]]).run(|tape, vars| {
            let residual = Some(&vars[0]);
            let options = LayerNormOptions {
                weight: &vars[1],
                bias: Some(&vars[2]),
                epsilon: 1e-3,
                residual,
                dropout: None,
            };
            layer_norm(tape, &vars[0], &layout(), options)
        });
    }

    #[test]
    fn a_bias_may_be_none() {
        Check::new("layer_norm without bias", &[&[11, 7], &[7]]).run(|tape, vars| {
            let options = LayerNormOptions {
                weight: &vars[1],
                bias: None,
                epsilon: 1e-5,
                residual: None,
                dropout: None,
            };
            layer_norm(tape, &vars[0], &layout(), options)
        });
    }
}
