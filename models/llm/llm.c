/* llm.c - opens a language model and builds its graph. See llm.h. */
#include "models/layers.h"
#include "models/llm/llm_impl.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* ---- opening ---- */

static bool ends_with(const char *s, const char *end)
{
	size_t n = strlen(s), k = strlen(end);
	return n >= k && !strcmp(s + n - k, end);
}

static bool is_file(const char *path)
{
	struct stat info;
	return stat(path, &info) == 0 && S_ISREG(info.st_mode);
}

static cx_status open_gguf(cx_llm *m, const char *path, cx_err *err)
{
	cx_status st;
	if ((st = cx_gguf_open(&m->alloc, path, &m->gguf, err)) != CX_OK) return st;
	if ((st = cx_llm_config_gguf(m->gguf, &m->config, err)) != CX_OK) return st;
	return cx_tokenizer_from_gguf(m->gguf, &m->alloc, &m->tokenizer, err);
}

/* A folder, or a file in it. The tokenizer may be missing: ids still work. */
static cx_status open_hf(cx_llm *m, const char *path, bool folder, cx_err *err)
{
	const char *slash = strrchr(path, '/');
	int dir_len = folder ? (int)strlen(path) : slash ? (int)(slash - path) : 1;
	const char *dir = folder || slash ? path : ".";
	char file[1200];
	cx_status st;
	if (snprintf(file, sizeof file, "%.*s/config.json", dir_len, dir) >= (int)sizeof file)
		return CX_FAIL(err, CX_ERR_ARGUMENT, "%.100s...: the path is too long", path);
	if ((st = cx_llm_config_json(file, &m->alloc, &m->config, err)) != CX_OK) return st;
	if ((st = cx_safetensors_open(&m->alloc, path, &m->safetensors, err)) != CX_OK) return st;
	snprintf(file, sizeof file, "%.*s/tokenizer.json", dir_len, dir);
	return is_file(file) ? cx_tokenizer_from_hf(file, &m->alloc, &m->tokenizer, err) : CX_OK;
}

cx_status cx_llm_open(const char *path, const cx_alloc *alloc, cx_llm **out, cx_err *err)
{
	struct stat info;
	cx_llm *m;
	cx_status st;
	*out = NULL;
	if (stat(path, &info) != 0) return CX_FAIL(err, CX_ERR_IO, "%.120s: %s", path, strerror(errno));
	if (!(m = cx_calloc(alloc, 1, sizeof *m)))
		return CX_FAIL(err, CX_ERR_MEMORY, "model: out of memory");
	m->alloc = alloc ? *alloc : cx_alloc_default();
	cx_arena_init(&m->arena, alloc);
	if (S_ISDIR(info.st_mode)) st = open_hf(m, path, true, err);
	else if (ends_with(path, ".safetensors") || ends_with(path, ".json"))
		st = open_hf(m, path, false, err);
	else st = open_gguf(m, path, err);
	if (st == CX_OK) st = cx__llm_load_weights(m, err);
	if (st == CX_OK) *out = m;
	else cx_llm_close(m);
	return st;
}

void cx_llm_close(cx_llm *m)
{
	cx_alloc alloc;
	if (!m) return;
	alloc = m->alloc;
	cx_tokenizer_free(m->tokenizer);
	cx_gguf_close(m->gguf);
	cx_safetensors_close(m->safetensors);
	cx_arena_deinit(&m->arena);
	cx_free(&alloc, m, sizeof *m);
}

const cx_llm_config *cx_llm_get_config(const cx_llm *m)
{
	return &m->config;
}

const cx_tokenizer *cx_llm_tokenizer(const cx_llm *m)
{
	return m->tokenizer;
}

uint64_t cx_llm_weight_bytes(const cx_llm *m)
{
	return m->weight_bytes;
}

cx_status cx_llm_bind(const cx_llm *m, cx_store *store, cx_err *err)
{
	for (size_t i = 0; i < m->n_weights; i++) {
		const cx_llm_weight *w = &m->weights[i];
		cx_status st =
			cx_store_weight(store, w->name, w->dtype, w->rank, w->dim, w->data, w->bytes, err);
		if (st != CX_OK) return st;
	}
	return CX_OK;
}

/* ---- the graph ---- */

typedef struct builder {
	const cx_llm *m;
	const cx_llm_config *c;
	const cx_llm_bucket *b;
	cx_graph *g;
	cx_tensor pos, slot, table, q_off, kv_len, freqs;
	int64_t layer;
} builder;

static cx_tensor weight(const builder *b, const char *name)
{
	const cx_llm_weight *w = cx__llm_weight(b->m, name);
	CX_ASSERT(w); /* cx__llm_load_weights() has all that needed() asks for */
	return cx_weight(b->g, w->name, w->dtype, w->rank, w->dim);
}

static cx_tensor layer_weight(const builder *b, const char *name)
{
	char full[96];
	snprintf(full, sizeof full, "blk.%lld.%s", (long long)b->layer, name);
	return weight(b, full);
}

static cx_tensor norm(const builder *b, cx_tensor x, cx_tensor w)
{
	return cx_rmsnorm(cx_at(b->g), x, w, &(cx_attr_norm){.eps = b->c->eps});
}

static cx_tensor linear(const builder *b, cx_tensor x, const char *name, bool bias)
{
	char full[64];
	cx_tensor w, bw = CX_NONE;
	snprintf(full, sizeof full, "%s.weight", name);
	w = layer_weight(b, full);
	snprintf(full, sizeof full, "%s.bias", name);
	if (bias) bw = layer_weight(b, full);
	return cx_named(b->g, cx_layer_linear(cx_at(b->g), x, w, bw), name);
}

