//! [`Plans`]: the plans of every blueprint, made at first use.

use std::sync::Arc;

use bevy_ecs::prelude::*;
use neurarch_components::blueprint::{BlueprintId, Blueprints};
use neurarch_components::losses::DynLoss;
use neurarch_kernels::cpu::memory::padded;
use neurarch_kernels::dtype::Dtype;
use neurarch_kernels::passes::plan::{Plan, PlanOptions};
use neurarch_kernels::program::Program;
use neurarch_kernels::shape::Type;

use crate::launch::Output;
use crate::step::StepError;
use crate::trace::{self, Scheme};

/// What a program does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Input `x`; output `y`.
    Forward,
    /// Input `x`; outputs `y`, then the saved values of the tape.
    Tape,
    /// Inputs the gradient of `y`, then the saved values; stores gradients.
    Backward,
    /// Inputs `y`, the target, the loss's arrays; outputs the loss, then the gradient of `y` unless the
    /// loss is an array.
    Loss,
    /// Stores parameters and optimizer state.
    Step,
    /// Stores zeros to the gradients that there are.
    ZeroGradients,
    /// Inputs `x`, the target, the loss's arrays; output the loss; stores as [`Kind::Step`].
    TrainStep,
}

/// A type that is not owned: an element type and sizes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TypeRef<'a> {
    pub(crate) dtype: Dtype,
    pub(crate) shape: &'a [usize],
}

impl TypeRef<'_> {
    pub(crate) fn to_type(self) -> Type {
        Type::new(self.dtype, self.shape)
    }

    pub(crate) fn is(self, ty: &Type) -> bool {
        self.dtype == ty.dtype && *self.shape == *ty.shape
    }
}

impl<'a> From<&'a Type> for TypeRef<'a> {
    fn from(ty: &'a Type) -> Self {
        TypeRef { dtype: ty.dtype, shape: &ty.shape }
    }
}

/// A program that is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request<'a> {
    pub(crate) kind: Kind,
    /// The type of `x`, or of `y` for [`Kind::Loss`].
    pub(crate) x: Option<TypeRef<'a>>,
    /// The type of the target.
    pub(crate) target: Option<TypeRef<'a>>,
    pub(crate) loss: Option<&'a dyn DynLoss>,
}

/// A plan and what it is for.
pub(crate) struct Planned {
    kind: Kind,
    x: Option<Type>,
    target: Option<Type>,
    pub(crate) plan: Plan,
    /// The type of the last module's result, where it is not an output.
    pub(crate) y: Option<Type>,
    /// The types of the outputs.
    pub(crate) outputs: Vec<Type>,
    /// Where they go: the first into array 0, the others side by side into array 1.
    pub(crate) places: Vec<Output>,
    /// For [`Kind::Tape`] and [`Kind::Backward`], bytes of a row of the tape.
    pub(crate) tape_bytes: usize,
    /// For [`Kind::Backward`], where its saved values lie in such a row.
    pub(crate) saved: Vec<usize>,
    /// Which slots of the plan it writes.
    pub(crate) written: Vec<bool>,
    /// Whether it draws random numbers.
    pub(crate) is_random: bool,
}

impl Planned {
    /// Says whether this is the plan that `request` asks for, the loss aside.
    pub(crate) fn answers(&self, request: &Request<'_>) -> bool {
        let is = |own: &Option<Type>, asked: Option<TypeRef<'_>>| match (own, asked) {
            (None, None) => true,
            (Some(own), Some(asked)) => asked.is(own),
            _ => false,
        };
        self.kind == request.kind && is(&self.x, request.x) && is(&self.target, request.target)
    }

    fn new(
        request: &Request<'_>,
        kind: Kind,
        program: Program,
        options: &PlanOptions,
    ) -> Result<Self, StepError> {
        let outputs: Vec<_> = program.outputs.iter().map(|&id| program.ty(id).clone()).collect();
        let (offsets, tape_bytes) = side_by_side(outputs.get(1..).unwrap_or(&[]));
        let at = |(array, offset)| Output { array, offset, step_bytes: 0 };
        let places = std::iter::once((0, 0)).chain(offsets.into_iter().map(|offset| (1, offset)));
        let is_random = program.nodes.iter().any(|node| node.op.is_random());
        let plan = Plan::new(program, options)?;
        let stores = &plan.program.stores;
        let is_written = |slot| stores.iter().any(|&(written, _)| written == slot);
        Ok(Planned {
            kind,
            x: request.x.map(TypeRef::to_type),
            target: request.target.map(TypeRef::to_type),
            y: None,
            places: places.take(outputs.len()).map(at).collect(),
            outputs,
            tape_bytes,
            saved: Vec::new(),
            is_random,
            written: (0..plan.program.slots.len()).map(is_written).collect(),
            plan,
        })
    }
}

