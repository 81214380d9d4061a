//! Products, convolutions, pooling, attention and alignments against central differences in f64.

use crate::common::check;
use binade_autograd::Var;
use binade_cpu as _;
use binade_tensor::op::{Attention, Conv2d, Reduction};
use binade_tensor::{Array, Class, Device, Key};

fn classes(values: &[i64], shape: &[usize]) -> Array {
    Array::from_slice(&Device::cpu(), values, shape, Class::Indices).unwrap()
}

/// Normal f64 values, `offset` added.
fn values(shape: &[usize], stream: u64, offset: f64) -> Array {
    crate::common::values(shape, stream, offset, 1.0)
}

#[test]
fn products_joins_and_einsum() {
    let (a, b) = (values(&[2, 3, 4], 1, 0.0), values(&[2, 4, 5], 2, 0.0));
    let pair = [a.clone(), b.clone()];
    let bmm = Var::constant(a.clone()).matmul(&Var::constant(b.clone())).unwrap();
    let same = |equation: &str, expected: &Var| {
        let y = Var::einsum(equation, &[&Var::constant(a.clone()), &Var::constant(b.clone())]).unwrap();
        let (y, expected) = (y.array().to_f64_vec().unwrap(), expected.array().to_f64_vec().unwrap());
        assert_eq!(y.len(), expected.len(), "{equation}");
        y.iter().zip(&expected).for_each(|(y, e)| assert!((y - e).abs() < 1e-12, "{equation}: {y} instead of {e}"));
    };
    same("bij,bjk->bik", &bmm);
    same("bij,bjk", &bmm.sum(&[0], false).unwrap());
    same("bij,bjk->kib", &bmm.permute(&[2, 1, 0]).unwrap());
    same("bij,cjk->bi", &{
        let right = Var::constant(b.clone()).sum(&[0, 2], false).unwrap();
        Var::constant(a.clone()).matmul(&right).unwrap()
    });
    for equation in ["bij,bjk->bik", "bij,cjk->bck", "bij,bjk->", "bij,bjk->ij"] {
        check(equation, &pair, |v| Var::einsum(equation, &[&v[0], &v[1]]));
    }
    for bad in ["bij->b", "bij,bjk->bz", "bii,bjk->b", "bij,bik->b", "b.j,bjk->b"] {
        let error = Var::einsum(bad, &[&Var::constant(a.clone()), &Var::constant(b.clone())]).err();
        assert!(error.is_some_and(|e| e.to_string().starts_with("einsum")), "{bad}");
    }
    let (u, w) = (values(&[4], 3, 0.0), values(&[4], 4, 0.0));
    check("dot", &[u.clone(), w.clone()], |v| v[0].dot(&v[1]));
    check("outer", &[u, w], |v| v[0].outer(&v[1]));
    check("stack", &[a.clone(), a.clone()], |v| Var::stack(&[&v[0], &v[1]], -1));
    check("chunk", std::slice::from_ref(&a), |v| v[0].chunk(2, 1).map(|c| c[0].clone()));
    check("repeat", std::slice::from_ref(&a), |v| v[0].repeat(&[2, 1, 3, 2]));
}

