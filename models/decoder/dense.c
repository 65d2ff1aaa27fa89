/* dense.c - what the two dense networks share. See dense.h. */
#include "models/decoder/dense.h"

#include <stdio.h>
#include <string.h>

#include "graph/optim.h"
#include "models/layers.h"

cx_status cx_dense_check(const cx_dense_config *c, cx_err *err)
{
	const struct {
		const char *name;
		int64_t value, max;
	} f[] = {{"n_units", c->n_units, 1 << 20}, {"window", c->window, 1024},
		{"width", c->width, 8192}, {"layers", c->layers, 64},
		{"behavior_dim", c->behavior_dim, 4096}, {"heads", c->transformer ? c->heads : 1, 1024},
		{"ff", c->transformer ? c->ff : 1, 65536}};
	for (size_t i = 0; i < sizeof f / sizeof *f; i++)
		if (f[i].value < 1 || f[i].value > f[i].max)
			return CX_FAIL(err, CX_ERR_ARGUMENT, "baseline: %s is %lld, must be in 1..%lld",
				f[i].name, (long long)f[i].value, (long long)f[i].max);
	if (c->transformer && c->width % c->heads != 0)
		return CX_FAIL(err, CX_ERR_ARGUMENT, "baseline: heads %lld does not divide width %lld",
			(long long)c->heads, (long long)c->width);
	if (!(c->dropout >= 0 && c->dropout < 1))
		return CX_FAIL(
			err, CX_ERR_ARGUMENT, "baseline: dropout is %g, must be in [0,1)", c->dropout);
	return CX_OK;
}

size_t cx_dense_n_params(const cx_dense_config *c)
{
	return c->transformer ? cx__transformer_n_params(c) : cx__gru_n_params(c);
}

void cx_dense_param_get(const cx_dense_config *c, size_t index, cx_cortex_param *out)
{
	if (c->transformer) cx__transformer_param_get(c, index, out);
	else cx__gru_param_get(c, index, out);
}

void cx__dense_fill(const cx_dense_row *row, const char *scope, cx_cortex_param *out)
{
	memset(out, 0, sizeof *out);
	snprintf(out->name, sizeof out->name, "%.31s%.31s", scope, row->name);
	out->rank = row->dim[1] ? 2 : 1;
	out->dim[0] = row->dim[0];
	out->dim[1] = row->dim[1];
	out->init = row->init;
	out->fan_in = row->fan_in ? row->fan_in : 1;
	out->linear = row->decay;
}

cx_tensor cx__dense_next(cx_dense_builder *b)
{
	cx_cortex_param p;
	cx_tensor t;
	cx_dense_param_get(b->c, b->next, &p);
	t = b->src->get(b->src->ctx, b->g, &p, b->next);
	if (b->param) b->param[b->next] = t;
	b->next++;
	return t;
}

cx_tensor cx__dense_linear(cx_dense_builder *b, cx_tensor x)
{
	cx_tensor w = cx__dense_next(b), bias = cx__dense_next(b);
	return cx_layer_linear(cx_at(b->g), x, w, bias);
}

cx_tensor cx__dense_drop(cx_dense_builder *b, cx_tensor x)
{
	if (!b->train || !(b->c->dropout > 0)) return x;
	return cx_dropout(b->g, x, (float)b->c->dropout, cx_random_site(b->g, b->key, b->n_drops++));
}

cx_tensor cx__dense_shape(
	cx_graph *g, cx_tensor x, int32_t rank, int64_t d0, int64_t d1, int64_t d2, int64_t d3)
{
	int64_t dims[4] = {d0, d1, d2, d3};
	return cx_reshape(g, x, &(cx_attr_dims){.dims = cx_list_from(rank, dims)});
}

cx_tensor cx__dense_cut(cx_graph *g, cx_tensor x, int32_t axis, int64_t begin, int64_t size)
{
	cx_shape s = cx_tensor_shape(g, x);
	cx_attr_slice a = cx_attr_slice_default();
	int64_t first[CX_MAX_RANK] = {0};
	if (begin == 0 && size == s.dim[axis]) return x;
	first[axis] = begin;
	s.dim[axis] = size;
	a.begin = cx_list_from(s.rank, first);
	a.size = cx_list_from(s.rank, s.dim);
	return cx_slice(cx_at(g), x, &a);
}

void cx_dense_build(const cx_dense_config *c, const cx_cortex_source *src, int64_t n_windows,
	bool train, cx_graph *g, cx_dense_graph *out, cx_tensor *param)
{
	int64_t four = 4, dims[2] = {n_windows * c->window, c->n_units};
	cx_dense_builder b = {.c = c,
		.src = src,
		.g = g,
		.n_windows = n_windows,
		.train = train,
		.param = param,
		.key = CX_NONE};
	out->counts = cx_input(g, "counts", CX_F32, 2, dims);
	if (train && c->dropout > 0) b.key = cx_input(g, "key", CX_I32, 1, &four);
	out->key = b.key;
	if (c->transformer) cx__transformer_build(&b, out);
	else cx__gru_build(&b, out);
	CX_ASSERT(b.next == cx_dense_n_params(c));
}
