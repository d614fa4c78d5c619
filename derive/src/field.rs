//! [`Field`]: what a field of a struct is by its type and attributes.

use proc_macro2::Span;
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::{
    Attribute, Data, DeriveInput, Error, Fields, GenericArgument, Ident, LitBool, LitStr, Path,
    PathArguments, Result, Token, Type,
};

/// A field with a name, and what its attributes say.
pub(crate) struct Field<'a> {
    pub(crate) of: &'a syn::Field,
    pub(crate) name: &'a Ident,
    pub(crate) scalar: Option<Scalar>,
    /// What stands in the field in a structural copy: a function of a reference to it.
    pub(crate) structural: Option<Path>,
    /// Whether the buffer that it is persists, if it is one.
    buffer: Option<bool>,
    is_setting: bool,
}

/// The slots of a field.
pub(crate) struct Scalar {
    pub(crate) names: Vec<LitStr>,
    /// A function that slots go through when they are read.
    pub(crate) read: Option<Path>,
}

/// What a field of a module is.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Kind {
    Setting,
    Child,
    OptionalChild,
    /// A `ModuleList`, and whether it is written as one, not as a `Vec`.
    Children {
        is_module_list: bool,
    },
    Parameter,
    OptionalParameter,
    /// A buffer, and whether it persists.
    Buffer(bool),
}

/// Lists the fields of a struct.
///
/// # Errors
///
/// If it is no struct with named fields, or an attribute is not understood.
pub(crate) fn fields(input: &DeriveInput) -> Result<Vec<Field<'_>>> {
    let Data::Struct(data) = &input.data else {
        return Err(Error::new(input.ident.span(), "expected a struct"));
    };
    match &data.fields {
        Fields::Named(fields) => fields.named.iter().map(Field::new).collect(),
        Fields::Unit => Ok(Vec::new()),
        Fields::Unnamed(fields) => Err(Error::new(
            fields.span(),
            "expected fields with names: they are the names of children, parameters and slots",
        )),
    }
}

impl<'a> Field<'a> {
    fn new(of: &'a syn::Field) -> Result<Self> {
        let name = of.ident.as_ref().ok_or_else(|| Error::new(of.span(), "expected a name"))?;
        let mut field =
            Field { of, name, scalar: None, structural: None, buffer: None, is_setting: false };
        for attribute in &of.attrs {
            let path = attribute.path();
            if path.is_ident("scalar") {
                field.scalar = Some(Scalar::new(attribute, name)?);
            } else if path.is_ident("structural") {
                field.structural = Some(attribute.parse_args()?);
            } else if path.is_ident("setting") {
                attribute.meta.require_path_only()?;
                field.is_setting = true;
            } else if path.is_ident("buffer") {
                field.buffer = Some(persistent(attribute)?);
            }
        }
        Ok(field)
    }

    /// Returns the place of the field's type: there an error of what is written for the field is shown.
    pub(crate) fn span(&self) -> Span {
        Span::call_site().located_at(self.of.ty.span())
    }

    /// Says what the field is.
    ///
    /// # Errors
    ///
    /// If its attributes do not go together, or with its type.
    pub(crate) fn kind(&self) -> Result<Kind> {
        let ty = &self.of.ty;
        let is_marked = self.scalar.is_some() || self.structural.is_some() || self.is_setting;
        let wrong = |message| Err(Error::new(ty.span(), message));
        match (self.buffer, is_marked) {
            (Some(_), true) => wrong("a field is a buffer or a setting, not both"),
            (Some(persistent), false) if names(ty, "Parameter") => Ok(Kind::Buffer(persistent)),
            (Some(_), false) => wrong("expected a `Parameter`, which describes the buffer"),
            (None, true) => Ok(Kind::Setting),
            (None, false) if is_plain(ty) => Ok(Kind::Setting),
            (None, false) => Ok(match (inside(ty, "Option"), ty) {
                (_, ty) if names(ty, "Parameter") => Kind::Parameter,
                (_, ty) if names(ty, "Vec") => Kind::Children { is_module_list: false },
                (_, ty) if names(ty, "ModuleList") => Kind::Children { is_module_list: true },
                (Some(inner), _) if names(inner, "Parameter") => Kind::OptionalParameter,
                (Some(_), _) => Kind::OptionalChild,
                (None, _) => Kind::Child,
            }),
        }
    }
}

