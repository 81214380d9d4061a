//! The product of integers as words.

use rayon::prelude::*;

use crate::epilogue::{Target, output_parts};
use crate::gemm::workspace;
use crate::kernel::Context;
use crate::operand::{BLOCK, Compute};
use crate::simd::Isa;
use crate::simd::words::{ROWS, WIDEST, Words};
use crate::tasks::Tasks as _;
use crate::tile;
use binade_tensor::Result;
use binade_tensor::memory::{HostBuffer, Pool};

/// Words of the left operand that are made at once: they stay in the second-level cache.
const WHOLE: usize = 96 * 1024;
/// Columns whose results are finished at once.
const COLUMNS: usize = 512;
/// Up to this many rows the right operand is read once, unpacked: such a product is bound by memory.
const FEW: usize = 8;
/// Words of a column that are transposed at a time.
const DEEP: usize = 64;

/// Scratch memory.
pub(super) fn bytes(pool: &Pool, n: usize) -> Result<HostBuffer> {
    workspace::<f32>(pool, n.div_ceil(size_of::<f32>()))
}

/// The integers of rows of the left operand from a first one on.
pub(super) type LeftRows<'a> = dyn Fn(usize, &mut [i8]) + Sync + 'a;

/// A product of integers.
struct Product<'a> {
    isa: Isa,
    words: Words,
    /// Words of a row.
    len: usize,
    k: usize,
    n: usize,
    rows: &'a LeftRows<'a>,
    w: &'a [i8],
}

pub(super) fn multiply<C: Compute>(
    cx: Context<'_>,
    [m, k, n]: [usize; 3],
    rows: &LeftRows<'_>,
    w: &[i8],
    to: Target<'_, C>,
) -> Result<()> {
    let words = Words::new(cx.isa);
    let product = Product { isa: cx.isa, words, len: k.div_ceil(words.integers()), k, n, rows, w };
    // Where all of the left operand stays in the cache, the right one, which is larger, is packed a panel at a time.
    let panels = n.div_ceil(words.width());
    if m * product.len <= WHOLE && (m <= 4 * ROWS || panels >= 8) {
        product.wide(cx.pool, m, to)
    } else {
        product.tall(cx.pool, m, to)
    }
}

