//! The report of runs, and the same in a browser, where there is one. A program of its own: a process that is being
//! started shares the locks of run folders for a moment, which other tests want to take.

use binade_cpu as _;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use binade_nn::{Flatten, Linear, Sequential};
use binade_train::{Classify, Config, InMemory, Precision, RunConfig, Splits, report, train};

static TASK: Classify = Classify::new(3);

/// A run of 18 steps and 3 epochs in each precision.
fn run(out: &Path, lr: f64) -> PathBuf {
    let samples = |n: usize| {
        let inputs = (0..n * 4).map(|i| (i as f32 * 0.77).sin()).collect();
        InMemory::classes(inputs, &[4], &(0..n).map(|i| i % 3).collect::<Vec<_>>()).unwrap()
    };
    let config = RunConfig {
        name: "three <classes>".into(),
        precisions: vec![Precision::Fp32, Precision::Fp16],
        fit: Config { epochs: 3, batch_size: 8, lr, ..Config::default() },
        out: Some(out.into()),
        quiet: true,
        ..RunConfig::default()
    };
    let build = || Ok(Sequential::new().then(Flatten).then(Linear::new(4, 3)?));
    train(build, &TASK, &Splits::new(samples(48), samples(12)), &config).unwrap().folder
}

#[test]
fn a_report_says_what_was_run_how_and_where() {
    let folder = tempfile::tempdir().unwrap();
    let run = run(&folder.path().join("one"), 2e-3);
    let page = std::fs::read_to_string(run.join("report.html")).unwrap();
    assert_eq!(page, report(std::slice::from_ref(&run)).unwrap(), "made of the folder alone");
    let year = format!("{}", 1970 + std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs() / 31_557_600);
    for part in
        ["Training loss by step", "Test accuracy by epoch, %", "Gradient norm", "Learning rate", "fit.batch_size"]
    {
        assert!(page.contains(part), "{part}");
    }
    for part in [env!("CARGO_PKG_VERSION"), "cores", &year, "UTC", "recall", "three &lt;classes&gt;"] {
        assert!(page.contains(part), "{part}");
    }
    for part in ["Memory by class and epoch, fp32", "epoch 2, weights: ", "Each class at its own peak"] {
        assert!(page.contains(part), "{part}");
    }
    assert!(!page.contains("<classes>"), "a name is text");
    // Nothing is fetched: no address but in comments, and of namespaces.
    assert!(!page.contains("src=\"http") && !page.contains("<link"), "self-contained");
    // What charts show is said in words, and images of the page have them too.
    let [images, labelled] = ["role=\"img\"", "role=\"img\" aria-label=\""].map(|what| page.matches(what).count());
    assert!(images > 5 && images == labelled, "{images} {labelled}");
    assert!(page.len() < 200_000, "{}", page.len());
}

#[test]
fn the_most_confused_images_are_shown_with_what_they_are_and_what_was_found() {
    let folder = tempfile::tempdir().unwrap();
    let samples = |n: usize| {
        let inputs = (0..n * 16).map(|i| (i as f32 * 0.77).sin()).collect();
        InMemory::classes(inputs, &[1, 4, 4], &(0..n).map(|i| i * i % 3).collect::<Vec<_>>()).unwrap()
    };
    let config = RunConfig {
        precisions: vec![Precision::Fp32],
        fit: Config { epochs: 1, batch_size: 8, ..Config::default() },
        out: Some(folder.path().into()),
        quiet: true,
        ..RunConfig::default()
    };
    let task = Classify { names: ["ant", "bee", "cat"].map(String::from).to_vec(), ..Classify::new(3) };
    let build = || Ok(Sequential::new().then(Flatten).then(Linear::new(16, 3)?));
    let run = train(build, &task, &Splits::new(samples(24), samples(40)), &config).unwrap();
    let answers = run.summaries[0].answers.clone().unwrap();
    let wrong = 40 - (0..3).map(|class| answers.found[class][class]).sum::<u64>() as usize;
    assert_eq!(answers.confused.len(), wrong.min(12), "a model that is trained so little is often wrong");
    let page = std::fs::read_to_string(folder.path().join("report.html")).unwrap();
    assert_eq!(page.matches("<figure>").count(), answers.confused.len());
    let first = answers.confused[0];
    let [class, found] = [first.class, first.found].map(|class| task.names[class].clone());
    let told = format!("alt=\"{class}, found {found} ({:.1} %)\"", 100.0 * first.share);
    assert!(page.contains("Most confused images, fp32") && page.contains(&told), "{told}");
    assert!(first.share >= answers.confused[wrong.min(12) - 1].share && first.class != first.found);
}

