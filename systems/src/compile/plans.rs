//! [`Plans`]: the plans of every blueprint, made at first use.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use bevy_ecs::prelude::*;
use neurarch_components::losses::DynLoss;
use neurarch_components::module::blueprint::BlueprintId;
use neurarch_components::population::blueprints::Blueprints;
use neurarch_components::warnings::Warnings;
use neurarch_kernels::ir::autocast::Autocast;
use neurarch_kernels::ir::program::{Program, Role, Slot};
use neurarch_kernels::ir::shape::Type;
use neurarch_kernels::plan::{Plan, PlanOptions};

use crate::compile::array::TypeRef;
use crate::compile::entrance::Entrance;
use crate::compile::results::{Results, side_by_side};
use crate::compile::script::{Act, Event, Kinds};
use crate::compile::trace;
use crate::compile::trace::{Inputs, Scheme, SharedOutputs};
use crate::errors::{BindError, StepError};
use crate::storage::launch::Output;

mod interned;
mod request;

use interned::Interned;
use request::{Asked, Reader};
pub(crate) use request::{Kind, Request};

/// A plan and what it is for.
pub(crate) struct Planned {
    asked: Asked,
    /// The kinds of hooks at each position, if what they see is given too.
    pub(crate) watched: Vec<Kinds>,
    /// What hooks will be told of.
    pub(crate) events: Vec<Event>,
    /// What autocast did to it.
    pub(crate) autocast: Option<Autocast>,
    /// Where it enters the model.
    pub(crate) entry: Option<Arc<Entrance>>,
    pub(crate) plan: Arc<Plan>,
    /// What the model gives, where it is called.
    pub(crate) results: Option<Results>,
    /// The types of the outputs.
    pub(crate) outputs: Vec<Type>,
    /// Where they go: the model's results, or else the loss, into array 0; what hooks see, side by side, into
    /// array 2; the others likewise into array 1.
    pub(crate) places: Vec<Output>,
    /// Bytes of a row of array 2.
    pub(crate) seen_bytes: usize,
    /// For [`Kind::Tape`] and [`Kind::Backward`], bytes of a row of the tape.
    pub(crate) tape_bytes: usize,
    /// For [`Kind::Backward`], where its saved values lie in such a row.
    pub(crate) saved: Vec<usize>,
    /// Which slots of the plan it writes.
    pub(crate) written: Vec<bool>,
    /// For [`Kind::Backward`], the parameters and buffers that it reads.
    pub(crate) reads: Vec<Slot>,
    /// Whether it draws random numbers.
    pub(crate) is_random: bool,
    /// Of the last outputs, gradients of parameters that the population's models share, each one's place
    /// among what they share.
    pub(crate) shared: SharedOutputs,
    usage: Usage,
}

/// What decides how long a plan is kept.
#[derive(Default)]
struct Usage {
    /// What the plan takes, and what cohorts keep with it.
    bytes: AtomicUsize,
    /// The call that used it last.
    last_used: AtomicU64,
    /// For how many models it was used at most.
    models: AtomicUsize,
    is_evicted: AtomicBool,
}

impl Planned {
    /// Says that a call uses the plan for so many models.
    pub(crate) fn mark_used(&self, call: u64, models: usize) {
        self.usage.last_used.store(call, Ordering::Relaxed);
        self.usage.models.fetch_max(models, Ordering::Relaxed);
    }

    /// Returns the bytes of the arenas in which it runs at the same time for so many models, at most.
    pub(crate) fn workspace_bytes(&self, models: usize) -> usize {
        let threads = rayon::current_num_threads();
        let at_once = models.min(self.plan.tile().saturating_mul(threads));
        self.plan.arena_bytes().saturating_mul(at_once)
    }

    /// Returns whether [`Plans`] have let go of it: who keeps it from call to call does so as well.
    pub(crate) fn is_evicted(&self) -> bool {
        self.usage.is_evicted.load(Ordering::Relaxed)
    }

