//! Products and convolutions have the same bits however their work is divided.

use binade_cpu::{Cpu, Isa};
use binade_tensor::op::{Backward, Conv2d, Epilogue, MatMul};
use binade_tensor::{Array, Class, DType, Device, Op, Request, Shape, run};

fn array(device: &Device, dims: &[usize], dtype: DType) -> Array {
    let values: Vec<f32> = (0..dims.iter().product()).map(|i: usize| ((i * 7919 % 1009) as f32 * 0.37).sin()).collect();
    Array::from_slice(device, &values, dims, Class::Activations).unwrap().cast(dtype, Class::Activations).unwrap()
}

/// Logical `dims`, with the dimensions in memory in the order `order`.
fn permuted(device: &Device, dims: &[usize], order: &[usize], dtype: DType) -> Array {
    let memory: Vec<usize> = order.iter().map(|&d| dims[d]).collect();
    let mut axes = vec![0; dims.len()];
    order.iter().enumerate().for_each(|(at, &d)| axes[d] = at);
    let array = array(device, &memory, dtype);
    let layout = array.layout().permute(&axes);
    array.with_layout(layout).unwrap()
}

fn each_device(f: impl Fn(&Device, &str)) {
    for isa in Isa::available() {
        println!("kernels of {} run", isa.name());
        f(&Device::new(Cpu::with_isa(isa)), isa.name());
    }
}

#[test]
fn a_row_of_a_product_has_the_same_bits_in_a_full_tile_and_in_a_part_of_one() {
    let (k, n) = (300, 64);
    each_device(|device, isa| {
        for (dtype, order) in [DType::F32, DType::F16, DType::BF16].into_iter().flat_map(|d| [(d, [0, 1]), (d, [1, 0])])
        {
            let b = array(device, &[k, n], dtype);
            let rows = permuted(device, &[50, k], &order, dtype);
            let product = |m: usize| {
                let a = rows.with_layout(rows.layout().narrow(0, 0, m)).unwrap();
                run(Request::new(&Op::MatMul(MatMul::default()), &[&a, &b], device, DType::F32, Class::Activations))
                    .unwrap()[0]
                    .to_f64_vec()
                    .unwrap()
            };
            let all = product(50);
            for m in [13, 23, 31] {
                assert!(product(m) == all[..m * n], "{isa} {dtype} {order:?}: {m} rows");
            }
        }
    });
}

#[test]
fn products_and_convolutions_have_the_same_bits_for_any_number_of_threads() {
    each_device(|device, isa| {
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            let results = |threads: usize| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| {
                    let one = |op: &Op, ins: &[&Array]| {
                        run(Request::new(op, ins, device, DType::F32, Class::Activations)).unwrap()[0]
                            .to_f64_vec()
                            .unwrap()
                    };
                    let product = |m, k, n| {
                        one(
                            &Op::MatMul(MatMul::default()),
                            &[&array(device, &[m, k], dtype), &array(device, &[k, n], dtype)],
                        )
                    };
                    let conv = Conv2d { padding: [1, 1], ..Conv2d::default() };
                    let x = permuted(device, &[3, 24, 32, 32], &[0, 2, 3, 1], dtype);
                    let g = permuted(device, &[3, 40, 32, 32], &[0, 2, 3, 1], dtype);
                    let weight =
                        Op::Backward(Backward::Conv2dWeight { conv, shape: Shape::new(&[40, 24, 3, 3]).unwrap() });
                    // The gradient of a linear layer's weight.
                    let turned = permuted(device, &[260, 1100], &[1, 0], dtype);
                    let linear = one(&Op::MatMul(MatMul::default()), &[&turned, &array(device, &[1100, 90], dtype)]);
                    let conv = Conv2d { groups: 24, ..conv };
                    let depthwise = Op::Backward(Backward::Depthwise { conv, bias: true });
                    let channels = array(device, &[24, 1, 3, 3], dtype);
                    let forward = one(&Op::Conv2d(conv, Epilogue::default()), &[&x, &channels]);
                    let all = |op: &Op, ins: &[&Array]| {
                        let outs = run(Request::new(op, ins, device, DType::F32, Class::Activations)).unwrap();
                        outs.iter().flat_map(|out| out.to_f64_vec().unwrap()).collect::<Vec<_>>()
                    };
                    let sums = Op::MatMul(MatMul::of_right(None, true));
                    let with_sums =
                        [90, 400].map(|n| all(&sums, &[&turned, &array(device, &[1100, n], dtype)])).concat();
                    let products = [product(700, 300, 90), product(90, 1100, 700), linear, with_sums].concat();
                    let depthwise = all(&depthwise, &[&x, &x, &channels]);
                    [products, one(&weight, &[&g, &x]), depthwise, forward].concat()
                })
            };
            let alone = results(1);
            for threads in [2, 3, 8] {
                assert!(results(threads) == alone, "{isa} {dtype}: {threads} threads");
            }
        }
    });
}
