/* random_graph.c - operands, leaves, ranges and data of random graphs; see random_graph.h. */
#include "tests/random_graph.h"
#include "graph/quant.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { MAX_ELEMS = 1024, MAX_EDGE_ELEMS = 1 << 14, TRIES = 6 };

cx_want cx__want(int dtype, float lo, float hi)
{
	return (cx_want){.dtype = dtype, .rank = -1, .lo = lo, .hi = hi, .nonempty = true};
}

cx_want cx__want_dims(int dtype, float lo, float hi, int rank, const int64_t *dim)
{
	cx_want w = {.dtype = dtype, .rank = rank, .lo = lo, .hi = hi};
	for (int i = 0; i < rank; i++) w.dim[i] = dim[i];
	return w;
}

bool cx__rg_chance(cx_rgen *r, int64_t n)
{
	return cx__rng_one_in(&r->rng, n);
}

int64_t cx__rg_size(cx_rgen *r)
{
	static const uint8_t sizes[] = {1, 1, 2, 2, 3, 3, 4, 5, 5, 7, 8, 11, 12};
	if (r->rg->opts.edges) return cx__rg_len(r, 1, 1, 257);
	return sizes[cx__rng_int(&r->rng, 0, sizeof sizes - 1)];
}

int64_t cx__rg_len(cx_rgen *r, int64_t lo, int64_t hi, int64_t most)
{
	static const uint16_t edges[] = {1, 1, 2, 3, 4, 5, 7, 8, 13, 15, 16, 17, 31, 32, 33, 37, 61, 63,
		64, 65, 67, 97, 127, 128, 129, 131, 255, 256, 257};
	int n = (int)(sizeof edges / sizeof edges[0]);
	if (!r->rg->opts.edges) return cx__rng_int(&r->rng, lo, hi);
	while (n > 1 && edges[n - 1] > most) n--;
	return edges[cx__rng_int(&r->rng, 0, n - 1)];
}

int64_t cx__rg_dim(cx_rgen *r)
{
	return r->rg->opts.zeros && cx__rg_chance(r, r->single ? 5 : 24) ? 0 : cx__rg_size(r);
}

cx_dtype cx__rg_dtype(cx_rgen *r, int want)
{
	static const cx_dtype ints[] = {CX_I32, CX_I64, CX_U8, CX_I8};
	const cx_random_opts *o = &r->rg->opts;
	if (want >= 0) return (cx_dtype)want;
	if (want == CX_WANT_PLAIN && cx__rg_chance(r, 8)) return CX_BOOL;
	if (want != CX_WANT_FLOAT && !(r->single && o->float_dtype != CX_F32) && cx__rg_chance(r, 5))
		return ints[cx__rng_int(&r->rng, 0, 3)];
	if (r->single && o->float_dtype != CX_F32) return o->float_dtype;
	if (o->f32_only || r->single || !cx__rg_chance(r, 4)) return CX_F32;
	return cx__rg_chance(r, 2) ? CX_F16 : CX_BF16;
}

/* ---- what is known about values -------------------------------------------------------------- */

static bool allowed(const cx_rgen *r, cx_op op)
{
	return !r->rg->opts.ops || r->rg->opts.ops[op];
}

/* Exact ops of exact operands are exact, with the exception below; otherwise the worst of the
 * operands, and of the result's own rounding. */
static uint8_t precision(const cx_rgen *r, uint32_t id)
{
	const cx_node *n = &r->g->nodes[id];
	const cx_op_info *info = &cx__ops[n->op];
	uint8_t prec = 0;
	if (n->op == CX_OP_proj) {
		n = &r->g->nodes[n->in[0]];
		info = &cx__ops[n->op];
	}
	for (uint32_t j = 0; j < n->n_in; j++) {
		if (n->in[j] == UINT32_MAX) continue;
		if (r->rg->v[n->in[j]].prec > prec) prec = r->rg->v[n->in[j]].prec;
		/* products with block formats may round their other operand to 16 bits */
		if (info->tol.f32 > 1e-10 && prec < 2 &&
			cx_dtype_get(r->g->nodes[n->in[j]].desc.dtype)->cls == CX_CLASS_BLOCK)
			prec = 2;
	}
	if (cx_dtype_get(r->g->nodes[id].desc.dtype)->cls != CX_CLASS_FLOAT) return prec;
	if (info->tol.f32 > 0 && prec < 1) prec = 1;
	/* In a fused chain a 16-bit value may stay in f32 until its end. */
	if (info->kind == CX_KIND_MAP && n->op != CX_OP_cast && r->g->nodes[id].desc.dtype != CX_F32 &&
		prec < 1)
		prec = 1;
	if (prec > 0 && r->g->nodes[id].desc.dtype == CX_F16 && prec < 2) prec = 2;
	if (prec > 0 && r->g->nodes[id].desc.dtype == CX_BF16) prec = 3;
	return prec;
}

