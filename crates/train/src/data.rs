//! [`Data`]: samples by index, each of any number of arrays of any dtype.

use std::borrow::Cow;
use std::sync::Arc;

use binade_autograd::scope;
use binade_tensor::{Array, Class, DType, Key, bf16, f16};

use crate::{Error, Result};

/// Declares [`Numbers`]: one variant per dtype, made from vectors and slices of its Rust type.
macro_rules! numbers {
    ($($variant:ident $rust:ty, $dtype:ident, $class:ident;)*) => {
        /// Numbers of one dtype in host memory.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Numbers {
            $(#[doc = concat!("`", stringify!($rust), "`.")] $variant(Vec<$rust>),)*
        }

        impl Numbers {
            /// Their dtype.
            pub fn dtype(&self) -> DType {
                match self { $(Numbers::$variant(_) => DType::$dtype,)* }
            }

            /// How many.
            pub fn len(&self) -> usize {
                match self { $(Numbers::$variant(v) => v.len(),)* }
            }

            /// Appends others; false, and nothing is done, where they are of another dtype.
            pub(crate) fn append(&mut self, others: &Numbers) -> bool {
                match (self, others) {
                    $((Numbers::$variant(v), Numbers::$variant(others)) => v.extend_from_slice(others),)*
                    _ => return false,
                }
                true
            }

            /// The numbers from `from` on, which are no longer here.
            fn split_off(&mut self, from: usize) -> Numbers {
                match self { $(Numbers::$variant(v) => Numbers::$variant(v.split_off(from)),)* }
            }

            fn slice(&self, range: std::ops::Range<usize>) -> Numbers {
                match self { $(Numbers::$variant(v) => Numbers::$variant(v[range].to_vec()),)* }
            }

            /// A tensor of them on the scope's device.
            pub(crate) fn array(&self, shape: &[usize]) -> Result<Array> {
                Ok(match self {
                    $(Numbers::$variant(v) => Array::from_slice(&scope::device()?, v, shape, Class::$class)?,)*
                })
            }
        }

        $(
            impl From<Vec<$rust>> for Numbers {
                fn from(numbers: Vec<$rust>) -> Numbers { Numbers::$variant(numbers) }
            }
            impl From<&[$rust]> for Numbers {
                fn from(numbers: &[$rust]) -> Numbers { Numbers::$variant(numbers.to_vec()) }
            }
            impl<const N: usize> From<[$rust; N]> for Numbers {
                fn from(numbers: [$rust; N]) -> Numbers { Numbers::$variant(numbers.to_vec()) }
            }
        )*
    };
}

numbers! {
    F64 f64, F64, Activations;
    F32 f32, F32, Activations;
    F16 f16, F16, Activations;
    Bf16 bf16, BF16, Activations;
    I64 i64, I64, Indices;
    U32 u32, U32, Indices;
    I8 i8, I8, Indices;
    Bool bool, Bool, Indices;
}

impl Numbers {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// One array of a sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Values {
    /// Name.
    pub name: Cow<'static, str>,
    /// Numbers in row-major order.
    pub numbers: Numbers,
    /// Extents.
    pub shape: Vec<usize>,
}

/// What a sample consists of, in order: for classification the input and its class.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample(pub Vec<Values>);

impl Sample {
    /// Nothing yet.
    pub fn new() -> Sample {
        Sample::default()
    }

    /// With another array: `Sample::new().with("input", pixels, &[1, 8, 8]).with("class", [3i64], &[])`. A batch of N
    /// samples has it with N as first extent.
    #[must_use]
    pub fn with(mut self, name: impl Into<Cow<'static, str>>, numbers: impl Into<Numbers>, shape: &[usize]) -> Sample {
        self.0.push(Values { name: name.into(), numbers: numbers.into(), shape: shape.to_vec() });
        self
    }

    /// The array of a name.
    pub fn get(&self, name: &str) -> Option<&Values> {
        self.0.iter().find(|values| values.name == name)
    }
}

