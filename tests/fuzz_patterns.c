/* fuzz_patterns.c - the chains that the planner fuses, as models write them, with and without
 * readers from outside. They stand in random surroundings: operands come from what exists, results
 * may be read by what follows. */
#include "tests/fuzz_ops.h"

#include <math.h>

/* An inner value gets another reader, one time in four: the fusion must keep it. */
static cx_tensor peek(cx_rgen *r, cx_tensor t)
{
	if (chance(r, 4)) cx__rg_range(r, cx_neg(r->g, t), -1e3f, 1e3f);
	return t;
}

static cx_tensor pattern_norm(cx_rgen *r, cx_tensor x)
{
	cx_desc d = *cx__rg_desc(r, x);
	cx_attr_norm a = {1e-3f, false, 0};
	cx_tensor w =
		chance(r, 4) ? CX_NONE : sized(r, side_dtype(r, d.dtype), -1, 1, DIMS(d.dim[d.rank - 1]));
	cx_tensor b =
		chance(r, 2) ? CX_NONE : sized(r, side_dtype(r, d.dtype), -1, 1, DIMS(d.dim[d.rank - 1]));
	if (chance(r, 2)) x = cx_layernorm(r->g, x, w, b, &a);
	else x = cx_rmsnorm(r->g, x, w, &a);
	return peek(r, cx__rg_range(r, x, -20, 20));
}

static cx_tensor product(cx_rgen *r, cx_tensor x, int64_t n)
{
	cx_desc d = *cx__rg_desc(r, x);
	int64_t k = d.dim[d.rank - 1];
	cx_attr_matmul a = {.trans_b = true};
	cx_tensor w = cx__rg_weight(r, n, k);
	if (cx__rg_desc(r, w)->dtype == CX_I8C && chance(r, 2)) a.act_scale = 0.0131f;
	x = cx_matmul(r->g, x, w, &a);
	return peek(r, cx__rg_range(r, x, -10 * (float)k, 10 * (float)k));
}

static cx_tensor with_bias(cx_rgen *r, cx_tensor x)
{
	cx_desc d = *cx__rg_desc(r, x);
	if (chance(r, 2)) return x;
	x = cx_add(r->g, x, sized(r, (int)d.dtype, -1, 1, DIMS(d.dim[d.rank - 1])));
	return peek(r, cx__rg_range(r, x, -1e3f, 1e3f));
}

static cx_tensor activation(cx_rgen *r, cx_tensor x)
{
	static const cx_op ops[] = {
		CX_OP_silu, CX_OP_gelu, CX_OP_gelu_tanh, CX_OP_relu, CX_OP_tanh, CX_OP_sigmoid};
	x = cx_node_add(r->g, ops[pick_int(r, 0, 5)], &x, 1, NULL);
	return peek(r, cx__rg_range(r, x, -1e3f, 1e3f));
}

static cx_tensor hidden(cx_rgen *r, int64_t *k)
{
	*k = chance(r, 3) ? 256 : chance(r, 2) ? 32 : cx__rg_size(r);
	return sized(r, CX_WANT_FLOAT, -1, 1, DIMS(pick_int(r, 1, 4), *k));
}

static void residual(cx_rgen *r, cx_tensor y, cx_tensor x)
{
	cx_shape a = cx_tensor_shape(r->g, x), b = cx_tensor_shape(r->g, y);
	if (chance(r, 3) || !cx_shape_equal(&a, &b) ||
		cx_tensor_dtype(r->g, x) != cx_tensor_dtype(r->g, y))
		return;
	cx__rg_range(r, chance(r, 2) ? cx_add(r->g, x, y) : cx_add(r->g, y, x), -1e3f, 1e3f);
}

static void norm_linear(cx_rgen *r)
{
	int64_t k;
	cx_tensor x = hidden(r, &k), y = x;
	if (chance(r, 2)) y = pattern_norm(r, y);
	y = with_bias(r, product(r, y, k));
	if (chance(r, 2)) y = activation(r, y);
	residual(r, y, x);
}

static void swiglu(cx_rgen *r)
{
	int64_t k, n = cx__rg_size(r);
	cx_tensor x = hidden(r, &k), h = chance(r, 3) ? x : pattern_norm(r, x);
	cx_tensor gate = with_bias(r, product(r, h, n)), up = with_bias(r, product(r, h, n)), y;
	gate = activation(r, gate);
	y = peek(r, cx__rg_range(r, chance(r, 2) ? cx_mul(r->g, gate, up) : cx_mul(r->g, up, gate),
					-1e6f, 1e6f));
	if (chance(r, 2)) residual(r, product(r, y, k), x);
}

