/* test_quantize.c - decoders to int8: the scales, the two cuts of activations on distributions with
 * a known answer, a whole model (its layers, its file, the same products on every device), files
 * that are damaged, data that is bad, and the command. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <math.h>
#include <sys/stat.h>

#include "graph/quant.h"
#include "models/decoder/quantize.h"
#include "models/decoder/runner.h"
#include "tests/cortex_make.h"
#include "tests/vulkan_env.h"

#define OK(call)                                                                                   \
	do {                                                                                           \
		cx_err err_ = {0}, *err = &err_;                                                           \
		cx_status st_ = (call);                                                                    \
		if (st_ != CX_OK) fail_msg("%s: %s", #call, err_.msg);                                     \
	} while (0)

enum { REF, CPU, OPENCL, VULKAN, N_DEVICES };
static const char *const dev_name[N_DEVICES] = {"ref", "cpu", "opencl", "vulkan"};
static cx_runtime *rt;
static cx_device *dev[N_DEVICES]; /* NULL: this machine has none */

static int open_devices(void **state)
{
	cx_config config = {.n_threads = 2};
	(void)state;
	vulkan_env();
	if (cx_runtime_create(&config, &rt, NULL) != CX_OK) return -1;
	for (int i = 0; i < N_DEVICES; i++) {
		cx_err err = {0};
		if (cx_device_open(rt, dev_name[i], 0, &dev[i], &err) == CX_OK) continue;
		dev[i] = NULL;
		print_message("# without %s: %s\n", dev_name[i], err.msg);
		if (i <= CPU) return -1;
	}
	return 0;
}

static int close_devices(void **state)
{
	(void)state;
	for (int i = 0; i < N_DEVICES; i++) cx_device_close(dev[i]);
	cx_runtime_free(rt);
	return 0;
}

/* In [0, 1), a function of i. */
static double unit(uint32_t i)
{
	return golden_word("quantize", i) / 4294967296.0;
}

/* Standard normal, by its distribution's inverse: Box and Muller on two words. */
static float normal(uint32_t i)
{
	double r = sqrt(-2 * log(1 - unit(2 * i)));
	return (float)(r * cos(6.283185307179586 * unit(2 * i + 1)));
}

/* ---- weights ---- */

static void scales_of_rows(void **state)
{
	enum { N = 7, K = 33 };
	static const float bad[] = {NAN, INFINITY, -INFINITY};
	float w[N * K], row[K];
	unsigned char q[N * K + 3 + 4 * N];
	(void)state;
	for (int i = 0; i < N * K; i++) w[i] = normal((uint32_t)i) * (float)(1 << i / K);
	memset(w + 3 * K, 0, K * sizeof *w);                      /* a row of zeros */
	for (int i = 0; i < K; i++) w[4 * K + i] = (float)i - 16; /* scale 16 / 127 ... */
	for (int i = 0; i < K; i++) w[5 * K + i] = (float)i / 2;  /* ... and one with ties: */
	w[5 * K] = 127;                                           /* scale 1, halves to even */
	assert_true(cx_quantize_rows(w, N, K, q));
	for (int r = 0; r < N; r++) {
		float scale = cx_i8c_scale(q, N, K, r), most = 0;
		for (int i = 0; i < K; i++) most = fmaxf(most, fabsf(w[r * K + i]));
		assert_true(scale == fmaxf(most, 1e-8f) / 127);
		cx_dequant_i8c_row(q, N, K, r, row);
		for (int i = 0; i < K; i++) {
			int v = ((int8_t *)q)[r * K + i];
			assert_in_range(v + 127, 0, 254);
			assert_true(fabsf(row[i] - w[r * K + i]) <= 0.5f * scale * 1.00001f);
			if (r == 3) assert_int_equal(v, 0);
			if (r == 5 && i > 0) assert_int_equal(v, i % 2 ? (i / 2 + 1) / 2 * 2 : i / 2);
		}
	}
	for (int i = 0; i < 3; i++) {
		w[N * K - 1] = bad[i];
		assert_false(cx_quantize_rows(w, N, K, q));
	}
}

/* ---- activations ---- */

static cx_calib *new_calib(void)
{
	cx_calib *c = calloc(1, sizeof *c);
	assert_non_null(c);
	return c;
}

