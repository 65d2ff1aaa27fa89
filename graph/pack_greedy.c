/* pack_greedy.c - packings made in one go, one buffer after the other.
 *
 * In: the reduced problem.   Out: p->off, p->peak: the best of several packings.
 *
 * By time: buffers in order of birth, each into the tightest hole that is free at that moment; O(n * holes).
 * By order: buffers in a given order (largest first and so on), each into the lowest or the tightest hole that is
 * free for its whole life. Buffers that overlap a buffer are listed once: those alive at its birth explicitly, those
 * born later as a range of indices with a bit per buffer already placed. Work is then proportional to the pairs that
 * overlap, few for graphs; when they are too many only the first kind runs. */
#include "graph/pack_impl.h"

#include <stdlib.h>
#include <string.h>

#define HUGE_HOLE (INT64_MAX / 2) /* above any sum of sizes that cx_pack() lets in */
/* Overlapping pairs up to which the packers by order are affordable without a budget: about 10 ms. */
#define PAIRS_MAX 1000000u
/* Items up to which every order is tried; above, the two that win most often. */
#define ALL_ORDERS_MAX 3000u

/* ---- by time ---------------------------------------------------------------------------------------------- */

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

/* ---- by order --------------------------------------------------------------------------------------------- */

typedef struct span {
	int64_t off, end;
} span;

typedef struct packer {
	cx__pack_prob *p;
	uint32_t *older;    /* [pairs] items alive at the birth of item i, born before it: */
	uint32_t *older_at; /* [n + 1] where i's begin */
	uint64_t *placed;   /* [n / 64 + 1] bits */
	uint32_t *order;    /* [n] */
	double *key;        /* [n] smallest first */
	int64_t *off;       /* [n] of the packing being made */
	span *busy;         /* [n] */
} packer;

static uint64_t count_pairs(const cx__pack_prob *p)
{
	uint64_t n = 0;
	for (uint32_t i = 0; i < p->n; i++) n += p->first[p->hi[i]] - i - 1;
	return n;
}

static cx_status packer_init(cx_arena *ar, cx__pack_prob *p, uint64_t n_pairs, packer *k, cx_err *err)
{
	uint32_t *fill;
	k->p = p;
	k->older = cx_arena_array(ar, n_pairs, sizeof *k->older);
	k->older_at = cx_arena_array(ar, (size_t)p->n + 1, sizeof *k->older_at);
	k->placed = cx_arena_array(ar, p->n / 64 + 1, sizeof *k->placed);
	k->order = cx_arena_array(ar, p->n, sizeof *k->order);
	k->key = cx_arena_array(ar, p->n, sizeof *k->key);
	k->off = cx_arena_array(ar, p->n, sizeof *k->off);
	k->busy = cx_arena_array(ar, p->n, sizeof *k->busy);
	fill = cx_arena_array(ar, (size_t)p->n + 1, sizeof *fill);
	if (!k->older || !k->older_at || !k->placed || !k->order || !k->key || !k->off || !k->busy || !fill)
		return CX_FAIL(err, CX_ERR_MEMORY, "pack: no memory for scratch");
	/* i is older than j for j in (i, first[hi[i]]): a difference array counts, then each i is written to its js */
	for (uint32_t i = 0; i < p->n; i++) {
		k->older_at[i + 1]++;
		k->older_at[p->first[p->hi[i]]]--; /* index n at most; wraps, and wraps back in the sums */
	}
	{
		uint32_t n_older = 0, total = 0, delta;
		for (uint32_t j = 0; j <= p->n; j++) {
			delta = k->older_at[j];
			n_older += delta;
			k->older_at[j] = fill[j] = total;
			if (j < p->n) total += n_older;
		}
	}
	for (uint32_t i = 0; i < p->n; i++)
		for (uint32_t j = i + 1; j < p->first[p->hi[i]]; j++) k->older[fill[j]++] = i;
	return CX_OK;
}

static int span_cmp(const void *a, const void *b)
{
	int64_t x = ((const span *)a)->off, y = ((const span *)b)->off;
	return x < y ? -1 : x > y;
}

