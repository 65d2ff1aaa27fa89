/* pass_schedule.c - the run order, with every update in place after the last reader of what it
 * overwrites.
 *
 * In: nodes in an order that data allows.  Out: an order that bytes allow as well; every output in
 * a dense root of its own; after it, an aliased operand is a state's newest version, or a whole
 * root that nobody reads any more.
 *
 *   outputs  what is a leaf, a state or only part of a root is copied to a root of its own
 *   updates  operands that the update would destroy too early are copied
 *   assigns  a producer that can write straight into the state does, and the assign is gone
 *   order    readers of an old version before its update; a reader that needs the update first
 * reads a copy
 *
 * Order keys: 4 * position + 2; what is inserted before or after a node has a key of one less or
 * one more. */
#include "graph/plan.h"

#include <string.h>

/* Edges "from runs before to" that data does not say. */
typedef struct edge {
	uint32_t to;
	struct edge *next;
} edge;
typedef struct scheduler {
	cx_plan *p;
	cx_readers rd;
	edge **anti;     /* [cap] by node */
	uint32_t *seen;  /* [cap] by node: stamp of the last search */
	uint32_t *stack; /* [cap] of a search */
	uint32_t cap, stamp;
	uint32_t n_visits;
	cx_err *err;
} scheduler;

static cx_status copy_of(cx_plan *p, uint32_t t, uint64_t key, uint8_t dev, cx_reason why,
	uint32_t src, uint32_t *out, cx_err *err)
{
	uint32_t id;
	*out = cx__plan_root(p, &p->t[t].desc, CX_NO);
	if (*out == CX_NO) return cx__plan_oom(err);
	id = cx__plan_node(p, CX_OP_copy, &t, 1, out, 1, NULL, src);
	if (id == CX_NO) return cx__plan_oom(err);
	p->n[id].key = key;
	p->n[id].dev = dev;
	p->n[id].reason = (uint8_t)why;
	p->t[*out].dev = dev;
	p->n[id].kernel = cx__plan_find(p, dev, &p->n[id]);
	if (!p->n[id].kernel) return cx__plan_refuse(p, &p->n[id], err);
	return cx__plan_push(p, id, err);
}

/* ---- outputs ---- */

static cx_status own_output(cx_plan *p, uint32_t i, cx_err *err)
{
	uint32_t t = p->outs[i].t, root = p->t[t].root, def = p->t[root].def, copy;
	uint64_t key = def == CX_NO ? 1 : p->n[def].key + 1;
	bool on_device = def != CX_NO || p->t[root].leaf == CX_OP_state;
	cx_status st;
	if (def != CX_NO && p->t[root].state == CX_NO && cx__plan_is_whole(p, t)) return CX_OK;
	for (uint32_t k = 0; k < i; k++) { /* the same, under another name */
		if (p->g->outputs[k].id != p->g->outputs[i].id) continue;
		p->outs[i].t = p->outs[k].t;
		return CX_OK;
	}
	st = copy_of(p, t, key, on_device ? p->t[root].dev : 0, CX_WHY_OUTPUT, p->t[t].src, &copy, err);
	if (st != CX_OK) return st;
	p->outs[i].t = copy;
	return CX_OK;
}

static cx_status own_outputs(cx_plan *p, cx_err *err)
{
	cx_status st;
	for (uint32_t i = 0; i < p->n_order; i++) p->n[p->order[i]].key = 4 * (uint64_t)i + 6;
	for (uint32_t i = 0; i < p->n_outs; i++) p->t[p->t[p->outs[i].t].root].is_output = 0;
	for (uint32_t i = 0; i < p->n_outs; i++)
		if ((st = own_output(p, i, err)) != CX_OK) return st;
	for (uint32_t i = 0; i < p->n_outs; i++) p->t[p->t[p->outs[i].t].root].is_output = 1;
	return CX_OK;
}

/* ---- updates ---- */

static cx_status replace_operand(scheduler *s, uint32_t id, uint32_t j, cx_reason why)
{
	cx_plan *p = s->p;
	uint32_t copy;
	cx_status st = copy_of(
		p, p->n[id].in[j], p->n[id].key - 1, p->n[id].dev, why, p->n[id].src, &copy, s->err);
	if (st != CX_OK) return st;
	p->n[id].in[j] = copy;
	p->n[id].kernel = cx__plan_find(p, p->n[id].dev, &p->n[id]);
	return p->n[id].kernel ? CX_OK : cx__plan_refuse(p, &p->n[id], s->err);
}

