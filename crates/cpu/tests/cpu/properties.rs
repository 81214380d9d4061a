//! Properties over random shapes, layouts and values.

use binade_cpu::{Cpu, Isa};
use binade_tensor::op::{Binary, Conv2d, Epilogue, MatMul, QuantisedConv2d, QuantisedMatMul, Reduce, Scan, Unary};
use binade_tensor::testing::{array, array_of, shapes, values};
use binade_tensor::{Array, Class, DType, Device, Dims, Layout, Op, Shape, run_one};
use proptest::prelude::*;

fn apply(op: &Op, ins: &[&Array], dtype: DType) -> Vec<u64> {
    let out = run_one(op, ins, &Device::cpu(), dtype, Class::Activations).unwrap();
    out.to_f64_vec().unwrap().into_iter().map(|v| if v.is_nan() { u64::MAX } else { v.to_bits() }).collect()
}

fn dense(x: &Array) -> Array {
    x.contiguous(Class::Activations).unwrap()
}

fn dtypes() -> impl Strategy<Value = DType> + Clone {
    prop::sample::select(DType::FLOATS.to_vec())
}

fn any_array() -> impl Strategy<Value = Array> {
    dtypes().prop_flat_map(|dtype| array(dtype, shapes(4, 6)))
}

/// Integers of 8 bits: any, or only those whose products are largest.
#[derive(Clone, Copy, Debug)]
struct Integers {
    seed: u64,
    extreme: bool,
}

