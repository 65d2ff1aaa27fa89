/* row_load.c - rows of a float dtype to f32 and back. See lane.h. */
#include "backends/cpu/isa/lane.h"

const float *cx_row_load(float *buf, const void *p, cx_dtype dtype, int64_t stride, int64_t n)
{
	if (stride == 1 || n <= 1) {
		if (dtype == CX_F32) return p;
		for (int64_t i = 0; i < n; i += 16) {
			size_t k = n - i < 16 ? (size_t)(n - i) : 16;
			if (dtype == CX_F16) v16_store_n(buf + i, v16_load_as(CX_F16, p, (size_t)i, k), k);
			else v16_store_n(buf + i, v16_load_as(CX_BF16, p, (size_t)i, k), k);
		}
	} else if (dtype == CX_F32) {
		for (int64_t i = 0; i < n; i++) buf[i] = ((const float *)p)[i * stride];
	} else {
		for (int64_t i = 0; i < n; i++) buf[i] = cx_get_f32(p, dtype, i * stride);
	}
	return buf;
}

void cx_row_store(void *p, cx_dtype dtype, int64_t stride, const float *y, int64_t n)
{
	if (stride == 1 || n <= 1) {
		if (dtype == CX_F32) {
			if (y != p) memcpy(p, y, (size_t)n * sizeof *y);
			return;
		}
		for (int64_t i = 0; i < n; i += 16) {
			size_t k = n - i < 16 ? (size_t)(n - i) : 16;
			if (dtype == CX_F16) v16_store_as(CX_F16, p, (size_t)i, v16_load_n(y + i, k), k);
			else v16_store_as(CX_BF16, p, (size_t)i, v16_load_n(y + i, k), k);
		}
	} else if (dtype == CX_F32) {
		for (int64_t i = 0; i < n; i++) ((float *)p)[i * stride] = y[i];
	} else {
		for (int64_t i = 0; i < n; i++) cx_put_f32(p, dtype, i * stride, y[i]);
	}
}
