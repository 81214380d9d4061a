//! [`Isa`]: the instruction sets kernels are compiled for.

use std::io::{self, Write};
use std::sync::OnceLock;

/// An instruction set. A value other than `Portable` is a proof that the processor has it: only [`Isa::detect`] and
/// [`Isa::available`] make one, which is why those variants cannot be built outside this crate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Isa {
    /// No assumption about the processor.
    Portable,
    /// AVX2, FMA and F16C: x86 processors since 2013.
    #[non_exhaustive]
    Avx2,
    /// AVX-512 F, BW, VL and DQ beside them.
    #[non_exhaustive]
    Avx512,
    /// AVX-512 with BF16 conversions, and products on tiles (AMX-BF16): Intel servers since 2023.
    #[non_exhaustive]
    Amx,
}

impl Isa {
    /// The best level this processor has, or the one that the environment variable `BINADE_ISA` (`portable`, `avx2`,
    /// `avx512` or `amx`) names. A level that is unknown or that the processor lacks is reported on standard error and
    /// not used.
    pub fn detect() -> Isa {
        static ISA: OnceLock<Isa> = OnceLock::new();
        *ISA.get_or_init(|| {
            let available = Isa::available();
            let best = available[available.len() - 1];
            let Ok(wanted) = std::env::var("BINADE_ISA") else { return best };
            match available.iter().find(|isa| isa.name() == wanted) {
                Some(&isa) => isa,
                None => {
                    let names: Vec<_> = available.iter().map(|isa| isa.name()).collect();
                    let names = names.join(", ");
                    // Standard error may be closed, which is no reason to end.
                    let _ = writeln!(
                        io::stderr(),
                        "BINADE_ISA={wanted}: this processor has {names}; using {}",
                        best.name()
                    );
                    best
                }
            }
        })
    }

    /// The levels this processor can run, weakest first.
    pub fn available() -> Vec<Isa> {
        let mut all = vec![Isa::Portable];
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::is_x86_feature_detected as has;
            if has!("avx2") && has!("fma") && has!("f16c") {
                all.push(Isa::Avx2);
                if has!("avx512f") && has!("avx512bw") && has!("avx512vl") && has!("avx512dq") {
                    all.push(Isa::Avx512);
                    if has!("avx512bf16") && super::amx::detect() {
                        all.push(Isa::Amx);
                    }
                }
            }
        }
        all
    }

    /// Lower-case name.
    pub const fn name(self) -> &'static str {
        match self {
            Isa::Portable => "portable",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
            Isa::Amx => "amx",
        }
    }
}
