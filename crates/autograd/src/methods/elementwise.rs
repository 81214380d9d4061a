//! Elementwise functions, operators of the language, comparisons and tests of values.

use binade_tensor::op::{Binary, Compare, Numerics, Ternary, Unary};
use binade_tensor::{Array, Class, DType, Op, Shape};

use super::composed;
use crate::{Result, Var, apply};

macro_rules! unary_methods {
    ($($method:ident, $variant:ident, $name:literal;)*) => {
        /// Elementwise functions of one tensor; see [`Unary`] for the formulas.
        impl Var {$(
            #[doc = concat!("[`Unary::", stringify!($variant), "`], elementwise.")]
            ///
            /// # Errors
            /// The dtype is not a float.
            pub fn $method(&self) -> Result<Var> {
                apply(Op::Unary(Unary::$variant), &[self])
            }
        )*}
    };
}
binade_tensor::for_each_unary!(unary_methods);

macro_rules! binary_methods {
    ($($method:ident, $variant:ident, $name:literal;)*) => {
        /// Elementwise functions of two tensors, with broadcasting; see [`Binary`].
        impl Var {$(
            #[doc = concat!("[`Binary::", stringify!($variant), "`], elementwise with broadcasting.")]
            ///
            /// # Errors
            /// Shapes do not broadcast.
            pub fn $method(&self, other: &Var) -> Result<Var> {
                apply(Op::Binary(Binary::$variant), &[self, other])
            }
        )*}
    };
}
binade_tensor::for_each_binary!(binary_methods);

macro_rules! operators {
    ($($trait:ident, $method:ident;)*) => {$(
        impl std::ops::$trait<&Var> for &Var {
            type Output = Result<Var>;
            fn $method(self, other: &Var) -> Result<Var> {
                Var::$method(self, other)
            }
        }
        impl std::ops::$trait<f64> for &Var {
            type Output = Result<Var>;
            fn $method(self, value: f64) -> Result<Var> {
                self.scalar(scalar_row(stringify!($method)), value, false)
            }
        }
    )*};
}
operators! { Add, add; Sub, sub; Mul, mul; Div, div; }

const fn scalar_row(method: &str) -> Binary {
    match method.as_bytes()[0] {
        b'a' => Binary::Add,
        b's' => Binary::Sub,
        b'm' => Binary::Mul,
        _ => Binary::Div,
    }
}

/// Comparisons and choice.
impl Var {
    /// `f(x, value)`, or `f(value, x)` when `reversed`.
    ///
    /// # Errors
    /// The dtype is not a float.
    pub fn scalar(&self, op: Binary, value: f64, reversed: bool) -> Result<Var> {
        apply(Op::Scalar { op, value, reversed }, &[self])
    }

    /// Elementwise comparison, bool.
    ///
    /// # Errors
    /// Shapes do not broadcast.
    pub fn compare(&self, compare: Compare, other: &Var) -> Result<Var> {
        apply(Op::Compare(compare), &[self, other])
    }

    /// `condition ? self : other`.
    ///
    /// # Errors
    /// The condition is not bool; shapes do not broadcast.
    pub fn where_(&self, condition: &Var, other: &Var) -> Result<Var> {
        apply(Op::Where, &[condition, self, other])
    }
}

/// Functions with a number for a parameter. Defaults of PyTorch are named; formulas are those of the [`Binary`] rows.
impl Var {
    /// `xᵉ` with a number as exponent.
    ///
    /// # Errors
    /// The dtype is not a float; the same for all functions here.
    pub fn pow_scalar(&self, exponent: f64) -> Result<Var> {
        self.scalar(Binary::Pow, exponent, false)
    }

    /// `x > 0 ? x : slope·x` (PyTorch: 0.01).
    ///
    /// # Errors
    /// The dtype is not a float.
    pub fn leaky_relu_with(&self, slope: f64) -> Result<Var> {
        self.scalar(Binary::LeakyRelu, slope, false)
    }

    /// `x > 0 ? x : α(eˣ − 1)` (PyTorch: 1).
    ///
    /// # Errors
    /// The dtype is not a float.
    pub fn elu_with(&self, alpha: f64) -> Result<Var> {
        self.scalar(Binary::Elu, alpha, false)
    }

    /// `x > 0 ? x : α(e^(x/α) − 1)` (PyTorch: 1).
    ///
    /// # Errors
    /// The dtype is not a float.
    pub fn celu_with(&self, alpha: f64) -> Result<Var> {
        self.scalar(Binary::Celu, alpha, false)
    }

    /// `ln(1 + e^(βx))/β`, x itself where βx > 20 (PyTorch: β = 1).
    ///
    /// # Errors
    /// The dtype is not a float.
    pub fn softplus_with(&self, beta: f64) -> Result<Var> {
        self.scalar(Binary::Softplus, beta, false)
    }

    /// x limited to `low..=high`; the gradient passes where x lies inside or on a limit.
    ///
    /// # Errors
    /// The dtype is not a float.
    pub fn clamp(&self, low: Option<f64>, high: Option<f64>) -> Result<Var> {
        let mut x = self.clone();
        if let Some(low) = low {
            x = x.scalar(Binary::ClampMin, low, false)?;
        }
        if let Some(high) = high {
            x = x.scalar(Binary::ClampMax, high, false)?;
        }
        Ok(x)
    }

    /// x limited to `low..=high` (PyTorch: −1, 1); no gradient on the limits themselves.
    ///
    /// # Errors
    /// The dtype is not a float.
    pub fn hardtanh(&self, low: f64, high: f64) -> Result<Var> {
        let inside = self
            .compare(Compare::Gt, &self.constant_like(low)?)?
            .compare(Compare::And, &self.compare(Compare::Lt, &self.constant_like(high)?)?)?;
        self.where_(&inside, &self.detach().clamp(Some(low), Some(high))?)
    }

