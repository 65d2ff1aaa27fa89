/* test_edges.c - graphs at the edge of what is allowed: leaves as outputs, tensors without
 * elements, no inputs, states assigned from themselves, from each other and from views of
 * themselves; and NaN, infinities, signed zeros and extremes through every elementwise op, on ref
 * and cpu, fused and not, against what the unplanned reference and the rows of ops.def say. */
#include "tests/harness.h"
#include "tests/plan_graphs.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define SHAPE(...)                                                                                 \
	(int32_t)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (const int64_t[])               \
	{                                                                                              \
		__VA_ARGS__                                                                                \
	}

static cx_runtime *rt;
static cx_device *dev[2];
static const char *const dev_name[2] = {"ref", "cpu"};

static int open_devices(void **state)
{
	(void)state;
	if (cx_runtime_create(NULL, &rt, NULL) != CX_OK) return 1;
	for (int d = 0; d < 2; d++)
		if (cx_device_open(rt, dev_name[d], 0, &dev[d], NULL) != CX_OK) return 1;
	return 0;
}

static int close_devices(void **state)
{
	(void)state;
	for (int d = 0; d < 2; d++) cx_device_close(dev[d]);
	cx_runtime_free(rt);
	return 0;
}

/* ---- leaves as results ----------------------------------------------------------------------- */

static cx_tensor in(cx_graph *g, const char *name)
{
	return cx_input(g, name, CX_F32, SHAPE(6, 4));
}
static cx_tensor keep(cx_graph *g, const char *name)
{
	return cx_state(g, name, CX_F32, SHAPE(6, 4));
}
static cx_tensor turned(cx_graph *g, cx_tensor t)
{
	return cx_permute(g, t, &(cx_attr_perm){.perm = cx_list_of(2, 1, 0)});
}

static void leaves_out(cx_graph *g)
{
	cx_tensor x = in(g, "x"), w = cx_weight(g, "w", CX_F32, SHAPE(6, 4)), s = keep(g, "s");
	cx_output(g, "x", x);
	cx_output(g, "x again", x);
	cx_output(g, "w", w);
	cx_output(g, "w turned", turned(g, w));
	cx_output(g, "s", s);
	cx_output(g, "s turned", turned(g, s));
	cx_output(g, "c", cx_const_f32(g, -0.0f));
}

static void unused_input(cx_graph *g)
{
	in(g, "nobody reads it");
	keep(g, "nor this");
	cx_weight(g, "nor that", CX_F32, SHAPE(6, 4));
	cx_output(g, "y", cx_neg(g, in(g, "x")));
}

static void no_input(cx_graph *g)
{
	cx_attr_iota a = cx_attr_iota_default();
	a.dims = cx_list_of(2, 3, 5);
	a.axis = 1;
	cx_output(g, "y", cx_add(g, cx_iota(g, &a), cx_iota(g, &a)));
}

static void two_outputs_chain(cx_graph *g) /* each is the operand of the next, all are results */
{
	cx_tensor a = cx_neg(g, in(g, "x")), b = cx_exp(g, a), c = cx_add(g, b, a);
	cx_output(g, "a", a);
	cx_output(g, "b", b);
	cx_output(g, "c", c);
	cx_output(g, "flat b", cx_reshape(g, b, &(cx_attr_dims){.dims = cx_list_of(1, 24)}));
}

static void second_output_only(cx_graph *g)
{
	cx_tensor t = cx_topk(g, in(g, "x"), &(cx_attr_topk){.k = 2, .axis = -1});
	cx_output(g, "index", cx_out(g, t, 1));
}

/* ---- states ---------------------------------------------------------------------------------- */

static void assign_itself(cx_graph *g)
{
	cx_tensor s = keep(g, "s");
	cx_assign(g, s, s);
}

static void assign_turned(cx_graph *g)
{
	cx_tensor s = cx_state(g, "s", CX_F32, SHAPE(5, 5));
	cx_assign(g, s, turned(g, s));
}

static void assign_shifted(
	cx_graph *g) /* a delay line: rows move up by one, the newest comes last */
{
	cx_tensor s = keep(g, "s"), x = cx_input(g, "x", CX_F32, SHAPE(1, 4));
	cx_tensor old =
		cx_slice(g, s, &(cx_attr_slice){.begin = cx_list_of(2, 1, 0), .size = cx_list_of(2, 5, 4)});
	cx_tensor both[2] = {old, x};
	cx_tensor next = cx_assign(g, s, cx_concat(g, both, 2, &(cx_attr_axis){.axis = 0}));
	cx_output(g, "y", cx_sum(g, next, &(cx_attr_reduce){.axes = cx_list_of(1, 0)}));
}

