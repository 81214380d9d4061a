//! `cvt`.

use super::Decoder;
use super::function::{binary, unary};
use super::mods::Mods;
use super::operand::mask;
use crate::code::{Action, Function};
use crate::error::Result;
use crate::num::convert::{
    bf16_to_f32, f16_to_f32, f32_to_bf16, f32_to_f16, float_to_float, float_to_float_finite, float_to_int,
    int_to_float, round_to_integral,
};
use crate::num::{F32, Format, Mode};
use crate::types::Type;

/// Modifiers of a conversion.
#[derive(Clone, Copy)]
struct Rules {
    mode: Option<Mode>,
    /// `.rni` … were written: rounding to an integer.
    integral: bool,
    flush: bool,
    saturate: bool,
    finite: bool,
    relu: bool,
}

fn integral_mode(name: &str) -> Option<Mode> {
    Some(match name {
        "rni" => Mode::Rn,
        "rzi" => Mode::Rz,
        "rmi" => Mode::Rm,
        "rpi" => Mode::Rp,
        _ => return None,
    })
}

impl Decoder<'_> {
    pub(super) fn convert(&mut self, m: &mut Mods<'_>) -> Result<Action> {
        if m.next_is("pack") {
            return self.convert_pack(m);
        }
        let integral = m.find(integral_mode);
        let mode = integral.or_else(|| m.mode());
        let rules = Rules {
            mode,
            integral: integral.is_some(),
            flush: m.has("ftz"),
            saturate: m.has("sat"),
            finite: m.has("satfinite"),
            relu: m.has("relu"),
        };
        let (to, from) = (m.ty()?, m.ty()?);
        if matches!(to, Type::F16x2 | Type::BF16x2 | Type::E4M3x2 | Type::E5M2x2) {
            return self.convert_packed(m, to, from, rules);
        }
        m.done(2)?;
        let source = self.wide_source(m, m.operand(1)?, from)?;
        let (register, of) = self.wide_destination(m, m.operand(0)?, to)?;
        let f = conversion(to, from, rules).map_err(|reason| m.unsupported(reason))?;
        // What a wider register holds is the value extended by the sign of the destination's type.
        let f = if of.size() > to.size() && to.is_signed() { extended(f, to, mask(of)) } else { f };
        let zero = self.constant(0);
        Ok(Action::Compute { f, to: register, from: [source, zero, zero, zero], count: 1, approximate: false })
    }

    /// Two numbers at once: of two f32 (the first goes to the upper half), or of a packed pair.
    fn convert_packed(&mut self, m: &mut Mods<'_>, to: Type, from: Type, rules: Rules) -> Result<Action> {
        let (Some(target), Some(origin)) = (Format::of(to), Format::of(from)) else {
            return Err(m.no_type(from));
        };
        let Some(mode @ (Mode::Rn | Mode::Rz)) = rules.mode else {
            return Err(m.unsupported("expected `.rn` or `.rz`"));
        };
        let eight = to.size() == 2;
        let wrong = rules.integral || rules.flush || rules.saturate || (eight && (!rules.finite || mode != Mode::Rn));
        if wrong {
            return Err(m.unsupported("modifiers that this conversion has not"));
        }
        let one = move |bits: u64| {
            let out = match rules.finite {
                true => float_to_float_finite(bits, origin, target, mode),
                false => float_to_float(bits, origin, target, mode),
            };
            if rules.relu && out & target.sign() != 0 && !target.is_nan(out) { 0 } else { out }
        };
        let width = target.bits();
        if from == Type::F32 {
            let f = binary(move |a: u64, b: u64| one(a) << width | one(b));
            return self.compute(m, f, to, &[from; 2]);
        }
        let origin_width = origin.bits();
        let pairs = (eight && matches!(from, Type::F16x2 | Type::BF16x2))
            || (to == Type::F16x2 && matches!(from, Type::E4M3x2 | Type::E5M2x2));
        if !pairs {
            return Err(m.no_type(from));
        }
        let low = (1u64 << origin_width) - 1;
        let f = unary(move |a: u64| one(a >> origin_width & low) << width | one(a & low));
        self.compute(m, f, to, &[from])
    }

    /// `cvt.pack.sat.s16.s32 d, a, b` and `cvt.pack.sat.u8.s32.b32 d, a, b, c`: the first goes above the second.
    fn convert_pack(&mut self, m: &mut Mods<'_>) -> Result<Action> {
        if !m.next_is("sat") {
            return Err(m.unsupported("expected `.sat`"));
        }
        let (to, from) = (m.ty()?, m.ty()?);
        let (bits, signed) = match to {
            Type::U16 | Type::S16 => (16, to.is_signed()),
            Type::U8 | Type::S8 => (8, to.is_signed()),
            _ => return Err(m.no_type(to)),
        };
        if from != Type::S32 {
            return Err(m.no_type(from));
        }
        let one = move |v: u64| clamp(v as i32 as i128, bits, signed);
        if bits == 8 {
            if m.ty()? != Type::B32 {
                return Err(m.unsupported("expected `.b32`"));
            }
            let f =
                super::function::ternary(move |a: u64, b: u64, c: u64| (c << 16 & 0xffff_0000) | one(a) << 8 | one(b));
            return self.compute(m, f, Type::B32, &[Type::S32, Type::S32, Type::B32]);
        }
        self.compute(m, binary(move |a: u64, b: u64| one(a) << 16 | one(b)), Type::B32, &[Type::S32; 2])
    }
}

