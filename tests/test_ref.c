/* test_ref.c - the reference op by op: NaN rules, ties, empty dims, integers, casts, reductions,
 * moves, losses, random numbers, map programs, and the evaluator itself (states, lifetimes,
 * allocation failures). Sequences are in test_ref_seq.c. Wanted values are written out, or come
 * from plain C here. */
#include "tests/ref_run.h"

#include "backends/ref/ref.h"
#include "graph/quant.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define AXES(...) (&(cx_attr_reduce){.axes = DIMS_(__VA_ARGS__)})
static const double inf = INFINITY, nan_ = NAN;

static cx_tensor vec(ref_run *r, int64_t n, const double *v)
{
	return ref_run_in(r, CX_F32, DIMS_(n), v);
}
static cx_tensor ints(ref_run *r, cx_dtype t, int64_t n, const double *v)
{
	return ref_run_in(r, t, DIMS_(n), v);
}

/* ---- elementwise ---- */

/* Each op of one operand, on numbers of every sort, against the C library. */
static void test_unary(void **state)
{
	static const double x[] = {
		0, -0.0, 1, -1, 0.5, -2.5, 3.5, 20.5, -30, 1e-30, INFINITY, -INFINITY, NAN};
	enum { N = sizeof x / sizeof x[0] };
	static const struct {
		cx_op op;
		double (*f)(double);
	} plain[] = {
		{CX_OP_exp, exp},
		{CX_OP_log, log},
		{CX_OP_sqrt, sqrt},
		{CX_OP_sin, sin},
		{CX_OP_cos, cos},
		{CX_OP_tanh, tanh},
		{CX_OP_erf, erf},
		{CX_OP_floor, floor},
		{CX_OP_ceil, ceil},
		{CX_OP_round, rint},
		{CX_OP_abs, fabs},
	};
	ref_run r;
	cx_tensor in, t[16], sig, soft, sign, relu, gelu, gelu_tanh, clamp;
	(void)state;
	ref_run_start(&r);
	in = vec(&r, N, x);
	for (size_t i = 0; i < sizeof plain / sizeof plain[0]; i++)
		t[i] = cx_node_add(r.g, plain[i].op, &in, 1, NULL);
	sig = cx_sigmoid(r.g, in);
	soft = cx_softplus(r.g, in);
	sign = cx_sign(r.g, in);
	relu = cx_relu(r.g, in);
	gelu = cx_gelu(r.g, in);
	gelu_tanh = cx_gelu_tanh(r.g, in);
	clamp = cx_clamp(r.g, in, &(cx_attr_clamp){.lo = -1.5f, .hi = 2});
	ref_run_eval(&r);
	for (size_t i = 0; i < sizeof plain / sizeof plain[0]; i++)
		for (int j = 0; j < N; j++) {
			double want = (float)plain[i].f((float)x[j]), got = ref_run_get(&r, t[i], j);
			if (!is_close(want, got, 0, 0))
				fail_msg("%s(%g): %g, not %g", cx__ops[plain[i].op].name, x[j], got, want);
		}
	for (int j = 0; j < N; j++) {
		double v = (float)x[j], g = isinf(v) && v < 0 ? NAN : 0.5 * v * (1 + erf(v / sqrt(2)));
		assert_true(is_close((float)(1 / (1 + exp(-v))), ref_run_get(&r, sig, j), 0, 0));
		assert_true(is_close((float)(v > 20 ? v : log1p(exp(v))), ref_run_get(&r, soft, j), 0, 0));
		assert_true(is_close(v > 0 ? 1 : v < 0 ? -1 : v, ref_run_get(&r, sign, j), 0, 0));
		assert_true(is_close(v < 0 ? 0 : v, ref_run_get(&r, relu, j), 0, 0));
		assert_true(is_close(v < -1.5 ? -1.5 : v > 2 ? 2 : v, ref_run_get(&r, clamp, j), 0, 0));
		assert_true(is_close(g, ref_run_get(&r, gelu, j), 1e-6, 1e-35));
		if (isfinite(v)) assert_true(is_close(g, ref_run_get(&r, gelu_tanh, j), 1e-2, 1e-3));
	}
	ref_run_end(&r);
}

/* NaN wins in min, max and arithmetic, loses every comparison but !=; division by zero is IEEE's.
 */
static void test_binary_nan(void **state)
{
	ref_run r;
	cx_tensor a, b, t[12];
	(void)state;
	ref_run_start(&r);
	a = vec(&r, 6, NUMS(1, nan_, 3, 0, inf, -1));
	b = vec(&r, 6, NUMS(nan_, 2, 4, 0, -inf, 0));
	t[0] = cx_min(r.g, a, b);
	t[1] = cx_max(r.g, a, b);
	t[2] = cx_add(r.g, a, b);
	t[3] = cx_div(r.g, a, b);
	t[4] = cx_pow(r.g, a, b);
	t[5] = cx_eq(r.g, a, b);
	t[6] = cx_ne(r.g, a, b);
	t[7] = cx_lt(r.g, a, b);
	t[8] = cx_ge(r.g, a, b);
	t[9] = cx_where(r.g, t[7], a, b);
	ref_run_eval(&r);
	EXPECT(&r, t[0], 0, nan_, nan_, 3, 0, -inf, -1);
	EXPECT(&r, t[1], 0, nan_, nan_, 4, 0, inf, 0);
	EXPECT(&r, t[2], 0, nan_, nan_, 7, 0, nan_, -1);
	EXPECT(&r, t[3], 0, nan_, nan_, 0.75, nan_, nan_, -inf);
	EXPECT(&r, t[4], 0, 1, nan_, 81, 1, 0, 1); /* pow(1, NaN) is 1, as C has it */
	EXPECT(&r, t[5], 0, 0, 0, 0, 1, 0, 0);
	EXPECT(&r, t[6], 0, 1, 1, 1, 0, 1, 1);
	EXPECT(&r, t[7], 0, 0, 0, 1, 0, 0, 1);
	EXPECT(&r, t[8], 0, 0, 0, 0, 1, 1, 0);
	EXPECT(&r, t[9], 0, nan_, 2, 3, 0, -inf, -1);
	ref_run_end(&r);
}