    /// Counts bytes that are kept with the plan.
    pub(crate) fn add_bytes(&self, bytes: usize) {
        self.usage.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts bytes that were kept with the plan, and are no more.
    pub(crate) fn remove_bytes(&self, bytes: usize) {
        self.usage.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn bytes(&self) -> usize {
        self.usage.bytes.load(Ordering::Relaxed)
    }

    /// Estimates what it takes itself.
    fn own_bytes(&self, scheme: &Scheme) -> usize {
        let values = self.outputs.len() + self.asked.inputs.len() + self.saved.len();
        size_of::<Planned>()
            + size_of::<Entry>()
            + if Arc::strong_count(&self.plan) > 1 { 0 } else { self.plan.size_bytes() }
            + values * (size_of::<Type>() + size_of::<Output>())
            + self.events.len() * size_of::<Event>()
            + size_of_val(scheme.optimizers.as_slice())
    }
}

impl Planned {
    /// Returns whether this is the plan that `request` asks for, the loss aside.
    pub(crate) fn answers(&self, request: &Request<'_>) -> bool {
        self.asked.is(request) && self.watched == request.watched
    }

    /// Lists the slots that it writes, by number.
    pub(crate) fn written_slots(&self) -> impl Iterator<Item = (usize, &Slot)> {
        let slots = self.plan.program.slots.iter().enumerate().zip(&self.written);
        slots.filter(|(_, written)| **written).map(|(slot, _)| slot)
    }

    /// Returns the bytes of a row of array 0: the model's results, or the loss.
    pub(crate) fn row_bytes(&self) -> usize {
        match self.asked.kind {
            Kind::Forward | Kind::Tape => self.results.as_ref().map_or(0, |of| of.row_bytes),
            Kind::Backward => 0,
            _ => self.outputs.first().map_or(0, Type::size_bytes),
        }
    }

    /// Lists what hooks see: each value's type, and where it lies in a row of array 2.
    pub(crate) fn seen(&self) -> impl Iterator<Item = (&Type, usize)> {
        let all = self.outputs.iter().zip(&self.places);
        all.filter(|(_, at)| at.array == 2).map(|(ty, at)| (ty, at.offset))
    }

    fn new(
        scheme: &Scheme,
        request: &Request<'_>,
        kind: Kind,
        program: Program,
        (results, act): (Option<Results>, Act),
        (options, interned): (&PlanOptions, &mut Interned),
    ) -> Result<Self, StepError> {
        let outputs: Vec<_> = program.outputs.iter().map(|&id| program.ty(id).clone()).collect();
        let Act { events, seen } = act;
        let own = match (kind, &results) {
            (Kind::Forward | Kind::Tape, Some(results)) => results.offsets.clone(),
            (Kind::Backward, _) => Vec::new(),
            _ => vec![0; outputs.len().min(1)],
        };
        // What hooks see is last, but before the tape.
        let first_seen = match kind {
            Kind::Tape | Kind::Backward => own.len(),
            _ => outputs.len() - seen.len(),
        };
        let of_seen = first_seen..first_seen + seen.len();
        let (seen, seen_bytes) = side_by_side(&outputs[of_seen.clone()]);
        let others = [&outputs[own.len()..first_seen], &outputs[of_seen.end..]].concat();
        let (others, tape_bytes) = side_by_side(&others);
        let mut offsets = [own, others, seen].map(Vec::into_iter);
        let n_own = offsets[0].len();
        let at = |number: usize| {
            let array = match number {
                _ if number < n_own => 0,
                _ if of_seen.contains(&number) => 2,
                _ => 1,
            };
            let offset = offsets[array].next().unwrap_or_default();
            Output { array, offset, step_bytes: 0 }
        };
        let places = (0..outputs.len()).map(at).collect();
        let is_random = program.nodes.iter().any(|node| node.op.is_random());
        check_stores(scheme, &program)?;
        let plan = interned.plan(program, options)?;
        let mut written = vec![false; plan.program.slots.len()];
        plan.program.stores.iter().for_each(|&(slot, _)| written[slot] = true);
        let is_own = |slot: &&Slot| matches!(slot.role, Role::Parameter | Role::Buffer);
        let own = plan.program.slots.iter().filter(|_| kind == Kind::Backward).filter(is_own);
        Ok(Planned {
            asked: Asked { kind, ..Asked::of(request) },
            watched: request.watched.to_vec(),
            events,
            autocast: scheme.autocast,
            entry: scheme.entry.clone(),
            results,
            places,
            outputs,
            seen_bytes,
            tape_bytes,
            saved: Vec::new(),
            is_random,
            shared: Vec::new(),
            written,
            reads: own.cloned().collect(),
            plan,
            usage: Usage::default(),
        })
    }
}

/// Checks that no model writes to what all models share, as `BatchNorm` would to its running statistics.
pub(crate) fn check_stores(scheme: &Scheme, program: &Program) -> Result<(), StepError> {
    let is_own = |slot: &&Slot| matches!(slot.role, Role::Parameter | Role::Buffer);
    let unknown = |slot: &&Slot| !scheme.blueprint.has(slot);
    if let Some(Slot { name, role, .. }) = program.slots.iter().filter(is_own).find(unknown) {
        return Err(BindError::NoColumn { slot: name.clone(), role: *role }.into());
    }
    let stored = program.stores.iter().map(|&(slot, _)| &program.slots[slot]);
    let mut own = stored.filter(is_own);
    match own.find(|slot| scheme.blueprint.shared(slot).is_some()) {
        Some(slot) => Err(StepError::SharedWritten { name: slot.name.clone() }),
        None => Ok(()),
    }
}

/// The plans of every blueprint.
///
/// A plan is kept for each structure, each type of input and each mode that models are in. Where these are others in
/// every call, as with sequences of ever other lengths, the plans that were used least recently go once all together
/// take more than [`max_bytes`](Plans::max_bytes); they are made anew when they are asked for again, and compute the
/// same bits.
///
/// # Example
///
/// ```
/// # use bevy_ecs::prelude::*;
/// # use neurarch_systems::compile::plans::Plans;
/// # let mut world = World::new();
/// world.get_resource_or_init::<Plans>().max_bytes = 1 << 30;
/// ```
#[derive(Resource)]
pub struct Plans {
    /// How new plans are made: for tests, which force a size of tiles.
    pub options: PlanOptions,
    /// How many models have gradients of shared parameters in memory at a time: for tests, as the options.
    pub chunk: Option<usize>,
    /// How many bytes all plans may take, by an estimate: 256 MiB at first. What the running call uses stays, however
    /// large it is.
    pub max_bytes: usize,
    /// By the blueprint's place; a place is used again for another blueprint, of a later generation.
    shelves: Vec<Shelf>,
    interned: Interned,
    /// Lets whoever keeps plans let go of those that were evicted.
    forget: fn(&mut World),
    /// Counts the calls.
    calls: u64,
    /// Counts the times that plans were evicted.
    evictions: u64,
}

impl Default for Plans {
    fn default() -> Self {
        Plans {
            options: PlanOptions::default(),
            chunk: None,
            max_bytes: 1 << 28,
            shelves: Vec::new(),
            interned: Interned::default(),
            forget: |_| {},
            calls: 0,
            evictions: 0,
        }
    }
}

#[derive(Default)]
struct Shelf {
    generation: u64,
    entries: Vec<Entry>,
    /// What has no plan, since numbers are read in the middle of it: at most [`READERS`], the newest last.
    readers: Vec<Reader>,
}

/// How many programs of a blueprint are known to read numbers. One that is forgotten is recorded once more to see it.
const READERS: usize = 64;

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
        self.interned.clear();
    }

