//! Products beyond matmul, joining and splitting.

use binade_tensor::op::Epilogue;
use binade_tensor::{DType, Error as TensorError, Op};

use crate::{Result, Var, apply};

/// Products of vectors and matrices, and Einstein's notation over them.
impl Var {
    /// `Σ a·b` of two vectors, accumulated in f32.
    ///
    /// # Errors
    /// Not two vectors of one length.
    pub fn dot(&self, other: &Var) -> Result<Var> {
        if self.shape().rank() != 1 || self.shape() != other.shape() {
            let expected = "expected two vectors of one length".into();
            return Err(TensorError::Shape { op: "dot", expected, shapes: vec![*self.shape(), *other.shape()] }.into());
        }
        self.matmul(other)
    }

    /// `a[i]·b[j]` of two vectors.
    ///
    /// # Errors
    /// Not two vectors.
    pub fn outer(&self, other: &Var) -> Result<Var> {
        if self.shape().rank() != 1 || other.shape().rank() != 1 {
            let expected = "expected two vectors".into();
            return Err(TensorError::Shape { op: "outer", expected, shapes: vec![*self.shape(), *other.shape()] }.into());
        }
        self.unsqueeze(1)?.mul(&other.unsqueeze(0)?)
    }

    /// Batched product of `[B, m, k]` and `[B, k, n]`.
    ///
    /// # Errors
    /// Not three dimensions each, or extents that do not fit.
    pub fn bmm(&self, other: &Var) -> Result<Var> {
        if self.shape().rank() != 3 || other.shape().rank() != 3 || self.shape()[0] != other.shape()[0] {
            let expected = "expected [B, m, k] and [B, k, n]".into();
            return Err(TensorError::Shape { op: "bmm", expected, shapes: vec![*self.shape(), *other.shape()] }.into());
        }
        self.matmul(other)
    }

    /// `self + a @ b` with self a vector `[n]` or anything that broadcasts to `[m, n]`.
    ///
    /// # Errors
    /// Shapes do not fit.
    pub fn addmm(&self, a: &Var, b: &Var) -> Result<Var> {
        if self.shape().rank() == 1 {
            return apply(Op::MatMul(Epilogue { bias: true, act: None }), &[a, b, self]);
        }
        let product = a.matmul(b)?;
        // One operator as far as autocast is concerned: all three operands are narrowed.
        let narrow = crate::scope::rule().is_some() && product.dtype().is_half() && self.dtype() == DType::F32;
        product.add(&if narrow { self.cast(product.dtype())? } else { self.clone() })
    }

