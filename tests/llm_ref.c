/* llm_ref.c - see llm_ref.h. Plain loops, nothing shared with the library but the safetensors
 * writer. */
#include "tests/llm_ref.h"
#include "models/files/safetensors.h"
#include "tests/file_make.h"
#include "tests/rng.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static float *random_floats(cx_rng *r, size_t n, double centre, double spread)
{
	float *v = malloc(n * sizeof *v);
	for (size_t i = 0; i < n; i++)
		v[i] = cx__rng_float(r, (float)(centre - spread), (float)(centre + spread));
	return v;
}

static void frequencies(llm_ref *m, bool llama3)
{
	const double factor = 8, lo = 1, hi = 4, n0 = 32, two_pi = 6.283185307179586;
	for (int j = 0; j < m->head / 2; j++) {
		double f = pow(m->theta, -2.0 * j / m->head), wave = two_pi / f, s;
		if (llama3 && wave > n0 / lo) f /= factor;
		else if (llama3 && wave >= n0 / hi) {
			s = (n0 / wave - lo) / (hi - lo);
			f = (1 - s) * f / factor + s * f;
		}
		m->freq[j] = f;
	}
}

void llm_ref_random(llm_ref *m, const char *arch, bool tied, bool llama3, uint64_t seed)
{
	bool qwen2 = !strcmp(arch, "qwen2"), qwen3 = !strcmp(arch, "qwen3");
	cx_rng r = cx__rng_make(seed, 7);
	size_t h, f, q, k;
	memset(m, 0, sizeof *m);
	m->n_layers = 2;
	m->hidden = 24;
	m->ffn = 40;
	m->n_heads = 4;
	m->n_kv = 2;
	m->head = qwen3 ? 10 : 6; /* qwen3: n_heads * head is not hidden */
	m->vocab = 61;
	m->context = 128;
	m->eps = qwen2 || qwen3 ? 1e-6 : 1e-5;
	m->theta = 10000;
	frequencies(m, llama3);
	h = (size_t)m->hidden, f = (size_t)m->ffn, q = (size_t)(m->n_heads * m->head),
	k = (size_t)(m->n_kv * m->head);
	m->embed = random_floats(&r, (size_t)m->vocab * h, 0, 1);
	m->norm = random_floats(&r, h, 1, 0.3);
	m->out = tied ? NULL : random_floats(&r, (size_t)m->vocab * h, 0, 0.5);
	for (int i = 0; i < m->n_layers; i++)
		m->layer[i] = (llm_ref_layer){.attn_norm = random_floats(&r, h, 1, 0.3),
			.q = random_floats(&r, q * h, 0, 0.5),
			.k = random_floats(&r, k * h, 0, 0.5),
			.v = random_floats(&r, k * h, 0, 0.5),
			.o = random_floats(&r, h * q, 0, 0.4),
			.ffn_norm = random_floats(&r, h, 1, 0.3),
			.gate = random_floats(&r, f * h, 0, 0.4),
			.up = random_floats(&r, f * h, 0, 0.4),
			.down = random_floats(&r, h * f, 0, 0.4),
			.bq = qwen2 ? random_floats(&r, q, 0, 0.5) : NULL,
			.bk = qwen2 ? random_floats(&r, k, 0, 0.5) : NULL,
			.bv = qwen2 ? random_floats(&r, k, 0, 0.5) : NULL,
			.q_norm = qwen3 ? random_floats(&r, (size_t)m->head, 1, 0.3) : NULL,
			.k_norm = qwen3 ? random_floats(&r, (size_t)m->head, 1, 0.3) : NULL};
}

static float *take(const bytes *b, size_t *off, size_t n)
{
	float *v = malloc(n * sizeof *v);
	memcpy(v, b->p + *off, n * sizeof *v);
	*off += n * sizeof *v;
	return v;
}

