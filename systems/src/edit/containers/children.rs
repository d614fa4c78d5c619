//! Children of live modules: they come, go, and change their names and order as a draft says.

use std::collections::{HashMap, HashSet, VecDeque};

use bevy_ecs::prelude::*;
use neurarch_components::hook::PopulationHooks;
use neurarch_components::module::NoModule;
use neurarch_components::module::mode::{HasGradient, Mode};
use neurarch_components::module::registered::{Registered, Value};
use neurarch_components::module::registry::ModuleTypes;
use neurarch_components::population::tie::SharedModule;
use neurarch_components::population::tree::{Columned, Model, ModuleName};
use neurarch_kernels::ir::dtype::Dtype;

use super::EditError;
use super::draft::Planned;
use super::site::{Listed, Member, Site, children};
use crate::edit::registration;
use crate::edit::registration::{RegistrationError, Sapling};
use crate::structure::spot::owner;

/// What becomes of the children of the modules of a site.
pub(super) struct ChildPlan {
    /// The children from now on, by name.
    result: Vec<(String, Child)>,
    /// Which of those that were there are given to the caller.
    pub(super) taken: Vec<usize>,
}

/// A child from now on.
enum Child {
    /// The one that was at this place.
    Standing(usize),
    /// A module that was part of no model.
    Live(Entity),
    /// A new one.
    New(Sapling),
    /// A name without a module, which was asked for, or which a registration hook made of one.
    Nothing,
}

impl ChildPlan {
    /// Checks what a draft came to; `models` says how many models are edited, those of other sites included.
    pub(super) fn of(
        world: &mut World,
        site: &Site,
        result: Vec<(String, Planned)>,
        taken: &[Planned],
        models: usize,
    ) -> Result<Self, EditError> {
        let names = &site.names;
        let mut planned = Vec::with_capacity(result.len());
        let mut live = HashSet::new();
        for (name, child) in result {
            let is_known = site.entries.iter().any(|entry| entry.name == name);
            if !is_known && names.has(world, &name) {
                return Err(RegistrationError::Exists { name }.into());
            }
            let child = match child {
                Planned::Standing(place) => Child::Standing(place),
                Planned::Live(entity) => {
                    if models > 1 || !live.insert(entity) {
                        return Err(EditError::OnePlace(entity));
                    }
                    check_apart(world, entity, names.dtype)?;
                    Child::Live(entity)
                }
                Planned::New(module) => {
                    let value = Value::Module(module);
                    match registration::prepare(world, names, &name, value)? {
                        Value::Module(module) => {
                            Child::New(Sapling::of(world, &*module, names.dtype)?)
                        }
                        _ => Child::Nothing,
                    }
                }
            };
            planned.push((name, child));
        }
        let standing = |planned: &Planned| match planned {
            Planned::Standing(place) => Some(*place),
            _ => None,
        };
        let plan =
            ChildPlan { result: planned, taken: taken.iter().filter_map(standing).collect() };
        plan.check_going(site)?;
        Ok(plan)
    }

    /// Returns whether the child that was at a place has one still.
    fn keeps(&self, place: usize) -> bool {
        self.result.iter().any(|(_, child)| matches!(child, Child::Standing(own) if *own == place))
    }

    /// Refuses to take children away that are in use elsewhere.
    fn check_going(&self, site: &Site) -> Result<(), EditError> {
        let at = &site.blueprint.positions[site.spot.position];
        let position = |entry: &Listed| {
            let of = |child: &usize| site.blueprint.positions[*child].name == entry.name;
            at.children.iter().copied().find(of)
        };
        let going = site.entries.iter().enumerate();
        let going = going.filter(|(place, entry)| entry.identity == *place && !self.keeps(*place));
        let going = going.filter_map(|(_, entry)| position(entry));
        let going = going.filter(|&child| site.blueprint.positions[child].alias.is_none());
        let going: Vec<_> = going.collect();
        Ok(registration::check_going(&site.blueprint, &going)?)
    }

    /// Says for each name that a child had under which it is from now on; `None` if it goes.
    fn renames(&self, entries: &[Listed]) -> Vec<(String, Option<String>)> {
        let new = |place: usize| {
            let is_it = |child: &Child| matches!(child, Child::Standing(own) if *own == place);
            self.result.iter().find(|(_, child)| is_it(child)).map(|(name, _)| name.clone())
        };
        let own = entries.iter().enumerate().filter(|(place, entry)| entry.identity == *place);
        own.map(|(place, entry)| (entry.name.clone(), new(place))).collect()
    }

