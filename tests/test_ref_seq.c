/* test_ref_seq.c - the reference on sequences: every worked example of spec/llm.md (RoPE, norms,
 * gated attention, delta rule, layer, MoE), chunked against recurrent delta rule, ragged, paged and
 * windowed attention, scans. */
#include "tests/ref_run.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* M(rows, cols, phi) of spec/llm.md 2.3: 0.5 sin(0.7 (r cols + c) + phi). */
static cx_tensor golden(ref_run *r, int64_t rows, int64_t cols, double phi)
{
	double v[512];
	for (int64_t i = 0; i < rows * cols; i++) v[i] = 0.5 * sin(0.7 * (double)i + phi);
	return ref_run_in(r, CX_F32, DIMS_(rows, cols), v);
}

/* x[t][i] = sin(0.9 (4 t + i) + 0.7), [n,4]. */
static cx_tensor golden_x(ref_run *r, int64_t n)
{
	double v[64];
	for (int64_t i = 0; i < n * 4; i++) v[i] = sin(0.9 * (double)i + 0.7);
	return ref_run_in(r, CX_F32, DIMS_(n, 4), v);
}

/* a + step * i, i < n. */
static cx_tensor ramp(ref_run *r, int64_t n, double a, double step)
{
	double v[64];
	for (int64_t i = 0; i < n; i++) v[i] = a + step * (double)i;
	return ref_run_in(r, CX_F32, DIMS_(n), v);
}

static cx_tensor times(cx_graph *g, cx_tensor x, cx_tensor w)
{
	return cx_matmul(g, x, w, &(cx_attr_matmul){.trans_b = true});
}

static cx_tensor view(cx_graph *g, cx_tensor x, cx_list dims)
{
	return cx_reshape(g, x, &(cx_attr_dims){.dims = dims});
}

/* Columns [first, first+n) of a matrix. */
static cx_tensor columns(cx_graph *g, cx_tensor x, int64_t first, int64_t n)
{
	int64_t rows = cx_tensor_shape(g, x).dim[0];
	return cx_slice(g, x, &(cx_attr_slice){.begin = DIMS_(0, first), .size = DIMS_(rows, n)});
}

/* A generator of its own, so that the numbers do not depend on the C library. */
static double noise(uint64_t *s)
{
	*s = *s * 6364136223846793005u + 1442695040888963407u;
	return (double)(*s >> 40) / 8388608.0 - 1.0;
}

static double *noises(uint64_t seed, int64_t n, double scale)
{
	double *v = calloc((size_t)(n ? n : 1), sizeof *v);
	for (int64_t i = 0; i < n; i++) v[i] = scale * noise(&seed);
	return v;
}

static cx_tensor noisy(ref_run *r, uint64_t seed, cx_list dims, double scale)
{
	int64_t n = 1;
	double *v;
	cx_tensor t;
	for (int32_t i = 0; i < dims.n; i++) n *= dims.v[i];
	v = noises(seed, n, scale);
	t = ref_run_in(r, CX_F32, dims, v);
	free(v);
	return t;
}

/* Every element of b is that of a. */
static void expect_same(const ref_run *r, cx_tensor a, cx_tensor b, double tol)
{
	cx_shape s = cx_tensor_shape(r->g, a), sb = cx_tensor_shape(r->g, b);
	assert_int_equal(cx_shape_elems(&s), cx_shape_elems(&sb));
	for (int64_t i = 0; i < cx_shape_elems(&s); i++) {
		double x = ref_run_get(r, a, i), y = ref_run_get(r, b, i);
		if (!is_close(x, y, tol, tol)) fail_msg("element %lld: %.9g and %.9g", (long long)i, x, y);
	}
}

/* ---- RoPE, spec/llm.md 1.4 ---- */

static void test_rope(void **state)
{
	ref_run r;
	cx_tensor x, pos, freqs, tables[2], half, pair, part, by_freq, by_table;
	(void)state;
	ref_run_start(&r);
	x = ref_run_in(&r, CX_F32, DIMS_(1, 1, 4), NUMS(1, 2, 3, 4));
	pos = ref_run_in(&r, CX_I32, DIMS_(1), NUMS(5));
	half = cx_rope(
		r.g, x, pos, CX_NONE, CX_NONE, CX_NONE, &(cx_attr_rope){.theta = 1e4f, .amplitude = 1});
	pair = cx_rope(r.g, x, pos, CX_NONE, CX_NONE, CX_NONE,
		&(cx_attr_rope){.theta = 1e4f, .amplitude = 1, .pairs = true});
	part = cx_rope(r.g, x, pos, CX_NONE, CX_NONE, CX_NONE,
		&(cx_attr_rope){.n_rot = 2, .theta = 1e4f, .amplitude = 2});
	freqs = ref_run_in(&r, CX_F32, DIMS_(2), NUMS(1, 0.01));
	by_freq =
		cx_rope(r.g, x, pos, freqs, CX_NONE, CX_NONE, &(cx_attr_rope){.theta = 7, .amplitude = 1});
	for (int k = 0; k < 2; k++) {
		double v[16];
		for (int i = 0; i < 16; i++) {
			double angle = (i / 2) * (i % 2 ? 0.01 : 1);
			v[i] = k ? sin(angle) : cos(angle);
		}
		tables[k] = ref_run_in(&r, CX_F32, DIMS_(8, 2), v);
	}
	by_table = cx_rope(
		r.g, x, pos, CX_NONE, tables[0], tables[1], &(cx_attr_rope){.theta = 7, .amplitude = 1});
	ref_run_eval(&r);
	EXPECT(&r, half, 1e-6, 3.1604350094526414, 1.7975838437072191, -0.10793771827345966,
		4.094959380121222);
	EXPECT(&r, pair, 1e-6, 2.2015107347895033, -0.39159990373668596, 2.7963341041021854,
		4.1449385493919);
	EXPECT(&r, part, 1e-6, 2 * (cos(5) - 2 * sin(5)), 2 * (2 * cos(5) + sin(5)), 3, 4);
	expect_same(&r, half, by_freq, 1e-6);
	expect_same(&r, half, by_table, 1e-6);
	ref_run_end(&r);
}

