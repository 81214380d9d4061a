//! Einstein's notation over any number of operands.

use std::collections::BTreeMap;

use binade_tensor::Error as TensorError;

use crate::{Result, Var};

/// What stands for the ellipsis of an equation: dimensions without a letter, counted from the right.
type Label = u32;

/// The labels of an ellipsis lie below every letter's, the outermost first, so that they lead an implicit result.
const DIMENSIONS: Label = binade_tensor::MAX_RANK as Label;

fn fail(message: String) -> crate::Error {
    TensorError::Argument { op: "einsum", message }.into()
}

/// The labels of one operand or result with an ellipsis of `dots` dimensions.
fn labels(term: &str, dots: usize) -> Result<Vec<Label>> {
    let mut out = Vec::new();
    let mut rest = term;
    let mut seen = false;
    while let Some(letter) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix("...") {
            if std::mem::replace(&mut seen, true) {
                return Err(fail(format!("'{term}' has two ellipses")));
            }
            out.extend(DIMENSIONS - dots as Label..DIMENSIONS);
            rest = after;
        } else if letter.is_ascii_alphabetic() {
            out.push(DIMENSIONS + letter as Label);
            rest = &rest[1..];
        } else {
            return Err(fail(format!("'{letter}' in '{term}' is not a letter a to z or A to Z, nor an ellipsis")));
        }
    }
    Ok(out)
}

/// How an error names a label.
fn name(label: Label) -> String {
    match label.checked_sub(DIMENSIONS).and_then(char::from_u32) {
        Some(letter) => format!("'{letter}'"),
        None => format!("dimension {} from the right of an ellipsis", DIMENSIONS - label),
    }
}

impl Var {
    /// Einstein's notation, as PyTorch's `einsum("bij,bjk->bik", &[a, b])`: letters that are not in the result are
    /// summed over; an ellipsis stands for the dimensions that no letter names; a letter twice in one operand takes its
    /// diagonal; dimensions of extent 1 broadcast. Without an arrow the result has the ellipsis and the letters that
    /// occur once, in alphabetical order. Operands are multiplied from left to right, each pair as one batched product.
    ///
    /// # Errors
    /// An equation that does not describe the operands.
    pub fn einsum(equation: &str, operands: &[&Var]) -> Result<Var> {
        let text: String = equation.chars().filter(|c| !c.is_whitespace()).collect();
        let (left, right) = match text.split_once("->") {
            Some((left, right)) => (left, Some(right)),
            None => (&text[..], None),
        };
        let texts: Vec<&str> = left.split(',').collect();
        if texts.len() != operands.len() {
            return Err(fail(format!("'{equation}' names {} operands, got {}", texts.len(), operands.len())));
        }
        let (mut most, mut terms, mut values) = (0, Vec::new(), Vec::new());
        for (term, operand) in texts.iter().zip(operands) {
            let (rank, letters) = (operand.shape().rank(), labels(term, 0)?.len());
            let dots = if term.contains("...") { rank.checked_sub(letters) } else { (rank == letters).then_some(0) };
            let Some(dots) = dots else {
                return Err(fail(format!("'{term}' names {letters} dimensions of {:?}", operand.shape())));
            };
            most = most.max(dots);
            let (value, labels) = diagonals(operand, labels(term, dots)?)?;
            values.push(value);
            terms.push(labels);
        }
        let result = match right {
            Some(right) => labels(right, if right.contains("...") { most } else { 0 })?,
            None => {
                let count =
                    |l: &Label| texts.iter().flat_map(|t| t.chars()).filter(|c| DIMENSIONS + *c as Label == *l).count();
                let mut all: Vec<Label> =
                    terms.iter().flatten().copied().filter(|l| *l < DIMENSIONS || count(l) == 1).collect();
                all.sort_unstable();
                all.dedup();
                all
            }
        };
        let extents = extents(&terms, &values)?;
        if let Some((_, bad)) =
            result.iter().enumerate().find(|(i, l)| !extents.contains_key(l) || result[..*i].contains(l))
        {
            return Err(fail(format!("{} in the result is unknown or repeated", name(*bad))));
        }
        // What has extent 1 in one operand and more in another is not there: its one element goes with all.
        for (labels, value) in terms.iter_mut().zip(&mut values) {
            for i in (0..labels.len()).rev() {
                if value.shape()[i] == 1 && extents[&labels[i]] != 1 {
                    labels.remove(i);
                    *value = value.squeeze(i as isize)?;
                }
            }
        }
        let (mut labels, mut value) = (terms[0].clone(), values[0].clone());
        for k in 1..terms.len() {
            // Needed later: in the result or in an operand to come.
            let needed = |l: &Label| result.contains(l) || terms[k + 1..].iter().any(|t| t.contains(l));
            (value, labels) = contract(&value, &labels, &values[k], &terms[k], &needed)?;
        }
        let gone: Vec<isize> =
            (0..labels.len()).filter(|&i| !result.contains(&labels[i])).map(|i| i as isize).collect();
        if !gone.is_empty() {
            value = value.sum(&gone, false)?;
            labels.retain(|l| result.contains(l));
        }
        let order: Vec<isize> =
            result.iter().filter_map(|l| labels.iter().position(|m| m == l)).map(|i| i as isize).collect();
        value.permute(&order)
    }
}

