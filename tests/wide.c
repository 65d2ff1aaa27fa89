/* wide.c - see wide.h. */
#include "tests/wide.h"

#include <stdlib.h>
#include <string.h>

bool wide_dtype_bytes(cx_dtype dtype, int32_t rank, const int64_t *dim, uint64_t *bytes);
const cx_dtype_info *wide_dtype_get(cx_dtype dtype);
cx_status wide_ref_eval(const cx_graph *g, const cx_alloc *alloc, const cx_ref_io *io, cx_err *err);

bool wide_dtype_bytes(cx_dtype dtype, int32_t rank, const int64_t *dim, uint64_t *bytes)
{
	if (!cx_dtype_bytes(dtype, rank, dim, bytes)) return false;
	if (dtype == CX_F32) *bytes *= 2;
	return true;
}

const cx_dtype_info *wide_dtype_get(cx_dtype dtype)
{
	static const cx_dtype_info f64 = {"f64", 1, 8, CX_CLASS_FLOAT, -1, "f32 in double"};
	return dtype == CX_F32 ? &f64 : cx_dtype_get(dtype);
}

uint64_t wide_bytes(const cx_desc *d)
{
	uint64_t bytes = 0;
	return wide_dtype_bytes(d->dtype, d->rank, d->dim, &bytes) ? bytes : 0;
}

/* A copy of n whose constants are doubles. */
static bool widen(cx_node *n)
{
	const float *from = n->data;
	uint64_t count = n->data_bytes / sizeof *from;
	double *to = malloc((count + 1) * sizeof *to);
	if (!to) return false;
	for (uint64_t i = 0; i < count; i++) to[i] = from[i];
	n->data = to;
	return true;
}

cx_status wide_eval(
	const cx_graph *g, wide_leaf *leaf, wide_node *node, wide_node *state, void *ctx, cx_err *err)
{
	cx_graph copy = *g;
	cx_ref_io io = {ctx, leaf, node, state};
	cx_status st = CX_OK;
	uint32_t n = 0;
	copy.nodes = malloc((g->n_nodes + 1) * sizeof *copy.nodes);
	if (!copy.nodes) return CX_FAIL(err, CX_ERR_MEMORY, "wide run: out of memory");
	memcpy(copy.nodes, g->nodes, g->n_nodes * sizeof *copy.nodes);
	for (; n < g->n_nodes && st == CX_OK; n++) {
		cx_dtype t = g->nodes[n].desc.dtype;
		if (t == CX_F16 || t == CX_BF16 || cx_dtype_get(t)->cls == CX_CLASS_BLOCK)
			st = CX_FAIL(err, CX_ERR_ARGUMENT, "wide run: node %u is %s", n, cx_dtype_get(t)->name);
		else if (t == CX_F32 && g->nodes[n].op == CX_OP_const && !widen(&copy.nodes[n]))
			st = CX_FAIL(err, CX_ERR_MEMORY, "wide run: out of memory");
		if (st != CX_OK) break;
	}
	if (st == CX_OK) st = wide_ref_eval(&copy, NULL, &io, err);
	for (uint32_t i = 0; i < n; i++)
		if (copy.nodes[i].data != g->nodes[i].data) free((void *)(uintptr_t)copy.nodes[i].data);
	free(copy.nodes);
	return st;
}