    /// `a·σ(b)` of the two halves a, b of a dimension.
    ///
    /// # Errors
    /// The extent is odd.
    pub fn glu(&self, dim: isize) -> Result<Var> {
        let [a, b] = self.halves("glu", dim)?;
        composed(Numerics::Neutral, [&a, &b], |[a, b]| a.mul(&b.sigmoid()?))
    }

    /// `silu(a)·b` of the two halves a, b of a dimension (Shazeer 2020).
    ///
    /// # Errors
    /// The extent is odd.
    pub fn swiglu(&self, dim: isize) -> Result<Var> {
        let [a, b] = self.halves("swiglu", dim)?;
        composed(Numerics::Neutral, [&a, &b], |[a, b]| a.silu()?.mul(b))
    }

    fn halves(&self, op: &'static str, dim: isize) -> Result<[Var; 2]> {
        let at = self.shape().dim(op, dim)?;
        let n = self.shape().get(at).copied().unwrap_or(1);
        if !n.is_multiple_of(2) {
            let message = format!("splits a dimension in two, got extent {n}");
            return Err(binade_tensor::Error::Argument { op, message }.into());
        }
        Ok([self.narrow(dim, 0, n / 2)?, self.narrow(dim, n / 2, n / 2)?])
    }

    /// `self + value·a·b`, rounded once.
    ///
    /// # Errors
    /// Shapes do not broadcast; the same for the next two.
    pub fn addcmul(&self, a: &Var, b: &Var, value: f64) -> Result<Var> {
        apply(Op::Ternary { op: Ternary::Addcmul, value }, &[self, a, b])
    }

    /// `self + value·a/b`, rounded once.
    ///
    /// # Errors
    /// Shapes do not broadcast.
    pub fn addcdiv(&self, a: &Var, b: &Var, value: f64) -> Result<Var> {
        apply(Op::Ternary { op: Ternary::Addcdiv, value }, &[self, a, b])
    }

    /// `self + weight·(end − self)`, rounded once.
    ///
    /// # Errors
    /// Shapes do not broadcast.
    pub fn lerp(&self, end: &Var, weight: &Var) -> Result<Var> {
        apply(Op::Ternary { op: Ternary::Lerp, value: 0.0 }, &[self, end, weight])
    }
}

/// Tests of each element; bool results without gradient.
impl Var {
    /// Whether the element is NaN.
    ///
    /// # Errors
    /// Out of memory; the same for the tests below.
    pub fn isnan(&self) -> Result<Var> {
        self.compare(Compare::Ne, self)
    }

    /// Whether the element is +∞ or −∞.
    ///
    /// # Errors
    /// The dtype is not a float.
    pub fn isinf(&self) -> Result<Var> {
        let x = self.detach().abs()?;
        x.compare(Compare::Eq, &x.constant_like(f64::INFINITY)?)
    }

    /// Whether the element is neither infinite nor NaN.
    ///
    /// # Errors
    /// The dtype is not a float.
    pub fn isfinite(&self) -> Result<Var> {
        let x = self.detach().abs()?;
        x.compare(Compare::Lt, &x.constant_like(f64::INFINITY)?)
    }

    /// Whether the element is 0.
    ///
    /// # Errors
    /// Out of memory.
    pub fn logical_not(&self) -> Result<Var> {
        self.compare(Compare::Eq, &self.constant_like(0.0)?)
    }

    /// Elementwise comparison with a number.
    ///
    /// # Errors
    /// Out of memory.
    pub fn compare_scalar(&self, compare: Compare, value: f64) -> Result<Var> {
        let (value, dtype) =
            if self.dtype().is_float() { (value, self.dtype()) } else { beside_integers(compare, value) };
        let value = Array::full(self.array().device(), dtype, Shape::SCALAR, value, Class::Workspace)?;
        self.compare(compare, &Var::constant(value))
    }

    /// x with `value` where the mask is true.
    ///
    /// # Errors
    /// The mask is not bool; shapes do not broadcast.
    pub fn masked_fill(&self, mask: &Var, value: f64) -> Result<Var> {
        self.constant_like(value)?.where_(mask, self)
    }
}

/// Constants.
impl Var {
    /// The same function for every row, by value.
    ///
    /// # Errors
    /// The dtype is not a float.
    pub fn unary(&self, row: Unary) -> Result<Var> {
        apply(Op::Unary(row), &[self])
    }

    /// `start, start + 1, …` (i64), on the scope's device.
    ///
    /// # Errors
    /// Out of memory.
    pub fn arange(start: i64, length: usize) -> Result<Var> {
        apply(Op::Range { start, length }, &[])
    }

    /// One value everywhere, in this tensor's dtype.
    ///
    /// # Errors
    /// More dimensions than a tensor may have.
    pub fn full_like(&self, shape: &[usize], value: f64) -> Result<Var> {
        self.constant_like(value)?.expand(&Shape::new(shape)?)
    }
}

/// The number that integers compare with as with `value`: an integer, or a float that is beyond all or equal to none.
fn beside_integers(compare: Compare, value: f64) -> (f64, DType) {
    if value.is_nan() || value.abs() >= i64::MAX as f64 {
        return (value, DType::F32);
    }
    match compare {
        _ if value.fract() == 0.0 => (value, DType::I64),
        Compare::Lt | Compare::Ge => (value.ceil(), DType::I64),
        Compare::Le | Compare::Gt => (value.floor(), DType::I64),
        Compare::Eq | Compare::Ne => (f64::NAN, DType::F32),
        // True.
        Compare::And | Compare::Or | Compare::Xor => (1.0, DType::I64),
    }
}
