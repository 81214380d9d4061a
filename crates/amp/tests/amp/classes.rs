//! What policies decide where their rules meet: operators that one table judges otherwise, operators of one's own,
//! mixtures of dtypes, and policies as text.

use binade_amp::{CastPolicy, Error, Hardware, Policy, Table};
use binade_autograd::{Var, apply};
use binade_cpu as _;
use binade_nn::{BatchNorm2d, Layer};
use binade_tensor::op::{
    Bound, Builder, CrossEntropy, Custom, CustomOp, CustomView, Numerics, PadMode, Reduction, Value,
};
use binade_tensor::samples::Inputs;
use binade_tensor::{Array, Class, DType, Device, Op, Shape};

const F16: DType = DType::F16;
const F32: DType = DType::F32;

fn tensor(dims: &[usize], dtype: DType) -> Var {
    let n: usize = dims.iter().product();
    let values: Vec<f32> = (0..n).map(|i| 0.1 + (i as f32 * 0.61).sin().abs()).collect();
    let array = Array::from_slice(&Device::cpu(), &values, dims, Class::Weights).unwrap();
    Var::leaf(array.cast(dtype, Class::Weights).unwrap())
}

/// The dtype of what `f` makes of a 4 × 4 tensor under a policy.
fn gives(policy: &Policy, dtype: DType, f: impl Fn(&Var) -> binade_nn::Result<Var>) -> DType {
    let x = tensor(&[4, 4], dtype);
    policy.run(|| f(&x)).unwrap().dtype()
}

fn table(table: Table) -> Policy {
    Policy::autocast(F16).with_table(table)
}

fn batch_norm(x: &Var) -> binade_nn::Result<Var> {
    BatchNorm2d::new(1)?.forward(&x.reshape(&[4, 1, 2, 2])?)
}

// ---- tables

#[test]
fn paddles_black_list_is_f32_in_f16_in_each_of_its_levels() {
    for level in [Table::PaddleO1, Table::PaddleO2, Table::PaddleOd] {
        assert_eq!(gives(&table(level), F16, |x| Ok(x.mean(&[], false)?)), F32, "{level:?}");
        assert_eq!(gives(&table(level), F32, |x| Ok(x.matmul(x)?)), F16, "{level:?}");
    }
    assert_eq!(gives(&table(Table::PaddleO1), F16, |x| Ok(x.relu()?)), F16);
}

#[test]
fn pytorchs_cpu_lists_have_losses_and_reflected_padding_in_f32_and_prelu_in_16_bit() {
    let cpu = table(Table::TorchCpu);
    let target = Var::constant(Array::from_slice(&Device::cpu(), &[0i64; 4], &[4], Class::Indices).unwrap());
    assert_eq!(gives(&cpu, F16, |x| Ok(x.cross_entropy(&target, CrossEntropy::default())?)), F32);
    assert_eq!(gives(&cpu, F16, |x| Ok(x.mse_loss(x, Reduction::Mean)?)), F32);
    assert_eq!(gives(&cpu, F16, |x| Ok(x.bce(x, None, Reduction::Mean)?)), F32);
    for (mode, dtype) in [(PadMode::Reflect, F32), (PadMode::Replicate, F32), (PadMode::Constant(0.0), F16)] {
        assert_eq!(gives(&cpu, F16, |x| Ok(x.reshape(&[1, 1, 4, 4])?.pad(&[1, 1], mode)?)), dtype, "{mode:?}");
    }
    assert_eq!(gives(&cpu, F32, |x| Ok(x.prelu(x)?)), F16);
    assert_eq!(gives(&cpu, F32, |x| Ok(x.exp()?)), F32);
    // What is promoted has one 16-bit dtype.
    let (half, bf16) = (tensor(&[2], F16), tensor(&[2], DType::BF16));
    assert!(cpu.run(|| Var::cat(&[&half, &bf16], 0)).is_err());
    assert_eq!(cpu.run(|| Var::cat(&[&half, &tensor(&[2], F32)], 0)).unwrap().dtype(), F32);
}

