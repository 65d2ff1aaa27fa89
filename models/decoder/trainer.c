/* trainer.c - see trainer.h. Batches are trainer_batch.c, files trainer_file.c. */
#include "models/decoder/trainer.h"

#include <math.h>
#include <string.h>

#include "graph/optim.h"

enum { MIN_EVENTS = 64 };
const char cx__train_count[] = "train.count";

static cx_status no_memory(cx_err *err)
{
	return CX_FAIL(err, CX_ERR_MEMORY, "training: out of memory");
}

cx_train_opts cx_train_default(void)
{
	return (cx_train_opts){.seed = 42,
		.steps = 50000,
		.warmup = 500,
		.batch = 32,
		.accumulate = 1,
		.lr = 3e-4,
		.weight_decay = 0.01,
		.beta1 = 0.9,
		.beta2 = 0.95,
		.eps = 1e-8,
		.init_scale = 1,
		.score_gain = 1,
		.clip = 1,
		.mask_fraction = 0.15,
		.mask_weight = 0.1,
		.mask_queries = 32};
}

double cx_train_rate(const cx_train_opts *o, int64_t s)
{
	const double pi = 3.14159265358979323846;
	double left = o->steps > o->warmup ? (double)(o->steps - o->warmup) : 1;
	if (s < o->warmup) return o->lr * (double)(s + 1) / (double)o->warmup;
	return o->lr * 0.5 * (1 + cos(pi * fmin((double)(s - o->warmup) / left, 1)));
}

static cx_status check(const cx_train_opts *o, const cx_dataset *data, cx_err *err)
{
	uint32_t n = cx_dataset_get_info(data)->n_windows[CX_PART_TRAIN];
	const struct {
		const char *name;
		double value, lo, hi;
	} f[] = {{"steps", (double)o->steps, 1, 1e9}, {"warmup", (double)o->warmup, 0, 1e9},
		{"batch", (double)o->batch, 1, 65536}, {"accumulate", (double)o->accumulate, 1, 65536},
		{"lr", o->lr, 0, 100}, {"weight_decay", o->weight_decay, 0, 100},
		{"beta1", o->beta1, 0, 0.999999}, {"beta2", o->beta2, 0, 0.99999999},
		{"eps", o->eps, 1e-30, 1}, {"clip", o->clip, 0, 1e30},
		{"drop_units", o->drop_units, 0, 0.99}, {"drop_events", o->drop_events, 0, 0.99},
		{"init_scale", o->init_scale, 1e-6, 1e6}, {"score_gain", o->score_gain, 1e-6, 1e6},
		{"mask_fraction", o->mask_fraction, 0, 1}, {"mask_weight", o->mask_weight, 0, 1e6},
		{"mask_queries", (double)o->mask_queries, 0, 65536}};
	for (size_t i = 0; i < sizeof f / sizeof *f; i++)
		if (!(f[i].value >= f[i].lo && f[i].value <= f[i].hi))
			return CX_FAIL(err, CX_ERR_ARGUMENT, "training: %s is %g, must be in %g..%g", f[i].name,
				f[i].value, f[i].lo, f[i].hi);
	if (n < o->batch)
		return CX_FAIL(err, CX_ERR_ARGUMENT,
			"training: a batch of %lld windows, but only %u to train on", (long long)o->batch, n);
	return CX_OK;
}

/* ---- plans ---- */

typedef struct source {
	cx_trainer *t;
	cx_param *p; /* [t->n] */
} source;

static cx_tensor get_param(void *ctx, cx_graph *g, const cx_cortex_param *p, size_t index)
{
	source *s = ctx;
	cx_param *q = &s->p[index];
	*q = cx_param_state(g, s->t->desc[index].name, CX_F32, p->rank, p->dim);
	q->no_decay = !p->linear;
	if (s->t->o.accumulate > 1) cx_param_accumulator(g, q);
	return q->value;
}

