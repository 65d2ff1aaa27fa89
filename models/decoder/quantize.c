/* quantize.c - see quantize.h. */
#include "models/decoder/quantize.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "graph/quant.h"
#include "models/decoder/runner.h"

enum {
	SAMPLE_ROWS = 128,
	GRID = 28,
	GRID_FROM = 12,
	GRID_STEP = 32
}; /* of a layer's activations, kept to measure its product on */

typedef struct sample {
	int64_t rows, k; /* of a batch's activations, in the calibrating graph */
	float *at;       /* [SAMPLE_ROWS, k] */
	uint32_t n;
} sample;

typedef struct job {
	cx_cortex *m;
	const cx_cortex_config *c;
	cx_runtime *rt;
	cx_device *dev;
	const cx_quantize_opts *o;
	const cx_quantize_data *d;
	cx_quantize_report *r;
	cx_arena arena;
	cx_batch batch;
	cx_calib *calib; /* [n_layers] */
	sample *sample;  /* [n_layers] */
	cx_cortex_source weights;
	cx_err *err;
} job;

static const char *const method_names[] = {"none", "percentile", "entropy", "search", "auto"};

const char *cx_quantize_method_name(cx_quantize_method m)
{
	return method_names[m];
}

bool cx_quantize_method_parse(const char *name, cx_quantize_method *out)
{
	for (int i = 0; i < CX_QUANTIZE_N_METHODS; i++) {
		if (strcmp(name, method_names[i]) != 0) continue;
		*out = (cx_quantize_method)i;
		return true;
	}
	return false;
}

static cx_status no_memory(cx_err *err)
{
	return CX_FAIL(err, CX_ERR_MEMORY, "quantize: out of memory");
}

static void progress(const job *j, const char *what, double done)
{
	if (j->o->progress) j->o->progress(j->o->progress_ctx, what, done);
}

/* ---- weights ---- */

bool cx_quantize_rows(const float *w, int64_t n, int64_t k, void *dst)
{
	unsigned char *scales = (unsigned char *)dst + cx_i8c_scale_off(n, k);
	int8_t *q = dst;
	for (int64_t r = 0; r < n; r++, w += k, q += k) {
		float top = 0, scale;
		for (int64_t i = 0; i < k; i++) {
			if (!(fabsf(w[i]) < INFINITY)) return false;
			if (fabsf(w[i]) > top) top = fabsf(w[i]);
		}
		scale = cx_calib_scale(top);
		for (int64_t i = 0; i < k; i++) { /* |w / scale| passes 127 by a rounding at most */
			float v = rintf(w[i] / scale);
			q[i] = (int8_t)(v > 127 ? 127 : v < -127 ? -127 : v);
		}
		memcpy(scales + 4 * r, &scale, 4);
	}
	return true;
}

static bool is_quantised(const cx_cortex_param *p)
{
	return p->linear && strncmp(p->name, "masked_spike_head.", 18) != 0;
}

static cx_status check_finite(const job *j, const cx_cortex_weight *w)
{
	uint64_t n = cx_cortex_param_elems(&w->p), bad = 0;
	float *v = cx_malloc(&j->arena.alloc, (size_t)n * sizeof *v), last;
	if (!v) return no_memory(j->err);
	cx_cortex_weight_f32(w, v);
	while (bad < n && fabsf(v[bad]) < INFINITY) bad++;
	last = bad < n ? v[bad] : 0;
	cx_free(&j->arena.alloc, v, (size_t)n * sizeof *v);
	if (bad == n) return CX_OK;
	return CX_FAIL(j->err, CX_ERR_ARGUMENT, "quantize: '%s': element %llu is %g", w->p.name,
		(unsigned long long)bad, (double)last);
}

