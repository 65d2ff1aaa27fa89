/* grad_cases_heavy.c - norms, attention, sequences with a carried state: ops whose gradient is
 * an op of its own, in all their forms; see grad_cases.h. */
#include "tests/grad_cases.h"

#define COUNT(a) (uint32_t)(sizeof(a) / sizeof((a)[0]))

/* ---- norms ----------------------------------------------------------------------------------- */

static void case_layernorm(grad_case *k)
{
	cx_attr_norm one = {.eps = 0.05f, .plus_one = true};
	cx_tensor x = grad_leaf(k, -2, 2, GD(3, 6)), w = grad_leaf(k, 0.3, 1.5, GD(6));
	grad_mix(k, cx_layernorm(k->g, x, w, grad_leaf(k, -1, 1, GD(6)), NULL));
	grad_mix(k, cx_layernorm(k->g, grad_leaf(k, -2, 2, GD(2, 2, 5)), CX_NONE, CX_NONE, &one));
	k->no_spread = true; /* a row of equal elements: all that is left cancels */
	grad_mix(k,
		cx_layernorm(k->g, grad_leaf(k, -2, 2, GD(7)), grad_leaf(k, -1, 1, GD(7)), CX_NONE, &one));
	grad_mix(k, cx_layernorm(k->g, grad_leaf(k, -2, 2, GD(2, 4)), CX_NONE,
					grad_leaf(k, -1, 1, GD(4)), NULL));
}

static void case_rmsnorm(grad_case *k)
{
	cx_attr_norm one = {.eps = 0.05f, .plus_one = true};
	cx_tensor x = grad_leaf(k, -2, 2, GD(3, 6)), w = grad_leaf(k, 0.3, 1.5, GD(6));
	grad_mix(k, cx_rmsnorm(k->g, x, w, NULL));
	grad_mix(k, cx_rmsnorm(k->g, grad_leaf(k, -2, 2, GD(2, 2, 5)), CX_NONE, &one));
	k->no_spread = true; /* a row of equal elements: all that is left cancels */
	grad_mix(k, cx_rmsnorm(k->g, grad_leaf(k, -2, 2, GD(7)), grad_leaf(k, -1, 1, GD(7)), &one));
}

/* Weights in f32 beside x of the case's dtype. */
static void case_norm_mixed(grad_case *k)
{
	grad_mix(k,
		cx_rmsnorm(k->g, grad_leaf(k, -2, 2, GD(20, 5)), grad_leaf_f32(k, 0.3, 1.5, GD(5)), NULL));
	grad_mix(k, cx_layernorm(k->g, grad_leaf(k, -2, 2, GD(20, 5)),
					grad_leaf_f32(k, 0.3, 1.5, GD(5)), grad_leaf_f32(k, -1, 1, GD(5)), NULL));
}

/* ---- attention ------------------------------------------------------------------------------- */

static void dense(grad_case *k, cx_list q, cx_list kv, int64_t dv, cx_tensor mask, cx_tensor bias,
	const cx_attr_attention *a)
{
	cx_list v = kv;
	v.v[3] = dv;
	k->no_spread = true; /* equal keys: gradients of scores cancel */
	grad_mix(k, cx_attention(k->g, grad_leaf(k, -1, 1, q), grad_leaf(k, -1.2, 1, kv),
					grad_leaf(k, -1, 1.5, v), CX_NONE, CX_NONE, mask, bias, a));
}

static void case_attention(grad_case *k)
{
	dense(k, GD(2, 3, 2, 4), GD(2, 5, 2, 4), 4, CX_NONE, CX_NONE, NULL);
	/* grouped heads, values of another width, a scale of its own */
	dense(k, GD(1, 3, 4, 3), GD(1, 4, 2, 3), 2, CX_NONE, CX_NONE,
		&(cx_attr_attention){.scale = 0.7f});
}

static void case_attention_causal(grad_case *k)
{
	dense(k, GD(1, 4, 2, 3), GD(1, 6, 1, 3), 3, CX_NONE, CX_NONE,
		&(cx_attr_attention){.causal = true});
	/* the first rows see nothing; a window */
	dense(k, GD(1, 5, 1, 3), GD(1, 3, 1, 3), 3, CX_NONE, CX_NONE,
		&(cx_attr_attention){.causal = true});
	dense(k, GD(1, 5, 1, 2), GD(1, 6, 1, 2), 2, CX_NONE, CX_NONE,
		&(cx_attr_attention){.causal = true, .window = 2});
}

static void case_attention_mask(grad_case *k)
{
	cx_tensor mask = grad_bools(k, GD(2, 1, 3, 5), GRAD_VALUES(1, 0, 1, 1, 0, 0, 0));
	dense(k, GD(2, 3, 2, 2), GD(2, 5, 1, 2), 2, mask, CX_NONE, NULL);
	mask = grad_bools(k, GD(4), GRAD_VALUES(1, 0, 1, 1));
	dense(
		k, GD(1, 2, 2, 3), GD(1, 4, 2, 3), 3, mask, grad_leaf_f32(k, -1, 1, GD(1, 2, 1, 4)), NULL);
	dense(k, GD(2, 2, 2, 2), GD(2, 3, 1, 2), 2, CX_NONE, grad_leaf_f32(k, -1, 1, GD(2, 2, 2, 3)),
		&(cx_attr_attention){.causal = true});
}

