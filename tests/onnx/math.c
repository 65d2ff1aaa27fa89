/* math.c - ONNX elementwise operators, casts, reductions and row operators as ours. See onnx.h. */
#include "tests/onnx/onnx.h"

#include <math.h>
#include <string.h>

/* ---- elementwise ---- */

static bool unary(onnx_ctx *c, const onnx_node *n, int op)
{
	cx_tensor x = in_(c, n, 0);
	return out_(c, n, 0, cx_node_add(c->g, (cx_op)op, &x, 1, NULL));
}

/* b, made to fit a: of its type (pow mixes them), and before opset 7 aligned by attributes. */
static cx_tensor second(onnx_ctx *c, const onnx_node *n, cx_tensor a)
{
	cx_tensor b = cast_(c, in_(c, n, 1), dtype_(c, a));
	cx_list d = dims_of(c, b);
	int64_t rank = shape_(c, a).rank, axis = attr_i(n, "axis", rank - d.n);
	if (c->opset >= 7 || !attr_(n, "axis")) return b;
	while (axis + d.n < rank) d.v[d.n++] = 1;
	return reshape_(c, b, d);
}

static bool binary(onnx_ctx *c, const onnx_node *n, int op)
{
	cx_tensor ab[2] = {in_(c, n, 0)};
	ab[1] = second(c, n, ab[0]);
	return out_(c, n, 0, cx_node_add(c->g, (cx_op)op, ab, 2, NULL));
}

static bool power(onnx_ctx *c, const onnx_node *n, int arg)
{
	cx_tensor a = in_(c, n, 0), b = in_(c, n, 1), y;
	cx_dtype t = dtype_(c, a);
	(void)arg;
	y = cx_pow(
		c->g, cast_(c, a, CX_F32), cast_(c, second(c, n, a), CX_F32)); /* ours is for floats */
	(void)b;
	return out_(c, n, 0, cast_(c, y, t));
}

static bool variadic(onnx_ctx *c, const onnx_node *n, int op)
{
	cx_tensor y = in_(c, n, 0);
	for (size_t i = 1; i < n->n_input; i++)
		y = cx_node_add(c->g, (cx_op)op, ((cx_tensor[]){y, in_(c, n, i)}), 2, NULL);
	return out_(c, n, 0, y);
}

static bool mean_of(onnx_ctx *c, const onnx_node *n, int arg)
{
	cx_tensor y = in_(c, n, 0);
	(void)arg;
	for (size_t i = 1; i < n->n_input; i++) y = cx_add(c->g, y, in_(c, n, i));
	return out_(c, n, 0, cx_div(c->g, y, like(c, y, (double)n->n_input)));
}

static cx_tensor trunc_(onnx_ctx *c, cx_tensor x)
{
	return cx_mul(c->g, cx_sign(c->g, x), cx_floor(c->g, cx_abs(c->g, x)));
}

/* fmod: the sign of a; else that of b. */
static bool modulo(onnx_ctx *c, const onnx_node *n, int arg)
{
	cx_tensor a = in_(c, n, 0), b = in_(c, n, 1), q = cx_div(c->g, a, b), zero = like(c, a, 0), r,
			  fix;
	(void)arg;
	r = cx_sub(c->g, a, cx_mul(c->g, dtype_(c, a) <= CX_BF16 ? trunc_(c, q) : q, b));
	if (attr_i(n, "fmod", 0)) return out_(c, n, 0, r);
	fix = cx_and(
		c->g, cx_ne(c->g, r, zero), cx_xor(c->g, cx_lt(c->g, r, zero), cx_lt(c->g, b, zero)));
	return out_(c, n, 0, cx_where(c->g, fix, cx_add(c->g, r, b), r));
}

static bool where_(onnx_ctx *c, const onnx_node *n, int arg)
{
	(void)arg;
	return out_(c, n, 0, cx_where(c->g, in_(c, n, 0), in_(c, n, 1), in_(c, n, 2)));
}

