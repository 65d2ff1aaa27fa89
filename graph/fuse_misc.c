/* fuse_misc.c - patterns of a few nodes: rope into the key cache, convolution + silu, a factor
 * before softmax, rows of several tables summed. */
#include "graph/fuse.h"

/* ---- rope(k) -> [cast] -> scatter(kcache, slot), [cast] v -> scatter(vcache, slot) ---- */

static bool overwrites(const cx_fuser *f, uint32_t node)
{
	const cx_pnode *n = &f->p->n[node];
	return n->op == CX_OP_scatter && !n->flags && !((const cx_attr_scatter *)n->attr)->add;
}

/* The scatter of values that goes with the scatter of keys: same slots, same kind of cache, the
 * nearest. */
static uint32_t values_scatter(const cx_fuser *f, uint32_t keys)
{
	const cx_plan *p = f->p;
	const cx_pnode *k = &p->n[keys];
	uint32_t root = p->t[k->in[1]].root, best = CX_NO, best_far = CX_NO;
	if (root >= f->rd.n_t) return CX_NO;
	for (uint32_t i = f->rd.start[root]; i < f->rd.start[root + 1]; i++) {
		uint32_t id = f->rd.node[i], src, far;
		const cx_pnode *v = &p->n[id];
		if (id == keys || !overwrites(f, id) || !cx__fuse_same(f, v->in[1], k->in[1])) continue;
		if (p->t[v->in[0]].desc.dtype != p->t[k->in[0]].desc.dtype ||
			!cx__desc_same_dims(&p->t[v->in[0]].desc, &p->t[k->in[0]].desc))
			continue;
		src = cx__fuse_def(f, v->in[2]);
		if (src != CX_NO && p->n[src].op == CX_OP_cast) src = cx__fuse_def(f, p->n[src].in[0]);
		if (src != CX_NO && p->n[src].op == CX_OP_rope) continue; /* another layer's keys */
		far = v->pos > k->pos ? v->pos - k->pos : k->pos - v->pos;
		if (far < best_far) {
			best = id;
			best_far = far;
		}
	}
	return best;
}

void cx__fuse_rope_kv(cx_fuser *f, uint32_t node)
{
	const cx_plan *p = f->p;
	const cx_pnode *rope = &p->n[node];
	cx_group g = {.op = CX_OP_rope_kv, .attr = rope->attr};
	uint32_t next, cast = CX_NO, vs, v;
	if (rope->op != CX_OP_rope || p->t[rope->in[0]].desc.rank != 3) return;
	for (uint32_t j = 3; j < rope->n_in; j++)
		if (rope->in[j] != CX_NO) return; /* with tables */
	next = cx__fuse_reader(f, rope->out[0]);
	if (next != CX_NO && p->n[next].op == CX_OP_cast && p->n[next].in[0] == rope->out[0]) {
		cast = next;
		next = cx__fuse_reader(f, p->n[cast].out[0]);
	}
	if (next == CX_NO || !overwrites(f, next)) return;
	if (p->n[next].in[2] != (cast == CX_NO ? rope->out[0] : p->n[cast].out[0])) return;
	if ((vs = values_scatter(f, next)) == CX_NO) return;
	cx__group_member(&g, node);
	cx__group_member(&g, cast);
	cx__group_member(&g, next);
	cx__group_member(&g, vs);
	v = p->n[vs].in[2];
	if (cast != CX_NO) {
		uint32_t vcast = cx__fuse_def_op(f, v, CX_OP_cast);
		if (vcast == CX_NO || cx__fuse_reader(f, v) != vs) return;
		cx__group_member(&g, vcast);
		v = p->n[vcast].in[0];
	}
	cx__group_in(&g, rope->in[0]);
	cx__group_in(&g, v);
	cx__group_in(&g, rope->in[1]);
	cx__group_in(&g, p->n[next].in[1]);
	cx__group_in(&g, p->n[next].in[0]);
	cx__group_in(&g, p->n[vs].in[0]);
	if (rope->n_in > 2 && rope->in[2] != CX_NO) cx__group_in(&g, rope->in[2]);
	g.out[0] = p->n[next].out[0];
	g.out[1] = p->n[vs].out[0];
	g.n_out = 2;
	cx__fuse_commit(f, &g, true);
}

/* ---- silu(conv1d) ---- */

