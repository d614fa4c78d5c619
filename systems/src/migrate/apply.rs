//! [`apply`]: every parameter, gradient and buffer goes through a function.

use std::collections::BTreeMap;

use bevy_ecs::prelude::*;
use neurarch_components::column::shared::{SharedRow, SharedTensors};
use neurarch_components::column::{row, row_mut};
use neurarch_components::module::blueprint::Blueprint;
use neurarch_components::module::mode::HasGradient;
use neurarch_components::population::tree::Columned;
use neurarch_components::state::Tensor;
use neurarch_kernels::ir::dtype::Dtype;
use neurarch_kernels::ir::program::{Role, Slot};
use neurarch_kernels::ir::shape::{Shape, Type};
use rayon::prelude::*;

use super::convert::convert;
use super::error::MigrateError;
use super::wanted::{Place, Wanted, tensor};
use crate::errors::AccessError;
use crate::structure::columns::own_row_mut;
use crate::structure::target::{Aim, Target};

/// What a function made of the tensors of one model: numbers of parameters and buffers, and of gradients.
#[derive(Default)]
struct Made {
    tensors: BTreeMap<Place, Tensor>,
    gradients: BTreeMap<Place, Tensor>,
}

/// Puts every parameter, its gradient if it has one, and every buffer of modules, and of all below them, through a function:
/// children first, then parameters, then buffers. What it returns may have another element type, never another shape.
///
/// A tensor is named by its dotted path from the model's root; what stands in several places goes through the function at
/// each of them, as in torch. Models take their turns on several threads. Hooks, ties and what is frozen stay as they are.
///
/// # Errors
///
/// If there is no such module, the function returns another shape, a gradient of another type than its parameter, or whole
/// numbers for a parameter that needs a gradient, or a tensor is shared with other models. Nothing is changed then.
///
/// # Example
///
/// ```
/// # use bevy_ecs::prelude::*;
/// # use neurarch_components::layers::Linear;
/// # use neurarch_components::state::Tensor;
/// # use neurarch_kernels::ir::dtype::Dtype;
/// # use neurarch_systems::migrate;
/// # use neurarch_systems::structure::access;
/// # use neurarch_systems::structure::spawn::spawn_population;
/// # let mut world = World::new();
/// let layers = spawn_population(&mut world, &Linear::new(2, 1), 3, 3, 7, Dtype::F32)?;
/// migrate::apply(&mut world, layers, |tensor| match tensor.name.as_str() {
///     "bias" => tensor.cast(Dtype::F64),
///     _ => tensor,
/// })?;
/// assert_eq!(access::stack::<f64>(&mut world, layers, "bias", None)?.shape(), [3, 1]);
/// assert_eq!(access::stack::<f32>(&mut world, layers, "weight", None)?.shape(), [3, 1, 2]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Source: `torch.nn.Module._apply`.
pub fn apply(
    world: &mut World,
    target: impl Into<Target>,
    function: impl Fn(Tensor) -> Tensor + Sync,
) -> Result<(), MigrateError> {
    let aims = target.into().aims(world)?;
    let mut types: Vec<(Aim, BTreeMap<Place, Dtype>)> = Vec::new();
    let mut written = Vec::new();
    for aim in &aims {
        let blueprint = aim.blueprint(world);
        let own = &*world;
        let all = aim
            .places
            .par_iter()
            .map(|&place| made(own, aim, &blueprint, place, &function).map(|made| (place, made)));
        for (place, made) in all.collect::<Result<Vec<_>, _>>()? {
            let of: BTreeMap<_, _> =
                made.tensors.iter().map(|(&at, tensor)| (at, tensor.dtype())).collect();
            match types.iter_mut().find(|(known, all)| known.group == aim.group && *all == of) {
                Some((alike, _)) => alike.places.push(place),
                None => types.push((Aim { places: vec![place], ..aim.clone() }, of)),
            }
            let entities = aim.group(world).modules.iter().map(|modules| modules[place]);
            written.push((entities.collect::<Vec<_>>(), made));
        }
    }
    let population = aims.first().map(|aim| aim.population);
    let wanted = Wanted::with_types(world, population, types, None)?;
    wanted.check_all_share(world)?;
    convert(world, wanted)?;
    for (entities, Made { tensors, gradients }) in written {
        let gradients =
            gradients.into_iter().map(|((at, _, index), of)| ((at, Role::Gradient, index), of));
        for ((position, role, index), tensor) in tensors.into_iter().chain(gradients) {
            write(world, entities[position], (role, index), &tensor);
        }
    }
    Ok(())
}