static void percentile(void **state)
{
	static const struct {
		int n, at; /* max(0, floor(0.99 n) - 1) of the sorted batches */
	} k[] = {{1, 0}, {2, 0}, {50, 48}, {100, 98}, {101, 98}, {1024, 1012}};
	(void)state;
	for (size_t i = 0; i < sizeof k / sizeof *k; i++) {
		cx_calib *c = new_calib();
		for (int b = 0; b < k[i].n; b++) { /* maxima 1..n, in an order that is not sorted */
			float v = (float)((b * 7919 + 13) % k[i].n + 1), x[3] = {0, -v, v / 2};
			OK(cx_calib_add(c, x, 3, err));
		}
		assert_true(cx_calib_percentile(c) == (float)(k[i].at + 1));
		free(c);
	}
	{ /* 99 times 1 and once 100 */
		cx_calib *c = new_calib();
		float one = 1, hundred = -100;
		assert_true(cx_calib_percentile(c) == 1 && cx_calib_entropy(c) == 1);
		for (int b = 0; b < 100; b++) OK(cx_calib_add(c, b == 50 ? &hundred : &one, 1, err));
		assert_true(cx_calib_percentile(c) == 1);
		assert_true(c->abs_max == 100);
		free(c);
	}
	assert_true(cx_calib_scale(12.7f) == 12.7f / 127);
	assert_true(cx_calib_scale(0) == 1e-8f / 127);
}

/* The definition, bin by bin. */
static double naive(const cx_calib *c, uint32_t n)
{
	static double p[CX_CALIB_BINS], q[CX_CALIB_BINS];
	double sp = 0, sq = 0, kl = 0;
	memset(q, 0, sizeof q);
	for (uint32_t i = 0; i < CX_CALIB_BINS; i++) {
		if (i < n) p[i] = 0;
		p[i < n ? i : n - 1] += (double)c->bin[i];
		sp += (double)c->bin[i];
	}
	for (uint32_t l = 0; l < CX_CALIB_LEVELS; l++) {
		uint32_t from = l * n / CX_CALIB_LEVELS, to = (l + 1) * n / CX_CALIB_LEVELS;
		double sum = 0, full = 0;
		for (uint32_t i = from; i < to; i++) {
			sum += (double)c->bin[i];
			full += c->bin[i] > 0;
		}
		for (uint32_t i = from; i < to; i++)
			if (c->bin[i] > 0) q[i] = sum / full;
	}
	for (uint32_t i = 0; i < n; i++) sq += q[i];
	for (uint32_t i = 0; i < n; i++)
		if (p[i] > 0) kl += p[i] / sp * log(p[i] / sp / (q[i] / sq));
	return kl;
}

static void divergence(void **state)
{
	cx_calib *c = new_calib();
	static float x[20000];
	uint32_t n = 0;
	double least = INFINITY;
	float cut, width;
	(void)state;
	for (uint32_t i = 0; i < 20000; i++) x[i] = normal(i);
	OK(cx_calib_add(c, x, 20000, err));
	width = c->range / CX_CALIB_BINS;
	for (uint32_t k = CX_CALIB_LEVELS; k <= CX_CALIB_BINS; k += k < 1000 ? 1 : 97) {
		double want = naive(c, k), got = cx_calib_divergence(c, k);
		if (isinf(want) || isinf(got)) assert_true(isinf(want) && isinf(got));
		else assert_true(fabs(want - got) <= 1e-9 + 1e-9 * fabs(want));
		n++;
	}
	for (uint32_t k = CX_CALIB_LEVELS; k <= CX_CALIB_BINS && (k - 1) * width <= c->abs_max; k++)
		least = fmin(least, cx_calib_divergence(c, k));
	cut = cx_calib_entropy(c);
	if (cut < c->abs_max) assert_true(cx_calib_divergence(c, (uint32_t)(cut / width)) == least);
	print_message("# %u cuts against the definition; normal: cut at %.3f of %.3f\n", n, (double)cut,
		(double)c->abs_max);
	free(c);
}

