/* grad_check.c - see grad_check.h. */
#include "tests/grad_check.h"
#include "tests/plan_run.h"
#include "tests/ref_run.h"
#include "tests/wide.h"

#include "graph/quant.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* ---- leaves ---------------------------------------------------------------------------------- */

static int64_t count(const cx_list *d)
{
	int64_t n = 1;
	for (int32_t i = 0; i < d->n; i++) n *= d->v[i];
	return n;
}

/* A leaf with room for its numbers; they are filled in by the caller. */
static uint32_t add_leaf(grad_case *k, bool is_state, cx_dtype dtype, const cx_list *d, bool wrt)
{
	char name[96];
	uint32_t i = k->n++;
	assert_true(i < GRAD_LEAVES);
	snprintf(name, sizeof name, "%s.%u", k->name, i);
	k->leaf[i].t = is_state ? cx_state(k->g, name, dtype, d->n, d->v)
							: cx_input(k->g, name, dtype, d->n, d->v);
	k->leaf[i].wrt = wrt;
	k->leaf[i].size = count(d);
	k->leaf[i].v = calloc((size_t)k->leaf[i].size + 1, sizeof(double));
	return i;
}

/* Distinct numbers in random order, as bf16 and f16 have them. */
static void fill_floats(grad_case *k, uint32_t i, double lo, double hi)
{
	int64_t n = k->leaf[i].size;
	double *v = k->leaf[i].v;
	cx_rng rng = cx__rng_make(77, i);
	for (int64_t e = 0; e < n; e++) {
		int64_t other = cx__rng_int(&rng, 0, e);
		double x = lo + (hi - lo) * ((double)e + 0.2 + 0.07 * (double)(i % 8)) / (double)n;
		v[e] = v[other];
		v[other] = cx_bf16_to_f32(cx_f32_to_bf16((float)x));
	}
}

static uint32_t float_leaf(
	grad_case *k, bool is_state, cx_dtype dtype, double lo, double hi, const cx_list *d)
{
	uint32_t i = add_leaf(k, is_state, dtype, d, true);
	fill_floats(k, i, lo, hi);
	return i;
}

static cx_tensor laid_out(grad_case *k, cx_dtype dtype, double lo, double hi, cx_list d)
{
	cx_list from = d;
	grad_layout how = k->layout;
	cx_attr_perm perm = {.perm = {.n = d.n}};
	cx_attr_slice cut = {.begin = {.n = d.n}, .size = d, .step = {.n = d.n}};
	cx_attr_dims to = {.dims = d};
	cx_tensor t;
	if (how == GRAD_SPREAD && (d.n == 0 || d.v[0] < 2 || k->no_spread)) how = GRAD_DENSE;
	for (int32_t i = 0; i < d.n; i++) {
		perm.perm.v[i] = d.n - 1 - i;
		if (how == GRAD_PERMUTED) from.v[i] = d.v[d.n - 1 - i];
		cut.begin.v[i] = 1;
		cut.step.v[i] = 2;
		if (how == GRAD_SLICED) from.v[i] = 2 * d.v[i] + 1;
	}
	if (how == GRAD_SPREAD) from.v[0] = 1;
	t = k->leaf[float_leaf(k, false, dtype, lo, hi, &from)].t;
	if (how == GRAD_PERMUTED) return cx_permute(k->g, t, &perm);
	if (how == GRAD_SLICED) return cx_slice(k->g, t, &cut);
	return how == GRAD_SPREAD ? cx_broadcast(k->g, t, &to) : t;
}

cx_tensor grad_leaf(grad_case *k, double lo, double hi, cx_list dims)
{
	return laid_out(k, k->dtype, lo, hi, dims);
}

cx_tensor grad_leaf_f32(grad_case *k, double lo, double hi, cx_list dims)
{
	return laid_out(k, CX_F32, lo, hi, dims);
}

cx_tensor grad_state(grad_case *k, cx_dtype dtype, double lo, double hi, cx_list dims)
{
	return k->leaf[float_leaf(k, true, dtype, lo, hi, &dims)].t;
}

static cx_tensor whole(
	grad_case *k, cx_dtype dtype, const cx_list *d, const int *values, int n_values)
{
	uint32_t i = add_leaf(k, false, dtype, d, false);
	for (int64_t e = 0; e < k->leaf[i].size; e++) k->leaf[i].v[e] = values[e % n_values];
	return k->leaf[i].t;
}

