//! [`gradient_stats`]: how large the gradients of a module's parameters are, read where they lie.

use bevy_ecs::prelude::*;
use neurarch_kernels::gradients::vector_norm;
use neurarch_kernels::ir::dtype::{Dtype, bf16, f16};
use neurarch_kernels::ir::program::Role;

use crate::errors::AccessError;
use crate::structure::access::{self, found_at};
use crate::structure::traverse::{self, Listing};
use crate::system_params::settled::settled;

/// How large the gradient of a parameter is.
#[derive(Clone, Debug, PartialEq)]
pub struct GradientStats {
    /// The parameter's dotted name.
    pub name: String,
    /// Whether the parameter needs a gradient now.
    pub requires_grad: bool,
    /// The Euclidean norm.
    pub norm: f64,
    /// The mean of the numbers without their signs; NaN if there are none.
    pub mean: f64,
    /// The greatest of the numbers without their signs.
    pub max: f64,
    /// Whether a number is infinite.
    pub has_inf: bool,
}

/// Measures the gradients of the parameters of a module and of all below it, as far as they have some.
///
/// # Errors
///
/// If the entity is no module of a model, or one that is not settled.
///
/// Source: `param.grad.norm(2)`, `param.grad.abs().mean()` and `.max()`.
pub fn gradient_stats(world: &World, module: Entity) -> Result<Vec<GradientStats>, AccessError> {
    let at = settled(world, module)?;
    let all = traverse::named_tensors(world, &at, Listing::default(), Role::Parameter);
    let mut stats = Vec::with_capacity(all.len());
    for tensor in all {
        let Ok(found) = found_at(world, &at, &tensor.name, None) else { continue };
        if !found.has_gradient(world) {
            continue;
        }
        let (dtype, numel) = (found.slot.ty.dtype, found.slot.ty.shape.numel());
        let requires_grad = found.requires_grad(world);
        let found = found.companion(Role::Gradient);
        let row = access::bytes(world, &found)?;
        let max = vector_norm(dtype, row, f64::INFINITY);
        stats.push(GradientStats {
            name: tensor.name,
            requires_grad,
            norm: vector_norm(dtype, row, 2.0),
            mean: vector_norm(dtype, row, 1.0) / numel as f64,
            max,
            has_inf: max.is_infinite() || max.is_nan() && has_inf(dtype, row),
        });
    }
    Ok(stats)
}

fn has_inf(dtype: Dtype, row: &[u8]) -> bool {
    fn any<T: bytemuck::Pod>(row: &[u8], is_infinite: impl Fn(T) -> bool) -> bool {
        bytemuck::cast_slice::<_, T>(row).iter().any(|&x| is_infinite(x))
    }
    match dtype {
        Dtype::F32 => any(row, f32::is_infinite),
        Dtype::F64 => any(row, f64::is_infinite),
        Dtype::F16 => any(row, f16::is_infinite),
        Dtype::BF16 => any(row, bf16::is_infinite),
        Dtype::I64 | Dtype::Bool => false,
    }
}
