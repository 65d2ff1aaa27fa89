/* pack_greedy.c - packings made in one go, one buffer after the other.
 *
 * In: the reduced problem.   Out: p->off, p->peak: the best of several packings.
 *
 * By time: buffers in order of birth, each into the tightest hole that is free at that moment, O(n
 * * holes): perfect for most chains. From the ground up (pack_valley.c) with several orders. By
 * size, each into the lowest hole that is free for its whole life, was tried as well: it never won
 * against these two and took longer. */
#include "graph/pack_impl.h"

#include <string.h>

#define HUGE_HOLE (INT64_MAX / 2) /* above any sum of sizes that cx_pack() lets in */
/* Items up to which every order is tried; above, the one that wins most often. */
#define ALL_ORDERS_MAX 3000u
/* Pairs of overlapping buffers for each buffer, up to which packing from the ground up is
 * affordable. */
#define PAIRS_EACH_MAX 512u

/* ---- by time ---- */

typedef struct holes {
	int64_t *start, *len; /* [n], ascending, none adjacent; the last is endless */
	uint32_t n;
} holes;

static void hole_insert(holes *h, uint32_t at, int64_t start, int64_t len)
{
	memmove(h->start + at + 1, h->start + at, (h->n - at) * sizeof *h->start);
	memmove(h->len + at + 1, h->len + at, (h->n - at) * sizeof *h->len);
	h->start[at] = start;
	h->len[at] = len;
	h->n++;
}

static void hole_remove(holes *h, uint32_t at)
{
	h->n--;
	memmove(h->start + at, h->start + at + 1, (h->n - at) * sizeof *h->start);
	memmove(h->len + at, h->len + at + 1, (h->n - at) * sizeof *h->len);
}

static void hole_release(holes *h, int64_t start, int64_t len)
{
	uint32_t a = 0, b = h->n;
	while (a < b) {
		uint32_t m = (a + b) / 2;
		if (h->start[m] < start) a = m + 1;
		else b = m;
	}
	/* a is the first hole above; the endless one always is */
	if (a > 0 && h->start[a - 1] + h->len[a - 1] == start) {
		h->len[a - 1] += len;
		if (h->start[a] == start + len) {
			h->len[a - 1] += h->len[a];
			hole_remove(h, a);
		}
	} else if (h->start[a] == start + len) {
		h->start[a] = start;
		h->len[a] += len;
	} else {
		hole_insert(h, a, start, len);
	}
}

static int64_t hole_take(holes *h, int64_t size, int64_t align)
{
	uint32_t best = h->n - 1;
	int64_t best_len = INT64_MAX, start, pad, rest;
	for (uint32_t i = 0; i + 1 < h->n; i++) {
		if (h->len[i] < size || h->len[i] >= best_len) continue;
		pad = cx__pack_align(h->start[i], align) - h->start[i];
		if (h->len[i] - pad < size) continue;
		best = i;
		best_len = h->len[i];
	}
	pad = cx__pack_align(h->start[best], align) - h->start[best];
	start = h->start[best] + pad;
	rest = h->len[best] - pad - size;
	if (pad) {
		h->len[best] = pad;
		if (rest) hole_insert(h, best + 1, start + size, rest);
	} else if (rest) {
		h->start[best] += size;
		h->len[best] = rest;
	} else {
		hole_remove(h, best);
	}
	return start;
}

/* Returns the peak. */
static int64_t pack_by_time(const cx__pack_prob *p, holes *h, int64_t *off)
{
	uint32_t dead = 0;
	int64_t peak = 0;
	h->n = 1;
	h->start[0] = 0;
	h->len[0] = HUGE_HOLE;
	for (uint32_t i = 0; i < p->n; i++) {
		while (p->hi[p->by_end[dead]] <= p->lo[i]) {
			uint32_t d = p->by_end[dead++];
			hole_release(h, off[d], p->size[d]);
		}
		off[i] = hole_take(h, p->size[i], p->align[i]);
		if (off[i] + p->size[i] > peak) peak = off[i] + p->size[i];
	}
	return peak;
}

/* ---- from the ground up ---- */

typedef enum order_kind { BY_LOAD, BY_AREA, BY_WIDTH, BY_SIZE, N_ORDERS } order_kind;

/* Smallest key first, all in [-1, 0]. Load: the most bytes alive at once during the life, so that
 * the busiest moments are packed while all is still empty, with some weight for size. */
