//! Products and convolutions at extents where kernels change their way: few rows, long sums, many columns, blocks that
//! end inside an image. At every instruction set, in both layouts, against the naive f64 reference.

use std::rc::Rc;

use binade_cpu::{Cpu, Isa};
use binade_tensor::op::{Attention, Backward, Conv2d, Epilogue, MatMul, Reduce, Unary};
use binade_tensor::testing::{Exact, assert_op};
use binade_tensor::{Array, Class, DType, Device, Dims, Error, Key, Layout, Op, Request, Shape, run};

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

/// Every instruction set against the reference, which is slow and runs once. `cases` makes operators and their inputs
/// on a device.
fn assert_at_every_isa(cases: impl Fn(&Device) -> Vec<(Op, Vec<Array>, DType)>) {
    let here = cases(&Device::cpu());
    let mut exact: Vec<Rc<Exact>> = Vec::new();
    for (i, (op, ins, _)) in here.iter().enumerate() {
        let memory = |ins: &[Array]| ins.iter().map(|a| (a.storage().id(), *a.layout())).collect::<Vec<_>>();
        // One after the other, they differ in the dtype of the result alone.
        let same = i.checked_sub(1).filter(|&j| here[j].0 == *op && memory(&here[j].1) == memory(ins));
        exact.push(same.map_or_else(|| Rc::new(Exact::of(op, ins).unwrap()), |j| exact[j].clone()));
    }
    each_device(|device, isa| {
        for ((op, ins, dtype), exact) in cases(device).iter().zip(&exact) {
            let (_, failure) = exact.check(op, ins, device, *dtype).unwrap();
            let ins = || ins.iter().map(|a| format!("{} {:?}", a.dtype(), a.layout())).collect::<Vec<_>>().join(", ");
            assert_eq!(failure, None, "{isa} {}", ins());
        }
    });
}

#[test]
fn sums_over_rows_of_any_length_and_over_none() {
    let sum = |dims: Dims| Op::Reduce { kind: Reduce::Sum, dims, keepdim: false };
    assert_at_every_isa(|device| {
        let wide = [DType::F32, DType::BF16]
            .map(|dtype| (sum(Dims::one(0)), vec![array(device, &[9, 65, 192], dtype)], dtype));
        let parts = array(device, &[3, 10, 5000], DType::F32);
        let none = array(device, &[0, 5, 3], DType::F32);
        let mut cases =
            vec![(sum(Dims::one(1)), vec![parts], DType::F32), (sum(Dims::one(0).with(1)), vec![none], DType::F32)];
        cases.extend(wide);
        cases
    });
}

#[test]
fn products_at_every_turn_of_the_kernels() {
    let shapes = [
        (1, 1030, 70),
        (3, 2050, 130),
        (8, 64, 600),
        (9, 300, 257),
        (63, 300, 300),
        (70, 1100, 200),
        (100, 520, 33),
        (200, 40, 800),
        (300, 5, 7),
        (130, 2090, 70),
    ];
    let plain = || Op::MatMul(MatMul::default());
    for (m, k, n) in shapes {
        assert_at_every_isa(|device| {
            let mut cases = Vec::new();
            for (a_order, b_order) in [([0, 1], [0, 1]), ([1, 0], [1, 0]), ([0, 1], [1, 0])] {
                let ins = vec![
                    permuted(device, &[m, k], &a_order, DType::F32),
                    permuted(device, &[k, n], &b_order, DType::F16),
                ];
                cases.extend([DType::F32, DType::BF16].map(|dtype| (plain(), ins.clone(), dtype)));
            }
            // Operands of one dtype, and those that meet where only one is 16 bit.
            for [a, b] in [
                [DType::F32; 2],
                [DType::F16; 2],
                [DType::BF16; 2],
                [DType::BF16, DType::F32],
                [DType::F16, DType::BF16],
            ] {
                let ins = vec![permuted(device, &[m, k], &[1, 0], a), array(device, &[k, n], b)];
                cases.push((plain(), ins, DType::F32));
            }
            let bias = array(device, &[n], DType::F32);
            let ins = vec![array(device, &[m, k], DType::F16), array(device, &[k, n], DType::F32), bias];
            cases.push((Op::MatMul(MatMul::plain(Epilogue { bias: true, act: Some(Unary::Relu) })), ins, DType::F32));
            cases
        });
    }
    assert_at_every_isa(|device| {
        let case = |(batch, m, k, n)| {
            let ins = vec![array(device, &[batch, m, k], DType::F32), array(device, &[batch, k, n], DType::F32)];
            (plain(), ins, DType::F32)
        };
        let mut cases: Vec<_> = [(5, 40, 33, 47), (3, 100, 300, 65)].map(case).into();
        // A weight's gradient with more results than one block has.
        let ins = vec![permuted(device, &[416, 1024], &[1, 0], DType::F32), array(device, &[1024, 400], DType::F32)];
        cases.push((plain(), ins, DType::F32));
        cases
    });
}

