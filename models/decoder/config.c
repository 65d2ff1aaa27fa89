/* config.c - see config.h. */
#include "models/decoder/config.h"

#include <stddef.h>
#include <string.h>

/* ---- sizes ---- */

#define SIZE(d, n, h, dh, l, v, t)                                                                 \
	{                                                                                              \
		.hidden_dim = d, .num_layers = n, .num_heads = h, .head_dim = dh, .mlp_ratio = 4.0,        \
		.num_latents = l, .latent_dim = d, .cross_attn_heads = h, .max_neurons = v,                \
		.max_time_bins = t, .spike_value_buckets = 8, .behavior_dim = 2,                           \
		.use_masked_spike_head = true                                                              \
	}
static const cx_cortex_config sizes[CX_CORTEX_N_SIZES] = {
	[CX_CORTEX_XS] = SIZE(256, 5, 4, 64, 128, 512, 1024),
	[CX_CORTEX_S] = SIZE(512, 7, 8, 64, 256, 512, 1024),
	[CX_CORTEX_M] = SIZE(768, 11, 12, 64, 384, 512, 1024),
	[CX_CORTEX_NANO] = SIZE(64, 3, 4, 16, 32, 256, 128),
};
static const char *const size_names[CX_CORTEX_N_SIZES] = {
	[CX_CORTEX_XS] = "xs", [CX_CORTEX_S] = "s", [CX_CORTEX_M] = "m", [CX_CORTEX_NANO] = "nano"};

cx_cortex_config cx_cortex_config_size(cx_cortex_size size)
{
	CX_ASSERT((unsigned)size < CX_CORTEX_N_SIZES);
	return sizes[size];
}

const char *cx_cortex_size_name(cx_cortex_size size)
{
	CX_ASSERT((unsigned)size < CX_CORTEX_N_SIZES);
	return size_names[size];
}

bool cx_cortex_size_parse(const char *name, cx_cortex_size *out)
{
	for (int i = 0; i < CX_CORTEX_N_SIZES; i++)
		if (strcmp(name, size_names[i]) == 0) {
			*out = (cx_cortex_size)i;
			return true;
		}
	return false;
}

const char *cx_cortex_config_name(const cx_cortex_config *c)
{
	for (int i = 0; i < CX_CORTEX_N_SIZES; i++) {
		const cx_cortex_config *s = &sizes[i];
		if (c->hidden_dim == s->hidden_dim && c->num_layers == s->num_layers &&
			c->num_heads == s->num_heads && c->num_latents == s->num_latents &&
			c->cross_attn_heads == s->cross_attn_heads && c->max_neurons == s->max_neurons &&
			c->max_time_bins == s->max_time_bins &&
			c->spike_value_buckets == s->spike_value_buckets &&
			cx_cortex_mlp_hidden(c) == cx_cortex_mlp_hidden(s))
			return size_names[i];
	}
	return "custom";
}

int64_t cx_cortex_mlp_hidden(const cx_cortex_config *c)
{
	return (int64_t)((double)c->latent_dim * c->mlp_ratio);
}

/* ---- check ---- */

cx_status cx_cortex_config_check(const cx_cortex_config *c, cx_err *err)
{
	const struct {
		const char *name;
		int64_t value, max;
	} f[] = {{"hidden_dim", c->hidden_dim, 16384},
		{"num_layers", c->num_layers, CX_CORTEX_MAX_LAYERS}, {"num_heads", c->num_heads, 1024},
		{"head_dim", c->head_dim, 16384}, {"num_latents", c->num_latents, 65536},
		{"latent_dim", c->latent_dim, 16384}, {"cross_attn_heads", c->cross_attn_heads, 1024},
		{"max_neurons", c->max_neurons, 1 << 24}, {"max_time_bins", c->max_time_bins, 1 << 24},
		{"spike_value_buckets", c->spike_value_buckets, 65536},
		{"behavior_dim", c->behavior_dim, 4096}};
	for (size_t i = 0; i < sizeof f / sizeof *f; i++)
		if (f[i].value < 1 || f[i].value > f[i].max)
			return CX_FAIL(err, CX_ERR_ARGUMENT, "model: %s is %lld, must be in 1..%lld", f[i].name,
				(long long)f[i].value, (long long)f[i].max);
	if (c->hidden_dim % c->num_heads != 0)
		return CX_FAIL(err, CX_ERR_ARGUMENT,
			"model: num_heads %lld does not divide hidden_dim %lld", (long long)c->num_heads,
			(long long)c->hidden_dim);
	if (c->num_heads * c->head_dim != c->hidden_dim)
		return CX_FAIL(err, CX_ERR_ARGUMENT,
			"model: num_heads * head_dim is %lld * %lld, must equal hidden_dim %lld",
			(long long)c->num_heads, (long long)c->head_dim, (long long)c->hidden_dim);
	if (c->latent_dim != c->hidden_dim)
		return CX_FAIL(err, CX_ERR_ARGUMENT,
			"model: latent_dim %lld must equal hidden_dim %lld, which the heads split",
			(long long)c->latent_dim, (long long)c->hidden_dim);
	if (c->latent_dim % c->cross_attn_heads != 0)
		return CX_FAIL(err, CX_ERR_ARGUMENT,
			"model: cross_attn_heads %lld does not divide latent_dim %lld",
			(long long)c->cross_attn_heads, (long long)c->latent_dim);
	if (!(c->mlp_ratio > 0 && c->mlp_ratio <= 64) || cx_cortex_mlp_hidden(c) < 1)
		return CX_FAIL(err, CX_ERR_ARGUMENT,
			"model: mlp_ratio is %g, must be positive, at most 64, and give a width", c->mlp_ratio);
	if (!(c->dropout >= 0 && c->dropout < 1))
		return CX_FAIL(err, CX_ERR_ARGUMENT, "model: dropout is %g, must be in [0,1)", c->dropout);
	if (c->norm != CX_CORTEX_LAYERNORM && c->norm != CX_CORTEX_RMSNORM)
		return CX_FAIL(err, CX_ERR_ARGUMENT, "model: norm is %d, there is no such norm", c->norm);
	return CX_OK;
}

