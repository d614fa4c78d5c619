//! A storm of spawns, despawns, structure edits, overwrites, changes of hooks, and of anything between a forward pass and
//! the way back: whatever happens, each model is what a plain reference says.
//!
//! `NEURARCH_STORM=1000000 cargo test --release --test promises storm:: -- --nocapture` makes it long, `NEURARCH_SEED=2`
//! another one.
#![expect(clippy::print_stdout, reason = "a long storm tells what it took")]
#![expect(unreachable_pub, reason = "`pub` says what a file of the test offers to the others")]

mod checks;
mod edits;
mod late;
mod lazy;
mod parametrized;
mod plain;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use neurarch::components::hook::{Callback, Hooks};
use neurarch::components::module::registry::ModuleTypes;
use neurarch::hooks::{At, Target};
use neurarch::prelude::*;
use neurarch::systems::structure::mode;
use plain::{HIDDEN, Hook, INPUTS, LR, Layer, MOMENTUM, Model, OUTPUTS, Random};

/// How many operations there are from one comparison of everything to the next.
const CHECK_EVERY: usize = 500;
/// Of how many operations one is followed by a look at all models.
const READ_EVERY: usize = 16;
const POPULATIONS: usize = 3;
const MOST_MODELS: usize = 12;

/// Gives one number in training, another in evaluation mode.
#[derive(Component, Clone, Debug, PartialEq)]
struct Mood;

impl Module for Mood {
    fn forward(&self, call: &Call<'_>, x: Var) -> Var {
        x * if call.training() { 0.5 } else { 0.75 }
    }
}

/// A component of the host's.
#[derive(Component, Clone, Debug, PartialEq)]
struct Tag(u32);

struct Group {
    entity: Entity,
    roots: Vec<Entity>,
    models: Vec<Model>,
    /// Hooks of all models, by path.
    hooks: Vec<(String, Hook)>,
}

struct Storm {
    world: World,
    random: Random,
    groups: Vec<Group>,
    /// How often each hook was called, and should have been.
    counters: Vec<Arc<AtomicUsize>>,
    ledger: Vec<usize>,
    spawned: usize,
    /// How often a model was read with `&World`, and how often that was refused.
    read: usize,
    refused: usize,
}

#[test]
fn every_model_is_what_a_plain_reference_says() {
    let number = |name| std::env::var(name).ok().and_then(|number| number.parse().ok());
    let operations = number("NEURARCH_STORM").unwrap_or(6_000);
    let mut storm = Storm::new(number("NEURARCH_SEED").unwrap_or(1) as u64);
    let start = Instant::now();
    for done in 0..operations {
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            storm.operate();
            storm.read(done);
        }));
        if let Err(panic) = result {
            println!("in operation {done}");
            std::panic::resume_unwind(panic);
        }
        if (done + 1) % CHECK_EVERY == 0 {
            storm.check();
            // As an app does after each frame: bevy keeps what was removed until then.
            storm.world.clear_trackers();
        }
        if (done + 1) % (operations / 10).max(1) == 0 {
            println!(
                "{} operations, {} models spawned, {:.1} s, {} MiB resident, {} component ids, {} archetypes, {} models read, {} refused",
                done + 1,
                storm.spawned,
                start.elapsed().as_secs_f64(),
                resident_bytes() >> 20,
                storm.world.components().len(),
                storm.world.archetypes().len(),
                storm.read,
                storm.refused,
            );
        }
    }
    storm.check();
    assert!(operations < 6_000 || storm.read > 100 && storm.refused > 2);
    assert!(storm.world.components().len() < 500, "component ids stay in the hundreds");
}

/// The memory of this process, 0 where the system does not say.
fn resident_bytes() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").ok();
    let pages = pages.and_then(|text| text.split(' ').nth(1)?.parse::<usize>().ok());
    pages.unwrap_or(0) * 4096
}

impl Storm {
    fn new(seed: u64) -> Self {
        let (mut world, random) = (World::new(), Random(seed));
        ModuleTypes::register::<Mood>(&mut world);
        let (groups, counters, ledger) = (Vec::new(), Vec::new(), Vec::new());
        let (spawned, read, refused) = (0, 0, 0);
        let mut storm = Storm { world, random, groups, counters, ledger, spawned, read, refused };
        (0..POPULATIONS).for_each(|_| storm.spawn_population());
        storm
    }

