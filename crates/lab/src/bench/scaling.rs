//! `--scaling`: each case with 1, 2, … threads in turn, in one process.

use std::process::ExitCode;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::ScopedJoinHandle;

use anyhow::{Context, Result, anyhow, bail, ensure};
use binade::train::Precision;
use comfy_table::Table;
use serde_json::json;

use super::timing::{check, median, once, round, warm_up};
use super::{Args, cases, row::Beside};
use binade::cli::output::line;

/// One case on a thread pool of its own: runs once for each order.
struct Runner<'scope> {
    order: Sender<()>,
    times: Receiver<f64>,
    /// The case's name, once its last result was checked.
    end: ScopedJoinHandle<'scope, Result<String>>,
}

impl Runner<'_> {
    /// Waits for the end of the warm-up, or of the run that was ordered.
    fn time(&self) -> Result<f64> {
        self.times.recv().context("the run ended early")
    }
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let threads = counts(args.threads)?;
    let mut table = Table::new();
    let mut header = vec!["case".to_string(), "precision".into()];
    header.extend(threads.iter().map(|n| format!("{n} thread{}, ms", if *n == 1 { "" } else { "s" })));
    header.extend(threads[1..].iter().map(|n| format!("{n} against 1 (quartiles)")));
    table.set_header(header);
    for group in &args.case {
        for &precision in &args.precision {
            for index in 0..cases(group, precision, args.size())?.len() {
                let (name, times) = in_turn(args, &threads, group, precision, index)?;
                let ratios: Vec<Beside> = times[1..].iter().map(|more| Beside::new(&times[0], more)).collect();
                let mut cells = vec![name.clone(), precision.name().into()];
                cells.extend(times.iter().map(|t| format!("{:.3}", median(t))));
                cells.extend(ratios.iter().map(|b| format!("{:.2} ({:.2} to {:.2})", b.ratio, b.p25, b.p75)));
                for (n, (times, beside)) in threads[1..].iter().zip(times[1..].iter().zip(&ratios)) {
                    let row = json!({
                        "lib": "binade", "case": name, "prec": precision.name(), "threads": n, "rounds": times.len(),
                        "median_ms": round(median(times)), "one_thread_ms": beside.ms, "scaling": beside.ratio,
                        "scaling_p25": beside.p25, "scaling_p75": beside.p75,
                    });
                    if args.json {
                        line(row)?;
                    }
                }
                table.add_row(cells);
            }
        }
    }
    if !args.json {
        line(table)?;
    }
    // Work outside the pools above would have started the global one, and the ratios would be those of something else.
    let global = rayon::ThreadPoolBuilder::new().num_threads(1).build_global();
    global.map_err(|_| anyhow!("something ran outside the thread pools it was measured in; the figures are void"))?;
    Ok(ExitCode::SUCCESS)
}

/// Powers of two up to the number of threads, and that number.
fn counts(threads: usize) -> Result<Vec<usize>> {
    if threads < 2 {
        bail!("--scaling compares numbers of threads: --threads must be at least 2");
    }
    let mut counts: Vec<usize> = (0..).map(|i| 1 << i).take_while(|n| *n < threads).collect();
    counts.push(threads);
    Ok(counts)
}

/// Name of the case, and times by number of threads and round.
fn in_turn(
    args: &Args,
    threads: &[usize],
    group: &str,
    precision: Precision,
    index: usize,
) -> Result<(String, Vec<Vec<f64>>)> {
    std::thread::scope(|scope| {
        let mut runners = Vec::new();
        for &n in threads {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(n).build().context("threads")?;
            let ((order, orders), (time, times)) = (channel(), channel());
            // The case is built, run and dropped on one thread of its pool: variables are not for sending elsewhere.
            let work = move || serve(args, n, group, precision, index, &orders, &time);
            let runner = Runner { order, times, end: scope.spawn(move || pool.install(work)) };
            // Warm-ups do not overlap.
            let ready = runner.time();
            runners.push(runner);
            if ready.is_err() {
                break;
            }
        }
        let mut times = vec![Vec::new(); runners.len()];
        if runners.len() == threads.len() {
            let mut rounds = 0;
            while rounds < args.pairs {
                let done = runners.iter().zip(&mut times).try_for_each(|(runner, times)| {
                    // A runner that failed says why when it is joined.
                    runner.order.send(())?;
                    times.push(runner.time()?);
                    anyhow::Ok(())
                });
                rounds += 1;
                if done.is_err() || rounds >= 5 && times[0].iter().sum::<f64>() > 5e3 {
                    break;
                }
            }
        }
        let mut name = String::new();
        for Runner { order, times: _, end } in runners {
            drop(order);
            name = end.join().map_err(|_| anyhow!("the measuring thread panicked"))??;
        }
        Ok((name, times))
    })
}

/// Builds the case, reports a 0 when it is warm, and then the time of a run for each order.
fn serve(
    args: &Args,
    threads: usize,
    group: &str,
    precision: Precision,
    index: usize,
    orders: &Receiver<()>,
    time: &Sender<f64>,
) -> Result<String> {
    ensure!(rayon::current_num_threads() == threads, "this is not the pool of {threads} threads");
    let build = cases(group, precision, args.size())?.into_iter().nth(index).context("no such case")?;
    let mut case = build()?;
    warm_up(&mut case, args.secs)?;
    time.send(0.0)?;
    while orders.recv().is_ok() {
        time.send(once(&mut case)?)?;
    }
    check(&case)?;
    Ok(case.name)
}

#[cfg(test)]
mod tests {
    use super::counts;

    #[test]
    fn thread_counts_double_up_to_the_one_asked_for() {
        assert_eq!(counts(2).unwrap(), [1, 2]);
        assert_eq!(counts(6).unwrap(), [1, 2, 4, 6]);
        assert!(counts(1).is_err());
    }
}
