/* decode.c - ids to text, whole or as a stream, and the questions one may ask a tokenizer.
 *
 * Token to bytes has no context, so one state machine serves both: append the bytes, give away what
 * is whole characters, keep an unfinished one (at most 3 bytes). A byte that can never become valid
 * gives U+FFFD (spec/llm.md 4.8). */
#include "models/text/text_impl.h"

#include <string.h>

static const char replacement[] = "\xEF\xBF\xBD";

void cx_detok_init(cx_detok *d, const cx_tokenizer *tok, unsigned flags)
{
	*d = (cx_detok){.tok = tok, .flags = flags, .at_start = true};
}

/* Takes back what was appended after the first n bytes. */
static void cut_back(cx_text *text, size_t n)
{
	text->n = n;
	if (text->v) text->v[n] = 0;
}

/* Adds one byte to the tail and gives away what is settled. */
static cx_status push_byte(cx_detok *d, unsigned char b, cx_text *out, cx_err *err)
{
	cx_status st = CX_OK;
	d->tail[d->n_tail++] = b;
	while (d->n_tail && st == CX_OK) {
		uint32_t cp;
		int k = cx__utf8_step(d->tail, d->n_tail, &cp), n = k < 0 ? -k : k;
		if (k == 0) break;
		st = k > 0 ? cx_text_append(out, d->tail, (size_t)k, err)
				   : cx_text_append(out, replacement, 3, err);
		d->n_tail = (uint8_t)(d->n_tail - n);
		memmove(d->tail, d->tail + n, d->n_tail);
	}
	return st;
}

cx_status cx_detok_push(cx_detok *d, int32_t id, cx_text *out, cx_err *err)
{
	const cx_tokenizer *tok = d->tok;
	const cx__token *t;
	size_t i = 0, n_before = out->n;
	cx_detok before = *d;
	cx_status st = CX_OK;
	if (id < 0 || (uint32_t)id >= tok->n_tokens)
		return CX_FAIL(err, CX_ERR_ARGUMENT, "%s: %d is not a token id: there are %u", tok->origin,
			id, tok->n_tokens);
	t = &tok->tokens[id];
	if ((t->type == CX_TOKEN_CONTROL || t->type == CX_TOKEN_UNKNOWN) &&
		!(d->flags & CX_DECODE_SPECIAL))
		return CX_OK;
	if (t->bytes.len == 0) return CX_OK;
	if (d->at_start && tok->drop_space && !(d->flags & CX_DECODE_CONTINUATION) &&
		t->bytes.ptr[0] == ' ')
		i = 1;
	d->at_start = false;
	for (; i < t->bytes.len && st == CX_OK; i++) {
		if (d->n_tail == 0 && (unsigned char)t->bytes.ptr[i] < 0x80)
			st = cx_text_append(out, t->bytes.ptr + i, 1, err);
		else st = push_byte(d, (unsigned char)t->bytes.ptr[i], out, err);
	}
	if (st != CX_OK) { /* all or nothing: the caller may try again */
		cut_back(out, n_before);
		*d = before;
	}
	return st;
}

cx_status cx_detok_flush(cx_detok *d, cx_text *out, cx_err *err)
{
	cx_status st = d->n_tail ? cx_text_append(out, replacement, 3, err) : CX_OK;
	if (st == CX_OK) d->n_tail = 0;
	return st;
}

cx_status cx_tokenizer_decode(const cx_tokenizer *tok, const int32_t *ids, size_t n_ids,
	unsigned flags, cx_text *out, cx_err *err)
{
	cx_detok d;
	size_t n_before = out->n;
	cx_status st = CX_OK;
	cx_detok_init(&d, tok, flags);
	for (size_t i = 0; i < n_ids && st == CX_OK; i++) st = cx_detok_push(&d, ids[i], out, err);
	if (st == CX_OK) st = cx_detok_flush(&d, out, err);
	if (st != CX_OK) cut_back(out, n_before);
	return st;
}

/* ---- asking ---- */

static const cx__token *token_at(const cx_tokenizer *tok, int32_t id)
{
	static const cx__token none = {{NULL, 0}, {NULL, 0}, CX_TOKEN_UNUSED};
	return id >= 0 && (uint32_t)id < tok->n_tokens ? &tok->tokens[id] : &none;
}

uint32_t cx_tokenizer_n_tokens(const cx_tokenizer *tok)
{
	return tok->n_tokens;
}
cx_span cx_tokenizer_token_text(const cx_tokenizer *tok, int32_t id)
{
	return token_at(tok, id)->text;
}
cx_span cx_tokenizer_token_bytes(const cx_tokenizer *tok, int32_t id)
{
	return token_at(tok, id)->bytes;
}
cx_token_type cx_tokenizer_token_type(const cx_tokenizer *tok, int32_t id)
{
	return token_at(tok, id)->type;
}
const cx_special_ids *cx_tokenizer_special(const cx_tokenizer *tok)
{
	return &tok->special;
}

int32_t cx_tokenizer_find(const cx_tokenizer *tok, const char *text, size_t len)
{
	return len ? cx__token_map_find(&tok->by_text, text, len) : -1;
}

const int32_t *cx_tokenizer_stop_ids(const cx_tokenizer *tok, size_t *n)
{
	*n = tok->n_stop;
	return tok->stop;
}

bool cx_tokenizer_is_stop(const cx_tokenizer *tok, int32_t id)
{
	for (uint32_t i = 0; i < tok->n_stop; i++)
		if (tok->stop[i] == id) return true;
	return false;
}

bool cx_tokenizer_adds_bos(const cx_tokenizer *tok)
{
	return tok->n_prefix > 0 && tok->special.bos >= 0 && tok->prefix[0] == tok->special.bos;
}