    /// Lists the plans that there are, in the order in which each blueprint came to need them.
    pub fn plans(&self) -> impl Iterator<Item = &Plan> {
        self.all().map(|planned| &*planned.plan)
    }

    /// Estimates how many bytes all plans take, with what is kept of each model for them.
    pub fn bytes(&self) -> usize {
        self.all().map(Planned::bytes).sum()
    }

    /// Returns how many calls there were.
    pub(crate) fn calls(&self) -> u64 {
        self.calls
    }

    /// Returns the bytes of the arenas of the neediest plan that a call used after so many calls.
    pub(crate) fn workspace_bytes_since(&self, calls: u64) -> usize {
        let used = |planned: &&Planned| planned.usage.last_used.load(Ordering::Relaxed) > calls;
        let bytes = |planned: &Planned| {
            planned.workspace_bytes(planned.usage.models.load(Ordering::Relaxed))
        };
        self.all().filter(used).map(bytes).max().unwrap_or(0)
    }

    fn all(&self) -> impl Iterator<Item = &Planned> {
        self.shelves.iter().flat_map(|shelf| &shelf.entries).map(|entry| &*entry.planned)
    }

    /// Counts a call that begins; gives its number, and how often plans were evicted before it. `forget` lets those who
    /// keep plans let go of what is evicted.
    pub(crate) fn begin_call(world: &mut World, forget: fn(&mut World)) -> (u64, u64) {
        // To ask for it is cheaper than to see to it that it is there.
        if let Some(mut plans) = world.get_resource_mut::<Plans>() {
            return plans.count_call(forget);
        }
        world.get_resource_or_init::<Plans>().count_call(forget)
    }