static void entropy(void **state)
{
	enum { N = 50000 };
	static float x[N];
	cx_calib *c = new_calib(), *d = new_calib(), *e = new_calib();
	float zeros[4] = {0, -0.0f, 0, 0};
	(void)state;
	/* zeros cut at 0 */
	OK(cx_calib_add(c, zeros, 4, err));
	assert_true(cx_calib_entropy(c) == 0 && c->range == 0 && c->bin[0] == 4);
	OK(cx_calib_add(c, NULL, 0, err)); /* a batch without any */
	assert_int_equal(c->n_batches, 2);
	/* uniform: nothing to gain by a cut */
	for (uint32_t i = 0; i < N; i++) x[i] = (float)(3 * (2 * unit(i) - 1));
	memset(c, 0, sizeof *c);
	OK(cx_calib_add(c, x, N, err));
	assert_true(cx_calib_entropy(c) > 2.9f && cx_calib_entropy(c) <= c->abs_max);
	/* normal with a few far outliers: cut well before them, and not into the bulk */
	for (uint32_t i = 0; i < N; i++) x[i] = i % 10000 == 7 ? 60 : normal(i);
	OK(cx_calib_add(d, x, N, err));
	assert_true(cx_calib_entropy(d) > 2 && cx_calib_entropy(d) < 12);
	assert_true(cx_calib_percentile(d) == 60);
	/* the order of batches, and where they are cut, change no bin: ranges grow by merging */
	for (uint32_t i = N; i-- > 0; e->n_batches = 0) OK(cx_calib_add(e, x + i, 1, err));
	assert_true(e->range == d->range && e->abs_max == d->abs_max);
	assert_memory_equal(e->bin, d->bin, sizeof d->bin);
	assert_true(d->range > d->abs_max && d->range <= 2 * d->abs_max);
	/* huge and tiny numbers have bins as well */
	memset(e, 0, sizeof *e);
	x[0] = 3e38f;
	x[1] = 1e-40f;
	OK(cx_calib_add(e, x + 1, 1, err));
	OK(cx_calib_add(e, x, 1, err));
	assert_true(cx_calib_entropy(e) > 0 && cx_calib_entropy(e) <= 3e38f);
	free(c);
	free(d);
	free(e);
}

static void bad_activations(void **state)
{
	static const float bad[] = {NAN, INFINITY, -INFINITY};
	cx_calib *c = new_calib(), *before = new_calib();
	float x[3] = {1, 2, 3};
	(void)state;
	OK(cx_calib_add(c, x, 3, err));
	memcpy(before, c, sizeof *c);
	for (int i = 0; i < 3; i++) {
		cx_err err = {0};
		x[1] = bad[i];
		assert_int_equal(cx_calib_add(c, x, 3, &err), CX_ERR_ARGUMENT);
		assert_non_null(strstr(err.msg, "activation 1 of batch 1 is"));
		assert_memory_equal(c, before, sizeof *c);
	}
	c->n_batches = CX_CALIB_MAX_BATCHES;
	assert_int_equal(cx_calib_add(c, x, 1, NULL), CX_ERR_ARGUMENT);
	free(c);
	free(before);
}

/* ---- a whole model ---- */

enum { WINDOWS = 3, CALIB = 4, EVAL = 2, CAP = 120 };
static int bad_event; /* of batch 1: index out of range */

static cx_status fill(void *ctx, bool eval, uint32_t index, cx_batch *b, cx_err *err)
{
	static const int32_t n[2][WINDOWS] = {{40, 0, 61}, {7, 33, 80}};
	uint32_t from = (eval ? 1000 : 0) + 100 * index;
	(void)ctx;
	(void)err;
	b->off[0] = 0;
	for (int i = 0; i < WINDOWS; i++) b->off[i + 1] = b->off[i] + n[index % 2][i];
	for (int32_t i = 0; i < b->off[WINDOWS]; i++) {
		b->neuron[i] = (int32_t)(256 * unit(3 * (from + (uint32_t)i)));
		b->time[i] = (int32_t)(128 * unit(3 * (from + (uint32_t)i) + 1));
		b->value[i] = 1 + (int32_t)(7 * unit(3 * (from + (uint32_t)i) + 2));
	}
	if (bad_event && !eval && index == 1) b->neuron[5] = 256;
	return CX_OK;
}

static const cx_quantize_data data = {
	.fill = fill, .n_windows = WINDOWS, .cap_events = CAP, .n_calib = CALIB, .n_eval = EVAL};

static cx_cortex *new_nano(void)
{
	cx_cortex_config c = cx_cortex_config_size(CX_CORTEX_NANO);
	return golden_model(&c);
}

static void decode_eval(cx_cortex *m, cx_device *d, float *y)
{
	cx_batch b = {.off = calloc(WINDOWS + 1, 4),
		.neuron = calloc(CAP, 4),
		.time = calloc(CAP, 4),
		.value = calloc(CAP, 4)};
	cx_store *store;
	cx_cortex_runner *r;
	cx_cortex_source src;
	OK(cx_store_create(rt, &store, err));
	OK(cx_cortex_bind(m, rt, d, store, err));
	src = cx_cortex_get_source(m);
	OK(cx_cortex_runner_create(cx_cortex_get_config(m), &src, d, store, WINDOWS, NULL, &r, err));
	for (uint32_t i = 0; i < EVAL; i++) {
		OK(fill(NULL, true, i, &b, err));
		OK(cx_cortex_runner_run(
			r, b.off, WINDOWS, b.neuron, b.time, b.value, y + i * WINDOWS * 2, err));
	}
	cx_cortex_runner_free(r);
	cx_store_free(store);
	free(b.off);
	free(b.neuron);
	free(b.time);
	free(b.value);
}