/* ---- norms ---- */

static void test_norms(void **state)
{
	ref_run r;
	cx_tensor x, w, b, plus, layer, none, unit, groups;
	double want[4], mean = (1 - 2 + 3 + 0.5) / 4, var = 0;
	const double v[4] = {1, -2, 3, 0.5};
	(void)state;
	ref_run_start(&r);
	x = ref_run_in(&r, CX_F32, DIMS_(1, 4), v);
	w = ref_run_in(&r, CX_F32, DIMS_(4), NUMS(0.1, -0.2, 0, 1));
	b = ref_run_in(&r, CX_F32, DIMS_(4), NUMS(1, 2, 3, 4));
	plus = cx_rmsnorm(r.g, x, w, &(cx_attr_norm){.eps = 1e-6f, .plus_one = true});
	none = cx_rmsnorm(r.g, x, CX_NONE, &(cx_attr_norm){.eps = 1e-6f});
	layer = cx_layernorm(r.g, x, w, b, &(cx_attr_norm){.eps = 1e-5f});
	unit = cx_l2norm(r.g, x, &(cx_attr_norm){.eps = 0});
	groups = cx_groupnorm(r.g, x, CX_NONE, CX_NONE, &(cx_attr_groupnorm){.groups = 2, .eps = 0});
	ref_run_eval(&r);
	EXPECT(&r, plus, 1e-7, 0.5827941553129542, -0.8477005895461152, 1.5894386053989658,
		0.5298128684663219);
	assert_true(is_close(ref_run_get(&r, plus, 0) / 1.1, ref_run_get(&r, none, 0), 1e-6, 0));
	for (int i = 0; i < 4; i++) var += (v[i] - mean) * (v[i] - mean) / 4;
	for (int i = 0; i < 4; i++)
		want[i] = (v[i] - mean) / sqrt(var + 1e-5) * NUMS(0.1, -0.2, 0, 1)[i] + 1 + i;
	ref_run_expect(&r, layer, want, 4, 1e-6, 1e-6);
	for (int i = 0; i < 4; i++) want[i] = v[i] / sqrt(1 + 4 + 9 + 0.25);
	ref_run_expect(&r, unit, want, 4, 1e-6, 0);
	EXPECT(&r, groups, 1e-6, 1, -1, 1, -1); /* two channels each: any pair becomes +-1 */
	ref_run_end(&r);
}

/* ---- delta rule, spec/llm.md 2.4 ---- */

/* The worked example from raw q, k, a, b on; gives o, the state, and normed. */
static void delta_example(ref_run *r, const double *s0, int64_t chunk, cx_tensor out[3])
{
	cx_graph *g = r->g;
	cx_attr_norm unit = {.eps = 1e-6f};
	cx_tensor q = ref_run_in(r, CX_F32, DIMS_(2, 1, 2), NUMS(1, 2, 0.5, -1.5));
	cx_tensor k = ref_run_in(r, CX_F32, DIMS_(2, 1, 2), NUMS(3, 4, 1, -1));
	cx_tensor v = ref_run_in(r, CX_F32, DIMS_(2, 1, 2), NUMS(1, -2, 0.5, 3));
	cx_tensor a = ref_run_in(r, CX_F32, DIMS_(2, 1), NUMS(-1, 0.75)),
			  b = ref_run_in(r, CX_F32, DIMS_(2, 1), NUMS(0, 2));
	cx_tensor s = ref_run_state(r, CX_F32, DIMS_(1, 1, 2, 2), s0);
	cx_tensor rate = cx_neg(g, cx_exp(g, cx_const_f32(g, 0.5f)));
	cx_tensor gate = cx_mul(g, cx_softplus(g, cx_add(g, a, cx_const_f32(g, 0.25f))), rate);
	cx_tensor z = ref_run_in(r, CX_F32, DIMS_(2, 2), NUMS(0.3, -0.7, 2, 1)),
			  w = ref_run_in(r, CX_F32, DIMS_(2), NUMS(1.5, 0.5));
	out[0] = cx_delta_rule(g, cx_l2norm(g, q, &unit), cx_l2norm(g, k, &unit), v, gate,
		cx_sigmoid(g, b), s, CX_NONE, CX_NONE, &(cx_attr_delta){.chunk = chunk});
	out[1] = cx_out(g, out[0], 1);
	out[2] =
		cx_mul(g, cx_rmsnorm(g, view(g, out[0], DIMS_(2, 2)), w, &(cx_attr_norm){.eps = 1e-6f}),
			cx_silu(g, z));
}

