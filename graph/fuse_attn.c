/* fuse_attn.c - attention written out: matmul(softmax(scale * matmul(q, k') [+ bias | where mask]),
 * v).
 *
 * q [.., T, d], k [.., S, d], v [.., S, dv] of rank 2, 3 [B] or 4 [B,H]. The op wants heads inside:
 * it reads q, k and v through views with the axes of heads and rows exchanged, so no copy is made
 * for it. Its result is dense as [B,T,H,dv]; that is what is wanted when the only reader is the
 * copy which makes [B,T,H*dv] of it, and when there is only one head or one row; otherwise the
 * pattern is left alone.
 *
 * A row of the mask that sees nothing gives NaN as softmax and 0 as attention. So a mask must be a
 * constant, of which every row is known to see something. Infinite q or k can still make a whole
 * row of scores -inf; there the fused plan gives 0 where the graph gave NaN. */
#include "graph/fuse.h"

#include <math.h>
#include <string.h>

typedef struct attn {
	uint32_t qk, scale, mask_node, softmax, pv, copy; /* nodes, CX_NO where there is none */
	uint32_t q, k, v, mask, bias;
	float factor;
} attn;

/* The node that writes t, through copies that only make a view dense: they are not needed by
 * attention. */
static uint32_t undense(const cx_fuser *f, uint32_t t)
{
	uint32_t d = cx__fuse_def_op(f, t, CX_OP_copy);
	if (d == CX_NO || f->p->n[d].flags & CX_PNODE_XDEV || f->p->n[d].reason != CX_WHY_DENSE)
		return t;
	return f->p->n[d].in[0];
}

/* Offset in elements of row-major index i of d. */
static int64_t element(const cx_desc *d, int64_t i)
{
	int64_t off = 0;
	for (int k = d->rank - 1; k >= 0; k--) {
		off += i % d->dim[k] * d->stride[k];
		i /= d->dim[k];
	}
	return off;
}

/* Constant, and in each row along the last axis some element lets through. */
static bool rows_see(const cx_fuser *f, uint32_t t)
{
	const cx_ptensor *v = &f->p->t[t], *root = &f->p->t[v->root];
	int64_t n = cx__desc_elems(&v->desc), cols = v->desc.rank ? v->desc.dim[v->desc.rank - 1] : 1;
	if (root->leaf != CX_OP_const || cols == 0) return false;
	for (int64_t row = 0; row < n / cols; row++) {
		bool sees = false;
		for (int64_t c = 0; c < cols && !sees; c++) {
			int64_t at = v->view_off + element(&v->desc, row * cols + c);
			float x;
			if (v->desc.dtype == CX_BOOL) {
				sees = ((const uint8_t *)root->data)[at] != 0;
			} else {
				memcpy(&x, (const char *)root->data + at * 4, sizeof x);
				sees = x > -1e30f;
			}
		}
		if (!sees) return false;
	}
	return true;
}

/* add(s, bias) or where(mask, s, -inf) in front of the softmax; gives the tensor before it. */
static uint32_t peel_mask(cx_fuser *f, attn *a, uint32_t t, bool *unknown)
{
	uint32_t d = cx__fuse_def(f, t), other;
	const cx_pnode *n;
	float low;
	if (d == CX_NO || cx__fuse_reader(f, t) == CX_NO) return t;
	n = &f->p->n[d];
	if (n->op == CX_OP_where && cx__fuse_scalar(f, n->in[2], &low) && isinf(low) && low < 0) {
		other = n->in[0];
		if (!cx__desc_same_dims(&f->p->t[t].desc, &f->p->t[n->in[1]].desc)) return t;
		*unknown = !rows_see(f, other);
		a->mask = other;
		a->mask_node = d;
		return n->in[1];
	}
	if (n->op != CX_OP_add || n->in[0] == n->in[1]) return t;
	for (int j = 0; j < 2; j++) {
		uint32_t s = n->in[j], w = cx__fuse_def(f, s);
		if (w == CX_NO || cx__fuse_reader(f, s) != d || f->p->t[n->in[1 - j]].desc.dtype != CX_F32)
			continue;
		if (!cx__desc_same_dims(&f->p->t[t].desc, &f->p->t[s].desc)) continue;
		if (f->p->n[w].op != CX_OP_matmul && f->p->n[w].op != CX_OP_mul &&
			f->p->n[w].op != CX_OP_div)
			continue;
		*unknown = !rows_see(f, n->in[1 - j]);
		a->bias = n->in[1 - j];
		a->mask_node = d;
		return s;
	}
	return t;
}