/* Integers wrap, divide towards zero, and x/0 is 0; at the ends of the range too. */
static void test_integers(void **state)
{
	static const int64_t big[3] = {INT64_MIN, INT64_MAX, INT64_MIN}, other[3] = {-1, 1, INT64_MIN};
	ref_run r;
	cx_tensor a, b, u, w, l, m, t[12];
	(void)state;
	ref_run_start(&r);
	a = ints(&r, CX_I32, 4, NUMS(7, -7, INT32_MAX, INT32_MIN));
	b = ints(&r, CX_I32, 4, NUMS(0, 2, 1, -1));
	u = ints(&r, CX_U8, 3, NUMS(250, 3, 0));
	w = ints(&r, CX_U8, 3, NUMS(10, 4, 1));
	l = ref_run_bytes(&r, false, CX_I64, DIMS_(3), big);
	m = ref_run_bytes(&r, false, CX_I64, DIMS_(3), other);
	t[0] = cx_div(r.g, a, b);
	t[1] = cx_add(r.g, a, b);
	t[2] = cx_neg(r.g, a);
	t[3] = cx_abs(r.g, a);
	t[4] = cx_add(r.g, u, w);
	t[5] = cx_sub(r.g, u, w);
	t[6] = cx_clamp(r.g, u, &(cx_attr_clamp){.lo = -5, .hi = 100.7f});
	t[7] = cx_sum(r.g, a, AXES(0));
	t[8] = cx_add(r.g, l, m);
	t[9] = cx_div(r.g, l, m);
	t[10] = cx_max(r.g, l, m);
	t[11] = cx_sign(r.g, a);
	ref_run_eval(&r);
	EXPECT(&r, t[0], 0, 0, -3, INT32_MAX, INT32_MIN);
	EXPECT(&r, t[1], 0, 7, -5, INT32_MIN, INT32_MAX);
	EXPECT(&r, t[2], 0, -7, 7, -INT32_MAX, INT32_MIN);
	EXPECT(&r, t[3], 0, 7, 7, INT32_MAX, INT32_MIN);
	EXPECT(&r, t[4], 0, 4, 7, 1);
	EXPECT(&r, t[5], 0, 240, 255, 255);
	EXPECT(&r, t[6], 0, 100, 3, 0);
	EXPECT(&r, t[7], 0, -1);
	EXPECT(&r, t[11], 0, 1, -1, 1, -1);
	assert_memory_equal(r.value[t[8].id], ((int64_t[]){INT64_MAX, INT64_MIN, 0}), 24);
	assert_memory_equal(r.value[t[9].id], ((int64_t[]){INT64_MIN, INT64_MAX, 1}), 24);
	assert_memory_equal(r.value[t[10].id], ((int64_t[]){-1, INT64_MAX, INT64_MIN}), 24);
	ref_run_end(&r);
}

/* ---- casts ---- */

static cx_tensor cast(ref_run *r, cx_tensor x, cx_dtype t)
{
	return cx_cast(r->g, x, &(cx_attr_cast){.dtype = t});
}

static void test_casts(void **state)
{
	ref_run r;
	cx_tensor f, t[8], h, i, l;
	(void)state;
	ref_run_start(&r);
	f = vec(&r, 10, NUMS(1.9, -1.9, 300, -300, 3e9, -3e9, inf, -inf, nan_, 0));
	t[0] = cast(&r, f, CX_I32);
	t[1] = cast(&r, f, CX_U8);
	t[2] = cast(&r, f, CX_I8);
	t[3] = cast(&r, f, CX_BOOL);
	t[4] = cast(&r, f, CX_I64);
	/* f16: half way cases to even, the smallest subnormal, overflow. */
	h = vec(&r, 8,
		NUMS(1 + 0x1p-11, 1 + 3 * 0x1p-11, 0x1p-24, 0x1p-25, 0x1.8p-25, 65519, 65520, -1e30));
	t[5] = cast(&r, h, CX_F16);
	i = ints(&r, CX_I32, 4, NUMS(257, -1, 16777217, 0));
	t[6] = cast(&r, i, CX_U8);
	t[7] = cast(&r, i, CX_F32);
	l = vec(&r, 5, NUMS(1 + 0x1p-8, 1 + 3 * 0x1p-8, nan_, 0x1.ffp127, 0x1p-133));
	l = cast(&r, l, CX_BF16);
	ref_run_eval(&r);
	EXPECT(&r, t[0], 0, 1, -1, 300, -300, INT32_MAX, INT32_MIN, INT32_MAX, INT32_MIN, 0, 0);
	EXPECT(&r, t[1], 0, 1, 0, 255, 0, 255, 0, 255, 0, 0, 0);
	EXPECT(&r, t[2], 0, 1, -1, 127, -128, 127, -128, 127, -128, 0, 0);
	EXPECT(&r, t[3], 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0);
	EXPECT(&r, t[4], 0, 1, -1, 300, -300, 3e9, -3e9);
	assert_true(((int64_t *)r.value[t[4].id])[6] == INT64_MAX &&
				((int64_t *)r.value[t[4].id])[7] == INT64_MIN);
	EXPECT(&r, t[5], 0, 1, 1 + 0x1p-9, 0x1p-24, 0, 0x1p-24, 65504, inf, -inf);
	EXPECT(&r, t[6], 0, 1, 255, 1, 0);
	EXPECT(&r, t[7], 0, 257, -1, 16777216, 0);
	EXPECT(&r, l, 0, 1, 1 + 0x1p-6, nan_, inf, 0x1p-133);
	ref_run_end(&r);
}