/* The layers; that nothing is int8 yet, and all is finite. */
static cx_status find_layers(job *j)
{
	cx_quantize_report *r = j->r;
	r->layer = cx_arena_array(&r->arena, j->m->n, sizeof *r->layer);
	if (!r->layer) return no_memory(j->err);
	for (size_t i = 0; i < j->m->n; i++) {
		const cx_cortex_weight *w = &j->m->w[i];
		cx_quantize_layer *l = &r->layer[r->n_layers];
		cx_status st;
		if (w->dtype == CX_I8C)
			return CX_FAIL(j->err, CX_ERR_ARGUMENT,
				"quantize: '%s' is int8 already; give the model that it was made from", w->p.name);
		if ((st = check_finite(j, w)) != CX_OK) return st;
		if (w->p.linear) r->n_linears++;
		r->bytes_before += 4 * cx_cortex_param_elems(&w->p);
		if (!is_quantised(&w->p)) continue;
		l->index = i;
		snprintf(l->name, sizeof l->name, "%.*s", (int)(strlen(w->p.name) - strlen(".weight")),
			w->p.name);
		r->n_layers++;
	}
	j->calib = cx_arena_array(&j->arena, r->n_layers, sizeof *j->calib);
	j->sample = cx_arena_array(&j->arena, r->n_layers, sizeof *j->sample);
	return j->calib && j->sample ? CX_OK : no_memory(j->err);
}

/* Parameters that stay floats: the narrowest type that has room for them. */
static cx_status narrow(job *j, size_t index)
{
	const cx_cortex_weight *w = &j->m->w[index];
	uint64_t n = cx_cortex_param_elems(&w->p);
	cx_dtype type = CX_F16;
	float *v = cx_arena_array(&j->arena, (size_t)n, sizeof *v);
	uint16_t *half = cx_arena_array(&j->arena, (size_t)n, sizeof *half);
	if (!v || !half) return no_memory(j->err);
	cx_cortex_weight_f32(w, v);
	for (uint64_t i = 0; i < n; i++)
		if (fabsf(v[i]) > 65504) type = CX_BF16;
	cx_quant_row(type, v, half, (int64_t)n);
	return cx_cortex_set(j->m, index, type, half, n * sizeof *half, j->err);
}

/* ---- running batches ---- */

static cx_status make_batch(job *j)
{
	uint32_t cap = j->d->cap_events;
	size_t targets = (size_t)j->d->n_windows * (size_t)j->c->behavior_dim;
	cx_batch *b = &j->batch;
	b->cap_events = cap;
	b->off = cx_arena_array(&j->arena, (size_t)j->d->n_windows + 1, sizeof *b->off);
	b->neuron = cx_arena_array(&j->arena, (size_t)cap + 1, sizeof *b->neuron);
	b->time = cx_arena_array(&j->arena, (size_t)cap + 1, sizeof *b->time);
	b->value = cx_arena_array(&j->arena, (size_t)cap + 1, sizeof *b->value);
	b->target = cx_arena_array(&j->arena, targets, sizeof *b->target);
	if (!b->off || !b->neuron || !b->time || !b->value || !b->target) return no_memory(j->err);
	return CX_OK;
}

/* Decodes all of `eval` with the model as it is. */
static cx_status decode(job *j, const char *what, float *y)
{
	size_t per = (size_t)j->d->n_windows * (size_t)j->c->behavior_dim;
	cx_store *store = NULL;
	cx_cortex_runner *run = NULL;
	cx_cortex_source src;
	cx_status st;
	if ((st = cx_store_create(j->rt, &store, j->err)) != CX_OK ||
		(st = cx_cortex_bind(j->m, j->rt, j->dev, store, j->err)) != CX_OK)
		goto done;
	src = cx_cortex_get_source(j->m);
	st = cx_cortex_runner_create(
		j->c, &src, j->dev, store, j->d->n_windows, &j->arena.alloc, &run, j->err);
	for (uint32_t i = 0; st == CX_OK && i < j->d->n_eval; i++) {
		const cx_batch *b = &j->batch;
		progress(j, what, (double)i / j->d->n_eval);
		if ((st = j->d->fill(j->d->ctx, true, i, &j->batch, j->err)) == CX_OK)
			st = cx_cortex_runner_run(
				run, b->off, j->d->n_windows, b->neuron, b->time, b->value, y + i * per, j->err);
	}
	if (st == CX_OK) progress(j, what, 1);
done:
	cx_cortex_runner_free(run);
	cx_store_free(store);
	return st;
}

/* ---- calibration ---- */

