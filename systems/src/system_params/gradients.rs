//! [`gradient_stats`]: how large the gradient of a parameter is, read where they lie.

use neurarch_kernels::gradients::vector_norm;
use neurarch_kernels::ir::dtype::{Dtype, bf16, f16};

use crate::errors::AccessError;
use crate::system_params::columns::ParameterColumn;

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

/// Measures the gradient of a parameter in the model at `place` of its column; `None` if it has none.
///
/// # Errors
///
/// If its column is gone.
///
/// Source: `param.grad.norm(2)`, `param.grad.abs().mean()` and `.max()`.
pub fn gradient_stats(
    column: &ParameterColumn<'_>,
    place: usize,
) -> Result<Option<GradientStats>, AccessError> {
    let Some(row) = column.gradient(place)? else { return Ok(None) };
    let (dtype, numel) = (column.ty().dtype, column.ty().shape.numel());
    let max = vector_norm(dtype, row, f64::INFINITY);
    Ok(Some(GradientStats {
        name: column.name().to_owned(),
        requires_grad: column.requires_grad(place),
        norm: vector_norm(dtype, row, 2.0),
        mean: vector_norm(dtype, row, 1.0) / numel as f64,
        max,
        has_inf: max.is_infinite() || max.is_nan() && has_inf(dtype, row),
    }))
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
