/* subject.c - opens what dump and profile look at, and gives it inputs. See subject.h. */
#include "serve/subject.h"

#include "graph/quant.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

enum { PAGE = 16, MAX_BUCKET = 4096, MAX_CONTEXT = 1024, DECODER_EVENTS = 512 };

bool cx__cmd_number(
	const char *cmd, const char *name, const char *text, long lo, long hi, long *out)
{
	char *end;
	errno = 0;
	*out = strtol(text, &end, 10);
	if (*text != ' ' && end != text && !*end && errno == 0 && *out >= lo && *out <= hi) return true;
	cx__cmd_usage(cmd, "%s '%.40s' is not a whole number in %ld..%ld", name, text, lo, hi);
	return false;
}

int cx__subject_option(cx_subject_opts *o, const char *cmd, int opt, const char *value)
{
	long v;
	switch (opt) {
	case 'm':
		o->model = value;
		return 1;
	case 'g':
		o->graph = value;
		return 1;
	case 'B':
		o->backend = value;
		return 1;
	case 'F':
		o->no_fuse = true;
		return 1;
	case 'A':
		o->allow_fallback = true;
		return 1;
	case 'b':
		return cx__cmd_number(cmd, "--bucket", value, 1, MAX_BUCKET, &o->bucket) ? 1 : -1;
	case 's':
		if (!cx__cmd_number(cmd, "--seed", value, 0, LONG_MAX, &v)) return -1;
		o->seed = (uint64_t)v;
		return 1;
	default:
		return 0;
	}
}

/* ---- open ---- */

static cx_status open_graph(const char *path, cx_subject *s, cx_err *err)
{
	return cx__graph_read(path, &s->g, err);
}

/* A size with first values, or a checkpoint: what is served for one window. */
static cx_status open_decoder(
	const cx_subject_opts *o, const cx_cortex_size *size, cx_subject *s, cx_err *err)
{
	cx_cortex_bucket b = {.n_windows = 1, .n_events = o->bucket ? o->bucket : DECODER_EVENTS};
	cx_cortex_config c = size ? cx_cortex_config_size(*size) : (cx_cortex_config){0};
	cx_cortex_source src;
	cx_cortex_graph m;
	cx_status st = size ? cx_cortex_create(&c, o->seed, NULL, &s->decoder, err)
						: cx_cortex_open(o->model, NULL, &s->decoder, err);
	if (st != CX_OK || (st = cx_graph_create(NULL, &s->g, err)) != CX_OK) return st;
	s->n_tokens = b.n_events;
	src = cx_cortex_get_source(s->decoder);
	src.folded = true; /* by cx_cortex_bind() */
	cx_cortex_build(cx_cortex_get_config(s->decoder), &src, &b, s->g, &m, NULL);
	cx_output(s->g, "behavior", m.behavior);
	return cx_graph_finish(s->g, err);
}

static cx_status open_model(const cx_subject_opts *o, cx_subject *s, cx_err *err)
{
	cx_cortex_size size;
	cx_llm_bucket b = {.n_logits = 1, .n_seqs = 1, .page = PAGE, .kv = CX_F32};
	int64_t room;
	cx_status st;
	if (cx_cortex_size_parse(o->model, &size)) return open_decoder(o, &size, s, err);
	if (cx_cortex_recognise(o->model)) return open_decoder(o, NULL, s, err);
	if ((st = cx_llm_open(o->model, NULL, &s->llm, err)) != CX_OK) return st;
	room = cx_llm_get_config(s->llm)->context;
	if (room > MAX_CONTEXT) room = MAX_CONTEXT;
	s->n_tokens = o->bucket ? o->bucket : 1;
	if (room < s->n_tokens) room = s->n_tokens;
	s->past = (room - s->n_tokens) / 2;
	b.n_tokens = s->n_tokens;
	b.n_blocks = (room + PAGE - 1) / PAGE;
	b.n_slots = b.n_blocks * PAGE;
	if ((st = cx_graph_create(NULL, &s->g, err)) != CX_OK) return st;
	cx_llm_build(s->llm, &b, s->g);
	return cx_graph_finish(s->g, err);
}

