/* put.c - single values as the bits of a dtype, for tables and fill values that the host makes:
 * rounded once, to
 * nearest even; integers saturate. */
#include "backends/vulkan/emit.h"

#include "graph/quant.h"

#include <math.h>
#include <string.h>

/* v to the nearest multiple of a float format's step, so that the conversion from f32 that
 * follows is exact. */
static float to_precision(double v, int digits, int least)
{
	int e;
	double step;
	if (!isfinite(v) || v == 0) return (float)v;
	frexp(v, &e);
	step = ldexp(1, e - digits < least ? least : e - digits);
	return (float)(rint(v / step) * step);
}

static int64_t saturate(cx_dtype t, double v)
{
	double lo = t == CX_I64 ? -0x1p63 : t == CX_I32 ? -0x1p31 : t == CX_I8 ? -128 : 0;
	double hi = t == CX_I64 ? 0x1p63 : t == CX_I32 ? 0x1p31 : t == CX_I8 ? 128 : 256;
	if (isnan(v)) return 0;
	if (v <= lo) return t == CX_I64 ? INT64_MIN : (int64_t)lo;
	if (v >= hi) return t == CX_I64 ? INT64_MAX : (int64_t)hi - 1;
	return (int64_t)v;
}

void cx__vk_put(cx_dtype t, void *data, int64_t i, double v)
{
	unsigned char *p = (unsigned char *)data + i * cx_dtype_get(t)->block_bytes;
	float f = (float)v;
	uint16_t h;
	int64_t n;
	switch (t) {
	case CX_F32:
		memcpy(p, &f, 4);
		break;
	case CX_F16:
		h = cx_f32_to_f16(to_precision(v, 11, -24));
		memcpy(p, &h, 2);
		break;
	case CX_BF16:
		h = cx_f32_to_bf16(to_precision(v, 8, -133));
		memcpy(p, &h, 2);
		break;
	case CX_BOOL:
		*p = v != 0;
		break;
	default: /* little-endian: the low bytes are the narrower integer */
		n = saturate(t, v);
		memcpy(p, &n, (size_t)cx_dtype_get(t)->block_bytes);
	}
}