static bool clip(onnx_ctx *c, const onnx_node *n, int arg)
{
	cx_tensor y = in_(c, n, 0), lo = in_(c, n, 1), hi = in_(c, n, 2);
	(void)arg;
	if (attr_(n, "min")) lo = like(c, y, attr_f(n, "min", 0));
	if (attr_(n, "max")) hi = like(c, y, attr_f(n, "max", 0));
	if (!cx_is_none(lo)) y = cx_max(c->g, y, lo);
	if (!cx_is_none(hi)) y = cx_min(c->g, y, hi);
	return out_(c, n, 0, y);
}

static bool cast_to(onnx_ctx *c, cx_tensor x, const onnx_node *n, int32_t to)
{
	cx_dtype t;
	if (!onnx_dtype(to, &t, &c->widened))
		return onnx_not_ours(c, "element type (f8, f4, 4-bit, 2-bit, string)");
	return out_(c, n, 0, cast_(c, x, t));
}

static bool cast(onnx_ctx *c, const onnx_node *n, int arg)
{
	(void)arg;
	return cast_to(c, in_(c, n, 0), n, (int32_t)attr_i(n, "to", 0));
}

static bool cast_like(onnx_ctx *c, const onnx_node *n, int arg)
{
	(void)arg;
	return out_(c, n, 0, cast_(c, in_(c, n, 0), dtype_(c, in_(c, n, 1))));
}

static bool is_inf(onnx_ctx *c, const onnx_node *n, int arg)
{
	cx_tensor x = in_(c, n, 0), up = cx_eq(c->g, x, like(c, x, INFINITY)),
			  down = cx_eq(c->g, x, like(c, x, -INFINITY));
	(void)arg;
	if (!attr_i(n, "detect_negative", 1)) return out_(c, n, 0, up);
	return out_(c, n, 0, attr_i(n, "detect_positive", 1) ? cx_or(c->g, up, down) : down);
}

/* ---- activations and functions that are short compositions ---- */

enum {
	RECIPROCAL,
	TAN,
	SINH,
	COSH,
	ASINH,
	ACOSH,
	ATANH,
	IS_NAN,
	IDENTITY,
	SOFTSIGN,
	HARD_SWISH,
	MISH
};

static bool composed(onnx_ctx *c, const onnx_node *n, int which)
{
	cx_graph *g = c->g;
	cx_tensor x = in_(c, n, 0), one = like(c, x, 1), half = like(c, x, 0.5), y = x;
	switch (which) {
	case RECIPROCAL:
		y = cx_div(g, one, x);
		break;
	case TAN:
		y = cx_div(g, cx_sin(g, x), cx_cos(g, x));
		break;
	case SINH:
		y = cx_mul(g, half, cx_sub(g, cx_exp(g, x), cx_exp(g, cx_neg(g, x))));
		break;
	case COSH:
		y = cx_mul(g, half, cx_add(g, cx_exp(g, x), cx_exp(g, cx_neg(g, x))));
		break;
	case ASINH:
		y = cx_log(g, cx_add(g, x, cx_sqrt(g, cx_add(g, cx_mul(g, x, x), one))));
		break;
	case ACOSH:
		y = cx_log(g, cx_add(g, x, cx_sqrt(g, cx_sub(g, cx_mul(g, x, x), one))));
		break;
	case ATANH:
		y = cx_mul(g, half, cx_log(g, cx_div(g, cx_add(g, one, x), cx_sub(g, one, x))));
		break;
	case IS_NAN:
		y = cx_ne(g, x, x);
		break;
	case SOFTSIGN:
		y = cx_div(g, x, cx_add(g, one, cx_abs(g, x)));
		break;
	case HARD_SWISH:
		y = cx_add(g, cx_mul(g, x, like(c, x, 1.0 / 6)), half);
		y = cx_mul(g, x, cx_clamp(g, y, &(cx_attr_clamp){.lo = 0, .hi = 1}));
		break;
	case MISH:
		y = cx_mul(g, x, cx_tanh(g, cx_softplus(g, x)));
		break;
	default:
		break;
	}
	return out_(c, n, 0, y);
}

enum { ELU, CELU, SELU, LEAKY, THRESHOLDED, HARD_SIGMOID, SHRINK, SWISH };

