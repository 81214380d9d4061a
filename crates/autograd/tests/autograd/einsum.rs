//! Einstein's notation as PyTorch reads it.

use binade_autograd::{Var, gradcheck, scope};
use binade_cpu as _;
use binade_tensor::{Array, Class};

fn of(shape: &[usize]) -> Array {
    let n: usize = shape.iter().product();
    let values: Vec<f64> = (0..n).map(|i| (i + 1) as f64).collect();
    Array::from_slice(&scope::device().unwrap(), &values, shape, Class::Activations).unwrap()
}

/// The shape and values of an equation over tensors 1, 2, 3, … of these shapes, whose gradient is checked too.
fn einsum(equation: &str, shapes: &[&[usize]]) -> (Vec<usize>, Vec<f64>) {
    let arrays: Vec<Array> = shapes.iter().map(|s| of(s)).collect();
    gradcheck(|v| Var::einsum(equation, &v.iter().collect::<Vec<_>>()), &arrays).unwrap();
    let vars: Vec<Var> = arrays.into_iter().map(Var::constant).collect();
    let y = Var::einsum(equation, &vars.iter().collect::<Vec<_>>()).unwrap();
    (y.shape().to_vec(), y.array().to_f64_vec().unwrap())
}

#[test]
fn dimensions_of_extent_1_broadcast() {
    let (shape, values) = einsum("bij,bjk->bik", &[&[1, 1, 2], &[2, 2, 1]]);
    assert_eq!((shape, values), (vec![2, 1, 1], vec![5.0, 11.0]));
    assert_eq!(einsum("ij,ij->ij", &[&[2, 1], &[1, 3]]).1, [1.0, 2.0, 3.0, 2.0, 4.0, 6.0]);
    assert_eq!(einsum("ij,ij->", &[&[2, 1], &[1, 3]]).1, [18.0]);
}

#[test]
fn a_letter_twice_in_one_operand_is_its_diagonal() {
    assert_eq!(einsum("ii", &[&[3, 3]]).1, [15.0]);
    assert_eq!(einsum("ii->i", &[&[3, 3]]).1, [1.0, 5.0, 9.0]);
    assert_eq!(einsum("bii->b", &[&[2, 2, 2]]).1, [5.0, 13.0]);
    assert_eq!(einsum("iji->j", &[&[2, 3, 2]]).1, [9.0, 13.0, 17.0]);
    assert_eq!(einsum("iii->i", &[&[2, 2, 2]]).1, [1.0, 8.0]);
    assert_eq!(einsum("ii,i->i", &[&[2, 2], &[2]]).1, [1.0, 8.0]);
}

#[test]
fn an_ellipsis_stands_anywhere_for_the_other_dimensions() {
    assert_eq!(einsum("...ij->...ji", &[&[2, 1, 2, 3]]).0, [2, 1, 3, 2]);
    assert_eq!(einsum("i...->...", &[&[2, 3]]), (vec![3], vec![5.0, 7.0, 9.0]));
    assert_eq!(einsum("i...j->...", &[&[2, 3, 1]]), (vec![3], vec![5.0, 7.0, 9.0]));
    assert_eq!(einsum("...ij,...jk->...ik", &[&[3, 1, 2], &[2, 1]]), (vec![3, 1, 1], vec![5.0, 11.0, 17.0]));
    assert_eq!(einsum("...i,...i", &[&[2, 2], &[2, 2]]), (vec![2], vec![5.0, 25.0]));
    assert_eq!(einsum("i...->i", &[&[2, 3]]).1, [6.0, 15.0]);
    assert_eq!(einsum("...,...->...", &[&[2, 1], &[3]]).0, [2, 3]);
}

#[test]
fn without_an_arrow_the_result_is_in_alphabetical_order() {
    assert_eq!(einsum("ba", &[&[2, 3]]), (vec![3, 2], vec![1.0, 4.0, 2.0, 5.0, 3.0, 6.0]));
    assert_eq!(einsum("b...a", &[&[2, 1, 3]]).0, [1, 3, 2]);
    assert_eq!(einsum("aB", &[&[2, 3]]).0, [3, 2]);
}

#[test]
fn equations_that_describe_nothing_are_errors_that_say_why() {
    let x = Var::constant(of(&[2, 3]));
    for (equation, reason) in [
        ("ij,jk->ik", "names 2 operands"),
        ("ijk", "names 3 dimensions"),
        ("ii", "'i' is 2 and 3 long"),
        ("ij->ik", "'k' in the result"),
        ("ij->ii", "'i' in the result"),
        ("...i...", "two ellipses"),
        ("i.j", "not a letter"),
        ("i1", "not a letter"),
        ("i->...i", "names 1 dimensions"),
    ] {
        let error = Var::einsum(equation, &[&x]).unwrap_err().to_string();
        assert!(error.starts_with("einsum") && error.contains(reason), "{equation}: {error}");
    }
}
