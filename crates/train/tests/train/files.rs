//! Data files that are missing, torn or foreign, and what the embedded data hold.

use binade_cpu as _;
use std::io::Write;
use std::path::Path;

use binade_nn::{Flatten, Linear, Sequential};
use binade_train::images::Dataset;
use binade_train::{Classify, Config, Data, InMemory, Numbers, Precision, Regress, RunConfig, Splits, train};

static TWO: Classify = Classify::new(2);

fn shape(data: &dyn Data) -> Vec<usize> {
    data.sample(0, None).unwrap().0[0].shape.clone()
}

fn message(dataset: Dataset, folder: &Path) -> String {
    match dataset.load(Some(folder)) {
        Ok(_) => "no error".into(),
        Err(e) => e.to_string(),
    }
}

#[test]
fn embedded_icons_are_whole_and_split_without_overlap() {
    let icons = Dataset::Icons.load(None).unwrap();
    assert_eq!((icons.train.len(), icons.test.len()), Dataset::Icons.sizes().unwrap());
    let mut seen = std::collections::HashSet::new();
    let mut classes = [0; 9];
    for data in [&icons.train, &icons.test] {
        for i in 0..data.len() {
            let sample = data.sample(i, None).unwrap();
            let (Numbers::F32(image), Numbers::I64(class)) = (&sample.0[0].numbers, &sample.0[1].numbers) else {
                panic!("{sample:?}");
            };
            assert_eq!(sample.0[0].shape, [4, 32, 32]);
            assert!(image.iter().all(|x| (-1.0..=1.0).contains(x)) && image.contains(&-1.0));
            assert!(seen.insert(image.iter().map(|x| x.to_bits()).collect::<Vec<_>>()));
            classes[class[0] as usize] += 1;
        }
    }
    // As many as the package has in each category.
    assert_eq!(classes, [69, 28, 12, 20, 7, 13, 21, 9, 35]);
}

#[test]
fn digits_are_1797_images_split_1437_to_360() {
    let digits = Dataset::Digits.load(None).unwrap();
    assert_eq!((digits.train.len(), digits.test.len(), shape(&*digits.train)), (1437, 360, vec![1, 8, 8]));
    let mut counts = [0; 10];
    for split in [&digits.train, &digits.test] {
        for i in 0..split.len() {
            let Numbers::I64(label) = split.sample(i, None).unwrap().0[1].numbers.clone() else { panic!() };
            counts[label[0] as usize] += 1;
        }
    }
    assert_eq!(counts, [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]);
}

#[test]
fn the_digits_are_normalised_by_the_constants_that_are_told() {
    let digits = Dataset::Digits.load(None).unwrap();
    let mut all = Vec::new();
    for i in 0..digits.train.len() {
        let Numbers::F32(x) = digits.train.sample(i, None).unwrap().0[0].numbers.clone() else { panic!() };
        all.extend(x.into_iter().map(f64::from));
    }
    let n = all.len() as f64;
    let mean = all.iter().sum::<f64>() / n;
    let deviation = (all.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n).sqrt();
    assert!(mean.abs() < 1e-2 && (deviation - 1.0).abs() < 1e-2, "{mean} {deviation}");
    // Black and white.
    let (least, most) = all.iter().fold((f64::MAX, f64::MIN), |(a, b), &x| (a.min(x), b.max(x)));
    let (mean, deviation) = Dataset::Digits.normalization();
    assert!((least + (mean[0] / deviation[0]) as f64).abs() < 1e-6);
    assert!((most - ((1.0 - mean[0]) / deviation[0]) as f64).abs() < 1e-6);
}

