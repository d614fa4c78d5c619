//! `affine_grid`: where the pixels of an image lie after an affine map. And `centers`: even coordinates.
//!
//! Source: `torch.nn.functional.affine_grid`.

use crate::cpu::kernel::Cpu;
use crate::cpu::tile::Tile;
use crate::ir::dtype::Dtype;
use crate::ir::op::{Ask, Op, OpError};
use crate::ir::shape::{Shape, Type};
use crate::ir::trace::{Trace, Var};
use crate::ops::elementwise::number::Number;
use crate::ops::elementwise::pointwise::computes;

/// There is no input.
#[derive(Clone, Debug)]
struct Centers {
    ty: Type,
    align_corners: bool,
}

impl Op for Centers {
    fn name(&self) -> &'static str {
        "centers"
    }

    fn attributes(&self) -> String {
        format!("{} align_corners={}", self.ty, self.align_corners)
    }

    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>, OpError> {
        computes("centers", &self.ty)?;
        match inputs {
            [] => Ok(vec![self.ty.clone()]),
            _ => Err(OpError(format!("centers: expected no inputs, got {}", inputs.len()))),
        }
    }

    fn kernels(&self, ask: &mut Ask<'_>) {
        ask.give::<Cpu>(|_, _| {
            fn of<T: Number>(tile: &mut Tile<'_>, align_corners: bool) {
                for model in 0..tile.models() {
                    let (_, mut outputs, _) = tile.model(model).split();
                    let centers = outputs.take::<T>();
                    let n = centers.len() as f64;
                    for (i, center) in centers.iter_mut().enumerate() {
                        let i = i as f64;
                        *center = T::from_f64(match align_corners {
                            true if n <= 1.0 => 0.0,
                            true => 2.0 * i / (n - 1.0) - 1.0,
                            false => (2.0 * i + 1.0) / n - 1.0,
                        });
                    }
                }
            }
            let align_corners = self.align_corners;
            match self.ty.dtype {
                Dtype::F64 => Box::new(move |tile: &mut Tile<'_>| of::<f64>(tile, align_corners)),
                _ => Box::new(move |tile: &mut Tile<'_>| of::<f32>(tile, align_corners)),
            }
        });
    }
}

impl Trace {
    /// Gives the centers of `n` pixels that fill -1 to 1; if `align_corners`, the first one lies on -1 and the last on 1.
    ///
    /// Source: `torch.linspace`, of the coordinates in `torch.nn.functional.affine_grid`.
    pub fn centers(&self, dtype: Dtype, n: usize, align_corners: bool) -> Var {
        self.apply(Centers { ty: Type::new(dtype, [n]), align_corners }, &[])
    }
}

impl Var {
    /// Maps the coordinates of pixels by affine maps: for [`grid_sample`](Var::grid_sample).
    ///
    /// # Shape
    ///
    /// `self` is `[batch, 2, 3]` for a `size` of `[batch, channels, height, width]`, the result then
    /// `[batch, height, width, 2]`; `[batch, 3, 4]` and `[batch, depth, height, width, 3]` for one more axis.
    ///
    /// Source: `torch.nn.functional.affine_grid`.
    #[must_use]
    pub fn affine_grid(&self, size: &[usize], align_corners: bool) -> Var {
        let trace = self.trace();
        if self.id().is_none() {
            return self.clone();
        }
        let axes = size.len().wrapping_sub(2);
        if axes != 2 && axes != 3 {
            return trace.fail(format!(
                "affine_grid only supports 4D and 5D sizes, for 2D and 3D affine transforms, respectively. Got size \
                 {size:?}."
            ));
        }
        let shape = self.shape();
        if shape.rank() != 3 || shape[1..] != [axes, axes + 1] {
            let rows = axes + 1;
            return trace.fail(format!(
                "Expected a batch of {axes}D affine matrices of shape Nx{axes}x{rows} for size {size:?}. Got \
                 torch.Size({shape})."
            ));
        }
        if size.contains(&0) || shape[0] != size[0] {
            return trace.fail(format!("Expected non-zero, positive output size. Got {size:?}"));
        }
        // The last column of each map is where 0 goes; the first one belongs to the last axis.
        let column = |place: usize| {
            let ones = vec![1; axes];
            let shape = [size[0]].into_iter().chain(ones).chain([axes]).collect::<Shape>();
            self.slice(2, place..place + 1).reshape(shape)
        };
        let along = |axis: usize| {
            let n = size[2 + axis];
            let mut shape = vec![1; axes + 2];
            shape[1 + axis] = n;
            trace.centers(self.dtype(), n, align_corners).reshape(shape.as_slice())
        };
        (0..axes).fold(column(axes), |sum, place| sum + along(axes - 1 - place) * column(place))
    }
}
