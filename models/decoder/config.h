/* config.h - the geometry of a Cortex decoder (spec/decoder.md 1.1, 1.2) and its section of a
 * configuration file. */
#ifndef CX_DECODER_CONFIG_H
#define CX_DECODER_CONFIG_H

#include "models/files/conf.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum cx_cortex_norm { CX_CORTEX_LAYERNORM, CX_CORTEX_RMSNORM } cx_cortex_norm;
/* In the order of the words of the key `size`. */
typedef enum cx_cortex_size {
	CX_CORTEX_XS,
	CX_CORTEX_S,
	CX_CORTEX_M,
	CX_CORTEX_NANO,
	CX_CORTEX_N_SIZES
} cx_cortex_size;

enum { CX_CORTEX_MAX_LAYERS = 255 };

/* Letters as in the specification: D width, N blocks, H heads, dh head width, L latents. */
typedef struct cx_cortex_config {
	int64_t hidden_dim;       /* D, of tokens */
	int64_t num_layers;       /* N */
	int64_t num_heads;        /* H, of self-attention and of the behaviour head */
	int64_t head_dim;         /* dh; num_heads * head_dim == hidden_dim */
	double mlp_ratio;         /* hidden width of an MLP = floor(latent_dim * mlp_ratio) */
	double dropout;           /* in training, on what each sublayer adds to the latents */
	int64_t num_latents;      /* L */
	int64_t latent_dim;       /* equal to hidden_dim: self-attention splits it into the heads */
	int64_t cross_attn_heads; /* divides latent_dim */
	int64_t max_neurons;      /* ids 0..max_neurons-1 */
	int64_t max_time_bins;    /* bins 0..max_time_bins-1, from the start of the window */
	int64_t
		spike_value_buckets; /* values 0..spike_value_buckets-1, and classes of the head below */
	int64_t behavior_dim;    /* outputs */
	bool use_masked_spike_head;
	cx_cortex_norm norm; /* trained checkpoints of the earlier system need layernorm */
} cx_cortex_config;

/* xs, s and m are the published ones; nano (205,256 parameters) is for demonstrations. */
CX_API cx_cortex_config cx_cortex_config_size(cx_cortex_size size);
/* "xs" "s" "m" "nano"; false: none of these. */
CX_API bool cx_cortex_size_parse(const char *name, cx_cortex_size *out);
CX_API const char *cx_cortex_size_name(cx_cortex_size size);
/* The size with this geometry ("s"), or "custom". */
CX_API const char *cx_cortex_config_name(const cx_cortex_config *c);
/* One sentence that names the field if something is out of range or does not fit. */
CX_API cx_status cx_cortex_config_check(const cx_cortex_config *c, cx_err *err);
CX_API int64_t cx_cortex_mlp_hidden(const cx_cortex_config *c);

/* The section [model] of a configuration file: a size, and fields that differ from it. Use it in a
 * table of sections (conf.h) with `to` a cx_cortex_conf, then resolve it. */
typedef struct cx_cortex_conf {
	int size;               /* cx_cortex_size */
	cx_cortex_config given; /* 0 where the size's value counts (mlp_ratio, integers) */
	int norm;
} cx_cortex_conf;
extern const cx_conf_key cx_cortex_conf_keys[];
extern const size_t cx_cortex_conf_n_keys;
CX_API cx_conf_section cx_cortex_conf_section(cx_cortex_conf *to);
/* What was given over what the size says; checked. */
CX_API cx_status cx_cortex_conf_resolve(
	const cx_cortex_conf *conf, cx_cortex_config *out, cx_err *err);
/* All in one, for a file in which other sections are not looked at: [data], [train], [simulate]. */
CX_API cx_status cx_cortex_config_read(
	const cx_alloc *a, const char *path, cx_cortex_config *out, cx_err *err);

#ifdef __cplusplus
}
#endif
#endif