static void test_delta_example(void **state)
{
	(void)state;
	for (int64_t chunk = 0; chunk <= 3; chunk++) {
		ref_run r;
		cx_tensor t[3];
		ref_run_start(&r);
		delta_example(&r, NULL, chunk, t);
		ref_run_eval(&r);
		EXPECT(&r, t[0], 3e-7, 0.34785050087646263, -0.6957010017529253, 0.25996320086285374,
			1.7083325338226083);
		EXPECT(&r, t[1], 3e-7, 0.3508792701726749, 1.789511183587124, -0.27057057996700107,
			-1.9501285639984718);
		EXPECT(&r, t[2], 3e-7, 0.1634889361873086, 0.1468992925534576, 0.5621863989186293,
			0.5110529889229721);
		assert_memory_equal(r.last[r.g->nodes[t[1].id].state], r.value[t[1].id], 16);
		ref_run_end(&r);
		ref_run_start(&r);
		delta_example(&r, NUMS(0.1, -0.2, 0.3, 0.4), chunk, t);
		ref_run_eval(&r);
		EXPECT(&r, t[0], 3e-7, 0.40967921819226644, -0.632201238818057, 0.25683810157390397,
			1.7056446659831388);
		EXPECT(&r, t[1], 3e-7, 0.35602439100415834, 1.7892341888089092, -0.26419691579376353,
			-1.9462140579874498);
		ref_run_end(&r);
	}
}

/* 64 equal unit keys, beta 1, g 0: the solve has a bidiagonal inverse, and after each token the
 * state reads back its value exactly, o_i = (q.k) v_i. Powers of A would destroy this; so would e^G
 * e^-G at g = -20. */
static void test_delta_equal_keys(void **state)
{
	enum { N = 64 };
	ref_run r;
	double key[N * 4], v[N * 2], one[N], zero[N] = {0};
	cx_tensor o;
	(void)state;
	for (int i = 0; i < N; i++) {
		for (int j = 0; j < 4; j++) key[4 * i + j] = 0.5;
		v[2 * i] = i;
		v[2 * i + 1] = i % 3 - 5;
		one[i] = 1;
	}
	ref_run_start(&r);
	cx_tensor k = ref_run_in(&r, CX_F32, DIMS_(N, 1, 4), key),
			  val = ref_run_in(&r, CX_F32, DIMS_(N, 1, 2), v);
	o = cx_delta_rule(r.g, k, k, val, ref_run_in(&r, CX_F32, DIMS_(N, 1), zero),
		ref_run_in(&r, CX_F32, DIMS_(N, 1), one),
		ref_run_state(&r, CX_F32, DIMS_(1, 1, 4, 2), NULL), CX_NONE, CX_NONE,
		&(cx_attr_delta){.scale = 1, .chunk = N});
	ref_run_eval(&r);
	ref_run_expect(&r, o, v, N * 2, 1e-7, 1e-12);
	ref_run_end(&r);
}

typedef struct delta_case {
	int64_t n, chunk;
	double g;
	bool zero_keys;
} delta_case;

static void compare_delta(const delta_case *dc)
{
	enum { NK = 2, NV = 4, DK = 5, DV = 3 };
	ref_run r;
	cx_tensor o[2], q, k, v, g, b, s[2];
	cx_attr_norm unit = {.eps = 1e-6f};
	double *gate = noises(4, dc->n * NV, 0), *s0 = noises(6, 2 * NV * DK * DV, 1);
	ref_run_start(&r);
	for (int64_t i = 0; i < dc->n * NV; i++) gate[i] = dc->g;
	q = noisy(&r, 1, DIMS_(dc->n, NK, DK), 1);
	k = cx_l2norm(r.g, noisy(&r, 2, DIMS_(dc->n, NK, DK), dc->zero_keys ? 0 : 1), &unit);
	v = noisy(&r, 3, DIMS_(dc->n, NV, DV), 1);
	g = ref_run_in(&r, CX_F32, DIMS_(dc->n, NV), gate);
	b = cx_sigmoid(r.g, noisy(&r, 5, DIMS_(dc->n, NV), 2));
	for (int i = 0; i < 2; i++) {
		s[i] = ref_run_state(&r, CX_F32, DIMS_(2, NV, DK, DV), s0);
		o[i] = cx_delta_rule(r.g, q, k, v, g, b, s[i], CX_NONE,
			ref_run_in(&r, CX_I32, DIMS_(1), NUMS(1)),
			&(cx_attr_delta){.chunk = i ? dc->chunk : 0});
	}
	ref_run_eval(&r);
	expect_same(&r, o[0], o[1], 1e-6);
	expect_same(&r, cx_out(r.g, o[0], 1), cx_out(r.g, o[1], 1), 1e-6);
	for (int64_t i = 0; i < NV * DK * DV; i++) /* the other slot is untouched */
		assert_true(ref_run_get(&r, cx_out(r.g, o[0], 1), i) == (float)s0[i]);
	ref_run_end(&r);
	free(gate);
	free(s0);
}

