//! Names, state dicts, optimisers against plain formulas, clipping.

use binade_autograd::{Var, scope};
use binade_cpu as _;
use binade_nn::{
    Adam, AdamW, BatchNorm2d, CHECKSUM, Error, Layer, Linear, Module, Optimizer, Param, SelfAttention, Sgd,
    StepOutcome, TensorFile, Visitor, clip_grad_norm, load_state_dict, read_safetensors, state_dict, write_safetensors,
};
use binade_tensor::{Array, Class, DType};

#[derive(Clone, Module)]
struct Net {
    #[module(rename = "attn")]
    attention: SelfAttention,
    norm: BatchNorm2d,
    layers: Vec<Linear>,
    tied: Option<Param>,
    #[module(skip)]
    _note: std::rc::Rc<()>,
    width: usize,
}

fn net() -> Net {
    scope::with_key(5, 5, || {
        let layers = vec![Linear::new(4, 4).unwrap(), Linear::without_bias(4, 2).unwrap()];
        let tied = Some(layers[1].weight.clone());
        Net {
            attention: SelfAttention::new(4, 2, true).unwrap(),
            norm: BatchNorm2d::new(3).unwrap(),
            layers,
            tied,
            _note: Default::default(),
            width: 4,
        }
    })
}

#[test]
fn names_follow_fields_indices_and_attributes() {
    let net = net();
    assert_eq!(net.width, 4);
    let names: Vec<String> = state_dict(&net).into_iter().map(|(n, _)| n).collect();
    let expected = [
        "attn.qkv.weight",
        "attn.qkv.bias",
        "attn.proj.weight",
        "attn.proj.bias",
        "norm.weight",
        "norm.bias",
        "layers.0.weight",
        "layers.0.bias",
        "layers.1.weight",
        "tied",
        "norm.running_mean",
        "norm.running_var",
        "norm.num_batches_tracked",
    ];
    assert_eq!(names, expected);
    // The tied weight is one parameter.
    assert_eq!(net.parameters().len(), net.named_parameters().len() - 1);
}

#[test]
fn a_state_dict_survives_its_file_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let (a, b) = (net(), scope::with_key(6, 6, || Net { layers: net().layers, ..net() }));
    a.layers[0]
        .weight
        .array()
        .copy_from(
            &Array::from_slice(&scope::device().unwrap(), &[f32::MIN_POSITIVE / 4.0; 16], &[4, 4], Class::Weights)
                .unwrap(),
        )
        .unwrap();
    write_safetensors(&path, &state_dict(&a), Default::default()).unwrap();
    load_state_dict(&b, &read_safetensors(&path, Class::Workspace).unwrap().0).unwrap();
    for ((name, x), (_, y)) in state_dict(&a).iter().zip(state_dict(&b)) {
        assert_eq!(x.to_f64_vec().unwrap(), y.to_f64_vec().unwrap(), "{name}");
    }
}

#[test]
fn a_file_in_another_dtype_is_rounded_or_widened_as_it_is_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("half.safetensors");
    let model = Linear::without_bias(2, 2).unwrap();
    let weight = Array::from_slice(&scope::device().unwrap(), &[1.0f32, -2.5, 0.125, 60000.0], &[2, 2], Class::Weights);
    let weight = weight.unwrap().cast(DType::F16, Class::Weights).unwrap();
    write_safetensors(&path, &[("weight".into(), weight.clone())], Default::default()).unwrap();
    TensorFile::open(&path).unwrap().load(&model, "").unwrap();
    assert_eq!(model.weight.array().to_f64_vec().unwrap(), weight.to_f64_vec().unwrap());
}

#[test]
fn a_part_of_a_tensor_is_written_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("part.safetensors");
    let all = Array::from_slice(&scope::device().unwrap(), &[1.0f32, 2.0, 3.0, 4.0], &[4], Class::Weights).unwrap();
    let part = all.with_layout(all.layout().narrow(0, 1, 2)).unwrap();
    write_safetensors(&path, &[("part".into(), part)], Default::default()).unwrap();
    let (read, _) = read_safetensors(&path, Class::Workspace).unwrap();
    assert_eq!(read[0].1.to_f64_vec().unwrap(), [2.0, 3.0]);
}

