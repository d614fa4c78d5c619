//! What can be toggled on a model: [`Mode`], [`HasGradient`] and [`Draws`], components of its root.
//!
//! Bits, not archetypes: toggling moves no weights.

use core::hash::{Hash, Hasher};

use bevy_ecs::prelude::*;
use neurarch_kernels::ir::autocast::Autocast;
use serde::{Deserialize, Serialize};

/// A set of small numbers: positions of a blueprint, or parameters in their order.
#[derive(Clone, Debug, Default, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<u64>", into = "Vec<u64>")]
pub struct Bits {
    first: u64,
    /// Members from 64 on; its last word is never 0, so that equal sets are equal values.
    rest: Box<[u64]>,
}

impl PartialEq for Bits {
    /// Small sets are compared without a look at the lists: of all models of a population, a comparison of empty ones
    /// takes as long as the rest.
    #[inline]
    fn eq(&self, other: &Bits) -> bool {
        self.first == other.first
            && self.rest.len() == other.rest.len()
            && (self.rest.is_empty() || self.rest == other.rest)
    }
}

impl Hash for Bits {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.first.hash(state);
        self.rest.hash(state);
    }
}

impl Bits {
    /// Makes the empty set.
    pub fn new() -> Self {
        Bits::default()
    }

    /// Makes the set of the numbers below `n`.
    pub fn below(n: usize) -> Self {
        (0..n).collect()
    }

    /// Returns whether `i` is in the set.
    #[inline]
    pub fn contains(&self, i: usize) -> bool {
        let word = if i < 64 { Some(&self.first) } else { self.rest.get(i / 64 - 1) };
        word.is_some_and(|word| word >> (i % 64) & 1 == 1)
    }

    /// Puts `i` in or takes it out.
    pub fn set(&mut self, i: usize, member: bool) {
        if i < 64 {
            self.first = self.first & !(1 << i) | u64::from(member) << i;
            return;
        }
        let word = i / 64 - 1;
        if word >= self.rest.len() {
            if !member {
                return;
            }
            let mut longer = self.rest.to_vec();
            longer.resize(word + 1, 0);
            self.rest = longer.into();
        }
        self.rest[word] = self.rest[word] & !(1 << (i % 64)) | u64::from(member) << (i % 64);
        if self.rest.last() == Some(&0) {
            let used = self.rest.iter().rposition(|&word| word != 0).map_or(0, |last| last + 1);
            self.rest = self.rest[..used].into();
        }
    }

    /// Takes out what is not in another set, too.
    pub fn intersect(&mut self, other: &Bits) {
        self.first &= other.first;
        let both = self.rest.iter().zip(&other.rest).map(|(own, other)| own & other);
        let mut rest: Vec<u64> = both.collect();
        rest.truncate(rest.iter().rposition(|&word| word != 0).map_or(0, |last| last + 1));
        self.rest = rest.into();
    }

    /// Returns whether both sets have the same members among those of `within`.
    #[inline]
    pub fn equal_within(&self, other: &Bits, within: &Bits) -> bool {
        let word = |bits: &Bits, word: usize| bits.rest.get(word).copied().unwrap_or_default();
        (self.first ^ other.first) & within.first == 0
            && (0..within.rest.len())
                .all(|at| (word(self, at) ^ word(other, at)) & within.rest[at] == 0)
    }

    /// Returns whether nothing is in the set.
    pub fn is_empty(&self) -> bool {
        self.first == 0 && self.rest.is_empty()
    }
}

/// Takes the words of a set, the least members first.
impl From<Vec<u64>> for Bits {
    fn from(words: Vec<u64>) -> Self {
        let used = words.iter().rposition(|&word| word != 0).map_or(0, |last| last + 1);
        let first = words.first().copied().unwrap_or_default();
        Bits { first, rest: words.get(1..used).unwrap_or_default().into() }
    }
}

/// Returns the words of a set without zeros at the end.
impl From<Bits> for Vec<u64> {
    fn from(bits: Bits) -> Self {
        let first = (!bits.is_empty()).then_some(bits.first);
        first.into_iter().chain(bits.rest).collect()
    }
}

impl FromIterator<usize> for Bits {
    fn from_iter<I: IntoIterator<Item = usize>>(members: I) -> Self {
        let mut bits = Bits::new();
        for i in members {
            bits.set(i, true);
        }
        bits
    }
}

