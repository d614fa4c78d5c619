//! Whatever happens to models, modules and tags, in whatever order: every number of every model is found by
//! binding where its own module left it.

mod lab;

use bevy_ecs::entity::EntityCloner;
use bevy_ecs::prelude::*;
use neurarch_components::layers::{Linear, Sequential, Tanh};
use neurarch_components::population::Population;
use neurarch_kernels::cpu::tile::Rows;
use neurarch_kernels::ir::dtype::Dtype;
use neurarch_kernels::ir::program::{Role, Slot};
use proptest::prelude::*;

use crate::errors::BindError;
use crate::storage::bind::Binder;
use crate::storage::members::Members;
use crate::structure::columns;
use crate::structure::{sign, spawn};

use lab::{Deed, Lab, Tag, deeds};

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn every_number_is_found_where_its_module_left_it(deeds in deeds()) {
        let mut lab = Lab::new();
        lab.look();
        for deed in &deeds {
            lab.perform(deed);
        }
        lab.look();
        lab.look();
    }
}

#[test]
fn a_gradient_stays_where_no_parameter_has_one() {
    let mut lab = Lab::new();
    lab.look();
    for deed in [
        Deed::DespawnModule(38),
        Deed::AddChild(160, 1),
        Deed::Move(215, 263),
        Deed::Despawn(711),
        Deed::Spawn(2),
        Deed::Move(35, 0),
        Deed::DespawnModule(163),
        Deed::AddGradients(127),
        Deed::Spawn(1),
        Deed::DespawnModule(505),
        Deed::RemoveGradients(0),
        Deed::Move(369, 455),
        Deed::Swap(0, 0),
        Deed::Spawn(2),
        Deed::Move(45, 727),
    ] {
        lab.perform(&deed);
    }
    lab.look();
    lab.look();
}

#[test]
fn a_child_that_leaves_is_noticed_where_another_left_before() {
    let mut world = World::new();
    let inner = Sequential::new().push(Linear::new(3, 2));
    let brain = Sequential::new().push(inner).push(Linear::new(2, 3));
    let population = spawn::spawn_population(&mut world, &brain, 5, 8, 7, Dtype::F32).unwrap();
    sign::refresh(&mut world, population).unwrap();
    for root in world.get::<Population>(population).unwrap().models().to_vec() {
        let before = world.get::<Population>(population).unwrap().groups()[0].members.len();
        let inner = world.get::<Children>(root).unwrap()[0];
        let leaf = world.get::<Children>(inner).unwrap()[0];
        world.entity_mut(leaf).remove::<ChildOf>();
        sign::refresh(&mut world, population).unwrap();
        let groups = world.get::<Population>(population).unwrap().groups();
        // The last one takes its group with it.
        let left = if before == 1 { 5 } else { before - 1 };
        assert_eq!(groups[0].members.len(), left);
    }
}

#[test]
fn a_child_that_leaves_is_noticed_where_a_copy_comes() {
    let mut world = World::new();
    let brain = Sequential::new().push(Linear::new(3, 2));
    let population = spawn::spawn_population(&mut world, &brain, 2, 8, 7, Dtype::F32).unwrap();
    sign::refresh(&mut world, population).unwrap();
    let roots = world.get::<Population>(population).unwrap().models().to_vec();
    let copy = world.spawn_empty().id();
    let mut builder = EntityCloner::build_opt_out(&mut world);
    builder.linked_cloning(true).clone_entity(roots[0], copy);
    let leaf = world.get::<Children>(roots[1]).unwrap()[0];
    world.entity_mut(leaf).despawn();
    sign::refresh(&mut world, population).unwrap();
    let groups = world.get::<Population>(population).unwrap().groups();
    let members: Vec<_> = groups.iter().map(|group| group.members.clone()).collect();
    assert_eq!(members, [vec![0, 2], vec![1]]);
}

fn brain() -> Sequential {
    Sequential::new().push(Linear::new(4, 16)).push(Tanh).push(Linear::new(16, 2))
}

