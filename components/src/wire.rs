//! [`Wire`]: how types of other crates are written in files: `#[serde(with = "wire")]`.

use core::fmt;
use std::sync::Arc;

use ndarray::{ArrayD, IxDyn};
use neurarch_kernels::ir::dtype::Dtype;
use neurarch_kernels::ir::program::Role;
use neurarch_kernels::ir::shape::{Shape, Type};
use neurarch_kernels::lbfgs::Lbfgs;
use neurarch_kernels::ops::activation::gelu::Approximate;
use neurarch_kernels::ops::index::embedding_bag::BagMode;
use neurarch_kernels::ops::reduction::reduce::Reduction;
use neurarch_kernels::ops::spatial::interpolate::InterpolateMode;
use neurarch_kernels::ops::spatial::pad::PadMode;
use neurarch_kernels::ops::update::muon::AdjustLr;
use serde::de::{DeserializeOwned, Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A type that does not implement serde's traits itself: shapes, element types and settings of ops.
///
/// # Example
///
/// ```
/// use neurarch_components::losses::Reduction;
/// use neurarch_components::wire;
///
/// /// Settings of a module of your own.
/// #[derive(serde::Serialize, serde::Deserialize)]
/// struct Settings {
///     #[serde(with = "wire")]
///     reduction: Option<Reduction>,
/// }
/// ```
pub trait Wire: Sized {
    /// What is written in its place.
    type Form: Serialize + DeserializeOwned;

    /// Returns what is written.
    fn form(&self) -> Self::Form;

    /// Returns what was written so; `None` if nothing is.
    fn of(form: Self::Form) -> Option<Self>;
}

/// Writes a value in its form.
///
/// # Errors
///
/// Those of the serializer.
pub fn serialize<T: Wire, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    value.form().serialize(serializer)
}

/// Reads a value that was written in its form.
///
/// # Errors
///
/// Those of the deserializer, and if no value is written so.
pub fn deserialize<'de, T: Wire, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    let form = T::Form::deserialize(deserializer)?;
    let name = core::any::type_name::<T>();
    T::of(form).ok_or_else(|| D::Error::custom(format_args!("no value of {name} is written so")))
}

impl<T: Wire> Wire for Option<T> {
    type Form = Option<T::Form>;

    fn form(&self) -> Self::Form {
        self.as_ref().map(T::form)
    }

    fn of(form: Self::Form) -> Option<Self> {
        form.map_or(Some(None), |form| T::of(form).map(Some))
    }
}

/// serde knows arrays of lengths that are numbers alone.
impl<T: Wire> Wire for Vec<(String, T)> {
    type Form = Vec<(String, T::Form)>;

    fn form(&self) -> Self::Form {
        self.iter().map(|(name, of)| (name.clone(), of.form())).collect()
    }

    fn of(form: Self::Form) -> Option<Self> {
        form.into_iter().map(|(name, of)| Some((name, T::of(of)?))).collect()
    }
}

impl<T: Copy + Serialize + DeserializeOwned, const N: usize> Wire for [T; N] {
    type Form = Vec<T>;

    fn form(&self) -> Vec<T> {
        self.to_vec()
    }

    fn of(form: Vec<T>) -> Option<Self> {
        form.try_into().ok()
    }
}

impl<T: Clone + Serialize + DeserializeOwned> Wire for Arc<T> {
    type Form = T;

    fn form(&self) -> T {
        (**self).clone()
    }

    fn of(form: T) -> Option<Self> {
        Some(Arc::new(form))
    }
}

impl Wire for Arc<[f64]> {
    type Form = Vec<f64>;

    fn form(&self) -> Vec<f64> {
        self.to_vec()
    }

    fn of(form: Vec<f64>) -> Option<Self> {
        Some(form.into())
    }
}

impl Wire for Shape {
    type Form = Vec<usize>;

    fn form(&self) -> Vec<usize> {
        self.to_vec()
    }

    fn of(form: Vec<usize>) -> Option<Self> {
        Some(Shape::from(form))
    }
}

impl Wire for Type {
    type Form = (<Dtype as Wire>::Form, Vec<usize>);

    fn form(&self) -> Self::Form {
        (self.dtype.form(), self.shape.form())
    }