static void qkv(cx_rgen *r)
{
	int64_t k;
	cx_tensor x = hidden(r, &k), h = chance(r, 3) ? x : pattern_norm(r, x);
	int n = (int)pick_int(r, 2, 4);
	for (int i = 0; i < n; i++) with_bias(r, product(r, h, cx__rg_size(r)));
}

/* Keys and values into a cache, then attention over it. */
static void rope_cache(cx_rgen *r)
{
	int64_t t = pick_int(r, 1, 5), hk = pick_int(r, 1, 2), d = 2 * pick_int(r, 1, 4),
			slots = t + pick_int(r, 0, 6);
	cx_op kind = r->rg->opts.no_states ? CX_OP_input : CX_OP_state;
	cx_dtype f = cx__rg_dtype(r, CX_WANT_FLOAT),
			 c = chance(r, 2) ? f : cx__rg_dtype(r, CX_WANT_FLOAT);
	cx_attr_rope a = cx_attr_rope_default();
	cx_attr_cast to = {c, 0};
	cx_attr_scatter set = {0};
	cx_attr_attention att = cx_attr_attention_default();
	cx_tensor k = sized(r, (int)f, -2, 2, DIMS(t, hk, d)),
			  v = sized(r, (int)f, -2, 2, DIMS(t, hk, d)), q;
	cx_tensor pos = cx__rg_leaf(r, CX_OP_input, CX_I32, 1, &t, (cx_fill){.lo = 0, .hi = 40});
	cx_tensor slot = cx__rg_index(r, CX_FILL_SLOTS, t, slots);
	cx_tensor kc = cx__rg_leaf(r, kind, c, DIMS(slots, hk, d), (cx_fill){.lo = -2, .hi = 2});
	cx_tensor vc = cx__rg_leaf(r, kind, c, DIMS(slots, hk, d), (cx_fill){.lo = -2, .hi = 2});
	a.pairs = chance(r, 2);
	k = peek(r, cx__rg_range(r, cx_rope(r->g, k, pos, CX_NONE, CX_NONE, CX_NONE, &a), -4, 4));
	if (c != f) k = cx__rg_range(r, cx_cast(r->g, k, &to), -4, 4);
	if (c != f) v = cx__rg_range(r, cx_cast(r->g, v, &to), -2, 2);
	kc = cx__rg_range(r, cx_scatter(r->g, kc, slot, k, &set), -4, 4);
	vc = cx__rg_range(r, cx_scatter(r->g, vc, slot, v, &set), -2, 2);
	if (chance(r, 4)) return;
	q = sized(r, CX_WANT_FLOAT, -2, 2, DIMS(t, hk * pick_int(r, 1, 2), d));
	if (chance(r, 2))
		q = cx__rg_range(r, cx_rope(r->g, q, pos, CX_NONE, CX_NONE, CX_NONE, &a), -4, 4);
	att.causal = chance(r, 2);
	q = cx_attention(r->g, q, kc, vc, CX_NONE, CX_NONE, CX_NONE, CX_NONE, &att);
	cx__rg_range(r, q, -2.1f, 2.1f);
}

static void add_norm(cx_rgen *r)
{
	int64_t k;
	cx_tensor a = hidden(r, &k), s;
	cx_desc d = *cx__rg_desc(r, a);
	s = cx__rg_range(r, cx_add(r->g, a, sized(r, (int)d.dtype, -1, 1, d.rank, d.dim)), -2, 2);
	pattern_norm(r, s);
	if (chance(r, 2)) cx__rg_range(r, cx_silu(r->g, s), -1, 2);
}

/* A chain of elementwise ops, some of them with a second operand, and sometimes a reduction at its
 * end. */
static void chain(cx_rgen *r)
{
	static const cx_op one[] = {CX_OP_neg, CX_OP_abs, CX_OP_tanh, CX_OP_sigmoid, CX_OP_silu,
		CX_OP_relu, CX_OP_cos, CX_OP_gelu};
	static const cx_op two[] = {CX_OP_add, CX_OP_sub, CX_OP_mul, CX_OP_min, CX_OP_max};
	static const cx_op ends[] = {CX_OP_sum, CX_OP_mean, CX_OP_amax, CX_OP_amin};
	cx_tensor x = rows(r, CX_WANT_FLOAT, 1, -2, 2), first = x;
	cx_desc d = *cx__rg_desc(r, x);
	int n = (int)pick_int(r, 2, 10);
	float big = 2;
	for (int i = 0; i < n; i++) {
		cx_op op;
		if (big > 30 || chance(r, 2)) {
			op = big > 30 ? CX_OP_tanh : one[pick_int(r, 0, 7)];
			x = cx_node_add(r->g, op, &x, 1, NULL);
			if (op == CX_OP_tanh || op == CX_OP_cos || op == CX_OP_sigmoid) big = 1;
		} else {
			cx_tensor y = chance(r, 3) ? first : sized(r, (int)d.dtype, -2, 2, d.rank, d.dim);
			op = two[pick_int(r, 0, 4)];
			x = cx_node_add(
				r->g, op, chance(r, 2) ? (cx_tensor[]){x, y} : (cx_tensor[]){y, x}, 2, NULL);
			big = op == CX_OP_mul ? 2 * big : big + 2;
		}
		cx__rg_range(r, x, -big, big);
		if (chance(r, 3)) peek(r, x);
	}
	if (chance(r, 2)) {
		cx_attr_reduce a = {.axes = cx_list_of(1, -1), .keep = chance(r, 2)};
		big *= (float)d.dim[d.rank - 1];
		cx__rg_range(r, cx_node_add(r->g, ends[pick_int(r, 0, 3)], &x, 1, &a), -big, big);
	}
}

