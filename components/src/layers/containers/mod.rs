//! Containers of modules and parameters.

pub mod bare;
pub mod module_dict;
pub mod module_list;
pub mod parameter;
pub mod parameter_dict;
pub mod parameter_list;
pub mod sequential;