static bool activation(onnx_ctx *c, const onnx_node *n, int which)
{
	cx_graph *g = c->g;
	cx_tensor x = in_(c, n, 0), zero = like(c, x, 0), neg = cx_lt(g, x, zero), y = x, t;
	float alpha = attr_f(n, "alpha",
		which == LEAKY          ? 0.01f
		: which == SELU         ? 1.67326319217681884765625f
		: which == HARD_SIGMOID ? 0.2f
								: 1);
	cx_tensor a = like(c, x, alpha);
	switch (which) {
	case ELU:
	case SELU:
	case CELU:
		t = cx_exp(g, which == CELU ? cx_div(g, x, a) : x);
		y = cx_where(g, neg, cx_mul(g, a, cx_sub(g, t, like(c, x, 1))), x);
		if (which == SELU)
			y = cx_mul(g, y, like(c, x, attr_f(n, "gamma", 1.05070102214813232421875f)));
		break;
	case LEAKY:
		y = cx_where(g, neg, cx_mul(g, x, a), x);
		break;
	case THRESHOLDED:
		y = cx_where(g, cx_gt(g, x, a), x, zero);
		break;
	case HARD_SIGMOID:
		y = cx_add(g, cx_mul(g, x, a), like(c, x, attr_f(n, "beta", 0.5f)));
		y = cx_clamp(g, y, &(cx_attr_clamp){.lo = 0, .hi = 1});
		break;
	case SHRINK:
		t = like(c, x, attr_f(n, "bias", 0));
		a = like(c, x, attr_f(n, "lambd", 0.5f));
		y = cx_where(g, cx_gt(g, x, a), cx_sub(g, x, t), zero);
		y = cx_where(g, cx_lt(g, x, cx_neg(g, a)), cx_add(g, x, t), y);
		break;
	case SWISH:
		y = cx_mul(g, x, cx_sigmoid(g, cx_mul(g, x, a)));
		break;
	default:
		break;
	}
	return out_(c, n, 0, y);
}

static bool prelu(onnx_ctx *c, const onnx_node *n, int arg)
{
	cx_tensor x = in_(c, n, 0), slope = in_(c, n, 1);
	cx_list d = dims_of(c, slope);
	(void)arg;
	if (c->opset < 7 && d.n == 1 && d.v[0] != 1) { /* one per channel, axis 1 */
		for (int32_t r = shape_(c, x).rank; d.n < r - 1;) d.v[d.n++] = 1;
		slope = reshape_(c, slope, d);
	}
	return out_(c, n, 0, cx_where(c->g, cx_lt(c->g, x, like(c, x, 0)), cx_mul(c->g, x, slope), x));
}

static bool gelu(onnx_ctx *c, const onnx_node *n, int arg)
{
	cx_tensor x = in_(c, n, 0);
	(void)arg;
	return out_(c, n, 0,
		attr_is(n, "approximate", "tanh", "none") ? cx_gelu_tanh(c->g, x) : cx_gelu(c->g, x));
}

static bool swiglu(onnx_ctx *c, const onnx_node *n, int arg)
{
	cx_tensor x = in_(c, n, 0), y = in_(c, n, 1);
	(void)arg;
	x = cx_mul(c->g, x, cx_sigmoid(c->g, cx_mul(c->g, x, like(c, x, attr_f(n, "alpha", 1)))));
	return out_(c, n, 0, cx_mul(c->g, x, y));
}

/* ---- reductions ---- */

/* Axes from the operand or the attribute. False: there are none to reduce, x passes through (noop).
 */
static bool reduce_axes(onnx_ctx *c, const onnx_node *n, cx_tensor x, cx_list *axes)
{
	cx_list all = {0};
	if (list_arg(c, n, 1, "axes", axes) && axes->n) return true;
	if (attr_i(n, "noop_with_empty_axes", 0)) return false;
	for (all.n = 0; all.n < shape_(c, x).rank; all.n++) all.v[all.n] = all.n;
	*axes = all;
	return true;
}

enum { L1 = 1000, L2, LOG_SUM, LOG_SUM_EXP, SUM_SQUARE, PROD };

