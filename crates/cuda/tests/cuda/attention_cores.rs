//! Attention on tensor cores, by capability: within its bounds in every geometry and at the registry's samples, what
//! they do not take, what hidden keys may hold, and what its loop costs.

use binade_cuda::{Counters, Interpreted};
use binade_tensor::op::Attention;
use binade_tensor::{Array, Class, DType, Device, Key, Op};

use crate::common::{all_there, bits, operators, outs};
use crate::registry;
use crate::tensor_cores::{formats, of};

/// Waves of several lengths; `by` draws others.
fn wave(dtype: DType, dims: &[usize], by: f32) -> Array {
    let values: Vec<f32> = (0..dims.iter().product()).map(|i: usize| 2.0 * (i as f32 * by).sin()).collect();
    let array = Array::from_slice(&Device::cpu(), &values, dims, Class::Activations).unwrap();
    array.cast(dtype, Class::Activations).unwrap()
}

/// Extents: samples, heads of q and of k and v, queries, keys, features of q and of v.
type Extents = [usize; 7];

/// Queries, keys and values, dense or with heads inside positions.
fn operands(dtype: DType, [n, heads, key_heads, t, s, d, e]: Extents, inside: bool) -> Vec<Array> {
    let one = |[heads, rows, features]: [usize; 3], by| {
        if !inside {
            return wave(dtype, &[n, heads, rows, features], by);
        }
        let array = wave(dtype, &[n, rows, heads, features], by);
        array.with_layout(array.layout().transpose(1, 2)).unwrap()
    };
    vec![one([heads, t, d], 0.37), one([key_heads, s, d], 0.71), one([key_heads, s, e], 0.53)]
}

/// Less than a tile of 64 queries and keys, as many, and two of them and three, in each size of kernel; heads of
/// features between them, and shared ones.
const EXTENTS: [Extents; 8] = [
    [1, 1, 1, 63, 64, 16, 16],
    [2, 2, 1, 64, 131, 64, 40],
    [1, 2, 2, 131, 63, 24, 64],
    [1, 1, 1, 5, 65, 128, 72],
    [1, 2, 1, 66, 70, 80, 128],
    [1, 1, 1, 17, 35, 256, 8],
    [1, 1, 1, 65, 16, 136, 256],
    [1, 4, 2, 1, 7, 8, 8],
];

const KEY: Key = Key { seed: 7, iteration: 3, op: 5 };

/// Whether attention is within its bound, and by tensor cores.
fn check(device: &Device, cores: &Interpreted, op: Attention, ins: &[Array], dtype: DType) -> Result<(), String> {
    let before = cores.executed().1.tensor_operations;
    registry::failure(&Op::Attention(op), ins, device, dtype).map_or(Ok(()), Err)?;
    let ran = cores.executed().1.tensor_operations > before;
    if ran { Ok(()) } else { Err(format!("{op:?} {dtype}: not by tensor cores")) }
}

fn check_capability(capability: u32) {
    let (device, cores) = of(capability);
    for (at, extents) in EXTENTS.into_iter().enumerate() {
        for &dtype in formats(capability) {
            let ins = operands(dtype, extents, at % 2 == 1);
            for causal in [false, true] {
                let op = Attention { causal, ..Attention::default() };
                check(&device, &cores, op, &ins, dtype).unwrap_or_else(|e| panic!("{capability} {extents:?}: {e}"));
            }
        }
    }
}

#[test]
fn attention_of_every_size_is_within_its_bound_on_capability_7_5() {
    check_capability(75);
}

#[test]
fn attention_of_every_size_is_within_its_bound_on_capability_8_0() {
    check_capability(80);
}

#[test]
fn attention_of_every_size_is_within_its_bound_on_capability_9_0() {
    check_capability(90);
}

/// A mask of these dimensions: of booleans whose first column is true, or of numbers some of which are −∞.
fn mask(dims: &[usize], booleans: bool) -> Array {
    let columns = dims[dims.len() - 1];
    let at = |i: usize| (i * 7919 + i / 13 * 31) % 5;
    if booleans {
        let values: Vec<bool> =
            (0..dims.iter().product()).map(|i: usize| i.is_multiple_of(columns) || at(i) < 2).collect();
        return Array::from_slice(&Device::cpu(), &values, dims, Class::Activations).unwrap();
    }
    let value =
        |i: usize| if at(i) == 0 && !i.is_multiple_of(columns) { f32::NEG_INFINITY } else { at(i) as f32 - 2.0 };
    let values: Vec<f32> = (0..dims.iter().product()).map(value).collect();
    Array::from_slice(&Device::cpu(), &values, dims, Class::Activations).unwrap()
}

