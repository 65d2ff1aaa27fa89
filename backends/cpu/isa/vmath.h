/* vmath.h - exp, log, tanh, erf, sin, cos and what is made of them, 16 lanes at a time.
 *
 * The same bits on every instruction set: only correctly rounded operations, in a fixed order.
 * Errors against the exact value, over the whole range (tests/test_gemm.c measures them): exp, log,
 * erf, tanh, sin, cos 2 ulp or less, log1p, expm1, sigmoid 4 ulp. NaN gives NaN, infinities and
 * signed zeros as in C, subnormal results are not flushed. silu, gelu and gelu_tanh: the formulas
 * of graph/scalar.def; relative to |x| 4 ulp.
 *
 * Polynomials: exp and tanh Cephes (S. Moshier), log as in FreeBSD's e_logf.c (K. C. Ng), erf, sin
 * and cos minimax fits after N. Juffa. Reductions are Cody and Waite with fma. */
#ifndef CX_CPU_VMATH_H
#define CX_CPU_VMATH_H

#include "backends/cpu/isa/vec.h"

/* 2^n as a float; -126 <= n <= 127. */
CX_INLINE v16 v16_pow2i(v16i n)
{
	return v16i_as_v16(v16i_sll(v16i_add(n, v16i_set1(127)), 23));
}

/* e^r - 1 for |r| <= 0.35. */
CX_INLINE v16 v16__exp_poly(v16 r)
{
	v16 p = v16_set1(1.9875691500e-4f);
	p = v16_fma(p, r, v16_set1(1.3981999507e-3f));
	p = v16_fma(p, r, v16_set1(8.3334519073e-3f));
	p = v16_fma(p, r, v16_set1(4.1665795894e-2f));
	p = v16_fma(p, r, v16_set1(1.6666665459e-1f));
	p = v16_fma(p, r, v16_set1(5.0000001201e-1f));
	return v16_fma(p, v16_mul(r, r), r);
}

CX_INLINE v16 v16_exp(v16 x)
{
	v16 c = v16_max(
		v16_set1(-104.0f), v16_min(v16_set1(89.0f), x)); /* NaN passes: it is the second operand */
	v16 n = v16_rint(v16_mul(c, v16_set1(1.44269504088896341f)));
	v16 r = v16_fma(n, v16_set1(-0.693359375f), c);
	v16 p = v16_add(v16__exp_poly(v16_fma(n, v16_set1(2.12194440e-4f), r)), v16_set1(1.0f));
#ifdef CX_HAVE_SCALE
	return v16_scale(p, n);
#else
	v16i i = v16_to_i(n),
		 half = v16i_sra(i, 1); /* in two steps: 2^-150 and 2^128 are no normal numbers */
	return v16_mul(v16_mul(p, v16_pow2i(half)), v16_pow2i(v16i_sub(i, half)));
#endif
}

CX_INLINE v16 v16_log(v16 x)
{
	const v16 inf = v16_set1(INFINITY);
	v16m tiny = v16_lt(x, v16_set1(0x1p-126f));
	v16 y = v16_select(tiny, v16_mul(x, v16_set1(0x1p25f)), x);
	v16i u = v16i_add(v16_as_v16i(y), v16i_set1(0x3f800000 - 0x3f3504f3));
	v16 k = v16i_to_f(v16i_sub(v16i_sra(u, 23), v16i_set1(127)));
	v16 f = v16_sub(v16i_as_v16(v16i_add(v16i_and(u, v16i_set1(0x7fffff)), v16i_set1(0x3f3504f3))),
		v16_set1(1.0f));
	v16 s = v16_div(f, v16_add(f, v16_set1(2.0f))), z = v16_mul(s, s), w = v16_mul(z, z);
	v16 t1 = v16_mul(w, v16_fma(w, v16_set1(0xf89e26p-26f), v16_set1(0xccce13p-25f)));
	v16 t2 = v16_mul(z, v16_fma(w, v16_set1(0x91e9eep-25f), v16_set1(0xaaaaaap-24f)));
	v16 h = v16_mul(v16_mul(f, f), v16_set1(0.5f)), r;
	k = v16_select(tiny, v16_sub(k, v16_set1(25.0f)), k);
	r = v16_fma(s, v16_add(h, v16_add(t1, t2)), v16_mul(k, v16_set1(9.0580006145e-06f)));
	r = v16_fma(k, v16_set1(6.9313812256e-01f), v16_add(v16_sub(r, h), f));
	r = v16_select(v16_lt(x, inf), r, x); /* +inf and NaN */
	r = v16_select(v16_lt(x, v16_zero()), v16_set1(NAN), r);
	return v16_select(v16_eq(x, v16_zero()), v16_neg(inf), r);
}

