/* pack_impl.h - what the files of the packer share. Not for other users. */
#ifndef CX_PACK_IMPL_H
#define CX_PACK_IMPL_H

#include "graph/pack.h"

/* The problem in the form that both packers want. Sizes and offsets are in units (the greatest
 * common divisor of all sizes and alignments), zero sizes are gone, items are in order of birth.
 * Time is cut into `cliques`: the maximal sets of buffers that are alive at once, in order of time.
 * A buffer is in cliques [lo, hi), and two buffers overlap in time if and only if they share a
 * clique. */
typedef struct cx__pack_prob {
	uint32_t n, n_cliques;
	int64_t unit;      /* bytes */
	int64_t bound;     /* units, max over cliques of the sum of sizes */
	bool any_align;    /* some align > 1 */
	int64_t *size;     /* [n] */
	int64_t *align;    /* [n], >= 1 */
	int64_t *width;    /* [n] upper - lower, in the caller's time */
	uint32_t *lo, *hi; /* [n], lo ascending */
	uint32_t *item;    /* [n] index in the caller's array */
	uint32_t *by_end;  /* [n] permutation, hi ascending */
	uint32_t *first;   /* [n_cliques + 1] first i with lo[i] >= clique */
	int64_t *load;     /* [n_cliques] sum of sizes */
	int64_t *off;      /* [n] out: the best packing so far */
	int64_t peak;      /* of off */
} cx__pack_prob;

/* What the search may spend, counted over all its calls. */
typedef struct cx__pack_budget {
	uint64_t nodes, max_nodes; /* UINT64_MAX: unlimited */
	uint64_t start_us, end_us; /* UINT64_MAX: unlimited */
} cx__pack_budget;

/* Nodes charged for a search step in a part of that many cliques. */
static inline uint64_t cx__pack_step_cost(uint32_t n_cliques)
{
	return 1 + n_cliques / 32;
}

/* Microseconds of a clock that does not go back. */
uint64_t cx__pack_now_us(void);
bool cx__pack_spent(const cx__pack_budget *b);

/* Sorts by key, stable, and returns the array that holds the result, a or tmp. No key is above
 * max_key. */
typedef struct cx__pack_key {
	uint64_t key;
	uint32_t val;
} cx__pack_key;
cx__pack_key *cx__pack_sort(cx__pack_key *a, cx__pack_key *tmp, size_t n, uint64_t max_key);

/* Sets p->off and p->peak to the best of several greedy packings; stops early at `target` units. */
cx_status cx__pack_greedy(cx_arena *scratch, cx__pack_prob *p, int64_t target, cx_err *err);
/* Reorders and packs greedily again until p->peak <= target or the budget is spent: for problems
 * too large to search. p->off only ever improves. */
cx_status cx__pack_regreedy(
	cx_arena *scratch, cx__pack_prob *p, int64_t target, cx__pack_budget *b, cx_err *err);

/* Packing from the ground up (pack_valley.c), in the order of key[n], smallest first, all in (-4,
 * 4). Sets off[n] and gives the peak. */
typedef struct cx__pack_valley cx__pack_valley;
cx_status cx__pack_valley_create(
	cx_arena *scratch, const cx__pack_prob *p, cx__pack_valley **out, cx_err *err);
int64_t cx__pack_valley_run(cx__pack_valley *v, const double *key, int64_t *off);

typedef enum cx__pack_found {
	CX__PACK_UNKNOWN, /* budget or slice spent */
	CX__PACK_YES,     /* p->off and p->peak are a packing within the capacity */
	CX__PACK_NO,      /* there is none */
} cx__pack_found;

/* More items than this in one piece are left to cx__pack_regreedy(): the search keeps n*n bits. */
#define CX__PACK_SEARCH_MAX 2048u

/* Looks for a packing into `capacity` units, spending at most `slice` nodes of the budget. State
 * that is worth keeping between calls (what was hard to place) stays in *search, which lives in
 * `scratch`. */
typedef struct cx__pack_search cx__pack_search;
cx_status cx__pack_search_create(
	cx_arena *scratch, cx__pack_prob *p, cx__pack_search **out, cx_err *err);
cx__pack_found cx__pack_search_run(
	cx__pack_search *s, int64_t capacity, uint64_t slice, cx__pack_budget *b);

static inline int64_t cx__pack_align(int64_t x, int64_t align)
{
	return align == 1 ? x : (x + align - 1) / align * align;
}

#endif