    fn count_call(&mut self, forget: fn(&mut World)) -> (u64, u64) {
        self.calls += 1;
        self.forget = forget;
        (self.calls, self.evictions)
    }

    /// Returns the plan that `request` asks for, for models of `scheme`.
    ///
    /// # Errors
    ///
    /// If there can be none. Where numbers are read in the middle of the program, that is remembered.
    pub(crate) fn of(
        world: &mut World,
        blueprint: BlueprintId,
        scheme: &Scheme,
        request: &Request<'_>,
    ) -> Result<Arc<Planned>, StepError> {
        let blueprints = world.get_resource::<Blueprints>();
        let generation = blueprints.and_then(|all| all.generation(blueprint)).unwrap_or_default();
        let place = blueprint.0 as usize;
        let warnings = Warnings::of(world);
        let mut plans = world.get_resource_or_init::<Plans>();
        let plans = &mut *plans;
        if plans.shelves.len() <= place {
            plans.shelves.resize_with(place + 1, Shelf::default);
        }
        let (options, call) = (plans.options, plans.calls);
        let shelf = &mut plans.shelves[place];
        if shelf.generation != generation {
            *shelf = Shelf { generation, ..Shelf::default() };
        }
        let known = shelf.entries.iter().find(|entry| entry.answers(scheme, request));
        if let Some(entry) = known {
            return Ok(entry.planned.clone());
        }
        if let Some(reader) = shelf.readers.iter().find(|reader| reader.answers(scheme, request)) {
            return Err(reader.error.clone().into());
        }
        let made = plan(scheme, request, (&options, &mut plans.interned));
        if let Err(StepError::Trace(error)) = &made
            && error.needs_values
        {
            shelf.readers.drain(..(shelf.readers.len() + 1).saturating_sub(READERS));
            shelf.readers.push(Reader::new(scheme, request, error.clone()));
        }
        let made = made?;
        for planned in &made {
            planned.add_bytes(planned.own_bytes(scheme));
            planned.mark_used(call, 0);
            warnings.warn_all(&planned.plan.program.warnings);
        }
        let wanted = made.iter().find(|planned| planned.asked.kind == request.kind).cloned();
        shelf.entries.extend(made.into_iter().map(|planned| Entry {
            scheme: scheme.clone(),
            loss: request.loss.map(DynLoss::clone_box),
            planned,
        }));
        Ok(wanted.expect("`plan` makes what it is asked for"))
    }

