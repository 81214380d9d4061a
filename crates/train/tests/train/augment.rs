//! What is done to training images: deterministic by seed, epoch and number, and within its bounds.

use std::path::Path;

use binade_autograd::{Var, no_grad};
use binade_cpu as _;
use binade_nn::{Flatten, Layer, Linear, Sequential};
use binade_tensor::Key;
use binade_tensor::op::CrossEntropy;
use binade_train::images::{Dataset, ImageSet};
use binade_train::{
    Augment, Batch, Classify, Config, Data, Flip, InMemory, Numbers, Precision, RandAugment, RunConfig, Sample, Splits,
    Task, Views, train,
};

fn set(augment: Augment) -> ImageSet {
    Dataset::Digits.open(&Default::default()).unwrap().augmented(augment).unwrap()
}

/// Of a run with seed 5.
fn epoch(epoch: u64) -> Option<Key> {
    Some(Key::new(5, epoch).stream("data"))
}

fn image(sample: &Sample) -> &[f32] {
    let Numbers::F32(image) = &sample.0[0].numbers else { panic!("{sample:?}") };
    image
}

fn mirrored(image: &[f32]) -> Vec<f32> {
    image.chunks(8).flat_map(|row| row.iter().rev().copied()).collect()
}

#[test]
fn nothing_changes_by_default_and_in_evaluation() {
    let (plain, all) = (set(Augment::default()), set(everything()));
    for i in 0..20 {
        let sample = plain.train.sample(i, None).unwrap();
        assert_eq!(plain.train.sample(i, epoch(3)).unwrap(), sample);
        assert_eq!(all.train.sample(i, None).unwrap(), sample);
        assert_eq!(all.test.sample(i, epoch(3)).unwrap(), plain.test.sample(i, None).unwrap());
    }
}

fn everything() -> Augment {
    let rand_augment = Some(RandAugment { changes: 2, strength: 9 });
    Augment { crop: 2, flip: Flip::Random, rand_augment, cutout: 3, mixup: 0.2, cutmix: 1.0 }
}

#[test]
fn what_is_drawn_depends_on_seed_epoch_and_number_alone() {
    let (a, b) = (set(everything()), set(everything()));
    let mut others = 0;
    for i in (0..40).rev() {
        let first = a.train.sample(i, epoch(1)).unwrap();
        assert_eq!(first, b.train.sample(i, epoch(1)).unwrap());
        others += (first != a.train.sample(i, epoch(2)).unwrap()) as usize;
        others += (first != a.train.sample(i, Some(Key::new(6, 1).stream("data"))).unwrap()) as usize;
    }
    assert!(others > 70, "{others}");
}

#[test]
fn an_alternating_flip_turns_every_image_each_epoch() {
    let plain = set(Augment::default());
    let flipped = set(Augment { flip: Flip::Alternating, ..Augment::default() });
    let mut first = 0;
    for i in 0..200 {
        let original = image(&plain.train.sample(i, None).unwrap()).to_vec();
        let seen = |e: u64| image(&flipped.train.sample(i, epoch(e)).unwrap()).to_vec();
        first += (seen(0) == original) as usize;
        assert_eq!(seen(1), mirrored(&seen(0)));
        assert!(seen(2) == seen(0) && (seen(0) == original || seen(0) == mirrored(&original)));
    }
    assert!((70..130).contains(&first), "{first}");
}

#[test]
fn a_random_crop_continues_the_image_as_in_a_mirror() {
    let plain = set(Augment::default());
    let cropped = set(Augment { crop: 2, ..Augment::default() });
    let mut seen = std::collections::HashSet::new();
    for i in 0..300 {
        let original = image(&plain.train.sample(i, None).unwrap()).to_vec();
        let found = image(&cropped.train.sample(i, epoch(0)).unwrap()).to_vec();
        let reflect = |at: i32| if at < 0 { -at } else if at > 7 { 14 - at } else { at } as usize;
        let moved = |y: i32, x: i32| -> Vec<f32> {
            (0..64).map(|at| original[8 * reflect(at / 8 + y) + reflect(at % 8 + x)]).collect()
        };
        let shifts = (-2..=2).flat_map(|y| (-2..=2).map(move |x| (y, x)));
        let shift = shifts.into_iter().find(|&(y, x)| moved(y, x) == found);
        seen.insert(shift.expect("a shift by at most 2"));
    }
    assert_eq!(seen.len(), 25);
}

