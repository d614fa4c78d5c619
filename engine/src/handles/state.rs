//! State dicts, and parameters as vectors.

use ndarray::{Array1, Array2, ArrayView1, ArrayView2};

use crate::components::state::{IncompatibleKeys, StateDict};
use crate::handles::{ModuleMut, PopulationMut};
use crate::kernels::ir::dtype::Element;
use crate::systems::state::dict::{self, StateDictError};
use crate::systems::state::load::{self, LoadOptions, LoadStateDictError};
use crate::systems::structure::vector::{self, VectorError};

impl ModuleMut<'_> {
    /// Copies the parameters and persistent buffers of a module and all below it: [`dict::state_dict`].
    ///
    /// # Errors
    ///
    /// If the entity is no module of a model, or a hook failed.
    pub fn state_dict(&mut self) -> Result<StateDict, StateDictError> {
        self.state_dict_with("")
    }

    /// The same, `prefix` in front of all names: it ends with a dot.
    ///
    /// # Errors
    ///
    /// As [`state_dict`](Self::state_dict).
    pub fn state_dict_with(&mut self, prefix: &str) -> Result<StateDict, StateDictError> {
        dict::state_dict(self.handle.world, self.id, prefix)
    }

    /// [`state_dict_with`](Self::state_dict_with) into a state dict that is there: [`dict::state_dict_into`].
    ///
    /// # Errors
    ///
    /// As [`state_dict`](Self::state_dict); `destination` is as it was then.
    pub fn state_dict_into(
        &mut self,
        destination: &mut StateDict,
        prefix: &str,
    ) -> Result<(), StateDictError> {
        dict::state_dict_into(self.handle.world, self.id, destination, prefix)
    }

    /// Copies all parameters into one vector: [`vector::parameters_to_vector`].
    ///
    /// # Errors
    ///
    /// If the entity is no module of a model, or a parameter has elements of another type.
    pub fn parameters_to_vector<T: Element>(&mut self) -> Result<Array1<T>, VectorError> {
        vector::parameters_to_vector(self.handle.world, self.id)
    }

    /// Overwrites all parameters with the numbers of a vector: [`vector::vector_to_parameters`].
    ///
    /// # Errors
    ///
    /// As [`parameters_to_vector`](Self::parameters_to_vector), and if the length is another.
    pub fn vector_to_parameters<T: Element>(
        &mut self,
        vector: ArrayView1<'_, T>,
    ) -> Result<(), VectorError> {
        vector::vector_to_parameters(self.handle.world, self.id, vector)
    }
}

impl PopulationMut<'_> {
    /// Copies the parameters and persistent buffers of all models of a population, each `[models, ..]`:
    /// [`dict::stacked_state_dict`].
    ///
    /// # Errors
    ///
    /// If the models are not of one structure, or a hook failed.
    pub fn stacked_state_dict(&mut self) -> Result<StateDict, StateDictError> {
        dict::stacked_state_dict(self.handle.world, self.id)
    }

    /// Loads a slice of each tensor, `[models, ..]`, into each model of a population:
    /// [`load::load_stacked_state_dict`].
    ///
    /// # Errors
    ///
    /// As [`load_state_dict`](Self::load_state_dict), and if the models are not of one structure.
    pub fn load_stacked_state_dict(
        &mut self,
        state: &StateDict,
        options: LoadOptions,
    ) -> Result<IncompatibleKeys, LoadStateDictError> {
        load::load_stacked_state_dict(self.handle.world, self.id, state, options)
    }

    /// Copies all parameters of each model into a row of a matrix, `[models, numel]`:
    /// [`vector::parameters_to_vectors`].
    ///
    /// # Errors
    ///
    /// As [`parameters_to_vector`](ModuleMut::parameters_to_vector), and if models have unequally many.
    pub fn parameters_to_vectors<T: Element>(&mut self) -> Result<Array2<T>, VectorError> {
        vector::parameters_to_vectors(self.handle.world, self.id)
    }

    /// Overwrites all parameters of each model with a row of a matrix: [`vector::vectors_to_parameters`].
    ///
    /// # Errors
    ///
    /// As [`parameters_to_vectors`](Self::parameters_to_vectors), and if the shape is another.
    pub fn vectors_to_parameters<T: Element>(
        &mut self,
        vectors: ArrayView2<'_, T>,
    ) -> Result<(), VectorError> {
        vector::vectors_to_parameters(self.handle.world, self.id, vectors)
    }
}
