//! [`Standing`]: what decides the next numbers of one model beside its parameters and its optimizers.

use bevy_ecs::prelude::*;
use ndarray::arr0;
use neurarch_components::amp::{GradScaler, ScalerStage};
use neurarch_components::module::blueprint::Blueprint;
use neurarch_components::module::mode::{Bits, Draws, HasGradient, Mode};
use neurarch_components::population::tree::Model;
use neurarch_components::state::Tensor;
use neurarch_kernels::ir::dtype::Dtype;
use neurarch_kernels::ir::program::{Role, Slot};

use super::error::TrainingStateError;
use super::source::Source;
use crate::compile::trace::gradient_of;
use crate::errors::AccessError;
use crate::structure::columns::{own_row, own_row_mut};
use crate::structure::spot::locate;
use crate::structure::{columns, spot};

/// The row of a gradient or buffer of a model.
struct Place {
    name: String,
    module: Entity,
    slot: Slot,
    /// The number of the gradient's parameter.
    number: usize,
}

/// What decides the next numbers of a model: its number and its count of draws, its modes, its gradients, its scaler,
/// and the buffers that no state dict has.
pub(super) struct Standing {
    root: Entity,
    pub(super) number: u64,
    draws: u64,
    mode: Mode,
    has_gradient: Bits,
    scaler: Option<GradScaler>,
    rows: Vec<(Place, Vec<u8>)>,
}

/// Lists the gradients, or the buffers that no state dict has, of a model that was just signed.
fn places(world: &World, root: Entity, role: Role) -> Result<Vec<Place>, AccessError> {
    let (group, member, blueprint) = spot::place(world, root)?;
    let mut places = Vec::new();
    for (position, at) in blueprint.positions.iter().enumerate() {
        let module = group.modules[position][member];
        let place = |name: String, slot: Slot| {
            let number = blueprint.number(position, slot.index);
            Place { name, module, slot, number }
        };
        match role {
            Role::Gradient => {
                let own = at.parameters.iter().filter(|of| of.has_column());
                let own = own.filter_map(|of| blueprint.parameter(position, &of.name));
                let name = |slot: &Slot| format!("gradient.{}", slot.name);
                places.extend(own.map(|slot| place(name(&slot), gradient_of(&slot))));
            }
            _ => {
                let own = at.buffers.iter().filter(|of| of.has_column() && !of.persistent);
                let own = own.filter_map(|of| blueprint.buffer(position, &of.name));
                places.extend(own.map(|slot| place(format!("buffer.{}", slot.name), slot)));
            }
        }
    }
    Ok(places)
}

/// Counts the modules and the parameters of a structure.
fn counts(blueprint: &Blueprint) -> [usize; 2] {
    let parameters = blueprint.positions.iter().map(|at| at.parameters.len());
    [blueprint.positions.len(), parameters.sum()]
}

/// Returns whether a model has any gradient.
pub(super) fn has_gradients(world: &World, root: Entity) -> bool {
    world.get::<HasGradient>(root).is_some_and(|bits| !bits.0.is_empty())
}

/// Lists what a file has of a model; gradients, those that are none as zeros, if it is asked for them.
pub(super) fn list(
    world: &mut World,
    root: Entity,
    with_gradients: bool,
) -> Result<Vec<Tensor>, TrainingStateError> {
    locate(world, root)?;
    let world = &*world;
    let (_, _, blueprint) = spot::place(world, root)?;
    let [modules, parameters] = counts(blueprint);
    let model = world.get::<Model>(root).ok_or(AccessError::NotAModel(root))?;
    let mode = world.get::<Mode>(root).cloned().unwrap_or_default();
    let draws = world.get::<Draws>(root).map_or(0, |draws| draws.0);
    let flags = |name: &str, n: usize, is_set: &dyn Fn(usize) -> bool| {
        let bytes = (0..n).map(|i| u8::from(is_set(i))).collect();
        Tensor::from_native(name.to_owned(), Dtype::Bool, vec![n], bytes)
    };
    let mut tensors = vec![
        Tensor::new("number", arr0(model.number as i64).view()),
        Tensor::new("draws", arr0(draws as i64).view()),
        flags("modes.training", modules, &|at| !mode.evaluating.contains(at)),
        flags("modes.requires_grad", parameters, &|of| !mode.frozen.contains(of)),
        flags("modes.active", 1, &|_| !mode.inactive),
    ];
    let copy = |place: Place| {
        let Slot { ty, .. } = &place.slot;
        let zeros = vec![0; ty.size_bytes()];
        let numbers = own_row(world, place.module, (place.slot.role, place.slot.index));
        let numbers = numbers.map_or(zeros, |row| row[..ty.size_bytes()].to_vec());
        Tensor::from_native(place.name, ty.dtype, ty.shape.to_vec(), numbers)
    };
    if with_gradients {
        let none = HasGradient::default();
        let bits = &world.get::<HasGradient>(root).unwrap_or(&none).0;
        tensors.push(flags("has_gradient", parameters, &|of| bits.contains(of)));
        let zeroed = |place: Place| match bits.contains(place.number) {
            true => copy(place),
            false => {
                let Slot { ty, .. } = place.slot;
                let zeros = vec![0; ty.size_bytes()];
                Tensor::from_native(place.name, ty.dtype, ty.shape.to_vec(), zeros)
            }
        };
        tensors.extend(places(world, root, Role::Gradient)?.into_iter().map(zeroed));
    }
    tensors.extend(places(world, root, Role::Buffer)?.into_iter().map(copy));
    if let Some(scaler) = world.get::<GradScaler>(root) {
        let numbers = SCALER.iter().zip(numbers_of(scaler));
        tensors.extend(
            numbers.map(|(name, number)| {
                Tensor::new(format!("grad_scaler.{name}"), arr0(number).view())
            }),
        );
    }
    Ok(tensors)
}

