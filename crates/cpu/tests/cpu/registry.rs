//! Every operator at every sample: the CPU against the reference within the stated bound, for any number of threads and
//! at every instruction set.

use binade_cpu::{Cpu, Isa};
use binade_tensor::format::Format;
use binade_tensor::op::{Backward, Distribution, Saved, Unary, View};
use binade_tensor::samples::catalogue;
use binade_tensor::testing::{Exact, check_op};
use binade_tensor::{Array, Arrays, Class, DType, Device, Key, Op, Request, bf16, f16, run, run_one};

/// The same values on another device, in row-major order.
fn on(device: &Device, array: &Array) -> Array {
    let dense = array.contiguous(Class::Workspace).unwrap();
    Array::from_bytes(
        device,
        array.dtype(),
        &dense.device().download(&dense).unwrap(),
        array.shape(),
        Class::Activations,
    )
    .unwrap()
}

fn apply(op: &Op, ins: &[Array], device: &Device, want: DType) -> binade_tensor::Result<Arrays> {
    run(Request::new(op, &ins.iter().collect::<Vec<_>>(), device, want, Class::Activations))
}

fn format(dtype: DType) -> Format {
    match dtype {
        DType::F64 => Format::F64,
        DType::F16 => Format::F16,
        DType::BF16 => Format::BF16,
        DType::F32 | DType::I64 | DType::U32 | DType::I8 | DType::Bool => Format::F32,
    }
}

#[test]
fn every_operator_is_within_its_stated_bound_at_every_instruction_set() {
    let devices: Vec<_> = Isa::available().into_iter().map(|isa| (isa, Device::new(Cpu::with_isa(isa)))).collect();
    for op in catalogue() {
        for dtype in DType::FLOATS {
            // The reference is slow: once for the same values.
            let mut known: Vec<(Vec<Vec<u64>>, Exact)> = Vec::new();
            for (isa, device) in &devices {
                for (i, ins) in op.samples(device, dtype).into_iter().enumerate() {
                    let bits = |a: &Array| a.to_f64_vec().unwrap().into_iter().map(f64::to_bits).collect::<Vec<_>>();
                    let values: Vec<_> = ins.iter().map(bits).collect();
                    if known.get(i).is_none_or(|(of, _)| *of != values) {
                        let exact = Exact::of(&op, &ins).unwrap_or_else(|e| panic!("{op:?}: {e}"));
                        known.truncate(i);
                        known.push((values, exact));
                    }
                    let checked = known[i].1.check(&op, &ins, device, dtype);
                    let (_, failure) = checked.unwrap_or_else(|e| panic!("{op:?}: {e}"));
                    assert_eq!(failure, None, "{}", isa.name());
                }
            }
        }
    }
}

#[test]
fn fused_operators_equal_their_definition_in_primitives() {
    // In f64 on the reference, where both sides are exact but for f64 roundings: what is compared is the definition.
    let device = Device::reference();
    for op in catalogue() {
        for ins in op.samples(&device, DType::F64) {
            let metas: Vec<_> = ins.iter().map(|a| a.meta()).collect();
            let Some(program) = op.compose(&metas).unwrap_or_else(|e| panic!("{op:?}: {e}")) else { continue };
            let run = |op: &Op, ins: &[&Array], want| run_one(op, ins, &device, want, Class::Activations);
            let composed = program.run(&ins, run).unwrap_or_else(|e| panic!("{op:?}: {e}"))[0].to_f64_vec().unwrap();
            let fused = apply(&op, &ins, &device, DType::F64).unwrap()[0].to_f64_vec().unwrap();
            let largest = fused.iter().filter(|v| v.is_finite()).fold(1.0, |m: f64, v| m.max(v.abs()));
            assert_eq!(composed.len(), fused.len(), "{op:?}");
            for (c, f) in composed.iter().zip(&fused) {
                let same = (c - f).abs() <= 1e-12 * largest || c.is_nan() && f.is_nan() || c == f;
                assert!(same, "{op:?}: {f} fused, {c} composed");
            }
        }
    }
}

