//! Attention where keys are hidden or not finite, and its bound.

use binade_cpu::{Cpu, Isa};
use binade_tensor::op::{Attention, Backward};
use binade_tensor::testing::check_op;
use binade_tensor::{Array, Class, DType, Device, Op, Request, run};

fn devices() -> Vec<Device> {
    Isa::available().into_iter().map(|isa| Device::new(Cpu::with_isa(isa))).collect()
}

fn array(device: &Device, dtype: DType, shape: &[usize], values: &[f64]) -> Array {
    Array::from_slice(device, values, shape, Class::Activations).unwrap().cast(dtype, Class::Activations).unwrap()
}

#[test]
fn hidden_keys_contribute_nothing_even_if_they_are_not_finite() {
    let causal = Attention { causal: true, ..Attention::default() };
    let masked = Attention { mask: true, ..Attention::default() };
    let (t, d) = (20, 16);
    let values =
        |seed: usize| (0..t * d).map(|i| ((i * 37 + seed * 101) % 29) as f64 / 10.0 - 1.4).collect::<Vec<f64>>();
    let shape: &[usize] = &[1, t, d];
    for device in devices().into_iter().chain([Device::reference()]) {
        let mask: Vec<bool> = (0..t * t).map(|i| i % t <= i / t).collect();
        let mask = Array::from_slice(&device, &mask, &[t, t], Class::Indices).unwrap();
        for (attention, mask) in [(causal, None), (masked, Some(mask))] {
            let all = |bad: Option<(usize, f64)>| {
                let mut ins: Vec<Array> = (0..4)
                    .map(|which| {
                        let mut v = values(which);
                        // g, q, k, v; the last row is seen, or sees, only there.
                        if let Some((_, value)) = bad.filter(|(at, _)| *at == which) {
                            v[(t - 1) * d] = value;
                        }
                        array(&device, DType::F32, shape, &v)
                    })
                    .collect();
                ins.extend(mask.clone());
                let seen = ins[1..].iter().collect::<Vec<_>>();
                let op = Op::Attention(attention);
                let forward = run(Request::new(&op, &seen, &device, DType::F32, Class::Activations));
                let forward = forward.unwrap();
                let mut backward: Vec<&Array> = ins[..4].iter().chain(&forward).collect();
                backward.extend(&ins[4..]);
                let op = Op::Backward(Backward::Attention { attention, joined: false });
                let grads = run(Request::new(&op, &backward, &device, DType::F32, Class::Activations)).unwrap();
                [&forward[0], &grads[0], &grads[1], &grads[2]].map(|a| a.to_f64_vec().unwrap())
            };
            let right = all(None);
            for (at, value) in [(1, f64::NAN), (2, f64::NAN), (3, f64::NAN), (2, f64::INFINITY), (3, f64::NEG_INFINITY)]
            {
                let found = all(Some((at, value)));
                // Rows that do not see the last key: the output and the gradient by the query.
                for which in [0, 1] {
                    for (f, r) in found[which][..(t - 1) * d].iter().zip(&right[which]) {
                        assert!(
                            (f - r).abs() < 1e-4,
                            "{device:?} operand {at} {value}: output {which} has {f} instead of {r}"
                        );
                    }
                    let seen = found[which][(t - 1) * d..].iter().any(|v| v.is_nan());
                    assert!(seen || !value.is_nan(), "{device:?} operand {at}: output {which} has lost NaN");
                }
            }
        }
    }
}

#[test]
fn a_key_hidden_from_a_row_with_nan_gets_no_gradient_from_it() {
    let attention = Attention { causal: true, ..Attention::default() };
    let g: [f64; 2] = [1.0, 2.0];
    for device in devices().into_iter().chain([Device::reference()]) {
        for bad in [0, 1] {
            // The first query sees the first key only.
            let mut ins = [g, [0.5, 0.25], [0.3, 0.7], [1.0, 3.0]];
            ins[bad][0] = f64::NAN;
            let ins = ins.map(|v| array(&device, DType::F32, &[1, 2, 1], &v));
            let forward = run(Request::new(
                &Op::Attention(attention),
                &[&ins[1], &ins[2], &ins[3]],
                &device,
                DType::F32,
                Class::Activations,
            ))
            .unwrap();
            let op = Op::Backward(Backward::Attention { attention, joined: false });
            let ins = [&ins[0], &ins[1], &ins[2], &ins[3], &forward[0], &forward[1]];
            let grads = run(Request::new(&op, &ins, &device, DType::F32, Class::Activations)).unwrap();
            let [dk, dv] = [1, 2].map(|i| grads[i].to_f64_vec().unwrap());
            assert!(dk[1].is_finite() && dv[1].is_finite(), "{device:?} operand {bad}: {dk:?} {dv:?}");
            assert!(dv[0].is_nan(), "{device:?} operand {bad}: NaN is lost in {dv:?}");
        }
    }
}

