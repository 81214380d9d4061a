//! The sums of tensor cores beside MMA-Sim's model (arXiv 2511.10909), written once more in f64: bit for bit, of random
//! codes of every magnitude.

use crate::common::random;
use crate::matrices::fragments;

/// Significand and exponent of a value: of a subnormal one the exponent of the smallest normal number.
fn parts(v: f64, least: i32) -> (f64, i32) {
    if v == 0.0 {
        return (0.0, -126);
    }
    let exponent = (((v.to_bits() >> 52) & 0x7ff) as i32 - 1023).max(least);
    (v / 2f64.powi(exponent), exponent)
}

/// Toward zero; what is 2^128 or more is infinite.
fn cut(v: f64) -> f32 {
    let near = v as f32;
    if v.abs() >= 2f64.powi(128) || f64::from(near.abs()) <= v.abs() {
        return near;
    }
    f32::from_bits(near.to_bits() - 1)
}

/// c and the products of a and b, cut to `fraction` bits below the largest exponent; `least` is the operands' format's.
fn sum(a: &[f64], b: &[f64], c: f32, least: i32, fraction: i32) -> f32 {
    if c.is_infinite() {
        return c;
    }
    let mut terms = vec![parts(f64::from(c), -126)];
    for (&a, &b) in a.iter().zip(b) {
        let ((a, of_a), (b, of_b)) = (parts(a, least), parts(b, least));
        terms.push(if a * b == 0.0 { (0.0, -126) } else { (a * b, of_a + of_b) });
    }
    let largest = terms.iter().map(|t| t.1).fold(i32::MIN, i32::max);
    let kept: f64 = terms.iter().map(|&(v, e)| (v * 2f64.powi(fraction + e - largest)).trunc()).sum();
    cut(kept * 2f64.powi(largest - fraction))
}

struct Case {
    name: &'static str,
    capability: u32,
    k: usize,
    /// Products that are added at a time, and bits that are kept.
    together: usize,
    fraction: i32,
}

const CASES: [Case; 4] = [
    Case { name: "m16n8k8", capability: 75, k: 8, together: 8, fraction: 24 },
    Case { name: "m16n8k16", capability: 80, k: 16, together: 8, fraction: 24 },
    Case { name: "m16n8k16", capability: 89, k: 16, together: 8, fraction: 24 },
    Case { name: "m16n8k16", capability: 90, k: 16, together: 16, fraction: 25 },
];

#[test]
fn sums_of_random_codes_have_the_bits_of_the_published_model() {
    let f16 = |code: u16| half::f16::from_bits(code).to_f64();
    let bf16 = |code: u16| half::bf16::from_bits(code).to_f64();
    for case in CASES {
        for (ty, least) in [("f16", -14), ("bf16", -126)] {
            if ty == "bf16" && case.capability < 80 {
                continue;
            }
            let value = |code: u16| if ty == "f16" { f16(code) } else { bf16(code) };
            for seed in 0..24 {
                // Of all magnitudes, or of some that meet each other; of f16 also subnormal ones.
                let few = if ty == "f16" { [0x83ff, 0x8fff, 0xbfff][seed as usize % 3] } else { 0x81ff };
                let code = |v: &u64| {
                    let code = *v as u16 & if seed % 2 == 0 { few } else { 0xffff };
                    let code = if ty == "bf16" && seed % 2 == 0 { code | 0x3e00 } else { code };
                    if value(code).is_finite() { code } else { code & 0x83ff }
                };
                let codes = |count: usize, stream: u64| -> Vec<u16> {
                    random(count, 3 * seed + stream).iter().map(code).collect()
                };
                let (a, b) = (codes(16 * case.k, 0), codes(8 * case.k, 1));
                let c: Vec<f32> = random(128, 3 * seed + 2)
                    .iter()
                    .map(|&v| f32::from_bits((v as u32 & 0x807f_ffff) | ((112 + (v >> 40 & 0x1f) as u32) << 23)))
                    .collect();
                // The manual's fragments.
                let pair = |low: u16, high: u16| u32::from(low) | u32::from(high) << 16;
                let groups = case.k / 8;
                let input: Vec<Vec<u32>> = (0..32)
                    .map(|lane| {
                        let (group, thread) = (lane / 4, lane % 4);
                        let of_a = (0..2 * groups).map(|i| {
                            let at = (group + 8 * (i % 2)) * case.k + 2 * thread + 8 * (i / 2);
                            pair(a[at], a[at + 1])
                        });
                        let of_b = (0..groups).map(|i| {
                            let k = 2 * thread + 8 * i;
                            pair(b[k * 8 + group], b[(k + 1) * 8 + group])
                        });
                        let of_c = (0..4).map(|i| c[(group + 8 * (i / 2)) * 8 + 2 * thread + i % 2].to_bits());
                        of_a.chain(of_b).chain(of_c).collect()
                    })
                    .collect();
                let list = |prefix: &str, from: usize, n: usize| {
                    (from..from + n).map(|i| format!("%{prefix}{i}")).collect::<Vec<_>>().join(", ")
                };
                let instruction = format!(
                    "mma.sync.aligned.{}.row.col.f32.{ty}.{ty}.f32 {{{}}}, {{{}}}, {{{}}}, {{{}}};",
                    case.name,
                    list("d", 0, 4),
                    list("r", 0, 2 * groups),
                    list("r", 2 * groups, groups),
                    list("r", 3 * groups, 4)
                );
                let out = fragments(&instruction, 3 * groups + 4, 4, &input, Some(case.capability));
                for (lane, words) in out.iter().enumerate() {
                    for (i, &word) in words.iter().enumerate() {
                        let (row, column) = (lane / 4 + 8 * (i / 2), lane % 4 * 2 + i % 2);
                        let of_row: Vec<f64> = a[row * case.k..][..case.k].iter().map(|&v| value(v)).collect();
                        let of_column: Vec<f64> = (0..case.k).map(|k| value(b[k * 8 + column])).collect();
                        let wanted = (0..case.k).step_by(case.together).fold(c[row * 8 + column], |c, at| {
                            let end = at + case.together;
                            sum(&of_row[at..end], &of_column[at..end], c, least, case.fraction)
                        });
                        let found = f32::from_bits(word);
                        assert!(
                            found == wanted || found.is_nan() && wanted.is_nan(),
                            "{} {ty} {}, seed {seed}: {found:e}, wanted {wanted:e}",
                            case.name,
                            case.capability
                        );
                    }
                }
            }
        }
    }
}
