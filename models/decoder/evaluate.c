/* evaluate.c - see evaluate.h. */
#include "models/decoder/evaluate.h"

#include <math.h>
#include <string.h>

#include "models/decoder/checkpoint.h"
#include "models/decoder/metrics.h"
#include "models/decoder/runner.h"

enum { WINDOWS = 32 }; /* of one run */

struct cx_evaluator {
	cx_alloc alloc;
	cx_net_config c;
	const cx_dataset *data;
	const cx_dataset_info *info;
	cx_cortex_runner *runner; /* Cortex */
	cx_graph *graph;          /* dense: one bucket of WINDOWS */
	cx_plan *plan;
	cx_exec *exec;
	cx_arena arena; /* owns what follows */
	uint32_t which[WINDOWS];
	cx_batch batch;
	float *counts, *turned, *y;
};

static cx_status no_memory(cx_err *err)
{
	return CX_FAIL(err, CX_ERR_MEMORY, "evaluation: out of memory");
}

cx_status cx_net_fits(const cx_net_config *c, const cx_dataset *data, cx_err *err)
{
	const cx_dataset_info *i = cx_dataset_get_info(data);
	if (cx_net_behavior_dim(c) != i->behavior_dim)
		return CX_FAIL(err, CX_ERR_SHAPE, "the network decodes %lld columns, the data has %u",
			(long long)cx_net_behavior_dim(c), i->behavior_dim);
	if (c->kind != CX_NET_CORTEX) {
		if (c->dense.n_units != i->n_units)
			return CX_FAIL(err, CX_ERR_SHAPE, "the network takes %lld units, the data has %u",
				(long long)c->dense.n_units, i->n_units);
		if (c->dense.window != i->window)
			return CX_FAIL(err, CX_ERR_SHAPE,
				"the network takes windows of %lld bins, the data has %u",
				(long long)c->dense.window, i->window);
		return CX_OK;
	}
	if (c->cortex.max_neurons < i->n_units)
		return CX_FAIL(err, CX_ERR_SHAPE,
			"the data has %u units, which exceeds max_neurons = %lld of the network", i->n_units,
			(long long)c->cortex.max_neurons);
	if (c->cortex.max_time_bins < i->window)
		return CX_FAIL(err, CX_ERR_SHAPE,
			"the data has windows of %u bins, which exceeds max_time_bins = %lld of the network",
			i->window, (long long)c->cortex.max_time_bins);
	if (c->cortex.spike_value_buckets < i->buckets)
		return CX_FAIL(err, CX_ERR_SHAPE,
			"the data has values below %u, the network takes those below %lld", i->buckets,
			(long long)c->cortex.spike_value_buckets);
	return CX_OK;
}

static cx_status dense_bucket(
	cx_evaluator *e, const cx_cortex_source *src, cx_device *dev, cx_store *store, cx_err *err)
{
	cx_cortex_bucket b = {.n_windows = WINDOWS};
	cx_plan_opts opts = {.devices = &dev, .n_devices = 1};
	cx_net_graph m;
	cx_status st = cx_graph_create(&e->alloc, &e->graph, err);
	if (st != CX_OK) return st;
	cx_net_build(&e->c, src, &b, e->graph, &m, NULL);
	cx_output(e->graph, "behavior", m.cortex.behavior);
	if ((st = cx_graph_finish(e->graph, err)) != CX_OK) return st;
	if ((st = cx_plan_build(e->graph, &opts, &e->plan, err)) != CX_OK) return st;
	return cx_exec_create(e->plan, store, &e->exec, err);
}

static cx_status buffers(cx_evaluator *e, cx_err *err)
{
	size_t cells = (size_t)e->info->window * e->info->n_units, events = 0;
	for (int p = 0; p < CX_PART_COUNT; p++)
		if (e->info->max_events[p] > events) events = e->info->max_events[p];
	events *= WINDOWS;
	if (events > INT32_MAX) return no_memory(err);
	e->batch.cap_events = (uint32_t)events;
	e->y = cx_arena_array(&e->arena, (size_t)WINDOWS * e->info->behavior_dim, sizeof *e->y);
	e->batch.target =
		cx_arena_array(&e->arena, (size_t)WINDOWS * e->info->behavior_dim, sizeof(float));
	if (!e->y || !e->batch.target) return no_memory(err);
	if (e->c.kind != CX_NET_CORTEX) {
		e->counts = cx_arena_array(&e->arena, WINDOWS * cells, sizeof(float));
		e->turned = cx_arena_array(&e->arena, WINDOWS * cells, sizeof(float));
		return e->counts && e->turned ? CX_OK : no_memory(err);
	}
	e->batch.off = cx_arena_array(&e->arena, WINDOWS + 1, sizeof(int32_t));
	e->batch.neuron = cx_arena_array(&e->arena, events + 1, sizeof(int32_t));
	e->batch.time = cx_arena_array(&e->arena, events + 1, sizeof(int32_t));
	e->batch.value = cx_arena_array(&e->arena, events + 1, sizeof(int32_t));
	return e->batch.off && e->batch.neuron && e->batch.time && e->batch.value ? CX_OK
																			  : no_memory(err);
}

