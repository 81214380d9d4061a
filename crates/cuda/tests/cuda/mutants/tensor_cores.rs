//! Faults of products and convolutions on tensor cores: in the pipeline of copies, in fragments, at edges, on the way
//! out.

use binade_cuda::Module;

use super::By::Check;
use super::Edit::{Drop, Opcode, Operand};
use super::Mutant;
use super::Seen::{self, Numbers};
use super::edit::At;
use super::table::mutants;
use crate::conv_cores::convolutions;
use crate::tensor_cores::products;

const RACE: Seen = Seen::Finding(&["Race"]);
const EARLY: Seen = Seen::Finding(&["Race", "UninitialisedMemory"]);
/// What a copy has not written yet, or writes while it is read: which it is depends on which warp was first.
const COPYING: Seen = Seen::Finding(&["InFlight", "Race"]);
/// The same where it may also be the first copy there.
const BEFORE: Seen = Seen::Finding(&["InFlight", "Race", "UninitialisedMemory"]);
const UNSET: Seen = Seen::Finding(&["UninitialisedRegister"]);
const INVALID: Seen = Seen::Finding(&["InvalidOperand"]);
const STRAY: Seen = Seen::Finding(&["OutOfBounds", "Race"]);

mutants! {
    TENSOR_CORES;
    // The pipeline.
    ProductSm80 product_f16_64, "cp.async.wait_group %0", "cp.async.wait_group" 1 of 1:
        "one group too many may be on its way", Operand(0, "2"), Check(products), COPYING;
    ProductSm80 product_f16_64, "cp.async.wait_group %0", "cp.async.wait_group" 1 of 1: "no copy is waited for", Drop,
        Check(products), COPYING;
    ProductSm80 product_f16_64, "__syncthreads();", "bar.sync" 1 of 3: "a stage is read before all have waited", Drop,
        Check(products), BEFORE;
    ProductSm80 product_f16_64, "__syncthreads();", "bar.sync" 2 of 3: "sums go out through a stage that is read", Drop,
        Check(products), RACE;
    ProductSm80 product_f16_64, "void end_of_stage()", "cp.async.commit_group" 1 of 1: "stages are no groups", Drop,
        Check(products), COPYING;
    ProductSm80 product_f16_64, "copy_stage(stages + into * STAGE, a", "shl.b32" 1 of 1: "stages overlap",
        Operand(2, "12"), Check(products), COPYING;
    ProductSm80 product_f16_64, "copy_stage(stages + into * STAGE + A_BYTES", "add.s32" 1 of 1:
        "B is copied where A is", Operand(2, "0"), Check(products), COPYING;
    ProductSm80 product_f16_64, "into = into == STAGES - 1", "setp.eq.s32" 1 of 1:
        "copies go to the stage that is read", Operand(2, "1"), Check(products), COPYING;
    ProductSm80 product_f16_64, "stage = stage == STAGES - 1", "setp.eq.s32" 1 of 1:
        "a stage is read while it is copied", Operand(2, "1"), Check(products), COPYING;
    ProductSm80 product_f16_64, "const u16* at = from + (i64)first * of_places", "mul.lo.s64" 1 of 2:
        "every stage has the first places", Operand(2, "0"), Check(products), Numbers;
    // What is copied.
    ProductSm80 product_f16_64, "min(8u, length - chunk * 8)", "min.u32" 1 of 2: "a chunk lacks its last element",
        Operand(2, "7"), Check(products), Numbers;
    ProductSm80 product_f16_64, "line < lines", "setp.lt.u32" 1 of 4: "a line too many is copied",
        Opcode("setp.le.u32"), Check(products), STRAY;
    ProductSm80 product_f16_64, "\"r\"(elements * 2)", "shl.b32" 1 of 8: "half of a chunk is copied", Operand(2, "0"),
        Check(products), Numbers;
    ProductSm80 product_f16_64, "\"r\"(elements * 2)", "shl.b32" 1 of 8: "twice a chunk is copied", Operand(2, "2"),
        Check(products), INVALID;
    ProductSm80 product_f16_64, "(i64)line * stride + chunk * 8", "mul.lo.s64" 1 of 7: "a line is the first one",
        Operand(2, "0"), Check(products), Numbers;
    // Fragments.
    ProductSm80 product_f16_64, "\"=r\"(to[3]) : \"r\"(from)", "ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16" 1 of 8:
        "a fragment is not transposed", Opcode("ldmatrix.sync.aligned.m8n8.x4.shared.b16"), Check(products), Numbers;
    ProductSm80 product_f16_64, "\"=r\"(to[3]) : \"r\"(from)", "ldmatrix.sync.aligned.m8n8.x4.shared.b16" 1 of 8:
        "a fragment is not loaded", Drop, Check(products), UNSET;
    ProductSm80 product_f16_64, "", "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32" 1 of 16:
        "f16 is taken for bf16", Opcode("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32"), Check(products),
        Numbers;
    ProductSm80 product_bf16_128, "", "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32" 64 of 64:
        "a fragment of sums lacks products", Drop, Check(products), Numbers;
    ProductSm80 product_bf16_128, "__syncthreads();", "bar.sync" 1 of 3: "a stage is copied while it is read", Drop,
        Check(products), BEFORE;
    // The way out.
    ProductSm80 product_f16_64, "__syncwarp();", "bar.warp.sync" 1 of 3: "rows are written over those that go out",
        Drop, Check(products), RACE;
    ProductSm80 product_f16_64, "__syncwarp();", "bar.warp.sync" 2 of 3: "rows go out before they are written", Drop,
        Check(products), RACE;
    ProductSm80 product_f16_64, "if (row + i >= p.m", "setp.ge.u32" 1 of 2: "a row too many is stored",
        Opcode("setp.gt.u32"), Check(products), STRAY;
    ProductSm80 product_f16_64, "if (row + i >= p.m", "setp.ge.u32" 2 of 2: "a column too many is stored",
        Opcode("setp.gt.u32"), Check(products), STRAY;
    ProductSm80 product_f16_64, "*(const float4*)(out", "mul.lo.s32" 1 of 1: "rows of sums have another length",
        Operand(2, "44"), Check(products), Numbers;
    ProductSm80 product_f16_64, "u32 first = split * p.per_split", "mul.lo.s32" 1 of 1: "every split is the first",
        Operand(1, "0"), Check(products), Numbers;
    // Capability 7.5.
    ProductSm75 product_f16_64, "__syncthreads();", "bar.sync" 1 of 3: "a stage is read before it is stored", Drop,
        Check(products), EARLY;
    ProductSm75 product_f16_64, "stage ^= 1", "xor.b32" 1 of 1: "a stage is stored while it is read", Operand(2, "0"),
        Check(products), RACE;
    ProductSm75 product_f16_64, "if (there == 8)", "setp.eq.s32" 9 of 16: "a part of a chunk is taken for all of it",
        Operand(2, "3"), Check(products), Numbers;
    ProductSm75 product_f16_64, "at[w - 1]", "mul.wide.u32" 9 of 16: "elements of a part are a byte apart",
        Operand(2, "1"), Check(products), Seen::Finding(&["Misaligned"]);
    ProductSm75 product_f16_64, "", "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32" 32 of 32:
        "the last eight places are left out", Drop, Check(products), Numbers;
    // Convolutions: pixels and taps.
    ConvSm80 conv_f16_64, "y = of.first[0] + ky * of.reach[0]", "mad.lo.s32" 1 of 1: "an image begins without padding",
        Operand(3, "0"), Check(convolutions), Numbers;
    ConvSm80 conv_f16_64, "(i64)(int)x * of.columns + channel", "add.s64" 1 of 2: "every chunk has the first channels",
        Operand(2, "0"), Check(convolutions), Numbers;
    ConvSm80 conv_f16_64, "at[i] = (i64)at3[0] * of.images", "mul.lo.s64" 1 of 6: "every image is the first",
        Operand(2, "0"), Check(convolutions), Numbers;
    ConvSm80 conv_f16_64, "bool within = (place < last)", "setp.lt.u32" 1 of 4: "a row of padding is read",
        Opcode("setp.le.u32"), Check(convolutions), STRAY;
    ConvSm80 conv_f16_64, "if (number < p.p.m) there", "setp.lt.u32" 1 of 2: "a pixel too many is read",
        Opcode("setp.le.u32"), Check(convolutions), STRAY;
    ConvSm80 conv_f16_64, "bool within = there & (across", "and.pred" 1 of 2: "a channel too many is read",
        Opcode("or.pred"), Check(convolutions), STRAY;
    ConvSm80 conv_f16_64, "return group * p.p.n + column", "mad.lo.s32" 1 of 1:
        "all groups have the first one's bias", Operand(1, "0"), Check(convolutions), Numbers;
    ConvSm80 conv_f16_64, "(i64)part[0] * strides[0]", "mul.lo.s64" 1 of 3: "all images are stored as the first",
        Operand(2, "0"), Check(convolutions), RACE;
    ConvSm80 weight_f16_64, "i64 under = (i64)at[0]", "mul.lo.s64" 1 of 6: "rows of pixels are the first",
        Operand(2, "0"), Check(convolutions), Numbers;
    ConvSm80 weight_f16_64, "bool within = there & (across", "setp.lt.u32" 1 of 3: "a pixel too many is added",
        Opcode("setp.le.u32"), Check(convolutions), STRAY;
    ConvSm80 weight_bf16_64, "u32 first = split * p.per_split", "mul.lo.s32" 1 of 1: "every split is the first",
        Operand(1, "0"), Check(convolutions), Numbers;
    Conv sum_of_splits, "if (j[2] >= p.columns.limit) return", "setp.ge.u32" 1 of 1: "a channel too many is stored",
        Opcode("setp.gt.u32"), Check(convolutions), STRAY;
    Conv sum_of_splits, "split < of.splits", "setp.lt.u32" 1 of 1: "a split too many is added", Opcode("setp.le.u32"),
        Check(convolutions), STRAY;
    // Their pipelines, on operands of their own.
    ConvSm80 conv_f16_64, "cp.async.wait_group %0", "cp.async.wait_group" 1 of 1: "no copy is waited for", Drop,
        Check(convolutions), COPYING;
    ConvSm80 conv_f16_64, "__syncthreads();", "bar.sync" 1 of 3: "a stage is read before all have waited", Drop,
        Check(convolutions), BEFORE;
    ConvSm80 weight_f16_64, "__syncthreads();", "bar.sync" 2 of 3: "sums go out through a stage that is read", Drop,
        Check(convolutions), RACE;
    ConvSm80 conv_bf16_128, "", "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32" 64 of 64:
        "a fragment of sums lacks products", Drop, Check(convolutions), Numbers;
    ConvSm80 weight_f16_64, "", "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32" 16 of 16:
        "the last products are left out", Drop, Check(convolutions), Numbers;
    ConvSm75 conv_f16_64, "__syncthreads();", "bar.sync" 1 of 3: "a stage is read before it is stored", Drop,
        Check(convolutions), EARLY;
    ConvSm75 weight_f16_64, "stage ^= 1", "xor.b32" 1 of 1: "a stage is stored while it is read", Operand(2, "0"),
        Check(convolutions), RACE;
}
