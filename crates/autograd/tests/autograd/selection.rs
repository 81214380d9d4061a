//! Selection, joining and comparison of integers through `Var`, and what else selects: slices, padding rows, einsum's
//! diagonals.

use binade_autograd::{Conv3d, Rotary, Var, scope};
use binade_cpu as _;
use binade_tensor::op::{Compare, Interpolation, PadMode, Pool, PoolKind};
use binade_tensor::{Array, Class, DType, Element};

const BIG: i64 = (1 << 53) + 1;

fn of<T: Element>(values: &[T], shape: &[usize]) -> Array {
    Array::from_slice(&scope::device().unwrap(), values, shape, Class::Activations).unwrap()
}

fn integers(values: &[i64], shape: &[usize]) -> Var {
    Var::constant(of(values, shape))
}

fn list(v: &Var) -> Vec<i64> {
    v.array().to_vec().unwrap()
}

fn floats(v: &Array) -> Vec<f64> {
    v.to_f64_vec().unwrap()
}

#[test]
fn token_ids_are_joined_selected_padded_and_sorted() {
    let x = integers(&[5, BIG, 7, BIG + 1], &[2, 2]);
    assert_eq!(list(&Var::stack(&[&x, &x], 0).unwrap()), [5, BIG, 7, BIG + 1, 5, BIG, 7, BIG + 1]);
    assert_eq!(list(&x.index_select(1, &integers(&[1], &[1])).unwrap()), [BIG, BIG + 1]);
    assert_eq!(list(&x.pad(&[0, 1], PadMode::Constant(-1.0)).unwrap()), [5, BIG, -1, 7, BIG + 1, -1]);
    assert_eq!(list(&x.flip(&[0]).unwrap()), [7, BIG + 1, 5, BIG]);
    let mask = x.compare_scalar(Compare::Gt, 6.5).unwrap();
    assert_eq!(list(&x.where_(&mask, &integers(&[0], &[])).unwrap()), [0, BIG, 7, BIG + 1]);
    assert_eq!(list(&x.masked_select(&mask).unwrap()), [BIG, 7, BIG + 1]);
    assert_eq!(list(&x.sort(1, true).unwrap().0), [BIG, 5, BIG + 1, 7]);
    assert_eq!(list(&x.index(&[&integers(&[-1], &[1])]).unwrap()), [7, BIG + 1]);
    assert_eq!(list(&x.argmin(0, false).unwrap()), [0, 0]);
    assert_eq!(x.pad(&[1, 0], PadMode::Replicate).unwrap().dtype(), DType::I64);
}

#[test]
fn of_equal_indices_only_the_one_that_won_has_a_gradient() {
    let (x, src) = (Var::leaf(of(&[1.0f32, 2.0], &[2])), Var::leaf(of(&[3.0f32, 4.0, 5.0], &[3])));
    let y = x.scatter(0, &integers(&[1, 0, 1], &[3]), &src).unwrap();
    assert_eq!(floats(y.array()), [4.0, 5.0]);
    let weights = Var::constant(of(&[10.0f32, 100.0], &[2]));
    let grads = y.mul(&weights).unwrap().sum(&[], false).unwrap().backward().unwrap();
    assert_eq!(floats(grads.get(&src).unwrap()), [0.0, 10.0, 100.0]);
    assert_eq!(floats(grads.get(&x).unwrap()), [0.0, 0.0]);
}

#[test]
fn slices_have_steps_and_negative_ends() {
    let x = Var::leaf(of(&[0.0f32, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0], &[7]));
    let slice = |start, end, step| floats(x.slice(0, start, end, step).unwrap().array());
    assert_eq!(slice(0, 7, 3), [0.0, 3.0, 6.0]);
    assert_eq!(slice(1, -1, 2), [1.0, 3.0, 5.0]);
    assert_eq!(slice(-3, 99, 1), [4.0, 5.0, 6.0]);
    assert_eq!(slice(5, 2, 2), [0.0; 0]);
    assert!(x.slice(0, 0, 7, 0).is_err());
    let grads = x.slice(0, 1, 7, 3).unwrap().sum(&[], false).unwrap().backward().unwrap();
    assert_eq!(floats(grads.get(&x).unwrap()), [0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0]);
}