/* Whether an operand that is no state may be overwritten by node id, which comes at this key. */
static bool may_destroy(const scheduler *s, uint32_t id, uint32_t t)
{
	const cx_plan *p = s->p;
	const cx_ptensor *root = &p->t[p->t[t].root];
	if (root->def == CX_NO || root->is_output || root->state != CX_NO || !cx__plan_is_whole(p, t))
		return false;
	if (p->t[t].root >= s->rd.n_t) return true; /* a copy made by this pass, for this node */
	for (uint32_t i = s->rd.start[p->t[t].root]; i < s->rd.start[p->t[t].root + 1]; i++)
		if (s->rd.node[i] != id && p->n[s->rd.node[i]].key > p->n[id].key) return false;
	return true;
}

static cx_status settle_update(scheduler *s, uint32_t id)
{
	cx_plan *p = s->p;
	cx_status st;
	for (uint32_t o = 0; o < p->n[id].n_out; o++) {
		int j = cx__pnode_alias(&p->n[id], o);
		uint32_t root;
		if (j < 0 || (uint32_t)j >= p->n[id].n_in || p->n[id].in[j] == CX_NO) continue;
		root = p->t[p->n[id].in[j]].root;
		for (uint32_t k = 0; k < p->n[id].n_in; k++) {
			if (k == (uint32_t)j || p->n[id].in[k] == CX_NO || p->t[p->n[id].in[k]].root != root)
				continue;
			if ((st = replace_operand(s, id, k, CX_WHY_SELF_READ)) != CX_OK) return st;
		}
		if (p->t[p->n[id].out[o]].state != CX_NO || may_destroy(s, id, p->n[id].in[j])) continue;
		if ((st = replace_operand(s, id, (uint32_t)j, CX_WHY_KEEP_DST)) != CX_OK) return st;
	}
	return CX_OK;
}

static cx_status settle_updates(scheduler *s)
{
	cx_status st;
	for (uint32_t i = 0, n = s->p->n_order; i < n; i++)
		if ((st = settle_update(s, s->p->order[i])) != CX_OK) return st;
	return CX_OK;
}

/* ---- assigns ---- */

/* Operand through which producer reads the old version, if it may do so while writing the new one;
 * -1: it does not read it; -2: it may not. */
static int reads_in_place(const cx_plan *p, const cx_pnode *n, uint32_t old, uint32_t out)
{
	int at = -1;
	for (uint32_t j = 0; j < n->n_in; j++) {
		uint32_t t = n->in[j];
		if (t == CX_NO || p->t[t].root != old) continue;
		if (n->out[0] != out || j >= 32 || !(n->kernel->inplace >> j & 1) ||
			!cx__plan_is_whole(p, t) || at >= 0)
			return -2;
		at = (int)j;
	}
	return at;
}

static cx_status elide_assign(scheduler *s, uint32_t id)
{
	cx_plan *p = s->p;
	cx_pnode *n = &p->n[id], *by;
	uint32_t src = n->in[1], old = p->t[n->in[0]].root, out = n->out[0], o = 0, *origin;
	int at;
	if (n->op != CX_OP_assign || p->t[out].state == CX_NO || p->t[src].root != src ||
		src >= s->rd.n_t)
		return CX_OK;
	if (p->t[src].def == CX_NO || p->t[src].is_output || p->t[src].state != CX_NO) return CX_OK;
	if (s->rd.start[src + 1] - s->rd.start[src] != 1 || old >= s->rd.n_t) return CX_OK;
	by = &p->n[p->t[src].def];
	while (o < by->n_out && by->out[o] != src) o++;
	if (by->flags || by->dev != n->dev || o == by->n_out || cx__pnode_alias(by, o) >= 0 ||
		!by->kernel)
		return CX_OK;
	for (uint32_t i = s->rd.start[old]; i < s->rd.start[old + 1]; i++) {
		const cx_pnode *r = &p->n[s->rd.node[i]];
		if (r != n && r != by && r->key > by->key) return CX_OK;
	}
	if (p->t[old].def != CX_NO && p->n[p->t[old].def].key >= by->key)
		return CX_OK; /* not yet written itself, or by the same node */
	at = reads_in_place(p, by, old, src);
	if (at == -2) return CX_OK;
	origin = cx_arena_array(&p->arena, (size_t)by->n_origin + n->n_origin + 2, sizeof *origin);
	if (!origin) return cx__plan_oom(s->err);
	if (by->origin) memcpy(origin, by->origin, by->n_origin * sizeof *origin);
	else origin[by->n_origin++] = by->src;
	origin[by->n_origin++] = n->src;
	by->origin = origin;
	if (at >= 0) by->inplace = (int8_t)at;
	if (by->reason == CX_WHY_PLAIN) by->reason = CX_WHY_ELIDED;
	by->out[o] = out;
	p->t[out].def = p->t[src].def;
	p->t[src].def = CX_NO;
	n->flags |= CX_PNODE_DEAD;
	n->into = p->t[out].def;
	return CX_OK;
}