static cx_tensor leaf(void *ctx, cx_graph *g, const cx_cortex_param *p, size_t index)
{
	const job *j = ctx;
	return j->weights.get(j->weights.ctx, g, p, index);
}

/* The plain product, with x an output "x0", "x1" .. of its layer's number. */
static cx_tensor noted(
	void *ctx, cx_graph *g, const cx_cortex_param *p, size_t index, cx_tensor x, cx_tensor w)
{
	job *j = ctx;
	char name[24];
	(void)p;
	for (size_t i = 0; i < j->r->n_layers; i++) {
		if (j->r->layer[i].index != index) continue;
		snprintf(name, sizeof name, "x%zu", i);
		cx_output(g, name, x);
		j->sample[i].rows = cx_tensor_shape(g, x).dim[0];
		j->sample[i].k = cx_tensor_shape(g, x).dim[1];
	}
	return cx_matmul(g, x, w, &(cx_attr_matmul){.trans_b = true});
}

/* What came by at layer i: its statistics, and some of its rows. */
static cx_status note(job *j, cx_exec *x, size_t i, float *v)
{
	sample *s = &j->sample[i];
	cx_quantize_layer *l = &j->r->layer[i];
	char name[24];
	int64_t rows = s->rows, want = (SAMPLE_ROWS + j->d->n_calib - 1) / j->d->n_calib;
	cx_status st;
	if (strcmp(l->name, "encoder.cross_attn.kv_proj") == 0) /* the others have no padding */
		rows = j->batch.off[j->d->n_windows];
	snprintf(name, sizeof name, "x%zu", i);
	st = cx_exec_get_output(
		x, cx_exec_output(x, name), v, (uint64_t)s->rows * (uint64_t)s->k * sizeof *v, j->err);
	if (st != CX_OK) return st;
	if ((st = cx_calib_add(&j->calib[i], v, (uint64_t)rows * (uint64_t)s->k, j->err)) != CX_OK) {
		cx_err why = *j->err;
		return CX_FAIL(j->err, st, "quantize: '%s': %.120s", l->name, why.msg);
	}
	for (int64_t k = 0; k < want && k < rows && s->n < SAMPLE_ROWS; k++, s->n++)
		memcpy(s->at + (int64_t)s->n * s->k, v + k * rows / (want < rows ? want : rows) * s->k,
			(size_t)s->k * sizeof *v);
	return CX_OK;
}

static cx_status set_rows(job *j, cx_exec *x, const char *name, int32_t *v)
{
	int32_t n = j->batch.off[j->d->n_windows];
	for (uint32_t i = (uint32_t)n; i < j->d->cap_events; i++) v[i] = -1;
	return cx_exec_set_input(
		x, cx_exec_input(x, name), v, (uint64_t)j->d->cap_events * sizeof *v, j->err);
}

static cx_status calibrate_batch(job *j, cx_exec *x, uint32_t index, float *v)
{
	cx_batch *b = &j->batch;
	uint64_t offs = ((uint64_t)j->d->n_windows + 1) * sizeof *b->off;
	cx_status st;
	if ((st = j->d->fill(j->d->ctx, false, index, b, j->err)) != CX_OK ||
		(st = cx_cortex_check_events(j->c, b->off, j->d->n_windows, b->neuron, b->time, b->value,
			 j->d->cap_events, j->err)) != CX_OK ||
		(st = set_rows(j, x, "neuron", b->neuron)) != CX_OK ||
		(st = set_rows(j, x, "time", b->time)) != CX_OK ||
		(st = set_rows(j, x, "value", b->value)) != CX_OK ||
		(st = cx_exec_set_input(x, cx_exec_input(x, "off"), b->off, offs, j->err)) != CX_OK ||
		(st = cx_exec_run(x, j->err)) != CX_OK)
		return st;
	for (size_t i = 0; i < j->r->n_layers && st == CX_OK; i++) st = note(j, x, i, v);
	return st;
}