#[test]
fn a_padding_row_is_read_and_gets_no_gradient() {
    let table = Var::leaf(of(&[1.0f32, 2.0, 3.0], &[3, 1]));
    let y = table.embedding_padded(&integers(&[1, 2, 1, 0], &[4]), 1).unwrap();
    assert_eq!(floats(y.array()), [2.0, 3.0, 2.0, 1.0]);
    let grads = y.sum(&[], false).unwrap().backward().unwrap();
    assert_eq!(floats(grads.get(&table).unwrap()), [1.0, 0.0, 1.0]);
    assert!(table.embedding_padded(&integers(&[0], &[1]), 3).is_err());
}

#[test]
fn the_nearest_centre_and_an_own_divisor() {
    let x = Var::constant(of(&[0.0f32, 1.0, 2.0, 3.0, 4.0], &[1, 1, 5]));
    let nearest = |mode| floats(x.interpolate(&[3], mode).unwrap().array());
    // As PyTorch: ⌊i·5/3⌋ and ⌊(i + ½)·5/3⌋.
    assert_eq!(nearest(Interpolation::Nearest), [0.0, 1.0, 3.0]);
    assert_eq!(nearest(Interpolation::NearestExact), [0.0, 2.0, 4.0]);
    let image = Var::constant(of(&[1.0f32, 2.0, 3.0, 4.0], &[1, 1, 2, 2]));
    let windows = Pool::new(PoolKind::Avg, [2, 2], [2, 2], [1, 1]);
    let pool = Pool { divisor: std::num::NonZeroUsize::new(3), ..windows };
    let y = binade_autograd::apply(binade_tensor::Op::Pool(pool), &[&image]).unwrap();
    assert_eq!(y.array().to_vec::<f32>().unwrap(), [1.0 / 3.0, 2.0 / 3.0, 1.0, 4.0 / 3.0]);
}

#[test]
fn adaptive_pooling_to_nothing_is_empty() {
    let x = Var::leaf(of(&[1.0f32; 6], &[1, 2, 3]));
    for y in [x.adaptive_avg_pool(&[0]).unwrap(), x.adaptive_max_pool(&[0]).unwrap()] {
        assert_eq!(y.shape().to_vec(), [1, 2, 0]);
        let grads = y.sum(&[], false).unwrap().backward().unwrap();
        assert_eq!(floats(grads.get(&x).unwrap()), [0.0; 6]);
    }
}

#[test]
fn the_first_of_equal_elements_of_an_adaptive_window_gets_its_gradient() {
    let x = Var::leaf(of(&[1.0f32; 5], &[1, 1, 5]));
    let y = x.adaptive_max_pool(&[3]).unwrap();
    let grads = y.sum(&[], false).unwrap().backward().unwrap();
    assert_eq!(floats(grads.get(&x).unwrap()), [1.0, 1.0, 0.0, 1.0, 0.0]);
    // In row-major order: of the upper right and the lower left corner the upper one.
    let corners = Var::leaf(of(&[0.0f32, 1.0, 1.0, 0.0], &[1, 1, 2, 2]));
    let grads = corners.adaptive_max_pool(&[1, 1]).unwrap().sum(&[], false).unwrap().backward().unwrap();
    assert_eq!(floats(grads.get(&corners).unwrap()), [0.0, 1.0, 0.0, 0.0]);
}