void cx__fuse_conv_silu(cx_fuser *f, uint32_t node)
{
	const cx_pnode *conv = &f->p->n[node];
	cx_group g = {.op = CX_OP_conv1d};
	cx_attr_conv1d a;
	uint32_t silu;
	if (conv->op != CX_OP_conv1d || conv->n_out != 2) return;
	a = *(const cx_attr_conv1d *)conv->attr;
	silu = cx__fuse_reader_op(f, conv->out[0], CX_OP_silu);
	if (a.silu || silu == CX_NO || f->p->n[silu].in[0] != conv->out[0]) return;
	a.silu = true;
	g.attr = &a;
	for (uint32_t j = 0; j < conv->n_in; j++) cx__group_in(&g, conv->in[j]);
	cx__group_member(&g, node);
	cx__group_member(&g, silu);
	g.out[0] = f->p->n[silu].out[0];
	g.out[1] = conv->out[1];
	g.n_out = 2;
	cx__fuse_commit(f, &g, true);
}

/* ---- softmax(x * c), softmax(x / c) ---- */

void cx__fuse_softmax_scale(cx_fuser *f, uint32_t node)
{
	const cx_pnode *s = &f->p->n[node], *m;
	cx_group g = {.op = (cx_op)s->op};
	cx_attr_softmax a;
	uint32_t id, x;
	float c;
	if (s->op != CX_OP_softmax && s->op != CX_OP_log_softmax) return;
	a = *(const cx_attr_softmax *)s->attr;
	id = cx__fuse_def(f, s->in[0]);
	if (id == CX_NO || a.scale != 1.0f) return;
	m = &f->p->n[id];
	if (m->op != CX_OP_mul && m->op != CX_OP_div) return;
	x = m->in[0];
	if (!cx__fuse_scalar(f, m->in[1], &c)) {
		x = m->in[1];
		if (m->op == CX_OP_div || !cx__fuse_scalar(f, m->in[0], &c)) return;
	}
	if (!(c > -1e30f && c < 1e30f) || c == 0.0f) return;
	if (!cx__desc_same_dims(&f->p->t[x].desc, &f->p->t[s->in[0]].desc)) return;
	a.scale = m->op == CX_OP_mul ? c : 1.0f / c;
	g.attr = &a;
	cx__group_in(&g, x);
	cx__group_member(&g, id);
	cx__group_member(&g, node);
	g.out[0] = s->out[0];
	g.n_out = 1;
	cx__fuse_commit(f, &g, true);
}

/* ---- gather + gather + ... ---- */

/* Flattens a sum of gathered rows, left to right. depth: a sum that fits a group is not deeper. */
static bool sum_of_rows(const cx_fuser *f, uint32_t t, uint32_t reader, uint32_t depth, cx_group *g)
{
	uint32_t d = cx__fuse_def(f, t);
	const cx_pnode *n;
	if (depth >= CX_GROUP_MEMBERS) return false;
	if (d == CX_NO || cx__fuse_reader(f, t) != reader || g->n_member + 1 >= CX_GROUP_MEMBERS)
		return false;
	n = &f->p->n[d];
	if (n->op == CX_OP_add) {
		if (n->in[0] == n->in[1]) return false;
		if (!sum_of_rows(f, n->in[0], d, depth + 1, g) ||
			!sum_of_rows(f, n->in[1], d, depth + 1, g))
			return false;
		cx__group_member(g, d);
		return true;
	}
	if (n->op != CX_OP_gather || ((const cx_attr_axis *)n->attr)->axis != 0) return false;
	if (f->p->t[n->in[0]].desc.rank != 2 || f->p->t[n->in[1]].desc.rank != 1) return false;
	cx__group_in(g, n->in[0]);
	cx__group_in(g, n->in[1]);
	cx__group_member(g, d);
	return true;
}

void cx__fuse_embed_sum(cx_fuser *f, uint32_t node)
{
	const cx_pnode *n = &f->p->n[node];
	cx_attr_none a = cx_attr_none_default();
	cx_group g = {.op = CX_OP_embed_sum, .attr = &a}, whole = {0};
	uint32_t next;
	if (n->op != CX_OP_add || n->in[0] == n->in[1]) return;
	next = cx__fuse_reader_op(f, n->out[0], CX_OP_add);
	if (next != CX_NO) { /* if the sum goes on, it is taken as a whole when its end comes */
		uint32_t other = cx__fuse_other(f, next, n->out[0]);
		if (other != CX_NO && sum_of_rows(f, other, next, 0, &whole)) return;
	}
	if (!sum_of_rows(f, n->in[0], node, 0, &g) || !sum_of_rows(f, n->in[1], node, 0, &g)) return;
	cx__group_member(&g, node);
	g.out[0] = n->out[0];
	g.n_out = 1;
	cx__fuse_commit(f, &g, true);
}
