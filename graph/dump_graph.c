/* dump_graph.c - cx__plan_to_graph(): the nodes of a plan, at any stage, as a graph again.
 *
 * A view of a plan is only strides over a root. It is made again by the source's own view op where
 * its operand is still there, else from the strides: the root is cut into axes from the outermost
 * in, each sliced, then permuted and broadcast. Either way the result is compared with the plan's
 * strides, so that what comes out computes what the plan computes or is refused. */
#include "graph/dump.h"

#include <stdio.h>
#include <string.h>

typedef struct copier {
	const cx_plan *p;
	cx_graph *g;
	uint32_t *map; /* [n_t] tensor of g, or CX_NO */
	cx_err *err;
} copier;

static cx_status tensor_of(copier *c, uint32_t t, cx_tensor *out);

static cx_status cannot(copier *c, uint32_t t)
{
	char where[160] = "a new tensor";
	if (c->p->t[t].src != CX_NO) cx__node_text(c->p->g, c->p->t[t].src, where, sizeof where);
	return CX_FAIL(c->err, CX_ERR_UNSUPPORTED,
		"the strides of %s cannot be written as graph text; use json", where);
}

static cx_status leaf_of(copier *c, uint32_t t, cx_tensor *out)
{
	const cx_ptensor *r = &c->p->t[t];
	const char *name = r->src == CX_NO ? "" : c->p->g->nodes[r->src].name;
	const cx_desc *d = &r->desc;
	switch (r->leaf) {
	case CX_OP_input:
		*out = cx_input(c->g, name, d->dtype, d->rank, d->dim);
		break;
	case CX_OP_weight:
		*out = cx_weight(c->g, name, d->dtype, d->rank, d->dim);
		break;
	case CX_OP_state:
		*out = cx_state(c->g, name, d->dtype, d->rank, d->dim);
		break;
	case CX_OP_const:
		*out = cx_const(c->g, d->dtype, d->rank, d->dim, r->data);
		break;
	default:
		return cannot(c, t);
	}
	return CX_OK;
}

static cx_tensor add_dims(copier *c, cx_op op, cx_tensor x, int32_t rank, const int64_t *dim)
{
	cx_attr_dims a = {.dims = cx_list_from(rank, dim)};
	return cx_node_add(c->g, op, &x, 1, &a);
}

/* Takes n elements, `step` apart from begin on, of the last axis but `after`. */
static cx_tensor add_slice(
	copier *c, cx_tensor x, int32_t after, int64_t begin, int64_t n, int64_t step)
{
	cx_shape s = cx_tensor_shape(c->g, x);
	int64_t from[CX_MAX_RANK] = {0}, by[CX_MAX_RANK] = {1, 1, 1, 1, 1, 1};
	cx_attr_slice a;
	if (s.rank <= after || s.dim[s.rank - 1 - after] == n) return x;
	from[s.rank - 1 - after] = begin;
	by[s.rank - 1 - after] = step;
	s.dim[s.rank - 1 - after] = n;
	memset(&a, 0, sizeof a);
	a.begin = cx_list_from(s.rank, from);
	a.size = cx_list_from(s.rank, s.dim);
	if (step != 1) a.step = cx_list_from(s.rank, by);
	return cx_node_add(c->g, CX_OP_slice, &x, 1, &a);
}

/* Axes of more than one element that move, outermost first. */
static int32_t moving_axes(const cx_desc *d, int32_t *axis)
{
	int32_t n = 0;
	for (int32_t i = 0; i < d->rank; i++) {
		int32_t at = n;
		if (d->dim[i] == 1 || d->stride[i] == 0) continue;
		for (; at > 0 && d->stride[axis[at - 1]] < d->stride[i]; at--) axis[at] = axis[at - 1];
		axis[at] = i;
		n++;
	}
	return n;
}

static int64_t gcd(int64_t a, int64_t b)
{
	while (b) {
		int64_t r = a % b;
		a = b;
		b = r;
	}
	return a;
}

/* Cuts the flat tensor x of `left` elements into the axes; false: these strides cannot be had. Each
 * turn splits the last axis into units that hold all inner axes, and takes every few of them. */