/// An operand with each label once: of one that is repeated the diagonal.
fn diagonals(operand: &Var, mut labels: Vec<Label>) -> Result<(Var, Vec<Label>)> {
    let mut value = operand.clone();
    while let Some((first, second)) = repeated(&labels) {
        let n = value.shape()[first];
        if value.shape()[second] != n {
            let message = format!("{} is {n} and {} long in one operand", name(labels[first]), value.shape()[second]);
            return Err(fail(message));
        }
        // Both dimensions last: of the n·n elements every (n + 1)-th is on the diagonal.
        let rest: Vec<usize> = (0..labels.len()).filter(|&i| i != first && i != second).collect();
        let order: Vec<isize> = rest.iter().chain(&[first, second]).map(|&i| i as isize).collect();
        let mut shape: Vec<isize> = rest.iter().map(|&i| value.shape()[i] as isize).collect();
        let label = labels[first];
        labels = rest.iter().map(|&i| labels[i]).chain([label]).collect();
        shape.push((n * n) as isize);
        value = value.permute(&order)?.reshape(&shape)?.slice(-1, 0, (n * n) as isize, n + 1)?;
    }
    Ok((value, labels))
}

fn repeated(labels: &[Label]) -> Option<(usize, usize)> {
    (0..labels.len()).find_map(|i| labels[i + 1..].iter().position(|l| *l == labels[i]).map(|j| (i, i + 1 + j)))
}

/// The extent of every label; 1 broadcasts.
fn extents(terms: &[Vec<Label>], values: &[Var]) -> Result<BTreeMap<Label, usize>> {
    let mut extents = BTreeMap::<Label, usize>::new();
    for (labels, value) in terms.iter().zip(values) {
        for (&label, &extent) in labels.iter().zip(value.shape().iter()) {
            let known = extents.entry(label).or_insert(extent);
            if *known == 1 {
                *known = extent;
            } else if extent != 1 && *known != extent {
                return Err(fail(format!("{} is {known} and {extent} long", name(label))));
            }
        }
    }
    Ok(extents)
}

/// The product of two operands as one batched matrix product `[batch, m, k] @ [batch, k, n]`.
fn contract(
    a: &Var,
    la: &[Label],
    b: &Var,
    lb: &[Label],
    needed: &dyn Fn(&Label) -> bool,
) -> Result<(Var, Vec<Label>)> {
    // Labels of one operand alone that nothing needs are summed first.
    let reduce = |v: &Var, own: &[Label], other: &[Label]| -> Result<(Var, Vec<Label>)> {
        let keep = |l: &Label| other.contains(l) || needed(l);
        let gone: Vec<isize> = (0..own.len()).filter(|&i| !keep(&own[i])).map(|i| i as isize).collect();
        let v = if gone.is_empty() { v.clone() } else { v.sum(&gone, false)? };
        Ok((v, own.iter().copied().filter(keep).collect()))
    };
    let ((a, la), (b, lb)) = (reduce(a, la, lb)?, reduce(b, lb, la)?);
    let batch: Vec<Label> = la.iter().copied().filter(|l| lb.contains(l) && needed(l)).collect();
    let summed: Vec<Label> = la.iter().copied().filter(|l| lb.contains(l) && !needed(l)).collect();
    let rows: Vec<Label> = la.iter().copied().filter(|l| !lb.contains(l)).collect();
    let columns: Vec<Label> = lb.iter().copied().filter(|l| !la.contains(l)).collect();
    let extent = |l: &Label| match la.iter().position(|m| m == l) {
        Some(i) => a.shape()[i],
        None => lb.iter().position(|m| m == l).map_or(1, |i| b.shape()[i]),
    };
    let size = |labels: &[Label]| labels.iter().map(extent).product::<usize>() as isize;
    let arrange = |v: &Var, own: &[Label], groups: [&[Label]; 3]| -> Result<Var> {
        let order: Vec<isize> = groups
            .iter()
            .flat_map(|g| g.iter())
            .filter_map(|l| own.iter().position(|m| m == l))
            .map(|i| i as isize)
            .collect();
        v.permute(&order)?.reshape(&groups.map(size))
    };
    let product =
        arrange(&a, &la, [&batch, &rows, &summed])?.matmul(&arrange(&b, &lb, [&batch, &summed, &columns])?)?;
    let labels: Vec<Label> = batch.iter().chain(&rows).chain(&columns).copied().collect();
    let shape: Vec<isize> = labels.iter().map(|l| extent(l) as isize).collect();
    Ok((product.reshape(&shape)?, labels))
}
