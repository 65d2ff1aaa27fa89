/* import.c - strict import of a state dict: geometry from shapes, every tensor taken, none left.
 * See checkpoint.h. */
#include "graph/quant.h"
#include "models/decoder/checkpoint.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct importer {
	cx_cortex *m;
	const cx_tensor_list *l;
	const char *label;
	size_t n_used; /* tensors of the list */
	cx_err *err;
} importer;

/* ---- geometry ---- */

/* Dim `axis` of a matrix that must be there, perhaps as INT8. */
static cx_status size_of(const importer *m, const char *name, int axis, int64_t *out)
{
	char int8[96];
	const cx_file_tensor *t = cx_tensor_list_find(m->l, name);
	snprintf(int8, sizeof int8, "%s_int8", name);
	if (!t) t = cx_tensor_list_find(m->l, int8);
	if (!t) return CX_FAIL(m->err, CX_ERR_FORMAT, "%s: there is no tensor '%s'", m->label, name);
	if (t->rank != 2)
		return CX_FAIL(m->err, CX_ERR_FORMAT, "%s: tensor '%s' has %d dims, must have 2", m->label,
			name, (int)t->rank);
	*out = t->dims[axis];
	return CX_OK;
}

static bool ends_with(const char *s, const char *end)
{
	size_t n = strlen(s), k = strlen(end);
	return n >= k && strcmp(s + n - k, end) == 0;
}

/* One past the highest block; and which of the optional tensors there are. */
static int64_t count_blocks(const importer *m, bool *norm_bias, bool *masked)
{
	static const char prefix[] = "encoder.self_attn_blocks.";
	int64_t n = 0;
	for (size_t i = 0; i < m->l->n; i++) {
		const char *name = m->l->at[i].name;
		if (strstr(name, "norm") && ends_with(name, ".bias")) *norm_bias = true;
		if (strncmp(name, "masked_spike_head.", 18) == 0) *masked = true;
		if (strncmp(name, prefix, sizeof prefix - 1) == 0) {
			long k = strtol(name + sizeof prefix - 1, NULL, 10);
			if (k >= n && k < INT32_MAX) n = k + 1;
		}
	}
	return n;
}

/* A whole number of the file's metadata, or 0. */
static int64_t meta_number(const cx_cortex *m, const char *key)
{
	const char *v = cx_cortex_get_meta(m, key);
	long n = v ? strtol(v, NULL, 10) : 0;
	return n > 0 ? n : 0;
}

static void find_heads(cx_cortex *m)
{
	cx_cortex_config *c = &m->config;
	c->num_heads = meta_number(m, "num_heads");
	c->cross_attn_heads = meta_number(m, "cross_attn_heads");
	for (int i = 0; i < CX_CORTEX_N_SIZES && !c->num_heads; i++) {
		cx_cortex_config s = cx_cortex_config_size((cx_cortex_size)i);
		if (s.hidden_dim == c->hidden_dim && s.num_layers == c->num_layers &&
			s.num_latents == c->num_latents)
			c->num_heads = s.num_heads;
	}
	if (!c->num_heads) c->num_heads = c->hidden_dim % 64 == 0 ? c->hidden_dim / 64 : 0;
	if (!c->cross_attn_heads) c->cross_attn_heads = c->num_heads;
	c->head_dim = c->num_heads ? c->hidden_dim / c->num_heads : 0;
}

static cx_status find_config(importer *m)
{
	cx_cortex_config *c = &m->m->config;
	int64_t mlp, width;
	bool norm_bias = false, masked = false;
	cx_status st;
	*c = (cx_cortex_config){0};
	if ((st = size_of(m, "tokenizer.neuron_emb.weight", 0, &c->max_neurons)) != CX_OK ||
		(st = size_of(m, "tokenizer.neuron_emb.weight", 1, &width)) != CX_OK ||
		(st = size_of(m, "tokenizer.time_emb.weight", 0, &c->max_time_bins)) != CX_OK ||
		(st = size_of(m, "tokenizer.value_emb.weight", 0, &c->spike_value_buckets)) != CX_OK ||
		(st = size_of(m, "encoder.latents", 0, &c->num_latents)) != CX_OK ||
		(st = size_of(m, "encoder.self_attn_blocks.0.mlp.0.weight", 0, &mlp)) != CX_OK ||
		(st = size_of(m, "behavior_head.query", 0, &c->behavior_dim)) != CX_OK)
		return st;
	c->hidden_dim = c->latent_dim = width;
	c->num_layers = count_blocks(m, &norm_bias, &masked);
	c->use_masked_spike_head = masked;
	c->norm = norm_bias ? CX_CORTEX_LAYERNORM : CX_CORTEX_RMSNORM;
	c->mlp_ratio = width > 0 ? (double)mlp / (double)width : 0;
	/* the width again from the ratio must be the one in the file */
	while (width > 0 && mlp < 1 << 30 && cx_cortex_mlp_hidden(c) < mlp) c->mlp_ratio *= 1 + 1e-15;
	find_heads(m->m);
	if (!c->num_heads)
		return CX_FAIL(m->err, CX_ERR_FORMAT,
			"%s: how many heads split a width of %lld is not in the file", m->label,
			(long long)width);
	if ((st = cx_cortex_config_check(c, NULL)) != CX_OK) {
		cx_err why = {0};
		cx_cortex_config_check(c, &why);
		return CX_FAIL(m->err, CX_ERR_FORMAT, "%s: %.140s", m->label, why.msg);
	}
	return CX_OK;
}