    /// Einstein's notation, as `einsum("bij,bjk->bik", &[a, b])`: letters that are not in the result are summed over. Operands
    /// are multiplied from left to right, each pair as one batched product. An ellipsis and a letter twice in one operand are
    /// not supported.
    ///
    /// # Errors
    /// An equation that does not describe the operands.
    pub fn einsum(equation: &str, operands: &[&Var]) -> Result<Var> {
        let fail = |message: String| TensorError::Argument { op: "einsum", message };
        let text: String = equation.chars().filter(|c| !c.is_whitespace()).collect();
        let (left, right) = match text.split_once("->") {
            Some((left, right)) => (left.to_string(), Some(right.to_string())),
            None => (text.clone(), None),
        };
        let terms: Vec<Vec<char>> = left.split(',').map(|t| t.chars().collect()).collect();
        if terms.len() != operands.len() {
            return Err(fail(format!("'{equation}' names {} operands, got {}", terms.len(), operands.len())).into());
        }
        let mut extents = std::collections::BTreeMap::<char, usize>::new();
        for (term, operand) in terms.iter().zip(operands) {
            if term.len() != operand.shape().rank() {
                let term: String = term.iter().collect();
                return Err(fail(format!("'{term}' names {} dimensions of {:?}", term.chars().count(), operand.shape())).into());
            }
            for (i, (&letter, &extent)) in term.iter().zip(operand.shape().iter()).enumerate() {
                if !letter.is_ascii_alphabetic() {
                    return Err(fail(format!("'{letter}' is not a letter a to z or A to Z")).into());
                }
                if term[..i].contains(&letter) {
                    return Err(fail(format!("'{letter}' stands twice in one operand; take its diagonal first")).into());
                }
                if *extents.entry(letter).or_insert(extent) != extent {
                    return Err(fail(format!("'{letter}' is {} and {extent} long", extents[&letter])).into());
                }
            }
        }
        let result: Vec<char> = match right {
            Some(right) => right.chars().collect(),
            // Without an arrow: the letters that occur once, in alphabetical order.
            None => {
                let once = |l: &&char| terms.iter().flatten().filter(|m| m == l).count() == 1;
                extents.keys().filter(once).copied().collect()
            }
        };
        if let Some(bad) = result.iter().enumerate().find(|(i, l)| !extents.contains_key(l) || result[..*i].contains(l)) {
            return Err(fail(format!("'{}' in the result is unknown or repeated", bad.1)).into());
        }
        let mut letters = terms[0].clone();
        let mut value = operands[0].clone();
        for k in 1..terms.len() {
            // Needed later: in the result or in an operand to come.
            let needed = |l: &char| result.contains(l) || terms[k + 1..].iter().any(|t| t.contains(l));
            (value, letters) = contract(&value, &letters, operands[k], &terms[k], &needed)?;
        }
        let gone: Vec<isize> = (0..letters.len()).filter(|&i| !result.contains(&letters[i])).map(|i| i as isize).collect();
        if !gone.is_empty() {
            value = value.sum(&gone, false)?;
            letters.retain(|l| result.contains(l));
        }
        let order: Vec<isize> = result.iter().filter_map(|l| letters.iter().position(|m| m == l)).map(|i| i as isize).collect();
        value.permute(&order)
    }
}

/// The product of two operands as one batched matrix product `[batch, m, k] @ [batch, k, n]`.
fn contract(a: &Var, la: &[char], b: &Var, lb: &[char], needed: &dyn Fn(&char) -> bool) -> Result<(Var, Vec<char>)> {
    // Letters of one operand alone that nothing needs are summed first.
    let reduce = |v: &Var, own: &[char], other: &[char]| -> Result<(Var, Vec<char>)> {
        let keep = |l: &char| other.contains(l) || needed(l);
        let gone: Vec<isize> = (0..own.len()).filter(|&i| !keep(&own[i])).map(|i| i as isize).collect();
        let v = if gone.is_empty() { v.clone() } else { v.sum(&gone, false)? };
        Ok((v, own.iter().copied().filter(keep).collect()))
    };
    let ((a, la), (b, lb)) = (reduce(a, la, lb)?, reduce(b, lb, la)?);
    let batch: Vec<char> = la.iter().copied().filter(|l| lb.contains(l) && needed(l)).collect();
    let summed: Vec<char> = la.iter().copied().filter(|l| lb.contains(l) && !needed(l)).collect();
    let rows: Vec<char> = la.iter().copied().filter(|l| !lb.contains(l)).collect();
    let columns: Vec<char> = lb.iter().copied().filter(|l| !la.contains(l)).collect();
    let extent = |l: &char| match la.iter().position(|m| m == l) {
        Some(i) => a.shape()[i],
        None => lb.iter().position(|m| m == l).map_or(1, |i| b.shape()[i]),
    };
    let size = |letters: &[char]| letters.iter().map(extent).product::<usize>() as isize;
    let arrange = |v: &Var, own: &[char], groups: [&[char]; 3]| -> Result<Var> {
        let order: Vec<isize> =
            groups.iter().flat_map(|g| g.iter()).filter_map(|l| own.iter().position(|m| m == l)).map(|i| i as isize).collect();
        v.permute(&order)?.reshape(&groups.map(size))
    };
    let product = arrange(&a, &la, [&batch, &rows, &summed])?.matmul(&arrange(&b, &lb, [&batch, &summed, &columns])?)?;
    let letters: Vec<char> = batch.iter().chain(&rows).chain(&columns).copied().collect();
    let shape: Vec<isize> = letters.iter().map(|l| extent(l) as isize).collect();
    Ok((product.reshape(&shape)?, letters))
}