#[test]
fn the_bits_do_not_depend_on_the_number_of_threads() {
    let device = Device::cpu();
    let normal = |dims: [usize; 2]| {
        let distribution = Distribution::Normal { mean: 0.0, std: 1.0 };
        let op = Op::Random { distribution, shape: dims.try_into().unwrap(), key: Key::new(1, 2) };
        run_one(&op, &[], &device, DType::F32, Class::Activations).unwrap()
    };
    let results = |threads: usize| {
        let mut all = Vec::new();
        let mut keep = |outs: Arrays| all.extend(outs.iter().flat_map(|o| o.to_f64_vec().unwrap()).map(f64::to_bits));
        for op in catalogue() {
            for dtype in [DType::F32, DType::BF16] {
                op.samples(&device, dtype).iter().for_each(|ins| keep(apply(&op, ins, &device, dtype).unwrap()));
            }
        }
        // Large enough for kernels to split their work.
        let x = normal([300, 700]);
        let transposed = run_one(
            &Op::View(View::Permute([1, 0].try_into().unwrap())),
            &[&x],
            &device,
            DType::F32,
            Class::Activations,
        )
        .unwrap();
        for op in catalogue() {
            let ins = match &op {
                Op::MatMul(product) if !product.epilogue.bias && !product.sums => vec![x.clone(), transposed.clone()],
                Op::Reduce { dims, .. } if dims.contains(2) => continue,
                Op::Softmax { dim: 2, .. } => continue,
                Op::Unary(_) | Op::Reduce { .. } | Op::Softmax { .. } => vec![x.clone()],
                _ => continue,
            };
            keep(apply(&op, &ins, &device, DType::F32).unwrap());
        }
        (threads, all)
    };
    let on_threads = |n: usize| rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap().install(|| results(n));
    let (_, one) = on_threads(1);
    for threads in [2, 3, 8] {
        assert!(on_threads(threads).1 == one, "{threads} threads");
    }
}

#[test]
fn half_precision_functions_are_correctly_rounded_for_every_input_at_every_instruction_set() {
    for isa in Isa::available() {
        let device = Device::new(Cpu::with_isa(isa));
        correctly_rounded(&device, isa);
    }
}

fn correctly_rounded(device: &Device, isa: Isa) {
    let reference = Device::reference();
    let codes: Vec<u16> = (0..=u16::MAX).collect();
    let f: Vec<f16> = codes.iter().map(|&c| f16::from_bits(c)).collect();
    let b: Vec<bf16> = codes.iter().map(|&c| bf16::from_bits(c)).collect();
    let inputs = [
        Array::from_slice(device, &f, &[65536], Class::Activations).unwrap(),
        Array::from_slice(device, &b, &[65536], Class::Activations).unwrap(),
    ];
    for &row in Unary::ALL {
        for x in &inputs {
            let out = format(x.dtype());
            let ours =
                apply(&Op::Unary(row), std::slice::from_ref(x), device, x.dtype()).unwrap()[0].to_f64_vec().unwrap();
            let exact =
                apply(&Op::Unary(row), &[on(&reference, x)], &reference, DType::F64).unwrap()[0].to_f64_vec().unwrap();
            for (code, (&v, &w)) in ours.iter().zip(&exact).enumerate() {
                let rounded = out.round(w);
                let right = v == rounded || v.is_nan() && rounded.is_nan();
                assert!(
                    right,
                    "{row:?} {} {isa:?} of {:e} (code {code:#x}): {v:e} instead of {w:e}",
                    x.dtype(),
                    out.decode(code as u64)
                );
            }
        }
    }
}