bool llm_ref_load_bin(llm_ref *m, const char *path)
{
	bytes b;
	int32_t head[7];
	size_t off = sizeof head, h, f, kv;
	memset(m, 0, sizeof *m);
	if (!path) return false;
	b = bytes_load(path);
	memcpy(head, b.p, sizeof head);
	m->hidden = head[0], m->ffn = head[1], m->n_layers = head[2], m->n_heads = head[3],
	m->n_kv = head[4];
	m->vocab = abs(head[5]);
	m->context = head[6];
	m->head = m->hidden / m->n_heads;
	m->pairs = true;
	m->eps = 1e-5;
	m->theta = 10000;
	frequencies(m, false);
	h = (size_t)m->hidden, f = (size_t)m->ffn, kv = (size_t)(m->n_kv * m->head);
	m->embed = take(&b, &off, (size_t)m->vocab * h);
	for (int i = 0; i < m->n_layers; i++) m->layer[i].attn_norm = take(&b, &off, h);
	for (int i = 0; i < m->n_layers; i++) m->layer[i].q = take(&b, &off, h * h);
	for (int i = 0; i < m->n_layers; i++) m->layer[i].k = take(&b, &off, kv * h);
	for (int i = 0; i < m->n_layers; i++) m->layer[i].v = take(&b, &off, kv * h);
	for (int i = 0; i < m->n_layers; i++) m->layer[i].o = take(&b, &off, h * h);
	for (int i = 0; i < m->n_layers; i++) m->layer[i].ffn_norm = take(&b, &off, h);
	for (int i = 0; i < m->n_layers; i++) m->layer[i].gate = take(&b, &off, f * h);
	for (int i = 0; i < m->n_layers; i++) m->layer[i].down = take(&b, &off, h * f);
	for (int i = 0; i < m->n_layers; i++) m->layer[i].up = take(&b, &off, f * h);
	m->norm = take(&b, &off, h);
	bytes_free(&b);
	return true;
}

void llm_ref_free(llm_ref *m)
{
	for (int i = 0; i < m->n_layers; i++) {
		llm_ref_layer *l = &m->layer[i];
		float *all[] = {l->attn_norm, l->q, l->k, l->v, l->o, l->ffn_norm, l->gate, l->up, l->down,
			l->bq, l->bk, l->bv, l->q_norm, l->k_norm};
		for (size_t j = 0; j < sizeof all / sizeof *all; j++) free(all[j]);
	}
	free(m->embed);
	free(m->norm);
	free(m->out);
	memset(m, 0, sizeof *m);
}

/* ---- forward ---- */

static void rmsnorm(double *y, const double *x, const float *w, int n, double eps)
{
	double s = 0;
	for (int i = 0; i < n; i++) s += x[i] * x[i];
	s = 1 / sqrt(s / n + eps);
	for (int i = 0; i < n; i++) y[i] = x[i] * s * w[i];
}

static void matvec(double *y, const float *w, const float *bias, const double *x, int out, int in)
{
	for (int o = 0; o < out; o++) {
		y[o] = bias ? bias[o] : 0;
		for (int i = 0; i < in; i++) y[o] += (double)w[(size_t)o * (size_t)in + (size_t)i] * x[i];
	}
}

static void rope(const llm_ref *m, double *x, int pos)
{
	int half = m->head / 2;
	for (int j = 0; j < half; j++) {
		int a = m->pairs ? 2 * j : j, b = m->pairs ? 2 * j + 1 : j + half;
		double c = cos(pos * m->freq[j]), s = sin(pos * m->freq[j]), xa = x[a], xb = x[b];
		x[a] = xa * c - xb * s;
		x[b] = xb * c + xa * s;
	}
}

/* keys, values: [n, n_kv * head] of this layer, filled up to and including t. */
static void attend(
	const llm_ref *m, const double *q, const double *keys, const double *values, int t, double *o)
{
	int kv_row = m->n_kv * m->head, group = m->n_heads / m->n_kv;
	double *p = malloc(((size_t)t + 1) * sizeof *p);
	for (int h = 0; h < m->n_heads; h++) {
		int g = h / group * m->head;
		double best = -INFINITY, total = 0;
		for (int s = 0; s <= t; s++) {
			p[s] = 0;
			for (int i = 0; i < m->head; i++) p[s] += q[h * m->head + i] * keys[s * kv_row + g + i];
			p[s] /= sqrt(m->head);
			best = fmax(best, p[s]);
		}
		for (int s = 0; s <= t; s++) total += p[s] = exp(p[s] - best);
		for (int i = 0; i < m->head; i++) {
			double v = 0;
			for (int s = 0; s <= t; s++) v += p[s] / total * values[s * kv_row + g + i];
			o[h * m->head + i] = v;
		}
	}
	free(p);
}