/* ---- tensors ---- */

static cx_status no_memory(const importer *m)
{
	return CX_FAIL(m->err, CX_ERR_MEMORY, "%s: out of memory", m->label);
}

static cx_status as_f32(importer *m, const cx_file_tensor *t, cx_cortex_weight *w)
{
	uint64_t n = cx_cortex_param_elems(&w->p);
	float *v = NULL;
	if (t->dtype == CX_F32 && (uintptr_t)t->data % 4 == 0) {
		w->data = t->data;
	} else {
		if (!(v = cx_arena_array(&m->m->arena, (size_t)n, sizeof *v))) return no_memory(m);
		cx_dequant_row(t->dtype, t->data, v, (int64_t)n);
		w->data = v;
	}
	w->dtype = CX_F32;
	w->narrow = t->dtype == CX_F16 || t->dtype == CX_BF16 ? t->dtype : CX_F32;
	w->bytes = n * sizeof *v;
	return CX_OK;
}

/* The step of its activations, where the file has one. */
static cx_status take_act_scale(importer *m, cx_cortex_weight *w)
{
	static const int64_t one = 1;
	char name[96];
	const cx_file_tensor *t;
	float v;
	cx_status st;
	cx__cortex_act_name(w->p.name, name, sizeof name);
	if (!cx_tensor_list_find(m->l, name)) return CX_OK;
	if ((st = cx_tensor_list_get(m->l, name, 1, &one, &t, m->err)) != CX_OK) return st;
	if (t->dtype != CX_F32)
		return CX_FAIL(
			m->err, CX_ERR_FORMAT, "%s: '%.60s' is %s, must be F32", m->label, name, t->dtype_name);
	memcpy(&v, t->data, sizeof v);
	if (!(v >= CX_ACT_SCALE_MIN && v <= CX_ACT_SCALE_MAX))
		return CX_FAIL(m->err, CX_ERR_FORMAT, "%s: '%.60s' is %g, must be in %g..%g", m->label,
			name, (double)v, CX_ACT_SCALE_MIN, CX_ACT_SCALE_MAX);
	w->act_scale = v;
	m->n_used++;
	return CX_OK;
}

/* For every int8 linear or for none: a model of which half is rounded is a file cut short. */
static cx_status check_act_scales(const importer *m)
{
	const cx_cortex_weight *with = NULL, *without = NULL;
	char name[96];
	for (size_t i = 0; i < m->m->n; i++) {
		if (m->m->w[i].dtype != CX_I8C) continue;
		if (m->m->w[i].act_scale > 0) with = &m->m->w[i];
		else if (!without) without = &m->m->w[i];
	}
	if (!with || !without) return CX_OK;
	cx__cortex_act_name(without->p.name, name, sizeof name);
	return CX_FAIL(m->err, CX_ERR_FORMAT, "%s: there is no tensor '%s', but other linears have one",
		m->label, name);
}

