/* llm.h - a decoder-only language model: opened from a file, built as a graph, run for one
 * sequence.
 *
 * A cx_llm holds what is shared (geometry, memory-mapped weights, tokenizer); a cx_llm_session is
 * one sequence on one device: its key/value pages are states, its plans are buckets of 1, 2, 4, 8
 * ... tokens over the same store. Rows that pad a bucket carry slot -1 and change nothing. Logits
 * do not depend on how a prompt is cut into chunks, bit for bit. */
#ifndef CX_LLM_H
#define CX_LLM_H

#include "models/llm/config.h"
#include "models/text/tokenizer.h"

typedef struct cx_llm cx_llm;

/* path: a GGUF file, a folder with config.json, tokenizer.json and safetensors, or a
 * .safetensors(.index.json) beside them. Every tensor's name, shape and type is checked here. */
CX_API cx_status cx_llm_open(const char *path, const cx_alloc *alloc, cx_llm **out, cx_err *err);
CX_API void cx_llm_close(cx_llm *m); /* after its sessions */
CX_API const cx_llm_config *cx_llm_get_config(const cx_llm *m);
/* NULL if the model came without one (safetensors without tokenizer.json). */
CX_API const cx_tokenizer *cx_llm_tokenizer(const cx_llm *m);
/* Bytes of all weights as they are in the file. */
CX_API uint64_t cx_llm_weight_bytes(const cx_llm *m);
/* Gives the store every weight; the model must outlive it. */
CX_API cx_status cx_llm_bind(const cx_llm *m, cx_store *store, cx_err *err);

/* Shape of one graph of the model. */
typedef struct cx_llm_bucket {
	int64_t n_tokens; /* rows of this run */
	int64_t n_logits; /* rows whose logits are wanted */
	int64_t n_slots;  /* of each layer's key and value state, a multiple of page */
	int64_t n_seqs, n_blocks, page;
	cx_dtype kv; /* CX_F32, CX_F16 or CX_BF16 */
} cx_llm_bucket;

/* Inputs: "tokens" i32 [T]; "pos" i32 [T]; "slot" i32 [T], -1 for padding; "table" i32 [B,
 * n_blocks]; "q_off" i32 [B+1]; "kv_len" i32 [B]; "rows" i32 [R]: which rows' logits. Output:
 * "logits" f32 [R, vocab]. States: "kv.<layer>.k" and "kv.<layer>.v" [n_slots, kv heads, head].
 * Check g with cx_graph_finish(). */
CX_API void cx_llm_build(const cx_llm *m, const cx_llm_bucket *b, cx_graph *g);

/* ---- one sequence ---- */

typedef struct cx_llm_session cx_llm_session;
typedef struct cx_llm_session_opts {
	int64_t n_ctx; /* most tokens the sequence may have; 0: the model's context */
	int64_t chunk; /* most tokens per run, a power of two; 0: 256 */
	cx_dtype kv;   /* of the cache; CX_F32 is the default */
	/* Where what the session's device has no kernel for runs; NULL: that is refused. */
	cx_device *fallback;
} cx_llm_session_opts;

CX_API cx_status cx_llm_session_create(const cx_llm *m, cx_runtime *rt, cx_device *dev,
	const cx_llm_session_opts *opts, cx_llm_session **out, cx_err *err);
CX_API void cx_llm_session_free(cx_llm_session *s);
/* Appends ids to the sequence. logits: [vocab] of the last one, or, with all, [n, vocab]. An id
 * outside the vocabulary or a full context is CX_ERR_ARGUMENT and changes nothing. */
CX_API cx_status cx_llm_session_eval(
	cx_llm_session *s, const int32_t *ids, size_t n, bool all, float *logits, cx_err *err);
/* Builds and plans, ahead of time, all buckets that a prompt of n tokens and single steps will
 * need. */
CX_API cx_status cx_llm_session_warm(cx_llm_session *s, size_t n, cx_err *err);
CX_API int64_t cx_llm_session_length(const cx_llm_session *s);
CX_API void cx_llm_session_reset(cx_llm_session *s); /* to an empty sequence */
/* The plan of single-token steps, or of the shortest run so far; NULL before the first one. */
CX_API const cx_plan *cx_llm_session_plan(const cx_llm_session *s);

#endif
