/* token_map.c - the two hash maps of a vocabulary: byte string to id, and pair of ids to merge.
 *
 * Open addressing, linear probing, at most half full. Both are sized once, from the number of
 * entries the file states, and live in the tokenizer's arena; looking up allocates nothing and may
 * be done by many threads. */
#include "models/text/text_impl.h"

#include <string.h>

static uint64_t mix(uint64_t x)
{
	x ^= x >> 32;
	x *= 0xD6E8FEB86659FD93u; /* an odd constant with well spread bits; any will do, quality only
								 costs probes */
	x ^= x >> 32;
	return x;
}

static uint32_t hash_bytes(const char *s, size_t n)
{
	uint64_t h = n * 0x9E3779B97F4A7C15u, w;
	while (n >= 8) {
		memcpy(&w, s, 8);
		h = mix(h ^ w);
		s += 8;
		n -= 8;
	}
	w = 0;
	memcpy(&w, s, n);
	return (uint32_t)mix(h ^ w ^ (uint64_t)n << 56);
}

/* Slots for n entries: a power of two, at least twice n. 0 when n is beyond reason. */
static uint32_t slots_for(uint32_t n)
{
	uint32_t k = 8;
	if (n > 1u << 29) return 0;
	while (k < 2 * n) k *= 2;
	return k;
}

cx_status cx__token_map_init(cx__token_map *m, cx_arena *arena, uint32_t n, cx_err *err)
{
	uint32_t k = slots_for(n);
	m->slots = k ? cx_arena_array(arena, k, sizeof *m->slots) : NULL;
	if (!m->slots) return cx__no_memory(err);
	for (uint32_t i = 0; i < k; i++) m->slots[i].id = -1;
	m->mask = k - 1;
	m->max_len = 0;
	return CX_OK;
}

static uint32_t find_slot(const cx__token_map *m, const char *key, size_t len)
{
	uint32_t h = hash_bytes(key, len), i = h & m->mask;
	while (m->slots[i].id >= 0) {
		const cx__token_slot *s = &m->slots[i];
		if (s->hash == h && s->len == len && memcmp(s->key, key, len) == 0) break;
		i = (i + 1) & m->mask;
	}
	return i;
}

int32_t cx__token_map_add(cx__token_map *m, const char *key, size_t len, int32_t id)
{
	cx__token_slot *s = &m->slots[find_slot(m, key, len)];
	if (s->id >= 0) return s->id;
	*s = (cx__token_slot){key, (uint32_t)len, hash_bytes(key, len), id};
	if (len > m->max_len) m->max_len = (uint32_t)len;
	return -1;
}

int32_t cx__token_map_find(const cx__token_map *m, const char *key, size_t len)
{
	if (len > m->max_len || !m->slots)
		return -1; /* keeps a hash from costing more than the longest token */
	return m->slots[find_slot(m, key, len)].id;
}

/* ---- pairs ---- */

cx_status cx__pair_map_init(cx__pair_map *m, cx_arena *arena, uint32_t n, cx_err *err)
{
	uint32_t k = slots_for(n);
	m->slots = k ? cx_arena_array(arena, k, sizeof *m->slots) : NULL;
	if (!m->slots) return cx__no_memory(err);
	for (uint32_t i = 0; i < k; i++) m->slots[i].pair = UINT64_MAX;
	m->mask = k - 1;
	return CX_OK;
}

static cx__pair_slot *pair_slot(const cx__pair_map *m, uint64_t pair)
{
	uint32_t i = (uint32_t)mix(mix(pair) + pair) & m->mask;
	while (m->slots[i].pair != UINT64_MAX && m->slots[i].pair != pair) i = (i + 1) & m->mask;
	return &m->slots[i];
}

void cx__pair_map_add(cx__pair_map *m, int32_t left, int32_t right, uint32_t rank, int32_t id)
{
	uint64_t pair = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
	cx__pair_slot *s = pair_slot(m, pair);
	if (s->pair == UINT64_MAX) *s = (cx__pair_slot){pair, rank, id};
}

const cx__pair_slot *cx__pair_map_find(const cx__pair_map *m, int32_t left, int32_t right)
{
	const cx__pair_slot *s;
	if (left < 0 || right < 0) return NULL;
	s = pair_slot(m, (uint64_t)(uint32_t)left << 32 | (uint32_t)right);
	return s->pair == UINT64_MAX ? NULL : s;
}
