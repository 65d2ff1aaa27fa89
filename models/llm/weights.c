/* weights.c - finds every weight of a model in its file, under GGUF or Hugging Face names
 * (spec/llm.md 1.2, 3.4).
 *
 * Matrices stay where they are, in their own format. Norms, biases and rope divisors, a few
 * kilobytes, are converted to f32; data that a file left unaligned is moved once. */
#include "models/llm/llm_impl.h"
#include "graph/quant.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ANY = -1 };

/* Every weight of a layer: our name (GGUF's), Hugging Face's, shape by letters of the table below.
 */
static const struct row {
	const char *gguf, *hf;
	char out, in; /* in 0: a vector */
	char when;    /* 0 always, b qkv bias, o o bias, m mlp bias, n qk norm */
} layer_rows[] = {
	{"attn_norm.weight", "input_layernorm.weight", 'H', 0, 0},
	{"attn_q.weight", "self_attn.q_proj.weight", 'Q', 'H', 0},
	{"attn_k.weight", "self_attn.k_proj.weight", 'K', 'H', 0},
	{"attn_v.weight", "self_attn.v_proj.weight", 'K', 'H', 0},
	{"attn_q.bias", "self_attn.q_proj.bias", 'Q', 0, 'b'},
	{"attn_k.bias", "self_attn.k_proj.bias", 'K', 0, 'b'},
	{"attn_v.bias", "self_attn.v_proj.bias", 'K', 0, 'b'},
	{"attn_q_norm.weight", "self_attn.q_norm.weight", 'D', 0, 'n'},
	{"attn_k_norm.weight", "self_attn.k_norm.weight", 'D', 0, 'n'},
	{"attn_output.weight", "self_attn.o_proj.weight", 'H', 'Q', 0},
	{"attn_output.bias", "self_attn.o_proj.bias", 'H', 0, 'o'},
	{"ffn_norm.weight", "post_attention_layernorm.weight", 'H', 0, 0},
	{"ffn_gate.weight", "mlp.gate_proj.weight", 'F', 'H', 0},
	{"ffn_up.weight", "mlp.up_proj.weight", 'F', 'H', 0},
	{"ffn_down.weight", "mlp.down_proj.weight", 'H', 'F', 0},
	{"ffn_gate.bias", "mlp.gate_proj.bias", 'F', 0, 'm'},
	{"ffn_up.bias", "mlp.up_proj.bias", 'F', 0, 'm'},
	{"ffn_down.bias", "mlp.down_proj.bias", 'H', 0, 'm'},
};

static int64_t size_of(const cx_llm_config *c, char letter)
{
	switch (letter) {
	case 'H':
		return c->hidden;
	case 'F':
		return c->ffn;
	case 'D':
		return c->head_dim;
	case 'Q':
		return c->n_heads * c->head_dim;
	case 'K':
		return c->n_kv_heads * c->head_dim;
	default:
		return c->vocab;
	}
}

static bool needed(const cx_llm_config *c, char when)
{
	switch (when) {
	case 'b':
		return c->qkv_bias;
	case 'o':
		return c->o_bias;
	case 'm':
		return c->mlp_bias;
	case 'n':
		return c->qk_norm;
	default:
		return true;
	}
}

static const cx_tensor_list *tensors(const cx_llm *m)
{
	return m->gguf ? cx_gguf_tensors(m->gguf) : cx_safetensors_tensors(m->safetensors);
}

/* A vector becomes f32 in the arena. */
static cx_status to_f32(
	cx_llm *m, const cx_file_tensor *t, int64_t n, cx_llm_weight *w, cx_err *err)
{
	const cx_dtype_info *info = cx_dtype_get(t->dtype);
	float *v;
	if (info->cls != CX_CLASS_FLOAT && (info->cls != CX_CLASS_BLOCK || t->dtype == CX_I8C))
		return CX_FAIL(err, CX_ERR_UNSUPPORTED, "%.80s: '%.60s' is %s; floats are wanted", t->file,
			t->name, info->name);
	if (!(v = cx_arena_array(&m->arena, (size_t)n, sizeof *v)))
		return CX_FAIL(err, CX_ERR_MEMORY, "%.80s: out of memory", t->file);
	cx_dequant_row(t->dtype, t->data, v, n);
	w->dtype = CX_F32;
	w->data = v;
	w->bytes = (uint64_t)n * sizeof *v;
	return CX_OK;
}

static cx_status add(cx_llm *m, const char *name, const cx_file_tensor *t, cx_err *err)
{
	cx_llm_weight w = {.dtype = t->dtype, .rank = t->rank, .data = t->data, .bytes = t->bytes};
	size_t align = (size_t)cx_dtype_get(t->dtype)->block_bytes;
	cx_status st;
	for (int32_t i = 0; i < t->rank; i++) w.dim[i] = t->dims[i];
	m->weight_bytes += t->bytes;
	if (cx_dtype_get(t->dtype)->cls == CX_CLASS_BLOCK) align = 1; /* read byte by byte */
	if (t->rank == 1) {
		if ((st = to_f32(m, t, t->dims[0], &w, err)) != CX_OK) return st;
	} else if ((uintptr_t)t->data % align != 0) {
		w.data = cx_arena_memdup(&m->arena, t->data, t->bytes);
	}
	w.name = cx_arena_strdup(&m->arena, name);
	if (!w.data || !w.name) return CX_FAIL(err, CX_ERR_MEMORY, "%.80s: out of memory", t->file);
	CX_ASSERT(m->n_weights < m->cap_weights);
	m->weights[m->n_weights++] = w;
	return CX_OK;
}

