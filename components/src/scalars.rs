//! [`Scalars`]: fields of which each model has a number of its own.

/// Numbers that decide neither shapes nor ops: a program reads them from each model's own component, so that models which
/// differ in them alone run together. `#[derive(Scalars)]` implements it by the fields with `#[scalar]`.
///
/// # Example
///
/// ```
/// use neurarch_components::scalars::Scalars as _;
///
/// #[derive(Clone, Debug, PartialEq, neurarch_components::Scalars)]
/// struct Lion {
///     #[scalar]
///     lr: f64,
///     #[scalar("beta1", "beta2")]
///     betas: (f64, f64),
///     maximize: bool,
/// }
///
/// let mut lion = Lion { lr: 1e-4, betas: (0.9, 0.99), maximize: true };
/// assert_eq!(lion.scalar_names(), ["lr", "beta1", "beta2"]);
/// assert_eq!((lion.scalar("beta2"), lion.scalar("maximize")), (Some(0.99), None));
/// *lion.scalar_mut("lr").expect("it is a slot") *= 0.5;
/// assert_eq!(lion.scalar("lr"), Some(5e-5));
/// assert_eq!(lion.structural(), Lion { lr: 0.0, betas: (0.0, 0.0), maximize: true });
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` has not said which of its fields are scalar slots",
    note = "derive `Scalars`"
)]
pub trait Scalars: Sized {
    /// Returns a copy in which every scalar slot has a fixed value: what decides the program.
    fn structural(&self) -> Self;

    /// Reads a scalar slot; `None` if there is none of that name.
    fn scalar(&self, name: &str) -> Option<f64>;

    /// Returns a scalar slot to be changed; `None` if there is none of that name.
    fn scalar_mut(&mut self, name: &str) -> Option<&mut f64>;

    /// Names the scalar slots in the order of their fields; some may not be there.
    fn scalar_names(&self) -> &'static [&'static str];
}

/// What a field with `#[scalar]` and `SLOTS` names may be: a number, one that may be missing, or some of these.
/// Whether a number is there is structure.
#[diagnostic::on_unimplemented(
    message = "a field of type `{Self}` has not {SLOTS} scalar slots",
    note = "`f64` and `Option<f64>` have one slot, tuples of them two or three: `#[scalar(\"beta1\", \"beta2\")]`"
)]
pub trait ScalarField<const SLOTS: usize>: Clone {
    /// Reads a slot, if it is there.
    fn slot(&self, slot: usize) -> Option<f64>;

    /// Returns a slot to be changed, if it is there.
    fn slot_mut(&mut self, slot: usize) -> Option<&mut f64>;

    /// Returns a copy in which all slots that are there are 0.
    fn fixed(&self) -> Self {
        let mut copy = self.clone();
        for slot in 0..SLOTS {
            copy.slot_mut(slot).into_iter().for_each(|number| *number = 0.0);
        }
        copy
    }
}

impl ScalarField<1> for f64 {
    fn slot(&self, slot: usize) -> Option<f64> {
        (slot == 0).then_some(*self)
    }

    fn slot_mut(&mut self, slot: usize) -> Option<&mut f64> {
        (slot == 0).then_some(self)
    }
}

impl ScalarField<1> for Option<f64> {
    fn slot(&self, slot: usize) -> Option<f64> {
        self.filter(|_| slot == 0)
    }

    fn slot_mut(&mut self, slot: usize) -> Option<&mut f64> {
        self.as_mut().filter(|_| slot == 0)
    }
}

impl<A: ScalarField<1>, B: ScalarField<1>> ScalarField<2> for (A, B) {
    fn slot(&self, slot: usize) -> Option<f64> {
        match slot {
            0 => self.0.slot(0),
            _ => self.1.slot(slot.checked_sub(1)?),
        }
    }

    fn slot_mut(&mut self, slot: usize) -> Option<&mut f64> {
        match slot {
            0 => self.0.slot_mut(0),
            _ => self.1.slot_mut(slot.checked_sub(1)?),
        }
    }
}

impl<A: ScalarField<1>, B: ScalarField<1>, C: ScalarField<1>> ScalarField<3> for (A, B, C) {
    fn slot(&self, slot: usize) -> Option<f64> {
        match slot {
            0 => self.0.slot(0),
            1 => self.1.slot(0),
            _ => self.2.slot(slot.checked_sub(2)?),
        }
    }

    fn slot_mut(&mut self, slot: usize) -> Option<&mut f64> {
        match slot {
            0 => self.0.slot_mut(0),
            1 => self.1.slot_mut(0),
            _ => self.2.slot_mut(slot.checked_sub(2)?),
        }
    }
}
