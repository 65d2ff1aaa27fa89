/* train_config.c - see train_config.h. */
#include "models/decoder/train_config.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "models/files/safetensors.h"

#define INT(type, field, def, lo, hi, text)                                                        \
	{                                                                                              \
#field, CX_CONF_INT, offsetof(type, field), def, lo, hi, NULL, 0, text                     \
	}
#define REAL(type, field, def, lo, hi, text)                                                       \
	{                                                                                              \
#field, CX_CONF_REAL, offsetof(type, field), def, lo, hi, NULL, 0, text                    \
	}
#define BOOL(type, field, def, text)                                                               \
	{                                                                                              \
#field, CX_CONF_BOOL, offsetof(type, field), def, 0, 0, NULL, 0, text                      \
	}
#define WORD(type, field, def, list, text)                                                         \
	{                                                                                              \
#field, CX_CONF_WORD, offsetof(type, field), def, 0, 0, list, 0, text                      \
	}

static const cx_conf_key baseline_keys[] = {
	INT(cx_baseline_conf, width, "128", 1, 8192, "GRU: hidden units; Transformer: width"),
	INT(cx_baseline_conf, layers, "2", 1, 64, "layers"),
	INT(cx_baseline_conf, heads, "4", 1, 1024, "Transformer: heads"),
	INT(cx_baseline_conf, ff, "512", 1, 65536, "Transformer: hidden width of an MLP"),
	BOOL(cx_baseline_conf, bidirectional, "true", "GRU: both directions"),
	REAL(cx_baseline_conf, dropout, "0.1", 0, 0.99, "between layers, inside a Transformer's too"),
};
static const cx_conf_key data_keys[] = {
	{"path", CX_CONF_TEXT, offsetof(cx_data_conf, path), "", 0, 0, NULL,
		sizeof((cx_data_conf *)0)->path,
		"FILE.nwb, FILE.mat, a folder, or SPIKES.npy,KINEMATICS.npy; empty: [simulate]"},
	WORD(cx_data_conf, protocol, "continuous", "continuous trial nlb",
		"every bin in blocks of time; one window per trial; bins around movement onset"),
	REAL(cx_data_conf, bin_seconds, "0.05", 0.0001, 10, "of recordings in continuous time"),
	INT(cx_data_conf, window, "20", 1, 1024, "bins that the decoder sees"),
	INT(cx_data_conf, ahead, "0", 0, 1023, "of these, bins after the decoded one; 0 is causal"),
	INT(cx_data_conf, stride, "1", 1, 100000, "bins between decoded bins of the training part"),
	REAL(cx_data_conf, train, "0.7", 0.01, 1, "share of time to train on"),
	REAL(cx_data_conf, val, "0.1", 0, 0.9, "share after it that chooses `best`; the rest is test"),
	REAL(cx_data_conf, lag_seconds, "0.08", -10, 10, "nlb: movement is decoded that much later"),
	BOOL(cx_data_conf, heldout, "false", "also units that the file marks as held out"),
	BOOL(cx_data_conf, all_columns, "false", "decode every kinematic column, not velocity alone"),
};
static const cx_conf_key simulate_keys[] = {
	INT(cx_simulate_conf, seed, "1", 0, 9007199254740992.0, "of the session"),
	INT(cx_simulate_conf, units, "64", 1, 1000, "units"),
	REAL(cx_simulate_conf, seconds, "600", 1, 86400, "length of the session"),
};
#define RUN_INT(field, def, lo, hi, text) INT(cx_run_conf, field, def, lo, hi, text)
#define RUN_REAL(field, def, lo, hi, text) REAL(cx_run_conf, field, def, lo, hi, text)
static const cx_conf_key run_keys[] = {
	WORD(cx_run_conf, network, "cortex", "cortex gru transformer",
		"what is trained; [model] is cortex's, [baseline] that of the others"),
	RUN_INT(seed, "42", 0, 9007199254740992.0, "of first values, order, masks and dropout"),
	RUN_INT(steps, "50000", 1, 1000000000, "steps of the optimiser"),
	RUN_INT(warmup, "500", 0, 1000000000, "steps in which the rate rises; then half a cosine to 0"),
	RUN_INT(batch, "32", 1, 65536, "windows of a micro-batch"),
	RUN_INT(accumulate, "1", 1, 65536, "micro-batches of a step"),
	RUN_REAL(lr, "3e-4", 0, 100, "highest rate of AdamW"),
	RUN_REAL(weight_decay, "0.01", 0, 100, "decoupled, of matrices of linears alone"),
	RUN_REAL(beta1, "0.9", 0, 0.999999, "decay of the first moment"),
	RUN_REAL(beta2, "0.95", 0, 0.999999, "decay of the second moment"),
	RUN_REAL(eps, "1e-8", 1e-30, 1, "added to the root of the second moment"),
	RUN_REAL(init_scale, "1", 1e-6, 1e6,
		"cortex: tables, latents and query start with deviation 0.02 times it"),
	RUN_REAL(score_gain, "1", 1e-6, 1e6, "cortex: scores of the cross-attention start times it"),
	RUN_REAL(clip, "1", 0, 1e30, "global norm of the gradients; 0: not clipped"),
	RUN_REAL(drop_units, "0", 0, 0.99, "share of units that a window does not see"),
	RUN_REAL(drop_events, "0", 0, 0.99, "share of the other events that is dropped"),
	RUN_REAL(mask_fraction, "0.15", 0, 1, "share of events that are masked and asked for"),
	RUN_REAL(mask_weight, "0.1", 0, 1e6, "of the masked-spike loss; 0: that head is not trained"),
	RUN_INT(mask_queries, "32", 0, 65536, "masked and silent cells asked for, per window at most"),
	RUN_INT(log_every, "50", 1, 1000000000, "steps between rows of train.tsv"),
	RUN_INT(eval_every, "500", 1, 1000000000, "steps between scores of the val part"),
	RUN_INT(checkpoint_every, "2000", 1, 1000000000, "steps between checkpoints"),
	RUN_INT(patience, "0", 0, 1000000, "scores without a better one that end the run; 0: none do"),
};
#define COUNT(keys) (sizeof(keys) / sizeof *(keys))

