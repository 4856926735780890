//! Sums of Kronecker products. The factors are few thousand values, so one thread's plain loops are enough.

use super::super::KroneckerSum;

/// `left_k[p] right_k[q]`
fn inner(factors: &KroneckerSum<'_>, k: usize, p: usize, q: usize) -> f32 {
    let [_, down, across, rank] = factors.sizes;
    let left = &factors.left[(k * down + p) * rank..][..rank];
    left.iter().enumerate().map(|(r, left)| left * factors.right[(k * rank + r) * across + q]).sum()
}

/// Calls `each(i n + j, [p, q], at)` for each term; `at` is its place in the sum.
fn terms(sizes: [usize; 4], mut each: impl FnMut(usize, [usize; 2], usize)) {
    let [n, down, across, _] = sizes;
    for q in 0..across {
        for p in 0..down {
            for j in 0..n {
                for i in 0..n {
                    each(i * n + j, [p, q], (j * across + q) * n * down + i * down + p);
                }
            }
        }
    }
}

pub(super) fn forward(factors: &KroneckerSum<'_>, out: &mut [f32]) {
    let n = factors.sizes[0];
    out.fill(0.0);
    for k in 0..n {
        let rule = &factors.rule[k * n * n..][..n * n];
        let mut last = ([usize::MAX; 2], 0.0);
        terms(factors.sizes, |ij, place, at| {
            if last.0 != place {
                last = (place, inner(factors, k, place[0], place[1]));
            }
            out[at] += rule[ij] * last.1;
        });
    }
}

pub(super) fn backward(factors: &KroneckerSum<'_>, gradient: &[f32], out: &mut [&mut [f32]; 3]) {
    let [n, down, across, rank] = factors.sizes;
    let [by_rule, by_left, by_right] = out;
    let mut by_inner = vec![0.0; down * across];
    for k in 0..n {
        let rule = &factors.rule[k * n * n..][..n * n];
        by_inner.fill(0.0);
        let mut last = ([usize::MAX; 2], 0.0);
        terms(factors.sizes, |ij, place, at| {
            if last.0 != place {
                last = (place, inner(factors, k, place[0], place[1]));
            }
            by_rule[k * n * n + ij] += gradient[at] * last.1;
            by_inner[place[0] * across + place[1]] += gradient[at] * rule[ij];
        });
        for (at, sum) in by_inner.iter().enumerate() {
            let (p, q) = (at / across, at % across);
            for r in 0..rank {
                let (left, right) = ((k * down + p) * rank + r, (k * rank + r) * across + q);
                by_left[left] += sum * factors.right[right];
                by_right[right] += sum * factors.left[left];
            }
        }
    }
}
