/* cuda16.h - for CUDA: the sixteen-wide vectors that OpenCL C has built in. Loops of constant
 * length unroll into registers. */
#ifndef CX_CUDA16_H
#define CX_CUDA16_H

#include <cuda_fp16.h>

struct cx_v16 {
	float s[16];
};
struct cx_n16 {
	int s[16];
};

#define CX_EACH16 _Pragma("unroll") for (int l = 0; l < 16; l++)
#define CX_OPERATOR(type, scalar, op)                                                              \
	CX_FN type operator op(const type &a, const type &b)                                           \
	{                                                                                              \
		type r;                                                                                    \
		CX_EACH16 r.s[l] = a.s[l] op b.s[l];                                                       \
		return r;                                                                                  \
	}                                                                                              \
	CX_FN type operator op(const type &a, scalar b)                                                \
	{                                                                                              \
		type r;                                                                                    \
		CX_EACH16 r.s[l] = a.s[l] op b;                                                            \
		return r;                                                                                  \
	}
CX_OPERATOR(cx_v16, float, +)
CX_OPERATOR(cx_v16, float, -)
CX_OPERATOR(cx_v16, float, *)
CX_OPERATOR(cx_v16, float, /)
CX_OPERATOR(cx_n16, int, +)
CX_OPERATOR(cx_n16, int, -)
CX_OPERATOR(cx_n16, int, &)
CX_OPERATOR(cx_n16, int, |)
CX_OPERATOR(cx_n16, int, >>)
CX_OPERATOR(cx_n16, int, <<)
#undef CX_OPERATOR

CX_FN cx_v16 cx_v16_all(float x)
{
	cx_v16 r;
	CX_EACH16 r.s[l] = x;
	return r;
}
CX_FN cx_n16 cx_n16_all(int x)
{
	cx_n16 r;
	CX_EACH16 r.s[l] = x;
	return r;
}
CX_FN cx_v16 cx_v16_fma(const cx_v16 &a, const cx_v16 &b, const cx_v16 &c)
{
	cx_v16 r;
	CX_EACH16 r.s[l] = fmaf(a.s[l], b.s[l], c.s[l]);
	return r;
}
CX_FN cx_v16 cx_v16_ints(const cx_n16 &n)
{
	cx_v16 r;
	CX_EACH16 r.s[l] = (float)n.s[l];
	return r;
}
CX_FN cx_v16 cx_v16_bits(const cx_n16 &n)
{
	cx_v16 r;
	CX_EACH16 r.s[l] = __int_as_float(n.s[l]);
	return r;
}
CX_FN cx_n16 cx_n16_bits(const cx_v16 &v)
{
	cx_n16 r;
	CX_EACH16 r.s[l] = __float_as_int(v.s[l]);
	return r;
}
CX_FN cx_v16 cx_v16_exp(const cx_v16 &v)
{
	cx_v16 r;
	CX_EACH16 r.s[l] = expf(v.s[l]);
	return r;
}
CX_FN cx_v16 cx_v16_max_nan(const cx_v16 &a, const cx_v16 &b)
{
	cx_v16 r;
	CX_EACH16 r.s[l] = a.s[l] != a.s[l] || b.s[l] < a.s[l] ? a.s[l] : b.s[l];
	return r;
}
CX_FN cx_v16 cx_v16_load(const float *p)
{
	cx_v16 r;
	CX_EACH16 r.s[l] = p[l];
	return r;
}
CX_FN void cx_v16_store(const cx_v16 &v, float *p)
{
	CX_EACH16 p[l] = v.s[l];
}
CX_FN void cx_v16_put(const cx_v16 &v, float *a)
{
	CX_EACH16 a[l] = v.s[l];
}
CX_FN cx_v16 cx_v16_take(const float *a)
{
	return cx_v16_load(a);
}
CX_FN void cx_n16_put(const cx_n16 &v, int *a)
{
	CX_EACH16 a[l] = v.s[l];
}
CX_FN cx_n16 cx_n16_take(const int *a)
{
	cx_n16 r;
	CX_EACH16 r.s[l] = a[l];
	return r;
}
CX_FN cx_n16 cx_n16_u8(const cx_u8 *p)
{
	cx_n16 r;
	CX_EACH16 r.s[l] = p[l];
	return r;
}
CX_FN cx_n16 cx_n16_i8(const cx_u8 *p)
{
	cx_n16 r;
	CX_EACH16 r.s[l] = (cx_i8)p[l];
	return r;
}
CX_FN cx_n16 cx_n16_u16(const cx_u16 *p)
{
	cx_n16 r;
	CX_EACH16 r.s[l] = p[l];
	return r;
}
CX_FN cx_n16 cx_n16_less(const cx_n16 &a, const cx_n16 &b, const cx_n16 &yes, const cx_n16 &no)
{
	cx_n16 r;
	CX_EACH16 r.s[l] = a.s[l] < b.s[l] ? yes.s[l] : no.s[l];
	return r;
}
CX_FN cx_v16 cx_n16_less(const cx_n16 &a, const cx_n16 &b, const cx_v16 &yes, const cx_v16 &no)
{
	cx_v16 r;
	CX_EACH16 r.s[l] = a.s[l] < b.s[l] ? yes.s[l] : no.s[l];
	return r;
}
CX_FN float cx_half_at(const cx_u16 *p)
{
	return __half2float(__ushort_as_half(*p));
}
CX_FN cx_v16 cx_v16_halves(const cx_u16 *p)
{
	cx_v16 r;
	CX_EACH16 r.s[l] = cx_half_at(p + l);
	return r;
}
CX_FN cx_n16 cx_n16_flags(int n)
{
	cx_n16 r;
	CX_EACH16 r.s[l] = n >> l & 1;
	return r;
}

/* Sixteen int8, four to a word. */
struct cx_b16 {
	int s[4];
};
CX_FN cx_b16 cx_b16_take(const cx_i8 *p)
{
	cx_b16 r;
#pragma unroll
	for (int l = 0; l < 4; l++)
		r.s[l] = (p[4 * l] & 255) | (p[4 * l + 1] & 255) << 8 | (p[4 * l + 2] & 255) << 16 |
				 (p[4 * l + 3] & 255) << 24;
	return r;
}
CX_FN cx_b16 cx_b16_load(const cx_u8 *p)
{
	return cx_b16_take((const cx_i8 *)p);
}
/* Steps of 1 / inverse from -127 to 127; a NaN gives *bad. */
CX_FN cx_b16 cx_b16_quant(const cx_v16 &x, float inverse, int *bad)
{
	cx_i8 q[16];
	CX_EACH16
	{
		float v = x.s[l] * inverse;
		*bad |= v != v;
		q[l] = (cx_i8)rintf(fminf(fmaxf(v, -127.0f), 127.0f));
	}
	return cx_b16_take(q);
}
CX_FN int cx_b16_dot(const cx_b16 &a, const cx_b16 &b, int sum)
{
#pragma unroll
	for (int l = 0; l < 4; l++) sum = __dp4a(a.s[l], b.s[l], sum);
	return sum;
}

CX_FN float cx_v16_sum(cx_v16 v)
{
#pragma unroll
	for (int w = 8; w > 0; w >>= 1) {
#pragma unroll
		for (int l = 0; l < w; l++) v.s[l] += v.s[l + w];
	}
	return v.s[0];
}

#endif
