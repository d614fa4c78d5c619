//! A frame's budget: shared by its ticks, fair, deterministic, and without effect on what models learn.
#![expect(clippy::print_stdout, reason = "a long run tells by how much the wall clock was over")]

use std::time::Instant;

use neurarch::plugin::{TILE, TileWorkers, TrainingBudget, TrainingSpent};

use super::*;

fn with(budget: TrainingBudget) -> App {
    let mut app = app(NeurarchPlugin::default().with_budget(budget));
    app.add_systems(FixedUpdate, give.in_set(StepSystems::Loss));
    app
}

fn steps(app: &App, population: Entity) -> u64 {
    app.world().get::<Progress>(population).unwrap().steps
}

#[test]
fn what_models_learn_does_not_depend_on_the_budget() {
    let run = |budget: TrainingBudget, workers: Option<TileWorkers>| {
        let mut app = app(NeurarchPlugin::default().with_budget(budget));
        app.add_systems(FixedUpdate, give_until(3).in_set(StepSystems::Loss));
        app.insert_resource(workers.unwrap_or_default());
        let all = [(50, 1), (33, 2), (7, 3)]
            .map(|(models, seed)| learners(app.world_mut(), models, seed));
        (0..40).for_each(|_| app.update());
        assert_eq!(all.map(|population| steps(&app, population)), [3; 3]);
        all.map(|population| weights(app.world_mut(), population))
    };
    let expected = run(TrainingBudget::Unlimited, None);
    for budget in [TrainingBudget::tiles(1), TrainingBudget::time(Duration::from_secs(1))] {
        assert_eq!(run(budget, None), expected, "{budget:?}");
    }
    let spare = TileWorkers { spare: 1, ..TileWorkers::compute_pool() };
    assert_eq!(run(TrainingBudget::tiles(1), Some(spare)), expected);
}

#[test]
fn a_run_with_a_budget_in_tiles_repeats_bit_for_bit() {
    let run = || {
        let mut app = with(TrainingBudget::tiles(3));
        let all = [(50, 1), (33, 2)].map(|(models, seed)| learners(app.world_mut(), models, seed));
        let mut seen = Vec::new();
        for _ in 0..9 {
            app.update();
            let of = all.map(|population| app.world().get::<Progress>(population).unwrap().waiting);
            seen.push((of, all.map(|population| weights(app.world_mut(), population))));
        }
        seen
    };
    let (first, second) = (run(), run());
    assert!(first == second);
    assert!(first.iter().any(|(waiting, _)| waiting.iter().any(|&n| n > 0)), "some were left over");
}

#[test]
fn nobody_learns_twice_while_another_waits() {
    let mut app = with(TrainingBudget::tiles(2));
    let all: Vec<_> =
        (0..5).map(|seed| learners(app.world_mut(), 20 + seed, seed as u64)).collect();
    for _ in 0..60 {
        app.update();
        let steps: Vec<_> = all.iter().map(|&population| steps(&app, population)).collect();
        let (least, most) = (steps.iter().min().unwrap(), steps.iter().max().unwrap());
        assert!(most - least <= 1, "{steps:?}");
    }
    // 2 tiles a frame and 10 in all: a round takes five frames.
    assert_eq!(all.iter().map(|&population| steps(&app, population)).min(), Some(12));
}

#[test]
fn ticks_of_one_frame_share_its_budget() {
    let mut app = with(TrainingBudget::tiles(5));
    learners(app.world_mut(), 10 * TILE, 1);
    // A frame of 16 ticks.
    app.insert_resource(TimeUpdateStrategy::ManualDuration(16 * TICK));
    app.update();
    assert_eq!(app.world().resource::<TrainingSpent>().tiles, 5);
    app.update();
    assert_eq!(app.world().resource::<TrainingSpent>().tiles, 5, "a new frame has a new budget");
}

