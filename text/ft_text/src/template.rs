// SPDX-License-Identifier: Apache-2.0
//! Chat templates: Jinja as transformers sets it up, bounded by fuel alone.

use crate::ffi::{FtText, Outcome, bytes, check_size, guard, release, utf8};
use crate::python_format::{str_of, tojson};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, Value, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, State};
use std::ffi::{CString, c_char};
use std::fmt::Write as _;
use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};

/// Instructions of one rendering, half a second to one. No clock: the same input
/// always ends alike. A turn of a real template takes about a hundred.
const FUEL: u64 = 10_000_000;
const RECURSION_LIMIT: usize = 120;
const NAME: &str = "chat";

pub struct FtTemplate(Environment<'static>);

/// `{%- generation -%}` becomes `{%- filter ft_generation -%}`: the same kind
/// of block, so white space is trimmed the same way.
fn rewrite_generation(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(open) = rest.find("{%") {
        let Some(close) = rest[open..].find("%}") else { break };
        let tag = &rest[open + 2..open + close];
        let left = if tag.starts_with(['-', '+']) { &tag[..1] } else { "" };
        let right = if tag.len() > left.len() && tag.ends_with(['-', '+']) { &tag[tag.len() - 1..] } else { "" };
        let body = match tag[left.len()..tag.len() - right.len()].trim() {
            "generation" => Some("filter ft_generation"),
            "endgeneration" => Some("endfilter"),
            _ => None,
        };
        out.push_str(&rest[..open]);
        let taken = match body {
            Some(body) => {
                let _ = write!(out, "{{%{left} {body} {right}%}}");
                close + 2
            }
            // Only the opening: what looked like a tag may be text in a string.
            None => {
                out.push_str("{%");
                2
            }
        };
        rest = &rest[open + taken..];
    }
    out.push_str(rest);
    out
}

/// `now` is the wall clock already, so that the machine's time zone has no say.
fn strftime(format: &str, now: i64) -> String {
    let Ok(format) = CString::new(format) else { return String::new() };
    let mut buffer = vec![0u8; 256 + format.as_bytes().len() * 8];
    // SAFETY: all zeros is a valid tm, so it does not matter if gmtime_r refuses
    // the time; the buffer's size is given.
    let size = unsafe {
        let mut parts: libc::tm = std::mem::zeroed();
        let time = now as libc::time_t;
        libc::gmtime_r(&time, &mut parts);
        libc::strftime(buffer.as_mut_ptr().cast(), buffer.len(), format.as_ptr(), &parts)
    };
    String::from_utf8_lossy(&buffer[..size]).into_owned()
}

/// The marks around generated text, made of noncharacters and a nonce that no
/// template or message can know.
fn mark(nonce: &str, is_open: bool) -> String {
    format!("\u{fdd0}{nonce}{}", if is_open { '\u{fdd1}' } else { '\u{fdd2}' })
}

fn environment() -> Outcome<Environment<'static>> {
    let mut env = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    env.set_syntax(syntax.map_err(|error| error.to_string())?);
    env.set_auto_escape_callback(|_| AutoEscape::None);
    env.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    env.set_fuel(Some(FUEL));
    env.set_recursion_limit(RECURSION_LIMIT);
    env.set_debug(true);
    env.set_formatter(|out, _state, value| {
        match value.as_str() {
            Some(text) => out.write_str(text)?,
            None => out.write_str(&str_of(value))?,
        }
        Ok(())
    });
    env.add_filter("tojson", tojson);
    env.add_filter("string", |value: &Value| -> Value {
        if value.kind() == ValueKind::String { value.clone() } else { Value::from(str_of(value)) }
    });
    // In Python None is not iterable, an undefined value is.
    env.add_test("iterable", |value: &Value| -> bool {
        use ValueKind::*;
        matches!(value.kind(), String | Seq | Map | Iterable | Undefined)
    });
    env.add_filter("ft_generation", |state: &State, text: String| -> String {
        let nonce = state.lookup("ft_nonce").map(|nonce| nonce.to_string()).unwrap_or_default();
        format!("{}{text}{}", mark(&nonce, true), mark(&nonce, false))
    });
    env.add_function("raise_exception", |message: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, message))
    });
    env.add_function("strftime_now", |state: &State, format: &str| -> String {
        let now = state.lookup("ft_now").and_then(|now| i64::try_from(now).ok()).unwrap_or(0);
        strftime(format, now)
    });
    Ok(env)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn ft_template_compile(source: *const c_char, size: usize, error: *mut *mut c_char) -> *mut FtTemplate {
    guard(error, || {
        // SAFETY: by contract of the header.
        let source = unsafe { utf8(source, size) }?;
        let mut env = environment()?;
        env.add_template_owned(NAME, rewrite_generation(source)).map_err(|error| format!("{error:#}"))?;
        Ok(FtTemplate(env))
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn ft_template_free(template: *mut FtTemplate) {
    // SAFETY: by contract of the header.
    unsafe { release(template) }
}

/// Templates disagree on the name of what an assistant thought; as transformers
/// does, a message that says it under one name says it under the other too.
fn alias_reasoning(context: &mut serde_json::Map<String, serde_json::Value>) {
    let Some(messages) = context.get_mut("messages").and_then(|messages| messages.as_array_mut()) else {
        return;
    };
    for message in messages.iter_mut().filter_map(|message| message.as_object_mut()) {
        for (from, to) in [("reasoning_content", "thinking"), ("thinking", "reasoning_content")] {
            if let (Some(thought), false) = (message.get(from).cloned(), message.contains_key(to)) {
                message.insert(to.into(), thought);
            }
        }
    }
}

fn fresh_nonce() -> String {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let mut hasher = std::collections::hash_map::RandomState::new().build_hasher();
    hasher.write_u64(COUNTER.fetch_add(1, Ordering::Relaxed));
    format!("{:016x}", hasher.finish())
}

/// Takes the marks out and keeps where they were, in bytes of the text.
fn strip_marks(raw: &str, nonce: &str) -> Outcome<FtText> {
    let (open, close) = (mark(nonce, true), mark(nonce, false));
    let mut result = FtText { text: String::with_capacity(raw.len()), begin: vec![], end: vec![] };
    let mut rest = raw;
    while let Some(at) = rest.find(&open) {
        result.text.push_str(&rest[..at]);
        rest = &rest[at + open.len()..];
        let length = rest.find(&close).ok_or("a generation block was cut by the template")?;
        result.begin.push(result.text.len() as u32);
        result.text.push_str(&rest[..length]);
        result.end.push(result.text.len() as u32);
        rest = &rest[length + close.len()..];
    }
    result.text.push_str(rest);
    if result.text.contains(nonce) {
        return Err("a generation block was cut by the template".into());
    }
    check_size(result.text.len())?;
    Ok(result)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn ft_template_render(
    template: *const FtTemplate,
    context_json: *const c_char,
    size: usize,
    now: i64,
    error: *mut *mut c_char,
) -> *mut FtText {
    guard(error, || {
        // SAFETY: by contract of the header.
        let (template, json) = unsafe { (&*template, bytes(context_json, size)) };
        let context: serde_json::Value = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        let serde_json::Value::Object(mut context) = context else {
            return Err("the context must be a JSON object".into());
        };
        alias_reasoning(&mut context);
        let nonce = fresh_nonce();
        context.insert("ft_nonce".into(), nonce.clone().into());
        context.insert("ft_now".into(), now.into());
        let chat = template.0.get_template(NAME).map_err(|error| error.to_string())?;
        let raw = chat.render(Value::from(Serde(&context))).map_err(|error| match error.line() {
            Some(line) => format!("{error} (line {line} of the template)"),
            None => error.to_string(),
        })?;
        strip_marks(&raw, &nonce)
    })
}
