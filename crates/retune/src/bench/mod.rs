//! How fast this machine trains: a step on random weights of a real shape, and what the processor could do at most.

mod gemm;
mod methods;
mod profile;
mod shapes;
mod step;

pub use gemm::{Products, Speed, products};
pub use methods::{MethodCost, method_costs};
pub use profile::OpCost;
pub use shapes::{SHAPES, Shape};
pub use step::{StepCost, StepSettings, step};
