//! Each allocation of whole training steps fails in turn. The error names operator and bytes, nothing is half done, and
//! the step that follows has the bits of a training of which none failed.

use std::cell::Cell;

use binade_amp::{Dynamic, LossScale, Policy, Result, StepOutcome, Training};
use binade_autograd::{Var, scope};
use binade_cpu::Cpu;
use binade_nn::{
    Adafactor, AdamW, BatchNorm2d, Conv2d, Dropout, Ema, Layer, LayerNorm, Linear, Module, Optimizer, SelfAttention,
    Visitor, state_dict,
};
use binade_tensor::memory::Pool;
use binade_tensor::op::CrossEntropy;
use binade_tensor::remote::Remote;
use binade_tensor::{Array, Class, DType, Device};

/// A convolution with batch norm, whose pixels are the tokens of attention between a layer norm and a product.
#[derive(Clone, Module)]
struct Net {
    conv: Conv2d,
    norm: BatchNorm2d,
    middle: LayerNorm,
    attention: SelfAttention,
    drop: Dropout,
    head: Linear,
}

impl Net {
    fn new() -> Net {
        scope::with_key(3, 0, || Net {
            conv: Conv2d::same(1, 8, 3).unwrap(),
            norm: BatchNorm2d::new(8).unwrap(),
            middle: LayerNorm::new(8).unwrap(),
            attention: SelfAttention::new(8, 2, true).unwrap(),
            drop: Dropout::new(0.25).unwrap(),
            head: Linear::new(8, 3).unwrap(),
        })
    }

    fn loss(&self, part: usize) -> Result<Var> {
        let x: Vec<f32> = (0..32).map(|i| ((i + 32 * part) as f32 * 0.7).sin()).collect();
        let x = Var::from_slice(&x, &[2, 1, 4, 4])?; // (B, C, H, W)
        let h = self.norm.forward(&self.conv.forward(&x)?)?.relu()?;
        let h = h.flatten(2)?.transpose(1, 2)?; // (B, H·W, C)
        let h = self.attention.forward(&self.middle.forward(&h)?)?.add(&h)?.mean(&[1], false)?;
        let target = Var::from_slice(&[0i64, 2], &[2])?;
        Ok(self.head.forward(&self.drop.forward(&h)?)?.cross_entropy(&target, CrossEntropy::default())?)
    }
}

/// Two optimisers, clipping and averages, and a loss scale with which the first step overflows in f16.
fn training(net: &Net, dtype: Option<DType>) -> Training {
    let (policy, scale) = match dtype {
        None => (Policy::OFF, LossScale::Off),
        Some(DType::F16) => {
            let dynamic = Dynamic { init_scale: 2f64.powi(24), backoff_factor: 2f64.powi(-12), ..Dynamic::default() };
            (Policy::autocast(DType::F16), LossScale::Dynamic(dynamic))
        }
        Some(other) => (Policy::autocast(other), LossScale::Off),
    };
    let rest = |name: &str| !name.starts_with("conv") && !name.starts_with("norm");
    let (others, first) = net.named_parameters().into_iter().partition(|(name, _)| rest(name));
    let first = Optimizer::empty().with_group(first, AdamW::default()).unwrap();
    let others = Optimizer::empty().with_group(others, Adafactor::default()).unwrap();
    let mut training = Training::new(first, policy, scale).unwrap().with_optimizer(others);
    (training.clip, training.seed, training.ema) = (Some(1.0), 5, Some(Ema::new(net, 0.9).unwrap()));
    training
}

/// Every bit that a step may change, and every count.
fn state(net: &Net, training: &Training) -> (Vec<Vec<u64>>, String) {
    let moments = training.optimizers.iter().map(|optimizer| optimizer.state_dict().unwrap());
    let (tensors, steps): (Vec<_>, Vec<_>) = moments.map(|state| (state.tensors, state.params)).unzip();
    let ema = training.ema.as_ref().unwrap();
    let arrays = state_dict(net).into_iter().chain(tensors.into_iter().flatten()).chain(ema.state_dict().tensors);
    let bits = |array: Array| array.to_f64_vec().unwrap().into_iter().map(f64::to_bits).collect();
    let counts = (training.scaler.state().unwrap(), training.iteration, training.step, ema.steps(), steps);
    (arrays.map(|(_, array)| bits(array)).collect(), format!("{counts:?}"))
}

