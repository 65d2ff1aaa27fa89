/* grad_prod.c - gradient rules of products: matmul, rope. */
#include "graph/grad.h"
#include "graph/shape.h"

/* x y with the flags of matmul, in the given dtype: a product has its first operand's. */
static cx_tensor product(
	cx_grad_ctx *c, cx_dtype dtype, cx_tensor x, cx_tensor y, bool trans_x, bool trans_y)
{
	cx_attr_matmul a = cx_attr_matmul_default();
	cx_attr_cast to = {.dtype = dtype};
	a.trans_a = trans_x;
	a.trans_b = trans_y;
	if (cx__grad_desc(c, x)->dtype != dtype) x = cx_cast(c->g, x, &to);
	return cx_matmul(c->g, x, y, &a);
}

static int64_t lead(const cx_desc *d)
{
	int64_t n = 1;
	for (int32_t i = 0; i < d->rank - 2; i++) n *= d->dim[i];
	return n;
}

/* Transposes are flags, never copies. One b for all of a's leading axes (a weight): its gradient is
 * one product over all rows. */
void cx__grad_matmul(cx_grad_ctx *c)
{
	const cx_attr_matmul *at = c->attr;
	cx_desc da = *cx__grad_desc(c, c->in[0]), db = *cx__grad_desc(c, c->in[1]);
	cx_tensor a = c->in[0], b = c->in[1], d = c->dout[0];
	bool ta = at->trans_a, tb = at->trans_b;
	if (c->need[0]) {
		cx_attr_cast plain = {.dtype = da.dtype};
		if (cx__is_block(db.dtype))
			b = cx_cast(c->g, b, &plain); /* products take blocks as [n,k] */
		if (ta) cx__grad_give(c, 0, product(c, da.dtype, b, d, tb, true));
		else cx__grad_give(c, 0, product(c, da.dtype, d, b, false, !tb));
	}
	if (!c->need[1]) return;
	if (!ta && da.rank > 2 && lead(&db) == 1) {
		int64_t m = lead(&da) * da.dim[da.rank - 2], k = da.dim[da.rank - 1];
		int64_t n = db.dim[db.rank - (tb ? 2 : 1)];
		a = cx__grad_reshape(c, a, 2, (const int64_t[]){m, k});
		d = cx__grad_reshape(c, d, 2, (const int64_t[]){m, n});
	}
	d = tb ? product(c, db.dtype, d, a, true, ta) : product(c, db.dtype, a, d, !ta, false);
	if (lead(&db) == 1 && !cx_is_none(d) && cx__grad_desc(c, d)->rank == 2)
		d = cx__grad_reshape(c, d, db.rank, db.dim);
	cx__grad_give(c, 1, d);
}

/* ---- rope ------------------------------------------------------------------------------------ */

/* Elements j (half 0) or their partners (half 1) of the rotated pairs: [.., T, heads, r/2]. */
static cx_tensor half_of(cx_grad_ctx *c, cx_tensor t, int half)
{
	const cx_attr_rope *a = c->attr;
	cx_desc d = *cx__grad_desc(c, c->in[0]);
	int64_t r = a->n_rot ? a->n_rot : d.dim[d.rank - 1];
	cx_attr_slice s = cx_attr_slice_default();
	s.begin.n = s.size.n = s.step.n = d.rank;
	for (int32_t i = 0; i < d.rank; i++) {
		s.size.v[i] = d.dim[i];
		s.step.v[i] = 1;
	}
	s.size.v[d.rank - 1] = r / 2;
	s.step.v[d.rank - 1] = a->pairs ? 2 : 1;
	s.begin.v[d.rank - 1] = half * (a->pairs ? 1 : r / 2);
	return cx_slice(c->g, t, &s);
}

