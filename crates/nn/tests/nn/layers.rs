//! Layers against formulas written out, their names, and their gradients.

use binade_autograd::{Var, gradcheck, scope};
use binade_cpu as _;
use binade_nn::*;
use binade_tensor::op::{Conv2d as Geometry, Unary};
use binade_tensor::{Array, Class, DType};

fn values(shape: &[usize], stream: u64) -> Array {
    let n: usize = shape.iter().product();
    let v: Vec<f64> = (0..n).map(|i| (((i as u64 + 1) * 7919 + stream * 104729) % 1013) as f64 / 506.0 - 1.0).collect();
    Array::from_slice(&scope::device().unwrap(), &v, shape, Class::Activations).unwrap()
}

/// The same layer with f64 parameters of other values.
fn widen(module: &dyn Module) -> Vec<(String, Vec<f64>, Vec<usize>)> {
    let mut out = Vec::new();
    for (i, (name, param)) in module.named_parameters().into_iter().enumerate() {
        let wanted = values(param.array().shape(), 50 + i as u64);
        param.array().copy_from(&wanted).unwrap();
        out.push((name, param.array().to_f64_vec().unwrap(), param.array().shape().to_vec()));
    }
    out
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

#[test]
fn lstm_and_gru_compute_their_formulas_under_pytorchs_names() {
    let (t, b, d, h) = (3, 2, 3, 2);
    let x = values(&[t, b, d], 1);
    let xs = x.to_f64_vec().unwrap();
    for gates in [4, 3] {
        let (y, names, p) = if gates == 4 {
            let net = Lstm::new(d, h, Recurrent::default()).unwrap();
            let p = widen(&net);
            let (y, last, cell) = net.forward(&Var::constant(x.clone()), None).unwrap();
            assert_eq!((last.shape().to_vec(), cell.shape().to_vec()), (vec![1, b, h], vec![1, b, h]));
            (y, net.named_parameters(), p)
        } else {
            let net = Gru::new(d, h, Recurrent::default()).unwrap();
            let p = widen(&net);
            (net.forward(&Var::constant(x.clone()), None).unwrap().0, net.named_parameters(), p)
        };
        let names: Vec<&str> = names.iter().map(|(n, _)| n.as_str()).collect();
        assert_eq!(names, ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"]);
        let [wi, wh, bi, bh] = [0, 1, 2, 3].map(|i| &p[i].1);
        let y = y.array().to_f64_vec().unwrap();
        for n in 0..b {
            let (mut state, mut cell) = (vec![0.0; h], vec![0.0; h]);
            for step in 0..t {
                let row = |k: usize| bi[k] + (0..d).map(|j| wi[k * d + j] * xs[(step * b + n) * d + j]).sum::<f64>();
                let back = |k: usize, s: &[f64]| bh[k] + (0..h).map(|j| wh[k * h + j] * s[j]).sum::<f64>();
                let before = state.clone();
                for u in 0..h {
                    let (a, r) = (|g: usize| row(g * h + u), |g: usize| back(g * h + u, &before));
                    if gates == 4 {
                        cell[u] = sigmoid(a(1) + r(1)) * cell[u] + sigmoid(a(0) + r(0)) * (a(2) + r(2)).tanh();
                        state[u] = sigmoid(a(3) + r(3)) * cell[u].tanh();
                    } else {
                        let new = (a(2) + sigmoid(a(0) + r(0)) * r(2)).tanh();
                        let z = sigmoid(a(1) + r(1));
                        state[u] = (1.0 - z) * new + z * before[u];
                    }
                    let found = y[(step * b + n) * h + u];
                    assert!((found - state[u]).abs() < 1e-6, "{gates} gates: {found} instead of {}", state[u]);
                }
            }
        }
    }
}

#[test]
fn a_bidirectional_stack_reads_from_both_ends() {
    let settings = Recurrent { layers: 2, bidirectional: true, batch_first: true };
    let net = Gru::new(3, 2, settings).unwrap();
    let names: Vec<String> = net.named_parameters().into_iter().map(|(n, _)| n).collect();
    assert!(names.contains(&"weight_ih_l1_reverse".to_string()), "{names:?}");
    let x = Var::constant(values(&[4, 5, 3], 1).cast(DType::F32, Class::Activations).unwrap());
    let (y, last) = net.forward(&x, None).unwrap();
    assert_eq!((y.shape().to_vec(), last.shape().to_vec()), (vec![4, 5, 4], vec![4, 4, 2]));
    // The second direction of the first layer, read backwards, is the first direction on the reversed sequence.
    let one = Gru::new(3, 2, Recurrent { bidirectional: true, ..Recurrent::default() }).unwrap();
    let p = one.parameters();
    (0..4).for_each(|i| p[i + 4].array().copy_from(&p[i].array()).unwrap());
    let forward = one.forward(&x, None).unwrap().0.narrow(2, 0, 2).unwrap();
    let reversed = one.forward(&x.flip(&[0]).unwrap(), None).unwrap().0.narrow(2, 2, 2).unwrap().flip(&[0]).unwrap();
    assert_eq!(forward.array().to_f64_vec().unwrap(), reversed.array().to_f64_vec().unwrap());
}

#[test]
fn multi_head_attention_is_attention_of_its_projections() {
    let (b, t, s, e, heads) = (2, 3, 4, 6, 2);
    let layer = MultiHeadAttention::new(e, heads, 0.0).unwrap();
    let p = widen(&layer);
    let names: Vec<&str> = p.iter().map(|p| p.0.as_str()).collect();
    assert_eq!(names, ["in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias"]);
    let (q, m) = (values(&[b, t, e], 1), values(&[b, s, e], 2));
    let y = layer.forward(&Var::constant(q.clone()), &Var::constant(m.clone()), None, false).unwrap();
    let (y, q, m) = (y.array().to_f64_vec().unwrap(), q.to_f64_vec().unwrap(), m.to_f64_vec().unwrap());
    let (w, bias, wo, bo) = (&p[0].1, &p[1].1, &p[2].1, &p[3].1);
    let project = |x: &[f64], n: usize, part: usize, f: usize| {
        let row = part * e + f;
        bias[row] + (0..e).map(|j| w[row * e + j] * x[n * e + j]).sum::<f64>()
    };
    let d = e / heads;
    for (n, i) in (0..b).flat_map(|n| (0..t).map(move |i| (n, i))) {
        let mut joined = vec![0.0; e];
        for h in 0..heads {
            let score = |j: usize| {
                let dot = |f: usize| project(&q, n * t + i, 0, h * d + f) * project(&m, n * s + j, 1, h * d + f);
                ((0..d).map(dot).sum::<f64>() / (d as f64).sqrt()).exp()
            };
            let total: f64 = (0..s).map(score).sum();
            for f in 0..d {
                joined[h * d + f] = (0..s).map(|j| score(j) / total * project(&m, n * s + j, 2, h * d + f)).sum();
            }
        }
        for f in 0..e {
            let expected = bo[f] + (0..e).map(|j| wo[f * e + j] * joined[j]).sum::<f64>();
            let found = y[(n * t + i) * e + f];
            assert!((found - expected).abs() < 1e-5, "{found} instead of {expected}");
        }
    }
}

#[test]
fn transformer_blocks_have_gradients_and_pytorchs_names() {
    for norm_first in [false, true] {
        let config =
            TransformerConfig { hidden: 6, dropout: 0.0, act: Unary::Gelu, norm_first, ..TransformerConfig::new(4, 2) };
        let encoder = TransformerEncoderLayer::new(config).unwrap();
        let decoder = TransformerDecoderLayer::new(config).unwrap();
        gradcheck(|v| Ok(encoder.forward(&v[0], None, true).unwrap()), &[values(&[1, 3, 4], 1)]).unwrap();
        let both = [values(&[1, 3, 4], 1), values(&[1, 2, 4], 2)];
        gradcheck(|v| Ok(decoder.forward(&v[0], &v[1], None, true).unwrap()), &both).unwrap();
        let names: Vec<String> = decoder.named_parameters().into_iter().map(|(n, _)| n).collect();
        for name in ["self_attn.in_proj_weight", "multihead_attn.out_proj.bias", "linear1.weight", "norm3.bias"] {
            assert!(names.iter().any(|n| n == name), "{name} is not among {names:?}");
        }
    }
}

#[test]
fn every_simple_layer_runs_and_keeps_or_gives_the_shape_it_says() {
    let x = |shape: &[usize]| Var::constant(values(shape, 3).cast(DType::F32, Class::Activations).unwrap());
    let same: Vec<Box<dyn Layer>> = vec![
        Box::new(LeakyRelu::default()),
        Box::new(Elu::default()),
        Box::new(Celu::default()),
        Box::new(Softplus::default()),
        Box::new(Hardtanh::default()),
        Box::new(Softmax::default()),
        Box::new(PRelu::new(4).unwrap()),
        Box::new(RmsNorm::new(6).unwrap()),
        Box::new(InstanceNorm::new(Some(4)).unwrap()),
        Box::new(InstanceNorm::new(None).unwrap()),
        Box::new(Identity),
        Box::new(DropoutChannels::new(0.5).unwrap()),
        Box::new(Activation(Unary::Mish)),
    ];
    for layer in same {
        assert_eq!(layer.forward(&x(&[2, 4, 6])).unwrap().shape().to_vec(), [2, 4, 6]);
    }
    for halves in [&Glu::default() as &dyn Layer, &SwiGlu::default()] {
        assert_eq!(halves.forward(&x(&[2, 4, 6])).unwrap().shape().to_vec(), [2, 4, 3]);
    }
    let conv1d = Conv1d::new(4, 8, 3, [2, 1, 1], 2, true).unwrap();
    assert_eq!(conv1d.forward(&x(&[2, 4, 9])).unwrap().shape().to_vec(), [2, 8, 5]);
    let up1d = ConvTranspose1d::new(4, 6, 3, [2, 1, 1], 1, 2, true).unwrap();
    assert_eq!(up1d.forward(&x(&[2, 4, 5])).unwrap().shape().to_vec(), [2, 6, 10]);
    let geometry = Geometry { stride: [2, 2], padding: [1, 1], ..Geometry::default() };
    let up2d = ConvTranspose2d::new(4, 3, [4, 4], geometry, [0, 0], true).unwrap();
    assert_eq!(up2d.forward(&x(&[2, 4, 5, 6])).unwrap().shape().to_vec(), [2, 3, 10, 12]);
    let conv3d =
        Conv3d::new(2, 3, [3, 3, 3], binade_autograd::Conv3d { padding: [1; 3], ..Default::default() }, true).unwrap();
    assert_eq!(conv3d.forward(&x(&[1, 2, 4, 5, 6])).unwrap().shape().to_vec(), [1, 3, 4, 5, 6]);
    assert!(
        Conv1d::new(3, 8, 3, [1, 0, 1], 2, true).err().unwrap().to_string().contains("2 groups must divide 3 input")
    );
}

#[test]
fn norms_with_a_fused_activation_are_the_norm_and_then_the_activation() {
    let x = Var::constant(values(&[3, 4, 5, 5], 3).cast(DType::F32, Class::Activations).unwrap());
    let act = Activation(Unary::Silu);
    let group = GroupNorm::new(2, 4).unwrap();
    let batch = BatchNorm2d::new(4).unwrap();
    let layer = LayerNorm::new(5).unwrap();
    let pairs = [
        (group.forward_act(&x, Unary::Silu), group.forward(&x)),
        (batch.forward_act(&x, Unary::Silu), batch.forward(&x)),
        (layer.forward_act(&x, Unary::Silu), layer.forward(&x)),
    ];
    for (fused, plain) in pairs {
        let apart = act.forward(&plain.unwrap()).unwrap().array().to_f64_vec().unwrap();
        assert_eq!(fused.unwrap().array().to_f64_vec().unwrap(), apart);
    }
}
