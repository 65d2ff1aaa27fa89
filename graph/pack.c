/* pack.c - cx_pack(): checks, the reduced problem, and the loop that lowers the peak.
 *
 * In: items with lifetimes and sizes.   Out: offsets, and what is known about the peak.
 *
 * Time is reduced to cliques (the maximal sets alive at once), sizes to units, and the problem to
 * pieces that no lifetime connects. Greedy packing comes first; pieces above the target are then
 * searched, target by target. */
#include "graph/pack_impl.h"

#include <string.h>
#include <time.h>

#define SIZE_LIMIT ((uint64_t)1 << 61)

uint64_t cx__pack_now_us(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000u + (uint64_t)t.tv_nsec / 1000u;
}

bool cx__pack_spent(const cx__pack_budget *b)
{
	return b->nodes >= b->max_nodes || (b->end_us != UINT64_MAX && cx__pack_now_us() >= b->end_us);
}

static cx_status no_memory(cx_err *err)
{
	return CX_FAIL(err, CX_ERR_MEMORY, "pack: no memory for scratch");
}

static cx_status check_items(const cx_pack_item *items, size_t n, cx_err *err)
{
	uint64_t sum = 0;
	if (n >= UINT32_MAX / 4)
		return CX_FAIL(err, CX_ERR_ARGUMENT, "pack: %zu items are too many", n);
	for (size_t i = 0; i < n; i++) {
		const cx_pack_item *it = &items[i];
		uint64_t align = it->align ? it->align : 1, padded;
		if (it->lower >= it->upper || (it->lower < 0 && it->upper > INT64_MAX + it->lower))
			return CX_FAIL(err, CX_ERR_ARGUMENT,
				"pack: item %lld lives from %lld to %lld, which is no lifetime", (long long)it->id,
				(long long)it->lower, (long long)it->upper);
		if (align & (align - 1))
			return CX_FAIL(err, CX_ERR_ARGUMENT,
				"pack: item %lld has alignment %llu, which is not a power of two",
				(long long)it->id, (unsigned long long)align);
		if (it->size >= SIZE_LIMIT || align >= SIZE_LIMIT ||
			!cx_add_u64(it->size, align - 1, &padded) || !cx_add_u64(sum, padded, &sum) ||
			sum >= SIZE_LIMIT)
			return CX_FAIL(err, CX_ERR_ARGUMENT,
				"pack: with item %lld the sizes sum to more than 2^61 bytes", (long long)it->id);
	}
	return CX_OK;
}

/* ---- the reduced problem ---- */

/* Least significant byte first: small times cost one or two passes, where qsort was half of the run
 * time of a 10,000-item problem. */
cx__pack_key *cx__pack_sort(cx__pack_key *a, cx__pack_key *tmp, size_t n, uint64_t max_key)
{
	for (unsigned shift = 0; shift < 64 && max_key >> shift; shift += 8) {
		size_t count[257] = {0};
		cx__pack_key *swap;
		for (size_t i = 0; i < n; i++) count[(a[i].key >> shift & 255) + 1]++;
		for (unsigned d = 0; d < 256; d++) count[d + 1] += count[d];
		for (size_t i = 0; i < n; i++) tmp[count[a[i].key >> shift & 255]++] = a[i];
		swap = a;
		a = tmp;
		tmp = swap;
	}
	return a;
}

static uint64_t gcd(uint64_t a, uint64_t b)
{
	while (b) {
		uint64_t t = a % b;
		a = b;
		b = t;
	}
	return a;
}

/* All offsets are multiples of the smallest alignment, so rounding sizes up to it loses nothing. */
static uint64_t least_align(const cx_pack_item *items, size_t n)
{
	uint64_t least = UINT64_MAX;
	for (size_t i = 0; i < n; i++) {
		uint64_t align = items[i].align ? items[i].align : 1;
		if (items[i].size && align < least) least = align;
	}
	return least == UINT64_MAX ? 1 : least;
}

static uint64_t round_size(const cx_pack_item *it, uint64_t least)
{
	return (it->size + least - 1) & ~(least - 1);
}