void cx_train_sections(cx_train_config *c, cx_conf_section *out)
{
	out[0] = (cx_conf_section){"train", run_keys, COUNT(run_keys), &c->train};
	out[1] = (cx_conf_section){"data", data_keys, COUNT(data_keys), &c->data};
	out[2] = cx_cortex_conf_section(&c->model);
	out[3] = (cx_conf_section){"baseline", baseline_keys, COUNT(baseline_keys), &c->baseline};
	out[4] = (cx_conf_section){"simulate", simulate_keys, COUNT(simulate_keys), &c->simulate};
}

void cx_train_defaults(cx_train_config *c)
{
	cx_conf_section s[CX_TRAIN_SECTIONS];
	memset(c, 0, sizeof *c);
	cx_train_sections(c, s);
	cx_conf_defaults(s, CX_TRAIN_SECTIONS);
}

/* What differs from the defaults. Those of nano were chosen on simulated sessions (with two
 * blocks and 16 latents it learns faster than with three and 32), those of the
 * baselines are the library's of spec/decoder.md 4.7. */
static const struct {
	const char *name;
	const char *set[16];
} presets[] = {
	{"xs", {"model.size=xs"}},
	{"s", {"model.size=s"}},
	{"m", {"model.size=m"}},
	{"nano", {"model.size=nano", "model.num_layers=2", "model.num_latents=16", "data.window=10",
				 "train.steps=700", "train.warmup=50", "train.lr=3e-3", "train.init_scale=5",
				 "train.score_gain=12", "train.mask_weight=0.02", "train.mask_queries=8",
				 "train.eval_every=100", "train.checkpoint_every=100"}},
	{"gru", {"train.network=gru", "train.steps=2000", "train.warmup=100", "train.lr=1e-3",
				"train.beta2=0.999", "train.eval_every=250", "train.checkpoint_every=250"}},
	{"transformer", {"train.network=transformer", "baseline.layers=4", "train.steps=2000",
						"train.warmup=100", "train.lr=1e-3", "train.beta2=0.999",
						"train.eval_every=250", "train.checkpoint_every=250"}},
};

cx_status cx_train_preset(cx_train_config *c, const char *name, cx_err *err)
{
	cx_conf_section s[CX_TRAIN_SECTIONS];
	cx_status st = CX_OK;
	cx_train_defaults(c);
	cx_train_sections(c, s);
	for (size_t i = 0; i < COUNT(presets); i++) {
		if (strcmp(presets[i].name, name) != 0) continue;
		for (size_t k = 0; k < 16 && presets[i].set[k] && st == CX_OK; k++)
			st = cx_conf_set(s, CX_TRAIN_SECTIONS, presets[i].set[k], err);
		return st;
	}
	return CX_FAIL(
		err, CX_ERR_ARGUMENT, "there is no model '%.40s' (xs, s, m, nano, gru, transformer)", name);
}

/* ---- resolved ---- */

