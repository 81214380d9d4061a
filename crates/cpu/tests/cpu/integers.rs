//! Integers are moved and compared exactly, those that f64 does not hold too.

use binade_cpu as _;
use binade_tensor::op::{Compare, PadMode, Resample, Scatter, View};
use binade_tensor::{Array, Class, DType, Device, Dims, Op, Request, Shape, bf16, run, run_one};

/// Beside each other in i64, the same in f64.
const BIG: i64 = (1 << 53) + 1;

fn devices() -> [Device; 2] {
    [Device::cpu(), Device::reference()]
}

fn integers(device: &Device, values: &[i64], shape: &[usize]) -> Array {
    Array::from_slice(device, values, shape, Class::Indices).unwrap()
}

fn result(op: &Op, ins: &[&Array]) -> Array {
    run_one(op, ins, ins[0].device(), DType::F32, Class::Activations).unwrap()
}

fn shape(dims: &[usize]) -> Shape {
    Shape::new(dims).unwrap()
}

#[test]
fn views_are_read_exactly() {
    for device in devices() {
        let x = integers(&device, &[BIG, BIG + 1, BIG + 2, i64::MIN, i64::MAX, -BIG], &[2, 3]);
        let view = |view: View| result(&Op::View(view), &[&x]).to_vec::<i64>().unwrap();
        assert_eq!(view(View::Permute(shape(&[1, 0]))), [BIG, i64::MIN, BIG + 1, i64::MAX, BIG + 2, -BIG]);
        assert_eq!(view(View::Narrow { dim: 1, start: 1, length: 2 }), [BIG + 1, BIG + 2, i64::MAX, -BIG]);
        let column = result(&Op::View(View::Narrow { dim: 1, start: 2, length: 1 }), &[&x]);
        let wide = result(&Op::View(View::Expand(shape(&[2, 2]))), &[&column]);
        assert_eq!(wide.to_vec::<i64>().unwrap(), [BIG + 2, BIG + 2, -BIG, -BIG]);
    }
}

#[test]
fn comparisons_distinguish_neighbours() {
    for device in devices() {
        let (a, b) =
            (integers(&device, &[BIG, BIG, i64::MIN], &[3]), integers(&device, &[BIG + 1, BIG, i64::MIN + 1], &[3]));
        let compare = |compare: Compare| result(&Op::Compare(compare), &[&a, &b]).to_vec::<bool>().unwrap();
        assert_eq!(compare(Compare::Eq), [false, true, false]);
        assert_eq!(compare(Compare::Lt), [true, false, true]);
        assert_eq!(compare(Compare::Ge), [false, true, false]);
        assert_eq!(compare(Compare::And), [true, true, true]);
    }
}

#[test]
fn the_largest_and_the_order_are_those_of_integers() {
    for device in devices() {
        let x = integers(&device, &[BIG, BIG + 2, BIG + 1], &[3]);
        assert_eq!(result(&Op::ArgMax { dim: 0, keepdim: false }, &[&x]).to_vec::<i64>().unwrap(), [1]);
        let op = Op::Sort { dim: 0, descending: true, length: 3 };
        let sorted = run(Request::new(&op, &[&x], &device, DType::F32, Class::Activations)).unwrap();
        assert_eq!(sorted[0].to_vec::<i64>().unwrap(), [BIG + 2, BIG + 1, BIG]);
        assert_eq!(sorted[1].to_vec::<i64>().unwrap(), [1, 2, 0]);
    }
}

#[test]
fn operators_that_move_elements_take_every_integer() {
    for device in devices() {
        for values in [[1, 2, 3, 4], [BIG, BIG + 1, BIG + 2, i64::MAX]] {
            let x = integers(&device, &values, &[2, 2]);
            let [a, b, c, d] = values;
            let index = |values: &[i64]| integers(&device, values, &[2, 2]);
            let moved = |op: Op, ins: &[&Array]| {
                let y = result(&op, ins);
                assert_eq!(y.dtype(), DType::I64, "{op:?}");
                y.to_vec::<i64>().unwrap()
            };
            assert_eq!(moved(Op::Cat { dim: 1 }, &[&x, &x]), [a, b, a, b, c, d, c, d]);
            assert_eq!(moved(Op::Gather { dim: 1 }, &[&x, &index(&[1, 0, 1, 1])]), [b, a, d, d]);
            assert_eq!(moved(Op::Embedding, &[&x, &integers(&device, &[1], &[1])]), [c, d]);
            let set = Op::Scatter { kind: Scatter::Set, dim: 0 };
            assert_eq!(moved(set, &[&x, &integers(&device, &[1], &[1, 1]), &x]), [a, b, a, d]);
            let condition = Array::from_slice(&device, &[true, false], &[2], Class::Indices).unwrap();
            assert_eq!(moved(Op::Where, &[&condition, &x, &index(&[7, 8, 9, 10])]), [a, 8, c, 10]);
            assert_eq!(moved(Op::Resample(Resample::Flip(Dims::one(1))), &[&x]), [b, a, d, c]);
            assert_eq!(moved(Op::Resample(Resample::Roll(shape(&[1, 0]))), &[&x]), [c, d, a, b]);
            let pad = |mode| Op::Resample(Resample::Pad { before: shape(&[0, 1]), after: shape(&[0, 0]), mode });
            assert_eq!(moved(pad(PadMode::Constant(-100.0)), &[&x]), [-100, a, b, -100, c, d]);
            assert_eq!(moved(pad(PadMode::Circular), &[&x]), [b, a, b, d, c, d]);
        }
    }
}

#[test]
fn integers_and_floats_do_not_mix_where_elements_are_moved() {
    let device = Device::cpu();
    let floats = Array::from_slice(&device, &[1.0f32], &[1], Class::Activations).unwrap();
    let ins = [&integers(&device, &[1], &[1]), &floats];
    let error = run_one(&Op::Cat { dim: 0 }, &ins, &device, DType::F32, Class::Activations).unwrap_err().to_string();
    assert!(error.contains("all floats, or all of one other dtype"), "{error}");
}

#[test]
fn integers_are_cast_as_if_rounded_once() {
    for device in devices() {
        // Just above the middle of two numbers of each format: through f64 it would be the middle, which goes down to
        // even.
        let above = |digits: u32| (1i64 << 62) + (1 << (62 - digits)) + 1;
        let cast = |value: i64, dtype: DType| result(&Op::Cast(dtype), &[&integers(&device, &[value], &[1])]);
        assert_eq!(cast(above(24), DType::F32).to_vec::<f32>().unwrap(), [((1i64 << 62) + (1 << 39)) as f32]);
        let up = bf16::from_f32(((1i64 << 62) + (1 << 55)) as f32);
        assert_eq!(cast(above(8), DType::BF16).to_vec::<bf16>().unwrap(), [up]);
        assert_eq!(cast(i64::MAX, DType::U32).to_vec::<u32>().unwrap(), [u32::MAX]);
        assert_eq!(cast(BIG, DType::Bool).to_vec::<bool>().unwrap(), [true]);
    }
}