/* Makes the cx_rvalue of every new node: unknown range, or the operand's for views and copies. */
static void sync(cx_rgen *r)
{
	cx_random_graph *rg = r->rg;
	if (r->g->n_nodes > rg->cap_v) {
		uint32_t cap = r->g->n_nodes * 2 + 64;
		cx_rvalue *v = cx_realloc(&rg->alloc, rg->v, rg->cap_v * sizeof *v, cap * sizeof *v);
		if (!v) {
			r->failed = true;
			return;
		}
		rg->v = v;
		rg->cap_v = cap;
	}
	for (; r->n_seen < r->g->n_nodes; r->n_seen++) {
		const cx_node *n = &r->g->nodes[r->n_seen];
		cx_rvalue *v = &rg->v[r->n_seen];
		*v = (cx_rvalue){.lo = -INFINITY, .hi = INFINITY, .prec = precision(r, r->n_seen)};
		if (n->desc.dtype == CX_BOOL) v->lo = 0, v->hi = 1;
		if (cx__ops[n->op].kind == CX_KIND_VIEW || n->op == CX_OP_copy) {
			v->lo = rg->v[n->in[0]].lo;
			v->hi = rg->v[n->in[0]].hi;
		}
		v->avoid = cx__desc_elems(&n->desc) > MAX_ELEMS ||
				   cx_dtype_get(n->desc.dtype)->cls == CX_CLASS_BLOCK;
	}
}

cx_rvalue *cx__rg_value(cx_rgen *r, cx_tensor t)
{
	static cx_rvalue none;
	sync(r);
	return r->failed || t.id >= r->n_seen ? &none : &r->rg->v[t.id];
}

const cx_desc *cx__rg_desc(const cx_rgen *r, cx_tensor t)
{
	static const cx_desc none = {.dtype = CX_F32};
	return t.id < r->g->n_nodes ? &r->g->nodes[t.id].desc : &none;
}

cx_tensor cx__rg_range(cx_rgen *r, cx_tensor t, float lo, float hi)
{
	cx_rvalue *v = cx__rg_value(r, t);
	v->lo = lo;
	v->hi = hi;
	return t;
}

/* ---- leaves ---------------------------------------------------------------------------------- */

static void store(cx_dtype dtype, void *buf, int64_t i, double x)
{
	uint16_t h;
	switch (dtype) {
	case CX_F16:
		h = cx_f32_to_f16((float)x);
		memcpy((char *)buf + 2 * i, &h, 2);
		break;
	case CX_BF16:
		h = cx_f32_to_bf16((float)x);
		memcpy((char *)buf + 2 * i, &h, 2);
		break;
	case CX_I32:
		((int32_t *)buf)[i] = (int32_t)x;
		break;
	case CX_I64:
		((int64_t *)buf)[i] = (int64_t)x;
		break;
	case CX_U8:
		((uint8_t *)buf)[i] = (uint8_t)x;
		break;
	case CX_I8:
		((int8_t *)buf)[i] = (int8_t)x;
		break;
	case CX_BOOL:
		((uint8_t *)buf)[i] = x != 0;
		break;
	default:
		((float *)buf)[i] = (float)x;
		break;
	}
}

/* How the values of one leaf are changed. */
typedef struct shaping {
	int data;
	int64_t one_in; /* elements that are changed */
	double by;
	bool only_inf;
} shaping;

/* Leaves before id, at most 31. */
static uint32_t leaf_number(const cx_random_graph *rg, uint32_t id)
{
	uint32_t n = 0;
	for (uint32_t i = 0; i < id && n < 31; i++)
		n += cx__ops[rg->g->nodes[i].op].kind == CX_KIND_LEAF;
	return n;
}

