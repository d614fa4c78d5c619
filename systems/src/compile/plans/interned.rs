//! [`Interned`]: one plan for all structures that run the same program.
//!
//! Structures side by side often differ in what no program speaks of, as in settings that lead to the same ops. What
//! they share takes memory once, and stays in the caches from one structure to the next.

use std::any::Any;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Weak};

use neurarch_kernels::ir::program::{Origin, Program, VerifyError};
use neurarch_kernels::plan::{Plan, PlanOptions};

/// The plans that are there, by the programs that they were made of.
#[derive(Default)]
pub(super) struct Interned {
    plans: HashMap<[u64; 2], Weak<Plan>>,
    /// How many there may be before those that are gone are looked for.
    most: usize,
}

impl Interned {
    /// Forgets all.
    pub(super) fn clear(&mut self) {
        self.plans.clear();
    }

    /// Plans a program, unless the same one is planned already.
    pub(super) fn plan(
        &mut self,
        program: Program,
        options: &PlanOptions,
    ) -> Result<Arc<Plan>, VerifyError> {
        // A program is told by two hashes, as a file by its checksum: one of 2¹²⁸ others has the same.
        let key = [0, 1].map(|number: u8| {
            let mut hasher = DefaultHasher::new();
            number.hash(&mut hasher);
            hash(&program, &mut hasher);
            hasher.finish()
        });
        if let Some(plan) = self.plans.get(&key).and_then(Weak::upgrade) {
            return Ok(plan);
        }
        let plan = Arc::new(Plan::new(program, options)?);
        self.plans.insert(key, Arc::downgrade(&plan));
        if self.plans.len() > self.most {
            self.plans.retain(|_, plan| plan.strong_count() > 0);
            self.most = 2 * self.plans.len() + 64;
        }
        Ok(plan)
    }
}

/// Hashes everything that a plan is made of, and that its errors name.
fn hash(program: &Program, hasher: &mut impl Hasher) {
    // Warnings and marks of spans are no part of what is planned.
    let Program {
        values,
        nodes,
        inputs,
        slots,
        scalars,
        scopes,
        outputs,
        stores,
        warnings: _,
        spans: _,
    } = program;
    values.len().hash(hasher);
    for value in values {
        value.ty.hash(hasher);
        core::mem::discriminant(&value.origin).hash(hasher);
        match value.origin {
            Origin::Input(number) | Origin::Slot(number) | Origin::Scalar(number) => {
                number.hash(hasher);
            }
            Origin::Constant(number) => number.to_bits().hash(hasher),
            Origin::Node { node, output } => (node, output).hash(hasher),
        }
    }
    nodes.len().hash(hasher);
    for node in nodes {
        // Two ops of one type and name with equal attributes compute the same.
        let op = &*node.op;
        ((op as &dyn Any).type_id(), op.name(), op.attributes()).hash(hasher);
        (node.inputs.as_slice(), node.outputs.as_slice(), node.scope, node.draw).hash(hasher);
    }
    slots.len().hash(hasher);
    for slot in slots {
        (&slot.name, slot.role, slot.position, slot.index, &slot.ty).hash(hasher);
    }
    scopes.len().hash(hasher);
    for scope in scopes {
        let function = scope.function.map(|function| function.name);
        (&scope.path, scope.module, scope.call, function).hash(hasher);
    }
    (inputs, scalars, outputs, stores).hash(hasher);
}