/// Which program a model runs: its modules' modes, what is frozen, and whether it takes part at all.
///
/// The default is torch's: everything in training mode, every parameter with `requires_grad`, active.
///
/// Source: `torch.nn.Module.training`, `torch.Tensor.requires_grad`.
#[derive(Component, Clone, Debug, Default, Hash, PartialEq, Eq, Serialize, Deserialize)]
#[component(summary_tick)]
pub struct Mode {
    /// Positions in evaluation mode.
    pub evaluating: Bits,
    /// Parameters without `requires_grad`, by their number in the order of `named_parameters()`.
    pub frozen: Bits,
    /// Whether the model is passed over: nothing of it changes by a bit.
    pub inactive: bool,
    /// What is computed again on the way back; `None` if nothing is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoints: Option<Box<Checkpoints>>,
    /// Whether a module of the model has [`Hooks`](crate::hook::Hooks) of its own: it runs apart
    /// from those whose hooks are others.
    #[serde(skip)]
    pub hooked: bool,
    /// Whether parametrized tensors are computed once in a pass, however often they are read.
    #[serde(skip)]
    pub cached: bool,
}

/// Parts of a model whose activations are computed again on the way back, rather than kept until then.
///
/// Source: `torch.utils.checkpoint`.
#[derive(Clone, Debug, Default, Hash, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoints {
    /// Positions whose modules are such parts while they are in training mode, with all below them.
    pub modules: Bits,
    /// Children of a `Sequential` with which such a part of it begins. It counts while the `Sequential` is in training
    /// mode.
    pub begins: Bits,
    /// Children that belong to the part of the one before them.
    pub continues: Bits,
}

impl Checkpoints {
    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.modules.is_empty() && self.begins.is_empty() && self.continues.is_empty()
    }
}

impl Mode {
    /// Changes what is computed again on the way back.
    pub fn change_checkpoints(&mut self, change: impl FnOnce(&mut Checkpoints)) {
        let mut checkpoints = self.checkpoints.take().unwrap_or_default();
        change(&mut checkpoints);
        self.checkpoints = Some(checkpoints).filter(|of| !of.is_empty());
    }

    /// Returns whether a model of the other mode runs the same program, if only the modules at some positions ask for
    /// [`Call::training`](crate::module::call::Call::training).
    #[inline]
    pub fn runs_like(&self, other: &Mode, asking: &Bits) -> bool {
        self.evaluating.equal_within(&other.evaluating, asking)
            && self.frozen == other.frozen
            && (self.inactive, self.hooked, self.cached)
                == (other.inactive, other.hooked, other.cached)
            && self.checkpoints == other.checkpoints
    }

    /// Returns whether a model of the other mode computes the same, and keeps the same until the way back: hooks decide
    /// neither.
    pub fn computes_like(&self, other: &Mode) -> bool {
        self.evaluating == other.evaluating
            && self.frozen == other.frozen
            && self.checkpoints == other.checkpoints
            && self.inactive == other.inactive
    }
}

/// Which parameters of a model have a gradient (torch's `.grad is not None`), by their number in the
/// order of `named_parameters()`.
#[derive(Component, Clone, Debug, Default, Hash, PartialEq, Eq, Serialize, Deserialize)]
#[component(summary_tick)]
pub struct HasGradient(pub Bits);

/// How often a model has run a program that draws random numbers: the step of its
/// [`RngKey`](neurarch_kernels::ir::rng_key::RngKey).
#[derive(Component, Clone, Copy, Debug, Default, Hash, PartialEq, Eq, Serialize, Deserialize)]
#[component(summary_tick)]
pub struct Draws(pub u64);

/// Whether forward passes keep what a backward pass will need: a resource. Without it they do.
///
/// Source: `torch.set_grad_enabled`.
#[derive(Resource, Clone, Copy, Debug, PartialEq, Eq)]
pub struct GradMode(pub bool);

/// What autocast does in forward passes and losses: a resource. Without it, nothing.
///
/// Source: `torch.is_autocast_enabled`.
#[derive(Resource, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AutocastMode(pub Option<Autocast>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_sets_are_equal_values() {
        let mut bits: Bits = [3, 64, 200].into_iter().collect();
        assert!(bits.contains(3) && bits.contains(64) && bits.contains(200));
        assert!(!bits.contains(4) && !bits.contains(65) && !bits.contains(1000));
        bits.set(200, false);
        bits.set(64, false);
        bits.set(500, false);
        assert_eq!(bits, [3].into_iter().collect());
        bits.set(3, false);
        assert!(bits.is_empty());
    }

    #[test]
    fn sets_are_compared_within_another() {
        let of = |members: &[usize]| members.iter().copied().collect::<Bits>();
        let (a, b) = (of(&[3, 64, 200]), of(&[3, 65]));
        for (within, is_equal) in [(of(&[3, 4]), true), (of(&[3, 64]), false), (of(&[200]), false)]
        {
            assert_eq!(a.equal_within(&b, &within), is_equal);
            let both = [&a, &b].map(|bits| {
                let mut bits = bits.clone();
                bits.intersect(&within);
                bits
            });
            assert_eq!(both[0] == both[1], is_equal);
        }
    }
}
