/* shape_seq.c - shape rules of products, attention, sequences with carried state, losses and
 * updates. */
#include "graph/shape.h"

#include <string.h>

/* ---- products -------------------------------------------------------------------------------- */

/* Sums of k products of at most 127 * 127 in size must fit 32 bits. */
enum { ACT_K_MAX = 131072 };

cx_status cx__need_act_scale(cx_shape_ctx *c, uint32_t w, float act_scale)
{
	const cx_desc *d = &c->in[w];
	if (act_scale == 0.0f) return CX_OK;
	if (!(act_scale >= 1e-30f && act_scale <= 1e30f))
		return SHAPE_FAIL(c, "act_scale is %g, must be 0 or from 1e-30 to 1e30", (double)act_scale);
	if (d->dtype != CX_I8C)
		return SHAPE_FAIL(
			c, "act_scale asks for i8c weights, operand %u is %s", w, cx_dtype_get(d->dtype)->name);
	if (d->dim[d->rank - 1] > ACT_K_MAX)
		return SHAPE_FAIL(c, "act_scale with k=%lld: sums of more than %d products may not fit",
			(long long)d->dim[d->rank - 1], ACT_K_MAX);
	return CX_OK;
}

cx_status cx__shape_matmul(cx_shape_ctx *c)
{
	const cx_attr_matmul *t = c->attr;
	const cx_desc *a = &c->in[0], *b = &c->in[1];
	cx_desc lead_a, lead_b;
	int64_t m, k, n, kb;
	if (cx__need_class(c, 0, DT_FLOAT) || cx__need_class(c, 1, DT_FLOAT | DT_BLOCK) ||
		cx__need_rank(c, 0, 2, CX_MAX_RANK) || cx__need_rank(c, 1, 2, CX_MAX_RANK))
		return c->err->code;
	if (cx__is_block(b->dtype) && !t->trans_b)
		return SHAPE_FAIL(
			c, "b is %s: block formats are [n,k], with trans_b", cx_dtype_get(b->dtype)->name);
	m = a->dim[a->rank - (t->trans_a ? 1 : 2)];
	k = a->dim[a->rank - (t->trans_a ? 2 : 1)];
	n = b->dim[b->rank - (t->trans_b ? 2 : 1)];
	kb = b->dim[b->rank - (t->trans_b ? 1 : 2)];
	if (k != kb)
		return SHAPE_FAIL(c, "a %s%s has k=%lld, b %s%s has k=%lld", cx__dims_text(a).s,
			t->trans_a ? "'" : "", (long long)k, cx__dims_text(b).s, t->trans_b ? "'" : "",
			(long long)kb);
	if (cx__need_act_scale(c, 1, t->act_scale)) return c->err->code;
	lead_a = *a;
	lead_b = *b;
	lead_a.rank -= 2;
	lead_b.rank -= 2;
	if (!cx__broadcast(&lead_a, &lead_b))
		return SHAPE_FAIL(
			c, "leading axes do not broadcast: %s and %s", cx__dims_text(a).s, cx__dims_text(b).s);
	c->out[0] = lead_a;
	c->out[0].dtype = a->dtype;
	c->out[0].dim[c->out[0].rank++] = m;
	c->out[0].dim[c->out[0].rank++] = n;
	return CX_OK;
}

/* The width that rope rotates, checked against the head. */
static cx_status rope_width(cx_shape_ctx *c, int64_t head, int64_t *r)
{
	const cx_attr_rope *a = c->attr;
	*r = a->n_rot ? a->n_rot : head;
	if (*r < 0 || *r > head || *r % 2 != 0)
		return SHAPE_FAIL(c, "rotated width is %lld of a head of %lld: must be even and not larger",
			(long long)*r, (long long)head);
	return CX_OK;
}

cx_status cx__shape_rope(cx_shape_ctx *c)
{
	const cx_desc *x = &c->in[0];
	int64_t r;
	if (cx__need_class(c, 0, DT_FLOAT) || cx__need_rank(c, 0, 3, CX_MAX_RANK) ||
		cx__need_dims(c, 1, CX_I32, x->rank - 2, x->dim) || rope_width(c, x->dim[x->rank - 1], &r))
		return c->err->code;
	if (cx__has(c, 2) && cx__need_dims(c, 2, CX_F32, DIMS(r / 2))) return c->err->code;
	if (cx__has(c, 3) || cx__has(c, 4)) {
		if (cx__has(c, 2)) return SHAPE_FAIL(c, "freqs and tables cos, sin exclude each other");
		if (cx__need_rank(c, 3, 2, 2) ||
			cx__need_dims(c, 3, CX_F32, DIMS(c->in[3].dim[0], r / 2)) || cx__need_same(c, 4, 3))
			return c->err->code;
	}
	c->out[0] = *x;
	return CX_OK;
}

