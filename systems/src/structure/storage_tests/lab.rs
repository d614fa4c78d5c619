//! A world in which something happens again and again, and which knows every number of every module.

use std::collections::HashMap;

use bevy_ecs::entity::EntityCloner;
use bevy_ecs::prelude::*;
use neurarch_components::layers::{Linear, Sequential, Tanh};
use neurarch_components::module::DynModule;
use neurarch_components::population::Population;
use neurarch_components::population::blueprints::Blueprints;
use neurarch_components::population::tree::{Columned, Model, ModuleName};
use neurarch_kernels::ir::dtype::Dtype;
use neurarch_kernels::ir::program::{Role, Slot};
use neurarch_kernels::ir::shape::Type;
use proptest::prelude::*;

use crate::storage::bind::Binder;
use crate::storage::members::Members;
use crate::structure::columns::own_row_mut;
use crate::structure::{columns, sign, spawn};

#[derive(Component)]
pub(super) struct Tag;

#[derive(Component)]
#[component(storage = "SparseSet")]
struct SparseTag(#[expect(dead_code, reason = "it only has to have a size")] u32);

/// What happens; the numbers choose to whom.
#[derive(Clone, Debug)]
pub(super) enum Deed {
    Spawn(usize),
    Despawn(usize),
    Clone(usize),
    Replace(usize, usize),
    AddChild(usize, usize),
    DespawnModule(usize),
    Swap(usize, usize),
    Move(usize, usize),
    Rename(usize),
    Tag(usize),
    Untag(usize),
    TagSparsely(usize),
    AddGradients(usize),
    RemoveGradients(usize),
    /// Looks, and gives new parameters numbers of their own.
    Look,
}

pub(super) fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let any = || 0..1000_usize;
    let deed = prop_oneof![
        (1..4_usize).prop_map(Deed::Spawn),
        any().prop_map(Deed::Despawn),
        any().prop_map(Deed::Clone),
        (any(), 1..30_usize).prop_map(|(module, size)| Deed::Replace(module, size)),
        (any(), 1..30_usize).prop_map(|(module, size)| Deed::AddChild(module, size)),
        any().prop_map(Deed::DespawnModule),
        (any(), any()).prop_map(|(module, child)| Deed::Swap(module, child)),
        (any(), any()).prop_map(|(module, to)| Deed::Move(module, to)),
        any().prop_map(Deed::Rename),
        any().prop_map(Deed::Tag),
        any().prop_map(Deed::Untag),
        any().prop_map(Deed::TagSparsely),
        any().prop_map(Deed::AddGradients),
        any().prop_map(Deed::RemoveGradients),
        Just(Deed::Look),
        Just(Deed::Look),
    ];
    prop::collection::vec(deed, 1..60)
}

/// What a number is known by: it stays as long as its module's entity, its name and its type.
type Key = (Entity, Role, String, Type);

pub(super) struct Lab {
    world: World,
    populations: Vec<Entity>,
    shadow: HashMap<Key, Vec<f32>>,
    numbers: HashMap<Entity, u64>,
    next: usize,
}

impl Lab {
    pub(super) fn new() -> Self {
        let mut world = World::new();
        let inner = Sequential::new().push(Linear::new(3, 2)).push(Tanh);
        let brain = Sequential::new().push(Linear::new(4, 5)).push(inner).push(Linear::new(2, 3));
        let populations = [3, 2].map(|models| {
            spawn::spawn_population(&mut world, &brain, models, 8, 7, Dtype::F32).unwrap()
        });
        let populations = populations.to_vec();
        Lab { world, populations, shadow: HashMap::new(), numbers: HashMap::new(), next: 0 }
    }

    fn roots(&self) -> Vec<Entity> {
        let of = |&population: &Entity| {
            self.world.get::<Population>(population).unwrap().models().to_vec()
        };
        self.populations.iter().flat_map(of).collect()
    }

    fn root(&self, choice: usize) -> Option<Entity> {
        let roots = self.roots();
        (!roots.is_empty()).then(|| roots[choice % roots.len()])
    }

