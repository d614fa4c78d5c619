//! Where the traits are for whom code is written.

use proc_macro2::TokenStream;
use quote::quote;

/// Gives the path of `components` in the crate that is compiled: a user's has it by way of `neurarch` alone.
pub(crate) fn components() -> TokenStream {
    match std::env::var("CARGO_PKG_NAME").as_deref() {
        Ok("neurarch_components" | "neurarch_systems") => quote!(::neurarch_components),
        _ => quote!(::neurarch::components),
    }
}
