/* attn.h - the scratch of attention: its size for kernels.c, its parts for the kernel. */
#ifndef CX_CPU_ATTN_H
#define CX_CPU_ATTN_H

#include <stdint.h>

enum {
	CX_ATTN_KEYS = 64,  /* keys of a block */
	CX_ATTN_ROWS = 128, /* rows of a unit */
};

/* Floats of one thread: q and result, keys and values of a block, keys transposed. */
static inline int64_t cx_attn_scratch(int64_t d, int64_t dv)
{
	int64_t dp = (d + 15) / 16 * 16, dvp = (dv + 15) / 16 * 16;
	return (CX_ATTN_ROWS + CX_ATTN_KEYS) * (dp + dvp) + CX_ATTN_KEYS * dp;
}

#endif