static void assign_leaves(cx_graph *g)
{
	cx_tensor x = in(g, "x");
	cx_assign(g, keep(g, "from input"), x);
	cx_assign(g, keep(g, "from input too"), x);
	cx_assign(g, keep(g, "from weight"), cx_weight(g, "w", CX_F32, SHAPE(6, 4)));
}

static void three_swap(cx_graph *g)
{
	cx_tensor a = keep(g, "a"), b = keep(g, "b"), c = keep(g, "c");
	cx_assign(g, a, b);
	cx_assign(g, b, c);
	cx_assign(g, c, a);
}

static void swap_computed(cx_graph *g)
{
	cx_tensor a = keep(g, "a"), b = keep(g, "b");
	cx_assign(g, a, cx_add(g, b, cx_mul(g, a, in(g, "x"))));
	cx_assign(g, b, cx_sub(g, a, cx_mul(g, b, b)));
}

static void twice_in_one_run(cx_graph *g)
{
	cx_tensor s = keep(g, "s"), s1 = cx_assign(g, s, cx_neg(g, s)),
			  s2 = cx_assign(g, s1, cx_add(g, s, s1));
	cx_output(g, "before", s);
	cx_output(g, "between", s1);
	cx_output(g, "after", s2);
	cx_output(g, "all", cx_add(g, cx_mul(g, s, s1), s2));
}

static void one_value_two_states(cx_graph *g)
{
	cx_tensor y = cx_softmax(g, in(g, "x"), NULL);
	cx_assign(g, keep(g, "a"), y);
	cx_assign(g, keep(g, "b"), y);
	cx_output(g, "y", y);
}

static void scatter_itself(cx_graph *g) /* rows out of range are skipped, the last of two wins */
{
	cx_tensor s = keep(g, "s"), i = cx_input(g, "rows", CX_I32, SHAPE(6));
	cx_tensor s1 = cx_scatter(g, s, i, s, NULL);
	cx_scatter(g, s1, i, s1, &(cx_attr_scatter){.add = true});
}

static void state_of_one(cx_graph *g) /* a counter */
{
	cx_tensor s = cx_state(g, "n", CX_I32, 0, NULL);
	cx_tensor x = cx_cast(g, cx_const_f32(g, 1), &(cx_attr_cast){.dtype = CX_I32});
	cx_output(g, "n", cx_assign(g, s, cx_add(g, s, x)));
}

/* ---- nothing there --------------------------------------------------------------------------- */

static void empty_everything(cx_graph *g)
{
	cx_tensor x = cx_input(g, "x", CX_F32, SHAPE(0, 4)), z = cx_input(g, "z", CX_F32, SHAPE(4, 0)),
			  y = in(g, "y"), i = cx_input(g, "i", CX_I32, SHAPE(0)), both[2] = {x, y};
	cx_tensor s = keep(g, "s"), e = cx_state(g, "e", CX_F32, SHAPE(0, 4));
	cx_output(g, "neg", cx_neg(g, x));
	cx_output(g, "bcast", cx_add(g, x, cx_input(g, "b", CX_F32, SHAPE(1, 4))));
	cx_output(g, "softmax", cx_softmax(g, x, NULL));
	cx_output(g, "softmax of none", cx_softmax(g, z, NULL));
	cx_output(g, "norm", cx_rmsnorm(g, x, CX_NONE, NULL));
	cx_output(g, "concat", cx_concat(g, both, 2, &(cx_attr_axis){.axis = 0}));
	cx_output(g, "gather", cx_gather(g, y, i, &(cx_attr_axis){.axis = 0}));
	cx_output(g, "product", cx_matmul(g, x, z, NULL));
	cx_output(g, "k of 0", cx_matmul(g, z, x, NULL));
	cx_output(g, "rows", cx_matmul(g, x, y, &(cx_attr_matmul){.trans_b = true}));
	cx_output(g, "cumsum", cx_cumsum(g, x, NULL));
	cx_output(g, "turned", turned(g, x));
	cx_output(g, "pad",
		cx_pad(g, x,
			&(cx_attr_pad){
				.before = cx_list_of(2, 1, 0), .after = cx_list_of(2, 0, 1), .value = 7}));
	cx_output(g, "scatter", cx_scatter(g, s, i, x, NULL));
	cx_assign(g, e, x);
}

