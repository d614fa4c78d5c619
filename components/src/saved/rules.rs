//! [`Rules`]: the rules that schedulers follow, and how each is written and read.

use core::any::{Any, TypeId};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::cbor::{decode, encode, name_of};
use super::error::SavedError;
use crate::scheduler::LRScheduler;
use crate::wire::{Bytes, short_name};

/// The rules whose settings can be written, in order of registration.
#[derive(Clone, Debug, Default)]
pub(super) struct Rules(Vec<Rule>);

type ReadRule = fn(&[u8]) -> Result<Box<dyn LRScheduler>, SavedError>;

#[derive(Clone, Debug)]
struct Rule {
    name: String,
    type_id: TypeId,
    type_name: &'static str,
    write: fn(&dyn Any, &mut Vec<u8>) -> Result<(), SavedError>,
    read: ReadRule,
}

impl Rules {
    /// Adds a rule, unless it is there.
    pub(super) fn add<R>(&mut self) -> Result<(), SavedError>
    where
        R: LRScheduler + Serialize + DeserializeOwned,
    {
        let added = Rule {
            name: name_of::<R>(),
            type_id: TypeId::of::<R>(),
            type_name: core::any::type_name::<R>(),
            write: |rule, bytes| match rule.downcast_ref::<R>() {
                Some(rule) => encode(rule, bytes),
                None => Err(SavedError::UnknownScheduler { name: name_of::<R>() }),
            },
            read: |bytes| Ok(Box::new(decode::<R>(bytes)?)),
        };
        match self.0.iter().find(|known| known.name == added.name) {
            Some(known) if known.type_id == added.type_id => Ok(()),
            Some(known) => Err(SavedError::NameTaken {
                name: added.name,
                type_name: added.type_name,
                known: known.type_name,
            }),
            None => {
                self.0.push(added);
                Ok(())
            }
        }
    }

    /// Lists the names.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|known| known.name.as_str())
    }

    /// Writes the settings of a rule: the name of its type, and the bytes.
    pub(super) fn write(&self, rule: &dyn LRScheduler) -> Result<(String, Bytes), SavedError> {
        let (value, mut bytes): (&dyn Any, _) = (rule, Vec::new());
        let Some(known) = self.0.iter().find(|known| known.type_id == value.type_id()) else {
            let name = short_name(rule.rust_name());
            return Err(SavedError::UnknownScheduler { name });
        };
        (known.write)(value, &mut bytes)?;
        Ok((known.name.clone(), Bytes(bytes.into())))
    }

    /// Reads a rule of a name.
    pub(super) fn read(
        &self,
        name: &str,
        bytes: &[u8],
    ) -> Result<Box<dyn LRScheduler>, SavedError> {
        let Some(known) = self.0.iter().find(|known| known.name == name) else {
            return Err(SavedError::UnknownScheduler { name: name.to_owned() });
        };
        (known.read)(bytes)
    }
}
