/* harness.c - comparison of tensors, reference runs of random graphs; see harness.h. */
#include "tests/harness.h"
#include "graph/quant.h"

#include <math.h>
#include <string.h>

static double float_at(cx_dtype dtype, const void *p, int64_t i)
{
	if (dtype == CX_F16) return cx_f16_to_f32(((const uint16_t *)p)[i]);
	if (dtype == CX_BF16) return cx_bf16_to_f32(((const uint16_t *)p)[i]);
	return ((const float *)p)[i];
}

static bool ints_equal(cx_dtype dtype, int64_t n, const void *want, const void *got, cx_close *c)
{
	size_t size = (size_t)cx_dtype_get(dtype)->block_bytes;
	for (int64_t i = 0; i < n; i++) {
		int64_t w = 0, g = 0;
		memcpy(&w, (const char *)want + (size_t)i * size, size);
		memcpy(&g, (const char *)got + (size_t)i * size, size);
		if (w == g) continue;
		if (c->n_odd++ > 0) continue;
		c->at = i;
		c->want = dtype == CX_I32 ? (int32_t)w : dtype == CX_I8 ? (int8_t)w : (double)w;
		c->got = dtype == CX_I32 ? (int32_t)g : dtype == CX_I8 ? (int8_t)g : (double)g;
	}
	return c->n_odd == 0;
}

bool cx__is_inside(cx_dtype dtype, int64_t n, const void *want, const void *got, double tol,
	double floor, cx_close *out)
{
	double err = 0, power = 0, worst = -1;
	cx_close c = {0};
	bool inside;
	if (cx_dtype_get(dtype)->cls != CX_CLASS_FLOAT) {
		inside = ints_equal(dtype, n, want, got, &c);
		if (out) *out = c;
		return inside;
	}
	for (int64_t i = 0; i < n; i++) {
		double w = float_at(dtype, want, i), g = float_at(dtype, got, i), d = g - w;
		bool same = (isnan(w) && isnan(g)) || w == g; /* infinities too */
		if (!same && !(isfinite(w) && isfinite(g))) {
			if (c.n_odd++ == 0) c.at = i, c.want = w, c.got = g;
			continue;
		}
		if (isfinite(w)) power += w * w;
		if (same) continue;
		err += d * d;
		if (d * d > worst && c.n_odd == 0) worst = d * d, c.at = i, c.want = w, c.got = g;
	}
	if (power < (double)n * floor * floor) power = (double)n * floor * floor;
	c.nmse = err > 0 ? err / power : 0;
	inside = c.n_odd == 0 && c.nmse <= tol; /* NaN is not inside */
	if (out) *out = c;
	return inside;
}

void cx__values_free(cx_values *v)
{
	for (uint32_t i = 0; i < v->n; i++) {
		if (v->leaf) cx_free(&v->alloc, v->leaf[i], v->bytes[i] + 1);
		if (v->node) cx_free(&v->alloc, v->node[i], v->bytes[i] + 1);
		if (v->state) cx_free(&v->alloc, v->state[i], v->bytes[i] + 1);
	}
	cx_free(&v->alloc, v->leaf, (v->n + 1) * sizeof v->leaf[0]);
	cx_free(&v->alloc, v->node, (v->n + 1) * sizeof v->node[0]);
	cx_free(&v->alloc, v->state, (v->n + 1) * sizeof v->state[0]);
	cx_free(&v->alloc, v->bytes, (v->n + 1) * sizeof v->bytes[0]);
	memset(v, 0, sizeof *v);
}

static const void *on_leaf(void *ctx, const cx_graph *g, uint32_t id)
{
	(void)g;
	return ((const cx_values *)ctx)->leaf[id];
}

static void keep(cx_values *v, void **slot, const void *data, uint64_t bytes)
{
	*slot = cx_malloc(&v->alloc, bytes + 1);
	if (*slot) memcpy(*slot, data, bytes);
}

static void on_node(void *ctx, const cx_graph *g, uint32_t id, const void *data, uint64_t bytes)
{
	cx_values *v = ctx;
	(void)g;
	CX_ASSERT(bytes == v->bytes[id]);
	keep(v, &v->node[id], data, bytes);
}

static void on_state(void *ctx, const cx_graph *g, uint32_t leaf, const void *data, uint64_t bytes)
{
	cx_values *v = ctx;
	(void)g;
	CX_ASSERT(bytes == v->bytes[leaf]);
	keep(v, &v->state[leaf], data, bytes);
}

cx_status cx__harness_reference(
	const cx_random_graph *rg, const cx_alloc *alloc, cx_values *out, cx_err *err)
{
	const cx_graph *g = rg->g;
	cx_values v = {.alloc = alloc ? *alloc : cx_alloc_default(), .n = g->n_nodes};
	cx_ref_io io = {&v, on_leaf, on_node, on_state};
	cx_status st = CX_OK;
	memset(out, 0, sizeof *out);
	v.bytes = cx_calloc(alloc, v.n + 1, sizeof v.bytes[0]);
	v.leaf = cx_calloc(alloc, v.n + 1, sizeof v.leaf[0]);
	v.node = cx_calloc(alloc, v.n + 1, sizeof v.node[0]);
	v.state = cx_calloc(alloc, v.n + 1, sizeof v.state[0]);
	if (!v.bytes || !v.leaf || !v.node || !v.state) {
		st = CX_FAIL(err, CX_ERR_MEMORY, "harness: out of memory");
		goto done;
	}
	for (uint32_t i = 0; i < v.n && st == CX_OK; i++) {
		const cx_node *n = &g->nodes[i];
		cx_dtype_bytes(n->desc.dtype, n->desc.rank, n->desc.dim, &v.bytes[i]);
		if (cx__ops[n->op].kind != CX_KIND_LEAF || n->op == CX_OP_const) continue;
		v.leaf[i] = cx_calloc(alloc, v.bytes[i] + 1, 1);
		if (!v.leaf[i]) st = CX_FAIL(err, CX_ERR_MEMORY, "harness: out of memory");
		else if (cx__random_fill(rg, i, v.leaf[i], v.bytes[i]) != CX_OK)
			st = CX_FAIL(err, CX_ERR_ARGUMENT, "harness: leaf %u has no data", i);
	}
	if (st == CX_OK) st = cx__ref_eval(g, alloc, &io, err);
done:
	if (st != CX_OK) cx__values_free(&v);
	else *out = v;
	return st;
}
