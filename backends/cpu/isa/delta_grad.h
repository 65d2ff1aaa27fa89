/* delta_grad.h - the scratch of the gradient of the gated delta rule: its size for kernels.c, its
 * parts for the kernel. */
#ifndef CX_CPU_DELTA_GRAD_H
#define CX_CPU_DELTA_GRAD_H

#include "graph/graph.h"

/* Of one thread; rows of dv elements padded to 16. */
typedef struct cx_delta_grad_scratch {
	float *marks, *states;  /* states before tokens 0, n, 2n ..., and of the tokens between */
	float *grad;            /* of the state after the token at hand */
	float *q, *k, *v, *dy;  /* of a token */
	float *rest, *dd;       /* v - S'k; gradient of delta */
	float *dq_sum, *dk_sum; /* [T, dk] over the heads of values */
	int64_t every;          /* n */
} cx_delta_grad_scratch;

/* Fills s for thread `rank` from the descriptions of the operands; gives the floats of a thread. */
static inline uint64_t cx_delta_grad_lay_out(
	cx_delta_grad_scratch *s, float *base, const cx_desc *in, uint32_t rank)
{
	uint64_t rows = (uint64_t)in[0].dim[0], dk = (uint64_t)in[0].dim[2],
			 dv = ((uint64_t)in[2].dim[2] + 15) & ~15ull, n = 1, at = 0, size, dkp;
	while (n * n < rows) n++;
	dkp = (dk + 15) & ~15ull;
	size = (2 * n + 2) * dk * dv + 2 * dkp + 4 * dv + 2 * ((rows * dk + 15) & ~15ull);
	base = base ? base + rank * size : NULL;
	s->every = (int64_t)n;
#define CX_PART(name, count)                                                                       \
	s->name = base ? base + at : NULL;                                                             \
	at += (count);
	CX_PART(marks, (n + 1) * dk * dv)
	CX_PART(states, n * dk * dv)
	CX_PART(grad, dk * dv)
	CX_PART(q, dkp)
	CX_PART(k, dkp)
	CX_PART(v, dv)
	CX_PART(dy, dv)
	CX_PART(rest, dv)
	CX_PART(dd, dv)
	CX_PART(dq_sum, (rows * dk + 15) & ~15ull)
	CX_PART(dk_sum, (rows * dk + 15) & ~15ull)
#undef CX_PART
	return size;
}

#endif
