//! Strategies: shapes with extents 0 and 1, layouts that are not row-major, values at the edges of a format.

use proptest::prelude::*;

use crate::format::Format;
use crate::samples::laid_out;
use crate::{Array, Class, DType, Device, Layout, Shape};

/// Shapes of rank 0 to `rank`, extents 0 to `extent`; 0 and 1 often.
pub fn shapes(rank: usize, extent: usize) -> impl Strategy<Value = Vec<usize>> {
    let one = prop_oneof![1 => Just(0), 2 => Just(1), 8 => 1..=extent.max(1)];
    prop::collection::vec(one, 0..=rank.min(crate::MAX_RANK))
}

/// Values of a dtype as f64: ordinary ones mostly; zeros of both signs, infinities, NaN, subnormals, the largest and
/// the smallest numbers and their neighbours.
pub fn values(dtype: DType) -> impl Strategy<Value = f64> + Clone {
    let format = dtype.format().unwrap_or(Format::F32);
    let (max, normal, subnormal) = (format.max_finite(), format.min_normal(), format.min_subnormal());
    let specials = vec![
        0.0,
        -0.0,
        1.0,
        -1.0,
        f64::INFINITY,
        f64::NEG_INFINITY,
        f64::NAN,
        max,
        -max,
        normal,
        subnormal,
        -subnormal,
    ];
    prop_oneof![
        8 => -4.0..4.0f64,
        2 => (-1.0..1.0f64, -8..8i32).prop_map(|(m, e)| m * 10f64.powi(e)),
        2 => prop::sample::select(specials),
        // Subnormals, and where overflow begins.
        1 => (0.0..2.0f64).prop_map(move |t| t * normal),
        1 => (0.5..1.0f64).prop_map(move |t| t * max),
    ]
    .prop_map(move |v| if v.is_finite() { format.round(v) } else { v })
    // Rounding may have reached infinity; that is a value as well.
}

/// A permutation of the memory order, and a gap after each row.
pub fn layouts(shape: &[usize]) -> impl Strategy<Value = Layout> + use<> {
    let shape = Shape::from_slice(shape);
    let order: Vec<usize> = (0..shape.rank()).collect();
    (Just(order).prop_shuffle(), 0..3usize).prop_map(move |(order, gap)| {
        let mut wide = shape;
        if let Some(&last) = order.last() {
            wide[last] += gap;
        }
        Layout { shape, strides: Layout::with_order(wide, &order).strides, offset: 0 }
    })
}

/// A tensor on the CPU of any layout, with any values of its dtype.
pub fn array(dtype: DType, shapes: impl Strategy<Value = Vec<usize>>) -> impl Strategy<Value = Array> {
    array_of(dtype, shapes, values(dtype))
}

/// As [`array()`], with given values.
pub fn array_of(
    dtype: DType,
    shapes: impl Strategy<Value = Vec<usize>>,
    values: impl Strategy<Value = f64> + Clone,
) -> impl Strategy<Value = Array> {
    shapes
        .prop_flat_map(move |shape| {
            let n: usize = shape.iter().product();
            (layouts(&shape), prop::collection::vec(values.clone(), n))
        })
        .prop_filter_map("out of memory", move |(layout, values)| with_layout(dtype, layout, &values))
}

/// The values in row-major order, laid out in memory as asked.
fn with_layout(dtype: DType, layout: Layout, values: &[f64]) -> Option<Array> {
    let device = Device::cpu();
    let dense = Array::from_slice(&device, values, &layout.shape, Class::Activations)
        .ok()?
        .cast(dtype, Class::Activations)
        .ok()?;
    let bytes = device.download(&dense).ok()?;
    laid_out(&device, dtype, layout, &bytes).ok()
}
