//! CBOR of one value: [`encode`] and [`decode`], which trusts no byte.
//!
//! The decoder takes the lengths of arrays for hints of how much to allocate, and goes as deep as it is told to. So bytes are
//! looked through first: they hold one item, no list is longer than what follows, and nothing is deeper than
//! [`MAX_DEPTH`].

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::SavedError;
use crate::wire::short_name;

/// The most levels of a value: far more than settings have, and few for a stack.
const MAX_DEPTH: usize = 64;

/// Returns the name of a type in files, if nobody chose another.
pub(super) fn name_of<T>() -> String {
    short_name(core::any::type_name::<T>())
}

/// Appends a value; nothing if it cannot be written.
pub(super) fn encode<T: Serialize>(value: &T, bytes: &mut Vec<u8>) -> Result<(), SavedError> {
    let start = bytes.len();
    ciborium::into_writer(value, &mut *bytes).map_err(|error| {
        bytes.truncate(start);
        SavedError::Write { name: name_of::<T>(), reason: error.to_string() }
    })
}

/// Reads the value that the bytes are, from the first to the last.
pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, SavedError> {
    let wrong = |reason| SavedError::Read { name: name_of::<T>(), reason };
    check(bytes).map_err(wrong)?;
    let mut rest = bytes;
    let read = ciborium::de::from_reader_with_recursion_limit(&mut rest, MAX_DEPTH + 1);
    let value = read.map_err(|error| wrong(error.to_string()))?;
    match rest {
        [] => Ok(value),
        _ => Err(wrong(format!("{} bytes are left over", rest.len()))),
    }
}

/// Checks that the bytes are one item of CBOR and nothing else, whose lengths they explain.
fn check(bytes: &[u8]) -> Result<(), String> {
    let mut at = 0;
    // The items that each open list still lacks; `None` up to a break.
    let mut open: Vec<Option<u64>> = Vec::new();
    loop {
        let place = at;
        let wrong = |what: &str| format!("{what} at byte {place} of {}", bytes.len());
        let &first = bytes.get(at).ok_or_else(|| wrong("CBOR ends"))?;
        at += 1;
        let (major, info) = (first >> 5, first & 0x1f);
        let argument = match info {
            0..24 => Some(u64::from(info)),
            24..28 => {
                let size = 1 << (info - 24);
                let number = bytes.get(at..at + size).ok_or_else(|| wrong("CBOR ends"))?;
                at += size;
                Some(number.iter().fold(0, |number, &byte| number << 8 | u64::from(byte)))
            }
            31 if matches!(major, 2..=5 | 7) => None,
            _ => return Err(wrong("no CBOR")),
        };
        let within = |length: u64| {
            let is_within = length <= (bytes.len() - at) as u64;
            is_within.then_some(length).ok_or_else(|| wrong("a length beyond the end"))
        };
        let opened = match (major, argument) {
            (2 | 3, Some(length)) => {
                // As it is within the bytes, it is an index.
                at += within(length)? as usize;
                None
            }
            (4, Some(length)) => Some(Some(within(length)?)),
            (5, Some(pairs)) => Some(Some(within(pairs.saturating_mul(2))?)),
            (6, _) => Some(Some(1)),
            (2..=5, None) => Some(None),
            (7, None) => match open.pop() {
                Some(None) => None,
                _ => return Err(wrong("a break outside of a list")),
            },
            _ => None,
        };
        match opened {
            Some(lacks) if lacks != Some(0) => {
                if open.len() == MAX_DEPTH {
                    return Err(wrong(&format!("deeper than {MAX_DEPTH} levels")));
                }
                open.push(lacks);
                continue;
            }
            _ => {}
        }
        // An item ended, and with it all lists of which it is the last.
        loop {
            match open.last_mut() {
                None if at == bytes.len() => return Ok(()),
                None => return Err(format!("{} bytes are left over", bytes.len() - at)),
                Some(None) => break,
                Some(Some(lacks)) => {
                    *lacks -= 1;
                    if *lacks > 0 {
                        break;
                    }
                    open.pop();
                }
            }
        }
    }
}