/* Product over the last axis, element by element: there is no such reduction. */
static cx_tensor product(onnx_ctx *c, cx_tensor x, cx_list axes, bool keep)
{
	cx_list perm = {0}, kept = {0}, d = dims_of(c, x);
	bool gone[CX_MAX_RANK] = {false};
	int64_t n = 1;
	cx_tensor y;
	for (int32_t i = 0; i < axes.n; i++) gone[axis_of(axes.v[i], d.n)] = true;
	for (int32_t i = 0; i < d.n; i++) {
		if (!gone[i]) perm.v[perm.n++] = i;
		if (!gone[i] || keep) kept.v[kept.n++] = gone[i] ? 1 : d.v[i];
	}
	for (int32_t i = 0; i < d.n; i++)
		if (gone[i]) {
			perm.v[perm.n++] = i;
			n *= d.v[i];
		}
	y = expand_(c, like(c, x, 1), kept);
	if (n == 0) return y;
	kept.v[kept.n++] = n;
	x = reshape_(c, perm_(c, x, perm), kept);
	kept.n--;
	for (int64_t i = 0; i < n; i++)
		y = cx_mul(c->g, y, reshape_(c, part_(c, x, kept.n, i, 1), kept));
	return y;
}

static bool reduce(onnx_ctx *c, const onnx_node *n, int op)
{
	cx_graph *g = c->g;
	cx_tensor x = in_(c, n, 0), y = x;
	cx_dtype t = dtype_(c, x);
	bool keep = attr_i(n, "keepdims", 1), some;
	cx_list axes = {0};
	some = reduce_axes(c, n, x, &axes);
	if (t == CX_BOOL) x = cast_(c, x, CX_U8);
	if (op == L1) x = cx_abs(g, x);
	if (op == L2 || op == SUM_SQUARE) x = cx_mul(g, x, x);
	if (op == LOG_SUM_EXP) x = cx_exp(g, x);
	if (!some) y = x;
	else if (op == PROD) y = product(c, x, axes, keep);
	else y = reduce_(c, op >= L1 ? CX_OP_sum : (cx_op)op, x, axes, keep);
	if (op == L2) y = cx_sqrt(g, y);
	if (op == LOG_SUM || op == LOG_SUM_EXP) y = cx_log(g, y);
	return out_(c, n, 0, cast_(c, y, t));
}

static cx_tensor flip(onnx_ctx *c, cx_tensor x, int64_t axis)
{
	int64_t n = shape_(c, x).dim[axis], at[256];
	if (n > 256) c->why = "long axis to flip";
	for (int64_t i = 0; i < n && i < 256; i++) at[i] = n - 1 - i;
	return pick_(c, x, axis, n, at);
}

static bool arg_extreme(onnx_ctx *c, const onnx_node *n, int smallest)
{
	cx_tensor x = in_(c, n, 0), y;
	int64_t axis = axis_of(attr_i(n, "axis", 0), shape_(c, x).rank), size = shape_(c, x).dim[axis];
	cx_attr_arg at = {.axis = axis, .keep = attr_i(n, "keepdims", 1)};
	if (smallest) x = cx_neg(c->g, x);
	if (attr_i(n, "select_last_index", 0)) {
		y = cx_argmax(c->g, flip(c, x, axis), &at);
		y = cx_sub(c->g, scalar(c, CX_I32, (double)size - 1), y);
	} else {
		y = cx_argmax(c->g, x, &at);
	}
	return out_(c, n, 0, cast_(c, y, CX_I64));
}

static bool cumsum(onnx_ctx *c, const onnx_node *n, int arg)
{
	cx_tensor x = in_(c, n, 0);
	cx_list axis = host_list(c, in_(c, n, 1));
	cx_attr_cumsum at = {.axis = axis.v[0],
		.exclusive = attr_i(n, "exclusive", 0),
		.reverse = attr_i(n, "reverse", 0)};
	(void)arg;
	return out_(c, n, 0, cx_cumsum(c->g, x, &at));
}

static bool topk(onnx_ctx *c, const onnx_node *n, int arg)
{
	cx_tensor x = in_(c, n, 0), y;
	cx_attr_topk at = {.axis = attr_i(n, "axis", -1), .smallest = !attr_i(n, "largest", 1)};
	(void)arg;
	at.k = host_list(c, in_(c, n, 1)).v[0];
	y = cx_topk(c->g, x, &at);
	out_(c, n, 0, y);
	return out_(c, n, 1, cast_(c, cx_out(c->g, y, 1), CX_I64));
}

