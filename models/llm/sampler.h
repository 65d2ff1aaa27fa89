/* sampler.h - from logits to the next token, reproducibly (spec/llm.md 6).
 *
 * Order: greedy if temperature < 1e-5 (lowest id on ties), else temperature, min-p, top-k, top-p,
 * draw. Ties at a boundary go to the lower id. The draw is Philox keyed by the seed with the output
 * position as counter, so it does not depend on what else runs. */
#ifndef CX_LLM_SAMPLER_H
#define CX_LLM_SAMPLER_H

#include "graph/base.h"

typedef struct cx_sampler_opts {
	float temperature; /* 0: greedy */
	int32_t top_k;     /* 0: off */
	float top_p;       /* >= 1: off */
	float min_p;       /* 0: off */
	uint64_t seed;
} cx_sampler_opts;

typedef struct cx_sampler {
	cx_sampler_opts opts;
	uint32_t n_vocab;
	struct cx_candidate *work; /* [n_vocab] */
	cx_alloc alloc;
} cx_sampler;

/* Options out of range are refused by name: temperature in 0..100, top_k >= 0, top_p in (0,1],
 * min_p in [0,1]. */
CX_API cx_status cx_sampler_init(cx_sampler *s, const cx_sampler_opts *opts, uint32_t n_vocab,
	const cx_alloc *alloc, cx_err *err);
CX_API void cx_sampler_deinit(cx_sampler *s);

/* logits [n_vocab]; ids from n_allowed on are never chosen (padding rows). position: how many
 * tokens were generated before. A NaN logit fails the request (CX_ERR_DEVICE). Allocates nothing.
 */
CX_API cx_status cx_sampler_next(cx_sampler *s, const float *logits, uint32_t n_allowed,
	uint64_t position, int32_t *id, cx_err *err);

#endif