/* Some leaves of a case stay as they are, so that the others are seen beside them. */
static shaping shape_of(const cx_random_graph *rg, cx_dtype t, uint32_t id, cx_rng *rng)
{
	shaping s = {rg->opts.data, 1, 1, false};
	int64_t turn;
	if (rg->opts.tame_leaves >> leaf_number(rg, id) & 1) s.data = CX_DATA_TAME;
	if (s.data == CX_DATA_TAME) return s;
	turn = cx__rng_int(rng, 0, 7);
	switch (s.data) {
	case CX_DATA_SPECIAL:
		s.one_in = (int64_t[]){0, 0, 0, 4, 16, 16, 64, 64}[turn];
		s.only_inf = cx__rng_one_in(rng, 2);
		break;
	case CX_DATA_TINY:
		s.one_in = (int64_t[]){0, 0, 1, 1, 1, 1, 2, 2}[turn];
		s.by = t == CX_F16    ? ldexp(1, -(int)cx__rng_int(rng, 14, 22))
			   : t == CX_BF16 ? ldexp(1, -(int)cx__rng_int(rng, 124, 131))
							  : ldexp(1, -(int)cx__rng_int(rng, 124, 146));
		break;
	default:
		s.one_in = rg->opts.large_leaves >> leaf_number(rg, id) & 1;
		if (turn == 0 && rg->opts.large_leaves == UINT32_MAX) s.one_in = 0;
		s.by = t == CX_F16 && rg->opts.large > 7e3f ? 7e3 : (double)rg->opts.large;
		break;
	}
	if (s.one_in == 0) s.data = CX_DATA_TAME;
	return s;
}

static double shape_value(const shaping *s, cx_rng *rng, double x)
{
	if (s->data == CX_DATA_TAME || !cx__rng_one_in(rng, s->one_in)) return x;
	if (s->data == CX_DATA_SPECIAL)
		return (double[]){(double)INFINITY, (double)-INFINITY, (double)NAN,
			-0.0}[cx__rng_int(rng, 0, s->only_inf ? 1 : 3)];
	return x * s->by;
}

/* The whole range of an integer dtype; of i64 what a product of two does not leave. */
static double large_int(cx_rng *rng, cx_dtype t)
{
	if (t == CX_U8) return (double)cx__rng_int(rng, 0, 255);
	if (t == CX_I8) return (double)cx__rng_int(rng, -128, 127);
	return (double)cx__rng_int(rng, INT32_MIN, INT32_MAX);
}

static cx_status fill_blocks(
	const cx_random_graph *rg, const cx_desc *d, cx_rng *rng, void *buf, cx_err *err)
{
	int64_t n = cx__desc_elems(d);
	float *x = cx_malloc(&rg->alloc, (size_t)n * sizeof *x + 1);
	if (!x) return CX_FAIL(err, CX_ERR_MEMORY, "random graph: out of memory");
	for (int64_t i = 0; i < n; i++) x[i] = cx__rng_float(rng, -0.5f, 0.5f);
	if (rg->opts.data == CX_DATA_TINY)
		for (int64_t i = 0; i < n; i++) x[i] *= 0x1p-16f; /* scales are denormals of f16 */
	if (rg->opts.data == CX_DATA_LARGE)
		for (int64_t i = 0; i < n; i++) x[i] *= fminf(64, rg->opts.large);
	if (d->dtype == CX_I8C) cx_quant_i8c(x, d->dim[0], d->dim[1], buf);
	else CX_ASSERT(cx_dequant_row(CX_F32, x, x, n) && cx_quant_row(d->dtype, x, buf, n));
	cx_free(&rg->alloc, x, (size_t)n * sizeof *x + 1);
	return CX_OK;
}

