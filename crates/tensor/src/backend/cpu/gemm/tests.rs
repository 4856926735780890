use super::*;
use crate::backend::Matrix;
use crate::dtype::{Values, bf16, with_values};

#[test]
fn narrow_products_join_the_round_before_them() {
    let data = vec![0.0; 3072];
    let product = |depth| Product {
        left: Matrix::new(&data, 1, depth),
        right: Matrix::new(&data, depth, 1),
        scale: 1.0,
    };
    let depths = |products: &[Product<'_>]| -> Vec<usize> {
        rounds(products, 1, DEPTH).iter().map(|round| round.depth).collect()
    };
    assert_eq!(depths(&[product(768), product(8)]), [776]);
    assert_eq!(depths(&[product(1000)]), [1000]);
    assert_eq!(depths(&[product(2048)]), [683, 683, 682]);
    assert_eq!(depths(&[product(3072), product(16)]), [768, 768, 768, 784]);
    assert_eq!(depths(&[product(0)]), [1]);
}

#[test]
fn products_of_every_layout_are_the_plain_sum() {
    // Several rounds, tiles and blocks that end early, one row and one column, and a narrow second product; rows that are few
    // beside their columns.
    let shapes =
        [[131, 533, 1701], [1, 700, 900], [67, 1, 2100], [13, 17, 5], [97, 300, 1025], [61, 1003, 70]];
    for [m, n, depth] in shapes {
        let draw = |count: usize, seed: usize| -> Vec<f32> {
            (0..count).map(|i| ((i * 7919 + seed * 104_729) % 23) as f32 / 11.0 - 1.0).collect()
        };
        let (left, right) = (draw(m * depth, 1), draw(depth * n, 2));
        let (down, up) = (draw(m * 3, 3), draw(3 * n, 4));
        let (bias, before) = (draw(n, 5), draw(m * n, 6));
        for (left_t, right_t) in [(false, false), (true, false), (false, true), (true, true)] {
            let view = |data, rows, columns, turned| match turned {
                true => Matrix::new(data, columns, rows).t(),
                false => Matrix::new(data, rows, columns),
            };
            let (a, b) = (view(&left, m, depth, left_t), view(&right, depth, n, right_t));
            let (c, d) = (view(&down, m, 3, left_t), view(&up, 3, n, right_t));
            let products =
                [Product { left: a, right: b, scale: 0.5 }, Product { left: c, right: d, scale: -2.0 }];
            let mut out = before.clone();
            gemm((&mut out).into(), &products, true, Ends { bias: Some(&bias), ..Ends::default() });
            let at = |matrix: Matrix<'_>, row: usize, column: usize| {
                let place = row * matrix.strides[0] + column * matrix.strides[1];
                with_values!(matrix.data, data => f64::from(data[place].get()))
            };
            for (index, got) in out.iter().enumerate().step_by(if m * n > 1000 { 37 } else { 1 }) {
                let (row, column) = (index / n, index % n);
                let sum = |left, right, depth| {
                    (0..depth).map(|k| at(left, row, k) * at(right, k, column)).sum::<f64>()
                };
                let want = 0.5 * sum(a, b, depth) - 2.0 * sum(c, d, 3)
                    + f64::from(bias[column])
                    + f64::from(before[index]);
                let apart = (f64::from(*got) - want).abs();
                assert!(apart < 2e-3, "{m} x {n} x {depth} at [{row}, {column}]: {got}, expected {want}");
            }
        }
    }
}

#[test]
fn a_row_alone_has_the_bits_it_has_among_others() {
    let (rows, columns, depth) = (150, 130, 1500);
    let draw = |count: usize| -> Vec<f32> { (0..count).map(|i| (i as f32 * 0.37).sin()).collect() };
    let (left, right) = (draw(rows * depth), draw(depth * columns));
    let run = |first: usize, count: usize| {
        let mut out = vec![0.0f32; count * columns];
        let left = Matrix::new(&left, rows, depth).rows(first, count);
        let product = Product { left, right: Matrix::new(&right, depth, columns), scale: 1.0 };
        gemm((&mut out).into(), &[product], false, Ends::default());
        out
    };
    let all = run(0, rows);
    for row in [0, 5, 77, 149] {
        let alone: Vec<u32> = run(row, 1).iter().map(|x| x.to_bits()).collect();
        let among: Vec<u32> = all[row * columns..][..columns].iter().map(|x| x.to_bits()).collect();
        assert_eq!(alone, among, "row {row}");
    }
}

