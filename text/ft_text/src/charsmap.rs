// SPDX-License-Identifier: Apache-2.0
//! The character maps in a tokenizer.json. Each begins with the size of its
//! trie, and the library that reads them takes that much memory, eight times
//! over, before it looks for the bytes: four bytes could ask for 8 GiB.

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use std::fmt;

const KEY: &str = "precompiled_charsmap";

/// The first four bytes of a base64 text as a little-endian number.
fn first_number(base64: &str) -> Option<u32> {
    let mut bits: u64 = 0;
    for letter in base64.bytes().take(6) {
        let value = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u64::from(value);
    }
    if base64.len() < 6 { None } else { Some(((bits >> 4) as u32).swap_bytes()) }
}

/// Walks the text without keeping it, keys that stand twice included.
struct Walk {
    is_charsmap: bool,
}

impl<'de> DeserializeSeed<'de> for Walk {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter) -> fmt::Result {
        out.write_str("JSON")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            map.next_value_seed(Walk { is_charsmap: key == KEY })?;
        }
        Ok(())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element_seed(Walk { is_charsmap: false })?.is_some() {}
        Ok(())
    }
    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        match first_number(text) {
            Some(size) if self.is_charsmap && size as usize > text.len() => {
                Err(E::custom(format!("{KEY}: a trie of {size} bytes in a text of {}", text.len())))
            }
            _ => Ok(()),
        }
    }
    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }
    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }
    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }
    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

/// An error if a character map claims more bytes than it has. What else is
/// wrong with the text its reader finds.
pub fn check(json: &[u8]) -> Result<(), String> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    Walk { is_charsmap: false }.deserialize(&mut deserializer).map_err(|error| error.to_string())
}