    /// Changes the children of one module. The model is to be signed then, and [`Before::settle`] or
    /// [`Before::restore`] called.
    pub(super) fn apply(&self, world: &mut World, member: Member) -> Before {
        let container = member.module;
        let (listed, entities) = children(world, container);
        let mut before = Before::of(world, member, &entities);
        let mut aliases: HashMap<usize, VecDeque<Entity>> = HashMap::new();
        for (place, entry) in listed.iter().enumerate().filter(|(own, of)| *own != of.identity) {
            aliases.entry(entry.identity).or_default().push_back(entities[place]);
        }
        let mut used = HashSet::new();
        let mut order = Vec::with_capacity(self.result.len());
        for (name, child) in &self.result {
            let name = ModuleName(name.as_str().into());
            let entity = match child {
                Child::Standing(place) if used.insert(*place) => entities[*place],
                Child::Standing(place) => {
                    let alias = aliases.get_mut(place).and_then(VecDeque::pop_front);
                    alias.unwrap_or_else(|| {
                        let alias = world.spawn((name.clone(), ChildOf(container))).id();
                        if listed[*place].is_there {
                            let owner = owner(world, entities[*place]);
                            world.entity_mut(alias).insert(SharedModule(owner));
                        }
                        before.made.push(alias);
                        alias
                    })
                }
                Child::Live(entity) => {
                    world.entity_mut(*entity).insert((name.clone(), ChildOf(container)));
                    before.attached.push(*entity);
                    *entity
                }
                Child::New(sapling) => {
                    let made = sapling.plant(world, container, &name.0);
                    before.made.push(made);
                    made
                }
                Child::Nothing => {
                    let made = world.spawn((name.clone(), ChildOf(container), NoModule)).id();
                    before.made.push(made);
                    made
                }
            };
            if world.get::<ModuleName>(entity) != Some(&name) {
                world.entity_mut(entity).insert(name);
            }
            order.push(entity);
        }
        let kept: HashSet<_> = order.iter().copied().collect();
        before.gone = entities.iter().copied().filter(|entity| !kept.contains(entity)).collect();
        before.taken = self.taken.iter().map(|&place| entities[place]).collect();
        for &gone in &before.gone {
            world.entity_mut(gone).remove::<ChildOf>();
        }
        // What is no module keeps its place.
        for (place, &entity) in before.order.iter().enumerate() {
            if !entities.contains(&entity) {
                order.insert(place.min(order.len()), entity);
            }
        }
        sort(world, container, &order);
        before
    }
}

/// Puts the children of a module in this order.
fn sort(world: &mut World, container: Entity, order: &[Entity]) {
    let places: HashMap<_, _> = order.iter().enumerate().map(|(place, &of)| (of, place)).collect();
    if let Some(mut children) = world.get_mut::<Children>(container) {
        children.sort_by_key(|child| places.get(child).copied().unwrap_or(usize::MAX));
    }
}

/// How a module and its model were before its children were changed.
pub(super) struct Before {
    member: Member,
    /// All children, those that are no modules included.
    order: Vec<Entity>,
    names: Vec<(Entity, Option<ModuleName>)>,
    mode: Option<Mode>,
    gradients: Option<HasGradient>,
    made: Vec<Entity>,
    attached: Vec<Entity>,
    gone: Vec<Entity>,
    /// Of those that are gone, what the caller gets.
    taken: Vec<Entity>,
}

impl Before {
    fn of(world: &World, member: Member, entities: &[Entity]) -> Self {
        let order = world.get::<Children>(member.module);
        let name = |&entity: &Entity| (entity, world.get::<ModuleName>(entity).cloned());
        Before {
            member,
            order: order.into_iter().flat_map(|children| children.iter()).collect(),
            names: entities.iter().map(name).collect(),
            mode: world.get::<Mode>(member.root).cloned(),
            gradients: world.get::<HasGradient>(member.root).cloned(),
            made: Vec::new(),
            attached: Vec::new(),
            gone: Vec::new(),
            taken: Vec::new(),
        }
    }

    /// Despawns what is gone, but for what the caller gets, which it gives, with the model's root.
    pub(super) fn settle(self, world: &mut World) -> (Entity, Vec<Entity>) {
        for &gone in self.gone.iter().filter(|gone| !self.taken.contains(gone)) {
            world.despawn(gone);
        }
        (self.member.root, self.taken)
    }