static uint32_t peel_scale(cx_fuser *f, attn *a, uint32_t t)
{
	uint32_t d = cx__fuse_def(f, t), x;
	const cx_pnode *n;
	float c;
	if (d == CX_NO || cx__fuse_reader(f, t) == CX_NO) return t;
	n = &f->p->n[d];
	if (n->op != CX_OP_mul && n->op != CX_OP_div) return t;
	x = n->in[0];
	if (!cx__fuse_scalar(f, n->in[1], &c)) {
		x = n->in[1];
		if (n->op == CX_OP_div || !cx__fuse_scalar(f, n->in[0], &c)) return t;
	}
	if (!cx__desc_same_dims(&f->p->t[t].desc, &f->p->t[x].desc)) return t;
	a->factor *= n->op == CX_OP_mul ? c : 1.0f / c;
	a->scale = d;
	return x;
}

/* [.., n, w] of rank 2..4 as [B, n, H, w]; `swap`: it is stored as [.., w, n]. */
static uint32_t with_heads(cx_fuser *f, uint32_t t, bool swap, int64_t batch)
{
	const cx_ptensor *v = &f->p->t[t];
	cx_desc d = {.dtype = v->desc.dtype, .rank = 4};
	int r = v->desc.rank, rows = swap ? r - 1 : r - 2, width = swap ? r - 2 : r - 1;
	uint32_t view;
	d.dim[0] = r > 2 ? v->desc.dim[0] : 1;
	d.stride[0] = r > 2 ? v->desc.stride[0] : 0;
	d.dim[1] = v->desc.dim[rows];
	d.stride[1] = v->desc.stride[rows];
	d.dim[2] = r > 3 ? v->desc.dim[1] : 1;
	d.stride[2] = r > 3 ? v->desc.stride[1] : 0;
	d.dim[3] = v->desc.dim[width];
	d.stride[3] = v->desc.stride[width];
	if (d.dim[0] == 1 && batch != 1) { /* matmul broadcasts leading axes */
		d.dim[0] = batch;
		d.stride[0] = 0;
	}
	view = cx__plan_view(f->p, v->root, v->view_off, &d, v->src);
	if (view == CX_NO) f->st = cx__plan_oom(f->err);
	return view;
}

static bool match(cx_fuser *f, uint32_t node, attn *a, bool *unknown)
{
	const cx_plan *p = f->p;
	const cx_attr_matmul *pv, *qk;
	uint32_t t;
	a->softmax = node;
	a->pv = cx__fuse_reader_op(f, p->n[node].out[0], CX_OP_matmul);
	if (a->pv == CX_NO || p->n[a->pv].in[0] != p->n[node].out[0]) return false;
	pv = p->n[a->pv].attr;
	if (pv->trans_a || pv->trans_b) return false;
	t = p->n[node].in[0];
	if (cx__fuse_reader(f, t) != node) return false;
	t = peel_scale(f, a, peel_mask(f, a, t, unknown));
	a->qk = cx__fuse_def_op(f, t, CX_OP_matmul);
	if (a->qk == CX_NO || cx__fuse_reader(f, t) == CX_NO) return false;
	qk = p->n[a->qk].attr;
	if (qk->trans_a) return false;
	a->q = undense(f, p->n[a->qk].in[0]);
	a->k = undense(f, p->n[a->qk].in[1]);
	a->v = undense(f, p->n[a->pv].in[1]);
	return p->t[a->q].desc.rank <= 4 && p->t[a->k].desc.rank == p->t[a->q].desc.rank &&
		   p->t[a->v].desc.rank == p->t[a->q].desc.rank &&
		   p->t[a->q].desc.dtype == p->t[a->k].desc.dtype &&
		   p->t[a->q].desc.dtype == p->t[a->v].desc.dtype;
}

/* Where the result goes: a copy that exchanges heads and rows; else the product's own tensor,
 * re-labelled. */