cx_tensor grad_ints(grad_case *k, cx_list dims, const int *values, int n_values)
{
	return whole(k, CX_I32, &dims, values, n_values);
}

cx_tensor grad_bools(grad_case *k, cx_list dims, const int *values, int n_values)
{
	return whole(k, CX_BOOL, &dims, values, n_values);
}

void grad_mix(grad_case *k, cx_tensor y)
{
	cx_attr_cast f32 = cx_attr_cast_default();
	cx_shape s = cx_tensor_shape(k->g, y);
	int64_t n = cx_shape_elems(&s);
	float *w = malloc(((size_t)n + 1) * sizeof *w);
	cx_rng rng = cx__rng_make(99, k->n_mixed++);
	cx_tensor t;
	for (int64_t i = 0; i < n; i++) w[i] = cx__rng_float(&rng, 0.25f, 1) * (i % 3 == 1 ? -1 : 1);
	if (cx_tensor_dtype(k->g, y) != CX_F32) y = cx_cast(k->g, y, &f32);
	t = cx_sum(k->g, cx_mul(k->g, y, cx_const(k->g, CX_F32, s.rank, s.dim, w)), NULL);
	k->loss = cx_is_none(k->loss) ? t : cx_add(k->g, k->loss, t);
	free(w);
}

/* ---- one case -------------------------------------------------------------------------------- */

typedef struct built {
	grad_case k;
	cx_tensor grad[GRAD_LEAVES]; /* CX_NONE for what is not differentiated */
	void *value[GRAD_LEAVES];    /* of grad, from the last run */
	double loss;
	bool wide;
	const double *v_of[REF_RUN_MAX];
	void *raw; /* leaf given last */
	void *raws[REF_RUN_MAX];
} built;

static void fail_graph(const built *b, const char *what, const cx_err *err)
{
	fail_msg("%s, layout %d: %s: %s", b->k.name, (int)b->k.layout, what, err->msg);
}

static void add_grads(built *b)
{
	cx_tensor wrt[GRAD_LEAVES], grads[GRAD_LEAVES];
	uint32_t n = 0;
	for (uint32_t i = 0; i < b->k.n; i++)
		if (b->k.leaf[i].wrt) wrt[n++] = b->k.leaf[i].t;
	cx_graph_grad(b->k.g, b->k.loss, wrt, n, NULL, grads);
	n = 0;
	for (uint32_t i = 0; i < b->k.n; i++) b->grad[i] = b->k.leaf[i].wrt ? grads[n++] : CX_NONE;
}

/* with_grad: gradients are outputs as well. */
static built *build(
	const grad_row *row, cx_graph *g, cx_dtype dtype, grad_layout layout, bool with_grad)
{
	built *b = calloc(1, sizeof *b);
	char name[96];
	b->k =
		(grad_case){.g = g, .name = row->name, .dtype = dtype, .layout = layout, .loss = CX_NONE};
	if (!g) assert_int_equal(cx_graph_create(NULL, &b->k.g, NULL), CX_OK);
	row->build(&b->k);
	snprintf(name, sizeof name, "%s.loss", row->name);
	cx_output(b->k.g, name, b->k.loss);
	if (with_grad) add_grads(b);
	for (uint32_t i = 0; with_grad && i < b->k.n; i++) {
		snprintf(name, sizeof name, "%s.grad%u", row->name, i);
		if (b->k.leaf[i].wrt) cx_output(b->k.g, name, b->grad[i]);
	}
	return b;
}

static void finish(built *b)
{
	cx_err err = {0};
	if (cx_graph_finish(b->k.g, &err) != CX_OK) fail_graph(b, "building", &err);
	assert_true(b->k.g->n_nodes < REF_RUN_MAX);
	for (uint32_t i = 0; i < b->k.n; i++) b->v_of[b->k.leaf[i].t.id] = b->k.leaf[i].v;
}

static void drop(built *b, bool graph)
{
	for (uint32_t i = 0; i < b->k.n; i++) {
		free(b->k.leaf[i].v);
		free(b->value[i]);
	}
	for (uint32_t i = 0; i < REF_RUN_MAX; i++) free(b->raws[i]);
	if (graph) cx_graph_free(b->k.g);
	free(b);
}

static const void *give(void *ctx, const cx_graph *g, uint32_t id)
{
	built *b = ctx;
	const cx_desc *d = &g->nodes[id].desc;
	int64_t n = cx__desc_elems(d);
	if (b->wide && d->dtype == CX_F32) return b->v_of[id];
	if (!b->raws[id]) b->raws[id] = calloc((size_t)n + 1, 8);
	for (int64_t i = 0; i < n; i++) number_put(d->dtype, b->raws[id], i, b->v_of[id][i]);
	return b->raws[id];
}