    /// Puts everything back. The model is to be signed then, and [`Before::restore_modes`] called.
    pub(super) fn restore(&self, world: &mut World) {
        for &made in &self.made {
            world.despawn(made);
        }
        for &attached in &self.attached {
            world.entity_mut(attached).remove::<(ChildOf, ModuleName)>();
        }
        for (entity, name) in &self.names {
            let Ok(mut entity) = world.get_entity_mut(*entity) else { continue };
            entity.insert(ChildOf(self.member.module));
            match name {
                Some(name) if entity.get::<ModuleName>() != Some(name) => {
                    entity.insert(name.clone());
                }
                Some(_) => {}
                None => drop(entity.remove::<ModuleName>()),
            }
        }
        sort(world, self.member.module, &self.order);
    }

    /// Puts the bits of the model's modules and parameters back.
    pub(super) fn restore_modes(&self, world: &mut World) {
        let Ok(mut root) = world.get_entity_mut(self.member.root) else { return };
        if let Some(mode) = &self.mode {
            root.insert(mode.clone());
        }
        if let Some(gradients) = &self.gradients {
            root.insert(gradients.clone());
        }
    }
}

/// Lets the hooks of a population's modules go with them. Does nothing where models differ in how their
/// children are named from now on.
pub(super) fn move_hooks(
    world: &mut World,
    population: Entity,
    path: &str,
    plans: &[(&Site, &ChildPlan)],
) {
    let mut renames = plans.iter().map(|(site, plan)| plan.renames(&site.entries));
    let Some(first) = renames.next() else { return };
    if renames.any(|other| other != first) || first.iter().all(|(a, b)| b.as_ref() == Some(a)) {
        return;
    }
    let Some(mut hooks) = world.get_mut::<PopulationHooks>(population) else { return };
    let below = if path.is_empty() { String::new() } else { format!("{path}.") };
    let all = std::mem::take(&mut hooks.0).into_iter();
    hooks.0 = all
        .filter_map(|(of, hooks)| {
            let Some(own) = of.strip_prefix(&below) else { return Some((of, hooks)) };
            let (name, rest) = own.split_once('.').map_or((own, None), |(a, b)| (a, Some(b)));
            let Some((_, new)) = first.iter().find(|(old, _)| old == name) else {
                return Some((of, hooks));
            };
            let new = new.as_ref()?;
            let rest = rest.map(|rest| format!(".{rest}")).unwrap_or_default();
            Some((format!("{below}{new}{rest}"), hooks))
        })
        .collect();
}

/// Lists a module and all that is below it, other models excepted.
fn all_below(world: &World, module: Entity) -> Vec<Entity> {
    let mut list = vec![module];
    let mut next = 0;
    while let Some(&entity) = list.get(next) {
        let children = world.get::<Children>(entity).into_iter().flat_map(|all| all.iter());
        list.extend(children.filter(|&child| world.get::<Model>(child).is_none()));
        next += 1;
    }
    list
}

/// Refuses what is no module, part of a model, or of another element type.
fn check_apart(world: &World, module: Entity, dtype: Dtype) -> Result<(), EditError> {
    let not_apart = EditError::NotApart(module);
    let types = world.get_resource::<ModuleTypes>().ok_or(not_apart.clone())?;
    let entity = world.get_entity(module).map_err(|_| not_apart.clone())?;
    let is_part = entity.contains::<ChildOf>() || entity.contains::<Model>();
    if is_part || types.module(entity).is_none() {
        return Err(not_apart);
    }
    for entity in all_below(world, module) {
        let Ok(entity) = world.get_entity(entity) else { continue };
        let (Some(of), Some(columned)) = (types.module(entity), entity.get::<Columned>()) else {
            continue;
        };
        let registered = Registered::of(entity, of, dtype);
        let entries: Vec<_> = registered.parameters.iter().chain(&registered.buffers).collect();
        for own in columned.contents().parameters.iter().chain(&columned.contents().buffers) {
            let entry = entries.iter().find(|entry| entry.name == own.name);
            let expected = entry.and_then(|entry| Some(entry.ty.as_ref()?.dtype));
            if let Some(expected) = expected.filter(|&expected| expected != own.ty.dtype) {
                let (name, given) = (own.name.clone(), own.ty.dtype);
                return Err(EditError::Dtype { name, expected, given });
            }
        }
    }
    Ok(())
}