#[test]
fn where_everything_is_in_16_bit_batch_norm_alone_keeps_its_dtype() {
    for everything in [Table::PaddleO2, Table::Uniform] {
        for dtype in [F32, F16] {
            assert_eq!(gives(&table(everything), dtype, batch_norm), dtype, "{everything:?}");
        }
        let bf16 = Policy::autocast(DType::BF16).with_table(everything);
        assert_eq!(gives(&bf16, F32, |x| Ok(x.layer_norm(1, None, 1e-5)?)), DType::BF16, "{everything:?}");
    }
}

// ---- mixtures

#[test]
fn f64_is_left_alone() {
    let double = |dims: &[usize]| tensor(dims, DType::F64);
    let autocast = Policy::autocast(F16);
    let p = double(&[4]);
    assert_eq!(autocast.run(|| p.bce(&p, None, Reduction::Mean)).unwrap().dtype(), DType::F64);
    assert!(autocast.run(|| tensor(&[4], F32).bce(&tensor(&[4], F32), None, Reduction::Mean)).is_err());
    // Among classes of 16 bit and of f32.
    for everything in [Table::Uniform, Table::PaddleOd] {
        let mixed = table(everything).run(|| double(&[4]).add(&tensor(&[4], F32))).unwrap();
        assert_eq!(mixed.dtype(), DType::F64, "{everything:?}");
    }
}

#[test]
fn a_result_is_cast_only_from_the_floats_that_autocast_changes() {
    let policy = Policy::parse("p=f32,c=f16,o=f32").unwrap();
    for (from, to) in [(F16, F32), (F32, F32), (DType::F64, DType::F64)] {
        assert_eq!(policy.cast_output(&tensor(&[2], from)).unwrap().dtype(), to);
    }
    let index = Var::constant(Array::from_slice(&Device::cpu(), &[1i64], &[1], Class::Indices).unwrap());
    assert_eq!(policy.cast_output(&index).unwrap().dtype(), DType::I64);
}

#[test]
fn only_losses_follow_the_dtype_of_the_result() {
    let target = Var::constant(Array::from_slice(&Device::cpu(), &[0i64; 4], &[4], Class::Indices).unwrap());
    for (text, loss) in [("p=f32,c=f16,o=f32", F32), ("p=f32,c=f16,o=f16", F16)] {
        let policy = Policy::parse(text).unwrap();
        assert_eq!(gives(&policy, F32, |x| Ok(x.cross_entropy(&target, CrossEntropy::default())?)), loss, "{text}");
        assert_eq!(gives(&policy, F32, |x| Ok(x.mse_loss(x, Reduction::Mean)?)), loss, "{text}");
        assert_eq!(gives(&policy, F32, |x| Ok(x.matmul(x)?)), F16, "{text}");
    }
}

// ---- operators of one's own

/// Copies its input.
#[derive(Debug)]
struct Same(Numerics);