static void check_layers(const cx_cortex *m, const cx_cortex *was, const cx_quantize_report *r)
{
	size_t n_int8 = 0;
	for (size_t i = 0; i < r->n_layers; i++) {
		const cx_quantize_layer *l = &r->layer[i];
		const cx_cortex_weight *w = &m->w[l->index];
		assert_int_equal(w->dtype, CX_I8C);
		assert_int_equal(strncmp(w->p.name, l->name, strlen(l->name)), 0);
		assert_string_equal(w->p.name + strlen(l->name), ".weight");
		assert_int_equal(l->n_batches, CALIB);
		assert_true(l->abs_max > 0 && l->cut[CX_QUANTIZE_PERCENTILE] <= l->abs_max);
		assert_true(l->cut[CX_QUANTIZE_ENTROPY] > 0 && l->cut[CX_QUANTIZE_ENTROPY] <= l->abs_max);
		assert_true(l->weight_scale_min > 0 && l->weight_scale_min <= l->weight_scale_max);
		for (int k = 0; k < CX_QUANTIZE_AUTO; k++)
			assert_true(l->error[k] > 0 && l->error[k] < 0.2);
		assert_true(l->error[CX_QUANTIZE_NONE] < 0.02);
		assert_true(w->act_scale == l->act_scale);
		if (l->chosen == CX_QUANTIZE_NONE) assert_true(l->act_scale == 0);
		else assert_true(l->act_scale == cx_calib_scale(l->cut[l->chosen]));
	}
	for (size_t i = 0; i < m->n; i++) {
		const cx_cortex_weight *w = &m->w[i];
		uint64_t n = cx_cortex_param_elems(&w->p);
		const float *want = was->w[i].data;
		float *v = malloc(n * sizeof *v);
		n_int8 += w->dtype == CX_I8C;
		cx_cortex_weight_f32(w, v);
		for (uint64_t e = 0; e < n; e++) {
			float off = w->dtype == CX_I8C
							? 0.50001f * cx_i8c_scale(w->data, w->p.dim[0], w->p.dim[1],
											 (int64_t)(e / (uint64_t)w->p.dim[1]))
							: fabsf(want[e]) * 0x1p-11f + 0x1p-25f;
			assert_true(fabsf(v[e] - want[e]) <= off);
		}
		free(v);
	}
	assert_int_equal(n_int8, r->n_layers);
}

static void whole_model(void **state)
{
	(void)state;
	for (int method = 0; method < CX_QUANTIZE_N_METHODS; method++) {
		cx_quantize_opts o = {.method = (cx_quantize_method)method};
		cx_cortex *m = new_nano(), *was = new_nano(), *again;
		cx_quantize_report r;
		float y[2][EVAL * WINDOWS * 2];
		struct stat info;
		OK(cx_cortex_quantize(m, rt, dev[CPU], &o, &data, &r, err));
		assert_int_equal(r.n_layers, 4 * 3 + 6);
		assert_int_equal(r.n_linears, 4 * 3 + 7);
		assert_int_equal(r.bytes_before, 4 * 205256);
		assert_int_equal(r.n_outputs, EVAL * WINDOWS * 2);
		assert_true(r.tried[CX_QUANTIZE_NONE] && r.tried[r.chosen]);
		if (method != CX_QUANTIZE_AUTO) assert_int_equal(r.chosen, method);
		for (int k = 1; method == CX_QUANTIZE_AUTO && k < CX_QUANTIZE_N_METHODS; k++)
			assert_true(r.tried[k] && r.mean_diff[r.chosen] <= r.mean_diff[k]);
		assert_true(r.max_diff[r.chosen] > 0 && r.max_diff[r.chosen] < 0.2);
		check_layers(m, was, &r);
		/* the report's f32 is the model as it was, int8 the model as it is, and from its file */
		decode_eval(was, dev[CPU], y[0]);
		assert_memory_equal(y[0], r.f32, sizeof y[0]);
		decode_eval(m, dev[CPU], y[0]);
		assert_memory_equal(y[0], r.int8, sizeof y[0]);
		OK(cx_cortex_save(m, temp_path("q.safetensors"), NULL, 0, err));
		OK(cx_cortex_open(temp_path("q.safetensors"), NULL, &again, err));
		decode_eval(again, dev[CPU], y[1]);
		assert_memory_equal(y[0], y[1], sizeof y[0]);
		assert_int_equal(stat(temp_path("q.safetensors"), &info), 0);
		assert_true((uint64_t)info.st_size > r.bytes_after &&
					(uint64_t)info.st_size < r.bytes_after + 16384);
		print_message("# %s: kept %s, output moves by %.4f at most, %.4f on average; %lld bytes\n",
			cx_quantize_method_name(o.method), cx_quantize_method_name(r.chosen),
			r.max_diff[r.chosen], r.mean_diff[r.chosen], (long long)info.st_size);
		/* and again is refused */
		assert_int_equal(
			cx_cortex_quantize(again, rt, dev[CPU], &o, &data, &r, NULL), CX_ERR_ARGUMENT);
		cx_quantize_report_deinit(&r);
		cx_cortex_close(m);
		cx_cortex_close(was);
		cx_cortex_close(again);
	}
}

