use std::time::Instant;

use retune_tensor::backend::cpu::ceiling as most;
use retune_tensor::backend::{Ends, Matrix, Product};
use retune_tensor::random::Key;
use retune_tensor::{DType, Device, Tensor};
use serde::Serialize;

use crate::Result;

/// This machine's ceilings, and how near products come to them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Products {
    /// Threads that computed.
    pub threads: usize,
    /// What the operands are; sums and results are f32.
    pub precision: &'static str,
    /// Multiplications with additions in registers alone.
    pub ceiling_flops_per_second: f64,
    /// Read and written by a copy of more than any cache holds.
    pub ceiling_bytes_per_second: f64,
    /// One line a product.
    pub products: Vec<Speed>,
}

/// One product: `[m, k]` by `[k, n]`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Speed {
    /// What it is in a training.
    pub role: &'static str,
    /// Rows of the result.
    pub m: usize,
    /// Columns of the result.
    pub n: usize,
    /// What is summed over.
    pub k: usize,
    /// By the median of its repetitions.
    pub flops_per_second: f64,
    /// Of operands and result, each once. What fits in a cache may come faster than a copy of what does not.
    pub bytes_per_second: f64,
}

/// Floating point operations a second in registers alone, all threads.
pub(super) fn ceiling(dtype: DType) -> f64 {
    most::flops_per_second(dtype)
}

/// Measures the products of linear layers of the widths 384 and 768 on 2,048 tokens: forward (weight transposed), the
/// gradient by the input (plain), the gradient by the weight (input transposed); and those of low rank.
pub fn products(precision: DType) -> Result<Products> {
    const TOKENS: usize = 2048;
    let mut products = Vec::new();
    for [from, to] in
        [[768, 768], [768, 3072], [3072, 768], [384, 384], [384, 1536], [1536, 384], [768, 8], [8, 768]]
    {
        products.push(measure(precision, "forward", [TOKENS, to, from])?);
        products.push(measure(precision, "input's gradient", [TOKENS, from, to])?);
        products.push(measure(precision, "weight's gradient", [to, from, TOKENS])?);
    }
    Ok(Products {
        threads: rayon::current_num_threads(),
        precision: precision.name(),
        ceiling_flops_per_second: ceiling(precision),
        ceiling_bytes_per_second: most::copied_bytes_per_second(),
        products,
    })
}

fn measure(dtype: DType, role: &'static str, [m, n, k]: [usize; 3]) -> Result<Speed> {
    let stream = &mut Key::new(0).with_name("gemm").stream();
    let mut draw = |rows: usize, columns: usize| {
        let values: Vec<f32> = (0..rows * columns).map(|_| stream.uniform() - 0.5).collect();
        Tensor::from_slice(Device::Cpu, &[rows, columns], &values)?.to(dtype)
    };
    // As they lie in memory: weights as [out, in], activations as [tokens, channels].
    let (left, right) = match role {
        "forward" => (draw(m, k)?, draw(n, k)?),
        "input's gradient" => (draw(m, k)?, draw(k, n)?),
        _ => (draw(k, m)?, draw(k, n)?),
    };
    let view = |tensor: &'_ Tensor| [tensor.rows(), tensor.columns()];
    let ([left_rows, left_columns], [right_rows, right_columns]) = (view(&left), view(&right));
    let (mut a, mut b) = (
        Matrix::new(left.values(), left_rows, left_columns),
        Matrix::new(right.values(), right_rows, right_columns),
    );
    match role {
        "forward" => b = b.t(),
        "input's gradient" => {}
        _ => a = a.t(),
    }
    let mut out = Tensor::empty(Device::Cpu, &[m, n])?;
    let backend = Device::Cpu.backend();
    let mut seconds = Vec::new();
    for _ in 0..9 {
        let start = Instant::now();
        backend.gemm(out.values_mut()?, &[Product { left: a, right: b, scale: 1.0 }], false, Ends::default());
        seconds.push(start.elapsed().as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    let seconds = seconds[seconds.len() / 2];
    let size = |tensor: &Tensor| tensor.dtype().bytes(tensor.len(), tensor.columns()).unwrap_or(usize::MAX);
    let bytes = [&left, &right, &out].map(size).into_iter().fold(0, usize::saturating_add);
    Ok(Speed {
        role,
        m,
        n,
        k,
        flops_per_second: (2 * m * n * k) as f64 / seconds,
        bytes_per_second: bytes as f64 / seconds,
    })
}