#[test]
fn convolutions_of_other_ranks_and_their_adjoints() {
    use binade_autograd::Conv3d;
    let conv = Conv2d { stride: [1, 2], padding: [0, 1], dilation: [1, 2], groups: 2 };
    let bias = values(&[4], 3, 0.0);
    let x = values(&[2, 4, 7], 1, 0.0);
    check("conv1d", &[x.clone(), values(&[4, 2, 3], 2, 0.0), bias.clone()], |v| v[0].conv1d(&v[1], Some(&v[2]), conv));
    check("conv_transpose1d", &[x, values(&[4, 2, 3], 2, 0.0), bias.clone()], |v| {
        v[0].conv_transpose1d(&v[1], Some(&v[2]), conv, 1)
    });
    for stride in [[1, 1], [2, 3]] {
        let conv = Conv2d { stride, padding: [1, 0], ..Conv2d::default() };
        check("conv_transpose2d", &[values(&[2, 3, 3, 2], 1, 0.0), values(&[3, 4, 2, 3], 2, 0.0), bias.clone()], |v| {
            v[0].conv_transpose2d(&v[1], Some(&v[2]), conv, [0, 0])
        });
    }
    let cube = Conv3d { stride: [2, 1, 1], padding: [1, 0, 1], dilation: [1, 1, 2], groups: 1 };
    let ins = [values(&[1, 2, 4, 3, 5], 1, 0.0), values(&[4, 2, 3, 2, 2], 2, 0.0), bias];
    check("conv3d", &ins, |v| v[0].conv3d(&v[1], Some(&v[2]), cube));
    // Against the sum it stands for, at one output.
    let y = Var::constant(ins[0].clone()).conv3d(&Var::constant(ins[1].clone()), None, cube).unwrap();
    assert_eq!(&**y.shape(), [1, 4, 2, 2, 5]);
    let (x, w) = (ins[0].to_f64_vec().unwrap(), ins[1].to_f64_vec().unwrap());
    let mut sum = 0.0;
    for (c, k, h, v) in (0..2).flat_map(|c| (0..3).flat_map(move |k| (0..4).map(move |hv| (c, k, hv / 2, hv % 2)))) {
        // Output (o, d, h, w) = (3, 1, 1, 2): depth 2·1 + k − 1, height 1 + h, width 2 + 2v − 1.
        sum += x[((c * 4 + 1 + k) * 3 + 1 + h) * 5 + 1 + 2 * v] * w[(((3 * 2 + c) * 3 + k) * 2 + h) * 2 + v];
    }
    let found = y.array().to_f64_vec().unwrap()[((3 * 2 + 1) * 2 + 1) * 5 + 2];
    assert!((found - sum).abs() < 1e-12, "{found} instead of {sum}");
    let window = Conv2d { stride: [2, 1], padding: [1, 0], ..Conv2d::default() };
    let image = values(&[2, 2, 5, 4], 1, 0.0);
    check("unfold", std::slice::from_ref(&image), |v| v[0].unfold([3, 2], window));
    check("fold", std::slice::from_ref(&image), |v| v[0].unfold([3, 2], window)?.fold([5, 4], [3, 2], window));
    // A convolution is a product with the columns.
    let w = Var::constant(values(&[3, 2, 3, 2], 2, 0.0));
    let image = Var::constant(image);
    let direct = image.conv2d(&w, None, window, None).unwrap().reshape(&[2, 3, -1]).unwrap();
    let columns = w.reshape(&[3, -1]).unwrap().matmul(&image.unfold([3, 2], window).unwrap()).unwrap();
    let (a, b) = (direct.array().to_f64_vec().unwrap(), columns.array().to_f64_vec().unwrap());
    assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-12));
}

#[test]
fn pooling_variants() {
    use binade_tensor::op::{Pool, PoolKind};
    let x = values(&[2, 3, 7, 8], 1, 0.0);
    let one = std::slice::from_ref(&x);
    for kind in [PoolKind::Max, PoolKind::Avg] {
        let pool = Pool { ceil: true, count_padding: false, ..Pool::new(kind, [3, 2], [2, 3], [1, 1]) };
        check("pool2d", one, |v| v[0].pool2d(pool));
    }
    check("max_pool1d", &[values(&[2, 3, 9], 1, 0.0)], |v| v[0].max_pool1d(3, 2, 1));
    check("avg_pool1d", &[values(&[2, 3, 9], 1, 0.0)], |v| v[0].avg_pool1d(3, 2, 1));
    check("adaptive_max_pool", one, |v| v[0].adaptive_max_pool(&[3, 5]));
}