/* The reference rounds by the definition of the format, graph/quant.h by bit tricks: they must
 * agree everywhere. */
static void test_half_conversions(void **state)
{
	uint32_t seed = 1;
	float f;
	(void)state;
	for (uint32_t h = 0; h < 65536; h++) {
		uint16_t bits = (uint16_t)h;
		cx__ref_arg a = {.d = {.dtype = CX_F16}, .p = (unsigned char *)&bits};
		assert_true(is_close(cx_f16_to_f32(bits), cx__elem_get(&a, 0), 0, 0));
		a.d.dtype = CX_BF16;
		assert_true(is_close(cx_bf16_to_f32(bits), cx__elem_get(&a, 0), 0, 0));
	}
	for (int i = 0; i < 200000; i++) {
		uint16_t mine[2];
		cx__ref_arg a = {.d = {.dtype = CX_F16}, .p = (unsigned char *)mine};
		seed = seed * 1664525u + 1013904223u;
		memcpy(&f, &seed, 4);
		if (i % 2) f = ldexpf(f - truncf(f), (int)(seed >> 8) % 45 - 28); /* the range of f16 */
		if (isnan(f)) continue;
		cx__elem_put(&a, 0, f);
		a.d.dtype = CX_BF16;
		cx__elem_put(&a, 1, f);
		assert_int_equal(mine[0], cx_f32_to_f16(f));
		assert_int_equal(mine[1], cx_f32_to_bf16(f));
	}
}

/* ---- reductions and rows ---- */

static void test_reductions(void **state)
{
	ref_run r;
	cx_tensor x, n, e, i, t[12];
	(void)state;
	ref_run_start(&r);
	x = ref_run_in(&r, CX_F32, DIMS_(2, 3), NUMS(1, 5, 3, -2, -8, -1));
	n = ref_run_in(&r, CX_F32, DIMS_(2, 2), NUMS(1, nan_, 2, 3));
	e = ref_run_in(&r, CX_F32, DIMS_(2, 0), NULL);
	i = ref_run_in(&r, CX_I8, DIMS_(2, 0), NULL);
	t[0] = cx_sum(r.g, x, AXES(1));
	t[1] = cx_mean(r.g, x, NULL);
	t[2] = cx_amax(r.g, n, AXES(1));
	t[3] = cx_amin(r.g, n, AXES(0));
	t[4] = cx_sum(r.g, e, AXES(1));
	t[5] = cx_mean(r.g, e, AXES(1));
	t[6] = cx_amax(r.g, e, AXES(1));
	t[7] = cx_amin(r.g, e, AXES(1));
	t[8] = cx_amax(r.g, i, AXES(1));
	t[9] = cx_amin(r.g, i, AXES(1));
	t[10] = cx_amax(r.g, cx_permute(r.g, x, &(cx_attr_perm){.perm = DIMS_(1, 0)}), AXES(1));
	t[11] = cx_sum(r.g, e, AXES(0)); /* nothing to write */
	ref_run_eval(&r);
	EXPECT(&r, t[0], 0, 9, -11);
	assert_true(is_close(-2.0 / 6, ref_run_get(&r, t[1], 0), 1e-7, 0));
	EXPECT(&r, t[2], 0, nan_, 3);
	EXPECT(&r, t[3], 0, 1, nan_);
	EXPECT(&r, t[4], 0, 0, 0);
	EXPECT(&r, t[5], 0, nan_, nan_);
	EXPECT(&r, t[6], 0, -inf, -inf);
	EXPECT(&r, t[7], 0, inf, inf);
	EXPECT(&r, t[8], 0, -128, -128);
	EXPECT(&r, t[9], 0, 127, 127);
	EXPECT(&r, t[10], 0, 1, 5, 3);
	assert_int_equal(r.bytes[t[11].id], 0);
	ref_run_end(&r);
}