#[test]
fn sums_of_a_gradients_rows_come_with_the_weights_gradient() {
    // Products of few rows, tall, wide and deep ones, in one block and in several, a stretch and several parts of the
    // inner dimension.
    let shapes = [
        (5, 64, 20),
        (70, 100, 33),
        (40, 600, 70),
        (20, 300, 260),
        (200, 40, 100),
        (48, 1100, 40),
        (40, 2100, 34),
        (9, 0, 5),
    ];
    for (m, k, n) in shapes {
        assert_at_every_isa(|device| {
            let mut cases = Vec::new();
            for (dtype, order) in
                [DType::F32, DType::F16, DType::BF16].into_iter().flat_map(|d| [(d, [0, 1]), (d, [1, 0])])
            {
                let ins = vec![permuted(device, &[m, k], &order, dtype), array(device, &[k, n], dtype)];
                // The reference activates an operand for each product: Gelu where there are few.
                for act in [None, Some(if m * k * n < 10_000 { Unary::Gelu } else { Unary::Square })] {
                    cases.push((Op::MatMul(MatMul::of_right(act, true)), ins.clone(), DType::F32));
                }
            }
            cases
        });
    }
}

#[test]
fn an_activation_read_by_a_product_has_the_bits_of_one_that_was_written() {
    each_device(|device, isa| {
        for (dtype, order) in [DType::F32, DType::F16, DType::BF16].into_iter().flat_map(|d| [(d, [0, 1]), (d, [1, 0])])
        {
            // Few rows, small and large operands, more columns than rows, several blocks of the inner dimension.
            for (m, k, n) in [(4, 70, 40), (20, 100, 70), (200, 96, 64), (40, 500, 300), (300, 1700, 70)] {
                let (x, weight) = (permuted(device, &[m, k], &order, dtype), permuted(device, &[k, n], &[1, 0], dtype));
                let bias = array(device, &[n], dtype);
                let one = |op: Op, ins: &[&Array]| {
                    run(Request::new(&op, ins, device, dtype, Class::Activations)).unwrap().remove(0)
                };
                for act in [Unary::Gelu, Unary::Square] {
                    let written = one(Op::Unary(act), &[&x]);
                    let written =
                        one(Op::MatMul(MatMul::plain(Epilogue { bias: true, act: None })), &[&written, &weight, &bias]);
                    let read = one(Op::MatMul(MatMul::of_left(act, true)), &[&x, &weight, &bias]);
                    let same = read.to_f64_vec().unwrap() == written.to_f64_vec().unwrap();
                    assert!(same, "{isa} {dtype} {act:?} {:?} {order:?}", (m, k, n));
                }
            }
        }
    });
}

