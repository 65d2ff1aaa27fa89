/* eval.c - cx__ref_eval(): the reference without a planner, node by node in creation order.
 *
 * Every node's outputs get memory of their own; views are read through their strides. Updated
 * operands (states, aliases) are copied first, so every version of a state keeps its content: the
 * semantics that plans must reproduce. A tensor is freed after its last reader, the last versions
 * of states at the end. */
#include "backends/ref/ref.h"

#include <string.h>

typedef struct storage {
	unsigned char *p; /* NULL: not made yet, or freed */
	uint64_t bytes;
	uint32_t last; /* id of the last node that reads it; itself if none does */
	bool owned, keep;
} storage;

typedef struct eval {
	const cx_graph *g;
	const cx_alloc *alloc;
	const cx_ref_io *io;
	cx_err *err;
	storage *of;       /* [n_nodes], used for roots */
	uint32_t n_args;   /* most operands of any node */
	cx__ref_arg *args; /* [n_args] */
	cx_desc *descs;    /* [n_args] */
} eval;

static cx_status out_of_memory(const eval *e, uint64_t bytes)
{
	return CX_FAIL(e->err, CX_ERR_MEMORY, "reference run: no memory for %llu bytes",
		(unsigned long long)bytes);
}

/* Where element 0 of a node's value is. */
static unsigned char *value_at(const eval *e, uint32_t id)
{
	const cx_node *n = &e->g->nodes[id];
	const cx_dtype_info *t = cx_dtype_get(n->desc.dtype);
	return e->of[n->root].p + n->view_off / t->block_elems * t->block_bytes;
}

static cx__ref_arg arg_of(const eval *e, uint32_t id)
{
	if (id == UINT32_MAX) return (cx__ref_arg){.d = {.dtype = CX_DTYPE_COUNT}};
	return (cx__ref_arg){e->g->nodes[id].desc, value_at(e, id)};
}

/* Dense copy of a strided value. Blocks are copied a row at a time. */
static void densify(const cx__ref_arg *x, unsigned char *to)
{
	cx__ref_arg y = {x->d, to};
	const cx_dtype_info *t = cx_dtype_get(x->d.dtype);
	cx__ref_call c = {.op = CX_OP_copy, .in = x, .n_in = 1, .out = &y, .n_out = 1};
	cx__ref_walk w;
	cx_desc lead = x->d;
	int64_t row;
	cx__desc_dense(&y.d);
	if (t->cls != CX_CLASS_BLOCK) {
		cx__ref_copy(&c);
		return;
	}
	row = x->d.dim[x->d.rank - 1] / t->block_elems * t->block_bytes;
	lead.rank--;
	if (!cx__walk_init(&w, lead.rank, lead.dim)) return;
	cx__walk_add(&w, &lead);
	do {
		memcpy(to, x->p + w.off[0] / t->block_elems * t->block_bytes, (size_t)row);
		to += row;
	} while (cx__walk_next(&w));
}

/* Counts readers and finds which versions of states are the last. */
static void plan_lifetimes(eval *e)
{
	const cx_graph *g = e->g;
	for (uint32_t id = 0; id < g->n_nodes; id++) {
		const cx_node *n = &g->nodes[id];
		e->of[id].last = id;
		if (n->n_in > e->n_args) e->n_args = n->n_in;
		for (uint32_t j = 0; j < n->n_in; j++)
			if (n->in[j] != UINT32_MAX) e->of[g->nodes[n->in[j]].root].last = id;
		if (n->root != id) e->of[n->root].last = id;
		if (n->state == UINT32_MAX || n->root != id) continue;
		for (uint32_t old = 0; old < id; old++) /* few states, few versions */
			if (g->nodes[old].state == n->state) e->of[old].keep = false;
		e->of[id].keep = true;
	}
}

static cx_status run_leaf(eval *e, uint32_t id)
{
	const cx_node *n = &e->g->nodes[id];
	const void *data = n->op == CX_OP_const ? n->data : e->io->leaf(e->io->ctx, e->g, id);
	char text[128];
	if (!data)
		return CX_FAIL(e->err, CX_ERR_ARGUMENT, "reference run: no content for %s",
			cx__node_text(e->g, id, text, sizeof text));
	e->of[id].p = (unsigned char *)data; /* only read: an update copies first */
	e->of[id].bytes = cx__ref_bytes(&n->desc);
	return CX_OK;
}

static cx_status make_outputs(eval *e, uint32_t id, cx__ref_arg *out)
{
	const cx_node *n = &e->g->nodes[id];
	for (uint32_t o = 0; o < n->n_out; o++) {
		storage *s = &e->of[id + o];
		int alias = cx__ops[n->op].alias[o];
		s->bytes = cx__ref_bytes(&e->g->nodes[id + o].desc);
		s->p = cx_malloc(e->alloc, (size_t)s->bytes);
		s->owned = true;
		if (!s->p) return out_of_memory(e, s->bytes);
		out[o] = arg_of(e, id + o);
		if (alias >= 0) densify(&e->args[alias], s->p);
	}
	return CX_OK;
}

