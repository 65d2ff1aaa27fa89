/* test_train.c - training decoders: the GRU and the Transformer against loops of their own; rates;
 * the loss of a small problem falls; accumulation; saved and loaded is the same bits; a step
 * allocates
 * nothing; every allocation made to fail. The command is test_train_cli.c. */
#include "models/decoder/metrics.h"
#include "models/decoder/train_config.h"
#include "tests/file_make.h"
#include "tests/rng.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* call fills the `err` at hand. */
#define OK(call)                                                                                   \
	do {                                                                                           \
		if ((call) != CX_OK) fail_msg("%s", err.msg);                                              \
	} while (0)

/* ---- networks against loops
 * ------------------------------------------------------------------- */

enum { MAX_PARAM = 64, MAX_CELLS = 64 * 64 };

typedef struct net {
	cx_dense_config c;
	float *w[MAX_PARAM]; /* as the parameters come */
	cx_cortex_param p[MAX_PARAM];
	size_t n;
} net;

static void net_make(net *m, const cx_dense_config *c)
{
	cx_rng rng = cx__rng_make(7, 3);
	m->c = *c;
	m->n = cx_dense_n_params(c);
	assert_true(m->n <= MAX_PARAM);
	for (size_t i = 0; i < m->n; i++) {
		uint64_t n;
		cx_dense_param_get(c, i, &m->p[i]);
		n = cx_cortex_param_elems(&m->p[i]);
		m->w[i] = malloc(n * sizeof(float));
		for (uint64_t k = 0; k < n; k++)
			m->w[i][k] = cx__rng_float(&rng, -0.5f, 0.5f) + (m->p[i].init == CX_CORTEX_ONES);
	}
}

static void net_free(net *m)
{
	for (size_t i = 0; i < m->n; i++) free(m->w[i]);
}

/* What the graph gives on the reference, for counts x [B, T, N]. */
static void net_run(const net *m, int64_t windows, const float *x, float *y)
{
	cx_cortex_source src = cx_cortex_weights();
	cx_runtime *rt;
	cx_device *dev;
	cx_store *store;
	cx_graph *g;
	cx_plan *plan;
	cx_exec *exec;
	cx_dense_graph d;
	cx_err err = {0};
	size_t cells = (size_t)(windows * m->c.window * m->c.n_units);
	float *in = malloc(cells * sizeof *in);
	OK(cx_runtime_create(NULL, &rt, &err));
	OK(cx_device_open(rt, "ref", 0, &dev, &err));
	OK(cx_store_create(rt, &store, &err));
	for (size_t i = 0; i < m->n; i++)
		OK(cx_store_weight(store, m->p[i].name, CX_F32, m->p[i].rank, m->p[i].dim, m->w[i],
			cx_cortex_param_elems(&m->p[i]) * 4, &err));
	OK(cx_graph_create(NULL, &g, &err));
	cx_dense_build(&m->c, &src, windows, false, g, &d, NULL);
	cx_output(g, "behavior", d.behavior);
	OK(cx_graph_finish(g, &err));
	OK(cx_plan_build(
		g, &(cx_plan_opts){.devices = &dev, .n_devices = 1, .verify = true}, &plan, &err));
	OK(cx_exec_create(plan, store, &exec, &err));
	for (int64_t w = 0; w < windows; w++)
		for (int64_t t = 0; t < m->c.window; t++) {
			int64_t to = m->c.transformer ? w * m->c.window + t : t * windows + w;
			memcpy(in + to * m->c.n_units, x + (w * m->c.window + t) * m->c.n_units,
				(size_t)m->c.n_units * sizeof *x);
		}
	OK(cx_exec_set_input(exec, cx_exec_input(exec, "counts"), in, cells * 4, &err));
	OK(cx_exec_run(exec, &err));
	OK(cx_exec_get_output(exec, cx_exec_output(exec, "behavior"), y,
		(uint64_t)(windows * m->c.behavior_dim) * 4, &err));
	free(in);
	cx_exec_free(exec);
	cx_plan_free(plan);
	cx_graph_free(g);
	cx_store_free(store);
	cx_device_close(dev);
	cx_runtime_free(rt);
}

static double dot(const float *w, const double *x, int64_t n, double bias)
{
	for (int64_t i = 0; i < n; i++) bias += w[i] * x[i];
	return bias;
}