/// Joining and splitting.
impl Var {
    /// Tensors of one shape along a new dimension.
    ///
    /// # Errors
    /// No tensors, or shapes that differ; the dimension is out of range.
    pub fn stack(tensors: &[&Var], dim: isize) -> Result<Var> {
        let Some(first) = tensors.first() else {
            return Err(TensorError::Argument { op: "stack", message: "at least one tensor is needed".into() }.into());
        };
        let rank = first.shape().rank() as isize + 1;
        if !(-rank..rank).contains(&dim) {
            return Err(TensorError::DimOutOfRange { op: "stack", dim, rank: rank as usize }.into());
        }
        let at = dim.rem_euclid(rank);
        let parts = tensors.iter().map(|t| t.unsqueeze(at as usize)).collect::<Result<Vec<_>>>()?;
        Var::cat(&parts.iter().collect::<Vec<_>>(), at)
    }

    /// Views of `sizes` consecutive elements of a dimension.
    ///
    /// # Errors
    /// The sizes do not add up to the extent.
    pub fn split(&self, sizes: &[usize], dim: isize) -> Result<Vec<Var>> {
        let at = self.shape().dim("split", dim)?;
        let n = self.shape().get(at).copied().unwrap_or(1);
        if sizes.iter().sum::<usize>() != n {
            let message = format!("sizes {sizes:?} do not add up to the extent {n}");
            return Err(TensorError::Argument { op: "split", message }.into());
        }
        let mut start = 0;
        sizes
            .iter()
            .map(|&size| {
                let part = self.narrow(dim, start, size);
                start += size;
                part
            })
            .collect()
    }

    /// `count` views of a dimension, each of ⌈n/count⌉ elements but the last; fewer where that fills the dimension sooner.
    ///
    /// # Errors
    /// `count` is 0; the dimension is out of range.
    pub fn chunk(&self, count: usize, dim: isize) -> Result<Vec<Var>> {
        let at = self.shape().dim("chunk", dim)?;
        let n = self.shape().get(at).copied().unwrap_or(1);
        if count == 0 {
            return Err(TensorError::Argument { op: "chunk", message: "count must be at least 1".into() }.into());
        }
        let size = n.div_ceil(count).max(1);
        let sizes: Vec<usize> = (0..n.div_ceil(size).max(1)).map(|i| size.min(n - i * size)).collect();
        self.split(&sizes, dim)
    }

    /// The tensor repeated `times` along each dimension (more counts than dimensions add leading ones).
    ///
    /// # Errors
    /// Fewer counts than dimensions.
    pub fn repeat(&self, times: &[usize]) -> Result<Var> {
        let rank = self.shape().rank();
        if times.len() < rank {
            let message = format!("takes a count for each of {rank} dimensions, got {times:?}");
            return Err(TensorError::Argument { op: "repeat", message }.into());
        }
        // Each dimension as [times, extent], the first broadcast. One at a time: ranks stay small.
        let mut x = self.clone();
        for _ in rank..times.len() {
            x = x.unsqueeze(0)?;
        }
        for (d, &n) in times.iter().enumerate() {
            if n == 1 {
                continue;
            }
            let mut wide = x.shape().to_vec();
            wide.insert(d, n);
            let mut shape: Vec<isize> = x.shape().iter().map(|&d| d as isize).collect();
            shape[d] *= n as isize;
            x = x.unsqueeze(d)?.expand(&wide)?.reshape(&shape)?;
        }
        Ok(x)
    }
}