impl Integers {
    fn list(self, n: usize) -> Vec<i8> {
        let value = |i: u64| {
            let bits = (self.seed ^ i.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let byte = (bits >> 40) as i8;
            if !self.extreme {
                byte
            } else if byte < -40 {
                -128
            } else {
                127
            }
        };
        (1..=n as u64).map(value).collect()
    }
}

fn integers() -> impl Strategy<Value = Integers> {
    (any::<u64>(), any::<bool>()).prop_map(|(seed, extreme)| Integers { seed, extreme })
}

/// A product of integers with scales of 1: its sums, of f64 themselves and of f32 rounded once, at an instruction set.
/// The activations stand for themselves; −128 is out of their range.
fn sums(op: &Op, x: (&[i8], &[usize]), w: (&[i8], &[usize]), device: &Device) -> [Vec<f64>; 2] {
    let own: Vec<f32> = x.0.iter().map(|&v| v.max(-127) as f32).collect();
    let x = Array::from_slice(device, &own, x.1, Class::Activations).unwrap();
    let w = Array::from_slice(device, w.0, w.1, Class::Weights).unwrap();
    let scales = Array::from_slice(device, &vec![1.0f32; w.shape()[0]], &w.shape()[..1], Class::Weights).unwrap();
    let scale = Array::from_slice(device, &[1.0f32], &[], Class::Weights).unwrap();
    [DType::F64, DType::F32].map(|dtype| {
        let sums = run_one(op, &[&x, &w, &scales, &scale], device, dtype, Class::Activations).unwrap();
        sums.to_f64_vec().unwrap()
    })
}

/// Fails unless sums are those of the formula in whole numbers.
fn assert_exact(found: [Vec<f64>; 2], exact: &[i64], isa: Isa) -> Result<(), TestCaseError> {
    let [wide, rounded] = found;
    prop_assert!(wide.iter().zip(exact).all(|(&v, &e)| v as i64 == e) && wide.len() == exact.len(), "{isa:?}");
    prop_assert!(rounded.iter().zip(exact).all(|(&v, &e)| v == (e as f32) as f64), "{isa:?}, rounded");
    Ok(())
}

fn devices() -> impl Iterator<Item = (Isa, Device)> {
    Isa::available().into_iter().map(|isa| (isa, Device::new(Cpu::with_isa(isa))))
}

#[test]
fn the_longest_sum_of_8_bit_integers_is_exact_and_a_longer_one_refused() {
    let op = Op::QuantisedMatMul(QuantisedMatMul { integer: true, epilogue: Epilogue::default() });
    const LONGEST: usize = (1 << 17) - 1;
    for (isa, device) in devices() {
        let (x, w) = (vec![-127i8; LONGEST], vec![-128i8; LONGEST]);
        let found = sums(&op, (&x, &[1, LONGEST]), (&w, &[1, LONGEST]), &device);
        assert_exact(found, &[127 * 128 * LONGEST as i64], isa).unwrap();
    }
    let meta =
        |dtype, dims: &[usize]| binade_tensor::Meta { dtype, layout: Layout::contiguous(Shape::new(dims).unwrap()) };
    let longer = LONGEST + 1;
    let (f32, ins) = (DType::F32, [meta(DType::F32, &[1, longer]), meta(DType::I8, &[1, longer])]);
    let error = op.outs(&[&ins[..], &[meta(f32, &[1]), meta(f32, &[])]].concat(), f32).unwrap_err().to_string();
    assert!(error.contains("131072") && error.contains("131071"), "{error}");
}

proptest! {
    #[test]
    fn sums_of_8_bit_integers_are_exact_at_every_instruction_set(
        (m, k, n) in (1usize..30, 0usize..150, 1usize..70),
        (x, w) in (integers(), integers()),
    ) {
        let (x, w) = (x.list(m * k), w.list(n * k));
        let product = |i: usize, j: usize, l: usize| x[i * k + l].max(-127) as i64 * w[j * k + l] as i64;
        let exact: Vec<i64> =
            (0..m * n).map(|at| (0..k).map(|l| product(at / n, at % n, l)).sum()).collect();
        let op = Op::QuantisedMatMul(QuantisedMatMul { integer: true, epilogue: Epilogue::default() });
        for (isa, device) in devices() {
            assert_exact(sums(&op, (&x, &[m, k]), (&w, &[n, k]), &device), &exact, isa)?;
        }
    }

    #[test]
    fn convolutions_of_8_bit_integers_are_exact_at_every_instruction_set(
        (c, o, size, kernel) in (1usize..20, 1usize..40, [3usize..9, 3usize..9], [1usize..4, 1usize..4]),
        (stride, padding, dilation) in ([1usize..3, 1usize..3], [0usize..3, 0usize..3], [1usize..2, 1usize..3]),
        (x, w) in (integers(), integers()),
    ) {
        let reach = [0, 1].map(|d| dilation[d] * (kernel[d] - 1) + 1);
        prop_assume!((0..2).all(|d| reach[d] <= size[d] + 2 * padding[d]));
        let conv = Conv2d { stride, padding, dilation, groups: 1 };
        let out = [0, 1].map(|d| (size[d] + 2 * padding[d] - reach[d]) / stride[d] + 1);
        let (x, w) = (x.list(2 * c * size[0] * size[1]), w.list(o * c * kernel[0] * kernel[1]));
        let mut exact = Vec::new();
        for at in 0..2 * o * out[0] * out[1] {
            let [n, f, y, z] =
                [at / (o * out[0] * out[1]), at / (out[0] * out[1]) % o, at / out[1] % out[0], at % out[1]];
            let mut sum = 0i64;
            for tap in 0..c * kernel[0] * kernel[1] {
                let [i, ky, kx] = [tap / (kernel[0] * kernel[1]), tap / kernel[1] % kernel[0], tap % kernel[1]];
                let row = (y * stride[0] + ky * dilation[0]).checked_sub(padding[0]).filter(|&r| r < size[0]);
                let column = (z * stride[1] + kx * dilation[1]).checked_sub(padding[1]).filter(|&r| r < size[1]);
                if let (Some(row), Some(column)) = (row, column) {
                    let x = x[((n * c + i) * size[0] + row) * size[1] + column].max(-127) as i64;
                    sum += x * w[f * c * kernel[0] * kernel[1] + tap] as i64;
                }
            }
            exact.push(sum);
        }
        let op = Op::QuantisedConv2d(QuantisedConv2d { conv, epilogue: Epilogue::default() });
        let (image, weight) = ([2, c, size[0], size[1]], [o, c, kernel[0], kernel[1]]);
        for (isa, device) in devices() {
            assert_exact(sums(&op, (&x, &image), (&w, &weight), &device), &exact, isa)?;
        }
    }

    #[test]
    fn functions_do_not_see_the_layout(x in any_array(), row in prop::sample::select(Unary::ALL.to_vec())) {
        let op = Op::Unary(row);
        prop_assert_eq!(apply(&op, &[&x], x.dtype()), apply(&op, &[&dense(&x)], x.dtype()));
    }

    #[test]
    fn binary_functions_do_not_see_the_layout(x in any_array(), row in prop::sample::select(Binary::ALL.to_vec())) {
        let op = Op::Binary(row);
        prop_assert_eq!(apply(&op, &[&x, &x], x.dtype()), apply(&op, &[&dense(&x), &dense(&x)], x.dtype()));
    }

    #[test]
    fn binary_functions_keep_their_bounds_at_special_values(
        (dtype, pairs) in dtypes().prop_flat_map(|d| (Just(d), prop::collection::vec((values(d), values(d)), 1..40))),
        row in prop::sample::select(Binary::ALL.to_vec())
    ) {
        let side = |v: Vec<f64>| {
            let array = Array::from_slice(&Device::cpu(), &v, &[v.len()], Class::Activations).unwrap();
            array.cast(dtype, Class::Activations).unwrap()
        };
        // α is positive by definition. A β below 1 divides the rounding of a subnormal exponential, as its row says.
        let parameter = |b: f64| match row {
            Binary::Celu => b.abs(),
            Binary::Softplus => b.abs().max(1.0),
            _ => b,
        };
        let pairs: Vec<(f64, f64)> = pairs.into_iter().map(|(a, b)| (a, parameter(b))).collect();
        let (a, b) = (side(pairs.iter().map(|p| p.0).collect()), side(pairs.iter().map(|p| p.1).collect()));
        binade_tensor::testing::assert_op(&Op::Binary(row), &[a, b], &Device::cpu(), dtype)?;
    }

    #[test]
    fn reductions_and_scans_do_not_see_the_layout(x in any_array(), keepdim: bool) {
        for d in 0..x.shape().rank() {
            let kinds = [Reduce::Sum, Reduce::Prod, Reduce::LogSumExp, Reduce::Norm { p: 2.0 }];
            for op in kinds.map(|kind| Op::Reduce { kind, dims: Dims::one(d), keepdim }) {
                // Sums of columns go another way than sums of rows; only rows promise the same bits.
                if x.layout().is_contiguous() || !matches!(op, Op::Reduce { kind: Reduce::Sum, .. }) {
                    prop_assert_eq!(apply(&op, &[&x], x.dtype()), apply(&op, &[&dense(&x)], x.dtype()));
                }
            }
            let scan = Op::Scan { kind: Scan::Sum, dim: d, reverse: keepdim };
            prop_assert_eq!(apply(&scan, &[&x], x.dtype()), apply(&scan, &[&dense(&x)], x.dtype()));
            let sort = Op::Sort { dim: d, descending: keepdim, length: x.shape()[d] };
            prop_assert_eq!(apply(&sort, &[&x], x.dtype()), apply(&sort, &[&dense(&x)], x.dtype()));
        }
    }

    #[test]
    fn products_do_not_see_the_layout(
        (a, b) in (1usize..9, 1usize..9, 1usize..9).prop_flat_map(|(m, k, n)| {
            let ordinary = -4.0..4.0f64;
            (array_of(DType::F32, Just(vec![m, k]), ordinary.clone()), array_of(DType::F32, Just(vec![k, n]), ordinary))
        })
    ) {
        let op = Op::MatMul(MatMul::default());
        prop_assert_eq!(apply(&op, &[&a, &b], DType::F32), apply(&op, &[&dense(&a), &dense(&b)], DType::F32));
    }

    #[test]
    fn narrowing_is_one_rounding_and_widening_is_none(
        x in array(DType::F32, shapes(3, 9)),
        half in prop::sample::select(vec![DType::F16, DType::BF16]),
    ) {
        let narrow = x.cast(half, Class::Casts).unwrap();
        use binade_tensor::format::Format;
        let format = if half == DType::F16 { Format::F16 } else { Format::BF16 };
        for (n, w) in narrow.to_f64_vec().unwrap().iter().zip(x.to_f64_vec().unwrap()) {
            prop_assert!(*n == format.round(w) || n.is_nan() && w.is_nan(), "{w} became {n}");
        }
        let back = narrow.cast(DType::F32, Class::Casts).unwrap().cast(half, Class::Casts).unwrap();
        prop_assert_eq!(apply(&Op::Copy, &[&narrow], half), apply(&Op::Copy, &[&back], half));
    }

    #[test]
    fn sorting_orders_every_value_and_loses_none(v in prop::collection::vec(values(DType::F32), 1..40)) {
        let x = Array::from_slice(&Device::cpu(), &v, &[v.len()], Class::Activations).unwrap();
        let op = Op::Sort { dim: 0, descending: false, length: v.len() };
        let (ins, device) = ([&x], Device::cpu());
        let request = binade_tensor::Request::new(&op, &ins, &device, DType::F64, Class::Activations);
        let outs = binade_tensor::run(request).unwrap();
        let (sorted, places) = (outs[0].to_f64_vec().unwrap(), outs[1].to_f64_vec().unwrap());
        prop_assert!(sorted.windows(2).all(|w| w[0] <= w[1] || w[1].is_nan()), "{sorted:?}");
        let mut seen: Vec<usize> = places.iter().map(|p| *p as usize).collect();
        for (&place, s) in seen.iter().zip(&sorted) {
            prop_assert!(v[place] == *s || v[place].is_nan() && s.is_nan());
        }
        seen.sort_unstable();
        prop_assert!(seen.into_iter().eq(0..v.len()));
    }
}
