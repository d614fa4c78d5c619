//! One edit of live containers: planned for models of one structure together, done in all, signed once.

use bevy_ecs::prelude::*;
use neurarch_components::module::DynModule;
use neurarch_components::module::registered::Registered;
use neurarch_components::module::registry::ModuleTypes;
use neurarch_components::population::tie::Ties;
use neurarch_components::state::Tensor;

use super::EditError;
use super::children::{ChildPlan, move_hooks};
use super::draft::{Draft, Taken};
use super::parameters::ParameterPlan;
use super::site::{Site, index_of, sites};
use crate::draw::Draw;
use crate::execute::hooks::Target;
use crate::structure::sign;

/// What an edit took out, of each model, by the models' indices.
#[derive(Debug, Default)]
pub(super) struct Out {
    /// Modules that are part of no model any more.
    pub(super) modules: Vec<Entity>,
    /// Parameters.
    pub(super) parameters: Vec<Vec<Tensor>>,
}

/// Does an operation on the containers that a target names. Nothing is changed if it fails for one of them.
pub(super) fn edit(
    world: &mut World,
    target: impl Into<Target>,
    deed: impl Fn(&mut Draft) -> Result<Taken, EditError>,
) -> Result<Out, EditError> {
    let target = target.into();
    let path = match &target {
        Target::Population(_, path) => Some(path.clone()),
        _ => None,
    };
    let (mut of_children, mut of_parameters) = (Vec::new(), Vec::new());
    let sites = sites(world, target)?;
    let models = sites.iter().map(|site| site.members.len()).sum();
    for site in sites {
        let mut draft = site.draft(world)?;
        let taken = deed(&mut draft)?;
        if draft.is_of_parameters() {
            let plan = ParameterPlan::of(world, &site, draft.parameters(), &taken.parameters)?;
            of_parameters.push((site, plan));
        } else {
            let plan = ChildPlan::of(world, &site, draft.children(), &taken.modules, models)?;
            of_children.push((site, plan));
        }
    }
    let mut out = Out::default();
    edit_children(world, path.as_deref(), &of_children, &mut out)?;
    edit_parameters(world, &of_parameters, &mut out)?;
    Ok(out)
}

fn edit_children(
    world: &mut World,
    path: Option<&str>,
    plans: &[(Site, ChildPlan)],
    out: &mut Out,
) -> Result<(), EditError> {
    let Some((first, _)) = plans.first() else { return Ok(()) };
    let population = first.spot.population;
    let mut done = Vec::new();
    for (site, plan) in plans {
        done.extend(site.members.iter().map(|&member| plan.apply(world, member)));
    }
    if let Err(error) = sign::refresh_drawing(world, population, Draw::Anew) {
        done.iter().for_each(|before| before.restore(world));
        sign::refresh(world, population)?;
        done.iter().for_each(|before| before.restore_modes(world));
        return Err(error.into());
    }
    if let Some(path) = path {
        let plans: Vec<_> = plans.iter().map(|(site, plan)| (site, plan)).collect();
        move_hooks(world, population, path, &plans);
    }
    let mut taken: Vec<_> = done.into_iter().map(|before| before.settle(world)).collect();
    taken.sort_by_key(|&(root, _)| index_of(world, root));
    out.modules = taken.into_iter().flat_map(|(_, taken)| taken).collect();
    Ok(())
}

fn edit_parameters(
    world: &mut World,
    plans: &[(Site, ParameterPlan)],
    out: &mut Out,
) -> Result<(), EditError> {
    let Some((first, _)) = plans.first() else { return Ok(()) };
    let population = first.spot.population;
    let mut taken = Vec::new();
    let mut before = Vec::new();
    for (site, plan) in plans {
        for &member in &site.members {
            taken.push((index_of(world, member.root), plan.read(world, site, member)));
            before.push(Listing::of(world, member.module));
        }
    }
    taken.sort_by_key(|&(index, _)| index);
    let put = |world: &mut World| -> Result<(), EditError> {
        if plans.iter().any(|(_, plan)| plan.replaces()) {
            for (site, plan) in plans {
                site.members.iter().for_each(|&member| plan.clear(world, site, member));
            }
            sign::refresh(world, population)?;
        }
        let members = plans
            .iter()
            .flat_map(|(site, plan)| site.members.iter().map(move |&member| (site, plan, member)));
        for ((site, plan, member), before) in members.zip(&before) {
            plan.apply(world, site, member, before.registered.is_some());
        }
        Ok(sign::refresh_drawing(world, population, Draw::Anew)?)
    };
    if let Err(error) = put(world) {
        before.into_iter().for_each(|before| before.restore(world));
        sign::refresh(world, population)?;
        return Err(error);
    }
    for (site, plan) in plans {
        site.members.iter().for_each(|&member| plan.write(world, member));
    }
    out.parameters = taken.into_iter().map(|(_, taken)| taken).collect();
    Ok(())
}

/// What a module of parameters listed before.
struct Listing {
    module: Entity,
    of: Option<Box<dyn DynModule>>,
    registered: Option<Registered>,
    ties: Option<Ties>,
}

impl Listing {
    fn of(world: &World, module: Entity) -> Self {
        let types = world.get_resource::<ModuleTypes>();
        let entity = world.get_entity(module).ok();
        let of = types.zip(entity).and_then(|(types, entity)| types.module(entity));
        Listing {
            module,
            of: of.map(|of| of.clone_box()),
            registered: world.get::<Registered>(module).cloned(),
            ties: world.get::<Ties>(module).cloned(),
        }
    }

    fn restore(self, world: &mut World) {
        let Ok(mut entity) = world.get_entity_mut(self.module) else { return };
        if let Some(of) = self.of {
            of.insert_into(&mut entity);
        }
        match self.registered {
            Some(registered) => drop(entity.insert(registered)),
            None => drop(entity.remove::<Registered>()),
        }
        if let Some(ties) = self.ties {
            entity.insert(ties);
        }
    }
}
