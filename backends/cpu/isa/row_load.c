/* row_load.c - rows of a float dtype to f32 and back. See lane.h. */
#include "backends/cpu/isa/lane.h"

const float *cx_row_load(float *buf, const void *p, cx_dtype dtype, int64_t stride, int64_t n)
{
	if (stride == 1 || n <= 1) {
		int64_t whole = n & ~(int64_t)15;
		const uint16_t *h = p;
		if (dtype == CX_F32) return p;
		if (dtype == CX_F16)
			for (int64_t i = 0; i < whole; i += 16) v16_store(buf + i, v16_load_f16(h + i));
		else
			for (int64_t i = 0; i < whole; i += 16) v16_store(buf + i, v16_load_bf16(h + i));
		if (whole < n) {
			size_t k = (size_t)(n - whole);
			v16_store_n(buf + whole, v16_load_as(dtype, p, (size_t)whole, k), k);
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
		int64_t whole = n & ~(int64_t)15;
		uint16_t *h = p;
		if (dtype == CX_F16)
			for (int64_t i = 0; i < whole; i += 16) v16_store_f16(h + i, v16_load(y + i));
		else
			for (int64_t i = 0; i < whole; i += 16) v16_store_bf16(h + i, v16_load(y + i));
		if (whole < n) {
			size_t k = (size_t)(n - whole);
			v16_store_as(dtype, p, (size_t)whole, v16_load_n(y + whole, k), k);
		}
	} else if (dtype == CX_F32) {
		for (int64_t i = 0; i < n; i++) ((float *)p)[i * stride] = y[i];
	} else {
		for (int64_t i = 0; i < n; i++) cx_put_f32(p, dtype, i * stride, y[i]);
	}
}
