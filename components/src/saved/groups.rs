//! The component [`ParamGroups`]: the hyperparameters of each group. Predicates are functions, which no file holds.

use bevy_ecs::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::cbor::{decode, encode, name_of};
use super::error::SavedError;
use super::types::{SavedTypes, Value, add};
use crate::optimizer::{Optimizer, ParamGroups};

/// Makes parameter groups of an optimizer known.
pub(super) fn add_groups<O>(world: &mut World) -> Result<(), SavedError>
where
    O: Optimizer + Serialize + DeserializeOwned,
{
    add::<ParamGroups<O>>(world, &name_of::<ParamGroups<O>>(), write::<O>, |_, bytes| {
        let groups: Vec<O> = decode(bytes)?;
        if groups.is_empty() {
            let (name, reason) = (name_of::<ParamGroups<O>>(), "there is no group".to_owned());
            return Err(SavedError::Read { name, reason });
        }
        let adopt = |groups: &mut ParamGroups<O>, there: Option<&ParamGroups<O>>| {
            let rule = || name_of::<ParamGroups<O>>();
            groups
                .take_predicates(there)
                .then_some(())
                .ok_or_else(|| SavedError::Functions { rule: rule() })
        };
        Ok(Box::new(Value::adopting(ParamGroups::without_predicates(groups), adopt)))
    })
}

fn write<O: Optimizer + Serialize>(
    _: &SavedTypes,
    entity: EntityRef<'_>,
    _: &mut dyn EntityMapper,
    bytes: &mut Vec<u8>,
) -> Result<bool, SavedError> {
    let Some(groups) = entity.get::<ParamGroups<O>>() else { return Ok(false) };
    encode(&groups.to_vec(), bytes)?;
    Ok(true)
}