#[test]
fn a_rounded_row_alone_has_the_bits_it_has_among_others() {
    // Ends of tiles in rows and columns, on pairs and widened, with all that is added before rounding.
    let (rows, columns, depth) = (150, 130, 1500);
    let (left, right) = (halves(rows * depth, 1), halves(depth * columns, 2));
    let wide: Vec<f32> = (0..rows * depth).map(|i| (i as f32 * 0.37).sin()).collect();
    let bias: Vec<f32> = (0..columns).map(|i| (i as f32 * 0.53).sin()).collect();
    let before = halves(rows * columns, 3);
    for left in [Values::Bf16(&left), Values::F32(&wide)] {
        for (bias, adds) in [(None, false), (Some(&bias[..]), false), (None, true), (Some(&bias[..]), true)] {
            let run = |first: usize, count: usize| {
                let mut out = before[first * columns..][..count * columns].to_vec();
                let left = Matrix::new(left, rows, depth).rows(first, count);
                let right = Matrix::new(Values::Bf16(&right), depth, columns);
                let ends = Ends { bias, ..Ends::default() };
                gemm(ValuesMut::Bf16(&mut out), &[Product { left, right, scale: 1.0 }], adds, ends);
                out
            };
            let all = run(0, rows);
            for row in [0, 5, 77, 149] {
                assert_eq!(run(row, 1), all[row * columns..][..columns], "row {row}, adds {adds}");
            }
        }
    }
}

#[test]
fn rows_a_page_apart_have_the_bits_of_others() {
    // Those are packed, as they share a set of the nearest cache; the others are read where they lie.
    let (rows, columns, depth) = (40, 70, 1024);
    let left: Vec<f32> = (0..rows * depth).map(|i| (i as f32 * 0.37).sin()).collect();
    let right: Vec<f32> = (0..depth * columns).map(|i| (i as f32 * 0.53).sin()).collect();
    let apart: Vec<f32> = left.chunks(depth).flat_map(|row| [row, &[9.0; 16]].concat()).collect();
    let run = |left| {
        let mut out = vec![0.0f32; rows * columns];
        let product = Product { left, right: Matrix::new(&right, depth, columns), scale: 1.0 };
        gemm((&mut out).into(), &[product], false, Ends::default());
        out
    };
    let (paged, others) =
        (run(Matrix::new(&left, rows, depth)), run(Matrix::new(&apart, rows, depth + 16).columns(0, depth)));
    assert_eq!(paged, others);
}

/// Values of bf16, and what they are.
fn halves(count: usize, seed: usize) -> Vec<bf16> {
    (0..count).map(|i| bf16::from_f32(((i * 7919 + seed * 104_729) % 23) as f32 / 11.0 - 1.0)).collect()
}

