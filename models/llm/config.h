/* config.h - the geometry of a decoder-only language model, from GGUF metadata or a Hugging Face
 * config.json (spec/llm.md 1.1, 3.3). */
#ifndef CX_LLM_CONFIG_H
#define CX_LLM_CONFIG_H

#include "graph/cx.h"
#include "models/files/gguf.h"
#include "models/files/json.h"

/* The families that models.def lists. */
typedef enum cx_llm_arch {
#define CX_LLM(id, gguf, hf, qkv_bias, qk_norm, gguf_pairs, doc) CX_LLM_##id,
#include "models/llm/models.def"
#undef CX_LLM
	CX_LLM_COUNT
} cx_llm_arch;

enum { CX_LLM_MAX_HEAD = 1024 };

typedef struct cx_llm_config {
	cx_llm_arch arch;
	int64_t n_layers, hidden, ffn, n_heads, n_kv_heads, head_dim, vocab;
	int64_t context; /* positions it was trained for */
	int64_t n_rot;   /* rotated width of a head */
	float eps;
	float rope_theta, rope_amplitude;
	bool rope_pairs;  /* adjacent pairs (GGUF llama) instead of halves */
	bool rope_scaled; /* rope_freqs is used instead of rope_theta */
	bool qkv_bias, o_bias, mlp_bias, qk_norm;
	bool tied;                             /* no output matrix of its own: the embedding is it */
	float rope_freqs[CX_LLM_MAX_HEAD / 2]; /* [n_rot / 2] frequencies after scaling */
} cx_llm_config;

/* Refuses architectures that models.def does not have, by name, and geometry that does not fit
 * together. vocab is taken from the embedding by the caller, and so are `tied` and rope divisors
 * stored as a tensor. */
cx_status cx_llm_config_gguf(const cx_gguf *file, cx_llm_config *out, cx_err *err);
cx_status cx_llm_config_json(
	const char *path, const cx_alloc *alloc, cx_llm_config *out, cx_err *err);

/* Fills rope_freqs from theta divided by divisors [n_rot/2] (spec/llm.md 3.3 rope_freqs.weight). */
void cx__llm_rope_divide(cx_llm_config *c, const float *divisors);

/* Scaling of frequencies (spec/llm.md 1.4). */
typedef struct cx_rope_scaling {
	const char *type; /* "default", "linear", "llama3", "yarn" */
	double factor, low, high, original, beta_fast, beta_slow,
		attention_factor;          /* attention_factor 0: unset */
	double mscale, mscale_all_dim; /* 0: unset */
} cx_rope_scaling;
cx_status cx__llm_rope_scale(
	cx_llm_config *c, const cx_rope_scaling *s, const char *file, cx_err *err);

#endif
