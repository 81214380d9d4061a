//! `binade data`: which data sets there are, whether files are one, what samples look like; and fetching them.

mod sets;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use binade::cli::flags::positive;
use binade::cli::output::line;
use binade::nn::replace_file;
use binade::train::images::{Dataset, ImageSet, Source};
use binade::train::{Corpus, Data, Form, Numbers, Tokenizer, Vocabulary, write_png};
use clap::{Subcommand, ValueEnum};
use comfy_table::{CellAlignment, Table, presets};
use serde_json::{Value, json};

use crate::train::images::DatasetName;

#[derive(clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Example: binade data\nExample: binade data show digits --to shown\n\
                  Example: binade data cifar10 --to cifar10"
)]
pub struct Args {
    #[command(subcommand)]
    what: Option<What>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Subcommand)]
enum What {
    /// Read files as training would, and say what they hold
    #[command(after_help = "Example: binade data check plays.txt")]
    Check(Check),
    /// Write samples as PNG or text, as they are before training changes them
    #[command(after_help = "Example: binade data show shakespeare --samples 2 --to shown")]
    Show(Show),
    /// Fetch MNIST: 70,000 handwritten digits of 28×28, 11 MiB
    #[command(after_help = "Example: binade data mnist --to mnist")]
    Mnist(sets::To),
    /// Fetch Fashion-MNIST: 70,000 pieces of clothing of 28×28, 30 MiB
    #[command(name = "fashion-mnist", after_help = "Example: binade data fashion-mnist --to fashion-mnist")]
    Fashion(sets::To),
    /// Fetch CIFAR-10: 60,000 images of 32×32 in 10 classes, 162 MiB
    #[command(after_help = "Example: binade data cifar10 --to cifar10")]
    Cifar10(sets::To),
    /// Fetch CIFAR-100: 60,000 images of 32×32 in 100 classes, 161 MiB
    #[command(after_help = "Example: binade data cifar100 --to cifar100")]
    Cifar100(sets::To),
    /// Fetch tiny Shakespeare: a text of 1,115,394 characters
    #[command(after_help = "Example: binade data tiny-shakespeare --to tiny-shakespeare")]
    TinyShakespeare(sets::To),
}

#[derive(clap::Args)]
struct Check {
    /// A file or folder
    path: PathBuf,
    #[command(flatten)]
    reading: Reading,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
struct Show {
    /// A data set that ships with the program, or a file or folder
    #[arg(value_name = "NAME|PATH")]
    what: String,
    #[command(flatten)]
    reading: Reading,
    /// How many, spread over all training samples
    #[arg(
        long,
        value_name = "N",
        default_value_t = 16,
        value_parser = positive::<usize>,
        allow_negative_numbers = true
    )]
    samples: usize,
    /// Where they are written
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
}

/// How files are read.
#[derive(clap::Args)]
struct Reading {
    /// The data set whose layout it is [default: what the names say; MNIST and Fashion-MNIST are laid out alike]
    #[arg(long, value_enum)]
    dataset: Option<DatasetName>,
    /// Of a folder: what an image's shorter side becomes before the middle square is cut out
    #[arg(long, value_name = "PIXELS", value_parser = positive::<usize>, allow_negative_numbers = true)]
    image_size: Option<usize>,
    /// Of a folder: leave out files that cannot be read, and say which
    #[arg(long)]
    skip_broken: bool,
    /// Tokens that a model knows, of files of tokens
    #[arg(
        long,
        value_name = "N",
        default_value_t = 50_257,
        value_parser = positive::<usize>,
        allow_negative_numbers = true
    )]
    vocab_size: usize,
}

/// Data that were read.
enum Held {
    Images(Dataset, Box<ImageSet>),
    Text(Corpus),
}

/// The name of the embedded text.
const SHAKESPEARE: &str = "shakespeare";