/* ---- order ---- */

static cx_status add_edge(scheduler *s, uint32_t from, uint32_t to)
{
	edge *e = cx_arena_alloc(&s->p->tmp, sizeof *e);
	if (!e) return cx__plan_oom(s->err);
	e->to = to;
	e->next = s->anti[from];
	s->anti[from] = e;
	return CX_OK;
}

enum {
	MAX_VISITS = 200000
}; /* of all searches; past it a reader that comes late gets a copy unasked */

/* Whether `to` must run after `from` by data and the edges so far. */
static bool depends(scheduler *s, uint32_t from, uint32_t to)
{
	cx_plan *p = s->p;
	uint32_t n = 0, *stack = s->stack;
	s->stamp++;
	stack[n++] = from;
	s->seen[from] = s->stamp;
	while (n > 0) {
		uint32_t at = stack[--n];
		if (at == to || ++s->n_visits > MAX_VISITS) return true;
		for (const edge *e = s->anti[at]; e; e = e->next) {
			if (s->seen[e->to] == s->stamp) continue;
			s->seen[e->to] = s->stamp;
			stack[n++] = e->to;
		}
		for (uint32_t o = 0; o < p->n[at].n_out; o++) {
			uint32_t t = p->n[at].out[o];
			if (t >= s->rd.n_t) continue;
			for (uint32_t i = s->rd.start[t]; i < s->rd.start[t + 1]; i++) {
				uint32_t r = cx__plan_live(p, s->rd.node[i]);
				if (s->seen[r] == s->stamp) continue;
				s->seen[r] = s->stamp;
				stack[n++] = r;
			}
		}
	}
	return false;
}

/* Reader `id` gets the old version's operands from a copy made before the update. */
static cx_status read_copy(scheduler *s, uint32_t id, uint32_t update, uint32_t old, uint32_t *copy)
{
	cx_plan *p = s->p;
	cx_status st;
	if (*copy == CX_NO) {
		st = copy_of(p, old, p->n[update].key - 1, p->t[old].dev, CX_WHY_OLD_STATE,
			p->n[update].src, copy, s->err);
		if (st != CX_OK) return st;
		if ((st = add_edge(s, p->n_n - 1, update)) != CX_OK) return st;
	}
	for (uint32_t j = 0; j < p->n[id].n_in; j++) {
		uint32_t t = p->n[id].in[j], view;
		if (t == CX_NO || p->t[t].root != old) continue;
		view = t == old ? *copy
						: cx__plan_view(p, *copy, p->t[t].view_off, &p->t[t].desc, p->t[t].src);
		if (view == CX_NO) return cx__plan_oom(s->err);
		p->n[id].in[j] = view;
	}
	return CX_OK;
}

/* Bytes of root `old` are overwritten by node `update`: its readers come first. `late` asks for the
 * readers whose key is larger than the update's, which are looked at when all others are settled.
 */
static cx_status order_readers(scheduler *s, uint32_t update, uint32_t old, bool late)
{
	cx_plan *p = s->p;
	uint32_t copy = CX_NO;
	cx_status st;
	if (old >= s->rd.n_t) return CX_OK;
	for (uint32_t i = s->rd.start[old]; i < s->rd.start[old + 1]; i++) {
		uint32_t r = cx__plan_live(p, s->rd.node[i]);
		if (r == update || p->n[r].flags & CX_PNODE_DEAD ||
			(p->n[r].key > p->n[update].key) != late)
			continue;
		if (late && depends(s, update, r)) st = read_copy(s, r, update, old, &copy);
		else st = add_edge(s, r, update);
		if (st != CX_OK) return st;
	}
	return CX_OK;
}

static cx_status order_updates(scheduler *s, bool late)
{
	cx_plan *p = s->p;
	cx_status st;
	for (uint32_t i = 0, n = p->n_order; i < n; i++) {
		uint32_t id = p->order[i];
		if (p->n[id].flags & CX_PNODE_DEAD) continue;
		for (uint32_t o = 0; o < p->n[id].n_out; o++) {
			uint32_t t = p->n[id].out[o], old = p->t[t].prev;
			int j = cx__pnode_alias(&p->n[id], o);
			if (old == CX_NO && j >= 0) old = p->t[p->n[id].in[j]].root;
			if (old == CX_NO) continue;
			if (!late && p->t[old].def != CX_NO && (st = add_edge(s, p->t[old].def, id)) != CX_OK)
				return st;
			if ((st = order_readers(s, id, old, late)) != CX_OK) return st;
		}
	}
	return CX_OK;
}

