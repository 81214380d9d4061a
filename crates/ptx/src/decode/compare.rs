//! Comparisons, selections, and arithmetic with a carry.

use super::Decoder;
use super::function::{by_integer, ternary, test};
use super::mods::Mods;
use crate::ast::Operand;
use crate::code::{Action, Lanes, Logic, Src, Test};
use crate::error::Result;
use crate::num::{self, Format};
use crate::types::Type;

impl Decoder<'_> {
    /// `setp set selp slct testp`.
    pub(super) fn compare(&mut self, base: &str, m: &mut Mods<'_>) -> Result<Action> {
        match base {
            "selp" => {
                let ty = m.ty()?;
                if ty == Type::Pred || ty.size() == 1 {
                    return Err(m.no_type(ty));
                }
                m.done(4)?;
                let (yes, no) = (self.source(m, 1, ty)?, self.source(m, 2, ty)?);
                let by = self.predicate(m, 3)?;
                Ok(Action::Select { to: self.destination(m, 0, ty)?, yes, no, by })
            }
            "slct" => {
                let flush = m.has("ftz");
                let (ty, by) = (m.ty()?, m.ty()?);
                let f = match by {
                    Type::S32 => ternary(|a: u64, b: u64, c: i32| if c >= 0 { a } else { b }),
                    // Minus zero is not below zero; NaN takes the second.
                    Type::F32 => ternary(move |a: u64, b: u64, c: f32| {
                        let c = if flush && c.is_subnormal() { 0.0 } else { c };
                        if c >= 0.0 { a } else { b }
                    }),
                    _ => return Err(m.no_type(by)),
                };
                self.compute(m, f, ty, &[ty, ty, by])
            }
            "testp" => {
                let what = m.next()?;
                let ty = m.ty()?;
                let f = Format::of(ty).filter(|_| matches!(ty, Type::F32 | Type::F64)).ok_or_else(|| m.no_type(ty))?;
                let class = move |bits: u64| {
                    let magnitude = bits & !f.sign();
                    let (nan, infinite) = (f.is_nan(bits), magnitude == f.infinity());
                    // Zeros are normal.
                    (nan, infinite, magnitude != 0 && magnitude >> f.man == 0)
                };
                let t: Test = match what {
                    "finite" => test(move |a: u64, _| !class(a).0 && !class(a).1),
                    "infinite" => test(move |a: u64, _| class(a).1),
                    "number" => test(move |a: u64, _| !class(a).0),
                    "notanumber" => test(move |a: u64, _| class(a).0),
                    "normal" => test(move |a: u64, _| !class(a).0 && !class(a).1 && !class(a).2),
                    "subnormal" => test(move |a: u64, _| class(a).2),
                    _ => return Err(m.unsupported("an unknown test")),
                };
                m.done(2)?;
                let from = [self.source(m, 1, ty)?; 2];
                let Operand::Name(p) = m.operand(0)? else { return Err(m.invalid("expected a predicate")) };
                Ok(Action::Compare { f: t, p: self.predicate_to(p)?, q: None, from, with: None })
            }
            _ => self.set(base, m),
        }
    }

    fn set(&mut self, base: &str, m: &mut Mods<'_>) -> Result<Action> {
        let how = m.next()?;
        let with = m.peek().and_then(Logic::from_name);
        if with.is_some() {
            m.next()?;
        }
        let flush = m.has("ftz");
        let to = if base == "set" { Some(m.ty()?) } else { None };
        let ty = m.ty()?;
        let f = comparison(how, ty, flush).ok_or_else(|| m.unsupported("not a comparison of this type"))?;
        m.done(3 + with.is_some() as usize)?;
        let from: [Src; 2] = [self.source(m, 1, ty)?, self.source(m, 2, ty)?];
        let with = match with {
            Some(logic) => Some((logic, self.predicate(m, 3)?)),
            None => None,
        };
        if let Some(to) = to {
            let yes = match to {
                Type::U32 | Type::S32 | Type::B32 => 0xffff_ffff,
                Type::U16 | Type::S16 => 0xffff,
                Type::F32 => 0x3f80_0000,
                Type::F16 => 0x3c00,
                Type::BF16 => 0x3f80,
                _ => return Err(m.no_type(to)),
            };
            return Ok(Action::Set { f, to: self.destination(m, 0, to)?, from, with, yes });
        }
        let (p, q) = match m.operand(0)? {
            Operand::Name(p) => (self.predicate_to(p)?, None),
            Operand::Pair(p, q) => (self.predicate_to(p)?, self.predicate_to(q)?),
            _ => return Err(m.invalid("expected a predicate as destination")),
        };
        Ok(Action::Compare { f, p, q, from, with })
    }

    /// `add.cc addc subc madc …`: arithmetic that reads or writes the carry.
    pub(super) fn carry(&mut self, base: &str, m: &mut Mods<'_>) -> Result<Action> {
        let high = m.next_is("hi");
        let low = m.next_is("lo");
        let writes = m.next_is("cc");
        let ty = m.ty()?;
        let reads = base.ends_with('c');
        let wide = match ty {
            Type::U32 | Type::S32 | Type::B32 => false,
            Type::U64 | Type::S64 | Type::B64 => true,
            _ => return Err(m.no_type(ty)),
        };
        let signed = ty.is_signed();
        type Step = fn(u64, u64, u64, bool) -> (u64, bool);
        let f: Step = match (base.trim_end_matches('c'), wide, high, signed) {
            ("add", false, ..) => |a, b, _, c| split32(a + b + c as u64),
            ("add", true, ..) => |a, b, _, c| split64(a as u128 + b as u128 + c as u128),
            // The carry of a subtraction is its borrow.
            ("sub", false, ..) => |a, b, _, c| {
                let d = a.wrapping_sub(b).wrapping_sub(c as u64);
                (d & 0xffff_ffff, a < b + c as u64)
            },
            ("sub", true, ..) => |a, b, _, c| {
                let (d, e) = a.overflowing_sub(b);
                let (d, g) = d.overflowing_sub(c as u64);
                (d, e || g)
            },
            ("mad", false, false, _) => |a, b, x, c| split32((a * b & 0xffff_ffff) + x + c as u64),
            ("mad", false, true, false) => |a, b, x, c| split32((a * b >> 32) + x + c as u64),
            ("mad", false, true, true) => |a, b, x, c| {
                let product = (a as i32 as i64 * b as i32 as i64 >> 32) as u32;
                split32(product as u64 + x + c as u64)
            },
            ("mad", true, false, _) => |a, b, x, c| split64(a.wrapping_mul(b) as u128 + x as u128 + c as u128),
            ("mad", true, true, false) => |a, b, x, c| split64((a as u128 * b as u128 >> 64) + x as u128 + c as u128),
            ("mad", true, true, true) => |a, b, x, c| {
                let product = (a as i64 as i128 * b as i64 as i128 >> 64) as u64;
                split64(product as u128 + x as u128 + c as u128)
            },
            _ => return Err(m.unsupported("an unknown form with a carry")),
        };
        let mad = base.starts_with("mad");
        if mad != (high || low) || !(reads || writes) {
            return Err(m.unsupported("an unknown form with a carry"));
        }
        let count = 2 + mad as usize;
        m.done(count + 1)?;
        let mut from = [self.constant(0); 3];
        for (i, slot) in from.iter_mut().enumerate().take(count) {
            *slot = self.source(m, i + 1, ty)?;
        }
        let to = self.destination(m, 0, ty)?;
        Ok(Action::Carry { f, to, from, count: count as u8, reads, writes })
    }
}

