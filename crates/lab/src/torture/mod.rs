//! `cargo xtask torture`: trainings are killed at any moment, their files damaged, their disks filled. Each must come
//! to the bits of a training that nobody disturbed, or say what is wrong and leave everything as it was.

mod cases;
mod files;
mod kills;
mod training;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use binade::cli::flags::whole;
use binade::cli::output::verdict_line;

use training::{Ending, Program};

#[derive(clap::Args)]
#[command(after_help = "Example: cargo xtask torture --kills 2 --files 2 --no-cases")]
pub struct Args {
    /// How often a training is killed, every other time while it writes a file
    #[arg(long, default_value_t = 200, value_name = "N", value_parser = whole, allow_negative_numbers = true)]
    kills: u64,
    /// How many files are torn, or have a bit flipped
    #[arg(long, default_value_t = 60, value_name = "N", value_parser = whole, allow_negative_numbers = true)]
    files: u64,
    /// Which moments, files and bits: the same seed draws the same
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = whole, allow_negative_numbers = true)]
    seed: u64,
    /// Leave out full disks, folders that cannot be written, signals and their like
    #[arg(long)]
    no_cases: bool,
    /// The program `binade` [default: the one beside this program]
    #[arg(long, value_name = "PATH")]
    program: Option<PathBuf>,
    /// Where the trainings run; what went wrong stays there [default: a new folder for temporary files]
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
}

/// What was tried, and what went wrong of it.
#[derive(Default)]
struct Tally {
    tried: u64,
    faults: Vec<String>,
}

impl Tally {
    /// Counts a try, and says aloud what went wrong.
    fn count(&mut self, name: &str, result: Result<()>) -> Result<()> {
        self.tried += 1;
        if let Err(error) = result {
            verdict_line(format_args!("FAULT {name}: {error:#}"))?;
            self.faults.push(name.into());
        }
        Ok(())
    }

    fn passed(&self) -> String {
        format!("{} of {}", self.tried - self.faults.len() as u64, self.tried)
    }
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let own = std::env::current_exe().context("this program's path")?;
    let path =
        args.program.clone().unwrap_or_else(|| own.with_file_name(format!("binade{}", std::env::consts::EXE_SUFFIX)));
    ensure!(path.is_file(), "{}: no such program; --program names it", path.display());
    let temporary = tempfile::Builder::new().prefix("binade-torture-").tempdir()?;
    let folder = args.folder.clone().unwrap_or_else(|| temporary.path().into());
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let program = Program::new(&path.canonicalize()?, &folder.canonicalize()?)?;
    let undisturbed = program.folder("undisturbed")?;
    let begin = std::time::Instant::now();
    program.train(&undisturbed, 2)?.well()?;
    let (seconds, ending) = (begin.elapsed().as_secs_f64(), Ending::of(&undisturbed)?);
    verdict_line(format_args!("a training that nobody disturbs takes {seconds:.1} s"))?;
    let mut faults = 0;
    if args.kills > 0 {
        let told = kills::run(&program, &ending, seconds, args)?;
        verdict_line(format_args!("kills: {}", told.text))?;
        faults += told.faults;
    }
    if args.files > 0 {
        let told = files::run(&program, &ending, args)?;
        verdict_line(format_args!("files: {}", told.text))?;
        faults += told.faults;
    }
    if !args.no_cases {
        let told = cases::run(&program, &ending, seconds)?;
        verdict_line(format_args!("cases: {}", told.text))?;
        faults += told.faults;
    }
    if faults == 0 {
        return Ok(ExitCode::SUCCESS);
    }
    if args.folder.is_none() {
        verdict_line(format_args!("what went wrong stays in {}", temporary.keep().display()))?;
    }
    Ok(ExitCode::FAILURE)
}

/// What a part came to.
struct Told {
    text: String,
    faults: u64,
}
