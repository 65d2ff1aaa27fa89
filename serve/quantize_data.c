/* quantize_data.c - see quantize_data.h. */
#include "serve/quantize_data.h"
#include "graph/philox.h"
#include "models/decoder/metrics.h"
#include "models/files/map.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- uniform ---- */

static cx_status fill_uniform(void *ctx, bool eval, uint32_t index, cx_batch *b, cx_err *err)
{
	const cx_windows *w = ctx;
	uint64_t seed = (uint64_t)w->a.seed + index + (eval ? w->data.n_calib : 0);
	uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)}, n = w->data.cap_events;
	(void)err;
	for (uint32_t i = 0; i <= w->data.n_windows; i++) b->off[i] = (int32_t)(i * w->a.events);
	for (uint32_t i = 0; i < n; i++) {
		uint32_t at[4] = {i, 0, 0, 0}, u[4];
		cx__philox(at, key, u); /* u / 2^32 * size: no size here is large enough to be uneven */
		b->neuron[i] = (int32_t)((uint64_t)u[0] * (uint64_t)w->c->max_neurons >> 32);
		b->time[i] = (int32_t)((uint64_t)u[1] * (uint64_t)w->c->max_time_bins >> 32);
		b->value[i] = (int32_t)((uint64_t)u[2] * (uint64_t)w->c->spike_value_buckets >> 32);
	}
	return CX_OK;
}

/* ---- a recording ---- */

/* Number i of the windows that are measured on. */
static uint32_t eval_window(const cx_windows *w, uint32_t i)
{
	uint64_t n = cx_dataset_get_info(w->set)->n_windows[w->eval];
	uint64_t used = (uint64_t)w->data.n_eval * w->data.n_windows;
	return (uint32_t)(i * n / used);
}

static cx_status fill_recorded(void *ctx, bool eval, uint32_t index, cx_batch *b, cx_err *err)
{
	const cx_windows *w = ctx;
	uint32_t n = w->data.n_windows, all = cx_dataset_get_info(w->set)->n_windows[CX_PART_TRAIN];
	for (uint32_t i = 0; i < n; i++)
		w->which[i] =
			eval ? eval_window(w, index * n + i) : w->order[((uint64_t)index * n + i) % all];
	return cx_dataset_fill(w->set, eval ? w->eval : CX_PART_TRAIN, w->which, n, b, NULL, err);
}

/* What the file says of its training, or the defaults. */
static cx_status configure(
	const cx_windows *w, const char *model, const cx_cortex *m, cx_train_config *c, cx_err *err)
{
	static cx_train_meta meta;
	cx_status st;
	cx_train_defaults(c);
	if (model && cx_cortex_get_meta(m, "config")) {
		if ((st = cx_train_meta_read(model, NULL, &meta, err)) != CX_OK) return st;
		*c = meta.config;
	}
	c->train.network = CX_NET_CORTEX;
	if (w->a.bin > 0) c->data.bin_seconds = w->a.bin;
	if (w->a.window > 0) c->data.window = w->a.window;
	if (c->data.ahead >= c->data.window) c->data.ahead = 0;
	c->data.path[0] = 0;
	if (w->a.path &&
		snprintf(c->data.path, sizeof c->data.path, "%s", w->a.path) >= (int)sizeof c->data.path)
		return CX_FAIL(err, CX_ERR_ARGUMENT, "--data: the path is too long");
	return CX_OK;
}

static cx_status open_set(cx_windows *w, const char *model, const cx_train_config *c, cx_err *err)
{
	cx_train_config conf = *c;
	const cx_dataset_info *info;
	cx_status st;
	conf.model.given = *w->c; /* the file's own geometry bounds units and values */
	conf.model.norm = (int)w->c->norm;
	if ((st = cx_train_config_open(&conf, NULL, &w->set, err)) != CX_OK) return st;
	info = cx_dataset_get_info(w->set);
	if (info->behavior_dim != w->c->behavior_dim)
		return CX_FAIL(err, CX_ERR_SHAPE, "%s decodes %lld columns, the data has %u",
			model ? cx_path_tail(model) : "the model", (long long)w->c->behavior_dim,
			info->behavior_dim);
	if (info->window > w->c->max_time_bins)
		return CX_FAIL(err, CX_ERR_SHAPE, "windows of %u bins, the model takes %lld at most",
			info->window, (long long)w->c->max_time_bins);
	return CX_OK;
}