static const float *named(const net *m, const char *name)
{
	for (size_t i = 0; i < m->n; i++)
		if (!strcmp(m->p[i].name, name)) return m->w[i];
	fail_msg("no parameter %s", name);
	return NULL;
}

/* One direction of a GRU layer: x [T, in] to y [T, 2h] at column `at`. PyTorch's equations. */
static void gru_loop(const net *m, const char *end, const double *x, int64_t in, double *y,
	int64_t stride, bool reverse)
{
	int64_t h = m->c.width, steps = m->c.window;
	double state[64] = {0}, next[64];
	char name[64];
	const float *wi, *wh, *bi, *bh;
	snprintf(name, sizeof name, "gru.weight_ih_%s", end);
	wi = named(m, name);
	snprintf(name, sizeof name, "gru.weight_hh_%s", end);
	wh = named(m, name);
	snprintf(name, sizeof name, "gru.bias_ih_%s", end);
	bi = named(m, name);
	snprintf(name, sizeof name, "gru.bias_hh_%s", end);
	bh = named(m, name);
	for (int64_t i = 0; i < steps; i++) {
		int64_t t = reverse ? steps - 1 - i : i;
		const double *v = x + t * in;
		for (int64_t k = 0; k < h; k++) {
			double g[3], u[3];
			for (int64_t j = 0; j < 3; j++) { /* r, z, n */
				int64_t row = j * h + k;
				g[j] = dot(wi + row * in, v, in, bi[row]);
				u[j] = dot(wh + row * h, state, h, bh[row]);
			}
			g[0] = 1 / (1 + exp(-(g[0] + u[0])));
			g[1] = 1 / (1 + exp(-(g[1] + u[1])));
			g[2] = tanh(g[2] + g[0] * u[2]);
			next[k] = (1 - g[1]) * g[2] + g[1] * state[k];
		}
		memcpy(state, next, sizeof state);
		memcpy(y + t * stride, state, (size_t)h * sizeof *y);
	}
}

static void gru_is_its_equations(void **state)
{
	enum { B = 3, T = 5, N = 6, H = 4 };
	cx_dense_config c = {.n_units = N, .window = T, .width = H, .layers = 2, .behavior_dim = 2};
	cx_rng rng = cx__rng_make(1, 1);
	float x[B * T * N], y[B * 2];
	(void)state;
	for (int i = 0; i < B * T * N; i++) x[i] = (float)cx__rng_int(&rng, 0, 3);
	for (int both = 0; both < 2; both++) {
		int64_t dirs = both ? 2 : 1, wide = dirs * H;
		net m;
		c.bidirectional = both;
		net_make(&m, &c);
		net_run(&m, B, x, y);
		for (int b = 0; b < B; b++) {
			double in[T * N], one[T * 2 * H], two[T * 2 * H];
			for (int i = 0; i < T * N; i++) in[i] = x[b * T * N + i];
			gru_loop(&m, "l0", in, N, one, wide, false);
			if (both) gru_loop(&m, "l0_reverse", in, N, one + H, wide, true);
			gru_loop(&m, "l1", one, wide, two, wide, false);
			if (both) gru_loop(&m, "l1_reverse", one, wide, two + H, wide, true);
			for (int k = 0; k < 2; k++) {
				double want = dot(named(&m, "head.weight") + k * wide, two + (T - 1) * wide, wide,
					named(&m, "head.bias")[k]);
				assert_true(fabs(want - y[b * 2 + k]) < 1e-5);
			}
		}
		net_free(&m);
	}
}

static void norm_loop(const float *w, const float *b, const double *x, int64_t n, double *y)
{
	double mean = 0, var = 0;
	for (int64_t i = 0; i < n; i++) mean += x[i] / (double)n;
	for (int64_t i = 0; i < n; i++) var += (x[i] - mean) * (x[i] - mean) / (double)n;
	for (int64_t i = 0; i < n; i++) y[i] = (x[i] - mean) / sqrt(var + 1e-5) * w[i] + b[i];
}

