//! The data sets that can be fetched: where their publishers have them, and what their files must be.
#![cfg_attr(not(feature = "fetch"), expect(dead_code, reason = "without HTTP only the addresses are told"))]

#[cfg(feature = "fetch")]
mod fetching;

use std::path::{Path, PathBuf};

use binade::cli::flags::positive;

#[derive(clap::Args)]
pub struct To {
    /// Folder for the files
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// An address that the files lie below, to be asked before the publisher's; several in their order
    #[arg(long, value_name = "URL")]
    mirror: Vec<String>,
    /// Tries in a row that bring nothing before it gives up
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = positive::<u32>, allow_negative_numbers = true)]
    tries: u32,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A data set at its publisher's.
pub struct Set {
    name: &'static str,
    /// Addresses that end before the files' names.
    from: &'static [&'static str],
    files: &'static [Published],
    /// What an archive has, by names without folders, with their sizes: that is what is kept of it.
    members: &'static [(&'static str, u64)],
    /// How to train on it.
    train: &'static str,
}

/// A file as it was published: name, bytes, SHA-256.
type Published = (&'static str, u64, &'static str);

pub const MNIST: Set = Set {
    name: "mnist",
    from: &["https://storage.googleapis.com/cvdf-datasets/mnist/", "https://ossci-datasets.s3.amazonaws.com/mnist/"],
    files: &[
        ("train-images-idx3-ubyte.gz", 9_912_422, "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
        ("train-labels-idx1-ubyte.gz", 28_881, "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
        ("t10k-images-idx3-ubyte.gz", 1_648_877, "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
        ("t10k-labels-idx1-ubyte.gz", 4_542, "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
    ],
    members: &[],
    train: "train vision --dataset mnist --data",
};

pub const FASHION_MNIST: Set = Set {
    name: "fashion-mnist",
    from: &[
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    ],
    files: &[
        ("train-images-idx3-ubyte.gz", 26_421_880, "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"),
        ("train-labels-idx1-ubyte.gz", 29_515, "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
        ("t10k-images-idx3-ubyte.gz", 4_422_102, "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"),
        ("t10k-labels-idx1-ubyte.gz", 5_148, "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"),
    ],
    members: &[],
    train: "train vision --dataset fashion-mnist --data",
};

pub const CIFAR10: Set = Set {
    name: "cifar10",
    from: &["https://www.cs.toronto.edu/~kriz/"],
    files: &[(
        "cifar-10-binary.tar.gz",
        170_052_171,
        "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    )],
    members: &[
        ("data_batch_1.bin", 30_730_000),
        ("data_batch_2.bin", 30_730_000),
        ("data_batch_3.bin", 30_730_000),
        ("data_batch_4.bin", 30_730_000),
        ("data_batch_5.bin", 30_730_000),
        ("test_batch.bin", 30_730_000),
    ],
    train: "train vision --dataset cifar10 --data",
};

pub const CIFAR100: Set = Set {
    name: "cifar100",
    from: &["https://www.cs.toronto.edu/~kriz/"],
    files: &[(
        "cifar-100-binary.tar.gz",
        168_513_733,
        "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
    )],
    members: &[("train.bin", 153_700_000), ("test.bin", 30_740_000)],
    train: "train vision --dataset cifar100 --data",
};

pub const TINY_SHAKESPEARE: Set = Set {
    name: "tiny-shakespeare",
    from: &["https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/"],
    files: &[("input.txt", 1_115_394, "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed")],
    members: &[],
    train: "train gpt --data",
};

impl To {
    /// Says where the files are: this program has no HTTP.
    #[cfg(not(feature = "fetch"))]
    pub fn fetch(&self, set: &Set) -> anyhow::Result<()> {
        let without = anyhow::anyhow!(
            "this program is built without feature `fetch`, which `cargo xtask data NAME --to DIR` builds"
        );
        Err(without.context(by_hand(set, &self.to)))
    }
}

/// What to do by hand.
fn by_hand(set: &Set, to: &Path) -> String {
    let names: Vec<&str> = set.files.iter().map(|(name, ..)| *name).collect();
    let from = set.from.join(" or ");
    format!(
        "{} could not be fetched; without a network, put {} from {from} into {} and run this again, or name another \
         place by --mirror",
        set.name,
        names.join(", "),
        to.display()
    )
}