#[test]
fn looked_up_functions_and_derivatives_have_the_bits_of_computed_ones_for_every_code() {
    // Large dense operands are looked up in tables, every second column of a matrix is computed.
    const CODES: usize = 1 << 16;
    let every = |i: usize| i as u16;
    let gradients = |i: usize| (i as u16).wrapping_mul(40_503);
    let column = |device: &Device, dtype: DType, code: &dyn Fn(usize) -> u16| {
        let bytes: Vec<u8> = (0..2 * CODES).flat_map(|i| code(i / 2).to_ne_bytes()).collect();
        let matrix = Array::from_bytes(device, dtype, &bytes, &[CODES, 2], Class::Activations).unwrap();
        let strided = run_one(
            &Op::View(View::Narrow { dim: 1, start: 0, length: 1 }),
            &[&matrix],
            device,
            dtype,
            Class::Activations,
        );
        let strided = strided.unwrap();
        [strided.contiguous(Class::Activations).unwrap(), strided]
    };
    let bits = |op: &Op, ins: &[&Array], device: &Device| {
        let out = run_one(op, ins, device, ins[0].dtype(), Class::Activations).unwrap();
        let infinity = if out.dtype() == DType::F16 { 0x7c00 } else { 0x7f80 };
        let codes =
            device.download(&out).unwrap().chunks(2).map(|b| u16::from_ne_bytes([b[0], b[1]])).collect::<Vec<_>>();
        // Of two NaN the processor keeps either.
        codes.into_iter().map(|code| if code & 0x7fff > infinity { u16::MAX } else { code }).collect::<Vec<_>>()
    };
    for isa in Isa::available() {
        let device = Device::new(Cpu::with_isa(isa));
        for dtype in [DType::F16, DType::BF16] {
            let ([dense, strided], [g, strided_g]) =
                (column(&device, dtype, &every), column(&device, dtype, &gradients));
            assert!(dense.layout().is_contiguous() && !strided.layout().is_contiguous());
            for &row in Unary::ALL {
                let forward = Op::Unary(row);
                assert!(
                    bits(&forward, &[&dense], &device) == bits(&forward, &[&strided], &device),
                    "{row:?} {dtype} {isa:?}"
                );
                if row.saved() != Saved::Nothing {
                    let backward = Op::Backward(Backward::Unary(row));
                    let (looked_up, computed) =
                        (bits(&backward, &[&g, &dense], &device), bits(&backward, &[&strided_g, &strided], &device));
                    assert!(looked_up == computed, "{row:?} backward {dtype} {isa:?}");
                }
            }
        }
    }
}

#[test]
fn wrong_inputs_give_errors_that_name_the_operator() {
    let device = Device::cpu();
    let bad = Array::from_slice(&device, &[0i64; 6], &[2, 3], Class::Indices).unwrap();
    for op in catalogue() {
        let takes_anything = matches!(op, Op::Compare(_) | Op::Cast(_) | Op::Copy | Op::View(_))
            || (0..2).any(|i| op.moves(i)) && !matches!(op, Op::Where | Op::Scatter { .. });
        if takes_anything || matches!(op, Op::Random { .. } | Op::Fill { .. } | Op::Range { .. } | Op::Backward(_)) {
            continue;
        }
        let error = apply(&op, &[bad.clone(), bad.clone()], &device, DType::F32).expect_err(op.name()).to_string();
        assert!(error.starts_with(op.name()), "{error}");
        assert!(apply(&op, &[], &device, DType::F32).is_err(), "{op:?} without inputs");
    }
}

#[test]
fn functions_of_f32_are_within_their_stated_ulps_over_the_whole_range() {
    let (device, reference) = (Device::cpu(), Device::reference());
    // Every 50,021st code: all exponents and both signs; and a dense stretch where tails and cancellation lie, at steps
    // that are no multiple of anything the polynomials' intervals are.
    let codes = (0..u32::MAX / 50_021).map(|i| f32::from_bits(i * 50_021));
    let values: Vec<f32> = codes.chain((-40_000..40_000).map(|i| i as f32 * 0.000_513_17)).collect();
    let x = Array::from_slice(&device, &values, &[values.len()], Class::Activations).unwrap();
    for &row in Unary::ALL {
        let ours =
            apply(&Op::Unary(row), std::slice::from_ref(&x), &device, DType::F32).unwrap()[0].to_f64_vec().unwrap();
        let exact =
            apply(&Op::Unary(row), &[on(&reference, &x)], &reference, DType::F64).unwrap()[0].to_f64_vec().unwrap();
        for ((&x, &v), &w) in values.iter().zip(&ours).zip(&exact) {
            let right = v == Format::F32.round(w) || v.is_nan() && w.is_nan();
            let allowed = (row.ulp() + 0.5) * Format::F32.ulp(w);
            let error = (v - w).abs();
            assert!(
                right || error <= allowed,
                "{row:?} of {x:e}: {v:e} instead of {w:e}, off by {error:e}, allowed {allowed:e}"
            );
        }
    }
}