/// Addresses of the first rows of all columns of the first group.
fn addresses(world: &mut World, population: Entity) -> Vec<*mut u8> {
    sign::refresh(world, population).unwrap();
    let group = &world.get::<Population>(population).unwrap().groups()[0];
    let slots = group.contents.iter().enumerate().flat_map(|(position, contents)| {
        contents.columns().map(move |(role, index, ty)| {
            let (name, ty) = (format!("{position}.{index}"), ty.into_owned());
            Slot { name, role, position, index, ty }
        })
    });
    let slots: Vec<_> = slots.collect();
    let models = world.get::<Population>(population).unwrap().len();
    let mut members = Members::first(models, 0);
    (1..models).for_each(|index| members.push(index as u32));
    members.settle();
    let mut binder = Binder::default();
    let bound = binder.bind(world, population, 0, &members, &slots, &[]).unwrap();
    (0..slots.len())
        .map(|slot| {
            let rows = bound.rows(slot);
            assert!(matches!(rows, Rows::Strided { .. }), "spawned in order");
            rows.at(0)
        })
        .collect()
}

#[test]
fn spawning_within_the_capacity_moves_no_column() {
    let mut world = World::new();
    let population = spawn::spawn_population(&mut world, &brain(), 10, 300, 1, Dtype::F32).unwrap();
    let before = addresses(&mut world, population);
    spawn::spawn_models(&mut world, population, 290).unwrap();
    assert_eq!(before, addresses(&mut world, population));
}

#[test]
fn spawning_within_the_capacity_moves_no_companion_either() {
    let mut world = World::new();
    let population = spawn::spawn_population(&mut world, &brain(), 10, 300, 1, Dtype::F32).unwrap();
    let contents = world.get::<Population>(population).unwrap().groups()[0].contents[1].clone();
    let columns = contents.columns().map(|(_, index, ty)| Slot {
        name: index.to_string(),
        role: Role::Gradient,
        position: 1,
        index,
        ty: ty.into_owned(),
    });
    let slots: Vec<_> = columns.collect();
    assert!(columns::add_columns(&mut world, population, 0, &slots));
    assert!(!columns::add_columns(&mut world, population, 0, &slots));
    let before = addresses(&mut world, population);
    assert_eq!(before.len(), 6);
    spawn::spawn_models(&mut world, population, 290).unwrap();
    assert_eq!(before, addresses(&mut world, population));
}

#[test]
fn rows_of_a_part_are_those_of_the_whole() {
    let mut world = World::new();
    let population = spawn::spawn_population(&mut world, &brain(), 20, 20, 1, Dtype::F32).unwrap();
    let group = world.get::<Population>(population).unwrap().groups()[0].clone();
    let ty = group.contents[1].parameters[0].ty.clone();
    let slot = Slot { name: "0.weight".into(), role: Role::Parameter, position: 1, index: 0, ty };
    let slots = [slot];
    let mut part = Members::first(20, 3);
    [4, 9, 19].into_iter().for_each(|index| part.push(index));
    part.settle();
    let mut binder = Binder::default();
    let mut rows = |world: &mut World, members: &Members| -> Vec<*mut u8> {
        let bound = binder.bind(world, population, 0, members, &slots, &[]).unwrap();
        (0..members.len()).map(|member| bound.rows(0).at(member)).collect()
    };
    let whole = addresses(&mut world, population)[0];
    let at = |index: usize| whole.wrapping_add(index * 256);
    for _ in 0..2 {
        assert_eq!(rows(&mut world, &part), [3, 4, 9, 19].map(at));
    }
    // A tag moves the row to a table of its own; the last row of the old table fills the gap.
    world.entity_mut(group.modules[1][4]).insert(Tag);
    let tagged = rows(&mut world, &part);
    assert_eq!([tagged[0], tagged[2], tagged[3]], [at(3), at(9), at(4)]);
    let outside = Members::first(21, 20);
    assert_eq!(
        binder.bind(&mut world, population, 0, &outside, &slots, &[]).err(),
        Some(BindError::NotAMember { index: 20 })
    );
}