static void empty_reductions(cx_graph *g)
{
	cx_tensor z = cx_input(g, "z", CX_F32, SHAPE(3, 0)), n = cx_input(g, "n", CX_I32, SHAPE(0));
	cx_output(g, "sum", cx_sum(g, z, &(cx_attr_reduce){.axes = cx_list_of(1, 1)}));
	cx_output(g, "mean", cx_mean(g, z, &(cx_attr_reduce){.axes = cx_list_of(1, 1)}));
	cx_output(g, "amax", cx_amax(g, z, &(cx_attr_reduce){.axes = cx_list_of(1, 1)}));
	cx_output(g, "amin", cx_amin(g, z, &(cx_attr_reduce){.axes = cx_list_of(1, 1)}));
	cx_output(g, "imax", cx_amax(g, n, NULL));
	cx_output(g, "imin", cx_amin(g, n, NULL));
	cx_output(g, "isum", cx_sum(g, n, NULL));
	cx_output(g, "all", cx_sum(g, cx_mul(g, z, z), NULL));
}

static const struct {
	const char *name;
	void (*build)(cx_graph *);
} cases[] = {
	{"leaves and views of leaves as outputs", leaves_out},
	{"leaves that nobody reads", unused_input},
	{"a graph without inputs", no_input},
	{"every link of a chain an output", two_outputs_chain},
	{"only the second output is read", second_output_only},
	{"a state assigned from itself", assign_itself},
	{"a state assigned from itself, transposed", assign_turned},
	{"a delay line", assign_shifted},
	{"states assigned from leaves", assign_leaves},
	{"three states go round", three_swap},
	{"two states computed from each other", swap_computed},
	{"two updates and all versions read", twice_in_one_run},
	{"one value into two states", one_value_two_states},
	{"a state's rows scattered into itself", scatter_itself},
	{"a counter", state_of_one},
	{"tensors without elements", empty_everything},
	{"reductions over nothing", empty_reductions},
};

static void check_text(const cx_graph *g, const char *name)
{
	cx_graph *again;
	char *a, *b;
	size_t n, m;
	cx_err err = {0};
	assert_int_equal(cx_graph_print(g, NULL, &a, &n, NULL), CX_OK);
	if (cx_graph_parse(a, n, NULL, &again, &err) != CX_OK) fail_msg("%s: %s", name, err.msg);
	assert_int_equal(cx_graph_print(again, NULL, &b, &m, NULL), CX_OK);
	assert_true(n == m && memcmp(a, b, n) == 0);
	cx_free(NULL, a, n + 1);
	cx_free(NULL, b, m + 1);
	cx_graph_free(again);
}

static void test_graphs(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		cx_graph *g;
		plan_want w;
		cx_err err = {0};
		assert_int_equal(cx_graph_create(NULL, &g, NULL), CX_OK);
		cases[i].build(g);
		if (cx_graph_finish(g, &err) != CX_OK) fail_msg("%s: %s", cases[i].name, err.msg);
		check_text(g, cases[i].name);
		if (plan_want_make(g, plan_fill_leaf, g, &w, &err) != CX_OK)
			fail_msg("%s: %s", cases[i].name, err.msg);
		for (int k = 0; k < 4; k++) {
			plan_check c = {
				.opts = {.devices = &dev[k / 2], .n_devices = 1, .verify = true, .no_fuse = k % 2},
				.tol = k / 2 ? 1e-9 : 0};
			if (plan_run_check(&w, rt, &c, NULL, &err) != CX_OK)
				fail_msg("%s, on %s%s: %s", cases[i].name, dev_name[k / 2],
					k % 2 ? ", not fused" : "", err.msg);
		}
		plan_want_free(&w);
		cx_graph_free(g);
	}
}

/* ---- running one graph on given data --------------------------------------------------------- */

typedef struct run_leaf {
	const char *name;
	const void *data;
	uint64_t bytes;
} run_leaf;