/* x w' of a layer with its act_scale. */
static void product_on(cx_device *d, const cx_cortex_weight *w, const float *x, int64_t n, float *y)
{
	cx_plan_opts opts = {.devices = &d, .n_devices = 1, .verify = true};
	int64_t dims[2] = {n, w->p.dim[1]};
	cx_graph *g;
	cx_plan *plan;
	cx_store *store;
	cx_exec *e;
	OK(cx_graph_create(NULL, &g, err));
	cx_output(g, "y",
		cx_matmul(g, cx_input(g, "x", CX_F32, 2, dims), cx_weight(g, "w", CX_I8C, 2, w->p.dim),
			&(cx_attr_matmul){.trans_b = true, .act_scale = w->act_scale}));
	OK(cx_graph_finish(g, err));
	OK(cx_plan_build(g, &opts, &plan, err));
	OK(cx_store_create(rt, &store, err));
	OK(cx_store_weight(store, "w", CX_I8C, 2, w->p.dim, w->data, w->bytes, err));
	OK(cx_exec_create(plan, store, &e, err));
	OK(cx_exec_set_input(e, 0, x, (uint64_t)(n * dims[1]) * sizeof *x, err));
	OK(cx_exec_run(e, err));
	OK(cx_exec_get_output(e, 0, y, (uint64_t)(n * w->p.dim[0]) * sizeof *y, err));
	cx_exec_free(e);
	cx_store_free(store);
	cx_plan_free(plan);
	cx_graph_free(g);
}

/* A model's products are sums of integers: every device gives the reference's bits. Whole models go
 * through norms and softmax, which may differ in the last bit, and a step of int8 with it. */
static void devices(void **state)
{
	enum { N = 5 };
	cx_quantize_opts o = {.method = CX_QUANTIZE_ENTROPY};
	cx_cortex *m = new_nano();
	cx_quantize_report r;
	float want[EVAL * WINDOWS * 2], got[EVAL * WINDOWS * 2];
	(void)state;
	OK(cx_cortex_quantize(m, rt, dev[CPU], &o, &data, &r, err));
	decode_eval(m, dev[REF], want);
	for (int d = CPU; d < N_DEVICES; d++) {
		double worst = 0;
		if (!dev[d]) continue;
		for (size_t i = 0; i < r.n_layers; i++) {
			const cx_cortex_weight *w = &m->w[r.layer[i].index];
			size_t nx = (size_t)(N * w->p.dim[1]), ny = (size_t)(N * w->p.dim[0]);
			float *x = malloc(nx * sizeof *x), *y = malloc(2 * ny * sizeof *y);
			for (size_t k = 0; k < nx; k++) /* some of them beyond the cut */
				x[k] = normal((uint32_t)k) * 60 * w->act_scale;
			product_on(dev[REF], w, x, N, y);
			product_on(dev[d], w, x, N, y + ny);
			assert_memory_equal(y, y + ny, ny * sizeof *y);
			free(x);
			free(y);
		}
		decode_eval(m, dev[d], got);
		for (size_t i = 0; i < r.n_outputs; i++) {
			double off = fabs((double)got[i] - (double)want[i]);
			assert_true(off <= 0.05);
			worst = fmax(worst, off);
		}
		print_message("# %s: %zu layers bit for bit; the whole model within %.2g of ref\n",
			dev_name[d], r.n_layers, worst);
	}
	cx_quantize_report_deinit(&r);
	cx_cortex_close(m);
}

