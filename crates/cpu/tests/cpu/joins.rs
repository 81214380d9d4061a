//! Concatenation, the gradient of narrowing and that of an embedding: in every memory order, against their definition
//! element by element.

use binade_cpu as _;
use binade_tensor::op::Backward;
use binade_tensor::{Array, Class, DType, Device, Op, Shape, run_one};

/// Logical `dims`, with the dimensions in memory in the order `order`; values are 1, 2, 3, … in row-major order, from
/// `first` on.
fn counted(dims: &[usize], order: &[usize], first: usize, dtype: DType) -> Array {
    let n: usize = dims.iter().product();
    let values: Vec<f32> = (first..first + n).map(|v| (v % 251) as f32).collect();
    let array = Array::from_slice(&Device::cpu(), &values, dims, Class::Activations).unwrap();
    let array = array.cast(dtype, Class::Activations).unwrap();
    let permuted = array.with_layout(array.layout().permute(order)).unwrap().contiguous(Class::Activations).unwrap();
    let mut back = vec![0; dims.len()];
    order.iter().enumerate().for_each(|(at, &d)| back[d] = at);
    let layout = permuted.layout().permute(&back);
    permuted.with_layout(layout).unwrap()
}

/// All elements in row-major order, and their index.
fn elements(array: &Array) -> (Vec<f64>, impl Fn(usize, usize) -> usize) {
    let shape = array.shape().to_vec();
    let at = move |flat: usize, d: usize| flat / shape[d + 1..].iter().product::<usize>() % shape[d];
    (array.to_f64_vec().unwrap(), at)
}

#[test]
fn a_concatenation_has_its_operands_elements_in_every_memory_order() {
    const ORDERS: [[usize; 4]; 3] = [[0, 1, 2, 3], [0, 2, 3, 1], [1, 0, 3, 2]];
    // More elements than a task takes, whose rows end anywhere in it; and operands of nothing.
    let extents = [[3, 70, 1], [37, 41, 0], [0, 3, 5]];
    for (order, dim, sizes) in ORDERS.iter().flat_map(|o| (0..4).flat_map(move |d| extents.map(|e| (o, d, e)))) {
        for dtypes in [
            [DType::BF16; 3],
            [DType::F32; 3],
            [DType::F64; 3],
            [DType::F16; 3],
            [DType::BF16, DType::F32, DType::BF16],
        ] {
            let mut dims = [5, 13, 17, 19];
            let parts: Vec<Array> = (sizes.iter().zip(dtypes))
                .map(|(&size, dtype)| {
                    dims[dim] = size;
                    counted(&dims, order, 7 * size, dtype)
                })
                .collect();
            // The last operand in another order than the others.
            for strange in [false, true] {
                let mut ins: Vec<&Array> = parts.iter().collect();
                let other;
                if strange {
                    dims[dim] = sizes[1];
                    other = counted(&dims, &[3, 2, 1, 0], 7 * sizes[1], dtypes[1]);
                    ins[1] = &other;
                }
                let want = if dtypes[0] == dtypes[1] { dtypes[0] } else { DType::F32 };
                let joined = run_one(&Op::Cat { dim }, &ins, &Device::cpu(), want, Class::Activations).unwrap();
                let (found, _) = elements(&joined);
                let inner: usize = dims[dim + 1..].iter().product();
                let outer: usize = dims[..dim].iter().product();
                let all: Vec<Vec<f64>> = parts.iter().map(|a| a.to_f64_vec().unwrap()).collect();
                let rows = (0..outer)
                    .flat_map(|i| all.iter().zip(sizes).flat_map(move |(a, n)| &a[i * n * inner..(i + 1) * n * inner]));
                assert!(found.iter().eq(rows), "{order:?} dim {dim} {sizes:?} {dtypes:?} {strange}");
            }
        }
    }
}

#[test]
fn the_gradient_of_a_narrowed_tensor_is_zero_around_it_in_every_memory_order() {
    for (order, dim) in [[0, 1, 2, 3], [0, 2, 3, 1]].iter().flat_map(|o| (0..4).map(move |d| (o, d))) {
        let (mut dims, start, dtype) = ([3, 5, 7, 11], 1, DType::F16);
        let shape = Shape::new(&dims).unwrap();
        dims[dim] = 2;
        let g = counted(&dims, order, 1, dtype);
        let out = run_one(
            &Op::Backward(Backward::Narrow { dim, start, shape }),
            &[&g],
            &Device::cpu(),
            dtype,
            Class::Gradients,
        )
        .unwrap();
        let mut inside = g.to_f64_vec().unwrap().into_iter();
        let (found, at) = elements(&out);
        for (flat, value) in found.into_iter().enumerate() {
            let is_inside = (start..start + 2).contains(&at(flat, dim));
            assert_eq!(value, if is_inside { inside.next().unwrap() } else { 0.0 }, "{order:?} dim {dim} at {flat}");
        }
    }
}

#[test]
fn an_embeddings_gradient_adds_the_rows_of_equal_indices_in_order() {
    // Wider than a block; row 2 is not used, 0 again and again, and 1 + ε + ε in f32 depends on the order.
    let (d, rows) = (1500, 5);
    let index: [i64; 7] = [0, 4, 0, 3, 0, 4, 1];
    for (dtype, n) in [DType::F32, DType::BF16].into_iter().flat_map(|t| [(t, 7), (t, 0)]) {
        let values: Vec<f32> =
            (0..n * d).map(|i| if i / d == 0 { 1.0 } else { 2.0f32.powi(-24) * (1 + i % 3) as f32 }).collect();
        let g = Array::from_slice(&Device::cpu(), &values, &[n, d], Class::Gradients)
            .unwrap()
            .cast(dtype, Class::Gradients)
            .unwrap();
        let at = Array::from_slice(&Device::cpu(), &index[..n], &[n], Class::Activations).unwrap();
        let op = Op::Backward(Backward::Embedding { rows });
        let found =
            run_one(&op, &[&g, &at], &Device::cpu(), DType::F32, Class::Gradients).unwrap().to_f64_vec().unwrap();
        let mut expected = vec![0.0f32; rows * d];
        let g = g.to_f64_vec().unwrap();
        for (i, v) in g.iter().enumerate() {
            expected[index[i / d] as usize * d + i % d] += *v as f32;
        }
        assert!(found.iter().zip(&expected).all(|(&f, &e)| f == f64::from(e)), "{dtype} {n}");
    }
}
