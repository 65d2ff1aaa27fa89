/* nn.c - ONNX products, norms, attention, rotary embedding and quantisation as our ops. See onnx.h.
 */
#include "tests/onnx/onnx.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- products ---- */

/* One-dimensional operands are rows or columns that vanish from the result. */
static cx_tensor product(onnx_ctx *c, cx_tensor a, cx_tensor b)
{
	cx_list da = dims_of(c, a), db = dims_of(c, b), d;
	cx_tensor y;
	if (da.n == 1) a = reshape_(c, a, DIMS_(1, da.v[0]));
	if (db.n == 1) b = reshape_(c, b, DIMS_(db.v[0], 1));
	y = cx_matmul(c->g, a, b, NULL);
	d = dims_of(c, y);
	if (db.n == 1) d.n--;
	if (da.n == 1) {
		if (db.n != 1) d.v[d.n - 2] = d.v[d.n - 1];
		d.n--;
	}
	return da.n == 1 || db.n == 1 ? reshape_(c, y, d) : y;
}

static bool matmul(onnx_ctx *c, const onnx_node *n, int arg)
{
	(void)arg;
	return out_(c, n, 0, product(c, in_(c, n, 0), in_(c, n, 1)));
}

static bool gemm(onnx_ctx *c, const onnx_node *n, int arg)
{
	cx_attr_matmul at = {.trans_a = attr_i(n, "transA", 0), .trans_b = attr_i(n, "transB", 0)};
	cx_tensor y = cx_matmul(c->g, in_(c, n, 0), in_(c, n, 1), &at), bias = in_(c, n, 2);
	(void)arg;
	y = cx_mul(c->g, y, like(c, y, attr_f(n, "alpha", 1)));
	if (!cx_is_none(bias))
		y = cx_add(c->g, y, cx_mul(c->g, bias, like(c, y, attr_f(n, "beta", 1))));
	return out_(c, n, 0, y);
}

/* ---- quantisation: u8 and i8, true integers in f32 ---- */

/* A scale or zero point [n] laid along an axis of x. */
static cx_tensor along_axis(onnx_ctx *c, cx_tensor s, cx_tensor x, const onnx_node *n)
{
	cx_list d = {.n = shape_(c, x).rank};
	int64_t axis = axis_of(attr_i(n, "axis", 1), d.n);
	if (shape_(c, s).rank != 1 || shape_(c, s).dim[0] == 1) return reshape_(c, s, (cx_list){0});
	for (int32_t i = 0; i < d.n; i++) d.v[i] = i == axis ? shape_(c, s).dim[0] : 1;
	return reshape_(c, s, d);
}

static cx_tensor dequantised(onnx_ctx *c, const onnx_node *n, size_t at)
{
	cx_tensor x = cast_(c, in_(c, n, at), CX_F32), scale = in_(c, n, at + 1),
			  zero = in_(c, n, at + 2);
	if (!cx_is_none(zero)) x = cx_sub(c->g, x, along_axis(c, cast_(c, zero, CX_F32), x, n));
	return cx_mul(c->g, x, along_axis(c, cast_(c, scale, CX_F32), x, n));
}

static bool dequantise(onnx_ctx *c, const onnx_node *n, int arg)
{
	(void)arg;
	if (attr_i(n, "block_size", 0)) return onnx_not_ours(c, "quantisation by blocks");
	return out_(c, n, 0, dequantised(c, n, 0));
}

/* round(x / scale) + zero, saturated by the cast. */
static cx_tensor quantised(
	onnx_ctx *c, const onnx_node *n, cx_tensor x, cx_tensor scale, cx_tensor zero)
{
	cx_tensor y = cx_round(
		c->g, cx_div(c->g, cast_(c, x, CX_F32), along_axis(c, cast_(c, scale, CX_F32), x, n)));
	if (cx_is_none(zero)) return cast_(c, y, CX_U8);
	return cast_(c, cx_add(c->g, y, along_axis(c, cast_(c, zero, CX_F32), x, n)), dtype_(c, zero));
}

