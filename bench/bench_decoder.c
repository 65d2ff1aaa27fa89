/* bench_decoder.c - a Cortex decoder on the cpu: windows decoded, and a step of training, as
 * shares of what the machine can do, measured in the same process.
 *
 * bench_decoder [-t threads] [-s seconds per row] [-k substring of "model dtype batch what"] [-p]
 * Weights are new ones, windows have 512 events each. forward: cx_cortex_runner_run(), what is
 * served, queries folded; bf16: activations too. train step: forward, backward, clipping and
 * AdamW, one plan; no dropout and no masked spikes, as in bench/peers/cortex_torch.py, whose rows
 * stand beside these. GFLOP/s count multiplications and additions of products and attention
 * alone; a step of training counts as three forwards. floor_ms: the same at the peak of the
 * dtype's instruction (f32 FMA, bf16 pairs, bytes), %peak its share of ms_median. -p prints the
 * median time of every step instead. */
#include "bench/ceil.h"
#include "graph/optim.h"
#include "graph/plan.h"
#include "graph/quant.h"
#include "models/decoder/checkpoint.h"
#include "models/decoder/runner.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { EVENTS = 512, MAX_BATCH = 32, MAX_RUNS = 400, MAX_PARAMS = 256 };

typedef struct bench {
	cx_runtime *rt;
	cx_device *dev;
	cx_ceilings top;
	double seconds;
	bool profile;
	int32_t off[MAX_BATCH + 1], event[3][MAX_BATCH * EVENTS];
} bench;

typedef struct row {
	const char *model, *dtype, *what;
	cx_cortex_config c;
	int64_t batch;
	double gflop, peak;
} row;

static const char *const names[] = {"neuron", "time", "value"};
static const struct {
	const char *name;
	cx_cortex_size size;
} sizes[] = {{"xs", CX_CORTEX_XS}, {"s", CX_CORTEX_S}};

static void die(const char *what, const cx_err *err)
{
	fprintf(stderr, "bench_decoder: %s: %s\n", what, err->msg);
	exit(1);
}

static void make_windows(bench *b)
{
	static const uint32_t range[] = {137, 120, 8};
	uint64_t rng = 88172645463325252u;
	for (int i = 0; i <= MAX_BATCH; i++) b->off[i] = i * EVENTS;
	for (int f = 0; f < 3; f++)
		for (int i = 0; i < MAX_BATCH * EVENTS; i++) {
			rng ^= rng << 13;
			rng ^= rng >> 7;
			rng ^= rng << 17;
			b->event[f][i] = (int32_t)((rng >> 33) % range[f]);
		}
}

/* ---- rows ---- */

static void print_row(const row *r, double *t, int n)
{
	double best = cx__quantile(t, n, 0.0) * 1e-3, med = cx__quantile(t, n, 0.5) * 1e-3;
	double floor_ms = r->gflop / r->peak * 1e3;
	printf("cortex\tcortex-%s\t%s\t%ld\t%s\t%.3f\t%.3f\t%.1f\t%.3f\t%.1f\n", r->model, r->dtype,
		(long)r->batch, r->what, best, med, r->gflop / med * 1e3, floor_ms, 100.0 * floor_ms / med);
	fflush(stdout);
}

static void print_steps(const row *r, const cx_plan *plan, cx_exec *x)
{
	enum { RUNS = 9 };
	const cx_pdevice *d = &plan->devs[0];
	double *t = calloc((size_t)d->n_steps * (RUNS + 1), sizeof *t), all[RUNS], total = 0;
	cx_err err = {0};
	if (!t) exit(1);
	for (int i = 0; i < RUNS; i++)
		if (cx_exec_profile(x, t + (size_t)(i + 1) * d->n_steps, d->n_steps, &err) != CX_OK)
			die("profile", &err);
	printf("# cortex-%s %s %ld %s: us, op, kernel, elements of the first result, name\n", r->model,
		r->dtype, (long)r->batch, r->what);
	for (uint32_t s = 0; s < d->n_steps; s++) {
		const cx_step *step = &d->steps[s];
		for (int i = 0; i < RUNS; i++) all[i] = t[(size_t)(i + 1) * d->n_steps + s];
		t[s] = cx__quantile(all, RUNS, 0.5);
		total += t[s];
		printf("%10.1f %-16s %-28s %10lld %s\n", t[s] * 1e6, cx__ops[step->op].name,
			step->kernel->name, (long long)cx__desc_elems(&step->out[0].desc),
			plan->g->nodes[step->node].name ? plan->g->nodes[step->node].name : "");
	}
	printf("%10.1f all\n", total * 1e6);
	free(t);
}

