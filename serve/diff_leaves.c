/* diff_leaves.c - what the leaves of a graph hold for `cortex diff`; see diff_leaves.h. */
#include "serve/diff_leaves.h"
#include "graph/diff.h"
#include "graph/quant.h"
#include "models/decoder/checkpoint.h"
#include "models/files/npy.h"
#include "models/llm/llm_impl.h"
#include "serve/command.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { MAX_TOKENS = 256, SEEDED_TOKENS = 8, PAGE = 16, DECODER_EVENTS = 64 };

static cx_status no_memory(cx_err *err)
{
	return CX_FAIL(err, CX_ERR_MEMORY, "diff: out of memory for the inputs");
}

/* ---- a model's graph and inputs ---- */

static cx_status read_prompt(const cx_leaves *l, const cx_leaves_args *a, cx_ids *ids, cx_err *err)
{
	const cx_tokenizer *tok = cx_llm_tokenizer(l->model);
	int64_t vocab = cx_llm_get_config(l->model)->vocab;
	cx_status st = CX_OK;
	if (a->prompt && !tok)
		return CX_FAIL(
			err, CX_ERR_ARGUMENT, "%.100s has no tokenizer: leave out --prompt", a->model);
	if (a->prompt)
		st = cx_tokenizer_encode(tok, a->prompt, strlen(a->prompt),
			CX_ENCODE_ADD_SPECIAL | CX_ENCODE_PARSE_SPECIAL, ids, err);
	for (int i = 0; !a->prompt && st == CX_OK && i < SEEDED_TOKENS; i++)
		st = cx_ids_push(
			ids, (int32_t)((a->seed * 7919 + (uint64_t)i * 104729) % (uint64_t)vocab), err);
	if (st != CX_OK) return st;
	if (ids->n == 0 || ids->n > MAX_TOKENS)
		return CX_FAIL(err, CX_ERR_ARGUMENT, "--prompt has %zu tokens; 1 to %d are wanted", ids->n,
			MAX_TOKENS);
	return CX_OK;
}

static int32_t model_input(const char *name, const cx_ids *ids, int64_t i)
{
	int64_t n = (int64_t)ids->n;
	if (strcmp(name, "tokens") == 0) return i < n ? ids->v[i] : 0;
	if (strcmp(name, "pos") == 0) return i < n ? (int32_t)i : 0;
	if (strcmp(name, "slot") == 0) return i < n ? (int32_t)i : -1;
	if (strcmp(name, "q_off") == 0) return i ? (int32_t)n : 0;
	if (strcmp(name, "kv_len") == 0) return (int32_t)n;
	return (int32_t)i; /* table, rows */
}

static cx_status fill_model(cx_leaves *l, const cx_ids *ids, cx_err *err)
{
	for (uint32_t i = 0; i < l->g->n_nodes; i++) {
		const cx_node *n = &l->g->nodes[i];
		if (n->op == CX_OP_weight) {
			const cx_llm_weight *w = cx__llm_weight(l->model, n->name);
			if (w) l->data[i] = w->data;
		}
		if (n->op == CX_OP_input && n->desc.dtype == CX_I32) {
			int32_t *v = cx_arena_array(&l->arena, (size_t)n->desc.dim[0] + 1, sizeof *v);
			if (!v) return no_memory(err);
			for (int64_t k = 0; k < n->desc.dim[0]; k++) v[k] = model_input(n->name, ids, k);
			l->data[i] = v;
		}
	}
	return CX_OK;
}

static cx_status build_model(cx_leaves *l, const cx_leaves_args *a, cx_ids *ids, cx_err *err)
{
	cx_llm_bucket b = {.n_seqs = 1, .page = PAGE, .kv = CX_F32, .n_tokens = 1};
	cx_status st = cx_llm_open(a->model, NULL, &l->model, err);
	if (st != CX_OK || (st = read_prompt(l, a, ids, err)) != CX_OK) return st;
	while (b.n_tokens < (int64_t)ids->n) b.n_tokens *= 2;
	b.n_logits = b.n_tokens;
	b.n_blocks = (b.n_tokens + PAGE - 1) / PAGE;
	b.n_slots = b.n_blocks * PAGE;
	if ((st = cx_graph_create(NULL, &l->g, err)) != CX_OK) return st;
	cx_llm_build(l->model, &b, l->g);
	return cx_graph_finish(l->g, err);
}

