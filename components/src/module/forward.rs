//! [`Forward`]: what `#[derive(Module)]` leaves to the user.

use neurarch_kernels::ir::trace::Var;
use neurarch_kernels::ir::tree::{Arguments, Tree};

use crate::module::{Call, Declare, Init};

/// What a module with `#[derive(Module)]` computes from its children and parameters, which are its fields: the derive
/// ([`Module`](derive@crate::module::Module)) writes the rest of [`Module`](trait@crate::module::Module).
///
/// A type that needs more than this trait has, such as `get_extra_state`, implements `Module` itself.
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no `forward`",
    note = "`#[derive(Module)]` needs `impl Forward for {Self}`"
)]
pub trait Forward {
    /// Writes down what the module computes from one value, as [`forward`](trait@crate::module::Module) of `Module` does.
    fn forward(&self, call: &Call<'_>, x: Var) -> Var {
        let _ = x;
        let module = call.at().module.type_name();
        call.trace.fail(format!("Module [{module}] is missing the required \"forward\" function"))
    }

    /// Writes down what the module computes from any arguments: several inputs, keyword arguments, a nested result. The
    /// default takes one value and calls [`forward`](Forward::forward).
    fn forward_with(&self, call: &Call<'_>, arguments: Arguments) -> Tree {
        match call.only_value(arguments) {
            Some(x) => self.forward(call, x).into(),
            None => call.trace.poison().into(),
        }
    }

    /// Registers what is no field, after the fields: children whose number or names depend on settings, ties.
    fn declare(&self, declare: &mut Declare) {
        let _ = declare;
    }

    /// Returns the first numbers of a parameter or buffer that [`declare`](Forward::declare) registers; the default is
    /// zeros.
    fn reset(&self, parameter: &str) -> Init {
        let _ = parameter;
        Init::Zeros
    }

    /// Returns whether [`forward`](Forward::forward) asks for [`Call::training`], as `Module::uses_training` does.
    fn uses_training(&self) -> bool {
        true
    }

    /// Returns what torch prints between the parentheses behind the type's name.
    fn extra_repr(&self) -> String {
        String::new()
    }
}