cx_status cx_evaluator_create(const cx_net_config *c, const cx_cortex_source *src, cx_device *dev,
	cx_store *store, const cx_dataset *data, const cx_alloc *alloc, cx_evaluator **out, cx_err *err)
{
	cx_evaluator *e;
	cx_status st = cx_net_fits(c, data, err);
	*out = NULL;
	if (st != CX_OK) return st;
	if (!(e = cx_calloc(alloc, 1, sizeof *e))) return no_memory(err);
	e->alloc = alloc && alloc->realloc ? *alloc : cx_alloc_default();
	cx_arena_init(&e->arena, alloc);
	e->c = *c;
	e->data = data;
	e->info = cx_dataset_get_info(data);
	if ((st = buffers(e, err)) == CX_OK)
		st = c->kind == CX_NET_CORTEX ? cx_cortex_runner_create(&c->cortex, src, dev, store,
											WINDOWS, alloc, &e->runner, err)
									  : dense_bucket(e, src, dev, store, err);
	if (st == CX_OK) *out = e;
	else cx_evaluator_free(e);
	return st;
}

void cx_evaluator_free(cx_evaluator *e)
{
	cx_alloc alloc;
	if (!e) return;
	alloc = e->alloc;
	cx_cortex_runner_free(e->runner);
	cx_exec_free(e->exec);
	cx_plan_free(e->plan);
	cx_graph_free(e->graph);
	cx_arena_deinit(&e->arena);
	cx_free(&alloc, e, sizeof *e);
}

/* Windows [first, first + n) of the part; of a dense bucket the rest repeats the last window. */
static cx_status dense_run(cx_evaluator *e, cx_part part, uint32_t n, cx_err *err)
{
	size_t t = e->info->window, u = e->info->n_units;
	const float *x = e->counts;
	cx_status st;
	for (uint32_t i = n; i < WINDOWS; i++) e->which[i] = e->which[n - 1];
	st = cx_dataset_dense(e->data, part, e->which, WINDOWS, e->counts, NULL, err);
	if (st != CX_OK) return st;
	if (e->c.kind == CX_NET_GRU) { /* bin by bin */
		for (size_t w = 0; w < WINDOWS; w++)
			for (size_t i = 0; i < t; i++)
				memcpy(
					e->turned + (i * WINDOWS + w) * u, e->counts + (w * t + i) * u, u * sizeof *x);
		x = e->turned;
	}
	st = cx_exec_set_input(
		e->exec, cx_exec_input(e->exec, "counts"), x, WINDOWS * t * u * sizeof *x, err);
	if (st == CX_OK) st = cx_exec_run(e->exec, err);
	if (st != CX_OK) return st;
	return cx_exec_get_output(e->exec, cx_exec_output(e->exec, "behavior"), e->y,
		(uint64_t)WINDOWS * e->info->behavior_dim * sizeof *e->y, err);
}

cx_status cx_evaluator_decode(cx_evaluator *e, cx_part part, float *y, cx_err *err)
{
	uint32_t total = e->info->n_windows[part], d = e->info->behavior_dim;
	for (uint32_t first = 0; first < total; first += WINDOWS) {
		uint32_t n = total - first < WINDOWS ? total - first : WINDOWS;
		cx_status st;
		for (uint32_t i = 0; i < n; i++) e->which[i] = first + i;
		if (e->c.kind == CX_NET_CORTEX) {
			st = cx_dataset_fill(e->data, part, e->which, n, &e->batch, NULL, err);
			if (st == CX_OK)
				st = cx_cortex_runner_run(e->runner, e->batch.off, n, e->batch.neuron,
					e->batch.time, e->batch.value, e->y, err);
		} else {
			st = dense_run(e, part, n, err);
		}
		if (st != CX_OK) return st;
		memcpy(y + (size_t)first * d, e->y, (size_t)n * d * sizeof *y);
	}
	return CX_OK;
}