    fn operate(&mut self) {
        match self.random.below(1000) {
            0..100 => self.spawn(),
            100..220 => self.despawn(),
            220..260 => self.clone_models(),
            260..360 => self.tag(),
            360..540 => self.edit(),
            540..580 => self.parametrize(),
            580..640 => self.overwrite(),
            640..740 => self.load(),
            740..800 => self.change_mode(),
            800..840 => self.activate(),
            840..880 => self.add_hook(),
            880..910 => self.remove_hook(),
            910..914 => self.add_shared_hook(),
            914..930 => self.remove_shared_hook(),
            930..950 => self.forward(),
            950..970 => self.step(),
            970..985 => self.change_late(),
            985..999 => self.fail(),
            _ => self.replace_population(),
        }
    }

    /// Chooses a population.
    fn group(&mut self) -> usize {
        self.random.below(self.groups.len())
    }

    /// Chooses a model of a population.
    fn model(&mut self) -> (usize, usize) {
        let group = self.group();
        (group, self.random.below(self.groups[group].models.len()))
    }

    fn root(&self, (group, model): (usize, usize)) -> Entity {
        self.groups[group].roots[model]
    }

    fn plain(&mut self, (group, model): (usize, usize)) -> &mut Model {
        &mut self.groups[group].models[model]
    }

    /// Chooses a layer of a model, the root included; gives its entity.
    fn layer(&mut self, at: (usize, usize)) -> (usize, Entity) {
        let layer = self.groups[at.0].models[at.1].layers.len();
        let layer = self.random.below(layer);
        (layer, self.module(at, layer))
    }

    /// Chooses a layer; gives the module that has its tensors.
    fn tensors(&mut self, at: (usize, usize)) -> (usize, Entity) {
        let (layer, _) = self.layer(at);
        let path = self.plain(at).layers[layer].tensors();
        let root = self.root(at);
        (layer, self.world.module_mut(root).unwrap().at(&path).unwrap().id())
    }

    fn module(&mut self, at: (usize, usize), layer: usize) -> Entity {
        let name = self.plain(at).layers[layer].name.clone();
        let root = self.root(at);
        self.world.module_mut(root).unwrap().at(&name).unwrap().id()
    }

    fn spawn_population(&mut self) {
        let is_lazy = self.random.one_in(3);
        let module = match is_lazy {
            true => Sequential::new()
                .push(LazyLinear::new(HIDDEN))
                .push(Tanh)
                .push(LazyLinear::new(OUTPUTS)),
            false => Sequential::new()
                .push(Linear::new(INPUTS, HIDDEN))
                .push(Tanh)
                .push(Linear::new(HIDDEN, OUTPUTS)),
        };
        let settings = PopulationSettings {
            models: 4,
            capacity: self.random.below(10),
            seed: self.spawned as u64,
            dtype: Dtype::F64,
            first_number: 0,
        };
        let entity = self.world.spawn_population_with(&module, settings).unwrap().id();
        self.world.population_mut(entity).unwrap().insert(optimizer()).unwrap();
        let roots = self.world.population(entity).unwrap().models().to_vec();
        let models: Vec<_> = roots.iter().map(|_| Model::new(is_lazy, &mut self.random)).collect();
        self.spawned += models.len();
        self.groups.push(Group { entity, roots, models, hooks: Vec::new() });
        let group = self.groups.len() - 1;
        (0..4).for_each(|model| self.write((group, model)));
    }

    fn replace_population(&mut self) {
        let group = self.group();
        let gone = self.groups.swap_remove(group);
        for root in gone.roots {
            self.world.despawn(root);
        }
        self.world.despawn(gone.entity);
        self.spawn_population();
    }

    /// Gives a model the numbers of the reference.
    fn write(&mut self, at: (usize, usize)) {
        let tensors = self.plain(at).state().into_iter();
        let state: StateDict =
            tensors.map(|(name, value)| Tensor::new(name, value.view())).collect();
        let (root, waiting) = (self.root(at), self.plain(at).waiting());
        let options = LoadOptions { strict: waiting.is_empty(), ..LoadOptions::default() };
        let keys =
            self.world.module_mut(root).unwrap().load_state_dict_with(&state, options).unwrap();
        assert_eq!(keys.missing_keys, waiting);
    }

    fn spawn(&mut self) {
        let group = self.group();
        if self.groups[group].models.len() >= MOST_MODELS {
            return;
        }
        let count = 1 + self.random.below(2);
        let entity = self.groups[group].entity;
        let roots = self.world.population_mut(entity).unwrap().spawn_models(count).unwrap();
        assert_eq!(roots.len(), count);
        for root in roots {
            self.world.entity_mut(root).insert(optimizer());
            // Like the first: its structure, but nothing that it was told later.
            let mut model = self.groups[group].models[0].clone();
            model.active = true;
            for layer in &mut model.layers {
                (layer.training, layer.tag) = (true, None);
                layer.hooks.clear();
                for parameter in &mut layer.parameters {
                    (parameter.frozen, parameter.momentum) =
                        (false, parameter.momentum.map(|_| 0.0));
                }
                // Those that no state dict has start with what they are made with.
                layer.buffers.iter_mut().for_each(|buffer| buffer.value.fill(0.0));
            }
            for (_, value) in model.state() {
                *value = self.random.array(value.shape());
            }
            self.groups[group].roots.push(root);
            self.groups[group].models.push(model);
            self.spawned += 1;
            let model = self.groups[group].models.len() - 1;
            self.write((group, model));
            self.write_hidden((group, model));
        }
    }

