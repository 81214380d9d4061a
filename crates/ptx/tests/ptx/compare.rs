//! Comparisons and selections.

use crate::common::table;

const NAN: u64 = 0x7fc0_0000;
const ONE: u64 = 0x3f80_0000;
const TWO: u64 = 0x4000_0000;

#[test]
fn comparisons_of_floats_say_whether_nan_counts() {
    // Of (1, 2), (2, 1), (1, 1), (NaN, 1).
    for (how, expected) in [
        ("eq", [0, 0, 1, 0]),
        ("ne", [1, 1, 0, 0]),
        ("lt", [1, 0, 0, 0]),
        ("le", [1, 0, 1, 0]),
        ("gt", [0, 1, 0, 0]),
        ("ge", [0, 1, 1, 0]),
        ("equ", [0, 0, 1, 1]),
        ("neu", [1, 1, 0, 1]),
        ("ltu", [1, 0, 0, 1]),
        ("leu", [1, 0, 1, 1]),
        ("gtu", [0, 1, 0, 1]),
        ("geu", [0, 1, 1, 1]),
        ("num", [1, 1, 1, 0]),
        ("nan", [0, 0, 0, 1]),
    ] {
        let inputs = [[ONE, TWO, 0], [TWO, ONE, 0], [ONE, ONE, 0], [NAN, ONE, 0]];
        let rows: Vec<([u64; 3], u64)> = inputs.into_iter().zip(expected).collect();
        table(&format!("setp.{how}.f32 %p0, %a, %b;"), "p", &[32, 32], &rows);
        let wide = |v: u64| (f32::from_bits(v as u32) as f64).to_bits();
        let rows: Vec<([u64; 3], u64)> = inputs.map(|x| x.map(wide)).into_iter().zip(expected).collect();
        table(&format!("setp.{how}.f64 %p0, %a, %b;"), "p", &[64, 64], &rows);
        let narrow =
            |v: u64| if v == NAN { 0x7e00 } else { half::f16::from_f32(f32::from_bits(v as u32)).to_bits() as u64 };
        let rows: Vec<([u64; 3], u64)> = inputs.map(|x| x.map(narrow)).into_iter().zip(expected).collect();
        table(&format!("setp.{how}.f16 %p0, %a, %b;"), "p", &[16, 16], &rows);
    }
}

#[test]
fn comparisons_of_integers_know_the_sign() {
    let minus = 0xffff_ffff;
    table("setp.lt.s32 %p0, %a, %b;", "p", &[32, 32], &[([minus, 1, 0], 1)]);
    table("setp.lt.u32 %p0, %a, %b;", "p", &[32, 32], &[([minus, 1, 0], 0)]);
    table("setp.hs.u16 %p0, %a, %b;", "p", &[16, 16], &[([0xffff, 1, 0], 1)]);
    table("setp.ne.b64 %p0, %a, %b;", "p", &[64, 64], &[([1 << 40, 0, 0], 1)]);
    table("setp.gt.s64 %p0, %a, %b;", "p", &[64, 64], &[([u64::MAX, 0, 0], 0)]);
}

#[test]
fn results_combine_with_a_predicate_in_both_senses() {
    let both = "setp.eq.u32 %p1, %c, 1; setp.lt.and.u32 %p0|%p2, %a, %b, %p1;";
    table(both, "p", &[32; 3], &[([1, 2, 1], 1), ([1, 2, 0], 0), ([2, 1, 1], 0)]);
    let other = "setp.eq.u32 %p1, %c, 1; setp.lt.and.u32 %p2|%p0, %a, %b, %p1;";
    table(other, "p", &[32; 3], &[([1, 2, 1], 0), ([2, 1, 1], 1), ([2, 1, 0], 0)]);
    let negated = "setp.eq.u32 %p1, %c, 1; setp.lt.or.u32 %p0, %a, %b, !%p1;";
    table(negated, "p", &[32; 3], &[([2, 1, 1], 0), ([2, 1, 0], 1)]);
}

#[test]
fn selections_take_one_side() {
    table("setp.eq.u32 %p0, %c, 1; selp.b32 %d, %a, %b, %p0;", "32", &[32; 3], &[([5, 6, 1], 5), ([5, 6, 0], 6)]);
    table("slct.u32.s32 %d, %a, %b, %c;", "32", &[32; 3], &[([5, 6, 0], 5), ([5, 6, 0xffff_ffff], 6)]);
    table("slct.u32.f32 %d, %a, %b, %c;", "32", &[32; 3], &[([5, 6, 1 << 31], 5), ([5, 6, NAN], 6)]);
    table("set.lt.u32.s32 %d, %a, %b;", "32", &[32; 2], &[([1, 2, 0], 0xffff_ffff), ([2, 1, 0], 0)]);
    table("set.lt.f32.f32 %d, %a, %b;", "32", &[32; 2], &[([ONE, TWO, 0], ONE)]);
    table("setp.eq.u32 %p0, %a, 1; xor.pred %p0, %p0, %p0;", "p", &[32], &[([1, 0, 0], 0)]);
    table("setp.eq.u32 %p1, %a, 1; not.pred %p0, %p1;", "p", &[32], &[([1, 0, 0], 0), ([2, 0, 0], 1)]);
}

#[test]
fn classes_of_numbers_are_told() {
    for (what, expected) in [
        ("finite", [1, 0, 0, 1]),
        ("infinite", [0, 1, 0, 0]),
        ("notanumber", [0, 0, 1, 0]),
        ("number", [1, 1, 0, 1]),
        ("normal", [1, 0, 0, 0]),
        ("subnormal", [0, 0, 0, 1]),
    ] {
        let inputs = [ONE, 0xff80_0000, NAN, 1];
        let rows: Vec<([u64; 3], u64)> = inputs.map(|v| [v, 0, 0]).into_iter().zip(expected).collect();
        table(&format!("testp.{what}.f32 %p0, %a;"), "p", &[32], &rows);
    }
}