/* One pre-norm layer on z [rows, d]. */
static void layer_loop(const net *m, int l, double *z, int rows)
{
	enum { MAX = 64 };
	int64_t d = m->c.width, heads = m->c.heads, dh = d / heads, ff = m->c.ff;
	static double qkv[MAX][3 * MAX], out[MAX][MAX];
	double u[MAX], hid[MAX];
	char name[64];
	const float *w[12];
	static const char *const names[12] = {"norm1.weight", "norm1.bias", "self_attn.in_proj_weight",
		"self_attn.in_proj_bias", "self_attn.out_proj.weight", "self_attn.out_proj.bias",
		"norm2.weight", "norm2.bias", "linear1.weight", "linear1.bias", "linear2.weight",
		"linear2.bias"};
	for (int i = 0; i < 12; i++) {
		snprintf(name, sizeof name, "encoder.layers.%d.%s", l, names[i]);
		w[i] = named(m, name);
	}
	for (int r = 0; r < rows; r++) {
		norm_loop(w[0], w[1], z + r * d, d, u);
		for (int64_t k = 0; k < 3 * d; k++) qkv[r][k] = dot(w[2] + k * d, u, d, w[3][k]);
	}
	for (int r = 0; r < rows; r++)
		for (int64_t h = 0; h < heads; h++) {
			double p[MAX], sum = 0;
			for (int s = 0; s < rows; s++) {
				double a = 0;
				for (int64_t k = 0; k < dh; k++) a += qkv[r][h * dh + k] * qkv[s][d + h * dh + k];
				sum += p[s] = exp(a / sqrt((double)dh));
			}
			for (int64_t k = 0; k < dh; k++) {
				out[r][h * dh + k] = 0;
				for (int s = 0; s < rows; s++)
					out[r][h * dh + k] += p[s] / sum * qkv[s][2 * d + h * dh + k];
			}
		}
	for (int r = 0; r < rows; r++) {
		for (int64_t k = 0; k < d; k++) z[r * d + k] += dot(w[4] + k * d, out[r], d, w[5][k]);
		norm_loop(w[6], w[7], z + r * d, d, u);
		for (int64_t k = 0; k < ff; k++) {
			double a = dot(w[8] + k * d, u, d, w[9][k]);
			hid[k] = 0.5 * a * (1 + erf(a / sqrt(2)));
		}
		for (int64_t k = 0; k < d; k++) z[r * d + k] += dot(w[10] + k * ff, hid, ff, w[11][k]);
	}
}

static void transformer_is_its_equations(void **state)
{
	enum { B = 3, T = 4, N = 5, D = 8, FF = 12 };
	cx_dense_config c = {.transformer = true,
		.n_units = N,
		.window = T,
		.width = D,
		.layers = 2,
		.heads = 2,
		.ff = FF,
		.behavior_dim = 2};
	cx_rng rng = cx__rng_make(2, 1);
	float x[B * T * N], y[B * 2];
	net m;
	(void)state;
	for (int i = 0; i < B * T * N; i++) x[i] = (float)cx__rng_int(&rng, 0, 3);
	net_make(&m, &c);
	net_run(&m, B, x, y);
	for (int b = 0; b < B; b++) {
		double z[(T + 1) * D], in[N];
		for (int r = 0; r <= T; r++)
			for (int k = 0; k < D; k++) {
				for (int i = 0; i < N; i++) in[i] = r ? x[(b * T + r - 1) * N + i] : 0;
				z[r * D + k] = r ? dot(named(&m, "in_proj.weight") + k * N, in, N,
									   named(&m, "in_proj.bias")[k])
								 : named(&m, "cls")[k];
				z[r * D + k] += named(&m, "pos.weight")[r * D + k];
			}
		for (int l = 0; l < 2; l++) layer_loop(&m, l, z, T + 1);
		for (int k = 0; k < 2; k++) {
			double want = dot(named(&m, "head.weight") + k * D, z, D, named(&m, "head.bias")[k]);
			assert_true(fabs(want - y[b * 2 + k]) < 2e-5);
		}
	}
	net_free(&m);
}

/* spec/decoder.md 4.7. */
static void baselines_have_the_published_sizes(void **state)
{
	cx_net_config gru = {.kind = CX_NET_GRU,
		.dense = {.n_units = 137,
			.window = 120,
			.width = 256,
			.layers = 2,
			.bidirectional = true,
			.behavior_dim = 2}};
	cx_net_config tf = {.kind = CX_NET_TRANSFORMER,
		.dense = {.transformer = true,
			.n_units = 137,
			.window = 120,
			.width = 256,
			.layers = 4,
			.heads = 4,
			.ff = 1024,
			.behavior_dim = 2}};
	(void)state;
	assert_int_equal(cx_net_n_elems(&gru), 1790466);
	assert_int_equal(cx_net_n_elems(&tf), 3226370);
}