fn extended(f: Function, to: Type, mask: u64) -> Function {
    let up = 64 - to.bits();
    Box::new(move |s, d| {
        f(s, d);
        for v in d.iter_mut() {
            *v = ((*v << up) as i64 >> up) as u64 & mask;
        }
    })
}

fn clamp(value: i128, bits: u32, signed: bool) -> u64 {
    let (low, high) = if signed { (-(1i128 << (bits - 1)), (1 << (bits - 1)) - 1) } else { (0, (1i128 << bits) - 1) };
    let mask = if bits == 64 { u64::MAX } else { (1 << bits) - 1 };
    value.clamp(low, high) as u64 & mask
}

/// The value of an integer type.
fn integer(bits: u64, ty: Type) -> i128 {
    let up = 64 - ty.bits();
    if ty.is_signed() { ((bits << up) as i64 >> up) as i128 } else { (bits & mask(ty)) as i128 }
}

fn conversion(to: Type, from: Type, r: Rules) -> std::result::Result<Function, &'static str> {
    let plain = !r.flush && !r.saturate && !r.finite && !r.relu;
    match (Format::of(to), Format::of(from)) {
        (None, None) => {
            if r.mode.is_some() || r.flush || r.finite || r.relu {
                return Err("integers are not rounded");
            }
            if to == Type::Pred || from == Type::Pred {
                return Err("predicates are not converted");
            }
            let (keep, saturate) = (mask(to), r.saturate);
            let (bits, signed) = (to.bits(), to.is_signed());
            if !saturate && !from.is_signed() {
                let keep = keep & mask(from);
                return Ok(unary(move |a: u64| a & keep));
            }
            Ok(unary(move |a: u64| {
                let v = integer(a, from);
                if saturate { clamp(v, bits, signed) } else { v as u64 & keep }
            }))
        }
        (Some(f), None) => {
            let mode = r.mode.filter(|m| !r.integral && *m != Mode::Rna).ok_or("expected a rounding mode of floats")?;
            if r.finite || r.relu {
                return Err("modifiers that this conversion has not");
            }
            match (to, from, mode) {
                (Type::F32, Type::U32, Mode::Rn) if plain => return Ok(unary(|a: u32| a as f32)),
                (Type::F32, Type::S32, Mode::Rn) if plain => return Ok(unary(|a: i32| a as f32)),
                _ => {}
            }
            let saturate = r.saturate;
            Ok(unary(move |a: u64| {
                let v = integer(a, from);
                let out = int_to_float(v < 0, v.unsigned_abs() as u64, f, mode);
                if saturate { unit(out, f) } else { out }
            }))
        }
        (None, Some(f)) => {
            let mode = r.mode.filter(|_| r.integral).ok_or("expected a rounding mode of integers")?;
            if r.finite || r.relu {
                return Err("modifiers that this conversion has not");
            }
            // Floats are clamped to the integer's range with or without `.sat`.
            let (bits, signed, flush) = (to.bits(), to.is_signed(), r.flush);
            match (to, from, mode) {
                (Type::S32, Type::F32, Mode::Rz) if plain => return Ok(unary(|a: f32| a as i32)),
                (Type::U32, Type::F32, Mode::Rz) if plain => return Ok(unary(|a: f32| a as u32)),
                _ => {}
            }
            Ok(unary(move |a: u64| {
                let a = if flush { f.flush(a & mask(from)) } else { a & mask(from) };
                float_to_int(a, f, bits, signed, mode)
            }))
        }
        (Some(target), Some(origin)) => float_conversion(to, from, target, origin, r),
    }
}