static void take(void *ctx, const cx_graph *g, uint32_t id, const void *data, uint64_t bytes)
{
	built *b = ctx;
	(void)g;
	if (id == b->k.loss.id) b->loss = b->wide ? *(const double *)data : *(const float *)data;
	for (uint32_t i = 0; i < b->k.n; i++) {
		if (b->grad[i].id != id || !b->k.leaf[i].wrt) continue;
		free(b->value[i]);
		b->value[i] = malloc(bytes + 1);
		memcpy(b->value[i], data, bytes);
	}
}

static double run(built *b, bool wide)
{
	cx_ref_io io = {b, give, take, NULL};
	cx_err err = {0};
	b->wide = wide;
	if ((wide ? wide_eval(b->k.g, give, take, NULL, b, &err)
			  : cx__ref_eval(b->k.g, NULL, &io, &err)) != CX_OK)
		fail_graph(b, "running", &err);
	return b->loss;
}

/* ---- differences ----------------------------------------------------------------------------- */

/* d loss / d v[e] to about 1e-10 of the loss: central, fourth order. */
static double slope(built *f, double *v)
{
	double h = 1e-3 * (fabs(*v) > 0.25 ? fabs(*v) : 0.25), at = *v, d[2];
	for (int i = 0; i < 2; i++) {
		double s = i == 0 ? h : h / 2, up;
		*v = at + s;
		up = run(f, true);
		*v = at - s;
		d[i] = (up - run(f, true)) / (2 * s);
	}
	*v = at;
	return (4 * d[1] - d[0]) / 3;
}

static double largest(const double *v, int64_t n)
{
	double m = 0;
	for (int64_t i = 0; i < n; i++) m = fabs(v[i]) > m ? fabs(v[i]) : m;
	return m;
}

/* Which rules were at work: float nodes between a differentiated leaf and the loss. */
static void cover(const built *b, uint32_t n_forward, bool covered[CX_OP_COUNT])
{
	bool *on = calloc(n_forward + 1, 1);
	for (uint32_t i = 0; i < b->k.n; i++) on[b->k.leaf[i].t.id] = b->k.leaf[i].wrt;
	for (uint32_t id = 0; id < n_forward; id++) {
		const cx_node *n = &b->k.g->nodes[id];
		for (uint32_t j = 0; j < n->n_in; j++)
			if (n->in[j] != UINT32_MAX && on[n->in[j]])
				on[id] |= cx_dtype_get(n->desc.dtype)->cls == CX_CLASS_FLOAT;
		if (on[id] && n->n_in > 0) covered[n->op] = true;
	}
	free(on);
}

/* The gradients of the last run, in double, against a run in f32. */
static void check_single(built *b)
{
	double *wide[GRAD_LEAVES];
	memcpy(wide, b->value, sizeof wide);
	memset(b->value, 0, sizeof b->value);
	run(b, false);
	for (uint32_t i = 0; i < b->k.n; i++) {
		double scale;
		if (!b->k.leaf[i].wrt) continue;
		scale = largest(wide[i], b->k.leaf[i].size);
		for (int64_t e = 0; e < b->k.leaf[i].size; e++) {
			double got = ((float *)b->value[i])[e];
			if (!(fabs(got - wide[i][e]) <= 1e-5 * scale + 1e-6))
				fail_msg("%s, layout %d: leaf %u element %lld: %.12g in double, %.9g in f32",
					b->k.name, (int)b->k.layout, i, (long long)e, wide[i][e], got);
		}
		free(wide[i]);
	}
}

void grad_check_differences(const grad_row *row, grad_layout layout, bool covered[CX_OP_COUNT])
{
	built *f = build(row, NULL, CX_F32, layout, false);
	built *b = build(row, NULL, CX_F32, layout, true);
	finish(f);
	finish(b);
	cover(b, f->k.g->n_nodes, covered);
	run(b, true);
	for (uint32_t i = 0; i < b->k.n; i++) {
		int64_t n = b->k.leaf[i].size, step = layout == GRAD_DENSE ? 1 : 1 + n / 16;
		const double *got = b->value[i];
		double scale;
		if (!b->k.leaf[i].wrt) continue;
		scale = largest(got, n);
		for (int64_t e = 0; e < n; e += step) {
			double want = slope(f, &f->k.leaf[i].v[e]);
			if (!(fabs(want - got[e]) <= 2e-6 * (fabs(want) + 0.05 * scale) + 1e-8))
				fail_msg("%s, layout %d: leaf %u element %lld: difference quotient %.12g, gradient "
						 "%.12g",
					row->name, (int)layout, i, (long long)e, want, got[e]);
		}
	}
	check_single(b);
	drop(f, true);
	drop(b, true);
}