/* softmax(scale q.k' + mask) v, spelled with matmuls. */
static void spelled_attention(cx_rgen *r)
{
	int64_t b = pick_int(r, 1, 2), h = pick_int(r, 1, 3), t = pick_int(r, 1, 5),
			s = pick_int(r, 1, 6), d = pick_int(r, 1, 6);
	cx_dtype f = cx__rg_dtype(r, CX_WANT_FLOAT);
	cx_attr_matmul qk = {false, true, 0}, pv = {0};
	cx_attr_softmax sm = {-1, 1, 0};
	cx_tensor q = sized(r, (int)f, -1, 1, DIMS(b, h, t, d)),
			  k = sized(r, (int)f, -1, 1, DIMS(b, h, s, d));
	cx_tensor v = sized(r, (int)f, -2, 2, DIMS(b, h, s, d)), p;
	p = peek(r, cx__rg_range(r, cx_matmul(r->g, q, k, &qk), -(float)d, (float)d));
	if (chance(r, 2)) {
		cx_attr_cast to = {f, 0};
		p = cx_mul(r->g, p, cx_cast(r->g, cx_const_f32(r->g, 1 / sqrtf((float)d)), &to));
		cx__rg_range(r, p, -(float)d, (float)d);
	} else {
		sm.scale = 1 / sqrtf((float)d);
	}
	if (chance(r, 3))
		p = cx__rg_range(r, cx_add(r->g, p, sized(r, (int)f, -2, 2, DIMS(t, s))), -8, 8);
	p = peek(r, cx__rg_range(r, cx_softmax(r->g, p, &sm), 0, 1));
	cx__rg_range(r, cx_matmul(r->g, p, v, &pv), -2.1f, 2.1f);
}

/* The spike tokenizer, spelled with gathers. */
static void gather_sum(cx_rgen *r)
{
	int64_t d = cx__rg_size(r), e = cx__rg_size(r);
	cx_dtype f = cx__rg_dtype(r, CX_WANT_FLOAT);
	cx_attr_axis a = {0};
	int n = (int)pick_int(r, 2, 4);
	cx_tensor y = CX_NONE;
	for (int i = 0; i < n; i++) {
		int64_t rows_ = cx__rg_size(r);
		cx_tensor x = cx_gather(r->g, sized(r, (int)f, -2, 2, DIMS(rows_, d)),
			cx__rg_index(r, CX_FILL_INDEX, e, rows_), &a);
		cx__rg_range(r, x, -2, 2);
		y = i ? cx__rg_range(r, cx_add(r->g, y, x), -2 * (float)(i + 1), 2 * (float)(i + 1)) : x;
		peek(r, y);
	}
}

static void conv_silu(cx_rgen *r)
{
	cx_tensor y = cx__fuzz_conv1d(r, CX_OP_conv1d);
	cx__rg_range(r, cx_silu(r->g, peek(r, y)), -1, 11);
}

static void scaled_softmax(cx_rgen *r)
{
	cx_tensor x = rows(r, CX_WANT_FLOAT, 1, -4, 4);
	cx_attr_cast to = {cx__rg_desc(r, x)->dtype, 0};
	cx_attr_softmax a = {-1, 1, 0};
	x = cx_mul(r->g, x, cx_cast(r->g, cx_const_f32(r->g, 0.5f), &to));
	cx__rg_range(r, cx_softmax(r->g, peek(r, cx__rg_range(r, x, -2, 2)), &a), 0, 1);
}

void cx__fuzz_pattern(cx_rgen *r)
{
	static void (*const patterns[])(cx_rgen *) = {norm_linear, norm_linear, swiglu, qkv, rope_cache,
		add_norm, chain, chain, spelled_attention, gather_sum, conv_silu, scaled_softmax};
	patterns[pick_int(r, 0, (int64_t)(sizeof patterns / sizeof patterns[0]) - 1)](r);
}