static void update(cx_trainer *t, cx_graph *g, cx_param *p, cx_tensor *grads, uint32_t n)
{
	int64_t one = 1;
	cx_attr_adamw a = cx_attr_adamw_default();
	cx_tensor lr = cx_input(g, "lr", CX_F32, 1, &one);
	a.beta1 = (float)t->o.beta1;
	a.beta2 = (float)t->o.beta2;
	a.eps = (float)t->o.eps;
	a.decay = (float)t->o.weight_decay;
	cx_output(
		g, "norm", cx_clip_global_norm(g, grads, n, t->o.clip > 0 ? (float)t->o.clip : INFINITY));
	cx_adamw_step(g, p, grads, n, &a, lr, cx_step_count(g, cx__train_count));
}

/* Forward, backward, and either the update or the sum over micro-batches. */
static void build_step(cx_trainer *t, const cx_cortex_bucket *b, cx_graph *g, source *s,
	cx_tensor *wrt, cx_tensor *grads, cx_param *p)
{
	cx_cortex_source src = {.get = get_param, .ctx = s};
	cx_cortex_loss loss;
	cx_net_graph m;
	uint32_t n = 0;
	cx_net_build(&t->net, &src, b, g, &m, t->used);
	loss = cx_net_loss(&t->net, b, g, &m);
	for (size_t i = 0; i < t->n; i++) {
		if (cx_is_none(t->used[i])) continue;
		p[n] = s->p[i];
		wrt[n++] = t->used[i];
	}
	cx_graph_grad(g, loss.loss, wrt, n, NULL, grads);
	if (t->o.accumulate > 1) cx_accumulate(g, p, grads, n, 1);
	else update(t, g, p, grads, n);
	cx_output(g, "loss", loss.loss);
	cx_output(g, "sse", loss.sse);
	if (!cx_is_none(loss.xent)) cx_output(g, "xent", loss.xent);
}

static void build_apply(cx_trainer *t, cx_graph *g, source *s, cx_tensor *grads, cx_param *p)
{
	uint32_t n = 0;
	for (size_t i = 0; i < t->n; i++) {
		if (cx_is_none(t->used[i])) continue;
		get_param(s, g, &t->desc[i], i);
		p[n] = s->p[i];
		grads[n++] = CX_NONE;
	}
	cx_accumulate_take(g, p, grads, n, 1);
	update(t, g, p, grads, n);
}

static void bucket_deinit(cx_train_bucket *b)
{
	cx_exec_free(b->exec);
	cx_plan_free(b->plan);
	cx_graph_free(b->graph);
	memset(b, 0, sizeof *b);
}

/* b->n_events < 0: the graph that applies what was accumulated. */
static cx_status bucket_init(cx_trainer *t, cx_train_bucket *b, cx_err *err)
{
	cx_cortex_bucket shape = {.n_windows = t->o.batch,
		.n_events = b->n_events,
		.n_queries = t->batch.room,
		.train = true};
	cx_plan_opts opts = {.devices = &t->dev, .n_devices = 1};
	source s = {.t = t};
	cx_tensor *wrt, *grads;
	cx_param *p;
	cx_arena a;
	cx_status st;
	cx_arena_init(&a, &t->alloc);
	s.p = cx_arena_array(&a, t->n, sizeof *s.p);
	p = cx_arena_array(&a, t->n, sizeof *p);
	wrt = cx_arena_array(&a, t->n, sizeof *wrt);
	grads = cx_arena_array(&a, t->n, sizeof *grads);
	st = s.p && p && wrt && grads ? cx_graph_create(&t->alloc, &b->graph, err) : no_memory(err);
	if (st == CX_OK) {
		if (b->n_events < 0) build_apply(t, b->graph, &s, grads, p);
		else build_step(t, &shape, b->graph, &s, wrt, grads, p);
		st = cx_graph_finish(b->graph, err);
	}
	cx_arena_deinit(&a);
	if (st == CX_OK) st = cx_plan_build(b->graph, &opts, &b->plan, err);
	if (st == CX_OK) st = cx_exec_create(b->plan, t->store, &b->exec, err);
	if (st != CX_OK) bucket_deinit(b);
	return st;
}

/* Room for n events: eight steps per doubling. */
static int64_t room_for(int64_t n)
{
	int64_t step = MIN_EVENTS / 8;
	if (n <= MIN_EVENTS) return MIN_EVENTS;
	while (16 * step < n) step *= 2;
	return (n + step - 1) / step * step;
}

