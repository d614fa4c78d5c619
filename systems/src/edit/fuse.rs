//! Fusing: two modules of a model, one after the other, become one; an `Identity` takes the place of the second.
//!
//! A target is a population, for all of its models, or a module of one model, which then moves to another
//! blueprint: its neighbors stay as they are. Paths are those below the target's module.
//!
//! Source: `torch.nn.utils.fusion` and `torch.ao.nn.intrinsic`. torch gives a new layer; here the layer itself gets
//! the numbers, and the models compute what they did.

mod linear_relu;

use bevy_ecs::prelude::*;
use neurarch_components::batchnorm::{affine_of, is_batch_norm, running_affine};
use neurarch_components::layers::{
    Conv1d, Conv2d, Conv3d, ConvTranspose1d, ConvTranspose2d, ConvTranspose3d, Identity, Linear,
};
use neurarch_components::module::DynModule;
use neurarch_components::module::call::Call;
use neurarch_components::module::mode::Mode;
use neurarch_components::module::registered::Registered;
use neurarch_kernels::ir::program::{Role, Slot};
use neurarch_kernels::ir::shape::Shape;
use neurarch_kernels::ir::trace::Var;

pub use linear_relu::{fuse_linear_relu, unfuse, unfuse_linear_relu};

use crate::edit::parametrize::site::{Member, Rows, Site, modules, read, sites, write};
use crate::edit::registration;
use crate::errors::{AccessError, ParametrizeError, SignError};
use crate::execute::hooks::Target;
use crate::structure::sign;

/// Why modules cannot be fused or taken apart. Nothing is changed then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FuseError {
    /// There is no such target, or its numbers cannot be computed with.
    #[error(transparent)]
    Target(#[from] ParametrizeError),
    /// A model's tree is no model.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// A module or parameter is missing.
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
    /// A module or parameter has another name, where it would change, too.
    #[error("'{path}' has another name in the model, '{by}'")]
    InUse {
        /// The dotted path below the target.
        path: String,
        /// The other name, from the root.
        by: String,
    },
}

/// Takes the batch norm at path `bn` into the linear layer at path `linear`: the weight's rows are multiplied by
/// `bn.weight / √(running_var + eps)`, the bias is shifted likewise.
///
/// # Errors
///
/// [`FuseError`].
///
/// Source: `torch.nn.utils.fuse_linear_bn_eval`.
pub fn fuse_linear_bn_eval(
    world: &mut World,
    target: impl Into<Target>,
    linear: &str,
    bn: &str,
) -> Result<(), FuseError> {
    fuse_bn(world, target, [linear, bn], 0, |world, entity| {
        let linear = world.get::<Linear>(entity)?;
        Some(Box::new(Linear { bias: true, ..*linear }))
    })
}

