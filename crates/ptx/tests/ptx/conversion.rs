//! `cvt` of every kind; 16-bit sources over all codes.

use crate::common::{each, random, table};

fn all_codes() -> Vec<[u64; 3]> {
    (0..=0xffff).map(|v| [v, 0, 0]).collect()
}

#[test]
fn every_16_bit_code_widens_exactly() {
    let inputs = all_codes();
    let canonical = |v: f32| if v.is_nan() { 0x7fff_ffff } else { v.to_bits() as u64 };
    for (v, out) in each("cvt.f32.f16 %d, %a;", "32", &[16], &inputs).into_iter().enumerate() {
        assert_eq!(out, canonical(half::f16::from_bits(v as u16).to_f32()), "{v:#x}");
    }
    for (v, out) in each("cvt.f32.bf16 %d, %a;", "32", &[16], &inputs).into_iter().enumerate() {
        assert_eq!(out, canonical(half::bf16::from_bits(v as u16).to_f32()), "{v:#x}");
    }
    for (v, out) in each("cvt.f64.f16 %d, %a;", "64", &[16], &inputs).into_iter().enumerate() {
        let value = half::f16::from_bits(v as u16).to_f64();
        assert!(out == value.to_bits() || (value.is_nan() && f64::from_bits(out).is_nan()), "{v:#x}");
    }
}

#[test]
fn f32_narrows_to_nearest_around_every_16_bit_code() {
    for (instruction, widen, narrow) in [
        ("cvt.rn.f16.f32 %d, %a;", half_wide as fn(u16) -> f32, half_narrow as fn(f32) -> u16),
        ("cvt.rn.bf16.f32 %d, %a;", brain_wide, brain_narrow),
    ] {
        // Each code, its neighbours in f32, and the point half way to the next code.
        let inputs: Vec<[u64; 3]> = (0..=0xffffu16)
            .step_by(3)
            .flat_map(|v| {
                let (x, next) = (widen(v), widen(v.wrapping_add(1)));
                let middle = ((x as f64 + next as f64) / 2.0) as f32;
                [x, x.next_up(), middle, middle.next_down(), middle.next_up()]
            })
            .map(|x| [x.to_bits() as u64, 0, 0])
            .collect();
        for (out, x) in each(instruction, "16", &[32], &inputs).iter().zip(&inputs) {
            let value = f32::from_bits(x[0] as u32);
            let expected = if value.is_nan() { 0x7fff } else { narrow(value) };
            assert_eq!(*out, expected as u64, "{instruction} of {value:e}");
        }
    }
}

fn half_wide(v: u16) -> f32 {
    half::f16::from_bits(v).to_f32()
}
fn half_narrow(v: f32) -> u16 {
    half::f16::from_f32(v).to_bits()
}
fn brain_wide(v: u16) -> f32 {
    half::bf16::from_bits(v).to_f32()
}
fn brain_narrow(v: f32) -> u16 {
    half::bf16::from_f32(v).to_bits()
}

#[test]
fn narrowing_has_its_modes_and_clamps() {
    let bits = |v: f32| v.to_bits() as u64;
    table("cvt.rz.f16.f32 %d, %a;", "16", &[32], &[([bits(65519.0), 0, 0], 0x7bff), ([bits(1e30), 0, 0], 0x7bff)]);
    table("cvt.rn.f16.f32 %d, %a;", "16", &[32], &[([bits(65519.99), 0, 0], 0x7bff), ([bits(65520.0), 0, 0], 0x7c00)]);
    table("cvt.rn.satfinite.f16.f32 %d, %a;", "16", &[32], &[([bits(-1e30), 0, 0], 0xfbff)]);
    table("cvt.rn.relu.bf16.f32 %d, %a;", "16", &[32], &[([bits(-2.0), 0, 0], 0), ([bits(2.0), 0, 0], 0x4000)]);
    table("cvt.rn.f16x2.f32 %d, %a, %b;", "32", &[32, 32], &[([bits(1.0), bits(2.0), 0], 0x3c00_4000)]);
    table("cvt.rn.bf16x2.f32 %d, %a, %b;", "32", &[32, 32], &[([bits(1.0), bits(-2.0), 0], 0x3f80_c000)]);
    table(
        "cvt.rna.tf32.f32 %d, %a;",
        "32",
        &[32],
        &[([0x3f80_1000, 0, 0], 0x3f80_2000), ([0x3f80_0fff, 0, 0], 0x3f80_0000)],
    );
    table(
        "cvt.rn.f32.f64 %d, %a;",
        "32",
        &[64],
        &[([1e300f64.to_bits(), 0, 0], 0x7f80_0000), ([0.1f64.to_bits(), 0, 0], bits(0.1))],
    );
    table("cvt.rz.f32.f64 %d, %a;", "32", &[64], &[([1e300f64.to_bits(), 0, 0], 0x7f7f_ffff)]);
    table("cvt.rp.f32.f64 %d, %a;", "32", &[64], &[([1e-300f64.to_bits(), 0, 0], 1)]);
    table(
        "cvt.rn.satfinite.e4m3x2.f32 %d, %a, %b;",
        "16",
        &[32, 32],
        &[([bits(448.0), bits(1e6), 0], 0x7e7e), ([bits(-1.0), bits(0.0625), 0], 0xb818)],
    );
    table("cvt.rn.satfinite.e5m2x2.f32 %d, %a, %b;", "16", &[32, 32], &[([bits(1.0), bits(1e9), 0], 0x3c7b)]);
    table("cvt.rn.f16x2.e4m3x2 %d, %a;", "32", &[16], &[([0x38b8, 0, 0], 0x3c00_bc00)]);
}