#[test]
fn cifar10_files_are_checked() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    assert!(message(Dataset::Cifar10, &path("absent")).contains("absent"));
    assert!(message(Dataset::Cifar10, folder.path()).contains("no data_batch_*.bin"));
    for (bytes, found) in
        [(vec![], "found 0 bytes"), (vec![0; 1000], "found 1000 bytes"), (vec![77; 3073], "found label 77")]
    {
        std::fs::write(path("data_batch_1.bin"), bytes).unwrap();
        let error = message(Dataset::Cifar10, folder.path());
        assert!(error.contains("data_batch_1.bin") && error.contains("3073 bytes") && error.contains(found), "{error}");
    }
    std::fs::write(path("data_batch_1.bin"), vec![3; 2 * 3073]).unwrap();
    assert!(message(Dataset::Cifar10, folder.path()).contains("test_batch.bin"));
    std::fs::write(path("test_batch.bin"), vec![4; 3073]).unwrap();
    let data = Dataset::Cifar10.load(Some(folder.path())).unwrap();
    assert_eq!((data.train.len(), data.test.len(), shape(&*data.train)), (2, 1, vec![3, 32, 32]));
    // The first files are a set; a set with a hole is not.
    std::fs::write(path("data_batch_3.bin"), vec![3; 3073]).unwrap();
    assert!(message(Dataset::Cifar10, folder.path()).contains("data_batch_2.bin"));
    std::fs::write(path("data_batch_2.bin"), vec![3; 3073]).unwrap();
    assert_eq!(Dataset::Cifar10.load(Some(folder.path())).unwrap().train.len(), 4);
    assert!(Dataset::Cifar10.load(None).err().unwrap().to_string().contains("--data DIR"));
}

#[test]
fn idx_files_are_read_plain_and_packed_and_checked() {
    let folder = tempfile::tempdir().unwrap();
    let images = |n: u32| {
        [&[0, 0, 8, 3][..], &n.to_be_bytes(), &28u32.to_be_bytes(), &28u32.to_be_bytes(), &vec![9; n as usize * 784]]
            .concat()
    };
    let labels = |n: u32| [&[0, 0, 8, 1][..], &n.to_be_bytes(), &vec![5; n as usize]].concat();
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
    assert!(message(Dataset::Mnist, folder.path()).contains("train-images-idx3-ubyte"));
    write("train-images-idx3-ubyte", &images(3));
    let pack = |bytes: &[u8]| {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(bytes).unwrap();
        packed.finish().unwrap()
    };
    // In two members, as gzip files that were put one after the other.
    let three = labels(3);
    write("train-labels-idx1-ubyte.gz", &[pack(&three[..9]), pack(&three[9..])].concat());
    write("t10k-images.idx3-ubyte", &images(2));
    write("t10k-labels.idx1-ubyte", &labels(1));
    let error = message(Dataset::FashionMnist, folder.path());
    assert!(error.contains("t10k-labels") && error.contains("2 labels") && error.contains("a header for 1"), "{error}");
    write("t10k-labels.idx1-ubyte", &labels(2));
    let data = Dataset::Mnist.load(Some(folder.path())).unwrap();
    assert_eq!((data.train.len(), data.test.len(), shape(&*data.test)), (3, 2, vec![1, 28, 28]));
    write("train-images-idx3-ubyte", b"PNG\n");
    assert!(message(Dataset::Mnist, folder.path()).contains("expected an idx file"));
    write("train-images-idx3-ubyte", b"");
    assert!(message(Dataset::Mnist, folder.path()).contains("found 0 bytes"));
}

/// Headers of training files beside the 2 images of 28 × 28 and 2 labels that they should be for.
#[test]
fn headers_of_idx_files_are_not_believed() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
    let idx = |extents: &[u32], contents: &[u8]| {
        let extents_in_bytes: Vec<u8> = extents.iter().flat_map(|e| e.to_be_bytes()).collect();
        [&[0, 0, 8, extents.len() as u8][..], &extents_in_bytes, contents].concat()
    };
    let (pixels, labels) = ([9; 2 * 784], [5; 2]);
    let error = |images: &[u8], labels: &[u8]| {
        write("train-images-idx3-ubyte", images);
        write("train-labels-idx1-ubyte", labels);
        message(Dataset::Mnist, folder.path())
    };
    let (good_images, good_labels) = (idx(&[2, 28, 28], &pixels), idx(&[2], &labels));
    write("t10k-images-idx3-ubyte", &good_images);
    write("t10k-labels-idx1-ubyte", &good_labels);
    assert_eq!(error(&good_images, &good_labels), "no error");
    let wrong = error(&good_images, &idx(&[999_999], &labels));
    assert!(
        wrong.contains("train-labels") && wrong.contains("expected 999999 bytes after its header, found 2"),
        "{wrong}"
    );
    assert!(
        error(&good_images, &idx(&[3], &[5; 3]))
            .contains("expected 2 labels, one for each image, found a header for 3")
    );
    // 2⁹³ is 0 in 64 bit, and 2³⁰ × 4 is 0 in 32.
    for extents in [[1 << 31; 3], [1 << 30, 2, 2], [u32::MAX; 3], [2, 1 << 16, 1 << 16]] {
        let wrong = error(&idx(&extents, &pixels), &good_labels);
        assert!(wrong.contains("train-images") && wrong.contains("expected at most 1 GiB"), "{wrong}");
    }
    assert!(
        error(&idx(&[2, 28, 27], &pixels), &good_labels).contains("expected 1512 bytes after its header, found 1568")
    );
    assert!(error(&idx(&[0, 28, 28], &[]), &idx(&[0], &[])).contains("found 0 images of 28×28"));
    assert!(
        error(&idx(&[2, 14, 14], &pixels[..392]), &good_labels).contains("expected images of 14×14, as for training")
    );
}

