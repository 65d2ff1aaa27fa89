/* grad.c - cx_graph_grad(): reverse accumulation over the SSA list, by the rules in ops.def.
 *
 * In: a graph up to its loss.   Out: backward nodes behind it, one gradient per tensor of wrt.
 *
 * A node is `active` if it is a float that depends on wrt; a gradient flows from a node only into
 * active operands. The walk goes from the last node to the first: when it comes to a node, all of
 * its readers have added their share, in a fixed order. Recompute: what a rule reads is replaced by
 * a copy of the node, made from the nearest checkpoints when it is first asked for. */
#include "graph/grad.h"
#include "graph/plan.h"
#include "graph/shape.h"

#include <stdio.h>
#include <string.h>

#define NO UINT32_MAX

enum {
	F_WRT = 1,    /* asked for */
	F_ACTIVE = 2, /* a float, and depends on wrt */
	F_PATH = 4,   /* active, and loss depends on it through floats */
	F_USED = 8,   /* loss depends on it */
	F_KEEP = 16,  /* recompute: read as it is */
	F_WANT = 32,  /* recompute: to be copied next */
	F_CHECK = 64, /* recompute: a checkpoint */
	F_CONST = 128 /* recompute: made of constants alone */
};

typedef struct backward {
	cx_graph *g;
	cx_arena tmp;
	uint32_t n;     /* forward nodes: ids below it */
	uint8_t *flags; /* [n] */
	uint32_t *acc;  /* [n] gradient so far, or NO */
	uint32_t *copy; /* [n] recomputed, or NO; NULL: keep all */
	uint32_t after; /* recompute: the gradient that is at hand */
	/* [n] slices of a tensor whose gradients wait for each other: the first one, and the next */
	uint32_t *slice_of, *next_slice;
	const char *scope; /* forward's, as last entered */
	uint32_t cap_in;
	cx_tensor *in, *din; /* [cap_in] */
	bool *need;
} backward;

static void fail_at(cx_graph *g, uint32_t id, cx_status code, const char *what)
{
	char text[160];
	if (g->first_error.code != CX_OK) return;
	CX_FAIL(
		&g->first_error, code, "gradient: %s %s", cx__node_text(g, id, text, sizeof text), what);
}

static bool grad_oom(cx_graph *g)
{
	CX_FAIL(&g->first_error, CX_ERR_MEMORY, "gradient: out of memory");
	return false;
}

/* The node that computes tensor id: itself, or that of which it is a further output. */
static uint32_t maker_of(const cx_graph *g, uint32_t id)
{
	return g->nodes[id].op == CX_OP_proj ? g->nodes[id].in[0] : id;
}

/* ---- what to do --------------------------------------------------------------------------------
 */

static bool check_request(cx_graph *g, cx_tensor loss, const cx_tensor *wrt, uint32_t n_wrt)
{
	if (loss.id >= g->n_nodes) {
		CX_FAIL(&g->first_error, CX_ERR_ARGUMENT, "gradient: loss is not a tensor of this graph");
		return false;
	}
	if (!cx__is_float(g->nodes[loss.id].desc.dtype) || cx__desc_elems(&g->nodes[loss.id].desc) != 1)
		fail_at(g, loss.id, CX_ERR_SHAPE, "is the loss, but not one float");
	for (uint32_t i = 0; i < n_wrt && g->first_error.code == CX_OK; i++) {
		char what[96];
		if (wrt[i].id >= g->n_nodes) {
			CX_FAIL(&g->first_error, CX_ERR_ARGUMENT,
				"gradient: wrt[%u] is not a tensor of this graph", i);
			break;
		}
		snprintf(what, sizeof what, "is %s: only floats have a gradient",
			cx_dtype_get(g->nodes[wrt[i].id].desc.dtype)->name);
		if (cx__is_block(g->nodes[wrt[i].id].desc.dtype))
			fail_at(g, wrt[i].id, CX_ERR_ARGUMENT,
				"is in a block format: such weights have no gradient; train a float copy");
		else if (!cx__is_float(g->nodes[wrt[i].id].desc.dtype))
			fail_at(g, wrt[i].id, CX_ERR_ARGUMENT, what);
	}
	return g->first_error.code == CX_OK;
}