/* ---- a decoder's ---- */

/* Units and bins in turn, the seed in both; counts 1 to 3. */
static int32_t decoder_input(const cx_cortex_config *c, const char *name, uint64_t seed, int64_t i)
{
	if (strcmp(name, "off") == 0) return i ? DECODER_EVENTS : 0;
	if (strcmp(name, "neuron") == 0)
		return (int32_t)((seed + (uint64_t)i * 7) % (uint64_t)c->max_neurons);
	if (strcmp(name, "time") == 0)
		return (int32_t)((seed + (uint64_t)i / 4) % 20 % (uint64_t)c->max_time_bins);
	return (int32_t)((1 + i % 3) % c->spike_value_buckets);
}

static cx_status fill_decoder(cx_leaves *l, uint64_t seed, cx_err *err)
{
	size_t n_weights;
	const cx_cortex_weight *w = cx_cortex_get_weights(l->decoder, &n_weights);
	for (uint32_t i = 0; i < l->g->n_nodes; i++) {
		const cx_node *n = &l->g->nodes[i];
		int32_t *v;
		for (size_t k = 0; n->op == CX_OP_weight && k < n_weights; k++)
			if (strcmp(w[k].p.name, n->name) == 0) l->data[i] = w[k].data;
		if (n->op != CX_OP_input) continue;
		v = cx_arena_array(&l->arena, (size_t)n->desc.dim[0], sizeof *v);
		if (!v) return no_memory(err);
		for (int64_t k = 0; k < n->desc.dim[0]; k++)
			v[k] = decoder_input(cx_cortex_get_config(l->decoder), n->name, seed, k);
		l->data[i] = v;
	}
	return CX_OK;
}

/* Nothing folded: what is computed once is compared as well. */
static cx_status build_decoder(
	cx_leaves *l, const cx_leaves_args *a, const cx_cortex_size *size, cx_err *err)
{
	cx_cortex_bucket b = {.n_windows = 1, .n_events = DECODER_EVENTS};
	cx_cortex_config c = size ? cx_cortex_config_size(*size) : (cx_cortex_config){0};
	cx_cortex_source src;
	cx_cortex_graph m;
	cx_status st;
	if (a->prompt)
		return CX_FAIL(
			err, CX_ERR_ARGUMENT, "--prompt is for language models: %.100s is a decoder", a->model);
	st = size ? cx_cortex_create(&c, a->seed, NULL, &l->decoder, err)
			  : cx_cortex_open(a->model, NULL, &l->decoder, err);
	if (st != CX_OK || (st = cx_graph_create(NULL, &l->g, err)) != CX_OK) return st;
	src = cx_cortex_get_source(l->decoder);
	cx_cortex_build(cx_cortex_get_config(l->decoder), &src, &b, l->g, &m, NULL);
	cx_output(l->g, "behavior", m.behavior);
	return cx_graph_finish(l->g, err);
}

/* ---- files ---- */

static bool same_dims(const cx_npy *f, const cx_desc *d)
{
	if (f->rank != d->rank) return false;
	for (int32_t i = 0; i < d->rank; i++)
		if (f->dims[i] != d->dim[i]) return false;
	return true;
}

static cx_status convert(
	cx_leaves *l, const cx_npy *f, const cx_node *n, void *to, uint64_t bytes, cx_err *err)
{
	cx_dtype have = cx_npy_type_dtype(f->type), want = n->desc.dtype;
	bool block = cx_dtype_get(want)->cls == CX_CLASS_BLOCK;
	if (block && cx_npy_type_bytes(f->type) == 1 && f->bytes == bytes) {
		memcpy(to, f->data, bytes);
		return CX_OK;
	}
	if (!block && same_dims(f, &n->desc)) {
		if (have == want) {
			memcpy(to, f->data, bytes);
			return CX_OK;
		}
		if (have == CX_F32 && (want == CX_F16 || want == CX_BF16)) {
			float *x = cx_arena_array(&l->arena, (size_t)f->n + 1, sizeof *x);
			if (!x) return no_memory(err);
			cx_npy_to_f32(f, x);
			for (int64_t i = 0; i < f->n; i++)
				((uint16_t *)to)[i] = want == CX_F16 ? cx_f32_to_f16(x[i]) : cx_f32_to_bf16(x[i]);
			return CX_OK;
		}
	}
	return CX_FAIL(err, CX_ERR_FORMAT,
		"%.120s: type %s and rank %d do not fit %s '%.60s', %s of rank %d", f->label,
		cx_npy_type_name(f->type), (int)f->rank, cx__ops[n->op].name, n->name,
		cx_dtype_get(want)->name, (int)n->desc.rank);
}