/* Room for the largest output, and for samples. */
static float *make_room(job *j)
{
	size_t most = 0;
	for (size_t i = 0; i < j->r->n_layers; i++) {
		sample *s = &j->sample[i];
		size_t n = (size_t)s->rows * (size_t)s->k;
		if (!(s->at = cx_arena_array(&j->arena, (size_t)s->k, SAMPLE_ROWS * sizeof(float))))
			return NULL;
		most = n > most ? n : most;
	}
	return cx_arena_array(&j->arena, most, sizeof(float));
}

static cx_status calibrate(job *j)
{
	cx_cortex_bucket shape = {.n_windows = j->d->n_windows, .n_events = j->d->cap_events};
	cx_plan_opts opts = {.devices = &j->dev, .n_devices = 1};
	cx_cortex_source src = {.get = leaf, .ctx = j, .product = noted};
	cx_cortex_graph out;
	cx_graph *g = NULL;
	cx_plan *plan = NULL;
	cx_exec *x = NULL;
	cx_store *store = NULL;
	float *v;
	cx_status st;
	j->weights = cx_cortex_get_source(j->m);
	if ((st = cx_store_create(j->rt, &store, j->err)) != CX_OK ||
		(st = cx_cortex_bind(j->m, j->rt, j->dev, store, j->err)) != CX_OK ||
		(st = cx_graph_create(&j->arena.alloc, &g, j->err)) != CX_OK)
		goto done;
	cx_cortex_build(j->c, &src, &shape, g, &out, NULL);
	cx_output(g, "behavior", out.behavior);
	if ((st = cx_graph_finish(g, j->err)) != CX_OK ||
		(st = cx_plan_build(g, &opts, &plan, j->err)) != CX_OK ||
		(st = cx_exec_create(plan, store, &x, j->err)) != CX_OK)
		goto done;
	st = (v = make_room(j)) != NULL ? CX_OK : no_memory(j->err);
	for (uint32_t i = 0; st == CX_OK && i < j->d->n_calib; i++) {
		progress(j, "calibrating", (double)i / j->d->n_calib);
		st = calibrate_batch(j, x, i, v);
	}
	if (st == CX_OK) progress(j, "calibrating", 1);
done:
	cx_exec_free(x);
	cx_plan_free(plan);
	cx_graph_free(g);
	cx_store_free(store);
	return st;
}

/* ---- one layer ---- */

/* Number k of the grid that SEARCH looks at. */
static float grid_cut(const cx_quantize_layer *l, int k)
{
	return l->abs_max * (float)(GRID_FROM + 1 + k) / GRID_STEP;
}

static cx_tensor int8_product(cx_graph *g, cx_tensor x, cx_tensor q, float act_scale)
{
	return cx_matmul(g, x, q, &(cx_attr_matmul){.trans_b = true, .act_scale = act_scale});
}

/* Outputs "y" in f32, "y0" .. by method, "g0" .. by cut of the grid, of the rows that were kept. */
static void build_layer(const job *j, size_t i, cx_graph *g)
{
	const cx_quantize_layer *l = &j->r->layer[i];
	const cx_cortex_param *p = &j->m->w[l->index].p;
	int64_t dims[2] = {j->sample[i].n, j->sample[i].k};
	cx_tensor x = cx_input(g, "x", CX_F32, 2, dims);
	cx_tensor w = cx_weight(g, "w", CX_F32, 2, p->dim), q = cx_weight(g, "q", CX_I8C, 2, p->dim);
	char name[8];
	cx_output(g, "y", cx_matmul(g, x, w, &(cx_attr_matmul){.trans_b = true}));
	for (int k = 0; k < CX_QUANTIZE_SEARCH; k++) {
		snprintf(name, sizeof name, "y%d", k);
		cx_output(
			g, name, int8_product(g, x, q, k == CX_QUANTIZE_NONE ? 0 : cx_calib_scale(l->cut[k])));
	}
	for (int k = 0; k < GRID; k++) {
		snprintf(name, sizeof name, "g%d", k);
		cx_output(g, name, int8_product(g, x, q, cx_calib_scale(grid_cut(l, k))));
	}
}

