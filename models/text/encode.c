/* encode.c - text to ids: added tokens, normalizer, pre-tokenizer, model, in the order of
 * spec/llm.md 4.1.
 *
 * Scratch is made per call and freed at its end, so that a tokenizer may be shared by threads. */
#include "models/text/text_impl.h"

#include <string.h>

void cx__encoder_init(
	cx__encoder *e, const cx_tokenizer *tok, unsigned flags, cx_ids *out, cx_err *err)
{
	memset(e, 0, sizeof *e);
	e->tok = tok;
	e->alloc = tok->arena.alloc;
	e->flags = flags;
	e->out = out;
	e->err = err;
	e->clean.alloc = e->norm[0].alloc = e->norm[1].alloc = e->pre[0].alloc = e->pre[1].alloc =
		e->alloc;
}

void cx__encoder_deinit(cx__encoder *e)
{
	cx_text_deinit(&e->clean);
	for (int i = 0; i < 2; i++) {
		cx_text_deinit(&e->norm[i]);
		cx_text_deinit(&e->pre[i]);
		cx_free(&e->alloc, e->pieces[i].v, e->pieces[i].cap * sizeof *e->pieces[i].v);
		cx_free(&e->alloc, e->cps[i], e->cps_cap[i] * sizeof *e->cps[i]);
	}
	cx_free(&e->alloc, e->symbols, e->symbols_cap * sizeof *e->symbols);
	cx_free(&e->alloc, e->heap, e->heap_cap * sizeof *e->heap);
	pcre2_match_data_free(e->match);
	cx__pcre_mem_deinit(&e->pcre);
}

static cx_status open_match(cx__encoder *e)
{
	if (e->match || e->tok->n_split == 0) return CX_OK;
	if (!cx__pcre_mem_init(&e->pcre, &e->alloc)) return cx__no_memory(e->err);
	e->match = pcre2_match_data_create(1, e->pcre.ctx);
	return e->match ? CX_OK : cx__no_memory(e->err);
}

/* Text without added tokens: pieces, then the model. first: it begins the whole text. */
static cx_status encode_plain(cx__encoder *e, cx_span text, bool first)
{
	const cx_tokenizer *tok = e->tok;
	char *raw = NULL;
	size_t raw_bytes = 0;
	bool mapped;
	int which;
	cx_status st;
	if (text.len == 0) return CX_OK;
	if (text.len > CX__TEXT_MAX)
		return CX_FAIL(
			e->err, CX_ERR_ARGUMENT, "%s: the normalised text is over 1 GiB", tok->origin);
	if ((st = open_match(e)) != CX_OK) return st;
	if ((st = cx__split_run(e, &text, first, &which, &mapped)) != CX_OK) return st;
	if (mapped) { /* a step after the byte-level one needed the alphabet; the model does not */
		raw_bytes = text.len + 1;
		if (!(raw = cx_malloc(&e->alloc, raw_bytes))) return cx__no_memory(e->err);
	}
	for (size_t i = 0; i < e->pieces[which].n && st == CX_OK; i++) {
		cx__piece p = e->pieces[which].v[i];
		const char *s = text.ptr + p.off;
		size_t len = p.len;
		if (mapped) {
			size_t n = cx__alphabet_decode(s, len, raw);
			CX_ASSERT(n != SIZE_MAX);
			s = raw;
			len = n;
		}
		st = tok->model == CX_VOCAB_WORDPIECE ? cx__wordpiece_encode(e, s, (uint32_t)len)
											  : cx__bpe_encode(e, s, (uint32_t)len);
	}
	cx_free(&e->alloc, raw, raw_bytes);
	return st;
}

/* Raw text between added tokens that are matched before normalisation. */
static cx_status encode_fragment(cx__encoder *e, cx_span text, bool first)
{
	const cx_tokenizer *tok = e->tok;
	bool special = e->flags & CX_ENCODE_PARSE_SPECIAL;
	cx__added_hit hit;
	size_t pos = 0;
	cx_status st;
	if (text.len == 0) return CX_OK;
	if ((st = cx__normalize(e, tok->norm, tok->n_norm, &text)) != CX_OK) return st;
	while (cx__added_next(&tok->normalized, text.ptr, text.len, pos, special, &hit)) {
		st = encode_plain(e, (cx_span){text.ptr + pos, hit.start - pos}, first && pos == 0);
		if (st == CX_OK) st = cx_ids_push(e->out, hit.id, e->err);
		if (st != CX_OK) return st;
		pos = hit.stop;
	}
	return encode_plain(e, (cx_span){text.ptr + pos, text.len - pos}, first && pos == 0);
}

static cx_status encode_text(cx__encoder *e, cx_span text)
{
	bool special = e->flags & CX_ENCODE_PARSE_SPECIAL;
	cx__added_hit hit;
	size_t pos = 0;
	cx_status st;
	while (cx__added_next(&e->tok->raw, text.ptr, text.len, pos, special, &hit)) {
		st = encode_fragment(e, (cx_span){text.ptr + pos, hit.start - pos}, pos == 0);
		if (st == CX_OK) st = cx_ids_push(e->out, hit.id, e->err);
		if (st != CX_OK) return st;
		pos = hit.stop;
	}
	return encode_fragment(e, (cx_span){text.ptr + pos, text.len - pos}, pos == 0);
}

static cx_status push_all(cx__encoder *e, const int32_t *ids, uint32_t n)
{
	cx_status st = CX_OK;
	if (!(e->flags & CX_ENCODE_ADD_SPECIAL)) return CX_OK;
	for (uint32_t i = 0; i < n && st == CX_OK; i++) st = cx_ids_push(e->out, ids[i], e->err);
	return st;
}

cx_status cx_tokenizer_encode(const cx_tokenizer *tok, const char *text, size_t n_bytes,
	unsigned flags, cx_ids *out, cx_err *err)
{
	cx__encoder e;
	size_t n_before = out->n;
	cx_span in = {n_bytes ? text : "", n_bytes};
	cx_status st = CX_OK;
	if (n_bytes > CX__TEXT_MAX)
		return CX_FAIL(
			err, CX_ERR_ARGUMENT, "%s: a text of %zu bytes is over 1 GiB", tok->origin, n_bytes);
	cx__encoder_init(&e, tok, flags, out, err);
	if (!cx__utf8_valid(in.ptr, in.len)) {
		st = cx__utf8_repair(in.ptr, in.len, &e.clean, err);
		in = (cx_span){e.clean.v, e.clean.n};
	}
	if (st == CX_OK) st = push_all(&e, tok->prefix, tok->n_prefix);
	if (st == CX_OK) st = encode_text(&e, in);
	if (st == CX_OK) st = push_all(&e, tok->suffix, tok->n_suffix);
	cx__encoder_deinit(&e);
	if (st != CX_OK) out->n = n_before;
	return st;
}
