/* test_cpu_rows.c - what a row of the cpu backend's results does not depend on: the rows beside it.
 *
 * Row by row against all at once, bit for bit; prompts in chunks of 1, 3, 64 and whole through
 * attention, paged attention (with NaN where later keys will come), conv1d, delta_rule and scan,
 * which carry their states; and a submit that allocates nothing. On every instruction set of this
 * machine, with 1 and 3 threads. */
#include "tests/cpu_run.h"
#include "tests/rng.h"

#include "backends/cpu/cpu.h"
#include "graph/quant.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char *const isa_names[] = {"generic", "avx2", "avx512"};
enum { N_DEV = 6 };
static cx_runtime *runtimes[N_DEV];
static cx_device *devices[N_DEV];

static int open_devices(void **state)
{
	(void)state;
	for (int i = 0; i < N_DEV; i++) {
		cx_config cfg = {.isa = isa_names[i / 2], .n_threads = i % 2 ? 3 : 1};
		cx_err err = {0};
		if (cx_runtime_create(&cfg, &runtimes[i], &err) != CX_OK) return -1;
		if (cx_device_open(runtimes[i], "cpu", 0, &devices[i], &err) != CX_OK) continue;
		((cx_cpu_device *)devices[i])->share_ns = 0;
	}
	return devices[0] ? 0 : -1;
}

static int close_devices(void **state)
{
	(void)state;
	for (int i = 0; i < N_DEV; i++) {
		cx_device_close(devices[i]);
		cx_runtime_free(runtimes[i]);
	}
	return 0;
}

/* ---- a graph on given bytes ---- */

enum { MAX_LEAVES = 12 };
typedef struct sheet {
	cx_graph *g;
	const void *data[MAX_LEAVES]; /* by leaf id: leaves come first */
} sheet;

static void give(void *ctx, uint32_t id, void *buf, uint64_t bytes)
{
	const sheet *s = ctx;
	assert_true(id < MAX_LEAVES && s->data[id]);
	memcpy(buf, s->data[id], bytes);
}

static sheet sheet_new(void)
{
	sheet s = {0};
	cx_err err = {0};
	assert_int_equal(cx_graph_create(NULL, &s.g, &err), CX_OK);
	return s;
}

static cx_tensor put(sheet *s, cx_dtype t, const void *data, cx_list dims)
{
	char name[16];
	cx_tensor x;
	snprintf(name, sizeof name, "x%u", cx_graph_n_nodes(s->g));
	x = cx_input(s->g, name, t, dims.n, dims.v);
	assert_true(x.id < MAX_LEAVES);
	s->data[x.id] = data;
	return x;
}

/* Runs t as one step on a device. Frees the sheet. */
static step_result run(sheet *s, cx_tensor t, cx_device *dev)
{
	step_values v;
	step_result r;
	cx_err err = {0};
	cx_output(s->g, "y", t);
	if (cx_graph_finish(s->g, &err) != CX_OK) fail_msg("%s", err.msg);
	step_values_make(&v, s->g, give, s);
	step_run(dev, &v, t.id, -1, 0, &r);
	if (!r.kernel) fail_msg("%s has no kernel", cx__ops[s->g->nodes[t.id].op].name);
	step_values_free(&v);
	cx_graph_free(s->g);
	return r;
}

static float *numbers(int64_t n, uint64_t seed, float lo, float hi)
{
	float *x = malloc((size_t)n * sizeof *x);
	cx_rng rng = cx__rng_make(seed, 1);
	for (int64_t i = 0; i < n; i++) x[i] = cx__rng_float(&rng, lo, hi);
	return x;
}

static void expect_bits(const void *want, const void *got, size_t bytes, const char *what, int dev)
{
	for (size_t i = 0; i < bytes / 4; i++)
		if (memcmp((const char *)want + 4 * i, (const char *)got + 4 * i, 4) != 0)
			fail_msg("%s on %s: word %zu of %zu is %g, alone %g", what,
				cx_device_name(devices[dev]), i, bytes / 4, (double)((const float *)want)[i],
				(double)((const float *)got)[i]);
}

/* ---- row ops ---- */

enum { ROWS = 13, COLS = 1027, OUT = 70 };

typedef cx_tensor row_op(sheet *s, cx_tensor x);
static float *vec_w, *vec_b, *mat_w;
static char *mat_q;