/* ---- attention ------------------------------------------------------------------------------- */

static cx_status need_heads(cx_shape_ctx *c, int64_t h, int64_t hk)
{
	if (hk > 0 && h % hk == 0) return CX_OK;
	if (hk == 0 && h == 0) return CX_OK;
	return SHAPE_FAIL(
		c, "%lld query heads are no multiple of %lld key heads", (long long)h, (long long)hk);
}

/* mask or bias: broadcasts to full without making it larger. */
static cx_status need_scores(cx_shape_ctx *c, uint32_t j, cx_dtype dtype, const cx_desc *full)
{
	cx_desc t = *full;
	if (cx__need_dtype(c, j, dtype)) return c->err->code;
	if (cx__broadcast(&t, &c->in[j]) && t.rank == full->rank &&
		memcmp(t.dim, full->dim, sizeof t.dim) == 0)
		return CX_OK;
	return SHAPE_FAIL(c, "%s %s does not broadcast to %s", cx__operand_name(c->op, j).s,
		cx__dims_text(&c->in[j]).s, cx__dims_text(full).s);
}

cx_status cx__shape_attention(cx_shape_ctx *c)
{
	const cx_attr_attention *a = c->attr;
	const cx_desc *q = &c->in[0], *k = &c->in[1], *v = &c->in[2];
	int32_t r = q->rank;
	cx_desc full = {.rank = r};
	if (cx__need_class(c, 0, DT_FLOAT) || cx__need_class(c, 1, DT_FLOAT) ||
		cx__need_class(c, 2, DT_FLOAT) || cx__need_rank(c, 0, 3, 4) || cx__need_rank(c, 1, r, r) ||
		cx__need_rank(c, 2, r, r))
		return c->err->code;
	if (k->dim[r - 1] != q->dim[r - 1] || (r == 4 && k->dim[0] != q->dim[0]))
		return SHAPE_FAIL(c, "q is %s, k is %s", cx__dims_text(q).s, cx__dims_text(k).s);
	if (memcmp(k->dim, v->dim, (size_t)(r - 1) * sizeof k->dim[0]) != 0)
		return SHAPE_FAIL(c, "k is %s, v is %s", cx__dims_text(k).s, cx__dims_text(v).s);
	if (need_heads(c, q->dim[r - 2], k->dim[r - 2])) return c->err->code;
	if (a->window < 0) return SHAPE_FAIL(c, "window is %lld", (long long)a->window);
	if (r == 4 && (cx__has(c, 3) || cx__has(c, 4)))
		return SHAPE_FAIL(c, "offsets go with ragged q [T,H,d], not with %s", cx__dims_text(q).s);
	if (cx__has(c, 3) != cx__has(c, 4)) return SHAPE_FAIL(c, "q_off and kv_off come together");
	if (cx__has(c, 3) &&
		(cx__need_dtype(c, 3, CX_I32) || cx__need_rank(c, 3, 1, 1) || cx__need_same(c, 4, 3)))
		return c->err->code;
	if (cx__has(c, 3) && c->in[3].dim[0] < 1)
		return SHAPE_FAIL(c, "q_off is empty: it has a 0 at least");
	if (r == 4) full.dim[0] = q->dim[0];
	full.dim[r - 3] = q->dim[r - 2];
	full.dim[r - 2] = q->dim[r - 3];
	full.dim[r - 1] = k->dim[r - 3];
	if (cx__has(c, 5) && need_scores(c, 5, CX_BOOL, &full)) return c->err->code;
	if (cx__has(c, 6) && need_scores(c, 6, CX_F32, &full)) return c->err->code;
	c->out[0] = *q;
	c->out[0].dim[r - 1] = v->dim[r - 1];
	return CX_OK;
}

