/* params.c - the parameters of a Cortex decoder: the state dict of spec/decoder.md 1.11, its first
 * values, its input, its cost. See cortex.h.
 *
 * The table below is the state dict in its order. Letters stand for sizes: D width, M hidden width
 * of an MLP, V neurons, T time bins, K value buckets, L latents, b outputs, o one; a digit
 * multiplies. */
#include "graph/philox.h"
#include "models/decoder/cortex.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct row {
	const char *name, *dims; /* "VD": [V, D] */
	cx_cortex_init init;
	char when; /* 'l' LayerNorm only, 's' with the masked-spike head */
	bool linear;
} row;

#define LINEAR CX_CORTEX_UNIFORM, 0, true
#define NORM(at)                                                                                   \
	{at ".weight", "D", CX_CORTEX_ONES, 0, false},                                                 \
	{                                                                                              \
		at ".bias", "D", CX_CORTEX_ZEROS, 'l', false                                               \
	}

static const row head_rows[] = {
	{"tokenizer.neuron_emb.weight", "VD", CX_CORTEX_NORMAL, 0, false},
	{"tokenizer.time_emb.weight", "TD", CX_CORTEX_NORMAL, 0, false},
	{"tokenizer.value_emb.weight", "KD", CX_CORTEX_NORMAL, 0, false},
	{"encoder.latents", "LD", CX_CORTEX_NORMAL, 0, false},
	{"encoder.cross_attn.q_proj.weight", "DD", LINEAR},
	{"encoder.cross_attn.kv_proj.weight", "2DD", LINEAR},
	{"encoder.cross_attn.out_proj.weight", "DD", LINEAR},
	NORM("encoder.cross_attn.norm_q"),
	NORM("encoder.cross_attn.norm_kv"),
};
/* Behind "encoder.self_attn_blocks.<i>.". */
static const row block_rows[] = {
	{"qkv_proj.weight", "3DD", LINEAR},
	{"out_proj.weight", "DD", LINEAR},
	NORM("norm_attn"),
	NORM("norm_mlp"),
	{"mlp.0.weight", "MD", LINEAR},
	{"mlp.2.weight", "DM", LINEAR},
};
static const row tail_rows[] = {
	NORM("encoder.final_norm"),
	{"behavior_head.query", "bD", CX_CORTEX_NORMAL, 0, false},
	{"behavior_head.q_proj.weight", "DD", LINEAR},
	{"behavior_head.kv_proj.weight", "2DD", LINEAR},
	{"behavior_head.out_proj.weight", "oD", LINEAR},
	NORM("behavior_head.norm"),
	{"masked_spike_head.proj.weight", "KD", CX_CORTEX_UNIFORM, 's', true},
	{"masked_spike_head.proj.bias", "K", CX_CORTEX_UNIFORM, 's', false},
};
#define COUNT(rows) (sizeof(rows) / sizeof *(rows))

static bool there(const cx_cortex_config *c, const row *r)
{
	if (r->when == 'l') return c->norm == CX_CORTEX_LAYERNORM;
	return r->when != 's' || c->use_masked_spike_head;
}

static size_t count(const cx_cortex_config *c, const row *rows, size_t n)
{
	size_t k = 0;
	for (size_t i = 0; i < n; i++) k += there(c, &rows[i]);
	return k;
}

/* Number `index` of those that are there. */
static const row *pick(const cx_cortex_config *c, const row *rows, size_t n, size_t index)
{
	for (size_t i = 0; i < n; i++)
		if (there(c, &rows[i]) && index-- == 0) return &rows[i];
	return NULL;
}

size_t cx_cortex_n_params(const cx_cortex_config *c)
{
	return count(c, head_rows, COUNT(head_rows)) +
		   (size_t)c->num_layers * count(c, block_rows, COUNT(block_rows)) +
		   count(c, tail_rows, COUNT(tail_rows));
}