/* log(1 + x): the rounding of 1 + x is put back. */
CX_INLINE v16 v16_log1p(v16 x)
{
	v16 one = v16_set1(1.0f), u = v16_add(x, one), l = v16_log(u);
	v16 r = v16_sub(l, v16_div(v16_sub(v16_sub(u, one), x), u));
	r = v16_select(v16_eq(u, one), x, r);
	return v16_select(v16m_and(v16_gt(u, v16_zero()), v16_lt(u, v16_set1(INFINITY))), r, l);
}

CX_INLINE v16 v16_expm1(v16 x)
{
	v16 one = v16_set1(1.0f), far_ = v16_sub(v16_exp(x), one);
	v16m near_ = v16_lt(v16_abs(x), v16_set1(0.34f));
	v16 p = v16__exp_poly(v16_select(near_, x, v16_zero()));
	return v16_select(near_, v16_select(v16_eq(x, v16_zero()), x, p), far_);
}

CX_INLINE v16 v16_tanh(v16 x)
{
	v16 a = v16_abs(x), z = v16_mul(x, x), p = v16_set1(-5.70498872745e-3f), one = v16_set1(1.0f),
		far_;
	p = v16_fma(p, z, v16_set1(2.06390887954e-2f));
	p = v16_fma(p, z, v16_set1(-5.37397155531e-2f));
	p = v16_fma(p, z, v16_set1(1.33314422036e-1f));
	p = v16_fma(p, z, v16_set1(-3.33332819422e-1f));
	p = v16_fma(v16_mul(p, z), x, x);
	far_ = v16_sub(one, v16_div(v16_set1(2.0f), v16_add(v16_exp(v16_add(a, a)), one)));
	return v16_copysign(v16_select(v16_lt(a, v16_set1(0.625f)), p, far_), x); /* -0 too */
}

/* 1 / (1 + e^-x), without overflow: e^-|x| is at most 1. */
CX_INLINE v16 v16_sigmoid(v16 x)
{
	v16 one = v16_set1(1.0f), e = v16_exp(v16_neg(v16_abs(x))), d = v16_add(one, e);
	return v16_div(v16_select(v16_lt(x, v16_zero()), e, one), d);
}

CX_INLINE v16 v16_erf(v16 x)
{
	v16 t = v16_abs(x), s = v16_mul(x, x), r, u, p;
	r = v16_fma(v16_set1(-0x1.220000p-16f), t, v16_set1(0x1.91cfb2p-12f));
	u = v16_fma(v16_set1(-0x1.fd1438p-9f), t, v16_set1(0x1.8d6342p-6f));
	r = v16_fma(r, s, u);
	r = v16_fma(r, t, v16_set1(-0x1.b55cb8p-4f));
	r = v16_fma(r, t, v16_set1(-0x1.450aa0p-1f));
	r = v16_fma(r, t, v16_set1(-0x1.079d0cp-3f));
	r = v16_fma(r, t, v16_neg(t));
	r = v16_copysign(v16_sub(v16_set1(1.0f), v16_exp(r)), x);
	r = v16_select(
		v16_gt(t, v16_set1(4.0f)), v16_copysign(v16_set1(1.0f), x), r); /* s would overflow */
	p = v16_set1(-0x1.38e000p-11f);
	p = v16_fma(p, s, v16_set1(0x1.471a58p-8f));
	p = v16_fma(p, s, v16_set1(-0x1.b691b2p-6f));
	p = v16_fma(p, s, v16_set1(0x1.ce1c44p-4f));
	p = v16_fma(p, s, v16_set1(-0x1.812700p-2f));
	p = v16_fma(p, s, v16_set1(0x1.06eba8p-3f));
	p = v16_fma(p, x, x);
	return v16_select(v16_lt(t, v16_set1(0.927734375f)), p, r);
}