static cx_status get_bucket(cx_trainer *t, cx_train_bucket **out, cx_err *err)
{
	cx_train_bucket b = {
		.n_events = t->net.kind == CX_NET_CORTEX ? room_for(t->batch.n_events) : 0};
	cx_status st;
	for (size_t i = 0; i < t->n_buckets; i++)
		if (t->at[i].n_events == b.n_events) {
			*out = &t->at[i];
			return CX_OK;
		}
	if (t->n_buckets == t->cap_buckets) {
		size_t cap = t->cap_buckets ? 2 * t->cap_buckets : 8;
		cx_train_bucket *at =
			cx_realloc(&t->alloc, t->at, t->cap_buckets * sizeof *at, cap * sizeof *at);
		if (!at) return no_memory(err);
		t->at = at;
		t->cap_buckets = cap;
	}
	if ((st = bucket_init(t, &b, err)) != CX_OK) return st;
	t->at[t->n_buckets] = b;
	*out = &t->at[t->n_buckets++];
	return CX_OK;
}

/* ---- inputs ---- */

static cx_status set(cx_exec *x, const char *name, const void *data, uint64_t bytes, cx_err *err)
{
	int i = cx_exec_input(x, name);
	return i < 0 ? CX_OK : cx_exec_set_input(x, i, data, bytes, err); /* not in this graph */
}

/* n values, then -1 up to the bucket's room. */
static cx_status set_rows(
	cx_trainer *t, const cx_train_bucket *b, const char *name, const int32_t *v, cx_err *err)
{
	size_t n = t->batch.n_events, room = (size_t)b->n_events;
	if (room > t->cap_rows) {
		int32_t *rows =
			cx_realloc(&t->alloc, t->rows, t->cap_rows * sizeof *rows, room * sizeof *rows);
		if (!rows) return no_memory(err);
		t->rows = rows;
		t->cap_rows = room;
	}
	memcpy(t->rows, v, n * sizeof *v);
	for (size_t i = n; i < room; i++) t->rows[i] = -1;
	return set(b->exec, name, t->rows, room * sizeof *v, err);
}

static cx_status set_inputs(cx_trainer *t, const cx_train_bucket *b, uint64_t index, cx_err *err)
{
	const cx_train_batch *k = &t->batch;
	uint64_t n = k->n, d = (uint64_t)cx_net_behavior_dim(&t->net), q = k->room;
	double windows = (double)(t->o.batch * t->o.accumulate);
	float scale[2] = {(float)(1 / (windows * (double)d)),
		q ? (float)(t->o.mask_weight / (windows * (double)t->o.mask_queries)) : 0};
	int32_t key[4] = {(int32_t)(uint32_t)t->o.seed, (int32_t)(uint32_t)(t->o.seed >> 32),
		(int32_t)(uint32_t)index, 0};
	cx_status st;
	if (t->net.kind == CX_NET_CORTEX) {
		if ((st = set_rows(t, b, "neuron", k->b.neuron, err)) != CX_OK ||
			(st = set_rows(t, b, "time", k->b.time, err)) != CX_OK ||
			(st = set_rows(t, b, "value", k->b.value, err)) != CX_OK ||
			(st = set(b->exec, "off", k->b.off, 4 * (n + 1), err)) != CX_OK ||
			(st = set(b->exec, "query_neuron", k->q_neuron, 4 * q, err)) != CX_OK ||
			(st = set(b->exec, "query_time", k->q_time, 4 * q, err)) != CX_OK ||
			(st = set(b->exec, "query_off", k->q_off, 4 * (n + 1), err)) != CX_OK ||
			(st = set(b->exec, "query_target", k->q_target, 4 * q, err)) != CX_OK)
			return st;
	} else {
		const float *x = t->net.kind == CX_NET_GRU ? k->turned : k->counts;
		uint64_t cells = (uint64_t)(t->net.dense.window * t->net.dense.n_units);
		if ((st = set(b->exec, "counts", x, 4 * n * cells, err)) != CX_OK) return st;
	}
	if ((st = set(b->exec, "target", k->b.target, 4 * n * d, err)) != CX_OK ||
		(st = set(b->exec, "window_weight", k->weight, 4 * n, err)) != CX_OK ||
		(st = set(b->exec, "loss_scale", scale, sizeof scale, err)) != CX_OK)
		return st;
	return set(b->exec, "key", key, sizeof key, err);
}

