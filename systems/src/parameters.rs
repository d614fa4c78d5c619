//! [`Parameters`]: parameters and buffers of single entities, viewed where they lie, in a bevy system.

use bevy_ecs::prelude::*;
use bevy_ecs::system::SystemParam;
use ndarray::{ArrayViewD, IxDyn};
use neurarch_components::column::{ColumnKey, row};
use neurarch_components::registry::ModuleTypes;
use neurarch_components::tree::Columned;
use neurarch_kernels::dtype::Element;
use neurarch_kernels::program::Role;

use crate::access::AccessError;

/// Views parameters and buffers of modules by their entities, without copying.
///
/// It reads the whole world: a system that has it can change things by [`Commands`] alone. What was edited
/// since the model was last used is seen once the model is used again.
///
/// # Example
///
/// ```
/// use bevy_ecs::prelude::*;
/// use neurarch_components::layers::Linear;
/// # use neurarch_kernels::dtype::Dtype;
/// use neurarch_systems::parameters::Parameters;
/// # use neurarch_systems::spawn::spawn_population;
///
/// fn weigh(layers: Query<(Entity, &Linear)>, parameters: Parameters) {
///     for (entity, linear) in &layers {
///         let weight = parameters.get::<f32>(entity, "weight").expect("a layer has a weight");
///         assert_eq!(weight.shape(), [linear.out_features, linear.in_features]);
///     }
/// }
///
/// # let mut world = World::new();
/// spawn_population(&mut world, &Linear::new(2, 3), 10, 10, 7, Dtype::F32)?;
/// world.run_system_cached(weigh)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(SystemParam)]
pub struct Parameters<'w> {
    world: &'w World,
}

impl<'w> Parameters<'w> {
    /// Views a parameter or buffer of a module by its own name.
    ///
    /// # Errors
    ///
    /// If the entity is no module of a model, has nothing of that name and element type, or has it from
    /// another module, to which it is tied.
    #[expect(clippy::missing_panics_doc, reason = "there are as many numbers as the shape says")]
    pub fn get<T: Element>(
        &self,
        module: Entity,
        name: &str,
    ) -> Result<ArrayViewD<'w, T>, AccessError> {
        let columned = self.world.get::<Columned>(module);
        let contents = columned.ok_or(AccessError::NotAModule(module))?.contents();
        let own = contents.parameters.iter().enumerate().map(|(at, of)| (Role::Parameter, at, of));
        let buffers = contents.buffers.iter().enumerate().map(|(at, of)| (Role::Buffer, at, of));
        let mut all = own.chain(buffers);
        let found = all.find(|(_, _, of)| of.name == name);
        let (role, index, of) = found.ok_or_else(|| AccessError::NoSuchName {
            module: self.class(module),
            name: name.to_owned(),
        })?;
        if of.ty.dtype != T::DTYPE {
            let (expected, given) = (of.ty.dtype, T::DTYPE);
            return Err(AccessError::Dtype { name: name.to_owned(), expected, given });
        }
        let (entity, key) = match of.shared {
            Some(shared) => (shared.owner, shared.key(role, &of.ty)),
            None => (module, ColumnKey::new(role, index, &of.ty)),
        };
        let row = row(self.world, entity, key);
        let row = row.filter(|_| of.tied.is_none());
        let row = row.ok_or_else(|| AccessError::NoColumn { name: name.to_owned(), role })?;
        let numbers = bytemuck::cast_slice(&row[..of.ty.size_bytes()]);
        let view = ArrayViewD::from_shape(IxDyn(&of.ty.shape), numbers);
        Ok(view.expect("as many as the shape says"))
    }

    fn class(&self, module: Entity) -> &'static str {
        let types = self.world.get_resource::<ModuleTypes>();
        let found = types.and_then(|types| types.module(self.world.get_entity(module).ok()?));
        found.map_or("Module", |module| module.type_name())
    }
}