static void set_keys(const cx__pack_prob *p, order_kind kind, double *key)
{
	double least = 0.0;
	for (uint32_t i = 0; i < p->n; i++) {
		double size = (double)p->size[i], width = (double)p->width[i];
		int64_t load = 0;
		switch (kind) {
		case BY_SIZE:
			key[i] = -size;
			break;
		case BY_AREA:
			key[i] = -size * width;
			break;
		case BY_WIDTH:
			key[i] = -width;
			break;
		default:
			for (uint32_t c = p->lo[i]; c < p->hi[i]; c++)
				if (p->load[c] > load) load = p->load[c];
			key[i] = -(double)load * 4.0 - size;
		}
		if (key[i] < least) least = key[i];
	}
	if (least < 0.0)
		for (uint32_t i = 0; i < p->n; i++) key[i] /= -least;
}

/* Members of cliques; 1 for a buffer that is in one clique. */
static uint64_t count_spans(const cx__pack_prob *p)
{
	uint64_t n = 0;
	for (uint32_t i = 0; i < p->n; i++) n += p->hi[i] - p->lo[i];
	return n;
}

static void keep_better(cx__pack_prob *p, int64_t peak, const int64_t *off)
{
	if (peak >= p->peak) return;
	p->peak = peak;
	memcpy(p->off, off, p->n * sizeof *p->off);
}

cx_status cx__pack_greedy(cx_arena *ar, cx__pack_prob *p, int64_t target, cx_err *err)
{
	holes h = {0};
	cx__pack_valley *v;
	double *key;
	int64_t *off;
	cx_status st;

	h.start = cx_arena_array(ar, (size_t)p->n + 2, sizeof *h.start);
	h.len = cx_arena_array(ar, (size_t)p->n + 2, sizeof *h.len);
	if (!h.start || !h.len) return CX_FAIL(err, CX_ERR_MEMORY, "pack: no memory for scratch");
	p->peak = pack_by_time(p, &h, p->off);
	if (p->peak <= target || count_spans(p) > (uint64_t)p->n * PAIRS_EACH_MAX) return CX_OK;

	if ((st = cx__pack_valley_create(ar, p, &v, err)) != CX_OK) return st;
	key = cx_arena_array(ar, p->n, sizeof *key);
	off = cx_arena_array(ar, p->n, sizeof *off);
	if (!key || !off) return CX_FAIL(err, CX_ERR_MEMORY, "pack: no memory for scratch");
	for (int kind = 0; kind < (p->n <= ALL_ORDERS_MAX ? N_ORDERS : 1) && p->peak > target; kind++) {
		set_keys(p, (order_kind)kind, key);
		keep_better(p, cx__pack_valley_run(v, key, off), off);
	}
	return CX_OK;
}

/* Squeaky wheel (Joslin and Clements, JAIR 10, 1999): after each packing the buffers that stick out
 * above the target move forward in the order, the more the more often they did. */
cx_status cx__pack_regreedy(
	cx_arena *ar, cx__pack_prob *p, int64_t target, cx__pack_budget *b, cx_err *err)
{
	/* a round takes time for each clique of each buffer, and a search step of the same cost is one
	 * node */
	uint64_t cost = p->n / 4 + count_spans(p) / 64 + 1;
	double *base[N_ORDERS], *blame[N_ORDERS], *key;
	cx__pack_valley *v;
	int64_t *off;
	cx_status st;
	if ((st = cx__pack_valley_create(ar, p, &v, err)) != CX_OK) return st;
	key = cx_arena_array(ar, p->n, sizeof *key);
	off = cx_arena_array(ar, p->n, sizeof *off);
	for (int k = 0; k < N_ORDERS; k++) {
		base[k] = cx_arena_array(ar, p->n, sizeof *base[k]);
		blame[k] = cx_arena_array(ar, p->n, sizeof *blame[k]);
		if (!base[k] || !blame[k] || !key || !off)
			return CX_FAIL(err, CX_ERR_MEMORY, "pack: no memory for scratch");
		set_keys(p, (order_kind)k, base[k]);
	}
	for (unsigned round = 0; p->peak > target && !cx__pack_spent(b); round++) {
		unsigned k = round % N_ORDERS;
		if (b->max_nodes - b->nodes < cost) {
			b->nodes = b->max_nodes;
			break;
		}
		b->nodes += cost;
		for (uint32_t i = 0; i < p->n; i++) key[i] = base[k][i] - blame[k][i];
		keep_better(p, cx__pack_valley_run(v, key, off), off);
		for (uint32_t i = 0; i < p->n; i++) {
			blame[k][i] *= 0.9;
			if (off[i] + p->size[i] > target) blame[k][i] += 0.125;
		}
	}
	return CX_OK;
}