static void test_delta_chunked(void **state)
{
	static const int64_t lengths[] = {1, 2, 63, 64, 65, 130};
	(void)state;
	for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
		compare_delta(&(delta_case){lengths[i], 64, -0.1, false});
		compare_delta(&(delta_case){lengths[i], 64, -20, false});
		compare_delta(&(delta_case){lengths[i], 64, -0.5, true});
		compare_delta(&(delta_case){lengths[i], 7, 0, false});
	}
}

/* Head maps: consecutive v-heads share a k-head, or (tiled) v-head p uses p mod n_k. */
static void test_delta_head_map(void **state)
{
	ref_run r;
	cx_tensor o[2];
	(void)state;
	ref_run_start(&r);
	for (int tiled = 0; tiled < 2; tiled++) {
		cx_tensor k = ref_run_in(&r, CX_F32, DIMS_(1, 2, 1), NUMS(1, 10)),
				  v = ref_run_in(&r, CX_F32, DIMS_(1, 4, 1), NUMS(1, 1, 1, 1));
		cx_tensor g = ref_run_in(&r, CX_F32, DIMS_(1, 4), NULL),
				  b = ref_run_in(&r, CX_F32, DIMS_(1, 4), NUMS(1, 1, 1, 1));
		o[tiled] =
			cx_delta_rule(r.g, k, k, v, g, b, ref_run_state(&r, CX_F32, DIMS_(1, 4, 1, 1), NULL),
				CX_NONE, CX_NONE, &(cx_attr_delta){.scale = 1, .tiled = tiled});
	}
	ref_run_eval(&r);
	EXPECT(&r, o[0], 0, 1, 1, 100, 100);
	EXPECT(&r, o[1], 0, 1, 100, 1, 100);
	ref_run_end(&r);
}

/* ---- conv1d, spec/llm.md 2.4 ---- */

static void test_conv(void **state)
{
	ref_run r;
	cx_tensor w, x, pre, y, parts[2], s, off, slot, rag;
	(void)state;
	ref_run_start(&r);
	w = ref_run_in(&r, CX_F32, DIMS_(1, 4), NUMS(0.1, 0.2, 0.3, 0.4));
	x = ref_run_in(&r, CX_F32, DIMS_(5, 1), NUMS(1, -2, 3, 0.5, 4));
	pre = cx_conv1d(r.g, x, w, CX_NONE, ref_run_state(&r, CX_F32, DIMS_(1, 3, 1), NULL), CX_NONE,
		CX_NONE, NULL);
	y = cx_conv1d(r.g, x, w, CX_NONE, ref_run_state(&r, CX_F32, DIMS_(1, 3, 1), NULL), CX_NONE,
		CX_NONE, &(cx_attr_conv1d){.silu = true});
	/* The same in calls of 1 and 4 tokens, the state carried over. */
	s = ref_run_state(&r, CX_F32, DIMS_(1, 3, 1), NULL);
	parts[0] = cx_conv1d(
		r.g, ref_run_in(&r, CX_F32, DIMS_(1, 1), NUMS(1)), w, CX_NONE, s, CX_NONE, CX_NONE, NULL);
	parts[1] = cx_conv1d(r.g, ref_run_in(&r, CX_F32, DIMS_(4, 1), NUMS(-2, 3, 0.5, 4)), w, CX_NONE,
		cx_out(r.g, parts[0], 1), CX_NONE, CX_NONE, NULL);
	/* Ragged: rows 0..1 in slot 1, nothing, rows 2..3 from zeros and not kept; row 4 is no
	 * sequence's. */
	off = ref_run_in(&r, CX_I32, DIMS_(4), NUMS(0, 2, 2, 4));
	slot = ref_run_in(&r, CX_I32, DIMS_(3), NUMS(1, 0, -1));
	rag = cx_conv1d(r.g, x, w, CX_NONE,
		ref_run_state(&r, CX_F32, DIMS_(2, 3, 1), NUMS(7, 8, 9, 10, 20, 30)), off, slot, NULL);
	ref_run_eval(&r);
	EXPECT(&r, pre, 1e-6, 0.4, -0.5, 0.8, 0.8, 2.15);
	EXPECT(&r, y, 1e-6, 0.2394750640, -0.1887703344, 0.5519795849, 0.5519795849, 1.9256878703);
	EXPECT(&r, cx_out(r.g, y, 1), 0, 3, 0.5, 4);
	EXPECT(&r, parts[0], 1e-6, 0.4);
	EXPECT(&r, parts[1], 1e-6, -0.5, 0.8, 0.8, 2.15);
	EXPECT(&r, cx_out(r.g, parts[1], 1), 0, 3, 0.5, 4);
	EXPECT(&r, rag, 1e-6, 0.1 * 10 + 0.2 * 20 + 0.3 * 30 + 0.4, 0.1 * 20 + 0.2 * 30 + 0.3 - 0.8,
		1.2, 0.9 + 0.2, 0);
	EXPECT(&r, cx_out(r.g, rag, 1), 0, 7, 8, 9, 30, 1, -2);
	ref_run_end(&r);
}

/* ---- golden layers, spec/llm.md 2.3, 2.4, 2.6 ---- */

