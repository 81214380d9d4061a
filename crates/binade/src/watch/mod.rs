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
use binade::train::{Metrics, RunConfig, interrupt, is_training};
use ratatui::Terminal;
use ratatui::backend::{Backend, TestBackend};
use ratatui::crossterm::event::{self, Event, KeyCode, KeyModifiers};

use tail::{Lines, News, Tail};

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
    let shown = show(&mut terminal, run, epochs, over, pressed);
    ratatui::try_restore().context("the terminal")?;
    shown
}

/// The key that somebody presses within [`PAUSE`], and whether Ctrl is held.
fn pressed() -> Result<Option<(KeyCode, bool)>> {
    if event::poll(PAUSE)?
        && let Event::Key(key) = event::read()?
    {
        return Ok(Some((key.code, key.modifiers.contains(KeyModifiers::CONTROL))));
    }
    Ok(None)
}

fn show<B: Backend<Error: Send + Sync + 'static>>(
    terminal: &mut Terminal<B>,
    run: &Path,
    epochs: u64,
    over: &AtomicBool,
    mut pressed: impl FnMut() -> Result<Option<(KeyCode, bool)>>,
) -> Result<Ended> {
    let (mut tail, name) = (Tail::new(run), run.display().to_string());
    loop {
        tail.look()?;
        terminal.draw(|frame| screen::draw(frame, &name, epochs, &tail.seen))?;
        match pressed()? {
            Some((KeyCode::Char('c'), true)) => return Ok(Ended::Interrupted),
            Some((KeyCode::Char('q') | KeyCode::Esc, _)) => return Ok(Ended::Left),
            _ => {}
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
    terminal.draw(|frame| screen::draw(frame, &name, epochs, &tail.seen))?;
    Ok(text(&terminal))
}

fn text(terminal: &Terminal<TestBackend>) -> String {
    let buffer = terminal.backend().buffer();
    let rows = buffer.content().chunks(buffer.area.width.into());
    let text = |row: &[ratatui::buffer::Cell]| row.iter().map(ratatui::buffer::Cell::symbol).collect::<String>();
    rows.map(|row| text(row).trim_end().to_string()).collect::<Vec<_>>().join("\n")
}

/// What the screen's head says, and where the run is.
fn results(run: &Path, epochs: u64) -> Result<String> {
    let mut tail = Tail::new(run);
    tail.look()?;
    let lines = tail.seen.series.iter().map(|series| format!("{}{}\n", series.precision, screen::told(series, epochs)));
    Ok(lines.chain([run.display().to_string()]).collect())
}

/// Where there is no terminal: the lines of evaluations, epochs and skipped steps as they come, while somebody trains.
fn in_lines(run: &Path) -> Result<()> {
    let mut lines = Lines::of(run);
    loop {
        // Before the lines are read, so that none is left out.
        let over = !is_training(run);
        lines.read(|news| match news {
            News::Line(text, record) if matters(&record.metrics) => Ok(piece(format_args!("{text}\n"))?),
            News::Line(..) | News::Anew => Ok(()),
        })?;
        if over {
            return Ok(());
        }
        std::thread::sleep(PAUSE);
    }
}

/// Whether it is more than one of many steps.
fn matters(metrics: &Metrics) -> bool {
    match metrics {
        Metrics::Step(step) => step.skipped,
        Metrics::Evaluation(_) | Metrics::Epoch(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let mut lines = String::new();
        for iteration in 0..40u64 {
            let (loss, skipped, scale) = (2.0 / (1.0 + iteration as f64), iteration == 7, 65536.0);
            lines += &format!(
                "{{\"precision\":\"fp16\",\"kind\":\"step\",\"iteration\":{iteration},\"loss\":{loss},\"lr\":0.001,\
                 \"grad_norm\":1.0,\"loss_scale\":{scale},\"skipped\":{skipped}}}\n"
            );
        }
        lines += "{\"precision\":\"fp16\",\"kind\":\"epoch\",\"epoch\":1,\"iteration\":40,\"train_loss\":0.2,\
                  \"test_loss\":0.125,\"test_accuracy\":0.975,\"seconds\":4.0}\n";
        std::fs::write(folder.path().join("metrics.jsonl"), lines).unwrap();
        folder
    }

    #[test]
    fn the_screen_shows_numbers_curves_and_skipped_steps_until_somebody_ends_it() {
        let folder = run();
        let mut terminal = Terminal::new(TestBackend::new(110, 36)).unwrap();
        let mut presses = vec![Some((KeyCode::Char('q'), false)), Some((KeyCode::Char('c'), false)), None];
        let over = AtomicBool::new(false);
        let mut show = |presses: &mut Vec<Option<(KeyCode, bool)>>, over: &AtomicBool| {
            let ended = show(&mut terminal, folder.path(), 3, over, || Ok(presses.pop().flatten())).unwrap();
            (ended, text(&terminal))
        };
        let (ended, shown) = show(&mut presses, &over);
        assert_eq!((ended, presses.len()), (Ended::Left, 0), "neither no key nor c without Ctrl ends it");
        for part in
            ["q ends watching", "fp16  epoch 2/3  step 40  loss 0.0500  test 0.1250, 97.50 %", "scale 65536  skipped 1"]
        {
            assert!(shown.contains(part), "{part} in\n{shown}");
        }
        for part in [
            " training loss ",
            " loss scale ",
            " steps per second ",
            "2^15",
            "2.000",
            "step 7: a gradient is not finite",
        ] {
            assert!(shown.contains(part), "{part} in\n{shown}");
        }
        assert!(shown.chars().any(|c| ('\u{2801}'..='\u{28ff}').contains(&c)), "no curve in\n{shown}");
        assert_eq!(show(&mut vec![Some((KeyCode::Char('c'), true))], &over).0, Ended::Interrupted);
        assert_eq!(show(&mut vec![Some((KeyCode::Esc, false))], &over).0, Ended::Left);
        over.store(true, Ordering::SeqCst);
        assert_eq!(show(&mut Vec::new(), &over).0, Ended::Told);
    }

    #[test]
    fn a_screen_of_any_size_is_drawn_with_numbers_and_without() {
        let (folder, empty) = (run(), tempfile::tempdir().unwrap());
        for size in [(1, 1), (20, 5), (80, 24), (400, 200)] {
            picture(folder.path(), 3, size).unwrap();
            picture(empty.path(), 3, size).unwrap();
        }
    }

    #[test]
    fn lines_that_matter_are_those_of_evaluations_epochs_and_skipped_steps() {
        let (folder, mut seen) = (run(), Vec::new());
        let mut lines = Lines::of(folder.path());
        let mut read = |seen: &mut Vec<String>| {
            lines
                .read(|news| {
                    if let News::Line(text, record) = news
                        && matters(&record.metrics)
                    {
                        seen.push(text.into());
                    }
                    Ok(())
                })
                .unwrap();
        };
        read(&mut seen);
        read(&mut seen);
        assert_eq!(seen.len(), 2, "{seen:?}");
        assert!(seen[0].contains("\"iteration\":7,") && seen[1].contains("\"kind\":\"epoch\""), "{seen:?}");
    }
}
