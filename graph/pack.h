/* pack.h - static memory allocation: an offset in one slab for every buffer of a known lifetime.
 *
 * A buffer lives in [lower, upper) and takes size bytes; two buffers whose lifetimes overlap never
 * share a byte. cx_pack() minimises the highest byte used (the peak), or looks for any packing
 * within a capacity. No packing can be lower than the liveness bound, the most bytes alive at once;
 * a packing that meets it is optimal.
 *
 * Two stages. Greedy packers, O(n log n + pairs that overlap) and good for the many short lives of
 * a graph, always run. If they miss the bound and a budget is given, a search follows
 * (pack_search.c), which finds packings that leave no byte unused and can prove that none exists.
 */
#ifndef CX_PACK_H
#define CX_PACK_H

#include "graph/base.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct cx_pack_item {
	int64_t lower, upper; /* alive at times t with lower <= t < upper, any unit */
	uint64_t size;        /* bytes; 0 is legal and gets offset 0 */
	uint64_t align;       /* of the offset, a power of two; 0 means 1 */
	int64_t id;           /* for messages only */
	uint64_t offset;      /* out, bytes */
} cx_pack_item;

/* All zero: greedy only, minimise. */
typedef struct cx_pack_opts {
	uint64_t capacity;  /* bytes; stop at the first packing that fits. 0: minimise the peak */
	uint64_t max_nodes; /* work of the search, see below; 0: see below */
	uint64_t budget_us; /* time the search may take; 0: see below */
} cx_pack_opts;
/* A node is about a microsecond: one step of the search, several where a step has much to look at.
 * With both budgets 0 there is no search; with one 0 only the other one counts. Without budget_us
 * the result is a function of items and options alone: same input, same offsets, on every machine.
 */

typedef struct cx_pack_result {
	uint64_t peak;    /* bytes, max of offset + size */
	uint64_t bound;   /* bytes, no packing is below it (alignment counted) */
	bool fits;        /* peak <= capacity; true when minimising */
	bool optimal;     /* proven: no packing has a lower peak */
	bool impossible;  /* proven: no packing fits the capacity */
	uint64_t n_nodes; /* work done by the search, in the measure of max_nodes */
	uint64_t best_us; /* time until the returned packing was found; for display */
} cx_pack_result;

/* Sets items[].offset. `alloc` is scratch (NULL: the default), all of it returned before the call
 * ends. `opts` NULL: all zero. `out` and `err` may be NULL. n == 0 gives a peak of 0.
 *
 * Sizes count as rounded up to the smallest alignment given: where they are no multiples of it, the
 * peak may miss the best one by less than that alignment (and then is not called optimal).
 *
 * CX_OK also when the capacity was not met: look at out->fits; the offsets are then the best
 * packing found. CX_ERR_ARGUMENT names the item: lower >= upper, an alignment that is not a power
 * of two, sizes whose sum passes 2^61. CX_ERR_MEMORY: scratch. After a failure the offsets are as
 * they were. */
CX_API cx_status cx_pack(const cx_alloc *alloc, cx_pack_item *items, size_t n,
	const cx_pack_opts *opts, cx_pack_result *out, cx_err *err);

/* True if the offsets are a packing: aligned, below `peak`, no byte of two buffers at once. Shares
 * nothing with cx_pack(): a sweep over time with the live buffers in a search tree ordered by
 * offset, O(n log n). CX_ERR_ARGUMENT names the two items that collide, or the one that is out of
 * bounds. */
CX_API cx_status cx_pack_check(
	const cx_alloc *alloc, const cx_pack_item *items, size_t n, uint64_t peak, cx_err *err);
/* cx_pack_check() with the default allocator; false also when memory ran out. */
CX_API bool cx_pack_valid(const cx_pack_item *items, size_t n, uint64_t peak);

#ifdef __cplusplus
}
#endif
#endif
