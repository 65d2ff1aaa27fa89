/* bpe.c - byte-pair merging of one piece, for the three ways a vocabulary ranks its merges.
 *
 * In: a piece of text. Out: its ids appended to e->out.
 *
 * Symbols form a linked list over the piece; candidates wait in a heap ordered by (priority, left
 * symbol), so the lowest rank goes first and the leftmost on ties, and a 100 kB run of letters
 * costs n log n. Entries are not removed when a neighbour merges away: an entry is stale unless its
 * left symbol lives and the two lengths still add up to what they were (symbols only grow, and grow
 * rightwards, so equal sums mean the same pair). */
#include "models/text/text_impl.h"

#include <string.h>

static bool heap_less(const cx__bigram *a, const cx__bigram *b)
{
	return a->key < b->key;
}

static cx_status heap_push(cx__encoder *e, cx__bigram b)
{
	void *v = e->heap;
	size_t i = e->n_heap;
	if (!cx__grow(&e->alloc, &v, &e->heap_cap, i + 1, sizeof *e->heap))
		return cx__no_memory(e->err);
	e->heap = v;
	e->n_heap++;
	while (i > 0 && heap_less(&b, &e->heap[(i - 1) / 2])) {
		e->heap[i] = e->heap[(i - 1) / 2];
		i = (i - 1) / 2;
	}
	e->heap[i] = b;
	return CX_OK;
}

static cx__bigram heap_pop(cx__encoder *e)
{
	cx__bigram top = e->heap[0], last = e->heap[--e->n_heap];
	size_t i = 0, n = e->n_heap;
	for (;;) {
		size_t c = 2 * i + 1;
		if (c >= n) break;
		if (c + 1 < n && heap_less(&e->heap[c + 1], &e->heap[c])) c++;
		if (!heap_less(&e->heap[c], &last)) break;
		e->heap[i] = e->heap[c];
		i = c;
	}
	if (n) e->heap[i] = last;
	return top;
}

static cx_status add_symbol(cx__encoder *e, uint32_t off, uint32_t len, int32_t id)
{
	void *v = e->symbols;
	int32_t i = (int32_t)e->n_symbols;
	if (!cx__grow(&e->alloc, &v, &e->symbols_cap, e->n_symbols + 1, sizeof *e->symbols))
		return cx__no_memory(e->err);
	e->symbols = v;
	e->symbols[e->n_symbols++] = (cx__symbol){off, len, i - 1, -1, id};
	if (i > 0) e->symbols[i - 1].next = i;
	return CX_OK;
}

/* A character with no token of its own, in a vocabulary with a merge list: byte tokens if all
 * exist, else the unknown token, else nothing. */
static cx_status add_unknown(cx__encoder *e, const char *piece, uint32_t off, uint32_t len)
{
	const cx_tokenizer *tok = e->tok;
	cx_status st = CX_OK;
	bool bytes = tok->byte_fallback;
	for (uint32_t k = 0; bytes && k < len; k++)
		bytes = tok->byte_id[(unsigned char)piece[off + k]] >= 0;
	if (bytes) {
		for (uint32_t k = 0; k < len && st == CX_OK; k++)
			st = add_symbol(e, off + k, 1, tok->byte_id[(unsigned char)piece[off + k]]);
		return st;
	}
	if (tok->special.unk < 0) return CX_OK;
	if (tok->fuse_unk && e->n_symbols && e->symbols[e->n_symbols - 1].id == tok->special.unk) {
		e->symbols[e->n_symbols - 1].len += len;
		return CX_OK;
	}
	return add_symbol(e, off, len, tok->special.unk);
}

static cx_status make_symbols(cx__encoder *e, const char *piece, uint32_t len)
{
	const cx_tokenizer *tok = e->tok;
	bool by_char = tok->alphabet == CX_ALPHABET_CHARS;
	cx_status st = CX_OK;
	e->n_symbols = 0;
	for (uint32_t i = 0, k; i < len && st == CX_OK; i += k) {
		uint32_t cp;
		int32_t id;
		int step = by_char ? cx__utf8_step((const unsigned char *)piece + i, len - i, &cp) : 1;
		k = step > 0 ? (uint32_t)step : 1;
		id = by_char ? cx__token_map_find(&tok->map, piece + i, k)
					 : tok->byte_id[(unsigned char)piece[i]];
		/* Ranked by concatenation, a symbol that is no token may still be part of one. */
		if (id < 0 && tok->model == CX_VOCAB_MERGES) st = add_unknown(e, piece, i, k);
		else st = add_symbol(e, i, k, id);
	}
	return st;
}