/// Memory whose allocations can be made to fail.
enum Memory {
    Cpu(Pool),
    /// And how many it will have made when one fails.
    Remote(Remote, Cell<usize>),
}

impl Memory {
    fn fail_after(&self, before: usize) {
        match self {
            Memory::Cpu(pool) => pool.fail_after(before),
            Memory::Remote(remote, last) => {
                last.set(remote.counts().allocations + before + 1);
                remote.fail_allocation(before + 1);
            }
        }
    }

    /// Whether there were fewer; from now on none fails.
    fn stop_failing(&self) -> bool {
        match self {
            Memory::Cpu(pool) => pool.stop_failing(),
            Memory::Remote(remote, last) => {
                remote.fail_allocation(0);
                remote.counts().allocations < last.get()
            }
        }
    }
}

/// Bytes of what a step makes and drops.
fn passing(device: &Device) -> [usize; 3] {
    let stats = device.memory();
    [Class::Activations, Class::Gradients, Class::Workspace].map(|class| stats.live(class))
}

/// What a step told.
fn step(net: &Net, training: &mut Training, parts: &[usize]) -> Result<(StepOutcome, u64, u64)> {
    let done = training.step_over(parts, |&part| -> Result<_> { Ok((net.loss(part)?, part as f64 + 1.0)) })?;
    Ok((done.outcome, done.loss.to_bits(), done.grad_norm.to_bits()))
}

/// Steps of which the first allocation fails, then the second, … each followed by one that succeeds.
fn fail_in_turn(device: &Device, memory: &Memory, dtype: Option<DType>, parts: &[usize]) {
    scope::with_device(device, || {
        let [(net, mut failing), (spared, mut clean)] = [(); 2].map(|()| {
            let net = Net::new();
            let training = training(&net, dtype);
            (net, training)
        });
        let mut skipped = 0;
        for before in 0.. {
            let (there, live) = (state(&net, &failing), passing(device));
            memory.fail_after(before);
            let result = step(&net, &mut failing, parts);
            if memory.stop_failing() {
                assert_eq!(result.unwrap(), step(&spared, &mut clean, parts).unwrap(), "{dtype:?}");
                assert!(before > 50, "{dtype:?}: {before} allocations");
                break;
            }
            let error = result.expect_err("an allocation failed").to_string();
            let (op, what) = error.split_once("out of memory: ").unwrap_or_else(|| panic!("{before}: {error}"));
            assert!(op.len() > 2 && op.ends_with(": "), "allocation {before} in {dtype:?}: {error}");
            assert!(what.split(' ').next().is_some_and(|bytes| bytes.parse::<usize>().is_ok()), "{error}");
            assert!(state(&net, &failing) == there, "{error}, allocation {before} in {dtype:?}, left half a step");
            assert_eq!(passing(device), live, "{error}, allocation {before} in {dtype:?}, keeps memory");
            let done = step(&net, &mut failing, parts).unwrap();
            assert_eq!(done, step(&spared, &mut clean, parts).unwrap(), "after allocation {before} in {dtype:?}");
            assert!(state(&net, &failing) == state(&spared, &clean), "after {error}, allocation {before} in {dtype:?}");
            skipped += (done.0 == StepOutcome::Skipped) as usize;
        }
        assert_eq!(skipped > 0, dtype == Some(DType::F16));
    });
}

#[test]
fn each_allocation_of_a_step_that_fails_on_the_cpu_changes_nothing() {
    for dtype in [None, Some(DType::F16), Some(DType::BF16)] {
        let cpu = Cpu::new();
        let memory = Memory::Cpu(cpu.pool().clone());
        fail_in_turn(&Device::new(cpu), &memory, dtype, &[0]);
    }
}

#[test]
fn each_allocation_of_a_step_that_fails_on_an_asynchronous_device_changes_nothing() {
    for dtype in [None, Some(DType::F16), Some(DType::BF16)] {
        let remote = Remote::over(&binade_cpu::device());
        let device = Device::new(remote.clone());
        fail_in_turn(&device, &Memory::Remote(remote, Cell::default()), dtype, &[0]);
    }
}

#[test]
fn each_allocation_of_a_group_of_parts_that_fails_changes_nothing() {
    let cpu = Cpu::new();
    let memory = Memory::Cpu(cpu.pool().clone());
    fail_in_turn(&Device::new(cpu), &memory, Some(DType::F16), &[0, 1]);
}
