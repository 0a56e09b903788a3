// SPDX-License-Identifier: Apache-2.0
//! `tokenizer.json`, executed by the tokenizers library.

use crate::charsmap;
use crate::ffi::{FtText, Outcome, bytes, check_size, guard, guard_value, release, utf8};
use std::ffi::{c_char, c_int};
use tokenizers::Tokenizer;

pub struct FtTokenizer(Tokenizer);

pub struct FtEncoding {
    ids: Vec<u32>,
    begin: Vec<u32>,
    end: Vec<u32>,
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn ft_tokenizer_load(json: *const c_char, size: usize, error: *mut *mut c_char) -> *mut FtTokenizer {
    guard(error, || {
        // SAFETY: by contract of the header.
        let json = unsafe { bytes(json, size) };
        charsmap::check(json)?;
        let mut tokenizer = Tokenizer::from_bytes(json).map_err(|error| error.to_string())?;
        // Examples are cut and packed by data/, never here.
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(|error| error.to_string())?;
        Ok(FtTokenizer(tokenizer))
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn ft_tokenizer_free(tokenizer: *mut FtTokenizer) {
    // SAFETY: by contract of the header.
    unsafe { release(tokenizer) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn ft_tokenizer_vocab_size(tokenizer: *const FtTokenizer) -> u32 {
    // SAFETY: by contract of the header.
    guard_value(0, || unsafe { &*tokenizer }.0.get_vocab_size(true) as u32)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn ft_tokenizer_id_end(tokenizer: *const FtTokenizer) -> u64 {
    guard_value(u64::MAX, || {
        // SAFETY: by contract of the header.
        let vocab = unsafe { &*tokenizer }.0.get_vocab(true);
        vocab.values().max().map_or(0, |id| u64::from(*id) + 1)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn ft_tokenizer_encode(
    tokenizer: *const FtTokenizer,
    text: *const c_char,
    size: usize,
    add_special: c_int,
    error: *mut *mut c_char,
) -> *mut FtEncoding {
    guard(error, || {
        // SAFETY: by contract of the header.
        let (tokenizer, text) = unsafe { (&*tokenizer, utf8(text, size)?) };
        check_size(size)?;
        let encoding = tokenizer.0.encode(text, add_special != 0).map_err(|error| error.to_string())?;
        Ok(FtEncoding {
            ids: encoding.get_ids().to_vec(),
            begin: encoding.get_offsets().iter().map(|range| range.0 as u32).collect(),
            end: encoding.get_offsets().iter().map(|range| range.1 as u32).collect(),
        })
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn ft_encoding_view(
    encoding: *const FtEncoding,
    ids: *mut *const u32,
    begin: *mut *const u32,
    end: *mut *const u32,
) -> usize {
    // SAFETY: by contract of the header.
    unsafe {
        let encoding = &*encoding;
        *ids = encoding.ids.as_ptr();
        *begin = encoding.begin.as_ptr();
        *end = encoding.end.as_ptr();
        encoding.ids.len()
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn ft_encoding_free(encoding: *mut FtEncoding) {
    // SAFETY: by contract of the header.
    unsafe { release(encoding) }
}

fn text_only(text: String) -> FtText {
    FtText { text, begin: vec![], end: vec![] }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn ft_tokenizer_decode(
    tokenizer: *const FtTokenizer,
    ids: *const u32,
    count: usize,
    skip_special: c_int,
    error: *mut *mut c_char,
) -> *mut FtText {
    guard(error, || {
        // SAFETY: by contract of the header.
        let (tokenizer, ids) = unsafe {
            (&*tokenizer, if count == 0 { &[][..] } else { std::slice::from_raw_parts(ids, count) })
        };
        tokenizer.0.decode(ids, skip_special != 0).map(text_only).map_err(|error| error.to_string())
    })
}

/// The token's own string, as in the vocabulary; an error for an id that is
/// none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ft_tokenizer_token(tokenizer: *const FtTokenizer, id: u32, error: *mut *mut c_char) -> *mut FtText {
    guard(error, || -> Outcome<FtText> {
        // SAFETY: by contract of the header.
        let tokenizer = unsafe { &*tokenizer };
        tokenizer.0.id_to_token(id).map(text_only).ok_or_else(|| format!("{id} is no token"))
    })
}

/// The id of a token, or -1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ft_tokenizer_id(tokenizer: *const FtTokenizer, token: *const c_char, size: usize) -> i64 {
    guard_value(-1, || {
        // SAFETY: by contract of the header.
        let found = unsafe { utf8(token, size).ok().and_then(|token| (&*tokenizer).0.token_to_id(token)) };
        found.map_or(-1, i64::from)
    })
}
