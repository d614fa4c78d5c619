//! `embedding_renorm`: rows of a table that are named and too long are shortened.

use core::marker::PhantomData;

use crate::arithmetic::elementary;
use crate::cpu::kernel::{Cpu, Kernel};
use crate::cpu::sum::sum_of;
use crate::cpu::tile::Tile;
use crate::ir::dtype::Dtype;
use crate::ir::op::{Ask, Op, OpError};
use crate::ir::shape::Type;
use crate::ir::trace::Var;
use crate::ops::elementwise::number::Number;
use crate::ops::elementwise::pointwise::{computes, same_dtype};

/// What torch adds to a length that it divides by.
const EPS: f64 = 1e-7;

/// Shortens rows; inputs the table, the indices and the length, `[]`. There is no gradient, as in torch.
#[derive(Clone, Copy, Debug)]
struct EmbeddingRenorm {
    norm_type: f64,
}

impl Op for EmbeddingRenorm {
    fn name(&self) -> &'static str {
        "embedding_renorm"
    }

    fn attributes(&self) -> String {
        format!("norm_type={}", self.norm_type)
    }

    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>, OpError> {
        let [table, index, max_norm] = inputs else {
            return Err(OpError(format!("embedding_renorm: got {} inputs", inputs.len())));
        };
        computes("embedding_renorm", table)?;
        same_dtype("embedding_renorm", table, max_norm)?;
        if table.shape.rank() != 2 || index.dtype != Dtype::I64 || max_norm.shape.rank() != 0 {
            return Err(OpError(format!(
                "embedding_renorm: expected a matrix, indices of i64 and a number, got {table}, {index} and \
                 {max_norm}"
            )));
        }
        Ok(vec![table.clone()])
    }

    fn kernels(&self, ask: &mut Ask<'_>) {
        ask.give::<Cpu>(|inputs, _| {
            let columns = inputs[0].ty.shape[1];
            match inputs[0].ty.dtype {
                Dtype::F64 => Box::new(RenormKernel::<f64>(self.norm_type, columns, PhantomData)),
                _ => Box::new(RenormKernel::<f32>(self.norm_type, columns, PhantomData)),
            }
        });
    }
}

struct RenormKernel<T>(f64, usize, PhantomData<T>);

impl<T: Number> Kernel for RenormKernel<T> {
    fn run(&self, tile: &mut Tile<'_>) {
        let RenormKernel(p, columns, _) = *self;
        for model in 0..tile.models() {
            let (inputs, mut outputs, _) = tile.model(model).split();
            let (table, indices) = (inputs.get::<T>(0), inputs.get::<i64>(1));
            let max_norm: f64 = inputs.get::<T>(2)[0].into();
            let renormed = outputs.take::<T>();
            renormed.copy_from_slice(table);
            // A row that is named twice is shortened from its old numbers twice: once.
            for &index in indices {
                let row = usize::try_from(index).ok().and_then(|row| {
                    let range =
                        row.checked_mul(columns)?..row.checked_add(1)?.checked_mul(columns)?;
                    Some((table.get(range.clone())?, renormed.get_mut(range)?))
                });
                let Some((old, new)) = row else { continue };
                let length = norm(old, p);
                if length > max_norm {
                    let scale = T::from_f64(max_norm / (length + EPS));
                    new.iter_mut().zip(old).for_each(|(new, &old)| *new = old * scale);
                }
            }
        }
    }
}

/// `(Σ |x|ᵖ)^(1/p)`.
fn norm<T: Number>(row: &[T], p: f64) -> f64 {
    let size = |x: T| -> f64 {
        let x: f64 = x.into();
        x.abs()
    };
    let sizes = row.iter().map(|&x| size(x));
    match p {
        f64::INFINITY => sizes.fold(0.0, f64::max),
        f64::NEG_INFINITY => sizes.fold(f64::INFINITY, f64::min),
        0.0 => sizes.filter(|&x| x != 0.0).count() as f64,
        1.0 => sum_of(row, size),
        2.0 => sum_of(row, |x| size(x) * size(x)).sqrt(),
        _ => elementary::pow(sum_of(row, |x| elementary::pow(size(x), p)), 1.0 / p),
    }
}

impl Var {
    /// Gives this table with those rows shortened to `max_norm` that the indices name and whose `norm_type`-norm
    /// is larger; `max_norm` is `[]`. No gradient goes through.
    ///
    /// # Shape
    ///
    /// `self` is `[rows, columns]`, and so is the result; `index` is of any shape, of i64.
    ///
    /// Source: `torch.embedding_renorm_`, without the writing.
    #[must_use]
    pub fn embedding_renorm(&self, index: &Var, max_norm: &Var, norm_type: f64) -> Var {
        self.trace().apply(EmbeddingRenorm { norm_type }, &[self, index, max_norm])
    }
}