#[test]
fn several_runs_are_on_one_page_with_what_differs_and_damage_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let runs = [("a/one", 2e-3), ("b/one", 1e-3)].map(|(name, lr)| run(&folder.path().join(name), lr));
    let page = report(&runs).unwrap();
    // Both folders are called the same.
    let paths = runs.each_ref().map(|run| run.display().to_string());
    assert!(paths.iter().all(|path| page.contains(&format!("{path} fp16"))), "{paths:?}");
    let (_, settings) = page.split_once("What differs:").unwrap();
    let (differ, same) = settings.split_once("<details>").unwrap();
    assert!(differ.contains("fit.lr") && differ.contains("0.001") && !differ.contains("fit.epochs"), "{differ}");
    assert!(same.contains("fit.epochs"));
    // A run that has only begun has a report too.
    for file in ["summary.json", "metrics.jsonl", "starts.json", "numbers.json"] {
        std::fs::remove_file(runs[0].join(file)).unwrap();
    }
    assert!(report(&runs[..1]).unwrap().contains("Settings"));
    std::fs::write(runs[1].join("summary.json"), "[{").unwrap();
    assert!(report(&runs).unwrap_err().to_string().contains("summary.json"));
    assert!(report(&[folder.path().into()]).unwrap_err().to_string().contains("not a run folder"));
}

/// A browser of Chromium's family.
fn chromium() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("BINADE_CHROMIUM") {
        return Some(named.into());
    }
    let names = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome"];
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).flat_map(|folder| names.map(|name| folder.join(name))).find(|file| file.is_file())
}

/// What the page is after a script at its end has run, in a window of so many pixels.
fn in_browser(browser: &Path, page: &str, script: &str, flags: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("page.html");
    std::fs::write(&file, page.replace("</body>", &format!("<script>{script}</script></body>"))).unwrap();
    let profile = format!("--user-data-dir={}", folder.path().join("profile").display());
    let out = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", &profile])
        .args(flags)
        .arg(format!("file://{}", file.display()))
        .output()
        .unwrap();
    let dom = String::from_utf8_lossy(&out.stdout).into_owned();
    let (_, told) =
        dom.split_once("id=\"told\">").unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&out.stderr)));
    told.split("</pre>").next().unwrap().replace("&gt;", ">").replace("&lt;", "<").replace("&amp;", "&")
}

/// Tells what is told.
const TELL: &str = "const tell = what => { const pre = document.createElement('pre'); pre.id = 'told';\
                    pre.textContent = JSON.stringify(what); document.body.append(pre); };";

/// Moves the mouse over each chart, and tells the lines that each place shows.
const HOVER: &str = "(async () => {
  const lines = [];
  for (const over of document.querySelectorAll('.u-over')) {
    const chart = over.closest('figure'), box = over.getBoundingClientRect();
    for (let i = 0; i <= 20; i++) {
      const at = { bubbles: true, view: window, clientX: box.left + (box.width - 1) * i / 20, clientY: box.top + 9 };
      for (const kind of ['mouseenter', 'mousemove']) over.dispatchEvent(new MouseEvent(kind, at));
      await new Promise(done => setTimeout(done, 20));
      for (const line of chart.querySelectorAll('.tip div')) lines.push([chart.id, line.textContent]);
    }
  }
  const wide = document.documentElement.scrollWidth, wanted = innerWidth;
  document.querySelector('input[data-series]').click();
  const chart = document.querySelector('#loss'), over = chart.querySelector('.u-over');
  const box = over.getBoundingClientRect();
  over.dispatchEvent(new MouseEvent('mousemove', { bubbles: true, clientX: box.left + 50, clientY: box.top + 9 }));
  await new Promise(done => setTimeout(done, 20));
  const left = [...chart.querySelectorAll('.tip div')].map(line => line.textContent);
  chart.querySelector('.log').click();
  tell({ lines, wide, wanted, left, plots: document.querySelectorAll('.u-wrap canvas').length,
         drawn: document.documentElement.dataset.drawn });
})()";

/// The numbers of `metrics.jsonl`, by chart, precision and place.
fn written(folder: &Path) -> BTreeMap<(String, String, u64), f64> {
    let mut all = BTreeMap::new();
    for line in std::fs::read_to_string(folder.join("metrics.jsonl")).unwrap().lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let mut put = |chart: &str, at: &str, value: &str, factor: f64| {
            if let (Some(at), Some(value)) = (line[at].as_u64(), line[value].as_f64()) {
                let key = (chart.to_string(), line["precision"].as_str().unwrap().to_string(), at);
                all.insert(key, factor * value);
            }
        };
        put("test-loss", "iteration", "test_loss", 1.0);
        put("accuracy", "epoch", "test_accuracy", 100.0);
        if line["kind"] == "step" {
            for (chart, value) in [("loss", "loss"), ("lr", "lr"), ("norm", "grad_norm"), ("scale", "loss_scale")] {
                put(chart, "iteration", value, 1.0);
            }
        }
    }
    all
}

