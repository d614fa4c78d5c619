//! Fusing: a batch norm in evaluation mode is taken into the layer before it, in every model of a population.
//!
//! Source: `torch.nn.utils.fusion`. torch gives a new layer; here the layer itself gets the numbers, and an
//! `Identity` takes the place of the norm, so that the models compute what they did.

use bevy_ecs::prelude::*;
use ndarray::{ArrayD, Axis};
use neurarch_components::blueprint::Blueprints;
use neurarch_components::layers::{
    BatchNorm1d, BatchNorm2d, BatchNorm3d, Conv1d, Conv2d, Conv3d, ConvTranspose1d,
    ConvTranspose2d, ConvTranspose3d, Identity, Linear,
};
use neurarch_components::mode::Mode;
use neurarch_components::module::DynModule;
use neurarch_kernels::cpu::simd::Float;
use neurarch_kernels::dtype::Dtype;

use crate::access::{self, AccessError};
use crate::cohort::population;
use crate::sign;
use crate::step::StepError;

/// Why a norm cannot be taken into a layer. Nothing is changed then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FuseError {
    /// There is no such population.
    #[error(transparent)]
    Step(#[from] StepError),
    /// A parameter or buffer is missing.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// A module is in training mode; torch's words.
    #[error("Fusion only for eval!")]
    Training,
    /// The norm has no running statistics; torch's words.
    #[error("bn.running_mean and bn.running_var must not be None")]
    NoRunningStats,
    /// The sizes differ; torch's words.
    #[error(
        "To fuse, linear.out_features == bn.num_features or bn.num_features == 1, got \
         linear.out_features={out_features} and bn.num_features={num_features}"
    )]
    Sizes {
        /// Outputs of the layer.
        out_features: usize,
        /// Channels of the norm.
        num_features: usize,
    },
    /// A module is of another type.
    #[error("'{path}': expected {expected}")]
    Module {
        /// The dotted path.
        path: String,
        /// What can be fused.
        expected: &'static str,
    },
}

/// Takes the batch norm at path `bn` into the linear layer at path `linear`, in every model: the weight's rows
/// are multiplied by `bn.weight / √(running_var + eps)`, the bias is shifted likewise.
///
/// # Errors
///
/// [`FuseError`].
///
/// Source: `torch.nn.utils.fuse_linear_bn_eval`; a norm of one channel is not taken.
pub fn fuse_linear_bn_eval(
    world: &mut World,
    population: Entity,
    linear: &str,
    bn: &str,
) -> Result<(), FuseError> {
    fuse(world, population, [linear, bn], false, |world, entity| {
        let linear = world.get::<Linear>(entity)?;
        Some(Box::new(Linear { bias: true, ..*linear }))
    })
}

/// Takes the batch norm at path `bn` into the convolution at path `conv`, in every model: the weights of each
/// output channel are multiplied by `bn.weight / √(running_var + eps)`, the bias is shifted likewise. With
/// `transpose`, the channels are axis 1 of the weight, as those of a transposed convolution are.
///
/// # Errors
///
/// [`FuseError`].
///
/// Source: `torch.nn.utils.fuse_conv_bn_eval`.
pub fn fuse_conv_bn_eval(
    world: &mut World,
    population: Entity,
    conv: &str,
    bn: &str,
    transpose: bool,
) -> Result<(), FuseError> {
    fuse(world, population, [conv, bn], transpose, |world, entity| {
        macro_rules! with_bias {
            ($($layer:ident)+) => {
                $(if let Some(layer) = world.get::<$layer>(entity) {
                    return Some(Box::new($layer { bias: true, ..*layer }));
                })+
            };
        }
        with_bias!(Conv1d Conv2d Conv3d ConvTranspose1d ConvTranspose2d ConvTranspose3d);
        None
    })
}

/// Gives a layer with a bias, if its type can be fused.
type WithBias = fn(&World, Entity) -> Option<Box<dyn DynModule>>;

/// Gives `eps` of a norm.
fn eps_of(world: &World, entity: Entity) -> Option<f64> {
    let one = world.get::<BatchNorm1d>(entity).map(|bn| bn.eps);
    let two = || world.get::<BatchNorm2d>(entity).map(|bn| bn.eps);
    let three = || world.get::<BatchNorm3d>(entity).map(|bn| bn.eps);
    one.or_else(two).or_else(three)
}

