//! `binade data`: what there is, what files hold, what samples look like.

use std::path::Path;

use crate::common::{done, refused};
use binade::train::{Pixels, write_png};
use serde_json::Value;

fn json(args: &str, folder: &Path) -> Value {
    serde_json::from_str(&done(args, folder)).unwrap()
}

#[test]
fn all_data_sets_are_listed_with_their_sizes() {
    let here = Path::new(".");
    let all = json("data --json", here);
    let row = |name: &str| all["data"].as_array().unwrap().iter().find(|row| row["name"] == name).unwrap().clone();
    let digits = row("digits");
    assert_eq!((&digits["training"], &digits["test"], &digits["ships"]), (&1437.into(), &360.into(), &true.into()));
    assert_eq!((&row("cifar10")["ships"], &row("cifar10")["classes"]), (&false.into(), &10.into()));
    let table = done("data", here);
    for name in [
        "digits",
        "icons",
        "cifar10",
        "mnist",
        "fashion-mnist",
        "folder",
        "shakespeare",
        "tokens",
        "nothing else is fetched",
    ] {
        assert!(table.contains(name), "{name} in {table}");
    }
}

#[test]
fn files_are_checked_as_training_reads_them() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    // Three classes of a few images of one colour each; every tenth is held out.
    for (class, colour) in [("red", [255, 0, 0]), ("green", [0, 255, 0]), ("blue", [0, 0, 255])] {
        std::fs::create_dir_all(at.join("images").join(class)).unwrap();
        for i in 0..10 {
            let path = at.join("images").join(class).join(format!("{i}.png"));
            write_png(&path, 4, 3, &colour.repeat(16)).unwrap();
        }
    }
    let told = json("data check images --json", at);
    assert_eq!((&told["dataset"], &told["training"], &told["test"]), (&"folder".into(), &27.into(), &3.into()));
    assert_eq!(told["classes"][0]["name"], "blue");
    let third = told["mean"][0].as_f64().unwrap();
    assert!((third - 1.0 / 3.0).abs() < 1e-9, "a third of the images is red: {third}");
    let table = done("data check images", at);
    assert!(table.contains("27 training images, 3 test images, 3×4×4") && table.contains("| green |"), "{table}");

    std::fs::write(at.join("images/red/torn.png"), b"\x89PNG\r\n\x1a\n torn").unwrap();
    assert!(refused("data check images", at).contains("torn.png"));
    assert!(done("data check images --skip-broken", at).contains("left out: "));

    std::fs::write(at.join("plays.txt"), "abcab".repeat(40)).unwrap();
    let told = json("data check plays.txt --json", at);
    assert_eq!((&told["form"], &told["training"], &told["test"]), (&"text".into(), &180.into(), &20.into()));
    assert_eq!(told["vocabulary"], "3 characters");
    std::fs::write(at.join("tokens.bin"), [1, 0, 2, 0, 9, 0].repeat(10)).unwrap();
    assert_eq!(json("data check tokens.bin --json", at)["training"], 27);
    assert!(refused("data check tokens.bin --vocab-size 5", at).contains("tokens below 5"));
    std::fs::create_dir(at.join("empty")).unwrap();
    assert!(refused("data check empty", at).contains("none of these"));
    assert!(refused("data check nowhere", at).contains("nowhere"));
}

#[test]
fn samples_are_written_as_they_were_read() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let written = done("data show digits --samples 5 --to shown", at);
    assert_eq!(written.lines().count(), 5);
    for path in written.lines() {
        let image = Pixels::open(&at.join(path)).unwrap();
        assert_eq!((image.width, image.height, image.channels), (8, 8, 1));
        assert!(image.bytes.iter().any(|&byte| byte > 200) && image.bytes.contains(&0), "{path}: {:?}", image.bytes);
    }
    let icon = done("data show icons --samples 1 --to shown", at);
    assert_eq!(Pixels::open(&at.join(icon.trim())).unwrap().channels, 4);
    let text = done("data show shakespeare --samples 2 --to shown", at);
    let first = std::fs::read_to_string(at.join(text.lines().next().unwrap())).unwrap();
    assert!(first.len() >= 256 && first.is_ascii(), "{first}");
    // What is shown of a file is what is in it.
    std::fs::write(at.join("plays.txt"), "abcab".repeat(40)).unwrap();
    let text = done("data show plays.txt --samples 1 --to shown", at);
    assert!("abcab".repeat(40).contains(&std::fs::read_to_string(at.join(text.trim())).unwrap()));
}