#[test]
fn floats_become_integers_of_the_mode_and_range() {
    let bits = |v: f32| v.to_bits() as u64;
    let of = |v: f32, w: u64| ([bits(v), 0, 0], w);
    table("cvt.rni.s32.f32 %d, %a;", "32", &[32], &[of(2.5, 2), of(3.5, 4), of(-2.5, 0xffff_fffe)]);
    table(
        "cvt.rzi.s32.f32 %d, %a;",
        "32",
        &[32],
        &[of(-2.9, 0xffff_fffe), of(1e20, 0x7fff_ffff), of(-1e20, 0x8000_0000), of(f32::NAN, 0)],
    );
    table("cvt.rmi.s32.f32 %d, %a;", "32", &[32], &[of(-2.1, 0xffff_fffd), of(2.9, 2)]);
    table("cvt.rpi.u32.f32 %d, %a;", "32", &[32], &[of(2.1, 3), of(-5.0, 0)]);
    table("cvt.rzi.u8.f32 %d, %a;", "16", &[32], &[of(300.0, 255), of(-1.0, 0)]);
    table(
        "cvt.rzi.s64.f64 %d, %a;",
        "64",
        &[64],
        &[([f64::NAN.to_bits(), 0, 0], 1 << 63), ([(-2.5f64).to_bits(), 0, 0], u64::MAX - 1)],
    );
    table("cvt.rni.f32.f32 %d, %a;", "32", &[32], &[of(2.5, bits(2.0)), of(-0.3, bits(-0.0)), of(1e30, bits(1e30))]);
    table("cvt.rpi.f64.f64 %d, %a;", "64", &[64], &[([2.1f64.to_bits(), 0, 0], 3f64.to_bits())]);
    table("cvt.rmi.f16.f16 %d, %a;", "16", &[16], &[([0x3e00, 0, 0], 0x3c00)]);
}

#[test]
fn integers_become_floats_rounded_by_mode() {
    let inputs: Vec<[u64; 3]> = random(400, 1).iter().map(|&v| [v, 0, 0]).collect();
    for (out, x) in each("cvt.rn.f32.u64 %d, %a;", "32", &[64], &inputs).iter().zip(&inputs) {
        assert_eq!(*out, (x[0] as f32).to_bits() as u64);
    }
    for (out, x) in each("cvt.rn.f64.s64 %d, %a;", "64", &[64], &inputs).iter().zip(&inputs) {
        assert_eq!(*out, (x[0] as i64 as f64).to_bits());
    }
    table("cvt.rz.f32.u32 %d, %a;", "32", &[32], &[([0xffff_ffff, 0, 0], 0x4f7f_ffff)]);
    table("cvt.rp.f32.s32 %d, %a;", "32", &[32], &[([0x8000_0001, 0, 0], 0xceff_ffff | 1 << 31)]);
    table("cvt.rn.f16.s32 %d, %a;", "16", &[32], &[([2049, 0, 0], 0x6800), ([2051, 0, 0], 0x6802)]);
}

#[test]
fn integers_extend_cut_and_saturate() {
    table("cvt.s32.s8 %d, %a;", "32", &[32], &[([0x1ff, 0, 0], 0xffff_ffff), ([0x7f, 0, 0], 0x7f)]);
    table("cvt.u32.u8 %d, %a;", "32", &[32], &[([0x1ff, 0, 0], 0xff)]);
    table("cvt.s64.s32 %d, %a;", "64", &[32], &[([0x8000_0000, 0, 0], 0xffff_ffff_8000_0000)]);
    table("cvt.u64.u32 %d, %a;", "64", &[32], &[([0x8000_0000, 0, 0], 0x8000_0000)]);
    table("cvt.s8.s32 %d, %a;", "32", &[32], &[([0x80, 0, 0], 0xffff_ff80)]);
    table("cvt.sat.u8.s32 %d, %a;", "32", &[32], &[([300, 0, 0], 255), ([0xffff_ffff, 0, 0], 0)]);
    table("cvt.sat.s16.s32 %d, %a;", "16", &[32], &[([0x12345, 0, 0], 0x7fff)]);
    table("cvt.pack.sat.u8.s32.b32 %d, %a, %b, %c;", "32", &[32; 3], &[([1, 300, 0xaabb], 0xaabb_01ff)]);
}
