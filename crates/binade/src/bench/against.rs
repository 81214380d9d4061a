//! Both sides in turn: one run here, one run there, as many pairs as asked for.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail};
use binade::train::Precision;
use comfy_table::Table;
use serde_json::{Value, json};

use super::{Args, cases, once, quantile, round, sorted, warm_up};

const SCRIPT: &str = include_str!("torch_bench.py");

/// The script with its timer replaced: after a warm-up it runs once for each line it reads.
const IN_TURN: &str = r#"
def timeit(f, secs, min_iters, warm=2, warm_secs=1.0):
    t0 = time.perf_counter(); k = 0
    while k < warm or (time.perf_counter() - t0 < warm_secs and k < 50):
        f(); k += 1
        if time.perf_counter() - t0 > 20: break
    print("ready", flush=True); ts = []
    for line in sys.stdin:
        if line.strip() == "end": break
        a = time.perf_counter(); f(); ts.append(time.perf_counter() - a)
        print(ts[-1] * 1e3, flush=True)
    return ts or [0.0]
main()
"#;

/// A way to run PyTorch: allocator settings and memory format.
#[derive(Clone, Copy)]
struct Setting {
    reuse: bool,
    channels_last: bool,
}

struct Peer {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Peer {
    fn start(python: &Path, case: &str, precision: &str, setting: Setting, args: &Args) -> Result<Peer> {
        let script = SCRIPT.replace("\nmain()\n", "\n") + IN_TURN;
        let mut command = Command::new(python);
        command.args(["-c", &script, case, precision, "--threads", &args.threads.to_string()]);
        if let Some(n) = args.n {
            command.args(["--n", &n.to_string()]);
        }
        if setting.channels_last {
            command.arg("--channels-last");
        }
        if setting.reuse {
            command.envs([
                ("MALLOC_MMAP_THRESHOLD_", "4294967296"),
                ("MALLOC_TRIM_THRESHOLD_", "17179869184"),
                ("MALLOC_TOP_PAD_", "67108864"),
            ]);
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", python.display()))?;
        let (Some(to), Some(from)) = (child.stdin.take(), child.stdout.take()) else { bail!("no pipes") };
        Ok(Peer { child, to, from: BufReader::new(from) })
    }

    /// The next line; `None` at the end.
    fn line(&mut self) -> Result<Option<String>> {
        let mut line = String::new();
        Ok(if self.from.read_line(&mut line)? == 0 { None } else { Some(line.trim().to_string()) })
    }

    /// Waits for the next case. The JSON lines of the one before are passed over.
    fn ready(&mut self) -> Result<()> {
        loop {
            match self.line()? {
                Some(line) if line == "ready" => return Ok(()),
                Some(_) => {}
                None => bail!("PyTorch's side ended early; is torch installed for this interpreter?"),
            }
        }
    }

    fn once(&mut self) -> Result<f64> {
        writeln!(self.to, "go")?;
        match self.line()? {
            Some(line) => line.parse().with_context(|| format!("PyTorch's side printed {line}")),
            None => bail!("PyTorch's side ended early"),
        }
    }

    /// Ends a case.
    fn end(&mut self) -> Result<()> {
        Ok(writeln!(self.to, "end")?)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn run(args: &Args, python: &Path, precisions: &[Precision]) -> Result<ExitCode> {
    let mut rows = Vec::new();
    let mut table = Table::new();
    table.set_header(["case", "precision", "here, ms", "PyTorch f32, ms", "ratio", "quartiles", "own f32 / here"]);
    for group in args.case.split(',') {
        let setting = best(args, python, group)?;
        let mut peer = Peer::start(python, group, "fp32", setting, args)?;
        let count = cases(group, precisions[0], args.n)?.len();
        for index in 0..count {
            peer.ready()?;
            let mut ours = Vec::new();
            for &precision in precisions {
                let build = cases(group, precision, args.n)?.into_iter().nth(index).context("no such case")?;
                let mut case = build()?;
                warm_up(&mut case, args.secs)?;
                ours.push((precision, case, Vec::new()));
            }
            let mut theirs: Vec<f64> = Vec::new();
            for _ in 0..args.pairs {
                theirs.push(peer.once()?);
                // Its threads wait actively for a while.
                std::thread::sleep(std::time::Duration::from_millis(30));
                for (_, case, times) in &mut ours {
                    times.push(once(case)?);
                }
                if theirs.len() >= 5 && theirs.iter().sum::<f64>() > 5e3 {
                    break;
                }
            }
            peer.end()?;
            let own: Option<Vec<f64>> = ours.iter().find(|(p, ..)| *p == Precision::Fp32).map(|(_, _, t)| t.clone());
            for (precision, case, times) in &ours {
                (case.check)()?;
                let ratios = sorted(&theirs.iter().zip(times).map(|(t, o)| t / o).collect::<Vec<_>>());
                let to_own = own
                    .as_ref()
                    .map(|own| quantile(&sorted(&own.iter().zip(times).map(|(f, o)| f / o).collect::<Vec<_>>()), 0.5));
                let [low, mid, high] = [0.25, 0.5, 0.75].map(|q| quantile(&ratios, q));
                let (here, there) = (quantile(&sorted(times), 0.5), quantile(&sorted(&theirs), 0.5));
                eprintln!("{} {}: {here:.2} ms, PyTorch {there:.2} ms, ratio {mid:.2}", case.name, precision.name());
                table.add_row([
                    case.name.clone(),
                    precision.name().into(),
                    format!("{here:.2}"),
                    format!("{there:.2}"),
                    format!("{mid:.2}"),
                    format!("{low:.2} to {high:.2}"),
                    to_own.map_or(String::new(), |r| format!("{r:.2}")),
                ]);
                rows.push(json!({
                    "case": case.name, "prec": precision.name(), "binade_ms": round(here), "torch_f32_ms": round(there),
                    "ratio": round(mid), "ratio_p25": round(low), "ratio_p75": round(high),
                    "own_f32_ratio": to_own.map(round), "pairs": times.len(), "threads": args.threads,
                }));
            }
        }
    }
    println!("{table}");
    if let Some(path) = &args.out {
        std::fs::write(path, serde_json::to_string_pretty(&Value::Array(rows))?).with_context(|| path.display().to_string())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The fastest of PyTorch's settings for a group, by the sum over its cases.
fn best(args: &Args, python: &Path, group: &str) -> Result<Setting> {
    let images = matches!(group, "conv" | "cnn" | "resnet18" | "unet");
    let mut fastest = (f64::INFINITY, Setting { reuse: false, channels_last: false });
    for reuse in [false, true] {
        for channels_last in [false, true] {
            if channels_last && !images {
                continue;
            }
            let setting = Setting { reuse, channels_last };
            let mut peer = Peer::start(python, group, "fp32", setting, args)?;
            let mut total = 0.0;
            for _ in 0..cases(group, Precision::Fp32, args.n)?.len() {
                peer.ready()?;
                let times = [peer.once()?, peer.once()?, peer.once()?];
                total += quantile(&sorted(&times), 0.5);
                peer.end()?;
            }
            if total < fastest.0 {
                fastest = (total, setting);
            }
        }
    }
    Ok(fastest.1)
}
