//! Integer arithmetic and logic.

use super::Decoder;
use super::fields::{bfe, bfi, field, fns, lop3, mul24, prmt, prmt_mode};
use super::function::{binary, by_integer, quaternary, ternary, unary};
use super::mods::Mods;
use crate::code::{Action, Function, Predicate};
use crate::error::Result;
use crate::types::Type;

/// Which half of a product is kept.
#[derive(Clone, Copy, PartialEq)]
enum Part {
    Low,
    High,
    Wide,
}

impl Decoder<'_> {
    /// An arithmetic form whose sources all have the width of `ty`.
    pub(super) fn compute(&mut self, m: &Mods<'_>, f: Function, to: Type, from: &[Type]) -> Result<Action> {
        m.done(from.len() + 1)?;
        let mut sources = [self.constant(0); 4];
        for (i, &ty) in from.iter().enumerate() {
            sources[i] = self.source(m, i + 1, ty)?;
        }
        let to = self.destination(m, 0, to)?;
        Ok(Action::Compute { f, to, from: sources, count: from.len() as u8, approximate: false })
    }

    /// Opcodes that integers and floats share.
    pub(super) fn arithmetic(&mut self, base: &str, m: &mut Mods<'_>) -> Result<Action> {
        let part = if m.next_is("wide") {
            Some(Part::Wide)
        } else if m.next_is("hi") {
            Some(Part::High)
        } else if m.next_is("lo") {
            Some(Part::Low)
        } else {
            None
        };
        if part.is_none() && m.find(|p| Type::from_name(p).filter(|t| t.is_float()).map(|_| ())).is_some() {
            // `find` took the type; the other half reads the whole opcode again.
            return self.float_arithmetic(base, &mut Mods::new(m.inst).1);
        }
        if m.has("cc") {
            return self.carry(base, &mut Mods::new(m.inst).1);
        }
        let saturate = m.next_is("sat");
        let relu = m.next_is("relu");
        let ty = m.ty()?;
        if let Some(part) = part {
            return self.product(base, part, saturate, ty, m);
        }
        if saturate {
            let f = match (base, ty) {
                ("add", Type::S32) => binary(|a: i32, b: i32| a.saturating_add(b)),
                ("sub", Type::S32) => binary(|a: i32, b: i32| a.saturating_sub(b)),
                _ => return Err(m.unsupported("only `add` and `sub` of `.s32` saturate")),
            };
            return self.compute(m, f, ty, &[ty, ty]);
        }
        let f = match base {
            "add" => by_integer!(ty, T => binary(|a: T, b: T| a.wrapping_add(b)), else return Err(m.no_type(ty))),
            "sub" => by_integer!(ty, T => binary(|a: T, b: T| a.wrapping_sub(b)), else return Err(m.no_type(ty))),
            // Division by zero is unspecified; the hardware gives all ones.
            "div" => by_integer!(ty, T => binary(|a: T, b: T| if b == 0 { !0 } else { a.wrapping_div(b) }),
                else return Err(m.no_type(ty))),
            "min" if relu && ty == Type::S32 => binary(|a: i32, b: i32| a.min(b).max(0)),
            "max" if relu && ty == Type::S32 => binary(|a: i32, b: i32| a.max(b).max(0)),
            "min" => by_integer!(ty, T => binary(|a: T, b: T| a.min(b)), else return Err(m.no_type(ty))),
            "max" => by_integer!(ty, T => binary(|a: T, b: T| a.max(b)), else return Err(m.no_type(ty))),
            "neg" if ty.is_signed() => {
                let f = by_integer!(ty, T => unary(|a: T| (0 as T).wrapping_sub(a)), else return Err(m.no_type(ty)));
                return self.compute(m, f, ty, &[ty]);
            }
            "abs" => {
                let f = match ty {
                    Type::S16 => unary(i16::wrapping_abs),
                    Type::S32 => unary(i32::wrapping_abs),
                    Type::S64 => unary(i64::wrapping_abs),
                    _ => return Err(m.no_type(ty)),
                };
                return self.compute(m, f, ty, &[ty]);
            }
            _ => return Err(m.no_type(ty)),
        };
        self.compute(m, f, ty, &[ty, ty])
    }

    /// `mul` and `mad` with `.lo`, `.hi`, `.wide`.
    fn product(&mut self, base: &str, part: Part, saturate: bool, ty: Type, m: &Mods<'_>) -> Result<Action> {
        let add = base == "mad";
        if !add && base != "mul" {
            return Err(m.unsupported("only `mul` and `mad` have parts"));
        }
        let to = match (part, ty) {
            (Part::Wide, Type::U16) => Type::U32,
            (Part::Wide, Type::S16) => Type::S32,
            (Part::Wide, Type::U32) => Type::U64,
            (Part::Wide, Type::S32) => Type::S64,
            (Part::Wide, _) => return Err(m.no_type(ty)),
            _ if matches!(ty, Type::B16 | Type::B32 | Type::B64) => return Err(m.no_type(ty)),
            _ => ty,
        };
        if saturate {
            if !(add && part == Part::High && ty == Type::S32) {
                return Err(m.unsupported("only `mad.hi.s32` saturates"));
            }
            let f = ternary(|a: i32, b: i32, c: i32| ((a as i64 * b as i64 >> 32) as i32).saturating_add(c));
            return self.compute(m, f, ty, &[ty; 3]);
        }
        macro_rules! product {
            ($($name:pat => $t:ty, $double:ty;)*) => {
                match ty {
                    $($name => match part {
                        Part::Low => ternary(|a: $t, b: $t, c: $t| a.wrapping_mul(b).wrapping_add(c)),
                        Part::High => ternary(|a: $t, b: $t, c: $t| {
                            let high = (a as $double * b as $double) >> <$t>::BITS;
                            (high as $t).wrapping_add(c)
                        }),
                        Part::Wide => ternary(|a: $t, b: $t, c: u64| {
                            (a as i64).wrapping_mul(b as i64).wrapping_add(c as i64)
                        }),
                    },)*
                    _ => return Err(m.no_type(ty)),
                }
            };
        }
        let f = product! {
            Type::U16 => u16, u32;
            Type::S16 => i16, i32;
            Type::U32 => u32, u64;
            Type::S32 => i32, i64;
            Type::U64 => u64, u128;
            Type::S64 => i64, i128;
        };
        // A wide product of 16 bits is computed in 64 and cut to 32.
        let f: Function = if part == Part::Wide && to.size() == 4 {
            Box::new(move |s, d| {
                f(s, d);
                for v in d.iter_mut() {
                    *v &= 0xffff_ffff;
                }
            })
        } else {
            f
        };
        // Unused sources are the constant zero, which is what a product adds.
        if add { self.compute(m, f, to, &[ty, ty, to]) } else { self.compute(m, f, to, &[ty, ty]) }
    }

    /// Opcodes of integers alone.
    pub(super) fn integer(&mut self, base: &str, m: &mut Mods<'_>) -> Result<Action> {
        let shift_amount = m.next_is("shiftamt");
        let part = m.next_is("lo");
        let high = !part && m.next_is("hi");
        let clamp = m.next_is("clamp");
        let wrap = !clamp && m.next_is("wrap");
        let ty = m.ty()?;
        let (b32, u32_) = (Type::B32, Type::U32);
        match (base, ty) {
            ("rem", _) => {
                let f = by_integer!(ty, T => binary(|a: T, b: T| if b == 0 { a } else { a.wrapping_rem(b) }),
                    else return Err(m.no_type(ty)));
                self.compute(m, f, ty, &[ty, ty])
            }
            ("mul24", Type::U32 | Type::S32) => {
                let f = ternary(move |a: u32, b: u32, _: u32| mul24(a, b, high, ty.is_signed()));
                self.compute(m, f, ty, &[ty, ty])
            }
            ("mad24", Type::U32 | Type::S32) => {
                let f = ternary(move |a: u32, b: u32, c: u32| mul24(a, b, high, ty.is_signed()).wrapping_add(c));
                self.compute(m, f, ty, &[ty; 3])
            }
            ("sad", _) => {
                let f = by_integer!(ty, T => ternary(|a: T, b: T, c: T| {
                    a.max(b).wrapping_sub(a.min(b)).wrapping_add(c)
                }), else return Err(m.no_type(ty)));
                self.compute(m, f, ty, &[ty; 3])
            }
            ("popc", Type::B32) => self.compute(m, unary(|a: u32| a.count_ones()), u32_, &[ty]),
            ("popc", Type::B64) => self.compute(m, unary(|a: u64| a.count_ones()), u32_, &[ty]),
            ("clz", Type::B32) => self.compute(m, unary(|a: u32| a.leading_zeros()), u32_, &[ty]),
            ("clz", Type::B64) => self.compute(m, unary(|a: u64| a.leading_zeros()), u32_, &[ty]),
            ("brev", Type::B32) => self.compute(m, unary(u32::reverse_bits), ty, &[ty]),
            ("brev", Type::B64) => self.compute(m, unary(u64::reverse_bits), ty, &[ty]),
            ("bfind", Type::U32 | Type::S32 | Type::U64 | Type::S64) => {
                let f = by_integer!(ty, T => unary(move |a: T| {
                    // Of a negative number the highest zero is looked for.
                    #[allow(unused_comparisons, clippy::absurd_extreme_comparisons)]
                    let a = if a < 0 { !a } else { a };
                    match a.leading_zeros() {
                        T::BITS => u32::MAX,
                        zeros if shift_amount => zeros,
                        zeros => T::BITS - 1 - zeros,
                    }
                }), else return Err(m.no_type(ty)));
                self.compute(m, f, u32_, &[ty])
            }
            ("bfe", Type::U32 | Type::S32) => {
                let f = ternary(move |a: u32, b: u32, c: u32| bfe(a as u64, b, c, 32, ty.is_signed()) as u32);
                self.compute(m, f, ty, &[ty, u32_, u32_])
            }
            ("bfe", Type::U64 | Type::S64) => {
                let f = ternary(move |a: u64, b: u32, c: u32| bfe(a, b, c, 64, ty.is_signed()));
                self.compute(m, f, ty, &[ty, u32_, u32_])
            }
            ("bfi", Type::B32 | Type::B64) => {
                let bits = ty.bits();
                self.compute(m, quaternary(move |a, b, c, d| bfi(a, b, c, d, bits)), ty, &[ty, ty, u32_, u32_])
            }
            ("fns", Type::B32) => self.compute(m, ternary(fns), b32, &[b32, u32_, Type::S32]),
            ("szext", Type::U32 | Type::S32) if clamp || wrap => {
                let f = binary(move |a: u32, b: u32| {
                    let length = if clamp { b.min(32) } else { b & 31 };
                    bfe(a as u64, 0, length, 32, ty.is_signed()) as u32
                });
                self.compute(m, f, ty, &[ty, u32_])
            }
            ("bmsk", Type::B32) if clamp || wrap => {
                let f = binary(move |a: u32, b: u32| {
                    let (a, b) = if clamp { (a.min(32), b.min(32)) } else { (a & 31, b & 31) };
                    (((1u64 << b) - 1) << a) as u32
                });
                self.compute(m, f, ty, &[u32_, u32_])
            }
            ("dp4a" | "dp2a", Type::U32 | Type::S32) => {
                let other = m.ty()?;
                if !matches!(other, Type::U32 | Type::S32) || (base == "dp2a") != (part || high) {
                    return Err(m.unsupported("expected two types, and a half for `dp2a`"));
                }
                let (sa, sb, two) = (ty.is_signed(), other.is_signed(), base == "dp2a");
                let f = ternary(move |a: u32, b: u32, c: u32| {
                    let sum: i64 = if two {
                        (0..2).map(|i| field(a, i, 16, sa) * field(b, i + 2 * high as u32, 8, sb)).sum()
                    } else {
                        (0..4).map(|i| field(a, i, 8, sa) * field(b, i, 8, sb)).sum()
                    };
                    c.wrapping_add(sum as u32)
                });
                self.compute(m, f, u32_, &[u32_; 3])
            }
            _ => Err(m.no_type(ty)),
        }
    }

    /// Logic and shifts.
    pub(super) fn bits(&mut self, base: &str, m: &mut Mods<'_>) -> Result<Action> {
        let u32_ = Type::U32;
        match base {
            "shf" => {
                let left = match m.next()? {
                    "l" => true,
                    "r" => false,
                    _ => return Err(m.unsupported("expected `.l` or `.r`")),
                };
                let clamp = m.next_is("clamp");
                if !clamp && !m.next_is("wrap") {
                    return Err(m.unsupported("expected `.clamp` or `.wrap`"));
                }
                let ty = m.ty()?;
                let f = ternary(move |a: u32, b: u32, c: u32| {
                    let n = if clamp { c.min(32) } else { c & 31 };
                    let both = (b as u64) << 32 | a as u64;
                    if left { (both << n >> 32) as u32 } else { (both >> n) as u32 }
                });
                return self.compute(m, f, ty, &[u32_; 3]);
            }
            "lop3" => {
                if m.ty()? != Type::B32 {
                    return Err(m.unsupported("expected `.b32` and no other modifier"));
                }
                m.operands(5)?;
                let table = match m.operand(4)? {
                    crate::ast::Operand::Int(table) if *table < 256 => *table as u32,
                    _ => return Err(m.invalid("expected a table below 256")),
                };
                let from = [self.source(m, 1, u32_)?, self.source(m, 2, u32_)?, self.source(m, 3, u32_)?];
                let to = self.destination(m, 0, u32_)?;
                let f = ternary(move |a: u32, b: u32, c: u32| lop3(a, b, c, table));
                let from = [from[0], from[1], from[2], self.constant(0)];
                return Ok(Action::Compute { f, to, from, count: 3, approximate: false });
            }
            "prmt" => {
                if m.ty()? != Type::B32 {
                    return Err(m.unsupported("expected `.b32`"));
                }
                let f = match m.peek() {
                    None => ternary(prmt),
                    Some(mode @ ("f4e" | "b4e" | "rc8" | "ecl" | "ecr" | "rc16")) => {
                        m.next()?;
                        let selectors = prmt_mode(mode);
                        ternary(move |a: u32, b: u32, c: u32| prmt(a, b, selectors[c as usize & 3]))
                    }
                    Some(_) => return Err(m.unsupported("an unknown mode")),
                };
                return self.compute(m, f, u32_, &[u32_; 3]);
            }
            _ => {}
        }
        let ty = m.ty()?;
        if ty == Type::Pred {
            return self.predicate_logic(base, m);
        }
        let f = match (base, ty) {
            ("not", Type::B16 | Type::B32 | Type::B64) => {
                let f = by_integer!(ty, T => unary(|a: T| !a), else return Err(m.no_type(ty)));
                return self.compute(m, f, ty, &[ty]);
            }
            ("cnot", Type::B16 | Type::B32 | Type::B64) => {
                let f = by_integer!(ty, T => unary(|a: T| (a == 0) as T), else return Err(m.no_type(ty)));
                return self.compute(m, f, ty, &[ty]);
            }
            ("and", Type::B16 | Type::B32 | Type::B64) => binary(|a: u64, b: u64| a & b),
            ("or", Type::B16 | Type::B32 | Type::B64) => binary(|a: u64, b: u64| a | b),
            ("xor", Type::B16 | Type::B32 | Type::B64) => binary(|a: u64, b: u64| a ^ b),
            ("shl", Type::B16 | Type::B32 | Type::B64) => {
                let f = by_integer!(ty, T => binary(|a: T, n: u32| a.checked_shl(n).unwrap_or(0)),
                    else return Err(m.no_type(ty)));
                return self.compute(m, f, ty, &[ty, u32_]);
            }
            // A shift by more than the width gives the sign, or zero.
            ("shr", _) => {
                let f = by_integer!(ty, T => binary(|a: T, n: u32| {
                    #[allow(unused_comparisons, clippy::absurd_extreme_comparisons)]
                    a.checked_shr(n).unwrap_or(if a < 0 { !0 } else { 0 })
                }), else return Err(m.no_type(ty)));
                return self.compute(m, f, ty, &[ty, u32_]);
            }
            _ => return Err(m.no_type(ty)),
        };
        self.compute(m, f, ty, &[ty, ty])
    }

    fn predicate_logic(&mut self, base: &str, m: &Mods<'_>) -> Result<Action> {
        let never = Predicate { index: u32::MAX, negated: true };
        let (op, a, b) = match base {
            "not" => {
                m.done(2)?;
                let a = self.predicate(m, 1)?;
                (crate::code::Logic::Or, Predicate { negated: !a.negated, ..a }, never)
            }
            "and" | "or" | "xor" => {
                m.done(3)?;
                let op = crate::code::Logic::from_name(base).ok_or_else(|| m.no_type(Type::Pred))?;
                (op, self.predicate(m, 1)?, self.predicate(m, 2)?)
            }
            _ => return Err(m.no_type(Type::Pred)),
        };
        let crate::ast::Operand::Name(name) = m.operand(0)? else {
            return Err(m.invalid("expected a predicate as destination"));
        };
        Ok(Action::Logic { op, to: self.predicate_named(name)?, a, b })
    }
}
