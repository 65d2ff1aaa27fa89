/* runner.c - see runner.h. */
#include "models/decoder/runner.h"

#include <string.h>

enum { MIN_EVENTS = 64, MAX_EVENTS = 1 << 24 };

typedef struct bucket {
	int64_t n_windows, n_events;
	cx_graph *graph;
	cx_plan *plan;
	cx_exec *exec;
	int neuron, time, value, off, behavior;
	int32_t *rows; /* [n_events]: one input after another, padded */
	int32_t *offs; /* [n_windows + 1] */
} bucket;

struct cx_cortex_runner {
	cx_alloc alloc;
	cx_cortex_config c;
	cx_cortex_source src;
	cx_device *dev;
	cx_store *store;
	int64_t max_windows;
	bucket *at; /* [n] */
	size_t n, cap;
};

static cx_status no_memory(cx_err *err)
{
	return CX_FAIL(err, CX_ERR_MEMORY, "decoder: out of memory");
}

cx_status cx_cortex_runner_create(const cx_cortex_config *c, const cx_cortex_source *src,
	cx_device *dev, cx_store *store, int64_t max_windows, const cx_alloc *alloc,
	cx_cortex_runner **out, cx_err *err)
{
	cx_cortex_runner *r;
	cx_status st;
	*out = NULL;
	if ((st = cx_cortex_config_check(c, err)) != CX_OK) return st;
	if (max_windows < 1 || max_windows > 65536)
		return CX_FAIL(err, CX_ERR_ARGUMENT, "decoder: runs of %lld windows, must be in 1..65536",
			(long long)max_windows);
	if (!(r = cx_calloc(alloc, 1, sizeof *r))) return no_memory(err);
	r->alloc = alloc && alloc->realloc ? *alloc : cx_alloc_default();
	r->c = *c;
	r->src = *src;
	r->dev = dev;
	r->store = store;
	r->max_windows = max_windows;
	*out = r;
	return CX_OK;
}

static void bucket_deinit(cx_cortex_runner *r, bucket *b)
{
	cx_exec_free(b->exec);
	cx_plan_free(b->plan);
	cx_graph_free(b->graph);
	cx_free(&r->alloc, b->rows, (size_t)b->n_events * sizeof *b->rows);
	cx_free(&r->alloc, b->offs, (size_t)(b->n_windows + 1) * sizeof *b->offs);
}

void cx_cortex_runner_free(cx_cortex_runner *r)
{
	cx_alloc alloc;
	if (!r) return;
	alloc = r->alloc;
	for (size_t i = 0; i < r->n; i++) bucket_deinit(r, &r->at[i]);
	cx_free(&alloc, r->at, r->cap * sizeof *r->at);
	cx_free(&alloc, r, sizeof *r);
}

/* ---- buckets ---- */

/* Largest power of two that is not above n and not above the limit of a run. */
static int64_t windows_of(const cx_cortex_runner *r, int64_t n)
{
	int64_t b = 1;
	while (2 * b <= n && 2 * b <= r->max_windows) b *= 2;
	return b;
}

/* Room for n events: eight steps per doubling. */
static int64_t room_for(int64_t n)
{
	int64_t step = MIN_EVENTS / 8;
	if (n <= MIN_EVENTS) return MIN_EVENTS;
	while (16 * step < n) step *= 2;
	return (n + step - 1) / step * step;
}

static bucket *find(const cx_cortex_runner *r, int64_t n_windows, int64_t n_events)
{
	for (size_t i = 0; i < r->n; i++)
		if (r->at[i].n_windows == n_windows && r->at[i].n_events == n_events) return &r->at[i];
	return NULL;
}

static cx_status bucket_init(cx_cortex_runner *r, bucket *b, cx_err *err)
{
	cx_cortex_bucket shape = {.n_windows = b->n_windows, .n_events = b->n_events};
	cx_plan_opts opts = {.devices = &r->dev, .n_devices = 1};
	cx_cortex_graph m;
	cx_status st;
	b->rows = cx_calloc(&r->alloc, (size_t)b->n_events, sizeof *b->rows);
	b->offs = cx_calloc(&r->alloc, (size_t)b->n_windows + 1, sizeof *b->offs);
	if (!b->rows || !b->offs) return no_memory(err);
	if ((st = cx_graph_create(&r->alloc, &b->graph, err)) != CX_OK) return st;
	cx_cortex_build(&r->c, &r->src, &shape, b->graph, &m, NULL);
	cx_output(b->graph, "behavior", m.behavior);
	if ((st = cx_graph_finish(b->graph, err)) != CX_OK ||
		(st = cx_plan_build(b->graph, &opts, &b->plan, err)) != CX_OK ||
		(st = cx_exec_create(b->plan, r->store, &b->exec, err)) != CX_OK)
		return st;
	b->neuron = cx_exec_input(b->exec, "neuron");
	b->time = cx_exec_input(b->exec, "time");
	b->value = cx_exec_input(b->exec, "value");
	b->off = cx_exec_input(b->exec, "off");
	b->behavior = cx_exec_output(b->exec, "behavior");
	return CX_OK;
}