static cx_status fill_data(const cx_random_graph *rg, uint32_t id, const cx_desc *d, cx_fill f,
	cx_rng rng, void *buf, cx_err *err)
{
	cx_dtype_class cls = cx_dtype_get(d->dtype)->cls;
	int64_t n = cx__desc_elems(d);
	bool special = rg->opts.specials && cx__rng_one_in(&rng, 2);
	int64_t turn = cx__rng_int(&rng, 0, 6);
	shaping shape;
	if (cls == CX_CLASS_BLOCK) return fill_blocks(rg, d, &rng, buf, err);
	shape = shape_of(rg, d->dtype, id, &rng);
	for (int64_t i = 0; i < n; i++) {
		double x = 0;
		switch (f.rule) {
		case CX_FILL_UNIFORM:
			if (cls == CX_CLASS_FLOAT) x = cx__rng_float(&rng, f.lo, f.hi);
			else if (cls == CX_CLASS_BOOL) x = (double)cx__rng_int(&rng, 0, 1);
			else x = (double)cx__rng_int(&rng, (int64_t)f.lo, (int64_t)f.hi);
			if (special && cls == CX_CLASS_FLOAT && cx__rng_one_in(&rng, 16))
				x = (double[]){(double)NAN, (double)INFINITY, (double)-INFINITY,
					-0.0}[cx__rng_int(&rng, 0, 3)];
			if (cls == CX_CLASS_FLOAT) x = shape_value(&shape, &rng, x);
			if (cls == CX_CLASS_INT && rg->opts.data == CX_DATA_LARGE && rg->opts.large_ints)
				x = large_int(&rng, d->dtype);
			break;
		case CX_FILL_INDEX:
			x = f.n > 0 ? (double)cx__rng_int(&rng, 0, f.n - 1) : -1;
			if (cx__rng_one_in(&rng, 10)) x = cx__rng_one_in(&rng, 2) ? -1 : (double)f.n;
			break;
		case CX_FILL_OFFSETS: /* the i-th of ascending cuts of 0..n */
			x = i == 0       ? 0
				: i == n - 1 ? (double)f.n
							 : (double)((f.n * i) / (n - 1) +
										cx__rng_int(&rng, 0,
											(f.n * (i + 1)) / (n - 1) - (f.n * i) / (n - 1)));
			if (f.lo > 0 && i == n - 1 && i > 0)
				x = ((int32_t *)buf)[i - 1]; /* rows are left over */
			break;
		case CX_FILL_SLOTS: /* a rotation of 0..n-1, so that they are distinct */
			x = i < f.n ? (double)((i + turn) % f.n) : -1;
			if (cx__rng_one_in(&rng, 8)) x = -1;
			break;
		case CX_FILL_TABLE:
			x = (double)cx__rng_int(&rng, 0, f.n - 1);
			break;
		}
		store(d->dtype, buf, i, x);
	}
	return CX_OK;
}

cx_status cx__random_fill(const cx_random_graph *rg, uint32_t id, void *buf, uint64_t bytes)
{
	const cx_node *n = &rg->g->nodes[id];
	uint64_t want;
	if (!cx_dtype_bytes(n->desc.dtype, n->desc.rank, n->desc.dim, &want) || want != bytes)
		return CX_ERR_ARGUMENT;
	if (n->op == CX_OP_const) {
		memcpy(buf, n->data, bytes);
		return CX_OK;
	}
	return fill_data(rg, id, &n->desc, rg->v[id].fill,
		cx__rng_make(rg->opts.seed + rg->opts.data_seed, id + 1000), buf, NULL);
}

cx_tensor cx__rg_leaf(
	cx_rgen *r, cx_op kind, cx_dtype dtype, int rank, const int64_t *dim, cx_fill fill)
{
	cx_desc d = {.dtype = dtype, .rank = rank};
	cx_rng rng = cx__rng_make(r->rg->opts.seed, r->g->n_nodes + 1000);
	cx_err err = {0};
	uint64_t bytes = 0;
	cx_tensor t = CX_NONE;
	char name[24];
	void *data;
	cx_rvalue *v;
	if (rank) memcpy(d.dim, dim, (size_t)rank * sizeof dim[0]);
	snprintf(name, sizeof name, "%c%u", cx__ops[kind].name[0], r->n_names++);
	if (kind == CX_OP_const) {
		cx_dtype_bytes(dtype, rank, dim, &bytes);
		data = cx_calloc(&r->rg->alloc, bytes + 1, 1);
		if (!data || fill_data(r->rg, r->g->n_nodes, &d, fill, rng, data, &err)) r->failed = true;
		else t = cx_const(r->g, dtype, rank, dim, data);
		cx_free(&r->rg->alloc, data, bytes + 1);
	} else if (kind == CX_OP_weight) {
		t = cx_weight(r->g, name, dtype, rank, dim);
	} else if (kind == CX_OP_state) {
		t = cx_state(r->g, name, dtype, rank, dim);
	} else {
		t = cx_input(r->g, name, dtype, rank, dim);
	}
	v = cx__rg_value(r, t);
	v->fill = fill;
	v->lo = fill.rule == CX_FILL_UNIFORM ? fill.lo : -1;
	v->hi = fill.rule == CX_FILL_UNIFORM ? fill.hi : (float)fill.n;
	return t;
}