/* One layer of one position; k, v are the layer's caches. */
static void layer(
	const llm_ref *m, const llm_ref_layer *l, double *x, double *keys, double *values, int t)
{
	int qd = m->n_heads * m->head, kvd = m->n_kv * m->head;
	double a[256], q[256], o[256], y[256], gate[512], up[512], *k = keys + t * kvd,
															   *v = values + t * kvd;
	rmsnorm(a, x, l->attn_norm, m->hidden, m->eps);
	matvec(q, l->q, l->bq, a, qd, m->hidden);
	matvec(k, l->k, l->bk, a, kvd, m->hidden);
	matvec(v, l->v, l->bv, a, kvd, m->hidden);
	for (int h = 0; h < m->n_heads; h++) {
		if (l->q_norm) rmsnorm(q + h * m->head, q + h * m->head, l->q_norm, m->head, m->eps);
		rope(m, q + h * m->head, t);
	}
	for (int h = 0; h < m->n_kv; h++) {
		if (l->k_norm) rmsnorm(k + h * m->head, k + h * m->head, l->k_norm, m->head, m->eps);
		rope(m, k + h * m->head, t);
	}
	attend(m, q, keys, values, t, o);
	matvec(y, l->o, NULL, o, m->hidden, qd);
	for (int i = 0; i < m->hidden; i++) x[i] += y[i];
	rmsnorm(a, x, l->ffn_norm, m->hidden, m->eps);
	matvec(gate, l->gate, NULL, a, m->ffn, m->hidden);
	matvec(up, l->up, NULL, a, m->ffn, m->hidden);
	for (int i = 0; i < m->ffn; i++) gate[i] = gate[i] / (1 + exp(-gate[i])) * up[i];
	matvec(y, l->down, NULL, gate, m->hidden, m->ffn);
	for (int i = 0; i < m->hidden; i++) x[i] += y[i];
}

void llm_ref_forward(const llm_ref *m, const int32_t *ids, int n, double *logits)
{
	size_t per_layer = (size_t)n * (size_t)(m->n_kv * m->head);
	double *keys = calloc((size_t)m->n_layers * per_layer, sizeof *keys);
	double *values = calloc((size_t)m->n_layers * per_layer, sizeof *values);
	double x[256];
	for (int t = 0; t < n; t++) {
		for (int i = 0; i < m->hidden; i++) x[i] = m->embed[ids[t] * m->hidden + i];
		for (int i = 0; i < m->n_layers; i++)
			layer(m, &m->layer[i], x, keys + (size_t)i * per_layer, values + (size_t)i * per_layer,
				t);
		rmsnorm(x, x, m->norm, m->hidden, m->eps);
		matvec(logits + (size_t)t * (size_t)m->vocab, m->out ? m->out : m->embed, NULL, x, m->vocab,
			m->hidden);
	}
	free(keys);
	free(values);
}

/* ---- writing ---- */

typedef struct writer {
	cx_file_tensor t[160];
	char name[160][96];
	float *owned[64];
	size_t n, n_owned;
} writer;

static void put(writer *w, const char *name, const float *data, int64_t rows, int64_t cols)
{
	cx_file_tensor *t = &w->t[w->n];
	if (!data) return;
	snprintf(w->name[w->n], sizeof w->name[0], "%s", name);
	t->name = w->name[w->n++];
	t->dtype = CX_F32;
	t->rank = cols ? 2 : 1;
	t->dims[0] = rows;
	t->dims[1] = cols;
	t->data = (const unsigned char *)data;
	t->bytes = (uint64_t)(rows * (cols ? cols : 1)) * sizeof *data;
}

/* row_gguf[2j + s] = row_hf[s * head / 2 + j], inside each head. */
static const float *hf_rows(writer *w, const llm_ref *m, const float *rows, int n_heads)
{
	size_t row = (size_t)m->hidden, head = (size_t)m->head;
	float *out;
	if (!m->pairs) return rows;
	out = w->owned[w->n_owned++] = malloc((size_t)n_heads * head * row * sizeof *out);
	for (size_t h = 0; h < (size_t)n_heads; h++)
		for (size_t j = 0; j < head / 2; j++)
			for (size_t s = 0; s < 2; s++)
				memcpy(out + (h * head + s * head / 2 + j) * row,
					rows + (h * head + 2 * j + s) * row, row * sizeof *out);
	return out;
}