#[test]
fn a_state_dict_of_another_model_changes_nothing() {
    let net = net();
    let before = net.layers[0].weight.array().to_vec::<f32>().unwrap();
    let mut other = state_dict(&net);
    other.retain(|(n, _)| n != "norm.bias");
    assert!(matches!(load_state_dict(&net, &other), Err(Error::Names { missing, .. }) if missing == ["norm.bias"]));
    let mut other = state_dict(&net);
    other[0].1 =
        Array::full(&scope::device().unwrap(), DType::F32, [2].try_into().unwrap(), 1.0, Class::Weights).unwrap();
    assert!(matches!(load_state_dict(&net, &other), Err(Error::Shape { name, .. }) if name == "attn.qkv.weight"));
    assert_eq!(net.layers[0].weight.array().to_vec::<f32>().unwrap(), before);
}

#[test]
fn torn_files_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    write_safetensors(&path, &state_dict(&net()), Default::default()).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    for n in [0, 7, 100, bytes.len() - 1] {
        std::fs::write(&path, &bytes[..n]).unwrap();
        let error = read_safetensors(&path, Class::Workspace).unwrap_err().to_string();
        assert!(error.contains("model.safetensors") && error.contains("not a valid safetensors file"), "{error}");
    }
}

#[test]
fn a_flipped_bit_anywhere_in_a_file_is_seen() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let weight = Array::from_slice(&scope::device().unwrap(), &[1.0f32, 2.0, 3.0], &[3], Class::Weights).unwrap();
    let metadata = [("text".to_string(), r#"it says "binade.crc32":"12345678""#.to_string())].into();
    write_safetensors(&path, &[("weight".into(), weight)], metadata).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    assert!(read_safetensors(&path, Class::Workspace).unwrap().1.contains_key(CHECKSUM));
    // Without its name no checksum is found, and nothing else is damaged then.
    let name = format!("\"{CHECKSUM}\":\"");
    let key = bytes.windows(name.len()).position(|w| w == name.as_bytes()).unwrap();
    for bit in (0..8 * bytes.len()).step_by(3).filter(|bit| !(key..key + CHECKSUM.len() + 2).contains(&(bit / 8))) {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        std::fs::write(&path, damaged).unwrap();
        let error = read_safetensors(&path, Class::Workspace).expect_err(&format!("bit {bit}")).to_string();
        assert!(error.contains("model.safetensors"), "{error}");
    }
}

/// A file of 12 bytes of data without metadata, as other programs write it.
#[test]
fn a_file_without_a_checksum_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("foreign.safetensors");
    let header = r#"{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}  "#;
    let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &7.5f32.to_le_bytes()].concat();
    std::fs::write(&path, bytes).unwrap();
    let (tensors, metadata) = read_safetensors(&path, Class::Workspace).unwrap();
    assert_eq!((tensors[0].1.to_vec::<f32>().unwrap(), metadata.len()), (vec![7.5], 0));
}

/// Three steps of a two-value parameter, in f64 by the textbook.
fn by_hand(rule: &str, gradients: &[[f64; 2]]) -> [f64; 2] {
    let mut w = [1.0, -2.0];
    let (mut m, mut v, mut b) = ([0.0; 2], [0.0; 2], [0.0; 2]);
    for (t, g) in gradients.iter().enumerate() {
        for i in 0..2 {
            match rule {
                "sgd" => {
                    let d = g[i] + 0.1 * w[i];
                    b[i] = if t == 0 { d } else { 0.9 * b[i] + d };
                    w[i] -= 0.05 * (d + 0.9 * b[i]);
                }
                _ => {
                    let d = if rule == "adam" { g[i] + 0.1 * w[i] } else { g[i] };
                    w[i] *= if rule == "adamw" { 1.0 - 0.05 * 0.1 } else { 1.0 };
                    m[i] = 0.9 * m[i] + 0.1 * d;
                    v[i] = 0.999 * v[i] + 0.001 * d * d;
                    let (c1, c2) = (1.0 - 0.9f64.powi(t as i32 + 1), 1.0 - 0.999f64.powi(t as i32 + 1));
                    w[i] -= 0.05 * (m[i] / c1) / ((v[i] / c2).sqrt() + 1e-8);
                }
            }
        }
    }
    w
}