/* ---- training
 * --------------------------------------------------------------------------------- */

static void rate_is_warmup_and_cosine(void **state)
{
	cx_train_opts o = cx_train_default();
	(void)state;
	o.lr = 1;
	o.warmup = 10;
	o.steps = 100;
	assert_true(fabs(cx_train_rate(&o, 0) - 0.1) < 1e-12);
	assert_true(fabs(cx_train_rate(&o, 9) - 1) < 1e-12);
	assert_true(fabs(cx_train_rate(&o, 10) - 1) < 1e-12);
	assert_true(fabs(cx_train_rate(&o, 55) - 0.5) < 1e-12);
	assert_true(fabs(cx_train_rate(&o, 100)) < 1e-12);
	for (int64_t s = 1; s < 10; s++) assert_true(cx_train_rate(&o, s) > cx_train_rate(&o, s - 1));
	for (int64_t s = 11; s < 100; s++) assert_true(cx_train_rate(&o, s) < cx_train_rate(&o, s - 1));
	o.warmup = 0;
	assert_true(fabs(cx_train_rate(&o, 0) - 1) < 1e-12);
}

/* Movement is a sum over the counts of the last bins, so that there is something to learn. */
static cx_dataset *make_data(int bins, int units, double val)
{
	cx_dataset_opts o = cx_dataset_default();
	cx_rng rng = cx__rng_make(11, 0);
	cx_dataset *d;
	cx_session s;
	cx_err err = {0};
	o.window = 6;
	o.train = 0.8 - val;
	o.val = val;
	if (cx_session_init(&s, NULL, (size_t)bins, (size_t)units, 2, false, &err) != CX_OK)
		fail_msg("%s", err.msg);
	strcpy(s.kin_name[0], "vel_x");
	strcpy(s.kin_name[1], "vel_y");
	s.bin_seconds = 0.05;
	for (int i = 0; i < bins * units; i++)
		s.spikes[i] = (uint8_t)(cx__rng_one_in(&rng, 3) ? cx__rng_int(&rng, 1, 3) : 0);
	for (int t = 0; t < bins; t++)
		for (int k = 0; k < 2; k++)
			for (int u = 0; u < units; u++)
				s.kin[t * 2 + k] += (u % 2 == k ? 1 : -0.3) * s.spikes[t * units + u];
	if (cx_dataset_create(&o, NULL, &d, &err) != CX_OK ||
		cx_dataset_add_session(d, &s, &err) != CX_OK || cx_dataset_finish(d, &err) != CX_OK)
		fail_msg("%s", err.msg);
	return d;
}

static cx_net_config small(cx_net_kind kind, const cx_dataset *d)
{
	const cx_dataset_info *i = cx_dataset_get_info(d);
	cx_net_config c = {.kind = kind};
	c.cortex = cx_cortex_config_size(CX_CORTEX_NANO);
	c.cortex.hidden_dim = c.cortex.latent_dim = 16;
	c.cortex.num_heads = c.cortex.cross_attn_heads = 2;
	c.cortex.head_dim = 8;
	c.cortex.num_layers = 1;
	c.cortex.num_latents = 4;
	c.cortex.max_neurons = 16;
	c.cortex.max_time_bins = 8;
	c.cortex.dropout = 0.1;
	c.dense = (cx_dense_config){.transformer = kind == CX_NET_TRANSFORMER,
		.n_units = i->n_units,
		.window = i->window,
		.width = 16,
		.layers = 2,
		.heads = 2,
		.ff = 32,
		.bidirectional = true,
		.dropout = 0.1,
		.behavior_dim = 2};
	return c;
}

static cx_train_opts quick(int64_t steps)
{
	cx_train_opts o = cx_train_default();
	o.steps = steps;
	o.warmup = 5;
	o.batch = 16;
	o.lr = 1e-2;
	o.mask_queries = 4;
	o.init_scale = 25;
	return o;
}

typedef struct machine {
	cx_runtime *rt;
	cx_device *dev;
	cx_fault fault;
} machine;