/// `fp16, step 7: 0.25` in its parts.
fn parsed(line: &str) -> (String, u64, f64) {
    let (name, rest) = line.split_once(", ").unwrap();
    let (at, value) = rest.split_once(": ").unwrap();
    let value = value.trim_end_matches(" %").parse().unwrap_or_else(|_| panic!("{line}"));
    (name.into(), at.split(' ').next_back().unwrap().parse().unwrap(), value)
}

#[test]
fn a_browser_shows_the_numbers_of_metrics_jsonl_under_the_mouse() {
    let Some(browser) = chromium() else {
        return eprintln!(
            "SKIPPED: no Chromium on the PATH, so the report is not looked at (BINADE_CHROMIUM names one)"
        );
    };
    let folder = tempfile::tempdir().unwrap();
    let run = run(&folder.path().join("one"), 2e-3);
    let (page, written) = (report(std::slice::from_ref(&run)).unwrap(), written(&run));
    for width in [1200, 380] {
        let flags = [&format!("--window-size={width},900"), "--virtual-time-budget=20000"];
        let told = in_browser(&browser, &page, &format!("{TELL}{HOVER}"), &flags.map(AsRef::as_ref));
        let told: serde_json::Value = serde_json::from_str(&told).unwrap();
        let mut seen = BTreeMap::<String, usize>::new();
        for line in told["lines"].as_array().unwrap() {
            let (chart, line) = (line[0].as_str().unwrap(), line[1].as_str().unwrap());
            let (name, at, value) = parsed(line);
            *seen.entry(chart.into()).or_default() += 1;
            if chart == "speed" {
                continue;
            }
            let right = written[&(chart.to_string(), name, at)];
            assert!((value - right).abs() <= 1e-5 * right.abs(), "{chart}: {line}, written {right}");
        }
        // Two precisions at 21 places.
        for chart in ["loss", "test-loss", "accuracy", "lr", "norm", "scale", "speed"] {
            assert_eq!(seen.get(chart), Some(&42), "{chart} at {width}: {seen:?}");
        }
        assert_eq!((told["drawn"].as_str(), told["plots"].as_u64()), (Some("7"), Some(7)), "{width}");
        // The first precision was switched off.
        let left = told["left"].as_array().unwrap();
        assert!(left.len() == 1 && left[0].as_str().unwrap().starts_with("fp16, step "), "{left:?}");
        // Nothing is wider than the window; a bar to scroll may take some of it.
        assert!(told["wide"].as_u64() <= told["wanted"].as_u64(), "{width}: {told}");
    }
}

#[test]
fn a_hundred_thousand_steps_are_small_and_open_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let run = run(&folder.path().join("one"), 2e-3);
    let mut lines = String::new();
    for precision in ["fp32", "fp16"] {
        for i in 0..100_000u64 {
            let (noise, skipped) = ((i as f64 * 12.9898).sin() * 0.1, i % 1000 == 7);
            let loss = 2.3 * (-(i as f64) / 3e4).exp() + noise;
            let _ = writeln!(
                lines,
                "{{\"precision\":\"{precision}\",\"kind\":\"step\",\"iteration\":{i},\"loss\":{loss},\"lr\":{},\
                 \"grad_norm\":{},\"loss_scale\":{},\"skipped\":{skipped}}}",
                1e-3 * (1.0 - i as f64 / 1e5),
                1.0 + noise,
                1024 << (i / 1000 % 6),
            );
        }
    }
    std::fs::write(run.join("metrics.jsonl"), lines).unwrap();
    let page = report(std::slice::from_ref(&run)).unwrap();
    assert!(page.len() < 3_000_000, "{} bytes", page.len());
    let Some(browser) = chromium() else {
        return eprintln!("SKIPPED: no Chromium on the PATH, so it is not measured how fast a report opens");
    };
    let opened =
        |_| -> f64 { in_browser(&browser, &page, &format!("{TELL}tell(performance.now())"), &[]).parse().unwrap() };
    let ms = (0..3).map(opened).fold(f64::INFINITY, f64::min);
    println!("a report of 100,000 steps in two precisions: {} bytes, drawn after {ms:.0} ms", page.len());
    assert!(ms < 1000.0, "{ms} ms");
}