static void test_ties_and_order(void **state)
{
	ref_run r;
	cx_tensor x, n, k, s, a, b, cols;
	(void)state;
	ref_run_start(&r);
	x = ref_run_in(&r, CX_F32, DIMS_(1, 6), NUMS(2, 7, 7, -1, 7, -1));
	n = ref_run_in(&r, CX_F32, DIMS_(1, 5), NUMS(1, nan_, inf, nan_, -inf));
	k = cx_topk(r.g, x, &(cx_attr_topk){.k = 6, .axis = -1});
	s = cx_topk(r.g, x, &(cx_attr_topk){.k = 3, .axis = 1, .smallest = true});
	a = cx_topk(r.g, n, &(cx_attr_topk){.k = 5, .axis = 1});
	b = cx_argmax(r.g, n, &(cx_attr_arg){.axis = 1});
	cols = cx_topk(r.g, ref_run_in(&r, CX_I32, DIMS_(3, 2), NUMS(1, 9, 3, 8, 2, 9)),
		&(cx_attr_topk){.k = 2, .axis = 0});
	ref_run_eval(&r);
	EXPECT(&r, k, 0, 7, 7, 7, 2, -1, -1);
	EXPECT(&r, cx_out(r.g, k, 1), 0, 1, 2, 4, 0, 3, 5);
	EXPECT(&r, s, 0, -1, -1, 2);
	EXPECT(&r, cx_out(r.g, s, 1), 0, 3, 5, 0);
	EXPECT(&r, a, 0, nan_, nan_, inf, 1, -inf);
	EXPECT(&r, cx_out(r.g, a, 1), 0, 1, 3, 2, 0, 4);
	EXPECT(&r, b, 0, 1);
	EXPECT(&r, cols, 0, 3, 9, 2, 9);
	EXPECT(&r, cx_out(r.g, cols, 1), 0, 1, 0, 2, 2);
	ref_run_end(&r);
}

static void test_softmax(void **state)
{
	ref_run r;
	cx_tensor x, y, l, col, huge;
	double e = exp(1), total = 1 + e + exp(-1);
	(void)state;
	ref_run_start(&r);
	x = ref_run_in(
		&r, CX_F32, DIMS_(4, 3), NUMS(0, 2, -2, -inf, -inf, -inf, 0, -inf, -inf, 1, nan_, 2));
	y = cx_softmax(r.g, x, &(cx_attr_softmax){.axis = -1, .scale = 0.5f});
	l = cx_log_softmax(r.g, x, &(cx_attr_softmax){.axis = 1, .scale = 0.5f});
	col = cx_softmax(r.g, x, &(cx_attr_softmax){.axis = 0, .scale = 1});
	huge = cx_softmax(r.g, vec(&r, 2, NUMS(3e38, 3e38)), NULL);
	ref_run_eval(&r);
	EXPECT(&r, y, 1e-7, 1 / total, e / total, exp(-1) / total, nan_, nan_, nan_, 1, 0, 0, nan_,
		nan_, nan_);
	EXPECT(&r, l, 1e-7, -log(total), 1 - log(total), -1 - log(total), nan_, nan_, nan_, 0, -inf,
		-inf, nan_, nan_, nan_);
	assert_true(is_close(1 / (1 + 1 + e), ref_run_get(&r, col, 0), 1e-6, 0));
	EXPECT(&r, huge, 0, 0.5, 0.5);
	ref_run_end(&r);
}

static void test_cumsum(void **state)
{
	ref_run r;
	cx_tensor x, t[4];
	(void)state;
	ref_run_start(&r);
	x = vec(&r, 4, NUMS(1, 2, 3, 4));
	for (int i = 0; i < 4; i++)
		t[i] =
			cx_cumsum(r.g, x, &(cx_attr_cumsum){.axis = 0, .exclusive = i & 1, .reverse = i & 2});
	ref_run_eval(&r);
	EXPECT(&r, t[0], 0, 1, 3, 6, 10);
	EXPECT(&r, t[1], 0, 0, 1, 3, 6);
	EXPECT(&r, t[2], 0, 10, 9, 7, 4);
	EXPECT(&r, t[3], 0, 9, 7, 4, 0);
	ref_run_end(&r);
}

/* ---- products ---- */