    /// Lets go of the plans that were used least recently, if all take too much.
    pub(crate) fn evict(world: &mut World) {
        if world.get_resource_or_init::<Plans>().evict_idle() {
            let forget = world.resource::<Plans>().forget;
            forget(world);
        }
    }

    /// Lets go of plans that the running call does not use: a quarter more than what is too much, so that it is not
    /// asked for soon again. Says whether there were any.
    fn evict_idle(&mut self) -> bool {
        let bytes = self.bytes();
        if bytes <= self.max_bytes {
            return false;
        }
        let too_much = bytes - (self.max_bytes - self.max_bytes / 4);
        let usage =
            |planned: &Planned| (planned.usage.last_used.load(Ordering::Relaxed), planned.bytes());
        let mut idle: Vec<_> =
            self.all().map(usage).filter(|(used, _)| *used < self.calls).collect();
        idle.sort_unstable();
        let mut freed = 0;
        let enough = idle.iter().find(|(_, bytes)| {
            freed += bytes;
            freed >= too_much
        });
        let Some(&(last, _)) = enough.or(idle.last()) else { return false };
        for shelf in &mut self.shelves {
            shelf.entries.retain(|Entry { planned, .. }| {
                let stays = usage(planned).0 > last;
                planned.usage.is_evicted.store(!stays, Ordering::Relaxed);
                stays
            });
        }
        self.evictions += 1;
        true
    }
}

impl Entry {
    fn answers(&self, scheme: &Scheme, request: &Request<'_>) -> bool {
        self.planned.answers(request)
            && request::are_alike((&self.scheme, self.loss.as_deref()), (scheme, request))
    }
}

/// Traces and plans; a forward pass with a tape comes with its backward pass.
fn plan(
    scheme: &Scheme,
    request: &Request<'_>,
    (options, interned): (&PlanOptions, &mut Interned),
) -> Result<Vec<Arc<Planned>>, StepError> {
    let inputs: Vec<_> = request.inputs.iter().map(|ty| ty.to_type()).collect();
    let called = Inputs { types: inputs, structure: request.structure };
    let target = || request.target.map(TypeRef::to_type).expect("a loss has targets");
    let loss = || request.loss.expect("a request for a loss names it");
    let nothing = Act::default();
    let mut shared = Vec::new();
    let (program, called) = match request.kind {
        Kind::Forward => {
            let (program, results, act) = trace::forward(scheme, &called, request.watched)?;
            (program, (Some(results), act))
        }
        Kind::Loss => {
            let y = called.types.into_iter().next().expect("a loss has something to compare");
            (trace::loss(loss(), scheme.autocast, y, target())?, (None, nothing))
        }
        Kind::Step => (trace::step(scheme)?, (None, nothing)),
        Kind::ZeroGradients => (trace::zero_gradients(scheme)?, (None, nothing)),
        Kind::TrainStep => {
            let watched = request.watched;
            let step = trace::train_step(scheme, loss(), &called, target(), watched)?;
            shared = step.shared;
            (step.program, (Some(step.results), step.act))
        }
        Kind::Tape | Kind::Backward => {
            let both =
                trace::forward_and_backward(scheme, &called, request.given, request.watched)?;
            let (saved, _) = side_by_side(&both.split.saved);
            let mut new = |kind, program, act| {
                let results = Some(both.results.clone());
                Planned::new(scheme, request, kind, program, (results, act), (options, interned))
            };
            let backward = new(Kind::Backward, both.split.backward, both.back)?;
            let backward = Arc::new(Planned { saved, shared: both.shared, ..backward });
            if !request.given.is_empty() {
                return Ok(vec![backward]);
            }
            let tape = new(Kind::Tape, both.split.forward, both.forth)?;
            return Ok(vec![Arc::new(tape), backward]);
        }
    };
    let made = (options, interned);
    let planned = Planned::new(scheme, request, request.kind, program, called, made)?;
    Ok(vec![Arc::new(Planned { shared, ..planned })])
}