/* Frees g. Every output goes to out[i], bytes[i]. */
static void run_graph(int d, cx_graph *g, bool no_fuse, const run_leaf *leaf, size_t n_leaf,
	void *const *out, const uint64_t *bytes, size_t n_out)
{
	cx_plan_opts o = {.devices = &dev[d], .n_devices = 1, .verify = true, .no_fuse = no_fuse};
	cx_plan *p;
	cx_store *s;
	cx_exec *x;
	cx_err err = {0};
	if (cx_graph_finish(g, &err) != CX_OK) fail_msg("%s", err.msg);
	if (cx_plan_build(g, &o, &p, &err) != CX_OK) fail_msg("%s", err.msg);
	assert_int_equal(cx_store_create(rt, &s, NULL), CX_OK);
	if (cx_exec_create(p, s, &x, &err) != CX_OK) fail_msg("%s", err.msg);
	for (size_t i = 0; i < n_leaf; i++)
		if (cx_exec_set_input(
				x, cx_exec_input(x, leaf[i].name), leaf[i].data, leaf[i].bytes, &err) != CX_OK)
			fail_msg("%s", err.msg);
	if (cx_exec_run(x, &err) != CX_OK) fail_msg("%s", err.msg);
	for (size_t i = 0; i < n_out; i++)
		if (cx_exec_get_output(x, (int)i, out[i], bytes[i], &err) != CX_OK) fail_msg("%s", err.msg);
	cx_exec_free(x);
	cx_store_free(s);
	cx_plan_free(p);
	cx_graph_free(g);
}

/* What the rows promise for nothing at all. */
static void test_empty_values(void **state)
{
	float sum[3], mean[3], amax[3], amin[3], all = 9;
	int32_t imax, imin, isum;
	void *out[] = {sum, mean, amax, amin, &imax, &imin, &isum, &all};
	const uint64_t bytes[] = {12, 12, 12, 12, 4, 4, 4, 4};
	const run_leaf none[] = {{"z", NULL, 0}, {"n", NULL, 0}};
	(void)state;
	for (int k = 0; k < 4; k++) {
		cx_graph *g;
		assert_int_equal(cx_graph_create(NULL, &g, NULL), CX_OK);
		empty_reductions(g);
		run_graph(k / 2, g, k % 2, none, 2, out, bytes, 8);
		for (int i = 0; i < 3; i++)
			assert_true(
				sum[i] == 0 && isnan(mean[i]) && amax[i] == -INFINITY && amin[i] == INFINITY);
		assert_true(imax == INT32_MIN && imin == INT32_MAX && isum == 0 && all == 0);
	}
}

/* ---- special values -------------------------------------------------------------------------- */

static const uint32_t special_bits[] = {0x00000000, 0x80000000, 0x7f800000, 0xff800000, 0x7fc00000,
	0xffc00001, 0x00000001, 0x80000001, 0x00800000, 0x7f7fffff, 0xff7fffff, 0x3f800000, 0xbf800000,
	0x3f000000, 0x40200000, 0xc0200000, 0x41a00000, 0x41a00001, 0x42b17218, 0x42b20000, 0xc2cff1b5,
	0xc2aeac50, 0x4b000001, 0x4f000000, 0xcf000000, 0x5f000000, 0x47c34f80, 0x3a83126f, 0xbf7fffff};
enum { N_SPECIAL = sizeof special_bits / sizeof special_bits[0], N_PAIR = N_SPECIAL * N_SPECIAL };

static bool near(float want, float got, double rel)
{
	if (isnan(want) || isnan(got)) return isnan(want) && isnan(got);
	if (isinf(want) || isinf(got)) return want == got;
	return fabs((double)want - got) <= rel * fabs((double)want) + 2e-38;
}

/* Each op alone on ref and on cpu, fused (a map of one) and not: NaN, infinities and signs agree.
 */
static void special_op(cx_op op, uint32_t n_in)
{
	int64_t n = n_in == 2 ? N_PAIR : N_SPECIAL;
	float *a = calloc((size_t)n, 4), *b = calloc((size_t)n, 4), *y[4];
	cx_dtype dtype = CX_F32;
	for (int64_t i = 0; i < n; i++) {
		memcpy(&a[i], &special_bits[i % N_SPECIAL], 4);
		memcpy(&b[i], &special_bits[i / N_SPECIAL], 4);
	}
	for (int k = 0; k < 4; k++) {
		run_leaf leaf[] = {{"a", a, (uint64_t)n * 4}, {"b", b, (uint64_t)n * 4}};
		uint64_t bytes;
		cx_graph *g;
		cx_tensor t[2], r;
		y[k] = calloc((size_t)n, 4);
		assert_int_equal(cx_graph_create(NULL, &g, NULL), CX_OK);
		t[0] = cx_input(g, "a", CX_F32, 1, &n);
		if (n_in == 2) t[1] = cx_input(g, "b", CX_F32, 1, &n);
		r = cx_node_add(g, op, t, n_in, NULL);
		dtype = cx_tensor_dtype(g, r);
		bytes = (uint64_t)n * (dtype == CX_F32 ? 4 : 1);
		cx_output(g, "y", r);
		run_graph(k / 2, g, k % 2, leaf, n_in, (void *[]){y[k]}, &bytes, 1);
		for (int64_t i = 0; k && i < n; i++) {
			double rel = k < 2 ? 0 : 4e-6;
			if (dtype != CX_F32) {
				if (((char *)y[0])[i] == ((char *)y[k])[i]) continue;
			} else if (near(y[0][i], y[k][i], rel)) {
				continue;
			}
			fail_msg("%s(%a, %a) is %a on ref, %a on %s%s", cx__ops[op].name, a[i], b[i], y[0][i],
				y[k][i], dev_name[k / 2], k % 2 ? ", not fused" : "");
		}
	}
	for (int k = 0; k < 4; k++) free(y[k]);
	free(a);
	free(b);
}

