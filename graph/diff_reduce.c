/* diff_reduce.c - the smallest graph that still fails: fewer members, then fewer rows; see diff.h.
 */
#include "graph/diff.h"
#include "graph/plan.h"

#include <stdio.h>
#include <string.h>

static const char prefix[] = "data.";

const void *cx__diff_data(const cx_graph *g, uint32_t leaf)
{
	const cx_node *n = &g->nodes[leaf];
	for (uint32_t i = 0; i < g->n_nodes && n->op != CX_OP_const; i++) {
		const cx_node *c = &g->nodes[i];
		if (c->op != CX_OP_const || !c->name || strncmp(c->name, prefix, sizeof prefix - 1) != 0)
			continue;
		if (strcmp(c->name + sizeof prefix - 1, n->name) == 0 &&
			c->data_bytes == cx__desc_bytes(&n->desc))
			return c->data;
	}
	return NULL;
}

/* ---- a case: a graph and what its leaves hold ---- */

typedef struct test_case {
	cx_graph *g;
	const void **data; /* [n_nodes] by leaf */
} test_case;

typedef struct reducer {
	const cx_diff *d;
	const cx_diff_row *row;
	cx_prober prober;
	cx_arena arena;
	test_case best;
	uint64_t best_bytes;
	cx_err *err;
} reducer;

static cx_status no_memory(cx_err *err)
{
	return CX_FAIL(err, CX_ERR_MEMORY, "diff: out of memory while reducing");
}

static const void *case_leaf(void *ctx, const cx_graph *g, uint32_t id)
{
	(void)g;
	return ((const test_case *)ctx)->data[id];
}

static uint64_t leaf_bytes(const cx_graph *g)
{
	uint64_t sum = 0;
	for (uint32_t i = 0; i < g->n_nodes; i++)
		if (cx__ops[g->nodes[i].op].kind == CX_KIND_LEAF) sum += cx__desc_bytes(&g->nodes[i].desc);
	return sum;
}

/* Whether the case fails in the row's way on its device; *bad gets the first bad element's row of
 * output's dim 0, of `rows`. */
static cx_status fails(const reducer *r, test_case *c, bool *yes, int64_t *at, int64_t *rows)
{
	cx_diff_opts o = {.devices = &r->d->opts.devices[r->row->dev],
		.n_devices = 1,
		.fallback = r->d->opts.fallback ? &r->d->opts.fallback[r->row->dev] : NULL,
		.tol_scale = r->d->opts.tol_scale,
		.no_whole = r->row->kind != CX_DIFF_WHOLE,
		.no_fused = r->row->kind != CX_DIFF_FUSED,
		.leaf = case_leaf,
		.ctx = c,
		.alloc = r->d->opts.alloc};
	cx_diff *sub = NULL;
	cx_status st = cx__diff_run(c->g, &o, &sub, r->err);
	*yes = false;
	if (st != CX_OK) return st;
	for (uint32_t i = 0; i < sub->n_rows && !*yes; i++) {
		const cx_diff_row *s = &sub->rows[i];
		const cx_desc *d = &c->g->nodes[s->node + s->out].desc;
		int64_t per = d->rank && d->dim[0] ? cx__desc_elems(d) / d->dim[0] : 0;
		if (!s->bad || (r->row->kind == CX_DIFF_NODE && s->kind != CX_DIFF_NODE)) continue;
		*yes = true;
		*rows = per > 0 ? d->dim[0] : 0;
		*at = per > 0 && s->m.first_bad >= 0 ? s->m.first_bad / per : 0;
	}
	cx__diff_free(sub);
	return CX_OK;
}

static void take_best(reducer *r, const test_case *c)
{
	cx_graph_free(r->best.g);
	r->best = *c;
	r->best_bytes = leaf_bytes(c->g);
}

/* These members alone; kept as the best if they fail. */
static cx_status try_members(reducer *r, const uint32_t *member, uint32_t n, bool *kept)
{
	cx_probe p;
	test_case c = {0};
	int64_t at, rows;
	cx_status st =
		cx__probe_build(&r->prober, member, n, CX_PROBE_KINDS | CX_PROBE_LABELS, &p, r->err);
	*kept = false;
	if (st != CX_OK) return st;
	c.g = p.g;
	if (!(c.data = cx_arena_array(&r->arena, c.g->n_nodes, sizeof *c.data))) st = no_memory(r->err);
	for (uint32_t i = 0; i < p.n_leaf && st == CX_OK; i++)
		c.data[p.leaf[i]] = r->d->value[p.leaf_src[i]];
	if (st == CX_OK) st = fails(r, &c, kept, &at, &rows);
	if (st == CX_OK && *kept) take_best(r, &c);
	else cx_graph_free(c.g);
	return st;
}

