//! From scalar functions to functions over lanes.

use crate::code::{Function, Lanes, Test};

/// A scalar that a register holds.
pub(crate) trait Word: Copy + Send + Sync + 'static {
    fn of(bits: u64) -> Self;
    fn bits(self) -> u64;
}

macro_rules! words {
    ($($t:ty as $u:ty),*) => {$(
        impl Word for $t {
            #[inline(always)]
            fn of(bits: u64) -> Self {
                bits as $t
            }
            #[inline(always)]
            fn bits(self) -> u64 {
                self as $u as u64
            }
        }
    )*};
}

words!(u8 as u8, u16 as u16, u32 as u32, u64 as u64, i8 as u8, i16 as u16, i32 as u32, i64 as u64);

impl Word for f32 {
    #[inline(always)]
    fn of(bits: u64) -> f32 {
        f32::from_bits(bits as u32)
    }
    #[inline(always)]
    fn bits(self) -> u64 {
        self.to_bits() as u64
    }
}

impl Word for f64 {
    #[inline(always)]
    fn of(bits: u64) -> f64 {
        f64::from_bits(bits)
    }
    #[inline(always)]
    fn bits(self) -> u64 {
        self.to_bits()
    }
}

pub(crate) fn unary<A: Word, R: Word>(f: impl Fn(A) -> R + Send + Sync + 'static) -> Function {
    Box::new(move |s, d| {
        for i in 0..32 {
            d[i] = f(A::of(s[0][i])).bits();
        }
    })
}

pub(crate) fn binary<A: Word, B: Word, R: Word>(f: impl Fn(A, B) -> R + Send + Sync + 'static) -> Function {
    Box::new(move |s, d| {
        for i in 0..32 {
            d[i] = f(A::of(s[0][i]), B::of(s[1][i])).bits();
        }
    })
}

pub(crate) fn ternary<A: Word, B: Word, C: Word, R: Word>(
    f: impl Fn(A, B, C) -> R + Send + Sync + 'static,
) -> Function {
    Box::new(move |s, d| {
        for i in 0..32 {
            d[i] = f(A::of(s[0][i]), B::of(s[1][i]), C::of(s[2][i])).bits();
        }
    })
}

pub(crate) fn quaternary(f: impl Fn(u64, u64, u64, u64) -> u64 + Send + Sync + 'static) -> Function {
    Box::new(move |s, d| {
        for i in 0..32 {
            d[i] = f(s[0][i], s[1][i], s[2][i], s[3][i]);
        }
    })
}

pub(crate) fn test<A: Word>(f: impl Fn(A, A) -> bool + Send + Sync + 'static) -> Test {
    Box::new(move |a: &Lanes, b: &Lanes| {
        let mut out = 0;
        for i in 0..32 {
            out |= (f(A::of(a[i]), A::of(b[i])) as u32) << i;
        }
        out
    })
}

/// Evaluates `$body` with `$t` the Rust type of an integer type; `.b` types are unsigned.
macro_rules! by_integer {
    ($ty:expr, $t:ident => $body:expr, else $other:expr) => {
        match $ty {
            Type::U16 | Type::B16 => {
                type $t = u16;
                $body
            }
            Type::S16 => {
                type $t = i16;
                $body
            }
            Type::U32 | Type::B32 => {
                type $t = u32;
                $body
            }
            Type::S32 => {
                type $t = i32;
                $body
            }
            Type::U64 | Type::B64 => {
                type $t = u64;
                $body
            }
            Type::S64 => {
                type $t = i64;
                $body
            }
            _ => $other,
        }
    };
}
pub(crate) use by_integer;
