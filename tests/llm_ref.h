/* llm_ref.h - an independent forward pass of a dense transformer, in double, straight from the
 * equations of spec/llm.md 1.3-1.4; and tiny random models written as Hugging Face folders to run
 * it against. */
#ifndef CX_TESTS_LLM_REF_H
#define CX_TESTS_LLM_REF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct llm_ref_layer {
	float *attn_norm, *q, *k, *v, *o, *ffn_norm, *gate, *up, *down; /* matrices [out, in] */
	float *bq, *bk, *bv;                                            /* NULL: none */
	float *q_norm, *k_norm;                                         /* NULL: none */
} llm_ref_layer;

typedef struct llm_ref {
	int n_layers, hidden, ffn, n_heads, n_kv, head, vocab, context;
	bool pairs;
	double eps, theta;
	double freq[64];           /* [head / 2], after scaling */
	float *embed, *norm, *out; /* out NULL: tied */
	llm_ref_layer layer[8];
} llm_ref;

/* A random model; arch "llama", "qwen2" or "qwen3". llama3: with that rope scaling (factor 8, 1, 4,
 * 32). */
void llm_ref_random(llm_ref *m, const char *arch, bool tied, bool llama3, uint64_t seed);
/* The trained one of the fixtures (llama2.c format v0); false if it is not there. */
bool llm_ref_load_bin(llm_ref *m, const char *path);
void llm_ref_free(llm_ref *m);

/* logits [n, vocab] of every position. */
void llm_ref_forward(const llm_ref *m, const int32_t *ids, int n, double *logits);

/* Writes config.json and model.safetensors (n_shards > 1: sharded with an index) into dir, which
 * exists. Rows of q and k of a `pairs` model are put into Hugging Face's order. */
void llm_ref_write_hf(
	const llm_ref *m, const char *arch, bool llama3, int n_shards, const char *dir);

#endif