/* Fewer members from either end, while it fails. */
static cx_status fewer_members(reducer *r, const uint32_t *member, uint32_t n)
{
	bool kept;
	cx_status st = try_members(r, member, n, &kept);
	if (st == CX_OK && !kept)
		return CX_FAIL(r->err, CX_ERR_ARGUMENT,
			"reduce: node %%%u alone does not fail again; the run around it is part of the cause",
			r->row->node);
	for (uint32_t tries = 0; st == CX_OK && kept && n > 1 && tries < 64; tries++) {
		st = try_members(r, member, n - 1, &kept);
		if (kept) n--;
		if (kept || st != CX_OK) continue;
		st = try_members(r, member + 1, n - 1, &kept);
		if (kept) member++, n--;
	}
	return st;
}

/* ---- fewer rows ---- */

static const void *rows_of(
	const cx_node *n, const void *data, int64_t first, int64_t rows, cx_desc *d)
{
	uint64_t row = cx__desc_bytes(d) / (uint64_t)d->dim[0];
	(void)n;
	d->dim[0] = rows;
	return (const char *)data + (uint64_t)first * row;
}

static cx_tensor copy_leaf(cx_graph *g, const cx_node *n, const cx_desc *d, const void *data)
{
	if (n->op == CX_OP_const) return cx_const(g, d->dtype, d->rank, d->dim, data);
	if (n->op == CX_OP_weight) return cx_weight(g, n->name, d->dtype, d->rank, d->dim);
	if (n->op == CX_OP_state) return cx_state(g, n->name, d->dtype, d->rank, d->dim);
	return cx_input(g, n->name, d->dtype, d->rank, d->dim);
}

/* A copy of a case in which leaves of `rows` rows keep [first, first + n); rows 0: as it is. */
static cx_status copy_case(
	reducer *r, const test_case *from, int64_t rows, int64_t first, int64_t n, test_case *out)
{
	uint32_t *to = cx_arena_array(&r->arena, from->g->n_nodes, sizeof *to);
	uint32_t cap = 0;
	cx_tensor *in;
	cx_status st;
	for (uint32_t i = 0; i < from->g->n_nodes; i++)
		if (from->g->nodes[i].n_in > cap) cap = from->g->nodes[i].n_in;
	in = cx_arena_array(&r->arena, (size_t)cap + 1, sizeof *in);
	out->data = cx_arena_array(&r->arena, 2 * (size_t)from->g->n_nodes, sizeof *out->data);
	if (!to || !in || !out->data) return no_memory(r->err);
	if ((st = cx_graph_create(&r->d->opts.alloc, &out->g, r->err)) != CX_OK) return st;
	for (uint32_t i = 0; i < from->g->n_nodes; i++) {
		const cx_node *x = &from->g->nodes[i];
		cx_desc d = x->desc;
		const void *data = x->op == CX_OP_const ? x->data : from->data[i];
		bool leaf = cx__ops[x->op].kind == CX_KIND_LEAF;
		cx_tensor t;
		if (leaf && rows > 0 && d.rank > 0 && d.dim[0] == rows && x->op == CX_OP_input)
			data = rows_of(x, data, first, n, &d);
		for (uint32_t j = 0; j < x->n_in; j++)
			in[j] = x->in[j] == CX_NO ? CX_NONE : (cx_tensor){to[x->in[j]]};
		if (leaf) t = copy_leaf(out->g, x, &d, data);
		else if (x->op == CX_OP_proj)
			t = cx_out(out->g, in[0], (int)((const cx_attr_proj *)x->attr)->index);
		else t = cx__node_add(out->g, (cx_op)x->op, in, x->n_in, x->attr, x->prog);
		if (cx_is_none(t) || t.id >= 2 * from->g->n_nodes) break;
		to[i] = t.id;
		if (!leaf && x->op != CX_OP_proj && x->name[0]) cx_named(out->g, t, x->name);
		if (leaf) out->data[t.id] = data;
	}
	for (uint32_t o = 0; o < from->g->n_outputs; o++)
		cx_output(out->g, from->g->outputs[o].name, (cx_tensor){to[from->g->outputs[o].id]});
	return CX_OK;
}

