// SPDX-License-Identifier: Apache-2.0
//! What Python prints: templates are written against `str()` and `json.dumps`.

use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Error, ErrorKind};
use std::fmt::Write as _;

const MAX_DEPTH: usize = 200;

fn is_float(value: &Value) -> bool {
    value.kind() == ValueKind::Number && !value.is_integer()
}

fn invalid(message: &'static str) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}

/// Python's `repr` of a float, with JSON's names for what is not finite.
fn float_repr(x: f64) -> String {
    if x.is_nan() {
        return "NaN".into();
    }
    if x.is_infinite() {
        return if x > 0.0 { "Infinity" } else { "-Infinity" }.into();
    }
    let scientific = format!("{x:e}");
    let Some((mantissa, exponent)) = scientific.split_once('e') else {
        return scientific;
    };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        let plain = format!("{x}");
        return if plain.contains('.') { plain } else { plain + ".0" };
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
}

fn json_string(out: &mut String, text: &str, ascii: bool) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            c if (c as u32) < 0x20 || (ascii && !c.is_ascii()) => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// `json.dumps` with its options.
struct Dump {
    ascii: bool,
    indent: Option<String>,
    item_separator: String,
    key_separator: String,
    sort_keys: bool,
}

impl Dump {
    fn new_line(&self, out: &mut String, depth: usize) {
        if let Some(indent) = &self.indent {
            out.push('\n');
            for _ in 0..depth {
                out.push_str(indent);
            }
        }
    }

    fn map(&self, out: &mut String, value: &Value, depth: usize) -> Result<(), Error> {
        let mut keys: Vec<Value> = value.try_iter()?.collect();
        if self.sort_keys {
            keys.sort();
        }
        out.push('{');
        for (i, key) in keys.iter().enumerate() {
            if i > 0 {
                out.push_str(&self.item_separator);
            }
            self.new_line(out, depth + 1);
            if key.kind() == ValueKind::String {
                json_string(out, key.as_str().unwrap_or(""), self.ascii);
            } else {
                let mut text = String::new();
                self.any(&mut text, key, depth + 1)?;
                json_string(out, &text, self.ascii);
            }
            out.push_str(&self.key_separator);
            self.any(out, &value.get_item(key)?, depth + 1)?;
        }
        if !keys.is_empty() {
            self.new_line(out, depth);
        }
        out.push('}');
        Ok(())
    }

    fn sequence(&self, out: &mut String, value: &Value, depth: usize) -> Result<(), Error> {
        out.push('[');
        let mut count = 0;
        for item in value.try_iter()? {
            if count > 0 {
                out.push_str(&self.item_separator);
            }
            self.new_line(out, depth + 1);
            self.any(out, &item, depth + 1)?;
            count += 1;
        }
        if count > 0 {
            self.new_line(out, depth);
        }
        out.push(']');
        Ok(())
    }

    fn any(&self, out: &mut String, value: &Value, depth: usize) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            return Err(invalid("tojson: nested too deep"));
        }
        match value.kind() {
            ValueKind::None => out.push_str("null"),
            ValueKind::Undefined => return Err(invalid("Object of type Undefined is not JSON serializable")),
            ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number if is_float(value) => out.push_str(&float_repr(f64::try_from(value.clone())?)),
            ValueKind::Number => {
                let _ = write!(out, "{value}");
            }
            ValueKind::String => json_string(out, value.as_str().unwrap_or(""), self.ascii),
            ValueKind::Map => self.map(out, value, depth)?,
            ValueKind::Seq | ValueKind::Iterable => self.sequence(out, value, depth)?,
            _ => return Err(invalid("Object is not JSON serializable")),
        }
        Ok(())
    }
}

/// The filter `tojson`: transformers' json.dumps(ensure_ascii=False), without
/// HTML escapes.
pub fn tojson(value: &Value, ensure_ascii: Option<bool>, options: Kwargs) -> Result<Value, Error> {
    let ascii = match ensure_ascii {
        Some(ascii) => ascii,
        None => options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
    };
    let indent = match options.get::<Option<Value>>("indent")?.filter(|indent| !indent.is_none()) {
        None => None,
        Some(indent) => Some(match indent.as_str() {
            Some(text) => text.to_string(),
            None => " ".repeat(usize::try_from(indent)?.min(64)),
        }),
    };
    let mut item_separator = if indent.is_some() { "," } else { ", " }.to_string();
    let mut key_separator = ": ".to_string();
    if let Some(pair) = options.get::<Option<Value>>("separators")?.filter(|pair| !pair.is_none()) {
        let pair: Vec<Value> = pair.try_iter()?.collect();
        let [item, key] = pair.as_slice() else {
            return Err(invalid("separators needs two strings"));
        };
        (item_separator, key_separator) = (item.to_string(), key.to_string());
    }
    let sort_keys = options.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
    options.assert_all_used()?;
    let mut out = String::new();
    Dump { ascii, indent, item_separator, key_separator, sort_keys }.any(&mut out, value, 0)?;
    Ok(Value::from(out))
}

fn quoted(out: &mut String, text: &str) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => {
                out.push('\\');
                out.push(c);
            }
            c if (c as u32) < 0x20 || c as u32 == 0x7f => {
                let _ = write!(out, "\\x{:02x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push(quote);
}

fn repr(out: &mut String, value: &Value, is_top: bool, depth: usize) {
    if depth > MAX_DEPTH {
        return;
    }
    match value.kind() {
        ValueKind::Number if is_float(value) => {
            let text = float_repr(f64::try_from(value.clone()).unwrap_or(0.0));
            out.push_str(match text.as_str() {
                "NaN" => "nan",
                "Infinity" => "inf",
                "-Infinity" => "-inf",
                text => text,
            });
        }
        ValueKind::String if !is_top => quoted(out, value.as_str().unwrap_or("")),
        ValueKind::Map => {
            out.push('{');
            for (i, key) in value.try_iter().into_iter().flatten().enumerate() {
                if i > 0 {
                    out.push_str(", ");
                }
                repr(out, &key, false, depth + 1);
                out.push_str(": ");
                repr(out, &value.get_item(&key).unwrap_or_default(), false, depth + 1);
            }
            out.push('}');
        }
        ValueKind::Seq => {
            out.push('[');
            for (i, item) in value.try_iter().into_iter().flatten().enumerate() {
                if i > 0 {
                    out.push_str(", ");
                }
                repr(out, &item, false, depth + 1);
            }
            out.push(']');
        }
        _ => {
            let _ = write!(out, "{value}");
        }
    }
}

/// Python's `str()`; undefined is the empty text.
pub fn str_of(value: &Value) -> String {
    let mut out = String::new();
    if !value.is_undefined() {
        repr(&mut out, value, true, 0);
    }
    out
}