static void put_layer(writer *w, const llm_ref *m, int i)
{
	const llm_ref_layer *l = &m->layer[i];
	int64_t h = m->hidden, f = m->ffn, q = m->n_heads * m->head, k = m->n_kv * m->head;
	const struct {
		const char *name;
		const float *data;
		int64_t rows, cols;
	} all[] = {{"input_layernorm.weight", l->attn_norm, h, 0},
		{"self_attn.q_proj.weight", hf_rows(w, m, l->q, m->n_heads), q, h},
		{"self_attn.k_proj.weight", hf_rows(w, m, l->k, m->n_kv), k, h},
		{"self_attn.v_proj.weight", l->v, k, h}, {"self_attn.o_proj.weight", l->o, h, q},
		{"self_attn.q_proj.bias", l->bq, q, 0}, {"self_attn.k_proj.bias", l->bk, k, 0},
		{"self_attn.v_proj.bias", l->bv, k, 0}, {"self_attn.q_norm.weight", l->q_norm, m->head, 0},
		{"self_attn.k_norm.weight", l->k_norm, m->head, 0},
		{"post_attention_layernorm.weight", l->ffn_norm, h, 0},
		{"mlp.gate_proj.weight", l->gate, f, h}, {"mlp.up_proj.weight", l->up, f, h},
		{"mlp.down_proj.weight", l->down, h, f}};
	char name[96];
	for (size_t j = 0; j < sizeof all / sizeof *all; j++) {
		snprintf(name, sizeof name, "model.layers.%d.%s", i, all[j].name);
		put(w, name, all[j].data, all[j].rows, all[j].cols);
	}
}

static void write_shards(const writer *w, int n_shards, const char *dir)
{
	bytes index = {0};
	char path[1200], line[300];
	bytes_text(&index, "{\"metadata\": {\"total_size\": 0}, \"weight_map\": {");
	for (int s = 0; s < n_shards; s++) {
		cx_file_tensor part[160];
		cx_err err = {0};
		size_t n = 0;
		char file[64];
		if (n_shards > 1)
			snprintf(file, sizeof file, "model-%05d-of-%05d.safetensors", s + 1, n_shards);
		else snprintf(file, sizeof file, "model.safetensors");
		for (size_t i = 0; i < w->n; i++)
			if ((int)(i % (size_t)n_shards) == s) {
				snprintf(line, sizeof line, "%s\"%s\": \"%s\"",
					index.p[index.n - 1] == '{' ? "" : ", ", w->t[i].name, file);
				bytes_text(&index, line);
				part[n++] = w->t[i];
			}
		snprintf(path, sizeof path, "%s/%s", dir, file);
		if (cx_safetensors_write(NULL, path, part, n, NULL, 0, &err) != CX_OK) {
			fprintf(stderr, "%s\n", err.msg);
			exit(2);
		}
	}
	bytes_text(&index, "}}");
	snprintf(path, sizeof path, "%s/model.safetensors.index.json", dir);
	if (n_shards > 1) bytes_save(&index, path);
	bytes_free(&index);
}

void llm_ref_write_hf(
	const llm_ref *m, const char *arch, bool llama3, int n_shards, const char *dir)
{
	writer *w = calloc(1, sizeof *w);
	bytes config = {0};
	char text[1200], path[1200];
	put(w, "model.embed_tokens.weight", m->embed, m->vocab, m->hidden);
	for (int i = 0; i < m->n_layers; i++) put_layer(w, m, i);
	put(w, "model.norm.weight", m->norm, m->hidden, 0);
	put(w, "lm_head.weight", m->out, m->vocab, m->hidden);
	write_shards(w, n_shards, dir);
	snprintf(text, sizeof text,
		"{\"architectures\": [\"%s\"], \"hidden_size\": %d, \"intermediate_size\": %d, "
		"\"num_hidden_layers\": %d, "
		"\"num_attention_heads\": %d, \"num_key_value_heads\": %d, \"head_dim\": %d, "
		"\"vocab_size\": %d, "
		"\"max_position_embeddings\": %d, \"rms_norm_eps\": %g, \"rope_theta\": %g, "
		"\"hidden_act\": \"silu\", "
		"\"rope_scaling\": %s, \"tie_word_embeddings\": %s}",
		!strcmp(arch, "qwen2")   ? "Qwen2ForCausalLM"
		: !strcmp(arch, "qwen3") ? "Qwen3ForCausalLM"
								 : "LlamaForCausalLM",
		m->hidden, m->ffn, m->n_layers, m->n_heads, m->n_kv, m->head, m->vocab, m->context, m->eps,
		m->theta,
		llama3 ? "{\"rope_type\": \"llama3\", \"factor\": 8.0, \"low_freq_factor\": 1.0, "
				 "\"high_freq_factor\": 4.0, "
				 "\"original_max_position_embeddings\": 32}"
			   : "null",
		m->out ? "false" : "true");
	bytes_text(&config, text);
	snprintf(path, sizeof path, "%s/config.json", dir);
	bytes_save(&config, path);
	bytes_free(&config);
	for (size_t i = 0; i < w->n_owned; i++) free(w->owned[i]);
	free(w);
}
