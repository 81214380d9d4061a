//! Time of single kernels, beside the `matrixmultiply` crate where it has the same.

use std::hint::black_box;

use binade_tensor::op::{Conv2d, Epilogue, Norm, NormKind, Unary};
use binade_tensor::{Array, Class, DType, Op, run_one};
use criterion::{Criterion, criterion_group, criterion_main};

fn array(dims: &[usize], dtype: DType) -> Array {
    let values: Vec<f32> = (0..dims.iter().product()).map(|i: usize| (i as f32 * 0.37).sin()).collect();
    Array::from_slice(&binade_cpu::device(), &values, dims, Class::Activations)
        .unwrap()
        .cast(dtype, Class::Activations)
        .unwrap()
}

fn bench(c: &mut Criterion, name: &str, op: &Op, ins: &[Array]) {
    let ins: Vec<&Array> = ins.iter().collect();
    let (device, dtype) = (binade_cpu::device(), ins[0].dtype());
    c.bench_function(&format!("{name} {dtype}"), |b| {
        b.iter(|| black_box(run_one(op, &ins, &device, dtype, Class::Activations).unwrap()));
    });
}

fn kernels(c: &mut Criterion) {
    for dtype in [DType::F32, DType::F16, DType::BF16] {
        let matmul = Op::MatMul(Epilogue::default());
        bench(c, "matmul 512", &matmul, &[array(&[512, 512], dtype), array(&[512, 512], dtype)]);
        bench(c, "matmul 2x4096x4096", &matmul, &[array(&[2, 4096], dtype), array(&[4096, 4096], dtype)]);
        let conv = Op::Conv2d(Conv2d { padding: [1, 1], ..Conv2d::default() }, Epilogue::default());
        bench(c, "conv2d 8x64x32x32", &conv, &[array(&[8, 64, 32, 32], dtype), array(&[64, 64, 3, 3], dtype)]);
        let x = [array(&[2048, 1024], dtype)];
        bench(c, "gelu 2Mi", &Op::Unary(Unary::Gelu), &x);
        bench(c, "softmax 2048x1024", &Op::Softmax { dim: 1, log: false }, &x);
        let norm = Norm { kind: NormKind::Layer { dims: 1 }, eps: 1e-5, affine: false, act: None };
        bench(c, "layer_norm 2048x1024", &Op::Norm(norm), &x);
    }
    let (a, b, mut out) = (vec![0.5f32; 512 * 512], vec![0.25f32; 512 * 512], vec![0.0f32; 512 * 512]);
    c.bench_function("matrixmultiply::sgemm 512", |bench| {
        bench.iter(|| {
            // SAFETY: three dense 512×512 matrices.
            unsafe {
                matrixmultiply::sgemm(
                    512,
                    512,
                    512,
                    1.0,
                    a.as_ptr(),
                    512,
                    1,
                    b.as_ptr(),
                    512,
                    1,
                    0.0,
                    out.as_mut_ptr(),
                    512,
                    1,
                );
            }
            black_box(&out);
        });
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10).warm_up_time(std::time::Duration::from_millis(300)).measurement_time(std::time::Duration::from_secs(1));
    targets = kernels
}
criterion_main!(benches);