/* Root of the mean square of an output's difference from y, over that of y. */
static cx_status output_error(
	job *j, cx_exec *x, const char *name, const float *y, float *z, size_t n, double *out)
{
	double off = 0, all = 0;
	cx_status st = cx_exec_get_output(x, cx_exec_output(x, name), z, n * sizeof *z, j->err);
	for (size_t e = 0; e < n && st == CX_OK; e++) {
		double d = (double)z[e] - (double)y[e];
		off += d * d;
		all += (double)y[e] * (double)y[e];
	}
	*out = all > 0 ? sqrt(off / all) : sqrt(off);
	return st;
}

/* l->error, and the cut of SEARCH, from the outputs. */
static cx_status compare_layer(job *j, size_t i, cx_exec *x, float *y, float *z)
{
	cx_quantize_layer *l = &j->r->layer[i];
	size_t n = (size_t)j->sample[i].n * (size_t)j->m->w[l->index].p.dim[0];
	char name[8];
	cx_status st = cx_exec_get_output(x, cx_exec_output(x, "y"), y, n * sizeof *y, j->err);
	for (int k = 0; k < CX_QUANTIZE_SEARCH && st == CX_OK; k++) {
		snprintf(name, sizeof name, "y%d", k);
		st = output_error(j, x, name, y, z, n, &l->error[k]);
	}
	l->error[CX_QUANTIZE_SEARCH] = INFINITY;
	for (int k = 0; k < GRID && st == CX_OK; k++) {
		double e;
		snprintf(name, sizeof name, "g%d", k);
		st = output_error(j, x, name, y, z, n, &e);
		if (!(e < l->error[CX_QUANTIZE_SEARCH])) continue;
		l->error[CX_QUANTIZE_SEARCH] = e;
		l->cut[CX_QUANTIZE_SEARCH] = grid_cut(l, k);
	}
	return st;
}

static cx_status measure_layer(job *j, size_t i, const float *w, const void *q, uint64_t q_bytes)
{
	const cx_cortex_param *p = &j->m->w[j->r->layer[i].index].p;
	const sample *s = &j->sample[i];
	cx_plan_opts opts = {.devices = &j->dev, .n_devices = 1};
	size_t n = (size_t)s->n * (size_t)p->dim[0];
	float *y = cx_malloc(&j->arena.alloc, 2 * n * sizeof *y);
	cx_graph *g = NULL;
	cx_plan *plan = NULL;
	cx_exec *x = NULL;
	cx_store *store = NULL;
	cx_status st = y ? CX_OK : no_memory(j->err);
	if (st != CX_OK || (st = cx_graph_create(&j->arena.alloc, &g, j->err)) != CX_OK ||
		(st = cx_store_create(j->rt, &store, j->err)) != CX_OK)
		goto done;
	build_layer(j, i, g);
	if ((st = cx_graph_finish(g, j->err)) != CX_OK ||
		(st = cx_plan_build(g, &opts, &plan, j->err)) != CX_OK ||
		(st = cx_store_weight(
			 store, "w", CX_F32, 2, p->dim, w, 4 * cx_cortex_param_elems(p), j->err)) != CX_OK ||
		(st = cx_store_weight(store, "q", CX_I8C, 2, p->dim, q, q_bytes, j->err)) != CX_OK ||
		(st = cx_exec_create(plan, store, &x, j->err)) != CX_OK ||
		(st = cx_exec_set_input(x, cx_exec_input(x, "x"), s->at,
			 (uint64_t)s->n * (uint64_t)s->k * sizeof *w, j->err)) != CX_OK ||
		(st = cx_exec_run(x, j->err)) != CX_OK)
		goto done;
	st = compare_layer(j, i, x, y, y + n);
done:
	cx_exec_free(x);
	cx_plan_free(plan);
	cx_graph_free(g);
	cx_store_free(store);
	cx_free(&j->arena.alloc, y, 2 * n * sizeof *y);
	return st;
}

