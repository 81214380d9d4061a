//! Curves of the page: what is drawn, thinned to what can be seen.

use serde::Serialize;

/// A curve has two points at most of each of so many parts: several for each pixel of a screen.
const PARTS: usize = 2000;

/// A chart, as the page's script reads it.
#[derive(Serialize)]
pub struct Chart {
    /// Of its element.
    pub id: &'static str,
    #[serde(skip)]
    pub title: &'static str,
    /// What the horizontal axis counts.
    pub x: &'static str,
    /// What follows a value.
    pub unit: &'static str,
    /// Base of the logarithms.
    pub base: u32,
    /// Whether it is logarithmic at first.
    #[serde(skip)]
    pub logarithmic: bool,
    pub smooth: bool,
    pub stepped: bool,
    pub curves: Vec<Curve>,
}

/// A curve of a chart.
#[derive(Serialize)]
pub struct Curve {
    /// Its series: a precision of a run.
    pub of: usize,
    pub x: Vec<u64>,
    pub y: Vec<f64>,
    /// Middles and means of the parts, of a curve that is thinned: what is smoothed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub means: Option<(Vec<f64>, Vec<f64>)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub marks: Option<Marks>,
    #[serde(skip)]
    pub told: Option<Told>,
}

/// Points with a reason.
#[derive(Default, Serialize)]
pub struct Marks {
    pub x: Vec<u64>,
    pub y: Vec<f64>,
    pub why: Vec<String>,
}

/// A curve in a few numbers, each beside its place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Told {
    pub first: (u64, f64),
    pub lowest: (u64, f64),
    pub highest: (u64, f64),
    pub last: (u64, f64),
}

impl Curve {
    /// Of finite points with rising places. Of each part of the width it keeps the least and the largest, so that no
    /// peak is lost, and the curve's first and last: all of them as they are, to seven digits.
    pub fn new(of: usize, points: &[(u64, f64)]) -> Curve {
        let (kept, means) = thin(points);
        let seven = |y: f64| format!("{y:.6e}").parse().unwrap_or(y);
        let (x, y) = kept.iter().map(|&(x, y)| (x, seven(y))).unzip();
        let means = means.map(|means| means.into_iter().map(|(x, y)| (x, seven(y))).unzip());
        Curve { of, x, y, means, marks: None, told: Told::of(points) }
    }
}

impl Told {
    fn of(points: &[(u64, f64)]) -> Option<Told> {
        let by = |a: &&(u64, f64), b: &&(u64, f64)| a.1.total_cmp(&b.1);
        Some(Told {
            first: *points.first()?,
            lowest: *points.iter().min_by(by)?,
            highest: *points.iter().rev().max_by(by)?,
            last: *points.last()?,
        })
    }
}

type Means = Vec<(f64, f64)>;

fn thin(points: &[(u64, f64)]) -> (Vec<(u64, f64)>, Option<Means>) {
    let (Some(first), Some(last)) = (points.first(), points.last()) else { return (Vec::new(), None) };
    if points.len() <= 2 * PARTS {
        return (points.to_vec(), None);
    }
    let width = (last.0 - first.0 + 1) as f64 / PARTS as f64;
    let part = |point: &(u64, f64)| ((point.0 - first.0) as f64 / width) as usize;
    let (mut kept, mut means) = (vec![*first], Vec::new());
    for part in points.chunk_by(|a, b| part(a) == part(b)) {
        let Some(Told { lowest, highest, .. }) = Told::of(part) else { continue };
        let (before, after) = if lowest.0 <= highest.0 { (lowest, highest) } else { (highest, lowest) };
        for point in [before, after] {
            // What stays the same needs no more points.
            if kept.last().is_some_and(|kept| kept.0 < point.0) {
                kept.push(point);
            }
        }
        let n = part.len() as f64;
        means.push((part.iter().map(|p| p.0 as f64 / n).sum(), part.iter().map(|p| p.1 / n).sum()));
    }
    if kept.last() != Some(last) {
        kept.push(*last);
    }
    (kept, Some(means))
}

/// A number for people, in four digits at least.
pub fn short(y: f64) -> String {
    let size = y.abs();
    if size != 0.0 && !(1e-4..1e7).contains(&size) {
        return format!("{y:.3e}");
    }
    let place = if size == 0.0 { 0.0 } else { size.log10().floor() };
    let text = format!("{y:.0$}", (3.0 - place).clamp(0.0, 7.0) as usize);
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').into() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thinned_curve_has_the_ends_and_every_peak_as_they_were() {
        let points: Vec<(u64, f64)> = (0..100_000)
            .map(|x| {
                (
                    x,
                    if x == 54_321 {
                        7.0
                    } else if x == 54_322 {
                        -7.0
                    } else {
                        (x as f64 * 0.01).sin()
                    },
                )
            })
            .collect();
        let curve = Curve::new(0, &points);
        assert!(curve.x.len() <= 2 * PARTS + 2 && curve.x.is_sorted_by(|a, b| a < b), "{}", curve.x.len());
        let at = |x: u64| curve.x.iter().position(|&kept| kept == x).map(|i| curve.y[i]);
        assert_eq!((at(0), at(54_321), at(54_322)), (Some(0.0), Some(7.0), Some(-7.0)));
        assert!(curve.x.iter().zip(&curve.y).all(|(&x, y)| (points[x as usize].1 - y).abs() < 1e-6));
        assert_eq!(curve.x.last(), Some(&99_999));
        let (_, means) = curve.means.unwrap();
        assert!(means.len() == PARTS && means[0] < 0.5 && means.iter().all(|mean| mean.abs() <= 1.0));
    }

    #[test]
    fn short_curves_are_whole_and_empty_ones_are_none() {
        let curve = Curve::new(3, &[(0, 1.0), (7, 0.25)]);
        assert_eq!((curve.x, curve.y, curve.means), (vec![0, 7], vec![1.0, 0.25], None));
        let told = Told { first: (0, 1.0), lowest: (7, 0.25), highest: (0, 1.0), last: (7, 0.25) };
        assert_eq!(curve.told, Some(told));
        assert!(Curve::new(0, &[]).x.is_empty());
    }

    #[test]
    fn numbers_are_short() {
        let all = [0.0, 0.12345678, 2.5, 1234.5678, 65536.0, 1e-7, -3e9].map(short);
        assert_eq!(all, ["0", "0.1235", "2.5", "1235", "65536", "1.000e-7", "-3.000e9"]);
    }
}
