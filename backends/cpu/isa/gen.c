/* gen.c - random (Philox4x32-10: Salmon, Moraes, Dror, Shaw, SC 2011) and iota. */
#include "backends/cpu/isa/lane.h"

static void philox(uint64_t block, const uint32_t key[4], uint32_t out[4])
{
	uint32_t c[4] = {(uint32_t)block, (uint32_t)(block >> 32), key[2], key[3]}, k0 = key[0],
			 k1 = key[1];
	for (int round = 0; round < 10; round++) {
		uint64_t p0 = (uint64_t)0xD2511F53u * c[0], p1 = (uint64_t)0xCD9E8D57u * c[2];
		uint32_t n0 = (uint32_t)(p1 >> 32) ^ c[1] ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c[3] ^ k1;
		c[0] = n0;
		c[1] = (uint32_t)p1;
		c[2] = n2;
		c[3] = (uint32_t)p0;
		k0 += 0x9E3779B9u; /* golden ratio */
		k1 += 0xBB67AE85u; /* sqrt(3) - 1 */
	}
	memcpy(out, c, sizeof c);
}

/* Four elements per counter. Uniform: 24 high bits; normal: Box-Muller in double, words (0,1) and
 * (2,3). */
CX_CPU_FN(cx_random_block_any)
{
	const cx_attr_random *at = c->attr;
	const cx_cpu_arg *key = &c->in[0], *y = &c->out[0];
	int64_t n = cx__desc_elems(&y->d), lo, hi;
	uint32_t k[4], w[4];
	for (int j = 0; j < 4; j++) k[j] = (uint32_t)((const int32_t *)key->p)[j * key->d.stride[0]];
	cx_cpu_share(t, (n + 3) / 4, 1, &lo, &hi);
	for (int64_t b = lo; b < hi; b++) {
		int64_t m = n - 4 * b < 4 ? n - 4 * b : 4;
		float f[4];
		philox((uint64_t)b, k, w);
		if (at->kind == 2) {
			memcpy((int32_t *)y->p + 4 * b, w, (size_t)m * 4);
			continue;
		}
		for (int j = 0; j < 4; j++) {
			const uint32_t *pair = w + j / 2 * 2;
			double radius, angle;
			f[j] = (float)(w[j] >> 8) * 0x1p-24f;
			if (at->kind == 0) continue;
			radius = sqrt(-2.0 * log(((double)(pair[0] >> 8) + 1.0) * 0x1p-24)); /* off zero */
			angle = 6.283185307179586 * ((double)(pair[1] >> 8) * 0x1p-24);
			f[j] = (float)(radius * (j % 2 ? sin(angle) : cos(angle)));
		}
		memcpy(cx_f32(y->p) + 4 * b, f, (size_t)m * 4);
	}
}

CX_CPU_FN(cx_iota_row_any)
{
	const cx_attr_iota *at = c->attr;
	const cx_cpu_arg *y = &c->out[0];
	int64_t n = cx__desc_elems(&y->d), inner = 1, size = y->d.rank ? y->d.dim[at->axis] : 1, lo, hi;
	for (int32_t i = (int32_t)at->axis + 1; i < y->d.rank; i++) inner *= y->d.dim[i];
	cx_cpu_share(t, n, 64, &lo, &hi);
	for (int64_t i = lo; i < hi; i++) {
		double v = at->start + (double)at->step * (double)(i / inner % size);
		if (cx_cpu_is_float(y->d.dtype)) cx_put_f64(y->p, y->d.dtype, i, v);
		else cx_put_i64(y->p, y->d.dtype, i, cx_saturate_f64(y->d.dtype, v));
	}
}
