/* pack_check.c - is this a packing?  Shares no code and no method with pack.c.
 *
 * In: items with offsets.   Out: yes, or the two that collide.
 *
 * A sweep over time. The buffers alive at the moment hang in a treap ordered by offset; one that is
 * born is compared with its neighbour below and its neighbour above only: as those alive before it
 * do not overlap each other, if it touches any of them it touches one of these two. */
#include "graph/pack.h"

#include <stdlib.h>

#define NIL UINT32_MAX

typedef struct event {
	int64_t time;
	uint32_t item;
	bool birth;
} event;

typedef struct node {
	uint32_t left, right, priority;
} node;

typedef struct sweep {
	const cx_pack_item *items;
	node *nodes; /* [n], one per item */
	uint32_t root;
} sweep;

/* Deaths first: at time `upper` a buffer is no longer alive. */
static int event_cmp(const void *a, const void *b)
{
	const event *x = a, *y = b;
	if (x->time != y->time) return x->time < y->time ? -1 : 1;
	if (x->birth != y->birth) return x->birth ? 1 : -1;
	return x->item < y->item ? -1 : x->item > y->item;
}

/* Order in the tree; live buffers that do not collide have different offsets, equal ones are caught
 * on insertion. */
static bool below(const sweep *s, uint32_t i, uint32_t j)
{
	uint64_t x = s->items[i].offset, y = s->items[j].offset;
	return x != y ? x < y : i < j;
}

/* Splits the tree at t into what is below item i and what is above. */
static void split(sweep *s, uint32_t t, uint32_t i, uint32_t *lo, uint32_t *hi)
{
	while (t != NIL) {
		if (below(s, t, i)) {
			*lo = t;
			lo = &s->nodes[t].right;
			t = *lo;
		} else {
			*hi = t;
			hi = &s->nodes[t].left;
			t = *hi;
		}
	}
	*lo = *hi = NIL;
}

static void insert(sweep *s, uint32_t i)
{
	uint32_t *at = &s->root;
	while (*at != NIL && s->nodes[*at].priority >= s->nodes[i].priority)
		at = below(s, i, *at) ? &s->nodes[*at].left : &s->nodes[*at].right;
	split(s, *at, i, &s->nodes[i].left, &s->nodes[i].right);
	*at = i;
}

static void erase(sweep *s, uint32_t i)
{
	uint32_t *at = &s->root, a, b;
	while (*at != i) at = below(s, i, *at) ? &s->nodes[*at].left : &s->nodes[*at].right;
	a = s->nodes[i].left;
	b = s->nodes[i].right;
	while (a != NIL && b != NIL) {
		if (s->nodes[a].priority >= s->nodes[b].priority) {
			*at = a;
			at = &s->nodes[a].right;
			a = *at;
		} else {
			*at = b;
			at = &s->nodes[b].left;
			b = *at;
		}
	}
	*at = a != NIL ? a : b;
}

/* The live buffer that item i shares a byte with, or NIL. */
static uint32_t collision(const sweep *s, uint32_t i)
{
	const cx_pack_item *it = &s->items[i];
	uint32_t under = NIL, over = NIL;
	for (uint32_t t = s->root; t != NIL;) {
		if (below(s, t, i)) {
			under = t;
			t = s->nodes[t].right;
		} else {
			over = t;
			t = s->nodes[t].left;
		}
	}
	if (under != NIL && s->items[under].offset + s->items[under].size > it->offset) return under;
	if (over != NIL && it->offset + it->size > s->items[over].offset) return over;
	return NIL;
}

static cx_status check_bounds(const cx_pack_item *it, uint64_t peak, cx_err *err)
{
	uint64_t end;
	if (it->lower >= it->upper)
		return CX_FAIL(err, CX_ERR_ARGUMENT,
			"pack: item %lld lives from %lld to %lld, which is no lifetime", (long long)it->id,
			(long long)it->lower, (long long)it->upper);
	if (!cx_add_u64(it->offset, it->size, &end) || end > peak)
		return CX_FAIL(err, CX_ERR_ARGUMENT,
			"pack: item %lld at offset %llu with %llu bytes ends above the peak of %llu",
			(long long)it->id, (unsigned long long)it->offset, (unsigned long long)it->size,
			(unsigned long long)peak);
	if (it->align && it->offset % it->align)
		return CX_FAIL(err, CX_ERR_ARGUMENT,
			"pack: item %lld at offset %llu is not aligned to %llu", (long long)it->id,
			(unsigned long long)it->offset, (unsigned long long)it->align);
	return CX_OK;
}

cx_status cx_pack_check(
	const cx_alloc *alloc, const cx_pack_item *items, size_t n, uint64_t peak, cx_err *err)
{
	sweep s = {.items = items, .root = NIL};
	event *events = NULL;
	size_t n_events = 0;
	uint32_t random = 1;
	cx_status st = CX_OK;
	if (n >= UINT32_MAX / 4)
		return CX_FAIL(err, CX_ERR_ARGUMENT, "pack: %zu items are too many", n);
	s.nodes = cx_calloc(alloc, n + 1, sizeof *s.nodes);
	events = cx_calloc(alloc, 2 * n + 1, sizeof *events);
	if (!s.nodes || !events) {
		st = CX_FAIL(err, CX_ERR_MEMORY, "pack: no memory to check %zu items", n);
		goto done;
	}
	for (uint32_t i = 0; i < n; i++) {
		if ((st = check_bounds(&items[i], peak, err)) != CX_OK) goto done;
		if (!items[i].size) continue;
		events[n_events++] = (event){items[i].lower, i, true};
		events[n_events++] = (event){items[i].upper, i, false};
		random = random * 1664525u + 1013904223u;
		s.nodes[i].priority = random >> 8;
	}
	qsort(events, n_events, sizeof *events, event_cmp);
	for (size_t e = 0; e < n_events; e++) {
		uint32_t i = events[e].item, other;
		if (!events[e].birth) {
			erase(&s, i);
			continue;
		}
		if ((other = collision(&s, i)) != NIL) {
			st = CX_FAIL(err, CX_ERR_ARGUMENT,
				"pack: items %lld (offset %llu, %llu bytes) and %lld (offset %llu, %llu bytes) are "
				"alive at once and overlap",
				(long long)items[other].id, (unsigned long long)items[other].offset,
				(unsigned long long)items[other].size, (long long)items[i].id,
				(unsigned long long)items[i].offset, (unsigned long long)items[i].size);
			goto done;
		}
		insert(&s, i);
	}
done:
	cx_free(alloc, events, (2 * n + 1) * sizeof *events);
	cx_free(alloc, s.nodes, (n + 1) * sizeof *s.nodes);
	return st;
}

bool cx_pack_valid(const cx_pack_item *items, size_t n, uint64_t peak)
{
	return cx_pack_check(NULL, items, n, peak, NULL) == CX_OK;
}