impl Product<'_> {
    /// Rows of the left operand from `first` on as words.
    fn left(&self, first: usize, integers: &mut Vec<i8>, to: &mut [i32]) {
        if self.len == 0 {
            return;
        }
        integers.resize(to.len() / self.len * self.k, 0);
        (self.rows)(first, integers);
        for (from, to) in integers.chunks_exact(self.k).zip(to.chunks_exact_mut(self.len)) {
            self.words.left(from, to);
        }
    }

    /// Columns of the right operand from `first` on as a panel, and what their sums begin with. Columns beyond the last
    /// are zeros.
    fn pack(&self, first: usize, panel: &mut [i32], start: &mut [i32]) {
        let (isa, k, width) = (self.isa, self.k, self.words.width());
        let columns = width.min(self.n - first);
        if columns < width {
            panel.fill(0);
        }
        // Bits are moved, whatever they are.
        let w = &self.w[first * k..(first + columns) * k];
        match bytemuck::try_cast_slice::<i8, i32>(w) {
            Ok(words) if self.words.integers() == 4 && k.is_multiple_of(4) => {
                tile::transpose::<f32>(
                    isa,
                    bytemuck::cast_slice(words),
                    self.len,
                    columns,
                    self.len,
                    bytemuck::cast_slice_mut(panel),
                    width,
                );
            }
            Ok(_) | Err(_) => {
                let (deep, mut buffer) = (DEEP * self.words.integers(), [0i32; WIDEST * DEEP]);
                for (from, panel) in (0..k).step_by(deep).zip(panel.chunks_mut(DEEP * width)) {
                    let len = panel.len() / width;
                    for j in 0..columns {
                        let column = &w[j * k..][..k];
                        self.words.right(&column[from..k.min(from + deep)], &mut buffer[j * DEEP..][..len]);
                    }
                    let panel = bytemuck::cast_slice_mut(panel);
                    tile::transpose::<f32>(isa, bytemuck::cast_slice(&buffer), DEEP, columns, len, panel, width);
                }
            }
        }
        self.words.starts(panel, start);
    }

    /// A few rows times columns of the right operand from `first` on, which are read once.
    fn dots<C: Compute>(&self, x: &[i8], sums: &[i32], first: usize, columns: usize, acc: &mut [C], ld: usize) {
        let k = self.k;
        for j in (0..columns).step_by(4) {
            let group = 4.min(columns - j);
            let w = &self.w[(first + j) * k..(first + j + group) * k];
            for i in (0..sums.len()).step_by(4) {
                let found = self.words.dots(&x[i * k..], k, &sums[i..], w, k, k);
                for (r, found) in found.iter().enumerate().take(sums.len() - i) {
                    let to = &mut acc[(i + r) * ld + j..][..group];
                    to.iter_mut().zip(found).for_each(|(to, &sum)| *to = C::from_i32(sum));
                }
            }
        }
    }

    /// Some rows, as words, times a panel, into accumulators `ld` apart.
    fn add<C: Compute>(
        &self,
        x: &[i32],
        rows: usize,
        panel: &[i32],
        start: &[i32],
        columns: usize,
        acc: &mut [C],
        ld: usize,
    ) {
        let (width, mut sums) = (self.words.width(), [0i32; ROWS * WIDEST]);
        for i in (0..rows).step_by(ROWS) {
            let rows = ROWS.min(rows - i);
            self.words.multiply(&x[i * self.len..], self.len, rows, panel, start, self.len, &mut sums);
            for (r, sums) in sums.chunks(width).take(rows).enumerate() {
                let to = &mut acc[(i + r) * ld..][..columns];
                to.iter_mut().zip(sums).for_each(|(to, &sum)| *to = C::from_i32(sum));
            }
        }
    }

    /// All rows at once, in blocks of columns that are tasks.
    fn wide<C: Compute>(&self, pool: &Pool, m: usize, to: Target<'_, C>) -> Result<()> {
        let (n, k, len, width) = (self.n, self.k, self.len, self.words.width());
        let Target { epilogue, dtype, out, .. } = to;
        let few = m <= FEW && k > 0;
        let mut integers = vec![0; if few { m * k } else { 0 }];
        if few {
            (self.rows)(0, &mut integers);
        }
        let sums: Vec<i32> = integers.chunks(k.max(1)).map(|x| x.iter().map(|&v| v as i32).sum()).collect();
        let mut x = workspace::<f32>(pool, if few { 0 } else { m * len })?;
        let x = x.as_mut_slice::<i32>();
        let some = m.div_ceil(4);
        if !few && len > 0 {
            let parts = x[..m * len].par_chunks_mut(some * len).enumerate().with_min_len(BLOCK.div_ceil(some * len));
            parts.each_with(Vec::new, |integers, (i, to)| self.left(i * some, integers, to));
        }
        let x = &*x;
        let chunk = n.div_ceil(8).next_multiple_of(width).clamp(width, COLUMNS);
        let mut acc = workspace::<C>(pool, n.div_ceil(chunk) * m * chunk)?;
        let acc = &mut acc.as_mut_slice::<C>()[..n.div_ceil(chunk) * m * chunk];
        acc.par_chunks_mut(m * chunk).enumerate().try_each(|(i, acc)| {
            let (first, columns) = (i * chunk, chunk.min(n - i * chunk));
            if few {
                self.dots(&integers, &sums, first, columns, acc, chunk);
                return Ok(());
            }
            let mut panel = workspace::<f32>(pool, len * width)?;
            let panel = &mut panel.as_mut_slice::<i32>()[..len * width];
            let mut start = [0; WIDEST];
            for at in (0..columns).step_by(width) {
                self.pack(first + at, panel, &mut start[..width]);
                self.add(x, m, panel, &start, width.min(columns - at), &mut acc[at..], chunk);
            }
            Ok::<_, binade_tensor::Error>(())
        })?;
        let acc = &*acc;
        let results = output_parts(out, &mut [], n * dtype.size()).into_par_iter();
        results.with_min_len((4 * BLOCK).div_ceil(n)).enumerate().each(|(i, (out, pre))| {
            let mut buffer = [C::zero(); COLUMNS];
            for first in (0..n).step_by(chunk) {
                let columns = chunk.min(n - first);
                let row = &mut buffer[..columns];
                row.copy_from_slice(&acc[(first / chunk * m + i) * chunk..][..columns]);
                epilogue.rows(row, columns, first, columns, n, out, pre, dtype);
            }
        });
        Ok(())
    }

    /// Blocks of rows that are tasks; the right operand is packed before.
    fn tall<C: Compute>(&self, pool: &Pool, m: usize, to: Target<'_, C>) -> Result<()> {
        let (n, len, width) = (self.n, self.len, self.words.width());
        let Target { epilogue, dtype, out, .. } = to;
        let panels = n.div_ceil(width);
        let mut packed = workspace::<f32>(pool, panels * len * width)?;
        let packed = &mut packed.as_mut_slice::<i32>()[..panels * len * width];
        let mut starts = vec![[0; WIDEST]; panels];
        let tasks = packed.par_chunks_mut((len * width).max(1)).zip(&mut starts).enumerate();
        tasks.each(|(p, (panel, start))| self.pack(p * width, panel, &mut start[..width]));
        let (packed, starts) = (&*packed, &*starts);
        let block = m.div_ceil(8).next_multiple_of(ROWS).clamp(2 * ROWS, 16 * ROWS).min(m);
        let parts = output_parts(out, &mut [], block * n * dtype.size()).into_par_iter().enumerate();
        parts.try_each(|(i, (out, pre))| {
            let rows = out.len() / (n * dtype.size());
            let mut x = workspace::<f32>(pool, rows * len)?;
            let x = &mut x.as_mut_slice::<i32>()[..rows * len];
            self.left(i * block, &mut Vec::new(), x);
            let ld = COLUMNS.min(panels * width);
            let mut acc = workspace::<C>(pool, rows * ld)?;
            let acc = &mut acc.as_mut_slice::<C>()[..rows * ld];
            for first in (0..n).step_by(ld) {
                let columns = ld.min(n - first);
                for at in (0..columns).step_by(width) {
                    let p = (first + at) / width;
                    let panel = &packed[p * len * width..][..len * width];
                    self.add(x, rows, panel, &starts[p], width.min(columns - at), &mut acc[at..], ld);
                }
                epilogue.rows(acc, ld, first, columns, n, out, pre, dtype);
            }
            Ok(())
        })
    }
}
