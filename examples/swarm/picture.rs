//! Trajectories as a picture.

use std::error::Error;

use neurarch::bevy_ecs::prelude::*;
use plotters::prelude::*;

use crate::simulation::{Follows, GOALS, Goals, Position};

/// Where some bodies were, tick by tick, and where the goals were.
#[derive(Default)]
pub(crate) struct Trajectories {
    bodies: Vec<Followed>,
    goals: [Vec<(f32, f32)>; GOALS],
}

impl Trajectories {
    /// Writes down where bodies are now: of the first so many, until they die.
    pub(crate) fn follow(&mut self, world: &mut World, count: usize) {
        if self.bodies.is_empty() {
            let mut all = world.query::<(Entity, &Follows)>();
            let mut all: Vec<_> = all.iter(world).map(|(body, of)| (body, of.0)).collect();
            all.sort_unstable();
            let step = (all.len() / count).max(1);
            let chosen = all.into_iter().step_by(step).take(count);
            self.bodies =
                chosen.map(|(body, goal)| Followed { body, goal, places: Vec::new() }).collect();
        }
        for Followed { body, places, .. } in &mut self.bodies {
            if let Some(place) = world.get::<Position>(*body) {
                places.push(place.0.into());
            }
        }
        let goals = world.resource::<Goals>().0;
        self.goals.iter_mut().zip(goals).for_each(|(places, goal)| places.push(goal.into()));
    }
}

/// A body, its goal, and where it was.
struct Followed {
    body: Entity,
    goal: usize,
    places: Vec<(f32, f32)>,
}

const COLORS: [RGBColor; GOALS] = [
    RGBColor(31, 119, 180),
    RGBColor(255, 127, 14),
    RGBColor(44, 160, 44),
    RGBColor(214, 39, 40),
    RGBColor(148, 103, 189),
];

/// Draws two sets of trajectories beside each other, as SVG: thin lines of bodies in the color of their goal, thick ones of
/// the goals.
pub(crate) fn draw(before: &Trajectories, after: &Trajectories) -> Result<String, Box<dyn Error>> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (1000, 520)).into_drawing_area();
        area.fill(&WHITE)?;
        for (half, (of, title)) in
            area.split_evenly((1, 2)).iter().zip([(before, "before"), (after, "after")])
        {
            let mut chart = ChartBuilder::on(half)
                .caption(title, ("sans-serif", 20))
                .margin(10)
                .build_cartesian_2d(-1.0_f32..1.0, -1.0_f32..1.0)?;
            chart.configure_mesh().disable_mesh().draw()?;
            for Followed { goal, places, .. } in &of.bodies {
                let color = COLORS[*goal];
                chart.draw_series(LineSeries::new(places.iter().copied(), color.mix(0.7)))?;
                let end = places.last().map(|&end| Circle::new(end, 2, color.filled()));
                chart.draw_series(end)?;
            }
            for (places, color) in of.goals.iter().zip(COLORS) {
                let line = LineSeries::new(places.iter().copied(), color.stroke_width(4));
                chart.draw_series(line)?;
                let end = places.last().map(|&end| Circle::new(end, 7, color.filled()));
                chart.draw_series(end)?;
            }
        }
        area.present()?;
    }
    Ok(svg)
}