/* S as int8: its tensors' bytes and its file's, whatever they hold. */
static void file_of_s(void **state)
{
	cx_cortex_config c = cx_cortex_config_size(CX_CORTEX_S);
	cx_cortex *m, *again;
	struct stat info;
	size_t n = 0, linears = 0;
	(void)state;
	OK(cx_cortex_create(&c, 1, NULL, &m, err));
	for (size_t i = 0; i < m->n; i++) {
		cx_cortex_weight *w = &m->w[i];
		uint64_t elems = cx_cortex_param_elems(&w->p), bytes = 2 * elems;
		bool int8 = w->p.linear && strncmp(w->p.name, "masked", 6) != 0;
		void *v;
		linears += w->p.linear;
		if (int8) bytes = elems + 4 * (uint64_t)w->p.dim[0];
		v = calloc(1, bytes);
		OK(cx_cortex_set(m, i, int8 ? CX_I8C : CX_F16, v, bytes, err));
		if (int8) OK(cx_cortex_set_act_scale(m, i, 0.01f, err));
		n += int8;
		free(v);
	}
	assert_int_equal(n, 34);
	assert_int_equal(linears, 35);
	OK(cx_cortex_save(m, temp_path("s8.safetensors"), NULL, 0, err));
	assert_int_equal(stat(temp_path("s8.safetensors"), &info), 0);
	print_message("# S as int8: a file of %lld bytes\n", (long long)info.st_size);
	assert_true(info.st_size <= 27779620);
	OK(cx_cortex_open(temp_path("s8.safetensors"), NULL, &again, err));
	assert_string_equal(cx_cortex_config_name(cx_cortex_get_config(again)), "s");
	cx_cortex_close(m);
	cx_cortex_close(again);
}

/* ---- what is refused ---- */

typedef enum flaw {
	NOT_THERE,  /* one act_scale is left out */
	TENSOR_DIM, /* of two elements */
	TENSOR_TYPE,
	VALUE, /* of the act_scale */
	ROW,   /* a row's scale */
	EXTRA, /* an act_scale of what is no int8 linear */
	NO_ROWS
} flaw;

/* The good file with a flaw, opened. Gives the message. */
static const char *flawed(const cx_cortex *good, flaw f, float value)
{
	static cx_err err;
	static float two[2] = {0.1f, 0.1f}, number;
	static const char name[] = "encoder.cross_attn.kv_proj.act_scale";
	static const char rows[] = "encoder.cross_attn.kv_proj.weight_scale";
	const cx_tensor_list *l;
	cx_file_tensor *t;
	cx_safetensors *s;
	cx_cortex *m;
	float *scales = NULL;
	size_t n = 0;
	number = value;
	OK(cx_cortex_save(good, temp_path("good.safetensors"), NULL, 0, err));
	OK(cx_safetensors_open(NULL, temp_path("good.safetensors"), &s, err));
	l = cx_safetensors_tensors(s);
	t = calloc(l->n + 1, sizeof *t);
	for (size_t i = 0; i < l->n; i++) {
		cx_file_tensor *x = &t[n++];
		*x = l->at[i];
		if (strcmp(x->name, name) == 0) {
			if (f == NOT_THERE) n--;
			if (f == TENSOR_DIM) x->dims[0] = 2, x->bytes = 8, x->data = (void *)two;
			if (f == TENSOR_TYPE) x->dtype = CX_I32;
			if (f == VALUE) x->data = (void *)&number;
		}
		if (strcmp(x->name, rows) != 0) continue;
		if (f == NO_ROWS) n--;
		if (f != ROW) continue;
		scales = malloc(x->bytes);
		memcpy(scales, x->data, x->bytes);
		scales[3] = value;
		x->data = (void *)scales;
	}
	if (f == EXTRA)
		t[n++] = (cx_file_tensor){.name = "masked_spike_head.proj.act_scale",
			.usable = true,
			.dtype = CX_F32,
			.rank = 1,
			.dims = {1},
			.data = (void *)two,
			.bytes = 4};
	OK(cx_safetensors_write(NULL, temp_path("bad.safetensors"), t, n, NULL, 0, err));
	memset(&err, 0, sizeof err);
	assert_int_not_equal(cx_cortex_open(temp_path("bad.safetensors"), NULL, &m, &err), CX_OK);
	assert_null(m);
	cx_safetensors_close(s);
	free(scales);
	free(t);
	return err.msg;
}

static void damaged(void **state)
{
	static const float bad[] = {NAN, INFINITY, -INFINITY, 0, -1, 1e-31f, 2e30f};
	static const float rows[] = {NAN, INFINITY, -1};
	cx_quantize_opts o = {.method = CX_QUANTIZE_PERCENTILE};
	cx_cortex *m = new_nano();
	cx_quantize_report r;
	(void)state;
	OK(cx_cortex_quantize(m, rt, dev[CPU], &o, &data, &r, err));
	assert_non_null(strstr(flawed(m, NOT_THERE, 0),
		"there is no tensor 'encoder.cross_attn.kv_proj.act_scale', but other linears have one"));
	assert_non_null(strstr(flawed(m, NO_ROWS, 0), "kv_proj.weight_scale"));
	assert_non_null(strstr(flawed(m, TENSOR_DIM, 0), "kv_proj.act_scale"));
	assert_non_null(strstr(flawed(m, TENSOR_TYPE, 0), "must be F32"));
	assert_non_null(strstr(flawed(m, EXTRA, 0), "'masked_spike_head.proj.act_scale'"));
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		assert_non_null(strstr(flawed(m, VALUE, bad[i]), "kv_proj.act_scale' is "));
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
		assert_non_null(
			strstr(flawed(m, ROW, rows[i]), "kv_proj.weight_scale': scale of row 3 is"));
	cx_quantize_report_deinit(&r);
	cx_cortex_close(m);
}

