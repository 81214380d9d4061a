//! Trains a linear classifier on the embedded digits in three precisions.

use binade_cpu as _;
use binade_nn::{Flatten, Linear, Sequential};
use binade_train::{Classify, Config, RunConfig, images::Dataset, train};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let data = Dataset::Digits.load(None)?;
    let out = std::env::temp_dir().join(format!("binade-digits-{}", std::process::id()));
    let config = RunConfig { fit: Config { epochs: 3, ..Config::default() }, out: Some(out), ..RunConfig::default() };
    train(|| Ok(Sequential::new().then(Flatten).then(Linear::new(64, 10)?)), &Classify::new(10), &data, &config)?;
    Ok(())
}