pub fn run(args: &Args) -> Result<ExitCode> {
    match &args.what {
        None => list(args.json)?,
        Some(What::Check(check)) => {
            let held = check.reading.read(&check.path)?;
            if check.json { line(serde_json::to_string_pretty(&told(&held))?)? } else { say(&held)? }
        }
        Some(What::Mnist(to)) => to.fetch(&sets::MNIST)?,
        Some(What::Fashion(to)) => to.fetch(&sets::FASHION_MNIST)?,
        Some(What::Cifar10(to)) => to.fetch(&sets::CIFAR10)?,
        Some(What::Cifar100(to)) => to.fetch(&sets::CIFAR100)?,
        Some(What::TinyShakespeare(to)) => to.fetch(&sets::TINY_SHAKESPEARE)?,
        Some(What::Show(show)) => {
            for path in write(&open(&show.what, &show.reading)?, show)? {
                line(path.display())?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

impl Reading {
    fn read(&self, path: &Path) -> Result<Held> {
        let form = match self.dataset {
            Some(name) => Form::Images(name.into()),
            None => Form::of(path)?,
        };
        let numbers = || Tokenizer::Known(Vocabulary::Numbers { size: self.vocab_size });
        Ok(match form {
            Form::Images(dataset) => Held::Images(dataset, Box::new(self.images(dataset, Some(path))?)),
            Form::Text => Held::Text(Corpus::open(path, &Tokenizer::Characters)?),
            Form::Tokens => Held::Text(Corpus::open(path, &numbers())?),
        })
    }

    fn images(&self, dataset: Dataset, folder: Option<&Path>) -> Result<ImageSet> {
        let channels = if dataset == Dataset::Folder { 3 } else { 0 };
        Ok(dataset.open(&Source { folder, size: self.image_size, channels, skip_broken: self.skip_broken })?)
    }
}

/// What ships, by its name, or what is at a path.
fn open(what: &str, reading: &Reading) -> Result<Held> {
    let ships = Dataset::ALL.into_iter().find(|dataset| dataset.name() == what && dataset.is_embedded());
    match ships {
        _ if what == SHAKESPEARE => Ok(Held::Text(Corpus::shakespeare(&Tokenizer::Characters)?)),
        Some(dataset) => Ok(Held::Images(dataset, Box::new(reading.images(dataset, None)?))),
        None => reading.read(Path::new(what)),
    }
}

/// Every data set that training can name.
fn list(as_json: bool) -> Result<()> {
    let of = |dataset: Dataset| {
        let flags = match (dataset.is_embedded(), dataset) {
            (true, _) => format!("--dataset {}", dataset.name()),
            (false, _) => format!("--dataset {} --data DIR", dataset.name()),
        };
        let what = DatasetName::from(dataset).to_possible_value();
        let what = what.and_then(|value| value.get_help().map(ToString::to_string)).unwrap_or_default();
        json!({
            "name": dataset.name(), "what": what, "ships": dataset.is_embedded(), "classes": dataset.classes().len(),
            "training": dataset.sizes().map(|sizes| sizes.0), "test": dataset.sizes().map(|sizes| sizes.1),
            "flags": flags,
        })
    };
    let mut all: Vec<Value> = Dataset::ALL.into_iter().map(of).collect();
    let text = |name: &str, what: &str, ships: bool, flags: &str| -> Value {
        json!({ "name": name, "what": what, "ships": ships, "classes": 0, "flags": flags })
    };
    all.push(text(SHAKESPEARE, "Nine plays, 1,150,844 characters, embedded", true, "train gpt"));
    all.push(text("text", "A text in UTF-8", false, "train gpt --data FILE"));
    all.push(text("tokens", "Tokens of nanoGPT or llm.c", false, "train gpt --data FILE.bin or DIR"));
    if as_json {
        return Ok(line(serde_json::to_string_pretty(&json!({ "data": all }))?)?);
    }
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN);
    table.set_header(["name", "what", "ships", "classes", "training", "test", "for train"]);
    let number = |value: &Value| value.as_u64().filter(|n| *n > 0).map_or(String::new(), |n| n.to_string());
    for row in &all {
        let text = |key: &str| row[key].as_str().unwrap_or_default().to_string();
        let ships = if row["ships"] == true { "yes" } else { "no" };
        let [classes, training, test] = ["classes", "training", "test"].map(|key| number(&row[key]));
        table.add_row([text("name"), text("what"), ships.into(), classes, training, test, text("flags")]);
    }
    for at in 3..6 {
        if let Some(column) = table.column_mut(at) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    line(table)?;
    line(
        "What does not ship is read from files of yours, or of `binade data NAME --to DIR`; nothing else is fetched.",
    )?;
    line("binade data check PATH says what files hold.")?;
    Ok(())
}

/// What was read, as JSON.
fn told(held: &Held) -> Value {
    match held {
        Held::Images(dataset, set) => {
            let [channels, height, width] = set.shape();
            let classes = counts(set)
                .into_iter()
                .map(|(name, [training, test])| json!({ "name": name, "training": training, "test": test }));
            let (mean, deviation): (Vec<f64>, Vec<f64>) = set.train.statistics().into_iter().unzip();
            json!({
                "form": "images", "dataset": dataset.name(), "channels": channels, "height": height, "width": width,
                "training": set.train.len(), "test": set.test.len(), "classes": classes.collect::<Vec<_>>(),
                "mean": mean, "deviation": deviation,
                "left_out": set.skipped.iter().map(ToString::to_string).collect::<Vec<_>>(),
            })
        }
        Held::Text(corpus) => {
            let [training, test] = corpus.sizes();
            json!({
                "form": "text", "vocabulary": corpus.vocabulary().name(), "training": training, "test": test,
                "name": corpus.name(),
            })
        }
    }
}

fn say(held: &Held) -> Result<()> {
    match held {
        Held::Images(dataset, set) => {
            let [channels, height, width] = set.shape();
            let (train, test) = (set.train.len(), set.test.len());
            line(format_args!(
                "{}: {train} training images, {test} test images, {channels}×{height}×{width}",
                dataset.name()
            ))?;
            let (told, expected) = (set.train.statistics(), set.normalization());
            for (channel, (mean, deviation)) in told.iter().enumerate() {
                let by = (expected.0[channel], expected.1[channel]);
                line(format_args!(
                    "channel {channel}: mean {mean:.4}, deviation {deviation:.4}; normalised by {}, {}",
                    by.0, by.1
                ))?;
            }
            let mut table = Table::new();
            table.load_preset(presets::ASCII_MARKDOWN);
            table.set_header(["class", "training", "test"]);
            for (name, [training, test]) in counts(set) {
                table.add_row([name, training.to_string(), test.to_string()]);
            }
            table.column_iter_mut().skip(1).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
            line(table)?;
            set.skipped.iter().try_for_each(|error| line(format_args!("left out: {error}")))?;
        }
        Held::Text(corpus) => {
            let [training, test] = corpus.sizes();
            line(format_args!("{}: {training} trained on, {test} evaluated on", corpus.name()))?;
        }
    }
    Ok(())
}

/// Training and test images of each class.
fn counts(set: &ImageSet) -> Vec<(String, [usize; 2])> {
    let mut counts: Vec<(String, [usize; 2])> = set.classes.iter().map(|name| (name.clone(), [0; 2])).collect();
    for (part, images) in [&set.train, &set.test].into_iter().enumerate() {
        for &label in images.labels() {
            if let Some((_, counts)) = counts.get_mut(label as usize) {
                counts[part] += 1;
            }
        }
    }
    counts
}

/// Writes samples, and says where.
fn write(held: &Held, show: &Show) -> Result<Vec<PathBuf>> {
    std::fs::create_dir_all(&show.to).with_context(|| show.to.display().to_string())?;
    let spread = |len: usize| (0..show.samples.min(len)).map(move |i| i * len / show.samples.min(len).max(1));
    let mut written = Vec::new();
    match held {
        Held::Images(_, set) => {
            for index in spread(set.train.len()) {
                let Some(pixels) = set.train.pixels(index) else { continue };
                let class = set.train.labels().get(index).and_then(|&label| set.classes.get(label as usize));
                let class = class.map_or(String::new(), |name| format!("-{}", name.replace(['/', ' '], "-")));
                let path = show.to.join(format!("{index:06}{class}.png"));
                write_png(&path, pixels.width, pixels.channels, &pixels.bytes)?;
                written.push(path);
            }
        }
        Held::Text(corpus) => {
            let [training, _] = corpus.sizes();
            let context = (training / 10).clamp(1, 256);
            let data = corpus.splits(context, training / context, 1)?.train;
            for index in spread(data.len()) {
                let sample = data.sample(index, None).map_err(|error| anyhow::anyhow!("sample {index}: {error}"))?;
                let Some(Numbers::I64(tokens)) = sample.0.first().map(|values| &values.numbers) else { continue };
                let tokens: Vec<u32> = tokens.iter().map(|&token| token as u32).collect();
                let path = show.to.join(format!("{index:06}.txt"));
                let text = corpus.vocabulary().decode(&tokens);
                replace_file(&path, |file| file.write_all(text.as_bytes()))
                    .with_context(|| path.display().to_string())?;
                written.push(path);
            }
        }
    }
    Ok(written)
}