    /// The modules of all models, roots first.
    fn modules(&self) -> Vec<Entity> {
        let mut modules = self.roots();
        let mut at = 0;
        while let Some(&module) = modules.get(at) {
            modules.extend(self.world.get::<Children>(module).into_iter().flatten());
            at += 1;
        }
        modules
    }

    fn module(&self, choice: usize) -> Option<Entity> {
        let modules = self.modules();
        (!modules.is_empty()).then(|| modules[choice % modules.len()])
    }

    fn name(&mut self) -> ModuleName {
        self.next += 1;
        ModuleName(format!("m{}", self.next).into())
    }

    fn groups(&self) -> Vec<(Entity, usize)> {
        let of = |&population: &Entity| {
            let groups = self.world.get::<Population>(population).unwrap().groups().len();
            (0..groups).map(move |group| (population, group))
        };
        self.populations.iter().flat_map(of).collect()
    }

    pub(super) fn perform(&mut self, deed: &Deed) {
        match *deed {
            Deed::Spawn(count) => {
                let population = self.populations[count % 2];
                // The tree of a population without models is that of the last.
                spawn::spawn_models(&mut self.world, population, count).unwrap();
                self.forget_what_did_not_come_along(population);
            }
            Deed::Despawn(choice) => {
                if let Some(root) = self.root(choice) {
                    self.world.despawn(root);
                }
            }
            Deed::Clone(choice) => self.clone_model(choice),
            Deed::Replace(choice, size) => {
                if let Some(module) = self.module(choice) {
                    self.world.entity_mut(module).insert(Linear::new(size, 3));
                }
            }
            Deed::AddChild(choice, size) => {
                if let Some(parent) = self.module(choice) {
                    let name = self.name();
                    self.world.spawn((Linear::new(2, size), name, ChildOf(parent)));
                }
            }
            Deed::DespawnModule(choice) => {
                let module = self.module(choice);
                if let Some(module) = module.filter(|&m| self.world.get::<Model>(m).is_none()) {
                    self.world.despawn(module);
                }
            }
            Deed::Swap(choice, child) => {
                let Some(module) = self.module(choice) else { return };
                if let Some(mut children) = self.world.get_mut::<Children>(module) {
                    let n = children.len();
                    children.swap(child % n, (child + 1) % n);
                }
            }
            Deed::Move(choice, to) => {
                let (Some(module), Some(to)) = (self.module(choice), self.module(to)) else {
                    return;
                };
                let is_root = |module| self.world.get::<Model>(module).is_some();
                if !is_root(module) && !self.is_below(to, module) {
                    let name = self.name();
                    self.world.entity_mut(module).insert((ChildOf(to), name));
                }
            }
            Deed::Rename(choice) => {
                if let Some(module) = self.module(choice) {
                    let name = self.name();
                    self.world.entity_mut(module).insert(name);
                }
            }
            Deed::Tag(choice) => {
                if let Some(module) = self.module(choice) {
                    self.world.entity_mut(module).insert(Tag);
                }
            }
            Deed::Untag(choice) => {
                if let Some(module) = self.module(choice) {
                    self.world.entity_mut(module).remove::<(Tag, SparseTag)>();
                }
            }
            Deed::TagSparsely(choice) => {
                if let Some(module) = self.module(choice) {
                    self.world.entity_mut(module).insert(SparseTag(1));
                }
            }
            Deed::AddGradients(choice) => {
                self.look();
                let groups = self.groups();
                let (population, group) = groups[choice % groups.len()];
                let slots = self.slots(population, group, &[Role::Parameter]);
                let slots = slots.into_iter().flat_map(|slot| {
                    [Role::Gradient, Role::State(0)].map(|role| Slot { role, ..slot.clone() })
                });
                let slots: Vec<_> = slots.collect();
                columns::add_columns(&mut self.world, population, group, &slots);
            }
            Deed::RemoveGradients(choice) => {
                self.look();
                let groups = self.groups();
                let (population, group) = groups[choice % groups.len()];
                columns::remove_columns(&mut self.world, population, group, &[Role::Gradient]);
                let state = self.world.get::<Population>(population).unwrap();
                let modules = state.groups()[group].modules.concat();
                self.shadow.retain(|(module, role, ..), _| {
                    *role != Role::Gradient || !modules.contains(module)
                });
            }
            Deed::Look => self.look(),
        }
    }