/* sin(x + q * pi/2), q 0 or 1. Beyond +-30000 lane by lane in double. */
CX_INLINE v16 v16__sincos(v16 x, int q)
{
	v16 j = v16_rint(v16_mul(x, v16_set1(0.636619747f))), r, s, a, b, y;
	v16m big = v16m_not(v16_lt(v16_abs(x), v16_set1(30000.0f)));
	v16i i;
	if (v16m_any(big)) j = v16_select(big, v16_zero(), j);
	r = v16_fma(j, v16_set1(-0x1.921fb0p+0f), x);
	r = v16_fma(j, v16_set1(-0x1.5110b4p-22f), r);
	r = v16_fma(j, v16_set1(-0x1.846988p-48f), r);
	i = v16i_add(v16_to_i(j), v16i_set1(q));
	s = v16_mul(r, r);
	a = v16_fma(v16_set1(0x1.80a000p-19f), s, v16_set1(-0x1.a0690cp-13f));
	a = v16_fma(a, s, v16_set1(0x1.111182p-7f));
	a = v16_fma(a, s, v16_set1(-0x1.555556p-3f));
	a = v16_fma(a, v16_mul(r, s), r);
	b = v16_fma(v16_set1(0x1.9a8000p-16f), s, v16_set1(-0x1.6c0efap-10f));
	b = v16_fma(b, s, v16_set1(0x1.555550p-5f));
	b = v16_fma(b, s, v16_set1(-0.5f));
	b = v16_fma(b, s, v16_set1(1.0f));
	y = v16_select(v16i_eq(v16i_and(i, v16i_set1(1)), v16i_set1(1)), b, a);
	y = v16i_as_v16(v16i_xor(v16_as_v16i(y), v16i_sll(v16i_and(i, v16i_set1(2)), 30)));
	if (v16m_any(big)) {
		float in[16], out[16];
		v16_store(in, x);
		v16_store(out, y);
		for (int l = 0; l < 16; l++)
			if (!(fabsf(in[l]) < 30000.0f))
				out[l] = (float)(q ? cos((double)in[l]) : sin((double)in[l]));
		y = v16_load(out);
	}
	return y;
}
CX_INLINE v16 v16_sin(v16 x)
{
	return v16_select(v16_eq(x, v16_zero()), x, v16__sincos(x, 0)); /* keeps -0 */
}
CX_INLINE v16 v16_cos(v16 x)
{
	return v16__sincos(x, 1);
}

CX_INLINE v16 v16_relu(v16 x)
{
	return v16_select(v16_lt(x, v16_zero()), v16_zero(), x);
}
CX_INLINE v16 v16_silu(v16 x)
{
	return v16_mul(x, v16_sigmoid(x));
}
CX_INLINE v16 v16_gelu(v16 x)
{
	v16 e = v16_erf(v16_mul(x, v16_set1(0.70710678118654752f)));
	return v16_mul(v16_mul(v16_set1(0.5f), x), v16_add(v16_set1(1.0f), e));
}
CX_INLINE v16 v16_gelu_tanh(v16 x) /* 0.5 (1 + tanh u) = sigmoid(2u) */
{
	v16 x2 = v16_mul(x, x), u = v16_mul(x, v16_fma(x2, v16_set1(0.044715f), v16_set1(1.0f)));
	return v16_mul(x, v16_sigmoid(v16_mul(u, v16_set1(1.59576912160573071f))));
}

#endif