#define ROW_OP(name, expr)                                                                         \
	static cx_tensor row_##name(sheet *s, cx_tensor x)                                             \
	{                                                                                              \
		(void)s;                                                                                   \
		return expr;                                                                               \
	}
#define W1 put(s, CX_F32, vec_w, cx_list_of(1, COLS))
#define B1 put(s, CX_F32, vec_b, cx_list_of(1, COLS))
ROW_OP(softmax, cx_softmax(s->g, x, NULL))
ROW_OP(log_softmax, cx_log_softmax(s->g, x, NULL))
ROW_OP(l2norm, cx_l2norm(s->g, x, NULL))
ROW_OP(rmsnorm, cx_rmsnorm(s->g, x, W1, NULL))
ROW_OP(sum, cx_sum(s->g, x, &(cx_attr_reduce){.axes = cx_list_of(1, 1)}))
ROW_OP(gelu, cx_gelu(s->g, x))
ROW_OP(cumsum, cx_cumsum(s->g, x, NULL))
static cx_tensor row_layernorm(sheet *s, cx_tensor x)
{
	cx_tensor w = W1;
	return cx_layernorm(s->g, x, w, B1, NULL);
}
static cx_tensor row_matmul(sheet *s, cx_tensor x)
{
	return cx_matmul(s->g, x, put(s, CX_F32, mat_w, cx_list_of(2, OUT, COLS)),
		&(cx_attr_matmul){.trans_b = true});
}
static cx_tensor row_linear(sheet *s, cx_tensor x)
{
	cx_tensor in[5] = {x, W1, put(s, CX_F32, mat_w, cx_list_of(2, OUT, COLS)),
		put(s, CX_F32, mat_w, cx_list_of(2, OUT, COLS))};
	cx_attr_linear at = cx_attr_linear_default();
	at.n_w = 2;
	at.norm = at.norm_in = 1;
	at.act = CX_OP_silu;
	at.glu = true;
	return cx_node_add(s->g, CX_OP_linear, in, 4, &at);
}

static void test_rows(void **state)
{
	static const struct {
		const char *name;
		row_op *op;
	} ops[] = {{"softmax", row_softmax}, {"log_softmax", row_log_softmax}, {"l2norm", row_l2norm},
		{"rmsnorm", row_rmsnorm}, {"layernorm", row_layernorm}, {"sum", row_sum},
		{"gelu", row_gelu}, {"cumsum", row_cumsum}, {"matmul", row_matmul}, {"linear", row_linear}};
	float *x = numbers((int64_t)ROWS * COLS, 5, -2, 2);
	(void)state;
	vec_w = numbers(COLS, 6, -1, 1);
	vec_b = numbers(COLS, 7, -1, 1);
	mat_w = numbers((int64_t)OUT * COLS, 8, -1, 1);
	for (size_t k = 0; k < sizeof ops / sizeof ops[0]; k++)
		for (int d = 0; d < N_DEV; d++) {
			sheet s;
			step_result all;
			if (!devices[d]) continue;
			s = sheet_new();
			all = run(&s, ops[k].op(&s, put(&s, CX_F32, x, cx_list_of(2, ROWS, COLS))), devices[d]);
			for (int64_t r = 0; r < ROWS; r += 4) {
				int64_t n = r + 4 <= ROWS ? r % 3 + 1 : 1; /* 1, 2 or 3 rows */
				size_t row = all.bytes[0] / ROWS;
				step_result one;
				s = sheet_new();
				one = run(&s,
					ops[k].op(&s, put(&s, CX_F32, x + r * COLS, cx_list_of(2, (int)n, COLS))),
					devices[d]);
				expect_bits((char *)all.out[0] + (size_t)r * row, one.out[0], (size_t)n * row,
					ops[k].name, d);
				step_result_free(&one);
			}
			step_result_free(&all);
		}
	free(x);
	free(vec_w);
	free(vec_b);
	free(mat_w);
}

