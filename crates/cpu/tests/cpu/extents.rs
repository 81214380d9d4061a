//! Extents and attributes whose sizes cannot be counted are errors, and wrap nowhere.

use binade_cpu as _;
use binade_tensor::op::{Conv2d, Epilogue, MatMul, PadMode, Pool, PoolKind, Resample, View};
use binade_tensor::{Array, Class, DType, Device, Op, Shape, run_one};

const HUGE: usize = 1 << 40;

fn ones(shape: &[usize]) -> Array {
    let n = shape.iter().product();
    Array::from_slice(&Device::cpu(), &vec![1.0f32; n], shape, Class::Activations).unwrap()
}

fn run(op: &Op, ins: &[&Array]) -> binade_tensor::Result<Array> {
    run_one(op, ins, &Device::cpu(), DType::F32, Class::Activations)
}

#[test]
fn shapes_of_too_many_elements_are_refused_also_beside_an_extent_of_0() {
    for dims in [&[HUGE, HUGE][..], &[HUGE, HUGE, 0], &[usize::MAX], &[1 << 62]] {
        assert!(Shape::new(dims).is_err(), "{dims:?}");
    }
    assert!(run(&Op::Range { start: 0, length: usize::MAX }, &[]).is_err());
}

#[test]
fn results_of_too_many_elements_are_refused() {
    let expanded =
        |from: &[usize], to: &[usize]| run(&Op::View(View::Expand(Shape::new(to).unwrap())), &[&ones(from)]).unwrap();
    let (rows, columns) = (expanded(&[1, 1], &[HUGE, 1]), expanded(&[1, 1], &[1, HUGE]));
    let add = Op::Binary(binade_tensor::op::Binary::Add);
    assert!(run(&add, &[&rows, &columns]).is_err());
    assert!(run(&Op::MatMul(MatMul::default()), &[&rows, &columns]).is_err());
    let long = expanded(&[1], &[1 << 59]);
    assert!(run(&Op::Cat { dim: 0 }, &[&long, &long]).is_err());
}

#[test]
fn numbers_are_not_put_one_after_the_other() {
    let error = run(&Op::Cat { dim: 0 }, &[&ones(&[]), &ones(&[])]).unwrap_err().to_string();
    assert!(error.contains("at least one dimension"), "{error}");
}

#[test]
fn attributes_that_overflow_are_refused() {
    let (image, weight) = (ones(&[1, 1, 4, 4]), ones(&[1, 1, 2, 2]));
    for n in [usize::MAX, usize::MAX / 2, 1 << 60] {
        for conv in [
            Conv2d { padding: [n, 0], ..Conv2d::default() },
            Conv2d { dilation: [1, n], ..Conv2d::default() },
            Conv2d { groups: n, ..Conv2d::default() },
        ] {
            assert!(run(&Op::Conv2d(conv, Epilogue::default()), &[&image, &weight]).is_err(), "{conv:?}");
            let transposed =
                Op::ConvTranspose2d { conv: Conv2d { stride: [n, 1], ..conv }, output_padding: [0, 0], bias: false };
            assert!(run(&transposed, &[&image, &weight]).is_err(), "{conv:?}");
        }
        let far = Op::Conv2d(Conv2d { stride: [n, n], ..Conv2d::default() }, Epilogue::default());
        assert_eq!(run(&far, &[&image, &weight]).unwrap().to_f64_vec().unwrap(), [4.0]);
        let pool = Pool::new(PoolKind::Max, [2, 2], [1, 1], [0, 0]);
        assert!(run(&Op::Pool(Pool { dilation: [n, 1], ..pool }), &[&image]).is_err());
        assert!(run(&Op::Pool(Pool { kernel: [n, 1], padding: [n / 2, 0], ..pool }), &[&image]).is_err());
        assert!(run(&Op::View(View::Narrow { dim: 2, start: n, length: 2 }), &[&image]).is_err());
        assert!(run(&Op::View(View::Narrow { dim: 2, start: 2, length: n }), &[&image]).is_err());
    }
}

#[test]
fn padding_that_cannot_be_counted_is_refused() {
    let line = ones(&[3]);
    let count = Shape::new(&[1 << 59]).unwrap();
    let map = Resample::Pad { before: count, after: count, mode: PadMode::Constant(0.0) };
    assert!(run(&Op::Resample(map), &[&line]).is_err());
}
