//! Counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
//!
//! A number depends on (seed, iteration, operator, element) alone, so any number of threads and any device draw the
//! same.

/// Where a random operator draws from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Key {
    /// Seed of the run.
    pub seed: u64,
    /// Training iteration (or any stream number).
    pub iteration: u64,
    /// Number of the random operator within the iteration.
    pub op: u32,
}

impl Key {
    /// The key of stream `iteration` of `seed`, operator 0.
    pub fn new(seed: u64, iteration: u64) -> Key {
        Key { seed, iteration, op: 0 }
    }

    /// The key of the same place in a stream of another purpose: what is drawn there has nothing to do with what is
    /// drawn here.
    pub fn stream(self, purpose: &str) -> Key {
        // Each step, and so the whole, is a bijection of the seed: seeds that differ stay different.
        let name = |h: u64, b: u8| (h ^ b as u64).wrapping_mul(0x0000_0100_0000_01B3);
        let mixed = purpose.bytes().fold(self.seed ^ 0xCBF2_9CE4_8422_2325, name);
        let mixed = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        Key { seed: mixed ^ mixed >> 31, ..self }
    }

    /// The four words of block `block`: elements `4·block` to `4·block + 3`.
    #[inline]
    pub fn block(self, block: u32) -> [u32; 4] {
        philox4x32_10(
            [block, self.op, self.iteration as u32, (self.iteration >> 32) as u32],
            [self.seed as u32, (self.seed >> 32) as u32],
        )
    }

    /// 32 random bits for one element.
    #[inline]
    pub fn bits(self, element: usize) -> u32 {
        self.block((element / 4) as u32)[element % 4]
    }
}

/// The block cipher itself: 10 rounds of two 32×32→64 multiplications.
#[inline]
pub fn philox4x32_10(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for round in 0..10 {
        if round > 0 {
            key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
        }
        let a = 0xD251_1F53u64 * counter[0] as u64;
        let b = 0xCD9E_8D57u64 * counter[2] as u64;
        counter = [(b >> 32) as u32 ^ counter[1] ^ key[0], b as u32, (a >> 32) as u32 ^ counter[3] ^ key[1], a as u32];
    }
    counter
}

/// A uniform number in [0, 1) with 24 bits.
#[inline]
pub fn uniform(bits: u32) -> f32 {
    (bits >> 8) as f32 * (1.0 / (1 << 24) as f32)
}

/// Two standard normal numbers from two words (Box and Muller 1958), computed in f64.
#[inline]
pub fn normal_pair(a: u32, b: u32) -> [f64; 2] {
    // In (0, 1]: the logarithm is finite.
    let u = (a as f64 + 1.0) / 4294967296.0;
    let angle = std::f64::consts::TAU * (b as f64 / 4294967296.0);
    let radius = (-2.0 * libm::log(u)).sqrt();
    [radius * libm::cos(angle), radius * libm::sin(angle)]
}

/// A uniform integer below `n` from 64 random bits (multiply and shift; bias below n/2⁶⁴).
#[inline]
pub fn below(high: u32, low: u32, n: u64) -> u64 {
    let bits = (high as u64) << 32 | low as u64;
    ((bits as u128 * n as u128) >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn philox_gives_the_published_vectors() {
        assert_eq!(philox4x32_10([0; 4], [0; 2]), [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]);
        assert_eq!(philox4x32_10([u32::MAX; 4], [u32::MAX; 2]), [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]);
        assert_eq!(
            philox4x32_10([0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344], [0xa4093822, 0x299f31d0]),
            [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1]
        );
    }

    #[test]
    fn uniform_covers_zero_but_not_one() {
        assert_eq!(uniform(0), 0.0);
        assert!(uniform(u32::MAX) < 1.0);
    }
}