cx_status cx__shape_paged(cx_shape_ctx *c)
{
	const cx_attr_paged *a = c->attr;
	const cx_desc *q = &c->in[0], *k = &c->in[1], *table = &c->in[3];
	if (cx__need_class(c, 0, DT_FLOAT) || cx__need_class(c, 1, DT_FLOAT) ||
		cx__need_rank(c, 0, 3, 3) || cx__need_rank(c, 1, 3, 3) || cx__need_same(c, 2, 1) ||
		cx__need_dtype(c, 3, CX_I32) || cx__need_rank(c, 3, 2, 2) ||
		cx__need_dims(c, 4, CX_I32, DIMS(table->dim[0] + 1)) ||
		cx__need_dims(c, 5, CX_I32, DIMS(table->dim[0])) || need_heads(c, q->dim[1], k->dim[1]))
		return c->err->code;
	if (q->dim[2] != k->dim[2])
		return SHAPE_FAIL(c, "q is %s, k is %s", cx__dims_text(q).s, cx__dims_text(k).s);
	if (a->page < 1) return SHAPE_FAIL(c, "page is %lld", (long long)a->page);
	if (a->window < 0) return SHAPE_FAIL(c, "window is %lld", (long long)a->window);
	c->out[0] = *q;
	return CX_OK;
}

/* ---- sequences with carried state ------------------------------------------------------------ */

/* off [B+1] and slot [B], operands j and j+1, both optional; n_states rows of state. */
static cx_status need_sequences(cx_shape_ctx *c, uint32_t j, int64_t n_states)
{
	int64_t n = 1;
	if (cx__has(c, j)) {
		if (cx__need_dtype(c, j, CX_I32) || cx__need_rank(c, j, 1, 1)) return c->err->code;
		n = c->in[j].dim[0] - 1;
		if (n < 0) return SHAPE_FAIL(c, "off is empty: it has a 0 at least");
	}
	if (cx__has(c, j + 1)) return cx__need_dims(c, j + 1, CX_I32, DIMS(n));
	if (n > n_states)
		return SHAPE_FAIL(c, "%lld sequences, but %lld rows of state and no slot", (long long)n,
			(long long)n_states);
	return CX_OK;
}

cx_status cx__shape_conv1d(cx_shape_ctx *c)
{
	const cx_desc *x = &c->in[0], *w = &c->in[1], *state = &c->in[3];
	if (cx__need_class(c, 0, DT_FLOAT) || cx__need_rank(c, 0, 2, 2) ||
		cx__need_f32_or(c, 1, x->dtype) || cx__need_rank(c, 1, 2, 2) ||
		cx__need_dims(c, 1, CX_DTYPE_COUNT, DIMS(x->dim[1], w->dim[1])))
		return c->err->code;
	if (w->dim[1] < 1) return SHAPE_FAIL(c, "w is %s: no taps", cx__dims_text(w).s);
	if (cx__has(c, 2) &&
		(cx__need_f32_or(c, 2, x->dtype) || cx__need_dims(c, 2, CX_DTYPE_COUNT, DIMS(x->dim[1]))))
		return c->err->code;
	if (cx__need_f32_or(c, 3, x->dtype) || cx__need_rank(c, 3, 3, 3) ||
		cx__need_dims(c, 3, CX_DTYPE_COUNT, DIMS(state->dim[0], w->dim[1] - 1, x->dim[1])) ||
		need_sequences(c, 4, state->dim[0]))
		return c->err->code;
	c->out[0] = *x;
	c->out[1] = *state;
	return CX_OK;
}

cx_status cx__shape_delta(cx_shape_ctx *c)
{
	const cx_attr_delta *a = c->attr;
	const cx_desc *q = &c->in[0], *v = &c->in[2];
	if (cx__need_class(c, 0, DT_FLOAT) || cx__need_rank(c, 0, 3, 3) || cx__need_same(c, 1, 0) ||
		cx__need_rank(c, 2, 3, 3) ||
		cx__need_dims(c, 2, q->dtype, DIMS(q->dim[0], v->dim[1], v->dim[2])) ||
		need_heads(c, v->dim[1], q->dim[1]))
		return c->err->code;
	for (uint32_t j = 3; j < 5; j++)
		if (cx__need_f32_or(c, j, q->dtype) ||
			cx__need_dims(c, j, CX_DTYPE_COUNT, DIMS(v->dim[0], v->dim[1])))
			return c->err->code;
	if (cx__need_rank(c, 5, 4, 4) ||
		cx__need_dims(c, 5, CX_F32, DIMS(c->in[5].dim[0], v->dim[1], q->dim[2], v->dim[2])) ||
		need_sequences(c, 6, c->in[5].dim[0]))
		return c->err->code;
	if (a->chunk < 0) return SHAPE_FAIL(c, "chunk is %lld", (long long)a->chunk);
	c->out[0] = *v;
	c->out[1] = c->in[5];
	return CX_OK;
}