#[test]
fn pairs_of_every_layout_and_type_are_the_plain_sum() {
    // Odd depths, several rounds, ends of tiles; operands of both types, on pairs wherever the test runs, and widened.
    for [m, n, depth] in
        [[131, 133, 4701], [1, 70, 901], [67, 1, 333], [13, 17, 5], [24, 64, 64], [61, 1003, 71]]
    {
        let (left, right) = (halves(m * depth, 1), halves(depth * n, 2));
        let wide: Vec<f32> = right.iter().map(|x| x.to_f32()).collect();
        let bias: Vec<f32> = (0..n).map(|i| i as f32 / 8.0).collect();
        let before = halves(m * n, 3);
        for (left_t, right_t) in [(false, false), (true, false), (false, true), (true, true)] {
            let view = |data: Values<'static>, rows, columns, turned| match turned {
                true => Matrix::new(data, columns, rows).t(),
                false => Matrix::new(data, rows, columns),
            };
            // Leaked, so that one closure serves all: this is a test.
            let leak = |values: &[bf16]| Values::Bf16(Box::leak(values.to_vec().into_boxed_slice()));
            let a = view(leak(&left), m, depth, left_t);
            let b = if right_t {
                view(leak(&right), depth, n, true)
            } else {
                view(Values::F32(Box::leak(wide.clone().into_boxed_slice())), depth, n, false)
            };
            let at = |matrix: Matrix<'_>, row: usize, column: usize| {
                let place = row * matrix.strides[0] + column * matrix.strides[1];
                with_values!(matrix.data, data => f64::from(data[place].get()))
            };
            let products = [Product { left: a, right: b, scale: 0.5 }];
            let ends = || Ends { bias: Some(&bias), ..Ends::default() };
            let mut on_pairs = vec![0.0f32; m * n];
            multiply::<u32, f32>(&mut on_pairs, &products, false, ends());
            let mut widened = vec![0.0f32; m * n];
            multiply::<f32, f32>(&mut widened, &products, false, ends());
            let mut rounded = before.clone();
            multiply::<u32, bf16>(&mut rounded, &products, true, ends());
            // What is activated is kept, rounded, if it is asked for.
            let (mut activated, mut alone, mut kept) = (before.clone(), before.clone(), before.clone());
            let gelu = || Ends { activation: Activation::Gelu, ..ends() };
            let keeps = Ends { before_activation: Some(kept.as_mut_slice().into()), ..gelu() };
            multiply::<u32, bf16>(&mut activated, &products, false, keeps);
            multiply::<u32, bf16>(&mut alone, &products, false, gelu());
            assert_eq!(activated, alone);
            for index in (0..m * n).step_by(if m * n > 1000 { 41 } else { 1 }) {
                let (row, column) = (index / n, index % n);
                let sum: f64 = (0..depth).map(|k| at(a, row, k) * at(b, k, column)).sum();
                let want = 0.5 * sum + f64::from(bias[column]);
                for got in [on_pairs[index], widened[index]] {
                    // The halves of the left operand are rounded once more, as they are scaled: exactly here.
                    let apart = (f64::from(got) - want).abs();
                    assert!(apart < 4e-3 + 3e-5 * want.abs(), "[{row}, {column}]: {got}, expected {want}");
                }
                let mut gelu = [kept[index].to_f32()];
                activate(Activation::Gelu, &mut gelu);
                assert_eq!(activated[index], bf16::from_f32(gelu[0]), "[{row}, {column}]");
                let (got, sum) = (kept[index].to_f64(), want);
                assert!((got - sum).abs() <= sum.abs() / 256.0 + 4e-3, "{got}, expected {sum}");
                let (got, want) = (rounded[index].to_f64(), want + before[index].to_f64());
                assert!((got - want).abs() <= want.abs() / 256.0 + 4e-3, "{got}, expected {want}");
            }
        }
    }
}

