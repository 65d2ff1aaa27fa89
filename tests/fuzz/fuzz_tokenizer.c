/* fuzz_tokenizer.c - any bytes as a tokenizer.json, then, behind the first zero byte, as a text:
 * the file is refused with a sentence or gives a tokenizer; that one encodes and decodes the text.
 */
#include <stdlib.h>
#include <string.h>

#include "models/text/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Exact-size copies, so that a checker sees a read past the end. */
static char *copy(const uint8_t *p, size_t n)
{
	char *c = malloc(n ? n : 1);
	if (!c) abort();
	if (n) memcpy(c, p, n);
	return c;
}

/* A stream shows what the whole shows; and every id that comes out is a token. */
static void check_decode(const cx_tokenizer *tok, const cx_ids *ids)
{
	cx_text whole = {0}, stream = {0};
	cx_detok d;
	cx_detok_init(&d, tok, CX_DECODE_SPECIAL);
	for (size_t i = 0; i < ids->n; i++) {
		if (ids->v[i] < 0 || (uint32_t)ids->v[i] >= cx_tokenizer_n_tokens(tok)) abort();
		if (cx_detok_push(&d, ids->v[i], &stream, NULL) != CX_OK) abort();
	}
	if (cx_detok_flush(&d, &stream, NULL) != CX_OK) abort();
	if (cx_tokenizer_decode(tok, ids->v, ids->n, CX_DECODE_SPECIAL, &whole, NULL) != CX_OK) abort();
	if (whole.n != stream.n || (whole.n && memcmp(whole.v, stream.v, whole.n) != 0)) abort();
	cx_text_deinit(&whole);
	cx_text_deinit(&stream);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const uint8_t *zero = size ? memchr(data, 0, size) : NULL;
	size_t n_json = zero ? (size_t)(zero - data) : size, n_text = zero ? size - n_json - 1 : 0;
	char *json = copy(data, n_json), *text = copy(zero ? zero + 1 : data, n_text);
	cx_hf_files f = {.origin = "fuzz.json", .tokenizer = {json, n_json}};
	cx_tokenizer *tok = NULL;
	cx_err err = {0};
	cx_status st = cx_tokenizer_from_json(&f, NULL, &tok, &err);
	if (st != CX_OK && (tok || !err.msg[0] || err.code != st)) abort();
	for (unsigned flags = 0; tok && flags < 4; flags += 3) {
		cx_ids ids = {0};
		err = (cx_err){0};
		st = cx_tokenizer_encode(tok, text, n_text, flags, &ids, &err);
		if (st == CX_OK) check_decode(tok, &ids);
		else if (ids.n || !err.msg[0]) abort();
		cx_ids_deinit(&ids);
	}
	cx_tokenizer_free(tok);
	free(json);
	free(text);
	return 0;
}