static cx_tensor heads(const builder *b, cx_tensor x, int64_t n_heads)
{
	int64_t dims[3] = {b->b->n_tokens, n_heads, b->c->head_dim};
	return cx_reshape(b->g, x, &(cx_attr_dims){.dims = cx_list_from(3, dims)});
}

static cx_tensor rope(const builder *b, cx_tensor x)
{
	const cx_llm_config *c = b->c;
	cx_attr_rope a = {.n_rot = c->n_rot,
		.theta = c->rope_theta,
		.amplitude = c->rope_amplitude,
		.pairs = c->rope_pairs};
	return cx_rope(cx_at(b->g), x, b->pos, b->freqs, CX_NONE, CX_NONE, &a);
}

/* Writes this run's rows into the layer's cache and gives the cache with them in it. */
static cx_tensor cache(const builder *b, char which, cx_tensor rows)
{
	int64_t dims[3] = {b->b->n_slots, b->c->n_kv_heads, b->c->head_dim};
	char name[48];
	cx_tensor state;
	snprintf(name, sizeof name, "kv.%lld.%c", (long long)b->layer, which);
	state = cx_state(b->g, name, b->b->kv, 3, dims);
	if (b->b->kv != CX_F32) rows = cx_cast(b->g, rows, &(cx_attr_cast){.dtype = b->b->kv});
	return cx_scatter(cx_at(b->g), state, b->slot, rows, NULL);
}

static cx_tensor attention(const builder *b, cx_tensor x)
{
	const cx_llm_config *c = b->c;
	cx_attr_paged a = cx_attr_paged_default();
	int64_t flat[2] = {b->b->n_tokens, c->n_heads * c->head_dim};
	cx_tensor q, k, v, o;
	x = norm(b, x, layer_weight(b, "attn_norm.weight"));
	q = heads(b, linear(b, x, "attn_q", c->qkv_bias), c->n_heads);
	k = heads(b, linear(b, x, "attn_k", c->qkv_bias), c->n_kv_heads);
	v = heads(b, linear(b, x, "attn_v", c->qkv_bias), c->n_kv_heads);
	if (c->qk_norm) {
		q = norm(b, q, layer_weight(b, "attn_q_norm.weight"));
		k = norm(b, k, layer_weight(b, "attn_k_norm.weight"));
	}
	q = rope(b, q);
	k = cache(b, 'k', rope(b, k));
	v = cache(b, 'v', v);
	a.page = b->b->page;
	o = cx_paged_attention(cx_at(b->g), q, k, v, b->table, b->q_off, b->kv_len, &a);
	o = cx_reshape(b->g, o, &(cx_attr_dims){.dims = cx_list_from(2, flat)});
	return linear(b, o, "attn_output", c->o_bias);
}

static cx_tensor feed_forward(const builder *b, cx_tensor x)
{
	bool bias = b->c->mlp_bias;
	cx_tensor gate, up;
	x = norm(b, x, layer_weight(b, "ffn_norm.weight"));
	gate = linear(b, x, "ffn_gate", bias);
	up = linear(b, x, "ffn_up", bias);
	return linear(b, cx_layer_swiglu(cx_at(b->g), gate, up), "ffn_down", bias);
}

void cx_llm_build(const cx_llm *m, const cx_llm_bucket *bucket, cx_graph *g)
{
	const cx_llm_config *c = &m->config;
	builder b = {.m = m, .c = c, .b = bucket, .g = g, .freqs = CX_NONE};
	int64_t t = bucket->n_tokens, n = bucket->n_seqs, half = c->n_rot / 2;
	cx_attr_axis rows_axis = {.axis = 0};
	cx_tensor tokens, rows, embed, x, logits;
	tokens = cx_input(g, "tokens", CX_I32, 1, &t);
	b.pos = cx_input(g, "pos", CX_I32, 1, &t);
	b.slot = cx_input(g, "slot", CX_I32, 1, &t);
	b.table = cx_input(g, "table", CX_I32, 2, (int64_t[]){n, bucket->n_blocks});
	b.q_off = cx_input(g, "q_off", CX_I32, 1, (int64_t[]){n + 1});
	b.kv_len = cx_input(g, "kv_len", CX_I32, 1, &n);
	rows = cx_input(g, "rows", CX_I32, 1, &bucket->n_logits);
	if (c->rope_scaled) b.freqs = cx_const(g, CX_F32, 1, &half, c->rope_freqs);
	embed = weight(&b, "token_embd.weight");
	x = cx_gather(cx_at(g), embed, tokens, &rows_axis);
	if (cx_tensor_dtype(g, x) != CX_F32) x = cx_cast(g, x, &(cx_attr_cast){.dtype = CX_F32});
	for (b.layer = 0; b.layer < c->n_layers; b.layer++) {
		cx_scope_push(g, "blk.%lld", (long long)b.layer);
		x = cx_add(cx_at(g), x, attention(&b, x));
		x = cx_add(cx_at(g), x, feed_forward(&b, x));
		cx_scope_pop(g);
	}
	x = cx_gather(cx_at(g), x, rows, &rows_axis);
	x = norm(&b, x, weight(&b, "output_norm.weight"));
	logits = cx_layer_linear(cx_at(g), x, c->tied ? embed : weight(&b, "output.weight"), CX_NONE);
	cx_output(g, "logits", cx_named(g, logits, "output"));
}