static void refuse(cx_cortex *m, const cx_quantize_data *d, const char *want)
{
	cx_quantize_opts o = {.method = CX_QUANTIZE_AUTO};
	cx_quantize_report r;
	cx_err err = {0};
	assert_int_equal(cx_cortex_quantize(m, rt, dev[CPU], &o, d, &r, &err), CX_ERR_ARGUMENT);
	if (!strstr(err.msg, want)) fail_msg("'%s' for '%s'", err.msg, want);
	cx_quantize_report_deinit(&r);
	cx_cortex_close(m);
}

static void set(cx_cortex *m, const char *name, float v)
{
	for (size_t i = 0; i < m->n; i++)
		if (strcmp(m->w[i].p.name, name) == 0) ((float *)(uintptr_t)m->w[i].data)[9] = v;
}

static void bad_data(void **state)
{
	cx_quantize_data d = data;
	cx_cortex *m = new_nano();
	(void)state;
	d.n_calib = 0;
	refuse(new_nano(), &d, "0 batches to calibrate on");
	d.n_calib = CX_CALIB_MAX_BATCHES + 1;
	refuse(new_nano(), &d, "1025 batches to calibrate on");
	d = data;
	d.n_windows = 0;
	refuse(new_nano(), &d, "batches of 0 windows");
	d = data;
	d.n_eval = 0;
	refuse(new_nano(), &d, "no batch to measure");
	bad_event = 1;
	refuse(new_nano(), &data, "window 0, event 5: neuron is 256");
	bad_event = 0;
	set(m, "encoder.self_attn_blocks.1.mlp.2.weight", NAN);
	refuse(m, &data, "'encoder.self_attn_blocks.1.mlp.2.weight': element 9 is nan");
	set(m = new_nano(), "encoder.cross_attn.norm_kv.weight", 3e38f);
	refuse(m, &data, "activation");
	set(m = new_nano(), "masked_spike_head.proj.weight", INFINITY);
	refuse(m, &data, "'masked_spike_head.proj.weight': element 9 is inf");
	m = new_nano(); /* scales of what cannot have one */
	assert_int_equal(cx_cortex_set_act_scale(m, 4, 0.1f, NULL), CX_ERR_ARGUMENT);
	assert_int_equal(cx_cortex_set_act_scale(m, 4, NAN, NULL), CX_ERR_ARGUMENT);
	assert_int_equal(cx_cortex_set_act_scale(m, 0, 0, NULL), CX_OK);
	cx_cortex_close(m);
}

/* A table too large for F16 is kept in BF16. */
static void wide_values(void **state)
{
	cx_quantize_opts o = {.method = CX_QUANTIZE_NONE};
	cx_cortex *m = new_nano();
	cx_quantize_report r;
	size_t bf16 = 0;
	(void)state;
	for (size_t i = 0; i < m->n; i++)
		if (strcmp(m->w[i].p.name, "masked_spike_head.proj.bias") == 0)
			((float *)(uintptr_t)m->w[i].data)[3] = 70000;
	OK(cx_cortex_quantize(m, rt, dev[CPU], &o, &data, &r, err));
	for (size_t i = 0; i < m->n; i++) bf16 += m->w[i].narrow == CX_BF16;
	assert_int_equal(bf16, 1);
	cx_quantize_report_deinit(&r);
	cx_cortex_close(m);
}

/* Every 9th allocation fails in turn. */
static void out_of_memory(void **state)
{
	cx_quantize_opts o = {.method = CX_QUANTIZE_PERCENTILE};
	cx_cortex_config c = cx_cortex_config_size(CX_CORTEX_NANO);
	cx_quantize_data d = data;
	long n = 0;
	(void)state;
	c.num_layers = 1;
	d.n_calib = d.n_eval = 1;
	for (;; n++) {
		cx_fault fault = {.countdown = 9 * n};
		cx_alloc a = cx_alloc_fault(&fault);
		cx_quantize_report r = {0};
		cx_cortex *m = NULL;
		cx_status st = cx_cortex_create(&c, 1, &a, &m, NULL);
		if (st == CX_OK) st = cx_cortex_quantize(m, rt, dev[CPU], &o, &d, &r, NULL);
		cx_quantize_report_deinit(&r);
		cx_cortex_close(m);
		assert_int_equal(fault.n_live, 0);
		assert_int_equal(st, fault.fired ? CX_ERR_MEMORY : CX_OK);
		if (!fault.fired) break;
	}
	print_message("# %ld allocations failed in turn\n", n);
	assert_true(n > 10);
}

