//! How many numbers each format has between 1 and 2, and where it ends.

use binade::tensor::format::Format;

fn main() {
    for format in Format::ALL {
        println!(
            "{:>5}: {:>16.0} numbers in [1, 2), largest {:e}",
            format.name,
            1.0 / format.epsilon(),
            format.max_finite()
        );
    }
}
