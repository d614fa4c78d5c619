//! What a pickle calls and builds: storages, tensors, ordered dictionaries, modules.

use std::io::BufRead;
use std::sync::Arc;

use super::error::Fault;
use super::globals::is_allowed;
use super::unpickle::{Entry, Machine, Objects, weight};
use super::value::{Dict, Id, Storage, Value, View};

impl<R: BufRead> Machine<'_, R> {
    pub(super) fn global(&mut self) -> Result<(), Fault> {
        let (module, name) = (self.line()?, self.line()?);
        // What Python 2 calls it, as protocol 2 does.
        let module = if module == "__builtin__" { "builtins" } else { &module };
        let path = format!("{module}.{name}");
        if self.objects == Objects::WeightsOnly && !is_allowed(&path) {
            return Err(Fault::Global { name: path });
        }
        let weight = weight(path.len());
        self.push(Value::Global(path.into()), weight)
    }

    /// Returns the name of what is called.
    pub(super) fn called(&self, id: Id) -> Result<Arc<str>, Fault> {
        match &self.values[id] {
            Value::Global(name) => Ok(name.clone()),
            other => self.fail(format!("expected a class or function, got {}", other.type_name())),
        }
    }

    /// Takes what `torch.save` refers to by a persistent id: a storage.
    pub(super) fn storage(&mut self) -> Result<(), Fault> {
        let id = self.pop()?.id;
        let Value::Tuple(fields) = &self.values[id] else {
            return self.fail("expected a persistent id that is a tuple");
        };
        let Some((&[kind, class, key, _, _], view)) = fields.split_first_chunk() else {
            return self.fail("expected a persistent id of 5 or 6 values");
        };
        if !matches!(&self.values[kind], Value::Text(kind) if &**kind == "storage") {
            return self.fail("Only persistent_load of storage is allowed");
        }
        if view.iter().any(|&view| !matches!(self.values[view], Value::None)) {
            return self.fail("expected a storage that is no view of another");
        }
        let key = match &self.values[key] {
            Value::Text(key) => key.clone(),
            Value::Int(key) => key.to_string().into(),
            other => {
                return self.fail(format!("expected a storage's key, got {}", other.type_name()));
            }
        };
        let class = self.called(class)?;
        let weight = weight(key.len());
        self.push(Value::Storage(Storage { key, class }), weight)
    }

    /// Calls a function, so far as that is known.
    pub(super) fn reduce(&mut self) -> Result<(), Fault> {
        let arguments = self.pop()?;
        let function = self.pop()?.id;
        let function = self.called(function)?;
        let Value::Tuple(fields) = &self.values[arguments.id] else {
            return self.fail("expected a tuple of arguments");
        };
        let fields = fields.clone();
        self.call(&function, &fields, arguments.weight)
    }

    fn call(&mut self, function: &Arc<str>, fields: &[Id], weight: u64) -> Result<(), Fault> {
        if !is_allowed(function) {
            return Err(Fault::Global { name: function.to_string() });
        }
        let rebuilt = function.strip_prefix("torch._utils._rebuild_");
        match (&**function, fields, rebuilt) {
            ("collections.OrderedDict", [], _) => self.push(Value::Dict(Dict::default()), 1),
            ("collections.OrderedDict", ..) => self.fail("expected an OrderedDict of nothing"),
            ("builtins.set", &[items], _) => match &self.values[items] {
                Value::List(items) | Value::Tuple(items) => {
                    let items = items.clone();
                    self.push(Value::List(items), weight)
                }
                other => self.fail(format!("expected a list for a set, got {}", other.type_name())),
            },
            (_, &[storage, offset, shape, stride, ..], Some("tensor" | "tensor_v2")) => {
                self.tensor([storage, offset, shape, stride], None)
            }
            (_, &[storage, offset, shape, stride, _, _, dtype, ..], Some("tensor_v3")) => {
                let dtype = self.called(dtype)?;
                self.tensor([storage, offset, shape, stride], Some(dtype))
            }
            (_, &[id, ..], Some("parameter" | "parameter_with_state")) => match self.values[id] {
                Value::Tensor(_) => {
                    self.stack.push(Entry { id, weight });
                    Ok(())
                }
                _ => self.fail("expected a parameter of a tensor"),
            },
            ("torch._tensor._rebuild_from_type_v2", &[function, _, arguments, ..], _) => {
                let function = self.called(function)?;
                if !function.starts_with("torch._utils._rebuild_") {
                    return self.fail(format!(
                        "expected a function that rebuilds a tensor, got {function}"
                    ));
                }
                let Value::Tuple(fields) = &self.values[arguments] else {
                    return self.fail("expected a tuple of arguments");
                };
                let fields = fields.clone();
                self.call(&function, &fields, weight)
            }
            _ => self.push(Value::Opaque(function.clone()), 1),
        }
    }

    fn tensor(&mut self, fields: [Id; 4], dtype: Option<Arc<str>>) -> Result<(), Fault> {
        let [storage, offset, shape, stride] = fields.map(|field| &self.values[field]);
        let (Value::Storage(storage), Value::Int(offset)) = (storage, offset) else {
            return self.fail("expected a tensor of a storage and an offset");
        };
        let (Value::Tuple(shape), Value::Tuple(stride)) = (shape, stride) else {
            return self.fail("expected a tensor's shape and stride as tuples");
        };
        let sizes = |of: &[Id]| -> Option<Vec<usize>> {
            let sizes = of.iter().map(|&size| match self.values[size] {
                Value::Int(size) => usize::try_from(size).ok(),
                _ => None,
            });
            sizes.collect()
        };
        let (Some(shape), Some(stride)) = (sizes(shape), sizes(stride)) else {
            return self
                .fail("expected a tensor's shape and stride of numbers that are not negative");
        };
        let weight = weight(size_of_val(shape.as_slice()));
        let view = View { storage: storage.clone(), dtype, offset: *offset, shape, stride };
        self.push(Value::Tensor(view), weight)
    }

    /// Gives an object its state: an `OrderedDict` its `_metadata`, a module its attributes.
    pub(super) fn build(&mut self) -> Result<(), Fault> {
        let state = self.pop()?;
        let object = *self.top()?;
        let Some(attributes) = self.values.dict(state.id) else {
            return self.fail("expected a state that is a dict");
        };
        let metadata = attributes.get(METADATA);
        let tables = TABLES.map(|table| self.values.dict(attributes.get(table)?));
        let module_weight =
            tables.iter().map(|table| Some(table.as_ref()?.weight)).sum::<Option<u64>>();
        let other = attributes.iter().map(|(name, _)| name).find(|name| *name != METADATA);
        let other = other.map(str::to_owned);
        match &mut self.values[object.id] {
            Value::Dict(dict) => match other {
                None => {
                    dict.metadata = metadata.or(dict.metadata);
                    self.top()?.weight += state.weight;
                }
                Some(name) => {
                    return self.fail(format!(
                        "expected a dict with the attribute {METADATA} alone, got '{name}'"
                    ));
                }
            },
            Value::Opaque(name) if self.objects == Objects::Modules => {
                let Some(weight) = module_weight else {
                    return Err(Fault::Global { name: name.to_string() });
                };
                self.values[object.id] = Value::Module(state.id);
                self.top()?.weight = 1 + weight;
            }
            other => {
                let found = other.type_name();
                return self.fail(format!("Can only build OrderedDict, but got {found}"));
            }
        }
        // The reader of the numbers puts a copy of what was built in the place of the one before.
        let weight = self.top()?.weight;
        self.copy(weight)
    }
}

/// What torch gives an `OrderedDict` to keep versions in.
const METADATA: &str = "_metadata";

/// What a module keeps its parameters, buffers and children in, in the order of its state dict.
pub(super) const TABLES: [&str; 3] = ["_parameters", "_buffers", "_modules"];
