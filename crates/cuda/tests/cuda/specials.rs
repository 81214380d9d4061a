//! Zeros of both signs, infinities, NaN and the ends of the range.

use binade_cuda::interpreted;
use binade_tensor::{Array, Class, DType, Device, Op};

use crate::bits::{avx2, is_promised};
use crate::common::{all_there, bits, operators, outs};

/// In both formats; those beyond one become its infinities and zeros.
const SPECIALS: [f32; 19] = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    f32::INFINITY,
    f32::NEG_INFINITY,
    f32::NAN,
    f32::MAX,
    f32::MIN,
    f32::MIN_POSITIVE,
    -f32::MIN_POSITIVE,
    1e-45,
    -1e-45,
    0.5,
    -3.25,
    88.75,
    -104.0,
    1e-20,
    -1e20,
];

/// The sample with other values: of several operands all combinations meet where there are enough elements.
fn special(ins: &[Array], dtype: DType) -> Vec<Array> {
    let mut step = 1;
    let replaced = ins.iter().map(|array| {
        if !array.dtype().is_float() {
            return array.clone();
        }
        let values: Vec<f32> = (0..array.numel()).map(|i| SPECIALS[i / step % SPECIALS.len()]).collect();
        step *= SPECIALS.len();
        let new = Array::from_slice(array.device(), &values, array.shape(), Class::Activations).unwrap();
        new.cast(dtype, Class::Activations).unwrap()
    });
    replaced.collect()
}

#[test]
fn special_values_give_the_cpus_bits_where_bits_are_promised() {
    let Some(cpu) = avx2() else { return };
    let device = Device::new(interpreted().unwrap());
    let mut differing = Vec::new();
    for op in operators().filter(is_promised).filter(|op| !matches!(op, Op::Random { .. })) {
        for dtype in [DType::F32, DType::BF16] {
            let samples = op.samples(&cpu, dtype);
            let Some(largest) = samples.iter().max_by_key(|ins| ins.first().map_or(0, |x| x.numel())) else { continue };
            let ins = special(largest, dtype);
            let of = |device: &Device| -> Vec<Vec<u64>> {
                let here = all_there(device, &ins).unwrap();
                outs(&op, &here, device, dtype).unwrap().iter().map(|out| bits(out).unwrap()).collect()
            };
            let (theirs, ours) = (of(&cpu), of(&device));
            if ours != theirs {
                let place = ours[0].iter().zip(&theirs[0]).position(|(a, b)| a != b);
                let values = place.map(|i| [ours[0][i], theirs[0][i]].map(f64::from_bits));
                differing.push(format!("{op:?} {dtype}: element {place:?}, {values:?}"));
            }
        }
    }
    assert!(differing.is_empty(), "{} operators:\n{}", differing.len(), differing.join("\n"));
}