/* One weight that must be there with exactly this shape. */
static cx_status load(cx_llm *m, const char *name, const char *in_file, int32_t rank,
	const int64_t *dims, cx_err *err)
{
	const cx_file_tensor *t;
	cx_status st = cx_tensor_list_get(tensors(m), in_file, rank, dims, &t, err);
	if (st == CX_OK && cx_dtype_get(t->dtype)->cls != CX_CLASS_FLOAT &&
		cx_dtype_get(t->dtype)->cls != CX_CLASS_BLOCK)
		st = CX_FAIL(err, CX_ERR_UNSUPPORTED,
			"%.80s: '%.60s' is %s; floats or a block format are wanted", t->file, t->name,
			t->dtype_name);
	return st == CX_OK ? add(m, name, t, err) : st;
}

static cx_status load_layer(cx_llm *m, int64_t layer, cx_err *err)
{
	const cx_llm_config *c = &m->config;
	char name[96], in_file[96];
	for (size_t i = 0; i < sizeof layer_rows / sizeof *layer_rows; i++) {
		const struct row *r = &layer_rows[i];
		int64_t dims[2] = {size_of(c, r->out), r->in ? size_of(c, r->in) : 0};
		cx_status st;
		if (!needed(c, r->when)) continue;
		snprintf(name, sizeof name, "blk.%lld.%s", (long long)layer, r->gguf);
		if (m->gguf) snprintf(in_file, sizeof in_file, "%s", name);
		else snprintf(in_file, sizeof in_file, "model.layers.%lld.%s", (long long)layer, r->hf);
		if ((st = load(m, name, in_file, r->in ? 2 : 1, dims, err)) != CX_OK) return st;
	}
	return CX_OK;
}

/* Llama-3.x in GGUF stores its scaling as divisors of the frequencies. */
static cx_status load_rope(cx_llm *m, cx_err *err)
{
	int64_t n = m->config.n_rot / 2;
	const cx_file_tensor *t;
	cx_llm_weight w = {0};
	cx_status st;
	if (!m->gguf || !cx_tensor_list_find(tensors(m), "rope_freqs.weight")) return CX_OK;
	if ((st = cx_tensor_list_get(tensors(m), "rope_freqs.weight", 1, &n, &t, err)) != CX_OK)
		return st;
	if ((st = to_f32(m, t, n, &w, err)) != CX_OK) return st;
	for (int64_t i = 0; i < n; i++)
		if (!(((const float *)w.data)[i] > 0))
			return CX_FAIL(err, CX_ERR_FORMAT, "%.80s: rope_freqs.weight[%lld] is not positive",
				t->file, (long long)i);
	cx__llm_rope_divide(&m->config, w.data);
	return CX_OK;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const cx_llm_weight *)a)->name, ((const cx_llm_weight *)b)->name);
}

const cx_llm_weight *cx__llm_weight(const cx_llm *m, const char *name)
{
	cx_llm_weight key = {.name = name};
	return bsearch(&key, m->weights, m->n_weights, sizeof key, by_name);
}

cx_status cx__llm_load_weights(cx_llm *m, cx_err *err)
{
	cx_llm_config *c = &m->config;
	size_t per_layer = sizeof layer_rows / sizeof *layer_rows;
	const char *embed = m->gguf ? "token_embd.weight" : "model.embed_tokens.weight";
	const char *norm = m->gguf ? "output_norm.weight" : "model.norm.weight";
	const char *head = m->gguf ? "output.weight" : "lm_head.weight";
	int64_t any[2] = {ANY, c->hidden}, hidden = c->hidden;
	const cx_file_tensor *t;
	cx_status st;
	m->cap_weights = (size_t)c->n_layers * per_layer + 3;
	m->weights = cx_arena_array(&m->arena, m->cap_weights, sizeof *m->weights);
	if (!m->weights) return CX_FAIL(err, CX_ERR_MEMORY, "model: out of memory");
	if ((st = cx_tensor_list_get(tensors(m), embed, 2, any, &t, err)) != CX_OK) return st;
	c->vocab = t->dims[0];
	any[0] = c->vocab;
	if (c->vocab < 1) return CX_FAIL(err, CX_ERR_FORMAT, "%.80s: '%s' has no rows", t->file, embed);
	if ((st = load(m, "token_embd.weight", embed, 2, any, err)) != CX_OK) return st;
	/* Tied in the config counts even where a duplicate is stored (spec/llm.md 1.1). */
	if (!cx_tensor_list_find(tensors(m), head)) c->tied = true;
	if (!c->tied && (st = load(m, "output.weight", head, 2, any, err)) != CX_OK) return st;
	if ((st = load(m, "output_norm.weight", norm, 1, &hidden, err)) != CX_OK) return st;
	for (int64_t i = 0; i < c->n_layers; i++)
		if ((st = load_layer(m, i, err)) != CX_OK) return st;
	if ((st = load_rope(m, err)) != CX_OK) return st;
	qsort(m->weights, m->n_weights, sizeof *m->weights, by_name);
	return CX_OK;
}