static bool active(const backward *b, uint32_t id)
{
	return id != NO && (b->flags[id] & F_ACTIVE);
}

/* Marks what depends on wrt, forwards, then what loss depends on, backwards. */
static void mark_paths(backward *b, uint32_t loss)
{
	const cx_graph *g = b->g;
	for (uint32_t id = 0; id < b->n; id++) {
		const cx_node *n = &g->nodes[maker_of(g, id)];
		bool depends = b->flags[id] & F_WRT;
		for (uint32_t j = 0; j < n->n_in && !depends; j++) depends = active(b, n->in[j]);
		if (depends && cx__is_float(g->nodes[id].desc.dtype)) b->flags[id] |= F_ACTIVE;
	}
	b->flags[loss] |= F_USED;
	if (b->flags[loss] & F_ACTIVE) b->flags[loss] |= F_PATH;
	for (uint32_t id = b->n; id-- > 0;) {
		const cx_node *n = &g->nodes[maker_of(g, id)];
		for (uint32_t j = 0; (b->flags[id] & F_USED) && j < n->n_in; j++) {
			if (n->in[j] == NO) continue;
			b->flags[n->in[j]] |= F_USED;
			if ((b->flags[id] & F_PATH) && active(b, n->in[j])) b->flags[n->in[j]] |= F_PATH;
		}
	}
}

static bool check_paths(const backward *b, const cx_tensor *wrt, uint32_t n_wrt)
{
	for (uint32_t i = 0; i < n_wrt; i++) {
		if (!(b->flags[wrt[i].id] & F_USED))
			fail_at(b->g, wrt[i].id, CX_ERR_ARGUMENT, "does not enter the loss");
		else if (!(b->flags[wrt[i].id] & F_PATH))
			fail_at(b->g, wrt[i].id, CX_ERR_ARGUMENT,
				"enters the loss through discrete values only: there is no gradient");
	}
	return b->g->first_error.code == CX_OK;
}

/* ---- recompute ---------------------------------------------------------------------------------
 */

static bool is_leaf(const cx_node *n)
{
	return cx__ops[n->op].kind == CX_KIND_LEAF;
}

/* Leaves and views of them, constants and what they alone make, versions of states and the other
 * outputs of their makers. */
static void mark_kept(backward *b)
{
	const cx_graph *g = b->g;
	for (uint32_t id = 0; id < b->n; id++) {
		const cx_node *n = &g->nodes[id];
		bool fixed = !is_leaf(n) || n->op == CX_OP_const, keep = is_leaf(n);
		if (n->op == CX_OP_proj) continue; /* with its maker */
		for (uint32_t j = 0; j < n->n_in && fixed; j++)
			fixed = n->in[j] == NO || (b->flags[n->in[j]] & F_CONST);
		if (fixed) b->flags[id] |= F_CONST;
		for (uint32_t o = 0; o < n->n_out; o++) keep |= g->nodes[id + o].state != NO;
		if (n->root != id) keep |= (b->flags[n->root] & (F_KEEP | F_CHECK)) == F_KEEP;
		for (uint32_t o = 0; (keep || fixed) && o < n->n_out; o++) b->flags[id + o] |= F_KEEP;
		for (uint32_t o = 0; fixed && o < n->n_out; o++) b->flags[id + o] |= F_CONST;
	}
}

static bool start_recompute(backward *b, const cx_grad_opts *opts)
{
	cx_graph *g = b->g;
	b->copy = cx_arena_array(&b->tmp, b->n, sizeof *b->copy);
	if (!b->copy) return grad_oom(g);
	memset(b->copy, 0xff, b->n * sizeof *b->copy);
	for (uint32_t i = 0; i < opts->n_checkpoints; i++) {
		uint32_t id = opts->checkpoints[i].id;
		if (id >= b->n) {
			CX_FAIL(&g->first_error, CX_ERR_ARGUMENT,
				"gradient: checkpoints[%u] is not a tensor of this graph", i);
			return false;
		}
		id = g->nodes[id].root;
		b->flags[id] |= is_leaf(&g->nodes[id]) ? F_KEEP : F_KEEP | F_CHECK;
	}
	mark_kept(b);
	return true;
}