/* A quantised weight: 1 row against 20. */
static void test_quantised_rows(void **state)
{
	enum { N = 40, K = 512, M = 20 };
	static const cx_dtype types[] = {CX_Q8_0, CX_Q4_0, CX_Q4_K, CX_Q6_K};
	float *x = numbers((int64_t)M * K, 11, -2, 2), *w = numbers((int64_t)N * K, 12, -1, 1);
	mat_q = malloc((size_t)N * K * 4);
	(void)state;
	for (size_t q = 0; q < sizeof types / sizeof types[0]; q++)
		for (int d = 0; d < N_DEV; d++) {
			const cx_attr_matmul at = {.trans_b = true};
			step_result all, one;
			sheet s = sheet_new();
			cx_tensor a, b;
			assert_true(cx_quant_row(types[q], w, mat_q, (int64_t)N * K));
			if (!devices[d]) {
				cx_graph_free(s.g);
				continue;
			}
			a = put(&s, CX_F32, x, cx_list_of(2, M, K));
			b = cx_weight(s.g, "w", types[q], 2, (int64_t[]){N, K});
			s.data[b.id] = mat_q;
			all = run(&s, cx_matmul(s.g, a, b, &at), devices[d]);
			for (int r = 0; r < M; r += 7) {
				s = sheet_new();
				a = put(&s, CX_F32, x + (int64_t)r * K, cx_list_of(2, 1, K));
				b = cx_weight(s.g, "w", types[q], 2, (int64_t[]){N, K});
				s.data[b.id] = mat_q;
				one = run(&s, cx_matmul(s.g, a, b, &at), devices[d]);
				expect_bits((char *)all.out[0] + (size_t)r * N * 4, one.out[0], N * 4,
					cx_dtype_get(types[q])->name, d);
				step_result_free(&one);
			}
			step_result_free(&all);
		}
	free(x);
	free(w);
	free(mat_q);
}

/* ---- prompts in chunks ---- */

enum { T = 150, H = 6, HK = 2, D = 40, PAGE = 16, PAGES = 10 };
static const int chunks[] = {1, 3, 64, T};

/* Attention over rows [a, b) of the prompt; keys of later rows are NaN or not there. */
static step_result attend(cx_device *dev, bool paged, const float *q, const float *k,
	const float *v, int a, int b, int window)
{
	sheet s = sheet_new();
	size_t slots = (size_t)PAGE * PAGES * HK * D, row = HK * D;
	float *kc = malloc(slots * 4), *vc = malloc(slots * 4);
	int32_t table[PAGES], off[2] = {0, b - a}, len[1] = {b};
	cx_tensor t, in[6];
	step_result r;
	for (int i = 0; i < PAGES; i++) table[i] = (i * 7 + 3) % PAGES;
	for (size_t i = 0; i < slots; i++) kc[i] = vc[i] = NAN;
	for (int p = 0; p < b; p++) {
		int slot = table[p / PAGE] * PAGE + p % PAGE;
		memcpy(kc + (size_t)slot * row, k + (size_t)p * row, row * 4);
		memcpy(vc + (size_t)slot * row, v + (size_t)p * row, row * 4);
	}
	in[0] = paged ? put(&s, CX_F32, q + (size_t)a * H * D, cx_list_of(3, b - a, H, D))
				  : put(&s, CX_F32, q + (size_t)a * H * D, cx_list_of(4, 1, b - a, H, D));
	if (paged) {
		in[1] = put(&s, CX_F32, kc, cx_list_of(3, PAGE * PAGES, HK, D));
		in[2] = put(&s, CX_F32, vc, cx_list_of(3, PAGE * PAGES, HK, D));
		in[3] = put(&s, CX_I32, table, cx_list_of(2, 1, PAGES));
		in[4] = put(&s, CX_I32, off, cx_list_of(1, 2));
		in[5] = put(&s, CX_I32, len, cx_list_of(1, 1));
		t = cx_paged_attention(s.g, in[0], in[1], in[2], in[3], in[4], in[5],
			&(cx_attr_paged){.page = PAGE, .window = window});
	} else {
		in[1] = put(&s, CX_F32, k, cx_list_of(4, 1, b, HK, D));
		in[2] = put(&s, CX_F32, v, cx_list_of(4, 1, b, HK, D));
		t = cx_attention(s.g, in[0], in[1], in[2], CX_NONE, CX_NONE, CX_NONE, CX_NONE,
			&(cx_attr_attention){.causal = true, .window = window});
	}
	r = run(&s, t, dev);
	free(kc);
	free(vc);
	return r;
}

