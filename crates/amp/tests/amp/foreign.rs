//! PyTorch's autocast test lists (`torch/testing/_internal/autocast_test_lists.py`) under their names. The rule is
//! theirs: the result has the listed dtype, and is bitwise that of casting by hand with autocast off. Operators this
//! library lacks are printed as absent.

use binade_amp::autocast;
use binade_autograd::{KlReduction, Result, Var, scope};
use binade_cpu as _;
use binade_tensor::op::{Compare, Conv2d, Interpolation, Reduction};
use binade_tensor::{Array, Class, DType};

type Run = fn(&Var, &Var) -> Result<Var>;
type List = &'static [(&'static str, Option<Run>)];

/// Numbers in (0.1, 0.9), inside every function's domain.
fn input(seed: f32, dtype: DType) -> Var {
    let values: Vec<f32> = (0..16).map(|i| 0.5 + 0.4 * (seed + i as f32 * 0.61).sin()).collect();
    Var::leaf(Array::from_slice(&scope::device().unwrap(), &values, &[4, 4], Class::Weights).unwrap())
        .cast(dtype)
        .unwrap()
}

fn indices() -> Var {
    Var::constant(Array::from_slice(&scope::device().unwrap(), &[0i64, 3, 1, 2], &[4], Class::Indices).unwrap())
}

fn square_indices() -> Result<Var> {
    indices().reshape(&[4, 1])?.expand(&[4, 4])
}

/// ±1 by row and column.
fn signs() -> Var {
    let values: Vec<f32> = (0..16).map(|i| if i % 3 == 0 { -1.0 } else { 1.0 }).collect();
    Var::constant(Array::from_slice(&scope::device().unwrap(), &values, &[4, 4], Class::Activations).unwrap())
}

const MEAN: Reduction = Reduction::Mean;

const TORCH_FP16: List = &[
    ("conv1d", Some(|a, b| a.reshape(&[1, 4, 4])?.conv1d(&b.reshape(&[4, 4, 1])?, None, Conv2d::default()))),
    (
        "conv2d",
        Some(|a, b| a.reshape(&[1, 1, 4, 4])?.conv2d(&b.reshape(&[4, 1, 2, 2])?, None, Conv2d::default(), None)),
    ),
    (
        "conv3d",
        Some(|a, b| {
            a.reshape(&[1, 1, 4, 2, 2])?.conv3d(&b.reshape(&[2, 1, 2, 2, 2])?, None, binade_autograd::Conv3d::default())
        }),
    ),
    ("conv_tbc", None),
    (
        "conv_transpose1d",
        Some(|a, b| a.reshape(&[1, 4, 4])?.conv_transpose1d(&b.reshape(&[4, 4, 1])?, None, Conv2d::default(), 0)),
    ),
    (
        "conv_transpose2d",
        Some(|a, b| {
            a.reshape(&[1, 1, 4, 4])?.conv_transpose2d(&b.reshape(&[1, 4, 2, 2])?, None, Conv2d::default(), [0, 0])
        }),
    ),
    ("conv_transpose3d", None),
    ("prelu", Some(|a, b| a.prelu(&b.narrow(0, 0, 1)?.narrow(1, 0, 1)?.reshape(&[1])?))),
    ("addmm", Some(|a, b| a.addmm(a, b))),
    ("matmul", Some(|a, b| a.matmul(b))),
    ("mm", Some(|a, b| a.matmul(b))),
    ("mv", Some(|a, b| a.matmul(&b.narrow(1, 0, 1)?))),
    ("bmm", Some(|a, b| a.reshape(&[1, 4, 4])?.bmm(&b.reshape(&[1, 4, 4])?))),
    ("einsum", Some(|a, b| Var::einsum("ij,jk->ik", &[a, b]))),
    ("addmv", None),
    ("addr", None),
    ("chain_matmul", None),
    ("addbmm", None),
    ("baddbmm", None),
    ("_thnn_fused_lstm_cell", None),
    ("_thnn_fused_gru_cell", None),
    ("linalg_vecdot", None),
    ("linalg_multi_dot", None),
];

const NN_FP16: List = &[("linear", Some(|a, b| a.linear(b, None, None)))];

const METHODS_FP16: List = &[("__matmul__", Some(|a, b| a.matmul(b)))];