/* INT8 rows and their scales, put together as the graph wants them. */
static cx_status take_int8(importer *m, const cx_file_tensor *t, cx_cortex_weight *w)
{
	char name[96];
	const cx_file_tensor *scale;
	uint64_t off = cx_i8c_scale_off(w->p.dim[0], w->p.dim[1]);
	unsigned char *both;
	cx_status st;
	snprintf(name, sizeof name, "%s_scale", w->p.name);
	if (!w->p.linear)
		return CX_FAIL(
			m->err, CX_ERR_FORMAT, "%s: '%.60s' is int8; only linears can be", m->label, w->p.name);
	if (t->dtype != CX_I8)
		return CX_FAIL(m->err, CX_ERR_FORMAT, "%s: '%.60s' is %s, must be int8", m->label, t->name,
			t->dtype_name);
	if ((st = cx_tensor_list_get(m->l, name, 1, w->p.dim, &scale, m->err)) != CX_OK) return st;
	if (cx_dtype_get(scale->dtype)->cls != CX_CLASS_FLOAT)
		return CX_FAIL(m->err, CX_ERR_FORMAT, "%s: '%.60s' is %s, must be of floats", m->label,
			name, scale->dtype_name);
	w->dtype = CX_I8C;
	w->narrow = CX_F32;
	w->bytes = off + 4 * (uint64_t)w->p.dim[0];
	if (!(both = cx_arena_alloc(&m->m->arena, (size_t)w->bytes))) return no_memory(m);
	memcpy(both, t->data, (size_t)t->bytes);
	cx_dequant_row(scale->dtype, scale->data, (float *)(void *)(both + off), w->p.dim[0]);
	for (int64_t i = 0; i < w->p.dim[0]; i++) {
		float s = cx_i8c_scale(both, w->p.dim[0], w->p.dim[1], i);
		if (!(s >= 0 && s <= CX_ACT_SCALE_MAX))
			return CX_FAIL(m->err, CX_ERR_FORMAT, "%s: '%.60s': scale of row %lld is %g", m->label,
				name, (long long)i, (double)s);
	}
	w->data = both;
	m->n_used += 2;
	return take_act_scale(m, w);
}

static cx_status take(importer *m, cx_cortex_weight *w)
{
	char int8[96];
	const cx_file_tensor *t;
	cx_status st;
	snprintf(int8, sizeof int8, "%s_int8", w->p.name);
	if (!cx_tensor_list_find(m->l, w->p.name) && cx_tensor_list_find(m->l, int8)) {
		if ((st = cx_tensor_list_get(m->l, int8, w->p.rank, w->p.dim, &t, m->err)) != CX_OK)
			return st;
		return take_int8(m, t, w);
	}
	if ((st = cx_tensor_list_get(m->l, w->p.name, w->p.rank, w->p.dim, &t, m->err)) != CX_OK)
		return st;
	m->n_used++;
	if (cx_dtype_get(t->dtype)->cls != CX_CLASS_FLOAT)
		return CX_FAIL(m->err, CX_ERR_FORMAT, "%s: tensor '%.60s' is %s, must be of floats",
			m->label, t->name, t->dtype_name);
	if (!w->p.linear || t->dtype == CX_F32) return as_f32(m, t, w);
	w->dtype = t->dtype;
	w->narrow = CX_F32;
	w->bytes = t->bytes;
	w->data = t->data;
	if ((uintptr_t)t->data % 2 == 0) return CX_OK;
	w->data = cx_arena_memdup(&m->m->arena, t->data, (size_t)t->bytes);
	return w->data ? CX_OK : no_memory(m);
}

/* Name of the parameter that a tensor of the file belongs to. */
static void base_name(const char *name, char out[512])
{
	size_t n;
	snprintf(out, 512, "%s", name);
	n = strlen(out);
	if (ends_with(out, ".weight_int8")) out[n - 5] = 0;
	else if (ends_with(out, ".weight_scale")) out[n - 6] = 0;
	else if (ends_with(out, ".act_scale")) memcpy(out + n - 9, "weight", 7);
}

static cx_status refuse_extra(const importer *m)
{
	char base[512];
	for (size_t i = 0; i < m->l->n; i++) {
		bool known = false;
		base_name(m->l->at[i].name, base);
		for (size_t k = 0; k < m->m->n && !known; k++) {
			bool int8 = strcmp(base, m->l->at[i].name) != 0;
			known = strcmp(m->m->w[k].p.name, base) == 0 && int8 == (m->m->w[k].dtype == CX_I8C);
		}
		if (!known)
			return CX_FAIL(m->err, CX_ERR_FORMAT,
				"%s: tensor '%.80s' is not one of a %s model of %lld blocks", m->label,
				m->l->at[i].name, "Cortex", (long long)m->m->config.num_layers);
	}
	return CX_FAIL(m->err, CX_ERR_FORMAT, "%s: a tensor too many", m->label);
}

cx_status cx__cortex_import(cx_cortex *m, const cx_tensor_list *l, const char *label, cx_err *err)
{
	importer im = {.m = m, .l = l, .label = label, .err = err};
	cx_status st = find_config(&im);
	if (st != CX_OK) return st;
	m->n = cx_cortex_n_params(&m->config);
	if (!(m->w = cx_arena_array(&m->arena, m->n, sizeof *m->w))) return no_memory(&im);
	for (size_t i = 0; i < m->n; i++) {
		cx_cortex_param_get(&m->config, i, &m->w[i].p);
		if ((st = take(&im, &m->w[i])) != CX_OK) return st;
	}
	if ((st = check_act_scales(&im)) != CX_OK) return st;
	return im.n_used == l->n ? CX_OK : refuse_extra(&im);
}