impl CustomOp for Same {
    fn name(&self) -> &'static str {
        "same"
    }
    fn numerics(&self) -> Numerics {
        self.0
    }
    fn shapes(&self, ins: &[Shape]) -> binade_tensor::Result<Vec<Shape>> {
        Ok(vec![ins[0]])
    }
    fn define(&self, ins: &[CustomView<'_, f64>], outs: &mut [Vec<f64>]) -> binade_tensor::Result<()> {
        outs[0].copy_from_slice(ins[0].values);
        Ok(())
    }
    fn run(&self, ins: &[CustomView<'_, f32>], outs: &mut [Vec<f32>]) -> binade_tensor::Result<()> {
        outs[0].copy_from_slice(ins[0].values);
        Ok(())
    }
    fn backward(&self, _: &mut Builder, g: Value, _: &[Value], _: Value) -> binade_tensor::Result<Vec<Option<Value>>> {
        Ok(vec![Some(g)])
    }
    fn bound(&self, _: &[&Array]) -> Bound {
        Bound::Ulps(1.0)
    }
    fn samples(&self, _: &Device, _: DType) -> binade_tensor::Result<Vec<Inputs>> {
        Ok(Vec::new())
    }
}

#[test]
fn an_operator_of_ones_own_has_the_class_it_says_and_can_be_excepted() {
    let same = |numerics| Custom::new(Same(numerics));
    let run = |policy: &Policy, op: &Custom, dtype| gives(policy, dtype, |x| Ok(apply(Op::Custom(op.clone()), &[x])?));
    for policy in [Policy::autocast(F16), table(Table::TorchCpu)] {
        assert_eq!(run(&policy, &same(Numerics::F32), F16), F32);
        assert_eq!(run(&policy, &same(Numerics::Lower), F32), F16);
        assert_eq!(run(&policy, &same(Numerics::Neutral), F16), F16);
    }
    let excepted = Policy::autocast(F16).except_custom(&same(Numerics::Lower), "*", CastPolicy::F32).unwrap();
    assert_eq!(run(&excepted, &same(Numerics::Lower), F16), F32);
    assert_eq!(gives(&excepted, F32, |x| Ok(x.matmul(x)?)), F16);
    assert!(matches!(Policy::OFF.except_custom(&same(Numerics::Lower), "[", CastPolicy::F32), Err(Error::Policy(_))));
}

// ---- names that no operator has

/// What an exception for an operator of that name is told.
fn told(op: &str) -> String {
    Policy::autocast(F16).except(op, "*", CastPolicy::F32).unwrap_err().to_string()
}

#[test]
fn a_mistyped_operator_is_told_the_one_that_is_meant_and_nothing_where_none_is_near() {
    for (typed, meant) in [
        ("softmx", "softmax"),
        ("sofftmmax", "softmax"),
        ("linear", "matmul"),
        ("bmm", "matmul"),
        ("conv1d", "conv2d"),
        ("conv_transpose1d", "conv_transpose2d"),
    ] {
        assert!(told(typed).contains(&format!("did you mean {meant:?}")), "{}", told(typed));
    }
    // Three edits in six letters are a third and one; seven letters allow no fourth.
    assert!(told("sfomaxx").contains("did you mean"), "{}", told("sfomaxx"));
    assert!(told("softmm").contains("did you mean"), "{}", told("softmm"));
    for far in ["sx", "zzzzzz", "xxxxexp", "so"] {
        assert!(!told(far).contains("did you mean"), "{}", told(far));
    }
}

#[test]
fn every_kind_of_machine_has_a_name_of_its_own() {
    let mut names = Hardware::ALL.map(Hardware::name).to_vec();
    names.sort_unstable();
    names.dedup();
    assert!(names.len() == Hardware::ALL.len() && names.iter().all(|name| !name.is_empty()), "{names:?}");
}

// ---- policies as text

#[test]
fn settings_follow_the_shortest_name_of_a_policy() {
    let f16 = || Policy::autocast(F16);
    for (policy, text) in [
        (f16(), "torch:f16"),
        (f16().with_low_residual(), "torch:f16,residual=low"),
        (f16().with_f32_weight_gradients(), "torch:f16,wgrad=f32"),
        (f16().except("softmax", "*", CastPolicy::F32Out).unwrap(), "torch:f16,except=softmax@*=f32_out"),
        (Policy::parse("p=f32,c=f16,o=f32").unwrap(), "p=f32,c=f16,o=f32"),
        (Policy::parse("p=f32,c=f16,o=f32,table=torch").unwrap(), "p=f32,c=f16,o=f32,table=torch"),
        (Policy::parse("p=f32,c=f16,o=f32,table=paddle-o1").unwrap(), "p=f32,c=f16,o=f32,table=paddle-o1"),
    ] {
        assert_eq!(policy.to_string(), text);
        assert_eq!(Policy::parse(text).unwrap(), policy, "{text}");
    }
    let kept = f16().with_f32_weight_gradients();
    assert_eq!((kept.compute(), f16().with_low_residual().compute()), (Some(F16), Some(F16)));
}