/// Gives the offsets of values that lie side by side, each on a cache line of its own, and the size of
/// all.
fn side_by_side(types: &[Type]) -> (Vec<usize>, usize) {
    let mut end = 0;
    let offsets = types.iter().map(|ty| {
        let start = end;
        end += padded(ty.size_bytes());
        start
    });
    (offsets.collect(), end)
}

/// The plans of every blueprint.
#[derive(Resource, Default)]
pub struct Plans {
    /// How new plans are made: for tests, which force a size of tiles.
    pub options: PlanOptions,
    /// By the blueprint's place; a place is used again for another blueprint, of a later generation.
    shelves: Vec<Shelf>,
}

#[derive(Default)]
struct Shelf {
    generation: u64,
    entries: Vec<Entry>,
}

struct Entry {
    scheme: Scheme,
    loss: Option<Box<dyn DynLoss>>,
    planned: Arc<Planned>,
}

impl Plans {
    /// Forgets all plans, so that new [`options`](Plans::options) take effect on what runs after the
    /// next change of a population.
    pub fn clear(&mut self) {
        self.shelves.clear();
    }

    /// Gives the plan that `request` asks for, for models of `scheme`.
    pub(crate) fn of(
        world: &mut World,
        blueprint: BlueprintId,
        scheme: &Scheme,
        request: &Request<'_>,
    ) -> Result<Arc<Planned>, StepError> {
        let blueprints = world.get_resource::<Blueprints>();
        let generation = blueprints.and_then(|all| all.generation(blueprint)).unwrap_or_default();
        let place = blueprint.0 as usize;
        let mut plans = world.get_resource_or_init::<Plans>();
        if plans.shelves.len() <= place {
            plans.shelves.resize_with(place + 1, Shelf::default);
        }
        let options = plans.options;
        let shelf = &mut plans.shelves[place];
        if shelf.generation != generation {
            *shelf = Shelf { generation, entries: Vec::new() };
        }
        let known = shelf.entries.iter().find(|entry| entry.answers(scheme, request));
        if let Some(entry) = known {
            return Ok(entry.planned.clone());
        }
        let made = plan(scheme, request, &options)?;
        let wanted = made.iter().find(|planned| planned.kind == request.kind).cloned();
        shelf.entries.extend(made.into_iter().map(|planned| Entry {
            scheme: scheme.clone(),
            loss: request.loss.map(DynLoss::clone_box),
            planned,
        }));
        Ok(wanted.expect("`plan` makes what it is asked for"))
    }
}

impl Entry {
    fn answers(&self, scheme: &Scheme, request: &Request<'_>) -> bool {
        let is_like = match (&self.loss, request.loss) {
            (None, None) => true,
            (Some(own), Some(asked)) => own.is_like(asked),
            _ => false,
        };
        let (needs_gradients, needs_groups) = match request.kind {
            Kind::Forward | Kind::Tape | Kind::Loss => (false, false),
            Kind::Backward | Kind::ZeroGradients => (true, false),
            Kind::Step => (true, true),
            Kind::TrainStep => (false, true),
        };
        is_like
            && self.planned.answers(request)
            && self.scheme.mode == scheme.mode
            && (!needs_gradients || self.scheme.has_gradient == scheme.has_gradient)
            && (!needs_groups || self.scheme.groups == scheme.groups)
    }
}

/// Traces and plans; a forward pass with a tape comes with its backward pass.
fn plan(
    scheme: &Scheme,
    request: &Request<'_>,
    options: &PlanOptions,
) -> Result<Vec<Arc<Planned>>, StepError> {
    let x = || request.x.map(TypeRef::to_type).expect("a pass over numbers says their type");
    let target = || request.target.map(TypeRef::to_type).expect("a loss has targets");
    let loss = || request.loss.expect("a request for a loss names it");
    let mut y = None;
    let program = match request.kind {
        Kind::Forward => trace::forward(scheme, x())?,
        Kind::Loss => trace::loss(loss(), x(), target())?,
        Kind::Step => trace::step(scheme)?,
        Kind::ZeroGradients => trace::zero_gradients(scheme)?,
        Kind::TrainStep => {
            let (program, of_y) = trace::train_step(scheme, loss(), x(), target())?;
            y = Some(of_y);
            program
        }
        Kind::Tape | Kind::Backward => {
            let split = trace::forward_and_backward(scheme, x())?;
            let (saved, _) = side_by_side(&split.saved);
            let tape = Planned::new(request, Kind::Tape, split.forward, options)?;
            let backward = Planned::new(request, Kind::Backward, split.backward, options)?;
            return Ok(vec![Arc::new(tape), Arc::new(Planned { saved, ..backward })]);
        }
    };
    let planned = Planned::new(request, request.kind, program, options)?;
    Ok(vec![Arc::new(Planned { y, ..planned })])
}
