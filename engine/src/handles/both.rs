//! What a population and a module have in common, for itself and all below it.

use std::path::Path;

use crate::components::scheduler::GroupSchedulers;
use crate::components::state::{IncompatibleKeys, StateDict};
use crate::handles::{ModuleMut, PopulationMut};
use crate::state::Tensor;
use crate::state::training::{self, TrainingStateError};
use crate::systems::execute::step;
use crate::systems::execute::step::StepError;
use crate::systems::optim::clip::{self, ClipError, ClipOptions};
use crate::systems::optim::lr_scheduler::{self, ScheduleError};
use crate::systems::state::load::{self, LoadOptions, LoadStateDictError};
use crate::systems::state::load_file::{FileOptions, LoadFileError, load_file};
use crate::systems::structure::mode;

/// Writes methods whose functions take the entity of a population or of a module for both handles.
macro_rules! both {
    ($($method:item)*) => {
        impl PopulationMut<'_> {
            $($method)*
        }

        impl ModuleMut<'_> {
            $($method)*
        }
    };
}

both! {
    /// Takes gradients away, to torch's `None`:
    /// [`step::zero_grad`].
    ///
    /// # Errors
    ///
    /// If it was despawned.
    pub fn zero_grad(&mut self) -> Result<(), StepError> {
        step::zero_grad(self.handle.world, self.id, true)
    }

    /// [`zero_grad`](Self::zero_grad), or zeros where there are gradients if `set_to_none` is false.
    ///
    /// # Errors
    ///
    /// As [`zero_grad`](Self::zero_grad).
    pub fn zero_grad_with(&mut self, set_to_none: bool) -> Result<(), StepError> {
        step::zero_grad(self.handle.world, self.id, set_to_none)
    }

    /// Puts it and all below into training mode: [`mode::train`].
    ///
    /// # Errors
    ///
    /// If it was despawned.
    pub fn train(&mut self) -> Result<&mut Self, StepError> {
        mode::train(self.handle.world, self.id)?;
        Ok(self)
    }

    /// Puts it and all below into evaluation mode: [`mode::eval`].
    ///
    /// # Errors
    ///
    /// If it was despawned.
    pub fn eval(&mut self) -> Result<&mut Self, StepError> {
        mode::eval(self.handle.world, self.id)?;
        Ok(self)
    }

    /// Sets whether its parameters and those of all below need gradients:
    /// [`mode::requires_grad_`].
    ///
    /// # Errors
    ///
    /// If it was despawned.
    pub fn requires_grad_(&mut self, requires_grad: bool) -> Result<&mut Self, StepError> {
        mode::requires_grad_(self.handle.world, self.id, requires_grad)?;
        Ok(self)
    }

    /// Sets whether its models take part: [`mode::set_active`].
    ///
    /// # Errors
    ///
    /// If it was despawned.
    pub fn set_active(&mut self, is_active: bool) -> Result<&mut Self, StepError> {
        mode::set_active(self.handle.world, self.id, is_active)?;
        Ok(self)
    }

    /// Schedules every optimizer there, its parameter groups by one scheduler or by an array with one for each:
    /// [`lr_scheduler::schedule_with`].
    ///
    /// # Errors
    ///
    /// If there is no optimizer, or the scheduler refuses it.
    pub fn schedule(&mut self, scheduler: impl GroupSchedulers + Clone) -> Result<(), ScheduleError> {
        lr_scheduler::schedule_with(self.handle.world, self.id, |_| scheduler.clone())
    }

    /// Schedules each model as `scheduler` says by its index: [`lr_scheduler::schedule_with`].
    ///
    /// # Errors
    ///
    /// As [`schedule`](Self::schedule).
    pub fn schedule_with<S: GroupSchedulers>(&mut self, scheduler: impl Fn(usize) -> S) -> Result<(), ScheduleError> {
        lr_scheduler::schedule_with(self.handle.world, self.id, scheduler)
    }

    /// Goes one step on: [`lr_scheduler::step`].
    ///
    /// # Errors
    ///
    /// If nothing is scheduled, or a schedule has ended.
    #[track_caller]
    pub fn step_schedulers(&mut self) -> Result<(), ScheduleError> {
        lr_scheduler::step(self.handle.world, self.id)
    }

    /// Goes to an epoch: [`lr_scheduler::step_to`].
    ///
    /// # Errors
    ///
    /// As [`step_schedulers`](Self::step_schedulers).
    #[track_caller]
    pub fn step_schedulers_to(&mut self, epoch: f64) -> Result<(), ScheduleError> {
        lr_scheduler::step_to(self.handle.world, self.id, epoch)
    }

    /// Goes one step on with a metric of each model: [`lr_scheduler::step_with_metrics`].
    ///
    /// # Errors
    ///
    /// As [`step_schedulers`](Self::step_schedulers), and if there is not a metric for each model.
    pub fn step_schedulers_with_metrics(&mut self, metrics: &[f64]) -> Result<(), ScheduleError> {
        lr_scheduler::step_with_metrics(self.handle.world, self.id, metrics)
    }

    /// Scales the gradients of each model to a Euclidean norm of at most `max_norm`, and gives the norms before:
    /// [`clip::clip_grad_norm_`].
    ///
    /// # Errors
    ///
    /// If `entity` is neither a population nor a module of one.
    pub fn clip_grad_norm_(&mut self, max_norm: f64) -> Result<Vec<f64>, ClipError> {
        clip::clip_grad_norm_(self.handle.world, self.id, max_norm, ClipOptions::default())
    }

    /// [`clip_grad_norm_`](Self::clip_grad_norm_) by a norm of any order, which may have to be finite.
    ///
    /// # Errors
    ///
    /// As there, and if a norm is not finite and `options` forbid it.
    pub fn clip_grad_norm_with(&mut self, max_norm: f64, options: ClipOptions) -> Result<Vec<f64>, ClipError> {
        clip::clip_grad_norm_(self.handle.world, self.id, max_norm, options)
    }

    /// Scales the gradients of each model by its norm, which is given: [`clip::clip_grads_with_norm_`].
    ///
    /// # Errors
    ///
    /// If `entity` is neither a population nor a module of one, or there is not one norm for each model.
    pub fn clip_grads_with_norm_(&mut self, max_norm: f64, total_norms: &[f64]) -> Result<(), ClipError> {
        clip::clip_grads_with_norm_(self.handle.world, self.id, max_norm, total_norms)
    }

    /// Brings every number of the gradients into `-clip_value` to `clip_value`: [`clip::clip_grad_value_`].
    ///
    /// # Errors
    ///
    /// If `entity` is neither a population nor a module of one.
    pub fn clip_grad_value_(&mut self, clip_value: f64) -> Result<(), ClipError> {
        clip::clip_grad_value_(self.handle.world, self.id, clip_value)
    }

    /// Returns the norm of all gradients of each model: [`clip::get_total_norm`].
    ///
    /// # Errors
    ///
    /// If `entity` is neither a population nor a module of one.
    pub fn get_total_norm(&mut self, norm_type: f64) -> Result<Vec<f64>, ClipError> {
        clip::get_total_norm(self.handle.world, self.id, norm_type)
    }

    /// Lists what optimizers and schedulers of a model or a population have come to, and how many random numbers were
    /// drawn: [`training::training_state`].
    ///
    /// # Errors
    ///
    /// If `entity` is neither the root of a model nor a population, or its models differ.
    ///
    /// # Example
    ///
    /// ```
    /// # use ndarray::Array3;
    /// # use neurarch::prelude::*;
    /// # use neurarch::state::safetensors;
    /// # let mut world = World::new();
    /// # let mut brains = world.spawn_population(&Linear::new(4, 2), 3, Seed(7))?;
    /// # brains.insert(Adam::default())?;
    /// # let folder = std::env::temp_dir().join(format!("neurarch-training-{}", std::process::id()));
    /// # std::fs::create_dir_all(&folder)?;
    /// // What PyTorch reads, and what training goes on from, stacked over all models.
    /// safetensors::save(folder.join("model.safetensors"), &brains.stacked_state_dict()?)?;
    /// safetensors::save(folder.join("training.safetensors"), &brains.training_state()?)?;
    ///
    /// let model = safetensors::read(folder.join("model.safetensors"))?;
    /// brains.load_stacked_state_dict(&model, LoadOptions::default())?;
    /// let training = safetensors::read(folder.join("training.safetensors"))?;
    /// brains.load_training_state(&training)?;
    /// # std::fs::remove_dir_all(&folder)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn training_state(&mut self) -> Result<Vec<Tensor>, TrainingStateError> {
        training::training_state(self.handle.world, self.id)
    }

    /// Goes on where training was: [`training::load_training_state`].
    ///
    /// # Errors
    ///
    /// If the tensors are of other optimizers or schedulers than `entity` has.
    pub fn load_training_state(&mut self, tensors: &[Tensor]) -> Result<(), TrainingStateError> {
        training::load_training_state(self.handle.world, self.id, tensors)
    }

    /// Loads a state dict into a module, or into every model of a population: [`load::load_state_dict`].
    ///
    /// # Errors
    ///
    /// If keys or sizes do not match, in torch's words; what fits is loaded all the same.
    pub fn load_state_dict(&mut self, state: &StateDict) -> Result<IncompatibleKeys, LoadStateDictError> {
        self.load_state_dict_with(state, LoadOptions::default())
    }

    /// The same, as `options` say.
    ///
    /// # Errors
    ///
    /// As [`load_state_dict`](Self::load_state_dict).
    pub fn load_state_dict_with(&mut self, state: &StateDict, options: LoadOptions) -> Result<IncompatibleKeys, LoadStateDictError> {
        load::load_state_dict(self.handle.world, self.id, state, options)
    }

    /// Loads the state dict of a file, of safetensors or of `torch.save`: [`load_file()`].
    ///
    /// # Errors
    ///
    /// If the file cannot be read, is of `torch.save` and neurarch's feature `pytorch` is not there, has no or several
    /// state dicts, or as [`load_state_dict`](Self::load_state_dict). Other than there, nothing is loaded then.
    ///
    /// # Example
    ///
    /// ```
    /// # use neurarch::prelude::*;
    /// # use neurarch::state::{FileOptions, KeyMap, safetensors};
    /// # let path = std::env::temp_dir().join(format!("neurarch-load-{}.safetensors", std::process::id()));
    /// # let fc = |name: &str, numbers: &[f32]| Tensor::new(name, ndarray::ArrayView1::from(numbers));
    /// # safetensors::save(&path, &[fc("module.fc.bias", &[0.5])])?;
    /// # let net = Sequential::from_named([("head", Linear::new(3, 1))])?;
    /// # let mut world = World::new();
    /// let mut brains = world.spawn_population(&net, 100, Seed(7))?;
    /// let options = FileOptions {
    ///     keys: KeyMap::new().strip_prefix("module.").rename("fc", "head"),
    ///     load: LoadOptions { strict: false, ..LoadOptions::default() },
    ///     ..FileOptions::default()
    /// };
    /// let keys = brains.load_file_with(&path, &options)?; // Into each of the hundred.
    /// assert_eq!(keys.missing_keys, ["head.weight"]);
    /// # std::fs::remove_file(&path)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn load_file(&mut self, path: impl AsRef<Path>) -> Result<IncompatibleKeys, LoadFileError> {
        self.load_file_with(path, &FileOptions::default())
    }

    /// The same, as `options` say: which key of a checkpoint, by which names, how strict.
    ///
    /// # Errors
    ///
    /// As [`load_file`](Self::load_file), and if two names would become one.
    pub fn load_file_with(&mut self, path: impl AsRef<Path>, options: &FileOptions) -> Result<IncompatibleKeys, LoadFileError> {
        load_file(self.handle.world, self.id, path, options)
    }
}
