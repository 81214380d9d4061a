//! `binade watch`, and `train --tui`: a run while it is trained, by what it writes into its folder.

mod screen;
mod tail;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use binade::cli::output::{line, note, piece};
use binade::train::{RunConfig, interrupt, is_training};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyModifiers};

use tail::Tail;

/// How often the folder is looked at.
const PAUSE: Duration = Duration::from_millis(500);

#[derive(clap::Args)]
#[command(after_help = "Example: binade watch runs/digits-1 --once")]
pub struct Args {
    /// Run folder, as `binade train` writes it
    run: PathBuf,
    /// Print the screen once, without a terminal's colours
    #[arg(long)]
    once: bool,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let config = RunConfig::read(&args.run)?;
    let (run, epochs) = (&args.run, config.fit.epochs);
    if args.once {
        line(picture(run, epochs, (100, 36))?)?;
    } else if std::io::stdout().is_terminal() {
        if on_screen(run, epochs, &AtomicBool::new(false))? == Ended::Interrupted {
            return Ok(ExitCode::from(130));
        }
    } else {
        in_lines(run)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Trains while a screen shows the run. Whoever leaves the screen leaves the training as it is; Ctrl-C there is Ctrl-C.
pub fn beside<T>(run: &Path, epochs: u64, train: impl FnOnce() -> Result<T>) -> Result<T> {
    ensure!(std::io::stdout().is_terminal(), "--tui needs a terminal; binade watch shows a run from elsewhere");
    let over = AtomicBool::new(false);
    let trained = std::thread::scope(|threads| {
        let screen = threads.spawn(|| match on_screen(run, epochs, &over)? {
            Ended::Told => Ok(()),
            Ended::Left => {
                note(format_args!("training goes on; binade watch {} shows it again", run.display()));
                Ok(())
            }
            Ended::Interrupted => {
                note("stopping after this step; press Ctrl-C again to stop at once");
                interrupt::request();
                Ok(())
            }
        });
        let trained = {
            let _over = AtEnd(&over);
            train()
        };
        // Training does not depend on its picture.
        if let Ok(Err(error)) = screen.join().map_err(drop).map(|shown: Result<()>| shown) {
            note(format_args!("the screen ended: {error:#}"));
        }
        trained
    })?;
    line(results(run, epochs)?)?;
    Ok(trained)
}

/// Says that it is over however training ends, by a panic too: who watches would wait for ever.
struct AtEnd<'a>(&'a AtomicBool);

impl Drop for AtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// How a watched run ended being watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// Somebody pressed q.
    Left,
    /// Somebody pressed Ctrl-C.
    Interrupted,
    /// It was told to.
    Told,
}

/// Shows a run until somebody ends it, or until it is over.
fn on_screen(run: &Path, epochs: u64, over: &AtomicBool) -> Result<Ended> {
    let mut terminal = ratatui::try_init().context("the terminal")?;
    let shown = show(&mut terminal, run, epochs, over);
    ratatui::try_restore().context("the terminal")?;
    shown
}

fn show(terminal: &mut ratatui::DefaultTerminal, run: &Path, epochs: u64, over: &AtomicBool) -> Result<Ended> {
    let (mut tail, name) = (Tail::new(run), run.display().to_string());
    loop {
        tail.look()?;
        terminal.draw(|frame| screen::draw(frame, &name, epochs, &tail))?;
        if event::poll(PAUSE)?
            && let Event::Key(key) = event::read()?
        {
            match (key.code, key.modifiers.contains(KeyModifiers::CONTROL)) {
                (KeyCode::Char('c'), true) => return Ok(Ended::Interrupted),
                (KeyCode::Char('q') | KeyCode::Esc, _) => return Ok(Ended::Left),
                _ => {}
            }
        }
        if over.load(Ordering::SeqCst) {
            return Ok(Ended::Told);
        }
    }
}

/// The screen as text.
fn picture(run: &Path, epochs: u64, (width, height): (u16, u16)) -> Result<String> {
    let mut tail = Tail::new(run);
    tail.look()?;
    let mut terminal = Terminal::new(TestBackend::new(width, height))?;
    let name = run.display().to_string();
    terminal.draw(|frame| screen::draw(frame, &name, epochs, &tail))?;
    let buffer = terminal.backend().buffer();
    let rows = buffer.content().chunks(width.into());
    let text = |row: &[ratatui::buffer::Cell]| row.iter().map(ratatui::buffer::Cell::symbol).collect::<String>();
    Ok(rows.map(|row| text(row).trim_end().to_string()).collect::<Vec<_>>().join("\n"))
}

/// What the screen's head says, and where the run is.
fn results(run: &Path, epochs: u64) -> Result<String> {
    let mut tail = Tail::new(run);
    tail.look()?;
    let lines = tail.series.iter().map(|series| format!("{}{}\n", series.precision, screen::told(series, epochs)));
    Ok(lines.chain([run.display().to_string()]).collect())
}

/// Where there is no terminal: the lines of evaluations, epochs and skipped steps as they come, while somebody trains.
fn in_lines(run: &Path) -> Result<()> {
    let mut offset = 0;
    loop {
        // Before the lines are read, so that none is left out.
        let over = !is_training(run);
        let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap_or_default();
        if text.len() < offset {
            offset = 0;
        }
        let whole = text[offset..].rfind('\n').map_or(0, |at| at + 1);
        for one in text[offset..offset + whole].lines() {
            if !one.contains("\"kind\":\"step\"") || one.contains("\"skipped\":true") {
                piece(format_args!("{one}\n"))?;
            }
        }
        offset += whole;
        if over {
            return Ok(());
        }
        std::thread::sleep(PAUSE);
    }
}
