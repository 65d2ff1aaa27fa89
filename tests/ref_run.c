/* ref_run.c - see ref_run.h. */
#include "tests/ref_run.h"

#include "graph/quant.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

double number_get(cx_dtype dtype, const void *p, int64_t i)
{
	switch (dtype) {
	case CX_F32:
		return ((const float *)p)[i];
	case CX_F16:
		return cx_f16_to_f32(((const uint16_t *)p)[i]);
	case CX_BF16:
		return cx_bf16_to_f32(((const uint16_t *)p)[i]);
	case CX_I32:
		return ((const int32_t *)p)[i];
	case CX_I64:
		return (double)((const int64_t *)p)[i];
	case CX_I8:
		return ((const int8_t *)p)[i];
	case CX_U8:
	case CX_BOOL:
		return ((const uint8_t *)p)[i];
	default:
		fail_msg("no number of dtype %s", cx_dtype_get(dtype)->name);
		return 0;
	}
}

void number_put(cx_dtype dtype, void *p, int64_t i, double v)
{
	switch (dtype) {
	case CX_F32:
		((float *)p)[i] = (float)v;
		break;
	case CX_F16:
		((uint16_t *)p)[i] = cx_f32_to_f16((float)v);
		break;
	case CX_BF16:
		((uint16_t *)p)[i] = cx_f32_to_bf16((float)v);
		break;
	case CX_I32:
		((int32_t *)p)[i] = (int32_t)v;
		break;
	case CX_I64:
		((int64_t *)p)[i] = (int64_t)v;
		break;
	case CX_I8:
		((int8_t *)p)[i] = (int8_t)v;
		break;
	case CX_U8:
	case CX_BOOL:
		((uint8_t *)p)[i] = (uint8_t)v;
		break;
	default:
		fail_msg("no number of dtype %s", cx_dtype_get(dtype)->name);
	}
}

void ref_run_start(ref_run *r)
{
	cx_err err = {0};
	memset(r, 0, sizeof *r);
	assert_int_equal(cx_graph_create(NULL, &r->g, &err), CX_OK);
}

static cx_tensor add_leaf(ref_run *r, cx_op op, cx_dtype dtype, const cx_list *d, void *data)
{
	char name[32];
	cx_tensor t;
	snprintf(name, sizeof name, "leaf%u", r->n_leaves++);
	if (op == CX_OP_input) t = cx_input(r->g, name, dtype, d->n, d->v);
	else if (op == CX_OP_weight) t = cx_weight(r->g, name, dtype, d->n, d->v);
	else t = cx_state(r->g, name, dtype, d->n, d->v);
	if (t.id < REF_RUN_MAX) r->leaf[t.id] = data;
	else free(data);
	return t;
}

static cx_tensor add_numbers(
	ref_run *r, cx_op op, cx_dtype dtype, const cx_list *d, const double *v)
{
	uint64_t bytes = 0;
	int64_t n = 1;
	void *data;
	assert_true(cx_dtype_bytes(dtype, d->n, d->v, &bytes));
	data = calloc(1, bytes ? bytes : 1);
	for (int32_t i = 0; i < d->n; i++) n *= d->v[i];
	for (int64_t i = 0; v && i < n; i++) number_put(dtype, data, i, v[i]);
	return add_leaf(r, op, dtype, d, data);
}

cx_tensor ref_run_in(ref_run *r, cx_dtype dtype, cx_list dims, const double *v)
{
	return add_numbers(r, CX_OP_input, dtype, &dims, v);
}

cx_tensor ref_run_state(ref_run *r, cx_dtype dtype, cx_list dims, const double *v)
{
	return add_numbers(r, CX_OP_state, dtype, &dims, v);
}

cx_tensor ref_run_bytes(ref_run *r, bool weight, cx_dtype dtype, cx_list dims, const void *data)
{
	uint64_t bytes = 0;
	void *copy;
	assert_true(cx_dtype_bytes(dtype, dims.n, dims.v, &bytes));
	copy = malloc(bytes ? bytes : 1);
	if (bytes) memcpy(copy, data, bytes);
	return add_leaf(r, weight ? CX_OP_weight : CX_OP_input, dtype, &dims, copy);
}

static const void *give_leaf(void *ctx, const cx_graph *g, uint32_t id)
{
	(void)g;
	return ((ref_run *)ctx)->leaf[id];
}

static void *copy_of(const void *data, uint64_t bytes)
{
	void *copy = malloc(bytes ? bytes : 1);
	if (bytes) memcpy(copy, data, bytes);
	return copy;
}

static void take_node(void *ctx, const cx_graph *g, uint32_t id, const void *data, uint64_t bytes)
{
	ref_run *r = ctx;
	(void)g;
	free(r->value[id]);
	r->value[id] = copy_of(data, bytes);
	r->bytes[id] = bytes;
}

static void take_state(
	void *ctx, const cx_graph *g, uint32_t leaf, const void *data, uint64_t bytes)
{
	ref_run *r = ctx;
	(void)g;
	free(r->last[leaf]);
	r->last[leaf] = copy_of(data, bytes);
}

cx_status ref_run_try(ref_run *r, const cx_alloc *alloc, cx_err *err)
{
	cx_ref_io io = {r, give_leaf, take_node, take_state};
	if (r->g->first_error.code != CX_OK) {
		*err = r->g->first_error;
		return err->code;
	}
	assert_true(cx_graph_n_nodes(r->g) <= REF_RUN_MAX);
	return cx__ref_eval(r->g, alloc, &io, err);
}

void ref_run_eval(ref_run *r)
{
	cx_err err = {0};
	if (ref_run_try(r, NULL, &err) != CX_OK) fail_msg("%s", err.msg);
}

double ref_run_get(const ref_run *r, cx_tensor t, int64_t i)
{
	cx_shape s = cx_tensor_shape(r->g, t);
	assert_true(i >= 0 && i < cx_shape_elems(&s));
	return number_get(cx_tensor_dtype(r->g, t), r->value[t.id], i);
}

void ref_run_end(ref_run *r)
{
	for (uint32_t i = 0; i < REF_RUN_MAX; i++) {
		free(r->leaf[i]);
		free(r->value[i]);
		free(r->last[i]);
	}
	cx_graph_free(r->g);
}

bool is_close(double want, double got, double rel, double abs)
{
	if (isnan(want) || isnan(got)) return isnan(want) && isnan(got);
	if (isinf(want) || isinf(got)) return want == got;
	return fabs(want - got) <= abs + rel * fabs(want);
}

void ref_run_expect(
	const ref_run *r, cx_tensor t, const double *want, int64_t n, double rel, double abs)
{
	cx_shape s = cx_tensor_shape(r->g, t);
	char text[80];
	if (cx_shape_elems(&s) < n)
		fail_msg("%s has %s, %lld elements wanted", cx__ops[r->g->nodes[t.id].op].name,
			cx_shape_text(&s, text, sizeof text), (long long)n);
	for (int64_t i = 0; i < n; i++) {
		double got = ref_run_get(r, t, i);
		if (!is_close(want[i], got, rel, abs))
			fail_msg("%s element %lld: want %.17g, got %.17g", cx__ops[r->g->nodes[t.id].op].name,
				(long long)i, want[i], got);
	}
}
