/* added.c - added tokens: whole strings that are found in a text before it is cut and merged
 * (spec/llm.md 4.1 step 1).
 *
 * The set is sorted by text. A match at a position narrows the range of candidates byte by byte, by
 * binary search, and remembers the longest that is allowed: thousands of tokens with a common
 * beginning cost no more than a trie would. Leftmost, then longest. (llama.cpp tries longer strings
 * first over the whole text; that differs only where two added tokens overlap, and the Hugging Face
 * rule is the one the models were trained with.) */
#include "models/text/text_impl.h"

#include <stdlib.h>
#include <string.h>

#include <utf8proc.h>

static int compare_added(const void *a, const void *b)
{
	const cx__added *x = a, *y = b;
	size_t n = x->text.len < y->text.len ? x->text.len : y->text.len;
	int c = memcmp(x->text.ptr, y->text.ptr, n);
	if (c) return c;
	if (x->text.len != y->text.len) return x->text.len < y->text.len ? -1 : 1;
	return x->id < y->id ? -1 : x->id > y->id;
}

/* A normalized token is matched against normalised text, so its own text is normalised as well. */
static cx_status normalized_text(cx_tokenizer *tok, cx_span *text, cx_err *err)
{
	cx__encoder e;
	cx_status st;
	char *copy;
	cx__encoder_init(&e, tok, 0, NULL, err);
	st = cx__utf8_valid(text->ptr, text->len) ? cx__normalize(&e, tok->norm, tok->n_norm, text)
											  : CX_OK;
	if (st == CX_OK) {
		copy = cx_arena_memdup(&tok->arena, text->ptr, text->len);
		if (copy) text->ptr = copy;
		else st = cx__no_memory(err);
	}
	cx__encoder_deinit(&e);
	return st;
}

static void index_set(cx__added_set *set)
{
	uint32_t i = 0;
	qsort(set->v, set->n, sizeof *set->v, compare_added);
	for (unsigned b = 0; b < 256; b++) {
		set->first[b] = i;
		while (i < set->n && (unsigned char)set->v[i].text.ptr[0] == b) i++;
	}
	set->first[256] = set->n;
}

cx_status cx__added_build(cx_tokenizer *tok, const cx_added *added, uint32_t n, cx_err *err)
{
	cx_status st;
	if (n == 0) return CX_OK; /* both sets are zeroed */
	tok->raw.v = cx_arena_array(&tok->arena, n, sizeof *tok->raw.v);
	tok->normalized.v = cx_arena_array(&tok->arena, n, sizeof *tok->normalized.v);
	if (!tok->raw.v || !tok->normalized.v) return cx__no_memory(err);
	for (uint32_t i = 0; i < n; i++) {
		cx__added_set *set = added[i].flags & CX_ADDED_NORMALIZED ? &tok->normalized : &tok->raw;
		cx__added a = {.id = added[i].id, .flags = added[i].flags};
		if (a.id < 0 || (uint32_t)a.id >= tok->n_tokens)
			return CX_FAIL(err, CX_ERR_FORMAT,
				"%s: added token %u has id %d, but there are %u tokens", tok->origin, i, a.id,
				tok->n_tokens);
		a.text = tok->tokens[a.id].text;
		if (set == &tok->normalized && (st = normalized_text(tok, &a.text, err)) != CX_OK)
			return st;
		if (a.text.len) set->v[set->n++] = a;
	}
	index_set(&tok->raw);
	index_set(&tok->normalized);
	return CX_OK;
}

/* \w as Unicode has it: letters, marks, digits, connectors. */
static bool is_word(uint32_t cp)
{
	switch (utf8proc_category((utf8proc_int32_t)cp)) {
	case UTF8PROC_CATEGORY_LU:
	case UTF8PROC_CATEGORY_LL:
	case UTF8PROC_CATEGORY_LT:
	case UTF8PROC_CATEGORY_LM:
	case UTF8PROC_CATEGORY_LO:
	case UTF8PROC_CATEGORY_MN:
	case UTF8PROC_CATEGORY_MC:
	case UTF8PROC_CATEGORY_ME:
	case UTF8PROC_CATEGORY_ND:
	case UTF8PROC_CATEGORY_NL:
	case UTF8PROC_CATEGORY_PC:
		return true;
	default:
		return false;
	}
}