/// Writes the numbers of a module's tensor, which may be one that models share.
fn write(world: &mut World, module: Entity, (role, index): (Role, usize), tensor: &Tensor) {
    let Some(columned) = world.get::<Columned>(module) else { return };
    let row = match columned.contents().shared(role, index) {
        Some(shared) => {
            let ty = Type { dtype: tensor.dtype(), shape: Shape::from(tensor.shape()) };
            row_mut(world, shared.owner, shared.key(role, &ty))
        }
        None => own_row_mut(world, module, (role, index)),
    };
    if let Some(row) = row {
        let numbers = tensor.to_native();
        row[..numbers.len()].copy_from_slice(&numbers);
    }
}

/// Puts the tensors of one model through a function.
fn made(
    world: &World,
    aim: &Aim,
    blueprint: &Blueprint,
    place: usize,
    function: &impl Fn(Tensor) -> Tensor,
) -> Result<Made, MigrateError> {
    let mut made = Made::default();
    for position in children_first(blueprint, aim.position) {
        let at = &blueprint.positions[position];
        let parameters = at.parameters.iter().enumerate().map(|(index, of)| {
            let (owner, place) = of.tied.unwrap_or((position, index));
            (owner, Role::Parameter, place)
        });
        let buffers = (0..at.buffers.len()).map(|index| (position, Role::Buffer, index));
        for of in parameters.chain(buffers) {
            one(world, (aim, blueprint, place), of, function, &mut made)?;
        }
    }
    Ok(made)
}

/// Puts one parameter, and its gradient, or one buffer through a function: what the function made of it before, if it was
/// there already.
fn one(
    world: &World,
    (aim, blueprint, place): (&Aim, &Blueprint, usize),
    of: Place,
    function: &impl Fn(Tensor) -> Tensor,
    made: &mut Made,
) -> Result<(), MigrateError> {
    let (position, role, index) = of;
    let declared = tensor(&blueprint.positions[position], role, index);
    if declared.uninitialized {
        return Ok(());
    }
    let name = blueprint.path_below(position, &declared.name);
    let group = aim.group(world);
    let read = |role: Role| {
        let slot = Slot { name: name.clone(), role, position, index, ty: declared.ty.clone() };
        let (home, key) = group.home(&slot, place);
        let missing = || AccessError::NoColumn { name: name.clone(), role };
        let bytes = row(world, home, key).ok_or_else(missing)?[..declared.ty.size_bytes()].to_vec();
        let shape = declared.ty.shape.to_vec();
        Ok::<_, AccessError>(Tensor::from_native(name.clone(), declared.ty.dtype, shape, bytes))
    };
    let through = |tensor: Tensor| {
        let mut tensor = function(tensor);
        tensor.name.clone_from(&name);
        match *tensor.shape() == *declared.ty.shape {
            true => Ok(tensor),
            false => {
                let (expected, given) = (declared.ty.shape.to_vec(), tensor.shape().to_vec());
                Err(MigrateError::Shape { name: name.clone(), expected, given })
            }
        }
    };
    let before = made.tensors.remove(&of).map_or_else(|| read(role), Ok)?;
    let tensor = through(before)?;
    let number = blueprint.number(position, index);
    let has_gradient = role == Role::Parameter
        && match declared.shared {
            Some(SharedRow { owner, index }) => {
                let all = world.get::<SharedTensors>(owner);
                all.and_then(|all| all.get(index)).is_some_and(|of| of.has_gradient)
            }
            None => {
                let root = group.modules[0][place];
                world.get::<HasGradient>(root).is_some_and(|bits| bits.0.contains(number))
            }
        };
    if has_gradient {
        let before = made.gradients.remove(&of).map_or_else(|| read(Role::Gradient), Ok)?;
        let gradient = through(before)?;
        let (expected, given) = (tensor.dtype(), gradient.dtype());
        if expected != given {
            return Err(MigrateError::Gradient { name, expected, given });
        }
        made.gradients.insert(of, gradient);
    }
    made.tensors.insert(of, tensor);
    Ok(())
}

/// Lists the positions at one and below, each after its children; what stands there under a second name where it does.
fn children_first(blueprint: &Blueprint, top: usize) -> Vec<usize> {
    let mut order = Vec::new();
    let mut waiting = vec![(top, false)];
    while let Some((position, is_done)) = waiting.pop() {
        let at = &blueprint.positions[position];
        match (at.alias, is_done) {
            (Some(owner), _) => waiting.push((owner, false)),
            (None, true) => order.push(position),
            (None, false) => {
                waiting.push((position, true));
                waiting.extend(at.children.iter().rev().map(|&child| (child, false)));
            }
        }
    }
    order
}