static void machine_open(machine *m)
{
	cx_config config = {.n_threads = 1};
	cx_err err = {0};
	m->fault = (cx_fault){.countdown = -1};
	config.alloc = cx_alloc_fault(&m->fault);
	if (cx_runtime_create(&config, &m->rt, &err) != CX_OK ||
		cx_device_open(m->rt, "cpu", 0, &m->dev, &err) != CX_OK)
		fail_msg("%s", err.msg);
}

static void machine_close(machine *m)
{
	cx_device_close(m->dev);
	cx_runtime_free(m->rt);
	assert_int_equal(m->fault.n_live, 0);
}

static cx_trainer *trainer(
	machine *m, const cx_net_config *c, const cx_train_opts *o, const cx_dataset *d)
{
	cx_alloc a = cx_alloc_fault(&m->fault);
	cx_trainer *t;
	cx_err err = {0};
	if (cx_trainer_create(c, o, d, m->rt, m->dev, &a, &t, &err) != CX_OK) fail_msg("%s", err.msg);
	return t;
}

static cx_train_result steps(cx_trainer *t, int64_t until)
{
	cx_train_result r = {0};
	cx_err err = {0};
	while (cx_trainer_n_done(t) < until)
		if (cx_trainer_step(t, &r, &err) != CX_OK) fail_msg("%s", err.msg);
	return r;
}

static void loss_falls(void **state)
{
	(void)state;
	for (int kind = 0; kind < CX_NET_N_KINDS; kind++) {
		cx_dataset *d = make_data(700, 8, 0.1);
		cx_net_config c = small((cx_net_kind)kind, d);
		cx_train_opts o = quick(150);
		cx_train_result first, r;
		cx_evaluator *e;
		double r2[CX_MAX_BEHAVIOR], mean, mse, before;
		machine m;
		cx_trainer *t;
		cx_err err = {0};
		machine_open(&m);
		t = trainer(&m, &c, &o, d);
		OK(cx_trainer_evaluator(t, &e, &err));
		OK(cx_evaluator_score(e, CX_PART_VAL, r2, &mean, &before, &err));
		first = steps(t, 1);
		r = steps(t, o.steps);
		OK(cx_evaluator_score(e, CX_PART_VAL, r2, &mean, &mse, &err));
		print_message("  # %s: loss %.3f, after %lld steps %.3f; R2 %.3f on blocks not seen\n",
			cx_net_name(c.kind), first.loss, (long long)o.steps, r.loss, mean);
		assert_true(before > 0.5);
		assert_true(mse < 0.7 * before);
		assert_true(mean > 0.4);
		if (kind == CX_NET_CORTEX) assert_true(r.xent > 0 && r.xent < first.xent);
		cx_trainer_free(t);
		machine_close(&m);
		cx_dataset_free(d);
	}
}

static bytes exported(cx_trainer *t, const char *name)
{
	cx_err err = {0};
	OK(cx_trainer_export(t, temp_path(name), NULL, 0, &err));
	return bytes_load(temp_path(name));
}

static void same_bytes(bytes a, bytes b)
{
	assert_true(a.n > 0 && a.n == b.n && memcmp(a.p, b.p, a.n) == 0);
	bytes_free(&a);
	bytes_free(&b);
}

/* Across an epoch's end, with dropout, masks, accumulation. */
static void resumed_is_the_same_bits(void **state)
{
	(void)state;
	for (int kind = 0; kind < CX_NET_N_KINDS; kind++) {
		cx_dataset *d = make_data(160, 8, 0);
		cx_net_config c = small((cx_net_kind)kind, d);
		cx_train_opts o = quick(9);
		cx_trainer *t;
		machine m;
		bytes a;
		cx_err err = {0};
		o.drop_units = o.drop_events = 0.2;
		o.accumulate = 2;
		machine_open(&m);
		t = trainer(&m, &c, &o, d);
		steps(t, 9);
		a = exported(t, "whole.safetensors");
		cx_trainer_free(t);
		t = trainer(&m, &c, &o, d);
		steps(t, 5);
		OK(cx_trainer_save(t, temp_path("part.safetensors"), NULL, 0, &err));
		cx_trainer_free(t);
		t = trainer(&m, &c, &o, d);
		OK(cx_trainer_load(t, temp_path("part.safetensors"), &err));
		assert_int_equal(cx_trainer_n_done(t), 5);
		steps(t, 9);
		same_bytes(a, exported(t, "resumed.safetensors"));
		cx_trainer_free(t);
		machine_close(&m);
		cx_dataset_free(d);
	}
}

