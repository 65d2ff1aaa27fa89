/* llm_impl.h - what the files of models/llm share. */
#ifndef CX_LLM_IMPL_H
#define CX_LLM_IMPL_H

#include "models/files/safetensors.h"
#include "models/llm/llm.h"

/* One weight as the graph sees it. data is inside the file, or owned by the model's arena where it
 * had to be converted (norms and biases to f32) or moved (unaligned). */
typedef struct cx_llm_weight {
	const char *name; /* "blk.3.attn_q.weight": the graph's name, GGUF spelling */
	cx_dtype dtype;
	int32_t rank;
	int64_t dim[2];
	const void *data;
	uint64_t bytes;
} cx_llm_weight;

struct cx_llm {
	cx_alloc alloc;
	cx_arena arena;
	cx_llm_config config;
	cx_gguf *gguf; /* one of the two */
	cx_safetensors *safetensors;
	cx_tokenizer *tokenizer;
	cx_llm_weight *weights; /* [n_weights] sorted by name */
	size_t n_weights, cap_weights;
	uint64_t weight_bytes;
};

/* NULL if the model has no such weight. */
const cx_llm_weight *cx__llm_weight(const cx_llm *m, const char *name);
/* Finds, checks and converts every weight that the architecture needs; sets config.vocab and
 * config.tied. */
cx_status cx__llm_load_weights(cx_llm *m, cx_err *err);

#endif
