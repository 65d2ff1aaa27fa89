/* text_make.h - for tests about tokenizers: opening them, comparing ids, writing a vocabulary as
 * another file would hold it. Failures of the machine end the program; the rest is for the test. */
#ifndef CX_TESTS_TEXT_MAKE_H
#define CX_TESTS_TEXT_MAKE_H

#include <jansson.h>

#include "models/text/tokenizer.h"
#include "tests/file_make.h"

/* Tokenizers from files; NULL and a printed reason on failure. */
cx_tokenizer *tok_from_gguf(const char *path);
cx_tokenizer *tok_from_tiktoken(const char *path, const char *pre);
cx_tokenizer *tok_from_json(const json_t *root); /* through its text */
cx_tokenizer *tok_from_text(const char *json);
cx_tokenizer *tok_from_text_with(const char *json, const char *tokenizer_config,
	const char *generation_config, const char *config);

/* ids as " 1 2 3"; of text[n] or of a C string. The caller frees. */
char *ids_of(const cx_tokenizer *tok, const char *text, size_t n, unsigned flags);
char *ids_of_text(const cx_tokenizer *tok, const char *text, unsigned flags);
/* Tokens of a text, as shown by decoding, joined by "|". */
char *pieces_of(const cx_tokenizer *tok, const char *text, unsigned flags);
/* The pieces that the pre-tokenizer cuts text[n] into, joined by sep, appended to out. */
void cut(const cx_tokenizer *tok, const char *text, size_t n, char sep, cx_text *out);
/* decode(ids) == text? */
bool decodes_to(
	const cx_tokenizer *tok, const cx_ids *ids, unsigned flags, const char *text, size_t n);

/* The strings of a .inp file: calls f for each; gives how many. */
typedef void (*string_fn)(void *ctx, size_t i, const char *s, size_t n);
size_t each_string(const char *inp_path, string_fn f, void *ctx);
/* How many lines of out_path are the ids of the strings of inp_path; *total is how many there are.
 * Prints the first that differ. */
size_t count_matches(
	const cx_tokenizer *tok, const char *inp_path, const char *out_path, size_t *total);

/* The same vocabulary as a tokenizer.json. Normalizer and pre-tokenizer are JSON text, or NULL. */
json_t *json_of_gpt2(const char *gguf_path, const char *normalizer, const char *pre_tokenizer);
json_t *json_of_ranks(
	const cx_tokenizer *ranked, const char *normalizer, const char *pre_tokenizer);
json_t *json_of_spm(const char *gguf_path);
json_t *json_of_bert(const char *gguf_path);

#endif