static bool quantise(onnx_ctx *c, const onnx_node *n, int arg)
{
	cx_tensor zero = in_(c, n, 2);
	(void)arg;
	if (attr_i(n, "block_size", 0)) return onnx_not_ours(c, "quantisation by blocks");
	if (attr_i(n, "output_dtype", 0) > 3 ||
		(!cx_is_none(zero) && dtype_(c, zero) != CX_U8 && dtype_(c, zero) != CX_I8))
		return onnx_not_ours(c, "element type (f8, f4, 4-bit, 2-bit, string)");
	return out_(c, n, 0, quantised(c, n, in_(c, n, 0), in_(c, n, 1), zero));
}

static bool qlinear_matmul(onnx_ctx *c, const onnx_node *n, int arg)
{
	cx_tensor y = product(c, dequantised(c, n, 0), dequantised(c, n, 3));
	(void)arg;
	return out_(c, n, 0, quantised(c, n, y, in_(c, n, 6), in_(c, n, 7)));
}

static bool matmul_integer(onnx_ctx *c, const onnx_node *n, int arg)
{
	cx_tensor x[2];
	(void)arg;
	for (size_t i = 0; i < 2; i++) {
		x[i] = cast_(c, in_(c, n, i), CX_F32);
		if (has_in(n, 2 + i)) x[i] = cx_sub(c->g, x[i], cast_(c, in_(c, n, 2 + i), CX_F32));
	}
	return out_(c, n, 0, cast_(c, product(c, x[0], x[1]), CX_I32));
}

/* ---- norms ---- */

/* The axes from `axis` on joined, the others joined before them. */
static cx_list two_axes(const cx_list *d, int64_t axis)
{
	cx_list flat = {.n = 2, .v = {1, 1}};
	for (int32_t i = 0; i < d->n; i++) flat.v[i >= axis] *= d->v[i];
	return flat;
}

/* Weight or bias of a norm, as one row of `cols`. */
static cx_tensor norm_row(onnx_ctx *c, cx_tensor w, int64_t cols)
{
	cx_shape s = shape_(c, w);
	if (cx_is_none(w)) return w;
	if (cx_shape_elems(&s) == 1) return expand_(c, reshape_(c, w, DIMS_(1)), DIMS_(cols));
	return reshape_(c, w, DIMS_(-1));
}

static bool norm(onnx_ctx *c, const onnx_node *n, int op)
{
	cx_graph *g = c->g;
	cx_tensor x = in_(c, n, 0), in[3], mean, var;
	cx_list d = dims_of(c, x), flat, stat = d;
	int64_t axis = axis_of(attr_i(n, "axis", -1), d.n);
	cx_attr_norm at = {.eps = attr_f(n, "epsilon", 1e-5f)};
	flat = two_axes(&d, axis);
	in[0] = reshape_(c, x, flat);
	in[1] = norm_row(c, in_(c, n, 1), flat.v[1]);
	in[2] = norm_row(c, in_(c, n, 2), flat.v[1]);
	out_(
		c, n, 0, reshape_(c, cx_node_add(g, (cx_op)op, in, op == CX_OP_layernorm ? 3 : 2, &at), d));
	if (!has_out(n, 1) && !has_out(n, 2)) return true;
	for (int32_t i = (int32_t)axis; i < d.n; i++) stat.v[i] = 1;
	mean = reduce_(c, CX_OP_mean, in[0], DIMS_(1), true);
	var = cx_sub(g, in[0], mean);
	var = reduce_(c, CX_OP_mean, cx_mul(g, var, var), DIMS_(1), true);
	out_(c, n, 1, reshape_(c, mean, stat));
	return out_(c, n, 2, reshape_(c, cx_rsqrt(g, cx_add(g, var, like(c, var, at.eps))), stat));
}

/* InstanceNormalization is one group per channel. */
static bool group_norm(onnx_ctx *c, const onnx_node *n, int instance)
{
	cx_tensor x = in_(c, n, 0);
	int64_t channels = shape_(c, x).dim[1];
	cx_attr_groupnorm at = {.groups = instance ? channels : attr_i(n, "num_groups", 1),
		.eps = attr_f(n, "epsilon", 1e-5f)};
	return out_(c, n, 0, cx_groupnorm(c->g, x, in_(c, n, 1), in_(c, n, 2), &at));
}