fn within(device: &Device, op: Attention, ins: &[Array], dtype: DType) -> Result<(), String> {
    registry::failure(&Op::Attention(op), ins, device, dtype).map_or(Ok(()), Err)
}

/// The array with other numbers at the beginning of its last matrix's row.
fn spoilt(array: &Array, row: usize, by: &[f32]) -> Array {
    let mut values = array.cast(DType::F32, Class::Activations).unwrap().to_vec::<f32>().unwrap();
    let features = array.shape()[array.shape().rank() - 1];
    values[row * features..][..by.len()].copy_from_slice(by);
    let new = Array::from_slice(&Device::cpu(), &values, array.shape(), Class::Activations).unwrap();
    new.cast(array.dtype(), Class::Activations).unwrap()
}

/// Whether edges, masks, dropout, shared and hidden keys hold in two sizes of kernel; for faults in them too.
pub fn attentions(device: &Device) -> Result<(), String> {
    let causal = Attention { causal: true, scale: Some(0.2), ..Attention::default() };
    let mut ins = operands(DType::F16, [1, 2, 1, 66, 136, 40, 24], true);
    within(device, causal, &ins, DType::F16)?;
    ins.push(mask(&[66, 136], false));
    let dropping = Attention { mask: true, dropout: 0.25, key: KEY, ..Attention::default() };
    within(device, dropping, &ins, DType::F16)?;
    within(device, Attention::default(), &operands(DType::BF16, [1, 1, 1, 20, 67, 72, 128], false), DType::BF16)?;
    let mut hidden = operands(DType::F16, [1, 1, 1, 20, 70, 16, 16], false);
    hidden[2] = spoilt(&hidden[2], 9, &[f32::NAN, f32::INFINITY]);
    within(device, causal, &hidden, DType::F16)
}

#[test]
fn masks_dropout_and_shared_heads_are_within_their_bounds() {
    for capability in [75, 80, 90] {
        let (device, _) = of(capability);
        attentions(&device).unwrap();
        for &dtype in formats(capability) {
            let ins = operands(dtype, [2, 4, 2, 70, 136, 40, 24], true);
            for (dims, booleans) in [(&[70, 136][..], true), (&[2, 1, 70, 136], false), (&[4, 1, 136], true)] {
                let masked = [&ins[..], &[mask(dims, booleans)]].concat();
                for dropout in [0.0, 0.25] {
                    let op = Attention { mask: true, dropout, key: KEY, ..Attention::default() };
                    within(&device, op, &masked, dtype).unwrap();
                }
            }
        }
    }
}

#[test]
fn attention_of_the_registry_is_within_its_bounds_on_every_capability() {
    for capability in [75, 80, 90] {
        let (device, cores) = of(capability);
        for op in operators().filter(|op| matches!(op, Op::Attention(_))) {
            for dtype in [DType::F16, DType::BF16] {
                for ins in op.samples(&Device::cpu(), dtype) {
                    assert_eq!(registry::failure(&op, &ins, &device, dtype), None, "{capability}");
                }
            }
        }
        assert!(cores.executed().1.tensor_operations > 0);
    }
}

#[test]
fn a_result_in_f32_is_not_rounded() {
    for capability in [75, 80] {
        let (device, cores) = of(capability);
        let ins = operands(DType::F16, [1, 2, 1, 66, 40, 32, 24], false);
        check(&device, &cores, Attention::default(), &ins, DType::F32).unwrap();
    }
}

/// A value, or a row of keys, that is hidden from some queries counts for nothing there, whatever it is.
#[test]
fn what_is_hidden_may_be_infinite_or_no_number() {
    for (capability, dtype) in [(75, DType::F16), (80, DType::BF16), (80, DType::F16)] {
        let (device, cores) = of(capability);
        let [q, k, v] = operands(dtype, [1, 1, 1, 70, 70, 32, 32], false).try_into().expect("three");
        let strange = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
        let causal = Attention { causal: true, ..Attention::default() };
        for ins in [
            [q.clone(), k.clone(), spoilt(&v, 20, &strange)],
            [q.clone(), spoilt(&k, 30, &strange[..1]), v.clone()],
            [spoilt(&q, 40, &strange[..1]), k.clone(), v.clone()],
        ] {
            check(&device, &cores, causal, &ins, dtype).unwrap();
        }
    }
}

#[test]
fn a_query_that_sees_no_key_has_zeros_and_an_infinite_log_sum_exp() {
    let (device, _) = of(80);
    let mut ins = operands(DType::BF16, [1, 1, 1, 20, 66, 16, 16], false);
    let values: Vec<bool> = (0..20 * 66).map(|i| i / 66 != 7).collect();
    ins.push(Array::from_slice(&Device::cpu(), &values, &[20, 66], Class::Activations).unwrap());
    let op = Op::Attention(Attention { mask: true, ..Attention::default() });
    assert_eq!(registry::failure(&op, &ins, &device, DType::BF16), None);
    let found = outs(&op, &all_there(&device, &ins).unwrap(), &device, DType::BF16).unwrap();
    assert_eq!(bits(&found[0]).unwrap()[7 * 16..8 * 16], [0; 16]);
    assert_eq!(found[1].to_vec::<f32>().unwrap()[7], f32::INFINITY);
}

