// SPDX-License-Identifier: Apache-2.0
//! The walls of the C ABI: how bytes come in, how errors and panics go out.

use std::ffi::{CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};

pub type Outcome<T> = Result<T, String>;

/// A text and byte ranges in it, owned by the caller of the C ABI.
pub struct FtText {
    pub text: String,
    pub begin: Vec<u32>,
    pub end: Vec<u32>,
}

/// Runs `work`, turns its error or panic into a C string in `error`, and gives
/// the result away as a pointer; null on error.
pub fn guard<T>(error: *mut *mut c_char, work: impl FnOnce() -> Outcome<T>) -> *mut T {
    let outcome = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let message = panic
            .downcast_ref::<&str>()
            .map(|text| text.to_string())
            .or_else(|| panic.downcast_ref::<String>().cloned());
        Err(format!("panic: {}", message.unwrap_or_else(|| "unknown".into())))
    });
    match outcome {
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
        drop(unsafe { Box::from_raw(pointer) });
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