static bool again(const bench *b, double t0, int n)
{
	return n < 3 || (n < MAX_RUNS && cx__now_us() - t0 < b->seconds * 1e6);
}

/* ---- forward ---- */

/* Linears in the row's dtype; int8 with activations rounded too, in steps that fit rows of a
 * norm. */
static void narrow(cx_cortex *m, const char *dtype)
{
	size_t n;
	const cx_cortex_weight *w = cx_cortex_get_weights(m, &n);
	cx_err err = {0};
	for (size_t i = 0; i < n; i++) {
		cx_cortex_param p = w[i].p;
		bool int8 = !strcmp(dtype, "int8");
		cx_dtype t = int8 ? CX_I8C : CX_BF16;
		uint64_t bytes = 0;
		void *to;
		if (!p.linear || !cx_dtype_bytes(t, 2, p.dim, &bytes)) continue;
		if (!(to = malloc((size_t)bytes))) exit(1);
		if (int8) cx_quant_i8c(w[i].data, p.dim[0], p.dim[1], to);
		else cx_quant_row(t, w[i].data, to, p.dim[0] * p.dim[1]);
		if (cx_cortex_set(m, i, t, to, bytes, &err) != CX_OK) die(p.name, &err);
		if (int8 && cx_cortex_set_act_scale(m, i, 0.03f, &err) != CX_OK) die(p.name, &err);
		free(to);
	}
}

static cx_status decode(const bench *b, cx_cortex_runner *run, int64_t n, float *out, cx_err *err)
{
	return cx_cortex_runner_run(run, b->off, n, b->event[0], b->event[1], b->event[2], out, err);
}

static void forward(const bench *b, row *r)
{
	double t[MAX_RUNS], t0;
	float out[MAX_BATCH * 2];
	cx_cortex *m = NULL;
	cx_store *store = NULL;
	cx_cortex_runner *run = NULL;
	cx_cortex_source src;
	cx_err err = {0};
	int n = 0;
	if (cx_cortex_create(&r->c, 1, NULL, &m, &err) != CX_OK) die(r->model, &err);
	if (strcmp(r->dtype, "f32") != 0) narrow(m, r->dtype);
	if (cx_store_create(b->rt, &store, &err) != CX_OK ||
		cx_cortex_bind(m, b->rt, b->dev, store, &err) != CX_OK)
		die(r->model, &err);
	src = cx_cortex_get_source(m);
	if (!strcmp(r->dtype, "bf16")) src.act = CX_BF16;
	if (cx_cortex_runner_create(&r->c, &src, b->dev, store, MAX_BATCH, NULL, &run, &err) != CX_OK)
		die(r->model, &err);
	for (int i = 0; i < 2; i++)
		if (decode(b, run, r->batch, out, &err) != CX_OK) die(r->model, &err);
	if (b->profile) {
		cx_exec *x = NULL;
		const cx_plan *plan = cx_cortex_runner_plan(run, r->batch, r->batch * EVENTS);
		if (cx_exec_create(plan, store, &x, &err) != CX_OK) die(r->model, &err);
		for (int f = 0; f < 3; f++)
			(void)cx_exec_set_input(x, cx_exec_input(x, names[f]), b->event[f],
				(uint64_t)(r->batch * EVENTS) * 4, &err);
		(void)cx_exec_set_input(
			x, cx_exec_input(x, "off"), b->off, (uint64_t)(r->batch + 1) * 4, &err);
		print_steps(r, plan, x);
		cx_exec_free(x);
	}
	for (t0 = cx__now_us(); !b->profile && again(b, t0, n); n++) {
		double start = cx__now_us();
		if (decode(b, run, r->batch, out, &err) != CX_OK) die(r->model, &err);
		t[n] = cx__now_us() - start;
	}
	for (int64_t i = 0; i < r->batch * r->c.behavior_dim; i++)
		if (!isfinite(out[i])) die("a result that is not finite", &err);
	if (!b->profile) print_row(r, t, n);
	cx_cortex_runner_free(run);
	cx_store_free(store);
	cx_cortex_close(m);
}

/* ---- training ---- */

