//! A folder of images as a data set.

use std::path::Path;

use binade_cpu as _;
use binade_train::images::{Dataset, ImageSet, Source};
use binade_train::{Data, Numbers, write_png};

/// Writes images of one grey, named by numbers.
fn write(folder: &Path, class: &str, count: u8, [height, width]: [usize; 2]) {
    let class = folder.join(class);
    std::fs::create_dir_all(&class).unwrap();
    for i in 0..count {
        write_png(&class.join(format!("{i:03}.png")), width, 1, &vec![i; height * width]).unwrap();
    }
}

fn open(folder: &Path, size: Option<usize>, skip_broken: bool) -> Result<ImageSet, String> {
    let source = Source { folder: Some(folder), size, skip_broken, ..Source::default() };
    Dataset::Folder.open(&source).map_err(|error| error.to_string())
}

/// The grey and the class of every image.
fn listed(data: &dyn Data) -> Vec<(u8, i64)> {
    let of = |i: usize| {
        let sample = data.sample(i, None).unwrap();
        let (Numbers::F32(image), Numbers::I64(class)) = (&sample.0[0].numbers, &sample.0[1].numbers) else { panic!() };
        ((127.5 * image[0] + 127.5).round() as u8, class[0])
    };
    (0..data.len()).map(of).collect()
}

#[test]
fn every_tenth_image_is_held_out_and_classes_are_folders_in_order() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "dogs", 8, [4, 4]);
    write(folder.path(), "cats", 13, [4, 4]);
    std::fs::write(folder.path().join("cats/notes.txt"), "no image").unwrap();
    std::fs::write(folder.path().join("cats/.hidden.png"), "no image").unwrap();
    std::fs::create_dir(folder.path().join("empty")).unwrap();
    let set = open(folder.path(), None, false).unwrap();
    assert_eq!((set.classes.clone(), set.shape()), (vec!["cats".to_string(), "dogs".into()], [3, 4, 4]));
    assert_eq!(listed(&set.test), [(9, 0), (6, 1)]);
    let train: Vec<(u8, i64)> = (0..13).map(|i| (i, 0)).chain((0..8).map(|i| (i, 1))).collect();
    let train: Vec<_> = train.into_iter().enumerate().filter(|(i, _)| i % 10 != 9).map(|(_, x)| x).collect();
    assert_eq!(listed(&set.train), train);
}

#[test]
fn folders_of_training_and_test_images_are_the_split() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "train/a", 3, [2, 2]);
    write(folder.path(), "train/b/below", 2, [2, 2]);
    write(folder.path(), "val/b", 1, [2, 2]);
    let set = open(folder.path(), None, false).unwrap();
    assert_eq!(listed(&set.train), [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1)]);
    assert_eq!(listed(&set.test), [(0, 1)]);
    write(folder.path(), "val/c", 1, [2, 2]);
    let error = open(folder.path(), None, false).unwrap_err();
    assert!(error.contains("the classes that are trained: a, b") && error.contains("class \"c\""), "{error}");
    // Images of trains are a class.
    let trains = tempfile::tempdir().unwrap();
    write(trains.path(), "train", 2, [2, 2]);
    write(trains.path(), "ship", 2, [2, 2]);
    assert_eq!(open(trains.path(), None, false).unwrap().classes, ["ship", "train"]);
}

#[test]
fn images_of_several_sizes_become_squares_of_the_size_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "a", 2, [6, 9]);
    write(folder.path(), "b", 2, [1, 1]);
    let error = open(folder.path(), None, false).unwrap_err();
    assert!(error.contains("a/000.png") && error.contains("--image-size") && error.contains("found 9×6"), "{error}");
    let set = open(folder.path(), Some(5), false).unwrap();
    assert_eq!((set.shape(), set.train.len() + set.test.len()), ([3, 5, 5], 4));
    for channels in [1, 4] {
        let source = Source { folder: Some(folder.path()), size: Some(2), channels, ..Source::default() };
        assert_eq!(Dataset::Folder.open(&source).unwrap().shape(), [channels, 2, 2]);
    }
    assert!(open(folder.path(), Some(0), false).unwrap_err().contains("at least 1"));
    let large = open(folder.path(), Some(1 << 20), false).unwrap_err();
    assert!(large.contains("at most 4 GiB") && large.contains("4 images of 3×1048576×1048576"), "{large}");
}

#[test]
fn a_broken_image_among_good_ones_is_named_and_left_out_where_that_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "a", 12, [3, 3]);
    let path = folder.path().join("a/004.png");
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 20]).unwrap();
    let error = open(folder.path(), None, false).unwrap_err();
    assert!(error.contains("a/004.png") && error.contains("a damaged PNG"), "{error}");
    let set = open(folder.path(), None, true).unwrap();
    assert_eq!((set.train.len(), set.test.len(), set.skipped.len()), (10, 1, 1));
    assert!(set.skipped[0].to_string().contains("a/004.png"), "{}", set.skipped[0]);
    assert!(!listed(&set.train).contains(&(4, 0)));
    for i in 0..12 {
        std::fs::write(folder.path().join(format!("a/{i:03}.png")), "no image").unwrap();
    }
    let error = open(folder.path(), None, true).unwrap_err();
    assert!(error.contains("found 0 to train on") && error.contains("a/000.png"), "{error}");
}

#[test]
fn a_folder_without_images_says_what_it_should_hold() {
    let folder = tempfile::tempdir().unwrap();
    let told = || open(folder.path(), None, false).unwrap_err();
    assert!(told().contains("expected PNG or JPEG images"));
    std::fs::write(folder.path().join("x.webp"), "").unwrap();
    assert!(told().contains("found 1 other files"));
    write(folder.path(), ".", 1, [2, 2]);
    assert!(told().contains("none can be held out"));
    write(folder.path(), ".", 3, [2, 2]);
    let set = open(folder.path(), None, false).unwrap();
    assert_eq!((set.train.len(), set.test.len(), set.classes.len()), (2, 1, 1));
    write(folder.path(), "class", 3, [2, 2]);
    assert!(told().contains("no images beside them"));
    assert!(open(&folder.path().join("absent"), None, false).unwrap_err().contains("absent"));
    assert!(Dataset::Folder.load(None).err().unwrap().to_string().contains("--data DIR"));
}
