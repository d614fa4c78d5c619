//! What a function is given: mostly what may fit, sometimes what nothing can be.

use neurarch_kernels::ir::dtype::Dtype;
use neurarch_kernels::ir::shape::Type;
use neurarch_kernels::ops::reduction::reduce::Reduction;

/// Random numbers, by `SplitMix64`, and the largest size that fits.
#[derive(Clone)]
pub(crate) struct Random(pub(crate) u64, pub(crate) usize);

impl Random {
    pub(crate) fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((x ^ (x >> 31)) % n as u64) as usize
    }

    pub(crate) fn one_of<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    pub(crate) fn flag(&mut self) -> bool {
        self.below(2) == 0
    }

    /// Mostly what is small, sometimes what nothing can be.
    pub(crate) fn size(&mut self) -> usize {
        match self.below(12) {
            0 => self.one_of(&[usize::MAX, usize::MAX / 2, 1 << 40, 1 << 62]),
            n => [1, 2, 3, 0, 1, 2, 3, 1, 2, 4, self.1][n - 1],
        }
    }

    pub(crate) fn sizes(&mut self) -> Vec<usize> {
        let n = self.one_of(&[1, 1, 2, 2, 2, 3, 3, 0, 4]);
        self.sizes_of(n)
    }

    pub(crate) fn sizes_of(&mut self, n: usize) -> Vec<usize> {
        (0..n).map(|_| self.size()).collect()
    }

    pub(crate) fn axis(&mut self) -> isize {
        match self.below(10) {
            0 => self.one_of(&[isize::MIN, isize::MAX, 7, -7]),
            n => [0, -1, 1, -2, 2, 0, -1, -3, 1][n - 1],
        }
    }

    pub(crate) fn axes(&mut self) -> Vec<isize> {
        (0..self.below(4)).map(|_| self.axis()).collect()
    }

    pub(crate) fn number(&mut self) -> f64 {
        let huge = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e300, -0.0, 1e-320];
        if self.below(6) == 0 {
            self.one_of(&huge)
        } else {
            self.one_of(&[0.0, 1.0, 2.0, 0.5, -1.0, 3.0])
        }
    }

    pub(crate) fn reduction(&mut self) -> Reduction {
        self.one_of(&[Reduction::None, Reduction::Mean, Reduction::Sum])
    }

    pub(crate) fn shape(&mut self) -> Vec<usize> {
        let rank = self.one_of(&[0, 1, 1, 2, 2, 2, 3, 3, 4, 4, 5]);
        (0..rank).map(|_| self.one_of(&[1, 2, 3, 2, 4, 0, self.1])).collect()
    }

    pub(crate) fn ty(&mut self) -> Type {
        let dtypes =
            [Dtype::F32, Dtype::F32, Dtype::F64, Dtype::I64, Dtype::Bool, Dtype::F16, Dtype::BF16];
        Type::new(self.one_of(&dtypes), self.shape())
    }

    /// What often fits: types alike, or of the same rank, with the last axes alike.
    pub(crate) fn types(&mut self, n: usize) -> Vec<Type> {
        let first = self.ty();
        let mut types = vec![first.clone()];
        for _ in 1..n {
            let mut ty = match self.below(5) {
                0 => self.ty(),
                1 => Type::new(first.dtype, self.shape()),
                2 => Type::new(Dtype::I64, first.shape.clone()),
                3 => Type::new(first.dtype, []),
                _ => first.clone(),
            };
            if self.below(4) == 0 && !ty.shape.is_empty() {
                let mut sizes = ty.shape.to_vec();
                match self.below(3) {
                    0 => sizes.rotate_left(1),
                    1 => drop(sizes.pop()),
                    _ => sizes.push(2),
                }
                ty = Type::new(ty.dtype, sizes);
            }
            types.push(ty);
        }
        types
    }
}