static void test_gated_attention_layer(void **state)
{
	ref_run r;
	cx_attr_norm norm = {.eps = 1e-6f, .plus_one = true};
	cx_attr_rope rope = {.n_rot = 4, .theta = 100, .amplitude = 1};
	cx_tensor x, u, q, k, v, gate, pos, o, y;
	(void)state;
	ref_run_start(&r);
	x = golden_x(&r, 3);
	pos = ref_run_in(&r, CX_I32, DIMS_(3), NUMS(0, 1, 2));
	u = view(r.g, times(r.g, x, golden(&r, 32, 4, 1.1)), DIMS_(3, 2, 16));
	q = cx_slice(r.g, u, &(cx_attr_slice){.begin = DIMS_(0, 0, 0), .size = DIMS_(3, 2, 8)});
	gate = cx_slice(r.g, u, &(cx_attr_slice){.begin = DIMS_(0, 0, 8), .size = DIMS_(3, 2, 8)});
	k = view(r.g, times(r.g, x, golden(&r, 8, 4, 1.2)), DIMS_(3, 1, 8));
	v = view(r.g, times(r.g, x, golden(&r, 8, 4, 1.3)), DIMS_(3, 1, 8));
	q = cx_rope(r.g, cx_rmsnorm(r.g, q, ramp(&r, 8, -0.1, 0.1), &norm), pos, CX_NONE, CX_NONE,
		CX_NONE, &rope);
	k = cx_rope(r.g, cx_rmsnorm(r.g, k, ramp(&r, 8, 0, 0.05), &norm), pos, CX_NONE, CX_NONE,
		CX_NONE, &rope);
	o = cx_attention(
		r.g, q, k, v, CX_NONE, CX_NONE, CX_NONE, CX_NONE, &(cx_attr_attention){.causal = true});
	o = cx_mul(r.g, o, cx_sigmoid(r.g, gate));
	y = times(r.g, view(r.g, o, DIMS_(3, 16)), golden(&r, 4, 16, 1.4));
	ref_run_eval(&r);
	EXPECT(&r, y, 2e-6, -0.2045447072, -0.7149590583, -0.0857356253, 0.6801495604, -0.5913352036,
		0.2748717224, 0.7029357967, 0.0105270490, -0.0330666016, -0.1610210936, -0.0323095287,
		0.1479031106);
	ref_run_end(&r);
}

static void test_delta_layer(void **state)
{
	ref_run r;
	cx_graph *g;
	cx_attr_norm unit = {.eps = 1e-6f};
	cx_tensor x, m, conv, q, k, v, z, gate, beta, o, y;
	(void)state;
	ref_run_start(&r);
	g = r.g;
	x = golden_x(&r, 5);
	m = times(g, x, golden(&r, 16, 4, .1));
	conv = cx_conv1d(g, m, golden(&r, 16, 4, .5), CX_NONE,
		ref_run_state(&r, CX_F32, DIMS_(1, 3, 16), NULL), CX_NONE, CX_NONE,
		&(cx_attr_conv1d){.silu = true});
	q = cx_l2norm(g, view(g, columns(g, conv, 0, 4), DIMS_(5, 2, 2)), &unit);
	k = cx_l2norm(g, view(g, columns(g, conv, 4, 4), DIMS_(5, 2, 2)), &unit);
	v = view(g, columns(g, conv, 8, 8), DIMS_(5, 4, 2));
	z = times(g, x, golden(&r, 8, 4, .2));
	beta = cx_sigmoid(g, times(g, x, golden(&r, 4, 4, .3)));
	gate = cx_softplus(g, cx_add(g, times(g, x, golden(&r, 4, 4, .4)), ramp(&r, 4, 0.2, 0.1)));
	gate = cx_neg(g, cx_mul(g, gate, cx_exp(g, ramp(&r, 4, -0.3, 0.2))));
	o = cx_delta_rule(g, q, k, v, gate, beta, ref_run_state(&r, CX_F32, DIMS_(1, 4, 2, 2), NULL),
		CX_NONE, CX_NONE, NULL);
	y = cx_rmsnorm(g, o, ramp(&r, 2, 1, 0.1), &(cx_attr_norm){.eps = 1e-6f});
	y = cx_mul(g, y, cx_silu(g, view(g, z, DIMS_(5, 4, 2))));
	y = times(g, view(g, y, DIMS_(5, 8)), golden(&r, 4, 8, .6));
	ref_run_eval(&r);
	EXPECT(&r, gate, 1e-6, -0.9652081257, -0.5197272878, -1.1879296298, -1.3732546049);
	EXPECT(&r, beta, 1e-6, 0.6739671756, 0.3841340411, 0.5407458791, 0.5409634201);
	EXPECT(&r, y, 2e-6, 0.4105779609, 0.3982781202, 0.2072038794, -0.0768776026, -0.1884268813,
		0.0019448473, 0.1914435958, 0.2950093937, 0.5660769080, 0.6566926507, 0.4525399171,
		0.0452563860, 0.0731751245, 0.0604909618, 0.0206543275, -0.0284533786, -0.3057338308,
		-0.4588161997, -0.4059505471, -0.1708665857);
	EXPECT(&r, cx_out(g, o, 1), 1e-6, 0.0133208395, 0.0135990886, 0.0292227836, 0.0233239058);
	for (int i = 0; i < 4; i++)
		assert_true(is_close(NUMS(0.0755045802, 0.0603077873, 0.0484188333, 0.0403971279)[i],
			ref_run_get(&r, cx_out(g, o, 1), 12 + i), 1e-6, 1e-6));
	for (int i = 0; i < 3; i++) /* channel 0 of the window */
		assert_true(is_close(NUMS(-0.2489094171, 0.6342984475, -0.8887155254)[i],
			ref_run_get(&r, cx_out(g, conv, 1), 16 * i), 1e-6, 1e-6));
	ref_run_end(&r);
}

