//! Products, behind one function: blocks of the output fixed by shape, each by serial calls of the `gemm` crate, with
//! the ends applied while the block is in cache.

use rayon::prelude::*;

use super::elementwise::activate;
use super::parallel::{Disjoint, vectorised};
use crate::backend::{Ends, Product};

/// Below this many multiplications a product is one task: sharing it out costs more than it saves.
const SMALL: usize = 1 << 18;

/// How the output is cut: enough blocks that two or more threads finish together, each large enough that packing its
/// operands is a small part of it.
fn block_sizes(m: usize, n: usize, k: usize) -> (usize, usize) {
    if m * n * k <= SMALL {
        return (m, n);
    }
    let (mut down, mut across) = (m.div_ceil(256), n.div_ceil(512));
    while down * across < 6 {
        let (height, width) = (m.div_ceil(down), n.div_ceil(across));
        if width >= height && width >= 128 {
            across += 1;
        } else if height >= 96 {
            down += 1;
        } else {
            break;
        }
    }
    (m.div_ceil(down).next_multiple_of(8), n.div_ceil(across).next_multiple_of(16))
}

pub(super) fn gemm(out: &mut [f32], products: &[Product<'_>], accumulate: bool, ends: Ends<'_>) {
    let Some(first) = products.first() else { return };
    let (m, n) = (first.left.shape[0], first.right.shape[1]);
    if m == 0 || n == 0 {
        return;
    }
    let deepest = products.iter().map(|product| product.left.shape[1]).max().unwrap_or(0);
    let (height, width) = block_sizes(m, n, deepest);
    let (down, across) = (m.div_ceil(height), n.div_ceil(width));
    assert!(out.len() >= m * n, "gemm: the output is smaller than the product");
    let out = Disjoint::new(out);
    let before = ends.before_activation.map(Disjoint::new);
    (0..down * across).into_par_iter().with_max_len(1).for_each(|task| {
        let (top, left) = (task / across * height, task % across * width);
        let (rows, columns) = (height.min(m - top), width.min(n - left));
        for (index, product) in products.iter().enumerate() {
            let part = Product {
                left: product.left.rows(top, rows),
                right: product.right.columns(left, columns),
                scale: product.scale,
            };
            #[expect(unsafe_code, reason = "a block of columns is no chunk of a slice")]
            // SAFETY: this task alone has this block of the output.
            unsafe {
                block(&out, top * n + left, n, &part, accumulate || index > 0);
            }
        }
        vectorised(|| {
            for row in top..top + rows {
                let range = row * n + left..row * n + left + columns;
                #[expect(unsafe_code, reason = "a block of columns is no chunk of a slice")]
                // SAFETY: this task alone writes this block of the output.
                let values = unsafe { out.slice(range.clone()) };
                if let Some(bias) = ends.bias {
                    values.iter_mut().zip(&bias[left..]).for_each(|(x, bias)| *x += bias);
                }
                if let Some(before) = &before {
                    #[expect(unsafe_code, reason = "a block of columns is no chunk of a slice")]
                    // SAFETY: likewise.
                    unsafe { before.slice(range) }.copy_from_slice(values);
                }
                activate(ends.activation, values);
            }
        });
    });
}

/// `out[start + i * stride + j] (+)= product[i, j]`, in this thread.
///
/// # Safety
/// No other task may touch these places of `out` meanwhile; it may touch those between them.
#[expect(unsafe_code, reason = "the gemm crate takes pointers and strides")]
pub(super) unsafe fn block(
    out: &Disjoint<'_>,
    start: usize,
    stride: usize,
    product: &Product<'_>,
    adds: bool,
) {
    let Product { left, right, scale } = product;
    let ([rows, depth], columns) = (left.shape, right.shape[1]);
    assert!(
        left.is_inside() && right.is_inside() && right.shape[0] == depth,
        "gemm: operands that do not fit"
    );
    if rows == 0 || columns == 0 {
        return;
    }
    let to = out.pointer(start..start + (rows - 1) * stride + columns);
    let [left_down, left_right] = left.strides.map(|stride| stride as isize);
    let [right_down, right_right] = right.strides.map(|stride| stride as isize);
    // SAFETY: operands and output are in bounds by the assertions; the caller keeps others away.
    unsafe {
        gemm::gemm(
            rows,
            columns,
            depth,
            to,
            1,
            stride as isize,
            adds,
            left.data.as_ptr(),
            left_right,
            left_down,
            right.data.as_ptr(),
            right_right,
            right_down,
            1.0,
            *scale,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}