/* The half with the first bad element, while it fails. Shapes that do not allow it end it. */
static cx_status fewer_rows(reducer *r)
{
	for (int tries = 0; tries < 40; tries++) {
		test_case c = {0};
		int64_t at = 0, rows = 0, first, n;
		bool yes = false;
		cx_err ignored = {0};
		cx_status st = fails(r, &r->best, &yes, &at, &rows);
		if (st != CX_OK || !yes || rows < 2) return st;
		n = (rows + 1) / 2;
		first = at < n ? 0 : rows - n;
		if ((st = copy_case(r, &r->best, rows, first, n, &c)) != CX_OK) return st;
		if (cx_graph_finish(c.g, &ignored) != CX_OK || leaf_bytes(c.g) >= r->best_bytes)
			yes = false;
		else {
			cx_err *err = r->err;
			r->err = &ignored;
			if (fails(r, &c, &yes, &at, &rows) != CX_OK) yes = false;
			r->err = err;
		}
		if (!yes) {
			cx_graph_free(c.g);
			return CX_OK;
		}
		take_best(r, &c);
	}
	return CX_OK;
}

/* The best case with its operands in it. */
static cx_status embed(reducer *r, cx_graph **out)
{
	test_case c = {0};
	char label[160];
	cx_status st = copy_case(r, &r->best, 0, 0, 0, &c);
	if (st != CX_OK) return st;
	for (uint32_t i = 0; i < r->best.g->n_nodes; i++) {
		const cx_node *n = &r->best.g->nodes[i];
		int64_t bytes = (int64_t)cx__desc_bytes(&n->desc);
		cx_tensor t;
		if (cx__ops[n->op].kind != CX_KIND_LEAF || n->op == CX_OP_const) continue;
		t = cx_const(c.g, CX_U8, 1, &bytes, r->best.data[i]);
		snprintf(label, sizeof label, "%s%s", prefix, n->name);
		cx_named(c.g, t, label);
	}
	if ((st = cx_graph_finish(c.g, r->err)) == CX_OK) *out = c.g;
	else cx_graph_free(c.g);
	return st;
}

/* All that a node depends on, `depth` nodes deep; ascending. */
static uint32_t ancestors(reducer *r, uint32_t node, uint32_t depth, uint32_t *member)
{
	const cx_graph *g = r->d->g;
	uint32_t n = 0, *level = cx_arena_array(&r->arena, (size_t)node + 1, sizeof *level);
	if (!level) return 0;
	level[node] = depth;
	for (uint32_t i = node + 1; i-- > 0;) {
		const cx_node *x = &g->nodes[i];
		for (uint32_t j = 0; level[i] > 0 && j < x->n_in; j++) {
			uint32_t in = x->in[j] == CX_NO ? CX_NO : g->nodes[x->in[j]].root, l = level[i] - 1;
			if (in == CX_NO) continue;
			if (g->nodes[in].op == CX_OP_proj) in = g->nodes[in].in[0];
			if (x->op == CX_OP_proj || x->root != i) l = level[i];
			if (l > level[in]) level[in] = l;
		}
	}
	for (uint32_t i = 0; i <= node; i++)
		if (level[i] > 0 && g->nodes[i].root == i && g->nodes[i].op != CX_OP_proj &&
			cx__ops[g->nodes[i].op].kind != CX_KIND_LEAF)
			member[n++] = i;
	return n;
}

static cx_status reduce_whole(reducer *r)
{
	const cx_graph *g = r->d->g;
	uint32_t *member = cx_arena_array(&r->arena, (size_t)g->n_nodes + 1, sizeof *member);
	bool kept = false;
	cx_status st = member ? CX_OK : no_memory(r->err);
	for (uint32_t depth = 1; st == CX_OK && !kept && depth < 2 * g->n_nodes; depth *= 2) {
		uint32_t n = ancestors(r, r->row->node, depth, member);
		if (n > 0) st = try_members(r, member, n, &kept);
	}
	if (st == CX_OK && !kept)
		st = CX_FAIL(r->err, CX_ERR_ARGUMENT,
			"reduce: what node %%%u depends on does not fail again by itself", r->row->node);
	return st;
}

cx_status cx__diff_reduce(const cx_diff *d, const cx_diff_row *row, cx_graph **out, cx_err *err)
{
	reducer r = {.d = d, .row = row, .err = err};
	cx_status st = cx__prober_init(&r.prober, d->g, &d->opts.alloc, err);
	*out = NULL;
	if (st != CX_OK) return st;
	cx_arena_init(&r.arena, &d->opts.alloc);
	if (row->kind == CX_DIFF_WHOLE) st = reduce_whole(&r);
	else if (row->kind == CX_DIFF_FUSED) st = fewer_members(&r, row->member, row->n_member);
	else st = fewer_members(&r, &row->node, 1);
	if (st == CX_OK) st = fewer_rows(&r);
	if (st == CX_OK) st = embed(&r, out);
	cx_graph_free(r.best.g);
	cx_arena_deinit(&r.arena);
	cx__prober_deinit(&r.prober);
	return st;
}