/* All four layouts, broadcast leading axes, 16-bit operands, and a quantised right side. */
static void test_matmul(void **state)
{
	ref_run r;
	cx_tensor t[4], batch, half, q, empty;
	float w[64], deq[64];
	unsigned char blocks[2 * 34];
	double want = 0, x[32];
	(void)state;
	ref_run_start(&r);
	for (int i = 0; i < 4; i++) {
		cx_tensor a = i & 1 ? ref_run_in(&r, CX_F32, DIMS_(3, 2), NUMS(1, 4, 2, 5, 3, 6))
							: ref_run_in(&r, CX_F32, DIMS_(2, 3), NUMS(1, 2, 3, 4, 5, 6));
		cx_tensor b = i & 2 ? ref_run_in(&r, CX_F32, DIMS_(2, 3), NUMS(7, 9, 11, 8, 10, 12))
							: ref_run_in(&r, CX_F32, DIMS_(3, 2), NUMS(7, 8, 9, 10, 11, 12));
		t[i] = cx_matmul(r.g, a, b, &(cx_attr_matmul){.trans_a = i & 1, .trans_b = i & 2});
	}
	batch = cx_matmul(r.g, ref_run_in(&r, CX_F32, DIMS_(2, 1, 1, 2), NUMS(1, 2, 3, 4)),
		ref_run_in(&r, CX_F32, DIMS_(2, 2, 1), NUMS(1, 1, 1, -1)), NULL);
	half = cx_matmul(r.g, ref_run_in(&r, CX_F16, DIMS_(1, 2), NUMS(60000, 1)),
		ref_run_in(&r, CX_BF16, DIMS_(2, 1), NUMS(2, 1)), NULL);
	for (int i = 0; i < 64; i++) w[i] = (float)sin(i);
	assert_true(cx_quant_row(CX_Q8_0, w, blocks, 64) && cx_dequant_row(CX_Q8_0, blocks, deq, 64));
	for (int i = 0; i < 32; i++) x[i] = cos(i);
	for (int i = 0; i < 32; i++) want += (double)(float)x[i] * deq[32 + i];
	q = cx_matmul(r.g, ref_run_in(&r, CX_F32, DIMS_(1, 32), x),
		ref_run_bytes(&r, true, CX_Q8_0, DIMS_(2, 32), blocks), &(cx_attr_matmul){.trans_b = true});
	empty = cx_matmul(r.g, ref_run_in(&r, CX_F32, DIMS_(2, 0), NULL),
		ref_run_in(&r, CX_F32, DIMS_(0, 1), NULL), NULL);
	ref_run_eval(&r);
	for (int i = 0; i < 4; i++) EXPECT(&r, t[i], 0, 58, 64, 139, 154);
	EXPECT(&r, batch, 0, 3, -1, 7, -1);
	EXPECT(&r, half, 0, inf);
	assert_true(ref_run_get(&r, q, 1) == (float)want);
	EXPECT(&r, empty, 0, 0, 0); /* a sum over nothing */
	ref_run_end(&r);
}

/* ---- moving ---- */

static void test_moves(void **state)
{
	ref_run r;
	cx_tensor x, t[10], dst;
	(void)state;
	ref_run_start(&r);
	x = ref_run_in(&r, CX_F32, DIMS_(3, 2), NUMS(1, 2, 3, 4, 5, 6));
	t[0] = cx_gather(r.g, x, ints(&r, CX_I32, 4, NUMS(2, -1, 0, 3)), &(cx_attr_axis){.axis = 0});
	t[1] = cx_gather(r.g, x, ref_run_in(&r, CX_I32, DIMS_(), NUMS(1)), &(cx_attr_axis){.axis = 1});
	dst = ref_run_in(&r, CX_F32, DIMS_(3, 2), NUMS(10, 20, 30, 40, 50, 60));
	t[2] = cx_scatter(r.g, dst, ints(&r, CX_I32, 3, NUMS(2, -1, 2)), x, NULL);
	t[3] = cx_scatter(
		r.g, dst, ints(&r, CX_I32, 3, NUMS(2, 7, 2)), x, &(cx_attr_scatter){.add = true});
	t[4] = cx_concat(r.g, ((cx_tensor[]){x, dst}), 2, &(cx_attr_axis){.axis = 1});
	t[5] = cx_pad(r.g, x, &(cx_attr_pad){.before = DIMS_(1, 0), .after = DIMS_(0, 1), .value = -1});
	t[6] = cx_slice(
		r.g, x, &(cx_attr_slice){.begin = DIMS_(0, 1), .size = DIMS_(2, 1), .step = DIMS_(2, 1)});
	t[7] = cx_reshape(r.g, cx_permute(r.g, x, &(cx_attr_perm){.perm = DIMS_(1, 0)}),
		&(cx_attr_dims){.dims = DIMS_(3, -1)});
	t[8] = cx_broadcast(r.g, ref_run_in(&r, CX_F32, DIMS_(2, 1), NUMS(1, 2)),
		&(cx_attr_dims){.dims = DIMS_(2, 2, 2)});
	t[9] = cx_embed_sum(r.g,
		((cx_tensor[]){x, ints(&r, CX_I32, 2, NUMS(0, 9)), dst, ints(&r, CX_I32, 2, NUMS(2, 1))}),
		4);
	ref_run_eval(&r);
	EXPECT(&r, t[0], 0, 5, 6, 0, 0, 1, 2, 0, 0);
	EXPECT(&r, t[1], 0, 2, 4, 6);
	EXPECT(&r, t[2], 0, 10, 20, 30, 40, 5, 6);
	EXPECT(&r, t[3], 0, 10, 20, 30, 40, 50 + 1 + 5, 60 + 2 + 6);
	EXPECT(&r, dst, 0, 10, 20, 30, 40, 50, 60); /* the old version is still there */
	EXPECT(&r, t[4], 0, 1, 2, 10, 20, 3, 4, 30, 40, 5, 6, 50, 60);
	EXPECT(&r, t[5], 0, -1, -1, -1, 1, 2, -1, 3, 4, -1, 5, 6, -1);
	EXPECT(&r, t[6], 0, 2, 6);
	EXPECT(&r, t[7], 0, 1, 3, 5, 2, 4, 6);
	EXPECT(&r, t[8], 0, 1, 1, 2, 2, 1, 1, 2, 2);
	EXPECT(&r, t[9], 0, 51, 62, 30, 40);
	ref_run_end(&r);
}

/* ---- losses, optimizer ---- */