static cx_status try_pair(cx__encoder *e, const char *piece, int32_t left)
{
	const cx_tokenizer *tok = e->tok;
	const cx__symbol *l, *r;
	uint32_t len, prio;
	int32_t id;
	if (left < 0 || e->symbols[left].next < 0) return CX_OK;
	l = &e->symbols[left];
	r = &e->symbols[l->next];
	len = l->len + r->len;
	if (tok->model == CX_VOCAB_MERGES) {
		const cx__pair_slot *m = cx__pair_map_find(&tok->merges, l->id, r->id);
		if (!m) return CX_OK;
		id = m->id;
		prio = m->rank;
	} else {
		id = cx__token_map_find(&tok->map, piece + l->off, len);
		if (id < 0) return CX_OK;
		prio = tok->model == CX_VOCAB_SCORES ? tok->order[id] : (uint32_t)id;
	}
	return heap_push(e, (cx__bigram){(uint64_t)prio << 32 | (uint32_t)left, len, id});
}

static cx_status merge_all(cx__encoder *e, const char *piece)
{
	cx_status st = CX_OK;
	e->n_heap = 0;
	for (size_t i = 0; i + 1 < e->n_symbols && st == CX_OK; i++)
		st = try_pair(e, piece, (int32_t)i);
	while (st == CX_OK && e->n_heap) {
		cx__bigram b = heap_pop(e);
		int32_t left = (int32_t)(uint32_t)b.key;
		cx__symbol *l = &e->symbols[left], *r;
		if (!l->len || l->next < 0) continue;
		r = &e->symbols[l->next];
		if (l->len + r->len != b.len) continue;
		l->len = b.len;
		l->id = b.id;
		l->next = r->next;
		if (r->next >= 0) e->symbols[r->next].prev = left;
		r->len = 0;
		st = try_pair(e, piece, l->prev);
		if (st == CX_OK) st = try_pair(e, piece, left);
	}
	return st;
}

/* A symbol that never became a token, in a vocabulary ranked by concatenation. */
static cx_status emit_unknown(cx__encoder *e, const char *s, uint32_t len, bool *last_unk)
{
	const cx_tokenizer *tok = e->tok;
	cx_status st = CX_OK;
	for (uint32_t k = 0; k < len && st == CX_OK; k++) {
		int32_t id = tok->alphabet != CX_ALPHABET_CHARS || tok->byte_fallback
						 ? tok->byte_id[(unsigned char)s[k]]
						 : -1;
		if (id >= 0) {
			st = cx_ids_push(e->out, id, e->err);
			*last_unk = false;
			continue;
		}
		if (tok->special.unk >= 0 && !*last_unk) st = cx_ids_push(e->out, tok->special.unk, e->err);
		*last_unk = true; /* one for the whole character */
	}
	if (!tok->fuse_unk) *last_unk = false;
	return st;
}

cx_status cx__bpe_encode(cx__encoder *e, const char *piece, uint32_t len)
{
	const cx_tokenizer *tok = e->tok;
	bool last_unk = false;
	cx_status st;
	/* A ranked table is closed under its own merges, so there too a whole piece that is a token
	 * ends as that token. */
	if (tok->ignore_merges || tok->model == CX_VOCAB_IDS) {
		int32_t id = cx__token_map_find(&tok->map, piece, len);
		if (id >= 0) return cx_ids_push(e->out, id, e->err);
	}
	if ((st = make_symbols(e, piece, len)) != CX_OK || e->n_symbols == 0) return st;
	if ((st = merge_all(e, piece)) != CX_OK) return st;
	for (int32_t i = 0; i >= 0 && st == CX_OK; i = e->symbols[i].next) {
		const cx__symbol *s = &e->symbols[i];
		if (s->id < 0) {
			st = emit_unknown(e, piece + s->off, s->len, &last_unk);
			continue;
		}
		st = cx_ids_push(e->out, s->id, e->err);
		last_unk = false;
	}
	return st;
}