cx_status cx__subject_open(const cx_subject_opts *o, cx_subject *s, cx_err *err)
{
	cx_status st;
	memset(s, 0, sizeof *s);
	s->seed = o->seed;
	if (o->model && o->graph)
		return CX_FAIL(err, CX_ERR_ARGUMENT,
			"-m and --graph are both given; one of them is what is looked at");
	if (!o->model && !o->graph)
		return CX_FAIL(err, CX_ERR_ARGUMENT, "one of -m MODEL and --graph FILE.cxg is wanted");
	if (o->graph && o->bucket)
		return CX_FAIL(err, CX_ERR_ARGUMENT, "--bucket is for models: a graph has its own shapes");
	st = o->model ? open_model(o, s, err) : open_graph(o->graph, s, err);
	if (st == CX_OK) st = cx__host_open(o->backend, &s->host, err);
	if (st == CX_OK && o->allow_fallback) st = cx__host_fallback(&s->host, err);
	return st;
}

void cx__subject_close(cx_subject *s)
{
	cx_store_free(s->store);
	for (uint32_t i = 0; s->weights && i < s->g->n_nodes; i++) free(s->weights[i]);
	free(s->weights);
	cx_graph_free(s->g);
	cx_llm_close(s->llm);
	cx_cortex_close(s->decoder);
	cx__host_close(&s->host);
	memset(s, 0, sizeof *s);
}

cx_status cx__subject_plan(
	const cx_subject *s, const cx_subject_opts *o, cx_stage stage, cx_plan **out, cx_err *err)
{
	cx_plan_opts opts = cx__host_plan_opts(&s->host);
	opts.no_fuse = o->no_fuse;
	return cx__host_advise(&s->host, cx__plan_build_to(s->g, &opts, stage, out, err), err);
}

/* ---- made-up leaves ---- */

