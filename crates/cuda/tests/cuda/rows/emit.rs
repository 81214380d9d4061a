//! Numbers whose arithmetic writes CUDA C: a statement per operation, with intrinsics that round correctly.

use std::cell::RefCell;
use std::ops::{Add, Div, Mul, Neg, Sub};

use binade_tensor::number::{Number, Wide, Wide2};
use half::{bf16, f16};

use super::lanes::{F32Lanes, Lanes};
use super::math;

thread_local! {
    /// The statements so far.
    static WRITTEN: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// The variable of a new statement.
fn new(kind: &str, value: String) -> usize {
    WRITTEN.with_borrow_mut(|written| {
        let number = written.len();
        written.push(format!("  {kind} t{number} = {value};"));
        number
    })
}

/// The statements of `f`, which end in the return of its result.
pub fn body<N: Copy>(f: impl FnOnce() -> N, variable: impl FnOnce(N) -> usize) -> String {
    WRITTEN.with_borrow_mut(Vec::clear);
    let result = variable(f());
    let mut lines = WRITTEN.with_borrow_mut(std::mem::take);
    lines.push(format!("  return t{result};"));
    lines.join("\n")
}

/// An f32 of the device.
#[derive(Clone, Copy)]
pub struct Emit(usize);
/// A truth value of the device.
#[derive(Clone, Copy)]
pub struct EmitMask(usize);
/// An f64 of the device.
#[derive(Clone, Copy)]
pub struct EmitWide(usize);

impl Emit {
    /// A parameter of the function that is written.
    pub fn argument(name: &str) -> Emit {
        Emit::new(name.into())
    }

    pub fn variable(self) -> usize {
        self.0
    }

    fn new(value: String) -> Emit {
        Emit(new("float", value))
    }
}

impl EmitWide {
    /// A parameter of the function that is written.
    pub fn argument(name: &str) -> EmitWide {
        EmitWide::new(name.into())
    }

    pub fn variable(self) -> usize {
        self.0
    }

    fn new(value: String) -> EmitWide {
        EmitWide(new("double", value))
    }

    fn call(self, function: &str) -> EmitWide {
        EmitWide::new(format!("{function}(t{})", self.0))
    }
}

macro_rules! arithmetic {
    ($($number:ident, $operation:ident, $method:ident, $intrinsic:literal;)*) => {$(
        impl $operation for $number {
            type Output = $number;
            fn $method(self, other: $number) -> $number {
                $number::new(format!(concat!($intrinsic, "(t{}, t{})"), self.0, other.0))
            }
        }
    )*};
}

arithmetic! {
    Emit, Add, add, "__fadd_rn";
    Emit, Sub, sub, "__fsub_rn";
    Emit, Mul, mul, "__fmul_rn";
    Emit, Div, div, "__fdiv_rn";
    EmitWide, Add, add, "__dadd_rn";
    EmitWide, Sub, sub, "__dsub_rn";
    EmitWide, Mul, mul, "__dmul_rn";
    EmitWide, Div, div, "__ddiv_rn";
}

impl Neg for Emit {
    type Output = Emit;
    fn neg(self) -> Emit {
        Emit::new(format!("-t{}", self.0))
    }
}

impl Neg for EmitWide {
    type Output = EmitWide;
    fn neg(self) -> EmitWide {
        EmitWide::new(format!("-t{}", self.0))
    }
}

fn compared(a: usize, sign: &str, b: usize) -> EmitMask {
    EmitMask(new("bool", format!("t{a} {sign} t{b}")))
}

/// What both widths write alike.
macro_rules! comparisons {
    ($largest:literal, $least:literal, $root:literal, $whole:literal, $floor:literal) => {
        type Mask = EmitMask;
        fn max(self, other: Self) -> Self {
            Self::new(format!(concat!($largest, "(t{}, t{})"), self.0, other.0))
        }
        fn min(self, other: Self) -> Self {
            Self::new(format!(concat!($least, "(t{}, t{})"), self.0, other.0))
        }
        fn lt(self, other: Self) -> EmitMask {
            compared(self.0, "<", other.0)
        }
        fn le(self, other: Self) -> EmitMask {
            compared(self.0, "<=", other.0)
        }
        fn eq(self, other: Self) -> EmitMask {
            compared(self.0, "==", other.0)
        }
        fn select(mask: EmitMask, if_true: Self, if_false: Self) -> Self {
            Self::new(format!("t{} ? t{} : t{}", mask.0, if_true.0, if_false.0))
        }
        fn sqrt(self) -> Self {
            Self::new(format!(concat!($root, "(t{})"), self.0))
        }
        fn round_ties_even(self) -> Self {
            Self::new(format!(concat!($whole, "(t{})"), self.0))
        }
        fn floor(self) -> Self {
            Self::new(format!(concat!($floor, "(t{})"), self.0))
        }
    };
}

impl Number for Emit {
    comparisons! { "larger", "smaller", "__fsqrt_rn", "rintf", "floorf" }
    fn splat(value: f64) -> Emit {
        Emit::new(format!("__uint_as_float(0x{:08x}u)", (value as f32).to_bits()))
    }
    fn mul_add(self, b: Emit, c: Emit) -> Emit {
        Emit::new(format!("__fmaf_rn(t{}, t{}, t{})", self.0, b.0, c.0))
    }
    fn abs(self) -> Emit {
        Emit::new(format!("fabsf(t{})", self.0))
    }
    fn exp(self) -> Emit {
        math::exp(self)
    }
    fn exp_m1(self) -> Emit {
        math::exp_m1(self)
    }
    fn ln(self) -> Emit {
        math::ln(self)
    }
    fn ln_1p(self) -> Emit {
        math::ln_1p(self)
    }
    fn tanh(self) -> Emit {
        math::tanh(self)
    }
    fn sigmoid(self) -> Emit {
        math::sigmoid(self)
    }
    fn sigmoids(self) -> (Emit, Emit) {
        math::both(self, math::sigmoid(-self.abs()))
    }
    fn erf(self) -> Emit {
        math::erf(self)
    }
    fn erfc(self) -> Emit {
        math::erfc(self)
    }
    fn normal_cdf(self) -> Emit {
        math::normal_cdf(self)
    }
    fn normal_density(self) -> Emit {
        math::normal_density(self)
    }
    fn gelu(self) -> Emit {
        math::gelu(self)
    }
    fn gelu_tanh(self) -> Emit {
        math::gelu_tanh(self)
    }
    fn silu(self) -> Emit {
        math::silu(self)
    }
    fn mish(self) -> Emit {
        math::mish(self)
    }
    fn gelu_slope(self) -> Emit {
        math::gelu_slope(self)
    }
    fn tanh_cdf(self) -> Emit {
        math::tanh_cdf(self)
    }
    fn tanh_cdfs(self) -> (Emit, Emit) {
        math::both(self, math::tanh_cdf(-self.abs()))
    }
    fn wide(self, f: Wide) -> Emit {
        Emit::new(format!("__double2float_rn({}((double)t{}))", name_of(&f), self.0))
    }
    fn wide2(self, other: Emit, f: Wide2) -> Emit {
        Emit::new(format!("__double2float_rn({}((double)t{}, (double)t{}))", name_of(&f), self.0, other.0))
    }
}

/// The device function of a function in f64.
fn name_of(f: &impl std::fmt::Debug) -> String {
    format!("wide_{f:?}").to_lowercase()
}

impl Number for EmitWide {
    comparisons! { "wide_max", "wide_min", "__dsqrt_rn", "rint", "floor" }
    fn splat(value: f64) -> EmitWide {
        EmitWide::new(format!("__longlong_as_double(0x{:016x}ll)", value.to_bits()))
    }
    // Rounded twice, as the host does in f64.
    fn mul_add(self, b: EmitWide, c: EmitWide) -> EmitWide {
        self * b + c
    }
    fn abs(self) -> EmitWide {
        self.call("fabs")
    }
    fn exp(self) -> EmitWide {
        self.call("wide_exp")
    }
    fn exp_m1(self) -> EmitWide {
        self.call("wide_expm1")
    }
    fn ln(self) -> EmitWide {
        self.call("log")
    }
    fn ln_1p(self) -> EmitWide {
        self.call("log1p")
    }
    fn tanh(self) -> EmitWide {
        self.call("tanh")
    }
    fn sigmoid(self) -> EmitWide {
        self.call("wide_sigmoid")
    }
    fn erf(self) -> EmitWide {
        self.call("erf")
    }
    fn erfc(self) -> EmitWide {
        self.call("erfc")
    }
    fn normal_cdf(self) -> EmitWide {
        self.call("wide_normal_cdf")
    }
    fn tanh_cdf(self) -> EmitWide {
        self.call("wide_tanh_cdf")
    }
    fn wide(self, f: Wide) -> EmitWide {
        self.call(&name_of(&f))
    }
    fn wide2(self, other: EmitWide, f: Wide2) -> EmitWide {
        EmitWide::new(format!("{}(t{}, t{})", name_of(&f), self.0, other.0))
    }
}

/// Nothing is in memory while code is written.
fn no_memory() -> ! {
    panic!("formulas of rows neither load nor store")
}

impl Lanes for Emit {
    type Elem = f32;
    const N: usize = 1;
    fn broadcast(value: f32) -> Emit {
        Emit::splat(f64::from(value))
    }
    fn load(_: &[f32]) -> Emit {
        no_memory()
    }
    fn store(self, _: &mut [f32]) {
        no_memory()
    }
    fn load_f16(_: &[f16]) -> Emit {
        no_memory()
    }
    fn store_f16(self, _: &mut [f16]) {
        no_memory()
    }
    fn load_bf16(_: &[bf16]) -> Emit {
        no_memory()
    }
    fn store_bf16(self, _: &mut [bf16]) {
        no_memory()
    }
    fn load_i8(_: &[i8]) -> Emit {
        no_memory()
    }
    fn store_i8(self, _: &mut [i8]) {
        no_memory()
    }
    fn rounded_f16(self) -> Emit {
        Emit::new(format!("widen_f16(narrow_f16(t{}))", self.0))
    }
    fn rounded_bf16(self) -> Emit {
        Emit::new(format!("widen_bf16(narrow_bf16(t{}))", self.0))
    }
}

impl F32Lanes for Emit {
    fn pow2(self) -> Emit {
        // After adding 2²³ + 127 the low bits are the biased exponent.
        Emit::new(format!("__int_as_float(__float_as_int(__fadd_rn(t{}, 8388735.0f)) << 23)", self.0))
    }
    fn split(self) -> (Emit, Emit) {
        let shifted = new("int", format!("__float_as_int(t{}) - 0x3f3504f3", self.0));
        let exponent = new("int", format!("t{shifted} >> 23"));
        let mantissa = format!("__uint_as_float(__float_as_uint(t{}) - ((u32)t{exponent} << 23))", self.0);
        (Emit::new(mantissa), Emit::new(format!("__int2float_rn(t{exponent})")))
    }
    fn copysign(self, sign: Emit) -> Emit {
        let bits = |t: usize, mask: &str| format!("(__float_as_uint(t{t}) & {mask})");
        Emit::new(format!("__uint_as_float({} | {})", bits(self.0, "0x7fffffffu"), bits(sign.0, "0x80000000u")))
    }
    fn clamp(self, low: f64, high: f64) -> Emit {
        let (low, high) = (Emit::splat(low), Emit::splat(high));
        Emit::new(format!("t{0} < t{1} ? t{1} : t{0} > t{2} ? t{2} : t{0}", self.0, low.0, high.0))
    }
    fn fused(self, b: Emit, c: Emit) -> Emit {
        self.mul_add(b, c)
    }
}
