//! Whatever geometry an operator's forward accepts, its gradient is that of central differences.

use binade_autograd::{Var, gradcheck, scope};
use binade_cpu as _;
use binade_tensor::op::{Conv2d, Distribution, Pool, PoolKind};
use binade_tensor::{Array, Class, DType, Key, Op, Shape, run_one};

fn values(shape: &[usize], stream: u64) -> Array {
    let distribution = Distribution::Normal { mean: 0.0, std: 1.0 };
    let op = Op::Random { distribution, shape: Shape::new(shape).unwrap(), key: Key::new(5, stream) };
    run_one(&op, &[], &scope::device().unwrap(), DType::F64, Class::Activations).unwrap()
}

/// Checks the gradients of an operator that accepts the inputs, and says whether it does.
fn check(op: &Op, inputs: &[Array]) -> bool {
    let run = |v: &[Var]| binade_autograd::apply(op.clone(), &v.iter().collect::<Vec<_>>());
    if run(&inputs.iter().map(|a| Var::constant(a.clone())).collect::<Vec<_>>()).is_err() {
        return false;
    }
    if let Err(e) = gradcheck(run, inputs) {
        panic!("{op:?}: {e}");
    }
    true
}

#[test]
fn transposed_convolutions_of_every_output_padding_that_is_accepted() {
    let mut accepted = 0;
    for stride in 1..=3 {
        for dilation in 1..=3 {
            for padding in 0..=2 {
                for output_padding in 0..=3 {
                    let conv =
                        Conv2d { stride: [stride, 1], padding: [padding, 0], dilation: [dilation, 1], groups: 1 };
                    let op = Op::ConvTranspose2d { conv, output_padding: [output_padding, 0], bias: false };
                    // PyTorch's rule.
                    let allowed = output_padding < stride.max(dilation);
                    let taken = check(&op, &[values(&[1, 2, 3, 2], 1), values(&[2, 1, 2, 1], 2)]);
                    assert!(allowed || !taken, "{op:?}");
                    accepted += taken as usize;
                }
            }
        }
    }
    assert!(accepted > 60, "{accepted}");
}

#[test]
fn an_output_padding_between_stride_and_dilation_has_pytorchs_gradient() {
    let leaf = |shape: &[usize]| {
        Var::leaf(
            Array::from_slice(&scope::device().unwrap(), &[1.0f32, 2.0, 3.0, 4.0], shape, Class::Activations).unwrap(),
        )
    };
    let (x, w) = (leaf(&[1, 1, 2, 2]), leaf(&[1, 1, 2, 2]));
    let conv = Conv2d { dilation: [2, 2], ..Conv2d::default() };
    let grads = x.conv_transpose2d(&w, None, conv, [1, 1]).unwrap().sum(&[], false).unwrap().backward().unwrap();
    for v in [&x, &w] {
        assert_eq!(grads.get(v).unwrap().to_f64_vec().unwrap(), [10.0; 4]);
    }
}

#[test]
fn poolings_of_every_window_that_is_accepted() {
    let mut accepted = 0;
    for kind in [PoolKind::Max, PoolKind::Avg] {
        for [kernel, stride, padding, dilation] in [
            [1, 1, 0, 1],
            [2, 1, 1, 1],
            [2, 3, 1, 1],
            [3, 2, 1, 1],
            [3, 2, 1, 2],
            [5, 1, 2, 1],
            [2, 4, 0, 3],
            [3, 7, 1, 1],
        ] {
            for (ceil, count_padding) in [(false, true), (true, true), (true, false), (false, false)] {
                let windows = Pool::new(kind, [kernel, 1], [stride, 1], [padding, 0]);
                let pool = Pool { ceil, count_padding, dilation: [dilation, 1], ..windows };
                accepted += check(&Op::Pool(pool), &[values(&[1, 2, 5, 2], 1)]) as usize;
            }
        }
    }
    assert!(accepted > 40, "{accepted}");
}

#[test]
fn strides_beyond_the_image_and_kernels_within_it() {
    for stride in [1, 2, 5, 1 << 20] {
        for kernel in [1, 3, 4] {
            let conv = Conv2d { stride: [stride, 1], padding: [1, 0], ..Conv2d::default() };
            assert!(check(
                &Op::Conv2d(conv, Default::default()),
                &[values(&[1, 1, 4, 2], 1), values(&[2, 1, kernel, 1], 2)]
            ));
        }
    }
}