static cx_status get(cx_exec *x, const char *name, double *sum, cx_err *err)
{
	int i = cx_exec_output(x, name);
	float v = 0;
	cx_status st = i < 0 ? CX_OK : cx_exec_get_output(x, i, &v, sizeof v, err);
	*sum += v;
	return st;
}

/* ---- steps ---- */

static cx_status micro_batch(cx_trainer *t, uint64_t index, const float *rate, cx_train_result *r,
	uint64_t *n_queries, cx_err *err)
{
	cx_train_bucket *b;
	cx_status st;
	if ((st = cx__train_batch_fill(&t->batch, &t->net, &t->o, t->data, index, err)) != CX_OK ||
		(st = get_bucket(t, &b, err)) != CX_OK || (st = set_inputs(t, b, index, err)) != CX_OK ||
		(st = set(b->exec, "lr", rate, sizeof *rate, err)) != CX_OK ||
		(st = cx_exec_run(b->exec, err)) != CX_OK ||
		(st = get(b->exec, "loss", &r->loss, err)) != CX_OK ||
		(st = get(b->exec, "sse", &r->mse, err)) != CX_OK ||
		(st = get(b->exec, "xent", &r->xent, err)) != CX_OK ||
		(st = get(b->exec, "norm", &r->norm, err)) != CX_OK)
		return st;
	*n_queries += t->batch.n_queries;
	t->last = b;
	return CX_OK;
}

cx_status cx_trainer_step(cx_trainer *t, cx_train_result *out, cx_err *err)
{
	cx_train_result r = {.rate = cx_train_rate(&t->o, t->n_done)};
	double windows = (double)(t->o.batch * t->o.accumulate);
	uint64_t n_queries = 0;
	float rate = (float)r.rate;
	cx_status st = CX_OK;
	for (int64_t m = 0; m < t->o.accumulate && st == CX_OK; m++)
		st =
			micro_batch(t, (uint64_t)(t->n_done * t->o.accumulate + m), &rate, &r, &n_queries, err);
	if (st == CX_OK && t->o.accumulate > 1) {
		if ((st = set(t->apply.exec, "lr", &rate, sizeof rate, err)) == CX_OK &&
			(st = cx_exec_run(t->apply.exec, err)) == CX_OK)
			st = get(t->apply.exec, "norm", &r.norm, err);
	}
	if (st != CX_OK) return st;
	t->n_done++;
	r.mse /= windows * (double)cx_net_behavior_dim(&t->net);
	if (n_queries) r.xent /= (double)n_queries;
	*out = r;
	if (!isfinite(r.loss) || !isfinite(r.norm))
		return CX_FAIL(err, CX_ERR_ARGUMENT,
			"training: step %lld has a loss of %g and a gradient of norm %g; a lower rate may help",
			(long long)t->n_done, r.loss, r.norm);
	return CX_OK;
}

/* ---- create ---- */

/* init_scale and score_gain. */
static void rescale(const cx_trainer *t, const cx_cortex_param *p, float *v)
{
	uint64_t n = cx_cortex_param_elems(p);
	double by = 1;
	if (p->init == CX_CORTEX_NORMAL) by = t->o.init_scale;
	if (strncmp(p->name, "encoder.cross_attn.", 19) == 0) {
		const char *name = p->name + 19;
		if (!strcmp(name, "kv_proj.weight")) n /= 2; /* k comes first */
		if (!strcmp(name, "kv_proj.weight") || !strcmp(name, "q_proj.weight"))
			by = sqrt(t->o.score_gain);
	}
	for (uint64_t k = 0; by != 1 && k < n; k++) v[k] = (float)(v[k] * by);
}

