//! Formulas of elementwise rows as programs: [`Trace`] is a [`Number`] whose arithmetic writes operators into a
//! [`Builder`], so the one line of a row that makes its kernel also makes its higher derivatives.

use std::cell::RefCell;
use std::ops::{Add, Div, Mul, Neg, Sub};

use super::program::{Builder, Value};
use super::{
    Binary, BinaryRow, BinaryVisitor, Compare, Loss, LossRow, LossVisitor, Ternary, TernaryRow, TernaryVisitor, Unary,
    UnaryRow, UnaryVisitor,
};
use crate::number::{Number, Wide, Wide2};
use crate::{Result, Shape};

/// `f′(saved)` of a unary row.
pub(super) fn unary_derivative(builder: &mut Builder, row: Unary, saved: Value) -> Result<Value> {
    struct Derivative(Trace);
    impl UnaryVisitor for Derivative {
        type Output = Trace;
        fn visit<R: UnaryRow>(self) -> Trace {
            R::df(self.0)
        }
    }
    trace(builder, || row.visit(Derivative(Trace::Value(saved))))
}

/// `∂f/∂a` or `∂f/∂b` of a binary row; an operand may be a number.
pub(super) fn binary_derivative(builder: &mut Builder, row: Binary, rhs: bool, a: Trace, b: Trace) -> Result<Value> {
    struct Partial(bool, Trace, Trace);
    impl BinaryVisitor for Partial {
        type Output = Trace;
        fn visit<R: BinaryRow>(self) -> Trace {
            if self.0 { R::db(self.1, self.2) } else { R::da(self.1, self.2) }
        }
    }
    trace(builder, || row.visit(Partial(rhs, a, b)))
}

/// `f`, or the derivative by operand `by`, of a ternary row.
pub(super) fn ternary(
    builder: &mut Builder,
    row: Ternary,
    value: f64,
    by: Option<usize>,
    ins: [Value; 3],
) -> Result<Value> {
    struct Formula(Option<usize>, [Trace; 3], Trace);
    impl TernaryVisitor for Formula {
        type Output = Trace;
        fn visit<R: TernaryRow>(self) -> Trace {
            let Formula(by, [x, a, b], v) = self;
            match by {
                None => R::f(x, a, b, v),
                Some(operand) => R::d(operand, x, a, b, v),
            }
        }
    }
    trace(builder, || row.visit(Formula(by, ins.map(Trace::Value), Trace::Number(value))))
}

/// The loss of each element, or its derivative by the prediction (0) or the target (1).
pub(super) fn loss(
    builder: &mut Builder,
    row: Loss,
    parameter: f64,
    by: Option<usize>,
    x: Value,
    t: Value,
) -> Result<Value> {
    struct Formula(Option<usize>, Trace, Trace, Trace);
    impl LossVisitor for Formula {
        type Output = Trace;
        fn visit<R: LossRow>(self) -> Trace {
            let Formula(by, x, t, p) = self;
            match by {
                None => R::f(x, t, p),
                Some(0) => R::dx(x, t, p),
                Some(_) => R::dt(x, t, p),
            }
        }
    }
    trace(builder, || row.visit(Formula(by, Trace::Value(x), Trace::Value(t), Trace::Number(parameter))))
}

thread_local! {
    /// The program being written, and the first error.
    static CURRENT: RefCell<Option<(Builder, Result<()>)>> = const { RefCell::new(None) };
}

/// Runs a formula with operators going to `builder`.
fn trace(builder: &mut Builder, formula: impl FnOnce() -> Trace) -> Result<Value> {
    CURRENT.with(|c| *c.borrow_mut() = Some((builder.clone(), Ok(()))));
    let result = formula();
    let Some((written, state)) = CURRENT.with(|c| c.borrow_mut().take()) else {
        return builder.fill(0.0, Shape::SCALAR);
    };
    state?;
    *builder = written;
    match result {
        Trace::Value(v) => Ok(v),
        Trace::Number(number) => builder.fill(number, Shape::SCALAR),
    }
}

/// Writes through the current builder. After an error every further operator is skipped.
fn write(f: impl FnOnce(&mut Builder) -> Result<Value>) -> Trace {
    CURRENT.with(|c| {
        let mut current = c.borrow_mut();
        let Some((builder, state)) = current.as_mut() else { return Trace::Number(f64::NAN) };
        if state.is_err() {
            return Trace::Number(f64::NAN);
        }
        match f(builder) {
            Ok(value) => Trace::Value(value),
            Err(error) => {
                *state = Err(error);
                Trace::Number(f64::NAN)
            }
        }
    })
}

/// A value of the program, or a number.
#[derive(Clone, Copy, Debug)]
pub enum Trace {
    /// A tensor.
    Value(Value),
    /// The same number everywhere.
    Number(f64),
}

fn unary(row: Unary, x: Trace) -> Trace {
    write(|b| {
        let x = value(b, x)?;
        b.unary(row, x)
    })
}

fn binary(op: Binary, x: Trace, y: Trace) -> Trace {
    write(|b| match (x, y) {
        (Trace::Value(x), Trace::Value(y)) => b.binary(op, x, y),
        (Trace::Value(x), Trace::Number(value)) => b.scalar(op, x, value),
        (Trace::Number(value), Trace::Value(y)) => b.op(super::Op::Scalar { op, value, reversed: true }, &[y]),
        (Trace::Number(_), Trace::Number(_)) => {
            let (x, y) = (value(b, x)?, value(b, y)?);
            b.binary(op, x, y)
        }
    })
}