/* The largest unit in which every rounded size and every offset that matters is whole. */
static uint64_t find_unit(const cx_pack_item *items, size_t n, uint64_t least)
{
	uint64_t unit = 0;
	for (size_t i = 0; i < n; i++)
		if (items[i].size) unit = gcd(round_size(&items[i], least), unit);
	for (size_t i = 0; i < n; i++)
		if (items[i].size && items[i].align > 1 && unit % items[i].align)
			unit = gcd(items[i].align, unit);
	return unit ? unit : 1;
}

static cx_status prob_alloc(cx_arena *ar, size_t n, cx__pack_prob *p, cx_err *err)
{
	p->size = cx_arena_array(ar, n, sizeof *p->size);
	p->align = cx_arena_array(ar, n, sizeof *p->align);
	p->width = cx_arena_array(ar, n, sizeof *p->width);
	p->lo = cx_arena_array(ar, n, sizeof *p->lo);
	p->hi = cx_arena_array(ar, n, sizeof *p->hi);
	p->item = cx_arena_array(ar, n, sizeof *p->item);
	p->by_end = cx_arena_array(ar, n, sizeof *p->by_end);
	p->first = cx_arena_array(ar, n + 1, sizeof *p->first); /* no more cliques than items */
	p->load = cx_arena_array(ar, n, sizeof *p->load);
	p->off = cx_arena_array(ar, n, sizeof *p->off);
	if (!p->size || !p->align || !p->width || !p->lo || !p->hi || !p->item || !p->by_end ||
		!p->first || !p->load || !p->off)
		return no_memory(err);
	return CX_OK;
}

/* Walks births and deaths in order of time, deaths first: a clique is complete when a death follows
 * a birth. */
static void find_cliques(const cx_pack_item *items, cx__pack_prob *p)
{
	uint32_t born = 0, died = 0;
	int64_t live = 0;
	bool fresh = false; /* something was born since the last clique */
	while (died < p->n) {
		uint32_t d = p->by_end[died];
		if (born < p->n && items[p->item[born]].lower < items[p->item[d]].upper) {
			if (!fresh) p->first[p->n_cliques] = born;
			p->lo[born] = p->n_cliques;
			live += p->size[born++];
			fresh = true;
			continue;
		}
		if (fresh) {
			p->load[p->n_cliques++] = live;
			if (live > p->bound) p->bound = live;
			fresh = false;
		}
		p->hi[d] = p->n_cliques;
		live -= p->size[d];
		died++;
	}
	p->first[p->n_cliques] = p->n;
}

static cx_status prob_build(
	cx_arena *ar, const cx_pack_item *items, size_t n, cx__pack_prob *p, cx_err *err)
{
	uint64_t least = least_align(items, n), max_lo = 0, max_hi = 0;
	int64_t min_lo = INT64_MAX, min_hi = INT64_MAX;
	cx__pack_key *a, *tmp, *sorted;
	cx_status st;
	size_t m = 0;

	memset(p, 0, sizeof *p);
	p->unit = (int64_t)find_unit(items, n, least);
	if ((st = prob_alloc(ar, n, p, err)) != CX_OK) return st;
	a = cx_arena_array(ar, n, sizeof *a);
	tmp = cx_arena_array(ar, n, sizeof *tmp);
	if (!a || !tmp) return no_memory(err);

	for (size_t i = 0; i < n; i++) {
		if (!items[i].size) continue;
		if (items[i].lower < min_lo) min_lo = items[i].lower;
		if (items[i].upper < min_hi) min_hi = items[i].upper;
	}
	for (size_t i = 0; i < n; i++) {
		if (!items[i].size) continue;
		a[m] = (cx__pack_key){(uint64_t)items[i].lower - (uint64_t)min_lo, (uint32_t)i};
		if (a[m].key > max_lo) max_lo = a[m].key;
		m++;
	}
	p->n = (uint32_t)m;
	sorted = cx__pack_sort(a, tmp, m, max_lo);
	for (size_t i = 0; i < m; i++) {
		const cx_pack_item *it = &items[sorted[i].val];
		p->item[i] = sorted[i].val;
		p->size[i] = (int64_t)(round_size(it, least) / (uint64_t)p->unit);
		p->align[i] = it->align > (uint64_t)p->unit ? (int64_t)(it->align / (uint64_t)p->unit) : 1;
		p->width[i] = it->upper - it->lower;
		if (p->align[i] > 1) p->any_align = true;
	}
	for (size_t i = 0; i < m; i++) {
		a[i] = (cx__pack_key){(uint64_t)items[p->item[i]].upper - (uint64_t)min_hi, (uint32_t)i};
		if (a[i].key > max_hi) max_hi = a[i].key;
	}
	sorted = cx__pack_sort(a, tmp, m, max_hi);
	for (size_t i = 0; i < m; i++) p->by_end[i] = sorted[i].val;
	find_cliques(items, p);
	return CX_OK;
}

