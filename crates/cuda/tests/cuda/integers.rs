//! Integers and booleans that are moved and compared: exact, whatever their size, and by the device itself.

use binade_cuda::interpreted;
use binade_tensor::op::{Compare, Distribution, PadMode, Resample, Scatter};
use binade_tensor::{Array, Class, DType, Device, Key, Op, Shape};

use crate::common::{all_there, outs};

/// Beyond what f64 holds, where the dtype reaches so far.
fn array(dtype: DType, dims: &[usize], seed: usize) -> Array {
    let n: usize = dims.iter().product();
    let large = |i: usize| (1i64 << 60) + (i * 37 + seed) as i64 % 11 - 5;
    let values: Vec<i64> = (0..n).map(|i| if dtype == DType::I64 { large(i) } else { large(i) % 100 }).collect();
    Array::from_slice(&Device::cpu(), &values, dims, Class::Indices).unwrap().cast(dtype, Class::Indices).unwrap()
}

fn index(dims: &[usize], below: usize) -> Array {
    let places: Vec<i64> = (0..dims.iter().product()).map(|i: usize| ((i * 7 + 3) % below) as i64).collect();
    Array::from_slice(&Device::cpu(), &places, dims, Class::Indices).unwrap()
}

/// Whether integers, also of both signs and beyond what f64 holds, compare as on the host.
pub fn compared(device: &Device) -> Result<(), String> {
    let values = [i64::MIN, -(1 << 53) - 1, -(1 << 53), -1, 0, 1, 1 << 53, (1 << 53) + 1, i64::MAX];
    let of = |dims: &[usize]| Array::from_slice(&Device::cpu(), &values, dims, Class::Indices).unwrap();
    let ins = [of(&[9, 1]), of(&[9])];
    for row in Compare::ALL {
        let op = Op::Compare(row);
        let on = |device: &Device| -> binade_tensor::Result<Vec<bool>> {
            outs(&op, &all_there(device, &ins)?, device, DType::F32)?[0].to_vec::<bool>()
        };
        if on(device).map_err(|e| e.to_string())? != on(&Device::cpu()).map_err(|e| e.to_string())? {
            return Err(format!("{row:?}: other results"));
        }
    }
    Ok(())
}

#[test]
fn integers_compare_as_they_are() {
    compared(&Device::new(interpreted().unwrap())).unwrap();
}

#[test]
fn integers_are_moved_and_compared_as_they_are_without_the_host() {
    let (host, cuda) = (Device::cpu(), interpreted().unwrap());
    let device = Device::new(cuda.clone());
    let shape = |dims: [usize; 2]| Shape::new(&dims).unwrap();
    let key = Key::new(5, 1);
    let condition = index(&[4, 21], 2).cast(DType::Bool, Class::Indices).unwrap();
    let wide = Distribution::Integers { low: i64::MIN, high: i64::MAX };
    for dtype in [DType::I64, DType::U32, DType::I8, DType::Bool] {
        let x = |seed| array(dtype, &[4, 21], seed);
        let turned = x(3).with_layout(x(3).layout().transpose(0, 1)).unwrap();
        let pad = Resample::Pad { before: shape([0, 2]), after: shape([0, 3]), mode: PadMode::Constant(1.0) };
        let cases = [
            (Op::Where, vec![condition.clone(), x(1), x(2)]),
            (Op::Gather { dim: 1 }, vec![x(1), index(&[4, 9], 21)]),
            (Op::Gather { dim: 0 }, vec![turned.clone(), index(&[30, 4], 21)]),
            (Op::Scatter { kind: Scatter::Set, dim: 1 }, vec![x(1), index(&[3, 9], 21), array(dtype, &[3, 9], 4)]),
            (Op::ArgMax { dim: 1, keepdim: false }, vec![x(1)]),
            (Op::ArgMax { dim: 0, keepdim: true }, vec![turned.clone()]),
            (Op::Cat { dim: 1 }, vec![x(1), x(2)]),
            (Op::Copy, vec![turned]),
            (Op::Range { start: 3, length: 70 }, vec![array(DType::I64, &[], 1)]),
            (Op::Random { distribution: wide, shape: shape([3, 21]), key }, vec![]),
            (Op::Resample(pad), vec![x(1)]),
        ];
        for (op, ins) in cases {
            let of = |device: &Device| {
                let outs = outs(&op, &all_there(device, &ins).unwrap(), device, DType::F32).unwrap();
                outs[0].cast(DType::I64, Class::Indices).unwrap().to(&host).unwrap().to_vec::<i64>().unwrap()
            };
            assert_eq!(of(&device), of(&host), "{op:?} {dtype}");
        }
    }
    assert!(cuda.counts().fallbacks.is_empty(), "run by the host: {:?}", cuda.counts().fallbacks);
}