/* t [.., T, heads, r/2] summed over heads: [tokens, r/2]. */
static cx_tensor per_token(cx_grad_ctx *c, cx_tensor t)
{
	cx_desc d = *cx__grad_desc(c, c->in[0]);
	cx_desc p = *cx__grad_desc(c, c->in[1]);
	const cx_attr_rope *a = c->attr;
	int64_t r = a->n_rot ? a->n_rot : d.dim[d.rank - 1];
	cx_attr_reduce heads = {.axes = cx_list_of(1, d.rank - 2)};
	return cx__grad_reshape(
		c, cx_sum(c->g, t, &heads), 2, (const int64_t[]){cx__desc_elems(&p), r / 2});
}

/* x y' + sign * u v', for halves. */
static cx_tensor cross(cx_grad_ctx *c, cx_tensor x, int hx, cx_tensor y, int hy, cx_tensor u,
	int hu, cx_tensor v, int hv, bool minus)
{
	cx_tensor p = cx_mul(c->g, half_of(c, x, hx), half_of(c, y, hy));
	cx_tensor q = cx_mul(c->g, half_of(c, u, hu), half_of(c, v, hv));
	return minus ? cx_sub(c->g, p, q) : cx_add(c->g, p, q);
}

/* Frequencies: the angle's gradient is d1 y0 - d0 y1, times the position. */
static void rope_freqs(cx_grad_ctx *c, cx_tensor d)
{
	cx_tensor y = cx__grad_out(c, 0), pos = cx__grad_f32(c, c->in[1]), t;
	cx_desc p = *cx__grad_desc(c, c->in[1]);
	cx_attr_reduce tokens = {.axes = cx_list_of(1, 0)};
	t = per_token(c, cross(c, d, 1, y, 0, d, 0, y, 1, true));
	t = cx_mul(c->g, t, cx__grad_reshape(c, pos, 2, (const int64_t[]){cx__desc_elems(&p), 1}));
	cx__grad_give(c, 2, cx_sum(c->g, t, &tokens));
}

/* Tables: rows at pos collect d0 x0 + d1 x1 (cos) and d1 x0 - d0 x1 (sin). */
static void rope_table(cx_grad_ctx *c, cx_tensor d, uint32_t j)
{
	const cx_attr_rope *a = c->attr;
	cx_desc p = *cx__grad_desc(c, c->in[1]), table = *cx__grad_desc(c, c->in[j]);
	cx_attr_scatter add = {.add = true};
	int64_t n = cx__desc_elems(&p);
	cx_tensor x = cx__grad_in(c, 0), t;
	if (j == 3) t = cross(c, d, 0, x, 0, d, 1, x, 1, false);
	else t = cross(c, d, 1, x, 0, d, 0, x, 1, true);
	t = cx__grad_scale(c, per_token(c, t), a->amplitude);
	t = cx_scatter(c->g, cx__grad_fill(c, CX_F32, 2, table.dim, 0),
		cx__grad_reshape(c, c->in[1], 1, &n), t, &add);
	cx__grad_give(c, j, t);
}

/* Back by the same angles: positions, or the sines of the tables, change sign. */
void cx__grad_rope(cx_grad_ctx *c)
{
	const cx_attr_rope *a = c->attr;
	cx_tensor d = c->dout[0], none = CX_NONE;
	if (c->need[0] && cx__grad_has(c, 3))
		cx__grad_give(c, 0, cx_rope(c->g, d, c->in[1], none, c->in[3], cx_neg(c->g, c->in[4]), a));
	else if (c->need[0])
		cx__grad_give(c, 0,
			cx_rope(c->g, d, cx_neg(c->g, c->in[1]), c->n_in > 2 ? c->in[2] : none, none, none, a));
	d = cx__grad_dout(c, 0);
	if (cx__grad_has(c, 2) && c->need[2]) rope_freqs(c, d);
	for (uint32_t j = 3; j < c->n_in; j++)
		if (cx__grad_has(c, j) && c->need[j]) rope_table(c, d, j);
}