    fn of((dtype, shape): Self::Form) -> Option<Self> {
        Some(Type { dtype: Dtype::of(dtype)?, shape: Shape::of(shape)? })
    }
}

impl Wire for ArrayD<f64> {
    type Form = (Vec<usize>, Vec<f64>);

    fn form(&self) -> Self::Form {
        (self.shape().to_vec(), self.iter().copied().collect())
    }

    fn of((shape, numbers): Self::Form) -> Option<Self> {
        ArrayD::from_shape_vec(IxDyn(&shape), numbers).ok()
    }
}

/// The number of parameters, and the lists that [`Lbfgs::state`] gives by name.
impl Wire for Lbfgs {
    type Form = (usize, Vec<(String, Vec<f64>)>);

    fn form(&self) -> Self::Form {
        let state = self.state();
        let n = state.iter().map(|(name, _, numbers)| match *name {
            "d" | "prev_flat_grad" => numbers.len(),
            _ => 0,
        });
        let n = n.max().unwrap_or_default();
        (n, state.into_iter().map(|(name, _, numbers)| (name.to_owned(), numbers)).collect())
    }

    fn of((n, state): Self::Form) -> Option<Self> {
        let numbers = |name: &str| {
            let found = state.iter().find(|(known, _)| known == name);
            found.map(|(_, numbers)| numbers.clone())
        };
        // So that sizes can be multiplied.
        let longest = state.iter().map(|(_, numbers)| numbers.len()).max().unwrap_or_default();
        (n <= longest).then(|| Lbfgs::from_state(n, numbers)).flatten()
    }
}

/// Returns the name that a type has in files: that of Rust without paths, also between its brackets.
///
/// # Example
///
/// ```
/// # use neurarch_components::wire::short_name;
/// assert_eq!(short_name("a::List<b::c::Entry, [u8; 3]>"), "List<Entry, [u8; 3]>");
/// ```
pub fn short_name(type_name: &str) -> String {
    let (mut short, mut segment) = (String::new(), String::new());
    for letter in type_name.chars() {
        match letter {
            ':' => segment.clear(),
            _ if letter.is_alphanumeric() || letter == '_' => segment.push(letter),
            _ => {
                short.push_str(&segment);
                short.push(letter);
                segment.clear();
            }
        }
    }
    short + &segment
}

/// Bytes that are written as such, not one by one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bytes(pub Arc<[u8]>);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl Visitor<'_> for Reader {
            type Value = Bytes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Bytes, E> {
                Ok(Bytes(bytes.into()))
            }

            fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Bytes, E> {
                Ok(Bytes(bytes.into()))
            }
        }

        deserializer.deserialize_byte_buf(Reader)
    }
}

/// Writes values of an enum by name.
macro_rules! by_name {
    ($type:ident { $($variant:ident),+ }) => {
        const _: () = {
            /// The same enum.
            #[derive(Serialize, Deserialize)]
            pub enum Form {
                $($variant,)+
            }

            impl Wire for $type {
                type Form = Form;

                fn form(&self) -> Form {
                    match self {
                        $($type::$variant => Form::$variant,)+
                    }
                }

                fn of(form: Form) -> Option<Self> {
                    Some(match form {
                        $(Form::$variant => $type::$variant,)+
                    })
                }
            }
        };
    };
}

by_name!(Dtype { F32, F64, F16, BF16, I64, Bool });
by_name!(Approximate { None, Tanh });
by_name!(BagMode { Sum, Mean, Max });
by_name!(Reduction { None, Mean, Sum });
by_name!(InterpolateMode { Nearest, NearestExact, Linear, Bilinear, Bicubic, Trilinear, Area });
by_name!(PadMode { Reflect, Replicate, Circular });
by_name!(AdjustLr { Original, MatchRmsAdamW, SpectralUnclamped });

/// Those of what a population shares: its parameters and buffers.
impl Wire for Role {
    type Form = bool;

    fn form(&self) -> bool {
        *self == Role::Buffer
    }

    fn of(is_buffer: bool) -> Option<Self> {
        Some(if is_buffer { Role::Buffer } else { Role::Parameter })
    }
}
