/* fold.c - constant folding: what depends on constants alone is computed once, by the reference, at
 * planning.
 *
 * Works on the source graph: marks the nodes whose operands are all constant, and evaluates those
 * that something else reads as a graph of their own with cx__ref_eval(). Results become constants
 * of the plan. Bounded: a value of more than MAX_BYTES is cheaper to compute again than to keep and
 * upload. */
#include "graph/plan.h"

#include <string.h>

enum { MAX_BYTES = 64 * 1024, MAX_OPERAND = 8 * MAX_BYTES, MAX_TOTAL = 4 * 1024 * 1024 };
enum { FOLDS = 1, NEEDED = 2, MAX_IN = 256 };

typedef struct folder {
	cx_plan *p;
	uint8_t *mark;  /* [n_nodes] */
	uint32_t *to;   /* source id -> id in sub */
	uint32_t *from; /* id in sub -> source id of a needed result, or CX_NO */
	uint32_t n_from;
	cx_graph *sub;
	bool oom;
} folder;

/* Not a leaf, nor a view of another's bytes; a reshape that strides cannot express copies. */
static bool computes(const cx_graph *g, uint32_t id)
{
	cx_kind kind = cx__ops[g->nodes[id].op].kind;
	return kind != CX_KIND_LEAF && (kind != CX_KIND_VIEW || g->nodes[id].root == id);
}

static bool folds(const folder *f, uint32_t id)
{
	const cx_node *n = &f->p->g->nodes[id];
	cx_kind kind = cx__ops[n->op].kind;
	if (n->op == CX_OP_const) return n->data_bytes <= MAX_BYTES;
	if (kind == CX_KIND_LEAF || n->state != CX_NO) return false;
	if ((n->n_in == 0 && n->op != CX_OP_iota) || n->n_in >= MAX_IN) return false;
	for (uint32_t j = 0; j < n->n_in; j++)
		if (n->in[j] != CX_NO && !(f->mark[n->in[j]] & FOLDS)) return false;
	if (cx_dtype_get(n->desc.dtype)->cls == CX_CLASS_BLOCK) return false;
	if (!computes(f->p->g, id)) return true;
	for (uint32_t j = 0; j < n->n_in; j++) /* a broadcast may be as large as it likes */
		if (n->in[j] != CX_NO && cx__desc_bytes(&f->p->g->nodes[n->in[j]].desc) > MAX_OPERAND)
			return false;
	return cx__desc_bytes(&n->desc) <= MAX_BYTES;
}

/* A computed value that a node outside, or an output, reads: directly or through a view. */
static void need(folder *f, uint32_t id)
{
	const cx_graph *g = f->p->g;
	uint32_t root;
	if (!(f->mark[id] & FOLDS)) return;
	root = g->nodes[id].root;
	if (g->nodes[root].op == CX_OP_proj || cx__ops[g->nodes[root].op].kind != CX_KIND_LEAF)
		f->mark[root] |= NEEDED;
}

static bool mark_nodes(folder *f)
{
	const cx_graph *g = f->p->g;
	uint64_t total = 0;
	bool any = false;
	for (uint32_t i = 0; i < g->n_nodes; i++) {
		const cx_node *n = &g->nodes[i];
		bool yes = folds(f, i);
		uint64_t bytes = 0;
		for (uint32_t o = 0; o < n->n_out && n->op != CX_OP_proj; o++) {
			bytes += cx__desc_bytes(&g->nodes[i + o].desc);
			yes &= g->nodes[i + o].state == CX_NO &&
				   (o == 0 || cx__desc_bytes(&g->nodes[i + o].desc) <= MAX_BYTES);
		}
		if (yes && computes(g, i)) { /* all outputs of a node or none */
			total += bytes;
			yes = total <= MAX_TOTAL;
		}
		if (yes) f->mark[i] = FOLDS;
		else
			for (uint32_t j = 0; j < n->n_in; j++)
				if (n->in[j] != CX_NO) need(f, n->in[j]);
	}
	for (uint32_t i = 0; i < g->n_outputs; i++) need(f, g->outputs[i].id);
	for (uint32_t i = 0; i < g->n_nodes; i++) any |= (f->mark[i] & NEEDED) != 0;
	return any;
}