/* Before opset 13 the axes from `axis` on are one. */
static bool softmax(onnx_ctx *c, const onnx_node *n, int op)
{
	cx_tensor x = in_(c, n, 0), y;
	cx_list d = dims_of(c, x), flat = {.n = 2, .v = {1, 1}};
	int64_t axis = axis_of(attr_i(n, "axis", c->opset < 13 ? 1 : -1), d.n);
	cx_attr_softmax at = {.axis = c->opset < 13 ? 1 : axis, .scale = 1};
	for (int32_t i = 0; i < d.n; i++) flat.v[i >= axis] *= d.v[i];
	y = c->opset < 13 ? reshape_(c, x, flat) : x;
	y = cx_node_add(c->g, (cx_op)op, &y, 1, &at);
	return out_(c, n, 0, c->opset < 13 ? reshape_(c, y, d) : y);
}

/* Index along an axis, with the rank of `d` and size 1 on the other axes. */
static cx_tensor along(onnx_ctx *c, cx_list d, int64_t axis, cx_dtype t)
{
	for (int32_t i = 0; i < d.n; i++)
		if (i != axis) d.v[i] = 1;
	return cx_iota(c->g, &(cx_attr_iota){.dims = d, .axis = axis, .dtype = t, .step = 1});
}

static bool hardmax(onnx_ctx *c, const onnx_node *n, int arg)
{
	cx_tensor x = in_(c, n, 0), best;
	cx_list d = dims_of(c, x);
	int64_t axis = axis_of(attr_i(n, "axis", -1), d.n);
	(void)arg;
	best = cx_argmax(c->g, x, &(cx_attr_arg){.axis = axis, .keep = true});
	return out_(c, n, 0, cast_(c, cx_eq(c->g, along(c, d, axis, CX_I32), best), dtype_(c, x)));
}

static bool one_hot(onnx_ctx *c, const onnx_node *n, int arg)
{
	cx_tensor idx = in_(c, n, 0), values = in_(c, n, 2), hit;
	int64_t depth = host_list(c, in_(c, n, 1)).v[0];
	cx_list d = dims_of(c, idx), at = {.n = d.n + 1};
	int64_t axis = axis_of(attr_i(n, "axis", -1), d.n + 1);
	(void)arg;
	for (int32_t i = 0, j = 0; i < at.n; i++) at.v[i] = i == axis ? 1 : d.v[j++];
	idx = reshape_(c, index_(c, idx, depth), at);
	at.v[axis] = depth;
	hit = cx_eq(c->g, along(c, at, axis, CX_I32), idx);
	return out_(c, n, 0, cx_where(c->g, hit, part_(c, values, 0, 1, 1), part_(c, values, 0, 0, 1)));
}

/* keeps row <= column + k or the other half. */
static bool trilu(onnx_ctx *c, const onnx_node *n, int arg)
{
	cx_tensor x = in_(c, n, 0), row, col;
	cx_list d = dims_of(c, x);
	int64_t k = has_in(n, 1) ? host_list(c, in_(c, n, 1)).v[0] : 0;
	(void)arg;
	row = cx_add(c->g, along(c, d, d.n - 2, CX_I64), scalar(c, CX_I64, (double)k));
	col = along(c, d, d.n - 1, CX_I64);
	row = attr_i(n, "upper", 1) ? cx_ge(c->g, col, row) : cx_le(c->g, col, row);
	return out_(c, n, 0, cx_where(c->g, row, x, like(c, x, 0)));
}

static bool eye(onnx_ctx *c, const onnx_node *n, int arg)
{
	cx_tensor x = in_(c, n, 0), row;
	cx_list d = dims_of(c, x);
	cx_dtype t = dtype_(c, x);
	(void)arg;
	if (attr_(n, "dtype") && !onnx_dtype((int32_t)attr_i(n, "dtype", 0), &t, &c->widened))
		return onnx_not_ours(c, "element type (f8, f4, 4-bit, 2-bit, string)");
	row = cx_add(c->g, along(c, d, 0, CX_I64), scalar(c, CX_I64, (double)attr_i(n, "k", 0)));
	return out_(c, n, 0, cast_(c, cx_eq(c->g, along(c, d, 1, CX_I64), row), t));
}

