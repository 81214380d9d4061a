//! What is drawn, and integers beside numbers.

use binade_autograd::{Result, Var, scope};
use binade_cpu as _;
use binade_tensor::op::Compare;
use binade_tensor::{Array, Class, Device};

fn integers(v: &Var) -> Vec<i64> {
    v.array().to_vec::<i64>().unwrap()
}

fn rows(values: &[f32], dims: &[usize]) -> Result<Var> {
    Ok(Var::constant(Array::from_slice(&scope::device()?, values, dims, Class::Activations)?))
}

#[test]
fn integers_are_drawn_from_any_range_alike_on_every_device() -> Result<()> {
    let ranges = [(0, 1), (-3, 4), (1 << 40, (1 << 40) + 3), (i64::MIN, i64::MAX)];
    for (low, high) in ranges {
        let on = |device: &Device| {
            scope::with_device(device, || scope::with_key(9, 2, || Var::randint(low, high, &[7, 143])))
        };
        let drawn = integers(&on(&Device::cpu())?);
        assert!(drawn.iter().all(|v| (low..high).contains(v)), "{low}..{high}");
        assert_eq!(drawn, integers(&on(&Device::reference())?), "{low}..{high}");
    }
    let drawn = integers(&scope::with_key(9, 3, || Var::randint(-2, 5, &[70_000]))?);
    for value in -2..5 {
        let n = drawn.iter().filter(|v| **v == value).count() as f64;
        // Five standard deviations.
        assert!((n - 10_000.0).abs() < 5.0 * (10_000.0f64 * 6.0 / 7.0).sqrt(), "{value}: {n}");
    }
    let message = Var::randint(3, 3, &[2]).unwrap_err().to_string();
    assert_eq!(message, "randint: the range 3..3 holds no integer");
    Ok(())
}

#[test]
fn classes_are_drawn_by_their_weights_and_never_one_whose_weight_is_0() -> Result<()> {
    // Weights whose sum f32 does not hold, and zeros in front, between and behind.
    let weights = [0.0, f32::MAX, 0.0, f32::MAX, f32::MAX / 2.0, 0.0];
    let x = rows(&weights.repeat(2), &[2, 6])?;
    let drawn = integers(&scope::with_key(4, 1, || x.multinomial(20_000, true))?);
    for (class, share) in [0.0, 0.4, 0.0, 0.4, 0.2, 0.0].into_iter().enumerate() {
        let n = drawn.iter().filter(|v| **v == class as i64).count() as f64;
        let deviation = f64::sqrt(40_000.0 * share * (1.0 - share));
        assert!((n - 40_000.0 * share).abs() <= 5.0 * deviation, "class {class}: {n}");
    }
    let drawn = integers(&scope::with_key(4, 2, || x.multinomial(3, false))?);
    for row in drawn.chunks(3) {
        let mut row = row.to_vec();
        row.sort_unstable();
        assert_eq!(row, [1, 3, 4]);
    }
    let message = rows(&[], &[2, 0])?.multinomial(1, true).unwrap_err().to_string();
    assert_eq!(message, "multinomial: a row has 1 to 16777216 weights, got 0");
    Ok(())
}

#[test]
fn integers_compare_with_any_number_as_they_are() -> Result<()> {
    let values = [i64::MIN, -2, -1, 0, 1, 2, 3, (1 << 53) + 1, i64::MAX];
    let x = Var::constant(Array::from_slice(&scope::device()?, &values, &[9], Class::Indices)?);
    let numbers = [-1.5, -1.0, 0.0, 0.5, 2.0, 2.000_000_1, 9_007_199_254_740_992.0, 1e300, f64::INFINITY, f64::NAN];
    for number in numbers {
        // An integer and a number in between are told apart by 128 bits, of which the lowest is a half.
        let twice = |v: f64| if v.abs() > 1e20 { (v.signum() as i128) << 100 } else { (2.0 * v.floor()) as i128 };
        let wanted = twice(number) + i128::from(number.fract() != 0.0 && number.is_finite());
        for (compare, holds) in [
            (Compare::Eq, (|a, b| a == b) as fn(i128, i128) -> bool),
            (Compare::Ne, |a, b| a != b),
            (Compare::Lt, |a, b| a < b),
            (Compare::Le, |a, b| a <= b),
            (Compare::Gt, |a, b| a > b),
            (Compare::Ge, |a, b| a >= b),
        ] {
            let of = |v: &i64| {
                if number.is_nan() { compare == Compare::Ne } else { holds(2 * i128::from(*v), wanted) }
            };
            let expected: Vec<bool> = values.iter().map(of).collect();
            assert_eq!(x.compare_scalar(compare, number)?.array().to_vec::<bool>()?, expected, "{compare:?} {number}");
        }
    }
    Ok(())
}