/* A value of its own in place of tensor id, which the planner may not merge with the forward's. */
static uint32_t barrier(backward *b, uint32_t id)
{
	cx_tensor in[2] = {{id}, {b->after}};
	return cx_node_add(b->g, CX_OP_barrier, in, 2, NULL).id;
}

/* What a copied node reads instead of tensor id. */
static uint32_t copied(backward *b, uint32_t id)
{
	if (id == NO || b->copy[id] != NO) return id == NO ? NO : b->copy[id];
	if (b->flags[id] & F_CHECK) b->copy[id] = barrier(b, id);
	return b->copy[id] != NO ? b->copy[id] : id;
}

static void copy_node(backward *b, uint32_t id)
{
	cx_graph *g = b->g;
	const cx_node *n = &g->nodes[id];
	uint32_t n_in = n->n_in, n_out = n->n_out, least = NO, made;
	const uint32_t *from = n->in;
	int64_t least_elems = 0;
	bool other = false;
	cx_tensor *in = cx_arena_array(&b->tmp, n_in + 1, sizeof *in);
	if (!in) {
		grad_oom(g);
		return;
	}
	for (uint32_t j = 0; j < n_in; j++) {
		in[j].id = copied(b, from[j]);
		other |= in[j].id != from[j];
		if (in[j].id == NO || cx__is_block(g->nodes[in[j].id].desc.dtype)) continue;
		if (least == NO || cx__desc_elems(&g->nodes[in[j].id].desc) < least_elems) {
			least = j;
			least_elems = cx__desc_elems(&g->nodes[in[j].id].desc);
		}
	}
	if (!other && least != NO) in[least].id = barrier(b, in[least].id);
	n = &g->nodes[id];
	made = cx__node_add(g, (cx_op)n->op, in, n_in, n->attr, n->prog).id;
	for (uint32_t o = 0; o < n_out && made != NO; o++) b->copy[id + o] = made + o;
}

/* The tensor that the backward reads for forward tensor id. Copies go up from the nearest kept
 * tensors, in the forward's order. */
static uint32_t reread(backward *b, uint32_t id)
{
	const cx_graph *g = b->g;
	uint32_t top, k, n_open = 1;
	if (id == NO || !b->copy) return id;
	if (b->copy[id] != NO) return b->copy[id];
	if (b->flags[id] & F_KEEP) return id;
	top = maker_of(g, id);
	b->flags[top] |= F_WANT;
	for (k = top; n_open > 0; k--) {
		const cx_node *n = &g->nodes[k];
		if (!(b->flags[k] & F_WANT)) continue;
		n_open--;
		for (uint32_t j = 0; j < n->n_in; j++) {
			uint32_t m;
			if (n->in[j] == NO || (b->flags[n->in[j]] & F_KEEP) || b->copy[n->in[j]] != NO)
				continue;
			m = maker_of(g, n->in[j]);
			if (!(b->flags[m] & F_WANT)) n_open++;
			b->flags[m] |= F_WANT;
		}
		if (n_open == 0) break;
	}
	for (; k <= top && g->first_error.code == CX_OK; k++) {
		if (!(b->flags[k] & F_WANT)) continue;
		b->flags[k] &= (uint8_t)~F_WANT;
		copy_node(b, k);
	}
	return b->copy[id] != NO ? b->copy[id] : id;
}

/* ---- the walk ----------------------------------------------------------------------------------
 */

static bool reserve(backward *b, uint32_t n_in)
{
	if (n_in <= b->cap_in) return true;
	b->cap_in = n_in;
	b->in = cx_arena_array(&b->tmp, n_in, sizeof *b->in);
	b->din = cx_arena_array(&b->tmp, n_in, sizeof *b->din);
	b->need = cx_arena_array(&b->tmp, n_in, sizeof *b->need);
	return (b->in && b->din && b->need) || grad_oom(b->g);
}

