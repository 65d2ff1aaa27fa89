/* norm.h - one row of a norm, for norm.c and for the norm in front of a linear. */
#ifndef CX_CPU_NORM_H
#define CX_CPU_NORM_H

#include "backends/cpu/isa/vec.h"
#include "graph/cx.h"

typedef enum cx_norm_kind { CX_NORM_RMS = 1, CX_NORM_LAYER = 2, CX_NORM_L2 = 3 } cx_norm_kind;
typedef struct cx_norm {
	cx_norm_kind kind;
	float eps;
	bool plus_one;
	const void *w, *b; /* [n], contiguous, or NULL */
	cx_dtype w_dtype, b_dtype;
} cx_norm;

/* y and x may be the same. */
void CX_ISA_NAME(cx__norm_row)(float *y, const float *x, int64_t n, const cx_norm *p);
#define cx_norm_row CX_ISA_NAME(cx__norm_row)

#endif
