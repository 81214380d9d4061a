//! What `--true-size` says.

use binade::tensor::Class;
use binade::train::Precision;
use comfy_table::Table;

use super::Row;

const MIB: f64 = (1 << 20) as f64;

/// The same model in f32.
fn in_f32<'r>(rows: &'r [Row], row: &Row) -> Option<&'r Row> {
    let other = row.precision != Precision::Fp32;
    rows.iter().find(|r| other && r.model == row.model && r.precision == Precision::Fp32)
}

/// A line as soon as a step is done.
pub fn said(row: &Row) -> String {
    let Row { model, precision, planned, measured, .. } = row;
    format!(
        "{} in {}: {}, {:.2} s a step, loss {:.4}, {:.0} MiB planned in {:.1} s, {:.0} MiB taken, {:.0} MiB resident",
        model.name(),
        precision.name(),
        planned.choice,
        measured.ms / 1e3,
        measured.loss,
        planned.taken.total as f64 / MIB,
        planned.seconds,
        measured.taken.total as f64 / MIB,
        measured.peak_mib
    )
}

/// What differs from its plan by more than a twentieth.
pub fn amiss(row: &Row) -> Option<String> {
    let near = |planned: u64, found: u64| planned.abs_diff(found) as f64 <= (found as f64 / 20.0).max(MIB);
    let (planned, found) = (&row.planned.taken, &row.measured.taken);
    let classes =
        Class::ALL.map(|class| (class.name(), planned.classes[class as usize], found.classes[class as usize]));
    let all = classes
        .into_iter()
        .chain([("all together", planned.total, found.total), ("between the passes", planned.saved, found.saved)]);
    let wrong: Vec<String> = all
        .filter(|(_, planned, found)| !near(*planned, *found))
        .map(|(what, p, f)| format!("{what} {:.1} MiB planned, {:.1} taken", p as f64 / MIB, f as f64 / MIB))
        .collect();
    let of = format!("{} in {}", row.model.name(), row.precision.name());
    (!wrong.is_empty()).then(|| format!("{of}: not as planned: {}", wrong.join("; ")))
}

/// Times.
pub fn steps(rows: &[Row], most: f64) -> Table {
    let mut table = Table::new();
    let mut header = vec!["model", "precision", "parameters", "trained by", "a step, s", "GFLOP", "GFLOP/s"];
    header.extend(["of the limit", "against own f32"]);
    let beside = rows.iter().any(|row| row.torch.is_some());
    if beside {
        header.extend(["PyTorch f32, s", "against it"]);
    }
    table.set_header(header);
    for row in rows {
        let (planned, seconds) = (&row.planned, row.measured.ms / 1e3);
        let rate = planned.work / 1e9 / seconds;
        let ratio = |other: Option<f64>| other.map_or(String::new(), |other| format!("{:.2}", other / seconds));
        let mut cells = vec![
            row.model.name().to_string(),
            row.precision.name().into(),
            planned.parameters.to_string(),
            planned.choice.to_string(),
            format!("{seconds:.2}"),
            format!("{:.0}", planned.work / 1e9),
            format!("{rate:.0}"),
            format!("{:.0} %", 100.0 * rate / most),
            ratio(in_f32(rows, row).map(|r| r.measured.ms / 1e3)),
        ];
        if beside {
            let torch = row.torch.map(|torch| torch.ms / 1e3);
            cells.extend([torch.map_or(String::new(), |s| format!("{s:.2}")), ratio(torch)]);
        }
        table.add_row(cells);
    }
    table
}

/// Memory, planned and taken.
pub fn memory(rows: &[Row]) -> String {
    let mut table = Table::new();
    let mut header = vec!["model", "precision"];
    header.extend(Class::ALL.map(Class::name));
    header.extend(["all together", "between the passes", "of own f32", "resident", "above the model", "PyTorch f32"]);
    header.push("of it");
    table.set_header(header);
    let both = |planned: u64, found: u64| {
        let in_words = |bytes: u64| match bytes as f64 / MIB {
            mib if mib < 10.0 => format!("{mib:.1}"),
            mib => format!("{mib:.0}"),
        };
        // One number where they are the same.
        let (planned, found) = (in_words(planned), in_words(found));
        if planned == found { found } else { format!("{planned} / {found}") }
    };
    for row in rows {
        let (planned, found) = (&row.planned.taken, &row.measured.taken);
        let of_f32 = in_f32(rows, row).map(|r| found.saved as f64 / r.measured.taken.saved as f64);
        let above = row.measured.peak_mib - row.measured.base_mib;
        let torch = row.torch.map(|torch| torch.peak_mib - torch.base_mib);
        let mut cells = vec![row.model.name().to_string(), row.precision.name().into()];
        cells.extend(Class::ALL.map(|class| both(planned.classes[class as usize], found.classes[class as usize])));
        cells.extend([
            both(planned.total, found.total),
            both(planned.saved, found.saved),
            of_f32.map_or(String::new(), |ratio| format!("{ratio:.2}")),
            format!("{:.0}", row.measured.peak_mib),
            format!("{above:.0}"),
            torch.map_or(String::new(), |mib| format!("{mib:.0}")),
            torch.map_or(String::new(), |mib| format!("{:.2}", above / mib)),
        ]);
        table.add_row(cells);
    }
    let heading = "Memory of the steps, MiB: of each class at its peak, planned / taken where they differ. Resident: \
                   the process, and what it has above the level after building the model";
    format!("{heading}\n{table}")
}