/* ---- the command ---- */

static char binary[1100];

static int cortex(const char *args, char *text, size_t size)
{
	char line[2400];
	size_t n;
	FILE *f;
	snprintf(line, sizeof line, "%s %s 2>&1", binary, args);
	f = popen(line, "r");
	assert_non_null(f);
	n = fread(text, 1, size - 1, f);
	text[n] = 0;
	return pclose(f);
}

static void wants(const char *args, int exit_code, const char *want)
{
	static char text[1 << 15];
	assert_int_equal(cortex(args, text, sizeof text), exit_code << 8);
	if (!strstr(text, want)) fail_msg("cortex %s: '%s' for '%s'", args, text, want);
	if (exit_code && strchr(text, '\n') != text + strlen(text) - 1)
		fail_msg("cortex %s: more than a line: '%s'", args, text);
}

static void command(void **state)
{
	static const struct {
		const char *args, *want;
	} bad[] = {{"", "--model is wanted"}, {"--model nano", "--out FILE is wanted"},
		{"--model nano --out x", "exactly one of --data, --simulate and --uniform"},
		{"--model nano --out x --simulate --uniform", "exactly one of"},
		{"--model nano --out x --uniform --method best", "there is no method 'best'"},
		{"--model nano --out x --uniform --batches 0", "--batches '0'"},
		{"--model nano --out x --uniform --batches 9999", "--batches '9999'"},
		{"--model nano --out x --uniform --batch nan", "--batch 'nan'"},
		{"--model nano --out x --simulate --bin nan", "--bin 'nan'"},
		{"--model nano --out x --simulate --window 0", "--window '0'"},
		{"--model nano --out x --data /no/such/file", "No such file"},
		{"--model /no/such/model --out x --uniform", "No such file"},
		{"--model nano --out x --uniform extra", "'extra'"},
		{"--model nano --out x --uniform --backend abacus", "no backend 'abacus'"},
		{"--model nano --out /no/such/x --uniform --batches 1 --eval-batches 1 --batch 1 "
		 "--events 8",
			"cannot be written"}};
	char args[2000], path[900];
	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		snprintf(args, sizeof args, "quantize %s", bad[i].args);
		wants(args, 1, bad[i].want);
	}
	snprintf(path, sizeof path, "%s", temp_path("cli8.safetensors"));
	snprintf(args, sizeof args,
		"quantize --model nano --simulate --batches 3 --eval-batches 2 --backend cpu --out %s",
		path);
	wants(args, 0, "18 of 19 linears are int8; 821024 bytes of tensors before (f32)");
	snprintf(args, sizeof args,
		"quantize --model nano --simulate --batches 3 --eval-batches 2 --json --out %s", path);
	wants(args, 0, "\"n_layers\": 18, \"n_linears\": 19");
	snprintf(args, sizeof args, "decoder info --model %s", path);
	wants(args, 0, "[192,64]       i8c");
	snprintf(args, sizeof args, "dump -m %s --backend cpu --stage planned", path);
	wants(args, 0, "act_scale=");
	snprintf(args, sizeof args, "profile -m %s --backend cpu --runs 1 --bucket 20", path);
	wants(args, 0, "linear");
	snprintf(args, sizeof args, "diff -m %s --backends cpu --top 1", path);
	wants(args, 0, "cpu: 0 of 45 nodes out of tolerance");
	snprintf(args, sizeof args, "diff -m %s --backends cpu --prompt x", path);
	wants(args, 1, "--prompt is for language models");
	snprintf(args, sizeof args, "quantize --model %s --uniform --out %s.again", path, path);
	wants(args, 1, "is int8 already");
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(scales_of_rows),
		cmocka_unit_test(percentile), cmocka_unit_test(divergence), cmocka_unit_test(entropy),
		cmocka_unit_test(bad_activations), cmocka_unit_test(whole_model), cmocka_unit_test(devices),
		cmocka_unit_test(file_of_s), cmocka_unit_test(damaged), cmocka_unit_test(bad_data),
		cmocka_unit_test(wide_values), cmocka_unit_test(out_of_memory), cmocka_unit_test(command)};
	const char *slash = argc > 0 ? strrchr(argv[0], '/') : NULL;
	snprintf(binary, sizeof binary, "%.*s/../cortex", slash ? (int)(slash - argv[0]) : 1,
		slash ? argv[0] : ".");
	return cmocka_run_group_tests_name("quantize", tests, open_devices, close_devices);
}