static cx_status first_values(cx_trainer *t, cx_err *err)
{
	cx_status st = CX_OK;
	for (size_t i = 0; i < t->n && st == CX_OK; i++) {
		uint64_t bytes = cx_cortex_param_elems(&t->desc[i]) * sizeof(float);
		float *v;
		if (cx_is_none(t->used[i])) continue;
		if (!(v = cx_malloc(&t->alloc, (size_t)bytes))) return no_memory(err);
		cx_cortex_param_init(&t->desc[i], t->o.seed, v);
		if (t->net.kind == CX_NET_CORTEX) rescale(t, &t->desc[i], v);
		st = cx_store_state_write(t->store, t->desc[i].name, v, bytes, err);
		cx_free(&t->alloc, v, (size_t)bytes);
	}
	return st;
}

static cx_status prepare(cx_trainer *t, cx_err *err)
{
	cx_train_bucket *b;
	cx_status st;
	t->n = cx_net_n_params(&t->net);
	t->desc = cx_calloc(&t->alloc, t->n, sizeof *t->desc);
	t->used = cx_calloc(&t->alloc, t->n, sizeof *t->used);
	if (!t->desc || !t->used) return no_memory(err);
	for (size_t i = 0; i < t->n; i++) cx_net_param_get(&t->net, i, &t->desc[i]);
	if ((st = cx_store_create(t->rt, &t->store, err)) != CX_OK ||
		(st = cx__train_batch_init(&t->batch, &t->net, &t->o, t->data, &t->alloc, err)) != CX_OK ||
		(st = cx__train_batch_fill(&t->batch, &t->net, &t->o, t->data, 0, err)) != CX_OK ||
		(st = get_bucket(t, &b, err)) != CX_OK)
		return st;
	t->last = b;
	t->apply.n_events = -1;
	if (t->o.accumulate > 1 && (st = bucket_init(t, &t->apply, err)) != CX_OK) return st;
	return first_values(t, err);
}

cx_status cx_trainer_create(const cx_net_config *net, const cx_train_opts *opts,
	const cx_dataset *data, cx_runtime *rt, cx_device *dev, const cx_alloc *alloc, cx_trainer **out,
	cx_err *err)
{
	cx_trainer *t;
	cx_status st;
	*out = NULL;
	if ((st = cx_net_check(net, err)) != CX_OK || (st = check(opts, data, err)) != CX_OK ||
		(st = cx_net_fits(net, data, err)) != CX_OK)
		return st;
	if (!(t = cx_calloc(alloc, 1, sizeof *t))) return no_memory(err);
	t->alloc = alloc && alloc->realloc ? *alloc : cx_alloc_default();
	t->net = *net;
	t->o = *opts;
	t->data = data;
	t->rt = rt;
	t->dev = dev;
	if ((st = prepare(t, err)) == CX_OK) *out = t;
	else cx_trainer_free(t);
	return st;
}

void cx_trainer_free(cx_trainer *t)
{
	cx_alloc alloc;
	if (!t) return;
	alloc = t->alloc;
	cx_evaluator_free(t->evaluator);
	for (size_t i = 0; i < t->n_buckets; i++) bucket_deinit(&t->at[i]);
	bucket_deinit(&t->apply);
	cx_store_free(t->store);
	cx__train_batch_deinit(&t->batch);
	cx_free(&alloc, t->at, t->cap_buckets * sizeof *t->at);
	cx_free(&alloc, t->rows, t->cap_rows * sizeof *t->rows);
	cx_free(&alloc, t->desc, t->n * sizeof *t->desc);
	cx_free(&alloc, t->used, t->n * sizeof *t->used);
	cx_free(&alloc, t, sizeof *t);
}

int64_t cx_trainer_n_done(const cx_trainer *t)
{
	return t->n_done;
}

const cx_plan *cx_trainer_plan(const cx_trainer *t)
{
	return t->last->plan;
}

cx_status cx_trainer_evaluator(cx_trainer *t, cx_evaluator **out, cx_err *err)
{
	cx_cortex_source src = cx_cortex_states();
	cx_status st = CX_OK;
	if (!t->evaluator)
		st = cx_evaluator_create(
			&t->net, &src, t->dev, t->store, t->data, &t->alloc, &t->evaluator, err);
	*out = t->evaluator;
	return st;
}