cx_tensor cx__rg_index(cx_rgen *r, cx_fill_rule rule, int64_t count, int64_t n)
{
	cx_op kind = cx__rg_chance(r, 6) ? CX_OP_const : CX_OP_input;
	return cx__rg_leaf(r, kind, CX_I32, 1, &count, (cx_fill){.rule = rule, .n = n});
}

cx_tensor cx__rg_weight(cx_rgen *r, int64_t n, int64_t k)
{
	cx_fill f = {.lo = -0.5f, .hi = 0.5f};
	int64_t dim[] = {n, k};
	cx_dtype dtype = cx__rg_dtype(r, CX_WANT_FLOAT);
	if (!r->rg->opts.f32_only && k > 0 && cx__rg_chance(r, 2)) {
		dtype = (cx_dtype)cx__rng_int(&r->rng, CX_Q8_0, CX_I8C);
		if (k % cx_dtype_get(dtype)->block_elems != 0) dtype = CX_I8C;
	}
	return cx__rg_leaf(r, CX_OP_weight, dtype, 2, dim, f);
}

/* ---- operands -------------------------------------------------------------------------------- */

static bool dtype_fits(cx_dtype t, int want)
{
	cx_dtype_class cls = cx_dtype_get(t)->cls;
	if (want >= 0) return (int)t == want;
	if (want == CX_WANT_FLOAT) return cls == CX_CLASS_FLOAT;
	return cls == CX_CLASS_FLOAT || cls == CX_CLASS_INT ||
		   (want == CX_WANT_PLAIN && cls == CX_CLASS_BOOL);
}

/* A view of t with the dims that w asks for, or CX_NONE. */
static cx_tensor fit_dims(cx_rgen *r, cx_tensor t, const cx_want *w)
{
	cx_desc d = *cx__rg_desc(r, t);
	cx_attr_dims dims = cx_attr_dims_default();
	cx_attr_slice s = cx_attr_slice_default();
	bool same = d.rank == w->rank, inside = same, known = true, stretch = d.rank <= w->rank;
	int64_t n = 1;
	for (int i = 0; i < w->rank; i++) {
		int j = i - (w->rank - d.rank);
		int64_t want = w->dim[i];
		known &= want >= 0;
		n *= want;
		same &= i < d.rank && (want < 0 || d.dim[i] == want);
		inside &= i < d.rank && want <= d.dim[i];
		stretch &= j < 0 || d.dim[j] == want || d.dim[j] == 1;
	}
	if (same) return t;
	if (r->rg->opts.no_views) return CX_NONE;
	dims.dims = cx_list_from(w->rank, w->dim);
	if (known && n == cx__desc_elems(&d) && n > 0 && allowed(r, CX_OP_reshape))
		return cx_reshape(r->g, t, &dims);
	if (known && stretch && allowed(r, CX_OP_broadcast)) return cx_broadcast(r->g, t, &dims);
	if (!inside || !allowed(r, CX_OP_slice)) return CX_NONE;
	s.begin.n = s.size.n = s.step.n = w->rank;
	for (int i = 0; i < w->rank; i++) {
		int64_t size = w->dim[i] < 0 ? d.dim[i] : w->dim[i],
				most = size > 1 ? (d.dim[i] - 1) / (size - 1) : 1;
		s.size.v[i] = size;
		s.step.v[i] = cx__rng_int(&r->rng, 1, most > 3 ? 3 : most);
		s.begin.v[i] = size ? cx__rng_int(&r->rng, 0, d.dim[i] - 1 - (size - 1) * s.step.v[i]) : 0;
	}
	return cx_slice(r->g, t, &s);
}

static cx_tensor fit_range(cx_rgen *r, cx_tensor t, const cx_want *w)
{
	cx_rvalue v = *cx__rg_value(r, t);
	cx_dtype dtype = cx__rg_desc(r, t)->dtype;
	cx_attr_clamp c = {w->lo, w->hi, 0};
	if (dtype == CX_BOOL || (v.lo >= w->lo && v.hi <= w->hi)) return t;
	if (cx_dtype_get(dtype)->cls == CX_CLASS_FLOAT && w->lo <= -1 && w->hi >= 1 &&
		allowed(r, CX_OP_tanh) && cx__rg_chance(r, 2))
		return cx__rg_range(r, cx_tanh(r->g, t), -1, 1);
	if (!allowed(r, CX_OP_clamp)) return CX_NONE;
	return cx__rg_range(r, cx_clamp(r->g, t, &c), w->lo, w->hi);
}