static void heap_push(const cx_plan *p, uint32_t *heap, uint32_t *n, uint32_t id)
{
	uint32_t at = (*n)++;
	for (; at > 0 && p->n[heap[(at - 1) / 2]].key > p->n[id].key; at = (at - 1) / 2)
		heap[at] = heap[(at - 1) / 2];
	heap[at] = id;
}

static uint32_t heap_pop(const cx_plan *p, uint32_t *heap, uint32_t *n)
{
	uint32_t top = heap[0], id = heap[--*n], at = 0;
	for (uint32_t kid = 1; kid < *n; kid = 2 * at + 1) {
		if (kid + 1 < *n && p->n[heap[kid + 1]].key < p->n[heap[kid]].key) kid++;
		if (p->n[heap[kid]].key >= p->n[id].key) break;
		heap[at] = heap[kid];
		at = kid;
	}
	heap[at] = id;
	return top;
}

/* Kahn's algorithm; among what is ready the smallest key runs first. Ties cannot change a result,
 * only the order of copies; the heap is deterministic. */
static cx_status topological(scheduler *s)
{
	cx_plan *p = s->p;
	uint32_t *wait = cx_arena_array(&p->tmp, p->n_n, sizeof *wait), n_heap = 0, n = 0;
	uint32_t *heap = cx_arena_array(&p->tmp, p->n_n, sizeof *heap);
	uint32_t *order = cx_arena_array(&p->tmp, p->n_order, sizeof *order);
	cx_status st;
	if (!wait || !heap || !order) return cx__plan_oom(s->err);
	if ((st = cx__plan_readers(p, &s->rd, s->err)) != CX_OK) return st;
	for (uint32_t i = 0; i < p->n_order; i++) {
		const cx_pnode *node = &p->n[p->order[i]];
		for (uint32_t j = 0; j < node->n_in; j++)
			if (node->in[j] != CX_NO && p->t[p->t[node->in[j]].root].def != CX_NO)
				wait[p->order[i]]++;
		for (const edge *e = s->anti[p->order[i]]; e; e = e->next) wait[e->to]++;
	}
	for (uint32_t i = 0; i < p->n_order; i++)
		if (wait[p->order[i]] == 0) heap_push(p, heap, &n_heap, p->order[i]);
	while (n_heap > 0) {
		uint32_t id = heap_pop(p, heap, &n_heap);
		p->n[id].pos = n;
		order[n++] = id;
		for (const edge *e = s->anti[id]; e; e = e->next)
			if (--wait[e->to] == 0) heap_push(p, heap, &n_heap, e->to);
		for (uint32_t o = 0; o < p->n[id].n_out; o++)
			for (uint32_t i = s->rd.start[p->n[id].out[o]]; i < s->rd.start[p->n[id].out[o] + 1];
				 i++)
				if (--wait[s->rd.node[i]] == 0) heap_push(p, heap, &n_heap, s->rd.node[i]);
	}
	CX_ASSERT(n == p->n_order);
	memcpy(p->order, order, n * sizeof *order);
	return CX_OK;
}

cx_status cx__pass_schedule(cx_plan *p, cx_err *err)
{
	scheduler s = {.p = p, .err = err};
	cx_status st;
	if ((st = own_outputs(p, err)) != CX_OK) return st;
	if ((st = cx__plan_readers(p, &s.rd, err)) != CX_OK) return st;
	if ((st = settle_updates(&s)) != CX_OK) return st;
	if ((st = cx__plan_readers(p, &s.rd, err)) != CX_OK) return st; /* with the copies made above */
	for (uint32_t i = 0; i < p->n_order; i++)
		if ((st = elide_assign(&s, p->order[i])) != CX_OK) return st;
	cx__plan_compact(p);
	s.cap = p->n_n + CX_MAX_OUT * p->n_order + 1; /* at most one more copy per update */
	s.anti = cx_arena_array(&p->tmp, s.cap, sizeof *s.anti);
	s.seen = cx_arena_array(&p->tmp, s.cap, sizeof *s.seen);
	s.stack = cx_arena_array(&p->tmp, s.cap, sizeof *s.stack);
	if (!s.anti || !s.seen || !s.stack) return cx__plan_oom(err);
	if ((st = order_updates(&s, false)) != CX_OK) return st;
	if ((st = order_updates(&s, true)) != CX_OK) return st;
	if ((st = topological(&s)) != CX_OK) return st;
	p->scheduled = true;
	return CX_OK;
}
