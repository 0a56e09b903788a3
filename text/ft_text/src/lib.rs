// SPDX-License-Identifier: Apache-2.0
//! Hugging Face tokenizers and chat templates behind the C ABI of
//! `text/ft_text.h`. No panic and no unwinding crosses it.

mod charsmap;
mod ffi;
mod python_format;
mod template;
mod tokenizer;
