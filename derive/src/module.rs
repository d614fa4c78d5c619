//! `#[derive(Module)]`.

use proc_macro2::TokenStream;
use quote::{format_ident, quote, quote_spanned};
use syn::{DeriveInput, Ident, LitStr, Result};

use crate::field::{Field, Kind, fields};
use crate::paths::{components, components_at};
use crate::scalars::{arms, check_names, structural};

/// A field, its name as text, and what it is.
struct Known<'a> {
    field: &'a Field<'a>,
    text: LitStr,
    kind: Kind,
}

/// Implements `Module`, `PartialEq` and `Debug`, and a method for each field that a call can be asked for.
pub(crate) fn derive(input: &DeriveInput) -> Result<TokenStream> {
    let fields = fields(input)?;
    check_names(&fields)?;
    let known = fields.iter().map(|field| {
        let text = field.name.to_string();
        let text = LitStr::new(text.trim_start_matches("r#"), field.name.span());
        Ok(Known { field, text, kind: field.kind()? })
    });
    let known = known.collect::<Result<Vec<_>>>()?;
    let type_name = type_name(input)?;
    let module = module(input, &fields, &known, &type_name);
    let methods = methods(input, &known);
    let comparison = comparison(input, &known, &type_name);
    Ok(quote!(#module #methods #comparison))
}

/// Reads `#[module(name = "…")]`: what the type is called in errors and printed programs.
fn type_name(input: &DeriveInput) -> Result<LitStr> {
    let mut name = LitStr::new(&input.ident.to_string(), input.ident.span());
    for attribute in input.attrs.iter().filter(|attribute| attribute.path().is_ident("module")) {
        attribute.parse_nested_meta(|meta| {
            if !meta.path.is_ident("name") {
                return Err(meta.error("expected `name = \"…\"`"));
            }
            name = meta.value()?.parse()?;
            Ok(())
        })?;
    }
    Ok(name)
}

fn module(
    input: &DeriveInput,
    fields: &[Field<'_>],
    known: &[Known<'_>],
    type_name: &LitStr,
) -> TokenStream {
    let (root, name) = (components(), &input.ident);
    let (generics, arguments, bounds) = input.generics.split_for_impl();
    let declared = known.iter().map(declare);
    let first = known.iter().filter_map(first_numbers);
    let structural = known.iter().map(|of| copy(of, "structural"));
    let spawned = known.iter().map(|of| copy(of, "spawned"));
    let read = arms(fields, false);
    quote! {
        #[automatically_derived]
        impl #generics #root::module::Module for #name #arguments #bounds {
            fn type_name(&self) -> &'static str {
                #type_name
            }

            fn declare(&self, declare: &mut #root::module::Declare) {
                #(#declared)*
                #root::module::Forward::declare(self, declare);
            }

            fn reset(&self, parameter: &str) -> #root::module::Init {
                match parameter {
                    #(#first)*
                    _ => #root::module::Forward::reset(self, parameter),
                }
            }

            fn forward(
                &self,
                call: &#root::module::Call<'_>,
                x: #root::kernels::ir::trace::Var,
            ) -> #root::kernels::ir::trace::Var {
                #root::module::Forward::forward(self, call, x)
            }

            fn forward_with(
                &self,
                call: &#root::module::Call<'_>,
                arguments: #root::kernels::ir::tree::Arguments,
            ) -> #root::kernels::ir::tree::Tree {
                #root::module::Forward::forward_with(self, call, arguments)
            }

            fn uses_training(&self) -> bool {
                #root::module::Forward::uses_training(self)
            }

            fn extra_repr(&self) -> ::std::string::String {
                #root::module::Forward::extra_repr(self)
            }

            fn structural(&self) -> Self {
                Self { #(#structural),* }
            }

            fn scalar(&self, name: &str) -> ::core::option::Option<f64> {
                match name {
                    #read
                    _ => ::core::option::Option::None,
                }
            }

            fn spawned(&self) -> Self {
                Self { #(#spawned),* }
            }
        }
    }
}

/// Writes what registers a field.
fn declare(Known { field, text, kind }: &Known<'_>) -> TokenStream {
    let (root, name, span) = (components_at(field.span()), field.name, field.span());
    let clone = quote_spanned!(span=> ::core::clone::Clone::clone);
    let child =
        |module| quote_spanned!(span=> #root::module::Declare::child(declare, #text, #module););
    match kind {
        Kind::Setting => quote!(),
        Kind::Child | Kind::Children { is_module_list: true } => {
            child(quote_spanned!(span=> #clone(&self.#name)))
        }
        Kind::OptionalChild => {
            let child = child(quote_spanned!(span=> #clone(child)));
            quote_spanned!(span=> if let ::core::option::Option::Some(child) = &self.#name { #child })
        }
        Kind::Children { is_module_list: false } => child(quote_spanned!(span=>
            <#root::layers::ModuleList as ::core::iter::FromIterator<_>>::from_iter(#clone(&self.#name))
        )),
        Kind::Parameter => quote_spanned!(span=> self.#name.declare(#text, declare);),
        Kind::OptionalParameter => quote_spanned! {span=>
            match &self.#name {
                ::core::option::Option::Some(parameter) => parameter.declare(#text, declare),
                ::core::option::Option::None => { declare.no_parameter(#text); }
            }
        },
        Kind::Buffer(persistent) => {
            quote_spanned!(span=> self.#name.declare_buffer(#text, #persistent, declare);)
        }
    }
}

/// Writes the arm that gives a parameter its first numbers.
fn first_numbers(Known { field, text, kind }: &Known<'_>) -> Option<TokenStream> {
    let (root, name) = (components(), field.name);
    let init = quote!(::core::clone::Clone::clone(&of.init));
    match kind {
        Kind::Parameter | Kind::Buffer(_) => Some(quote! {
            #text => { let of = &self.#name; #init }
        }),
        Kind::OptionalParameter => Some(quote! {
            #text => match &self.#name {
                ::core::option::Option::Some(of) => #init,
                ::core::option::Option::None => #root::module::Init::Zeros,
            },
        }),
        _ => None,
    }
}

/// Writes a field of a copy for the blueprint or for the entity: children are positions and entities of their own.
fn copy(Known { field, kind, .. }: &Known<'_>, method: &str) -> TokenStream {
    let (root, name, span) = (components_at(field.span()), field.name, field.span());
    let method = format_ident!("{method}", span = span);
    let of = quote_spanned!(span=> #root::module::Module::#method);
    let value = match kind {
        Kind::Child => quote_spanned!(span=> #of(&self.#name)),
        Kind::OptionalChild => quote_spanned!(span=> self.#name.as_ref().map(#of)),
        Kind::Children { .. } => quote!(::core::default::Default::default()),
        _ if method == "structural" => structural(field),
        _ => quote_spanned!(span=> ::core::clone::Clone::clone(&self.#name)),
    };
    quote!(#name: #value)
}

/// Writes a method for each field that records what `forward` does with it.
fn methods(input: &DeriveInput, known: &[Known<'_>]) -> TokenStream {
    let name = &input.ident;
    let (generics, arguments, bounds) = input.generics.split_for_impl();
    let methods = known.iter().map(method);
    quote! {
        #[allow(dead_code, reason = "a `forward` need not use each field in each way")]
        impl #generics #name #arguments #bounds {
            #(#methods)*
        }
    }
}

fn method(Known { field, text, kind }: &Known<'_>) -> TokenStream {
    let (root, name, visibility) = (components(), field.name, &field.of.vis);
    let var = quote!(#root::kernels::ir::trace::Var);
    let call = quote!(&#root::module::Call<'_>);
    let value = quote!(impl ::core::borrow::Borrow<#var>);
    match kind {
        Kind::Setting => slots(field).collect(),
        Kind::Child => {
            let with = format_ident!("{}_with", text.value(), span = field.name.span());
            let documentation =
                format!("Calls `{}` with one value, which gives one.", text.value());
            let with_documentation = format!("Calls `{}` with any arguments.", text.value());
            quote! {
                #[doc = #documentation]
                #visibility fn #name(&self, call: #call, x: #value) -> #var {
                    call.child(#text, ::core::borrow::Borrow::borrow(&x))
                }

                #[doc = #with_documentation]
                #visibility fn #with(
                    &self,
                    call: #call,
                    arguments: impl ::core::convert::Into<#root::kernels::ir::tree::Arguments>,
                ) -> #root::kernels::ir::tree::Tree {
                    call.child_with(#text, arguments)
                }
            }
        }
        Kind::OptionalChild => {
            let documentation = format!("Calls `{}` with one value, if it is there.", text.value());
            quote! {
                #[doc = #documentation]
                #visibility fn #name(
                    &self,
                    call: #call,
                    x: #value,
                ) -> ::core::option::Option<#var> {
                    let is_there = call.children().any(|child| child == #text);
                    is_there.then(|| call.child(#text, ::core::borrow::Borrow::borrow(&x)))
                }
            }
        }
        Kind::Children { .. } => {
            let documentation =
                format!("Gives the modules of `{}`, to be called in order.", text.value());
            quote! {
                #[doc = #documentation]
                #visibility fn #name<'call>(
                    &self,
                    call: &#root::module::Call<'call>,
                ) -> ::std::vec::Vec<#root::module::call::Callable<'call>> {
                    call.each(#text)
                }
            }
        }
        Kind::Parameter | Kind::Buffer(_) => {
            let documentation = format!("Gives `{}`.", text.value());
            let read =
                format_ident!("{}", if *kind == Kind::Parameter { "parameter" } else { "buffer" });
            quote! {
                #[doc = #documentation]
                #visibility fn #name(&self, call: #call) -> #var {
                    call.#read(#text)
                }
            }
        }
        Kind::OptionalParameter => {
            let documentation = format!("Gives `{}`, if it is there.", text.value());
            quote! {
                #[doc = #documentation]
                #visibility fn #name(&self, call: #call) -> ::core::option::Option<#var> {
                    call.optional_parameter(#text)
                }
            }
        }
    }
}

/// Writes a method for each slot of a field.
fn slots<'a>(field: &'a Field<'_>) -> impl Iterator<Item = TokenStream> + 'a {
    let (root, visibility) = (components(), &field.of.vis);
    field.scalar.iter().flat_map(|scalar| &scalar.names).filter_map(move |slot| {
        let name: Ident = slot.parse().ok()?;
        let documentation = format!("Gives the number `{name}` of each model, with shape `[]`.");
        Some(quote! {
            #[doc = #documentation]
            #visibility fn #name(
                &self,
                call: &#root::module::Call<'_>,
                dtype: #root::kernels::ir::dtype::Dtype,
            ) -> #root::kernels::ir::trace::Var {
                call.scalar(#slot, dtype)
            }
        })
    })
}

/// Implements `PartialEq` and `Debug` by what is no child.
fn comparison(input: &DeriveInput, known: &[Known<'_>], type_name: &LitStr) -> TokenStream {
    let name = &input.ident;
    let (generics, arguments, bounds) = input.generics.split_for_impl();
    let is_child = |kind| matches!(kind, Kind::Child | Kind::OptionalChild | Kind::Children { .. });
    let own = || known.iter().filter(|of| !is_child(of.kind));
    let equal = own().map(|Known { field, .. }| {
        let (name, span) = (field.name, field.span());
        quote_spanned!(span=> && self.#name == other.#name)
    });
    let shown = own().map(|Known { field, text, .. }| {
        let name = field.name;
        quote!(.field(#text, &self.#name))
    });
    let end = match own().count() == known.len() {
        true => quote!(finish),
        false => quote!(finish_non_exhaustive),
    };
    quote! {
        #[automatically_derived]
        impl #generics ::core::cmp::PartialEq for #name #arguments #bounds {
            fn eq(&self, other: &Self) -> bool {
                let _ = other;
                true #(#equal)*
            }
        }

        #[automatically_derived]
        impl #generics ::core::fmt::Debug for #name #arguments #bounds {
            fn fmt(&self, formatter: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                formatter.debug_struct(#type_name) #(#shown)* .#end()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fails(code: &str) -> String {
        let input: DeriveInput = syn::parse_str(code).expect("it is an item");
        derive(&input).err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn errors_say_what_was_expected() {
        let cases = [
            ("enum E { A }", "expected a struct"),
            (
                "struct S(Linear);",
                "expected fields with names: they are the names of children, parameters and slots",
            ),
            (
                "struct S { #[buffer] a: Linear }",
                "expected a `Parameter`, which describes the buffer",
            ),
            (
                "struct S { #[buffer] #[setting] a: Parameter }",
                "a field is a buffer or a setting, not both",
            ),
            (
                "struct S { #[buffer(kept = true)] a: Parameter }",
                "expected `persistent = true` or `persistent = false`",
            ),
            (
                "struct S { #[scalar(beta1)] a: f64 }",
                "expected names of slots, as in `\"beta1\", \"beta2\"`, or `read = function`",
            ),
            (
                "struct S { #[scalar] a: f64, #[scalar(\"b\", \"a\")] c: (f64, f64) }",
                "two slots are named `a`",
            ),
            ("#[module(named = \"T\")] struct S;", "expected `name = \"…\"`"),
        ];
        for (code, message) in cases {
            assert_eq!(fails(code), message, "{code}");
        }
        assert_eq!(fails("struct S { fc: Linear, p: f64, sizes: Vec<(usize, usize)> }"), "");
    }

    #[test]
    fn a_type_says_what_a_field_is() {
        let code = "struct S { a: nn::Linear, b: Option<Linear>, c: Vec<Linear>, d: ModuleList, \
                    e: Parameter, f: Option<nn::Parameter>, g: [Option<usize>; 2], h: &'static str, \
                    i: Vec<f64>, #[setting] j: Mode, #[buffer] k: Parameter, l: Option<String> }";
        let input: DeriveInput = syn::parse_str(code).expect("it is an item");
        let fields = fields(&input).expect("the attributes are known");
        let kinds: Vec<_> = fields.iter().map(|field| field.kind().expect("it is one")).collect();
        let expected = [
            Kind::Child,
            Kind::OptionalChild,
            Kind::Children { is_module_list: false },
            Kind::Children { is_module_list: true },
            Kind::Parameter,
            Kind::OptionalParameter,
            Kind::Setting,
            Kind::Setting,
            Kind::Setting,
            Kind::Setting,
            Kind::Buffer(true),
            Kind::Setting,
        ];
        assert!(kinds == expected);
    }
}