/// Reads `#[buffer]` or `#[buffer(persistent = false)]`.
fn persistent(attribute: &Attribute) -> Result<bool> {
    if attribute.meta.require_path_only().is_ok() {
        return Ok(true);
    }
    let mut persistent = true;
    attribute.parse_nested_meta(|meta| {
        if !meta.path.is_ident("persistent") {
            return Err(meta.error("expected `persistent = true` or `persistent = false`"));
        }
        persistent = meta.value()?.parse::<LitBool>()?.value;
        Ok(())
    })?;
    Ok(persistent)
}

impl Scalar {
    /// Reads `#[scalar]`, `#[scalar("beta1", "beta2")]` or `#[scalar(read = path)]`.
    fn new(attribute: &Attribute, field: &Ident) -> Result<Self> {
        let mut scalar = match attribute.meta.require_path_only() {
            Ok(_) => Scalar { names: Vec::new(), read: None },
            Err(_) => attribute.parse_args()?,
        };
        if scalar.names.is_empty() {
            let name = field.to_string();
            scalar.names.push(LitStr::new(name.trim_start_matches("r#"), field.span()));
        }
        Ok(scalar)
    }
}

impl Parse for Scalar {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let mut scalar = Scalar { names: Vec::new(), read: None };
        while !input.is_empty() {
            if input.peek(LitStr) {
                scalar.names.push(input.parse()?);
            } else {
                let key: Ident = input.parse().map_err(|error| not_understood(error.span()))?;
                if key != "read" {
                    return Err(not_understood(key.span()));
                }
                input.parse::<Token![=]>()?;
                scalar.read = Some(input.parse()?);
            }
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        Ok(scalar)
    }
}

fn not_understood(span: Span) -> Error {
    Error::new(span, "expected names of slots, as in `\"beta1\", \"beta2\"`, or `read = function`")
}

/// Says whether the last word of a type's path is `name`.
fn names(ty: &Type, name: &str) -> bool {
    last(ty).is_some_and(|segment| segment.ident == name)
}

/// Returns what stands between the angle brackets of a type of that name.
fn inside<'a>(ty: &'a Type, name: &str) -> Option<&'a Type> {
    let segment = last(ty).filter(|segment| segment.ident == name)?;
    let PathArguments::AngleBracketed(arguments) = &segment.arguments else { return None };
    let types: &Punctuated<_, _> = &arguments.args;
    types.iter().find_map(|argument| match argument {
        GenericArgument::Type(ty) => Some(ty),
        _ => None,
    })
}

fn last(ty: &Type) -> Option<&syn::PathSegment> {
    match ty {
        Type::Path(path) => path.path.segments.last(),
        Type::Group(group) => last(&group.elem),
        Type::Paren(paren) => last(&paren.elem),
        _ => None,
    }
}

/// The types of std that are numbers, flags or texts.
const PLAIN: [&str; 17] = [
    "bool", "char", "f32", "f64", "i8", "i16", "i32", "i64", "i128", "isize", "u8", "u16", "u32",
    "u64", "u128", "usize", "String",
];

/// Says whether a type is made of numbers, flags and texts alone, so that it is no module.
fn is_plain(ty: &Type) -> bool {
    match ty {
        Type::Array(of) => is_plain(&of.elem),
        Type::Group(of) => is_plain(&of.elem),
        Type::Paren(of) => is_plain(&of.elem),
        Type::Slice(of) => is_plain(&of.elem),
        Type::Reference(of) => names(&of.elem, "str") || is_plain(&of.elem),
        Type::Tuple(_) => true,
        ty => {
            PLAIN.iter().any(|plain| names(ty, plain))
                || ["Option", "Vec"].iter().any(|list| inside(ty, list).is_some_and(is_plain))
        }
    }
}
