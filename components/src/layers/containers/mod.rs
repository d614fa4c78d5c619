//! Containers of modules and parameters.

pub(crate) mod bare;
pub(crate) mod module_dict;
pub(crate) mod module_list;
pub(crate) mod parameter;
pub(crate) mod parameter_dict;
pub(crate) mod parameter_list;
pub(crate) mod sequential;
