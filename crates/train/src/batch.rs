//! [`Batch`]: samples stacked, prepared on a thread ahead of use.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

use binade_autograd::{Var, scope};
use binade_tensor::op::Distribution;
use binade_tensor::{Array, Class, DType, Key, Op, Shape, profile, run_one};

use crate::data::{Sample, SampleResult, Values};
use crate::{Data, Error, Result};

/// What a sample must be, beside of the shapes of the others: a label one of the classes.
pub type Check = Arc<dyn Fn(&Sample) -> SampleResult<()> + Send + Sync>;

/// A batch on the CPU: every array of the samples with the number of samples as first extent.
#[derive(Clone, Debug)]
pub struct Batch {
    arrays: Vec<(String, Array)>,
    len: usize,
}

impl Batch {
    /// The samples of `indices`.
    ///
    /// # Errors
    /// [`Error::Sample`]; out of memory.
    pub fn of(data: &dyn Data, indices: &[usize], key: Option<Key>) -> Result<Batch> {
        Stacked::of("data", data, indices, key, &|_| Ok(()))?.batch()
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The array of a name, `[N, …]`.
    ///
    /// # Errors
    /// [`Error::Config`], which lists the arrays there are.
    pub fn get(&self, name: &str) -> Result<Var> {
        self.find(name)
            .ok_or_else(|| Error::Config(format!("the batch has no array {name:?}; it has {}", self.names())))
    }

    /// The array of a name, where there is one.
    pub fn find(&self, name: &str) -> Option<Var> {
        self.arrays.iter().find(|(n, _)| n == name).map(|(_, array)| Var::constant(array.clone()))
    }

    /// The array at a place, from 0.
    ///
    /// # Errors
    /// [`Error::Config`], which lists the arrays there are.
    pub fn at(&self, place: usize) -> Result<Var> {
        let found = self.arrays.get(place).map(|(_, array)| Var::constant(array.clone()));
        found.ok_or_else(|| Error::Config(format!("the batch has no array number {place}; it has {}", self.names())))
    }

    fn names(&self) -> String {
        self.arrays.iter().map(|(name, _)| format!("{name:?}")).collect::<Vec<_>>().join(", ")
    }
}

/// The numbers of a batch before they become tensors: those waiting in the queue are not activations yet.
#[derive(Clone, Debug)]
pub(crate) struct Stacked {
    len: usize,
    /// Each with the shape of one sample.
    arrays: Vec<Values>,
}

impl Stacked {
    fn of(
        set: &'static str,
        data: &dyn Data,
        indices: &[usize],
        key: Option<Key>,
        check: &dyn Fn(&Sample) -> SampleResult<()>,
    ) -> Result<Stacked> {
        let mut arrays: Option<Vec<Values>> = None;
        for &index in indices {
            let sample = read(set, data, index, key)?;
            let fail = |message: String| Error::Sample { set, index, message };
            check(&sample).map_err(|error| fail(error.to_string()))?;
            match &mut arrays {
                None => arrays = Some(sample.0),
                Some(stacked) => append(stacked, &sample, indices[0]).map_err(fail)?,
            }
        }
        Ok(Stacked { len: indices.len(), arrays: arrays.unwrap_or_default() })
    }

    /// As tensors on the CPU.
    ///
    /// # Errors
    /// Out of memory.
    pub(crate) fn batch(&self) -> Result<Batch> {
        let of = |v: &Values| Ok((v.name.to_string(), v.numbers.array(&[&[self.len], &v.shape[..]].concat())?));
        Ok(Batch { arrays: self.arrays.iter().map(of).collect::<Result<_>>()?, len: self.len })
    }
}

/// A sample whose arrays have as many numbers as their shapes say.
pub(crate) fn read(set: &'static str, data: &dyn Data, index: usize, key: Option<Key>) -> Result<Sample> {
    let fail = |message: String| Error::Sample { set, index, message };
    let sample = match catch_unwind(AssertUnwindSafe(|| data.sample(index, key))) {
        Ok(Ok(sample)) => sample,
        Ok(Err(error)) => return Err(fail(error.to_string())),
        Err(panic) => return Err(fail(format!("Data::sample panicked: {}", said(&*panic)))),
    };
    for Values { name, numbers, shape } in &sample.0 {
        let (found, wanted) = (numbers.len(), shape.iter().product::<usize>());
        if found != wanted {
            return Err(fail(format!("array {name:?} has {found} numbers, its shape {shape:?} wants {wanted}")));
        }
    }
    Ok(sample)
}

/// Adds a sample to those of a batch, of which `first` is the first.
fn append(stacked: &mut [Values], sample: &Sample, first: usize) -> Result<(), String> {
    let names = |values: &[Values]| values.iter().map(|v| format!("{:?}", v.name)).collect::<Vec<_>>().join(", ");
    let same_names = stacked.iter().map(|v| &v.name).eq(sample.0.iter().map(|v| &v.name));
    if !same_names {
        let (found, wanted) = (names(&sample.0), names(stacked));
        return Err(format!("it has the arrays {found}, sample {first} of its batch {wanted}"));
    }
    for (all, one) in stacked.iter_mut().zip(&sample.0) {
        if all.shape != one.shape || !all.numbers.append(&one.numbers) {
            let what = |v: &Values| format!("{} {:?}", v.numbers.dtype(), v.shape);
            return Err(format!(
                "array {:?} is {}, that of sample {first} of its batch {}: \
                 samples of a batch are of one shape and dtype",
                one.name,
                what(one),
                what(all)
            ));
        }
    }
    Ok(())
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
    let order = run_one(&op, &[], &scope::device()?, DType::I64, Class::Workspace)?;
    Ok(order.to_vec::<i64>()?.into_iter().map(|i| i as usize).collect())
}

/// What a panic said.
fn said(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message")
}

/// Batches of a data set in some order, made on a thread up to two ahead.
pub(crate) struct Batches {
    receive: Receiver<Result<Stacked>>,
}

impl Batches {
    /// Of the samples of `order`, from batch number `first` on. The last may be smaller. An error is the last that
    /// comes; `set` names the data in it.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(crate) fn new(
        set: &'static str,
        (data, check): (Arc<dyn Data>, Check),
        order: Vec<usize>,
        batch_size: usize,
        first: usize,
        key: Option<Key>,
    ) -> Result<Batches> {
        let (send, receive) = sync_channel(2);
        let work = move || {
            for indices in order.chunks(batch_size).skip(first) {
                let stacked = Stacked::of(set, &*data, indices, key, &*check);
                let last = stacked.is_err();
                // A dropped receiver means that the epoch ended early.
                if send.send(stacked).is_err() || last {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name(format!("{set} samples"));
        thread.spawn(work).map_err(|e| Error::Config(format!("no thread for {set} samples: {e}")))?;
        Ok(Batches { receive })
    }

    /// The next `n` batches; fewer where there are no more.
    pub(crate) fn next_group(&mut self, n: usize) -> Result<Vec<Batch>> {
        let _phase = profile::phase("data");
        self.receive.iter().take(n).map(|stacked| stacked?.batch()).collect()
    }
}

impl Iterator for Batches {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Result<Batch>> {
        self.receive.recv().ok().map(|stacked| stacked?.batch())
    }
}
