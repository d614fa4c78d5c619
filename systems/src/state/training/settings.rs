//! What decides the next numbers and is no number of a state: settings of modules, optimizers and schedulers. A file has
//! a hash of each, so that training does not go on with others unnoticed.

use core::fmt::{self, Debug, Write};

use bevy_ecs::prelude::*;
use ndarray::Array1;
use neurarch_components::module::registry::ModuleTypes;
use neurarch_components::optimizer::LBFGS;
use neurarch_components::scheduler::Scheduler;
use neurarch_components::state::Tensor;

use super::error::TrainingStateError;
use super::source::Source;
use crate::optim::state_dict::OptimizerStateDict;
use crate::structure::traverse;
use crate::structure::traverse::Listing;

/// How much of a description is read: of a module that holds long arrays, its beginning.
const LIMIT: usize = 4096;

/// The description of something, as its `Debug` writes it.
#[derive(Default)]
struct Description(String);

impl Write for Description {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.push_str(text);
        if self.0.len() < LIMIT { Ok(()) } else { Err(fmt::Error) }
    }
}

/// Settings of one kind, in the order of the tree.
pub(super) struct Settings {
    /// What the tensor is called.
    name: &'static str,
    /// What each is of, and its description.
    list: Vec<(String, String)>,
}

impl Settings {
    fn new<'a>(
        name: &'static str,
        all: impl IntoIterator<Item = (String, &'a (dyn Debug + 'a))>,
    ) -> Self {
        let describe = |(of, what): (String, &dyn Debug)| {
            let mut description = Description::default();
            // It fails where it ends early.
            let _ = write!(description, "{what:?}");
            (of, description.0)
        };
        Settings { name, list: all.into_iter().map(describe).collect() }
    }

    /// Returns the settings of a model whose optimizers and schedulers are these.
    pub(super) fn of(
        world: &mut World,
        root: Entity,
        optimizers: &OptimizerStateDict,
        schedulers: &[(Entity, Scheduler)],
    ) -> Result<[Settings; 4], TrainingStateError> {
        let modules = traverse::named_modules(world, root, Listing::default())?;
        let types = world.resource::<ModuleTypes>();
        // What a module keeps beside its settings, a state dict brings back.
        let described = modules.iter().filter_map(|(path, module)| {
            let module = types.module(world.get_entity(*module).ok()?)?;
            let is_setting = module.get_extra_state().is_none();
            is_setting.then_some((format!("module '{path}'"), module as &dyn Debug))
        });
        let groups = optimizers.param_groups.iter().enumerate();
        let groups = groups.flat_map(|(place, group)| {
            let of = format!("optimizer.param_groups.{place}");
            // Which parameters are in a group beside group 0 decides the numbers, too.
            let names = (format!("{of}.params"), &group.param_names as &dyn Debug);
            let names = (group.number > 0).then_some(names);
            [(of, &group.optimizer as &dyn Debug)].into_iter().chain(names)
        });
        // As they are once their state was loaded: it may be written down in two ways.
        let loaded = schedulers.iter().map(|(_, scheduler)| {
            let (state, mut loaded) = (scheduler.state_dict(), scheduler.clone());
            loaded.load_state_dict(&state).map_or(scheduler.clone(), |()| loaded)
        });
        let loaded: Vec<_> = loaded.collect();
        let scheduled = loaded.iter().enumerate();
        let scheduled =
            scheduled.map(|(place, of)| (format!("lr_scheduler.{place}"), of as &dyn Debug));
        let lbfgs = world.get::<LBFGS>(root);
        let lbfgs = lbfgs.map(|lbfgs| ("lbfgs".to_owned(), lbfgs as &dyn Debug));
        Ok([
            Settings::new("settings.modules", described),
            Settings::new("settings.optimizers", groups),
            Settings::new("settings.lr_schedulers", scheduled),
            Settings::new("settings.lbfgs", lbfgs),
        ])
    }

    /// Returns the settings of one thing.
    pub(super) fn of_one(name: &'static str, what: &dyn Debug) -> Self {
        Settings::new(name, [(name.to_owned(), what)])
    }

    /// Returns what a file has of them, if there are any.
    pub(super) fn tensor(&self) -> Option<Tensor> {
        let hashes: Array1<i64> = self.list.iter().map(|(_, text)| hash(text)).collect();
        (!hashes.is_empty()).then(|| Tensor::new(self.name, hashes.view()))
    }

    /// Checks that a file was written with these.
    pub(super) fn check(&self, source: &Source<'_>) -> Result<(), TrainingStateError> {
        if self.list.is_empty() {
            // One that the file has is not read, which is an error.
            return Ok(());
        }
        let given = source.array::<i64>(self.name, &[self.list.len()])?;
        for ((of, settings), given) in self.list.iter().zip(given) {
            if hash(settings) != given {
                let (of, settings) = (of.clone(), settings.clone());
                return Err(TrainingStateError::Settings { of, settings });
            }
        }
        Ok(())
    }
}

/// Hashes a description, but for the addresses in it, which another process has others of.
///
/// Source: FNV-1a, whose hashes are the same on every machine.
fn hash(text: &str) -> i64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let (mut last, mut is_address) = (0, false);
    for byte in text.bytes() {
        is_address = is_address && byte.is_ascii_hexdigit() || last == b'0' && byte == b'x';
        if !is_address {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        last = byte;
    }
    hash as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_are_told_apart_but_for_addresses() {
        assert_ne!(hash("Dropout { p: 0.5 }"), hash("Dropout { p: 0.25 }"));
        assert_eq!(hash("Own { f: 0x55e0a1, n: 1 }"), hash("Own { f: 0x7ffdeadbeef, n: 1 }"));
        assert_ne!(hash("Own { f: 0x55e0a1, n: 1 }"), hash("Own { f: 0x55e0a1, n: 2 }"));
    }

    #[test]
    fn a_long_description_ends_early() {
        let settings = Settings::of_one("long", &vec![1.0_f32; 1 << 20]);
        assert!(settings.list[0].1.len() <= LIMIT + 32);
    }
}