#[test]
fn convolutions_at_every_turn_of_the_kernels() {
    // Batch, channels in and out, height, width, kernel, stride, padding, dilation, groups.
    let cases = [
        ([3, 3, 20, 19, 23], [3, 1, 1, 1, 1]),
        ([2, 40, 35, 17, 13], [3, 1, 1, 1, 1]),
        ([2, 70, 33, 9, 11], [1, 1, 0, 1, 1]),
        ([3, 17, 34, 15, 16], [3, 2, 1, 1, 1]),
        ([2, 20, 9, 16, 15], [1, 2, 0, 1, 1]),
        ([2, 18, 21, 14, 17], [5, 3, 2, 1, 1]),
        ([2, 24, 12, 19, 12], [3, 1, 2, 2, 1]),
        ([2, 24, 36, 9, 10], [3, 1, 1, 1, 3]),
        ([2, 37, 37, 13, 12], [3, 1, 1, 1, 37]),
        ([2, 20, 20, 13, 12], [5, 2, 2, 1, 20]),
        ([3, 20, 20, 2, 3], [5, 1, 2, 1, 20]),
        ([2, 16, 16, 9, 7], [3, 2, 2, 2, 16]),
        ([9, 64, 64, 12, 11], [3, 1, 1, 1, 64]),
        ([3, 19, 19, 1, 6], [3, 1, 1, 1, 19]),
        ([2, 16, 16, 5, 1], [3, 1, 1, 1, 16]),
        ([1, 5, 5, 1, 1], [3, 1, 1, 1, 5]),
        ([2, 35, 4, 11, 13], [3, 1, 1, 1, 1]),
        ([2, 2, 20, 15, 14], [3, 2, 1, 1, 1]),
        ([9, 33, 40, 4, 4], [3, 1, 1, 1, 1]),
        ([1, 16, 18, 24, 24], [23, 1, 11, 1, 1]),
        // No images.
        ([0, 20, 9, 6, 5], [3, 1, 1, 1, 1]),
        ([0, 20, 20, 6, 5], [3, 1, 1, 1, 20]),
        // Less to read in the images than in the weight.
        ([1, 330, 260, 2, 3], [2, 1, 1, 1, 1]),
        ([2, 330, 260, 4, 3], [2, 2, 1, 1, 1]),
    ];
    for ([n, c, o, h, w], [kernel, stride, padding, dilation, groups]) in cases {
        let conv = Conv2d { stride: [stride; 2], padding: [padding; 2], dilation: [dilation; 2], groups };
        let out = |x: usize| (x + 2 * padding - dilation * (kernel - 1) - 1) / stride + 1;
        let (xs, ws, ys) = ([n, c, h, w], [o, c / groups, kernel, kernel], [n, o, out(h), out(w)]);
        for (order, dtype) in [([0, 2, 3, 1], DType::F32), ([0, 1, 2, 3], DType::F16), ([0, 2, 3, 1], DType::BF16)] {
            assert_at_every_isa(|device| {
                let (x, g) = (permuted(device, &xs, &order, dtype), permuted(device, &ys, &order, dtype));
                let weight = array(device, &ws, dtype);
                let bias = array(device, &[o], DType::F32);
                let shape = |dims: &[usize]| Shape::new(dims).unwrap();
                let case = |op: Op, ins: Vec<Array>| (op, ins, DType::F32);
                let mut cases = vec![
                    case(Op::Conv2d(conv, Epilogue::default()), vec![x.clone(), weight.clone()]),
                    case(Op::Conv2d(conv, Epilogue { bias: true, act: None }), vec![x.clone(), weight.clone(), bias]),
                    case(
                        Op::Backward(Backward::Conv2dInput { conv, shape: shape(&xs) }),
                        vec![g.clone(), weight.clone()],
                    ),
                    case(Op::Backward(Backward::Conv2dWeight { conv, shape: shape(&ws) }), vec![g.clone(), x.clone()]),
                ];
                if conv.is_depthwise(weight.shape()) {
                    let depthwise = Op::Backward(Backward::Depthwise { conv, bias: true });
                    // All in one dtype, and a gradient in another.
                    cases.push((depthwise.clone(), vec![g, x.clone(), weight.clone()], dtype));
                    cases.push(case(depthwise, vec![permuted(device, &ys, &order, DType::F32), x, weight]));
                }
                cases
            });
        }
    }
}

#[test]
fn what_lies_outside_of_an_image_has_no_part_in_a_depthwise_convolution() {
    let conv = Conv2d { padding: [1, 1], groups: 18, ..Conv2d::default() };
    let infinite = |array: Array, every: usize| {
        let mut values = array.to_f64_vec().unwrap();
        values.iter_mut().step_by(every).for_each(|v| *v = f64::INFINITY);
        Array::from_slice(array.device(), &values, array.shape(), Class::Activations).unwrap()
    };
    for dtype in [DType::F32, DType::BF16] {
        assert_at_every_isa(|device| {
            let image = |every: usize| {
                let wide =
                    infinite(array(device, &[2, 18, 5, 6], DType::F64), every).cast(dtype, Class::Activations).unwrap();
                let last = wide.layout().permute(&[0, 2, 3, 1]);
                let dense = wide.with_layout(last).unwrap().contiguous(Class::Activations).unwrap();
                dense.with_layout(dense.layout().permute(&[0, 3, 1, 2])).unwrap()
            };
            let plain = array(device, &[18, 1, 3, 3], dtype);
            let weight = infinite(array(device, &[18, 1, 3, 3], DType::F64), 3).cast(dtype, Class::Weights).unwrap();
            let depthwise = Op::Backward(Backward::Depthwise { conv, bias: true });
            vec![
                (Op::Conv2d(conv, Epilogue::default()), vec![image(1000), weight.clone()], dtype),
                (depthwise.clone(), vec![image(1000), image(1000), weight], dtype),
                (depthwise.clone(), vec![image(30), image(1000), plain.clone()], dtype),
                (depthwise, vec![image(1000), image(30), plain], dtype),
            ]
        });
    }
}

