/* nd.h - strided blocks of elements from here to there; any rank, any strides, elements of 1, 2, 4
 * or 8 bytes. */
#ifndef CX_CPU_ND_H
#define CX_CPU_ND_H

#include "backends/cpu/cpu.h"
#include "backends/cpu/isa/vec.h"

/* Strides in elements of destination and source. */
typedef struct cx_nd {
	int32_t rank;
	int64_t dim[CX_MAX_RANK], dst[CX_MAX_RANK], src[CX_MAX_RANK];
} cx_nd;

/* Drops axes of size 1 and merges neighbours that both sides walk alike. False: there is nothing to
 * copy. */
bool CX_ISA_NAME(cx__nd_init)(
	cx_nd *nd, int32_t rank, const int64_t *dim, const int64_t *dst, const int64_t *src);
/* This thread's share of the block. */
void CX_ISA_NAME(cx__nd_copy)(
	const cx_nd *nd, uint32_t size, char *dst, const char *src, const cx_cpu_team *t);
/* n elements, `stride` apart, to neighbours at dst. */
void CX_ISA_NAME(cx__nd_line)(char *dst, const char *src, int64_t stride, int64_t n, uint32_t size);
#define cx_nd_init CX_ISA_NAME(cx__nd_init)
#define cx_nd_copy CX_ISA_NAME(cx__nd_copy)
#define cx_nd_line CX_ISA_NAME(cx__nd_line)

#endif