/// 64 MB of zeros in 64 KB; the header says how many are wanted.
#[test]
fn a_packed_file_is_unpacked_no_further_than_its_header_says() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("train-images-idx3-ubyte.gz");
    let pack = |extents: [u32; 3], zeros: usize| {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(&[0, 0, 8, 3]).unwrap();
        extents.iter().for_each(|e| packed.write_all(&e.to_be_bytes()).unwrap());
        packed.write_all(&vec![0; zeros]).unwrap();
        std::fs::write(&path, packed.finish().unwrap()).unwrap();
        message(Dataset::Mnist, folder.path())
    };
    std::fs::write(folder.path().join("train-labels-idx1-ubyte"), [0, 0, 8, 1, 0, 0, 0, 1, 7]).unwrap();
    assert!(pack([1, 28, 28], 1 << 26).contains("expected 784 bytes after its header, found more"));
    assert!(pack([1, 28, 28], 783).contains("expected 784 bytes after its header, found 783"));
    // More than so small a file can hold: nothing is unpacked.
    let claimed = pack([1, 1 << 15, 1 << 15], 1000);
    assert!(claimed.contains("expected at most 1032 times its") && claimed.contains("1×32768×32768"), "{claimed}");
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    assert!(message(Dataset::Mnist, folder.path()).contains("train-images-idx3-ubyte.gz"));
}

fn config(folder: &Path) -> RunConfig {
    let fit = Config { epochs: 1, batch_size: 2, ..Config::default() };
    RunConfig {
        precisions: vec![Precision::Fp32],
        fit,
        out: Some(folder.join("run")),
        quiet: true,
        ..RunConfig::default()
    }
}

fn four(value: f32) -> Splits {
    let data = InMemory::classes(vec![value; 16], &[4], &[0, 1, 0, 1]).unwrap();
    Splits::new(data.clone(), data)
}

#[test]
fn a_run_without_an_applied_step_is_an_error_with_step_operator_and_layer() {
    let folder = tempfile::tempdir().unwrap();
    let build = || Ok(Sequential::new().then(Flatten).then(Linear::new(4, 64)?).then(Linear::new(64, 2)?));
    let error = |value: f32, name: &str| {
        let config = RunConfig { out: Some(folder.path().join(name)), ..config(folder.path()) };
        train(build, &TWO, &four(value), &config).unwrap_err().to_string()
    };
    let overflow = error(f32::MAX, "overflow");
    assert!(
        overflow.contains("step 1 is the last of 2 in a row")
            && overflow.contains("matmul in 1")
            && overflow.contains("learning rate"),
        "{overflow}"
    );
    let invalid = error(f32::NAN, "nan");
    assert!(invalid.contains("input data"), "{invalid}");
}

#[test]
fn shapes_that_do_not_fit_name_operator_and_layer() {
    let folder = tempfile::tempdir().unwrap();
    let error = train(|| Ok(Sequential::new().then(Linear::new(5, 2)?)), &TWO, &four(1.0), &config(folder.path()))
        .unwrap_err()
        .to_string();
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
    let run =
        train(|| Ok(Sequential::new().then(Linear::new(1, 1)?)), &Regress, &Splits::new(data.clone(), data), &config)
            .unwrap();
    assert_eq!(run.summaries[0].test_accuracy, None);
    assert!(run.summaries[0].train_loss < 1e-3, "{}", run.summaries[0].train_loss);
}

#[test]
fn a_folder_that_cannot_be_written_is_found_before_training() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("run"), "a file").unwrap();
    let build = || Ok(Sequential::new().then(Linear::new(4, 2)?));
    assert!(train(build, &TWO, &four(1.0), &config(folder.path())).unwrap_err().to_string().contains("run"));
}
