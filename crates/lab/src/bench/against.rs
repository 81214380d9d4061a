//! Both sides in turn: one run here, one run there, round by round.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use binade::train::Precision;

use super::cases::NETWORKS;
use super::memory::{self, Memory};
use super::peer::{Peer, Setting};
use super::row::{Beside, Row, publish};
use super::timing::{check, median, once, round, warm_up};
use super::{Args, Case, cases};
use binade::cli::output::note;

/// PyTorch in one precision at its best setting.
struct Side {
    precision: Precision,
    setting: Setting,
    peer: Peer,
    times: Vec<f64>,
}

/// A case here.
struct Own {
    precision: Precision,
    case: Case,
    times: Vec<f64>,
}

pub fn run(args: &Args, python: &Path) -> Result<ExitCode> {
    let mut rows = Vec::new();
    for group in &args.case {
        let network = NETWORKS.contains(&group.as_str());
        let mut sides = Vec::new();
        for &precision in &args.peer_precision {
            // Single operators of PyTorch in 16 bit take minutes where the processor has no such instructions.
            if precision == Precision::Fp32 || network {
                let setting = Peer::best(args, python, group, precision)?;
                let peer = Peer::start(args, python, group, precision, setting)?;
                sides.push(Side { precision, setting, peer, times: Vec::new() });
            }
        }
        let first = rows.len();
        for index in 0..cases(group, Precision::Fp32, args.size())?.len() {
            rows.extend(in_turn(args, group, index, &mut sides)?);
        }
        if network {
            let settings: Vec<_> = sides.drain(..).map(|s| (s.precision, s.setting)).collect();
            add_memory(args, python, group, &settings, &mut rows[first..])?;
        }
    }
    publish(&rows, args.out.as_deref(), args.picture.as_deref())
}

/// One case in all precisions: a row for each.
fn in_turn(args: &Args, group: &str, index: usize, sides: &mut [Side]) -> Result<Vec<Row>> {
    for side in &mut *sides {
        side.peer.ready()?;
        side.times.clear();
    }
    let mut own = Vec::new();
    for &precision in &args.precision {
        let build = cases(group, precision, args.size())?.into_iter().nth(index).context("no such case")?;
        let mut case = build()?;
        warm_up(&mut case, args.secs)?;
        own.push(Own { precision, case, times: Vec::new() });
    }
    let spent = |times: &[f64]| times.iter().sum::<f64>();
    let mut rounds = 0;
    while rounds < args.pairs {
        for side in &mut *sides {
            // A side that takes many seconds stops after three runs.
            if side.times.len() == rounds && (rounds < 3 || spent(&side.times) < 20e3) {
                side.times.push(side.peer.once()?);
                // Its threads wait actively for a while.
                std::thread::sleep(Duration::from_millis(30));
            }
        }
        for own in &mut own {
            own.times.push(once(&mut own.case)?);
        }
        rounds += 1;
        let longest = sides.iter().map(|s| spent(&s.times)).chain([spent(&own[0].times)]).fold(0.0, f64::max);
        if rounds >= 5 && longest > 5e3 {
            break;
        }
    }
    for side in &mut *sides {
        side.peer.end()?;
    }
    let f32s = own.iter().find(|o| o.precision == Precision::Fp32).map(|o| o.times.clone());
    let mut rows = Vec::new();
    for Own { precision, case, times } in &own {
        check(case)?;
        let side =
            |wanted: Precision| sides.iter().find(|s| s.precision == wanted).map(|s| Beside::new(&s.times, times));
        let low = *precision != Precision::Fp32;
        let row = Row {
            case: case.name.clone(),
            prec: precision.name().into(),
            threads: args.threads,
            rounds,
            binade_ms: round(median(times)),
            own_f32: f32s.as_ref().filter(|_| low).map(|f| Beside::new(f, times)),
            torch_f32: side(Precision::Fp32),
            torch_bf16: side(Precision::Bf16).filter(|_| low),
            memory: None,
            torch_f32_memory: None,
            torch_bf16_memory: None,
        };
        let ratios: Vec<String> =
            [("own f32", row.own_f32), ("PyTorch f32", row.torch_f32), ("PyTorch bf16", row.torch_bf16)]
                .into_iter()
                .filter_map(|(name, beside)| beside.map(|b| format!(", {:.2} against {name}", b.ratio)))
                .collect();
        note(format_args!("{} {}: {:.2} ms{}", row.case, row.prec, row.binade_ms, ratios.concat()));
        rows.push(row);
    }
    Ok(rows)
}

/// Fills in what the training steps of both sides take, where the system tells.
fn add_memory(args: &Args, python: &Path, group: &str, peers: &[(Precision, Setting)], rows: &mut [Row]) -> Result<()> {
    if memory::peak_rss_mib().is_none() {
        return Ok(());
    }
    let of = |wanted: Precision| -> Result<Option<Memory>> {
        let found = peers.iter().find(|(precision, _)| *precision == wanted);
        found.map(|(precision, setting)| memory::peer(args, python, group, *precision, *setting)).transpose()
    };
    let (torch_f32, torch_bf16) = (of(Precision::Fp32)?, of(Precision::Bf16)?);
    for (row, &precision) in rows.iter_mut().zip(&args.precision) {
        row.memory = Some(memory::here(args, group, precision)?);
        (row.torch_f32_memory, row.torch_bf16_memory) = (torch_f32, torch_bf16);
    }
    Ok(())
}