typedef struct trained {
	cx_param p[MAX_PARAMS];
	cx_tensor wrt[MAX_PARAMS];
	uint32_t n;
} trained;

static cx_tensor state_of(void *ctx, cx_graph *g, const cx_cortex_param *p, size_t index)
{
	trained *t = ctx;
	(void)index;
	t->p[t->n] = cx_param_state(g, p->name, CX_F32, p->rank, p->dim);
	t->p[t->n].no_decay = !p->linear;
	t->wrt[t->n] = t->p[t->n].value;
	return t->p[t->n++].value;
}

static cx_graph *train_graph(const row *r)
{
	cx_graph *g = NULL;
	trained *t = calloc(1, sizeof *t);
	cx_cortex_source src = {.get = state_of, .ctx = t};
	cx_cortex_bucket k = {.n_windows = r->batch, .n_events = r->batch * EVENTS, .train = true};
	cx_tensor grads[MAX_PARAMS], lr;
	cx_attr_adamw a = cx_attr_adamw_default();
	cx_cortex_graph m;
	cx_cortex_loss loss;
	int64_t one = 1;
	cx_err err = {0};
	if (!t) exit(1);
	if (cx_graph_create(NULL, &g, &err) != CX_OK) die(r->what, &err);
	cx_cortex_build(&r->c, &src, &k, g, &m, NULL);
	loss = cx_cortex_loss_build(&r->c, &k, g, &m);
	cx_graph_grad(g, loss.loss, t->wrt, t->n, NULL, grads);
	lr = cx_input(g, "lr", CX_F32, 1, &one);
	cx_output(g, "norm", cx_clip_global_norm(g, grads, t->n, 1.0f));
	cx_adamw_step(g, t->p, grads, t->n, &a, lr, cx_step_count(g, "count"));
	cx_output(g, "loss", loss.loss);
	if (cx_graph_finish(g, &err) != CX_OK) die(r->what, &err);
	free(t);
	return g;
}

static void set(cx_exec *x, const char *name, const void *data, uint64_t n)
{
	cx_err err = {0};
	if (cx_exec_set_input(x, cx_exec_input(x, name), data, n * 4, &err) != CX_OK) die(name, &err);
}

static void set_inputs(const bench *b, const row *r, cx_exec *x)
{
	float target[2 * MAX_BATCH], weight[MAX_BATCH], lr = 3e-4f;
	float scale[2] = {1.0f / (float)(2 * r->batch), 0.0f};
	for (int i = 0; i < 2 * MAX_BATCH; i++) target[i] = (float)(i % 5) * 0.5f - 1.0f;
	for (int i = 0; i < MAX_BATCH; i++) weight[i] = 1.0f;
	for (int f = 0; f < 3; f++) set(x, names[f], b->event[f], (uint64_t)r->batch * EVENTS);
	set(x, "off", b->off, (uint64_t)r->batch + 1);
	set(x, "target", target, 2 * (uint64_t)r->batch);
	set(x, "window_weight", weight, (uint64_t)r->batch);
	set(x, "loss_scale", scale, 2);
	set(x, "lr", &lr, 1);
}

static void train_step(const bench *b, row *r)
{
	double t[MAX_RUNS], t0;
	float loss;
	cx_graph *g = train_graph(r);
	cx_plan *plan = NULL;
	cx_store *store = NULL;
	cx_exec *x = NULL;
	cx_cortex *m = NULL;
	cx_device *dev = b->dev;
	cx_plan_opts opts = {.devices = &dev, .n_devices = 1};
	cx_tensor used[MAX_PARAMS];
	cx_err err = {0};
	int n = 0;
	if (cx_plan_build(g, &opts, &plan, &err) != CX_OK ||
		cx_store_create(b->rt, &store, &err) != CX_OK ||
		cx_exec_create(plan, store, &x, &err) != CX_OK ||
		cx_cortex_create(&r->c, 1, NULL, &m, &err) != CX_OK)
		die(r->what, &err);
	for (size_t i = 0; i < cx_cortex_n_params(&r->c); i++) {
		cx_cortex_param p;
		cx_cortex_param_get(&r->c, i, &p);
		used[i] = CX_NONE;
		for (uint32_t id = 0; id < cx_graph_n_nodes(g); id++)
			if (!strcmp(cx_tensor_name(g, (cx_tensor){id}), p.name)) used[i].id = id;
	}
	if (cx_cortex_write_states(m, store, used, &err) != CX_OK) die(r->what, &err);
	set_inputs(b, r, x);
	for (int i = 0; i < 2; i++)
		if (cx_exec_run(x, &err) != CX_OK) die(r->what, &err);
	if (b->profile) print_steps(r, plan, x);
	for (t0 = cx__now_us(); !b->profile && again(b, t0, n); n++) {
		double start = cx__now_us();
		if (cx_exec_run(x, &err) != CX_OK) die(r->what, &err);
		t[n] = cx__now_us() - start;
	}
	if (cx_exec_get_output(x, cx_exec_output(x, "loss"), &loss, 4, &err) != CX_OK ||
		!isfinite(loss))
		die("a loss that is not finite", &err);
	if (!b->profile) print_row(r, t, n);
	cx_exec_free(x);
	cx_store_free(store);
	cx_cortex_close(m);
	cx_plan_free(plan);
	cx_graph_free(g);
}