/* Two micro-batches are one batch of both; the order of sums differs, so nearly. */
static void accumulated_is_one_large_batch(void **state)
{
	cx_dataset *d = make_data(300, 8, 0);
	cx_net_config c = small(CX_NET_CORTEX, d);
	cx_train_opts o = quick(10), half;
	cx_train_result a, b;
	cx_trainer *t, *u;
	machine m;
	(void)state;
	c.cortex.dropout = 0; /* its draws go by micro-batch */
	half = o;
	half.batch = 8;
	half.accumulate = 2;
	machine_open(&m);
	t = trainer(&m, &c, &o, d);
	u = trainer(&m, &c, &half, d);
	for (int64_t s = 1; s <= 5; s++) {
		a = steps(t, s);
		b = steps(u, s);
		assert_true(fabs(a.loss - b.loss) <= 1e-4 * a.loss);
		assert_true(fabs(a.norm - b.norm) <= 1e-3 * a.norm);
		assert_true(fabs(a.xent - b.xent) <= 1e-4 * a.xent);
	}
	cx_trainer_free(t);
	cx_trainer_free(u);
	machine_close(&m);
	cx_dataset_free(d);
}

/* Of plans for the sizes that have come before. */
static void steps_allocate_nothing(void **state)
{
	cx_dataset *d = make_data(160, 8, 0);
	cx_net_config c = small(CX_NET_CORTEX, d);
	cx_train_opts o = quick(60);
	cx_trainer *t;
	machine m;
	long calls, before;
	size_t buckets, quiet = 0;
	(void)state;
	machine_open(&m);
	t = trainer(&m, &c, &o, d);
	for (int64_t s = 1; s <= 60; s++) {
		buckets = t->n_buckets;
		before = m.fault.n_calls;
		steps(t, s);
		calls = m.fault.n_calls - before;
		if (t->n_buckets != buckets || s == 1) continue;
		assert_int_equal(calls, 0);
		quiet++;
	}
	print_message("  # %zu steps of 60 without one allocation, %zu plans\n", quiet, t->n_buckets);
	assert_true(quiet > 40);
	cx_trainer_free(t);
	machine_close(&m);
	cx_dataset_free(d);
}

/* Norms, biases, tables, latents and queries keep what no gradient reaches; matrices shrink. */
static void decay_is_for_matrices(void **state)
{
	cx_dataset *d = make_data(160, 8, 0);
	cx_net_config c = small(CX_NET_CORTEX, d);
	cx_train_opts o = quick(3);
	cx_trainer *t;
	machine m;
	float table[16 * 16], start[16 * 16];
	cx_err err = {0};
	(void)state;
	o.weight_decay = 5;
	machine_open(&m);
	t = trainer(&m, &c, &o, d);
	OK(cx_store_state_read(t->store, t->desc[0].name, start, sizeof start, &err));
	assert_string_equal(t->desc[0].name, "tokenizer.neuron_emb.weight");
	steps(t, 3);
	OK(cx_store_state_read(t->store, t->desc[0].name, table, sizeof table, &err));
	/* rows 8..15 belong to no unit: AdamW has only decay for them */
	assert_memory_equal(start + 8 * 16, table + 8 * 16, 8 * 16 * sizeof(float));
	assert_true(memcmp(start, table, 8 * 16 * sizeof(float)) != 0);
	for (size_t i = 0; i < t->n; i++)
		assert_true(t->desc[i].linear ==
						(strstr(t->desc[i].name, "proj") || strstr(t->desc[i].name, "mlp.")) ||
					strstr(t->desc[i].name, "norm_mlp") || strstr(t->desc[i].name, "bias"));
	cx_trainer_free(t);
	machine_close(&m);
	cx_dataset_free(d);
}

static void refused(const cx_net_config *c, const cx_train_opts *o, const cx_dataset *d, machine *m,
	const char *says)
{
	cx_trainer *t;
	cx_err err = {0};
	assert_int_not_equal(cx_trainer_create(c, o, d, m->rt, m->dev, NULL, &t, &err), CX_OK);
	assert_null(t);
	if (!strstr(err.msg, says)) fail_msg("'%s' does not say '%s'", err.msg, says);
}