static cx_status run_node(eval *e, uint32_t id)
{
	const cx_node *n = &e->g->nodes[id];
	cx__ref_arg out[CX_MAX_OUT];
	cx_desc out_desc[CX_MAX_OUT];
	cx__ref_call c = {(cx_op)n->op, n->attr, n->prog, e->args, out, n->n_in, n->n_out, NULL};
	cx_kernel_key key = {(cx_op)n->op, n->attr, n->prog, e->descs, n->n_in, out_desc, n->n_out};
	uint64_t scratch;
	cx_status st;
	for (uint32_t j = 0; j < n->n_in; j++) {
		e->args[j] = arg_of(e, n->in[j]);
		e->descs[j] = e->args[j].d;
	}
	if ((st = make_outputs(e, id, out)) != CX_OK) return st;
	for (uint32_t o = 0; o < n->n_out; o++) {
		int alias = cx__ops[n->op].alias[o];
		out_desc[o] = out[o].d;
		if (alias >= 0) e->args[alias] = out[o]; /* one tensor to the kernel, as in a plan */
	}
	scratch = cx__ref_scratch(NULL, &key);
	if (scratch && !(c.scratch = cx_malloc(e->alloc, (size_t)scratch)))
		return out_of_memory(e, scratch);
	cx__ref_fns[n->op](&c);
	cx_free(e->alloc, c.scratch, (size_t)scratch);
	return CX_OK;
}

static cx_status report(eval *e, uint32_t id)
{
	cx__ref_arg x = arg_of(e, id);
	uint64_t bytes = cx__ref_bytes(&x.d);
	unsigned char *dense = x.p;
	if (!e->io->node) return CX_OK;
	if (!cx__desc_is_dense(&x.d)) {
		if (!(dense = cx_malloc(e->alloc, (size_t)bytes))) return out_of_memory(e, bytes);
		densify(&x, dense);
	}
	e->io->node(e->io->ctx, e->g, id, dense, bytes);
	if (dense != x.p) cx_free(e->alloc, dense, (size_t)bytes);
	return CX_OK;
}

static void release(eval *e, uint32_t root, uint32_t now)
{
	storage *s = &e->of[root];
	if (!s->owned || s->keep || s->last > now) return;
	cx_free(e->alloc, s->p, (size_t)s->bytes);
	s->p = NULL;
	s->owned = false;
}

static cx_status run_all(eval *e)
{
	const cx_graph *g = e->g;
	cx_status st;
	for (uint32_t id = 0; id < g->n_nodes; id++) {
		const cx_node *n = &g->nodes[id];
		if (cx__ops[n->op].kind == CX_KIND_LEAF) st = run_leaf(e, id);
		else if (n->op == CX_OP_proj || n->root != id) st = CX_OK;
		else st = run_node(e, id);
		if (st != CX_OK || (st = report(e, id)) != CX_OK) return st;
		for (uint32_t j = 0; j < n->n_in; j++)
			if (n->in[j] != UINT32_MAX) release(e, g->nodes[n->in[j]].root, id);
		release(e, n->root, id);
	}
	for (uint32_t id = 0; e->io->state && id < g->n_nodes; id++)
		if (e->of[id].keep)
			e->io->state(e->io->ctx, g, g->nodes[id].state, e->of[id].p, e->of[id].bytes);
	return CX_OK;
}

cx_status cx__ref_eval(const cx_graph *g, const cx_alloc *alloc, const cx_ref_io *io, cx_err *err)
{
	eval e = {.g = g, .alloc = alloc, .io = io, .err = err};
	cx_status st = CX_ERR_MEMORY;
	e.of = cx_calloc(alloc, g->n_nodes, sizeof *e.of);
	if (!e.of) {
		CX_FAIL(err, st, "reference run: no memory for %u nodes", g->n_nodes);
		goto done;
	}
	plan_lifetimes(&e);
	e.args = cx_calloc(alloc, e.n_args, sizeof *e.args);
	e.descs = cx_calloc(alloc, e.n_args, sizeof *e.descs);
	if (!e.args || !e.descs) {
		CX_FAIL(err, st, "reference run: no memory for %u operands", e.n_args);
		goto done;
	}
	st = run_all(&e);
done:
	for (uint32_t id = 0; e.of && id < g->n_nodes; id++)
		if (e.of[id].owned) cx_free(alloc, e.of[id].p, (size_t)e.of[id].bytes);
	cx_free(alloc, e.of, g->n_nodes * sizeof *e.of);
	cx_free(alloc, e.args, e.n_args * sizeof *e.args);
	cx_free(alloc, e.descs, e.n_args * sizeof *e.descs);
	return st;
}
