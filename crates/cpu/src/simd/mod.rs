//! The one SIMD layer: kernels are written once over [`Lanes`] and chosen at run time for the instruction set.
//!
//! A kernel is a struct of slices with [`Kernel::run`], marked `#[inline(always)]`; [`dispatch`] calls it inside a
//! function compiled for the instruction set, into which everything inlines.

pub mod amx;
pub mod convert;
mod each;
#[cfg(target_arch = "x86_64")]
mod fma;
mod isa;
mod lanes;
mod math;
pub mod planes;
pub mod prefetch;
pub mod ranged;
mod scalar;
mod table;
pub mod words;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use binade_tensor::number::Number;
pub use isa::Isa;
pub use lanes::Lanes;
pub use prefetch::Beside;

/// Code over numbers of type `E`, generic over the vectors that hold them.
pub trait Kernel<E> {
    /// Result.
    type Output;
    /// The code; mark it `#[inline(always)]`.
    fn run<L: Lanes<Elem = E>>(self) -> Self::Output;
}

/// Runs a kernel with the vectors of `isa` that hold `E`. Where a kernel serves several types, [`Real::dispatch`] says
/// which.
#[inline]
pub fn dispatch<E: Real, K: Kernel<E>>(isa: Isa, kernel: K) -> K::Output {
    E::dispatch(isa, kernel)
}