static void ragged(
	grad_case *k, cx_tensor q_off, cx_tensor kv_off, cx_tensor bias, const cx_attr_attention *a)
{
	k->no_spread = true;
	grad_mix(
		k, cx_attention(k->g, grad_leaf(k, -1, 1, GD(6, 2, 3)), grad_leaf(k, -1.2, 1, GD(8, 1, 3)),
			   grad_leaf(k, -1, 1.5, GD(8, 1, 2)), q_off, kv_off, CX_NONE, bias, a));
}

/* Sequences without rows, without keys, rows and keys of no sequence. */
static void case_attention_ragged(grad_case *k)
{
	cx_tensor q_off = grad_ints(k, GD(5), GRAD_VALUES(0, 2, 2, 4, 5));
	cx_tensor kv_off = grad_ints(k, GD(5), GRAD_VALUES(1, 4, 5, 5, 8));
	ragged(k, CX_NONE, CX_NONE, CX_NONE, &(cx_attr_attention){.causal = true});
	ragged(k, q_off, kv_off, CX_NONE, NULL);
	ragged(k, q_off, kv_off, grad_leaf_f32(k, -1, 1, GD(2, 1, 8)),
		&(cx_attr_attention){.causal = true, .window = 2});
}

/* ---- sequences with state -------------------------------------------------------------------- */

typedef struct seqs {
	cx_tensor off, slot;
} seqs;

/* off: one sequence is empty and the last row is of none; slots: one keeps nothing, one row of
 * state is nobody's. */
static seqs some_sequences(grad_case *k)
{
	return (seqs){grad_ints(k, GD(5), GRAD_VALUES(0, 3, 3, 4, 6)),
		grad_ints(k, GD(4), GRAD_VALUES(3, 0, 1, -1))};
}

static void conv(grad_case *k, int64_t taps, bool bias, bool silu, const seqs *s, int outs)
{
	cx_attr_conv1d a = {.silu = silu};
	cx_tensor b = bias ? grad_leaf(k, -1, 1, GD(2)) : CX_NONE, y;
	y = cx_conv1d(k->g, grad_leaf(k, -2, 2, GD(7, 2)), grad_leaf(k, -1, 1, GD(2, taps)), b,
		grad_state(k, k->dtype, -2, 2, GD(4, taps - 1, 2)), s->off, s->slot, &a);
	if (outs & 1) grad_mix(k, y);
	if (outs & 2) grad_mix(k, cx_out(k->g, y, 1));
}

static void case_conv1d(grad_case *k)
{
	seqs all = {CX_NONE, CX_NONE};
	conv(k, 4, true, true, &all, 3);
	conv(k, 3, false, false, &all, 1);
	conv(k, 3, false, true, &all, 2);
}

static void case_conv1d_ragged(grad_case *k)
{
	seqs s = some_sequences(k);
	conv(k, 4, true, true, &s, 3);
	conv(k, 2, false, false, &s, 2);
	conv(k, 1, true, true, &s, 3); /* no window at all */
}

static void delta(
	grad_case *k, int64_t nk, int64_t nv, const seqs *s, int outs, const cx_attr_delta *a)
{
	cx_tensor y = cx_delta_rule(k->g, grad_leaf(k, -1, 1, GD(7, nk, 3)),
		grad_leaf(k, -0.6, 0.6, GD(7, nk, 3)), grad_leaf(k, -1, 1, GD(7, nv, 2)),
		grad_leaf(k, -1, -0.05, GD(7, nv)), grad_leaf(k, 0.1, 0.9, GD(7, nv)),
		grad_state(k, CX_F32, -1, 1, GD(4, nv, 3, 2)), s->off, s->slot, a);
	if (outs & 1) grad_mix(k, y);
	if (outs & 2) grad_mix(k, cx_out(k->g, y, 1));
}

static void case_delta_rule(grad_case *k)
{
	seqs all = {CX_NONE, CX_NONE};
	delta(k, 1, 2, &all, 3, NULL);
	delta(k, 2, 2, &all, 1, &(cx_attr_delta){.scale = 0.5f, .chunk = 3});
}

static void case_delta_rule_ragged(grad_case *k)
{
	seqs s = some_sequences(k);
	delta(k, 2, 4, &s, 3, &(cx_attr_delta){.tiled = true});
	delta(k, 1, 1, &s, 2, NULL);
}

#define ROW(op)                                                                                    \
	{                                                                                              \
		.name = #op, .build = case_##op                                                            \
	}
const grad_row grad_heavy_rows[] = {ROW(layernorm), ROW(rmsnorm), ROW(norm_mixed), ROW(attention),
	ROW(attention_causal), ROW(attention_mask), ROW(attention_ragged), ROW(conv1d),
	ROW(conv1d_ragged), ROW(delta_rule), ROW(delta_rule_ragged)};
const uint32_t grad_n_heavy_rows = COUNT(grad_heavy_rows);
