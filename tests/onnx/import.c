/* import.c - the walk over an ONNX graph, and what the operator tables share. See onnx.h. */
#include "tests/onnx/onnx.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

bool onnx_not_ours(onnx_ctx *c, const char *why)
{
	c->why = why;
	return false;
}

/* ---- element types ---- */

bool onnx_dtype(int32_t data_type, cx_dtype *out, bool *widened)
{
	static const struct {
		int8_t onnx, ours, wide;
	} map[] = {
		{1, CX_F32, 0},
		{2, CX_U8, 0},
		{3, CX_I8, 0},
		{6, CX_I32, 0},
		{7, CX_I64, 0},
		{9, CX_BOOL, 0},
		{10, CX_F16, 0},
		{16, CX_BF16, 0},
		{4, CX_I32, 1},
		{5, CX_I32, 1},
		{11, CX_F32, 1},
		{12, CX_I64, 1},
		{13, CX_I64, 1},
	};
	for (size_t i = 0; i < sizeof map / sizeof map[0]; i++)
		if (map[i].onnx == data_type) {
			*out = (cx_dtype)map[i].ours;
			if (map[i].wide) *widened = true;
			return true;
		}
	return false;
}

/* Element i of a widened type, out of raw bytes. */
static double raw_number(int32_t type, const uint8_t *raw, size_t i)
{
	uint16_t u16;
	int16_t i16;
	uint32_t u32;
	double f64;
	switch (type) {
	case 4:
		memcpy(&u16, raw + 2 * i, 2);
		return u16;
	case 5:
		memcpy(&i16, raw + 2 * i, 2);
		return i16;
	case 12:
		memcpy(&u32, raw + 4 * i, 4);
		return u32;
	default:
		memcpy(&f64, raw + 8 * i, 8);
		return f64;
	}
}

/* Element i of one of the typed lists, whichever is filled. */
static void typed_number(const Onnx__TensorProto *t, cx_dtype dtype, void *data, size_t i)
{
	uint16_t bits;
	if (t->data_type == 10 || t->data_type == 16) {
		bits = (uint16_t)t->int32_data[i];
		memcpy((uint8_t *)data + 2 * i, &bits, 2);
	} else if (t->n_int64_data) {
		((int64_t *)data)[i] = t->int64_data[i];
	} else if (t->n_uint64_data) {
		((int64_t *)data)[i] = (int64_t)t->uint64_data[i];
	} else if (t->n_int32_data) {
		number_put(dtype, data, (int64_t)i, t->int32_data[i]);
	} else {
		number_put(dtype, data, (int64_t)i, t->n_float_data ? t->float_data[i] : t->double_data[i]);
	}
}

void *onnx_tensor_data(
	const Onnx__TensorProto *t, cx_dtype *dtype, cx_list *dims, bool *widened, const char **why)
{
	uint64_t bytes = 0;
	size_t n = 1;
	void *data;
	*why = "element type (f8, f4, 4-bit, 2-bit, string)";
	if (!onnx_dtype(t->data_type, dtype, widened)) return NULL;
	*why = "rank over 6";
	if (t->n_dims > CX_MAX_RANK) return NULL;
	*dims = cx_list_from((int32_t)t->n_dims, t->dims);
	*why = "size";
	if (!cx_dtype_bytes(*dtype, dims->n, dims->v, &bytes)) return NULL;
	for (size_t i = 0; i < t->n_dims; i++) n *= (size_t)t->dims[i];
	*why = NULL;
	data = calloc(1, bytes ? bytes : 1);
	if (!t->has_raw_data) {
		for (size_t i = 0; i < n; i++) typed_number(t, *dtype, data, i);
	} else if (t->data_type == 4 || t->data_type == 5 || t->data_type == 11 || t->data_type == 12) {
		for (size_t i = 0; i < n; i++)
			number_put(*dtype, data, (int64_t)i, raw_number(t->data_type, t->raw_data.data, i));
	} else if (bytes) {
		memcpy(data, t->raw_data.data, bytes < t->raw_data.len ? bytes : t->raw_data.len);
	}
	for (size_t i = 0; t->data_type == 13 && i < n; i++)
		if (((int64_t *)data)[i] < 0) *why = "u64 above 2^63";
	if (*why) {
		free(data);
		return NULL;
	}
	return data;
}

