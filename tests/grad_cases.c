/* grad_cases.c - elementwise ops, reductions, row ops, losses; see grad_cases.h. */
#include "tests/grad_cases.h"

#define COUNT(a) (uint32_t)(sizeof(a) / sizeof((a)[0]))

/* ---- elementwise ----------------------------------------------------------------------------- */

#define UNARY(op, lo, hi)                                                                          \
	static void case_##op(grad_case *k)                                                            \
	{                                                                                              \
		grad_mix(k, cx_##op(k->g, grad_leaf(k, lo, hi, GD(3, 5))));                                \
	}
#define UNARIES(X)                                                                                 \
	X(neg, -2, 2)                                                                                  \
	X(abs, -2, 2.1)                                                                                \
	X(exp, -2, 2)                                                                                  \
	X(log, 0.3, 3)                                                                                 \
	X(sqrt, 0.3, 3)                                                                                \
	X(rsqrt, 0.3, 3)                                                                               \
	X(sin, -4, 4)                                                                                  \
	X(cos, -4, 4)                                                                                  \
	X(tanh, -2, 2)                                                                                 \
	X(erf, -2, 2)                                                                                  \
	X(sigmoid, -4, 4)                                                                              \
	X(silu, -4, 4)                                                                                 \
	X(gelu, -3, 3)                                                                                 \
	X(gelu_tanh, -3, 3)                                                                            \
	X(relu, -2, 2.1)                                                                               \
	X(softplus, -4, 24)
UNARIES(UNARY)

/* Sizes that do not broadcast, that do along some axes on either side, that do in rank. */
#define BINARY(op, alo, ahi, blo, bhi)                                                             \
	static void case_##op(grad_case *k)                                                            \
	{                                                                                              \
		k->no_spread = true;                                                                       \
		grad_mix(                                                                                  \
			k, cx_##op(k->g, grad_leaf(k, alo, ahi, GD(2, 4)), grad_leaf(k, blo, bhi, GD(2, 4)))); \
		grad_mix(k,                                                                                \
			cx_##op(k->g, grad_leaf(k, alo, ahi, GD(2, 1, 3)), grad_leaf(k, blo, bhi, GD(4, 1)))); \
		grad_mix(k,                                                                                \
			cx_##op(k->g, grad_leaf(k, alo, ahi, GD(1, 3)), grad_leaf(k, blo, bhi, GD(2, 2, 3)))); \
		grad_mix(k, cx_##op(k->g, grad_leaf(k, alo, ahi, GD(1)), grad_leaf(k, blo, bhi, GD(3))));  \
	}
#define BINARIES(X)                                                                                \
	X(add, -2, 2, -2, 2)                                                                           \
	X(sub, -2, 2, -2, 2)                                                                           \
	X(mul, -2, 2, -2, 2)                                                                           \
	X(div, -2, 2, 0.4, 2)                                                                          \
	X(pow, 0.3, 2, -2, 2)                                                                          \
	X(min, -2, 2, -2.05, 2.11)                                                                     \
	X(max, -2, 2, -2.05, 2.11)
BINARIES(BINARY)

static void case_same_operand(grad_case *k)
{
	cx_tensor x = grad_leaf(k, -2, 2, GD(3, 4));
	grad_mix(k, cx_mul(k->g, x, cx_add(k->g, x, cx_sin(k->g, x))));
	grad_mix(k, cx_sub(k->g, x, x));
}

static void case_pow_edges(grad_case *k) /* negative base, whole exponent; exponents 0, 1 */
{
	static const double e[] = {2, 3, -1, 1, 0};
	for (int i = 0; i < 5; i++) {
		cx_attr_cast to = {.dtype = k->dtype};
		cx_tensor b = cx_cast(k->g, cx_const_f32(k->g, (float)e[i]), &to);
		grad_mix(k, cx_pow(k->g, grad_leaf(k, -2, -0.4, GD(3)), b));
	}
}

static void case_clamp(grad_case *k)
{
	cx_attr_clamp a = {.lo = -0.52f, .hi = 0.77f};
	grad_mix(k, cx_clamp(k->g, grad_leaf(k, -2, 2, GD(4, 5)), &a));
}

static void case_cast(grad_case *k)
{
	cx_attr_cast to = {.dtype = CX_F32};
	cx_tensor x = grad_leaf(k, -2, 2, GD(3, 4)), y = cx_cast(k->g, x, &to);
	to.dtype = k->dtype;
	grad_mix(k, cx_mul(k->g, x, cx_cast(k->g, cx_sin(k->g, y), &to)));
}

static void case_where(grad_case *k)
{
	cx_tensor c = grad_bools(k, GD(2, 1), GRAD_VALUES(1, 0));
	cx_tensor f = grad_bools(k, GD(3, 1, 4), GRAD_VALUES(1, 0, 0, 1, 1));
	grad_mix(k, cx_where(k->g, c, grad_leaf(k, -2, 2, GD(2, 4)), grad_leaf(k, -2, 2, GD(4))));
	grad_mix(k, cx_where(k->g, f, grad_leaf(k, -2, 2, GD(2, 1)), grad_leaf(k, -2, 2, GD(3, 2, 4))));
}

static void case_zero(grad_case *k) /* their derivative is 0, and what goes beside them is not */
{
	cx_tensor x = grad_leaf(k, -2.2, 2.1, GD(7)), y;
	y = cx_add(k->g, cx_floor(k->g, x), cx_ceil(k->g, x));
	y = cx_add(k->g, y, cx_add(k->g, cx_round(k->g, x), cx_sign(k->g, x)));
	grad_mix(k, cx_mul(k->g, y, x));
}

#define UNARY_ROW(op, ...) {.name = #op, .build = case_##op},
const grad_row grad_map_rows[] = {UNARIES(UNARY_ROW)
									  BINARIES(UNARY_ROW){"same operand", case_same_operand},
	{"pow edges", case_pow_edges}, {"clamp", case_clamp}, {"cast", case_cast},
	{"where", case_where}, {"zero", case_zero}};
const uint32_t grad_n_map_rows = COUNT(grad_map_rows);

/* ---- reductions and rows --------------------------------------------------------------------- */

#define REDUCE(op)                                                                                 \
	static void case_##op(grad_case *k)                                                            \
	{                                                                                              \
		cx_attr_reduce last = {.axes = cx_list_of(1, -1)};                                         \
		cx_attr_reduce some = {.axes = cx_list_of(2, 0, 2), .keep = true};                         \
		cx_attr_reduce mid = {.axes = cx_list_of(1, 1)};                                           \
		cx_tensor x = grad_leaf(k, -2, 2, GD(2, 3, 4));                                            \
		k->no_spread = true;                                                                       \
		grad_mix(k, cx_##op(k->g, x, &last));                                                      \
		grad_mix(k, cx_##op(k->g, grad_leaf(k, -2, 2, GD(2, 3, 4)), &some));                       \
		grad_mix(k, cx_##op(k->g, x, &mid));                                                       \
		grad_mix(k, cx_##op(k->g, grad_leaf(k, -2, 2, GD(5)), NULL));                              \
	}
REDUCE(sum)
REDUCE(mean)
#undef REDUCE
#define REDUCE(op)                                                                                 \
	static void case_##op(grad_case *k)                                                            \
	{                                                                                              \
		cx_attr_reduce last = {.axes = cx_list_of(1, -1)};                                         \
		cx_attr_reduce some = {.axes = cx_list_of(2, 0, 2), .keep = true};                         \
		k->no_spread = true;                                                                       \
		grad_mix(k, cx_##op(k->g, grad_leaf(k, -2, 2, GD(3, 4)), &last));                          \
		grad_mix(k, cx_##op(k->g, grad_leaf(k, -2, 2, GD(2, 3, 4)), &some));                       \
		grad_mix(k, cx_##op(k->g, grad_leaf(k, -2, 2, GD(5)), NULL));                              \
	}
REDUCE(amax)
REDUCE(amin)

static void case_cumsum(grad_case *k)
{
	for (int i = 0; i < 4; i++) {
		cx_attr_cumsum a = {.axis = i % 2, .exclusive = i & 1, .reverse = i & 2};
		grad_mix(k, cx_cumsum(k->g, grad_leaf(k, -2, 2, GD(3, 4)), &a));
	}
}

static void case_softmax(grad_case *k)
{
	cx_attr_softmax last = {.axis = -1, .scale = 0.7f}, first = {.axis = 0, .scale = 1};
	grad_mix(k, cx_softmax(k->g, grad_leaf(k, -2, 2, GD(3, 5)), &last));
	grad_mix(k, cx_softmax(k->g, grad_leaf(k, -2, 2, GD(3, 2)), &first));
}

static void case_log_softmax(grad_case *k)
{
	cx_attr_softmax last = {.axis = -1, .scale = 0.7f}, first = {.axis = 1, .scale = 1};
	grad_mix(k, cx_log_softmax(k->g, grad_leaf(k, -2, 2, GD(3, 5)), &last));
	grad_mix(k, cx_log_softmax(k->g, grad_leaf(k, -2, 2, GD(2, 3, 2)), &first));
}

static void case_topk(grad_case *k)
{
	cx_attr_topk last = {.k = 3, .axis = -1}, mid = {.k = 2, .axis = 1, .smallest = true};
	k->no_spread = true;
	grad_mix(k, cx_topk(k->g, grad_leaf(k, -2, 2, GD(4, 5)), &last));
	grad_mix(k, cx_topk(k->g, grad_leaf(k, -2, 2, GD(2, 4, 3)), &mid));
	grad_mix(k, cx_topk(k->g, grad_leaf(k, -2, 2, GD(6)), &last));
}

static void case_l2norm(grad_case *k)
{
	cx_attr_norm a = {.eps = 0.01f};
	grad_mix(k, cx_l2norm(k->g, grad_leaf(k, -2, 2, GD(3, 5)), &a));
	grad_mix(k, cx_l2norm(k->g, grad_leaf(k, -2, 2, GD(2, 2, 3)), NULL));
}

static void case_groupnorm(grad_case *k)
{
	cx_attr_groupnorm a = {.groups = 2, .eps = 0.01f}, one = {.groups = 1, .eps = 0.01f};
	cx_tensor none = CX_NONE;
	grad_mix(k, cx_groupnorm(k->g, grad_leaf(k, -2, 2, GD(2, 4, 3)), grad_leaf(k, 0.5, 2, GD(4)),
					grad_leaf_f32(k, -1, 1, GD(4)), &a));
	grad_mix(
		k, cx_groupnorm(k->g, grad_leaf(k, -2, 2, GD(2, 4)), none, grad_leaf(k, -1, 1, GD(4)), &a));
	grad_mix(k, cx_groupnorm(k->g, grad_leaf(k, -2, 2, GD(1, 2, 2, 3)), none, none, &one));
}

static void case_cross_entropy(grad_case *k)
{
	for (int64_t r = 0; r < 3; r++) {
		cx_attr_loss a = {.reduction = r, .ignore = 9};
		cx_tensor target = grad_ints(k, GD(4), GRAD_VALUES(2, 9, 0, 4));
		grad_mix(k, cx_cross_entropy(k->g, grad_leaf(k, -2, 2, GD(4, 5)), target, &a));
	}
}

static void case_mse(grad_case *k)
{
	for (int64_t r = 0; r < 3; r++) {
		cx_attr_loss a = {.reduction = r};
		grad_mix(k, cx_mse(k->g, grad_leaf(k, -2, 2, GD(3, 4)), grad_leaf(k, -2, 2, GD(3, 4)), &a));
	}
}

static void case_poisson(grad_case *k)
{
	for (int64_t r = 0; r < 4; r++) {
		cx_attr_poisson a = {.reduction = r % 3, .rate = r % 2, .eps = 0.05f};
		grad_mix(k, cx_poisson_nll(k->g, grad_leaf(k, r % 2 ? 0.2 : -1, 2, GD(3, 3)),
						grad_leaf(k, 0, 3, GD(3, 3)), &a));
	}
}

#define ROW(op)                                                                                    \
	{                                                                                              \
		.name = #op, .build = case_##op                                                            \
	}
const grad_row grad_row_rows[] = {ROW(sum), ROW(mean), ROW(amax), ROW(amin), ROW(cumsum),
	ROW(softmax), ROW(log_softmax), ROW(topk), ROW(l2norm), ROW(groupnorm), ROW(cross_entropy),
	ROW(mse), ROW(poisson)};
const uint32_t grad_n_row_rows = COUNT(grad_row_rows);