static uint32_t result_of(cx_fuser *f, attn *a, const cx_desc *want)
{
	const cx_plan *p = f->p;
	uint32_t o = p->n[a->pv].out[0], c = cx__fuse_reader_op(f, o, CX_OP_copy);
	const cx_desc *od = &p->t[o].desc;
	if (c != CX_NO && !p->n[c].flags && od->rank == 4) {
		const cx_ptensor *v = &p->t[p->n[c].in[0]];
		cx_desc same = *want;
		for (int i = 0; i < 4; i++) same.stride[i] = od->stride[i == 1 ? 2 : i == 2 ? 1 : i];
		if (v->view_off == 0 && cx__desc_equal(&v->desc, &same)) {
			a->copy = c;
			return p->n[c].out[0];
		}
	}
	if (want->dim[1] != 1 && want->dim[2] != 1) return CX_NO;
	return cx__plan_root(f->p, want, p->t[o].src);
}

/* Every tensor on root `from` moves to the equally large root `to`. */
static void rename_root(cx_plan *p, uint32_t from, uint32_t to)
{
	for (uint32_t t = 0; t < p->n_t; t++)
		if (p->t[t].root == from) p->t[t].root = to;
	p->t[to].root = to;
	p->t[to].is_output = p->t[from].is_output;
	p->t[to].dev = p->t[from].dev;
	p->t[from].def = CX_NO;
}

void cx__fuse_attention(cx_fuser *f, uint32_t node)
{
	cx_plan *p = f->p;
	attn a = {.scale = CX_NO, .mask_node = CX_NO, .copy = CX_NO, .mask = CX_NO, .bias = CX_NO};
	cx_attr_attention at = cx_attr_attention_default();
	cx_group g = {.op = CX_OP_attention, .attr = &at};
	const cx_attr_softmax *sm = p->n[node].attr;
	uint32_t o, pv_out;
	bool unknown = false, k_rows;
	cx_desc want;
	if (p->n[node].op != CX_OP_softmax || sm->axis != p->t[p->n[node].in[0]].desc.rank - 1) return;
	a.factor = sm->scale;
	if (!match(f, node, &a, &unknown)) return;
	if (unknown || (a.mask_node != CX_NO &&
					   sm->scale != 1.0f)) { /* a scale over the bias is not attention's */
		if (cx__plan_miss(p, f->kind, p->n[node].src, CX_WHY_MISS_MASK) != CX_OK)
			f->st = cx__plan_oom(f->err);
		return;
	}
	if (a.factor == 0.0f || !(fabsf(a.factor) < 1e30f)) return;
	at.scale = a.factor;
	k_rows = ((const cx_attr_matmul *)p->n[a.qk].attr)->trans_b;
	pv_out = p->n[a.pv].out[0];
	want = p->t[pv_out].desc;
	a.q = with_heads(f, a.q, false, want.rank > 2 ? want.dim[0] : 1);
	if (f->st == CX_OK) a.k = with_heads(f, a.k, !k_rows, p->t[a.q].desc.dim[0]);
	if (f->st == CX_OK) a.v = with_heads(f, a.v, false, p->t[a.q].desc.dim[0]);
	if (f->st != CX_OK) return;
	want = p->t[a.q].desc;
	want.dim[3] = p->t[a.v].desc.dim[3];
	o = result_of(f, &a, &want);
	if (o == CX_NO) {
		if (cx__plan_miss(p, f->kind, p->n[node].src, CX_WHY_MISS_SHAPE) != CX_OK)
			f->st = cx__plan_oom(f->err);
		return;
	}
	g = (cx_group){.op = CX_OP_attention,
		.attr = &at,
		.n_in = 7,
		.n_out = 1,
		.in = {a.q, a.k, a.v, CX_NO, CX_NO, a.mask, a.bias},
		.out = {a.copy != CX_NO ? o : pv_out}};
	cx__group_member(&g, a.qk);
	cx__group_member(&g, a.scale);
	cx__group_member(&g, a.mask_node);
	cx__group_member(&g, node);
	cx__group_member(&g, a.pv);
	cx__group_member(&g, a.copy);
	while (g.n_in > 3 && g.in[g.n_in - 1] == CX_NO) g.n_in--;
	if (a.copy == CX_NO) { /* the same bytes under the op's own dims */
		cx_desc was = p->t[pv_out].desc;
		p->t[pv_out].desc = p->t[o].desc;
		if (cx__fuse_commit(f, &g, true)) {
			uint32_t id = p->n[a.pv].into;
			rename_root(p, pv_out, o);
			p->n[id].out[0] = o;
			p->t[o].def = id;
		}
		p->t[pv_out].desc = was;
	} else if (cx__fuse_commit(f, &g, true)) {
		p->t[o].same_as = p->n[a.copy].in[0];
	}
}