#[test]
fn indices_classes_and_masks_have_dtypes_of_their_own() {
    let x = Var::constant(of(&[1.0f32, 2.0], &[2]));
    let (floats, bools) = (Var::constant(of(&[0.9f32, 0.0], &[2])), Var::constant(of(&[true, false], &[2])));
    assert!(x.index(&[&floats]).is_err() && x.index(&[&bools]).is_err());
    assert!(x.index_put(&[&floats], &x, false).is_err());
    assert!(x.masked_select(&floats).is_err() && x.masked_select(&integers(&[1, 0], &[2])).is_err());
    assert!(floats.one_hot(2).is_err());
    assert_eq!(self::floats(x.masked_select(&bools).unwrap().array()), [1.0]);
}

#[test]
fn integers_beyond_those_of_f64_are_ignored_and_drawn_as_they_are() {
    let x = Var::constant(of(&[-1.0f32, -2.0, -3.0, -4.0], &[2, 2]));
    let loss = |target: i64| x.nll_loss(&integers(&[target, 1], &[2]), None, BIG, binade_tensor::op::Reduction::Mean);
    assert_eq!(loss(BIG).unwrap().item().unwrap(), 4.0);
    assert!(loss(BIG - 1).is_err() && loss(BIG + 1).is_err());
    for low in [BIG, -BIG, i64::MIN, i64::MAX - 3] {
        let drawn = list(&Var::randint(low, low + 3, &[64]).unwrap());
        assert!(drawn.iter().all(|v| (low..low + 3).contains(v)), "{low}: {drawn:?}");
        assert!((low..low + 3).all(|v| drawn.contains(&v)), "{low}: {drawn:?}");
    }
}

#[test]
fn counts_that_overflow_are_errors_or_all_that_there_is() {
    let x = Var::constant(of(&[1.0f32; 6], &[2, 3]));
    for n in [isize::MIN, isize::MIN + 1] {
        assert!(x.pad(&[n, n], PadMode::Constant(0.0)).is_err() && x.pad(&[-1, n], PadMode::Constant(0.0)).is_err());
        assert_eq!(floats(x.triu(n).unwrap().array()), [1.0; 6]);
        assert_eq!(floats(x.tril(n).unwrap().array()), [0.0; 6]);
    }
    assert_eq!(floats(x.tril(isize::MAX).unwrap().array()), [1.0; 6]);
    assert_eq!(floats(x.triu(isize::MAX).unwrap().array()), [0.0; 6]);
    let (volume, weight) =
        (Var::constant(of(&[1.0f32; 8], &[1, 1, 2, 2, 2])), Var::constant(of(&[1.0f32; 8], &[1, 1, 2, 2, 2])));
    let (image, columns) =
        (Var::constant(of(&[1.0f32; 4], &[1, 1, 2, 2])), Var::constant(of(&[1.0f32; 4], &[1, 4, 1])));
    for n in [1 << 61, 1 << 62, usize::MAX / 2 - 8] {
        assert!(image.adaptive_max_pool(&[n, 1]).is_err() && image.adaptive_max_pool(&[n, n]).is_err());
        let far = binade_tensor::op::Conv2d { padding: [n, 1], ..binade_tensor::op::Conv2d::default() };
        assert!(columns.fold([4, 4], [2, 2], far).is_err() && image.unfold([2, 2], far).is_err());
    }
    for n in [usize::MAX, usize::MAX / 2 + 1] {
        let deep = |conv: Conv3d| volume.conv3d(&weight, None, conv);
        assert!(deep(Conv3d { padding: [n, 0, 0], ..Conv3d::default() }).is_err());
        assert!(deep(Conv3d { dilation: [n, 1, 1], ..Conv3d::default() }).is_err());
        assert!(columns.fold([2, 2], [n, n], binade_tensor::op::Conv2d::default()).is_err());
        let turned = x.reshape(&[3, 2]).unwrap().rotary(n, 1e4, Rotary::Halves).unwrap();
        assert!(floats(turned.array()).iter().all(|v| v.is_finite()));
    }
}