static void test_losses(void **state)
{
	ref_run r;
	cx_tensor x, target, t[8], p, g, m, v;
	double l0 = log(1 + exp(1)), l2 = log(1 + exp(-2.0)), mean, var, step;
	(void)state;
	ref_run_start(&r);
	x = ref_run_in(&r, CX_F32, DIMS_(3, 2), NUMS(1, 2, 5, 5, 3, 1));
	target = ints(&r, CX_I32, 3, NUMS(0, -100, 0));
	for (int i = 0; i < 3; i++)
		t[i] = cx_cross_entropy(r.g, x, target, &(cx_attr_loss){.reduction = i, .ignore = -100});
	t[3] = cx_cross_entropy(r.g, x, ints(&r, CX_I32, 3, NUMS(0, 2, 0)),
		&(cx_attr_loss){.reduction = 0, .ignore = -100});
	t[4] = cx_mse(r.g, vec(&r, 2, NUMS(1, 3)), vec(&r, 2, NUMS(2, 1)), NULL);
	t[5] = cx_poisson_nll(
		r.g, vec(&r, 2, NUMS(0, 1)), vec(&r, 2, NUMS(3, 2)), &(cx_attr_poisson){.reduction = 2});
	t[6] = cx_poisson_nll(r.g, vec(&r, 1, NUMS(2)), vec(&r, 1, NUMS(3)),
		&(cx_attr_poisson){.reduction = 0, .rate = true, .eps = 0});
	p = vec(&r, 1, NUMS(2));
	g = vec(&r, 1, NUMS(0.5));
	m = ref_run_state(&r, CX_F32, DIMS_(1), NUMS(0.1));
	v = ref_run_state(&r, CX_F32, DIMS_(1), NUMS(0.2));
	t[7] = cx_adamw(r.g, p, g, m, v, vec(&r, 1, NUMS(0.1)), vec(&r, 1, NUMS(3)), NULL);
	ref_run_eval(&r);
	EXPECT(&r, t[0], 1e-7, l0, 0, l2);
	EXPECT(&r, t[1], 1e-7, (l0 + l2) / 2);
	EXPECT(&r, t[2], 1e-7, l0 + l2);
	EXPECT(&r, t[3], 1e-7, l0, nan_, l2);
	EXPECT(&r, t[4], 0, 2.5);
	EXPECT(&r, t[5], 1e-7, 1 + exp(1) - 2);
	EXPECT(&r, t[6], 1e-7, 2 - 3 * log(2));
	mean = 0.9 * 0.1 + 0.1 * 0.5;
	var = 0.999 * 0.2 + 0.001 * 0.25;
	step = mean / (1 - pow(0.9, 3)) / (sqrt(var / (1 - pow(0.999, 3))) + 1e-8);
	EXPECT(&r, t[7], 1e-6, 2 - 0.1 * (step + 0.01 * 2));
	EXPECT(&r, cx_out(r.g, t[7], 1), 1e-6, mean);
	EXPECT(&r, cx_out(r.g, t[7], 2), 1e-6, var);
	assert_true(is_close(mean, *(float *)r.last[m.id], 1e-6, 0) &&
				is_close(var, *(float *)r.last[v.id], 1e-6, 0));
	ref_run_end(&r);
}

/* ---- generators ---- */