#[test]
fn attention_at_every_turn_of_the_kernels() {
    // Batch, heads, queries, keys, width of q and k, width of v.
    let shapes = [(2, 3, 65, 65, 64, 64), (1, 2, 200, 200, 32, 48), (1, 1, 130, 300, 40, 17), (2, 1, 16, 530, 16, 16)];
    each_device(|device, isa| {
        for (b, h, t, s, d, e) in shapes {
            let settings = [
                (DType::F32, false, 0.0),
                (DType::F32, t == s, 0.25),
                (DType::BF16, t == s, 0.0),
                (DType::F16, t == s, 0.25),
            ];
            for (dtype, causal, dropout) in settings {
                let heads = |n: usize, width: usize| permuted(device, &[b, h, n, width], &[0, 2, 1, 3], dtype);
                let ins = vec![heads(t, d), heads(s, d), heads(s, e)];
                let attention = Attention { causal, dropout, key: Key::new(3, 4), ..Attention::default() };
                let op = Op::Attention(attention);
                let context = |op: &Op| {
                    format!("{isa} {} {:?} {dtype} causal {causal} dropout {dropout}", op.name(), (b, h, t, s, d, e))
                };
                assert_op(&op, &ins, device, dtype).unwrap_or_else(|e| panic!("{}: {e}", context(&op)));
                let saved =
                    run(Request::new(&op, &ins.iter().collect::<Vec<_>>(), device, dtype, Class::Activations)).unwrap();
                let mut ins = [vec![heads(t, e)], ins].concat();
                ins.extend(saved.iter().cloned());
                let op = Op::Backward(Backward::Attention { attention, joined: false });
                assert_op(&op, &ins, device, DType::F32).unwrap_or_else(|e| panic!("{}: {e}", context(&op)));
                if (t, d) != (s, e) {
                    continue;
                }
                // One tensor in which the gradients lie as queries, keys and values do in the one they are cut from.
                let ins: Vec<&Array> = ins.iter().collect();
                let apart = run(Request::new(&op, &ins, device, DType::F32, Class::Activations)).unwrap();
                let joined = Op::Backward(Backward::Attention { attention, joined: true });
                let laid_out = |layout: Layout| {
                    let request = Request::new(&joined, &ins, device, DType::F32, Class::Activations);
                    run(Request { layout: Some(layout), ..request })
                };
                for order in [[1, 3, 0, 2, 4], [0, 1, 2, 3, 4], [1, 0, 2, 3, 4], [3, 1, 2, 0, 4]] {
                    let layout = Layout::with_order(Shape::new(&[3, b, h, t, d]).unwrap(), &order);
                    let all = laid_out(layout).unwrap()[0].to_f64_vec().unwrap();
                    let parts = apart.iter().flat_map(|part| part.to_f64_vec().unwrap());
                    assert!(all.into_iter().eq(parts), "{} in order {order:?}", context(&joined));
                }
                // Rows in pieces are refused.
                let layout = Layout::with_order(Shape::new(&[3, b, h, t, d]).unwrap(), &[0, 1, 2, 4, 3]);
                let refused = laid_out(layout);
                assert!(matches!(refused, Err(Error::Shape { .. })), "{}", context(&joined));
            }
        }
    });
}

/// Numbers that tiles cannot take: infinities, NaN, subnormals, f32 beyond bf16's range or close to its end.
#[test]
fn numbers_no_instruction_may_flush_or_lose_are_multiplied_like_any_other() {
    let (m, k, n) = (40, 100, 64);
    let strange = [
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
        f32::MAX,
        f32::MIN_POSITIVE,
        1e-40,
        f32::from_bits(1),
        1e-35,
        -0.0,
    ];
    each_device(|device, isa| {
        // Products beyond f32's range are infinite, and not NaN for the sake of a plane of the other sign.
        let large = |dims: &[usize]| {
            Array::full(device, DType::F32, Shape::new(dims).unwrap(), 2.3e19, Class::Activations).unwrap()
        };
        let op = Op::MatMul(MatMul::default());
        assert_op(&op, &[large(&[m, k]), large(&[k, n])], device, DType::F32)
            .unwrap_or_else(|e| panic!("{isa}, overflow: {e}"));
        for (dtype, value) in
            DType::FLOATS.into_iter().filter(|&d| d != DType::F64).flat_map(|d| strange.map(|v| (d, v)))
        {
            for place in [0, 1] {
                let mut values = [array(device, &[m, k], DType::F32), array(device, &[k, n], DType::F32)]
                    .map(|a| a.to_f64_vec().unwrap());
                values[place][3 * 64 + 5] = value as f64;
                // Its partner lifts a small number into the range where it can be seen.
                values[1 - place].iter_mut().for_each(|v| *v *= 1024.0);
                let tensor = |i: usize, dims: [usize; 2]| {
                    let x: Vec<f32> = values[i].iter().map(|&v| v as f32).collect();
                    Array::from_slice(device, &x, &dims, Class::Activations)
                        .unwrap()
                        .cast(dtype, Class::Activations)
                        .unwrap()
                };
                let ins = [tensor(0, [m, k]), tensor(1, [k, n])];
                let op = Op::MatMul(MatMul::default());
                assert_op(&op, &ins, device, DType::F32)
                    .unwrap_or_else(|e| panic!("{isa} {dtype} with {value:e} in {place}: {e}"));
            }
        }
    });
}