#[test]
fn sums_over_views_are_within_their_bound_whatever_lies_inside_what() {
    use binade_tensor::Dims;
    use binade_tensor::op::Reduce;
    let values: Vec<f32> = (0..6 * 10 * 12 * 70).map(|i: i32| (i as f32 * 0.37).sin()).collect();
    for isa in Isa::available() {
        let device = Device::new(Cpu::with_isa(isa));
        let whole = Array::from_slice(&device, &values, &[6, 10, 12, 70], Class::Activations).unwrap();
        let view = |array: &Array, view: View| {
            run_one(&Op::View(view), &[array], &device, DType::F32, Class::Activations).unwrap()
        };
        let narrow = |dim, start, length| View::Narrow { dim, start, length };
        // Channels-last images, some of their channels, some of their rows; one channel; nothing moved.
        let images = view(&whole, View::Permute([0, 3, 1, 2].try_into().unwrap()));
        let some = view(&images, narrow(1, 3, 40));
        let expanded = view(&view(&images, narrow(1, 5, 1)), View::Expand([6, 9, 10, 12].try_into().unwrap()));
        for x in [
            whole.clone(),
            images.clone(),
            some.clone(),
            view(&some, narrow(2, 1, 7)),
            view(&images, narrow(1, 69, 1)),
            expanded,
        ] {
            for dims in [&[0, 2, 3][..], &[2, 3], &[0], &[1], &[3], &[1, 2], &[0, 1, 2, 3], &[0, 3]] {
                for kind in [Reduce::Sum, Reduce::Mean] {
                    let op = Op::Reduce { kind, dims: Dims::new("sum", x.shape(), dims).unwrap(), keepdim: false };
                    let (_, failure) = check_op(&op, std::slice::from_ref(&x), &device, DType::F32).unwrap();
                    assert_eq!(failure, None, "{} {dims:?} of {:?}", isa.name(), x.layout());
                }
            }
        }
    }
}

#[test]
fn shapes_at_the_edge_of_sense_give_errors_and_not_panics() {
    use binade_tensor::Dims;
    use binade_tensor::op::{Norm, NormKind, Reduce};
    let device = Device::cpu();
    let tensor = |dims: &[usize]| {
        Array::full(&device, DType::F32, binade_tensor::Shape::new(dims).unwrap(), 1.0, Class::Activations).unwrap()
    };
    let sum = Op::Reduce { kind: Reduce::Sum, dims: Dims::one(0), keepdim: false };
    assert!(apply(&sum, &[tensor(&[])], &device, DType::F32).unwrap_err().to_string().contains("out of range"));
    for (kind, dims) in [
        (NormKind::Layer { dims: 1 }, &[0][..]),
        (NormKind::Group { groups: 1 }, &[2, 2, 0]),
        (NormKind::Batch, &[0, 3, 2, 2]),
    ] {
        let norm = Op::Norm(Norm { kind, eps: 1e-5, affine: false, act: None });
        assert!(apply(&norm, &[tensor(dims)], &device, DType::F32).is_err(), "{kind:?}");
    }
}

#[test]
fn stated_bounds_are_at_most_a_hundred_times_what_is_seen() {
    let device = Device::cpu();
    let mut seen = std::collections::BTreeMap::<String, (f64, bool)>::new();
    for op in catalogue() {
        let name = match &op {
            Op::Backward(binade_tensor::op::Backward::Unary(row)) => format!("{}_backward", row.name()),
            Op::Backward(binade_tensor::op::Backward::Loss { loss, .. }) => format!("{}_backward", loss.name()),
            Op::Backward(binade_tensor::op::Backward::Binary { op, .. }) => format!("{}_backward", op.name()),
            op => op.name().to_string(),
        };
        for ins in op.samples(&device, DType::F32) {
            let bound = op.bound(&ins.iter().collect::<Vec<_>>());
            // A bound of one unit in the last place cannot be loose: rounding alone takes half of it.
            let loose = !matches!(bound, binade_tensor::op::Bound::Ulps(n) if n <= 1.0);
            let entry = seen.entry(name.clone()).or_insert((0.0, false));
            let (check, _) = check_op(&op, &ins, &device, DType::F32).unwrap();
            // Rounding included: what an element was off by, as a part of what it may be off by.
            *entry = (entry.0.max(check.used), entry.1 || loose && check.misrounded > 0);
        }
    }
    let loose: Vec<_> = seen.iter().filter(|(_, (used, loose))| *loose && *used < 0.01).collect();
    assert!(loose.is_empty(), "{loose:#?}");
}
