/* wide_ref.h - included before every file of backends/ref when the test suite compiles it a second
 * time: wherever those files say float, this one makes it double, so that a tensor of dtype f32
 * holds doubles and nothing is rounded to single precision on the way. The result is one function,
 * wide_ref_eval(), which tests/wide.c wraps. Headers come first: structs keep their floats.
 *
 * For graphs of f32, integers and bools only. */
#ifndef CX_TESTS_WIDE_REF_H
#define CX_TESTS_WIDE_REF_H

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "backends/ref/ref.h"
#include "graph/grad.h"
#include "graph/philox.h"
#include "graph/prog.h"
#include "graph/quant.h"
#include "graph/shape.h"

bool wide_dtype_bytes(cx_dtype dtype, int32_t rank, const int64_t *dim, uint64_t *bytes);
const cx_dtype_info *wide_dtype_get(cx_dtype dtype);

static inline void wide_dequant_row(cx_dtype dtype, const void *src, double *dst, int64_t n)
{
	(void)dtype, (void)src, (void)dst, (void)n;
	abort(); /* wide_eval() refuses graphs with block formats */
}

#define cx_dtype_bytes wide_dtype_bytes
#define cx_dtype_get wide_dtype_get
#define cx_dequant_row wide_dequant_row
#define float double

#endif
