/* pack_valley.c - greedy packing from the ground up.
 *
 * In: the reduced problem and a key per buffer.   Out: offsets and their peak.
 *
 * Over time, what was packed so far has a skyline: a height per clique. A run of cliques of equal
 * height between higher ones is a valley. Of the buffers that lie in it, the one with the smallest
 * key is put on its ground, then the next that still finds room beside it, and so on; what stays
 * empty is lost, and rises to the lower wall. This is the skyline rule of strip packing with time
 * as the width. What happens in a valley depends on nothing outside, so valleys are filled in the
 * order in which a walk along the skyline, always downhill, meets them.
 *
 * It leaves far less unused than packing by size does, in time that is near linear where lives are
 * short. */
#include "graph/pack_impl.h"

#include <stdlib.h>
#include <string.h>

#define WALL INT64_MAX /* height where nothing is left to pack */

struct cx__pack_valley {
	const cx__pack_prob *p;
	int64_t *height;             /* [n_cliques] */
	uint32_t *n_open, *members;  /* [n_cliques] buffers still to pack; at the start */
	uint32_t *end_of, *start_of; /* [n_cliques] of the run that begins, that ends here */
	uint32_t *next_open;      /* [n + 1] the first open buffer from i on, found through others (path
								 halving) */
	uint32_t *order, *rank;   /* [n] by key, and its inverse */
	uint32_t *cands;          /* [n] ranks */
	cx__pack_key *keys, *tmp; /* [n] */
};

cx_status cx__pack_valley_create(
	cx_arena *ar, const cx__pack_prob *p, cx__pack_valley **out, cx_err *err)
{
	cx__pack_valley *v = cx_arena_alloc(ar, sizeof *v);
	size_t nc = (size_t)p->n_cliques + 1;
	bool ok;
	if (!v) goto no_memory;
	v->p = p;
	ok = (v->height = cx_arena_array(ar, nc, sizeof *v->height)) &&
		 (v->n_open = cx_arena_array(ar, nc, sizeof *v->n_open)) &&
		 (v->members = cx_arena_array(ar, nc, sizeof *v->members)) &&
		 (v->end_of = cx_arena_array(ar, nc, sizeof *v->end_of)) &&
		 (v->start_of = cx_arena_array(ar, nc, sizeof *v->start_of)) &&
		 (v->next_open = cx_arena_array(ar, (size_t)p->n + 1, sizeof *v->next_open)) &&
		 (v->order = cx_arena_array(ar, p->n, sizeof *v->order)) &&
		 (v->rank = cx_arena_array(ar, p->n, sizeof *v->rank)) &&
		 (v->cands = cx_arena_array(ar, p->n, sizeof *v->cands)) &&
		 (v->keys = cx_arena_array(ar, p->n, sizeof *v->keys)) &&
		 (v->tmp = cx_arena_array(ar, p->n, sizeof *v->tmp));
	if (!ok) goto no_memory;
	for (uint32_t i = 0; i < p->n; i++)
		for (uint32_t c = p->lo[i]; c < p->hi[i]; c++) v->members[c]++;
	*out = v;
	return CX_OK;
no_memory:
	return CX_FAIL(err, CX_ERR_MEMORY, "pack: no memory for scratch");
}

/* ---- runs ---- */

static int64_t height_at(const cx__pack_valley *v, uint32_t c)
{
	return c < v->p->n_cliques ? v->height[c] : WALL; /* c - 1 with c == 0 wraps: outside as well */
}

/* What is still at `height` in [a, z) can hold no buffer: it rises to the lower of its walls. Then
 * [a, z), which was one run, becomes runs of equal height, and the outer ones join equal
 * neighbours. Gives the start of the first. */
static uint32_t remake_runs(cx__pack_valley *v, uint32_t a, uint32_t z, int64_t height)
{
	uint32_t first;
	for (uint32_t c = a, end; c < z; c = end) {
		int64_t left, right;
		end = c + 1;
		if (v->height[c] != height) continue;
		while (end < z && v->height[end] == height) end++;
		left = height_at(v, c - 1);
		right = height_at(v, end);
		for (uint32_t k = c; k < end; k++) v->height[k] = left < right ? left : right;
	}
	if (height_at(v, a - 1) == v->height[a] && a > 0) a = v->start_of[a - 1];
	if (z < v->p->n_cliques && v->height[z] == v->height[z - 1]) z = v->end_of[z];
	first = a;
	for (uint32_t c = a, end; c < z; c = end) {
		for (end = c + 1; end < z && v->height[end] == v->height[c];) end++;
		v->end_of[c] = end;
		v->start_of[end - 1] = c;
	}
	return first;
}