/* Data that the model was trained on has its constants; other data its own. */
static cx_status open_recorded(cx_windows *w, const char *model, const cx_cortex *m, cx_err *err)
{
	static cx_train_config c;
	const cx_dataset_info *info;
	uint32_t most;
	uint64_t cap;
	cx_status st;
	if ((st = configure(w, model, m, &c, err)) != CX_OK ||
		(st = open_set(w, model, &c, err)) != CX_OK)
		return st;
	info = cx_dataset_get_info(w->set);
	w->eval = info->n_windows[CX_PART_TEST]  ? CX_PART_TEST
			  : info->n_windows[CX_PART_VAL] ? CX_PART_VAL
											 : CX_PART_TRAIN;
	most = info->n_windows[w->eval];
	if (w->data.n_windows > most) w->data.n_windows = most;
	if (w->data.n_eval > most / w->data.n_windows) w->data.n_eval = most / w->data.n_windows;
	most = info->max_events[CX_PART_TRAIN];
	if (info->max_events[w->eval] > most) most = info->max_events[w->eval];
	cap = (uint64_t)most * w->data.n_windows;
	if (cap > INT32_MAX / 2)
		return CX_FAIL(err, CX_ERR_ARGUMENT, "batches of %u windows with up to %u events",
			w->data.n_windows, most);
	w->data.cap_events = cap ? (uint32_t)cap : 1;
	w->order = calloc(info->n_windows[CX_PART_TRAIN], sizeof *w->order);
	w->which = calloc(w->data.n_windows, sizeof *w->which);
	if (!w->order || !w->which) return CX_FAIL(err, CX_ERR_MEMORY, "out of memory");
	cx_dataset_order(w->set, CX_PART_TRAIN, (uint64_t)w->a.seed, 0, w->order);
	w->data.fill = fill_recorded;
	return CX_OK;
}

/* ---- both ---- */

cx_status cx__windows_open(
	const cx_windows_args *args, const char *model, const cx_cortex *m, cx_windows *w, cx_err *err)
{
	memset(w, 0, sizeof *w);
	w->a = *args;
	w->c = cx_cortex_get_config(m);
	w->data = (cx_quantize_data){.fill = fill_uniform,
		.ctx = w,
		.n_windows = (uint32_t)args->batch,
		.cap_events = (uint32_t)(args->batch * args->events),
		.n_calib = (uint32_t)args->n_calib,
		.n_eval = (uint32_t)args->n_eval};
	if ((args->path != NULL) + args->simulate + args->uniform != 1)
		return CX_FAIL(err, CX_ERR_ARGUMENT,
			"exactly one of --data, --simulate and --uniform says what to calibrate on");
	return args->uniform ? CX_OK : open_recorded(w, model, m, err);
}

void cx__windows_close(cx_windows *w)
{
	cx_dataset_free(w->set);
	free(w->order);
	free(w->which);
	memset(w, 0, sizeof *w);
}

double cx__windows_score(const cx_windows *w, const float *y, double *r2, cx_err *err)
{
	const cx_dataset_info *info = cx_dataset_get_info(w->set);
	uint32_t n = w->data.n_eval * w->data.n_windows, d = info->behavior_dim;
	double *v = calloc((size_t)n * d, 2 * sizeof *v), *decoded, mean;
	if (!v) {
		(void)CX_FAIL(err, CX_ERR_MEMORY, "out of memory");
		return NAN;
	}
	decoded = v + (size_t)n * d;
	for (uint32_t i = 0; i < n; i++) {
		cx_dataset_truth(w->set, w->eval, eval_window(w, i), v + (size_t)i * d);
		for (uint32_t c = 0; c < d; c++)
			decoded[(size_t)i * d + c] = y[(size_t)i * d + c] * info->sd[c] + info->mean[c];
	}
	mean = cx_r2(v, decoded, n, d, r2);
	free(v);
	return mean;
}