/* The bytes taken during the life of item i, in order of offset. */
static uint32_t gather(packer *k, uint32_t i)
{
	const cx__pack_prob *p = k->p;
	uint32_t n = 0, end = p->first[p->hi[i]];
	for (uint32_t a = k->older_at[i]; a < k->older_at[i + 1]; a++) {
		uint32_t j = k->older[a];
		if (k->placed[j / 64] >> (j & 63) & 1) k->busy[n++] = (span){k->off[j], k->off[j] + p->size[j]};
	}
	for (uint32_t w = (i + 1) / 64; w * 64 < end; w++) {
		uint64_t bits = k->placed[w];
		if (w == (i + 1) / 64) bits &= ~(uint64_t)0 << ((i + 1) & 63);
		if (end - w * 64 < 64) bits &= ((uint64_t)1 << (end - w * 64)) - 1;
		for (; bits; bits &= bits - 1) {
			uint32_t j = w * 64 + (uint32_t)__builtin_ctzll(bits);
			k->busy[n++] = (span){k->off[j], k->off[j] + p->size[j]};
		}
	}
	if (n > 48) {
		qsort(k->busy, n, sizeof *k->busy, span_cmp);
		return n;
	}
	for (uint32_t a = 1; a < n; a++) {
		span s = k->busy[a];
		uint32_t b = a;
		for (; b > 0 && k->busy[b - 1].off > s.off; b--) k->busy[b] = k->busy[b - 1];
		k->busy[b] = s;
	}
	return n;
}

static int64_t place(packer *k, uint32_t i, bool tightest)
{
	const cx__pack_prob *p = k->p;
	uint32_t n = gather(k, i);
	int64_t free_from = 0, best = -1, best_room = INT64_MAX;
	for (uint32_t a = 0; a < n; a++) {
		if (k->busy[a].off > free_from) {
			int64_t at = cx__pack_align(free_from, p->align[i]), room = k->busy[a].off - at;
			if (room >= p->size[i] && room < best_room) {
				best = at;
				best_room = room;
				if (!tightest) break;
			}
		}
		if (k->busy[a].end > free_from) free_from = k->busy[a].end;
	}
	return best >= 0 ? best : cx__pack_align(free_from, p->align[i]);
}

/* Packs in k->order and keeps the result if it is better; gives up once it cannot be (unless `whole`). Returns the
 * peak. */
static int64_t pack_in_order(packer *k, bool tightest, bool whole)
{
	cx__pack_prob *p = k->p;
	int64_t peak = 0;
	memset(k->placed, 0, (p->n / 64 + 1) * sizeof *k->placed);
	for (uint32_t a = 0; a < p->n; a++) {
		uint32_t i = k->order[a];
		k->off[i] = place(k, i, tightest);
		k->placed[i / 64] |= (uint64_t)1 << (i & 63);
		if (k->off[i] + p->size[i] > peak) peak = k->off[i] + p->size[i];
		if (!whole && peak >= p->peak) return peak;
	}
	if (peak < p->peak) {
		memcpy(p->off, k->off, p->n * sizeof *p->off);
		p->peak = peak;
	}
	return peak;
}

/* ---- orders ----------------------------------------------------------------------------------------------- */

typedef struct keyed {
	double key;
	uint32_t i;
} keyed;

static int keyed_cmp(const void *a, const void *b)
{
	const keyed *x = a, *y = b;
	if (x->key != y->key) return x->key < y->key ? -1 : 1;
	return x->i < y->i ? -1 : x->i > y->i; /* total, so that every qsort gives the same order */
}

static void order_by_key(packer *k, keyed *tmp)
{
	for (uint32_t i = 0; i < k->p->n; i++) tmp[i] = (keyed){k->key[i], i};
	qsort(tmp, k->p->n, sizeof *tmp, keyed_cmp);
	for (uint32_t i = 0; i < k->p->n; i++) k->order[i] = tmp[i].i;
}

typedef enum order_kind { BY_SIZE, BY_LOAD, BY_AREA, BY_WIDTH, N_ORDERS } order_kind;

/* Smallest key first. Load: the most bytes alive at once during the life, so that the busiest moments are packed
 * while all is still empty; size decides among equals. */
