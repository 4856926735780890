//! Functions of one value and their derivatives, each in a loop of its own: so each is vectorised.

use rayon::prelude::*;

use super::math;
use super::parallel::{BLOCK, vectorised};
use crate::backend::Activation;
use crate::dtype::Element;

/// A function f of one value.
pub(super) trait Curve {
    /// f(x)
    fn value(x: f32) -> f32;
    /// gradient f'(x)
    fn back(x: f32, gradient: f32) -> f32;
    /// Both, for less than what they take one by one where they share their costly part.
    #[inline(always)]
    fn both(x: f32, gradient: f32) -> (f32, f32) {
        (Self::value(x), Self::back(x, gradient))
    }
}

pub(super) struct Identity;
pub(super) struct Gelu;
pub(super) struct GeluTanh;
pub(super) struct Relu;
pub(super) struct Silu;
pub(super) struct Tanh;

/// Runs `$body` with `$curve` as the type of the function that `$activation` names.
macro_rules! with_curve {
    ($activation:expr, $curve:ident => $body:expr) => {
        with_curve!($activation, $curve => $body, Identity, Gelu, GeluTanh, Relu, Silu, Tanh)
    };
    ($activation:expr, $curve:ident => $body:expr, $($name:ident),*) => {
        match $activation {
            $($crate::backend::Activation::$name => {
                type $curve = $crate::backend::cpu::activation::$name;
                $body
            })*
        }
    };
}
pub(super) use with_curve;

impl Curve for Identity {
    #[inline(always)]
    fn value(x: f32) -> f32 {
        x
    }

    #[inline(always)]
    fn back(_: f32, gradient: f32) -> f32 {
        gradient
    }
}

impl Curve for Gelu {
    #[inline(always)]
    fn value(x: f32) -> f32 {
        math::gelu(x)
    }

    #[inline(always)]
    fn back(x: f32, gradient: f32) -> f32 {
        gradient * math::gelu_derivative(x)
    }
}

impl Curve for GeluTanh {
    #[inline(always)]
    fn value(x: f32) -> f32 {
        math::gelu_tanh(x)
    }

    #[inline(always)]
    fn back(x: f32, gradient: f32) -> f32 {
        gradient * math::gelu_tanh_derivative(x)
    }
}

impl Curve for Relu {
    #[inline(always)]
    fn value(x: f32) -> f32 {
        if x < 0.0 { 0.0 } else { x }
    }

    /// No product: an infinite gradient times 0 would be NaN.
    #[inline(always)]
    fn back(x: f32, gradient: f32) -> f32 {
        if x > 0.0 { gradient } else { 0.0 }
    }
}

impl Curve for Silu {
    #[inline(always)]
    fn value(x: f32) -> f32 {
        x * math::sigmoid(x)
    }

    #[inline(always)]
    fn back(x: f32, gradient: f32) -> f32 {
        Self::both(x, gradient).1
    }

    #[inline(always)]
    fn both(x: f32, gradient: f32) -> (f32, f32) {
        let s = math::sigmoid(x);
        (x * s, gradient * (s * (1.0 + x * (1.0 - s))))
    }
}

impl Curve for Tanh {
    #[inline(always)]
    fn value(x: f32) -> f32 {
        math::tanh(x)
    }

    #[inline(always)]
    fn back(x: f32, gradient: f32) -> f32 {
        let t = math::tanh(x);
        gradient * (1.0 - t * t)
    }
}

/// `values = f(values)`. Plain loops, here and below: what is given to an iterator to run is not sure to be compiled for this
/// machine's vectors.
#[inline(always)]
pub(super) fn activate(activation: Activation, values: &mut [f32]) {
    if activation == Activation::Identity {
        return;
    }
    with_curve!(activation, F => {
        for value in values.iter_mut() {
            *value = F::value(*value);
        }
    });
}

/// `out = f(before)`
pub(super) fn forward<E: Element>(activation: Activation, before: &[E], out: &mut [E]) {
    out.par_chunks_mut(BLOCK).zip(before.par_chunks(BLOCK)).for_each(|(out, before)| {
        vectorised(
            #[inline(always)]
            || {
                with_curve!(activation, F => {
                    for (out, before) in out.iter_mut().zip(before) {
                        *out = E::put(F::value(before.get()));
                    }
                });
            },
        )
    });
}

/// `gradient *= f'(before)`
pub(super) fn backward<E: Element>(activation: Activation, before: &[E], gradient: &mut [E]) {
    gradient.par_chunks_mut(BLOCK).zip(before.par_chunks(BLOCK)).for_each(|(gradient, before)| {
        vectorised(
            #[inline(always)]
            || {
                with_curve!(activation, F => {
                    for (gradient, before) in gradient.iter_mut().zip(before) {
                        *gradient = E::put(F::back(before.get(), gradient.get()));
                    }
                });
            },
        )
    });
}
