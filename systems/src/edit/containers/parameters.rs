//! Parameters of live lists and dictionaries: they come, go and are replaced as a draft says.

use bevy_ecs::prelude::*;
use neurarch_components::hook::HookKind;
use neurarch_components::layers::{Parameter, ParameterDict, ParameterList};
use neurarch_components::module::registered::{Entry, Numbers, Registered, Value};
use neurarch_components::module::registry::ModuleTypes;
use neurarch_components::module::{DynModule, Init};
use neurarch_components::population::tie::Ties;
use neurarch_components::state::Tensor;
use neurarch_kernels::ir::program::{Role, Slot};

use super::EditError;
use super::draft::Held;
use super::site::{Member, Site};
use crate::draw;
use crate::edit::lookup::Names;
use crate::edit::registration;
use crate::edit::registration::RegistrationError;
use crate::structure::columns::own_row;
use crate::structure::columns::write_own;

/// What becomes of the parameters of the modules of a site.
pub(super) struct ParameterPlan {
    /// The parameters from now on.
    entries: Vec<Entry>,
    /// How each is described, in the same order.
    described: Vec<Parameter>,
    /// The numbers of those that are new.
    given: Vec<(String, Tensor)>,
    /// The names of those that do not stay what they were.
    gone: Vec<String>,
    /// Those of them that have a name still.
    replaced: Vec<String>,
    /// What is given to the caller.
    taken: Vec<String>,
}

impl ParameterPlan {
    /// Checks what a draft came to.
    pub(super) fn of(
        world: &World,
        site: &Site,
        result: Vec<(String, Held)>,
        taken: &[(String, Held)],
    ) -> Result<Self, EditError> {
        let names = &site.names;
        let old = &names.registered.parameters;
        let mut plan = ParameterPlan {
            entries: Vec::with_capacity(result.len()),
            described: Vec::with_capacity(result.len()),
            given: Vec::new(),
            gone: Vec::new(),
            replaced: Vec::new(),
            taken: taken.iter().map(|(name, _)| name.clone()).collect(),
        };
        for (name, held) in result {
            let value = match held {
                Held::Standing(place) => {
                    plan.described.push(describe(world, site, &old[place]));
                    plan.entries.push(old[place].clone());
                    continue;
                }
                Held::New(value) => value,
            };
            let is_known = Names::entry(old, &name).is_some();
            if names.is_computed(world, &name) || !is_known && names.has(world, &name) {
                return Err(RegistrationError::Exists { name }.into());
            }
            let kind = HookKind::ParameterRegistration;
            let value = registration::ask(world, kind, names, &name, value)?;
            let Some(numbers) = value.numbers() else {
                let given = value.typename(names.dtype);
                let (what, expected) = ("parameter", "torch.nn.Parameter or None");
                return Err(RegistrationError::Kind { what, name, given, expected }.into());
            };
            let ty = numbers.ty(names.dtype);
            registration::check_gradient(names, &name, &value)?;
            let requires_grad = !matches!(value, Value::Parameter { requires_grad: false, .. });
            let own = (ty.dtype != names.dtype).then_some(ty.dtype);
            let init = match numbers {
                Numbers::Given(tensor) => {
                    plan.given.push((name.clone(), tensor.clone()));
                    Init::Zeros
                }
                Numbers::Drawn { init, .. } => {
                    let role = Role::Parameter;
                    let slot =
                        Slot { name: name.clone(), role, position: 0, index: 0, ty: ty.clone() };
                    draw::check(&name, &slot, init).map_err(RegistrationError::from)?;
                    init.clone()
                }
            };
            let shape = ty.shape.clone();
            plan.described.push(Parameter { shape, dtype: own, init, requires_grad });
            if is_known {
                plan.replaced.push(name.clone());
            }
            let ty = Some(ty);
            let (persistent, uninitialized) = (true, false);
            plan.entries.push(Entry { name, ty, persistent, uninitialized, requires_grad });
        }
        for entry in old.iter().filter(|entry| entry.ty.is_some()) {
            let stays = plan.entries.iter().any(|new| new.name == entry.name)
                && !plan.replaced.contains(&entry.name);
            if !stays {
                registration::check_ties(world, &site.spot, &names.registered, &entry.name)?;
                plan.gone.push(entry.name.clone());
            }
        }
        Ok(plan)
    }

    /// Returns whether a parameter is replaced by another one of its name: then the old one goes first, so that
    /// nothing of it is left.
    pub(super) fn replaces(&self) -> bool {
        !self.replaced.is_empty()
    }

