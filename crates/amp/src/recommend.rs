//! [`Policy::recommend`]: what the field recommends for a machine and a purpose, and why.

use binade_tensor::DType;

use crate::{LossScale, Policy};

/// Kinds of machine, as far as precision is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hardware {
    /// Any CPU.
    Cpu,
    /// NVIDIA Pascal and before: no tensor cores.
    CudaPascal,
    /// NVIDIA Volta and Turing: f16 tensor cores.
    CudaVolta,
    /// NVIDIA Ampere and later: f16 and bf16 tensor cores at the same rate.
    CudaAmpere,
    /// Google TPU.
    Tpu,
}

impl Hardware {
    /// All kinds.
    pub const ALL: [Hardware; 5] =
        [Hardware::Cpu, Hardware::CudaPascal, Hardware::CudaVolta, Hardware::CudaAmpere, Hardware::Tpu];

    /// Name for tables.
    pub const fn name(self) -> &'static str {
        match self {
            Hardware::Cpu => "CPU",
            Hardware::CudaPascal => "NVIDIA Pascal and before",
            Hardware::CudaVolta => "NVIDIA Volta, Turing",
            Hardware::CudaAmpere => "NVIDIA Ampere and later",
            Hardware::Tpu => "TPU",
        }
    }
}

/// What a model is run for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Training from scratch or fine-tuning.
    Training,
    /// Inference.
    Inference,
}

/// A policy with the loss scale that belongs to it, and the reason.
#[derive(Clone, Debug, PartialEq)]
pub struct Recommendation {
    /// The policy.
    pub policy: Policy,
    /// Its loss scale.
    pub loss_scale: LossScale,
    /// Why, in a sentence.
    pub why: &'static str,
}

impl Policy {
    /// What the field recommends.
    pub fn recommend(hardware: Hardware, purpose: Purpose) -> Recommendation {
        let (dtype, loss_scale, why) = match (hardware, purpose) {
            (Hardware::Cpu, Purpose::Training) => {
                (DType::BF16, LossScale::Off, "half the memory for activations; f32's range, so no loss scaling")
            }
            (Hardware::CudaPascal, Purpose::Training) => {
                (DType::F32, LossScale::Off, "no tensor cores: 16 bit would save memory but gain no speed")
            }
            (Hardware::CudaVolta, Purpose::Training) => {
                (DType::F16, LossScale::dynamic(), "tensor cores for f16 only; small gradients need loss scaling")
            }
            (Hardware::CudaAmpere, Purpose::Training) => (
                DType::BF16,
                LossScale::Off,
                "tensor cores run bf16 as fast as f16, and its range needs no loss scaling",
            ),
            (Hardware::Tpu, Purpose::Training) => {
                (DType::BF16, LossScale::Off, "the matrix unit multiplies bf16 and has no f16")
            }
            (Hardware::Cpu | Hardware::CudaPascal, Purpose::Inference) => (
                DType::F16,
                LossScale::Off,
                "half the bytes per weight, which bound inference; three more bits than bf16",
            ),
            (Hardware::CudaVolta | Hardware::CudaAmpere, Purpose::Inference) => (
                DType::F16,
                LossScale::Off,
                "three more bits than bf16 at the same rate; bf16 if the model was trained in it and overflows, int8 \
                 weights if memory binds",
            ),
            (Hardware::Tpu, Purpose::Inference) => {
                (DType::BF16, LossScale::Off, "the matrix unit multiplies bf16; int8 doubles its rate")
            }
        };
        Recommendation { policy: Policy::autocast(dtype), loss_scale, why }
    }
}