static void test_special_values(void **state)
{
	static const cx_op unary[] = {CX_OP_neg, CX_OP_abs, CX_OP_sign, CX_OP_exp, CX_OP_log,
		CX_OP_sqrt, CX_OP_rsqrt, CX_OP_tanh, CX_OP_erf, CX_OP_floor, CX_OP_ceil, CX_OP_round,
		CX_OP_sigmoid, CX_OP_silu, CX_OP_gelu, CX_OP_gelu_tanh, CX_OP_relu, CX_OP_softplus,
		CX_OP_clamp};
	static const cx_op binary[] = {CX_OP_add, CX_OP_sub, CX_OP_mul, CX_OP_div, CX_OP_min, CX_OP_max,
		CX_OP_eq, CX_OP_ne, CX_OP_lt, CX_OP_le, CX_OP_gt, CX_OP_ge, CX_OP_pow};
	(void)state;
	for (size_t i = 0; i < sizeof unary / sizeof unary[0]; i++) special_op(unary[i], 1);
	for (size_t i = 0; i < sizeof binary / sizeof binary[0]; i++) special_op(binary[i], 2);
}

/* sin and cos have an absolute error, as they cross zero; infinities give NaN. */
static void test_periodic(void **state)
{
	float x[64], y[4][2][64];
	(void)state;
	for (int i = 0; i < 64; i++) x[i] = ldexpf((i % 2 ? -1.0f : 1.0f) * (1 + (float)i / 64), i - 8);
	x[60] = INFINITY;
	x[61] = -INFINITY;
	x[62] = NAN;
	x[63] = -0.0f;
	for (int k = 0; k < 4; k++) {
		const run_leaf leaf = {"x", x, sizeof x};
		const uint64_t bytes[2] = {sizeof x, sizeof x};
		cx_graph *g;
		cx_tensor t;
		assert_int_equal(cx_graph_create(NULL, &g, NULL), CX_OK);
		t = cx_input(g, "x", CX_F32, SHAPE(64));
		cx_output(g, "sin", cx_sin(g, t));
		cx_output(g, "cos", cx_cos(g, t));
		run_graph(k / 2, g, k % 2, &leaf, 1, (void *[]){y[k][0], y[k][1]}, bytes, 2);
		for (int i = 0; i < 64; i++) {
			double s = sin((double)x[i]), c = cos((double)x[i]);
			bool ok = i >= 60 && i < 63
						  ? isnan(y[k][0][i]) && isnan(y[k][1][i])
						  : fabs(s - y[k][0][i]) <= 2e-7 && fabs(c - y[k][1][i]) <= 2e-7;
			if (!ok)
				fail_msg(
					"sin, cos of %a on %s: %a, %a", x[i], dev_name[k / 2], y[k][0][i], y[k][1][i]);
		}
		assert_true(signbit(y[k][0][63]));
	}
}