static cx_tensor shuffle_axes(cx_rgen *r, cx_tensor t)
{
	cx_attr_perm p = cx_attr_perm_default();
	p.perm.n = cx__rg_desc(r, t)->rank;
	for (int i = 0; i < p.perm.n; i++) {
		int j = (int)cx__rng_int(&r->rng, 0, i);
		p.perm.v[i] = p.perm.v[j];
		p.perm.v[j] = i;
	}
	return cx_permute(r->g, t, &p);
}

static cx_tensor pick(cx_rgen *r, const cx_want *w)
{
	uint32_t n = r->g->n_nodes, back = cx__rg_chance(r, 2) && n > 8 ? 8 : n;
	cx_tensor t = {n - 1 - (uint32_t)cx__rng_int(&r->rng, 0, back - 1)};
	const cx_rvalue *v = cx__rg_value(r, t);
	const cx_desc *d = cx__rg_desc(r, t);
	if (v->avoid || !dtype_fits(d->dtype, w->dtype) || v->fill.rule != CX_FILL_UNIFORM)
		return CX_NONE;
	if (w->exact && r->rg->opts.smooth && v->prec != 0) return CX_NONE;
	if (cx_dtype_get(d->dtype)->cls == CX_CLASS_INT && r->g->nodes[t.id].op == CX_OP_random)
		return CX_NONE;
	if (w->rank >= 0) {
		t = fit_dims(r, t, w);
	} else {
		if (d->rank < w->lo_rank || d->rank > 4 || (w->nonempty && cx__desc_elems(d) == 0))
			return CX_NONE;
		if (!r->rg->opts.no_views && d->rank > 1 && allowed(r, CX_OP_permute) &&
			cx__rg_chance(r, 6))
			t = shuffle_axes(r, t);
	}
	return cx_is_none(t) ? t : fit_range(r, t, w);
}

/* A fresh leaf of these dims, seen through a view for strided and broadcast layouts. */
static cx_tensor fresh(cx_rgen *r, cx_dtype dtype, int rank, const int64_t *dim, const cx_want *w)
{
	static const cx_op kinds[] = {CX_OP_input, CX_OP_input, CX_OP_input, CX_OP_weight, CX_OP_weight,
		CX_OP_const, CX_OP_state};
	cx_op kind = kinds[cx__rng_int(&r->rng, 0, r->rg->opts.no_states ? 5 : 6)];
	int layout = r->rg->opts.layout != CX_LAYOUT_ANY ? r->rg->opts.layout
				 : cx__rg_chance(r, 4)
					 ? (int)cx__rng_int(&r->rng, CX_LAYOUT_STRIDED, CX_LAYOUT_BROADCAST)
					 : CX_LAYOUT_DENSE;
	cx_want full = cx__want_dims(dtype, w->lo, w->hi, rank, dim);
	int64_t have[CX_MAX_RANK];
	cx_tensor t;
	if (r->rg->opts.no_views || rank == 0 || r->rg->opts.ops) layout = CX_LAYOUT_DENSE;
	memcpy(have, full.dim, sizeof have);
	for (int i = 0; i < rank && layout != CX_LAYOUT_DENSE; i++) {
		if (layout == CX_LAYOUT_BROADCAST) have[i] = cx__rg_chance(r, 2) ? 1 : dim[i];
		else have[i] = dim[i] * cx__rng_int(&r->rng, 1, 2) + cx__rng_int(&r->rng, 0, 2);
	}
	if (layout == CX_LAYOUT_STRIDED && rank > 1 &&
		cx__rg_chance(r, 2)) { /* the last two axes come transposed */
		cx_attr_perm p = cx_attr_perm_default();
		p.perm.n = rank;
		for (int i = 0; i < rank; i++) p.perm.v[i] = i < rank - 2 ? i : 2 * rank - 3 - i;
		have[rank - 1] = dim[rank - 2];
		have[rank - 2] = dim[rank - 1];
		for (int i = 0; i < rank - 2; i++) have[i] = dim[i];
		t = cx__rg_leaf(r, kind, dtype, rank, have, (cx_fill){.lo = w->lo, .hi = w->hi});
		return cx_permute(r->g, t, &p);
	}
	t = cx__rg_leaf(r, kind, dtype, rank, have, (cx_fill){.lo = w->lo, .hi = w->hi});
	return layout == CX_LAYOUT_DENSE ? t : fit_dims(r, t, &full);
}