#[test]
fn cutout_leaves_a_square_of_the_mean() {
    let plain = set(Augment::default());
    let cut = set(Augment { cutout: 4, ..Augment::default() });
    let mut whole = 0;
    for i in 0..100 {
        let (before, after) = (plain.train.sample(i, None).unwrap(), cut.train.sample(i, epoch(0)).unwrap());
        let changed: Vec<usize> = (0..64).filter(|&at| image(&before)[at] != image(&after)[at]).collect();
        assert!(changed.iter().all(|&at| image(&after)[at].abs() < 1e-6));
        let extent = |of: &dyn Fn(usize) -> usize| {
            let places = changed.iter().map(|&at| of(at));
            places.clone().max().unwrap() - places.min().unwrap() + 1
        };
        let (rows, columns) = (extent(&|at| at / 8), extent(&|at| at % 8));
        assert!(rows <= 4 && columns <= 4 && rows * columns == changed.len());
        whole += (changed.len() == 16) as usize;
    }
    assert!(whole > 10);
}

#[test]
fn mixed_images_have_the_share_of_each_that_their_labels_say() {
    let plain = set(Augment::default());
    let number = |sample: &Sample, name: &str| match &sample.get(name).unwrap().numbers {
        Numbers::I64(v) => v[0] as f64,
        Numbers::F32(v) => v[0] as f64,
        other => panic!("{other:?}"),
    };
    let (mixup, cutmix) = (Augment { mixup: 1.0, ..Augment::default() }, Augment { cutmix: 1.0, ..Augment::default() });
    for augment in [mixup, cutmix] {
        let mixed = set(augment);
        let mut shares = Vec::new();
        for i in 0..400 {
            let sample = mixed.train.sample(i, epoch(0)).unwrap();
            let (share, original) = (number(&sample, "share"), plain.train.sample(i, None).unwrap());
            assert!((0.0..=1.0).contains(&share) && sample.get("class") == original.get("class"));
            shares.push(share);
            if augment.cutmix > 0.0 {
                let kept = image(&sample).iter().zip(image(&original)).filter(|(a, b)| a == b).count();
                assert!(kept as f64 >= 64.0 * share - 1e-4, "{kept} {share}");
            }
        }
        let mean = shares.iter().sum::<f64>() / 400.0;
        // Of a patch at the edge less is seen than was drawn.
        assert!(if augment.mixup > 0.0 { (mean - 0.5).abs() < 0.05 } else { (0.5..0.75).contains(&mean) }, "{mean}");
    }
    // Of α = 0.2 most shares are near 0 or 1: the variance is 1/(4·(2α + 1)).
    let narrow = set(Augment { mixup: 0.2, ..Augment::default() });
    let shares: Vec<f64> = (0..1000).map(|i| number(&narrow.train.sample(i, epoch(0)).unwrap(), "share")).collect();
    let variance = shares.iter().map(|s| (s - 0.5).powi(2)).sum::<f64>() / 1000.0;
    assert!((variance - 0.25 / 1.4).abs() < 0.01, "{variance}");
}

/// Logits of two numbers.
fn two() -> Sequential {
    Sequential::new().then(Flatten).then(Linear::new(64, 10).unwrap())
}

#[test]
fn the_loss_of_mixed_images_is_that_of_soft_labels() {
    let mixed = set(Augment { mixup: 1.0, ..Augment::default() });
    let (model, task) = (two(), Classify { smoothing: 0.1, ..Classify::new(10) });
    let batch = Batch::of(&mixed.train, &[0, 1, 2, 3, 4], epoch(0)).unwrap();
    let (loss, count) = task.loss(&model, &batch).unwrap();
    let logits = model.forward(&batch.at(0).unwrap()).unwrap().array().to_f64_vec().unwrap();
    let of = |name: &str| batch.get(name).unwrap().array().to_f64_vec().unwrap();
    let (class, other, share) = (of("class"), of("other"), of("share"));
    let mut sum = 0.0;
    for n in 0..5 {
        let row = &logits[10 * n..10 * n + 10];
        let log_sum = row.iter().map(|l| l.exp()).sum::<f64>().ln();
        for (k, logit) in row.iter().enumerate() {
            let hit = |class: f64, share: f64| if class as usize == k { share } else { 0.0 };
            let label = 0.9 * (hit(class[n], share[n]) + hit(other[n], 1.0 - share[n])) + 0.1 / 10.0;
            sum += label * (log_sum - logit);
        }
    }
    assert!((loss.item().unwrap() - sum / 5.0).abs() < 1e-5 && count == 5.0);
}

