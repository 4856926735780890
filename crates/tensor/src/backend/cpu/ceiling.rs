//! What this processor could do at most: the lines that a profile is measured against.

use std::hint::black_box;
use std::time::Instant;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::gemm::pairs_in_registers;
use super::parallel::dispatch;
use crate::DType;

/// Multiplications with additions in registers alone, on all threads: floating point operations a second. Of bf16 it is
/// that of f32 where the machine has no products of bf16.
pub fn flops_per_second(dtype: DType) -> f64 {
    const TURNS: usize = 4_000_000;
    best_of(|| {
        let threads = rayon::current_num_threads();
        let each: Vec<f64> = (0..threads)
            .into_par_iter()
            .with_max_len(1)
            .map(|_| {
                let start = Instant::now();
                let pairs = (dtype == DType::Bf16).then(|| pairs_in_registers(TURNS)).flatten();
                let flops = pairs.unwrap_or_else(|| dispatch(Registers { turns: TURNS }));
                flops / start.elapsed().as_secs_f64()
            })
            .collect();
        each.iter().sum()
    })
}

/// Bytes read and written a second by a copy of more than any cache holds, on all threads.
pub fn copied_bytes_per_second() -> f64 {
    const VALUES: usize = 48 << 20;
    let from = vec![1.0f32; VALUES];
    let mut to = vec![0.0f32; VALUES];
    best_of(|| {
        let start = Instant::now();
        super::elementwise::copy(&from, &mut to);
        black_box(&to);
        (2 * VALUES * size_of::<f32>()) as f64 / start.elapsed().as_secs_f64()
    })
}

/// What disturbs a measurement only slows it.
fn best_of(mut measure: impl FnMut() -> f64) -> f64 {
    (0..5).map(|_| measure()).fold(0.0, f64::max)
}

/// Twelve sums that do not depend on one another hide what a multiplication takes.
struct Registers {
    turns: usize,
}

impl WithSimd for Registers {
    type Output = f64;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f64 {
        let factor = simd.splat_f32s(black_box(0.999));
        let more = simd.splat_f32s(black_box(0.001));
        let mut sums = [factor; 12];
        for _ in 0..self.turns {
            for sum in &mut sums {
                *sum = simd.mul_add_e_f32s(*sum, factor, more);
            }
        }
        black_box(sums.into_iter().fold(more, |total, sum| simd.add_f32s(total, sum)));
        2.0 * (self.turns * sums.len() * S::F32_LANES) as f64
    }
}