static void test_attention_chunks(void **state)
{
	float *q = numbers((int64_t)T * H * D, 1, -2, 2), *k = numbers((int64_t)T * HK * D, 2, -2, 2);
	float *v = numbers((int64_t)T * HK * D, 3, -2, 2);
	(void)state;
	for (int d = 0; d < N_DEV; d++)
		for (int window = 0; window <= 70 && devices[d]; window += 70) {
			step_result whole = attend(devices[d], false, q, k, v, 0, T, window);
			for (int paged = 0; paged < 2; paged++)
				for (size_t c = 0; c < sizeof chunks / sizeof chunks[0]; c++) {
					/* single rows: the ends of blocks are enough */
					for (int a = 0; a < T; a += chunks[c] == 1 ? 21 : chunks[c]) {
						int b = a + chunks[c] < T ? a + chunks[c] : T;
						step_result part = attend(devices[d], paged, q, k, v, a, b, window);
						expect_bits((float *)whole.out[0] + (size_t)a * H * D, part.out[0],
							(size_t)(b - a) * H * D * 4, paged ? "paged_attention" : "attention",
							d);
						step_result_free(&part);
						if (chunks[c] == 3 && a > 12) break;
					}
				}
			step_result_free(&whole);
		}
	free(q);
	free(k);
	free(v);
}

/* Rows [a, b) of a sequence op, from `state` on; *next takes the new state. */
typedef step_result seq_op(cx_device *dev, const float *const *x, int a, int b, const float *state);
enum { C = 37, K = 4, NK = 2, NV = 4, DK = 16, DV = 24 };

static step_result seq_conv(cx_device *dev, const float *const *x, int a, int b, const float *state)
{
	sheet s = sheet_new();
	cx_tensor in = put(&s, CX_F32, x[0] + a * C, cx_list_of(2, b - a, C)),
			  w = put(&s, CX_F32, x[1], cx_list_of(2, C, K));
	cx_tensor st = put(&s, CX_F32, state, cx_list_of(3, 1, K - 1, C));
	return run(&s,
		cx_conv1d(s.g, in, w, CX_NONE, st, CX_NONE, CX_NONE, &(cx_attr_conv1d){.silu = true}), dev);
}

static step_result seq_delta(
	cx_device *dev, const float *const *x, int a, int b, const float *state)
{
	sheet s = sheet_new();
	cx_tensor q = put(&s, CX_F32, x[0] + a * NK * DK, cx_list_of(3, b - a, NK, DK));
	cx_tensor k = put(&s, CX_F32, x[1] + a * NK * DK, cx_list_of(3, b - a, NK, DK));
	cx_tensor v = put(&s, CX_F32, x[2] + a * NV * DV, cx_list_of(3, b - a, NV, DV));
	cx_tensor g = put(&s, CX_F32, x[3] + a * NV, cx_list_of(2, b - a, NV));
	cx_tensor be = put(&s, CX_F32, x[3] + a * NV, cx_list_of(2, b - a, NV));
	cx_tensor st = put(&s, CX_F32, state, cx_list_of(4, 1, NV, DK, DV));
	return run(&s, cx_delta_rule(s.g, q, k, v, g, be, st, CX_NONE, CX_NONE, NULL), dev);
}

static step_result seq_scan(cx_device *dev, const float *const *x, int a, int b, const float *state)
{
	sheet s = sheet_new();
	cx_tensor f = put(&s, CX_F32, x[3] + a * C, cx_list_of(3, 1, b - a, C));
	cx_tensor u = put(&s, CX_F32, x[0] + a * C, cx_list_of(3, 1, b - a, C));
	cx_tensor st = put(&s, CX_F32, state, cx_list_of(2, 1, C));
	return run(&s, cx_scan(s.g, f, u, st, CX_NONE, NULL), dev);
}

static void test_sequence_chunks(void **state)
{
	static const struct {
		const char *name;
		seq_op *op;
		size_t row, n_state;
	} ops[] = {{"conv1d", seq_conv, C, (K - 1) * C},
		{"delta_rule", seq_delta, NV * DV, NV * DK * DV}, {"scan", seq_scan, C, C}};
	const float *x[4];
	(void)state;
	for (int i = 0; i < 4; i++)
		x[i] = numbers(
			(int64_t)T * NV * DV, 20 + (uint64_t)i, i == 3 ? -0.9f : -0.5f, i == 3 ? 0 : 0.5f);
	for (size_t k = 0; k < 3; k++)
		for (int d = 0; d < N_DEV; d++)
			for (size_t c = 0; c + 1 < sizeof chunks / sizeof chunks[0] && devices[d]; c++) {
				float *carried = calloc(ops[k].n_state, 4);
				step_result whole = ops[k].op(devices[d], x, 0, T, carried);
				for (int a = 0; a < T; a += chunks[c]) {
					int b = a + chunks[c] < T ? a + chunks[c] : T;
					step_result part = ops[k].op(devices[d], x, a, b, carried);
					expect_bits((float *)whole.out[0] + (size_t)a * ops[k].row, part.out[0],
						(size_t)(b - a) * ops[k].row * 4, ops[k].name, d);
					memcpy(carried, part.out[1], ops[k].n_state * 4);
					step_result_free(&part);
				}
				expect_bits(whole.out[1], carried, ops[k].n_state * 4, ops[k].name, d);
				step_result_free(&whole);
				free(carried);
			}
	for (int i = 0; i < 4; i++) free((void *)x[i]);
}