/* Quantises layer i's weight, measures its product, and puts it into the model. */
static cx_status quantise_layer(job *j, size_t i)
{
	cx_quantize_layer *l = &j->r->layer[i];
	const cx_cortex_weight *w = &j->m->w[l->index];
	int64_t n = w->p.dim[0], k = w->p.dim[1];
	uint64_t w_bytes = 4 * cx_cortex_param_elems(&w->p);
	uint64_t q_bytes = cx_i8c_scale_off(n, k) + 4 * (uint64_t)n;
	float *v = cx_malloc(&j->arena.alloc, (size_t)w_bytes);
	void *q = cx_calloc(&j->arena.alloc, 1, (size_t)q_bytes);
	cx_status st = v && q ? CX_OK : no_memory(j->err);
	l->n_batches = j->calib[i].n_batches;
	l->abs_max = j->calib[i].abs_max;
	l->cut[CX_QUANTIZE_PERCENTILE] = cx_calib_percentile(&j->calib[i]);
	l->cut[CX_QUANTIZE_ENTROPY] = cx_calib_entropy(&j->calib[i]);
	l->cut[CX_QUANTIZE_SEARCH] = l->abs_max; /* unless it is measured */
	if (st == CX_OK) {
		cx_cortex_weight_f32(w, v);
		(void)cx_quantize_rows(v, n, k, q); /* finite: find_layers() */
	}
	if (st == CX_OK && j->sample[i].n > 0) st = measure_layer(j, i, v, q, q_bytes);
	for (int64_t r = 0; st == CX_OK && r < n; r++) {
		float s = cx_i8c_scale(q, n, k, r);
		if (r == 0) l->weight_scale_min = l->weight_scale_max = s;
		l->weight_scale_min = fminf(l->weight_scale_min, s);
		l->weight_scale_max = fmaxf(l->weight_scale_max, s);
	}
	if (st == CX_OK) st = cx_cortex_set(j->m, l->index, CX_I8C, q, q_bytes, j->err);
	cx_free(&j->arena.alloc, v, (size_t)w_bytes);
	cx_free(&j->arena.alloc, q, (size_t)q_bytes);
	return st;
}

/* ---- sets of scales ---- */

static cx_quantize_method of_layer(const cx_quantize_layer *l, cx_quantize_method set)
{
	cx_quantize_method best = CX_QUANTIZE_PERCENTILE;
	if (set != CX_QUANTIZE_AUTO) return set;
	for (int k = best; k < CX_QUANTIZE_AUTO; k++)
		if (l->error[k] < l->error[best]) best = (cx_quantize_method)k;
	return best;
}

static cx_status apply(job *j, cx_quantize_method set)
{
	cx_status st = CX_OK;
	for (size_t i = 0; i < j->r->n_layers && st == CX_OK; i++) {
		cx_quantize_layer *l = &j->r->layer[i];
		l->chosen = of_layer(l, set);
		l->act_scale = l->chosen == CX_QUANTIZE_NONE ? 0 : cx_calib_scale(l->cut[l->chosen]);
		st = cx_cortex_set_act_scale(j->m, l->index, l->act_scale, j->err);
	}
	return st;
}

static cx_status try(job *j, cx_quantize_method set, float *y)
{
	static const char *const what[] = {
		"int8 weights", "int8, percentile", "int8, entropy", "int8, search", "int8, best of each"};
	cx_quantize_report *r = j->r;
	double sum = 0, most = 0;
	cx_status st = apply(j, set);
	if (st == CX_OK) st = decode(j, what[set], y);
	if (st != CX_OK) return st;
	for (size_t i = 0; i < r->n_outputs; i++) {
		double d = fabs((double)y[i] - (double)r->f32[i]);
		if (!(d < INFINITY))
			return CX_FAIL(j->err, CX_ERR_ARGUMENT,
				"quantize: output %zu is %g in f32 and %g in int8", i, (double)r->f32[i],
				(double)y[i]);
		sum += d;
		most = d > most ? d : most;
	}
	r->tried[set] = true;
	r->max_diff[set] = most;
	r->mean_diff[set] = sum / (double)r->n_outputs;
	return CX_OK;
}