    /// Gives a model's buffers that no state dict has the numbers of the reference.
    fn write_hidden(&mut self, at: (usize, usize)) {
        let root = self.root(at);
        for layer in &self.groups[at.0].models[at.1].layers {
            for buffer in layer.buffers.iter().filter(|buffer| !buffer.persistent) {
                let name = layer.path(&buffer.name);
                self.world
                    .module_mut(root)
                    .unwrap()
                    .set_parameter(&name, buffer.value.view())
                    .unwrap();
            }
        }
    }

    fn despawn(&mut self) {
        let (group, model) = self.model();
        let group = &mut self.groups[group];
        if group.models.len() > 1 {
            group.models.swap_remove(model);
            self.world.despawn(group.roots.swap_remove(model));
        }
    }

    fn clone_models(&mut self) {
        let (group, model) = self.model();
        if self.groups[group].models.len() >= MOST_MODELS {
            return;
        }
        let other = self.random.below(self.groups[group].models.len());
        let entity = self.groups[group].entity;
        let roots =
            self.world.population_mut(entity).unwrap().clone_models(&[model, other]).unwrap();
        for (root, model) in roots.into_iter().zip([model, other]) {
            let group = &mut self.groups[group];
            let mut clone = group.models[model].clone();
            let hooks = clone.layers.iter_mut().flat_map(|layer| &mut layer.hooks);
            hooks.for_each(|hook| hook.handle = None);
            group.roots.push(root);
            group.models.push(clone);
            self.spawned += 1;
        }
    }

    fn tag(&mut self) {
        let at = self.model();
        let (layer, entity) = self.layer(at);
        let tag = (!self.random.one_in(3)).then(|| self.random.below(100) as u32);
        match tag {
            Some(number) => drop(self.world.entity_mut(entity).insert(Tag(number))),
            None => drop(self.world.entity_mut(entity).remove::<Tag>()),
        }
        self.plain(at).layers[layer].tag = tag;
    }

    fn overwrite(&mut self) {
        let group = self.group();
        let signatures: Vec<_> = self.groups[group].models.iter().map(Model::signature).collect();
        let parents = (0..signatures.len()).map(|model| {
            let parent = self.random.below(signatures.len());
            if signatures[parent] == signatures[model] { parent } else { model }
        });
        let parents: Vec<_> = parents.collect();
        let group = &mut self.groups[group];
        self.world.population_mut(group.entity).unwrap().overwrite(&parents).unwrap();
        let before = group.models.clone();
        for (model, parent) in group.models.iter_mut().zip(parents) {
            model.overwrite(&before[parent]);
        }
    }

    fn load(&mut self) {
        let at = self.model();
        let mut random = Random(self.random.below(1 << 30) as u64);
        let skipped = self.random.one_in(3).then(|| random.below(4));
        let (root, mut state) = (self.root(at), StateDict::new());
        let (mut missing, mut waiting) = (Vec::new(), self.plain(at).waiting());
        self.plain(at).wait_for(&[]);
        for (place, (name, value)) in self.plain(at).state().into_iter().enumerate() {
            if skipped == Some(place) {
                missing.push(name);
                continue;
            }
            *value = random.array(value.shape());
            state.insert(Tensor::new(name, value.view()));
        }
        waiting.retain(|name| missing.contains(name));
        self.plain(at).wait_for(&waiting);
        let options = LoadOptions { strict: missing.is_empty(), ..LoadOptions::default() };
        let unexpected = if missing.is_empty() { vec![] } else { vec!["none.such".to_owned()] };
        for name in &unexpected {
            state.insert(Tensor::new(name, ndarray::arr1(&[1.0]).view()));
        }
        let keys =
            self.world.module_mut(root).unwrap().load_state_dict_with(&state, options).unwrap();
        assert_eq!((keys.missing_keys, keys.unexpected_keys), (missing, unexpected));
    }

