//! Scalar slots: `#[derive(Scalars)]`, and `#[scalars]` on an `impl`.

use proc_macro2::{Delimiter, Group, Ident, Span, TokenStream, TokenTree};
use quote::{quote, quote_spanned};
use syn::{DeriveInput, Error, Result};

use crate::field::{Field, fields};
use crate::paths::{components, components_at};

/// Implements `Scalars`.
pub(crate) fn derive(input: &DeriveInput) -> Result<TokenStream> {
    let (root, name) = (components(), &input.ident);
    let fields = fields(input)?;
    check_names(&fields)?;
    let (generics, arguments, bounds) = input.generics.split_for_impl();
    let [read, write] = [false, true].map(|is_mut| arms(&fields, is_mut));
    let names = fields.iter().flat_map(|field| field.scalar.as_ref()).flat_map(|of| &of.names);
    let structural = fields.iter().map(|field| {
        let (name, value) = (field.name, structural(field));
        quote!(#name: #value)
    });
    Ok(quote! {
        #[automatically_derived]
        impl #generics #root::scalars::Scalars for #name #arguments #bounds {
            fn structural(&self) -> Self {
                Self { #(#structural),* }
            }

            fn scalar(&self, name: &str) -> ::core::option::Option<f64> {
                match name {
                    #read
                    _ => ::core::option::Option::None,
                }
            }

            fn scalar_mut(&mut self, name: &str) -> ::core::option::Option<&mut f64> {
                match name {
                    #write
                    _ => ::core::option::Option::None,
                }
            }

            fn scalar_names(&self) -> &'static [&'static str] {
                &[#(#names),*]
            }
        }
    })
}

/// Checks that no two slots have one name.
pub(crate) fn check_names(fields: &[Field<'_>]) -> Result<()> {
    let mut known = Vec::new();
    for name in fields.iter().flat_map(|field| field.scalar.as_ref()).flat_map(|of| &of.names) {
        if known.contains(&name.value()) {
            return Err(Error::new(name.span(), format!("two slots are named `{}`", name.value())));
        }
        known.push(name.value());
    }
    Ok(())
}

/// Writes the arms of a `match` from a slot's name to the slot.
pub(crate) fn arms(fields: &[Field<'_>], is_mut: bool) -> TokenStream {
    let with_slots = fields.iter().filter_map(|field| Some((field, field.scalar.as_ref()?)));
    let arms = with_slots.flat_map(|(field, scalar)| {
        let (name, span, slots) = (field.name, field.span(), scalar.names.len());
        let root = components_at(span);
        scalar.names.iter().enumerate().map(move |(slot, text)| {
            let of = quote_spanned!(span=> #root::scalars::ScalarField::<#slots>);
            let read = scalar.read.iter();
            match is_mut {
                false => quote!(#text => #of::slot(&self.#name, #slot) #(.map(#read))*,),
                true => quote!(#text => #of::slot_mut(&mut self.#name, #slot),),
            }
        })
    });
    arms.collect()
}

/// Writes what a field is in a structural copy of `self`.
pub(crate) fn structural(field: &Field<'_>) -> TokenStream {
    let (root, name, span) = (components_at(field.span()), field.name, field.span());
    match (&field.structural, &field.scalar) {
        (Some(function), _) => quote!(#function(&self.#name)),
        (None, Some(scalar)) => {
            let slots = scalar.names.len();
            quote_spanned!(span=> #root::scalars::ScalarField::<#slots>::fixed(&self.#name))
        }
        (None, None) => quote_spanned!(span=> ::core::clone::Clone::clone(&self.#name)),
    }
}

/// The methods that [`complete`] adds to any `impl`, and those that it adds to one of `Optimizer` as well.
fn methods() -> [(&'static str, bool, TokenStream); 4] {
    let root = components();
    let of = quote!(#root::scalars::Scalars);
    [
        ("structural", false, quote!(fn structural(&self) -> Self { #of::structural(self) })),
        (
            "scalar",
            false,
            quote! {
                fn scalar(&self, name: &str) -> ::core::option::Option<f64> {
                    #of::scalar(self, name)
                }
            },
        ),
        (
            "scalar_mut",
            true,
            quote! {
                fn scalar_mut(&mut self, name: &str) -> ::core::option::Option<&mut f64> {
                    #of::scalar_mut(self, name)
                }
            },
        ),
        (
            "scalar_names",
            true,
            quote! {
                fn scalar_names(&self) -> &'static [&'static str] { #of::scalar_names(self) }
            },
        ),
    ]
}

/// Adds the methods that are not there yet to an `impl`. It is read as tokens: syn without its parser of expressions
/// is half as large.
pub(crate) fn complete(arguments: TokenStream, item: TokenStream) -> Result<TokenStream> {
    if let Some(argument) = arguments.into_iter().next() {
        return Err(Error::new(argument.span(), "`#[scalars]` takes no arguments"));
    }
    let mut tokens: Vec<TokenTree> = item.into_iter().collect();
    let words = || tokens.iter().filter_map(as_ident);
    let of_optimizer = words().take_while(|word| *word != "for").any(|word| word == "Optimizer");
    let is_impl = words().any(|word| word == "impl") && words().any(|word| word == "for");
    let body = match tokens.pop() {
        Some(TokenTree::Group(body)) if is_impl && body.delimiter() == Delimiter::Brace => body,
        other => {
            let span = other.map_or_else(Span::call_site, |other| other.span());
            let message =
                "`#[scalars]` stands before `impl Module`, `impl Loss` or `impl Optimizer`";
            return Err(Error::new(span, message));
        }
    };
    let inside: Vec<TokenTree> = body.stream().into_iter().collect();
    let is_there = |name: &str| {
        inside.windows(2).any(|pair| {
            let words = [&pair[0], &pair[1]].map(|tree| as_ident(tree).map(Ident::to_string));
            words == [Some("fn".to_owned()), Some(name.to_owned())]
        })
    };
    let missing = methods()
        .into_iter()
        .filter(|(name, of_optimizers, _)| (of_optimizer || !of_optimizers) && !is_there(name));
    let added: TokenStream = missing.map(|(.., method)| method).collect();
    let stream = body.stream().into_iter().chain(added).collect();
    let mut whole = Group::new(Delimiter::Brace, stream);
    whole.set_span(body.span());
    tokens.push(TokenTree::Group(whole));
    Ok(tokens.into_iter().collect())
}

fn as_ident(tree: &TokenTree) -> Option<&Ident> {
    match tree {
        TokenTree::Ident(ident) => Some(ident),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completed(item: TokenStream) -> String {
        match complete(TokenStream::new(), item) {
            Ok(item) => item.to_string().replace(' ', ""),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn an_impl_gets_the_methods_that_its_trait_has_and_keeps_its_own() {
        let loss = completed(quote!(
            impl<T> Loss for Of<T> {
                fn structural(&self) -> Self {
                    own()
                }
            }
        ));
        assert!(loss.contains("fnscalar(") && !loss.contains("fnscalar_mut("), "{loss}");
        assert_eq!(loss.matches("fnstructural(").count(), 1, "{loss}");
        let optimizer = completed(quote!(impl optim::Optimizer for Sgd {}));
        for method in ["structural", "scalar", "scalar_mut", "scalar_names"] {
            assert_eq!(optimizer.matches(&format!("fn{method}(")).count(), 1, "{method}");
        }
        let expected = "`#[scalars]` stands before `impl Module`, `impl Loss` or `impl Optimizer`";
        for wrong in [
            quote!(
                struct Sgd {}
            ),
            quote!(impl Sgd {}),
            quote!(),
        ] {
            assert_eq!(completed(wrong), expected);
        }
    }
}
