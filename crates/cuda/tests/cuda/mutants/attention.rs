//! Faults of attention on tensor cores.

use binade_cuda::Module;

use super::By::Check;
use super::Edit::{Drop, Opcode, Operand};
use super::Mutant;
use super::Seen::{self, Numbers};
use super::edit::At;
use super::table::mutants;
use crate::attention_cores::attentions;

const RACE: Seen = Seen::Finding(&["Race"]);
const EARLY: Seen = Seen::Finding(&["Race", "UninitialisedMemory"]);
/// What a copy has not written yet, or writes while it is read: which it is depends on which warp was first.
const COPYING: Seen = Seen::Finding(&["InFlight", "Race"]);
/// The same where it may also be the first copy there.
const BEFORE: Seen = Seen::Finding(&["InFlight", "Race", "UninitialisedMemory"]);
const UNSET: Seen = Seen::Finding(&["UninitialisedRegister"]);
const STRAY: Seen = Seen::Finding(&["OutOfBounds", "Race"]);

mutants! {
    ATTENTION;
    // Copies.
    AttentionSm80 attend_64, "cp.async.wait_group %0", "cp.async.wait_group" 1 of 2: "keys are not waited for",
        Operand(0, "2"), Check(attentions), BEFORE;
    AttentionSm80 attend_64, "cp.async.wait_group %0", "cp.async.wait_group" 2 of 2: "values are not waited for",
        Operand(0, "2"), Check(attentions), BEFORE;
    AttentionSm80 attend_64, "__syncthreads();", "bar.sync" 1 of 4: "keys are read before all have waited", Drop,
        Check(attentions), BEFORE;
    AttentionSm80 attend_64, "__syncthreads();", "bar.sync" 2 of 4: "keys are copied while they are read", Drop,
        Check(attentions), COPYING;
    AttentionSm80 attend_64, "__syncthreads();", "bar.sync" 3 of 4: "values are read before all have waited", Drop,
        Check(attentions), BEFORE;
    AttentionSm80 attend_64, "__syncthreads();", "bar.sync" 4 of 4: "values are copied while they are read", Drop,
        Check(attentions), COPYING;
    AttentionSm80 attend_64, "void end_of_stage()", "cp.async.commit_group" 1 of 4: "keys and values are one group",
        Drop, Check(attentions), BEFORE;
    AttentionSm80 attend_64, "void end_of_stage()", "cp.async.commit_group" 3 of 4: "the next keys are of no group",
        Drop, Check(attentions), COPYING;
    AttentionSm80 attend_64, "bool there = line < lines", "setp.lt.u32" 7 of 10: "a key too many is copied",
        Opcode("setp.le.u32"), Check(attentions), STRAY;
    AttentionSm80 attend_64, "(chunk ^ line % 8)", "xor.b32" 1 of 16: "queries lie where they are not read",
        Operand(1, "0"), Check(attentions), EARLY;
    // Fragments.
    AttentionSm80 attend_64, "\"=r\"(to[3]) : \"r\"(from)", "ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16" 1 of 4:
        "values are not transposed", Opcode("ldmatrix.sync.aligned.m8n8.x4.shared.b16"), Check(attentions), Numbers;
    AttentionSm80 attend_64, "\"=r\"(to[3]) : \"r\"(from)", "ldmatrix.sync.aligned.m8n8.x4.shared.b16" 6 of 10:
        "queries are not loaded", Drop, Check(attentions), UNSET;
    AttentionSm80 attend_64, "", "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32" 8 of 24:
        "eight keys have no scores", Drop, Check(attentions), Numbers;
    AttentionSm80 attend_64, "", "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32" 11 of 24:
        "weights are rounded to f16", Drop, Check(attentions), Numbers;
    AttentionSm80 attend_128, "", "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32" 11 of 56:
        "weights are cut to bf16", Drop, Check(attentions), Numbers;
    AttentionSm80 attend_64, "if (!bf16) weights[c]", "mul.rn.f32" 1 of 4: "a weight is 2¹⁵ times too small",
        Operand(2, "0f3F800000"), Check(attentions), Numbers;
    // Scores and sums.
    AttentionSm80 attend_64, "sums[i][2 * r] = __fmul_rn", "mul.rn.f32" 1 of 16: "what is there is not rescaled", Drop,
        Check(attentions), Numbers;
    AttentionSm80 attend_64, "min(p.s, row + 1)", "add.s32" 1 of 2: "a query does not see its own key",
        Operand(2, "0"), Check(attentions), Numbers;
    AttentionSm80 attend_64, "masks[r] =", "mul.lo.s64" 1 of 2: "all queries have the first one's mask",
        Operand(1, "0"), Check(attentions), Numbers;
    AttentionSm80 attend_64, "is_dropped(p, flat, query", "shl.b32" 2 of 2: "one weight is dropped for another",
        Operand(2, "0"), Check(attentions), Numbers;
    AttentionSm80 attend_64, "return Head{", "div.u32" 1 of 1: "a head that shares keys takes the next ones",
        Opcode("rem.u32"), Check(attentions), Numbers;
    AttentionSm80 attend_64, "v = __fadd_rn(v, __shfl_xor_sync(ALL, v, 1));", "add.rn.f32" 1 of 2:
        "weights of a row are not added", Drop, Check(attentions), UNSET;
    // The way out.
    AttentionSm80 attend_64, "__syncwarp();", "bar.warp.sync" 2 of 3: "results go out before they are written", Drop,
        Check(attentions), RACE;
    AttentionSm80 attend_64, "if (first + line >= p.t", "setp.ge.u32" 1 of 2: "a query too many is stored",
        Opcode("setp.gt.u32"), Check(attentions), STRAY;
    AttentionSm80 attend_64, "if (lane % 4 < 2 && query < p.t)", "setp.ge.u32" 1 of 1: "a sum too many is stored",
        Opcode("setp.gt.u32"), Check(attentions), STRAY;
    AttentionSm80 attend_64, "if (!(rows[0] | rows[1])) return;", "setp.eq.s32" 1 of 1:
        "what is hidden makes NaN of what is seen", Opcode("setp.ne.s32"), Check(attentions), Numbers;
    // Capability 7.5.
    AttentionSm75 attend_64, "__syncthreads();", "bar.sync" 1 of 2: "keys are read before they are stored", Drop,
        Check(attentions), EARLY;
    AttentionSm75 attend_64, "__syncthreads();", "bar.sync" 2 of 2: "values are read before they are stored", Drop,
        Check(attentions), EARLY;
    AttentionSm75 attend_64, "", "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32" 21 of 48:
        "weights are rounded to f16", Drop, Check(attentions), Numbers;
}