static void set_keys(packer *k, order_kind kind)
{
	const cx__pack_prob *p = k->p;
	double size_max = 1.0;
	for (uint32_t i = 0; i < p->n; i++)
		if ((double)p->size[i] > size_max) size_max = (double)p->size[i];
	for (uint32_t i = 0; i < p->n; i++) {
		double size = (double)p->size[i], width = (double)p->width[i], load = 0.0;
		switch (kind) {
		case BY_SIZE: k->key[i] = -size; break;
		case BY_AREA: k->key[i] = -size * width; break;
		case BY_WIDTH: k->key[i] = -width - size / (size_max * 2.0); break;
		default:
			for (uint32_t c = p->lo[i]; c < p->hi[i]; c++)
				if ((double)p->load[c] > load) load = (double)p->load[c];
			k->key[i] = -load * 4.0 - size;
		}
	}
}

cx_status cx__pack_greedy(cx_arena *ar, cx__pack_prob *p, int64_t target, cx_err *err)
{
	uint64_t n_pairs = count_pairs(p);
	holes h = {0};
	packer k = {0};
	keyed *tmp;
	cx_status st;

	h.start = cx_arena_array(ar, (size_t)p->n + 2, sizeof *h.start);
	h.len = cx_arena_array(ar, (size_t)p->n + 2, sizeof *h.len);
	if (!h.start || !h.len) return CX_FAIL(err, CX_ERR_MEMORY, "pack: no memory for scratch");
	p->peak = pack_by_time(p, &h, p->off);
	if (p->peak <= target || n_pairs > PAIRS_MAX) return CX_OK;

	if ((st = packer_init(ar, p, n_pairs, &k, err)) != CX_OK) return st;
	if (!(tmp = cx_arena_array(ar, p->n, sizeof *tmp)))
		return CX_FAIL(err, CX_ERR_MEMORY, "pack: no memory for scratch");
	for (int kind = 0; kind < (p->n <= ALL_ORDERS_MAX ? N_ORDERS : BY_LOAD + 1); kind++) {
		set_keys(&k, (order_kind)kind);
		order_by_key(&k, tmp);
		for (int tightest = 0; tightest < 2; tightest++) {
			if (p->peak > target) pack_in_order(&k, tightest, false);
			if (p->n > ALL_ORDERS_MAX) break;
		}
	}
	return CX_OK;
}

/* Squeaky wheel: after each packing the buffers that stick out above the target move forward in the order, by an
 * amount that grows with how often they did. */
cx_status cx__pack_regreedy(cx_arena *ar, cx__pack_prob *p, int64_t target, cx__pack_budget *b, cx_err *err)
{
	uint64_t n_pairs = count_pairs(p);
	packer k = {0};
	keyed *tmp;
	double *blame;
	cx_status st;
	/* beyond, one round would take seconds; the budget is spent, so that callers do not ask again */
	if (n_pairs > 100 * (uint64_t)PAIRS_MAX || b->max_nodes - b->nodes < p->n) {
		b->nodes = b->max_nodes;
		return CX_OK;
	}
	if ((st = packer_init(ar, p, n_pairs, &k, err)) != CX_OK) return st;
	tmp = cx_arena_array(ar, p->n, sizeof *tmp);
	blame = cx_arena_array(ar, p->n, sizeof *blame);
	if (!tmp || !blame) return CX_FAIL(err, CX_ERR_MEMORY, "pack: no memory for scratch");
	for (unsigned round = 0; p->peak > target && !cx__pack_spent(b); round++) {
		set_keys(&k, (order_kind)(round % N_ORDERS));
		order_by_key(&k, tmp);
		for (uint32_t a = 0; a < p->n; a++)
			k.key[k.order[a]] = (double)a / p->n - blame[k.order[a]];
		order_by_key(&k, tmp);
		pack_in_order(&k, round / N_ORDERS & 1, true);
		for (uint32_t i = 0; i < p->n; i++) {
			blame[i] *= 0.9;
			if (k.off[i] + p->size[i] > target) blame[i] += 0.25;
		}
		b->nodes += p->n;
	}
	return CX_OK;
}
