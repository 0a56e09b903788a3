// SPDX-License-Identifier: Apache-2.0
//! The walls of the C ABI: how bytes come in, how errors and panics go out.

use std::any::Any;
use std::cell::RefCell;
use std::ffi::{CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

pub type Outcome<T> = Result<T, String>;

/// A text and byte ranges in it, owned by the caller of the C ABI.
pub struct FtText {
    pub text: String,
    pub begin: Vec<u32>,
    pub end: Vec<u32>,
}

thread_local! {
    static PANIC_PLACE: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Panics are reported by the caller's status, not on stderr. This library is
/// the only Rust code of the process, so the hook is nobody else's.
fn remember_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        std::panic::set_hook(Box::new(|info| {
            if let Some(place) = info.location() {
                PANIC_PLACE.with_borrow_mut(|kept| *kept = format!("{}:{}", place.file(), place.line()));
            }
        }));
    });
}

fn describe(panic: Box<dyn Any + Send>) -> String {
    let message = match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => text.to_string(),
        (_, Some(text)) => text.clone(),
        _ => "unknown".into(),
    };
    format!("panic at {}: {message}", PANIC_PLACE.with_borrow(|place| place.clone()))
}

/// Runs `work`, turns its error or panic into a C string in `error`, and gives
/// the result away as a pointer; null on error.
pub fn guard<T>(error: *mut *mut c_char, work: impl FnOnce() -> Outcome<T>) -> *mut T {
    remember_panics();
    match catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(describe(panic))) {
        Ok(value) => Box::into_raw(Box::new(value)),
        Err(message) => {
            if !error.is_null() {
                let text = CString::new(message.replace('\0', "?")).unwrap_or_default();
                // SAFETY: the caller gave a place for one pointer, or null.
                unsafe { *error = text.into_raw() };
            }
            std::ptr::null_mut()
        }
    }
}

/// The value of `work`, or `fallback` if it panics.
pub fn guard_value<T>(fallback: T, work: impl FnOnce() -> T) -> T {
    remember_panics();
    catch_unwind(AssertUnwindSafe(work)).unwrap_or(fallback)
}

/// Offsets are 32 bits in the ABI.
pub fn check_size(size: usize) -> Outcome<()> {
    if u32::try_from(size).is_err() { Err(format!("a text of {size} bytes; at most {} can be held", u32::MAX)) } else { Ok(()) }
}

/// # Safety
/// `data` points to `size` bytes that stay while the result is used.
pub unsafe fn bytes<'a>(data: *const c_char, size: usize) -> &'a [u8] {
    if size == 0 {
        return &[];
    }
    // SAFETY: by contract.
    unsafe { std::slice::from_raw_parts(data.cast(), size) }
}

/// # Safety
/// As `bytes`.
pub unsafe fn utf8<'a>(data: *const c_char, size: usize) -> Outcome<&'a str> {
    // SAFETY: by contract.
    std::str::from_utf8(unsafe { bytes(data, size) }).map_err(|error| format!("invalid UTF-8: {error}"))
}

/// # Safety
/// `pointer` is null or came from a function of this library, and is not used
/// again.
pub unsafe fn release<T>(pointer: *mut T) {
    if !pointer.is_null() {
        // SAFETY: by contract.
        guard_value((), || drop(unsafe { Box::from_raw(pointer) }));
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn ft_error_free(error: *mut c_char) {
    if !error.is_null() {
        // SAFETY: it came from `guard`.
        drop(unsafe { CString::from_raw(error) });
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn ft_text_free(text: *mut FtText) {
    // SAFETY: by contract of the header.
    unsafe { release(text) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn ft_text_view(
    text: *const FtText,
    size: *mut usize,
    begin: *mut *const u32,
    end: *mut *const u32,
    spans: *mut usize,
) -> *const c_char {
    // SAFETY: by contract of the header, all pointers are valid.
    unsafe {
        let text = &*text;
        *size = text.text.len();
        *begin = text.begin.as_ptr();
        *end = text.end.as_ptr();
        *spans = text.begin.len();
        text.text.as_ptr().cast()
    }
}

/// Only for the test that no panic crosses the ABI.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ft_text_test_panic(error: *mut *mut c_char) -> *mut FtText {
    guard(error, || panic!("boom"))
}
