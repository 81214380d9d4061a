//! [`Data`]: samples to train on, and batches of them prepared on a thread ahead of use.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

use binade_tensor::op::Distribution;
use binade_tensor::{Array, Class, DType, Device, Key, Op, Shape, run_one};
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// What a model should predict.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// One of a number of classes; trained with cross-entropy.
    Classes(usize),
    /// Values of a shape; trained with the mean squared error.
    Values(Vec<usize>),
}

/// Nothing, or why a sample cannot be had: `?` takes any error.
pub type SampleResult = Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// Samples by index. Implement it for data of your own, or use [`InMemory`].
pub trait Data: Send + Sync {
    /// Number of samples.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Shape of one input.
    fn input_shape(&self) -> Vec<usize>;

    /// What is predicted.
    fn target(&self) -> Target;

    /// Writes input and target (for classes, the class number) of a sample. `key` is of this seed and epoch:
    /// augmentation that draws from `key.bits(…)` repeats exactly when a run is resumed. It is `None` in evaluation.
    ///
    /// # Errors
    /// The sample cannot be had. The run ends then, with an error that names it; so it does on a panic, and for a label
    /// that is not a class.
    fn sample(&self, index: usize, key: Option<Key>, input: &mut [f32], target: &mut [f32]) -> SampleResult;
}

/// Training and test samples.
#[derive(Clone)]
pub struct Splits {
    /// For training.
    pub train: Arc<dyn Data>,
    /// For evaluation after each epoch.
    pub test: Arc<dyn Data>,
}

impl Splits {
    /// From two data sets.
    pub fn new(train: impl Data + 'static, test: impl Data + 'static) -> Splits {
        Splits { train: Arc::new(train), test: Arc::new(test) }
    }
}

/// Samples in memory.
#[derive(Clone, Debug)]
pub struct InMemory {
    inputs: Vec<f32>,
    shape: Vec<usize>,
    targets: Vec<f32>,
    target: Target,
}

impl InMemory {
    /// Inputs of `shape` one after the other, and a class in `0..classes` for each.
    ///
    /// # Errors
    /// Lengths that do not fit, a label out of range, or more classes than [`Data`]'s f32 labels tell apart.
    pub fn classes(inputs: Vec<f32>, shape: &[usize], labels: &[usize], classes: usize) -> Result<InMemory> {
        check_target(&Target::Classes(classes))?;
        if let Some(label) = labels.iter().find(|&&l| l >= classes) {
            return Err(Error::Config(format!("label {label} is out of range for {classes} classes")));
        }
        let targets = labels.iter().map(|&l| l as f32).collect();
        InMemory { inputs, shape: shape.to_vec(), targets, target: Target::Classes(classes) }.checked()
    }

    /// Inputs of `shape` and targets of `target_shape` one after the other.
    ///
    /// # Errors
    /// Lengths that do not fit.
    pub fn values(inputs: Vec<f32>, shape: &[usize], targets: Vec<f32>, target_shape: &[usize]) -> Result<InMemory> {
        InMemory { inputs, shape: shape.to_vec(), targets, target: Target::Values(target_shape.to_vec()) }.checked()
    }

    fn checked(self) -> Result<InMemory> {
        let (input, target) = (self.shape.iter().product::<usize>(), width(&self.target));
        if input == 0
            || target == 0
            || !self.inputs.len().is_multiple_of(input)
            || self.inputs.len() / input * target != self.targets.len()
        {
            return Err(Error::Config(format!(
                "{} input values of shape {:?} do not go with {} target values of {:?}",
                self.inputs.len(),
                self.shape,
                self.targets.len(),
                self.target
            )));
        }
        Ok(self)
    }

    /// The first `n` samples, and the rest.
    pub fn split_at(mut self, n: usize) -> (InMemory, InMemory) {
        let n = n.min(self.len());
        let rest = InMemory {
            inputs: self.inputs.split_off(n * self.shape.iter().product::<usize>()),
            targets: self.targets.split_off(n * width(&self.target)),
            shape: self.shape.clone(),
            target: self.target.clone(),
        };
        (self, rest)
    }
}

/// Numbers per target.
fn width(target: &Target) -> usize {
    match target {
        Target::Classes(_) => 1,
        Target::Values(shape) => shape.iter().product(),
    }
}

/// Fails where a label, which is an f32, could not tell the classes apart.
pub(crate) fn check_target(target: &Target) -> Result<()> {
    match target {
        Target::Classes(n) if *n > 1 << f32::MANTISSA_DIGITS => {
            Err(Error::Config(format!("labels are f32 and tell 2^24 classes apart, not {n}")))
        }
        Target::Classes(_) | Target::Values(_) => Ok(()),
    }
}