static cx_status build_sub(folder *f, cx_err *err)
{
	const cx_graph *g = f->p->g;
	cx_tensor in[MAX_IN];
	char name[32] = "r";
	cx_status st = cx_graph_create(&f->p->alloc, &f->sub, err);
	if (st != CX_OK) return st;
	for (uint32_t i = 0; i < g->n_nodes; i++) {
		const cx_node *n = &g->nodes[i];
		cx_tensor t;
		if (!(f->mark[i] & FOLDS)) continue;
		if (n->op == CX_OP_const) {
			t = cx_const(f->sub, n->desc.dtype, n->desc.rank, n->desc.dim, n->data);
		} else if (n->op == CX_OP_proj) {
			t = cx_out(
				f->sub, (cx_tensor){f->to[n->in[0]]}, (int)((const cx_attr_proj *)n->attr)->index);
		} else {
			for (uint32_t j = 0; j < n->n_in; j++)
				in[j] = n->in[j] == CX_NO ? CX_NONE : (cx_tensor){f->to[n->in[j]]};
			t = cx__node_add(f->sub, (cx_op)n->op, in, n->n_in, n->attr, n->prog);
		}
		f->to[i] = t.id;
		if (!(f->mark[i] & NEEDED)) continue;
		for (uint32_t v = i, k = 1; k < sizeof name - 1 && v; v /= 16, k++) {
			name[k] = "0123456789abcdef"[v % 16];
			name[k + 1] = 0;
		}
		cx_output(f->sub, name, t);
	}
	return cx_graph_finish(f->sub, err);
}

static const void *no_leaf(void *ctx, const cx_graph *g, uint32_t id)
{
	(void)ctx;
	(void)g;
	(void)id;
	return NULL;
}

static void take(void *ctx, const cx_graph *g, uint32_t id, const void *data, uint64_t bytes)
{
	folder *f = ctx;
	uint32_t src = id < f->n_from ? f->from[id] : CX_NO;
	cx_ptensor *t;
	(void)g;
	if (src == CX_NO) return;
	t = &f->p->t[f->p->t[src].root]; /* a materialised reshape's storage is the copy's */
	t->data = cx_arena_memdup(&f->p->arena, data, bytes);
	if (!t->data) f->oom = true;
}

/* The results' nodes are gone; their tensors are constants. Other folded nodes die for want of
 * readers. */
static void commit(folder *f)
{
	cx_plan *p = f->p;
	for (uint32_t i = 0; i < p->g->n_nodes; i++) {
		cx_ptensor *t;
		if (!(f->mark[i] & NEEDED)) continue;
		t = &p->t[p->t[i].root];
		if (t->def != CX_NO && p->n[t->def].n_out == 1) p->n[t->def].flags |= CX_PNODE_DEAD;
		t->def = CX_NO;
		t->leaf = CX_OP_const;
		t->trusted = 1;
		t->src = i;
	}
}

cx_status cx__plan_fold(cx_plan *p, cx_err *err)
{
	cx_ref_io io = {.leaf = no_leaf, .node = take};
	folder f = {.p = p};
	uint32_t n = p->g->n_nodes;
	cx_status st;
	f.mark = cx_arena_alloc(&p->tmp, n);
	if (!f.mark) return cx__plan_oom(err);
	if (!mark_nodes(&f)) return CX_OK;
	f.to = cx_arena_array(&p->tmp, n, sizeof *f.to);
	if (!f.to) return cx__plan_oom(err);
	if ((st = build_sub(&f, err)) != CX_OK) goto done;
	f.n_from = cx_graph_n_nodes(f.sub);
	f.from = cx_arena_array(&p->tmp, f.n_from, sizeof *f.from);
	if (!f.from) {
		st = cx__plan_oom(err);
		goto done;
	}
	memset(f.from, 0xff, f.n_from * sizeof *f.from);
	for (uint32_t i = 0; i < n; i++)
		if (f.mark[i] & NEEDED) f.from[f.to[i]] = i;
	io.ctx = &f;
	if ((st = cx__ref_eval(f.sub, &p->alloc, &io, err)) != CX_OK) goto done;
	if (f.oom) st = cx__plan_oom(err);
	else commit(&f);
done:
	cx_graph_free(f.sub);
	return st;
}