/* ---- names and attributes ---- */

void onnx_set(onnx_ctx *c, const char *name, cx_tensor t)
{
	if (c->n_values == ONNX_MAX_VALUES) c->why = "too many values";
	else c->values[c->n_values++] = (onnx_value){name, t};
}

cx_tensor onnx_find(const onnx_ctx *c, const char *name)
{
	for (uint32_t i = c->n_values; i-- > 0;)
		if (strcmp(c->values[i].name, name) == 0) return c->values[i].t;
	return CX_NONE;
}

cx_tensor in_(const onnx_ctx *c, const onnx_node *n, size_t i)
{
	return has_in(n, i) ? onnx_find(c, n->input[i]) : CX_NONE;
}

bool out_(onnx_ctx *c, const onnx_node *n, size_t i, cx_tensor t)
{
	if (has_out(n, i)) onnx_set(c, n->output[i], t);
	return true;
}

const Onnx__AttributeProto *attr_(const onnx_node *n, const char *name)
{
	for (size_t i = 0; i < n->n_attribute; i++)
		if (strcmp(n->attribute[i]->name, name) == 0) return n->attribute[i];
	return NULL;
}

int64_t attr_i(const onnx_node *n, const char *name, int64_t missing)
{
	const Onnx__AttributeProto *a = attr_(n, name);
	return a ? a->i : missing;
}

float attr_f(const onnx_node *n, const char *name, float missing)
{
	const Onnx__AttributeProto *a = attr_(n, name);
	return a ? a->f : missing;
}

bool attr_is(const onnx_node *n, const char *name, const char *value, const char *missing)
{
	const Onnx__AttributeProto *a = attr_(n, name);
	if (!a) return strcmp(value, missing) == 0;
	return a->s.len == strlen(value) && memcmp(a->s.data, value, a->s.len) == 0;
}

bool attr_list(const onnx_node *n, const char *name, cx_list *out)
{
	const Onnx__AttributeProto *a = attr_(n, name);
	if (!a || a->n_ints > CX_MAX_LIST) return false;
	*out = cx_list_from((int32_t)a->n_ints, a->ints);
	return true;
}

/* ---- values while building ---- */

int64_t host_ints(onnx_ctx *c, cx_tensor t, int64_t *v, int64_t max)
{
	cx_shape s = shape_(c, t);
	int64_t n = cx_shape_elems(&s);
	cx_dtype type = dtype_(c, t);
	if (c->why || cx_is_none(t) || c->g->first_error.code) return 0;
	ref_run_eval(c->r);
	for (int64_t i = 0; i < n && i < max; i++)
		v[i] =
			type == CX_I64 ? ((int64_t *)c->r->value[t.id])[i] : (int64_t)ref_run_get(c->r, t, i);
	return n;
}

double host_number(onnx_ctx *c, cx_tensor t)
{
	if (c->why || cx_is_none(t) || c->g->first_error.code) return 0;
	ref_run_eval(c->r);
	return ref_run_get(c->r, t, 0);
}

cx_list host_list(onnx_ctx *c, cx_tensor t)
{
	cx_list l = {0};
	int64_t n = host_ints(c, t, l.v, CX_MAX_LIST);
	if (n > CX_MAX_LIST) c->why = "rank over 6";
	else l.n = (int32_t)n;
	return l;
}

bool list_arg(onnx_ctx *c, const onnx_node *n, size_t i, const char *name, cx_list *out)
{
	if (!has_in(n, i)) return attr_list(n, name, out);
	*out = host_list(c, in_(c, n, i));
	return true;
}

/* ---- building blocks ---- */

cx_shape shape_(const onnx_ctx *c, cx_tensor t)
{
	return cx_tensor_shape(c->g, t);
}
cx_dtype dtype_(const onnx_ctx *c, cx_tensor t)
{
	return cx_tensor_dtype(c->g, t);
}
int64_t axis_of(int64_t axis, int32_t rank)
{
	return axis < 0 ? axis + rank : axis;
}

cx_list dims_of(const onnx_ctx *c, cx_tensor t)
{
	cx_shape s = shape_(c, t);
	return cx_list_from(s.rank, s.dim);
}

cx_tensor scalar(onnx_ctx *c, cx_dtype t, double v)
{
	int64_t bytes = 0;
	number_put(t, &bytes, 0, v);
	return cx_const(c->g, t, 0, NULL, &bytes);
}

