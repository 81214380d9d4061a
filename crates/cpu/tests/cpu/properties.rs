//! Properties over random shapes, layouts and values.

use binade_cpu as _;
use binade_tensor::op::{Binary, MatMul, Reduce, Scan, Unary};
use binade_tensor::testing::{array, array_of, shapes, values};
use binade_tensor::{Array, Class, DType, Device, Dims, Op, run_one};
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

proptest! {
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