/* Position among those that are there, or n. */
static size_t place(const cx_cortex_config *c, const row *rows, size_t n, const char *name)
{
	size_t at = 0;
	for (size_t i = 0; i < n; i++) {
		if (!there(c, &rows[i])) continue;
		if (strcmp(rows[i].name, name) == 0) return at;
		at++;
	}
	return n;
}

size_t cx__cortex_param_index(const cx_cortex_config *c, int64_t block, const char *name)
{
	size_t n_head = count(c, head_rows, COUNT(head_rows));
	size_t n_block = count(c, block_rows, COUNT(block_rows)), at;
	if (block >= 0) {
		at = place(c, block_rows, COUNT(block_rows), name);
		CX_ASSERT(at < n_block);
		return n_head + n_block * (size_t)block + at;
	}
	at = place(c, head_rows, COUNT(head_rows), name);
	if (at < n_head) return at;
	at = place(c, tail_rows, COUNT(tail_rows), name);
	CX_ASSERT(at < COUNT(tail_rows));
	return n_head + n_block * (size_t)c->num_layers + at;
}

static int64_t letter(const cx_cortex_config *c, char l)
{
	switch (l) {
	case 'D':
		return c->latent_dim;
	case 'M':
		return cx_cortex_mlp_hidden(c);
	case 'V':
		return c->max_neurons;
	case 'T':
		return c->max_time_bins;
	case 'K':
		return c->spike_value_buckets;
	case 'L':
		return c->num_latents;
	case 'o':
		return 1;
	default:
		return c->behavior_dim;
	}
}

void cx_cortex_param_get(const cx_cortex_config *c, size_t index, cx_cortex_param *p)
{
	size_t n_head = count(c, head_rows, COUNT(head_rows));
	size_t n_block = count(c, block_rows, COUNT(block_rows)), n_blocks;
	const row *r;
	n_blocks = n_block * (size_t)c->num_layers;
	memset(p, 0, sizeof *p);
	if (index < n_head) {
		r = pick(c, head_rows, COUNT(head_rows), index);
	} else if (index < n_head + n_blocks) {
		index -= n_head;
		r = pick(c, block_rows, COUNT(block_rows), index % n_block);
		snprintf(p->name, sizeof p->name, "encoder.self_attn_blocks.%zu.", index / n_block);
	} else {
		r = pick(c, tail_rows, COUNT(tail_rows), index - n_head - n_blocks);
	}
	CX_ASSERT(r && strlen(p->name) + strlen(r->name) < sizeof p->name);
	strcat(p->name, r->name);
	p->init = r->init;
	p->linear = r->linear;
	for (const char *d = r->dims; *d; d++) {
		int64_t factor = *d >= '1' && *d <= '9' ? *d++ - '0' : 1;
		p->dim[p->rank++] = factor * letter(c, *d);
	}
	p->fan_in = p->rank == 2 ? p->dim[1] : c->latent_dim; /* a bias starts like its matrix */
}

uint64_t cx_cortex_param_elems(const cx_cortex_param *p)
{
	uint64_t n = 1;
	for (int32_t i = 0; i < p->rank; i++) n *= (uint64_t)p->dim[i];
	return n;
}

uint64_t cx_cortex_n_elems(const cx_cortex_config *c)
{
	uint64_t n = 0;
	for (size_t i = 0; i < cx_cortex_n_params(c); i++) {
		cx_cortex_param p;
		cx_cortex_param_get(c, i, &p);
		n += cx_cortex_param_elems(&p);
	}
	return n;
}

/* ---- first values ---- */

/* (0, 1), 32 bits, never an end. */
static double unit(uint32_t u)
{
	return ((double)u + 0.5) * 0x1p-32;
}