/* ---- pieces: stretches of time that no lifetime connects ---- */

typedef struct piece {
	cx__pack_prob p;         /* arrays of the whole problem, shifted; own clique numbers */
	cx__pack_search *search; /* NULL until needed */
	bool proven;             /* no packing below p.peak */
} piece;

/* The piece of items [i0, i1), which fill cliques [c0, c1) and no other. Numbers inside start from
 * 0. */
static cx_status piece_build(cx_arena *ar, const cx__pack_prob *p, uint32_t i0, uint32_t i1,
	uint32_t c0, uint32_t c1, piece *out, cx_err *err)
{
	cx__pack_prob *q = &out->p;
	*q = *p;
	q->n = i1 - i0;
	q->n_cliques = c1 - c0;
	q->size += i0;
	q->align += i0;
	q->width += i0;
	q->item += i0;
	q->off += i0;
	q->load += c0;
	q->bound = q->peak = 0;
	for (uint32_t c = 0; c < q->n_cliques; c++)
		if (q->load[c] > q->bound) q->bound = q->load[c];
	for (uint32_t i = 0; i < q->n; i++)
		if (q->off[i] + q->size[i] > q->peak) q->peak = q->off[i] + q->size[i];
	/* cut at clique boundaries, items die inside their piece: by_end of the whole is in order of
	 * pieces too */
	q->by_end = cx_arena_array(ar, q->n, sizeof *q->by_end);
	q->lo = cx_arena_array(ar, q->n, sizeof *q->lo);
	q->hi = cx_arena_array(ar, q->n, sizeof *q->hi);
	q->first = cx_arena_array(ar, q->n_cliques + 1, sizeof *q->first);
	if (!q->by_end || !q->lo || !q->hi || !q->first) return no_memory(err);
	for (uint32_t i = 0; i < q->n; i++) {
		q->by_end[i] = p->by_end[i0 + i] - i0;
		q->lo[i] = p->lo[i0 + i] - c0;
		q->hi[i] = p->hi[i0 + i] - c0;
	}
	for (uint32_t c = 0; c <= q->n_cliques; c++) q->first[c] = p->first[c0 + c] - i0;
	return CX_OK;
}

/* Pieces whose peak is above the largest of all bounds: the others can stay as they are. */
static cx_status find_pieces(
	cx_arena *ar, const cx__pack_prob *p, piece **out, uint32_t *n_out, cx_err *err)
{
	uint32_t n = 0, n_max = 0, start = 0, reach = 0;
	piece *pieces;
	for (uint32_t c = 0; c < p->n_cliques; c++) {
		for (uint32_t i = p->first[c]; i < p->first[c + 1]; i++)
			if (p->hi[i] > reach) reach = p->hi[i];
		if (reach == c + 1) n_max++;
	}
	pieces = cx_arena_array(ar, n_max, sizeof *pieces);
	if (!pieces) return no_memory(err);
	reach = 0;
	for (uint32_t c = 0; c < p->n_cliques; c++) {
		uint32_t i0 = p->first[start], i1 = p->first[c + 1];
		int64_t peak = 0;
		cx_status st;
		for (uint32_t i = p->first[c]; i < i1; i++)
			if (p->hi[i] > reach) reach = p->hi[i];
		if (reach != c + 1) continue;
		for (uint32_t i = i0; i < i1; i++)
			if (p->off[i] + p->size[i] > peak) peak = p->off[i] + p->size[i];
		if (peak > p->bound &&
			(st = piece_build(ar, p, i0, i1, start, c + 1, &pieces[n++], err)) != CX_OK)
			return st;
		start = c + 1;
	}
	*out = pieces;
	*n_out = n;
	return CX_OK;
}