#[test]
fn narrow_products_of_every_layout_are_the_plain_sum() {
    for [m, n, k] in [
        [301, 8, 45],
        [301, 5, 768],
        [45, 8, 301],
        [8, 45, 301],
        [2, 133, 17],
        [3, 1, 19],
        [137, 16, 1],
        [1, 9, 200],
        [301, 3, 130],
        [301, 1, 45],
        [11, 301, 77],
        [301, 16, 131],
    ] {
        let (left, right) = (halves(m * k, 1), halves(k * n, 2));
        let [wide, wide_right] =
            [&left, &right].map(|halves| halves.iter().map(|x| x.to_f32()).collect::<Vec<f32>>());
        for (left_t, right_t) in [(false, false), (true, false), (false, true), (true, true)] {
            let view = |rows, columns, turned| -> [[usize; 2]; 2] {
                if turned { [[rows, columns], [1, rows]] } else { [[rows, columns], [columns, 1]] }
            };
            let ([a_shape, a_strides], [b_shape, b_strides]) = (view(m, k, left_t), view(k, n, right_t));
            let (left, right) = (Values::Bf16(&left), Values::Bf16(&right));
            let types = [
                (left, right),
                (left, Values::F32(&wide_right)),
                (Values::F32(&wide), right),
                (Values::F32(&wide), Values::F32(&wide_right)),
            ];
            for (left, right) in types {
                let a = Matrix { data: left, shape: a_shape, strides: a_strides };
                let b = Matrix { data: right, shape: b_shape, strides: b_strides };
                let at = |matrix: Matrix<'_>, row: usize, column: usize| {
                    let place = row * matrix.strides[0] + column * matrix.strides[1];
                    with_values!(matrix.data, data => f64::from(data[place].get()))
                };
                for adds in [false, true] {
                    let mut out = vec![1.0f32; m * n];
                    let product = Product { left: a, right: b, scale: 0.5 };
                    gemm((&mut out).into(), &[product], adds, Ends::default());
                    for (index, got) in out.iter().enumerate() {
                        let (row, column) = (index / n, index % n);
                        let sum: f64 = (0..k).map(|k| at(a, row, k) * at(b, k, column)).sum();
                        let want = 0.5 * sum + if adds { 1.0 } else { 0.0 };
                        let apart = (f64::from(*got) - want).abs();
                        assert!(apart < 1e-3, "{m} x {n} x {k} at [{row}, {column}]: {got}, expected {want}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_row_alone_has_the_bits_it_has_among_others_in_narrow_products() {
    // Rows and columns that end within a tile, and depths within a vector.
    let (rows, columns, depth) = (150, 7, 333);
    let (left, right) = (halves(rows * depth, 1), halves(depth * columns, 2));
    let wide: Vec<f32> = (0..rows * depth).map(|i| (i as f32 * 0.37).sin()).collect();
    for left in [Values::Bf16(&left), Values::F32(&wide)] {
        let run = |first: usize, count: usize| {
            let mut out = vec![0.0f32; count * columns];
            let left = Matrix::new(left, rows, depth).rows(first, count);
            let product =
                Product { left, right: Matrix::new(Values::Bf16(&right), depth, columns), scale: 0.3 };
            gemm((&mut out).into(), &[product], false, Ends::default());
            out
        };
        let all = run(0, rows);
        for row in [0, 5, 77, 149] {
            assert_eq!(run(row, 1), all[row * columns..][..columns], "row {row}");
        }
    }
}

#[test]
fn narrow_products_of_part_of_a_matrix_round_no_more_than_once() {
    // Rows from the midst of a longer matrix, of a number that is odd; factors that no bf16 is; a value that is not finite spoils
    // what it belongs to and nothing else; and the threads change no bits.
    let (first, rows, wide) = (5, 37, 301);
    for narrow in [3, 8, 13] {
        let mut long = halves(60 * wide, 1);
        long[(first + 4) * wide + 7] = bf16::INFINITY;
        long[(first + rows) * wide..].fill(bf16::NAN);
        let long_f32: Vec<f32> = long.iter().map(|x| x.to_f32()).collect();
        let factors: Vec<f32> = (0..60 * wide).map(|i| (i as f32 * 0.37).sin()).collect();
        for values in [Values::Bf16(&long), Values::F32(&long_f32)] {
            let some = Matrix::new(values, 60, wide).rows(first, rows);
            let of_rows = Matrix::new(&factors, rows, narrow);
            let of_columns = Matrix::new(&factors, wide, narrow);
            for (left, right) in [(of_rows.t(), some), (some.t(), of_rows), (some, of_columns)] {
                let ([m, k], n) = (left.shape, right.shape[1]);
                let run = |threads| {
                    let mut out = vec![0.0f32; m * n];
                    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                    let product = Product { left, right, scale: 0.3 };
                    pool.install(|| gemm((&mut out).into(), &[product], false, Ends::default()));
                    out
                };
                let out = run(1);
                for threads in [2, 3, 5] {
                    let bits = |out: &[f32]| out.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                    assert_eq!(bits(&run(threads)), bits(&out), "{threads} threads");
                }
                let at = |matrix: Matrix<'_>, row: usize, column: usize| {
                    let place = row * matrix.strides[0] + column * matrix.strides[1];
                    with_values!(matrix.data, data => f64::from(data[place].get()))
                };
                for (index, got) in out.iter().enumerate() {
                    let (row, column) = (index / n, index % n);
                    let terms = (0..k).map(|k| 0.3 * at(left, row, k) * at(right, k, column));
                    let (sum, size) =
                        terms.fold((0.0, 0.0), |(sum, size), term| (sum + term, size + term.abs()));
                    if sum.is_finite() {
                        let apart = (f64::from(*got) - sum).abs();
                        assert!(apart <= size / 256.0, "[{row}, {column}]: {got}, expected {sum}");
                    } else {
                        assert!(!got.is_finite(), "[{row}, {column}]: {got}, expected {sum}");
                    }
                }
            }
        }
    }
}

#[test]
fn f32_are_packed_as_pairs_one_by_one() {
    for len in [0usize, 1, 2, 15, 16, 17, 31, 32, 33, 64, 77, 96] {
        let draw = |seed: u32| -> Vec<f32> {
            (0..len as u32).map(|i| ((i * 37 + seed * 11) % 89) as f32 / 7.0 - 6.0).collect()
        };
        let (first, second) = (draw(1), draw(2));
        let (mut row, mut plain_row) = (vec![1u32; len.div_ceil(2)], vec![2u32; len.div_ceil(2)]);
        let (mut pairs, mut plain_pairs) = (vec![1u32; len], vec![2u32; len]);
        <u32 as Packed>::vectorised(
            #[inline(always)]
            || {
                u32::pack_row(&first, &mut row);
                u32::join_all::<f32, false>(&first, &second, 1.0, &mut pairs);
            },
        );
        pack::pack_row(&first, &mut plain_row);
        pack::join_all::<u32, f32, false>(&first, &second, 1.0, &mut plain_pairs);
        assert_eq!((row, pairs), (plain_row, plain_pairs), "{len}");
    }
}