/* ---- devices ---- */

static void test_open(void **state)
{
	cx_err err = {0};
	cx_runtime *rt;
	cx_device *dev;
	cx_limits lim;
	(void)state;
	assert_int_equal(cx_runtime_create(&(cx_config){.isa = "mmx"}, &rt, &err), CX_OK);
	assert_int_equal(cx_device_open(rt, "cpu", 0, &dev, &err), CX_ERR_ARGUMENT);
	assert_non_null(strstr(err.msg, "mmx"));
	cx_runtime_free(rt);
	err = (cx_err){0};
	assert_int_equal(cx_runtime_create(&(cx_config){.n_threads = 2}, &rt, &err), CX_OK);
	assert_int_equal(cx_device_open(rt, "cpu", 1, &dev, &err), CX_ERR_ARGUMENT);
	err = (cx_err){0};
	assert_int_equal(cx_device_open(rt, "cpu", 0, &dev, &err), CX_OK);
	dev->backend->limits(dev, &lim);
	assert_int_equal(lim.n_threads, 2);
	assert_int_equal(lim.alignment, 64);
	assert_true(lim.maps_host);
	cx_device_close(dev);
	cx_runtime_free(rt);
}

/* Every allocation of open, alloc, compile failed in turn: an error and no leak; and submit
 * allocates nothing. */
static void test_allocations(void **state)
{
	cx_desc x = {.dtype = CX_F32, .rank = 2, .dim = {4, 100}};
	cx_attr_softmax attr = cx_attr_softmax_default();
	bool done = false;
	(void)state;
	cx__desc_dense(&x);
	attr.axis = 1;
	for (long n = 0; !done && n < 1000; n++) {
		cx_fault fault = {.countdown = n};
		cx_config cfg = {.alloc = cx_alloc_fault(&fault), .n_threads = 1};
		cx_runtime *rt = NULL;
		cx_device *dev = NULL;
		cx_buffer *buf = NULL;
		cx_program *prog = NULL;
		cx_err err = {0};
		cx_operand in = {x, 0, 0}, out = {x, 0, 1600};
		cx_step step = {
			.op = CX_OP_softmax, .attr = &attr, .n_in = 1, .n_out = 1, .in = &in, .out = &out};
		cx_status st = cx_runtime_create(&cfg, &rt, &err);
		if (st == CX_OK) st = cx_device_open(rt, "cpu", 0, &dev, &err);
		if (st == CX_OK) st = dev->backend->alloc(dev, 1 << 16, NULL, &buf, &err);
		if (st == CX_OK) {
			cx_kernel_key key = {CX_OP_softmax, &attr, NULL, &x, 1, &x, 1};
			step.kernel = dev->backend->find(dev, &key);
			step.scratch_off = 4096;
			step.scratch_bytes = step.kernel->scratch(dev, &key);
			st = dev->backend->compile(dev, &step, 1, &(cx_bindings){&buf, 1}, &prog, &err);
		}
		if (st == CX_OK) {
			long calls = fault.n_calls;
			for (int i = 0; i < 3; i++)
				assert_int_equal(dev->backend->submit(prog, 0, 1, &err), CX_OK);
			assert_int_equal(fault.n_calls, calls);
			dev->backend->discard(prog);
		}
		if (buf) dev->backend->free(buf);
		cx_device_close(dev);
		cx_runtime_free(rt);
		assert_int_equal(st, fault.fired ? CX_ERR_MEMORY : CX_OK);
		assert_int_equal(fault.n_live, 0);
		done = !fault.fired;
	}
	assert_true(done);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rows),
		cmocka_unit_test(test_quantised_rows),
		cmocka_unit_test(test_attention_chunks),
		cmocka_unit_test(test_sequence_chunks),
		cmocka_unit_test(test_open),
		cmocka_unit_test(test_allocations),
	};
	return cmocka_run_group_tests(tests, open_devices, close_devices);
}