/* The character that ends at `pos`, whose first byte is returned; pos > 0. */
static size_t char_before(const char *text, size_t pos, uint32_t *cp)
{
	size_t i = pos - 1;
	while (i > 0 && pos - i < 4 && ((unsigned char)text[i] & 0xC0) == 0x80) i--;
	if (cx__utf8_step((const unsigned char *)text + i, pos - i, cp) <= 0) *cp = 0xFFFD;
	return i;
}

static bool stands_alone(const char *text, size_t n, size_t start, size_t stop)
{
	uint32_t cp;
	if (start > 0) {
		char_before(text, start, &cp);
		if (is_word(cp)) return false;
	}
	if (stop < n && cx__utf8_step((const unsigned char *)text + stop, n - stop, &cp) > 0 &&
		is_word(cp))
		return false;
	return true;
}

/* The first index in [lo, hi) whose text at `depth` is > b (or >= b). All of them are longer than
 * depth or equal to the common prefix, which sorts first. */
static uint32_t bound(
	const cx__added_set *set, uint32_t lo, uint32_t hi, size_t depth, int b, bool upper)
{
	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;
		const cx_span *t = &set->v[mid].text;
		int c = t->len > depth ? (unsigned char)t->ptr[depth] : -1;
		if (upper ? c <= b : c < b) lo = mid + 1;
		else hi = mid;
	}
	return lo;
}

/* The longest token at pos, or NULL. */
static const cx__added *match_at(
	const cx__added_set *set, const char *text, size_t n, size_t pos, bool special)
{
	const cx__added *best = NULL;
	unsigned char b = (unsigned char)text[pos];
	uint32_t lo = set->first[b], hi = set->first[b + 1];
	for (size_t depth = 1; lo < hi; depth++) {
		for (; lo < hi && set->v[lo].text.len == depth;
			 lo++) /* ends here; equal texts: the lowest id wins */
			if ((special || !(set->v[lo].flags & CX_ADDED_SPECIAL)) &&
				(!best || best->text.len < depth))
				best = &set->v[lo];
		if (pos + depth >= n) break;
		hi = bound(set, lo, hi, depth, (unsigned char)text[pos + depth], true);
		lo = bound(set, lo, hi, depth, (unsigned char)text[pos + depth], false);
	}
	return best;
}

static void swallow(const char *text, size_t n, size_t from, unsigned flags, cx__added_hit *hit)
{
	uint32_t cp;
	if (flags & CX_ADDED_LSTRIP)
		while (hit->start > from) {
			size_t i = char_before(text, hit->start, &cp);
			if (i < from || !cx__utf8_white(cp)) break;
			hit->start = i;
		}
	if (flags & CX_ADDED_RSTRIP)
		while (hit->stop < n) {
			int k = cx__utf8_step((const unsigned char *)text + hit->stop, n - hit->stop, &cp);
			if (k <= 0 || !cx__utf8_white(cp)) break;
			hit->stop += (size_t)k;
		}
}

bool cx__added_next(const cx__added_set *set, const char *text, size_t n, size_t pos, bool special,
	cx__added_hit *hit)
{
	size_t from = pos;
	if (set->n == 0) return false;
	while (pos < n) {
		const cx__added *a;
		unsigned char b = (unsigned char)text[pos];
		if (set->first[b] == set->first[b + 1] || !(a = match_at(set, text, n, pos, special))) {
			pos++;
			continue;
		}
		*hit = (cx__added_hit){pos, pos + a->text.len, a->id};
		if (a->flags & CX_ADDED_SINGLE_WORD && !stands_alone(text, n, hit->start, hit->stop)) {
			pos = hit->stop; /* as the reference does: the refused match is passed over whole */
			continue;
		}
		swallow(text, n, from, a->flags, hit);
		return true;
	}
	return false;
}