static bool batch_norm(onnx_ctx *c, const onnx_node *n, int arg)
{
	cx_graph *g = c->g;
	cx_tensor x = in_(c, n, 0), p[4];
	cx_list d = {.n = shape_(c, x).rank - 1};
	(void)arg;
	if (attr_i(n, "training_mode", 0)) return onnx_not_ours(c, "training mode");
	for (int32_t i = 0; i < d.n; i++) d.v[i] = i ? 1 : shape_(c, x).dim[1];
	for (size_t i = 0; i < 4; i++)
		p[i] = reshape_(c, in_(c, n, 1 + i), d); /* scale, bias, mean, variance */
	x = cx_mul(g, cx_sub(g, x, p[2]),
		cx_rsqrt(g, cx_add(g, p[3], like(c, x, attr_f(n, "epsilon", 1e-5f)))));
	return out_(c, n, 0, cx_add(g, cx_mul(g, x, p[0]), p[1]));
}

static bool lp_norm(onnx_ctx *c, const onnx_node *n, int arg)
{
	cx_tensor x = in_(c, n, 0), s;
	int64_t axis = axis_of(attr_i(n, "axis", -1), shape_(c, x).rank), p = attr_i(n, "p", 2);
	(void)arg;
	if (p == 2 && axis == shape_(c, x).rank - 1)
		return out_(c, n, 0, cx_l2norm(c->g, x, &(cx_attr_norm){.eps = 0}));
	s = reduce_(c, CX_OP_sum, p == 2 ? cx_mul(c->g, x, x) : cx_abs(c->g, x), DIMS_(axis), true);
	return out_(c, n, 0, cx_div(c->g, x, p == 2 ? cx_sqrt(c->g, s) : s));
}

/* GlobalAveragePool and GlobalMaxPool reduce all but the first two axes. */
static bool global_pool(onnx_ctx *c, const onnx_node *n, int op)
{
	cx_tensor x = in_(c, n, 0);
	cx_list axes = {0};
	for (int32_t i = 2; i < shape_(c, x).rank; i++) axes.v[axes.n++] = i;
	return out_(c, n, 0, reduce_(c, (cx_op)op, x, axes, true));
}

/* ---- rotary embedding ---- */

static bool rotary(onnx_ctx *c, const onnx_node *n, int arg)
{
	cx_tensor x = in_(c, n, 0), cosine = in_(c, n, 1), sine = in_(c, n, 2), pos = in_(c, n, 3);
	cx_list d = dims_of(c, x), dc = dims_of(c, cosine);
	int64_t heads = attr_i(n, "num_heads", 0), batch = d.v[0], steps = d.n == 4 ? d.v[2] : d.v[1];
	cx_attr_rope at = {.n_rot = attr_i(n, "rotary_embedding_dim", 0),
		.amplitude = 1,
		.pairs = attr_i(n, "interleaved", 0)};
	(void)arg;
	x = d.n == 4 ? perm_(c, x, DIMS_(0, 2, 1, 3))
				 : reshape_(c, x, DIMS_(batch, steps, heads, d.v[2] / heads));
	if (cx_is_none(pos)) { /* a table row per token */
		pos = cx_iota(
			c->g, &(cx_attr_iota){.dims = DIMS_(batch * steps), .dtype = CX_I32, .step = 1});
		cosine = reshape_(c, cosine, DIMS_(batch * steps, dc.v[dc.n - 1]));
		sine = reshape_(c, sine, DIMS_(batch * steps, dc.v[dc.n - 1]));
	}
	pos = reshape_(c, cast_(c, pos, CX_I32), DIMS_(batch, steps));
	x = cx_rope(c->g, x, pos, CX_NONE, cast_(c, cosine, CX_F32), cast_(c, sine, CX_F32), &at);
	return out_(c, n, 0, d.n == 4 ? perm_(c, x, DIMS_(0, 2, 1, 3)) : reshape_(c, x, d));
}

/* ---- attention ---- */

/* Everything about one Attention node; q, k, v are [B,H,T,d]. */
typedef struct attn {
	cx_tensor q, k, v, mask, bias;
	int64_t batch, heads, kv_heads, n_q, n_k, past;
	float scale;
} attn;

