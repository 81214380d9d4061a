//! Cross-entropy.

use super::definition::{Definition, check_index, each};
use super::loss::loss_result;
use super::softmax::softmax;
use super::{Dense, unflatten};
use crate::Result;
use crate::op::{CrossEntropy, CrossEntropyBackward, Reduction};

impl Definition for CrossEntropy {
    fn evaluate(&self, x: &[Dense], shapes: &[Vec<usize>]) -> Result<Vec<Dense>> {
        let (loss, shape) = (self, &shapes[0]);
        let log_p = softmax(&x[0], 1, true);
        let classes = x[0].shape[1];
        check_index("cross_entropy", &x[1], classes, "classes", Some(loss.ignore_index))?;
        let (mut total, mut count) = (Vec::new(), 0.0);
        for flat in 0..x[1].v.len() {
            let target = x[1].v[flat] as i64;
            if target == loss.ignore_index {
                total.push(0.0);
                continue;
            }
            let mut index = unflatten(flat, &x[1].shape);
            index.insert(1, 0);
            let mut at = |c: usize| {
                index[1] = c;
                -log_p.at(&index)
            };
            let mean = (0..classes).map(&mut at).sum::<f64>() / classes as f64;
            total.push(
                (1.0 - loss.smoothing) * at(target as usize)
                    + loss.smoothing * if loss.smoothing > 0.0 { mean } else { 0.0 },
            );
            count += 1.0;
        }
        Ok(vec![loss_result(loss.reduction, total, count, shape)])
    }
}

impl Definition for CrossEntropyBackward {
    fn evaluate(&self, x: &[Dense], shapes: &[Vec<usize>]) -> Result<Vec<Dense>> {
        let (loss, g, shape) = (&self.0, &x[0], &shapes[0]);
        check_index("cross_entropy", &x[2], shape[1], "classes", Some(loss.ignore_index))?;
        let p = softmax(&x[1], 1, false);
        let classes = shape[1] as f64;
        let counted = x[2].v.iter().filter(|t| **t as i64 != loss.ignore_index).count() as f64;
        Ok(vec![each(shapes, &|i| {
            let row: Vec<usize> = i.iter().enumerate().filter(|(d, _)| *d != 1).map(|(_, &v)| v).collect();
            let target = x[2].at(&row) as i64;
            if target == loss.ignore_index {
                return 0.0;
            }
            let wanted = (1.0 - loss.smoothing) * (target == i[1] as i64) as u8 as f64 + loss.smoothing / classes;
            let up = match loss.reduction {
                Reduction::None => g.at(&row),
                Reduction::Sum => g.v[0],
                Reduction::Mean => g.v[0] / counted,
            };
            up * (p.at(i) - wanted)
        })])
    }
}