cx_tensor cx__rg_get(cx_rgen *r, const cx_want *w)
{
	int64_t dim[CX_MAX_RANK] = {0}, n = 1;
	int rank = w->rank;
	cx_want limited = *w;
	cx_dtype dtype;
	if (!r->single && !w->fresh && r->g->n_nodes > 0 && !cx__rg_chance(r, 12))
		for (int i = 0; i < TRIES; i++) {
			cx_tensor t = pick(r, w);
			if (!cx_is_none(t) || r->failed) return t;
		}
	if (rank < 0)
		rank = (int)cx__rng_int(&r->rng, w->lo_rank,
			w->lo_rank > 3        ? w->lo_rank
			: cx__rg_chance(r, 5) ? 4
								  : 3);
	for (int i = 0; i < rank; i++) {
		dim[i] = w->rank >= 0 && w->dim[i] >= 0 ? w->dim[i]
				 : w->nonempty                  ? cx__rg_size(r)
												: cx__rg_dim(r);
		if ((w->rank < 0 || w->dim[i] < 0) &&
			n * dim[i] > (r->rg->opts.edges ? MAX_EDGE_ELEMS : MAX_ELEMS / 2))
			dim[i] = 1;
		n *= dim[i];
	}
	dtype = cx__rg_dtype(r, w->dtype);
	if (cx_dtype_get(dtype)->cls ==
		CX_CLASS_INT) { /* small, so that products and sums fit an int8 */
		limited.lo = fmaxf(w->lo, dtype == CX_U8 ? 0.0f : -5.0f);
		limited.hi = fmaxf(limited.lo, fminf(w->hi, 5.0f));
	}
	return fresh(r, dtype, rank, dim, &limited);
}

cx_tensor cx__rg_state(cx_rgen *r, cx_dtype dtype, int rank, const int64_t *dim, float lo, float hi)
{
	cx_want w = cx__want_dims(dtype, lo, hi, rank, dim);
	cx_tensor t;
	if (!r->rg->opts.no_states) {
		for (int i = 0; i < TRIES && r->g->n_nodes > 0 && !r->single; i++) {
			uint32_t id = (uint32_t)cx__rng_int(&r->rng, 0, r->g->n_nodes - 1);
			const cx_node *n = &r->g->nodes[id];
			const cx_rvalue *v = cx__rg_value(r, (cx_tensor){id});
			if (n->state != UINT32_MAX && !(n->flags & CX_NODE_STATE_UPDATED) &&
				n->desc.dtype == dtype && n->desc.rank == rank &&
				memcmp(n->desc.dim, w.dim, sizeof w.dim) == 0 && v->lo >= lo && v->hi <= hi)
				return (cx_tensor){id};
		}
		if (!cx__rg_chance(r, 3))
			return cx__rg_leaf(r, CX_OP_state, dtype, rank, dim, (cx_fill){.lo = lo, .hi = hi});
	}
	t = cx__rg_get(r, &w);
	if (t.id < r->g->n_nodes) {
		const cx_node *n = &r->g->nodes[t.id];
		bool of_state = r->g->nodes[n->root].state != UINT32_MAX;
		if (of_state && (n->root != t.id || (n->flags & CX_NODE_STATE_UPDATED)))
			t = cx__rg_leaf(r, CX_OP_input, dtype, rank, dim, (cx_fill){.lo = lo, .hi = hi});
	}
	return t;
}

/* ---- whole graphs ---------------------------------------------------------------------------- */

static cx_status start(const cx_random_opts *opts, const cx_alloc *alloc, cx_rgen *r, cx_err *err)
{
	cx_random_graph *rg = cx_calloc(alloc, 1, sizeof *rg);
	memset(r, 0, sizeof *r);
	if (!rg) return CX_FAIL(err, CX_ERR_MEMORY, "random graph: out of memory");
	rg->alloc = alloc ? *alloc : cx_alloc_default();
	rg->opts = *opts;
	r->rg = rg;
	r->rng = cx__rng_make(opts->seed, 1);
	if (cx_graph_create(alloc, &rg->g, err)) return err ? err->code : CX_ERR_MEMORY;
	r->g = rg->g;
	return CX_OK;
}