static cx_status from_file(
	cx_leaves *l, const char *dir, uint32_t id, void *to, uint64_t bytes, bool *found, cx_err *err)
{
	const cx_node *n = &l->g->nodes[id];
	char path[1024];
	cx_npy f = {0};
	cx_status st;
	*found = false;
	if (!dir || strchr(n->name, '/')) return CX_OK;
	if ((size_t)snprintf(path, sizeof path, "%s/%s.npy", dir, n->name) >= sizeof path)
		return CX_FAIL(err, CX_ERR_ARGUMENT, "--inputs: the path is too long");
	if (access(path, F_OK) != 0) return CX_OK;
	st = cx_npy_open(NULL, path, &f, err);
	if (st == CX_OK) st = convert(l, &f, n, to, bytes, err);
	cx_npy_close(&f);
	*found = st == CX_OK;
	l->n_files += *found;
	return st;
}

/* ---- all leaves ---- */

static cx_status fill_one(cx_leaves *l, const cx_leaves_args *a, uint32_t id, cx_err *err)
{
	const cx_node *n = &l->g->nodes[id];
	uint64_t bytes;
	const void *own = cx__diff_data(l->g, id);
	bool found = false;
	void *buf;
	cx_status st;
	if (!cx_dtype_bytes(n->desc.dtype, n->desc.rank, n->desc.dim, &bytes))
		return CX_FAIL(err, CX_ERR_SHAPE, "leaf '%.60s' is too large", n->name);
	if (a->inputs || (!own && !l->data[id])) {
		if (!(buf = cx_arena_alloc(&l->arena, bytes + 1))) return no_memory(err);
		if ((st = from_file(l, a->inputs, id, buf, bytes, &found, err)) != CX_OK) return st;
		if (!found && !own && !l->data[id] && n->op != CX_OP_state) {
			cx__diff_fill(l->g, id, a->seed, buf, bytes);
			l->n_seeded++;
		}
		if (found || (!own && !l->data[id])) l->data[id] = buf;
	}
	if (!found && own) l->data[id] = own;
	return CX_OK;
}

static cx_status read_graph(cx_leaves *l, const char *path, cx_err *err)
{
	return cx__graph_read(path, &l->g, err);
}

cx_status cx__leaves_open(const cx_leaves_args *a, cx_leaves *out, cx_err *err)
{
	cx_ids ids = {0};
	cx_cortex_size size;
	cx_status st;
	memset(out, 0, sizeof *out);
	if (a->inputs && access(a->inputs, R_OK | X_OK) != 0)
		return CX_FAIL(err, CX_ERR_IO, "--inputs: there is no readable folder '%.150s'", a->inputs);
	cx_arena_init(&out->arena, NULL);
	if (!a->model) st = read_graph(out, a->graph, err);
	else if (cx_cortex_size_parse(a->model, &size)) st = build_decoder(out, a, &size, err);
	else if (cx_cortex_recognise(a->model)) st = build_decoder(out, a, NULL, err);
	else st = build_model(out, a, &ids, err);
	if (st == CX_OK) {
		out->data = cx_arena_array(&out->arena, (size_t)out->g->n_nodes + 1, sizeof *out->data);
		if (!out->data) st = no_memory(err);
	}
	if (st == CX_OK && out->model) st = fill_model(out, &ids, err);
	if (st == CX_OK && out->decoder) st = fill_decoder(out, a->seed, err);
	for (uint32_t i = 0; st == CX_OK && i < out->g->n_nodes; i++) {
		uint16_t op = out->g->nodes[i].op;
		if (op == CX_OP_input || op == CX_OP_weight || op == CX_OP_state)
			st = fill_one(out, a, i, err);
	}
	cx_ids_deinit(&ids);
	if (st != CX_OK) cx__leaves_close(out);
	return st;
}

void cx__leaves_close(cx_leaves *l)
{
	cx_graph_free(l->g);
	cx_llm_close(l->model);
	cx_cortex_close(l->decoder);
	cx_arena_deinit(&l->arena);
	memset(l, 0, sizeof *l);
}
