use retune_adapt::Options;
use retune_tensor::backend::meta::take_flops;
use retune_tensor::random::Key;
use retune_tensor::{DType, Device, Tape};
use serde::Serialize;

use super::Shape;
use super::step::Bench;
use crate::{METHODS, Result};

/// Rows and tokens a row that work is counted on.
const ROWS: [usize; 2] = [32, 64];

/// What a method with its defaults costs on a model of some shape.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MethodCost {
    /// Its name.
    pub method: &'static str,
    /// Numbers that it trains, the classifier for two labels included.
    pub trainable_parameters: usize,
    /// Numbers of the model without it.
    pub base_parameters: usize,
    /// Work of a prediction beyond that of the base alone, as a share, as long as nothing is merged: the multiplications of all
    /// products, for 32 rows of 64 tokens.
    pub inference_work: f64,
}

/// The costs of all methods on the shape `name`. Nothing is computed for it. Errors if there is no such shape.
pub fn method_costs(name: &str) -> Result<Vec<MethodCost>> {
    let shape = Shape::find(name)?;
    let of = |method| -> Result<(usize, usize, u64)> {
        let bench = Bench::with(shape, method, &Options::default(), ROWS, DType::F32, Device::Meta)?;
        take_flops();
        bench.task.loss(&Tape::inference(), &bench.parameters, Key::new(0))?;
        let (all, trained) = bench.parameters.count();
        Ok((all, trained, take_flops()))
    };
    let mut costs = Vec::new();
    let mut base = None;
    for method in METHODS {
        let (all, trained, work) = of(*method)?;
        // The first trains the model itself.
        let (base_parameters, base_work) = *base.get_or_insert((all, work));
        costs.push(MethodCost {
            method: method.name(),
            trainable_parameters: trained,
            base_parameters,
            inference_work: work as f64 / base_work.max(1) as f64 - 1.0,
        });
    }
    Ok(costs)
}
