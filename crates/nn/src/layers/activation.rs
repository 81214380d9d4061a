//! Activations with parameters, as layers. Those without are [`Activation`](super::Activation) of a
//! [`Unary`](binade_tensor::op::Unary) row: `Activation(Unary::Mish)`.

use binade_autograd::Var;

use crate::{Init, Layer, Module, Param, Result, Visitor};

/// A layer of one method call: struct, settings, defaults of PyTorch.
macro_rules! activations {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $t:ty = $default:expr),* }
       |$s:ident, $x:ident| $call:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, Module)]
        pub struct $name { $($(#[$field_doc])* pub $field: $t,)* }

        impl Default for $name {
            fn default() -> $name {
                $name { $($field: $default),* }
            }
        }

        impl Layer for $name {
            fn run(&self, $x: &Var) -> Result<Var> {
                let $s = self;
                Ok($call?)
            }
        }
    )*};
}

activations! {
    /// `x > 0 ? x : slope·x`.
    LeakyRelu { /// Slope left of 0.
        slope: f64 = 0.01 } |s, x| x.leaky_relu_with(s.slope);
    /// `x > 0 ? x : α(eˣ − 1)`.
    Elu { /// α.
        alpha: f64 = 1.0 } |s, x| x.elu_with(s.alpha);
    /// `x > 0 ? x : α(e^(x/α) − 1)`.
    Celu { /// α.
        alpha: f64 = 1.0 } |s, x| x.celu_with(s.alpha);
    /// `ln(1 + e^(βx))/β`. f32 inside autocast.
    Softplus { /// β.
        beta: f64 = 1.0 } |s, x| x.softplus_with(s.beta);
    /// x limited to `low..=high`.
    Hardtanh { /// Lower limit.
        low: f64 = -1.0, /// Upper limit.
        high: f64 = 1.0 } |s, x| x.hardtanh(s.low, s.high);
    /// `a·σ(b)` of the halves of a dimension.
    Glu { /// Dimension.
        dim: isize = -1 } |s, x| x.glu(s.dim);
    /// `silu(a)·b` of the halves of a dimension.
    SwiGlu { /// Dimension.
        dim: isize = -1 } |s, x| x.swiglu(s.dim);
    /// Softmax along a dimension.
    Softmax { /// Dimension.
        dim: isize = -1 } |s, x| x.softmax(s.dim);
}

/// Leaky ReLU with a learned slope, one for all channels or one per channel (dimension 1).
#[derive(Clone, Module)]
pub struct PRelu {
    /// `[1]` or `[C]`
    pub weight: Param,
}

impl PRelu {
    /// With slopes of 0.25, as PyTorch.
    ///
    /// # Errors
    /// The shape is too large.
    pub fn new(channels: usize) -> Result<PRelu> {
        Ok(PRelu { weight: Param::init(&[channels], Init::Constant(0.25))? })
    }
}

impl Layer for PRelu {
    fn run(&self, x: &Var) -> Result<Var> {
        let weight = self.weight.var();
        let mut shape = vec![1isize; x.shape().rank().max(1)];
        let at = usize::from(shape.len() > 1 && weight.shape().numel() > 1);
        shape[at] = weight.shape().numel() as isize;
        Ok(x.prelu(&weight.reshape(&shape)?)?)
    }
}