cx_status cx_evaluator_score(
	cx_evaluator *e, cx_part part, double *r2, double *mean, double *mse, cx_err *err)
{
	uint32_t n = e->info->n_windows[part], d = e->info->behavior_dim;
	size_t size = (size_t)n * d;
	float *y = cx_malloc(&e->alloc, (size ? size : 1) * sizeof *y);
	double *wide = cx_malloc(&e->alloc, (2 * size + 1) * sizeof *wide), *truth = wide, sse = 0, m;
	cx_status st = y && wide ? cx_evaluator_decode(e, part, y, err) : no_memory(err);
	if (st == CX_OK) {
		for (uint32_t i = 0; i < n; i++) cx_dataset_truth(e->data, part, i, truth + (size_t)i * d);
		for (size_t i = 0; i < size; i++) {
			uint32_t c = (uint32_t)(i % d);
			double gap = (truth[i] - e->info->mean[c]) / e->info->sd[c] - y[i];
			wide[size + i] = y[i] * e->info->sd[c] + e->info->mean[c];
			sse += gap * gap;
		}
		m = cx_r2(truth, wide + size, n, d, r2);
		if (n == 0) m = NAN;
		for (uint32_t c = 0; n == 0 && c < d; c++) r2[c] = NAN;
		if (mean) *mean = m;
		if (mse) *mse = sse / (double)size;
	}
	cx_free(&e->alloc, wide, (2 * size + 1) * sizeof *wide);
	cx_free(&e->alloc, y, (size ? size : 1) * sizeof *y);
	return st;
}

/* ---- files ---- */

struct cx_net_file {
	cx_alloc alloc;
	cx_net_config c;
	cx_device *dev;
	cx_store *store;
	cx_cortex *cortex;
	cx_safetensors *dense;
	cx_cortex_source src;
};

static cx_status open_dense(cx_net_file *f, const char *path, cx_err *err)
{
	const cx_tensor_list *l;
	size_t n = cx_net_n_params(&f->c);
	cx_status st = cx_safetensors_open(&f->alloc, path, &f->dense, err);
	if (st != CX_OK) return st;
	l = cx_safetensors_tensors(f->dense);
	for (size_t i = 0; i < n; i++) {
		const cx_file_tensor *t;
		cx_cortex_param p;
		cx_net_param_get(&f->c, i, &p);
		if ((st = cx_tensor_list_get(l, p.name, p.rank, p.dim, &t, err)) != CX_OK) return st;
		if (t->dtype != CX_F32)
			return CX_FAIL(err, CX_ERR_FORMAT, "%s: '%s' is %s, must be F32",
				cx_safetensors_label(f->dense), p.name, t->dtype_name);
		st = cx_store_weight(f->store, p.name, CX_F32, p.rank, p.dim, t->data, t->bytes, err);
		if (st != CX_OK) return st;
	}
	if (l->n != n)
		return CX_FAIL(err, CX_ERR_FORMAT, "%s has %zu tensors, the network %zu",
			cx_safetensors_label(f->dense), l->n, n);
	f->src = cx_cortex_weights();
	return CX_OK;
}

static cx_status open_cortex(cx_net_file *f, const char *path, cx_runtime *rt, cx_err *err)
{
	cx_status st = cx_cortex_open(path, &f->alloc, &f->cortex, err);
	if (st == CX_OK) st = cx_cortex_bind(f->cortex, rt, f->dev, f->store, err);
	if (st != CX_OK) return st;
	f->c.cortex = *cx_cortex_get_config(f->cortex);
	f->src = cx_cortex_get_source(f->cortex);
	return CX_OK;
}

cx_status cx_net_file_open(const char *path, const cx_net_config *c, cx_runtime *rt, cx_device *dev,
	const cx_alloc *alloc, cx_net_file **out, cx_err *err)
{
	cx_net_file *f = cx_calloc(alloc, 1, sizeof *f);
	cx_status st;
	*out = NULL;
	if (!f) return no_memory(err);
	f->alloc = alloc && alloc->realloc ? *alloc : cx_alloc_default();
	f->c = *c;
	f->dev = dev;
	st = cx_store_create(rt, &f->store, err);
	if (st == CX_OK)
		st = c->kind == CX_NET_CORTEX ? open_cortex(f, path, rt, err) : open_dense(f, path, err);
	if (st == CX_OK) *out = f;
	else cx_net_file_close(f);
	return st;
}

void cx_net_file_close(cx_net_file *f)
{
	cx_alloc alloc;
	if (!f) return;
	alloc = f->alloc;
	cx_store_free(f->store);
	cx_cortex_close(f->cortex);
	cx_safetensors_close(f->dense);
	cx_free(&alloc, f, sizeof *f);
}

cx_status cx_net_file_evaluator(
	cx_net_file *f, const cx_dataset *data, cx_evaluator **out, cx_err *err)
{
	return cx_evaluator_create(&f->c, &f->src, f->dev, f->store, data, &f->alloc, out, err);
}