    fn change_mode(&mut self) {
        let at = self.model();
        let training = self.random.one_in(2);
        let set = |world: &mut World, entity| match training {
            true => mode::train(world, entity).unwrap(),
            false => mode::eval(world, entity).unwrap(),
        };
        match self.random.below(4) {
            0 => {
                set(&mut self.world, self.groups[at.0].entity);
                let models = self.groups[at.0].models.iter_mut();
                models.flat_map(|model| &mut model.layers).for_each(|of| of.training = training);
            }
            1 => {
                // The last layer that learns is never frozen.
                let layers = &self.groups[at.0].models[at.1].layers;
                let of = layers.iter().enumerate().filter(|(_, layer)| layer.name != "2");
                let of = of.flat_map(|(place, layer)| {
                    let there = layer.parameters.iter().enumerate();
                    let there = there.filter(|(_, parameter)| parameter.value.is_some());
                    there.map(move |(number, parameter)| {
                        (place, number, layer.path(&parameter.name))
                    })
                });
                let of: Vec<_> = of.collect();
                let (place, number, name) = of[self.random.below(of.len())].clone();
                let root = self.root(at);
                self.world.module_mut(root).unwrap().set_requires_grad(&name, training).unwrap();
                self.plain(at).layers[place].parameters[number].frozen = !training;
            }
            _ => {
                let (layer, entity) = self.layer(at);
                set(&mut self.world, entity);
                let layers = &mut self.plain(at).layers;
                let below = if layer == 0 { 0..layers.len() } else { layer..layer + 1 };
                layers[below].iter_mut().for_each(|layer| layer.training = training);
            }
        }
    }

    fn activate(&mut self) {
        let at = self.model();
        let active = !self.random.one_in(3);
        let root = self.root(at);
        self.world.module_mut(root).unwrap().set_active(active).unwrap();
        self.plain(at).active = active;
    }

    fn register(&mut self, target: Target) -> Hook {
        // A half of the hooks only look.
        let factor = [1.0, 1.0, -1.0, 0.5][self.random.below(4)];
        let counter = Arc::new(AtomicUsize::new(0));
        self.counters.push(counter.clone());
        self.ledger.push(0);
        let scale = move |at: &At<'_>, _: &Arguments, y: Option<&Tree>| {
            counter.fetch_add(at.models, Ordering::Relaxed);
            Ok(y.and_then(Tree::leaf).filter(|_| factor != 1.0).map(|y| (y * factor).into()))
        };
        let (callback, options) = (Callback::Forward(Box::new(scale)), HookOptions::default());
        let by_bevy = match target {
            Target::Module(module) if self.random.one_in(2) => {
                self.world.get::<Hooks>(module).is_none().then_some(module)
            }
            _ => None,
        };
        let handle = match by_bevy {
            Some(module) => {
                let mut hooks = Hooks::default();
                let handle = hooks.register(callback, options);
                self.world.entity_mut(module).insert(hooks);
                handle
            }
            None => self.world.target_mut(target).register_hook_with(callback, options).unwrap(),
        };
        Hook { factor, line: self.ledger.len() - 1, handle: Some(handle) }
    }

    fn add_hook(&mut self) {
        let at = self.model();
        if self.plain(at).layers.iter().map(|layer| layer.hooks.len()).sum::<usize>() >= 3 {
            return;
        }
        let (layer, entity) = self.layer(at);
        let hook = self.register(entity.into());
        self.plain(at).layers[layer].hooks.push(hook);
    }

    fn remove_hook(&mut self) {
        let at = self.model();
        for layer in &mut self.plain(at).layers {
            let found = layer.hooks.iter().position(|hook| hook.handle.is_some());
            if let Some(found) = found {
                let handle = layer.hooks.remove(found).handle.unwrap();
                assert!(handle.remove() && !handle.remove());
                return;
            }
        }
    }

    fn add_shared_hook(&mut self) {
        let group = self.group();
        if self.groups[group].hooks.is_empty() {
            let path = ["", "0", "2"][self.random.below(3)];
            let hook = self.register((self.groups[group].entity, path).into());
            self.groups[group].hooks.push((path.to_owned(), hook));
        }
    }

    fn remove_shared_hook(&mut self) {
        let group = self.group();
        for (_, hook) in self.groups[group].hooks.drain(..) {
            assert!(hook.handle.unwrap().remove());
        }
    }
}

fn optimizer() -> SGD {
    SGD { lr: LR, momentum: MOMENTUM, ..SGD::default() }
}

/// Puts a new layer's numbers where they belong.
fn write_layer(world: &mut World, root: Entity, layer: &Layer) {
    for parameter in layer.parameters.iter().filter(|parameter| !parameter.waits) {
        if let Some(value) = &parameter.value {
            world
                .module_mut(root)
                .unwrap()
                .set_parameter(&layer.path(&parameter.name), value.view())
                .unwrap();
        }
    }
}