/// What a file has of a [`GradScaler`].
const SCALER: [&str; 9] = [
    "init_scale",
    "growth_factor",
    "backoff_factor",
    "growth_interval",
    "enabled",
    "scale",
    "growth_tracker",
    "stage",
    "found_inf",
];

/// Returns them in that order; what is not there yet is NaN.
fn numbers_of(of: &GradScaler) -> [f64; 9] {
    let stage = match of.stage {
        ScalerStage::Ready => 0.0,
        ScalerStage::Unscaled => 1.0,
        ScalerStage::Stepped => 2.0,
    };
    [
        of.init_scale,
        of.growth_factor,
        of.backoff_factor,
        of.growth_interval.into(),
        u8::from(of.enabled).into(),
        of.scale.map_or(f64::NAN, f64::from),
        of.growth_tracker.into(),
        stage,
        of.found_inf.map_or(f64::NAN, |found| u8::from(found).into()),
    ]
}

fn scaler_of(numbers: [f64; 9]) -> GradScaler {
    let [init, growth, backoff, interval, enabled, scale, tracker, stage, found_inf] = numbers;
    GradScaler {
        init_scale: init,
        growth_factor: growth,
        backoff_factor: backoff,
        growth_interval: interval as u32,
        enabled: enabled != 0.0,
        scale: (!scale.is_nan()).then_some(scale as f32),
        growth_tracker: tracker as u32,
        stage: match stage {
            1.0 => ScalerStage::Unscaled,
            2.0 => ScalerStage::Stepped,
            _ => ScalerStage::Ready,
        },
        found_inf: (!found_inf.is_nan()).then_some(found_inf != 0.0),
    }
}

impl Standing {
    /// Reads what a file has of the model at `root`.
    pub(super) fn read(
        world: &mut World,
        root: Entity,
        source: &Source<'_>,
    ) -> Result<Self, TrainingStateError> {
        locate(world, root)?;
        let (_, _, blueprint) = spot::place(world, root)?;
        let [modules, parameters] = counts(blueprint);
        let draws = source.number("draws")? as u64;
        let number = source.array::<i64>("number", &[])?[0] as u64;
        let flags = |name: &str, n: usize| -> Result<Vec<bool>, TrainingStateError> {
            Ok(source.bytes(name, Dtype::Bool, &[n])?.iter().map(|&byte| byte != 0).collect())
        };
        let set = |flags: Vec<bool>, to: bool| -> Bits {
            let of = flags.into_iter().enumerate();
            of.filter(|(_, flag)| *flag == to).map(|(place, _)| place).collect()
        };
        let before = world.get::<Mode>(root).cloned().unwrap_or_default();
        let mode = Mode {
            evaluating: set(flags("modes.training", modules)?, false),
            frozen: set(flags("modes.requires_grad", parameters)?, false),
            inactive: flags("modes.active", 1)? == [false],
            ..before
        };
        let mut all = places(world, root, Role::Buffer)?;
        let mut has_gradient = Bits::new();
        if source.has("has_gradient") {
            has_gradient = set(flags("has_gradient", parameters)?, true);
            all.extend(places(world, root, Role::Gradient)?);
        }
        let read = |place: Place| {
            let bytes = source.bytes(&place.name, place.slot.ty.dtype, &place.slot.ty.shape)?;
            Ok((place, bytes))
        };
        let rows = all.into_iter().map(read).collect::<Result<Vec<_>, TrainingStateError>>()?;
        let mut scaler = None;
        if world.get::<GradScaler>(root).is_some() {
            let mut numbers = [0.0; 9];
            for (number, name) in numbers.iter_mut().zip(SCALER) {
                *number = source.number(&format!("grad_scaler.{name}"))?;
            }
            scaler = Some(scaler_of(numbers));
        }
        Ok(Standing { root, number, draws, mode, has_gradient, scaler, rows })
    }

    /// Writes it.
    pub(super) fn apply(self, world: &mut World) -> Result<(), TrainingStateError> {
        let at = locate(world, self.root)?;
        let is_new = |(place, _): &&(Place, Vec<u8>)| {
            self.has_gradient.contains(place.number) && place.slot.role == Role::Gradient
        };
        let slots: Vec<_> =
            self.rows.iter().filter(is_new).map(|(at, _)| at.slot.clone()).collect();
        columns::add_columns(world, at.population, at.group, &slots);
        for (place, bytes) in &self.rows {
            let of = (place.slot.role, place.slot.index);
            if let Some(row) = own_row_mut(world, place.module, of) {
                row[..bytes.len()].copy_from_slice(bytes);
            }
        }
        if let Some(mut model) = world.get_mut::<Model>(self.root) {
            model.number = self.number;
        }
        if let Some(mut draws) = world.get_mut::<Draws>(self.root) {
            draws.0 = self.draws;
        }
        if let Some(mut mode) = world.get_mut::<Mode>(self.root) {
            mode.set_if_neq(self.mode);
        }
        if let Some(mut bits) = world.get_mut::<HasGradient>(self.root) {
            bits.set_if_neq(HasGradient(self.has_gradient));
        }
        if let Some((mut to, from)) = world.get_mut::<GradScaler>(self.root).zip(self.scaler) {
            *to = from;
        }
        Ok(())
    }
}
