//! Random small programs: autocast gives the table's dtypes and the same bits, forward and backward, as casting by
//! hand.

use binade_amp::autocast;
use binade_autograd::{Result, Var, scope};
use binade_cpu as _;
use binade_tensor::{Array, Class, DType};
use proptest::prelude::*;

#[derive(Clone, Copy, Debug)]
enum Kind {
    Lower,
    F32,
    Neutral,
    Promote,
}

type Step = (&'static str, Kind, fn(&Var, &Var) -> Result<Var>);

/// Operators on 4×4 tensors, the second operand unused by some.
const STEPS: [Step; 14] = [
    ("matmul", Kind::Lower, |a, b| a.matmul(b)),
    ("linear", Kind::Lower, |a, b| a.linear(b, None, None)),
    ("exp", Kind::F32, |a, _| a.exp()),
    ("softplus", Kind::F32, |a, _| a.softplus_with(1.0)),
    ("softmax", Kind::F32, |a, _| a.softmax(-1)),
    ("log_softmax", Kind::F32, |a, _| a.log_softmax(0)),
    ("layer_norm", Kind::F32, |a, _| a.layer_norm(1, None, 1e-5)),
    ("cumsum", Kind::F32, |a, _| a.cumsum(1)),
    ("relu", Kind::Neutral, |a, _| a.relu()),
    ("tanh", Kind::Neutral, |a, _| a.tanh()),
    ("gelu", Kind::Neutral, |a, _| a.gelu()),
    ("add", Kind::Neutral, |a, b| a.add(b)),
    ("mul", Kind::Neutral, |a, b| a.mul(b)),
    ("atan2", Kind::Promote, |a, b| a.atan2(b)),
];

fn leaf(seed: u64) -> Var {
    let values: Vec<f32> = (0..16).map(|i| ((seed % 97) as f32 * 0.13 + i as f32 * 0.71).sin()).collect();
    Var::leaf(Array::from_slice(&scope::device().unwrap(), &values, &[4, 4], Class::Weights).unwrap())
}

/// As PyTorch's user would cast.
fn by_hand(step: &Step, low: DType, a: &Var, b: &Var) -> Result<Var> {
    let to = |v: &Var, dtype| if v.dtype() == dtype { Ok(v.clone()) } else { v.cast(dtype) };
    match step.1 {
        // `linear` transposes its weight before autocast casts the operands. So by hand: created in another order, the
        // operands would add their gradients to a leaf in another order, on which the bits of a sum of three depend.
        Kind::Lower if step.0 == "linear" => {
            let weight = b.transpose(0, 1)?;
            to(a, low)?.matmul(&to(&weight, low)?)
        }
        Kind::Lower => step.2(&to(a, low)?, &to(b, low)?),
        Kind::F32 => step.2(&to(a, DType::F32)?, b),
        Kind::Neutral => step.2(a, b),
        Kind::Promote if a.dtype() == low && b.dtype() == low => step.2(a, b),
        Kind::Promote => step.2(&to(a, DType::F32)?, &to(b, DType::F32)?),
    }
}

/// NaN compares equal to NaN.
fn bits(array: &Array) -> Vec<u64> {
    array.to_f64_vec().unwrap().into_iter().map(|v| if v.is_nan() { u64::MAX } else { v.to_bits() }).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5000))]

    #[test]
    fn autocast_is_casting_by_hand(
        seeds in (any::<u64>(), any::<u64>()),
        low in prop_oneof![Just(DType::F16), Just(DType::BF16)],
        program in prop::collection::vec(
            (0..STEPS.len(), any::<prop::sample::Index>(), any::<prop::sample::Index>()),
            1..8,
        ),
    ) {
        let leaves = [leaf(seeds.0), leaf(seeds.1)];
        let mut ours = leaves.to_vec();
        let mut hand = leaves.to_vec();
        for (step, i, j) in &program {
            let step = &STEPS[*step];
            let (i, j) = (i.index(ours.len()), j.index(ours.len()));
            let y = autocast(low, || step.2(&ours[i], &ours[j])).unwrap();
            let expected = by_hand(step, low, &hand[i], &hand[j]).unwrap();
            prop_assert_eq!(y.dtype(), expected.dtype(), "{}", step.0);
            prop_assert_eq!(bits(y.array()), bits(expected.array()), "{}", step.0);
            ours.push(y);
            hand.push(expected);
        }
        let gradients = |v: &Var| v.cast(DType::F32).unwrap().sum(&[], false).unwrap().backward().unwrap();
        let (g, h) = (gradients(ours.last().unwrap()), gradients(hand.last().unwrap()));
        for leaf in &leaves {
            let (a, b) = (g.get(leaf), h.get(leaf));
            prop_assert_eq!(a.is_some(), b.is_some());
            if let (Some(a), Some(b)) = (a, b) {
                prop_assert_eq!(a.dtype(), DType::F32);
                prop_assert_eq!(bits(a), bits(b));
            }
        }
    }
}
