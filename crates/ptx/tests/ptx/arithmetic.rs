//! Floating-point arithmetic: rounding, NaN, subnormal numbers, saturation.

use crate::common::{each, random, singles, table};

fn pairs() -> Vec<[u64; 3]> {
    let all = singles();
    let mut out = Vec::new();
    for (i, &a) in all.iter().enumerate() {
        for (j, &b) in all.iter().enumerate() {
            out.push([a as u64, b as u64, all[(i * 7 + j * 3) % all.len()] as u64]);
        }
    }
    out
}

fn canonical(x: f32) -> u64 {
    if x.is_nan() { 0x7fff_ffff } else { x.to_bits() as u64 }
}

#[test]
fn f32_to_nearest_has_the_hosts_bits_and_one_nan() {
    type Function = fn(f32, f32, f32) -> f32;
    let rows: [(&str, Function); 8] = [
        ("add.rn.f32 %d, %a, %b;", |a, b, _| a + b),
        ("sub.f32 %d, %a, %b;", |a, b, _| a - b),
        ("mul.rn.f32 %d, %a, %b;", |a, b, _| a * b),
        ("div.rn.f32 %d, %a, %b;", |a, b, _| a / b),
        ("fma.rn.f32 %d, %a, %b, %c;", f32::mul_add),
        ("mad.rn.f32 %d, %a, %b, %c;", f32::mul_add),
        ("sqrt.rn.f32 %d, %a;", |a, _, _| a.sqrt()),
        ("rcp.rn.f32 %d, %a;", |a, _, _| 1.0 / a),
    ];
    let inputs = pairs();
    for (instruction, f) in rows {
        for (out, x) in each(instruction, "32", &[32, 32, 32], &inputs).iter().zip(&inputs) {
            let [a, b, c] = x.map(|v| f32::from_bits(v as u32));
            assert_eq!(*out, canonical(f(a, b, c)), "{instruction} of {a:e} {b:e} {c:e}");
        }
    }
}

/// The product is exact in f64: its neighbours in f32 are on either side.
#[test]
fn f32_products_round_in_every_direction() {
    let inputs: Vec<[u64; 3]> =
        pairs().into_iter().filter(|x| x[..2].iter().all(|v| f32::from_bits(*v as u32).is_finite())).collect();
    for mode in ["rz", "rm", "rp"] {
        let outs = each(&format!("mul.{mode}.f32 %d, %a, %b;"), "32", &[32, 32], &inputs);
        for (out, x) in outs.iter().zip(&inputs) {
            let [a, b] = [x[0], x[1]].map(|v| f32::from_bits(v as u32) as f64);
            let (exact, got) = (a * b, f32::from_bits(*out as u32));
            if exact == 0.0 {
                assert_eq!(got.to_bits() as u64, (exact as f32).to_bits() as u64);
                continue;
            }
            let toward_zero = mode == "rz" || (mode == "rm") == (exact > 0.0);
            let magnitude = exact.abs();
            let got = got.abs();
            if toward_zero {
                assert!(got as f64 <= magnitude && (got == f32::MAX || got.next_up() as f64 > magnitude));
            } else {
                assert!(got as f64 >= magnitude && (got == 0.0 || (got.next_down() as f64) < magnitude));
            }
        }
    }
}

#[test]
fn f32_sums_round_in_every_direction() {
    let one = 0x3f80_0000;
    let tiny = 0x0000_0001;
    for (mode, sum, difference) in [("rn", one, one), ("rz", one, one - 1), ("rm", one, one - 1), ("rp", one + 1, one)]
    {
        table(&format!("add.{mode}.f32 %d, %a, %b;"), "32", &[32, 32], &[([one, tiny, 0], sum)]);
        table(&format!("sub.{mode}.f32 %d, %a, %b;"), "32", &[32, 32], &[([one, tiny, 0], difference)]);
        table(
            &format!("fma.{mode}.f32 %d, %a, %a, %b;"),
            "32",
            &[32, 32],
            &[([one, tiny, 0], sum), ([one, tiny | 1 << 31, 0], difference)],
        );
    }
    // x - x is minus zero only when rounding down.
    table("sub.rm.f32 %d, %a, %a;", "32", &[32], &[([one, 0, 0], 1 << 31)]);
    table("sub.rp.f32 %d, %a, %a;", "32", &[32], &[([one, 0, 0], 0)]);
    table("div.rz.f32 %d, %a, %b;", "32", &[32, 32], &[([0x3f80_0000, 0x4040_0000, 0], 0x3eaa_aaaa)]);
    table("div.rp.f32 %d, %a, %b;", "32", &[32, 32], &[([0x3f80_0000, 0x4040_0000, 0], 0x3eaa_aaab)]);
    table("sqrt.rz.f32 %d, %a;", "32", &[32], &[([0x4000_0000, 0, 0], 0x3fb5_04f3)]);
    table("sqrt.rp.f32 %d, %a;", "32", &[32], &[([0x4000_0000, 0, 0], 0x3fb5_04f4)]);
}

