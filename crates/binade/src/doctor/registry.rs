//! Every operator of the registry on a device: within its stated bound of f64, and with which bits.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result, bail};
use binade::cli::output::verdict_line;
use binade::tensor::samples::catalogue;
use binade::tensor::testing::check_op;
use binade::tensor::{Array, Class, DType, Device, Error, Op, Request, run};

use super::Args;

const DTYPES: [DType; 3] = [DType::F32, DType::F16, DType::BF16];

/// Bits of results, by operator, dtype and sample; and the device's capability.
type Digests = BTreeMap<String, u64>;

/// Under which name digests have a capability.
const CAPABILITY: &str = "capability";

/// Runs all samples; false if one is out of its bound.
pub fn run_all(device: &Device, args: &Args) -> Result<bool> {
    let recorded = args.against.as_deref().map(read).transpose()?;
    let wants_digests = args.digests.is_some() || recorded.is_some();
    let (mut runs, mut refused, mut operators) = (0, 0, 0);
    let (mut failures, mut digests) = (BTreeMap::<&str, Vec<String>>::new(), Digests::new());
    for (at, op) in catalogue().into_iter().enumerate() {
        if args.only.as_ref().is_some_and(|only| !op.name().contains(only.as_str())) {
            continue;
        }
        operators += 1;
        for dtype in DTYPES {
            for (sample, ins) in op.samples(device, dtype).into_iter().enumerate().take(args.samples) {
                match check_op(&op, &ins, device, dtype) {
                    Ok((_, failure)) => failures.entry(op.name()).or_default().extend(failure),
                    // A device may have no f64, and then says so by name.
                    Err(Error::Unsupported { dtype: DType::F64, .. }) => {
                        refused += 1;
                        continue;
                    }
                    Err(error) => failures.entry(op.name()).or_default().push(format!("{op:?} {dtype}: {error}")),
                }
                runs += 1;
                if wants_digests && let Ok(digest) = digest(&op, &ins, device, dtype) {
                    digests.insert(format!("{at} {} {dtype} {sample}", op.name()), digest);
                }
            }
        }
    }
    if runs == 0 {
        bail!("nothing was run: no operator has {:?} in its name", args.only.as_deref().unwrap_or_default());
    }
    failures.retain(|_, failures| !failures.is_empty());
    let failed: usize = failures.values().map(Vec::len).sum();
    let without = if refused > 0 { format!(", {refused} refused for f64") } else { String::new() };
    verdict_line(format_args!("registry  {operators} operators, {runs} runs, {failed} out of bound{without}"))?;
    for (name, failures) in &failures {
        verdict_line(format_args!("  FAIL {name}: {}, the first: {}", failures.len(), failures[0]))?;
    }
    digests.extend(super::capability(device).map(|n| (CAPABILITY.to_string(), u64::from(n))));
    if let Some(path) = &args.digests {
        write(path, &digests)?;
    }
    if let Some(recorded) = &recorded {
        compare(&digests, recorded)?;
    }
    Ok(failed == 0)
}

/// FNV-1a over the bits of all results; all NaN are one.
fn digest(op: &Op, ins: &[Array], device: &Device, dtype: DType) -> Result<u64> {
    let ins: Vec<&Array> = ins.iter().collect();
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    for out in run(Request::new(op, &ins, device, dtype, Class::Activations))? {
        for value in out.to_f64_vec()? {
            let bits = if value.is_nan() { u64::MAX } else { value.to_bits() };
            hash = bits.to_le_bytes().iter().fold(hash, |h, &b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
        }
    }
    Ok(hash)
}

fn write(path: &Path, digests: &Digests) -> Result<()> {
    let mut text = String::new();
    for (name, digest) in digests {
        let _ = writeln!(text, "{name} {digest:016x}");
    }
    std::fs::write(path, text).with_context(|| path.display().to_string())
}

fn read(path: &Path) -> Result<Digests> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let parsed = text.lines().map(|line| {
        let (name, digest) = line.rsplit_once(' ')?;
        Some((name.to_string(), u64::from_str_radix(digest, 16).ok()?))
    });
    parsed.collect::<Option<_>>().with_context(|| format!("{}: not what --digests writes", path.display()))
}

/// The operators whose bits are others than the recorded ones.
fn compare(ours: &Digests, recorded: &Digests) -> Result<()> {
    let (mut compared, mut differ) = (0, BTreeMap::<String, usize>::new());
    let capability = |digests: &Digests| digests.get(CAPABILITY).map(|n| format!("{}.{}", n / 10, n % 10));
    if let (Some(here), Some(there)) = (capability(ours), capability(recorded))
        && here != there
    {
        let told = "tensor cores differ, and products, convolutions and attention of 16 bit with them";
        verdict_line(format_args!("bits      of capability {here}, beside those of {there}: {told}"))?;
    }
    for (name, digest) in ours.iter().filter(|(name, _)| *name != CAPABILITY) {
        let Some(theirs) = recorded.get(name) else { continue };
        compared += 1;
        if digest != theirs {
            // Operator and dtype.
            let what: Vec<&str> = name.split(' ').skip(1).take(2).collect();
            *differ.entry(what.join(" ")).or_default() += 1;
        }
    }
    if compared == 0 {
        bail!("--against: it has none of the samples that were run");
    }
    let all: usize = differ.values().sum();
    verdict_line(format_args!("bits      {compared} samples compared, {all} with other bits"))?;
    differ.iter().try_for_each(|(what, n)| verdict_line(format_args!("  {what}: {n}")))?;
    Ok(())
}