#[inline]
fn in_vectors<K: Kernel<f32>>(isa: Isa, kernel: K) -> K::Output {
    match isa {
        Isa::Portable => kernel.run::<scalar::P1>(),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: an `Isa` other than Portable exists only after its features were detected.
        Isa::Avx2 => unsafe { run_avx2(kernel) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Isa::Avx512 | Isa::Amx => unsafe { run_avx512(kernel) },
        #[cfg(not(target_arch = "x86_64"))]
        Isa::Avx2 | Isa::Avx512 | Isa::Amx => kernel.run::<scalar::P1>(),
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
fn run_avx2<K: Kernel<f32>>(kernel: K) -> K::Output {
    kernel.run::<x86::V8>()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")]
fn run_avx512<K: Kernel<f32>>(kernel: K) -> K::Output {
    kernel.run::<x86::V16>()
}

/// How many f32 the vectors of a kernel dispatched to `isa` hold, as the kernel itself tells.
pub fn vector_length(isa: Isa) -> usize {
    struct Length;
    impl Kernel<f32> for Length {
        type Output = usize;
        #[inline(always)]
        fn run<L: Lanes<Elem = f32>>(self) -> usize {
            L::N
        }
    }
    dispatch(isa, Length)
}

/// An elementwise function of one value.
pub trait Map1: Copy {
    /// The function.
    fn eval<L: Lanes>(self, x: L) -> L;
}

/// An elementwise function of two values.
pub trait Map2: Copy {
    /// The function.
    fn eval<L: Lanes>(self, a: L, b: L) -> L;
}

/// An elementwise function of three values.
pub trait Map3: Copy {
    /// The function.
    fn eval<L: Lanes>(self, a: L, b: L, c: L) -> L;
}

/// A type that vectors of `E` are read from and written to: `E` itself or a 16-bit format, widened exactly and rounded
/// once; or 8-bit integers, which are written of integers that fit.
pub trait Stored<E>: binade_tensor::Element + bytemuck::Pod + Default {
    /// The first `N` numbers.
    fn get<L: Lanes<Elem = E>>(from: &[Self]) -> L;
    /// Writes the first `N` numbers.
    fn put<L: Lanes<Elem = E>>(value: L, to: &mut [Self]);
    /// Writes the first `N` numbers, as [`Lanes::store_past`] if `past`.
    #[inline(always)]
    fn put_past<L: Lanes<Elem = E>>(value: L, to: &mut [Self], _past: bool) {
        Self::put(value, to);
    }
    /// The numbers there are, at most `N`, and zeros.
    #[inline(always)]
    fn get_part<L: Lanes<Elem = E>>(from: &[Self]) -> L {
        let mut pad = [Self::default(); 16];
        pad[..from.len()].copy_from_slice(from);
        Self::get(&pad[..L::N])
    }
    /// Writes as many numbers as there is room for, at most `N`.
    #[inline(always)]
    fn put_part<L: Lanes<Elem = E>>(value: L, to: &mut [Self]) {
        let mut pad = [Self::default(); 16];
        Self::put(value, &mut pad[..L::N]);
        to.copy_from_slice(&pad[..to.len()]);
    }
}

macro_rules! stored {
    ($($t:ty, [$($generic:ident)?], $e:ty, $load:ident, $store:ident $(, $load_part:ident, $store_part:ident)?;)*) => {
        $(impl<$($generic)?> Stored<$e> for $t {
            #[inline(always)]
            fn get<L: Lanes<Elem = $e>>(from: &[$t]) -> L { L::$load(from) }
            #[inline(always)]
            fn put<L: Lanes<Elem = $e>>(value: L, to: &mut [$t]) { value.$store(to) }
            $(
                #[inline(always)]
                fn get_part<L: Lanes<Elem = $e>>(from: &[$t]) -> L { L::$load_part(from) }
                #[inline(always)]
                fn put_part<L: Lanes<Elem = $e>>(value: L, to: &mut [$t]) { value.$store_part(to) }
                #[inline(always)]
                fn put_past<L: Lanes<Elem = $e>>(value: L, to: &mut [$t], past: bool) {
                    if past { value.store_past(to) } else { value.$store(to) }
                }
            )?
        })*
    };
}

stored! {
    f32, [], f32, load, store, load_part, store_part;
    f64, [], f64, load, store, load_part, store_part;
    half::f16, [E], E, load_f16, store_f16;
    half::bf16, [E], E, load_bf16, store_bf16;
    i8, [E], E, load_i8, store_i8;
}

/// The types kernels compute in: f32 in the vectors of an instruction set, f64 number by number. Operands and results
/// are in this type or stored in 16 bit.
pub trait Real:
    binade_tensor::Float + bytemuck::Pod + std::ops::AddAssign + std::ops::MulAssign + Stored<Self>
{
    /// Runs a kernel with the vectors of `isa` that hold this type.
    fn dispatch<K: Kernel<Self>>(isa: Isa, kernel: K) -> K::Output;
    /// Numbers per vector.
    fn lanes(isa: Isa) -> usize;

    /// `y[i] = f(x[i])`. An element's result does not depend on its position.
    fn map1<F: Map1, X: Stored<Self>, Y: Stored<Self>>(isa: Isa, f: F, x: &[X], y: &mut [Y]) {
        Self::dispatch(isa, Map1Kernel(f, x, y));
    }
    /// `y[i] = f(a[i], b[i])`.
    fn map2<F: Map2, A: Stored<Self>, B: Stored<Self>, Y: Stored<Self>>(isa: Isa, f: F, a: &[A], b: &[B], y: &mut [Y]) {
        Self::dispatch(isa, Map2Kernel(f, a, b, y));
    }
    /// `y[i] = f(a[i], b[i], c[i])`.
    fn map3<F: Map3>(isa: Isa, f: F, a: &[Self], b: &[Self], c: &[Self], y: &mut [Self]) {
        Self::dispatch(isa, Map3Kernel(f, [a, b, c], y));
    }
    /// `Σ g(x[i], shift)` over a fixed tree: 16 interleaved partial sums, then halves.
    fn sum<F: Map2, X: Stored<Self>>(isa: Isa, f: F, x: &[X], shift: Self) -> Self {
        Self::dispatch(isa, SumKernel(f, x, shift))
    }
    /// `Σ a[i]·b[i]` over the same fixed tree.
    fn dot<A: Stored<Self>, B: Stored<Self>>(isa: Isa, a: &[A], b: &[B]) -> Self {
        Self::dispatch(isa, DotKernel(a, b))
    }
}

impl Real for f32 {
    #[inline]
    fn dispatch<K: Kernel<f32>>(isa: Isa, kernel: K) -> K::Output {
        in_vectors(isa, kernel)
    }
    fn lanes(isa: Isa) -> usize {
        match isa {
            Isa::Portable => 1,
            Isa::Avx2 => 8,
            Isa::Avx512 | Isa::Amx => 16,
        }
    }
}

impl Real for f64 {
    #[inline]
    fn dispatch<K: Kernel<f64>>(_isa: Isa, kernel: K) -> K::Output {
        kernel.run::<f64>()
    }
    fn lanes(_isa: Isa) -> usize {
        1
    }
}

/// The identity on the first operand, for plain sums.
#[derive(Clone, Copy)]
pub struct First;

impl Map2 for First {
    #[inline(always)]
    fn eval<L: Lanes>(self, a: L, _b: L) -> L {
        a
    }
}

struct Map1Kernel<'a, F, X, Y>(F, &'a [X], &'a mut [Y]);

impl<C, F: Map1, X: Stored<C>, Y: Stored<C>> Kernel<C> for Map1Kernel<'_, F, X, Y> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes<Elem = C>>(self) {
        let Map1Kernel(f, x, y) = self;
        let n = x.len().min(y.len());
        let body = n - n % L::N;
        let [read, write] = prefetch::distances(n);
        for (x, y) in x[..body].chunks_exact(L::N).zip(y[..body].chunks_exact_mut(L::N)) {
            prefetch::ask_later(x.as_ptr().addr() + read, false);
            prefetch::ask_later(y.as_ptr().addr() + write, true);
            Y::put(f.eval(X::get::<L>(x)), y);
        }
        if body < n {
            Y::put_part(f.eval(X::get_part::<L>(&x[body..n])), &mut y[body..n]);
        }
    }
}

struct Map2Kernel<'a, F, A, B, Y>(F, &'a [A], &'a [B], &'a mut [Y]);

impl<C, F: Map2, A: Stored<C>, B: Stored<C>, Y: Stored<C>> Kernel<C> for Map2Kernel<'_, F, A, B, Y> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes<Elem = C>>(self) {
        let Map2Kernel(f, a, b, y) = self;
        let n = a.len().min(b.len()).min(y.len());
        let body = n - n % L::N;
        let [read, write] = prefetch::distances(n);
        for ((a, b), y) in
            a[..body].chunks_exact(L::N).zip(b[..body].chunks_exact(L::N)).zip(y[..body].chunks_exact_mut(L::N))
        {
            prefetch::ask_later(a.as_ptr().addr() + read, false);
            prefetch::ask_later(b.as_ptr().addr() + read, false);
            prefetch::ask_later(y.as_ptr().addr() + write, true);
            Y::put(f.eval(A::get::<L>(a), B::get(b)), y);
        }
        if body < n {
            Y::put_part(f.eval(A::get_part::<L>(&a[body..n]), B::get_part(&b[body..n])), &mut y[body..n]);
        }
    }
}