#[test]
fn the_bound_of_attention_grows_with_its_logits() {
    let (t, d) = (9, 33);
    let values = |seed: usize, size: f64| {
        (0..t * d).map(|i| (((i * 37 + seed * 101) % 1009) as f64 / 504.0 - 1.0) * size).collect::<Vec<f64>>()
    };
    for device in devices() {
        for dtype in [DType::F32, DType::F16] {
            for size in [1.0, 5.0, 40.0] {
                let shape: &[usize] = &[1, t, d];
                let ins: Vec<Array> = [(1, size), (2, size), (3, 1.0)]
                    .iter()
                    .map(|(s, m)| array(&device, dtype, shape, &values(*s, *m)))
                    .collect();
                let attention = Attention::default();
                let (_, failure) = check_op(&Op::Attention(attention), &ins, &device, dtype).unwrap();
                assert_eq!(failure, None);
                let forward = run(Request::new(
                    &Op::Attention(attention),
                    &ins.iter().collect::<Vec<_>>(),
                    &device,
                    dtype,
                    Class::Activations,
                ))
                .unwrap();
                let all = [vec![array(&device, dtype, shape, &values(4, 1.0))], ins, forward.to_vec()].concat();
                let (_, failure) =
                    check_op(&Op::Backward(Backward::Attention { attention, joined: false }), &all, &device, dtype)
                        .unwrap();
                assert_eq!(failure, None);
            }
        }
    }
}

#[test]
fn the_bound_of_attention_knows_how_the_saved_output_was_rounded() {
    // With one key its weight is 1, and the gradient by the query what the saved output's rounding leaves of a
    // difference.
    let values =
        |n: usize, seed: usize| (0..n).map(|i| ((i * 37 + seed * 101) % 29) as f64 / 7.0 - 2.0).collect::<Vec<f64>>();
    for device in devices() {
        let [q, k, v] = [(20, 1), (4, 2), (6, 3)].map(|(n, s)| values(n, s));
        let ins = [(&[1, 5, 4][..], &q), (&[1, 1, 4], &k), (&[1, 1, 6], &v)]
            .map(|(shape, v)| array(&device, DType::F32, shape, v));
        let attention = Attention::default();
        let forward = run(Request::new(
            &Op::Attention(attention),
            &ins.iter().collect::<Vec<_>>(),
            &device,
            DType::F16,
            Class::Activations,
        ));
        let all =
            [vec![array(&device, DType::F16, &[1, 5, 6], &values(30, 4))], ins.to_vec(), forward.unwrap().to_vec()]
                .concat();
        let op = Op::Backward(Backward::Attention { attention, joined: false });
        assert_eq!(check_op(&op, &all, &device, DType::F16).unwrap().1, None);
    }
}

#[test]
fn the_bound_of_attention_knows_that_a_weight_below_the_normal_range_has_few_digits() {
    // e⁻¹⁰⁰ of a value that is large, beside the whole of one that is 0.
    for device in devices() {
        for (dtype, large) in [(DType::F32, 1e30), (DType::BF16, 1e30), (DType::F64, 1e30)] {
            let of = |shape: &[usize], values: &[f64]| array(&device, dtype, shape, values);
            let ins = [of(&[1, 1, 1], &[100.0]), of(&[1, 2, 1], &[1.0, 0.0]), of(&[1, 2, 1], &[0.0, large])];
            let op = Op::Attention(Attention { scale: Some(1.0), ..Attention::default() });
            assert_eq!(check_op(&op, &ins, &device, dtype).unwrap().1, None);
        }
    }
}