/// A sample, or why it cannot be had: `?` takes any error.
pub type SampleResult<T = Sample> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Samples by index. Implement it for data of your own, or use [`InMemory`].
pub trait Data: Send + Sync {
    /// Number of samples.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A sample. All samples of a batch must have arrays of the same names, dtypes and shapes.
    ///
    /// `key` is of this seed and epoch: augmentation that draws from `key.bits(…)` repeats exactly when a run is
    /// resumed. It is `None` in evaluation, and where one sample is looked at for its shapes.
    ///
    /// # Errors
    /// The sample cannot be had. The run ends then, with an error that names it; so it does on a panic.
    fn sample(&self, index: usize, key: Option<Key>) -> SampleResult;
}

/// Training and test samples.
#[derive(Clone)]
pub struct Splits {
    /// For training.
    pub train: Arc<dyn Data>,
    /// For evaluation.
    pub test: Arc<dyn Data>,
}

impl Splits {
    /// From two data sets.
    pub fn new(train: impl Data + 'static, test: impl Data + 'static) -> Splits {
        Splits { train: Arc::new(train), test: Arc::new(test) }
    }
}

/// Samples in memory.
#[derive(Clone, Debug, Default)]
pub struct InMemory {
    arrays: Vec<Values>,
    len: usize,
}

impl InMemory {
    /// Nothing yet.
    pub fn new() -> InMemory {
        InMemory::default()
    }

    /// With an array for each sample, of `shape`, one after the other:
    /// `InMemory::new().with("input", pixels, &[1, 8, 8])?.with("class", labels, &[])?`.
    ///
    /// # Errors
    /// Numbers that do not fit the shape, or are of another number of samples than the arrays before; a name twice.
    pub fn with(
        mut self,
        name: impl Into<Cow<'static, str>>,
        numbers: impl Into<Numbers>,
        shape: &[usize],
    ) -> Result<InMemory> {
        let (name, numbers, each) = (name.into(), numbers.into(), shape.iter().product::<usize>());
        let n = numbers.len();
        if each == 0 || !n.is_multiple_of(each) {
            return Err(Error::Config(format!("array {name:?}: {n} numbers are no whole samples of {shape:?}")));
        }
        if self.arrays.iter().any(|array| array.name == name) {
            return Err(Error::Config(format!("array {name:?} is there twice: give each a name of its own")));
        }
        if let Some(first) = self.arrays.first().filter(|_| n / each != self.len) {
            return Err(Error::Config(format!(
                "array {name:?} has {} samples, but {:?} has {}: give every array one entry per sample",
                n / each,
                first.name,
                self.len
            )));
        }
        self.len = n / each;
        self.arrays.push(Values { name, numbers, shape: shape.to_vec() });
        Ok(self)
    }

    /// Arrays `input` of `shape` and `class`, for [`crate::Classify`].
    ///
    /// # Errors
    /// As [`InMemory::with`].
    pub fn classes(inputs: Vec<f32>, shape: &[usize], labels: &[usize]) -> Result<InMemory> {
        let labels: Vec<i64> = labels.iter().map(|&label| label as i64).collect();
        InMemory::new().with("input", inputs, shape)?.with("class", labels, &[])
    }

    /// Arrays `input` of `shape` and `target` of `target_shape`, for [`crate::Regress`].
    ///
    /// # Errors
    /// As [`InMemory::with`].
    pub fn values(inputs: Vec<f32>, shape: &[usize], targets: Vec<f32>, target_shape: &[usize]) -> Result<InMemory> {
        InMemory::new().with("input", inputs, shape)?.with("target", targets, target_shape)
    }

    /// The first `n` samples, and the rest.
    pub fn split_at(mut self, n: usize) -> (InMemory, InMemory) {
        let n = n.min(self.len);
        let rest = self.arrays.iter_mut().map(|array| Values {
            name: array.name.clone(),
            numbers: array.numbers.split_off(n * array.shape.iter().product::<usize>()),
            shape: array.shape.clone(),
        });
        let rest = InMemory { arrays: rest.collect(), len: self.len - n };
        self.len = n;
        (self, rest)
    }
}

impl Data for InMemory {
    fn len(&self) -> usize {
        self.len
    }

    fn sample(&self, index: usize, _key: Option<Key>) -> SampleResult {
        let of = |array: &Values| {
            let each = array.shape.iter().product::<usize>();
            let numbers = array.numbers.slice(index * each..(index + 1) * each);
            Values { name: array.name.clone(), numbers, shape: array.shape.clone() }
        };
        Ok(Sample(self.arrays.iter().map(of).collect()))
    }
}
