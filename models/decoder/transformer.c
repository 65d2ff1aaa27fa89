/* transformer.c - the Transformer baseline as a graph. See dense.h. */
#include "models/decoder/dense.h"

#include <stdio.h>

#include "models/layers.h"

enum { HEAD_ROWS = 4, LAYER_ROWS = 12, TAIL_ROWS = 2 };

size_t cx__transformer_n_params(const cx_dense_config *c)
{
	return (size_t)(HEAD_ROWS + LAYER_ROWS * c->layers + TAIL_ROWS);
}

#define MATRIX(name, n, k)                                                                         \
	{                                                                                              \
		name, {n, k}, CX_CORTEX_UNIFORM, k, true                                                   \
	}
#define BIAS(name, n, k)                                                                           \
	{                                                                                              \
		name, {n, 0}, CX_CORTEX_UNIFORM, k, false                                                  \
	}

void cx__transformer_param_get(const cx_dense_config *c, size_t index, cx_cortex_param *out)
{
	int64_t d = c->width;
	const cx_dense_row head[HEAD_ROWS] = {MATRIX("in_proj.weight", d, c->n_units),
		BIAS("in_proj.bias", d, c->n_units), {"cls", {d, 0}, CX_CORTEX_NORMAL, 0, false},
		{"pos.weight", {c->window + 2, d}, CX_CORTEX_NORMAL, 0, false}};
	const cx_dense_row layer[LAYER_ROWS] = {{"norm1.weight", {d, 0}, CX_CORTEX_ONES, 0, false},
		{"norm1.bias", {d, 0}, CX_CORTEX_ZEROS, 0, false},
		MATRIX("self_attn.in_proj_weight", 3 * d, d), BIAS("self_attn.in_proj_bias", 3 * d, d),
		MATRIX("self_attn.out_proj.weight", d, d), BIAS("self_attn.out_proj.bias", d, d),
		{"norm2.weight", {d, 0}, CX_CORTEX_ONES, 0, false},
		{"norm2.bias", {d, 0}, CX_CORTEX_ZEROS, 0, false}, MATRIX("linear1.weight", c->ff, d),
		BIAS("linear1.bias", c->ff, d), MATRIX("linear2.weight", d, c->ff),
		BIAS("linear2.bias", d, c->ff)};
	const cx_dense_row tail[TAIL_ROWS] = {
		MATRIX("weight", c->behavior_dim, d), BIAS("bias", c->behavior_dim, d)};
	char scope[31];
	if (index < HEAD_ROWS) {
		cx__dense_fill(&head[index], "", out);
		return;
	}
	index -= HEAD_ROWS;
	if (index >= (size_t)(LAYER_ROWS * c->layers)) {
		cx__dense_fill(&tail[index - (size_t)(LAYER_ROWS * c->layers)], "head.", out);
		return;
	}
	snprintf(scope, sizeof scope, "encoder.layers.%d.", (int)(index / LAYER_ROWS));
	cx__dense_fill(&layer[index % LAYER_ROWS], scope, out);
}

static cx_tensor norm(cx_dense_builder *b, cx_tensor x)
{
	cx_attr_norm a = cx_attr_norm_default();
	cx_tensor w = cx__dense_next(b), bias = cx__dense_next(b);
	a.eps = 1e-5f;
	return cx_layernorm(cx_at(b->g), x, w, bias, &a);
}

/* One layer on z [B*(T+1), d]. */
static cx_tensor layer(cx_dense_builder *b, cx_tensor z)
{
	cx_graph *g = b->g;
	int64_t d = b->c->width, n = b->n_windows, t = b->c->window + 1, h = b->c->heads;
	cx_tensor qkv = cx__dense_linear(b, norm(b, z)), part[3], y;
	for (int i = 0; i < 3; i++)
		part[i] = cx__dense_shape(g, cx__dense_cut(g, qkv, 1, i * d, d), 4, n, t, h, d / h);
	y = cx_attention(cx_at(g), part[0], part[1], part[2], CX_NONE, CX_NONE, CX_NONE, CX_NONE, NULL);
	y = cx__dense_linear(b, cx__dense_shape(g, y, 2, n * t, d, 0, 0));
	z = cx_add(g, cx__dense_drop(b, y), z);
	y = cx_gelu(g, cx__dense_linear(b, norm(b, z)));
	y = cx__dense_linear(b, cx__dense_drop(b, y));
	return cx_add(g, cx__dense_drop(b, y), z);
}

void cx__transformer_build(cx_dense_builder *b, cx_dense_graph *out)
{
	cx_graph *g = b->g;
	int64_t d = b->c->width, n = b->n_windows, t = b->c->window;
	int64_t front[3] = {n, 1, d};
	cx_tensor x = cx__dense_linear(b, out->counts), z[2];
	z[0] = cx_broadcast(g, cx__dense_next(b), &(cx_attr_dims){.dims = cx_list_from(3, front)});
	z[1] = cx__dense_shape(g, x, 3, n, t, d, 0);
	x = cx_concat(cx_at(g), z, 2, &(cx_attr_axis){.axis = 1});
	x = cx_add(g, x, cx__dense_cut(g, cx__dense_next(b), 0, 0, t + 1));
	x = cx__dense_shape(g, x, 2, n * (t + 1), d, 0, 0);
	for (int64_t l = 0; l < b->c->layers; l++) {
		cx_scope_push(g, "encoder.layers.%lld", (long long)l);
		x = layer(b, x);
		cx_scope_pop(g);
	}
	x = cx__dense_cut(g, cx__dense_shape(g, x, 3, n, t + 1, d, 0), 1, 0, 1);
	x = cx__dense_shape(g, x, 2, n, d, 0, 0);
	out->behavior = cx_named(g, cx__dense_linear(b, x), "behavior");
}