/* What the rows say of integers and of casts, by value. */
static void test_integers(void **state)
{
	static const int32_t a[6] = {7, -7, INT32_MIN, 5, 0, INT32_MAX}, b[6] = {2, 2, -1, 0, 0, 1};
	static const int32_t quotient[6] = {3, -3, INT32_MIN, 0, 0, INT32_MAX},
						 sum[6] = {9, -5, INT32_MAX, 5, 0, INT32_MIN};
	static const float f[6] = {2.9f, -2.9f, NAN, 1e30f, -INFINITY, 300};
	static const int32_t to_i32[6] = {2, -2, 0, INT32_MAX, INT32_MIN, 300};
	static const int8_t to_i8[6] = {2, -2, 0, 127, -128, 127};
	static const uint8_t to_u8[6] = {2, 0, 0, 255, 0, 255}, to_bool[6] = {1, 1, 1, 1, 1, 1};
	(void)state;
	for (int k = 0; k < 4; k++) {
		const run_leaf leaf[] = {{"a", a, 24}, {"b", b, 24}, {"f", f, 24}};
		const uint64_t bytes[6] = {24, 24, 24, 6, 6, 6};
		int32_t q[6], s[6], i32[6];
		int8_t i8[6];
		uint8_t u8[6], bo[6];
		cx_graph *g;
		cx_tensor x, y, z;
		assert_int_equal(cx_graph_create(NULL, &g, NULL), CX_OK);
		x = cx_input(g, "a", CX_I32, SHAPE(6));
		y = cx_input(g, "b", CX_I32, SHAPE(6));
		z = cx_input(g, "f", CX_F32, SHAPE(6));
		cx_output(g, "quotient", cx_div(g, x, y));
		cx_output(g, "sum", cx_add(g, x, y));
		cx_output(g, "i32", cx_cast(g, z, &(cx_attr_cast){.dtype = CX_I32}));
		cx_output(g, "i8", cx_cast(g, z, &(cx_attr_cast){.dtype = CX_I8}));
		cx_output(g, "u8", cx_cast(g, z, &(cx_attr_cast){.dtype = CX_U8}));
		cx_output(g, "bool", cx_cast(g, z, &(cx_attr_cast){.dtype = CX_BOOL}));
		run_graph(k / 2, g, k % 2, leaf, 3, (void *[]){q, s, i32, i8, u8, bo}, bytes, 6);
		assert_memory_equal(q, quotient, sizeof q);
		assert_memory_equal(s, sum, sizeof s);
		assert_memory_equal(i32, to_i32, sizeof i32);
		assert_memory_equal(i8, to_i8, sizeof i8);
		assert_memory_equal(u8, to_u8, sizeof u8);
		assert_memory_equal(bo, to_bool, sizeof bo);
	}
}

/* Orders with NaN, ties, and rows that are all -inf. */
static void test_row_rules(void **state)
{
	const float n = NAN, m = -INFINITY;
	const float x[4][5] = {{1, n, 3, n, 2}, {4, 4, 4, 4, 4}, {m, m, m, m, m}, {0, m, 5, 5, -1}};
	static const int32_t best[4] = {1, 0, 0, 2};
	static const int32_t top[4][3] = {{1, 3, 2}, {0, 1, 2}, {0, 1, 2}, {2, 3, 0}};
	(void)state;
	for (int k = 0; k < 4; k++) {
		const run_leaf leaf = {"x", x, sizeof x};
		const uint64_t bytes[5] = {16, 48, 48, 80, 16};
		int32_t arg[4], index[4][3];
		float value[4][3], soft[4][5], high[4];
		cx_graph *g;
		cx_tensor t, y;
		assert_int_equal(cx_graph_create(NULL, &g, NULL), CX_OK);
		t = cx_input(g, "x", CX_F32, SHAPE(4, 5));
		y = cx_topk(g, t, &(cx_attr_topk){.k = 3, .axis = -1});
		cx_output(g, "argmax", cx_argmax(g, t, NULL));
		cx_output(g, "values", y);
		cx_output(g, "indices", cx_out(g, y, 1));
		cx_output(g, "softmax", cx_softmax(g, t, NULL));
		cx_output(g, "amax", cx_amax(g, t, &(cx_attr_reduce){.axes = cx_list_of(1, 1)}));
		run_graph(k / 2, g, k % 2, &leaf, 1, (void *[]){arg, value, index, soft, high}, bytes, 5);
		assert_memory_equal(arg, best, sizeof arg);
		assert_memory_equal(index, top, sizeof index);
		for (int i = 0; i < 5; i++)
			assert_true(isnan(soft[0][i]) && near(0.2f, soft[1][i], 1e-6) && isnan(soft[2][i]));
		assert_true(soft[3][1] == 0 && near(0.49749f, soft[3][2], 1e-2));
		assert_true(isnan(high[0]) && high[1] == 4 && high[2] == -INFINITY && high[3] == 5);
		assert_true(isnan(value[0][0]) && isnan(value[0][1]) && value[0][2] == 3);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_graphs),
		cmocka_unit_test(test_empty_values),
		cmocka_unit_test(test_special_values),
		cmocka_unit_test(test_periodic),
		cmocka_unit_test(test_integers),
		cmocka_unit_test(test_row_rules),
	};
	return cmocka_run_group_tests(tests, open_devices, close_devices);
}