/* Known answers of the Random123 distribution for philox4x32-10. */
static void test_philox(void **state)
{
	static const struct {
		uint32_t c[4], k[2], want[4];
	} kat[] = {
		{{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
		{{~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
		{{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0},
			{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
	};
	ref_run r;
	cx_tensor key, u, n, b;
	uint32_t out[4];
	double mean = 0, var = 0;
	(void)state;
	for (int i = 0; i < 3; i++) {
		cx__ref_philox(kat[i].c, kat[i].k, out);
		assert_memory_equal(out, kat[i].want, 16);
	}
	ref_run_start(&r);
	key = ints(&r, CX_I32, 4, NUMS(0, 0, 0, 0));
	b = cx_random(r.g, key, &(cx_attr_random){.dims = DIMS_(5), .kind = 2});
	u = cx_random(r.g, key, &(cx_attr_random){.dims = DIMS_(2, 2), .kind = 0});
	n = cx_random(r.g, key, &(cx_attr_random){.dims = DIMS_(20000), .kind = 1});
	ref_run_eval(&r);
	assert_memory_equal(r.value[b.id], kat[0].want, 16);
	for (int i = 0; i < 4; i++)
		assert_true(ref_run_get(&r, u, i) == (kat[0].want[i] >> 8) * 0x1p-24);
	for (int i = 0; i < 20000; i++) mean += ref_run_get(&r, n, i) / 20000;
	for (int i = 0; i < 20000; i++) var += pow(ref_run_get(&r, n, i) - mean, 2) / 20000;
	assert_true(fabs(mean) < 0.03 && fabs(var - 1) < 0.05);
	ref_run_end(&r);
}

static void test_iota(void **state)
{
	ref_run r;
	cx_tensor a, b;
	(void)state;
	ref_run_start(&r);
	a = cx_iota(r.g,
		&(cx_attr_iota){.dims = DIMS_(2, 3), .axis = 1, .dtype = CX_I32, .start = 5, .step = -2});
	b = cx_iota(
		r.g, &(cx_attr_iota){
				 .dims = DIMS_(2, 2), .axis = 0, .dtype = CX_F32, .start = 0.5f, .step = 0.25f});
	ref_run_eval(&r);
	EXPECT(&r, a, 0, 5, 3, 1, 5, 3, 1);
	EXPECT(&r, b, 0, 0.5, 0.5, 0.75, 0.75);
	ref_run_end(&r);
}

/* ---- fused ops: the same bits as the nodes that they replace ---- */

static void expect_bits(const ref_run *r, cx_tensor a, cx_tensor b)
{
	assert_int_equal(r->bytes[a.id], r->bytes[b.id]);
	assert_memory_equal(r->value[a.id], r->value[b.id], r->bytes[a.id]);
}

static cx_tensor waves(ref_run *r, cx_dtype t, cx_list dims, double phase)
{
	double v[512];
	int64_t n = 1;
	for (int32_t i = 0; i < dims.n; i++) n *= dims.v[i];
	for (int64_t i = 0; i < n; i++) v[i] = sin(1.3 * (double)i + phase);
	return ref_run_in(r, t, dims, v);
}

static void check_linear(cx_dtype t)
{
	ref_run r;
	cx_graph *g;
	cx_tensor x, w[2], res, norm, gate, up, y, fused, bias, plain, plain2, fused2;
	cx_attr_matmul tb = {.trans_b = true};
	ref_run_start(&r);
	g = r.g;
	x = waves(&r, t, DIMS_(2, 3, 8), 0);
	norm = waves(&r, CX_F32, DIMS_(8), 1);
	w[0] = waves(&r, t, DIMS_(5, 8), 2);
	w[1] = waves(&r, t, DIMS_(5, 8), 3);
	res = waves(&r, t, DIMS_(2, 3, 5), 4);
	bias = waves(&r, t, DIMS_(5), 5);
	cx_tensor h = cx_rmsnorm(g, x, norm, NULL);
	gate = cx_silu(g, cx_matmul(g, h, w[0], &tb));
	up = cx_matmul(g, h, w[1], &tb);
	y = cx_add(g, cx_mul(g, gate, up), res);
	fused = cx_node_add(g, CX_OP_linear, ((cx_tensor[]){x, norm, w[0], w[1], res}), 5,
		&(cx_attr_linear){.n_w = 2,
			.norm = 1,
			.eps = 1e-5f,
			.norm_in = 1,
			.act = CX_OP_silu,
			.glu = true,
			.residual = true});
	plain = cx_gelu(g, cx_add(g, cx_matmul(g, x, w[0], &tb), bias));
	plain2 = cx_gelu(g, cx_matmul(g, x, w[1], &tb));
	fused2 = cx_node_add(g, CX_OP_linear, ((cx_tensor[]){x, w[0], w[1], bias, CX_NONE}), 5,
		&(cx_attr_linear){.n_w = 2, .bias = true, .act = CX_OP_gelu});
	cx_tensor s = cx_add(g, gate, up), n = cx_layernorm(g, s, bias, bias, NULL);
	cx_tensor an = cx_node_add(g, CX_OP_add_norm, ((cx_tensor[]){gate, up, bias, bias}), 4,
		&(cx_attr_linear){.norm = 2, .eps = 1e-5f, .norm_in = 2});
	ref_run_eval(&r);
	expect_bits(&r, y, fused);
	expect_bits(&r, plain, fused2);
	expect_bits(&r, plain2, cx_out(g, fused2, 1));
	expect_bits(&r, s, an);
	expect_bits(&r, n, cx_out(g, an, 1));
	ref_run_end(&r);
}

static void test_fused_linear(void **state)
{
	(void)state;
	check_linear(CX_F32);
	check_linear(CX_F16);
	check_linear(CX_BF16);
}

static void test_fused_rope_kv(void **state)
{
	ref_run r;
	cx_tensor k, v, pos, slot, cache[2], kr, want[2], fused, fresh[2];
	cx_attr_rope rope = {.theta = 100, .amplitude = 1};
	(void)state;
	ref_run_start(&r);
	k = waves(&r, CX_F32, DIMS_(3, 2, 4), 0);
	v = waves(&r, CX_F32, DIMS_(3, 2, 4), 1);
	pos = ints(&r, CX_I32, 3, NUMS(4, 5, 6));
	slot = ints(&r, CX_I32, 3, NUMS(2, -1, 0));
	for (int i = 0; i < 2; i++) {
		cache[i] = ref_run_state(&r, CX_F16, DIMS_(3, 2, 4), NULL);
		fresh[i] = ref_run_state(&r, CX_F16, DIMS_(3, 2, 4), NULL);
	}
	kr = cx_rope(r.g, k, pos, CX_NONE, CX_NONE, CX_NONE, &rope);
	want[0] = cx_scatter(r.g, cache[0], slot, cast(&r, kr, CX_F16), NULL);
	want[1] = cx_scatter(r.g, cache[1], slot, cast(&r, v, CX_F16), NULL);
	fused = cx_node_add(
		r.g, CX_OP_rope_kv, ((cx_tensor[]){k, v, pos, slot, fresh[0], fresh[1]}), 6, &rope);
	ref_run_eval(&r);
	expect_bits(&r, want[0], fused);
	expect_bits(&r, want[1], cx_out(r.g, fused, 1));
	ref_run_end(&r);
}

/* y = cast16(gelu(x * b) + c), t = x < b, with and without a reduction, against the nodes. */
static void test_map_program(void **state)
{
	cx_prog p = {.n_in = 3,
		.n_instr = 5,
		.n_out = 2,
		.out = {6, 7},
		.out_dtype = {CX_F16, CX_BOOL},
		.instr = {{.op = CX_OP_mul, .a = 0, .b = 1}, {.op = CX_OP_gelu, .a = 3},
			{.op = CX_OP_add, .a = 4, .b = 2}, {.op = CX_OP_cast, .a = 5, .p = CX_F16},
			{.op = CX_OP_lt, .a = 0, .b = 1}}};
	cx_prog red = {.n_in = 1,
		.n_instr = 1,
		.n_out = 1,
		.out = {1},
		.out_dtype = {CX_F32},
		.instr = {{.op = CX_OP_exp, .a = 0}}};
	cx_prog whole = {.n_in = 2,
		.n_instr = 1,
		.n_out = 1,
		.out = {2},
		.out_dtype = {CX_U8},
		.instr = {{.op = CX_OP_add, .a = 0, .b = 1}}};
	ref_run r;
	cx_tensor x, b, c, y, t, m[3], s[4], u;
	(void)state;
	ref_run_start(&r);
	x = waves(&r, CX_F32, DIMS_(4, 3), 0);
	b = waves(&r, CX_F32, DIMS_(3), 1);
	c = waves(&r, CX_F32, DIMS_(4, 1), 2);
	y = cast(&r, cx_add(r.g, cx_gelu(r.g, cx_mul(r.g, x, b)), c), CX_F16);
	t = cx_lt(r.g, x, b);
	m[0] = cx__node_add(r.g, CX_OP_map, ((cx_tensor[]){x, b, c}), 3, &(cx_attr_map){0}, &p);
	s[0] = cx_sum(r.g, cx_exp(r.g, x), AXES(1));
	s[1] = cx_mean(r.g, cx_exp(r.g, x), AXES(1));
	s[2] = cx_amax(r.g, cx_exp(r.g, x), AXES(1));
	s[3] = cx_amin(r.g, cx_exp(r.g, x), AXES(1));
	cx_tensor f[4];
	for (int i = 0; i < 4; i++)
		f[i] = cx__node_add(r.g, CX_OP_map, &x, 1, &(cx_attr_map){.reduce = i + 1}, &red);
	u = ints(&r, CX_U8, 2, NUMS(200, 3));
	m[1] = cx__node_add(r.g, CX_OP_map, ((cx_tensor[]){u, u}), 2, &(cx_attr_map){0}, &whole);
	ref_run_eval(&r);
	expect_bits(&r, y, m[0]);
	expect_bits(&r, t, cx_out(r.g, m[0], 1));
	for (int i = 0; i < 4; i++) expect_bits(&r, s[i], f[i]);
	EXPECT(&r, m[1], 0, 144, 6);
	ref_run_end(&r);
}

/* ---- the evaluator ---- */

/* Versions of a state keep their content; the last one is reported; a run that fails to allocate
 * says so. */
static void test_states_and_failures(void **state)
{
	ref_run r;
	cx_tensor s, s1, s2, sum;
	cx_status st = CX_ERR_MEMORY;
	(void)state;
	ref_run_start(&r);
	s = ref_run_state(&r, CX_F32, DIMS_(2), NUMS(1, 2));
	s1 = cx_scatter(r.g, s, ints(&r, CX_I32, 1, NUMS(0)), vec(&r, 1, NUMS(10)), NULL);
	s2 = cx_assign(r.g, s1, cx_add(r.g, s1, s1));
	sum = cx_add(r.g, cx_add(r.g, s, s1), s2);
	ref_run_eval(&r);
	EXPECT(&r, s, 0, 1, 2);
	EXPECT(&r, s1, 0, 10, 2);
	EXPECT(&r, s2, 0, 20, 4);
	EXPECT(&r, sum, 0, 31, 8);
	assert_memory_equal(r.last[s.id], ((float[]){20, 4}), 8);
	for (long n = 0; st != CX_OK; n++) {
		cx_fault fault = {.countdown = n};
		cx_alloc alloc = cx_alloc_fault(&fault);
		cx_err err = {0};
		st = ref_run_try(&r, &alloc, &err);
		assert_int_equal(fault.n_live, 0);
		assert_int_equal(st, fault.fired ? CX_ERR_MEMORY : CX_OK);
		assert_true(n < 100);
	}
	free(r.leaf[s.id]);
	r.leaf[s.id] = NULL; /* a leaf without content is an error, not a crash */
	assert_int_equal(ref_run_try(&r, NULL, &(cx_err){0}), CX_ERR_ARGUMENT);
	ref_run_end(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_unary),
		cmocka_unit_test(test_binary_nan),
		cmocka_unit_test(test_integers),
		cmocka_unit_test(test_casts),
		cmocka_unit_test(test_half_conversions),
		cmocka_unit_test(test_reductions),
		cmocka_unit_test(test_ties_and_order),
		cmocka_unit_test(test_softmax),
		cmocka_unit_test(test_cumsum),
		cmocka_unit_test(test_matmul),
		cmocka_unit_test(test_moves),
		cmocka_unit_test(test_losses),
		cmocka_unit_test(test_philox),
		cmocka_unit_test(test_iota),
		cmocka_unit_test(test_fused_linear),
		cmocka_unit_test(test_fused_rope_kv),
		cmocka_unit_test(test_map_program),
		cmocka_unit_test(test_states_and_failures),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