    fn is_below(&self, mut entity: Entity, above: Entity) -> bool {
        loop {
            if entity == above {
                return true;
            }
            match self.world.get::<ChildOf>(entity) {
                Some(parent) => entity = parent.parent(),
                None => return false,
            }
        }
    }

    fn clone_model(&mut self, choice: usize) {
        let Some(root) = self.root(choice) else { return };
        // What has no numbers yet is given some, so that the copy's are known.
        self.look();
        let copy = self.world.spawn_empty().id();
        let mut builder = EntityCloner::build_opt_out(&mut self.world);
        builder.linked_cloning(true).clone_entity(root, copy);
        let mut pairs = vec![(root, copy)];
        while let Some((from, to)) = pairs.pop() {
            let known: Vec<_> = self
                .shadow
                .iter()
                .filter(|(key, _)| key.0 == from)
                .map(|(k, v)| (k.clone(), v.clone()))
                .collect();
            for ((_, role, name, ty), numbers) in known {
                self.shadow.insert((to, role, name, ty), numbers);
            }
            let children =
                |of| self.world.get::<Children>(of).map(|c| c.to_vec()).unwrap_or_default();
            pairs.extend(children(from).into_iter().zip(children(to)));
        }
        assert_ne!(self.world.get::<Model>(root), self.world.get::<Model>(copy));
    }

    /// All slots of a group that have these roles, or those of its companions.
    fn slots(&self, population: Entity, group: usize, roles: &[Role]) -> Vec<Slot> {
        let group = &self.world.get::<Population>(population).unwrap().groups()[group];
        let contents = group.contents.iter().enumerate();
        let slots = contents.flat_map(|(position, contents)| {
            contents.columns().filter(|(role, ..)| roles.contains(role)).map(
                move |(role, index, ty)| {
                    let name = contents.parameters[index].name.clone();
                    Slot { name, role, position, index, ty: ty.into_owned() }
                },
            )
        });
        slots.collect()
    }

    /// Signs, binds everything, and compares it with what is known; new rows get numbers of their own.
    pub(super) fn look(&mut self) {
        for population in self.populations.clone() {
            sign::refresh(&mut self.world, population).unwrap();
            self.check_indices(population);
            let groups = self.world.get::<Population>(population).unwrap().groups().to_vec();
            for (number, group) in groups.iter().enumerate() {
                let roles = [Role::Parameter, Role::Gradient, Role::State(0)];
                let slots = self.slots(population, number, &roles);
                if group.members.is_empty() {
                    continue;
                }
                // All of them, and every second one.
                for step in [1, 2] {
                    let places: Vec<_> = (0..group.members.len()).step_by(step).collect();
                    let models = self.world.get::<Population>(population).unwrap().len();
                    let mut members = Members::first(models, group.members[places[0]]);
                    places[1..].iter().for_each(|&place| members.push(group.members[place]));
                    members.settle();
                    let mut binder = Binder::default();
                    let written = vec![false; slots.len()];
                    let bound = binder
                        .bind(&mut self.world, population, number, &members, &slots, &written)
                        .unwrap();
                    let mut found = Vec::new();
                    for (i, slot) in slots.iter().enumerate() {
                        for (member, &place) in places.iter().enumerate() {
                            let module = group.modules[slot.position][place];
                            let key = (module, slot.role, slot.name.clone(), slot.ty.clone());
                            found.push((
                                key,
                                slot,
                                bound.numbers(i, member, slot.ty.shape.numel()),
                            ));
                        }
                    }
                    for (key, slot, numbers) in found {
                        match self.shadow.get(&key) {
                            Some(known) => assert_eq!(*known, numbers, "{key:?}"),
                            None => {
                                let is_new = slot.role != Role::Parameter;
                                assert!(!is_new || numbers.iter().all(|&n| n == 0.0), "{key:?}");
                                self.write(key, slot);
                            }
                        }
                    }
                }
            }
        }
        self.forget_what_is_gone();
    }