/* ---- lowering the peak ---- */

/* One attempt to bring a piece to `target`. */
static cx_status try_piece(cx_arena *ar, piece *pc, int64_t target, uint64_t slice,
	cx__pack_budget *b, cx__pack_found *found, cx_err *err)
{
	cx_status st;
	*found = CX__PACK_UNKNOWN;
	/* a packing takes n steps, in parts that get smaller; with less than that the search cannot end
	 */
	if (pc->p.n > CX__PACK_SEARCH_MAX ||
		b->max_nodes - b->nodes < pc->p.n * cx__pack_step_cost(pc->p.n_cliques) / 2) {
		cx__pack_budget part = *b;
		if (b->max_nodes - b->nodes > slice) part.max_nodes = b->nodes + slice;
		st = cx__pack_regreedy(ar, &pc->p, target, &part, err);
		b->nodes = part.nodes;
		if (pc->p.peak <= target) *found = CX__PACK_YES;
		return st;
	}
	if (!pc->search && (st = cx__pack_search_create(ar, &pc->p, &pc->search, err)) != CX_OK)
		return st;
	*found = cx__pack_search_run(pc->search, target, slice, b);
	return CX_OK;
}

typedef struct lowering {
	cx_arena *ar;
	cx__pack_budget *budget;
	int64_t stop;      /* units: good enough */
	uint64_t *best_us; /* when the last improvement of the whole came */
} lowering;

/* Brings one piece down to l->stop, or as far as the budget goes. In each round the floor, below
 * which no packing is known to exist, is tried first and gets most of the effort; then a packing in
 * the middle between what was missed and the peak, again and again until the two are close. Rounds
 * double their effort. */
static cx_status lower_piece(const lowering *l, piece *pc, cx_err *err)
{
	int64_t floor = pc->p.bound > l->stop ? pc->p.bound : l->stop;
	unsigned round = 0;
	while (pc->p.peak > floor && !cx__pack_spent(l->budget)) {
		uint64_t slice = pc->p.n * cx__pack_step_cost(pc->p.n_cliques) * 8
						 << (round < 24 ? round : 24);
		int64_t target = floor, missed = floor - 1,
				close = round < 10 ? pc->p.peak >> (6 + round) : 0;
		while (pc->p.peak > floor && pc->p.peak - missed > 1 && !cx__pack_spent(l->budget)) {
			int64_t before = pc->p.peak;
			cx__pack_found found;
			cx_status st = try_piece(
				l->ar, pc, target, target == floor ? slice : slice / 16, l->budget, &found, err);
			if (st != CX_OK) return st;
			if (pc->p.peak < before) *l->best_us = cx__pack_now_us() - l->budget->start_us;
			if (found == CX__PACK_NO) floor = target + 1;
			if (found != CX__PACK_YES) missed = target;
			if (pc->p.peak - missed <= close + 1) break;
			target = missed + (pc->p.peak - missed) / 2;
		}
		round++;
	}
	pc->proven = pc->p.peak <= floor && floor > l->stop;
	return CX_OK;
}

/* Pieces are lowered one after the other; a piece that could not be brought below some peak sets
 * how far the others need to go. */
