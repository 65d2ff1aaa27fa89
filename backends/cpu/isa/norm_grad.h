/* norm_grad.h - how rows are cut in blocks for the sums of a norm's gradient: for kernels.c and the
 * kernel. */
#ifndef CX_CPU_NORM_GRAD_H
#define CX_CPU_NORM_GRAD_H

#include <stdint.h>

/* Rows of a block whose sums over rows are made together: at most 64 blocks, of 16 rows or more. */
static inline int64_t cx_norm_grad_rows(int64_t rows)
{
	int64_t per = (rows + 63) / 64;
	return per < 16 ? 16 : per;
}

#endif
