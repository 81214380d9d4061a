//! [`Tensor`]: the typed skin, for whom the dtype is known at compile time.

use std::marker::PhantomData;

use crate::op::{Binary, MatMul, Reduce, Unary, View};
use crate::{Array, Class, Device, Dims, Error, Float, Op, Result, Shape, run_one};

/// A tensor of `T`. Mixing element types does not compile:
///
/// ```compile_fail
/// use binade_tensor::{Device, Tensor, f16};
/// let a = Tensor::<f32>::from_slice(&Device::reference(), &[1.0], &[1])?;
/// let b = Tensor::<f16>::from_slice(&Device::reference(), &[f16::ONE], &[1])?;
/// let c = a.add(&b)?; // expected `&Tensor<f32>`, found `&Tensor<f16>`
/// # Ok::<(), binade_tensor::Error>(())
/// ```
///
/// ```
/// use binade_tensor::{Device, Tensor, f16};
/// let a = Tensor::<f32>::from_slice(&Device::reference(), &[1.0], &[1])?;
/// let b = Tensor::<f16>::from_slice(&Device::reference(), &[f16::ONE], &[1])?;
/// let c = a.add(&b.cast()?)?;
/// assert_eq!(c.to_vec()?, [2.0]);
/// # Ok::<(), binade_tensor::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Tensor<T: Float> {
    array: Array,
    element: PhantomData<T>,
}

impl<T: Float> Tensor<T> {
    /// Elements in row-major order.
    ///
    /// # Errors
    /// The number of elements does not fit the shape.
    pub fn from_slice(device: &Device, data: &[T], shape: &[usize]) -> Result<Tensor<T>> {
        Tensor::wrap(Array::from_slice(device, data, shape, Class::Activations)?)
    }

    /// One value everywhere.
    ///
    /// # Errors
    /// Out of memory.
    pub fn full(device: &Device, value: f64, shape: &[usize]) -> Result<Tensor<T>> {
        Tensor::wrap(Array::full(device, T::DTYPE, Shape::new(shape)?, value, Class::Activations)?)
    }

    /// An array whose dtype is `T`'s.
    ///
    /// # Errors
    /// It is another.
    pub fn from_array(array: Array) -> Result<Tensor<T>> {
        if array.dtype() != T::DTYPE {
            return Err(Error::DType {
                op: "from_array",
                expected: format!("an array of {}", T::DTYPE),
                dtypes: vec![array.dtype()],
            });
        }
        Tensor::wrap(array)
    }

    fn wrap(array: Array) -> Result<Tensor<T>> {
        Ok(Tensor { array, element: PhantomData })
    }

    fn run(&self, op: Op, ins: &[&Array]) -> Result<Tensor<T>> {
        Tensor::wrap(run_one(&op, ins, self.array.device(), T::DTYPE, Class::Activations)?)
    }

    /// The untyped array.
    pub fn array(&self) -> &Array {
        &self.array
    }

    /// Extents.
    pub fn shape(&self) -> &Shape {
        self.array.shape()
    }

    /// The elements in row-major order.
    ///
    /// # Errors
    /// The storage is being written.
    pub fn to_vec(&self) -> Result<Vec<T>> {
        self.array.to_vec()
    }

    /// A copy in another element type, nearest even.
    ///
    /// # Errors
    /// Out of memory.
    pub fn cast<U: Float>(&self) -> Result<Tensor<U>> {
        Tensor::wrap(self.array.cast(U::DTYPE, Class::Casts)?)
    }

    /// `self @ other`, accumulated in f32: `[…, m, k]` by `[…, k, n]`.
    ///
    /// # Errors
    /// Shapes do not fit.
    pub fn matmul(&self, other: &Tensor<T>) -> Result<Tensor<T>> {
        self.run(Op::MatMul(MatMul::default()), &[&self.array, &other.array])
    }

    /// Softmax along `dim`.
    ///
    /// # Errors
    /// The dimension is out of range.
    pub fn softmax(&self, dim: isize) -> Result<Tensor<T>> {
        self.run(Op::Softmax { dim: self.shape().dim("softmax", dim)?, log: false }, &[&self.array])
    }

    fn reduce(&self, kind: Reduce, name: &'static str, dims: &[isize], keepdim: bool) -> Result<Tensor<T>> {
        self.run(Op::Reduce { kind, dims: Dims::new(name, self.shape(), dims)?, keepdim }, &[&self.array])
    }

    /// Sum over dimensions (all when empty), accumulated in f32.
    ///
    /// # Errors
    /// A dimension is out of range.
    pub fn sum(&self, dims: &[isize], keepdim: bool) -> Result<Tensor<T>> {
        self.reduce(Reduce::Sum, "sum", dims, keepdim)
    }

    /// Mean over dimensions (all when empty); the sum never overflows the storage type.
    ///
    /// # Errors
    /// A dimension is out of range.
    pub fn mean(&self, dims: &[isize], keepdim: bool) -> Result<Tensor<T>> {
        self.reduce(Reduce::Mean, "mean", dims, keepdim)
    }

    /// Another shape of as many elements; a copy where strides do not allow a view.
    ///
    /// # Errors
    /// The number of elements differs.
    pub fn reshape(&self, shape: &[usize]) -> Result<Tensor<T>> {
        let shape = Shape::new(shape)?;
        let source = if self.array.layout().reshape(&shape).is_some() {
            self.array.clone()
        } else {
            self.array.contiguous(Class::Activations)?
        };
        self.run(Op::View(View::Reshape(shape)), &[&source])
    }

    /// Dimensions in another order, a view.
    ///
    /// # Errors
    /// `axes` is not a permutation.
    pub fn permute(&self, axes: &[usize]) -> Result<Tensor<T>> {
        self.run(Op::View(View::Permute(Shape::new(axes)?)), &[&self.array])
    }

    /// `length` elements of `dim` from `start`, a view.
    ///
    /// # Errors
    /// The range is out of bounds.
    pub fn narrow(&self, dim: isize, start: usize, length: usize) -> Result<Tensor<T>> {
        self.run(Op::View(View::Narrow { dim: self.shape().dim("narrow", dim)?, start, length }), &[&self.array])
    }
}

macro_rules! unary_methods {
    ($($method:ident, $variant:ident, $name:literal;)*) => {
        /// Elementwise functions of one tensor; see [`Unary`] for the formulas.
        impl<T: Float> Tensor<T> {$(
            #[doc = concat!("[`Unary::", stringify!($variant), "`], elementwise.\n\n# Errors\nOut of memory.")]
            pub fn $method(&self) -> Result<Tensor<T>> {
                self.run(Op::Unary(Unary::$variant), &[&self.array])
            }
        )*}
    };
}
for_each_unary!(unary_methods);

macro_rules! binary_methods {
    ($($method:ident, $variant:ident, $name:literal;)*) => {
        /// Elementwise functions of two tensors of one type, with broadcasting; see [`Binary`].
        impl<T: Float> Tensor<T> {$(
            #[doc = concat!("[`Binary::", stringify!($variant), "`], elementwise with broadcasting.")]
            ///
            /// # Errors
            /// Shapes do not broadcast.
            pub fn $method(&self, other: &Tensor<T>) -> Result<Tensor<T>> {
                self.run(Op::Binary(Binary::$variant), &[&self.array, &other.array])
            }
        )*}
    };
}
for_each_binary!(binary_methods);
