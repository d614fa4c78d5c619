//! Every type of the list is written and read back; changed bytes do no harm.

use core::fmt::Debug;

use bevy_ecs::prelude::*;
use serde::de::value::StringDeserializer;
use serde::de::{
    DeserializeOwned, DeserializeSeed, EnumAccess, Error as _, IntoDeserializer, MapAccess,
    SeqAccess, VariantAccess, Visitor,
};
use serde::{Deserializer, Serialize};

use super::cbor::{decode, encode, name_of};
use super::list::{Types, list};
use super::*;
use crate::module::registry::Modules;
use crate::optimizer::LbfgsState;

/// Random numbers: splitmix64, of Steele, Lea and Flood (2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

/// What a value can be is written by its type, which asks for its parts: each is drawn.
struct Drawn<'a>(&'a mut Random);

type DrawError = serde::de::value::Error;

macro_rules! number {
    ($($deserialize:ident $visit:ident $type:ty),*) => {
        $(fn $deserialize<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DrawError> {
            let drawn = match self.0.below(3) {
                // Small ones, so that sizes fit.
                0 => self.0.next(),
                _ => self.0.below(4) as u64,
            };
            visitor.$visit(drawn as $type)
        })*
    };
}

impl<'de> Deserializer<'de> for Drawn<'_> {
    type Error = DrawError;

    number! {
        deserialize_i8 visit_i8 i8, deserialize_i16 visit_i16 i16, deserialize_i32 visit_i32 i32,
        deserialize_i64 visit_i64 i64, deserialize_u8 visit_u8 u8, deserialize_u16 visit_u16 u16,
        deserialize_u32 visit_u32 u32, deserialize_u64 visit_u64 u64
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, DrawError> {
        Err(DrawError::custom("the type says what it is"))
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DrawError> {
        visitor.visit_bool(self.0.below(2) == 1)
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DrawError> {
        let special = [f32::INFINITY, f32::NAN, -0.0, f32::MIN_POSITIVE / 2.0, 0.1];
        visitor.visit_f32(special[self.0.below(special.len())])
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DrawError> {
        let special = [f64::INFINITY, f64::NEG_INFINITY, f64::NAN, -0.0, 5e-324, 0.1];
        match self.0.below(2) {
            0 => visitor.visit_f64(special[self.0.below(special.len())]),
            _ => visitor.visit_f64(self.0.next() as f64 / 1e15),
        }
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DrawError> {
        visitor.visit_char('ü')
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DrawError> {
        self.deserialize_string(visitor)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DrawError> {
        // A long one goes another way through the decoder.
        let names = ["", "weight", "ü", "0", &"n".repeat(5000)].map(str::to_owned);
        let drawn = self.0.below(names.len());
        visitor.visit_string(names[drawn].clone())
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DrawError> {
        self.deserialize_byte_buf(visitor)
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DrawError> {
        let length = [0, 0, 4, 8, 9000][self.0.below(5)];
        visitor.visit_byte_buf((0..length).map(|_| self.0.next() as u8).collect())
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DrawError> {
        match self.0.below(3) {
            0 => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DrawError> {
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, DrawError> {
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, DrawError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DrawError> {
        let length = self.0.below(7);
        visitor.visit_seq(Parts { random: self.0, left: length, fields: &[] })
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, DrawError> {
        visitor.visit_seq(Parts { random: self.0, left: length, fields: &[] })
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, DrawError> {
        self.deserialize_tuple(length, visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DrawError> {
        visitor.visit_map(Parts { random: self.0, left: 0, fields: &[] })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DrawError> {
        visitor.visit_map(Parts { random: self.0, left: fields.len(), fields })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DrawError> {
        let drawn = self.0.below(variants.len());
        visitor.visit_enum(Variant { random: self.0, name: variants[drawn] })
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DrawError> {
        self.deserialize_any(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DrawError> {
        self.deserialize_any(visitor)
    }
}

/// The parts of a list or struct that are left.
struct Parts<'a> {
    random: &'a mut Random,
    left: usize,
    fields: &'static [&'static str],
}

impl<'de> SeqAccess<'de> for Parts<'_> {
    type Error = DrawError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, DrawError> {
        match self.left.checked_sub(1) {
            None => Ok(None),
            Some(left) => {
                self.left = left;
                seed.deserialize(Drawn(self.random)).map(Some)
            }
        }
    }
}

impl<'de> MapAccess<'de> for Parts<'_> {
    type Error = DrawError;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, DrawError> {
        match self.left.checked_sub(1) {
            None => Ok(None),
            Some(left) => {
                self.left = left;
                let name: StringDeserializer<DrawError> =
                    self.fields[left].to_owned().into_deserializer();
                seed.deserialize(name).map(Some)
            }
        }
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, DrawError> {
        seed.deserialize(Drawn(self.random))
    }
}

struct Variant<'a> {
    random: &'a mut Random,
    name: &'static str,
}

impl<'de, 'a> EnumAccess<'de> for Variant<'a> {
    type Error = DrawError;
    type Variant = Drawn<'a>;

    fn variant_seed<S: DeserializeSeed<'de>>(
        self,
        seed: S,
    ) -> Result<(S::Value, Drawn<'a>), DrawError> {
        let name: StringDeserializer<DrawError> = self.name.to_owned().into_deserializer();
        Ok((seed.deserialize(name)?, Drawn(self.random)))
    }
}

impl<'de> VariantAccess<'de> for Drawn<'_> {
    type Error = DrawError;

    fn unit_variant(self) -> Result<(), DrawError> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, DrawError> {
        seed.deserialize(self)
    }

    fn tuple_variant<V: Visitor<'de>>(
        self,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, DrawError> {
        self.deserialize_tuple(length, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DrawError> {
        self.deserialize_struct("", fields, visitor)
    }
}

/// Draws a value; a type may refuse what was drawn, such as a shape that is not that of the numbers.
fn draw<T: DeserializeOwned>(random: &mut Random) -> T {
    for _ in 0..100_000 {
        if let Ok(drawn) = T::deserialize(Drawn(random)) {
            return drawn;
        }
    }
    panic!("no {} was drawn", name_of::<T>());
}

/// Does something with each type of the list.
trait Each {
    fn each<T: Serialize + DeserializeOwned + Debug>(&mut self);
}

impl<E: Each> Modules for E {
    fn add<M: Module + Serialize + DeserializeOwned>(&mut self) {
        self.each::<M>();
    }
}

impl<E: Each> Types for E {
    fn component<T: Component + Clone + Debug + Serialize + DeserializeOwned>(&mut self) {
        // Its lists must be as long as each other.
        if name_of::<T>() != name_of::<LbfgsState>() {
            self.each::<T>();
        }
    }

    /// Its groups are written as a list of it.
    fn optimizer<O: Optimizer + Serialize + DeserializeOwned>(&mut self) {
        self.each::<O>();
    }

    fn scheduler<R: LRScheduler + Serialize + DeserializeOwned>(&mut self) {
        self.each::<R>();
    }
}

fn written<T: Serialize + Debug>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    let encoded = encode(value, &mut bytes);
    encoded.unwrap_or_else(|error| panic!("{value:?}: {error}"));
    bytes
}

#[test]
fn whatever_a_type_can_hold_is_written_and_read_back() {
    /// Counts the types, and those that have something to write.
    struct RoundTrip {
        random: Random,
        counts: [usize; 2],
    }

    impl Each for RoundTrip {
        fn each<T: Serialize + DeserializeOwned + Debug>(&mut self) {
            let mut all = std::collections::HashSet::new();
            for _ in 0..60 {
                let value: T = draw(&mut self.random);
                let bytes = written(&value);
                let read: T = decode(&bytes).unwrap_or_else(|error| panic!("{value:?}: {error}"));
                assert_eq!(format!("{read:?}"), format!("{value:?}"));
                assert_eq!(written(&read), bytes);
                all.insert(bytes);
            }
            self.counts[0] += 1;
            self.counts[1] += usize::from(all.len() > 1);
        }
    }

    let mut round = RoundTrip { random: Random(1), counts: [0; 2] };
    list(&mut round);
    assert!(round.counts[0] > 200, "{:?}", round.counts);
    assert!(round.counts[1] > 140, "{:?}", round.counts);
}

#[test]
fn changed_bytes_are_another_value_or_an_error() {
    struct Changed {
        random: Random,
        /// Of the type before.
        other: Vec<u8>,
        counts: [usize; 2],
    }

    impl Changed {
        fn change(&mut self, bytes: &mut Vec<u8>) {
            let random = &mut self.random;
            match (random.below(7), bytes.len()) {
                (_, 0) => bytes.push(random.next() as u8),
                (0, n) => bytes.truncate(random.below(n)),
                (1, n) => bytes.insert(random.below(n), random.next() as u8),
                (2, n) => drop(bytes.remove(random.below(n))),
                // A length of eight bytes.
                (3, n) => {
                    let at = random.below(n);
                    let major = bytes[at] & 0xe0;
                    let length = random.next() >> random.below(64);
                    bytes[at] = major | 27;
                    bytes.splice(at + 1..at + 1, length.to_be_bytes());
                }
                (4, n) => {
                    bytes.splice(random.below(n)..n, self.other.iter().copied()).for_each(drop)
                }
                (5, n) => bytes[random.below(n)] = random.next() as u8,
                (_, n) => bytes[random.below(n)] ^= 1 << random.below(8),
            }
        }
    }

    impl Each for Changed {
        fn each<T: Serialize + DeserializeOwned + Debug>(&mut self) {
            for _ in 0..120 {
                let mut bytes = written(&draw::<T>(&mut self.random));
                if bytes.len() < 2000 {
                    self.other = bytes.clone();
                }
                for _ in 0..=self.random.below(3) {
                    self.change(&mut bytes);
                }
                let read = decode::<T>(&bytes);
                self.counts[usize::from(read.is_ok())] += 1;
                if let Ok(value) = read {
                    let again = written(&value);
                    assert_eq!(written(&decode::<T>(&again).unwrap()), again);
                }
            }
        }
    }

    let mut changed = Changed { random: Random(2), other: Vec::new(), counts: [0; 2] };
    list(&mut changed);
    assert!(changed.counts.iter().sum::<usize>() > 20_000, "{:?}", changed.counts);
    assert!(changed.counts[0] > 10_000, "{:?}", changed.counts);
}

#[test]
fn bytes_that_explain_no_value_are_refused_before_they_are_decoded() {
    let refused = |bytes: &[u8]| decode::<Vec<Vec<u64>>>(bytes).unwrap_err().to_string();
    let read = "`Vec<Vec<u64>>` cannot be read: ";
    // A list of 2⁶⁴ - 1 lists; one of 2⁶³ pairs.
    let list = [&[0x9b][..], &[0xff; 8]].concat();
    assert_eq!(refused(&list), format!("{read}a length beyond the end at byte 0 of 9"));
    let map = [&[0xbb, 0x80][..], &[0; 7]].concat();
    assert_eq!(refused(&map), format!("{read}a length beyond the end at byte 0 of 9"));
    assert_eq!(
        refused(&[0x5a, 0, 0, 1, 0]),
        format!("{read}a length beyond the end at byte 0 of 5")
    );
    assert_eq!(refused(&[]), format!("{read}CBOR ends at byte 0 of 0"));
    assert_eq!(refused(&[0x82, 0x80]), format!("{read}a length beyond the end at byte 0 of 2"));
    assert_eq!(refused(&[0x9f, 0x80]), format!("{read}CBOR ends at byte 2 of 2"));
    assert_eq!(refused(&[0x19, 1]), format!("{read}CBOR ends at byte 0 of 2"));
    assert_eq!(refused(&[0x80, 0x80]), format!("{read}1 bytes are left over"));
    assert_eq!(refused(&[0x1c]), format!("{read}no CBOR at byte 0 of 1"));
    assert_eq!(refused(&[0xff]), format!("{read}a break outside of a list at byte 0 of 1"));
    for deep in [0x81, 0x9f, 0xa1, 0xc6, 0x7f] {
        let deep = [vec![deep; 100_000], vec![0x80]].concat();
        assert_eq!(refused(&deep), format!("{read}deeper than 64 levels at byte 64 of 100001"));
    }
    // Lists without a length, as a user's own type may write them.
    assert_eq!(decode::<Vec<Vec<u64>>>(&[0x9f, 0x81, 7, 0x80, 0xff]), Ok(vec![vec![7], vec![]]));
}

/// Whose parts are of its own type, as a user's may be.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Nested(Vec<Nested>);

#[test]
fn a_value_is_as_deep_as_can_be_read() {
    let nested = |levels| (1..levels).fold(Nested(Vec::new()), |inner, _| Nested(vec![inner]));
    assert!(decode::<Nested>(&written(&nested(65))).is_ok());
    assert!(decode::<Nested>(&written(&nested(66))).is_err());
}
