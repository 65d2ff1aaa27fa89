/* gru.c - the GRU baseline as an unrolled graph. See dense.h.
 *
 * Products with the inputs are one matrix product per layer and direction; what is unrolled is the
 * recurrence alone. The first step has no product with h, which is 0. */
#include "models/decoder/dense.h"

#include <stdio.h>

#include "models/layers.h"

enum { PER_CELL = 4 };

static int64_t n_dirs(const cx_dense_config *c)
{
	return c->bidirectional ? 2 : 1;
}

size_t cx__gru_n_params(const cx_dense_config *c)
{
	return (size_t)(c->layers * n_dirs(c) * PER_CELL + 2);
}

void cx__gru_param_get(const cx_dense_config *c, size_t index, cx_cortex_param *out)
{
	int64_t h = c->width, dirs = n_dirs(c), cell = (int64_t)index / PER_CELL;
	int64_t in = cell < dirs ? c->n_units : h * dirs;
	const cx_dense_row rows[PER_CELL] = {{"weight_ih_l", {3 * h, in}, CX_CORTEX_UNIFORM, h, true},
		{"weight_hh_l", {3 * h, h}, CX_CORTEX_UNIFORM, h, true},
		{"bias_ih_l", {3 * h, 0}, CX_CORTEX_UNIFORM, h, false},
		{"bias_hh_l", {3 * h, 0}, CX_CORTEX_UNIFORM, h, false}};
	const cx_dense_row head[2] = {
		{"weight", {c->behavior_dim, h * dirs}, CX_CORTEX_UNIFORM, h * dirs, true},
		{"bias", {c->behavior_dim, 0}, CX_CORTEX_UNIFORM, h * dirs, false}};
	char name[31];
	cx_dense_row r;
	if (cell >= c->layers * dirs) {
		cx__dense_fill(&head[index % PER_CELL], "head.", out);
		return;
	}
	r = rows[index % PER_CELL];
	snprintf(
		name, sizeof name, "%s%d%s", r.name, (int)(cell / dirs), cell % dirs ? "_reverse" : "");
	r.name = name;
	cx__dense_fill(&r, "gru.", out);
}

typedef struct cell {
	cx_tensor gi; /* [T*B, 3h]: W_i x + b_i of all steps */
	cx_tensor w, b;
} cell;

static cell make_cell(cx_dense_builder *b, cx_tensor x)
{
	cell c;
	cx_tensor w = cx__dense_next(b), bias;
	c.w = cx__dense_next(b);
	bias = cx__dense_next(b);
	c.b = cx__dense_next(b);
	c.gi = cx_layer_linear(cx_at(b->g), x, w, bias);
	return c;
}

/* h after step t; before is CX_NONE where it is 0. */
static cx_tensor step(cx_dense_builder *b, const cell *c, int64_t t, cx_tensor before)
{
	cx_graph *g = b->g;
	int64_t h = b->c->width, n = b->n_windows;
	cx_tensor gi = cx__dense_cut(g, c->gi, 0, t * n, n), r, z, cand, gh;
	int32_t axis = 1;
	if (cx_is_none(before)) gh = cx__dense_shape(g, c->b, 2, 1, 3 * h, 0, 0);
	else gh = cx_layer_linear(cx_at(g), before, c->w, c->b);
	r = cx_sigmoid(
		g, cx_add(g, cx__dense_cut(g, gi, axis, 0, h), cx__dense_cut(g, gh, axis, 0, h)));
	z = cx_sigmoid(
		g, cx_add(g, cx__dense_cut(g, gi, axis, h, h), cx__dense_cut(g, gh, axis, h, h)));
	cand = cx_mul(g, r, cx__dense_cut(g, gh, axis, 2 * h, h));
	cand = cx_tanh(g, cx_add(g, cx__dense_cut(g, gi, axis, 2 * h, h), cand));
	if (cx_is_none(before)) return cx_sub(g, cand, cx_mul(g, z, cand));
	return cx_add(cx_at(g), cand, cx_mul(g, z, cx_sub(g, before, cand)));
}

/* All steps of one direction: [T*B, h]; or, with `last`, what is known at the last bin: [B, h]. */
static cx_tensor run(cx_dense_builder *b, const cell *c, bool reverse, bool last)
{
	int64_t n = b->c->window;
	cx_tensor at[1024], h = CX_NONE;
	if (reverse && last) return step(b, c, n - 1, CX_NONE);
	for (int64_t i = 0; i < n; i++) {
		int64_t t = reverse ? n - 1 - i : i;
		at[t] = h = step(b, c, t, h);
	}
	if (last || n == 1) return h;
	return cx_concat(cx_at(b->g), at, (uint32_t)n, &(cx_attr_axis){.axis = 0});
}

void cx__gru_build(cx_dense_builder *b, cx_dense_graph *out)
{
	cx_tensor x = out->counts;
	for (int64_t l = 0; l < b->c->layers; l++) {
		bool last = l == b->c->layers - 1;
		cx_tensor y[2];
		cell c;
		cx_scope_push(b->g, "gru.%lld", (long long)l);
		if (l > 0) x = cx__dense_drop(b, x);
		for (int64_t d = 0; d < n_dirs(b->c); d++) {
			c = make_cell(b, x);
			y[d] = run(b, &c, d == 1, last);
			/* one step from 0: the recurrent matrix plays no part */
			if (b->param && (b->c->window == 1 || (d == 1 && last)))
				b->param[b->next - 3] = CX_NONE;
		}
		x = b->c->bidirectional ? cx_concat(cx_at(b->g), y, 2, &(cx_attr_axis){.axis = 1}) : y[0];
		cx_scope_pop(b->g);
	}
	out->behavior = cx_named(b->g, cx__dense_linear(b, x), "behavior");
}
