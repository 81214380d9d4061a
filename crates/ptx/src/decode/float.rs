//! Floating-point arithmetic.

use super::Decoder;
use super::function::{binary, ternary, unary};
use super::mods::Mods;
use crate::code::{Action, Function};
use crate::error::Result;
use crate::num::{self, F32, F64, Format, Mode};
use crate::types::Type;

/// The bits of a number, or of the canonical NaN. By integers: of floats, a compiler may take any NaN for another.
#[inline(always)]
fn canonical(x: f32) -> u32 {
    let bits = x.to_bits();
    if bits & 0x7fff_ffff > 0x7f80_0000 { 0x7fff_ffff } else { bits }
}

#[inline(always)]
fn flushed(x: f32) -> f32 {
    if x.abs() < f32::MIN_POSITIVE { 0f32.copysign(x) } else { x }
}

#[inline(always)]
fn saturated(x: f32) -> f32 {
    // NaN becomes zero, and so does minus zero.
    if x > 0.0 { x.min(1.0) } else { 0.0 }
}

/// What happens to operands and result besides the operation.
#[derive(Clone, Copy)]
struct Around {
    flush: bool,
    saturate: bool,
}

impl Around {
    #[inline(always)]
    fn before(self, x: f32) -> f32 {
        if self.flush { flushed(x) } else { x }
    }

    #[inline(always)]
    fn after(self, x: f32) -> u32 {
        let x = if self.flush { flushed(x) } else { x };
        canonical(if self.saturate { saturated(x) } else { x })
    }
}

/// An operation in f32: without modifiers it is compiled apart, since it is most of what kernels do.
macro_rules! single {
    ($around:expr, ($($x:ident),+), $n:ident, $body:expr) => {
        if $around.flush || $around.saturate {
            let around = $around;
            $n(move |$($x: f32),+| {
                $(let $x = around.before($x);)+
                around.after($body)
            })
        } else {
            $n(move |$($x: f32),+| canonical($body))
        }
    };
}

/// Operations of one to three operands by their exact result.
#[derive(Clone, Copy, PartialEq)]
enum Exact {
    Add,
    Sub,
    Mul,
    Fma,
    Div,
    Sqrt,
    Rcp,
}

impl Exact {
    fn apply(self, a: u64, b: u64, c: u64, f: Format, mode: Mode) -> u64 {
        match self {
            Exact::Add => num::add(a, b, f, mode),
            Exact::Sub => num::add(a, if f.is_nan(b) { b } else { b ^ f.sign() }, f, mode),
            Exact::Mul => num::mul(a, b, f, mode),
            Exact::Fma => num::fma(a, b, c, f, mode),
            Exact::Div => num::div(a, b, f, mode),
            Exact::Sqrt => num::sqrt(a, f, mode),
            Exact::Rcp => num::div(((1 << (f.exp - 1)) - 1) << f.man, a, f, mode),
        }
    }
}

/// The function of packed or single elements of a 16-bit format, or of a rounding mode that the host has not.
fn soft(op: Exact, ty: Type, f: Format, mode: Mode, around: Around, relu: bool) -> Function {
    let one = move |a: u64, b: u64, c: u64| {
        let before = |x| if around.flush { f.flush(x) } else { x };
        let out = op.apply(before(a), before(b), before(c), f, mode);
        let out = if around.flush { f.flush(out) } else { out };
        let negative = out & f.sign() != 0 && !f.is_nan(out);
        let one = ((1u64 << (f.exp - 1)) - 1) << f.man;
        if around.saturate {
            if f.is_nan(out) || negative { 0 } else { out.min(one) }
        } else if relu && negative {
            0
        } else {
            out
        }
    };
    packed(ty, one)
}

/// Applies `one` to the elements of a packed type, or to the only one.
fn packed(ty: Type, one: impl Fn(u64, u64, u64) -> u64 + Send + Sync + 'static) -> Function {
    match ty {
        Type::F16x2 | Type::BF16x2 => ternary(move |a: u64, b: u64, c: u64| {
            let low = |v: u64| v & 0xffff;
            one(low(a), low(b), low(c)) | one(low(a >> 16), low(b >> 16), low(c >> 16)) << 16
        }),
        _ => ternary(one),
    }
}

