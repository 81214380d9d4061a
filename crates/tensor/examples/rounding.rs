//! What half precision costs: the same sum in four dtypes.

use binade_tensor::{Device, Float, Tensor, bf16, f16};

fn sum<T: Float>(name: &str) -> binade_tensor::Result<()> {
    let x = Tensor::<T>::full(&Device::reference(), 0.1, &[1000])?;
    println!("{name}: 1000 × {} = {}", x.to_vec()?[0].as_f64(), x.sum(&[], false)?.to_vec()?[0].as_f64());
    Ok(())
}

fn main() -> binade_tensor::Result<()> {
    sum::<f64>("f64")?;
    sum::<f32>("f32")?;
    sum::<f16>("f16")?;
    sum::<bf16>("bf16")
}
