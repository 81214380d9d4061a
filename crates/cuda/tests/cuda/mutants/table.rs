//! The faults: of every family, and of every kind that a kernel's author makes.

use binade_cuda::Module;
use binade_tensor::Update;

use super::edit::{At, Edit};
use super::{By, Mutant, Seen};
use crate::{bits, edges, integers, late};

const OUT: Seen = Seen::Finding(&["OutOfBounds"]);
const RACE: Seen = Seen::Finding(&["Race"]);
/// What a warp reads before another has written it: which it is depends on who was first.
const EARLY: Seen = Seen::Finding(&["Race", "UninitialisedMemory"]);
const UNWRITTEN: Seen = Seen::Finding(&["UninitialisedMemory"]);
const UNSET: Seen = Seen::Finding(&["UninitialisedRegister"]);
const DIVERGENCE: Seen = Seen::Finding(&["Divergence"]);
const DEADLOCK: Seen = Seen::Finding(&["Deadlock"]);
const MISALIGNED: Seen = Seen::Finding(&["Misaligned"]);
/// An element of a neighbour: beyond the memory, or a race with who has it.
const STRAY: Seen = Seen::Finding(&["OutOfBounds", "Race"]);

macro_rules! mutants {
    ($table:ident; $($module:ident $kernel:ident, $line:literal, $opcode:literal $nth:literal of $of:literal:
        $name:literal, $edit:expr, $by:expr, $seen:expr;)*) => {
        /// Faults.
        pub(super) const $table: &[Mutant] = &[$(Mutant {
            name: $name,
            at: At {
                module: Module::$module,
                kernel: stringify!($kernel),
                line: $line,
                opcode: $opcode,
                nth: ($nth, $of),
            },
            edit: $edit,
            by: $by,
            seen: $seen,
        },)*];
    };
}

const fn is_sgd(update: &Update) -> bool {
    matches!(update, Update::Sgd { .. })
}

const fn is_adam(update: &Update) -> bool {
    matches!(update, Update::Adam { .. })
}

pub(super) use mutants;

use By::{Bits, Bounds, Check, Passes, Steps};
use Edit::{Drop, Opcode, Operand, Plain, Text};
use Seen::Numbers;

