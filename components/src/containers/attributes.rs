//! The attributes of torch's containers, which no child or parameter can be named after.
//!
//! Source: `dir` of the classes of torch 2.15.

use crate::module::attributes::is_attribute_of_every_module;

/// Says whether a container of torch's has an attribute of this name; `false` for other modules.
pub fn is_attribute(container: &str, name: &str) -> bool {
    let own = match container {
        "Sequential" => SEQUENTIAL,
        "ModuleList" => MODULE_LIST,
        "ModuleDict" => MODULE_DICT,
        "ParameterDict" => PARAMETER_DICT,
        _ => return false,
    };
    // A parameter takes the place of what is kept for each module.
    let is_kept = container == "ParameterDict" && name == "training";
    (is_attribute_of_every_module(name) && !is_kept) || own.contains(&name)
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