/* a, b [B,T,D], h [B,D], of one float type; the last operand is reset, bool [B,T], optional. */
static cx_status need_scan(cx_shape_ctx *c, uint32_t n_seq, uint32_t n_state)
{
	const cx_desc *a = &c->in[0];
	if (cx__need_class(c, 0, DT_FLOAT) || cx__need_rank(c, 0, 3, 3)) return c->err->code;
	for (uint32_t j = 1; j < n_seq; j++)
		if (cx__need_same(c, j, 0)) return c->err->code;
	for (uint32_t j = n_seq; j < n_seq + n_state; j++)
		if (cx__need_dims(c, j, a->dtype, DIMS(a->dim[0], a->dim[2]))) return c->err->code;
	if (cx__has(c, n_seq + n_state))
		return cx__need_dims(c, n_seq + n_state, CX_BOOL, DIMS(a->dim[0], a->dim[1]));
	return CX_OK;
}

cx_status cx__shape_scan(cx_shape_ctx *c)
{
	if (need_scan(c, 2, 1)) return c->err->code;
	c->out[0] = c->in[0];
	c->out[1] = c->in[2];
	return CX_OK;
}

cx_status cx__shape_cscan(cx_shape_ctx *c)
{
	if (need_scan(c, 4, 2)) return c->err->code;
	c->out[0] = c->out[1] = c->in[0];
	c->out[2] = c->out[3] = c->in[4];
	return CX_OK;
}

/* ---- losses and updates ---------------------------------------------------------------------- */

static cx_status need_reduction(cx_shape_ctx *c, int64_t reduction)
{
	if (reduction >= 0 && reduction <= 2) return CX_OK;
	return SHAPE_FAIL(c, "reduction is %lld, must be 0, 1 or 2", (long long)reduction);
}

cx_status cx__shape_xent(cx_shape_ctx *c)
{
	const cx_attr_loss *a = c->attr;
	const cx_desc *x = &c->in[0];
	if (cx__need_class(c, 0, DT_FLOAT) || cx__need_rank(c, 0, 2, 2) ||
		cx__need_dims(c, 1, CX_I32, DIMS(x->dim[0])) || need_reduction(c, a->reduction))
		return c->err->code;
	c->out[0] = (cx_desc){x->dtype, a->reduction == 0, {a->reduction == 0 ? x->dim[0] : 0}, {0}};
	return CX_OK;
}

cx_status cx__shape_mse(cx_shape_ctx *c)
{
	int64_t reduction = c->op == CX_OP_mse ? ((const cx_attr_loss *)c->attr)->reduction
										   : ((const cx_attr_poisson *)c->attr)->reduction;
	if (cx__need_class(c, 0, DT_FLOAT) || cx__need_same(c, 1, 0) || need_reduction(c, reduction))
		return c->err->code;
	c->out[0] = c->in[0];
	if (reduction != 0) c->out[0] = (cx_desc){.dtype = c->in[0].dtype};
	return CX_OK;
}

cx_status cx__shape_adamw(cx_shape_ctx *c)
{
	const cx_desc *p = &c->in[0];
	if (cx__need_class(c, 0, DT_FLOAT) || cx__need_class(c, 1, DT_FLOAT) ||
		cx__need_dims(c, 1, CX_DTYPE_COUNT, p->rank, p->dim) ||
		cx__need_dims(c, 2, CX_F32, p->rank, p->dim) ||
		cx__need_dims(c, 3, CX_F32, p->rank, p->dim) || cx__need_dims(c, 4, CX_F32, DIMS(1)) ||
		cx__need_dims(c, 5, CX_F32, DIMS(1)))
		return c->err->code;
	c->out[0] = *p;
	c->out[1] = c->in[2];
	c->out[2] = c->in[3];
	return CX_OK;
}
