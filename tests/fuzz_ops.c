/* fuzz_ops.c - one generator of random legal nodes per name in the `fuzz` column of ops.def; see
 * random_graph.h. Values: an op gets operands in a range where it is well conditioned, and says in
 * which range its result lies. Here: leaves, views, elementwise ops, reductions, moving data. The
 * rest is in fuzz_seq.c. */
#include "tests/fuzz_ops.h"

#include <math.h>
#include <string.h>

const cx_fuzz_fn cx__fuzz_ops[CX_OP_COUNT] = {
#define CX_OP(name, n_min, n_max, n_out, attr, shape, grad, kind, tol, alias, fuzz, inputs, doc)   \
	[CX_OP_##name] = cx__fuzz_##fuzz,
#include "graph/ops.def"
#undef CX_OP
};

/* Leaves are made as operands; here alone: a leaf that a copy reads. */
cx_tensor cx__fuzz_leaf(cx_rgen *r, cx_op op)
{
	int64_t dim[] = {cx__rg_dim(r), cx__rg_size(r)};
	cx_tensor t =
		cx__rg_leaf(r, op, cx__rg_dtype(r, CX_WANT_PLAIN), 2, dim, (cx_fill){.lo = 0, .hi = 4});
	return cx_copy(r->g, t);
}

cx_tensor cx__fuzz_none(cx_rgen *r, cx_op op)
{
	(void)r;
	(void)op;
	return CX_NONE;
}

/* ---- views ----------------------------------------------------------------------------------- */

/* A random factorisation of n into dims. */
static cx_list factors(cx_rgen *r, int64_t n)
{
	cx_list l = {0};
	while (n > 1 && l.n < 3) {
		int64_t f = pick_int(r, 2, 6);
		if (n % f != 0) continue;
		l.v[l.n++] = f;
		n /= f;
		if (chance(r, 3)) break;
		if (n % 2 && n % 3 && n % 5) break;
	}
	if (n != 1 || l.n == 0 || chance(r, 4)) l.v[l.n++] = n;
	return l;
}

static cx_tensor view_reshape(cx_rgen *r, cx_tensor x)
{
	int64_t n = cx__desc_elems(cx__rg_desc(r, x)), m = n;
	cx_attr_dims a = cx_attr_dims_default();
	while (m > 1 && m % 2 == 0) m /= 2;
	while (m > 1 && m % 3 == 0) m /= 3;
	while (m > 1 && m % 5 == 0) m /= 5;
	if (n > 0 && m == 1) a.dims = factors(r, n);
	else a.dims = cx_list_of(1, (int)n);
	if (n > 0 && chance(r, 3)) a.dims.v[pick_int(r, 0, a.dims.n - 1)] = -1;
	return cx_reshape(r->g, x, &a);
}

static cx_tensor view_permute(cx_rgen *r, cx_tensor x)
{
	cx_attr_perm p = cx_attr_perm_default();
	p.perm.n = cx__rg_desc(r, x)->rank;
	for (int i = 0; i < p.perm.n; i++) {
		int j = (int)pick_int(r, 0, i);
		p.perm.v[i] = p.perm.v[j];
		p.perm.v[j] = i;
	}
	if (p.perm.n && chance(r, 3)) p.perm.v[0] -= p.perm.n; /* axes may be negative */
	return cx_permute(r->g, x, &p);
}

static cx_tensor view_slice(cx_rgen *r, cx_tensor x)
{
	const cx_desc d = *cx__rg_desc(r, x);
	cx_attr_slice s = cx_attr_slice_default();
	bool steps = chance(r, 2);
	s.begin.n = s.size.n = d.rank;
	s.step.n = steps ? d.rank : 0;
	for (int i = 0; i < d.rank; i++) {
		int64_t step = steps ? pick_int(r, 1, 3) : 1,
				begin = pick_int(r, 0, d.dim[i] > 1 ? d.dim[i] - 1 : 0);
		int64_t most = d.dim[i] ? (d.dim[i] - 1 - begin) / step + 1 : 0;
		s.begin.v[i] = begin;
		s.size.v[i] = most && !(r->rg->opts.zeros && chance(r, 20)) ? pick_int(r, 1, most) : 0;
		if (steps) s.step.v[i] = step;
	}
	return cx_slice(r->g, x, &s);
}

static cx_tensor view_broadcast(cx_rgen *r, cx_tensor x)
{
	const cx_desc d = *cx__rg_desc(r, x);
	cx_attr_dims a = cx_attr_dims_default();
	int64_t n = cx__desc_elems(&d);
	if (d.rank < 4 && chance(r, 2)) a.dims.v[a.dims.n++] = pick_int(r, 1, 4);
	for (int i = 0; i < d.rank; i++)
		a.dims.v[a.dims.n++] = d.dim[i] == 1 && n < 200 ? cx__rg_size(r) : d.dim[i];
	return cx_broadcast(r->g, x, &a);
}

cx_tensor cx__fuzz_view(cx_rgen *r, cx_op op)
{
	cx_tensor x = any(r, CX_WANT_PLAIN, -4, 4);
	switch (op) {
	case CX_OP_reshape:
		return view_reshape(r, x);
	case CX_OP_permute:
		return view_permute(r, x);
	case CX_OP_slice:
		return view_slice(r, x);
	default:
		return view_broadcast(r, x);
	}
}

/* ---- elementwise ----------------------------------------------------------------------------- */

/* Range of operands and of the result; zero rows: [-4,4] and what the largest magnitude says. */
typedef struct map_range {
	float in_lo, in_hi, lo, hi;
	bool floats, discrete;
} map_range;
static const map_range map_ranges[CX_OP_COUNT] = {
	[CX_OP_sign] = {-4, 4, -1, 1, false, true},
	[CX_OP_floor] = {-4, 4, -4, 4, false, true},
	[CX_OP_ceil] = {-4, 4, -4, 5, false, true},
	[CX_OP_round] = {-4, 4, -4, 4, false, true},
	[CX_OP_exp] = {-4, 4, 0, 56, true, false},
	[CX_OP_log] = {0.05f, 8, -3.1f, 2.1f, true, false},
	[CX_OP_sqrt] = {0.01f, 8, 0.09f, 3, true, false},
	[CX_OP_rsqrt] = {0.05f, 8, 0.3f, 4.6f, true, false},
	[CX_OP_sin] = {-8, 8, -1, 1, true, false},
	[CX_OP_cos] = {-8, 8, -1, 1, true, false},
	[CX_OP_tanh] = {-4, 4, -1, 1, true, false},
	[CX_OP_erf] = {-4, 4, -1, 1, true, false},
	[CX_OP_sigmoid] = {-8, 8, 0, 1, true, false},
	[CX_OP_silu] = {-8, 8, -0.3f, 8, true, false},
	[CX_OP_gelu] = {-8, 8, -0.2f, 8, true, false},
	/* below -3 it magnifies the rounding of its polynomial too much for a single element to be
	   compared */
	[CX_OP_gelu_tanh] = {-3, 8, -0.2f, 8, true, false},
	[CX_OP_softplus] = {-8, 24, 0, 24, true, false},
	[CX_OP_relu] = {-8, 8, 0, 8, false, false},
	[CX_OP_abs] = {-8, 8, 0, 8, false, false},
	[CX_OP_neg] = {-8, 8, -8, 8, false, false},
};

cx_tensor cx__fuzz_unary(cx_rgen *r, cx_op op)
{
	const map_range *m = &map_ranges[op];
	cx_want w = cx__want(m->floats ? CX_WANT_FLOAT : CX_WANT_NUM, m->in_lo, m->in_hi);
	cx_tensor x, y;
	w.nonempty = !r->rg->opts.zeros;
	w.exact = m->discrete;
	x = cx__rg_get(r, &w);
	if (op == CX_OP_neg && cx__rg_desc(r, x)->dtype == CX_U8)
		op = CX_OP_abs; /* no negative numbers there */
	y = cx_node_add(r->g, op, &x, 1, NULL);
	return cx__rg_range(r, y, m->lo, m->hi);
}

cx_tensor cx__fuzz_unary_bool(cx_rgen *r, cx_op op)
{
	cx_tensor x = any(r, CX_BOOL, 0, 1);
	return cx_node_add(r->g, op, &x, 1, NULL);
}

cx_tensor cx__fuzz_clamp(cx_rgen *r, cx_op op)
{
	cx_tensor x = any(r, CX_WANT_NUM, -8, 8);
	bool whole = cx_dtype_get(cx__rg_desc(r, x)->dtype)->cls == CX_CLASS_INT;
	cx_attr_clamp c = {cx__rng_float(&r->rng, -6, 2), cx__rng_float(&r->rng, -2, 6), 0};
	if (whole) c = (cx_attr_clamp){(float)pick_int(r, -3, 1), (float)pick_int(r, 1, 5), 0};
	if (c.lo > c.hi) c.hi = c.lo;
	if (whole && c.lo < 0 && cx__rg_desc(r, x)->dtype == CX_U8) c.lo = 0;
	(void)op;
	return cx__rg_range(r, cx_clamp(r->g, x, &c), c.lo, c.hi);
}

cx_tensor cx__fuzz_cast(cx_rgen *r, cx_op op)
{
	static const cx_dtype plain[] = {
		CX_F32, CX_F32, CX_F16, CX_BF16, CX_I32, CX_I64, CX_U8, CX_I8, CX_BOOL};
	cx_attr_cast a = {plain[pick_int(r, 0, 8)], 0};
	cx_want w = cx__want(CX_WANT_PLAIN, a.dtype == CX_U8 ? 0.0f : -100.0f, 100);
	cx_tensor x, y;
	(void)op;
	w.nonempty = !r->rg->opts.zeros;
	w.exact = cx_dtype_get(a.dtype)->cls != CX_CLASS_FLOAT;
	if (!w.exact && chance(r, 6)) {
		x = cx__rg_weight(r, pick_int(r, 1, 4), 256 * pick_int(r, 1, 2));
		return cx__rg_range(r, cx_cast(r->g, x, &a), -1, 1);
	}
	if (r->rg->opts.f32_only && !w.exact) a.dtype = CX_F32;
	x = cx__rg_get(r, &w);
	y = cx_cast(r->g, x, &a);
	if (a.dtype == CX_BOOL) return y;
	return cx__rg_range(
		r, y, fmaxf(cx__rg_value(r, x)->lo, w.lo), fminf(cx__rg_value(r, x)->hi, w.hi));
}

cx_tensor cx__fuzz_partner(cx_rgen *r, cx_tensor a, int dtype, float lo, float hi, bool exact)
{
	cx_desc d = *cx__rg_desc(r, a);
	int drop = chance(r, 3) && d.rank ? (int)pick_int(r, 0, d.rank) : 0;
	bool ones = chance(r, 3);
	cx_want w = cx__want_dims(dtype, lo, hi, d.rank - drop, d.dim + drop);
	w.exact = exact;
	for (int i = 0; i < w.rank && ones; i++)
		if (chance(r, 2)) w.dim[i] = 1;
	return cx__rg_get(r, &w);
}

cx_tensor cx__fuzz_binary(cx_rgen *r, cx_op op)
{
	bool compare = op >= CX_OP_eq && op <= CX_OP_ge, pow_ = op == CX_OP_pow;
	cx_want w = cx__want(compare ? CX_WANT_PLAIN
						 : pow_  ? CX_WANT_FLOAT
								 : CX_WANT_NUM,
		pow_ ? 0.25f : -4, 4);
	cx_tensor a, b, y;
	cx_dtype dtype;
	float lo = -4, hi = 4, big = 8;
	bool is_float;
	w.nonempty = !r->rg->opts.zeros;
	w.exact = compare;
	a = cx__rg_get(r, &w);
	dtype = cx__rg_desc(r, a)->dtype;
	is_float = cx_dtype_get(dtype)->cls == CX_CLASS_FLOAT;
	if (op == CX_OP_sub && dtype == CX_U8) op = CX_OP_max;
	if (op == CX_OP_div && is_float) lo = 0.25f;
	if (pow_) lo = -2, hi = 2;
	b = cx__fuzz_partner(r, a, (int)dtype, lo, hi, compare);
	if (!is_float || compare || op == CX_OP_min || op == CX_OP_max)
		big = 5; /* integer leaves reach 5 */
	if (op == CX_OP_add || op == CX_OP_sub) big = 10;
	if (op == CX_OP_mul || op == CX_OP_div || pow_) big = 25;
	if (!pow_ && op != CX_OP_div && chance(r, 3)) {
		cx_tensor swap = a;
		a = b;
		b = swap;
	}
	y = cx_node_add(r->g, op, (cx_tensor[]){a, b}, 2, NULL);
	return compare ? y : cx__rg_range(r, y, pow_ || dtype == CX_U8 ? 0 : -big, big);
}

cx_tensor cx__fuzz_binary_bool(cx_rgen *r, cx_op op)
{
	cx_tensor a = any(r, CX_BOOL, 0, 1), b = cx__fuzz_partner(r, a, CX_BOOL, 0, 1, true);
	return cx_node_add(r->g, op, (cx_tensor[]){a, b}, 2, NULL);
}

cx_tensor cx__fuzz_where(cx_rgen *r, cx_op op)
{
	cx_tensor a = any(r, CX_WANT_PLAIN, -4, 5);
	int dtype = (int)cx__rg_desc(r, a)->dtype;
	cx_tensor b = cx__fuzz_partner(r, a, dtype, -4, 5, false),
			  c = cx__fuzz_partner(r, a, CX_BOOL, 0, 1, false);
	cx_tensor y = cx_node_add(
		r->g, op, (cx_tensor[]){c, chance(r, 2) ? a : b, chance(r, 2) ? a : b}, 3, NULL);
	return dtype == CX_BOOL ? y : cx__rg_range(r, y, -4, 5);
}

/* ---- reductions and row ops ------------------------------------------------------------------ */

cx_tensor cx__fuzz_reduce(cx_rgen *r, cx_op op)
{
	cx_want w = cx__want(op == CX_OP_mean ? CX_WANT_FLOAT : CX_WANT_NUM, -4, 5);
	cx_attr_reduce a = cx_attr_reduce_default();
	cx_tensor x;
	cx_desc d;
	float n;
	w.nonempty = !(r->single && r->rg->opts.zeros);
	x = cx__rg_get(r, &w);
	d = *cx__rg_desc(r, x);
	n = (float)cx__desc_elems(&d);
	a.keep = chance(r, 2);
	for (int i = 0; i < d.rank; i++)
		if (chance(r, 2)) a.axes.v[a.axes.n++] = chance(r, 2) ? i : i - d.rank;
	if (op == CX_OP_sum && (d.dtype == CX_I8 || d.dtype == CX_U8) && n > 20) op = CX_OP_amax;
	x = cx_node_add(r->g, op, &x, 1, &a);
	return op == CX_OP_sum ? cx__rg_range(r, x, -5 * n, 5 * n)
		   : n == 0        ? x
						   : cx__rg_range(r, x, -4, 5);
}

cx_tensor cx__fuzz_arg(cx_rgen *r, cx_op op)
{
	cx_want w = cx__want(CX_WANT_NUM, -4, 5);
	cx_attr_arg a = cx_attr_arg_default();
	cx_tensor x;
	w.lo_rank = 1;
	w.exact = true;
	x = cx__rg_get(r, &w);
	a.axis = axis_of(r, cx__rg_desc(r, x)->rank);
	a.keep = chance(r, 2);
	return cx__rg_range(r, cx_node_add(r->g, op, &x, 1, &a), 0, (float)1024);
}

cx_tensor cx__fuzz_cumsum(cx_rgen *r, cx_op op)
{
	cx_tensor x = rows(r, chance(r, 2) ? CX_WANT_FLOAT : CX_I32, 1, -4, 5);
	cx_desc d = *cx__rg_desc(r, x);
	cx_attr_cumsum a = {axis_of(r, d.rank), chance(r, 2), chance(r, 2), 0};
	float n = (float)d.dim[(a.axis + d.rank) % d.rank];
	return cx__rg_range(r, cx_node_add(r->g, op, &x, 1, &a), -5 * n, 5 * n);
}

cx_tensor cx__fuzz_softmax(cx_rgen *r, cx_op op)
{
	cx_tensor x = rows(r, CX_WANT_FLOAT, 1, -8, 8);
	cx_attr_softmax a = {
		axis_of(r, cx__rg_desc(r, x)->rank), chance(r, 2) ? 1 : cx__rng_float(&r->rng, 0.1f, 1), 0};
	x = cx_node_add(r->g, op, &x, 1, &a);
	return op == CX_OP_softmax ? cx__rg_range(r, x, 0, 1) : cx__rg_range(r, x, -24, 0);
}

cx_tensor cx__fuzz_topk(cx_rgen *r, cx_op op)
{
	cx_want w = cx__want(CX_WANT_NUM, -4, 5);
	cx_attr_topk a = cx_attr_topk_default();
	cx_tensor x, y;
	cx_desc d;
	w.lo_rank = 1;
	w.exact = true;
	x = cx__rg_get(r, &w);
	d = *cx__rg_desc(r, x);
	a.axis = axis_of(r, d.rank);
	a.k = pick_int(r, 1, d.dim[(a.axis + d.rank) % d.rank]);
	a.smallest = chance(r, 2);
	y = cx_node_add(r->g, op, &x, 1, &a);
	cx__rg_range(r, cx_out(r->g, y, 1), 0, 1024);
	return cx__rg_range(r, y, -4, 5);
}

cx_tensor cx__fuzz_norm(cx_rgen *r, cx_op op)
{
	cx_tensor x = rows(r, CX_WANT_FLOAT, 1, -4, 4), in[3] = {x, CX_NONE, CX_NONE};
	cx_desc d = *cx__rg_desc(r, x);
	cx_attr_norm a = {chance(r, 2) ? 1e-5f : 1e-2f, op == CX_OP_rmsnorm && chance(r, 3), 0};
	int64_t cols = d.dim[d.rank - 1];
	float big = sqrtf((float)cols) + 1;
	if (op != CX_OP_l2norm && !chance(r, 4))
		in[1] = sized(r, side_dtype(r, d.dtype), -1, 1, DIMS(cols));
	if (op == CX_OP_layernorm && chance(r, 2))
		in[2] = sized(r, side_dtype(r, d.dtype), -1, 1, DIMS(cols));
	return cx__rg_range(
		r, cx_node_add(r->g, op, in, cx__ops[op].n_max, &a), -2 * big - 1, 2 * big + 1);
}

cx_tensor cx__fuzz_groupnorm(cx_rgen *r, cx_op op)
{
	cx_tensor x = rows(r, CX_WANT_FLOAT, 2, -4, 4), in[3] = {x, CX_NONE, CX_NONE};
	cx_desc d = *cx__rg_desc(r, x);
	cx_attr_groupnorm a = {pick_int(r, 1, 3), 1e-3f, 0};
	if (d.dim[1] % a.groups != 0) a.groups = 1;
	if (chance(r, 2)) in[1] = sized(r, side_dtype(r, d.dtype), -1, 1, DIMS(d.dim[1]));
	if (chance(r, 2)) in[2] = sized(r, side_dtype(r, d.dtype), -1, 1, DIMS(d.dim[1]));
	return cx__rg_range(r, cx_node_add(r->g, op, in, 3, &a), -40, 40);
}

/* ---- moving data ----------------------------------------------------------------------------- */

cx_tensor cx__fuzz_copy(cx_rgen *r, cx_op op)
{
	cx_tensor x = any(r, CX_WANT_PLAIN, -4, 5);
	return cx_node_add(r->g, op, &x, 1, NULL);
}

cx_tensor cx__fuzz_barrier(cx_rgen *r, cx_op op)
{
	cx_tensor in[2] = {any(r, CX_WANT_PLAIN, -4, 5), any(r, CX_WANT_PLAIN, -4, 5)};
	return cx_node_add(r->g, op, in, 2, NULL);
}

cx_tensor cx__fuzz_gather(cx_rgen *r, cx_op op)
{
	cx_attr_axis a = cx_attr_axis_default();
	int64_t dim[2] = {cx__rg_dim(r), pick_int(r, 1, 3)};
	cx_tensor x, idx;
	cx_desc d;
	if (chance(r, 5)) {
		a.axis = 0;
		x = cx__rg_weight(r, pick_int(r, 1, 6), 256);
		dim[0] = pick_int(r, 1, 4);
	} else {
		x = rows(r, CX_WANT_PLAIN, 1, -4, 5);
		a.axis = axis_of(r, cx__rg_desc(r, x)->rank);
	}
	d = *cx__rg_desc(r, x);
	idx = cx__rg_leaf(r, CX_OP_input, CX_I32, d.rank > 4 || chance(r, 2) ? 1 : 2, dim,
		(cx_fill){.rule = CX_FILL_INDEX, .n = d.dim[(a.axis + d.rank) % d.rank]});
	return cx__rg_range(r, cx_node_add(r->g, op, (cx_tensor[]){x, idx}, 2, &a), -4, 5);
}

cx_tensor cx__fuzz_scatter(cx_rgen *r, cx_op op)
{
	cx_attr_scatter a = {chance(r, 2), 0};
	cx_dtype dtype = cx__rg_dtype(r, a.add ? CX_WANT_FLOAT : CX_WANT_PLAIN);
	int64_t dim[3] = {cx__rg_len(r, 1, 6, 65), cx__rg_len(r, 1, 4, 33), cx__rg_len(r, 1, 4, 9)},
			rows_ = dim[0], n = cx__rg_dim(r);
	int rank = (int)pick_int(r, 1, 3);
	cx_tensor in[3];
	in[0] = cx__rg_state(r, dtype, rank, dim, dtype == CX_U8 ? 0 : -4, 5);
	in[1] = cx__rg_index(r, CX_FILL_INDEX, n, rows_);
	dim[0] = n;
	in[2] = sized(r, (int)dtype, dtype == CX_U8 ? 0 : -4, 5, rank, dim);
	in[0] = cx_node_add(r->g, op, in, 3, &a);
	return dtype == CX_BOOL ? in[0] : cx__rg_range(r, in[0], a.add ? -64 : -5, a.add ? 64 : 5);
}

cx_tensor cx__fuzz_assign(cx_rgen *r, cx_op op)
{
	cx_dtype dtype = cx__rg_dtype(r, CX_WANT_PLAIN);
	int64_t dim[2] = {cx__rg_dim(r), cx__rg_len(r, 1, 4, 65)};
	cx_tensor dst = cx__rg_state(r, dtype, 2, dim, dtype == CX_U8 ? 0 : -4, 5);
	cx_tensor src = sized(r, (int)dtype, dtype == CX_U8 ? 0 : -4, 5, 2, dim);
	dst = cx_node_add(r->g, op, (cx_tensor[]){dst, src}, 2, NULL);
	return dtype == CX_BOOL ? dst : cx__rg_range(r, dst, -4, 5);
}

cx_tensor cx__fuzz_concat(cx_rgen *r, cx_op op)
{
	cx_tensor in[4] = {rows(r, CX_WANT_PLAIN, 1, -4, 5)};
	cx_desc d = *cx__rg_desc(r, in[0]);
	uint32_t n = (uint32_t)pick_int(r, 1, 4);
	cx_attr_axis a = {axis_of(r, d.rank), 0};
	for (uint32_t i = 1; i < n; i++) {
		int64_t dim[CX_MAX_RANK];
		memcpy(dim, d.dim, sizeof dim);
		dim[(a.axis + d.rank) % d.rank] = cx__rg_dim(r);
		in[i] = chance(r, 5) ? in[0] : sized(r, (int)d.dtype, -4, 5, d.rank, dim);
	}
	in[0] = cx_node_add(r->g, op, in, n, &a);
	return d.dtype == CX_BOOL ? in[0] : cx__rg_range(r, in[0], -4, 5);
}

cx_tensor cx__fuzz_pad(cx_rgen *r, cx_op op)
{
	cx_tensor x = any(r, CX_WANT_PLAIN, -4, 5);
	cx_desc d = *cx__rg_desc(r, x);
	cx_attr_pad a = cx_attr_pad_default();
	a.before.n = a.after.n = d.rank;
	for (int i = 0; i < d.rank; i++) {
		a.before.v[i] = pick_int(r, 0, 2);
		a.after.v[i] = pick_int(r, 0, 2);
	}
	if (chance(r, 2)) a.value = 1;
	x = cx_node_add(r->g, op, &x, 1, &a);
	return d.dtype == CX_BOOL ? x : cx__rg_range(r, x, -4, 5);
}

cx_tensor cx__fuzz_embed_sum(cx_rgen *r, cx_op op)
{
	int64_t d = cx__rg_size(r), e = cx__rg_dim(r);
	uint32_t n = (uint32_t)pick_int(r, 1, 4);
	int f = (int)cx__rg_dtype(r, CX_WANT_FLOAT);
	cx_tensor in[8];
	for (uint32_t i = 0; i < n; i++) {
		int64_t len = cx__rg_size(r);
		in[2 * i] = sized(r, f, -2, 2, DIMS(len, d));
		in[2 * i + 1] = cx__rg_index(r, CX_FILL_INDEX, e, len);
	}
	return cx__rg_range(r, cx_node_add(r->g, op, in, 2 * n, NULL), -8, 8);
}