/* ---- filling a valley ---- */

static uint32_t find_open(cx__pack_valley *v, uint32_t i)
{
	while (v->next_open[i] != i) {
		v->next_open[i] = v->next_open[v->next_open[i]];
		i = v->next_open[i];
	}
	return i;
}

static int rank_cmp(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
	return x < y ? -1 : x > y;
}

/* The ranks of the open buffers that lie in cliques [a, z), smallest first. */
static uint32_t list_cands(cx__pack_valley *v, uint32_t a, uint32_t z)
{
	const cx__pack_prob *p = v->p;
	uint32_t n = 0, start = p->first[a], end = p->first[z];
	if (end - start > p->n / 4) { /* so many: rather walk all in order than sort them */
		for (uint32_t r = 0; r < p->n; r++) {
			uint32_t i = v->order[r];
			if (v->next_open[i] == i && i >= start && p->hi[i] <= z) v->cands[n++] = r;
		}
		return n;
	}
	for (uint32_t i = find_open(v, start); i < end; i = find_open(v, i + 1))
		if (p->hi[i] <= z) v->cands[n++] = v->rank[i];
	if (n > 32) {
		qsort(v->cands, n, sizeof *v->cands, rank_cmp);
		return n;
	}
	for (uint32_t k = 1; k < n; k++) {
		uint32_t r = v->cands[k], j = k;
		for (; j > 0 && v->cands[j - 1] > r; j--) v->cands[j] = v->cands[j - 1];
		v->cands[j] = r;
	}
	return n;
}

/* The ends first: a buffer packed before is most often in the way there. */
static bool is_flat(const cx__pack_valley *v, uint32_t lo, uint32_t hi, int64_t height)
{
	if (v->height[hi - 1] != height) return false;
	for (uint32_t c = lo; c < hi; c++)
		if (v->height[c] != height) return false;
	return true;
}

/* Packs what fits side by side on the valley [a, z). */
static void fill(cx__pack_valley *v, uint32_t a, uint32_t z, int64_t height, int64_t *off)
{
	const cx__pack_prob *p = v->p;
	uint32_t n = list_cands(v, a, z);
	for (uint32_t k = 0; k < n; k++) {
		uint32_t i = v->order[v->cands[k]];
		int64_t end;
		if (!is_flat(v, p->lo[i], p->hi[i], height)) continue;
		off[i] = cx__pack_align(height, p->align[i]);
		end = off[i] + p->size[i];
		for (uint32_t c = p->lo[i]; c < p->hi[i]; c++) v->height[c] = --v->n_open[c] ? end : WALL;
		v->next_open[i] = i + 1;
	}
}

static void start(cx__pack_valley *v, const double *key)
{
	const cx__pack_prob *p = v->p;
	cx__pack_key *sorted;
	uint64_t max_key = 0;
	for (uint32_t i = 0; i < p->n; i++) {
		v->keys[i] = (cx__pack_key){(uint64_t)((key[i] + 4.0) * 268435456.0), i};
		if (v->keys[i].key > max_key) max_key = v->keys[i].key;
	}
	sorted = cx__pack_sort(v->keys, v->tmp, p->n, max_key);
	for (uint32_t r = 0; r < p->n; r++) {
		v->order[r] = sorted[r].val;
		v->rank[sorted[r].val] = r;
	}
	memcpy(v->n_open, v->members, p->n_cliques * sizeof *v->n_open);
	memset(v->height, 0, p->n_cliques * sizeof *v->height);
	for (uint32_t i = 0; i <= p->n; i++) v->next_open[i] = i;
	v->end_of[0] = p->n_cliques;
	if (p->n_cliques) v->start_of[p->n_cliques - 1] = 0;
}

int64_t cx__pack_valley_run(cx__pack_valley *v, const double *key, int64_t *off)
{
	const cx__pack_prob *p = v->p;
	int64_t peak = 0;
	start(v, key);
	for (uint32_t a = 0; a < p->n_cliques;) {
		uint32_t z = v->end_of[a];
		int64_t height = v->height[a];
		if (height_at(v, a - 1) < height) {
			a = v->start_of[a - 1];
		} else if (height == WALL) {
			a = z; /* and all before it is done */
		} else if (height_at(v, z) < height) {
			a = z;
		} else {
			fill(v, a, z, height, off);
			a = remake_runs(v, a, z, height);
		}
	}
	for (uint32_t i = 0; i < p->n; i++)
		if (off[i] + p->size[i] > peak) peak = off[i] + p->size[i];
	return peak;
}
