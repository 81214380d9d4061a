//! Convolutions whose padding meets infinities, which a kernel may multiply by its zeros or leave out.

use binade_cpu::{Cpu, Isa};
use binade_tensor::op::{Backward, Conv2d, Epilogue, Unary};
use binade_tensor::testing::check_op;
use binade_tensor::{Array, Class, DType, Device, Op, Request, Shape, run};

fn devices() -> Vec<Device> {
    Isa::available().into_iter().map(|isa| Device::new(Cpu::with_isa(isa))).collect()
}

fn array(device: &Device, shape: &[usize], values: &[f64]) -> Array {
    Array::from_slice(device, values, shape, Class::Activations).unwrap().cast(DType::F32, Class::Activations).unwrap()
}

fn result(op: &Op, device: &Device, ins: &[(&[usize], &[f64])]) -> Vec<f64> {
    let ins: Vec<Array> = ins.iter().map(|(shape, values)| array(device, shape, values)).collect();
    let outs = run(Request::new(op, &ins.iter().collect::<Vec<_>>(), device, DType::F32, Class::Activations)).unwrap();
    outs[0].to_f64_vec().unwrap()
}

#[test]
fn an_infinity_beside_padding_gives_what_is_left_or_nan_and_elsewhere_the_sum() {
    // PyTorch on CPUs gives NaN at each of these places, and infinities at the others.
    let inf = f64::INFINITY;
    let conv = Conv2d { padding: [1, 1], ..Conv2d::default() };
    let (mut kernel, mut g) = ([1.0; 9], [1.0; 16]);
    (kernel[0], g[0]) = (inf, inf);
    let four = [1, 1, 4, 4];
    let at = |flat: usize| (flat / 4, flat % 4);
    for device in devices().into_iter().chain([Device::reference()]) {
        // The first tap lies in the padding for outputs of the first row and column.
        let op = Op::Conv2d(conv, Epilogue::default());
        let y = result(&op, &device, &[(&four, &[1.0; 16]), (&[1, 1, 3, 3], &kernel)]);
        for (flat, &v) in y.iter().enumerate() {
            let (row, column) = at(flat);
            let taps = |i: usize| if i == 0 || i == 3 { 2.0 } else { 3.0 };
            let left = if row == 0 || column == 0 { taps(row) * taps(column) } else { inf };
            assert!(v == left || v.is_nan() && left != inf, "{device:?}, output {flat}: {v}, not {left}");
        }
        // The gradient of the first output meets padding at the taps of the first row and column.
        let op = Op::Backward(Backward::Conv2dWeight { conv, shape: Shape::new(&[1, 1, 3, 3]).unwrap() });
        let dw = result(&op, &device, &[(&four, &g), (&four, &[1.0; 16])]);
        for (flat, &v) in dw.iter().enumerate() {
            let meets = flat < 3 || flat % 3 == 0;
            let left = [9.0, 12.0, 9.0, 12.0, inf, inf, 9.0, inf, inf][flat];
            assert!(v == left || v.is_nan() && meets, "{device:?}, tap {flat}: {v}, not {left}");
        }
    }
}

#[test]
fn convolutions_of_infinities_are_the_references_beside_padding() {
    for (conv, channels) in [
        (Conv2d { padding: [1, 1], ..Conv2d::default() }, [3, 2]),
        (Conv2d { padding: [2, 0], stride: [2, 1], dilation: [1, 2], groups: 1 }, [2, 17]),
        (Conv2d { padding: [1, 1], groups: 5, ..Conv2d::default() }, [5, 5]),
    ] {
        let (x, w) = ([2, channels[0], 7, 6], [channels[1], channels[0] / conv.groups, 3, 2]);
        for device in devices() {
            let y = Op::Conv2d(conv, Epilogue::default()).outs(
                &[
                    array(&device, &x, &vec![0.0; x.iter().product()]).meta(),
                    array(&device, &w, &vec![0.0; w.iter().product()]).meta(),
                ],
                DType::F32,
            );
            let y = y.unwrap()[0].shape().to_vec();
            let shape = |dims: &[usize]| Shape::new(dims).unwrap();
            let with_bias = |bias| Epilogue { bias, act: Some(Unary::Sigmoid) };
            let mut ops = vec![
                (Op::Conv2d(conv, Epilogue::default()), x.to_vec(), w.to_vec()),
                (Op::Conv2d(conv, with_bias(false)), x.to_vec(), w.to_vec()),
                (Op::Backward(Backward::Conv2dInput { conv, shape: shape(&x) }), y.clone(), w.to_vec()),
                (Op::Backward(Backward::Conv2dWeight { conv, shape: shape(&w) }), y.clone(), x.to_vec()),
                (Op::ConvTranspose2d { conv, output_padding: [0, 0], bias: false }, y.clone(), w.to_vec()),
            ];
            if conv.groups > 1 {
                ops.push((Op::Backward(Backward::Depthwise { conv, bias: false }), y, x.to_vec()));
            }
            for (op, a, b) in ops {
                for (in_a, in_b) in [(true, false), (false, true), (true, true)] {
                    let values = |dims: &[usize], infinite: bool| {
                        let n: usize = dims.iter().product();
                        let value =
                            |i: usize| if infinite && i % 23 == 5 { f64::INFINITY } else { (i % 7) as f64 - 2.5 };
                        array(&device, dims, &(0..n).map(value).collect::<Vec<_>>())
                    };
                    let mut ins = vec![values(&a, in_a), values(&b, in_b)];
                    if matches!(op, Op::Backward(Backward::Depthwise { .. })) {
                        ins.push(values(&w, in_b));
                    }
                    assert_eq!(check_op(&op, &ins, &device, DType::F32).unwrap().1, None, "{in_a} {in_b}");
                }
            }
        }
    }
}