/* silu(x Wg') * (x Wu') Wd', the weights as in spec/llm.md 2.6. */
static cx_tensor swiglu(
	ref_run *r, cx_tensor x, int64_t width, double phi_gate, double phi_up, double phi_down)
{
	cx_tensor gate = cx_silu(r->g, times(r->g, x, golden(r, width, 4, phi_gate)));
	cx_tensor up = times(r->g, x, golden(r, width, 4, phi_up));
	return times(r->g, cx_mul(r->g, gate, up), golden(r, 4, width, phi_down));
}

static void test_moe(void **state)
{
	ref_run r;
	cx_graph *g;
	cx_tensor x, p, top, weight, y, all[4], stacked, share;
	(void)state;
	ref_run_start(&r);
	g = r.g;
	x = golden_x(&r, 2);
	p = cx_softmax(g, times(g, x, golden(&r, 4, 4, 2.0)), NULL);
	top = cx_topk(g, p, &(cx_attr_topk){.k = 2, .axis = -1});
	weight = cx_div(g, top, cx_sum(g, top, &(cx_attr_reduce){.axes = DIMS_(1), .keep = true}));
	for (int e = 0; e < 4; e++) all[e] = swiglu(&r, x, 2, 2.1 + e, 2.2 + e, 2.3 + e);
	stacked =
		view(g, cx_concat(g, all, 4, &(cx_attr_axis){.axis = 1}), DIMS_(8, 4)); /* row 4 t + e */
	y = cx_add(g,
		cx_iota(g, &(cx_attr_iota){.dims = DIMS_(2, 2), .axis = 0, .dtype = CX_I32, .step = 4}),
		cx_out(g, top, 1));
	y = cx_mul(
		g, cx_gather(g, stacked, y, &(cx_attr_axis){.axis = 0}), view(g, weight, DIMS_(2, 2, 1)));
	y = cx_sum(g, y, &(cx_attr_reduce){.axes = DIMS_(1)});
	share = cx_sigmoid(g, times(g, x, golden(&r, 1, 4, 3.4)));
	y = cx_add(g, y, cx_mul(g, share, swiglu(&r, x, 3, 3.1, 3.2, 3.3)));
	ref_run_eval(&r);
	EXPECT(&r, cx_out(g, top, 1), 0, 2, 0, 1, 3);
	EXPECT(&r, weight, 1e-6, 0.5953523232, 0.4046476768, 0.5263876752, 0.4736123248);
	EXPECT(&r, share, 1e-6, 0.3319857948, 0.5835785077);
	EXPECT(&r, y, 1e-6, -0.2219992165, -0.0747210537, 0.2142285239, 0.1209779736, -0.1591777359,
		0.1078826337, 0.1789685974, -0.0799336742);
	ref_run_end(&r);
}

/* ---- attention ---- */

static cx_tensor rows_of(cx_graph *g, cx_tensor x, int64_t first, int64_t n)
{
	cx_shape s = cx_tensor_shape(g, x);
	cx_attr_slice at = {.begin = DIMS_(first, 0, 0), .size = DIMS_(n, s.dim[1], s.dim[2])};
	return cx_slice(g, x, &at);
}

static cx_tensor batched(cx_graph *g, cx_tensor x)
{
	cx_shape s = cx_tensor_shape(g, x);
	return view(g, x, DIMS_(1, s.dim[0], s.dim[1], s.dim[2]));
}

/* By hand: one head of one query, softmax over the first n of `s` keys. */
static void test_attention_small(void **state)
{
	ref_run r;
	cx_tensor q, k, v, full, causal, blind, inf, window;
	double e = exp(0.5 * (2 - 1)), e2 = exp(0.5 * (3 - 1)), total = 1 + e + e2;
	(void)state;
	ref_run_start(&r);
	q = ref_run_in(&r, CX_F32, DIMS_(2, 1, 1), NUMS(1, 1));
	k = ref_run_in(&r, CX_F32, DIMS_(3, 1, 1), NUMS(1, 2, 3));
	v = ref_run_in(&r, CX_F32, DIMS_(3, 1, 2), NUMS(1, 10, 2, 20, 3, 30));
	full = cx_attention(
		r.g, q, k, v, CX_NONE, CX_NONE, CX_NONE, CX_NONE, &(cx_attr_attention){.scale = 0.5f});
	causal = cx_attention(r.g, q, k, v, CX_NONE, CX_NONE, CX_NONE, CX_NONE,
		&(cx_attr_attention){.scale = 0.5f, .causal = true});
	window = cx_attention(r.g, q, k, v, CX_NONE, CX_NONE, CX_NONE, CX_NONE,
		&(cx_attr_attention){.scale = 0.5f, .causal = true, .window = 1});
	blind = cx_attention(r.g, q, k, v, CX_NONE, CX_NONE,
		ref_run_in(&r, CX_BOOL, DIMS_(2, 3), NUMS(1, 0, 1, 0, 0, 0)), CX_NONE,
		&(cx_attr_attention){.scale = 0.5f});
	inf = cx_attention(r.g, q, k, v, CX_NONE, CX_NONE, CX_NONE,
		ref_run_in(&r, CX_F32, DIMS_(2, 3), NUMS(0, -INFINITY, 0, -INFINITY, -INFINITY, -INFINITY)),
		&(cx_attr_attention){.scale = 0.5f});
	ref_run_eval(&r);
	for (int i = 0; i < 4; i++)
		assert_true(is_close(
			(1 + 2 * e + 3 * e2) / total * (i % 2 ? 10 : 1), ref_run_get(&r, full, i), 1e-6, 0));
	/* Bottom-right: query 0 of 2 sees keys 0 and 1 of 3. */
	assert_true(is_close((1 + 2 * e) / (1 + e), ref_run_get(&r, causal, 0), 1e-6, 0));
	assert_true(is_close(ref_run_get(&r, full, 2), ref_run_get(&r, causal, 2), 0, 0));
	EXPECT(&r, window, 0, 2, 20, 3, 30);
	assert_true(is_close((1 + 3 * e2) / (1 + e2), ref_run_get(&r, blind, 0), 1e-6, 0));
	assert_true(ref_run_get(&r, blind, 2) == 0 && ref_run_get(&r, blind, 3) == 0);
	expect_same(&r, blind, inf, 0);
	ref_run_end(&r);
}