#[test]
fn operands_that_tensor_cores_do_not_take_are_attended_to_without_them() {
    let dense = |dtype, features| operands(dtype, [1, 1, 1, 20, 20, features, features], false);
    let apart = |array: &Array| array.with_layout(array.layout().narrow(3, 4, 8)).unwrap();
    let mixed = [dense(DType::F16, 16)[0].clone(), dense(DType::BF16, 16)[1].clone(), dense(DType::F16, 16)[2].clone()];
    let shifted: Vec<Array> = dense(DType::F16, 16).iter().map(apart).collect();
    let cases = [
        (80, DType::F16, dense(DType::F16, 12)),
        (80, DType::F16, dense(DType::F16, 264)),
        (80, DType::F16, mixed.to_vec()),
        (80, DType::F16, shifted),
        (80, DType::F32, dense(DType::F32, 16)),
        (75, DType::BF16, dense(DType::BF16, 16)),
    ];
    for (capability, dtype, ins) in cases {
        let (device, cores) = of(capability);
        assert_eq!(registry::failure(&Op::Attention(Attention::default()), &ins, &device, dtype), None);
        assert_eq!(cores.executed().1.tensor_operations, 0, "{:?}", ins[0].layout());
    }
}

/// What attention of a head costs.
fn counted(capability: u32, [t, s, d]: [usize; 3], op: Attention) -> Counters {
    let (device, cores) = of(capability);
    let ins = all_there(&device, &operands(DType::F16, [1, 1, 1, t, s, d, d], false)).unwrap();
    let before = cores.executed();
    outs(&Op::Attention(op), &ins, &device, DType::F16).unwrap();
    let after = cores.executed();
    assert_eq!(after.0 - before.0, 1, "one kernel");
    let mut counters = after.1;
    counters.sectors_read -= before.1.sectors_read;
    counters.sectors_written -= before.1.sectors_written;
    counters.bank_conflicts -= before.1.bank_conflicts;
    counters.tensor_operations -= before.1.tensor_operations;
    counters
}

#[test]
fn queries_keys_and_values_are_read_once_to_a_block_and_without_conflicts_of_banks() {
    for capability in [75, 80] {
        for (d, size) in [(64, 64), (128, 128), (256, 256)] {
            let [t, s] = [128, 192];
            for causal in [false, true] {
                let counters = counted(capability, [t, s, d], Attention { causal, ..Attention::default() });
                let sectors = |bytes: usize| (bytes / 32) as f64;
                // A block of 64 queries reads them, and the keys and values that the last of them sees.
                let seen: usize = (1..=t / 64).map(|block| if causal { 64 * block } else { s }).sum();
                let read = sectors(2 * d * (t + 2 * seen));
                let told = format!("{capability}, {size}, causal: {causal}: {counters:?}");
                assert_eq!(counters.bank_conflicts, 0, "{told}");
                assert!(counters.sectors_read as f64 <= 1.05 * read, "{told}: {read} are ideal");
                assert_eq!(counters.sectors_written as f64, sectors(2 * t * d + 4 * t), "{told}");
                // Scores once, and values by both parts of each weight.
                assert!(counters.tensor_operations as usize <= 3 * 64 * seen * d, "{told}");
            }
        }
    }
}

#[test]
fn no_matrix_of_scores_is_in_memory() {
    let (device, _) = of(80);
    let ins = all_there(&device, &operands(DType::F16, [1, 1, 1, 256, 256, 16, 16], false)).unwrap();
    device.reset_peak_memory();
    let before = device.memory().live(Class::Workspace);
    outs(&Op::Attention(Attention::default()), &ins, &device, DType::F16).unwrap();
    assert_eq!(device.memory().peak(Class::Workspace), before);
}

#[test]
fn the_same_operands_give_the_same_bits_whichever_warp_is_first() {
    let ins = operands(DType::BF16, [1, 2, 1, 70, 131, 48, 48], false);
    let of_seed = |seed| {
        let interpreter = Interpreted::new(seed);
        let device = Device::new(binade_cuda::Cuda::new(interpreter).unwrap());
        let there = all_there(&device, &ins).unwrap();
        let found = outs(&Op::Attention(Attention::default()), &there, &device, DType::BF16).unwrap();
        found.iter().map(|out| bits(out).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(of_seed(1), of_seed(2));
}