#[test]
fn f64_has_the_hosts_bits_in_both_engines() {
    let values: Vec<u64> = [0.0, -0.0, 1.0, 1.0 + f64::EPSILON, f64::MIN_POSITIVE, 5e-324, f64::MAX, f64::INFINITY]
        .map(f64::to_bits)
        .into_iter()
        .chain(random(24, 3))
        .collect();
    let inputs: Vec<[u64; 3]> =
        values.iter().flat_map(|&a| values.iter().map(move |&b| [a, b, a.rotate_left(9)])).collect();
    type Function = fn(f64, f64, f64) -> f64;
    let rows: [(&str, Function); 5] = [
        ("add.rn.f64 %d, %a, %b;", |a, b, _| a + b),
        ("mul.rn.f64 %d, %a, %b;", |a, b, _| a * b),
        ("div.rn.f64 %d, %a, %b;", |a, b, _| a / b),
        ("fma.rn.f64 %d, %a, %b, %c;", f64::mul_add),
        ("sqrt.rn.f64 %d, %a;", |a, _, _| a.sqrt()),
    ];
    for (instruction, f) in rows {
        for (out, x) in each(instruction, "64", &[64, 64, 64], &inputs).iter().zip(&inputs) {
            let [a, b, c] = x.map(f64::from_bits);
            let (got, expected) = (f64::from_bits(*out), f(a, b, c));
            assert!(
                got.to_bits() == expected.to_bits() || (got.is_nan() && expected.is_nan()),
                "{instruction} {a} {b}"
            );
        }
    }
    // By integers: a third, rounded up and down.
    let third = (1.0f64 / 3.0).to_bits();
    table("div.rm.f64 %d, %a, %b;", "64", &[64, 64], &[([1f64.to_bits(), 3f64.to_bits(), 0], third)]);
    table("div.rp.f64 %d, %a, %b;", "64", &[64, 64], &[([1f64.to_bits(), 3f64.to_bits(), 0], third + 1)]);
    table(
        "add.rz.f64 %d, %a, %b;",
        "64",
        &[64, 64],
        &[([1f64.to_bits(), (-1e-40f64).to_bits(), 0], 1f64.to_bits() - 1)],
    );
}

/// The f16 nearest to a number, ties to the even code.
fn nearest(exact: f64) -> u64 {
    if exact.is_nan() {
        return 0x7fff;
    }
    let start = half::f16::from_f64(exact).to_bits();
    // Beyond the largest number half a step counts as infinity.
    let value = |code: u16| match half::f16::from_bits(code).to_f64() {
        v if v.is_infinite() => 65536f64.copysign(v),
        v => v,
    };
    if exact.abs() >= 65536.0 {
        return start as u64;
    }
    let near = [start.wrapping_sub(1), start, start.wrapping_add(1)];
    let same = near.into_iter().filter(|&c| c & 0x7fff <= 0x7c00 && (c ^ start) & 0x8000 == 0);
    same.min_by(|&a, &b| {
        let distance = |c: u16| (value(c) - exact).abs();
        distance(a).total_cmp(&distance(b)).then((a & 1).cmp(&(b & 1)))
    })
    .unwrap_or(start) as u64
}

#[test]
fn sixteen_bit_arithmetic_is_rounded_once() {
    let codes: Vec<u64> = random(3000, 11).iter().map(|v| v & 0xffff).collect();
    let inputs: Vec<[u64; 3]> = codes.windows(3).map(|w| [w[0], w[1], w[2]]).collect();
    let value = |v: u64| half::f16::from_bits(v as u16).to_f64();
    type Function = fn(f64, f64, f64) -> f64;
    let rows: [(&str, Function); 4] = [
        ("add.f16 %d, %a, %b;", |a, b, _| a + b),
        ("sub.rn.f16 %d, %a, %b;", |a, b, _| a - b),
        ("mul.f16 %d, %a, %b;", |a, b, _| a * b),
        ("fma.rn.f16 %d, %a, %b, %c;", |a, b, c| a * b + c),
    ];
    for (instruction, f) in rows {
        for (out, x) in each(instruction, "16", &[16, 16, 16], &inputs).iter().zip(&inputs) {
            let exact = f(value(x[0]), value(x[1]), value(x[2]));
            assert_eq!(*out, nearest(exact), "{instruction} of {x:x?}");
        }
    }
    table("add.f16x2 %d, %a, %b;", "32", &[32, 32], &[([0x3c00_4000, 0x3c00_3c00, 0], 0x4000_4200)]);
    table("fma.rn.bf16 %d, %a, %b, %c;", "16", &[16, 16, 16], &[([0x3f80, 0x4000, 0x3f80], 0x4040)]);
    table("fma.rn.relu.bf16x2 %d, %a, %b, %c;", "32", &[32, 32, 32], &[([0xbf80_3f80, 0x3f80_3f80, 0], 0x3f80)]);
    table("neg.f16x2 %d, %a;", "32", &[32], &[([0x3c00_bc00, 0, 0], 0xbc00_3c00)]);
}