#[test]
fn attention_with_masks_groups_and_dropout() {
    use binade_autograd::Rotary;
    let qkv = [values(&[1, 4, 3, 4], 1, 0.0), values(&[1, 2, 5, 4], 2, 0.0), values(&[1, 2, 5, 2], 3, 0.0)];
    let plain = Attention::default();
    check("grouped", &qkv, |v| v[0].attention(&v[1], &v[2], plain));
    let seen = Var::constant(values(&[3, 5], 4, 0.3)).compare_scalar(binade_tensor::op::Compare::Gt, 0.0).unwrap();
    check("bool mask", &qkv, |v| v[0].attention_masked(&v[1], &v[2], &seen, plain));
    let bias = values(&[4, 3, 5], 5, 0.0);
    let fixed = Var::constant(bias.clone());
    check("additive mask", &qkv, |v| v[0].attention_masked(&v[1], &v[2], &fixed, plain));
    let with_bias = [&qkv[..], &[bias]].concat();
    check("the mask's gradient", &with_bias, |v| v[0].attention_masked(&v[1], &v[2], &v[3], plain));
    let dropping = Attention { dropout: 0.4, key: Key::new(5, 6), ..plain };
    check("dropout", &qkv, |v| v[0].attention_masked(&v[1], &v[2], &seen, dropping));
    // A query that sees nothing gives zeros, and zero gradients.
    let none = seen.compare(binade_tensor::op::Compare::Xor, &seen).unwrap();
    let leaves: Vec<Var> = qkv.iter().map(|a| Var::leaf(a.clone())).collect();
    let y = leaves[0].attention_masked(&leaves[1], &leaves[2], &none, plain).unwrap();
    assert!(y.array().to_f64_vec().unwrap().iter().all(|v| *v == 0.0));
    let grads = y.sum(&[], false).unwrap().backward().unwrap();
    for leaf in &leaves {
        assert!(grads.get(leaf).unwrap().to_f64_vec().unwrap().iter().all(|v| *v == 0.0));
    }
    for pairs in [Rotary::Halves, Rotary::Interleaved] {
        // The angles are f32: the map is linear, so differences agree all the same.
        check("rotary", &[values(&[2, 3, 4], 1, 0.0)], |v| v[0].rotary(7, 100.0, pairs));
        let x = Var::constant(values(&[3, 6], 1, 0.0));
        let y = x.rotary(1, 10000.0, pairs).unwrap().array().to_f64_vec().unwrap();
        let x = x.array().to_f64_vec().unwrap();
        for t in 0..3 {
            for i in 0..3 {
                let (a, b) = if pairs == Rotary::Halves { (i, i + 3) } else { (2 * i, 2 * i + 1) };
                let angle = (t + 1) as f64 * 10000f64.powf(-(i as f64) / 3.0);
                let (a, b, y) = (x[t * 6 + a], x[t * 6 + b], y[t * 6 + a]);
                assert!((y - (a * angle.cos() - b * angle.sin())).abs() < 1e-6);
            }
        }
    }
}

#[test]
fn ctc_sums_over_all_alignments() {
    use binade_autograd::Ctc;
    let (t, batch, c) = (4, 2, 3);
    let x = Var::constant(values(&[t, batch, c], 1, 0.0)).log_softmax(-1).unwrap();
    let targets = Var::constant(classes(&[1, 2, 1, 0], &[2, 2]));
    let (inputs, lengths) = ([4, 3], [2, 1]);
    let loss =
        x.ctc_loss(&targets, &inputs, &lengths, Ctc::default(), Reduction::None).unwrap().array().to_f64_vec().unwrap();
    // Every path of classes that reads as the target when repeats and then blanks are dropped.
    let log_p = x.array().to_f64_vec().unwrap();
    for (n, target) in [vec![1, 2], vec![1]].into_iter().enumerate() {
        let mut total = 0.0;
        for path in 0..c.pow(inputs[n] as u32) {
            let classes: Vec<usize> = (0..inputs[n]).map(|i| path / c.pow(i as u32) % c).collect();
            let mut read = classes.clone();
            read.dedup();
            read.retain(|&k| k != 0);
            if read == target {
                total += (0..inputs[n]).map(|i| log_p[(i * batch + n) * c + classes[i]]).sum::<f64>().exp();
            }
        }
        assert!((loss[n] + total.ln()).abs() < 1e-12, "{} instead of {}", loss[n], -total.ln());
    }
    for reduction in [Reduction::None, Reduction::Mean, Reduction::Sum] {
        check("ctc_loss", &[values(&[t, batch, c], 1, 0.0)], |v| {
            v[0].log_softmax(-1)?.ctc_loss(&targets, &inputs, &lengths, Ctc::default(), reduction)
        });
    }
    // Two equal labels need three steps: the loss is infinite, or 0 where asked.
    let twice = Var::constant(classes(&[1, 1], &[1, 2]));
    let short = Var::leaf(values(&[2, 1, c], 1, 0.0));
    for zero_infinity in [false, true] {
        let settings = Ctc { blank: 0, zero_infinity };
        let loss = short.log_softmax(-1).unwrap().ctc_loss(&twice, &[2], &[2], settings, Reduction::Sum).unwrap();
        assert_eq!(loss.item().unwrap(), if zero_infinity { 0.0 } else { f64::INFINITY });
        if zero_infinity {
            assert!(loss.backward().unwrap().get(&short).unwrap().to_f64_vec().unwrap().iter().all(|g| *g == 0.0));
        }
    }
    let blank = Var::constant(classes(&[0], &[1, 1]));
    assert!(x.ctc_loss(&blank, &[4], &[1], Ctc::default(), Reduction::Mean).is_err());
}
