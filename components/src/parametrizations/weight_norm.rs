//! [`WeightNorm`]: a tensor as its length times its direction.

use bevy_ecs::prelude::*;
use neurarch_kernels::ir::trace::Var;
use neurarch_kernels::ir::tree::{Arguments, Tree};

use super::WeightNorm;
use crate::module::{Call, Module, NoInverse};

impl Module for WeightNorm {
    fn type_name(&self) -> &'static str {
        "_WeightNorm"
    }

    fn forward_with(&self, call: &Call<'_>, arguments: Arguments) -> Tree {
        match &arguments.positional[..] {
            [Tree::Leaf(g), Tree::Leaf(v)] if arguments.keyword.is_empty() => {
                self.join(g, v).into()
            }
            _ => {
                let given = arguments.positional.len();
                call.trace
                    .fail(format!("_WeightNorm.forward(): expected two Tensors, got {given}"))
                    .into()
            }
        }
    }

    fn right_inverse(&self, _: &Call<'_>, tensor: Var) -> Result<Tree, NoInverse> {
        Ok((self.norm(&tensor), tensor).into())
    }
}
