//! Where the traits are for whom code is written.

use proc_macro2::{Span, TokenStream};
use quote::quote_spanned;

/// Returns the path of `components` in the crate that is compiled: a user's has it by way of `neurarch` alone.
pub(crate) fn components() -> TokenStream {
    components_at(Span::call_site())
}

/// [`components`] in code for which an error is shown at that place.
pub(crate) fn components_at(span: Span) -> TokenStream {
    match std::env::var("CARGO_PKG_NAME").as_deref() {
        Ok("neurarch_components" | "neurarch_systems") => {
            quote_spanned!(span=> ::neurarch_components)
        }
        _ => quote_spanned!(span=> ::neurarch::components),
    }
}