#[test]
fn answers_are_the_mean_over_the_views() {
    let task = |views| Classify { views, ..Classify::new(10) };
    let model = two();
    let data = set(Augment::default()).test;
    let batch = Batch::of(&data, &(0..50).collect::<Vec<_>>(), None).unwrap();
    let loss = |views: Views| no_grad(|| task(views).evaluate(&model, &batch).unwrap().loss);
    let x = batch.at(0).unwrap();
    let mean_of = |views: &[Var]| {
        let logits = views.iter().map(|x| model.forward(x).unwrap().array().to_f64_vec().unwrap());
        let sum = logits.reduce(|a, b| a.iter().zip(b).map(|(a, b)| a + b).collect()).unwrap();
        let mean: Vec<f32> = sum.iter().map(|v| (v / views.len() as f64) as f32).collect();
        let logits = Var::from_slice(&mean, &[50, 10]).unwrap();
        logits.cross_entropy(&batch.at(1).unwrap(), CrossEntropy::default()).unwrap().item().unwrap()
    };
    let flip = x.flip(&[-1]).unwrap();
    assert!((loss(Views::One) - mean_of(std::slice::from_ref(&x))).abs() < 1e-6);
    assert!((loss(Views::Mirrored) - mean_of(&[x.clone(), flip.clone()])).abs() < 1e-6);
    assert_ne!(loss(Views::Moved), loss(Views::Mirrored));
    // What looks the same from everywhere has the same answer.
    let flat = InMemory::classes(vec![0.5; 64], &[1, 8, 8], &[3]).unwrap();
    let flat = Batch::of(&flat, &[0], None).unwrap();
    let [one, moved] = [Views::One, Views::Moved].map(|v| task(v).evaluate(&model, &flat).unwrap().loss);
    assert!((one - moved).abs() < 1e-6);
}

#[test]
fn settings_outside_their_domain_are_refused() {
    let refused = |augment: Augment, told: &str| {
        let error = Dataset::Digits.open(&Default::default()).unwrap().augmented(augment).unwrap_err().to_string();
        assert!(error.contains(told), "{error}");
    };
    refused(Augment { mixup: -1.0, ..Augment::default() }, "mixup must be at least 0");
    refused(Augment { cutmix: f64::NAN, ..Augment::default() }, "cutmix");
    let rand_augment = Some(RandAugment { changes: 2, strength: 31 });
    refused(Augment { rand_augment, ..Augment::default() }, "from 0 to 30");
    let set = Dataset::Digits.open(&Default::default()).unwrap();
    assert!(set.normalized(&[0.5], &[0.0]).unwrap_err().to_string().contains("deviation"));
}

/// The summary and the report know which classes were found for which, also of a run that is resumed when it is done.
#[test]
fn a_run_counts_classes_by_what_was_found() {
    let folder = tempfile::tempdir().unwrap();
    let names: Vec<String> = Dataset::Digits.classes().iter().map(|n| format!("digit {n}")).collect();
    let task = Classify { names, views: Views::Mirrored, ..Classify::new(10) };
    let data = || -> Splits { set(everything()).splits() };
    let run = |out: &Path, resume: bool| {
        let fit = Config { epochs: 1, ..Config::default() };
        let config = RunConfig {
            precisions: vec![Precision::Bf16],
            fit,
            out: Some(out.into()),
            quiet: true,
            resume,
            ..RunConfig::default()
        };
        train(|| Ok(two()), &task, &data(), &config).unwrap().summaries.remove(0)
    };
    let out = folder.path().join("run");
    let summary = run(&out, false);
    let answers = summary.answers.clone().unwrap();
    let all: u64 = answers.found.iter().flatten().sum();
    let right: u64 = (0..10).map(|class| answers.found[class][class]).sum();
    assert_eq!((all, right as f64 / 360.0), (360, summary.test_accuracy.unwrap()));
    assert!(summary.test_top5.unwrap() >= summary.test_accuracy.unwrap());
    assert_eq!(run(&out, true), summary);
    let page = std::fs::read_to_string(out.join("report.html")).unwrap();
    assert!(page.contains("digit 7") && page.contains("recall"));
}
