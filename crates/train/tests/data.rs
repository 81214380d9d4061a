//! Data files that are missing, torn or foreign, and what the embedded data hold.

use std::io::Write;
use std::path::Path;

use binade_nn::{Flatten, Linear, Sequential};
use binade_train::images::Dataset;
use binade_train::{Config, InMemory, Precision, RunConfig, Splits, train};

fn message(dataset: Dataset, folder: &Path) -> String {
    match dataset.load(Some(folder)) {
        Ok(_) => "no error".into(),
        Err(e) => e.to_string(),
    }
}

#[test]
fn digits_are_1797_images_split_1437_to_360() {
    let digits = Dataset::Digits.load(None).unwrap();
    assert_eq!((digits.train.len(), digits.test.len(), digits.train.input_shape()), (1437, 360, vec![1, 8, 8]));
    let mut counts = [0; 10];
    for split in [&digits.train, &digits.test] {
        for i in 0..split.len() {
            let (mut x, mut y) = ([0.0; 64], [0.0]);
            split.sample(i, None, &mut x, &mut y);
            counts[y[0] as usize] += 1;
        }
    }
    assert_eq!(counts, [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]);
}

#[test]
fn cifar10_files_are_checked() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    assert!(message(Dataset::Cifar10, &path("absent")).contains("absent"));
    assert!(message(Dataset::Cifar10, folder.path()).contains("no data_batch_*.bin"));
    for (bytes, found) in [(vec![], "found 0 bytes"), (vec![0; 1000], "found 1000 bytes"), (vec![77; 3073], "found label 77")] {
        std::fs::write(path("data_batch_1.bin"), bytes).unwrap();
        let error = message(Dataset::Cifar10, folder.path());
        assert!(error.contains("data_batch_1.bin") && error.contains("3073 bytes") && error.contains(found), "{error}");
    }
    std::fs::write(path("data_batch_1.bin"), vec![3; 2 * 3073]).unwrap();
    assert!(message(Dataset::Cifar10, folder.path()).contains("test_batch.bin"));
    std::fs::write(path("test_batch.bin"), vec![4; 3073]).unwrap();
    let data = Dataset::Cifar10.load(Some(folder.path())).unwrap();
    assert_eq!((data.train.len(), data.test.len(), data.train.input_shape()), (2, 1, vec![3, 32, 32]));
    assert!(Dataset::Cifar10.load(None).err().unwrap().to_string().contains("--data DIR"));
}

#[test]
fn idx_files_are_read_plain_and_packed_and_checked() {
    let folder = tempfile::tempdir().unwrap();
    let images = |n: u32| {
        [&[0, 0, 8, 3][..], &n.to_be_bytes(), &28u32.to_be_bytes(), &28u32.to_be_bytes(), &vec![9; n as usize * 784]].concat()
    };
    let labels = |n: u32| [&[0, 0, 8, 1][..], &n.to_be_bytes(), &vec![5; n as usize]].concat();
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
    assert!(message(Dataset::Mnist, folder.path()).contains("train-images-idx3-ubyte"));
    write("train-images-idx3-ubyte", &images(3));
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(&labels(3)).unwrap();
    write("train-labels-idx1-ubyte.gz", &packed.finish().unwrap());
    write("t10k-images.idx3-ubyte", &images(2));
    write("t10k-labels.idx1-ubyte", &labels(1));
    let error = message(Dataset::FashionMnist, folder.path());
    assert!(error.contains("t10k-labels") && error.contains("expected 2 bytes") && error.contains("found 1"), "{error}");
    write("t10k-labels.idx1-ubyte", &labels(2));
    let data = Dataset::Mnist.load(Some(folder.path())).unwrap();
    assert_eq!((data.train.len(), data.test.len(), data.test.input_shape()), (3, 2, vec![1, 28, 28]));
    write("train-images-idx3-ubyte", b"PNG\n");
    assert!(message(Dataset::Mnist, folder.path()).contains("expected an idx file"));
    write("train-images-idx3-ubyte", b"");
    assert!(message(Dataset::Mnist, folder.path()).contains("found 0 bytes"));
}

fn config(folder: &Path) -> RunConfig {
    let fit = Config { epochs: 1, batch_size: 2, ..Config::default() };
    RunConfig { precisions: vec![Precision::Fp32], fit, out: Some(folder.join("run")), quiet: true, ..RunConfig::default() }
}

fn four(value: f32) -> Splits {
    let data = InMemory::classes(vec![value; 16], &[4], &[0, 1, 0, 1], 2).unwrap();
    Splits::new(data.clone(), data)
}

#[test]
fn a_loss_that_is_not_finite_stops_with_step_operator_and_layer() {
    let folder = tempfile::tempdir().unwrap();
    let build = || Ok(Sequential::new().then(Flatten).then(Linear::new(4, 64)?).then(Linear::new(64, 2)?));
    let error = |value: f32, name: &str| {
        let config = RunConfig { out: Some(folder.path().join(name)), ..config(folder.path()) };
        train(build, &four(value), &config).unwrap_err().to_string()
    };
    let overflow = error(f32::MAX, "overflow");
    assert!(
        overflow.contains("at step 0") && overflow.contains("matmul in 1") && overflow.contains("learning rate"),
        "{overflow}"
    );
    let invalid = error(f32::NAN, "nan");
    assert!(invalid.contains("input data"), "{invalid}");
}

#[test]
fn shapes_that_do_not_fit_name_operator_and_layer() {
    let folder = tempfile::tempdir().unwrap();
    let error =
        train(|| Ok(Sequential::new().then(Linear::new(5, 2)?)), &four(1.0), &config(folder.path())).unwrap_err().to_string();
    assert!(error.contains("matmul") && error.contains("[2, 4] and [5, 2]") && error.contains("in 0"), "{error}");
}

#[test]
fn regression_trains_and_reports_no_accuracy() {
    let folder = tempfile::tempdir().unwrap();
    let inputs: Vec<f32> = (0..64).map(|i| i as f32 / 32.0 - 1.0).collect();
    let targets = inputs.iter().map(|x| 2.0 * x + 1.0).collect();
    let data = InMemory::values(inputs, &[1], targets, &[1]).unwrap();
    let fit = Config { epochs: 60, batch_size: 16, lr: 0.05, weight_decay: 0.0, ..Config::default() };
    let config = RunConfig { fit, ..config(folder.path()) };
    let run = train(|| Ok(Sequential::new().then(Linear::new(1, 1)?)), &Splits::new(data.clone(), data), &config).unwrap();
    assert_eq!(run.summaries[0].test_accuracy, None);
    assert!(run.summaries[0].train_loss < 1e-3, "{}", run.summaries[0].train_loss);
}

#[test]
fn a_folder_that_cannot_be_written_is_found_before_training() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("run"), "a file").unwrap();
    let build = || Ok(Sequential::new().then(Linear::new(4, 2)?));
    assert!(train(build, &four(1.0), &config(folder.path())).unwrap_err().to_string().contains("run"));
}