cx_tensor like(onnx_ctx *c, cx_tensor x, double v)
{
	return scalar(c, dtype_(c, x), v);
}

cx_tensor int_const(onnx_ctx *c, cx_dtype t, cx_list dims, const int64_t *v)
{
	int64_t n = 1;
	void *data;
	cx_tensor y;
	for (int32_t i = 0; i < dims.n; i++) n *= dims.v[i];
	data = calloc((size_t)n + 1, 8);
	for (int64_t i = 0; i < n; i++) {
		if (t == CX_I64) ((int64_t *)data)[i] = v[i];
		else number_put(t, data, i, (double)v[i]);
	}
	y = cx_const(c->g, t, dims.n, dims.v, data);
	free(data);
	return y;
}

cx_tensor cast_(onnx_ctx *c, cx_tensor x, cx_dtype t)
{
	return dtype_(c, x) == t ? x : cx_cast(c->g, x, &(cx_attr_cast){.dtype = t});
}

cx_tensor reshape_(onnx_ctx *c, cx_tensor x, cx_list dims)
{
	return cx_reshape(c->g, x, &(cx_attr_dims){.dims = dims});
}

cx_tensor perm_(onnx_ctx *c, cx_tensor x, cx_list perm)
{
	return cx_permute(c->g, x, &(cx_attr_perm){.perm = perm});
}

cx_tensor expand_(onnx_ctx *c, cx_tensor x, cx_list dims)
{
	return cx_broadcast(c->g, x, &(cx_attr_dims){.dims = dims});
}

cx_tensor part_(onnx_ctx *c, cx_tensor x, int64_t axis, int64_t begin, int64_t n)
{
	cx_attr_slice at = {.size = dims_of(c, x)};
	at.begin.n = at.size.n;
	at.begin.v[axis] = begin;
	at.size.v[axis] = n;
	return cx_slice(c->g, x, &at);
}

cx_tensor pick_(onnx_ctx *c, cx_tensor x, int64_t axis, int64_t n, const int64_t *at)
{
	return cx_gather(
		c->g, x, int_const(c, CX_I32, cx_list_from(1, &n), at), &(cx_attr_axis){.axis = axis});
}

cx_tensor index_(onnx_ctx *c, cx_tensor idx, int64_t size)
{
	cx_tensor i = cast_(c, idx, CX_I32), below = cx_lt(c->g, i, scalar(c, CX_I32, 0));
	return cx_where(c->g, below, cx_add(c->g, i, scalar(c, CX_I32, (double)size)), i);
}

cx_tensor reduce_(onnx_ctx *c, cx_op op, cx_tensor x, cx_list axes, bool keep)
{
	cx_attr_reduce at = {.axes = axes, .keep = keep};
	return cx_node_add(c->g, op, &x, 1, &at);
}

/* ---- the walk ---- */

static bool import_node(onnx_ctx *c, const onnx_node *n)
{
	static const onnx_row *const tables[] = {
		onnx_rows_math, onnx_rows_move, onnx_rows_nn, onnx_rows_seq};
	c->op = n->op_type;
	for (size_t i = 0; i < n->n_input; i++)
		if (n->input[i][0] && cx_is_none(onnx_find(c, n->input[i])))
			return onnx_not_ours(c, "operand of another kind");
	for (size_t t = 0; t < sizeof tables / sizeof tables[0]; t++)
		for (const onnx_row *row = tables[t]; row->name; row++)
			if (strcmp(row->name, n->op_type) == 0) return row->fn(c, n, row->arg) && !c->why;
	return onnx_not_ours(c, "no such op, no natural composition");
}

bool onnx_import(onnx_ctx *c, const Onnx__GraphProto *graph)
{
	for (size_t i = 0; i < graph->n_initializer; i++) {
		const Onnx__TensorProto *t = graph->initializer[i];
		cx_dtype dtype;
		cx_list dims;
		void *data = onnx_tensor_data(t, &dtype, &dims, &c->widened, &c->why);
		if (!data) return false;
		onnx_set(c, t->name, cx_const(c->g, dtype, dims.n, dims.v, data));
		free(data);
	}
	for (size_t i = 0; i < graph->n_node; i++)
		if (!import_node(c, graph->node[i])) return false;
	return true;
}