/* A ragged batch gives each sequence what it gets alone, dense; a masked NaN value does not count.
 */
static void test_attention_ragged(void **state)
{
	static const int64_t q_at[] = {0, 3, 3, 4, 8}, k_at[] = {0, 5, 7, 8, 15};
	ref_run r;
	cx_tensor q, k, v, rag, one;
	cx_attr_attention at = {.causal = true, .window = 3};
	(void)state;
	ref_run_start(&r);
	q = noisy(&r, 1, DIMS_(9, 4, 6), 2); /* one row more than the sequences have */
	k = noisy(&r, 2, DIMS_(15, 2, 6), 2);
	v = noisy(&r, 3, DIMS_(15, 2, 5), 2);
	rag = cx_attention(r.g, q, k, v, ref_run_in(&r, CX_I32, DIMS_(5), NUMS(0, 3, 3, 4, 8)),
		ref_run_in(&r, CX_I32, DIMS_(5), NUMS(0, 5, 7, 8, 15)), CX_NONE, CX_NONE, &at);
	cx_tensor alone[4], part[4];
	for (int b = 0; b < 4; b++) {
		int64_t nq = q_at[b + 1] - q_at[b], nk = k_at[b + 1] - k_at[b];
		one = cx_attention(r.g, batched(r.g, rows_of(r.g, q, q_at[b], nq)),
			batched(r.g, rows_of(r.g, k, k_at[b], nk)), batched(r.g, rows_of(r.g, v, k_at[b], nk)),
			CX_NONE, CX_NONE, CX_NONE, CX_NONE, &at);
		alone[b] = one;
		part[b] = rows_of(r.g, rag, q_at[b], nq);
	}
	cx_tensor rest = rows_of(r.g, rag, 8, 1);
	ref_run_eval(&r);
	for (int b = 0; b < 4; b++) expect_same(&r, alone[b], part[b], 0);
	for (int64_t i = 0; i < 20; i++) assert_true(ref_run_get(&r, rest, i) == 0);
	ref_run_end(&r);
}

/* Keys scattered over pages in shuffled order give what dense keys give. */
static void test_attention_paged(void **state)
{
	enum { PAGE = 4, SLOTS = 40, HK = 2, D = 3 };
	static const int table[2][4] = {{7, 2, 9, -1}, {0, 5, 3, 8}};
	static const int64_t len[2] = {10, 13}, n_q[2] = {3, 1};
	ref_run r;
	double *rows[2] = {noises(1, 23 * HK * D, 1), noises(2, 23 * HK * D, 1)}, *cache[2];
	cx_tensor q, k[2], dense, paged, kc[2], qs;
	(void)state;
	ref_run_start(&r);
	for (int w = 0; w < 2; w++) { /* keys, values */
		cache[w] = noises(9, SLOTS * HK * D, 1000);
		for (int64_t b = 0, row = 0; b < 2; b++)
			for (int64_t p = 0; p < len[b]; p++, row++)
				memcpy(cache[w] + (table[b][p / PAGE] * PAGE + p % PAGE) * HK * D,
					rows[w] + row * HK * D, HK * D * 8);
		k[w] = ref_run_in(&r, CX_F32, DIMS_(23, HK, D), rows[w]);
		kc[w] = ref_run_in(&r, CX_F32, DIMS_(SLOTS, HK, D), cache[w]);
	}
	q = noisy(&r, 4, DIMS_(6, 4, D), 1); /* two rows of padding */
	qs = rows_of(r.g, q, 0, 4);
	for (int64_t window = 0; window <= 4; window += 4) {
		dense = cx_attention(r.g, qs, k[0], k[1],
			ref_run_in(&r, CX_I32, DIMS_(3), NUMS(0, n_q[0], n_q[0] + n_q[1])),
			ref_run_in(&r, CX_I32, DIMS_(3), NUMS(0, len[0], len[0] + len[1])), CX_NONE, CX_NONE,
			&(cx_attr_attention){.causal = true, .window = window});
		paged = cx_paged_attention(r.g, q, kc[0], kc[1],
			ref_run_in(&r, CX_I32, DIMS_(2, 4), NUMS(7, 2, 9, -1, 0, 5, 3, 8)),
			ref_run_in(&r, CX_I32, DIMS_(3), NUMS(0, 3, 4)),
			ref_run_in(&r, CX_I32, DIMS_(2), NUMS(10, 13)),
			&(cx_attr_paged){.page = PAGE, .window = window});
		cx_tensor head = rows_of(r.g, paged, 0, 4), tail = rows_of(r.g, paged, 4, 2);
		ref_run_eval(&r);
		expect_same(&r, dense, head, 0);
		for (int64_t i = 0; i < 24; i++) assert_true(ref_run_get(&r, tail, i) == 0);
	}
	ref_run_end(&r);
	for (int w = 0; w < 2; w++) {
		free(rows[w]);
		free(cache[w]);
	}
}