static cx_status lower_all(cx_arena *ar, cx__pack_prob *p, int64_t stop, cx__pack_budget *b,
	cx_pack_result *res, bool *exact, cx_err *err)
{
	lowering l = {ar, b, stop, &res->best_us};
	int64_t proven = 0;
	uint32_t n = 0;
	piece *pieces = NULL;
	cx_status st;
	if ((st = find_pieces(ar, p, &pieces, &n, err)) != CX_OK) return st;
	for (uint32_t i = 0; i < n; i++) {
		if (pieces[i].p.peak <= l.stop) continue;
		if ((st = lower_piece(&l, &pieces[i], err)) != CX_OK) return st;
		if (pieces[i].p.peak > l.stop) l.stop = pieces[i].p.peak;
		if (pieces[i].proven && pieces[i].p.peak > proven) proven = pieces[i].p.peak;
	}
	p->peak = 0;
	for (uint32_t i = 0; i < p->n; i++)
		if (p->off[i] + p->size[i] > p->peak) p->peak = p->off[i] + p->size[i];
	*exact = proven >= p->peak;
	return CX_OK;
}

/* The bound in bytes: the topmost buffer of a clique needs no padding after it. */
static uint64_t byte_bound(const cx__pack_prob *p, const cx_pack_item *items, bool *padded)
{
	uint64_t pad = 0;
	for (uint32_t i = 0; i < p->n; i++) {
		uint64_t mine = (uint64_t)p->size[i] * (uint64_t)p->unit - items[p->item[i]].size;
		if (mine > pad) pad = mine;
	}
	*padded = pad > 0;
	return (uint64_t)p->bound * (uint64_t)p->unit - pad;
}

static void finish(const cx__pack_prob *p, cx_pack_item *items, size_t n, const cx_pack_opts *o,
	bool exact, cx_pack_result *res)
{
	bool padded;
	res->bound = byte_bound(p, items, &padded);
	for (size_t i = 0; i < n; i++) items[i].offset = 0;
	for (uint32_t i = 0; i < p->n; i++) {
		cx_pack_item *it = &items[p->item[i]];
		it->offset = (uint64_t)p->off[i] * (uint64_t)p->unit;
		if (it->offset + it->size > res->peak) res->peak = it->offset + it->size;
	}
	res->fits = !o->capacity || res->peak <= o->capacity;
	res->optimal = res->peak == res->bound || (exact && !padded);
	res->impossible = o->capacity && (o->capacity < res->bound || (res->optimal && !res->fits));
}

cx_status cx_pack(const cx_alloc *alloc, cx_pack_item *items, size_t n, const cx_pack_opts *opts,
	cx_pack_result *out, cx_err *err)
{
	static const cx_pack_opts none;
	cx_pack_result res = {.fits = true};
	cx__pack_budget b = {
		.start_us = cx__pack_now_us(), .max_nodes = UINT64_MAX, .end_us = UINT64_MAX};
	cx__pack_prob p;
	cx_arena ar;
	bool exact = false;
	int64_t stop;
	cx_status st;

	if (!opts) opts = &none;
	cx_arena_init(&ar, alloc);
	if ((st = check_items(items, n, err)) != CX_OK) goto done;
	if ((st = prob_build(&ar, items, n, &p, err)) != CX_OK) goto done;
	stop = p.bound;
	if (opts->capacity && opts->capacity / (uint64_t)p.unit > (uint64_t)stop)
		stop = opts->capacity / (uint64_t)p.unit > SIZE_LIMIT
				   ? (int64_t)SIZE_LIMIT
				   : (int64_t)(opts->capacity / (uint64_t)p.unit);
	if ((st = cx__pack_greedy(&ar, &p, stop, err)) != CX_OK) goto done;
	res.best_us = cx__pack_now_us() - b.start_us;
	if (opts->max_nodes || opts->budget_us) {
		if (opts->max_nodes) b.max_nodes = opts->max_nodes;
		if (opts->budget_us && opts->budget_us < UINT64_MAX - b.start_us)
			b.end_us = b.start_us + opts->budget_us;
		if (p.peak > stop && (st = lower_all(&ar, &p, stop, &b, &res, &exact, err)) != CX_OK)
			goto done;
	}
	res.n_nodes = b.nodes;
	finish(&p, items, n, opts, exact, &res);
	if (out) *out = res;
done:
	cx_arena_deinit(&ar);
	return st;
}