#[test]
fn optimisers_follow_their_formulas_for_f32_and_16_bit_weights() {
    let gradients = [[0.5, -1.0], [0.25, 2.0], [-0.125, 0.5]];
    for dtype in [DType::F32, DType::BF16, DType::F16] {
        for rule in ["sgd", "adam", "adamw"] {
            let start = Array::from_slice(&scope::device().unwrap(), &[1.0f32, -2.0], &[2], Class::Weights)
                .unwrap()
                .cast(dtype, Class::Weights)
                .unwrap();
            let param = Param::new(start);
            let update = match rule {
                "sgd" => Sgd { lr: 0.05, momentum: 0.9, weight_decay: 0.1, nesterov: true, ..Sgd::default() }.into(),
                "adam" => Adam { lr: 0.05, weight_decay: 0.1, ..Adam::default() }.into(),
                _ => AdamW { lr: 0.05, weight_decay: 0.1, ..AdamW::default() }.into(),
            };
            let update: binade_nn::Rule = update;
            let mut optimizer = Optimizer::empty().with_group(vec![("w".into(), param.clone())], update).unwrap();
            for g in gradients {
                let mut grads = binade_autograd::Gradients::default();
                let g: Vec<f32> = g.iter().map(|&v| v as f32).collect();
                grads.insert(
                    param.id(),
                    Array::from_slice(&scope::device().unwrap(), &g, &[2], Class::Gradients).unwrap(),
                );
                assert_eq!(optimizer.step(&grads).unwrap(), StepOutcome::Applied);
            }
            // A 16-bit weight is its f32 master, rounded once.
            let expected =
                Array::from_slice(&scope::device().unwrap(), &by_hand(rule, &gradients), &[2], Class::Weights).unwrap();
            let (ours, exact) = (
                param.array().to_f64_vec().unwrap(),
                expected.cast(dtype, Class::Weights).unwrap().to_f64_vec().unwrap(),
            );
            for (o, e) in ours.iter().zip(&exact) {
                assert!((o - e).abs() <= 4.0 * f32::EPSILON as f64 * e.abs(), "{rule} {dtype}: {o} instead of {e}");
            }
        }
    }
}

#[test]
fn a_zero_gradient_with_tiny_eps_moves_nothing_and_makes_no_nan() {
    for dtype in [DType::F32, DType::F16, DType::BF16] {
        let param = Param::new(
            Array::full(&scope::device().unwrap(), dtype, [3].try_into().unwrap(), 0.75, Class::Weights).unwrap(),
        );
        let mut optimizer = Optimizer::empty()
            .with_group(vec![("w".into(), param.clone())], Adam { eps: 1e-16, ..Adam::default() })
            .unwrap();
        let mut grads = binade_autograd::Gradients::default();
        grads.insert(
            param.id(),
            Array::full(&scope::device().unwrap(), dtype, [3].try_into().unwrap(), 0.0, Class::Gradients).unwrap(),
        );
        assert_eq!(optimizer.step(&grads).unwrap(), StepOutcome::Applied);
        assert_eq!(param.array().to_f64_vec().unwrap(), [0.75; 3]);
    }
}

#[test]
fn clipping_scales_to_the_norm_and_reports_the_one_before() {
    let (a, b) = (
        Param::init(&[2], binade_nn::Init::Constant(0.0)).unwrap(),
        Param::init(&[1], binade_nn::Init::Constant(0.0)).unwrap(),
    );
    let mut grads = binade_autograd::Gradients::default();
    grads.insert(a.id(), Array::from_slice(&scope::device().unwrap(), &[3.0f32, 0.0], &[2], Class::Gradients).unwrap());
    grads.insert(b.id(), Array::from_slice(&scope::device().unwrap(), &[4.0f32], &[1], Class::Gradients).unwrap());
    assert_eq!(clip_grad_norm(&mut grads, 10.0).unwrap(), 5.0);
    assert_eq!(clip_grad_norm(&mut grads, 1.0).unwrap(), 5.0);
    let clipped = grads.by_id(b.id()).unwrap().item().unwrap();
    assert!((clipped - 0.8).abs() < 1e-6, "{clipped}");
    grads.insert(
        b.id(),
        Array::from_slice(&scope::device().unwrap(), &[f32::INFINITY], &[1], Class::Gradients).unwrap(),
    );
    assert_eq!(clip_grad_norm(&mut grads, 1.0).unwrap(), f64::INFINITY);
}

#[test]
fn an_error_inside_a_model_names_the_layer() {
    let net = net();
    net.assign_names();
    let x = Var::constant(
        Array::full(&scope::device().unwrap(), DType::F32, [2, 3].try_into().unwrap(), 1.0, Class::Activations)
            .unwrap(),
    );
    let error = net.layers[0].forward(&x).unwrap_err().to_string();
    assert_eq!(error, "matmul: expected […, m, k] and […, k, n], got [2, 3] and [4, 4] and [4] (in layers.0)");
}
