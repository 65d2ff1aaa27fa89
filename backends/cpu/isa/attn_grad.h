/* attn_grad.h - the scratch of the gradient of attention: its size for kernels.c, its parts for the
 * kernel. */
#ifndef CX_CPU_ATTN_GRAD_H
#define CX_CPU_ATTN_GRAD_H

#include "graph/graph.h"

enum {
	CX_ATTN_GRAD_BLOCK = 64,  /* rows, and keys, of a block */
	CX_ATTN_GRAD_KEEP = 2048, /* rows by blocks of keys whose scores are kept: half a megabyte */
};

/* Of one thread; widths padded to 16 elements. n: most rows that a head of keys may have. */
typedef struct cx_attn_grad_scratch {
	float *q, *dy, *dq;   /* [n, d] scaled, [n, dv], [n, d] */
	float *delta, *m, *l; /* [n] dy.y, largest score, 1 / sum of weights */
	float *k, *kt, *vt;   /* of a block of keys: [64, d] [d, 64] [dv, 64] */
	float *dk, *dv;       /* [64, d] [64, dv] */
	float *p, *ds;        /* [kept rows or 64, 64] [64, 64] */
	int64_t keep_rows;
} cx_attn_grad_scratch;

/* Fills s for thread `rank` from the descriptions of the operands; gives the floats of a thread. */
static inline uint64_t cx_attn_grad_lay_out(
	cx_attn_grad_scratch *s, float *base, const cx_desc *in, uint32_t rank)
{
	int32_t r = in[0].rank;
	uint64_t n, d = ((uint64_t)in[0].dim[r - 1] + 15) & ~15ull,
				dv = ((uint64_t)in[2].dim[r - 1] + 15) & ~15ull, size, at = 0, keep,
				blk = CX_ATTN_GRAD_BLOCK, n_kv = (uint64_t)in[1].dim[r - 3], wide;
	n = (uint64_t)in[0].dim[r - 3] *
		(in[1].dim[r - 2] ? (uint64_t)(in[0].dim[r - 2] / in[1].dim[r - 2]) : 0);
	n = (n + 15) & ~15ull;
	keep = n * ((n_kv + blk - 1) / blk);
	if (keep > CX_ATTN_GRAD_KEEP) keep = CX_ATTN_GRAD_KEEP;
	wide = d > dv ? d : dv; /* kt holds a row of y as well */
	size = n * (2 * d + dv + 3) + blk * (2 * d + wide + 2 * dv) + (keep > blk ? keep : blk) * blk +
		   blk * blk;
	s->keep_rows = (int64_t)keep;
	base = base ? base + rank * size : NULL;
#define CX_PART(name, count)                                                                       \
	s->name = base ? base + at : NULL;                                                             \
	at += (count);
	CX_PART(q, n * d)
	CX_PART(dy, n * dv)
	CX_PART(dq, n * d)
	CX_PART(delta, n)
	CX_PART(m, n)
	CX_PART(l, n)
	CX_PART(k, blk * d)
	CX_PART(kt, blk * wide)
	CX_PART(vt, blk * dv)
	CX_PART(dk, blk * d)
	CX_PART(dv, blk * dv)
	CX_PART(p, (keep > blk ? keep : blk) * blk)
	CX_PART(ds, blk * blk)
#undef CX_PART
	return size;
}

#endif