/* ---- the section ---- */

#define AT(field) offsetof(cx_cortex_conf, given.field)
#define INT(field, max, text)                                                                      \
	{                                                                                              \
#field, CX_CONF_INT, AT(field), "0", 0, max, NULL, 0, text " (0: as the size says)"        \
	}
const cx_conf_key cx_cortex_conf_keys[] = {
	{"size", CX_CONF_WORD, offsetof(cx_cortex_conf, size), "xs", 0, 0, "xs s m nano", 0,
		"4.8, 24.8, 83.5 or 0.2 million parameters"},
	INT(hidden_dim, 16384, "width of tokens and latents"),
	INT(num_layers, CX_CORTEX_MAX_LAYERS, "self-attention blocks"),
	INT(num_heads, 1024, "heads of self-attention and of the behaviour head"),
	INT(head_dim, 16384, "width of a head; num_heads * head_dim must equal hidden_dim"),
	{"mlp_ratio", CX_CONF_REAL, AT(mlp_ratio), "0", 0, 64, NULL, 0,
		"hidden width of an MLP over latent_dim (0: as the size says, 4)"},
	{"dropout", CX_CONF_REAL, AT(dropout), "0", 0, 0.99, NULL, 0,
		"training: share of what a sublayer adds to the latents that is dropped"},
	INT(num_latents, 65536, "latent vectors"),
	INT(latent_dim, 16384, "width of a latent; equal to hidden_dim"),
	INT(cross_attn_heads, 1024, "heads of the cross-attention from latents to events"),
	INT(max_neurons, 16777216, "neuron ids are below it"),
	INT(max_time_bins, 16777216, "time bins of a window are below it"),
	INT(spike_value_buckets, 65536, "spike counts are clipped below it"),
	INT(behavior_dim, 4096, "outputs; 2 is x and y of hand velocity"),
	{"use_masked_spike_head", CX_CONF_BOOL, AT(use_masked_spike_head), "true", 0, 0, NULL, 0,
		"a second head that predicts dropped events"},
	{"norm", CX_CONF_WORD, offsetof(cx_cortex_conf, norm), "layernorm", 0, 0, "layernorm rmsnorm",
		0, "norm before each sublayer"},
};
const size_t cx_cortex_conf_n_keys = sizeof cx_cortex_conf_keys / sizeof *cx_cortex_conf_keys;

cx_conf_section cx_cortex_conf_section(cx_cortex_conf *to)
{
	return (cx_conf_section){"model", cx_cortex_conf_keys, cx_cortex_conf_n_keys, to};
}

cx_status cx_cortex_conf_resolve(const cx_cortex_conf *conf, cx_cortex_config *out, cx_err *err)
{
	const cx_cortex_config *g = &conf->given;
	cx_cortex_config c = cx_cortex_config_size((cx_cortex_size)conf->size);
#define TAKE(field)                                                                                \
	if (g->field != 0) c.field = g->field
	TAKE(hidden_dim);
	TAKE(num_layers);
	TAKE(num_heads);
	TAKE(head_dim);
	TAKE(mlp_ratio);
	TAKE(dropout);
	TAKE(num_latents);
	TAKE(cross_attn_heads);
	TAKE(max_neurons);
	TAKE(max_time_bins);
	TAKE(spike_value_buckets);
	TAKE(behavior_dim);
#undef TAKE
	/* follows a hidden_dim that was given, unless it was given too */
	c.latent_dim = g->latent_dim ? g->latent_dim : c.hidden_dim;
	c.use_masked_spike_head = g->use_masked_spike_head;
	c.norm = (cx_cortex_norm)conf->norm;
	*out = c;
	return cx_cortex_config_check(out, err);
}

cx_status cx_cortex_config_read(
	const cx_alloc *a, const char *path, cx_cortex_config *out, cx_err *err)
{
	cx_cortex_conf conf;
	cx_conf_section s[] = {cx_cortex_conf_section(&conf), {"data", NULL, 0, NULL},
		{"train", NULL, 0, NULL}, {"simulate", NULL, 0, NULL}, {"baseline", NULL, 0, NULL}};
	cx_status st;
	memset(&conf, 0, sizeof conf);
	cx_conf_defaults(s, 1);
	if ((st = cx_conf_read(a, path, s, sizeof s / sizeof *s, err)) != CX_OK) return st;
	return cx_cortex_conf_resolve(&conf, out, err);
}
