/* SPDX-License-Identifier: Apache-2.0
 *
 * The C ABI of the Rust library ft_text: tokenizers and chat templates. C++
 * uses tokenizer.h and chat_template.h instead.
 *
 * Texts are UTF-8 with explicit lengths and need no final zero; null is allowed
 * where the length is 0. Offsets are bytes.
 *
 * Errors: a function that returns a pointer returns null on error and puts a
 * message into *error (if `error` is not null), which the caller frees with
 * ft_error_free. No panic crosses the ABI: it comes out as such an error, or as
 * the fallback that the function names. Running out of memory or stack ends the
 * process.
 *
 * Ownership: what a function returns belongs to the caller, who frees it once
 * with the function of its type; freeing null does nothing. Pointers out of a
 * view live as long as the object that was viewed.
 *
 * Threads: tokenizers and templates are immutable, any number of threads may
 * use one at once; freeing must be the last use. */

#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct FtTokenizer FtTokenizer;
typedef struct FtEncoding FtEncoding;
typedef struct FtTemplate FtTemplate;
typedef struct FtText FtText;

void ft_error_free(char* error);

/* tokenizer.json -> a tokenizer, without padding and truncation. */
FtTokenizer* ft_tokenizer_load(const char* json, size_t size, char** error);
void ft_tokenizer_free(FtTokenizer* tokenizer);
/* Number of tokens, added ones included; 0 after a panic. */
uint32_t ft_tokenizer_vocab_size(const FtTokenizer* tokenizer);
/* One more than the greatest id, 0 without tokens; UINT64_MAX after a panic. */
uint64_t ft_tokenizer_id_end(const FtTokenizer* tokenizer);
/* `add_special` not 0: with what the post-processor adds around a text. */
FtEncoding* ft_tokenizer_encode(const FtTokenizer* tokenizer, const char* text,
                                size_t size, int add_special, char** error);
/* Number of tokens; the arrays live as long as the encoding. */
size_t ft_encoding_view(const FtEncoding* encoding, const uint32_t** ids,
                        const uint32_t** begin, const uint32_t** end);
void ft_encoding_free(FtEncoding* encoding);
/* Ids that are no tokens are left out. */
FtText* ft_tokenizer_decode(const FtTokenizer* tokenizer, const uint32_t* ids,
                            size_t count, int skip_special, char** error);
/* The token's own string in the vocabulary. */
FtText* ft_tokenizer_token(const FtTokenizer* tokenizer, uint32_t id,
                           char** error);
/* -1: no such token. */
int64_t ft_tokenizer_id(const FtTokenizer* tokenizer, const char* token,
                        size_t size);

/* The text and its spans [begin[i], end[i]) in order; tokens have no spans. */
const char* ft_text_view(const FtText* text, size_t* size,
                         const uint32_t** begin, const uint32_t** end,
                         size_t* spans);
void ft_text_free(FtText* text);

FtTemplate* ft_template_compile(const char* source, size_t size, char** error);
void ft_template_free(FtTemplate* tmpl);
/* Renders with the members of a JSON object as variables; the spans are the
 * generation blocks. strftime_now shows `now`, seconds since 1970 of the wall
 * clock to show: the machine's time zone is not applied. */
FtText* ft_template_render(const FtTemplate* tmpl, const char* context_json,
                           size_t size, int64_t now, char** error);

/* Panics inside; for the test that it comes out as an error. */
FtText* ft_text_test_panic(char** error);

#ifdef __cplusplus
}
#endif