const onnx_row onnx_rows_math[] = {
	{"Abs", unary, CX_OP_abs},
	{"Neg", unary, CX_OP_neg},
	{"Sign", unary, CX_OP_sign},
	{"Exp", unary, CX_OP_exp},
	{"Log", unary, CX_OP_log},
	{"Sqrt", unary, CX_OP_sqrt},
	{"Sin", unary, CX_OP_sin},
	{"Cos", unary, CX_OP_cos},
	{"Tanh", unary, CX_OP_tanh},
	{"Erf", unary, CX_OP_erf},
	{"Floor", unary, CX_OP_floor},
	{"Ceil", unary, CX_OP_ceil},
	{"Round", unary, CX_OP_round},
	{"Sigmoid", unary, CX_OP_sigmoid},
	{"Relu", unary, CX_OP_relu},
	{"Softplus", unary, CX_OP_softplus},
	{"Not", unary, CX_OP_not},
	{"Add", binary, CX_OP_add},
	{"Sub", binary, CX_OP_sub},
	{"Mul", binary, CX_OP_mul},
	{"Div", binary, CX_OP_div},
	{"Equal", binary, CX_OP_eq},
	{"Less", binary, CX_OP_lt},
	{"LessOrEqual", binary, CX_OP_le},
	{"Greater", binary, CX_OP_gt},
	{"GreaterOrEqual", binary, CX_OP_ge},
	{"And", binary, CX_OP_and},
	{"Or", binary, CX_OP_or},
	{"Xor", binary, CX_OP_xor},
	{"Pow", power, 0},
	{"Mod", modulo, 0},
	{"Max", variadic, CX_OP_max},
	{"Min", variadic, CX_OP_min},
	{"Sum", variadic, CX_OP_add},
	{"Mean", mean_of, 0},
	{"Where", where_, 0},
	{"Clip", clip, 0},
	{"Cast", cast, 0},
	{"CastLike", cast_like, 0},
	{"IsInf", is_inf, 0},
	{"IsNaN", composed, IS_NAN},
	{"Reciprocal", composed, RECIPROCAL},
	{"Tan", composed, TAN},
	{"Sinh", composed, SINH},
	{"Cosh", composed, COSH},
	{"Asinh", composed, ASINH},
	{"Acosh", composed, ACOSH},
	{"Atanh", composed, ATANH},
	{"Identity", composed, IDENTITY},
	{"Softsign", composed, SOFTSIGN},
	{"HardSwish", composed, HARD_SWISH},
	{"Mish", composed, MISH},
	{"Elu", activation, ELU},
	{"Celu", activation, CELU},
	{"Selu", activation, SELU},
	{"LeakyRelu", activation, LEAKY},
	{"ThresholdedRelu", activation, THRESHOLDED},
	{"HardSigmoid", activation, HARD_SIGMOID},
	{"Shrink", activation, SHRINK},
	{"Swish", activation, SWISH},
	{"PRelu", prelu, 0},
	{"Gelu", gelu, 0},
	{"SwiGLU", swiglu, 0},
	{"ReduceSum", reduce, CX_OP_sum},
	{"ReduceMean", reduce, CX_OP_mean},
	{"ReduceMax", reduce, CX_OP_amax},
	{"ReduceMin", reduce, CX_OP_amin},
	{"ReduceL1", reduce, L1},
	{"ReduceL2", reduce, L2},
	{"ReduceLogSum", reduce, LOG_SUM},
	{"ReduceLogSumExp", reduce, LOG_SUM_EXP},
	{"ReduceSumSquare", reduce, SUM_SQUARE},
	{"ReduceProd", reduce, PROD},
	{"ArgMax", arg_extreme, 0},
	{"ArgMin", arg_extreme, 1},
	{"CumSum", cumsum, 0},
	{"TopK", topk, 0},
	{"Softmax", softmax, CX_OP_softmax},
	{"LogSoftmax", softmax, CX_OP_log_softmax},
	{"Hardmax", hardmax, 0},
	{"OneHot", one_hot, 0},
	{"Trilu", trilu, 0},
	{"EyeLike", eye, 0},
	{NULL, NULL, 0},
};