static bool cut(copier *c, const cx_desc *d, int64_t off, const int32_t *axis, int32_t n,
	cx_tensor *x, int64_t left)
{
	for (int32_t i = 0; i < n; i++) {
		int64_t step = d->stride[axis[i]], size = d->dim[axis[i]], dim[CX_MAX_RANK] = {0};
		int64_t unit = step > 0 ? gcd(left, step) : 0, span = 1;
		for (int32_t k = i + 1; k < n; k++) span += (d->dim[axis[k]] - 1) * d->stride[axis[k]];
		if (unit < 1 || off % unit + span > unit) return false;
		if (off / unit + (size - 1) * (step / unit) >= left / unit) return false;
		if (unit > 1) {
			if (i + 2 > CX_MAX_RANK) return false;
			for (int32_t k = 0; k < i; k++) dim[k] = d->dim[axis[k]];
			dim[i] = left / unit;
			dim[i + 1] = unit;
			*x = add_dims(c, CX_OP_reshape, *x, i + 2, dim);
		}
		*x = add_slice(c, *x, unit > 1, off / unit, size, step / unit);
		off %= unit;
		left = unit;
	}
	if (left > 1 || n == 0) *x = add_slice(c, *x, 0, off, 1, 1);
	return true;
}

static bool from_strides(copier *c, uint32_t t, cx_tensor base, cx_tensor *out)
{
	const cx_ptensor *v = &c->p->t[t];
	const cx_desc *d = &v->desc;
	int64_t total = cx__desc_elems(&c->p->t[v->root].desc), ones[CX_MAX_RANK];
	int32_t axis[CX_MAX_RANK], place[CX_MAX_RANK] = {0}, n = moving_axes(d, axis);
	int64_t perm[CX_MAX_RANK], dim[CX_MAX_RANK];
	cx_attr_perm a;
	if (total < 1 || cx__desc_elems(d) < 1 || cx_dtype_get(d->dtype)->block_elems > 1) return false;
	if (cx__plan_is_whole(c->p, t)) {
		*out = add_dims(c, CX_OP_reshape, base, d->rank, d->dim);
		return true;
	}
	*out = add_dims(c, CX_OP_reshape, base, 1, &total);
	if (!cut(c, d, v->view_off, axis, n, out, total)) return false;
	for (int32_t i = 0; i < n; i++) dim[i] = d->dim[axis[i]];
	if (cx_tensor_shape(c->g, *out).rank != n) *out = add_dims(c, CX_OP_reshape, *out, n, dim);
	for (int32_t i = 0; i < n; i++) /* rank of the axis among those that move */
		for (int32_t k = 0; k < n; k++) place[i] += axis[k] < axis[i];
	for (int32_t i = 0; i < n; i++) perm[place[i]] = i;
	memset(&a, 0, sizeof a);
	a.perm = cx_list_from(n, perm);
	if (n > 1) *out = cx_node_add(c->g, CX_OP_permute, out, 1, &a);
	for (int32_t i = 0; i < d->rank; i++) ones[i] = d->stride[i] == 0 ? 1 : d->dim[i];
	*out = add_dims(c, CX_OP_reshape, *out, d->rank, ones);
	*out = add_dims(c, CX_OP_broadcast, *out, d->rank, d->dim);
	return true;
}

static bool same_view(copier *c, uint32_t t, cx_tensor base, cx_tensor made)
{
	const cx_node *n;
	if (c->g->first_error.code != CX_OK || made.id >= c->g->n_nodes) return false;
	n = &c->g->nodes[made.id];
	return n->root == c->g->nodes[base.id].root && n->view_off == c->p->t[t].view_off &&
		   cx__desc_equal(&n->desc, &c->p->t[t].desc);
}

static cx_status view_of(copier *c, uint32_t t, cx_tensor *out)
{
	const cx_plan *p = c->p;
	const cx_ptensor *v = &p->t[t];
	cx_tensor base, x;
	cx_status st;
	if ((st = tensor_of(c, v->root, &base)) != CX_OK) return st;
	*out = base;
	if (same_view(c, t, base, base)) return CX_OK;
	if (v->src != CX_NO && cx__ops[p->g->nodes[v->src].op].kind == CX_KIND_VIEW) {
		const cx_node *s = &p->g->nodes[v->src];
		uint32_t u = s->in[0];
		if (p->t[u].root == v->root && u != t &&
			cx__desc_same_dims(&p->t[u].desc, &p->g->nodes[u].desc)) {
			if ((st = tensor_of(c, u, &x)) != CX_OK) return st;
			*out = cx_node_add(c->g, (cx_op)s->op, &x, 1, s->attr);
			if (same_view(c, t, base, *out)) return CX_OK;
		}
	}
	if (!from_strides(c, t, base, out) || !same_view(c, t, base, *out)) return cannot(c, t);
	return CX_OK;
}

