//! Messages say which models came and went, and which populations stepped.

use std::collections::BTreeSet;

use neurarch::plugin::{ModelDespawned, ModelSpawned, PopulationStepped};

use super::*;

fn drain<M: Message>(app: &mut App) -> Vec<M> {
    app.world_mut().resource_mut::<Messages<M>>().drain().collect()
}

#[test]
fn models_that_come_and_go_are_told_once() {
    let mut app = app(NeurarchPlugin::default());
    let brains = learners(app.world_mut(), 6, 1);
    let models = app.world().population(brains).unwrap().models().to_vec();
    app.update();
    let told: Vec<_> = drain::<ModelSpawned>(&mut app);
    let expected = models.iter().map(|&model| ModelSpawned { population: brains, model });
    assert_eq!(told, expected.collect::<Vec<_>>());
    app.update();
    assert!(
        drain::<ModelSpawned>(&mut app).is_empty() && drain::<ModelDespawned>(&mut app).is_empty()
    );
    // Two go, one comes; those that move into gaps are not told of.
    app.world_mut().despawn(models[1]);
    app.world_mut().despawn(models[3]);
    let born = clone(app.world_mut(), models[0]);
    app.update();
    assert_eq!(drain::<ModelSpawned>(&mut app), [ModelSpawned { population: brains, model: born }]);
    let gone: BTreeSet<_> =
        drain::<ModelDespawned>(&mut app).iter().map(|told| told.model).collect();
    assert_eq!(gone, BTreeSet::from([models[1], models[3]]));
    // One that came and went between two ticks was never there.
    let born = clone(app.world_mut(), models[0]);
    app.world_mut().despawn(born);
    app.update();
    assert!(
        drain::<ModelSpawned>(&mut app).is_empty() && drain::<ModelDespawned>(&mut app).is_empty()
    );
    app.world_mut().despawn(brains);
    app.update();
    assert_eq!(drain::<ModelDespawned>(&mut app).len(), 5);
}

#[test]
fn steps_are_told_when_all_models_have_made_them() {
    let plugin = NeurarchPlugin::default().with_budget(neurarch::plugin::TrainingBudget::tiles(1));
    let mut app = app(plugin);
    let brains = learners(app.world_mut(), 40, 1);
    app.add_systems(FixedUpdate, give.in_set(StepSystems::Loss));
    let mut told: Vec<Vec<u64>> = Vec::new();
    for _ in 0..6 {
        app.update();
        told.push(drain::<PopulationStepped>(&mut app).iter().map(|told| told.steps).collect());
    }
    assert_eq!(told, [vec![], vec![], vec![1], vec![], vec![], vec![2]]);
    assert_eq!(app.world().get::<Progress>(brains).unwrap().steps, 2);
}