static void add_up(backward *b, uint32_t id, cx_tensor t)
{
	if (cx_is_none(t) || b->g->first_error.code != CX_OK) return;
	CX_ASSERT(b->g->nodes[t.id].desc.dtype == b->g->nodes[id].desc.dtype &&
			  cx__desc_same_dims(&b->g->nodes[t.id].desc, &b->g->nodes[id].desc));
	b->acc[id] = b->acc[id] == NO ? t.id : cx_add(b->g, (cx_tensor){b->acc[id]}, t).id;
}

/* New nodes say where they come from: scope "grad.blk.3.", name and line of the forward node. */
static void label(cx_graph *g, uint32_t first, const char *name)
{
	if (!name[0]) return;
	for (uint32_t i = first; i < g->n_nodes; i++)
		if (!is_leaf(&g->nodes[i]) && g->nodes[i].op != CX_OP_proj) g->nodes[i].name = name;
}

static const char *grad_scope(cx_graph *g, const char *scope)
{
	size_t len = strlen(scope);
	char *s;
	if (strncmp(scope, "grad.", 5) == 0 || len > 120) return scope; /* scopes end at 127 bytes */
	s = cx_arena_alloc(&g->arena, len + 6);
	if (!s) {
		grad_oom(g);
		return scope;
	}
	memcpy(s, "grad.", 5);
	memcpy(s + 5, scope, len);
	return s;
}

/* What is made next comes from forward node n. */
static void enter(backward *b, const cx_node *n)
{
	b->g->at_file = n->file;
	b->g->at_line = n->line;
	if (b->scope == n->scope) return;
	b->scope = n->scope;
	b->g->scope = grad_scope(b->g, n->scope);
}

/* The gradients of all slices of tensor id, joined: one concat where adding padded ones up would
 * read and write all of it once per slice. */
static void settle_slices(backward *b, uint32_t id)
{
	cx_graph *g = b->g;
	uint32_t n = 0, first = g->n_nodes;
	cx_grad_piece *p;
	for (uint32_t s = b->slice_of[id]; s != NO; s = b->next_slice[s]) n++;
	p = cx_arena_array(&b->tmp, n, sizeof *p);
	if (!p) {
		grad_oom(g);
		return;
	}
	n = 0;
	for (uint32_t s = b->slice_of[id]; s != NO; s = b->next_slice[s], n++) {
		p[n].attr = g->nodes[s].attr;
		p[n].grad.id = b->acc[s];
	}
	enter(b, &g->nodes[id]);
	while (n > 0 && g->first_error.code == CX_OK) add_up(b, id, cx__grad_join(g, id, p, &n));
	if (g->first_error.code == CX_OK) label(g, first, g->nodes[id].name);
}

/* Rule of node id, whose gradients dout are complete. */
static void visit(backward *b, uint32_t id, const cx_tensor *dout)
{
	cx_graph *g = b->g;
	cx_node n = g->nodes[id];
	cx_tensor out[CX_MAX_OUT];
	uint32_t first = g->n_nodes;
	cx_grad_ctx c = {g, id, n.attr, n.n_in, n.n_out, NULL, out, dout, NULL, NULL};
	bool any = false;
	if (!reserve(b, n.n_in)) return;
	for (uint32_t j = 0; j < n.n_in; j++) any |= b->need[j] = active(b, n.in[j]);
	if (!any) return;
	if (n.op == CX_OP_slice) {
		b->next_slice[id] = b->slice_of[n.in[0]];
		b->slice_of[n.in[0]] = id;
		return;
	}
	if (!cx__ops[n.op].grad) {
		fail_at(g, id, CX_ERR_UNSUPPORTED,
			"is an op without a gradient, and one would have to pass it");
		return;
	}
	enter(b, &g->nodes[id]);
	for (uint32_t o = 0; o < n.n_out; o++)
		if (!cx_is_none(dout[o])) b->after = dout[o].id;
	for (uint32_t o = 0; o < n.n_out; o++) out[o].id = reread(b, id + o);
	for (uint32_t j = 0; j < n.n_in; j++) {
		b->in[j].id = reread(b, n.in[j]);
		b->din[j] = CX_NONE;
	}
	c.in = b->in;
	c.need = b->need;
	c.din = b->din;
	cx__ops[n.op].grad(&c);
	for (uint32_t j = 0; j < n.n_in; j++)
		if (b->need[j]) add_up(b, n.in[j], b->din[j]);
	if (g->first_error.code == CX_OK) label(g, first, n.name);
}