cx_train_opts cx_train_config_opts(const cx_train_config *c)
{
	const cx_run_conf *r = &c->train;
	return (cx_train_opts){.seed = (uint64_t)r->seed,
		.steps = r->steps,
		.warmup = r->warmup,
		.batch = r->batch,
		.accumulate = r->accumulate,
		.lr = r->lr,
		.weight_decay = r->weight_decay,
		.beta1 = r->beta1,
		.beta2 = r->beta2,
		.eps = r->eps,
		.init_scale = r->init_scale,
		.score_gain = r->score_gain,
		.clip = r->clip,
		.drop_units = r->drop_units,
		.drop_events = r->drop_events,
		.mask_fraction = r->mask_fraction,
		.mask_weight = r->mask_weight,
		.mask_queries = r->mask_queries};
}

cx_status cx_train_config_data(const cx_train_config *c, cx_dataset_opts *out, cx_err *err)
{
	const cx_data_conf *d = &c->data;
	cx_cortex_config m;
	cx_status st;
	*out = cx_dataset_default();
	out->protocol = (cx_protocol)d->protocol;
	out->bin_seconds = d->bin_seconds;
	out->window = (uint32_t)d->window;
	out->ahead = (uint32_t)d->ahead;
	out->stride = (uint32_t)d->stride;
	out->train = d->train;
	out->val = d->val;
	out->lag_seconds = d->protocol == CX_PROTOCOL_NLB ? d->lag_seconds : 0;
	out->heldout = d->heldout;
	out->all_columns = d->all_columns;
	if (c->train.network != CX_NET_CORTEX) return CX_OK;
	if ((st = cx_cortex_conf_resolve(&c->model, &m, err)) != CX_OK) return st;
	out->max_neurons = (uint32_t)m.max_neurons;
	out->buckets = m.spike_value_buckets > 256 ? 256 : (uint32_t)m.spike_value_buckets;
	return CX_OK;
}

static cx_status add_simulated(
	const cx_train_config *c, const cx_alloc *alloc, cx_dataset *d, cx_err *err)
{
	cx_simulate_opts o = cx_simulate_default();
	cx_session s;
	cx_status st;
	o.seed = (uint64_t)c->simulate.seed;
	o.n_units = (size_t)c->simulate.units;
	o.seconds = c->simulate.seconds;
	o.bin_seconds = c->data.bin_seconds;
	o.window = (size_t)c->data.window;
	if ((st = cx_simulate(&o, alloc, NULL, NULL, &s, err)) != CX_OK) return st;
	return cx_dataset_add_session(d, &s, err);
}

cx_status cx_train_config_open(
	const cx_train_config *c, const cx_alloc *alloc, cx_dataset **out, cx_err *err)
{
	cx_dataset_opts o;
	cx_dataset *d = NULL;
	cx_status st;
	*out = NULL;
	if ((st = cx_train_config_data(c, &o, err)) != CX_OK) return st;
	if ((st = cx_dataset_create(&o, alloc, &d, err)) == CX_OK)
		st = c->data.path[0] ? cx_dataset_add_path(d, c->data.path, err)
							 : add_simulated(c, alloc, d, err);
	if (st == CX_OK) st = cx_dataset_finish(d, err);
	if (st == CX_OK) *out = d;
	else cx_dataset_free(d);
	return st;
}

cx_status cx_train_config_net(
	const cx_train_config *c, const cx_dataset_info *info, cx_net_config *out, cx_err *err)
{
	const cx_baseline_conf *b = &c->baseline;
	cx_status st;
	memset(out, 0, sizeof *out);
	out->kind = (cx_net_kind)c->train.network;
	if (out->kind == CX_NET_CORTEX) {
		if ((st = cx_cortex_conf_resolve(&c->model, &out->cortex, err)) != CX_OK) return st;
		if (!c->model.given.behavior_dim) out->cortex.behavior_dim = info->behavior_dim;
		return cx_net_check(out, err);
	}
	out->dense = (cx_dense_config){.transformer = out->kind == CX_NET_TRANSFORMER,
		.n_units = info->n_units,
		.window = info->window,
		.width = b->width,
		.layers = b->layers,
		.heads = b->heads,
		.ff = b->ff,
		.bidirectional = b->bidirectional,
		.dropout = b->dropout,
		.behavior_dim = info->behavior_dim};
	return cx_net_check(out, err);
}

/* ---- metadata ---- */

static char *numbers(cx_arena *a, const double *v, uint32_t n)
{
	char text[CX_MAX_BEHAVIOR * 32];
	size_t at = 0;
	text[0] = 0;
	for (uint32_t i = 0; i < n && at < sizeof text; i++)
		at += (size_t)snprintf(text + at, sizeof text - at, "%s%.17g", i ? " " : "", v[i]);
	return cx_arena_strdup(a, text);
}