/// Takes the batch norm at path `bn` into the convolution at path `conv`: the weights of each output channel are
/// multiplied by `bn.weight / √(running_var + eps)`, the bias is shifted likewise. With `transpose`, the channels are
/// axis 1 of the weight, as those of a transposed convolution are.
///
/// # Errors
///
/// [`FuseError`].
///
/// Source: `torch.nn.utils.fuse_conv_bn_eval`.
pub fn fuse_conv_bn_eval(
    world: &mut World,
    target: impl Into<Target>,
    conv: &str,
    bn: &str,
    transpose: bool,
) -> Result<(), FuseError> {
    fuse_bn(world, target, [conv, bn], usize::from(transpose), |world, entity| {
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

/// What comes in the place of two modules.
type Two = [Box<dyn DynModule>; 2];

/// Two modules of each member of a site.
struct Pair {
    site: Site,
    positions: [usize; 2],
}

impl Pair {
    fn entities(&self, member: &Member) -> [Entity; 2] {
        self.positions.map(|position| member.entity(position))
    }
}

/// Finds the modules at two paths below each module of a target.
fn pairs(
    world: &mut World,
    target: impl Into<Target>,
    paths: [&str; 2],
) -> Result<Vec<Pair>, FuseError> {
    let modules = modules(world, target)?;
    let pair = |site: Site| {
        let blueprint = &site.blueprint;
        let mut positions = [0; 2];
        for (position, path) in positions.iter_mut().zip(paths) {
            let module = blueprint.positions[site.position].module.type_name();
            let missing = |_| AccessError::NoSuchName { module, name: path.to_owned() };
            *position = blueprint.below(site.position, path).map_err(missing)?;
            let alias = blueprint.positions.iter().find(|at| at.alias == Some(*position));
            if let Some(alias) = alias {
                let (path, by) = (path.to_owned(), alias.path.clone());
                return Err(FuseError::InUse { path, by });
            }
        }
        Ok(Pair { site, positions })
    };
    sites(world, &modules)?.into_iter().map(pair).collect()
}

/// Gives the modules of a pair other layer components.
fn insert(world: &mut World, pair: &Pair, new: &[Two]) {
    for (member, new) in pair.site.members.iter().zip(new) {
        for (module, new) in pair.entities(member).into_iter().zip(new) {
            if let Ok(mut entity) = world.get_entity_mut(module) {
                new.insert_into(&mut entity);
            }
        }
    }
}

fn refresh<'a>(world: &mut World, pairs: impl Iterator<Item = &'a Pair>) -> Result<(), FuseError> {
    let mut populations: Vec<_> = pairs.map(|pair| pair.site.population).collect();
    populations.dedup();
    for population in populations {
        sign::refresh(world, population)?;
    }
    Ok(())
}

/// Returns a layer with a bias, if its type can be fused.
type WithBias = fn(&World, Entity) -> Option<Box<dyn DynModule>>;

/// A pair of a layer and a norm, and what becomes of it.
struct Fused {
    pair: Pair,
    new: Vec<Two>,
    /// The numbers that the layer's weight and bias get.
    numbers: [(&'static str, Rows); 2],
}

fn fuse_bn(
    world: &mut World,
    target: impl Into<Target>,
    paths: [&str; 2],
    axis: usize,
    with_bias: WithBias,
) -> Result<(), FuseError> {
    let pairs = pairs(world, target, paths)?.into_iter();
    let fused = pairs.map(|pair| compute(world, pair, paths, axis, with_bias));
    let fused = fused.collect::<Result<Vec<_>, _>>()?;
    for Fused { pair, new, .. } in &fused {
        insert(world, pair, new);
        for member in &pair.site.members {
            // What was registered in the norm beside its parameters goes with them.
            world.entity_mut(member.entity(pair.positions[1])).remove::<Registered>();
        }
    }
    refresh(world, fused.iter().map(|fused| &fused.pair))?;
    for Fused { pair, numbers, .. } in &fused {
        for (number, member) in pair.site.members.iter().enumerate() {
            let layer = member.entity(pair.positions[0]);
            for (name, rows) in numbers {
                give(world, layer, name, rows, number)?;
            }
        }
    }
    Ok(())
}

/// Writes a parameter of a layer, of which the layer's type says that it is there.
fn give(
    world: &mut World,
    layer: Entity,
    name: &str,
    rows: &Rows,
    number: usize,
) -> Result<(), FuseError> {
    if world.get::<Registered>(layer).is_none() {
        write(world, layer, name, rows.row(number));
        return Ok(());
    }
    // The list that was edited has to say so, too.
    let (name, ty) = (name.to_owned(), rows.ty.clone());
    let slot = Slot { name, role: Role::Parameter, position: 0, index: 0, ty };
    Ok(registration::retype(world, layer, &slot, &slot.ty, rows.row(number))?)
}

/// Checks that a norm can be taken into a layer, and computes what the layer's numbers become.
fn compute(
    world: &World,
    pair: Pair,
    paths: [&str; 2],
    axis: usize,
    with_bias: WithBias,
) -> Result<Fused, FuseError> {
    let Pair { site, positions } = &pair;
    let [layer, bn] = *positions;
    let wrong =
        |place: usize, expected| FuseError::Module { path: paths[place].to_owned(), expected };
    let mut new: Vec<Two> = Vec::with_capacity(site.members.len());
    for member in &site.members {
        let mode = world.get::<Mode>(member.root);
        let is_evaluating = |&at: &usize| mode.is_some_and(|mode| mode.evaluating.contains(at));
        if !positions.iter().all(is_evaluating) {
            return Err(FuseError::Training);
        }
        let fused = with_bias(world, member.entity(layer));
        let fused = fused.ok_or_else(|| wrong(0, "a layer that can be fused"))?;
        new.push([fused, Identity.clone_box()]);
    }
    let norm = &*site.blueprint.positions[bn].module;
    if !is_batch_norm(norm) {
        return Err(wrong(1, "a batch norm"));
    }
    if ["running_mean", "running_var"].iter().any(|name| site.blueprint.buffer(bn, name).is_none())
    {
        return Err(FuseError::NoRunningStats);
    }
    check_sizes(site, *positions, paths[0], axis)?;
    let ([weight, bias], trace) = site.evaluate(world, site.position, |call| {
        let [layer, bn] = positions.map(|position| Call { position, ..*call });
        Ok(record(&layer, &bn, axis))
    })?;
    let numbers = [("weight", read(&trace, &weight)?), ("bias", read(&trace, &bias)?)];
    Ok(Fused { numbers, new, pair })
}

/// Checks the layer's parameters: that they are its own alone, and as long as the norm's.
fn check_sizes(
    site: &Site,
    [layer, bn]: [usize; 2],
    path: &str,
    axis: usize,
) -> Result<(), FuseError> {
    let blueprint = &site.blueprint;
    let missing = || AccessError::NoSuchName {
        module: blueprint.positions[layer].module.type_name(),
        name: "weight".to_owned(),
    };
    let weight = blueprint.parameter(layer, "weight").ok_or_else(missing)?;
    for slot in [Some(weight.clone()), blueprint.parameter(layer, "bias")].into_iter().flatten() {
        if blueprint.shared(&slot).is_some() {
            return Err(AccessError::Shared { name: slot.name }.into());
        }
        if let Some(by) = site.other_name(layer, &slot) {
            return Err(FuseError::InUse { path: path.to_owned(), by });
        }
    }
    let mean = blueprint.buffer(bn, "running_mean");
    let num_features = mean.map_or(0, |mean| mean.ty.shape.numel());
    let out_features = weight.ty.shape.get(axis).copied().unwrap_or(0);
    match num_features == out_features || num_features == 1 {
        true => Ok(()),
        false => Err(FuseError::Sizes { out_features, num_features }),
    }
}

/// Records the weight and the bias of a layer that computes what the layer and the norm after it do, its channels
/// along an axis of the weight.
fn record(layer: &Call<'_>, bn: &Call<'_>, axis: usize) -> [Var; 2] {
    let weight = layer.parameter("weight");
    let Some((scale, shift)) = running_affine(bn, weight.dtype()) else {
        let failed = bn.trace.fail("expected a batch norm");
        return [failed.clone(), failed];
    };
    scaled(&weight, layer.optional_parameter("bias").as_ref(), (scale, shift), axis)
}

/// Records a layer's weight and bias times a scale, and plus a shift, of its channels along an axis of the weight.
fn scaled(weight: &Var, bias: Option<&Var>, (scale, shift): (Var, Var), axis: usize) -> [Var; 2] {
    if weight.trace().error().is_some() {
        return [weight.clone(), weight.clone()];
    }
    let Some(&channels) = weight.shape().get(axis) else {
        let failed = weight.trace().fail(format!("expected a weight with axis {axis}"));
        return [failed.clone(), failed];
    };
    let before = vec![1; axis].into_iter().chain(scale.shape().iter().copied());
    let along: Shape = before.chain(vec![1; weight.shape().rank() - axis - 1]).collect();
    let bias = match bias {
        Some(bias) => bias * &scale + shift,
        None => shift,
    };
    [weight * scale.reshape(along), bias.expand([channels])]
}

/// What a batch norm computes with in evaluation mode, as traced values.
#[derive(Clone, Copy, Debug)]
pub struct NormWeights<'a> {
    /// `[channels]`.
    pub running_mean: &'a Var,
    /// `[channels]`.
    pub running_var: &'a Var,
    /// `[]`.
    pub eps: &'a Var,
    /// `[channels]`; 1 if `None`.
    pub weight: Option<&'a Var>,
    /// `[channels]`; 0 if `None`.
    pub bias: Option<&'a Var>,
}

impl NormWeights<'_> {
    fn affine(&self) -> (Var, Var) {
        affine_of([self.running_mean, self.running_var], self.eps, self.weight, self.bias)
    }
}

/// Returns the weight and the bias of a convolution that computes what one with `conv_w` and `conv_b` and a batch norm
/// after it do. With `transpose`, the output channels are axis 1 of the weight.
///
/// Source: `torch.nn.utils.fuse_conv_bn_weights`.
pub fn fuse_conv_bn_weights(
    conv_w: &Var,
    conv_b: Option<&Var>,
    bn: &NormWeights<'_>,
    transpose: bool,
) -> [Var; 2] {
    scaled(conv_w, conv_b, bn.affine(), usize::from(transpose))
}

/// Returns the weight and the bias of a linear layer that computes what one with `linear_w` and `linear_b` and a batch
/// norm after it do.
///
/// # Example
///
/// ```
/// # use neurarch_kernels::ir::dtype::Dtype;
/// # use neurarch_kernels::ir::trace::Trace;
/// # use neurarch_kernels::ir::shape::Type;
/// # use neurarch_systems::edit::fuse::{NormWeights, fuse_linear_bn_weights};
/// # let trace = Trace::new();
/// let [weight, mean, var] = [vec![3, 4], vec![3], vec![3]].map(|of| trace.input(Type::new(Dtype::F32, of.as_slice())));
/// let eps = trace.constant(1e-5, Dtype::F32, []);
/// let bn =
///     NormWeights { running_mean: &mean, running_var: &var, eps: &eps, weight: None, bias: None };
/// let [weight, bias] = fuse_linear_bn_weights(&weight, None, &bn);
/// assert_eq!((&weight.shape()[..], &bias.shape()[..]), (&[3, 4][..], &[3][..]));
/// ```
///
/// Source: `torch.nn.utils.fuse_linear_bn_weights`.
pub fn fuse_linear_bn_weights(
    linear_w: &Var,
    linear_b: Option<&Var>,
    bn: &NormWeights<'_>,
) -> [Var; 2] {
    scaled(linear_w, linear_b, bn.affine(), 0)
}
