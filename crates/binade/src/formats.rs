//! `binade formats`: the number formats with their true edges, and what a number becomes in each.

use std::process::ExitCode;

use anyhow::{Result, bail};
use binade::tensor::format::{Format, Specials};
use comfy_table::{CellAlignment, Table, presets};

use binade::cli::output::line;

#[derive(clap::Args)]
#[command(after_help = "Example: binade formats 65519.99")]
pub struct Args {
    /// A number: decimal, scientific, inf or nan
    #[arg(allow_hyphen_values = true)]
    number: Option<String>,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let Some(text) = &args.number else {
        line(edges())?;
        return Ok(ExitCode::SUCCESS);
    };
    let Ok(number) = text.replace('_', "").parse::<f64>() else {
        bail!("'{text}' is not a number: write 0.1, 6.1e-5, -65520, inf or nan");
    };
    line(becomes(number))?;
    Ok(ExitCode::SUCCESS)
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN).set_header(header);
    table
}

fn align(table: &mut Table) -> String {
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string()
}

fn edges() -> String {
    let mut table = table(&[
        "format",
        "sign/exponent/mantissa",
        "largest",
        "overflows from",
        "smallest normal",
        "smallest",
        "ulp(1)",
    ]);
    for f in Format::ALL {
        let overflow = match f.specials {
            Specials::Ieee if f == Format::F64 => "-".into(),
            Specials::Ieee => number(f.overflow_threshold()),
            Specials::NanOnly => format!("beyond {} (NaN)", number(f.overflow_threshold())),
            Specials::None => "saturates".into(),
        };
        table.add_row([
            f.name.to_string(),
            format!("1/{}/{}", f.exponent_bits, f.mantissa_bits),
            number(f.max_finite()),
            overflow,
            number(f.min_normal()),
            number(f.min_subnormal()),
            number(f.epsilon()),
        ]);
    }
    align(&mut table)
}

fn becomes(x: f64) -> String {
    let mut table = table(&["format", "value", "bits", "error", "relative", "note"]);
    for f in Format::ALL {
        let code = f.encode(x);
        let y = f.decode(code);
        let bits = format!("{code:0width$b}", width = f.bits() as usize);
        let fields = format!(
            "{} {} {}",
            &bits[..1],
            &bits[1..1 + f.exponent_bits as usize],
            &bits[1 + f.exponent_bits as usize..]
        );
        let finite = x.is_finite() && y.is_finite();
        let note = if x.is_finite() && y.is_infinite() {
            "overflows to infinity"
        } else if x.is_finite() && y.is_nan() {
            "overflows to NaN"
        } else if x.is_infinite() && y.is_nan() {
            "has no infinity"
        } else if x.is_nan() && !y.is_nan() {
            "has no NaN"
        } else if f.specials == Specials::None && x.abs() >= f.overflow_threshold() {
            "saturates"
        } else if finite && x.abs() > f.max_finite() {
            "rounds to the largest"
        } else if x != 0.0 && y == 0.0 {
            "underflows to 0"
        } else if y != 0.0 && y.abs() < f.min_normal() {
            "subnormal"
        } else if finite && x == y {
            "exact"
        } else {
            ""
        };
        table.add_row([
            f.name.to_string(),
            number(y),
            if f.bits() > 16 { format!("{code:#x}") } else { fields },
            if finite { number(y - x) } else { "-".into() },
            if finite && x != 0.0 { format!("{:.2e}", ((y - x) / x).abs()) } else { "-".into() },
            note.into(),
        ]);
    }
    align(&mut table)
}

/// Short decimal text that still tells numbers apart.
fn number(x: f64) -> String {
    if x == 0.0 || !x.is_finite() || (1e-3..1e6).contains(&x.abs()) { format!("{x}") } else { format!("{x:.6e}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_edges_of_f16_are_told_apart() {
        assert!(becomes(65519.0).lines().any(|l| l.contains("f16") && l.contains("65504") && !l.contains("overflow")));
        assert!(becomes(65520.0).lines().any(|l| l.starts_with("| f16") && l.contains("overflows to infinity")));
        assert!(becomes(2f64.powi(-25)).lines().any(|l| l.starts_with("| f16") && l.contains("underflows to 0")));
        assert!(edges().contains("65520"));
        let note = |x: f64, format: &str| {
            let printed = becomes(x);
            let row = printed.lines().find(|l| l.starts_with(&format!("| {format} "))).unwrap();
            row.trim_end_matches([' ', '|']).rsplit('|').next().unwrap().trim().to_string()
        };
        // Only a format without infinities takes its largest number for what is beyond the half of a step above it.
        assert_eq!(note(65519.99, "f16"), "rounds to the largest");
        assert_eq!(note(-65519.99, "f16"), "rounds to the largest");
        assert_eq!(
            [6.5, 6.99, 7.0, 100.0, f64::INFINITY].map(|x| note(x, "e2m1")),
            ["rounds to the largest", "rounds to the largest", "saturates", "saturates", "saturates"]
        );
    }
}
