/* wordpiece.c - WordPiece: the longest token at each position from the left, or the unknown token
 * for the whole word.
 *
 * In: one word (no whitespace, punctuation apart). Out: its ids appended to e->out. The first part
 * is looked up among the word starts, the others among the continuations. */
#include "models/text/text_impl.h"

static uint32_t count_chars(const char *s, uint32_t n)
{
	uint32_t k = 0;
	for (uint32_t i = 0; i < n; i++) k += ((unsigned char)s[i] & 0xC0) != 0x80;
	return k;
}

cx_status cx__wordpiece_encode(cx__encoder *e, const char *piece, uint32_t len)
{
	const cx_tokenizer *tok = e->tok;
	size_t n_before = e->out->n;
	cx_status st;
	if (tok->max_word_chars && count_chars(piece, len) > tok->max_word_chars)
		return cx_ids_push(e->out, tok->special.unk, e->err);
	for (uint32_t i = 0, k; i < len; i += k) {
		const cx__token_map *map = i ? &tok->inner : &tok->map;
		int32_t id = -1;
		k = len - i < map->max_len ? len - i : map->max_len;
		for (; k > 0; k--)
			if ((id = cx__token_map_find(map, piece + i, k)) >= 0) break;
		if (id < 0) { /* no way on: the parts found so far are dropped */
			e->out->n = n_before;
			return cx_ids_push(e->out, tok->special.unk, e->err);
		}
		if ((st = cx_ids_push(e->out, id, e->err)) != CX_OK) return st;
	}
	return CX_OK;
}
