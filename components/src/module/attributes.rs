//! The attributes of torch's modules and containers, which no child or parameter can be named after.
//!
//! Source: `dir` of the classes of torch 2.15.

/// Returns whether a container of torch's has an attribute of this name; `false` for other modules.
pub fn is_attribute(container: &str, name: &str) -> bool {
    let Some(own) = of_container(container) else { return false };
    // A parameter takes the place of what is kept for each module.
    let is_kept = container == "ParameterDict" && name == "training";
    (is_attribute_of_every_module(name) && !is_kept) || own.contains(&name)
}

/// Lists the attributes of a container of torch's, beside those of every module.
fn of_container(container: &str) -> Option<&'static [&'static str]> {
    match container {
        "Sequential" => Some(SEQUENTIAL),
        "ModuleList" => Some(MODULE_LIST),
        "ModuleDict" => Some(MODULE_DICT),
        "ParameterDict" => Some(PARAMETER_DICT),
        _ => None,
    }
}

/// Returns whether a module that is no container of torch's has an attribute of this name as every module has it, such as
/// `forward`: nothing that its type declares can have the name.
pub fn is_method(module: &str, name: &str) -> bool {
    of_container(module).is_none() && is_attribute_of_every_module(name)
}

/// Of `torch.nn.Sequential` beside those of every module.
#[rustfmt::skip]
const SEQUENTIAL: &[&str] = &[
    "__add__", "__delitem__", "__getitem__", "__iadd__", "__imul__", "__iter__", "__len__",
    "__mul__", "__rmul__", "__setitem__", "_get_item_by_idx", "append", "extend", "insert", "pop",
];

/// Of `torch.nn.ModuleList` beside those.
#[rustfmt::skip]
const MODULE_LIST: &[&str] = &[
    "__add__", "__delitem__", "__getitem__", "__iadd__", "__iter__", "__len__", "__setitem__",
    "_get_abs_string_index", "append", "extend", "insert", "pop",
];

/// Of `torch.nn.ModuleDict` beside those.
#[rustfmt::skip]
const MODULE_DICT: &[&str] = &[
    "__contains__", "__delitem__", "__getitem__", "__iter__", "__len__", "__setitem__", "clear",
    "items", "keys", "pop", "update", "values",
];

/// Of `torch.nn.ParameterDict` beside those.
#[rustfmt::skip]
const PARAMETER_DICT: &[&str] = &[
    "__contains__", "__delitem__", "__getitem__", "__ior__", "__iter__", "__len__", "__or__",
    "__reversed__", "__ror__", "__setitem__", "_key_to_attr", "_keys", "clear", "copy", "fromkeys",
    "get", "items", "keys", "pop", "popitem", "setdefault", "update", "values",
];

/// Returns whether every module of torch has an attribute of that name.
///
/// Source: `dir(torch.nn.Module())` of torch 2.15.
pub fn is_attribute_of_every_module(name: &str) -> bool {
    MODULE_ATTRIBUTES.contains(&name)
}

#[rustfmt::skip]
const MODULE_ATTRIBUTES: &[&str] = &[
    "T_destination", "__annotations__", "__call__", "__class__", "__delattr__", "__dict__",
    "__dir__", "__doc__", "__eq__", "__format__", "__ge__", "__getattr__", "__getattribute__",
    "__getstate__", "__gt__", "__hash__", "__init__", "__init_subclass__", "__le__", "__lt__",
    "__module__", "__ne__", "__new__", "__reduce__", "__reduce_ex__", "__repr__", "__setattr__",
    "__setstate__", "__sizeof__", "__str__", "__subclasshook__", "__weakref__", "_apply",
    "_backward_hooks", "_backward_pre_hooks", "_buffers", "_call_impl", "_compiled_call_impl",
    "_forward_hooks", "_forward_hooks_always_called", "_forward_hooks_with_kwargs",
    "_forward_pre_hooks", "_forward_pre_hooks_with_kwargs", "_get_backward_hooks",
    "_get_backward_pre_hooks", "_get_name", "_is_full_backward_hook", "_load_from_state_dict",
    "_load_state_dict_post_hooks", "_load_state_dict_pre_hooks",
    "_maybe_warn_non_full_backward_hook", "_modules", "_named_members",
    "_non_persistent_buffers_set", "_parameters", "_register_load_state_dict_pre_hook",
    "_register_state_dict_hook", "_replicate_for_data_parallel", "_save_to_state_dict",
    "_slow_forward", "_state_dict_hooks", "_state_dict_pre_hooks", "_version", "_wrapped_call_impl",
    "add_module", "apply", "bfloat16", "buffers", "call_super_init", "children", "compile", "cpu",
    "cuda", "double", "dump_patches", "eval", "extra_repr", "float", "forward", "get_buffer",
    "get_extra_state", "get_parameter", "get_submodule", "half", "ipu", "load_state_dict",
    "modules", "mtia", "named_buffers", "named_children", "named_modules", "named_parameters",
    "parameters", "register_backward_hook", "register_buffer", "register_forward_hook",
    "register_forward_pre_hook", "register_full_backward_hook", "register_full_backward_pre_hook",
    "register_load_state_dict_post_hook", "register_load_state_dict_pre_hook", "register_module",
    "register_parameter", "register_state_dict_post_hook", "register_state_dict_pre_hook",
    "requires_grad_", "set_extra_state", "set_submodule", "share_memory", "state_dict", "to",
    "to_empty", "train", "training", "type", "xpu", "zero_grad",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_belong_to_the_container() {
        assert!(is_attribute("ModuleDict", "keys") && !is_attribute("Sequential", "keys"));
        assert!(is_attribute("Sequential", "append") && !is_attribute("ModuleDict", "append"));
        assert!(is_attribute("ParameterDict", "get") && !is_attribute("ModuleDict", "get"));
        assert!(is_attribute("ModuleList", "training"));
        assert!(!is_attribute("ParameterDict", "training"));
        assert!(!is_attribute("Sequential", "weight") && !is_attribute("Brain", "forward"));
    }
}