fn fuse(
    world: &mut World,
    of: Entity,
    paths: [&str; 2],
    transpose: bool,
    with_bias: WithBias,
) -> Result<(), FuseError> {
    sign::refresh(world, of).map_err(AccessError::from)?;
    match population(world, of)?.dtype {
        Dtype::F64 => fuse_in::<f64>(world, of, paths, transpose, with_bias),
        _ => fuse_in::<f32>(world, of, paths, transpose, with_bias),
    }
}

fn fuse_in<T: Float>(
    world: &mut World,
    of: Entity,
    [layer, bn]: [&str; 2],
    transpose: bool,
    with_bias: WithBias,
) -> Result<(), FuseError> {
    let roots = population(world, of)?.models().to_vec();
    let (mut layers, mut norms, mut eps) = (Vec::new(), Vec::new(), Vec::new());
    for &root in &roots {
        check_eval(world, root, [layer, bn])?;
        let (first, second) =
            (access::module(world, root, layer)?, access::module(world, root, bn)?);
        let wrong = |path: &str, expected| FuseError::Module { path: path.to_owned(), expected };
        let fused = with_bias(world, first);
        layers.push((first, fused.ok_or_else(|| wrong(layer, "a layer that can be fused"))?));
        eps.push(eps_of(world, second).ok_or_else(|| wrong(bn, "a batch norm"))?);
        norms.push(second);
    }
    for name in ["weight", "bias"].map(|name| format!("{layer}.{name}")) {
        // What is not there is told below, if it is needed.
        let all = access::find_all(world, of, &name, None).unwrap_or_default();
        if all.iter().any(|found| found.shared.is_some()) {
            return Err(AccessError::Shared { name }.into());
        }
    }
    let mut read = |module: &str, name: &str| {
        let array = access::stack::<T>(world, of, &format!("{module}.{name}"), None);
        array.map(|array| array.mapv(Into::<f64>::into))
    };
    let mut weight = read(layer, "weight")?;
    let mean = read(bn, "running_mean").map_err(|_| FuseError::NoRunningStats)?;
    let var = read(bn, "running_var").map_err(|_| FuseError::NoRunningStats)?;
    let zeros = || ArrayD::zeros(mean.raw_dim());
    let mut bias = read(layer, "bias").unwrap_or_else(|_| zeros());
    let scale = read(bn, "weight").unwrap_or_else(|_| zeros() + 1.0);
    let shift = read(bn, "bias").unwrap_or_else(|_| zeros());
    let axis = if transpose { 1 } else { 0 };
    let (out_features, num_features) = (weight.len_of(Axis(axis + 1)), mean.len_of(Axis(1)));
    if out_features != num_features || bias.shape() != mean.shape() {
        return Err(FuseError::Sizes { out_features, num_features });
    }
    for (model, &eps) in eps.iter().enumerate() {
        for channel in 0..num_features {
            let at = [model, channel];
            let scale = scale[&at[..]] / (var[&at[..]] + eps).sqrt();
            let mut rows = weight.index_axis_mut(Axis(0), model);
            rows.index_axis_mut(Axis(axis), channel).mapv_inplace(|w| w * scale);
            bias[&at[..]] = (bias[&at[..]] - mean[&at[..]]) * scale + shift[&at[..]];
        }
    }
    for ((first, fused), second) in layers.into_iter().zip(norms) {
        if let Ok(mut entity) = world.get_entity_mut(first) {
            fused.insert_into(&mut entity);
        }
        if let Ok(mut entity) = world.get_entity_mut(second) {
            Identity.insert_into(&mut entity);
        }
    }
    for (name, numbers) in [("weight", weight), ("bias", bias)] {
        let numbers = numbers.mapv(T::from_f64);
        access::unstack(world, of, &format!("{layer}.{name}"), numbers.view())?;
    }
    Ok(())
}

/// Checks that the modules at `paths` of a model are in evaluation mode.
fn check_eval(world: &World, root: Entity, paths: [&str; 2]) -> Result<(), FuseError> {
    let model = world.get::<neurarch_components::tree::Model>(root);
    let blueprint = model.and_then(|model| world.resource::<Blueprints>().get(model.blueprint));
    let positions = blueprint.into_iter().flat_map(|of| of.positions.iter().enumerate());
    let mode = world.get::<Mode>(root);
    let mut named = positions.filter(|(_, at)| paths.contains(&at.path.as_str()));
    match named.all(|(at, _)| mode.is_some_and(|mode| mode.evaluating.contains(at))) {
        true => Ok(()),
        false => Err(FuseError::Training),
    }
}