#[test]
fn subnormal_numbers_are_flushed_only_where_asked() {
    let (tiny, one) = (0x8000_0001u64, 0x3f80_0000);
    table("mul.f32 %d, %a, %b;", "32", &[32, 32], &[([tiny, one, 0], tiny)]);
    table("mul.ftz.f32 %d, %a, %b;", "32", &[32, 32], &[([tiny, one, 0], 1 << 31)]);
    table("add.ftz.f32 %d, %a, %b;", "32", &[32, 32], &[([0x80_0000, 0x8080_0001, 0], 1 << 31)]);
    table("fma.rn.ftz.f32 %d, %a, %b, %c;", "32", &[32, 32, 32], &[([tiny, one, 0x0000_0005], 0)]);
    table("abs.ftz.f32 %d, %a;", "32", &[32], &[([tiny, 0, 0], 0)]);
    table("setp.gt.f32 %p0, %a, %b;", "p", &[32, 32], &[([1, 0, 0], 1)]);
    table("setp.gt.ftz.f32 %p0, %a, %b;", "p", &[32, 32], &[([1, 0, 0], 0)]);
    table("mul.ftz.f16 %d, %a, %b;", "16", &[16, 16], &[([0x0001, 0x3c00, 0], 0)]);
}

#[test]
fn saturation_clamps_to_one_and_takes_nan_for_zero() {
    let rows = [
        ([0x4000_0000, 0, 0], 0x3f80_0000),
        ([0xbf80_0000, 0, 0], 0),
        ([0x7fc0_0000, 0, 0], 0),
        ([0x3f00_0000, 0, 0], 0x3f00_0000),
    ];
    table("add.sat.f32 %d, %a, %b;", "32", &[32, 32], &rows);
    table("cvt.sat.f32.f32 %d, %a;", "32", &[32], &rows);
    table(
        "fma.rn.sat.f16 %d, %a, %b, %c;",
        "16",
        &[16, 16, 16],
        &[([0x4000, 0x4000, 0], 0x3c00), ([0xc000, 0x4000, 0], 0)],
    );
}

#[test]
fn extremes_order_zeros_and_choose_between_nans() {
    let (nan, one, two, zero, minus) = (0x7fc0_0000u64, 0x3f80_0000, 0x4000_0000, 0, 0x8000_0000);
    table(
        "max.f32 %d, %a, %b;",
        "32",
        &[32, 32],
        &[
            ([one, two, 0], two),
            ([nan, one, 0], one),
            ([one, nan, 0], one),
            ([nan, nan, 0], 0x7fff_ffff),
            ([minus, zero, 0], zero),
            ([zero, minus, 0], zero),
        ],
    );
    table(
        "min.f32 %d, %a, %b;",
        "32",
        &[32, 32],
        &[([one, two, 0], one), ([zero, minus, 0], minus), ([minus, zero, 0], minus)],
    );
    table("max.NaN.f32 %d, %a, %b;", "32", &[32, 32], &[([nan, one, 0], 0x7fff_ffff), ([one, two, 0], two)]);
    table("min.xorsign.abs.f32 %d, %a, %b;", "32", &[32, 32], &[([one | minus, two, 0], one | minus)]);
    table("max.NaN.bf16 %d, %a, %b;", "16", &[16, 16], &[([0x7fc1, 0x3f80, 0], 0x7fff)]);
    table("max.f16x2 %d, %a, %b;", "32", &[32, 32], &[([0x3c00_4000, 0x4000_3c00, 0], 0x4000_4000)]);
    table("max.f64 %d, %a, %b;", "64", &[64, 64], &[([1f64.to_bits(), 2f64.to_bits(), 0], 2f64.to_bits())]);
}

#[test]
fn approximate_forms_are_exact_and_counted() {
    let inputs = [[0x4000_0000u64, 0, 0], [0x4110_0000, 0, 0]];
    for (instruction, expected) in [
        ("rcp.approx.f32", [0.5f32, 1.0 / 9.0]),
        ("sqrt.approx.f32", [2f32.sqrt(), 3.0]),
        ("rsqrt.approx.f32", [(1.0 / 2f64.sqrt()) as f32, (1.0 / 3f64) as f32]),
        ("ex2.approx.ftz.f32", [4.0, 512.0]),
        ("lg2.approx.f32", [1.0, 9f64.log2() as f32]),
        ("sin.approx.f32", [2f64.sin() as f32, 9f64.sin() as f32]),
        ("cos.approx.f32", [2f64.cos() as f32, 9f64.cos() as f32]),
        ("tanh.approx.f32", [2f64.tanh() as f32, 9f64.tanh() as f32]),
    ] {
        let out = each(&format!("{instruction} %d, %a;"), "32", &[32], &inputs);
        assert_eq!(out, expected.map(|v| v.to_bits() as u64), "{instruction}");
    }
    table("rcp.approx.ftz.f64 %d, %a;", "64", &[64], &[([2f64.to_bits(), 0, 0], 0.5f64.to_bits())]);
    table("copysign.f32 %d, %a, %b;", "32", &[32, 32], &[([0x8000_0000, 0x3f80_0000, 0], 0xbf80_0000)]);
}
