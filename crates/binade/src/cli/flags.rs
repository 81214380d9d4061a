//! Values of flags. A number out of range is refused for its value: flags take negative numbers for values, not for
//! other flags.

use std::str::FromStr;

/// A whole number from 1.
pub fn positive<T: FromStr + PartialOrd + Default>(text: &str) -> Result<T, String> {
    text.parse().ok().filter(|n| *n > T::default()).ok_or_else(|| "expected a whole number of at least 1".into())
}

/// A whole number from 0.
pub fn whole(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| "expected a whole number of at least 0".into())
}

/// A finite number above 0. Its flag takes all that begins with a hyphen: `-1e-3` and `-inf` are no numbers to Clap.
pub fn above_zero(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|n: &f64| *n > 0.0 && n.is_finite());
    number.ok_or_else(|| "expected a finite number above 0".into())
}

/// A probability of something that must not be certain.
pub fn probability(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|n: &f64| (0.0..1.0).contains(n));
    number.ok_or_else(|| "expected a number from 0, and below 1".into())
}

/// A part of something, from none to all of it.
pub fn part(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|n: &f64| (0.0..=1.0).contains(n));
    number.ok_or_else(|| "expected a number from 0 to 1".into())
}

/// A finite number from 0.
pub fn at_least_zero(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|n: &f64| *n >= 0.0 && n.is_finite());
    number.ok_or_else(|| "expected a finite number of at least 0".into())
}
