//! `--config FILE.toml`: a file whose keys are flags, for every command that has the flag.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Command;
use toml::{Table, Value};

/// The command line with what a file says in the place of `--config FILE`, before all other flags: a flag of the
/// command line follows it, and the last one counts. A key is the name of a flag with `_` or `-`, a list is several
/// values, `true` is a flag without a value, `false` is none.
///
/// # Errors
/// The file cannot be read, is no TOML, or has a table; a key that is no flag, with the nearest that is.
pub fn expand(args: impl IntoIterator<Item = OsString>, program: &Command) -> Result<Vec<OsString>> {
    let mut args: Vec<OsString> = args.into_iter().collect();
    let Some((command, first)) = command(&args, program).filter(|(c, _)| long(c, "config").is_some()) else {
        return Ok(args);
    };
    let Some(file) = take(&mut args, first)? else { return Ok(args) };
    let text = std::fs::read_to_string(&file).with_context(|| format!("--config {}", file.display()))?;
    let table: Table = text.parse().with_context(|| format!("--config {}", file.display()))?;
    let mut flags = Vec::new();
    for (key, value) in &table {
        add(&mut flags, command, key, value).with_context(|| format!("--config {}", file.display()))?;
    }
    args.splice(first..first, flags);
    Ok(args)
}

/// The innermost command that the line names, and the place of what follows its name.
fn command<'a>(args: &[OsString], program: &'a Command) -> Option<(&'a Command, usize)> {
    let (mut command, mut at) = (program, 1);
    while let Some(sub) = args.get(at).and_then(|name| command.find_subcommand(name)) {
        (command, at) = (sub, at + 1);
    }
    (at > 1).then_some((command, at))
}

/// Takes the flag and its value out of the line.
fn take(args: &mut Vec<OsString>, first: usize) -> Result<Option<PathBuf>> {
    let Some(at) = (first..args.len()).find(|&i| args[i] == "--config" || value_of(&args[i]).is_some()) else {
        return Ok(None);
    };
    if let Some(file) = value_of(&args[at]).map(PathBuf::from) {
        args.remove(at);
        return Ok(Some(file));
    }
    if at + 1 == args.len() {
        bail!("--config needs the path of a file");
    }
    let file = args.remove(at + 1);
    args.remove(at);
    Ok(Some(file.into()))
}

fn value_of(arg: &OsStr) -> Option<&str> {
    arg.to_str()?.strip_prefix("--config=")
}

fn long<'a>(command: &'a Command, name: &str) -> Option<&'a clap::Arg> {
    command.get_arguments().find(|arg| arg.get_long() == Some(name))
}

/// Adds the flag of a key.
fn add(flags: &mut Vec<OsString>, command: &Command, key: &str, value: &Value) -> Result<()> {
    let name = key.replace('_', "-");
    let Some(flag) = long(command, &name).filter(|_| name != "config") else {
        let names: Vec<&str> = command.get_arguments().filter_map(clap::Arg::get_long).collect();
        let nearest = names.iter().max_by(|a, b| strsim::jaro(a, &name).total_cmp(&strsim::jaro(b, &name)));
        let hint = nearest.map_or(String::new(), |near| format!("; did you mean {}?", near.replace('-', "_")));
        bail!("{key} is no flag of this command{hint}");
    };
    let takes_value = flag.get_action().takes_values();
    match value {
        Value::Boolean(on) if !takes_value => {
            if *on {
                flags.push(format!("--{name}").into());
            }
            return Ok(());
        }
        _ if !takes_value => bail!("{key}: expected true or false, found {value}"),
        _ => {}
    }
    flags.push(format!("--{name}").into());
    let values = if let Value::Array(values) = value { values.as_slice() } else { std::slice::from_ref(value) };
    for value in values {
        flags.push(match value {
            Value::String(text) => text.into(),
            Value::Integer(_) | Value::Float(_) | Value::Boolean(_) => value.to_string().into(),
            Value::Datetime(_) | Value::Array(_) | Value::Table(_) => bail!("{key}: {value} is no value of a flag"),
        });
    }
    Ok(())
}