static cx_tensor split_heads(onnx_ctx *c, cx_tensor x, int64_t heads)
{
	cx_list d = dims_of(c, x);
	if (d.n == 4) return x;
	return perm_(
		c, reshape_(c, x, DIMS_(d.v[0], d.v[1], heads, d.v[2] / heads)), DIMS_(0, 2, 1, 3));
}

/* What may be seen by causality and by length, as [B,1,T,S]; ONNX aligns a causal mask at the top
 * left, plus what is in the cache: query i sees keys up to i + past, or, where lengths are given, i
 * + length - T. */
static cx_tensor allowed(onnx_ctx *c, const attn *a, bool causal, const int64_t *len)
{
	int64_t n = a->batch * a->n_q * a->n_k, *see = malloc((size_t)(n + 1) * 8);
	cx_tensor t;
	for (int64_t b = 0, i = 0; b < a->batch; b++)
		for (int64_t q = 0; q < a->n_q; q++)
			for (int64_t k = 0; k < a->n_k; k++, i++)
				see[i] =
					(!causal || k <= q + (len ? len[b] - a->n_q : a->past)) && (!len || k < len[b]);
	t = int_const(c, CX_BOOL, DIMS_(a->batch, 1, a->n_q, a->n_k), see);
	free(see);
	return t;
}

/* A mask that is shorter than the keys sees nothing of the rest. */
static cx_tensor pad_mask(onnx_ctx *c, const attn *a, cx_tensor mask)
{
	cx_list d = dims_of(c, mask);
	cx_attr_pad at = {
		.before.n = d.n, .after.n = d.n, .value = dtype_(c, mask) == CX_BOOL ? 0 : -INFINITY};
	at.after.v[d.n - 1] = a->n_k - d.v[d.n - 1];
	return at.after.v[d.n - 1] > 0 ? cx_pad(c->g, mask, &at) : mask;
}

static void masks(onnx_ctx *c, const onnx_node *n, attn *a)
{
	cx_tensor mask = in_(c, n, 3);
	int64_t len[64];
	bool causal = attr_i(n, "is_causal", 0),
		 lengths = has_in(n, 6) && host_ints(c, in_(c, n, 6), len, 64) <= 64;
	a->mask = a->bias = CX_NONE;
	if (causal || lengths) a->mask = allowed(c, a, causal, lengths ? len : NULL);
	if (cx_is_none(mask)) return;
	mask = pad_mask(c, a, mask);
	if (dtype_(c, mask) != CX_BOOL) a->bias = cast_(c, mask, CX_F32);
	else a->mask = cx_is_none(a->mask) ? mask : cx_and(c->g, a->mask, mask);
}

/* Step by step, for softcap and for the scores as an output. */
static cx_tensor composed(onnx_ctx *c, const onnx_node *n, const attn *a)
{
	cx_graph *g = c->g;
	int64_t group = a->heads / a->kv_heads, mode = attr_i(n, "qk_matmul_output_mode", 0),
			d = shape_(c, a->q).dim[3];
	int64_t dv = shape_(c, a->v).dim[3];
	cx_dtype t = dtype_(c, a->q);
	cx_tensor q = reshape_(c, a->q, DIMS_(a->batch, a->kv_heads, group, a->n_q, d));
	cx_tensor k = reshape_(c, a->k, DIMS_(a->batch, a->kv_heads, 1, a->n_k, d));
	cx_tensor v = reshape_(c, a->v, DIMS_(a->batch, a->kv_heads, 1, a->n_k, dv)), s, stage[4],
			  nothing;
	float cap = attr_f(n, "softcap", 0);
	s = cast_(c, cx_matmul(g, q, k, &(cx_attr_matmul){.trans_b = true}), CX_F32);
	s = cx_mul(
		g, reshape_(c, s, DIMS_(a->batch, a->heads, a->n_q, a->n_k)), scalar(c, CX_F32, a->scale));
	stage[0] = s;
	if (cap != 0)
		s = cx_mul(g, cx_tanh(g, cx_div(g, s, scalar(c, CX_F32, cap))), scalar(c, CX_F32, cap));
	stage[1] = s;
	nothing = scalar(c, CX_F32, -INFINITY);
	if (!cx_is_none(a->mask)) s = cx_where(g, a->mask, s, nothing);
	if (!cx_is_none(a->bias)) s = cx_add(g, s, a->bias);
	stage[2] = s;
	s = cx_softmax(g, s, NULL);
	s = cx_where(g, cx_ne(g, s, s), scalar(c, CX_F32, 0), s); /* a row that sees nothing */
	stage[3] = s;
	out_(c, n, 3, cast_(c, stage[mode & 3], t));
	s = reshape_(c, cast_(c, s, t), DIMS_(a->batch, a->kv_heads, group, a->n_q, a->n_k));
	return reshape_(c, cx_matmul(g, s, v, NULL), DIMS_(a->batch, a->heads, a->n_q, dv));
}

