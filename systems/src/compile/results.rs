//! [`Results`]: what a model gives, and how it lies in a row.

use neurarch_kernels::ir::shape::Type;
use neurarch_kernels::ir::tree::Tree;
use neurarch_kernels::memory::padded;

use crate::errors::StepError;

/// What a model gives: values, side by side in a row.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Results {
    pub(crate) types: Vec<Type>,
    /// How they are nested: at each leaf the place in `types`.
    pub(crate) tree: Tree<usize>,
    /// Where each lies in a row.
    pub(crate) offsets: Vec<usize>,
    pub(crate) row_bytes: usize,
}

impl Results {
    pub(crate) fn new(types: Vec<Type>, tree: Tree<usize>) -> Self {
        let (offsets, row_bytes) = match (types.as_slice(), &tree) {
            ([ty], Tree::Leaf(_)) => (vec![0], ty.size_bytes()),
            _ => side_by_side(&types),
        };
        Results { types, tree, offsets, row_bytes }
    }

    /// Returns the type if there is just one value.
    pub(crate) fn only(&self) -> Option<&Type> {
        self.tree.leaf().and_then(|&place| self.types.get(place))
    }

    /// Lists type and offset of the values that have gradients.
    pub(crate) fn floats(&self) -> impl Iterator<Item = (&Type, usize)> {
        let all = self.types.iter().zip(self.offsets.iter().copied());
        all.filter(|(ty, _)| ty.dtype.is_float())
    }

    /// Checks that the results of other models fit beside these.
    pub(crate) fn check(&self, other: &Results) -> Result<(), StepError> {
        if self == other {
            return Ok(());
        }
        let differ = |(a, b): &(&Type, &Type)| a != b;
        match self.types.iter().zip(&other.types).find(differ) {
            Some((a, b)) => {
                let (expected, given) = (a.shape.clone(), b.shape.clone());
                Err(StepError::Shape { array: "result", expected, given })
            }
            None => {
                Err(StepError::Results { expected: self.types.len(), given: other.types.len() })
            }
        }
    }
}

/// Returns the offsets of values that lie side by side, each on a cache line of its own, and the size of
/// all.
pub(crate) fn side_by_side(types: &[Type]) -> (Vec<usize>, usize) {
    let mut end = 0;
    let offsets = types.iter().map(|ty| {
        let start = end;
        end += padded(ty.size_bytes());
        start
    });
    (offsets.collect(), end)
}
