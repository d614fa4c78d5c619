//! What derives of `Reflect` name, with the feature of that name.

pub(crate) use bevy_ecs::reflect::ReflectComponent;
pub(crate) use bevy_reflect::Reflect;
pub(crate) use bevy_reflect::prelude::ReflectDefault;
