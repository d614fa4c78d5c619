//! The derives of neurarch: modules from structs of their children, scalar slots from fields.
//!
//! Their documentation is where `components` passes them on, beside the traits that they implement.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, reason = "other bits on other machines"))]

mod field;
mod module;
mod paths;
mod scalars;

use proc_macro::TokenStream;
use syn::{DeriveInput, parse_macro_input};

/// Implements the trait `Module` for a struct whose fields are children, parameters, buffers and settings.
#[proc_macro_derive(Module, attributes(module, setting, buffer, scalar, structural))]
pub fn derive_module(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    module::derive(&input).unwrap_or_else(|error| error.into_compile_error()).into()
}

/// Implements the trait `Scalars` for a struct by its fields with `#[scalar]`.
#[proc_macro_derive(Scalars, attributes(scalar, structural))]
pub fn derive_scalars(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    scalars::derive(&input).unwrap_or_else(|error| error.into_compile_error()).into()
}

/// Adds to an `impl` of `Module`, `Loss` or `Optimizer` the methods that `#[derive(Scalars)]` knows the bodies of.
#[proc_macro_attribute]
pub fn scalars(arguments: TokenStream, item: TokenStream) -> TokenStream {
    scalars::complete(arguments.into(), item.into())
        .unwrap_or_else(|error| error.into_compile_error())
        .into()
}