static cx_tensor direct(onnx_ctx *c, const attn *a)
{
	cx_list swap = DIMS_(0, 2, 1, 3);
	cx_attr_attention at = {.scale = a->scale};
	cx_tensor y = cx_attention(c->g, perm_(c, a->q, swap), perm_(c, a->k, swap),
		perm_(c, a->v, swap), CX_NONE, CX_NONE, a->mask, a->bias, &at);
	return perm_(c, y, swap);
}

static bool attention(onnx_ctx *c, const onnx_node *n, int arg)
{
	cx_tensor q = in_(c, n, 0), y;
	cx_list d = dims_of(c, q);
	attn a = {.batch = d.v[0]};
	(void)arg;
	a.heads = d.n == 4 ? d.v[1] : attr_i(n, "q_num_heads", 1);
	a.kv_heads = d.n == 4 ? shape_(c, in_(c, n, 1)).dim[1] : attr_i(n, "kv_num_heads", 1);
	a.q = split_heads(c, q, a.heads);
	a.k = split_heads(c, in_(c, n, 1), a.kv_heads);
	a.v = split_heads(c, in_(c, n, 2), a.kv_heads);
	if (has_in(n, 4)) {
		a.past = shape_(c, in_(c, n, 4)).dim[2];
		a.k = cx_concat(c->g, ((cx_tensor[]){in_(c, n, 4), a.k}), 2, &(cx_attr_axis){.axis = 2});
		a.v = cx_concat(c->g, ((cx_tensor[]){in_(c, n, 5), a.v}), 2, &(cx_attr_axis){.axis = 2});
	}
	a.n_q = shape_(c, a.q).dim[2];
	a.n_k = shape_(c, a.k).dim[2];
	a.scale = attr_f(n, "scale", 1 / sqrtf((float)shape_(c, a.q).dim[3]));
	masks(c, n, &a);
	y = attr_f(n, "softcap", 0) != 0 || has_out(n, 3) ? composed(c, n, &a) : direct(c, &a);
	out_(c, n, 1, a.k);
	out_(c, n, 2, a.v);
	return out_(c, n, 0,
		d.n == 4 ? y : reshape_(c, perm_(c, y, DIMS_(0, 2, 1, 3)), DIMS_(d.v[0], d.v[1], -1)));
}

const onnx_row onnx_rows_nn[] = {
	{"MatMul", matmul, 0},
	{"Gemm", gemm, 0},
	{"MatMulInteger", matmul_integer, 0},
	{"QLinearMatMul", qlinear_matmul, 0},
	{"QuantizeLinear", quantise, 0},
	{"DequantizeLinear", dequantise, 0},
	{"LayerNormalization", norm, CX_OP_layernorm},
	{"RMSNormalization", norm, CX_OP_rmsnorm},
	{"GroupNormalization", group_norm, 0},
	{"InstanceNormalization", group_norm, 1},
	{"BatchNormalization", batch_norm, 0},
	{"LpNormalization", lp_norm, 0},
	{"GlobalAveragePool", global_pool, CX_OP_mean},
	{"GlobalMaxPool", global_pool, CX_OP_amax},
	{"RotaryEmbedding", rotary, 0},
	{"Attention", attention, 0},
	{NULL, NULL, 0},
};