static void bad_input_is_named(void **state)
{
	cx_dataset *d = make_data(160, 8, 0);
	cx_net_config c = small(CX_NET_CORTEX, d), bad;
	cx_train_opts o = quick(3), p;
	cx_trainer *t;
	machine m;
	cx_err err = {0};
	(void)state;
	machine_open(&m);
	p = o;
	p.batch = 100000;
	refused(&c, &p, d, &m, "batch");
	p = o;
	p.batch = 200;
	refused(&c, &p, d, &m, "only");
	p = o;
	p.lr = NAN;
	refused(&c, &p, d, &m, "lr");
	bad = c;
	bad.cortex.max_neurons = 7;
	refused(&bad, &o, d, &m, "exceeds max_neurons");
	bad = c;
	bad.cortex.max_time_bins = 5;
	refused(&bad, &o, d, &m, "exceeds max_time_bins");
	bad = small(CX_NET_GRU, d);
	bad.dense.n_units = 9;
	refused(&bad, &o, d, &m, "takes 9 units, the data has 8");
	bad.dense.n_units = 8;
	bad.dense.width = 0;
	refused(&bad, &o, d, &m, "width");
	t = trainer(&m, &c, &o, d);
	assert_int_not_equal(cx_trainer_load(t, temp_path("nothing"), &err), CX_OK);
	err.code = CX_OK;
	OK(cx_trainer_export(t, temp_path("weights.safetensors"), NULL, 0, &err));
	assert_int_not_equal(cx_trainer_load(t, temp_path("weights.safetensors"), &err), CX_OK);
	if (!strstr(err.msg, ".m'") && !strstr(err.msg, ".m ")) fail_msg("%s", err.msg);
	assert_int_not_equal(cx_trainer_save(t, "/nowhere/at/all", NULL, 0, &err), CX_OK);
	cx_trainer_free(t);
	machine_close(&m);
	cx_dataset_free(d);
}

/* Create, a step, a score, a file: whichever allocation fails, it is said, and nothing is left. */
static void every_allocation_fails(void **state)
{
	cx_dataset *d = make_data(160, 8, 0.1);
	cx_net_config c = small(CX_NET_CORTEX, d);
	cx_train_opts o = quick(3);
	long n_failed = 0;
	(void)state;
	o.accumulate = 2;
	for (long n = 0;; n += 1 + n / 12) { /* every early one, then rarer */
		cx_alloc a;
		cx_train_result r;
		cx_trainer *t = NULL;
		cx_evaluator *e;
		double r2[CX_MAX_BEHAVIOR];
		cx_err err = {0};
		cx_status st;
		machine m;
		bool fired;
		machine_open(&m);
		a = cx_alloc_fault(&m.fault);
		m.fault.countdown = n;
		if ((st = cx_trainer_create(&c, &o, d, m.rt, m.dev, &a, &t, &err)) == CX_OK &&
			(st = cx_trainer_step(t, &r, &err)) == CX_OK &&
			(st = cx_trainer_evaluator(t, &e, &err)) == CX_OK &&
			(st = cx_evaluator_score(e, CX_PART_VAL, r2, NULL, NULL, &err)) == CX_OK)
			st = cx_trainer_save(t, temp_path("fault.safetensors"), NULL, 0, &err);
		fired = m.fault.fired;
		m.fault.countdown = -1;
		cx_trainer_free(t);
		machine_close(&m);
		assert_int_equal(st, fired ? CX_ERR_MEMORY : CX_OK);
		if (!fired) break;
		n_failed++;
	}
	print_message("  # %ld allocations made to fail\n", n_failed);
	assert_true(n_failed > 50);
	cx_dataset_free(d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(gru_is_its_equations),
		cmocka_unit_test(transformer_is_its_equations),
		cmocka_unit_test(baselines_have_the_published_sizes),
		cmocka_unit_test(rate_is_warmup_and_cosine), cmocka_unit_test(loss_falls),
		cmocka_unit_test(resumed_is_the_same_bits),
		cmocka_unit_test(accumulated_is_one_large_batch), cmocka_unit_test(steps_allocate_nothing),
		cmocka_unit_test(decay_is_for_matrices), cmocka_unit_test(bad_input_is_named),
		cmocka_unit_test(every_allocation_fails)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