const TORCH_FP32: List = &[
    ("acos", Some(|a, _| a.acos())),
    ("asin", Some(|a, _| a.asin())),
    ("cosh", Some(|a, _| a.cosh())),
    ("erfinv", Some(|a, _| a.erfinv())),
    ("exp", Some(|a, _| a.exp())),
    ("expm1", Some(|a, _| a.expm1())),
    ("log", Some(|a, _| a.log())),
    ("log10", Some(|a, _| a.log10())),
    ("log2", Some(|a, _| a.log2())),
    ("log1p", Some(|a, _| a.log1p())),
    ("reciprocal", Some(|a, _| a.reciprocal())),
    ("rsqrt", Some(|a, _| a.rsqrt())),
    ("sinh", Some(|a, _| a.sinh())),
    ("tan", Some(|a, _| a.tan())),
    ("pow(Tensor_Scalar)", Some(|a, _| a.pow_scalar(1.7))),
    ("pow(Tensor_Tensor)", Some(|a, b| a.pow(b))),
    ("softmax", Some(|a, _| a.softmax(0))),
    ("log_softmax", Some(|a, _| a.log_softmax(0))),
    ("layer_norm", Some(|a, _| a.layer_norm(1, None, 1e-5))),
    ("rms_norm", Some(|a, _| a.rms_norm(1, None, 1e-5))),
    ("group_norm", Some(|a, _| a.reshape(&[1, 4, 4])?.group_norm(2, None, 1e-5))),
    ("norm", Some(|a, _| a.vector_norm(2.0, &[], false))),
    ("norm(3, dim)", Some(|a, _| a.vector_norm(3.0, &[0], false))),
    ("prod", Some(|a, _| a.prod(&[], false))),
    ("cumprod", Some(|a, _| a.cumprod(0))),
    ("cumsum", Some(|a, _| a.cumsum(0))),
    ("sum", Some(|a, _| a.sum(&[], false))),
    ("logsumexp", Some(|a, _| a.logsumexp(&[1], false))),
    ("cosine_similarity", Some(|a, b| a.cosine_similarity(b, 1, 1e-8))),
    ("poisson_nll_loss", Some(|a, b| a.poisson_nll_loss(b, true, false, 1e-8, MEAN))),
    ("hinge_embedding_loss", Some(|a, _| a.hinge_embedding_loss(&signs(), 1.0, MEAN))),
    ("kl_div", Some(|a, b| a.kl_div(b, false, KlReduction::BatchMean))),
    ("binary_cross_entropy_with_logits", Some(|a, b| a.bce_with_logits(b, None, None, MEAN))),
    ("upsample_nearest2d", Some(|a, _| a.reshape(&[1, 1, 4, 4])?.interpolate(&[7, 9], Interpolation::Nearest))),
    (
        "cosine_embedding_loss",
        Some(|a, b| a.cosine_embedding_loss(b, &signs().narrow(0, 0, 1)?.reshape(&[4])?, 0.1, MEAN)),
    ),
    ("margin_ranking_loss", Some(|a, b| a.margin_ranking_loss(b, &signs(), 0.1, MEAN))),
    ("triplet_margin_loss", Some(|a, b| a.triplet_margin_loss(b, &signs(), 1.0, 2.0, MEAN))),
    ("dist", None),
    ("pdist", None),
    ("cdist", None),
    ("renorm", None),
];

const NN_FP32: List = &[
    ("softplus", Some(|a, _| a.softplus_with(1.0))),
    ("nll_loss", Some(|a, _| a.nll_loss(&indices(), None, -100, MEAN))),
    ("l1_loss", Some(|a, b| a.l1_loss(b, MEAN))),
    ("smooth_l1_loss", Some(|a, b| a.smooth_l1_loss(b, 1.0, MEAN))),
    ("huber_loss", Some(|a, b| a.huber_loss(b, 1.0, MEAN))),
    ("mse_loss", Some(|a, b| a.mse_loss(b, MEAN))),
    ("soft_margin_loss", Some(|a, _| a.soft_margin_loss(&signs(), MEAN))),
    ("cross_entropy", Some(|a, _| a.cross_entropy(&indices(), Default::default()))),
    ("multilabel_margin_loss", None),
    ("multi_margin_loss", None),
];

const METHODS_FP32: List = &[("__pow__", Some(|a, _| a.pow_scalar(1.5)))];

const TORCH_NEED_AUTOCAST_PROMOTE: List = &[
    ("addcdiv", Some(|a, b| a.addcdiv(b, b, 1.0))),
    ("addcmul", Some(|a, b| a.addcmul(b, b, 1.0))),
    ("atan2", Some(|a, b| a.atan2(b))),
    ("index_put", Some(|a, b| a.index_put(&[&indices()], b, false))),
    ("scatter_add", Some(|a, b| a.scatter_add(0, &square_indices()?, b))),
    ("bilinear", None),
    ("cross", None),
    ("dot", None),
    ("vdot", None),
    ("grid_sampler", None),
    ("tensordot", None),
];