void cx_cortex_param_init(const cx_cortex_param *p, uint64_t seed, float *out)
{
	const double pi = 3.14159265358979323846;
	uint64_t n = cx_cortex_param_elems(p), name = 14695981039346656037u; /* FNV-1a of the name */
	double bound = 1 / sqrt((double)p->fan_in);
	for (const char *s = p->name; *s; s++) name = (name ^ (unsigned char)*s) * 1099511628211u;
	for (uint64_t i = 0; i < n; i += 2) { /* two values of a block of four words */
		uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)}, w[4];
		uint32_t at[4] = {
			(uint32_t)(i / 2), (uint32_t)(i / 2 >> 32), (uint32_t)name, (uint32_t)(name >> 32)};
		double v[2] = {0, 0};
		cx__philox(at, key, w);
		switch (p->init) {
		case CX_CORTEX_NORMAL: { /* Box and Muller 1958 */
			double r = 0.02 * sqrt(-2 * log(unit(w[0])));
			v[0] = r * cos(2 * pi * unit(w[1]));
			v[1] = r * sin(2 * pi * unit(w[1]));
			break;
		}
		case CX_CORTEX_UNIFORM:
			v[0] = bound * (2 * unit(w[0]) - 1);
			v[1] = bound * (2 * unit(w[1]) - 1);
			break;
		case CX_CORTEX_ONES:
			v[0] = v[1] = 1;
			break;
		case CX_CORTEX_ZEROS:
			break;
		}
		out[i] = (float)v[0];
		if (i + 1 < n) out[i + 1] = (float)v[1];
	}
}

/* ---- input ---- */

cx_status cx_cortex_check_events(const cx_cortex_config *c, const int32_t *off, int64_t n_windows,
	const int32_t *neuron, const int32_t *time, const int32_t *value, int64_t n_events_max,
	cx_err *err)
{
	const struct {
		const char *name;
		const int32_t *v;
		int64_t n;
	} f[] = {{"neuron", neuron, c->max_neurons}, {"time", time, c->max_time_bins},
		{"value", value, c->spike_value_buckets}};
	if (off[0] != 0)
		return CX_FAIL(
			err, CX_ERR_ARGUMENT, "events: the first window begins at %d, not at 0", (int)off[0]);
	for (int64_t w = 0; w < n_windows; w++) {
		if (off[w + 1] < off[w] || off[w + 1] > n_events_max)
			return CX_FAIL(err, CX_ERR_ARGUMENT,
				"events: window %lld ends at %d, must be in %d..%lld", (long long)w,
				(int)off[w + 1], (int)off[w], (long long)n_events_max);
		for (int k = 0; k < 3; k++)
			for (int32_t i = off[w]; f[k].v && i < off[w + 1]; i++)
				if (f[k].v[i] < 0 || f[k].v[i] >= f[k].n)
					return CX_FAIL(err, CX_ERR_ARGUMENT,
						"events: window %lld, event %d: %s is %d, must be in 0..%lld", (long long)w,
						(int)(i - off[w]), f[k].name, (int)f[k].v[i], (long long)f[k].n - 1);
	}
	return CX_OK;
}

/* ---- cost ---- */

cx_cortex_flops cx_cortex_count_flops(const cx_cortex_config *c, int64_t n_events)
{
	double d = (double)c->latent_dim, l = (double)c->num_latents, e = (double)n_events;
	double n = (double)c->num_layers, b = (double)c->behavior_dim;
	double mlp = (double)cx_cortex_mlp_hidden(c);
	cx_cortex_flops f = {.cross_q = 2 * l * d * d,
		.cross_kv = 2 * e * d * 2 * d,
		.cross_core = 2 * 2 * l * e * d,
		.cross_out = 2 * l * d * d,
		.self_linear = n * 2 * l * (4 * d * d + 2 * d * mlp),
		.self_core = n * 2 * 2 * l * l * d,
		.behavior = 2 * (b * d * d + l * d * 2 * d + 2 * b * l * d + b * d)};
	f.total = f.cross_q + f.cross_kv + f.cross_core + f.cross_out + f.self_linear + f.self_core +
			  f.behavior;
	return f;
}