/* ---- scans, spec/memory.md 1.3 ---- */

static void test_scan(void **state)
{
	ref_run r;
	cx_tensor a, b, h0, reset, y, back;
	(void)state;
	ref_run_start(&r);
	a = ref_run_in(&r, CX_F32, DIMS_(1, 4, 1), NUMS(2, 3, 4, 5));
	b = ref_run_in(&r, CX_F32, DIMS_(1, 4, 1), NUMS(1, 1, 1, 1));
	h0 = ref_run_in(&r, CX_F32, DIMS_(1, 1), NUMS(10));
	reset = ref_run_in(&r, CX_BOOL, DIMS_(1, 4), NUMS(0, 0, 1, 0));
	y = cx_scan(r.g, a, b, h0, reset, NULL);
	back = cx_scan(r.g, a, b, h0, CX_NONE, &(cx_attr_reset){.reverse = true});
	ref_run_eval(&r);
	EXPECT(&r, y, 0, 21, 64, 1, 6);
	EXPECT(&r, cx_out(r.g, y, 1), 0, 6);
	EXPECT(&r, back, 0, 2 * (3 * (4 * 51 + 1) + 1) + 1, 3 * (4 * 51 + 1) + 1, 4 * 51 + 1, 51);
	EXPECT(&r, cx_out(r.g, back, 1), 0, 2 * (3 * (4 * 51 + 1) + 1) + 1);
	ref_run_end(&r);
}

/* lambda = i: a quarter turn per step; with a reset at step 2, and in two calls as in one. */
static void test_cscan(void **state)
{
	ref_run r;
	cx_tensor zero, one, h[2], y, part, next;
	(void)state;
	ref_run_start(&r);
	zero = ref_run_in(&r, CX_F32, DIMS_(1, 4, 1), NULL);
	one = ref_run_in(&r, CX_F32, DIMS_(1, 4, 1), NUMS(1, 1, 1, 1));
	h[0] = ref_run_in(&r, CX_F32, DIMS_(1, 1), NUMS(3));
	h[1] = ref_run_in(&r, CX_F32, DIMS_(1, 1), NUMS(5));
	y = cx_cscan(r.g, zero, one, zero, one, h[0], h[1],
		ref_run_in(&r, CX_BOOL, DIMS_(1, 4), NUMS(0, 0, 1, 0)), NULL);
	cx_tensor z3 = ref_run_in(&r, CX_F32, DIMS_(1, 3, 1), NULL),
			  o3 = ref_run_in(&r, CX_F32, DIMS_(1, 3, 1), NUMS(1, 1, 1));
	cx_tensor z1 = ref_run_in(&r, CX_F32, DIMS_(1, 1, 1), NULL),
			  o1 = ref_run_in(&r, CX_F32, DIMS_(1, 1, 1), NUMS(1));
	part = cx_cscan(r.g, z1, o1, z1, o1, h[0], h[1], CX_NONE, NULL);
	next = cx_cscan(r.g, z3, o3, z3, o3, cx_out(r.g, part, 2), cx_out(r.g, part, 3),
		ref_run_in(&r, CX_BOOL, DIMS_(1, 3), NUMS(0, 1, 0)), NULL);
	ref_run_eval(&r);
	EXPECT(&r, y, 0, -5, -4, 0, -1); /* h <- i h + i: re = -im' , im = re' + 1 */
	EXPECT(&r, cx_out(r.g, y, 1), 0, 4, -4, 1, 1);
	EXPECT(&r, cx_out(r.g, y, 2), 0, -1);
	EXPECT(&r, cx_out(r.g, y, 3), 0, 1);
	EXPECT(&r, next, 0, -4, 0, -1);
	EXPECT(&r, cx_out(r.g, next, 1), 0, -4, 1, 1);
	ref_run_end(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rope),
		cmocka_unit_test(test_norms),
		cmocka_unit_test(test_delta_example),
		cmocka_unit_test(test_delta_equal_keys),
		cmocka_unit_test(test_delta_chunked),
		cmocka_unit_test(test_delta_head_map),
		cmocka_unit_test(test_conv),
		cmocka_unit_test(test_gated_attention_layer),
		cmocka_unit_test(test_delta_layer),
		cmocka_unit_test(test_moe),
		cmocka_unit_test(test_attention_small),
		cmocka_unit_test(test_attention_ragged),
		cmocka_unit_test(test_attention_paged),
		cmocka_unit_test(test_scan),
		cmocka_unit_test(test_cscan),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