static cx_status tensor_of(copier *c, uint32_t t, cx_tensor *out)
{
	cx_status st;
	if (t == CX_NO) {
		*out = CX_NONE;
		return CX_OK;
	}
	if (c->map[t] == CX_NO) {
		st = c->p->t[t].root == t ? leaf_of(c, t, out) : view_of(c, t, out);
		if (st != CX_OK) return st;
		if (c->g->first_error.code != CX_OK) return cx_graph_finish(c->g, c->err);
		c->map[t] = out->id;
	}
	*out = (cx_tensor){c->map[t]};
	return CX_OK;
}

/* The source's label, where the node makes what it names. */
static cx_status label(copier *c, const cx_pnode *n, cx_tensor t)
{
	const cx_node *s;
	cx_node *made = &c->g->nodes[t.id];
	if (n->src == CX_NO) return CX_OK;
	s = &c->p->g->nodes[n->src];
	made->scope = cx_arena_strdup(&c->g->arena, s->scope);
	made->name = cx_arena_strdup(&c->g->arena, cx__ops[s->op].kind == CX_KIND_LEAF ? "" : s->name);
	if (made->scope && made->name) return CX_OK;
	made->scope = made->name = "";
	return cx__plan_oom(c->err);
}

static cx_status node_of(copier *c, const cx_pnode *n)
{
	const cx_plan *p = c->p;
	cx_tensor *in = cx_calloc(&c->g->arena.alloc, n->n_in ? n->n_in : 1, sizeof *in), y = CX_NONE,
			  prev;
	cx_status st = in ? CX_OK : cx__plan_oom(c->err);
	for (uint32_t j = 0; j < n->n_in && st == CX_OK; j++) st = tensor_of(c, n->in[j], &in[j]);
	if (st == CX_OK) {
		y = cx__node_add(c->g, (cx_op)n->op, in, n->n_in, n->attr, n->prog);
		if (c->g->first_error.code != CX_OK) st = cx_graph_finish(c->g, c->err);
	}
	cx_free(&c->g->arena.alloc, in, (n->n_in ? n->n_in : 1) * sizeof *in);
	if (st == CX_OK) st = label(c, n, y);
	for (uint32_t o = 0; o < n->n_out && st == CX_OK; o++) {
		uint32_t t = n->out[o];
		c->map[t] = y.id + o;
		if (p->t[t].state == CX_NO || cx__pnode_alias(n, o) >= 0) continue;
		/* written straight into the state: as a graph says it */
		if ((st = tensor_of(c, p->t[t].prev, &prev)) != CX_OK) break;
		c->map[t] = cx_assign(c->g, prev, (cx_tensor){y.id + o}).id;
		if (c->g->first_error.code != CX_OK) st = cx_graph_finish(c->g, c->err);
	}
	return st;
}

static cx_status copy_all(copier *c)
{
	const cx_plan *p = c->p;
	cx_tensor t;
	cx_status st;
	for (uint32_t i = 0; i < p->g->n_nodes; i++) { /* what a caller may bind stays */
		if (p->g->nodes[i].op != CX_OP_input && p->g->nodes[i].op != CX_OP_state) continue;
		if ((st = tensor_of(c, i, &t)) != CX_OK) return st;
	}
	for (uint32_t i = 0; i < p->n_order; i++)
		if ((st = node_of(c, &p->n[p->order[i]])) != CX_OK) return st;
	for (uint32_t i = 0; i < p->n_outs; i++) {
		if ((st = tensor_of(c, p->outs[i].t, &t)) != CX_OK) return st;
		cx_output(c->g, p->outs[i].name, t);
	}
	return cx_graph_finish(c->g, c->err);
}

cx_status cx__plan_to_graph(const cx_plan *p, const cx_alloc *alloc, cx_graph **out, cx_err *err)
{
	copier c = {.p = p, .err = err};
	cx_status st;
	*out = NULL;
	if ((st = cx_graph_create(alloc, &c.g, err)) != CX_OK) return st;
	c.map = cx_malloc(alloc, (size_t)p->n_t * sizeof *c.map + 1);
	if (!c.map) {
		st = cx__plan_oom(err);
	} else {
		memset(c.map, 0xff, (size_t)p->n_t * sizeof *c.map);
		st = copy_all(&c);
	}
	cx_free(alloc, c.map, (size_t)p->n_t * sizeof *c.map + 1);
	if (st == CX_OK) *out = c.g;
	else cx_graph_free(c.g);
	return st;
}