static cx_status finish(cx_rgen *r, cx_random_graph **out, cx_err *err)
{
	cx_err e = {0};
	cx_status st;
	sync(r);
	st = r->failed ? CX_FAIL(&e, CX_ERR_MEMORY, "out of memory") : cx_graph_finish(r->g, &e);
	if (st != CX_OK)
		return cx__fail(err, st, e.file, e.line, "random graph of seed %llu: %s",
			(unsigned long long)r->rg->opts.seed, e.msg);
	*out = r->rg;
	return CX_OK;
}

/* Nodes that nobody reads become outputs (most of them: the rest is dead code), and a few others.
 */
static void mark_outputs(cx_rgen *r)
{
	uint32_t n = r->g->n_nodes, n_out = 0;
	bool *read = cx_calloc(&r->rg->alloc, n + 1, 1);
	char name[24];
	if (!read) {
		r->failed = true;
		return;
	}
	for (uint32_t i = 0; i < n; i++)
		for (uint32_t j = 0; j < r->g->nodes[i].n_in; j++)
			if (r->g->nodes[i].in[j] != UINT32_MAX) read[r->g->nodes[i].in[j]] = true;
	for (uint32_t i = n; i-- > 0;) {
		bool leaf = cx__ops[r->g->nodes[i].op].kind == CX_KIND_LEAF;
		if (cx_dtype_get(r->g->nodes[i].desc.dtype)->cls == CX_CLASS_BLOCK) continue;
		if (n_out > 0 && !cx__rg_chance(r, leaf ? 40 : 12) &&
			(read[i] || leaf || cx__rg_chance(r, 5)))
			continue;
		snprintf(name, sizeof name, "y%u", n_out++);
		cx_output(r->g, name, (cx_tensor){i});
	}
	cx_free(&r->rg->alloc, read, n + 1);
}

cx_status cx__random_graph(
	const cx_random_opts *opts, const cx_alloc *alloc, cx_random_graph **out, cx_err *err)
{
	cx_op ops[CX_OP_COUNT];
	int n_ops = 0;
	cx_status st;
	cx_rgen r;
	*out = NULL;
	for (int i = 0; i < CX_OP_COUNT; i++) {
		cx_kind kind = cx__ops[i].kind;
		bool usual = kind != CX_KIND_FUSED || opts->fused;
		if (kind != CX_KIND_LEAF && kind != CX_KIND_META && (opts->ops ? opts->ops[i] : usual))
			ops[n_ops++] = (cx_op)i;
	}
	st = start(opts, alloc, &r, err);
	if (st != CX_OK) goto done;
	for (uint32_t i = 0; i < opts->n_nodes && n_ops > 0 && !r.failed; i++) {
		cx_op op = ops[cx__rng_int(&r.rng, 0, n_ops - 1)];
		if (!opts->no_patterns && !opts->ops && cx__rg_chance(&r, 5)) {
			cx__fuzz_pattern(&r);
		} else if (!opts->no_views || cx__ops[op].kind != CX_KIND_VIEW) {
			cx__fuzz_ops[op](&r, op);
		}
		sync(&r);
	}
	mark_outputs(&r);
	st = finish(&r, out, err);
done:
	if (st != CX_OK) cx__random_graph_free(r.rg);
	return st;
}

cx_status cx__random_case(
	cx_op op, const cx_random_opts *opts, const cx_alloc *alloc, cx_random_graph **out, cx_err *err)
{
	cx_tensor t;
	char name[24];
	cx_rgen r;
	cx_status st;
	*out = NULL;
	if (cx__ops[op].kind == CX_KIND_META)
		return CX_FAIL(err, CX_ERR_ARGUMENT, "%s is not made alone", cx__ops[op].name);
	st = start(opts, alloc, &r, err);
	if (st != CX_OK) goto done;
	r.single = true;
	t = cx__fuzz_ops[op](&r, op);
	for (uint32_t o = 0; t.id < r.g->n_nodes && o < r.g->nodes[t.id].n_out; o++) {
		snprintf(name, sizeof name, "y%u", o);
		cx_output(r.g, name, (cx_tensor){t.id + o});
	}
	st = finish(&r, out, err);
done:
	if (st != CX_OK) cx__random_graph_free(r.rg);
	return st;
}

void cx__random_graph_free(cx_random_graph *rg)
{
	cx_alloc alloc;
	if (!rg) return;
	alloc = rg->alloc;
	cx_graph_free(rg->g);
	cx_free(&alloc, rg->v, rg->cap_v * sizeof *rg->v);
	cx_free(&alloc, rg, sizeof *rg);
}