static cx_status choose(job *j)
{
	cx_quantize_report *r = j->r;
	float *y = cx_arena_array(&j->arena, r->n_outputs, sizeof *y);
	cx_status st = y ? try(j, CX_QUANTIZE_NONE, r->int8) : no_memory(j->err);
	r->chosen = CX_QUANTIZE_NONE;
	for (int set = CX_QUANTIZE_PERCENTILE; set <= CX_QUANTIZE_AUTO && st == CX_OK; set++) {
		if (j->o->method != CX_QUANTIZE_AUTO && j->o->method != (cx_quantize_method)set) continue;
		if ((st = try(j, (cx_quantize_method)set, y)) != CX_OK) break;
		if (r->chosen != CX_QUANTIZE_NONE && !(r->mean_diff[set] < r->mean_diff[r->chosen]))
			continue;
		r->chosen = (cx_quantize_method)set;
		memcpy(r->int8, y, r->n_outputs * sizeof *y);
	}
	return st == CX_OK ? apply(j, r->chosen) : st;
}

/* ---- all of it ---- */

static void count_bytes(job *j)
{
	for (size_t i = 0; i < j->m->n; i++) {
		const cx_cortex_weight *w = &j->m->w[i];
		uint64_t n = cx_cortex_param_elems(&w->p);
		if (w->dtype == CX_I8C)
			n += 4 * (uint64_t)w->p.dim[0] + (w->act_scale > 0 ? sizeof w->act_scale : 0);
		else n *= w->narrow == CX_F32 && w->dtype == CX_F32 ? 4 : 2;
		j->r->bytes_after += n;
	}
}

static cx_status check(const job *j)
{
	const cx_quantize_data *d = j->d;
	if (d->n_windows < 1 || d->n_windows > 65536)
		return CX_FAIL(j->err, CX_ERR_ARGUMENT,
			"quantize: batches of %u windows, must be in 1..65536", d->n_windows);
	if (d->n_calib < 1 || d->n_calib > CX_CALIB_MAX_BATCHES)
		return CX_FAIL(j->err, CX_ERR_ARGUMENT,
			"quantize: %u batches to calibrate on, must be in 1..%d", d->n_calib,
			(int)CX_CALIB_MAX_BATCHES);
	if (d->n_eval < 1)
		return CX_FAIL(j->err, CX_ERR_ARGUMENT, "quantize: no batch to measure the output on");
	return CX_OK;
}

static cx_status quantise(job *j)
{
	cx_quantize_report *r = j->r;
	cx_status st;
	if ((st = check(j)) != CX_OK || (st = find_layers(j)) != CX_OK || (st = make_batch(j)) != CX_OK)
		return st;
	r->n_outputs = (size_t)j->d->n_eval * j->d->n_windows * (size_t)j->c->behavior_dim;
	r->f32 = cx_arena_array(&r->arena, r->n_outputs, sizeof *r->f32);
	r->int8 = cx_arena_array(&r->arena, r->n_outputs, sizeof *r->int8);
	if (!r->f32 || !r->int8) return no_memory(j->err);
	if ((st = decode(j, "f32", r->f32)) != CX_OK || (st = calibrate(j)) != CX_OK) return st;
	for (size_t i = 0; i < r->n_layers; i++) {
		progress(j, "layers", (double)i / (double)r->n_layers);
		if ((st = quantise_layer(j, i)) != CX_OK) return st;
	}
	progress(j, "layers", 1);
	for (size_t i = 0; i < j->m->n; i++)
		if (!is_quantised(&j->m->w[i].p) && (st = narrow(j, i)) != CX_OK) return st;
	if ((st = choose(j)) != CX_OK) return st;
	count_bytes(j);
	return CX_OK;
}

cx_status cx_cortex_quantize(cx_cortex *m, cx_runtime *rt, cx_device *dev,
	const cx_quantize_opts *opts, const cx_quantize_data *data, cx_quantize_report *out,
	cx_err *err)
{
	cx_err own = {0};
	job j = {.m = m, .rt = rt, .dev = dev, .o = opts, .d = data, .r = out};
	cx_status st;
	j.err = err ? err : &own;
	j.c = cx_cortex_get_config(m);
	memset(out, 0, sizeof *out);
	cx_arena_init(&out->arena, &m->alloc);
	cx_arena_init(&j.arena, &m->alloc);
	st = quantise(&j);
	cx_arena_deinit(&j.arena);
	return st;
}

void cx_quantize_report_deinit(cx_quantize_report *r)
{
	cx_arena_deinit(&r->arena);
	memset(r, 0, sizeof *r);
}
