//! What a `forward` of several arguments takes: positional and keyword arguments, matched with names as
//! Python matches them.

use neurarch_kernels::ir::trace::Var;
use neurarch_kernels::ir::tree::{Arguments, Tree};

use crate::module::call::Call;

impl Call<'_> {
    /// Matches arguments with the names that `forward` gives its parameters, of which the first `required` have
    /// no default. What is absent is `None`.
    ///
    /// # Errors
    ///
    /// [`Refused`] if they do not fit; that is recorded at this module, in Python's words.
    ///
    /// Source: the call of a Python function.
    pub fn bind<const N: usize>(
        &self,
        arguments: Arguments,
        names: [&str; N],
        required: usize,
    ) -> Result<[Option<Tree>; N], Refused> {
        let given = arguments.positional.len();
        let mut bound: [Option<Tree>; N] = core::array::from_fn(|_| None);
        bound.iter_mut().zip(arguments.positional).for_each(|(at, value)| *at = Some(value));
        for (name, value) in arguments.keyword {
            let Some(place) = names.iter().position(|known| **known == *name) else {
                return Err(self.refuse(&format!(" got an unexpected keyword argument '{name}'")));
            };
            if bound[place].replace(value).is_some() {
                return Err(self.refuse(&format!(" got multiple values for argument '{name}'")));
            }
        }
        if given > N {
            // Python counts `self`.
            let takes = match required {
                _ if required == N => format!("{}", N + 1),
                _ => format!("from {} to {}", required + 1, N + 1),
            };
            let given = given + 1;
            let why = format!(" takes {takes} positional arguments but {given} were given");
            return Err(self.refuse(&why));
        }
        let missing = bound.iter().zip(names).take(required).filter(|(value, _)| value.is_none());
        let missing: Vec<_> = missing.map(|(_, name)| format!("'{name}'")).collect();
        let listed = match &*missing {
            [] => return Ok(bound),
            [one] => one.clone(),
            [one, other] => format!("{one} and {other}"),
            [all @ .., last] => format!("{}, and {last}", all.join(", ")),
        };
        let (count, plural) = (missing.len(), if missing.len() == 1 { "" } else { "s" });
        let why = format!(" missing {count} required positional argument{plural}: {listed}");
        Err(self.refuse(&why))
    }

    /// Matches arguments as [`bind`](Self::bind) does, with [`Tree::None`] for what is absent; `None` if they do
    /// not fit.
    pub fn bind_or_none<const N: usize>(
        &self,
        arguments: Arguments,
        names: [&str; N],
        required: usize,
    ) -> Option<[Tree; N]> {
        Some(self.bind(arguments, names, required).ok()?.map(Option::unwrap_or_default))
    }

    /// Takes an argument that is a value.
    ///
    /// # Errors
    ///
    /// [`Refused`] if it is something else; that is recorded at this module.
    pub fn value(&self, name: &str, argument: Option<Tree>) -> Result<Var, Refused> {
        match argument {
            Some(Tree::Leaf(x)) => Ok(x),
            other => {
                let given = other.unwrap_or_default().type_name();
                Err(self.refuse(&format!(": expected a Tensor as '{name}', got {given}")))
            }
        }
    }

    /// Takes an argument that is a value or `None`.
    ///
    /// # Errors
    ///
    /// [`Refused`] if it is something else; that is recorded at this module.
    pub fn optional_value(
        &self,
        name: &str,
        argument: Option<Tree>,
    ) -> Result<Option<Var>, Refused> {
        match argument {
            None | Some(Tree::None) => Ok(None),
            other => self.value(name, other).map(Some),
        }
    }

    /// Takes an argument that is a truth value: a number is true unless it is 0, and `None` is false.
    ///
    /// # Errors
    ///
    /// [`Refused`] if it is something else; that is recorded at this module.
    pub fn flag(&self, name: &str, argument: Option<Tree>, default: bool) -> Result<bool, Refused> {
        match argument {
            None => Ok(default),
            Some(Tree::None) => Ok(false),
            Some(Tree::Flag(flag)) => Ok(flag),
            Some(Tree::Number(number)) => Ok(number != 0.0),
            Some(other) => {
                let given = other.type_name();
                Err(self.refuse(&format!(": expected a bool as '{name}', got {given}")))
            }
        }
    }

    /// Records at this module that `forward` does not take its arguments.
    fn refuse(&self, why: &str) -> Refused {
        self.fail(format!("{}.forward(){why}", self.at().module.type_name()))
    }

    /// Records an error at this module.
    pub(crate) fn fail(&self, message: impl Into<String>) -> Refused {
        self.trace.fail(message);
        Refused
    }
}

/// An argument is not what `forward` takes, which is recorded on the trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused;