cx_status cx_train_meta_make(const cx_train_config *c, const cx_dataset_info *info, cx_arena *arena,
	cx_safetensors_meta_pair *out, cx_err *err)
{
	cx_train_config copy = *c;
	cx_conf_section s[CX_TRAIN_SECTIONS];
	char *text = NULL, *config, *mean, *sd, *units, *columns, line[CX_MAX_BEHAVIOR * 17 + 1] = "";
	size_t bytes = 0;
	cx_status st;
	cx_train_sections(&copy, s);
	if ((st = cx_conf_print(s, CX_TRAIN_SECTIONS, NULL, &text, &bytes, err)) != CX_OK) return st;
	config = cx_arena_strdup(arena, text);
	cx_free(NULL, text, bytes + 1);
	for (uint32_t i = 0; i < info->behavior_dim; i++) {
		if (i) strcat(line, " ");
		strcat(line, info->name[i]);
	}
	columns = cx_arena_strdup(arena, line);
	snprintf(line, sizeof line, "%u", info->n_units);
	units = cx_arena_strdup(arena, line);
	mean = numbers(arena, info->mean, info->behavior_dim);
	sd = numbers(arena, info->sd, info->behavior_dim);
	if (!config || !columns || !units || !mean || !sd)
		return CX_FAIL(err, CX_ERR_MEMORY, "training: out of memory");
	out[0] = (cx_safetensors_meta_pair){"config", config};
	out[1] = (cx_safetensors_meta_pair){"z_mean", mean};
	out[2] = (cx_safetensors_meta_pair){"z_sd", sd};
	out[3] = (cx_safetensors_meta_pair){"n_units", units};
	out[4] = (cx_safetensors_meta_pair){"columns", columns};
	return CX_OK;
}

static cx_status need(const cx_safetensors *f, const char *key, const char **out, cx_err *err)
{
	*out = cx_safetensors_meta(f, key);
	if (*out) return CX_OK;
	return CX_FAIL(err, CX_ERR_FORMAT,
		"%s has no '%s' in its metadata: `cortex decoder train` did not write it",
		cx_safetensors_label(f), key);
}

/* Returns how many numbers there are; 0 if one is none. */
static uint32_t read_numbers(const char *text, double *v)
{
	uint32_t n = 0;
	while (*text) {
		char *end;
		if (n == CX_MAX_BEHAVIOR) return 0;
		v[n] = strtod(text, &end);
		if (end == text || !isfinite(v[n])) return 0;
		n++;
		for (text = end; *text == ' '; text++) continue;
	}
	return n;
}

static cx_status read_config(const cx_safetensors *f, const cx_alloc *alloc, const char *text,
	cx_train_config *c, cx_err *err)
{
	cx_conf_section s[CX_TRAIN_SECTIONS];
	cx_file_map *map;
	cx_status st;
	cx_train_defaults(c);
	cx_train_sections(c, s);
	st = cx_file_map_copy(alloc, cx_safetensors_label(f), text, strlen(text), &map, err);
	if (st != CX_OK) return st;
	st = cx_conf_parse(map, s, CX_TRAIN_SECTIONS, err);
	cx_file_map_close(map);
	return st;
}

cx_status cx_train_meta_read(
	const char *path, const cx_alloc *alloc, cx_train_meta *out, cx_err *err)
{
	const char *config, *mean, *sd, *units;
	cx_safetensors *f;
	cx_status st = cx_safetensors_open(alloc, path, &f, err);
	if (st != CX_OK) return st;
	memset(out, 0, sizeof *out);
	if ((st = need(f, "config", &config, err)) == CX_OK &&
		(st = need(f, "z_mean", &mean, err)) == CX_OK &&
		(st = need(f, "z_sd", &sd, err)) == CX_OK &&
		(st = need(f, "n_units", &units, err)) == CX_OK &&
		(st = read_config(f, alloc, config, &out->config, err)) == CX_OK) {
		out->behavior_dim = read_numbers(mean, out->mean);
		out->n_units = (uint32_t)strtoul(units, NULL, 10);
		if (out->behavior_dim == 0 || read_numbers(sd, out->sd) != out->behavior_dim ||
			out->n_units == 0)
			st = CX_FAIL(err, CX_ERR_FORMAT,
				"%s: z_mean, z_sd or n_units of its metadata is damaged", cx_safetensors_label(f));
	}
	cx_safetensors_close(f);
	return st;
}