impl Data for InMemory {
    fn len(&self) -> usize {
        self.targets.len() / width(&self.target)
    }
    fn input_shape(&self) -> Vec<usize> {
        self.shape.clone()
    }
    fn target(&self) -> Target {
        self.target.clone()
    }
    fn sample(&self, index: usize, _key: Option<Key>, input: &mut [f32], target: &mut [f32]) -> SampleResult {
        let (n, m) = (input.len(), target.len());
        input.copy_from_slice(&self.inputs[index * n..(index + 1) * n]);
        target.copy_from_slice(&self.targets[index * m..(index + 1) * m]);
        Ok(())
    }
}

/// A batch on the CPU.
#[derive(Clone, Debug)]
pub struct Batch {
    /// `[N, …]`, f32.
    pub input: Array,
    /// `[N]` i64 classes, or `[N, …]` f32 values.
    pub target: Array,
}

impl Batch {
    /// The samples of `indices`.
    ///
    /// # Errors
    /// [`Error::Sample`]; out of memory.
    pub fn of(data: &dyn Data, indices: &[usize], key: Option<Key>) -> Result<Batch> {
        Samples::of("data", data, indices, key)?.batch(data)
    }
}

/// The numbers of a batch before they become tensors: those waiting in the queue are not activations yet.
#[derive(Clone, Debug)]
pub struct Samples {
    n: usize,
    inputs: Vec<f32>,
    targets: Vec<f32>,
}

impl Samples {
    fn of(set: &'static str, data: &dyn Data, indices: &[usize], key: Option<Key>) -> Result<Samples> {
        let (n, target) = (data.input_shape().iter().product::<usize>(), data.target());
        let m = width(&target);
        // A label that is not written is no class.
        let unwritten = if matches!(target, Target::Classes(_)) { f32::NAN } else { 0.0 };
        let (mut inputs, mut targets) = (vec![0.0; indices.len() * n], vec![unwritten; indices.len() * m]);
        for (i, &index) in indices.iter().enumerate() {
            let (x, y) = (&mut inputs[i * n..][..n], &mut targets[i * m..][..m]);
            let fail = |message: String| Error::Sample { set, index, message };
            match catch_unwind(AssertUnwindSafe(|| data.sample(index, key, x, y))) {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Err(fail(error.to_string())),
                Err(panic) => return Err(fail(format!("Data::sample panicked: {}", said(&*panic)))),
            }
            if let Target::Classes(classes) = target
                && !(y[0] >= 0.0 && y[0] < classes as f32 && y[0].fract() == 0.0)
            {
                return Err(fail(format!("label {} is none of its {classes} classes, which count from 0", y[0])));
            }
        }
        Ok(Samples { n: indices.len(), inputs, targets })
    }

    /// As tensors on the CPU.
    ///
    /// # Errors
    /// Out of memory.
    pub fn batch(&self, data: &dyn Data) -> Result<Batch> {
        let cpu = Device::cpu();
        let lead = |shape: &[usize]| [&[self.n], shape].concat();
        let input = Array::from_slice(&cpu, &self.inputs, &lead(&data.input_shape()), Class::Activations)?;
        let target = match data.target() {
            Target::Classes(_) => {
                let classes: Vec<i64> = self.targets.iter().map(|&c| c as i64).collect();
                Array::from_slice(&cpu, &classes, &[self.n], Class::Indices)?
            }
            Target::Values(shape) => Array::from_slice(&cpu, &self.targets, &lead(&shape), Class::Activations)?,
        };
        Ok(Batch { input, target })
    }
}

/// The order of an epoch's samples: a permutation that depends on seed and epoch alone.
///
/// # Errors
/// Out of memory.
pub fn epoch_order(n: usize, seed: u64, epoch: u64) -> Result<Vec<usize>> {
    let shape = Shape::new(&[n])?;
    let op = Op::Random {
        distribution: Distribution::Permutation,
        shape,
        key: Key { seed, iteration: epoch, op: u32::MAX },
    };
    let order = run_one(&op, &[], &Device::cpu(), DType::I64, Class::Workspace)?;
    Ok(order.to_vec::<i64>()?.into_iter().map(|i| i as usize).collect())
}

/// What a panic said.
fn said(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message")
}

/// Batches of the samples of `order` from batch number `first` on, made on a thread up to two ahead. The last batch may
/// be smaller. An error is the last that comes; `set` names the data in it.
///
/// # Errors
/// The system gives no thread.
pub fn prefetch(
    set: &'static str,
    data: Arc<dyn Data>,
    order: Vec<usize>,
    batch_size: usize,
    first: usize,
    key: Option<Key>,
) -> Result<Receiver<Result<Samples>>> {
    let (send, receive) = sync_channel(2);
    let work = move || {
        for indices in order.chunks(batch_size).skip(first) {
            let samples = Samples::of(set, &*data, indices, key);
            let last = samples.is_err();
            // A dropped receiver means that the epoch ended early.
            if send.send(samples).is_err() || last {
                return;
            }
        }
    };
    let thread = std::thread::Builder::new().name(format!("{set} samples"));
    thread.spawn(work).map_err(|e| Error::Config(format!("no thread for {set} samples: {e}")))?;
    Ok(receive)
}