fn split32(sum: u64) -> (u64, bool) {
    (sum & 0xffff_ffff, sum >> 32 != 0)
}

fn split64(sum: u128) -> (u64, bool) {
    (sum as u64, sum >> 64 != 0)
}

/// The function of a comparison; names that end in `u` are true of NaN.
fn comparison(how: &str, ty: Type, flush: bool) -> Option<Test> {
    if ty.is_float() {
        return match ty {
            Type::F32 if flush => ordered(how, |bits| f32::from_bits(num::F32.flush(bits) as u32) as f64),
            Type::F32 => ordered(how, |bits| f32::from_bits(bits as u32) as f64),
            Type::F64 if !flush => ordered(how, f64::from_bits),
            Type::F16 | Type::BF16 => {
                let f = Format::of(ty)?;
                ordered(how, move |bits| {
                    let bits = if flush { f.flush(bits) } else { bits };
                    f64::from_bits(num::convert::float_to_float(bits, f, num::F64, num::Mode::Rn))
                })
            }
            _ => None,
        };
    }
    if flush {
        return None;
    }
    macro_rules! integers {
        ($($name:pat => $op:tt;)*) => {
            match how {
                $($name => by_integer!(ty, T => test(|a: T, b: T| a $op b), else return None),)*
                _ => return None,
            }
        };
    }
    let unsigned = matches!(ty, Type::U16 | Type::U32 | Type::U64);
    let bits = matches!(ty, Type::B16 | Type::B32 | Type::B64);
    if (bits && !matches!(how, "eq" | "ne")) || (!unsigned && matches!(how, "lo" | "ls" | "hi" | "hs")) {
        return None;
    }
    Some(integers! {
        "eq" => ==;
        "ne" => !=;
        "lt" | "lo" => <;
        "le" | "ls" => <=;
        "gt" | "hi" => >;
        "ge" | "hs" => >=;
    })
}

/// True unless an operand is NaN, or for names that end in `u` also then: hence the negated comparisons.
#[allow(clippy::neg_cmp_op_on_partial_ord, clippy::double_comparisons)]
fn ordered(how: &str, of: impl Fn(u64) -> f64 + Send + Sync + Copy + 'static) -> Option<Test> {
    macro_rules! compare {
        ($($name:literal => |$a:ident, $b:ident| $e:expr;)*) => {
            match how {
                $($name => Box::new(move |x: &Lanes, y: &Lanes| {
                    let mut out = 0;
                    for i in 0..32 {
                        let ($a, $b) = (of(x[i]), of(y[i]));
                        out |= ($e as u32) << i;
                    }
                    out
                }) as Test,)*
                _ => return None,
            }
        };
    }
    Some(compare! {
        "eq" => |a, b| a == b;
        "ne" => |a, b| a < b || a > b;
        "lt" => |a, b| a < b;
        "le" => |a, b| a <= b;
        "gt" => |a, b| a > b;
        "ge" => |a, b| a >= b;
        "equ" => |a, b| !(a < b || a > b);
        "neu" => |a, b| a != b;
        "ltu" => |a, b| !(a >= b);
        "leu" => |a, b| !(a > b);
        "gtu" => |a, b| !(a <= b);
        "geu" => |a, b| !(a < b);
        "num" => |a, b| !a.is_nan() && !b.is_nan();
        "nan" => |a, b| a.is_nan() || b.is_nan();
    })
}