void grad_check_narrow(const grad_row *row, cx_dtype dtype, double tol)
{
	built *f = build(row, NULL, CX_F32, GRAD_DENSE, true);
	built *b = build(row, NULL, dtype, GRAD_DENSE, true);
	finish(f);
	finish(b);
	run(f, false);
	run(b, false);
	for (uint32_t i = 0; i < b->k.n; i++) {
		const cx_desc *d = &b->k.g->nodes[b->grad[i].id == UINT32_MAX ? 0 : b->grad[i].id].desc;
		double scale = 0;
		if (!b->k.leaf[i].wrt) continue;
		assert_int_equal(d->dtype, cx_tensor_dtype(b->k.g, b->k.leaf[i].t));
		for (int64_t e = 0; e < b->k.leaf[i].size; e++)
			scale = fmax(scale, fabs(((float *)f->value[i])[e]));
		for (int64_t e = 0; e < b->k.leaf[i].size; e++) {
			double want = ((float *)f->value[i])[e], got = number_get(d->dtype, b->value[i], e);
			if (!(fabs(got - want) <= tol * scale))
				fail_msg("%s: leaf %u element %lld: %.9g in f32, %.9g in %s", row->name, i,
					(long long)e, want, got, cx_dtype_get(dtype)->name);
		}
	}
	drop(f, true);
	drop(b, true);
}

/* ---- devices --------------------------------------------------------------------------------- */

typedef struct many {
	built **b;
	uint32_t n;
} many;

static bool fill_leaf(void *ctx, uint32_t id, void *buf, uint64_t bytes)
{
	const many *m = ctx;
	for (uint32_t c = 0; c < m->n; c++)
		for (uint32_t i = 0; i < m->b[c]->k.n; i++) {
			const grad_case *k = &m->b[c]->k;
			if (k->leaf[i].t.id != id) continue;
			for (int64_t e = 0; e < k->leaf[i].size && bytes > 0; e++)
				number_put(cx_tensor_dtype(k->g, k->leaf[i].t), buf, e, k->leaf[i].v[e]);
			return true;
		}
	return false;
}

void grad_check_device(const grad_row *rows, uint32_t n_rows, cx_runtime *rt,
	cx_device *const *devs, uint32_t n_devs, grad_layout layout, bool no_fuse)
{
	many m = {calloc(n_rows, sizeof *m.b), n_rows};
	plan_check c = {.opts = {.devices = devs,
						.n_devices = n_devs,
						.allow_fallback = n_devs > 1,
						.no_fuse = no_fuse,
						.verify = true},
		.tol = 1e-9,
		.tol_narrow = 1e-4,
		.floor = 1e-3};
	plan_want want;
	cx_plan *plan = NULL;
	cx_plan_stats stats;
	cx_graph *g;
	cx_err err = {0};
	assert_int_equal(cx_graph_create(NULL, &g, NULL), CX_OK);
	for (uint32_t i = 0; i < n_rows; i++) {
		cx_scope_push(g, "%s", rows[i].name);
		m.b[i] = build(&rows[i], g, CX_F32, layout, true);
		cx_scope_pop(g);
	}
	if (cx_graph_finish(g, &err) != CX_OK) fail_msg("all cases: %s", err.msg);
	if (plan_want_make(g, fill_leaf, &m, &want, &err) != CX_OK ||
		plan_run_check(&want, rt, &c, &plan, &err) != CX_OK)
		fail_msg("%s, layout %d, fusion %d: %s", cx_device_name(devs[0]), (int)layout, !no_fuse,
			err.msg);
	cx_plan_get_stats(plan, &stats);
	if (layout == GRAD_DENSE && !no_fuse)
		printf("# %s: %u cases, %u nodes in %u steps (%u fused, %u not on it)\n",
			cx_device_name(devs[0]), n_rows, stats.n_nodes, stats.n_steps, stats.n_fused,
			stats.n_fallback);
	cx_plan_free(plan);
	plan_want_free(&want);
	for (uint32_t i = 0; i < n_rows; i++) drop(m.b[i], false);
	free(m.b);
	cx_graph_free(g);
}
