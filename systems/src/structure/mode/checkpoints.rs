//! Activation checkpointing: which parts of models are computed again on the way back, rather than kept until then.
//!
//! The bits of losses, gradients and updates are the same with and without. It costs a part of a forward pass, and saves the
//! memory of what is between the parts' inputs: of a plan's arena in `train_step`, of the tape in `forward`. The result of a
//! part is not computed again where the next one reads it. Running statistics are updated once, hooks are called once, random
//! numbers are drawn as the first time. A pass that runs op by op, as one with hooks that change values does, keeps its
//! activations all the same.

use std::ops::Range;

use bevy_ecs::prelude::*;
use neurarch_components::containers::{ContainerError, Slice};
use neurarch_components::module::blueprint::Blueprint;
use neurarch_components::module::mode::{Checkpoints, Mode};

use super::change;
use crate::errors::AccessError;
use crate::structure::spot;
use crate::structure::target::Target;

/// Computes what modules make of their inputs again on the way back, with all below them, while they are in training mode.
///
/// Put it on the blocks of a deep model, not on the model itself: on the way back through a part, all of the part is in memory.
///
/// # Errors
///
/// If there is no such module.
///
/// # Example
///
/// ```
/// # use bevy_ecs::prelude::*;
/// # use neurarch_components::layers::{Linear, Sequential, Tanh};
/// # use neurarch_kernels::ir::dtype::Dtype;
/// # use neurarch_systems::structure::mode::checkpoints::enable_activation_checkpointing;
/// # use neurarch_systems::structure::spawn::spawn_population;
/// let block = || Sequential::new().push(Linear::new(8, 8)).push(Tanh).push(Linear::new(8, 8)).push(Tanh);
/// let model = Sequential::new().push(block()).push(block()).push(Linear::new(8, 1));
/// let mut world = World::new();
/// let brains = spawn_population(&mut world, &model, 10, 10, 0, Dtype::F32)?;
/// for block in ["0", "1"] {
///     enable_activation_checkpointing(&mut world, (brains, block))?;
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Source: `checkpoint(module, x)` of `torch.utils.checkpoint` where `self.use_checkpointing and self.training`. torch calls
/// hooks and updates running statistics twice.
pub fn enable_activation_checkpointing(
    world: &mut World,
    target: impl Into<Target>,
) -> Result<(), AccessError> {
    change(world, target, |mode, _, position| {
        mode.change_checkpoints(|of| of.modules.set(position, true));
    })
}

/// Keeps the activations of modules and of all below them until the way back, as at first: spans of a `Sequential` there are none
/// any more, either.
///
/// # Errors
///
/// As [`enable_activation_checkpointing`].
pub fn disable_activation_checkpointing(
    world: &mut World,
    target: impl Into<Target>,
) -> Result<(), AccessError> {
    change(world, target, |mode, blueprint, module| {
        mode.change_checkpoints(|of| {
            for position in blueprint.subtree(module) {
                of.modules.set(position, false);
                if position != module {
                    of.begins.set(position, false);
                    of.continues.set(position, false);
                }
            }
        });
    })
}

/// Returns whether what a module of one model makes is computed again on the way back while it is in training mode:
/// [`enable_activation_checkpointing`]. Whether it lies within such a part does not matter.
///
/// # Errors
///
/// If `module` is no module of a model.
pub fn is_activation_checkpointing(world: &mut World, module: Entity) -> Result<bool, AccessError> {
    let at = spot::locate(world, module)?;
    let mode = world.get::<Mode>(at.group(world).modules[0][at.member]);
    let checkpoints = mode.and_then(|mode| mode.checkpoints.as_deref());
    Ok(checkpoints.is_some_and(|of| of.modules.contains(at.position)))
}

/// A span of a `Sequential` that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpanError {
    /// There is no such module.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// The module calls its children in another way than one after the other.
    #[error("'{path}': expected a Sequential, got {class}")]
    NotSequential {
        /// Its dotted path.
        path: String,
        /// Its type.
        class: String,
    },
    /// The slice goes nowhere.
    #[error("'{path}': {source}")]
    Slice {
        /// The dotted path of the `Sequential`.
        path: String,
        /// What is wrong with it.
        source: ContainerError,
    },
    /// The slice leaves out modules, or goes backward.
    #[error("'{path}': expected modules one behind the other, got a step of {step}")]
    Step {
        /// The dotted path of the `Sequential`.
        path: String,
        /// How far the slice goes each time.
        step: isize,
    },
    /// There are no, or more segments than modules.
    #[error("'{path}': expected 1 to {modules} segments, got {segments}")]
    Segments {
        /// The dotted path of the `Sequential`.
        path: String,
        /// How many modules it has.
        modules: usize,
        /// How many segments were asked for.
        segments: usize,
    },
}