mutants! {
    MUTANTS;
    // Elementwise.
    Binary Add, "", "setp.ge.u32" 1 of 1: "a thread beyond the last element works", Opcode("setp.gt.u32"),
        Bounds(&["add"]), OUT;
    Binary Add, "return dtype == F16 ? widen_f16(code)", "setp.eq.s32" 1 of 2: "the code of f16 is another's",
        Operand(2, "2"), Bounds(&["add"]), Numbers;
    Binary Add, "at.in[k] += (i64)here * p.in[k].strides[d]", "mul.lo.s64" 1 of 2: "a stride is added, not multiplied",
        Opcode("add.s64"), Bounds(&["add"]), Seen::Finding(&["OutOfBounds", "Misaligned"]);
    Binary Mul, "((u16*)at)[i] = dtype == F16", "st.global.u16" 1 of 1: "16-bit results are not stored", Drop,
        Bounds(&["mul"]), Numbers;
    Unary Exp, "", "setp.ge.u32" 1 of 1: "the last element has no thread", Text("setp.ge", "setp.gt"),
        Bounds(&["exp"]), OUT;
    Ternary Addcmul, "if (dtype == F32) return ((const float*)at)[i];", "setp.eq.s32" 2 of 3:
        "an operand's dtype is taken for another's", Operand(2, "1"), Bounds(&["addcmul"]), Numbers;
    Loss Huber_sums, "", "shfl.sync.down.b32" 2 of 4: "half the lanes are not in the mask of a shuffle",
        Operand(4, "65535"), Bounds(&["huber_loss"]), DIVERGENCE;
    Copy cast, "return (u16)((bits + 0x7fffu", "add.s32" 2 of 2: "ties are rounded away from zero",
        Text("32767", "32768"), Check(edges::casts), Numbers;
    Copy copy_4, "", "st.global.u32" 1 of 1: "a word is stored a byte further", Text("]", "+1]"),
        Bounds(&["copy", "cat"]), MISALIGNED;
    Copy Lt, "", "setp.lt.f64" 1 of 1: "less is less or equal", Opcode("setp.le.f64"), Check(edges::pairs), Numbers;
    // Reductions and scans.
    Reduce block_sums, "number = min(number, last)", "min.u64" 1 of 1: "threads beyond the last block go on",
        Opcode("max.u64"), Bounds(&["sum", "mean"]), STRAY;
    Reduce block_sums, "min(p.r.n - begin, BLOCK)", "min.u32" 1 of 1: "a block leaves out its last element",
        Operand(2, "1023"), Bits(&["sum"]), Numbers;
    Reduce block_sums, "__shfl_down_sync(0xffffffffu, v, 4, 16)", "add.rn.f32" 1 of 1: "a partial sum is subtracted",
        Opcode("sub.rn.f32"), Bounds(&["sum", "mean"]), Numbers;
    Reduce reduce_rows, "if (lane == 0 && at.stores) store_wide", "or.pred" 1 of 1: "every lane stores",
        Text("or.pred", "and.pred"), Bounds(&["sum"]), RACE;
    Reduce column_parts, "if (column >= p.columns) return;", "setp.ge.u32" 1 of 1: "a column too many",
        Opcode("setp.gt.u32"), Bounds(&["sum", "mean"]), STRAY;
    Reduce column_totals, "sum = __dadd_rn(sum, (double)((const float*)p.parts)", "add.rn.f64" 1 of 1:
        "the parts of a column are not added", Opcode("max.f64"), Bounds(&["sum", "mean"]), Numbers;
    Reduce argmax, "if (i != 0xffffffffu && (better || (equal && i < where)))", "setp.gt.u32" 1 of 5:
        "of equal elements the last is found", Opcode("setp.lt.u32"), Check(edges::ties), Numbers;
    Reduce scan, "total = p.kind == SUM ? __dadd_rn(total, v)", "setp.eq.s32" 1 of 1: "products for sums",
        Opcode("setp.ne.s32"), Bounds(&["cumsum", "cumprod"]), Numbers;
    // Softmax and cross-entropy.
    Softmax softmax, "for (u32 i = lane; i < n; i += LANES) sum = __fadd_rn(sum, f(i));", "setp.lt.u32" 1 of 1:
        "a row is read one element too far", Opcode("setp.le.u32"), Bounds(&["softmax"]), OUT;
    Softmax softmax, "float first_of_16(float v)", "shfl.sync.idx.b32" 2 of 2: "half the lanes are not in the mask",
        Operand(4, "65535"), Bounds(&["softmax"]), DIVERGENCE;
    Softmax softmax_backward, "sum = p.log ? __fadd_rn(sum, g(i))", "add.s32" 1 of 1: "every other part of 16 is added",
        Text("16", "32"), Bounds(&["softmax_backward", "log_softmax_backward"]), Numbers;
    Softmax count_targets, "__syncthreads();", "bar.sync" 1 of 2: "counts are added before they are there", Drop,
        Bounds(&["cross_entropy"]), EARLY;
    Softmax count_targets, "__syncthreads();", "bar.sync" 2 of 2: "halves are added without waiting", Drop,
        Bounds(&["cross_entropy"]), RACE;
    Softmax count_targets, "__syncthreads();", "bar.sync" 2 of 2: "a barrier waits for more threads than there are",
        Operand(0, "0, 512"), Bounds(&["cross_entropy"]), DEADLOCK;
    Softmax count_targets, "parts[threadIdx.x] = count;", "st.shared.u32" 1 of 1: "counts are not written", Drop,
        Bounds(&["cross_entropy"]), UNWRITTEN;
    Softmax count_targets, "if (threadIdx.x < half) parts[threadIdx.x]", "setp.ge.u32" 1 of 1: "a half is one too long",
        Opcode("setp.gt.u32"), Bounds(&["cross_entropy"]), STRAY;
    // Norms.
    Norm statistics, "rstd = __double2float_rn(1.0 / sqrt(variance + p.eps))", "add.rn.f64" 1 of 1: "eps is subtracted",
        Opcode("sub.rn.f64"), Bounds(&["layer_norm"]), Numbers;
    Norm normalise, "if (!at.stores) return;", "bra" 1 of 1: "rows beyond the last are stored", Drop,
        Bounds(&["layer_norm", "group_norm"]), RACE;
    Norm norm_backward, "float shift = p.centred ?", "mul.rn.f64" 1 of 1: "the mean of the gradient lacks a factor",
        Opcode("add.rn.f64"), Bounds(&["norm_backward"]), Numbers;
    // Products.
    Product product, "__syncthreads();", "bar.sync" 1 of 2: "a tile is read while it is loaded", Drop,
        Check(bits::products), EARLY;
    Product product, "__syncthreads();", "bar.sync" 2 of 2: "a tile is loaded while it is read", Drop,
        Check(bits::products), RACE;
    Product product, "left[l][i] = row0 + i < m", "mul.wide.u32" 1 of 2: "a row of the tile has another length",
        Operand(2, "256"), Check(bits::products), UNWRITTEN;
    Product product, "left[l][i] = row0 + i < m", "setp.ge.u32" 1 of 2: "a row too many is loaded",
        Opcode("setp.gt.u32"), Check(bits::products), OUT;
    Product product, "left[l][i] = row0 + i < m", "setp.ge.u32" 2 of 2: "a place too many is loaded",
        Opcode("setp.gt.u32"), Check(bits::products), OUT;
    Product product, "u32 deep = works ? min(DEEP", "min.u32" 1 of 1: "the last place of a tile is left out",
        Operand(2, "15"), Check(bits::products), Numbers;
    Product product, "if ((k0 + DEEP) % CHAIN == 0", "and.b32" 1 of 1: "chains are half as long", Operand(2, "127"),
        Check(bits::products), Numbers;
    Product product, "y[j] = right[l][tx * 4 + j]", "ld.shared.f32" 4 of 4: "a fragment has an element twice",
        Text("+12]", "+8]"), Check(bits::products), Numbers;
    Product product, "y[j] = right[l][tx * 4 + j]", "ld.shared.f32" 4 of 4: "an element of a fragment is not loaded",
        Drop, Check(bits::products), UNSET;
    Product product, "if (row < m && column < n) f(row, column", "setp.ge.u32" 8 of 14:
        "a column too many is stored", Opcode("setp.gt.u32"), Check(bits::products), STRAY;
    Product sum_of_splits, "for (u32 split = 0; split < p.splits; split++)", "setp.lt.u32" 1 of 1: "a split too many",
        Opcode("setp.le.u32"), Check(bits::products), OUT;
    // Convolutions.
    Conv forward_tiles, "__syncthreads();", "bar.sync" 2 of 2: "a tile is loaded while it is read", Drop,
        Bounds(&["conv2d"]), RACE;
    Conv forward_tiles, "return y < p.height && x < p.width", "setp.ge.u32" 1 of 2: "a row of padding is read",
        Opcode("setp.gt.u32"), Bounds(&["conv2d"]), OUT;
    Conv by_input_singly, "bool there = (int)y >= 0", "setp.ne.s32" 1 of 2: "taps between the strides are taken",
        Opcode("setp.eq.s32"), Bounds(&["conv2d_input_backward", "conv_transpose2d"]), Numbers;
    Conv by_weight_sums, "for (u32 split = 0; split < p.splits; split++)", "setp.lt.u32" 1 of 1: "a split too many",
        Opcode("setp.le.u32"), Bounds(&["conv2d_weight_backward"]), OUT;
    // Attention.
    Attention attend, "(p.causal && key > query)", "setp.gt.u32" 1 of 1: "a query does not see its own key",
        Opcode("setp.ge.u32"), Bounds(&["scaled_dot_product_attention"]), Numbers;
    Attention attend, "float w = __shfl_sync(ALL, drawn, j);",
        "shfl.sync.idx.b32" 1 of 8: "half the lanes are not in the mask",
        Operand(4, "65535"), Bounds(&["scaled_dot_product_attention"]), DIVERGENCE;
    Attention attend, "sums[i] = __fmul_rn(sums[i], by);", "mul.rn.f32" 1 of 8: "what is there is not rescaled", Drop,
        Bounds(&["scaled_dot_product_attention"]), Numbers;
    Attention attend, "if (number >= (u64)p.samples * p.heads * p.t) return;", "setp.ge.u64" 1 of 1: "a query too many",
        Opcode("setp.gt.u64"), Check(edges::attention), OUT;
    Attention attend_backward_queries, "((float*)p.means)[number] = mean;", "st.global.f32" 1 of 1:
        "sums that the keys need are not stored", Drop, Bounds(&["attention_backward"]),
        Seen::Finding(&["UninitialisedMemory"]);
    // Indices.
    Index check_index, "__syncthreads();", "bar.sync" 1 of 2: "the first of all is sought too early", Drop,
        Check(late::indices), EARLY;
    Index check_index, "if ((index < 0 || index >= p.size) && index != p.ignored)", "setp.ge.s64" 1 of 2:
        "the index behind the last is allowed", Opcode("setp.gt.s64"), Check(late::indices), Numbers;
    Index check_index, "if ((index < 0 || index >= p.size) && index != p.ignored)", "setp.lt.s64" 2 of 2:
        "an index below zero is allowed", Operand(2, "-1"), Check(late::indices), OUT;
    Index embedding_backward, "bool hit = i < p.n", "setp.ge.u32" 1 of 1: "an index too many", Opcode("setp.gt.u32"),
        Bounds(&["embedding_backward"]), OUT;
    Index scatter, "v = p.adds ? __fadd_rn(v, s) : s;", "add.rn.f32" 1 of 1: "what is added is subtracted",
        Opcode("sub.rn.f32"), Bounds(&["scatter", "gather_backward"]), Numbers;
    Index gather_4, "return dtype == I64 ?", "setp.eq.s32" 1 of 1: "indices of 64 bits are read as of 32",
        Operand(2, "4"), Bounds(&["gather", "embedding"]), Numbers;
    // Pooling and maps of dimensions.
    Window pool, "if (y < 0 || y >= (i64)p.height) continue;", "setp.ge.u64" 1 of 2: "a row of padding is read",
        Opcode("setp.gt.u64"), Bounds(&["max_pool2d", "avg_pool2d"]), OUT;
    Window map_dimensions, "if (at[d] < last[d])", "setp.lt.u32" 7 of 8: "a tap too many", Opcode("setp.le.u32"),
        Bounds(&["flip", "roll", "pad", "upsample_linear"]), Numbers;
    // Random numbers.
    Random uniform, "for (int round = 0; round < 10; round++)", "setp.ne.s32" 1 of 1: "a round too few", Operand(2,
        "9"),
        Bits(&["uniform"]), Numbers;
    Random dropout, "", "ld.global.f32" 1 of 1: "elements are read from the next one's place", Text("]", "+4]"),
        Bounds(&["dropout"]), OUT;
    // Passes.
    Update scale, "atomicOr((u32*)p.found, 1u);", "atom.global.or.b32" 1 of 1: "what is not finite is not noted", Drop,
        Passes(Update::Unscale), Numbers;
    Update scale, "atomicOr((u32*)p.found, 1u);", "atom.global.or.b32" 1 of 1: "it is noted without an atomic", Plain,
        Passes(Update::Unscale), RACE;
    Update squares, "all = __dadd_rn(all, __shfl_sync", "setp.ne.s32" 1 of 1: "the last lane's squares are left out",
        Operand(2, "15"), Passes(Update::Norm), Numbers;
    Update squares, "all = __dadd_rn(all, __shfl_sync", "add.rn.f64" 1 of 1: "partial sums are added in another way",
        Opcode("add.rz.f64"), Passes(Update::Norm), Numbers;
    Update optimise, "end = min(slot.n, start + TASK)", "min.u32" 1 of 1: "a chunk goes on behind its tensor",
        Opcode("max.u32"), Steps(is_sgd), OUT;
    Update optimise, "v = __fadd_rn(__fmul_rn(u.b, v), __fmul_rn(__fmul_rn(u.c, d), d));", "add.rn.f32" 1 of 1:
        "the average of squares is rounded down", Opcode("add.rz.f32"), Steps(is_adam), Numbers;
    // What a kernel is told, rather than what it computes: fields, flags, symbols, sign, width.
    Update optimise, "if (((const Fault*)p.fault)->set) return;", "bra" 1 of 1: "a pass runs behind an error", Drop,
        Check(late::stops), Numbers;
    Update optimise, "NESTEROV", "and.b32" 1 of 1: "a flag is looked for in another's bit", Operand(2, "2"),
        Steps(is_adam), Numbers;
    Norm statistics, "p.eps", "ld.param.f64" 2 of 2: "eps is read from another field", Text("+16]", "+8]"),
        Bounds(&["layer_norm"]), Numbers;
    Window pool, "p.divisor", "setp.ne.s64" 1 of 1: "a given divisor is taken for none", Opcode("setp.eq.s64"),
        Bounds(&["avg_pool2d"]), Numbers;
    Reduce scan, "p.parameter == 0.0", "setp.eq.f64" 1 of 1: "sums run from the other end", Opcode("setp.ne.f64"),
        Bounds(&["cumsum"]), Numbers;
    Product product, "right[l][j] =", "mov.u64" 1 of 1: "two tiles lie in one place", Text("5right", "4left"),
        Check(bits::products), EARLY;
    Product product, "(i64)(batch - rest", "mul.lo.s64" 1 of 3: "every batch has the first of its operand",
        Operand(1, "0"), Bounds(&["matmul"]), Numbers;
    Reduce block_sums, "__shfl_down_sync(0xffffffffu, v, 8, 16)", "mov.u32" 2 of 4:
        "lanes of two rows are one group", Operand(1, "31"), Bounds(&["sum", "mean"]), Numbers;
    Copy Lt, "", "setp.lt.s64" 1 of 1: "integers below zero are the largest", Opcode("setp.lt.u64"),
        Check(integers::compared), Numbers;
    Unary Relu, "", "ld.global.u16" 1 of 1: "half of a 16-bit element is read", Opcode("ld.global.u8"),
        Bounds(&["relu"]), Numbers;
    Copy cast, "asm(\"cvt.rn.f16.f32", "cvt.rn.f16.f32" 1 of 1: "f16 is rounded toward zero", Opcode("cvt.rz.f16.f32"),
        Check(edges::casts), Numbers;
    Copy quantise, "", "cvt.rni.f32.f32" 1 of 1: "integers are cut and not rounded", Opcode("cvt.rzi.f32.f32"),
        Bounds(&["quantised_matmul"]), Numbers;
    Attention attend, "return Head{", "div.u32" 1 of 1: "heads that share keys take them in turn", Opcode("rem.u32"),
        Bounds(&["scaled_dot_product_attention"]), Numbers;
    Attention attend, "((const u8*)p.mask.at)[at] ?", "setp.eq.s16" 1 of 1: "a mask hides what it shows",
        Opcode("setp.ne.s16"), Bounds(&["scaled_dot_product_attention"]), Numbers;
    Softmax cross_entropy_backward, "target == p.ignored", "setp.eq.s64" 1 of 1:
        "targets that are ignored are all that counts", Opcode("setp.ne.s64"), Bounds(&["cross_entropy_backward"]),
        Numbers;
    Softmax cross_entropy, "(1.0 - p.smoothing) *", "sub.rn.f64" 1 of 1: "smoothing is added to the target's part",
        Opcode("add.rn.f64"), Bounds(&["cross_entropy"]), Numbers;
    Conv forward_tiles, "dilation", "mad.lo.s32" 1 of 2: "rows of a kernel are not dilated", Operand(1, "1"),
        Check(edges::convolutions), Numbers;
    Conv forward_tiles, "weight_at<T>(p, group * p.outputs + j", "mad.lo.s32" 1 of 1:
        "all groups have the weights of the first", Operand(2, "0"), Check(edges::convolutions), Numbers;
    Index scatter, "!= (i64)here", "setp.ne.s64" 1 of 1: "indices below a place are taken for it",
        Opcode("setp.gt.s64"), Bounds(&["scatter"]), Numbers;
    Random normal, "k0 += 0x9E3779B9u", "add.s32" 1 of 1: "a key of the cipher stays as it is", Operand(2, "0"),
        Bits(&["normal"]), Numbers;
    Random uniform, "", "shr.u32" 1 of 3: "a draw has a bit too many", Operand(2, "7"), Bits(&["uniform"]), Numbers;
    Random integers, "", "mul.hi.u64" 2 of 2: "the lower half of a product is taken", Opcode("mul.lo.u64"),
        Bits(&["randint"]), Numbers;
}