    /// Copies what is given to the caller, of one model.
    pub(super) fn read(&self, world: &World, site: &Site, member: Member) -> Vec<Tensor> {
        let group = site.spot.group(world);
        let tensor = |name: &String| {
            let slot = site.blueprint.parameter(site.spot.position, name)?;
            let entity = group.modules[slot.position][member.place];
            let row = own_row(world, entity, (slot.role, slot.index))?;
            let bytes = row[..slot.ty.size_bytes()].to_vec();
            let shape = slot.ty.shape.to_vec();
            Some(Tensor::from_native(name.clone(), slot.ty.dtype, shape, bytes))
        };
        self.taken.iter().filter_map(tensor).collect()
    }

    /// Takes out what is replaced, so that nothing of it is left when the model is signed.
    pub(super) fn clear(&self, world: &mut World, site: &Site, member: Member) {
        let stays = |entry: &&Entry| !self.replaced.contains(&entry.name);
        let entries: Vec<_> = self.entries.iter().filter(stays).cloned().collect();
        let Ok(mut entity) = world.get_entity_mut(member.module) else { return };
        self.untie(&mut entity);
        entity.insert(registered(site, &entries));
    }

    /// Forgets whose what is gone was.
    fn untie(&self, entity: &mut EntityWorldMut<'_>) {
        let Some(ties) = entity.get::<Ties>() else { return };
        let kept = ties.0.iter().filter(|tie| !self.gone.contains(&tie.parameter));
        let kept: Vec<_> = kept.cloned().collect();
        if kept.len() < ties.0.len() {
            entity.insert(Ties(kept));
        }
    }

    /// Changes the parameters of one module, which were registered by hand before or not. The model is to be
    /// signed then, and [`ParameterPlan::write`] called.
    pub(super) fn apply(&self, world: &mut World, site: &Site, member: Member, by_hand: bool) {
        let is_list = with_module(world, member.module, |of| of.is::<ParameterList>());
        let Ok(mut entity) = world.get_entity_mut(member.module) else { return };
        self.untie(&mut entity);
        let described = self.described.iter().cloned();
        if is_list == Some(true) {
            entity.insert(described.collect::<ParameterList>());
        } else {
            let names = self.entries.iter().map(|entry| entry.name.as_str());
            if let Ok(dict) = ParameterDict::from_named(names.zip(described)) {
                entity.insert(dict);
            }
        }
        match by_hand {
            true => drop(entity.insert(registered(site, &self.entries))),
            false => drop(entity.remove::<Registered>()),
        }
    }

    /// Writes the numbers that were given for new parameters.
    pub(super) fn write(&self, world: &mut World, member: Member) {
        for (name, tensor) in &self.given {
            let numbers = tensor.to_native();
            write_own(world, member.module, Role::Parameter, name, &numbers);
        }
    }
}

/// Lists parameters, the names without values and the buffers that a module has beside them.
fn registered(site: &Site, entries: &[Entry]) -> Registered {
    let Registered { parameters, buffers } = &site.names.registered;
    let nones = parameters.iter().filter(|of| of.ty.is_none());
    let nones = nones.filter(|none| Names::entry(entries, &none.name).is_none());
    let parameters = entries.iter().chain(nones).cloned().collect();
    Registered { parameters, buffers: buffers.clone() }
}

fn with_module<R>(
    world: &World,
    module: Entity,
    read: impl FnOnce(&dyn DynModule) -> R,
) -> Option<R> {
    let types = world.get_resource::<ModuleTypes>()?;
    types.module(world.get_entity(module).ok()?).map(read)
}

/// Describes a parameter that is there.
fn describe(world: &World, site: &Site, entry: &Entry) -> Parameter {
    let described = with_module(world, site.members[0].module, |of| {
        let list = of.downcast_ref::<ParameterList>();
        let number = || entry.name.parse::<isize>().ok();
        let of_list = list.and_then(|list| list.get(number()?).ok().cloned());
        of_list.or_else(|| of.downcast_ref::<ParameterDict>()?.get(&entry.name).cloned())
    });
    let ty = entry.ty.as_ref();
    let is_it = |of: &Parameter| ty.is_some_and(|ty| ty.shape == of.shape);
    described.flatten().filter(is_it).unwrap_or_else(|| Parameter {
        shape: ty.map(|ty| ty.shape.clone()).unwrap_or_default(),
        dtype: ty.map(|ty| ty.dtype).filter(|&dtype| dtype != site.names.dtype),
        init: Init::Zeros,
        requires_grad: entry.requires_grad,
    })
}