const TORCH_EXPECT_BUILTIN_PROMOTE: List = &[
    ("add", Some(|a, b| a.add(b))),
    ("div", Some(|a, b| a.div(b))),
    ("mul", Some(|a, b| a.mul(b))),
    ("cat", Some(|a, b| Var::cat(&[a, b], 0))),
    ("stack", Some(|a, b| Var::stack(&[a, b], 0))),
    ("eq", Some(|a, b| a.compare(Compare::Eq, b))),
    ("ge", Some(|a, b| a.compare(Compare::Ge, b))),
    ("gt", Some(|a, b| a.compare(Compare::Gt, b))),
    ("le", Some(|a, b| a.compare(Compare::Le, b))),
    ("lt", Some(|a, b| a.compare(Compare::Lt, b))),
    ("ne", Some(|a, b| a.compare(Compare::Ne, b))),
    ("equal", None),
];

fn bits(v: &Var) -> Vec<u64> {
    v.array().to_f64_vec().unwrap().into_iter().map(f64::to_bits).collect()
}

/// Runs a list in both 16-bit dtypes: `from` are the operands' dtypes, `to` what a user would cast them to, `want` the
/// result's.
fn check(list: List, from: [fn(DType) -> DType; 2], to: fn(DType) -> DType, want: fn(DType) -> Option<DType>) {
    let mut absent = Vec::new();
    for (name, run) in list {
        let Some(run) = run else {
            absent.push(*name);
            continue;
        };
        for low in [DType::F16, DType::BF16] {
            let (a, b) = (input(0.3, from[0](low)), input(1.7, from[1](low)));
            let found = autocast(low, || run(&a, &b)).unwrap_or_else(|e| panic!("{name} in {low}: {e}"));
            let by_hand = run(&a.cast(to(low)).unwrap(), &b.cast(to(low)).unwrap()).unwrap();
            assert_eq!(found.dtype(), want(low).unwrap_or(found.dtype()), "{name} in {low}");
            assert_eq!(bits(&found), bits(&by_hand), "{name} in {low}");
        }
    }
    println!("{} checked, absent: {}", list.len() - absent.len(), absent.join(", "));
}

const LOW: fn(DType) -> DType = |low| low;
const F32: fn(DType) -> DType = |_| DType::F32;

#[test]
fn test_autocast_torch_fp16() {
    check(TORCH_FP16, [F32, F32], LOW, Some);
}

#[test]
fn test_autocast_nn_fp16() {
    check(NN_FP16, [F32, F32], LOW, Some);
}

#[test]
fn test_autocast_methods_fp16() {
    check(METHODS_FP16, [F32, F32], LOW, Some);
}

#[test]
fn test_autocast_torch_fp32() {
    check(TORCH_FP32, [LOW, LOW], F32, |_| Some(DType::F32));
}

#[test]
fn test_autocast_nn_fp32() {
    check(NN_FP32, [LOW, LOW], F32, |_| Some(DType::F32));
}

#[test]
fn test_autocast_methods_fp32() {
    check(METHODS_FP32, [LOW, LOW], F32, |_| Some(DType::F32));
}

#[test]
fn test_autocast_torch_need_autocast_promote() {
    check(TORCH_NEED_AUTOCAST_PROMOTE, [LOW, F32], F32, |_| Some(DType::F32));
}

#[test]
fn test_autocast_torch_expect_builtin_promote() {
    check(TORCH_EXPECT_BUILTIN_PROMOTE, [LOW, F32], F32, |_| None);
}

#[test]
fn test_autocast_banned() {
    let (a, b) = (input(0.3, DType::F16), input(1.7, DType::F16));
    assert!(autocast(DType::F16, || a.bce(&b, None, MEAN)).is_err());
}

#[test]
fn test_autocast_ignored_types() {
    let (a, b) = (input(0.3, DType::F64), input(1.7, DType::F64));
    assert_eq!(autocast(DType::F16, || a.matmul(&b)).unwrap().dtype(), DType::F64);
    assert_eq!(autocast(DType::F16, || a.exp()).unwrap().dtype(), DType::F64);
    let ints = indices();
    assert_eq!(autocast(DType::F16, || ints.add(&ints)).map(|v| v.dtype()).unwrap_or(DType::I64), DType::I64);
}