#[test]
fn models_that_die_or_are_born_between_tiles_keep_the_round_right() {
    let mut app = app(NeurarchPlugin::default().with_budget(TrainingBudget::tiles(1)));
    app.add_systems(FixedUpdate, give_until(1).in_set(StepSystems::Loss));
    let brains = learners(app.world_mut(), 40, 1);
    app.update();
    let models = app.world().population(brains).unwrap().models().to_vec();
    let mut alone = World::new();
    let by_hand = learners(&mut alone, 40, 1);
    let (x, y) = batch(40, 0);
    let loss = CrossEntropyLoss::default();
    let mut whole = alone.population_mut(by_hand).unwrap();
    let losses = whole.train_step(&x, &y, &loss).unwrap();
    let expected = weights(&mut alone, by_hand);
    // The first 16 have learned. One of them dies, and one that has not; the last ones move into their places.
    app.world_mut().despawn(models[3]);
    app.world_mut().despawn(models[20]);
    let born = clone(app.world_mut(), models[30]);
    let before = app
        .world_mut()
        .module_mut(born)
        .unwrap()
        .at("0")
        .unwrap()
        .parameter::<f32>("bias")
        .unwrap();
    // The one that moved into the first gap is a tile of its own.
    (0..3).for_each(|_| app.update());
    let progress = app.world().get::<Progress>(brains).unwrap();
    assert_eq!((progress.steps, progress.waiting), (1, 0));
    let now = app.world().population(brains).unwrap().models().to_vec();
    for (index, &model) in now.iter().enumerate() {
        let bias = app
            .world_mut()
            .module_mut(model)
            .unwrap()
            .at("0")
            .unwrap()
            .parameter::<f32>("bias")
            .unwrap();
        let last = app.world().get::<Progress>(brains).unwrap().losses[index];
        if model == born {
            assert_eq!(bias, before, "who was born has nothing to learn from yet");
            assert!(last.is_nan());
            continue;
        }
        let old = models.iter().position(|&other| other == model).unwrap();
        assert_eq!(bias.as_slice().unwrap(), &expected[1][8 * old..][..8], "model {old}");
        assert_eq!(last, losses[old]);
    }
}

#[test]
fn hooks_that_come_in_the_middle_of_a_round_leave_the_rest_right() {
    let mut app = with(TrainingBudget::tiles(1));
    let brains = learners(app.world_mut(), 40, 1);
    app.update();
    let model = app.world().population(brains).unwrap().models()[25];
    let mut module = app.world_mut().module_mut(model).unwrap();
    module.register_forward_hook(|_, _, _| ()).unwrap();
    app.update();
    assert_eq!(steps(&app, brains), 1, "the others are one piece");
    let mut alone = World::new();
    let by_hand = learners(&mut alone, 40, 1);
    let (x, y) = batch(40, 0);
    let loss = CrossEntropyLoss::default();
    alone.population_mut(by_hand).unwrap().train_step(&x, &y, &loss).unwrap();
    assert_eq!(weights(app.world_mut(), brains), weights(&mut alone, by_hand));
}

#[test]
fn random_numbers_do_not_depend_on_the_budget() {
    let run = |budget: TrainingBudget, frames: usize| {
        let mut app = with(budget);
        let brain = Sequential::new()
            .push(Linear::new(4, 8))
            .push(Dropout { p: 0.5 })
            .push(Linear::new(8, 2));
        let mut brains = app.world_mut().spawn_population(&brain, 40, Seed(4)).unwrap();
        brains.insert(SGD { lr: 0.1, ..SGD::default() }).unwrap();
        let brains = brains.id();
        app.world_mut().entity_mut(brains).insert(Learn::new(CrossEntropyLoss::default()));
        (0..frames).for_each(|_| app.update());
        assert_eq!(steps(&app, brains), 3);
        weights(app.world_mut(), brains)
    };
    assert_eq!(run(TrainingBudget::tiles(1), 9), run(TrainingBudget::Unlimited, 3));
}

/// Lets brains learn at 60 Hz under a budget of time, and prints how far the wall clock was overrun.
fn sixty_hertz(models: usize, ticks: usize) {
    let tick = Duration::from_nanos(16_666_667);
    let budget = Duration::from_millis(4);
    let mut app = with(TrainingBudget::time(budget));
    app.insert_resource(TimeUpdateStrategy::ManualDuration(tick));
    let fixed = bevy_time::Time::<bevy_time::Fixed>::from_hz(60.0);
    app.insert_resource(fixed);
    let brains = learners(app.world_mut(), models, 1);
    // The first step plans.
    app.update();
    let mut over = [0_usize; 6];
    let began = Instant::now();
    for _ in 0..ticks {
        app.update();
        let spent = app.world().resource::<TrainingSpent>();
        assert_eq!(spent.late, 0, "no tile begins after the deadline");
        let late = spent.time.saturating_sub(budget).as_micros();
        let bin = [0, 100, 300, 1_000, 3_000].iter().filter(|&&bound| late > bound).count();
        over[bin] += 1;
    }
    let names = ["within", "100 us", "300 us", "1 ms", "3 ms", "more"];
    println!("{models} models, {ticks} ticks in {:?}: over the budget by up to", began.elapsed());
    names.iter().zip(over).for_each(|(name, ticks)| println!("  {name}: {ticks}"));
    assert!(steps(&app, brains) > 0, "it learns nonetheless");
}

#[test]
fn no_tile_begins_after_the_deadline() {
    sixty_hertz(500, 60);
}

#[test]
#[ignore = "ten minutes of simulated time: minutes of computing"]
fn ten_thousand_brains_learn_at_sixty_hertz_for_ten_minutes() {
    sixty_hertz(10_000, 36_000);
}