static cx_status get_bucket(
	cx_cortex_runner *r, int64_t n_windows, int64_t n_events, bucket **out, cx_err *err)
{
	bucket b = {.n_windows = n_windows, .n_events = room_for(n_events)};
	cx_status st;
	if ((*out = find(r, b.n_windows, b.n_events)) != NULL) return CX_OK;
	if (n_events > MAX_EVENTS)
		return CX_FAIL(err, CX_ERR_ARGUMENT, "decoder: %lld events in one run, at most %d",
			(long long)n_events, MAX_EVENTS);
	if (r->n == r->cap) {
		size_t cap = r->cap ? 2 * r->cap : 8;
		bucket *at = cx_realloc(&r->alloc, r->at, r->cap * sizeof *at, cap * sizeof *at);
		if (!at) return no_memory(err);
		r->at = at;
		r->cap = cap;
	}
	if ((st = bucket_init(r, &b, err)) != CX_OK) {
		bucket_deinit(r, &b);
		return st;
	}
	r->at[r->n] = b;
	*out = &r->at[r->n++];
	return CX_OK;
}

cx_status cx_cortex_runner_warm(
	cx_cortex_runner *r, int64_t n_windows, int64_t n_events, cx_err *err)
{
	bucket *b;
	for (int64_t left = n_windows; left > 0;) {
		int64_t now = windows_of(r, left);
		cx_status st = get_bucket(r, now, n_events * now / n_windows, &b, err);
		if (st != CX_OK) return st;
		left -= now;
	}
	return CX_OK;
}

const cx_plan *cx_cortex_runner_plan(const cx_cortex_runner *r, int64_t n_windows, int64_t n_events)
{
	const bucket *b = find(r, windows_of(r, n_windows), room_for(n_events));
	return b ? b->plan : NULL;
}

size_t cx_cortex_runner_n_buckets(const cx_cortex_runner *r)
{
	return r->n;
}

/* ---- run ---- */

static cx_status set_rows(bucket *b, int input, const int32_t *v, int64_t n, cx_err *err)
{
	uint64_t bytes = (uint64_t)b->n_events * sizeof *v;
	if (n == b->n_events) return cx_exec_set_input(b->exec, input, v, bytes, err);
	if (n) memcpy(b->rows, v, (size_t)n * sizeof *v);
	for (int64_t i = n; i < b->n_events; i++) b->rows[i] = -1;
	return cx_exec_set_input(b->exec, input, b->rows, bytes, err);
}

cx_status cx_cortex_runner_run(cx_cortex_runner *r, const int32_t *off, int64_t n_windows,
	const int32_t *neuron, const int32_t *time, const int32_t *value, float *behavior, cx_err *err)
{
	uint64_t row = (uint64_t)r->c.behavior_dim * sizeof *behavior;
	cx_status st =
		cx_cortex_check_events(&r->c, off, n_windows, neuron, time, value, INT32_MAX, err);
	for (int64_t w = 0; w < n_windows && st == CX_OK;) {
		int64_t now = windows_of(r, n_windows - w), at = off[w], n = off[w + now] - at;
		bucket *b;
		if ((st = get_bucket(r, now, n, &b, err)) != CX_OK) return st;
		for (int64_t i = 0; i <= now; i++) b->offs[i] = off[w + i] - (int32_t)at;
		if ((st = set_rows(b, b->neuron, neuron + at, n, err)) != CX_OK ||
			(st = set_rows(b, b->time, time + at, n, err)) != CX_OK ||
			(st = set_rows(b, b->value, value + at, n, err)) != CX_OK ||
			(st = cx_exec_set_input(
				 b->exec, b->off, b->offs, (uint64_t)(now + 1) * sizeof *off, err)) != CX_OK ||
			(st = cx_exec_run(b->exec, err)) != CX_OK)
			return st;
		st = cx_exec_get_output(
			b->exec, b->behavior, behavior + w * r->c.behavior_dim, (uint64_t)now * row, err);
		w += now;
	}
	return st;
}