    fn write(&mut self, key: Key, slot: &Slot) {
        let first = self.next as f32;
        self.next += 1;
        let numbers: Vec<_> =
            (0..slot.ty.shape.numel()).map(|i| first + i as f32 / 1024.0).collect();
        let row = own_row_mut(&mut self.world, key.0, (slot.role, slot.index)).unwrap();
        row[..slot.ty.size_bytes()].copy_from_slice(bytemuck::cast_slice(&numbers));
        self.shadow.insert(key, numbers);
    }

    /// A parameter that went and comes again is another.
    fn forget_what_is_gone(&mut self) {
        let mut present: Vec<Key> = Vec::new();
        for (population, number) in self.groups() {
            let roles = [Role::Parameter, Role::Gradient, Role::State(0)];
            let slots = self.slots(population, number, &roles);
            let group = &self.world.get::<Population>(population).unwrap().groups()[number];
            for slot in slots {
                let modules = group.modules[slot.position].iter();
                present
                    .extend(modules.map(|&m| (m, slot.role, slot.name.clone(), slot.ty.clone())));
            }
        }
        let present: std::collections::HashSet<_> = present.into_iter().collect();
        self.shadow.retain(|key, _| present.contains(key));
    }

    /// Spawning signs its own population alone: a module that came there from the other one has the companions of its
    /// new group, and goes back without those it had.
    fn forget_what_did_not_come_along(&mut self, population: Entity) {
        let roots = self.world.get::<Population>(population).unwrap().models().to_vec();
        let modules: Vec<_> = roots.into_iter().flat_map(|root| self.tree(root)).collect();
        for module in modules {
            let Some(columned) = self.world.get::<Columned>(module) else { continue };
            let roles: Vec<_> = columned.contents().columns().map(|(role, ..)| role).collect();
            let is_there = |role: &Role| *role == Role::Parameter || roles.contains(role);
            self.shadow.retain(|(of, role, ..), _| *of != module || is_there(role));
        }
    }

    /// The modules of a model in torch's order.
    fn tree(&self, root: Entity) -> Vec<Entity> {
        let mut modules = vec![root];
        let children = self.world.get::<Children>(root).into_iter().flatten();
        modules.extend(children.flat_map(|&child| self.tree(child)));
        modules
    }

    fn check_indices(&mut self, population: Entity) {
        let found = self.world.get::<Population>(population).unwrap();
        for group in found.groups() {
            let blueprint = self.world.resource::<Blueprints>().get(group.blueprint).unwrap();
            for (place, &root) in group.modules[0].iter().enumerate() {
                let modules: Vec<_> = group.modules.iter().map(|of| of[place]).collect();
                assert_eq!(modules, self.tree(root));
                for (at, module) in blueprint.positions.iter().zip(modules).skip(1) {
                    assert_eq!(*at.name, *self.world.get::<ModuleName>(module).unwrap().0);
                    let layer = self.world.get::<Linear>(module);
                    assert!(layer.is_none_or(|layer| layer.is_like(&*at.module)));
                }
            }
        }
        let mut indices: Vec<u32> = Vec::new();
        for group in found.groups() {
            assert!(group.members.is_sorted());
            indices.extend(&group.members);
            for (&index, &root) in group.members.iter().zip(&group.modules[0]) {
                assert_eq!(found.models()[index as usize], root);
                let model = self.world.get::<Model>(root).unwrap();
                assert_eq!((model.index, model.blueprint), (index, group.blueprint));
                let number = *self.numbers.entry(root).or_insert(model.number);
                assert_eq!(model.number, number, "a number never changes");
            }
        }
        indices.sort_unstable();
        assert!(indices.into_iter().eq(0..found.len() as u32));
        let blueprints = self.world.resource::<Blueprints>();
        assert!(found.groups().iter().all(|group| blueprints.get(group.blueprint).is_some()));
    }
}