/* ---- the table ---- */

static void run_row(const bench *b, row *r, const char *part, double gflop)
{
	char name[96];
	bool train = !strcmp(r->what, "train step");
	snprintf(name, sizeof name, "%s %s %ld %s", r->model, r->dtype, (long)r->batch, r->what);
	if (!strstr(name, part)) return;
	r->gflop = gflop * (double)r->batch * (train ? 3 : 1);
	r->peak = !strcmp(r->dtype, "f32")    ? b->top.fma_gflops
			  : !strcmp(r->dtype, "bf16") ? b->top.bf16_gflops
										  : b->top.dot8_gops;
	if (train) train_step(b, r);
	else forward(b, r);
}

static void table(const bench *b, const char *part)
{
	static const char *const dtypes[] = {"f32", "bf16", "int8"};
	static const int64_t batches[] = {1, 8, MAX_BATCH};
	for (int s = 0; s < 2; s++) {
		row r = {.model = sizes[s].name, .c = cx_cortex_config_size(sizes[s].size)};
		cx_cortex_flops f;
		r.c.behavior_dim = 2;
		f = cx_cortex_count_flops(&r.c, EVENTS);
		r.what = "forward";
		for (int d = 0; d < 3; d++)
			for (int i = 0; i < 3; i++) {
				r.dtype = dtypes[d];
				r.batch = batches[i];
				run_row(b, &r, part, (f.total - f.cross_q) * 1e-9);
			}
		if (sizes[s].size != CX_CORTEX_XS) continue;
		r.what = "train step";
		r.dtype = "f32";
		r.batch = MAX_BATCH;
		r.c.dropout = 0;
		r.c.use_masked_spike_head = false;
		run_row(b, &r, part, f.total * 1e-9);
	}
}

int main(int argc, char **argv)
{
	cx_config config = {0};
	bench *b = calloc(1, sizeof *b);
	cx_pool *pool = NULL;
	const char *part = "";
	cx_err err = {0};
	int c;
	if (!b) return 1;
	b->seconds = 1;
	while ((c = getopt(argc, argv, "t:s:k:p")) != -1) {
		if (c == 't') config.n_threads = atoi(optarg);
		else if (c == 's') b->seconds = atof(optarg);
		else if (c == 'k') part = optarg;
		else if (c == 'p') b->profile = true;
		else return 2;
	}
	if (cx__pool_create(NULL, (uint32_t)config.n_threads, false, &pool, &err) != CX_OK)
		die("threads", &err);
	if (!cx__ceilings_measure(pool, &b->top)) die("ceilings: no memory", &err);
	cx__pool_free(pool);
	if (cx_runtime_create(&config, &b->rt, &err) != CX_OK ||
		cx_device_open(b->rt, "cpu", 0, &b->dev, &err) != CX_OK)
		die("cpu", &err);
	make_windows(b);
	printf("# backend: %s\n# ceilings: fma %.0f GFLOP/s, bf16 %.0f GFLOP/s, dot8 %.0f GOP/s\n",
		cx_device_name(b->dev), b->top.fma_gflops, b->top.bf16_gflops, b->top.dot8_gops);
	printf("peer\tmodel\tdtype\tbatch\twhat\tms_best\tms_median\tGFLOP/s\tfloor_ms\t%%peak\n");
	table(b, part);
	cx_device_close(b->dev);
	cx_runtime_free(b->rt);
	free(b);
	return 0;
}