fn float_conversion(
    to: Type,
    from: Type,
    target: Format,
    origin: Format,
    r: Rules,
) -> std::result::Result<Function, &'static str> {
    if to.size() == 1 || from.size() == 1 || from == Type::TF32 || matches!(from, Type::F16x2 | Type::BF16x2) {
        return Err("not a conversion of the manual");
    }
    let keep = mask(from);
    if r.integral {
        if to != from || r.finite || r.relu {
            return Err("rounding to an integer keeps the type");
        }
        let mode = r.mode.unwrap_or(Mode::Rn);
        return Ok(unary(move |a: u64| {
            let a = if r.flush { origin.flush(a & keep) } else { a & keep };
            let out = round_to_integral(a, origin, mode);
            if r.saturate { unit(out, origin) } else { out }
        }));
    }
    let narrowing = target.man < origin.man || target.exp < origin.exp;
    let mode = match (narrowing, r.mode) {
        (true, None) => return Err("a rounding mode is missing"),
        (true, Some(Mode::Rna)) if to != Type::TF32 => return Err("`.rna` is of tf32"),
        (_, mode) => mode.unwrap_or(Mode::Rn),
    };
    if r.relu && !matches!(to, Type::F16 | Type::BF16 | Type::TF32) {
        return Err("`.relu` is of 16 bit and tf32");
    }
    if mode == Mode::Rn && !r.flush && !r.saturate && !r.finite && !r.relu {
        match (to, from) {
            (Type::F32, Type::F16) => return Ok(unary(|a: u16| f16_to_f32(a))),
            (Type::F32, Type::BF16) => return Ok(unary(|a: u16| bf16_to_f32(a))),
            (Type::F16, Type::F32) => return Ok(unary(|a: f32| f32_to_f16(a))),
            (Type::BF16, Type::F32) => return Ok(unary(|a: f32| f32_to_bf16(a))),
            _ => {}
        }
    }
    let shift = if to == Type::TF32 { 13 } else { 0 };
    Ok(unary(move |a: u64| {
        let a = a & keep;
        let a = if r.flush && origin == F32 { origin.flush(a) } else { a };
        let out = match r.finite {
            true => float_to_float_finite(a, origin, target, mode),
            false => float_to_float(a, origin, target, mode),
        };
        let out = if r.flush && target == F32 { target.flush(out) } else { out };
        let out = if r.saturate { unit(out, target) } else { out };
        let negative = out & target.sign() != 0 && !target.is_nan(out);
        let out = if r.relu && negative { 0 } else { out << shift };
        // The NaN of tf32 is that of f32.
        if shift != 0 && out >> 23 & 0xff == 0xff && out & 0x7f_ffff != 0 { 0x7fff_ffff } else { out }
    }))
}

/// Clamped to 0 … 1; NaN and minus zero become zero.
fn unit(bits: u64, f: Format) -> u64 {
    let one = ((1u64 << (f.exp - 1)) - 1) << f.man;
    if f.is_nan(bits) || bits & f.sign() != 0 { 0 } else { bits.min(one) }
}