fn value(b: &mut Builder, x: Trace) -> Result<Value> {
    match x {
        Trace::Value(x) => Ok(x),
        Trace::Number(number) => b.fill(number, Shape::SCALAR),
    }
}

fn compare(row: Compare, x: Trace, y: Trace) -> Trace {
    write(|b| {
        let (x, y) = (value(b, x)?, value(b, y)?);
        b.compare(row, x, y)
    })
}

macro_rules! arithmetic {
    ($($trait:ident $method:ident;)*) => {$(
        impl $trait for Trace {
            type Output = Trace;
            fn $method(self, other: Trace) -> Trace {
                match (self, other) {
                    (Trace::Number(a), Trace::Number(b)) => Trace::Number(f64::$method(a, b)),
                    _ => binary(Binary::$trait, self, other),
                }
            }
        }
    )*};
}
arithmetic! { Add add; Sub sub; Mul mul; Div div; }

impl Neg for Trace {
    type Output = Trace;
    fn neg(self) -> Trace {
        match self {
            Trace::Number(a) => Trace::Number(-a),
            Trace::Value(_) => unary(Unary::Neg, self),
        }
    }
}

impl Number for Trace {
    type Mask = Trace;
    fn splat(value: f64) -> Trace {
        Trace::Number(value)
    }
    fn mul_add(self, b: Trace, c: Trace) -> Trace {
        self * b + c
    }
    fn sqrt(self) -> Trace {
        unary(Unary::Sqrt, self)
    }
    fn abs(self) -> Trace {
        unary(Unary::Abs, self)
    }
    fn max(self, other: Trace) -> Trace {
        binary(Binary::Maximum, self, other)
    }
    fn min(self, other: Trace) -> Trace {
        binary(Binary::Minimum, self, other)
    }
    fn lt(self, other: Trace) -> Trace {
        compare(Compare::Lt, self, other)
    }
    fn le(self, other: Trace) -> Trace {
        compare(Compare::Le, self, other)
    }
    fn eq(self, other: Trace) -> Trace {
        compare(Compare::Eq, self, other)
    }
    fn select(mask: Trace, if_true: Trace, if_false: Trace) -> Trace {
        write(|b| {
            let (mask, x, y) = (value(b, mask)?, value(b, if_true)?, value(b, if_false)?);
            b.select(mask, x, y)
        })
    }
    fn sign(self) -> Trace {
        unary(Unary::Sign, self)
    }
    fn unless(self, mask: Trace, instead: f64) -> Trace {
        Trace::select(mask, Trace::Number(instead), self)
    }
    fn round_ties_even(self) -> Trace {
        unary(Unary::Round, self)
    }
    fn floor(self) -> Trace {
        unary(Unary::Floor, self)
    }
    fn ceil(self) -> Trace {
        unary(Unary::Ceil, self)
    }
    fn trunc(self) -> Trace {
        unary(Unary::Trunc, self)
    }
    fn recip(self) -> Trace {
        unary(Unary::Reciprocal, self)
    }
    fn rsqrt(self) -> Trace {
        unary(Unary::Rsqrt, self)
    }
    fn exp(self) -> Trace {
        unary(Unary::Exp, self)
    }
    fn exp_m1(self) -> Trace {
        unary(Unary::Expm1, self)
    }
    fn ln(self) -> Trace {
        unary(Unary::Log, self)
    }
    fn ln_1p(self) -> Trace {
        unary(Unary::Log1p, self)
    }
    fn tanh(self) -> Trace {
        unary(Unary::Tanh, self)
    }
    fn sigmoid(self) -> Trace {
        unary(Unary::Sigmoid, self)
    }
    fn erf(self) -> Trace {
        unary(Unary::Erf, self)
    }
    fn erfc(self) -> Trace {
        unary(Unary::Erfc, self)
    }
    fn normal_cdf(self) -> Trace {
        Trace::Number(0.5) * (self * Trace::Number(-std::f64::consts::FRAC_1_SQRT_2)).erfc()
    }
    fn tanh_cdf(self) -> Trace {
        // Beyond these it is 0 or 1, and a cube may be infinite.
        let x = self.max(Trace::Number(-40.0)).min(Trace::Number(40.0));
        let cube = x * x * x;
        ((x + cube * Trace::Number(0.044715)) * Trace::Number(1.595_769_121_605_730_8)).sigmoid()
    }
    fn wide(self, f: Wide) -> Trace {
        let row = match f {
            Wide::Log2 => Unary::Log2,
            Wide::Log10 => Unary::Log10,
            Wide::Exp2 => Unary::Exp2,
            Wide::Sin => Unary::Sin,
            Wide::Cos => Unary::Cos,
            Wide::Tan => Unary::Tan,
            Wide::Asin => Unary::Asin,
            Wide::Acos => Unary::Acos,
            Wide::Atan => Unary::Atan,
            Wide::Sinh => Unary::Sinh,
            Wide::Cosh => Unary::Cosh,
            Wide::Asinh => Unary::Asinh,
            Wide::Acosh => Unary::Acosh,
            Wide::Atanh => Unary::Atanh,
            Wide::Erfinv => Unary::Erfinv,
        };
        unary(row, self)
    }
    fn wide2(self, other: Trace, f: Wide2) -> Trace {
        let row = match f {
            Wide2::Pow => Binary::Pow,
            Wide2::Atan2 => Binary::Atan2,
            Wide2::Fmod => Binary::Fmod,
        };
        binary(row, self, other)
    }
}