static void walk(backward *b)
{
	cx_graph *g = b->g;
	for (uint32_t id = b->n; id-- > 0 && g->first_error.code == CX_OK;) {
		cx_tensor dout[CX_MAX_OUT];
		bool any = false;
		if (b->slice_of[id] != NO) settle_slices(b, id);
		if (g->nodes[id].op == CX_OP_proj) continue;
		for (uint32_t o = 0; o < g->nodes[id].n_out; o++) {
			dout[o].id = b->acc[id + o];
			any |= dout[o].id != NO;
		}
		if (!any || is_leaf(&g->nodes[id])) continue;
		visit(b, id, dout);
	}
}

static bool start(backward *b, cx_graph *g, const cx_tensor *wrt, uint32_t n_wrt)
{
	b->g = g;
	b->n = g->n_nodes;
	cx_arena_init(&b->tmp, &g->arena.alloc);
	b->flags = cx_arena_alloc(&b->tmp, b->n);
	b->acc = cx_arena_array(&b->tmp, b->n, sizeof *b->acc);
	b->slice_of = cx_arena_array(&b->tmp, b->n, sizeof *b->slice_of);
	b->next_slice = cx_arena_array(&b->tmp, b->n, sizeof *b->next_slice);
	if (!b->flags || !b->acc || !b->slice_of || !b->next_slice) return grad_oom(g);
	memset(b->acc, 0xff, b->n * sizeof *b->acc);
	memset(b->slice_of, 0xff, b->n * sizeof *b->slice_of);
	for (uint32_t i = 0; i < n_wrt; i++) b->flags[wrt[i].id] |= F_WRT;
	return true;
}

void cx_graph_grad(cx_graph *g, cx_tensor loss, const cx_tensor *wrt, uint32_t n_wrt,
	const cx_grad_opts *opts, cx_tensor *grads)
{
	backward b = {0};
	const char *scope = g->scope, *file = g->at_file;
	int line = g->at_line;
	cx_grad_ctx c = {.g = g};
	for (uint32_t i = 0; i < n_wrt; i++) grads[i] = CX_NONE;
	if (g->first_error.code != CX_OK) return;
	if (g->finished) CX_FAIL(&g->first_error, CX_ERR_ARGUMENT, "gradient: the graph is finished");
	if (g->first_error.code != CX_OK || !check_request(g, loss, wrt, n_wrt)) return;
	if (!start(&b, g, wrt, n_wrt)) goto done;
	mark_paths(&b, loss.id);
	if (!check_paths(&b, wrt, n_wrt)) goto done;
	if (opts && opts->checkpoints && !start_recompute(&b, opts)) goto done;
	b.acc[loss.id] = cx__grad_fill(&c, g->nodes[loss.id].desc.dtype, g->nodes[loss.id].desc.rank,
		g->nodes[loss.id].desc.dim, 1)
						 .id;
	walk(&b);
	g->scope = grad_scope(g, scope);
	for (uint32_t i = 0; i < n_wrt && g->first_error.code == CX_OK; i++) {
		const cx_desc *d = &g->nodes[wrt[i].id].desc;
		if (b.acc[wrt[i].id] != NO) grads[i].id = b.acc[wrt[i].id];
		else grads[i] = cx__grad_fill(&c, d->dtype, d->rank, d->dim, 0);
	}
	for (uint32_t i = 0; i < n_wrt && g->first_error.code != CX_OK; i++) grads[i] = CX_NONE;
done:
	g->scope = scope;
	g->at_file = file;
	g->at_line = line;
	cx_arena_deinit(&b.tmp);
}