/* splitmix64 (Steele, Lea, Flood 2014) */
static uint64_t next(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15u;
	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

static void fill_floats(const cx_desc *d, uint64_t state, void *data)
{
	int64_t cols = d->rank ? d->dim[d->rank - 1] : 1, n = cx__desc_elems(d);
	uint64_t row_bytes = cols ? cx__desc_bytes(d) / (uint64_t)(n / cols ? n / cols : 1) : 0;
	float *row = calloc((size_t)cols + 1, sizeof *row);
	float *all = d->dtype == CX_I8C ? calloc((size_t)n + 1, sizeof *all) : NULL;
	for (int64_t i = 0, c = 0; row && i < n; i++) {
		float x = (float)(next(&state) >> 40) * 0x1p-23f - 1.0f;
		if (all) all[i] = x;
		row[c++] = x;
		if (c < cols) continue;
		if (d->dtype != CX_I8C)
			cx_quant_row(d->dtype, row, (char *)data + (uint64_t)(i / cols) * row_bytes, cols);
		c = 0;
	}
	if (all && cols) cx_quant_i8c(all, n / cols, cols, data);
	free(all);
	free(row);
}

static void *made_up(const cx_graph *g, uint32_t id, uint64_t seed)
{
	const cx_desc *d = &g->nodes[id].desc;
	const cx_dtype_info *info = cx_dtype_get(d->dtype);
	uint64_t bytes = cx__desc_bytes(d);
	int64_t n = cx__desc_elems(d);
	char *data = bytes < SIZE_MAX / 2 ? calloc(1, (size_t)bytes + 16) : NULL;
	if (!data) return NULL;
	if (info->cls == CX_CLASS_FLOAT || info->cls == CX_CLASS_BLOCK) {
		fill_floats(d, seed * 0x2545f4914f6cdd1du + id, data);
		return data;
	}
	for (int64_t i = 0; i < n; i++) { /* little-endian: the low byte first */
		int8_t v = (int8_t)(i % (info->cls == CX_CLASS_BOOL ? 2 : 3));
		data[i * info->block_bytes] = (char)v;
	}
	return data;
}

/* ---- exec ---- */

static int32_t model_input(const cx_subject *s, const char *name, int64_t i)
{
	const cx_llm_config *c = cx_llm_get_config(s->llm);
	if (!strcmp(name, "tokens")) return (int32_t)((1 + i * 7) % c->vocab);
	if (!strcmp(name, "pos") || !strcmp(name, "slot")) return (int32_t)(s->past + i);
	if (!strcmp(name, "table")) return (int32_t)i;
	if (!strcmp(name, "q_off")) return i ? (int32_t)s->n_tokens : 0;
	if (!strcmp(name, "kv_len")) return (int32_t)(s->past + s->n_tokens);
	return (int32_t)(s->n_tokens - 1); /* rows */
}

/* Units 0 to 99 in turn, twenty bins, counts 1 to 3. */
static int32_t decoder_input(const cx_subject *s, const char *name, int64_t i)
{
	const cx_cortex_config *c = cx_cortex_get_config(s->decoder);
	if (!strcmp(name, "off")) return i ? (int32_t)s->n_tokens : 0;
	if (!strcmp(name, "neuron")) return (int32_t)(i % 100 % c->max_neurons);
	if (!strcmp(name, "time")) return (int32_t)(i / 100 % 20 % c->max_time_bins);
	return (int32_t)((1 + i % 3) % c->spike_value_buckets);
}

static cx_status set_input(cx_subject *s, cx_exec *x, uint32_t id, cx_err *err)
{
	const cx_node *n = &s->g->nodes[id];
	char *data = made_up(s->g, id, s->seed);
	cx_status st;
	if (!data) return CX_FAIL(err, CX_ERR_MEMORY, "out of memory for input '%.100s'", n->name);
	for (int64_t i = 0; (s->llm || s->decoder) && i < cx__desc_elems(&n->desc); i++) {
		int32_t v = s->llm ? model_input(s, n->name, i) : decoder_input(s, n->name, i);
		memcpy(data + 4 * i, &v, 4);
	}
	st = cx_exec_set_input(x, cx_exec_input(x, n->name), data, cx__desc_bytes(&n->desc), err);
	free(data);
	return st;
}

static cx_status bind_weights(cx_subject *s, cx_err *err)
{
	cx_status st = CX_OK;
	if (s->llm) return cx_llm_bind(s->llm, s->store, err);
	if (s->decoder) return cx_cortex_bind(s->decoder, s->host.rt, s->host.dev, s->store, err);
	s->weights = calloc((size_t)s->g->n_nodes + 1, sizeof *s->weights);
	if (!s->weights) return CX_FAIL(err, CX_ERR_MEMORY, "out of memory");
	for (uint32_t i = 0; i < s->g->n_nodes && st == CX_OK; i++) {
		const cx_node *n = &s->g->nodes[i];
		if (n->op != CX_OP_weight) continue;
		s->weights[i] = made_up(s->g, i, s->seed);
		if (!s->weights[i])
			return CX_FAIL(err, CX_ERR_MEMORY, "out of memory for weight '%.100s'", n->name);
		st = cx_store_weight(s->store, n->name, n->desc.dtype, n->desc.rank, n->desc.dim,
			s->weights[i], cx__desc_bytes(&n->desc), err);
	}
	return st;
}

cx_status cx__subject_exec(cx_subject *s, const cx_plan *plan, cx_exec **out, cx_err *err)
{
	cx_exec *x = NULL;
	cx_status st;
	*out = NULL;
	if ((st = cx_store_create(s->host.rt, &s->store, err)) != CX_OK) return st;
	if ((st = bind_weights(s, err)) != CX_OK) return st;
	if ((st = cx_exec_create(plan, s->store, &x, err)) != CX_OK)
		return cx__host_advise(&s->host, st, err);
	for (uint32_t i = 0; i < s->g->n_nodes && st == CX_OK; i++)
		if (s->g->nodes[i].op == CX_OP_input) st = set_input(s, x, i, err);
	if (st == CX_OK) *out = x;
	else cx_exec_free(x);
	return st;
}