struct Map3Kernel<'a, F, C>(F, [&'a [C]; 3], &'a mut [C]);

impl<C, F: Map3> Kernel<C> for Map3Kernel<'_, F, C> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes<Elem = C>>(self) {
        let Map3Kernel(f, [a, b, c], y) = self;
        let body = y.len() - y.len() % L::N;
        for i in (0..body).step_by(L::N) {
            f.eval(L::load(&a[i..]), L::load(&b[i..]), L::load(&c[i..])).store(&mut y[i..]);
        }
        if body < y.len() {
            let rest = body..y.len();
            f.eval(L::load_part(&a[rest.clone()]), L::load_part(&b[rest.clone()]), L::load_part(&c[rest]))
                .store_part(&mut y[body..]);
        }
    }
}

/// 16 interleaved partial sums of `f(x, shift)`, whatever the vector width.
struct SumKernel<'a, F, X, C>(F, &'a [X], C);

impl<F: Map2, X: Stored<C>, C: Copy + Default + std::ops::AddAssign> Kernel<C> for SumKernel<'_, F, X, C> {
    type Output = C;
    #[inline(always)]
    fn run<L: Lanes<Elem = C>>(self) -> C {
        let SumKernel(f, x, shift) = self;
        let s = L::broadcast(shift);
        let mut parts = [L::splat(0.0); 16];
        let count = 16 / L::N;
        for chunk in x.chunks_exact(16) {
            for i in 0..count {
                parts[i] = parts[i] + f.eval(X::get(&chunk[i * L::N..]), s);
            }
        }
        let mut sums = [C::default(); 16];
        for i in 0..count {
            parts[i].store(&mut sums[i * L::N..]);
        }
        let rest = x.chunks_exact(16).remainder();
        let (mut pad, mut out) = ([X::default(); 16], [C::default(); 16]);
        pad[..rest.len()].copy_from_slice(rest);
        for i in 0..count {
            f.eval(X::get(&pad[i * L::N..]), s).store(&mut out[i * L::N..]);
        }
        for i in 0..rest.len() {
            sums[i] += out[i];
        }
        halves(&mut sums)
    }
}

/// 16 interleaved partial sums of products.
struct DotKernel<'a, A, B>(&'a [A], &'a [B]);

impl<C: Copy + Default + std::ops::AddAssign, A: Stored<C>, B: Stored<C>> Kernel<C> for DotKernel<'_, A, B> {
    type Output = C;
    #[inline(always)]
    fn run<L: Lanes<Elem = C>>(self) -> C {
        let DotKernel(a, b) = self;
        let mut parts = [L::splat(0.0); 16];
        let count = 16 / L::N;
        for (a, b) in a.chunks_exact(16).zip(b.chunks_exact(16)) {
            for i in 0..count {
                parts[i] = A::get::<L>(&a[i * L::N..]).mul_add(B::get(&b[i * L::N..]), parts[i]);
            }
        }
        let mut sums = [C::default(); 16];
        let n = a.len().min(b.len());
        let body = n - n % 16;
        if body < n {
            // The rest goes through the same instruction, so that a product counts the same wherever it stands.
            let (mut pa, mut pb) = ([A::default(); 16], [B::default(); 16]);
            pa[..n - body].copy_from_slice(&a[body..n]);
            pb[..n - body].copy_from_slice(&b[body..n]);
            for i in 0..count {
                parts[i] = A::get::<L>(&pa[i * L::N..]).mul_add(B::get(&pb[i * L::N..]), parts[i]);
            }
        }
        for i in 0..count {
            parts[i].store(&mut sums[i * L::N..]);
        }
        halves(&mut sums)
    }
}

/// The sum of 16 numbers by halves. Each in a loop of its own, of known length: one loop over the lengths was not
/// unrolled everywhere.
#[inline(always)]
pub fn halves<T: Copy + std::ops::AddAssign>(sums: &mut [T; 16]) -> T {
    for i in 0..8 {
        sums[i] += sums[i + 8];
    }
    for i in 0..4 {
        sums[i] += sums[i + 4];
    }
    for i in 0..2 {
        sums[i] += sums[i + 2];
    }
    sums[0] += sums[1];
    sums[0]
}