impl Decoder<'_> {
    /// `add sub mul mad fma div neg abs min max` of floating-point types.
    pub(super) fn float_arithmetic(&mut self, base: &str, m: &mut Mods<'_>) -> Result<Action> {
        let approximate = base == "div" && (m.next_is("approx") || m.next_is("full"));
        let mode = m.mode();
        let around = Around { flush: m.has("ftz"), saturate: m.has("sat") };
        let relu = m.has("relu");
        let (nan, xorsign, abs) = (m.has("NaN"), m.has("xorsign"), m.has("abs"));
        let ty = m.ty()?;
        let Some(format) = Format::of(ty).filter(|_| ty.size() > 1 && ty != Type::TF32) else {
            return Err(m.no_type(ty));
        };
        let small = !matches!(ty, Type::F32 | Type::F64);
        if around.flush && !matches!(format, num::F16 | F32) {
            return Err(m.unsupported("`.ftz` is of f32 and f16"));
        }
        if around.saturate && (ty == Type::F64 || format == num::BF16) {
            return Err(m.unsupported("`.sat` is of f32 and f16"));
        }
        let one = [ty];
        let two = [ty; 2];
        match base {
            "neg" | "abs" => {
                let signs = if matches!(ty, Type::F16x2 | Type::BF16x2) { 0x8000_8000 } else { format.sign() };
                let negate = base == "neg";
                let f = unary(move |a: u64| {
                    let a = if around.flush && ty == Type::F32 { F32.flush(a) } else { a };
                    if negate { a ^ signs } else { a & !signs }
                });
                return self.compute(m, f, ty, &one);
            }
            "min" | "max" => {
                let largest = base == "max";
                let f = packed(ty, move |a, b, _| {
                    let flip = if xorsign { (a ^ b) & format.sign() } else { 0 };
                    let before = |x: u64| {
                        let x = if around.flush { format.flush(x) } else { x };
                        if abs { x & !format.sign() } else { x }
                    };
                    let out = extreme(before(a), before(b), format, largest, nan);
                    if xorsign && !format.is_nan(out) { out & !format.sign() | flip } else { out }
                });
                return self.compute(m, f, ty, &two);
            }
            _ => {}
        }
        if nan || xorsign || abs {
            return Err(m.unsupported("`.NaN` and `.xorsign.abs` are of `min` and `max`"));
        }
        if relu && !(base == "fma" && small) {
            return Err(m.unsupported("`.relu` is of `fma` in 16 bit"));
        }
        let op = match base {
            "add" => Exact::Add,
            "sub" => Exact::Sub,
            "mul" => Exact::Mul,
            "div" if !small => Exact::Div,
            "fma" => Exact::Fma,
            "mad" if !small => Exact::Fma,
            _ => return Err(m.no_type(ty)),
        };
        if matches!(op, Exact::Div | Exact::Fma) && mode.is_none() && !approximate {
            return Err(m.unsupported("a rounding mode is missing"));
        }
        let mode = mode.unwrap_or(Mode::Rn);
        if mode == Mode::Rna || (small && mode != Mode::Rn) {
            return Err(m.unsupported("not one of its rounding modes"));
        }
        let f = match (ty, op) {
            _ if small || mode != Mode::Rn => soft(op, ty, format, mode, around, relu),
            (Type::F32, Exact::Add) => single!(around, (a, b), binary, a + b),
            (Type::F32, Exact::Sub) => single!(around, (a, b), binary, a - b),
            (Type::F32, Exact::Mul) => single!(around, (a, b), binary, a * b),
            (Type::F32, Exact::Div) => single!(around, (a, b), binary, a / b),
            (Type::F32, _) => single!(around, (a, b, c), ternary, a.mul_add(b, c)),
            (_, Exact::Add) => binary(|a: f64, b: f64| a + b),
            (_, Exact::Sub) => binary(|a: f64, b: f64| a - b),
            (_, Exact::Mul) => binary(|a: f64, b: f64| a * b),
            (_, Exact::Div) => binary(|a: f64, b: f64| a / b),
            _ => ternary(|a: f64, b: f64, c: f64| a.mul_add(b, c)),
        };
        let from: &[Type] = if op == Exact::Fma { &[ty; 3] } else { &two };
        let action = self.compute(m, f, ty, from)?;
        Ok(mark(action, approximate))
    }

    /// Reciprocals, roots and the functions of the special-function unit.
    ///
    /// Approximate forms give the correctly rounded result, which is within every bound of the manual; they are
    /// counted, since the hardware's bits may differ.
    pub(super) fn function(&mut self, base: &str, m: &mut Mods<'_>) -> Result<Action> {
        if base == "copysign" {
            let ty = m.ty()?;
            let f = match ty {
                Type::F32 | Type::F64 => {
                    let sign = 1u64 << (ty.bits() - 1);
                    binary(move |a: u64, b: u64| b & !sign | a & sign)
                }
                _ => return Err(m.no_type(ty)),
            };
            return self.compute(m, f, ty, &[ty; 2]);
        }
        let approximate = m.has("approx");
        let mode = m.mode();
        let around = Around { flush: m.has("ftz"), saturate: false };
        let ty = m.ty()?;
        if approximate == mode.is_some() {
            return Err(m.unsupported("expected either `.approx` or a rounding mode"));
        }
        if let Some(mode) = mode {
            let (op, format) = match (base, ty) {
                ("rcp", Type::F32) => (Exact::Rcp, F32),
                ("rcp", Type::F64) => (Exact::Rcp, F64),
                ("sqrt", Type::F32) => (Exact::Sqrt, F32),
                ("sqrt", Type::F64) => (Exact::Sqrt, F64),
                _ => return Err(m.no_type(ty)),
            };
            let f = match (op, ty) {
                _ if mode != Mode::Rn => soft(op, ty, format, mode, around, false),
                (Exact::Rcp, Type::F32) => single!(around, (a), unary, 1.0 / a),
                (Exact::Sqrt, Type::F32) => single!(around, (a), unary, a.sqrt()),
                (Exact::Rcp, _) => unary(|a: f64| 1.0 / a),
                _ => unary(f64::sqrt),
            };
            return self.compute(m, f, ty, &[ty]);
        }
        let f: fn(f64) -> f64 = match base {
            "rcp" => |x| 1.0 / x,
            "sqrt" => f64::sqrt,
            "rsqrt" => |x| 1.0 / x.sqrt(),
            "sin" => f64::sin,
            "cos" => f64::cos,
            "lg2" => f64::log2,
            "ex2" => f64::exp2,
            _ => f64::tanh,
        };
        let g = match (base, ty) {
            (_, Type::F32) => single!(around, (a), unary, f(a as f64) as f32),
            ("ex2" | "tanh", Type::F16 | Type::BF16 | Type::F16x2 | Type::BF16x2) => {
                let format = Format::of(ty).ok_or_else(|| m.no_type(ty))?;
                packed(ty, move |a, _, _| {
                    let wide = num::convert::float_to_float(a, format, F64, Mode::Rn);
                    let out = f(f64::from_bits(wide)).to_bits();
                    num::convert::float_to_float(out, F64, format, Mode::Rn)
                })
            }
            // These two look at the upper word of their operand only, and give zeros in the lower.
            ("rcp" | "rsqrt", Type::F64) if around.flush => unary(move |a: u64| {
                let upper = 0xffff_ffff_0000_0000;
                f(f64::from_bits(F64.flush(a & upper))).to_bits() & upper
            }),
            _ => return Err(m.no_type(ty)),
        };
        let action = self.compute(m, g, ty, &[ty])?;
        Ok(mark(action, true))
    }
}

fn mark(mut action: Action, flag: bool) -> Action {
    if let Action::Compute { approximate, .. } = &mut action {
        *approximate = flag;
    }
    action
}

/// The smaller or larger of two numbers: minus zero is below zero; NaN loses, unless `nan` asks for it.
fn extreme(a: u64, b: u64, f: Format, largest: bool, nan: bool) -> u64 {
    match (f.is_nan(a), f.is_nan(b)) {
        (true, true) => return f.nan,
        (true, false) | (false, true) if nan => return f.nan,
        (true, false) => return b,
        (false, true) => return a,
        _ => {}
    }
    // Magnitudes grow with their bits, negative numbers the other way.
    let order = |x: u64| if x & f.sign() != 0 { -((x & !f.sign()) as i128) - 1 } else { x as i128 };
    if (order(a) < order(b)) == largest { b } else { a }
}
