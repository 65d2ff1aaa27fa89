/* train_config.h - what a training run is: sections [model] [baseline] [data] [simulate] [train] of
 * a configuration file, each key with a default.
 *
 * The text of a resolved configuration travels in the metadata of every file that a run writes
 * (key "config"), with what the data was: "z_mean" and "z_sd" (numbers with blanks between),
 * "n_units", "columns". So weights can be decoded with, and scored, without anything else. */
#ifndef CX_DECODER_TRAIN_CONFIG_H
#define CX_DECODER_TRAIN_CONFIG_H

#include "models/decoder/dataset.h"
#include "models/decoder/simulate.h"
#include "models/decoder/trainer.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct cx_baseline_conf {
	int64_t width, layers, heads, ff;
	bool bidirectional;
	double dropout;
} cx_baseline_conf;

typedef struct cx_data_conf {
	char path[1024];
	int protocol;
	double bin_seconds, train, val, lag_seconds;
	int64_t window, ahead, stride;
	bool heldout, all_columns;
} cx_data_conf;

typedef struct cx_simulate_conf {
	int64_t seed, units;
	double seconds;
} cx_simulate_conf;

typedef struct cx_run_conf {
	int network;
	int64_t seed, steps, warmup, batch, accumulate, mask_queries;
	double lr, weight_decay, beta1, beta2, eps, clip, drop_units, drop_events, mask_fraction,
		mask_weight, init_scale, score_gain;
	int64_t log_every, eval_every, checkpoint_every, patience;
} cx_run_conf;

typedef struct cx_train_config {
	cx_cortex_conf model;
	cx_baseline_conf baseline;
	cx_data_conf data;
	cx_simulate_conf simulate;
	cx_run_conf train;
} cx_train_config;

enum { CX_TRAIN_SECTIONS = 5 };
/* The table of sections with `to` inside c: for conf.h. */
CX_API void cx_train_sections(cx_train_config *c, cx_conf_section *out);
/* All defaults, then the assignments of a preset: xs s m nano gru transformer. */
CX_API cx_status cx_train_preset(cx_train_config *c, const char *name, cx_err *err);
CX_API void cx_train_defaults(cx_train_config *c);

CX_API cx_train_opts cx_train_config_opts(const cx_train_config *c);
/* max_neurons and buckets are the model's. */
CX_API cx_status cx_train_config_data(const cx_train_config *c, cx_dataset_opts *out, cx_err *err);
/* Opens what [data] path names, or simulates a session where it is empty; finished. */
CX_API cx_status cx_train_config_open(
	const cx_train_config *c, const cx_alloc *alloc, cx_dataset **out, cx_err *err);
CX_API cx_status cx_train_config_net(
	const cx_train_config *c, const cx_dataset_info *info, cx_net_config *out, cx_err *err);

/* What a file of weights says about itself. */
typedef struct cx_train_meta {
	cx_train_config config;
	uint32_t n_units, behavior_dim;
	double mean[CX_MAX_BEHAVIOR], sd[CX_MAX_BEHAVIOR];
} cx_train_meta;
/* Reads the metadata of a safetensors file that a run wrote. FORMAT names what is missing. */
CX_API cx_status cx_train_meta_read(
	const char *path, const cx_alloc *alloc, cx_train_meta *out, cx_err *err);
/* The pairs as they are written; texts in arena. */
enum { CX_TRAIN_META = 5 };
CX_API cx_status cx_train_meta_make(const cx_train_config *c, const cx_dataset_info *info,
	cx_arena *arena, cx_safetensors_meta_pair *out, cx_err *err);

#ifdef __cplusplus
}
#endif
#endif
