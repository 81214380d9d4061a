//! PyTorch's side: a process that runs once for each line it reads.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail};
use binade::train::Precision;

use super::timing::median;
use super::{Args, cases};

/// The peers' script. What was added to it for this program is marked so.
pub const SCRIPT: &str = include_str!("torch_bench.py");

/// The script's timer replaced: after a warm-up, of one run where a run takes seconds, it runs once for each line it
/// reads.
const IN_TURN: &str = r#"
def timeit(f, secs, min_iters, warm=2, warm_secs=1.0):
    t0 = time.perf_counter(); k = 0
    while k < warm or (time.perf_counter() - t0 < warm_secs and k < 50):
        f(); k += 1
        if time.perf_counter() - t0 > 5: break
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
pub struct Setting {
    pub reuse: bool,
    pub channels_last: bool,
}

/// A running process.
pub struct Peer {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Peer {
    pub fn start(args: &Args, python: &Path, group: &str, precision: Precision, setting: Setting) -> Result<Peer> {
        let script = SCRIPT.replace("\nmain()\n", "\n") + IN_TURN;
        let mut command = Command::new(python);
        command.args(["-c", &script, group, precision.name(), "--threads", &args.threads.to_string()]);
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

    /// The fastest of PyTorch's settings for a group, by the sum over its cases. A case of seconds runs once in each.
    pub fn best(args: &Args, python: &Path, group: &str, precision: Precision) -> Result<Setting> {
        let images = matches!(group, "conv" | "cnn" | "resnet18" | "unet");
        let mut fastest = (f64::INFINITY, Setting { reuse: false, channels_last: false });
        for reuse in [false, true] {
            for channels_last in [false, true] {
                if channels_last && !images {
                    continue;
                }
                let setting = Setting { reuse, channels_last };
                let mut peer = Peer::start(args, python, group, precision, setting)?;
                let mut total = 0.0;
                for _ in 0..cases(group, precision, args.size())?.len() {
                    peer.ready()?;
                    let mut times = vec![peer.once()?];
                    while times.len() < 3 && times[0] < 2e3 {
                        times.push(peer.once()?);
                    }
                    total += median(&times);
                    peer.end()?;
                }
                if total < fastest.0 {
                    fastest = (total, setting);
                }
            }
        }
        Ok(fastest.1)
    }

    /// The next line; `None` at the end.
    fn line(&mut self) -> Result<Option<String>> {
        let mut line = String::new();
        Ok(if self.from.read_line(&mut line)? == 0 { None } else { Some(line.trim().to_string()) })
    }

    /// Waits for the next case. The JSON lines of the one before are passed over.
    pub fn ready(&mut self) -> Result<()> {
        loop {
            match self.line()? {
                Some(line) if line == "ready" => return Ok(()),
                Some(_) => {}
                None => bail!("PyTorch's side ended early; is torch installed for this interpreter?"),
            }
        }
    }

    /// One run, in ms.
    pub fn once(&mut self) -> Result<f64> {
        writeln!(self.to, "go")?;
        match self.line()? {
            Some(line) => line.parse().with_context(|| format!("PyTorch's side printed {line}")),
            None => bail!("PyTorch's side ended early"),
        }
    }

    /// Ends a case.
    pub fn end(&mut self) -> Result<()> {
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