/// Computes some modules of a `Sequential`, one behind the other, again together on the way back, while the `Sequential` is in
/// training mode. Spans of it that were there before lose what they have in common with it.
///
/// # Errors
///
/// If there is no such module, it is no `Sequential`, or the slice leaves out modules. Nothing is changed then.
///
/// Source: a segment of `torch.utils.checkpoint.checkpoint_sequential`.
pub fn checkpoint_span(
    world: &mut World,
    target: impl Into<Target>,
    span: impl Into<Slice>,
) -> Result<(), SpanError> {
    let span = span.into();
    set_spans(world, target.into(), |path, modules| {
        if let Some(step) = span.step.filter(|&step| step != 1 && step != 0) {
            return Err(SpanError::Step { path: path.to_owned(), step });
        }
        let places = span.places(modules);
        let places = places.map_err(|source| SpanError::Slice { path: path.to_owned(), source })?;
        let places = places.first().copied().unwrap_or(0)..places.last().map_or(0, |last| last + 1);
        Ok(vec![Segment { places, is_span: true }])
    })
}

/// Cuts a `Sequential` into that many segments of equal length, each a [span](checkpoint_span) but for the last one, which has
/// the modules that are left over, too, and is kept. Of a model of n modules, √n segments need the least memory.
///
/// # Errors
///
/// As [`checkpoint_span`], and if there are no segments, or more than modules.
///
/// Source: `torch.utils.checkpoint.checkpoint_sequential`.
pub fn checkpoint_sequential(
    world: &mut World,
    target: impl Into<Target>,
    segments: usize,
) -> Result<(), SpanError> {
    set_spans(world, target.into(), |path, modules| {
        if segments == 0 || segments > modules {
            return Err(SpanError::Segments { path: path.to_owned(), modules, segments });
        }
        let size = modules / segments;
        let last = segments - 1;
        let segment = |number: usize| {
            let end = if number < last { (number + 1) * size } else { modules };
            Segment { places: number * size..end, is_span: number < last }
        };
        Ok((0..segments).map(segment).collect())
    })
}

/// Some modules of a `Sequential`, one behind the other.
struct Segment {
    places: Range<usize>,
    /// Whether they are to be a span; if not, they are in none.
    is_span: bool,
}

/// Makes of the segments that `segments` gives for a `Sequential`, by its path and its number of modules, what they are to be,
/// once all of them can be.
fn set_spans(
    world: &mut World,
    target: Target,
    segments: impl Fn(&str, usize) -> Result<Vec<Segment>, SpanError>,
) -> Result<(), SpanError> {
    let found = |blueprint: &Blueprint, position: usize| {
        let at = &blueprint.positions[position];
        let path = at.path.as_str();
        if at.module.type_name() != "Sequential" {
            let class = blueprint.class_name(position).into_owned();
            return Err(SpanError::NotSequential { path: path.to_owned(), class });
        }
        segments(path, at.children.len())
    };
    for aim in target.clone().aims(world)? {
        found(&aim.blueprint(world), aim.position)?;
    }
    change(world, target, |mode, blueprint, position| {
        let children = &blueprint.positions[position].children;
        mode.change_checkpoints(|of| {
            for segment in found(blueprint, position).unwrap_or_default() {
                segment.set(of, children);
            }
        });
    })?;
    Ok(())
}

impl Segment {
    /// Sets the bits of the children.
    fn set(&self, of: &mut Checkpoints, children: &[usize]) {
        let Segment { places, is_span } = self;
        for place in places.clone() {
            of.begins.set(children[place], *is_span && place == places.start);
            of.continues.set(children[place], *is_span && place > places.start);
        }
        // A span that went on behind them begins there now.
        let behind = children.get(places.end).copied().filter(|_| !places.is_empty());
        if let Some(behind) = behind.filter(|&behind| of.continues.contains(behind)) {
            of.continues.set(behind, false);
            of.begins.set(behind, true);
        }
    }
}
