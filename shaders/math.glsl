/* math.glsl - elementary functions in f32, a few units in the last place each: drivers may be far sloppier (Vulkan
 * allows exp 3 + 2|x| units, sin an absolute 2^-11), and graph/ops.def promises more. NaN gives NaN. Constants are
 * split so that nothing depends on whether a driver fuses multiplications and additions; `precise` forbids it
 * where a sum must not be rearranged. Polynomials: Moshier's Cephes (exp, log, sin, cos, tanh), N. Juffa (erf). */

/* x * 2^n without leaving the range in between. */
float cx_scale2(float x, int n)
{
	int a = n / 2, b = n - a;
	return x * uintBitsToFloat(uint(a + 127) << 23) * uintBitsToFloat(uint(b + 127) << 23);
}

/* lo: what rounding the result took. */
float cx_exp_pair(float x, out float lo)
{
	precise float n = floor(clamp(x, -110.0, 90.0) * 1.44269504088896341 + 0.5);
	precise float r = x - n * 0.693359375;
	r = r - n * -2.12194440e-4;
	precise float p = 1.9875691500e-4;
	p = p * r + 1.3981999507e-3;
	p = p * r + 8.3334519073e-3;
	p = p * r + 4.1665795894e-2;
	p = p * r + 1.6666665459e-1;
	p = p * r + 5.0000001201e-1;
	p = p * r * r + r;
	precise float one = p + 1.0, rest = (1.0 - one) + p;
	float y = cx_scale2(one, int(n));
	lo = cx_scale2(rest, int(n));
	y = x > 88.72284 ? cx_inf() : y;
	y = x < -104.0 ? 0.0 : y;
	return cx_isnan(x) ? x : y;
}
float cx_exp(float x)
{
	float lo;
	return cx_exp_pair(x, lo);
}

/* The exponent and the mantissa in [sqrt(1/2), sqrt(2)) of a positive finite x, subnormal or not. */
float cx_frexp(float x, out float e)
{
	uint u = floatBitsToUint(x);
	int k = 0;
	if (u < 0x800000u) { /* shift the leading bit into place */
		int s = 23 - findMSB(u | 1u);
		u <<= uint(s);
		u += 0x800000u - (u & 0x800000u);
		k = -s;
	}
	k += int(u >> 23) - 127;
	u = (u & 0x7fffffu) | 0x3f800000u;
	if (u > 0x3fb504f3u) {
		u -= 0x800000u;
		k++;
	}
	e = float(k);
	return uintBitsToFloat(u);
}

float cx_log(float x)
{
	float e;
	float m = cx_frexp(x, e);
	precise float f = m - 1.0, z = f * f, p = 7.0376836292e-2;
	p = p * f - 1.1514610310e-1;
	p = p * f + 1.1676998740e-1;
	p = p * f - 1.2420140846e-1;
	p = p * f + 1.4249322787e-1;
	p = p * f - 1.6668057665e-1;
	p = p * f + 2.0000714765e-1;
	p = p * f - 2.4999993993e-1;
	p = p * f + 3.3333331174e-1;
	precise float y = f * z * p;
	y = y + e * -2.12194440e-4;
	y = y - 0.5 * z;
	y = y + f;
	y = y + e * 0.693359375;
	uint u = floatBitsToUint(x);
	if (u == CX_INF_BITS) y = x;
	if ((u & 0x7fffffffu) == 0u) y = -cx_inf();
	else if (u > 0x80000000u) y = cx_nan(); /* below 0, and NaN with its sign set */
	return cx_isnan(x) ? x : y;
}

float cx_log1p(float x)
{
	precise float u = 1.0 + x, c = (u - 1.0) - x;
	precise float y = cx_log(u) - c / u;
	if (cx_isinf(u)) y = u;
	return u == 1.0 ? x : y;
}

float cx_expm1(float x)
{
	precise float p = 1.0 / 5040.0;
	p = p * x + 1.0 / 720.0;
	p = p * x + 1.0 / 120.0;
	p = p * x + 1.0 / 24.0;
	p = p * x + 1.0 / 6.0;
	p = p * x + 0.5;
	p = p * x * x + x;
	return abs(x) < 0.35 ? p : cx_exp(x) - 1.0;
}

float cx_tanh(float x)
{
	float a = abs(x), z = x * x;
	precise float p = -5.70498872745e-3;
	p = p * z + 2.06390887954e-2;
	p = p * z - 5.37397155531e-2;
	p = p * z + 1.33314422036e-1;
	p = p * z - 3.33332819422e-1;
	p = p * z * x + x;
	float y = 1.0 - 2.0 / (cx_exp(2.0 * min(a, 20.0)) + 1.0);
	y = x < 0.0 ? -y : y;
	y = a < 0.625 ? p : y;
	return cx_isnan(x) ? x : y;
}

float cx_erf(float a)
{
	float t = abs(a), s = a * a;
	precise float r = -1.72853470e-5 * t + 3.83197126e-4, u = -3.88396438e-3 * t + 2.42546219e-2, q;
	r = r * s + u;
	r = r * t - 1.06777877e-1;
	r = r * t - 6.34846687e-1;
	r = r * t - 1.28717512e-1;
	r = r * t - t;
	r = 1.0 - cx_exp(r);
	r = a < 0.0 ? -r : r;
	if (t > 4.0) r = a < 0.0 ? -1.0 : 1.0;
	q = -5.96761703e-4;
	q = q * s + 4.99119423e-3;
	q = q * s - 2.67681349e-2;
	q = q * s + 1.12819925e-1;
	q = q * s - 3.76125336e-1;
	q = q * s + 1.28379166e-1;
	q = q * a + a;
	return cx_isnan(a) ? a : t > 0.927734375 ? r : q;
}

/* hi + lo = a * b exactly (Veltkamp and Dekker: no fused operation needed). */
void cx_two_product(float a, float b, out float hi, out float lo)
{
	precise float t = 4097.0 * a, ah = t - (t - a), al = a - ah;
	precise float s = 4097.0 * b, bh = s - (s - b), bl = b - bh;
	precise float p = a * b;
	precise float e = ((ah * bh - p) + ah * bl + al * bh) + al * bl;
	hi = p;
	lo = e;
}

/* 1 - erf x, x = -x0 / sqrt 2, without cancellation: with a = |x|, (1 + 2a) e^(a^2) erfc(a) is
 * smooth over [0, 10]; a polynomial in q = (a-4)/(a+4), fitted at Chebyshev nodes to 2e-10. x and
 * a^2 are taken in two floats. */
float cx_erfcn(float x0)
{
	float x, rest, a, hi, lo;
	cx_two_product(x0, -0.70710678, x, rest);
	precise float more = rest + x0 * -1.21016175e-8;
	a = min(abs(x), 10.05);
	float q = (a - 4.0) / (a + 4.0);
	precise float p = 7.87233657e-5;
	p = p * q - 0.000379162695;
	p = p * q - 0.000855987717;
	p = p * q + 0.00507903844;
	p = p * q - 0.0161418486;
	p = p * q + 0.0371697135;
	p = p * q - 0.0663402975;
	p = p * q + 0.0937313735;
	p = p * q - 0.101038329;
	p = p * q + 0.0680971667;
	p = p * q + 0.015379631;
	p = p * q - 0.139621124;
	p = p * q + 0.232995123;
	cx_two_product(a, a, hi, lo);
	lo += 2.0 * x * more;
	precise float e = cx_exp(-hi), y = (p + 1.0) / (1.0 + 2.0 * a) * (e - e * lo);
	y = abs(x) > 10.05 ? 0.0 : y;
	y = x < 0.0 ? 2.0 - y : y;
	return cx_isnan(x) ? x : y;
}

/* ---- sine and cosine ---- */

/* 2/pi in bits, behind the binary point. */
const uint cx_two_over_pi[7] = uint[7](
	0x28be60dbu, 0x9391054au, 0x7f09d5f4u, 0x7d4d3770u, 0x36d8a566u, 0x4f10e410u, 0x7f9458eau);

/* Remainder of |x| by pi/2 in [-pi/4, pi/4] and the quadrant, for any finite x: Payne and Hanek, the mantissa times
 * those 96 bits of 2/pi that matter, as a fixed-point number of two words (2 bits before the point). */
float cx_reduce_big(float x, out int q)
{
	uint u = floatBitsToUint(x), ia = (u << 8) | 0x80000000u, e = (u >> 23 & 255u) - 126u,
		 i = e >> 5;
	e &= 31u;
	uint hi = i > 0u ? cx_two_over_pi[i - 1u] : 0u, mid = cx_two_over_pi[i],
		 lo = cx_two_over_pi[i + 1u];
	uint tmp = cx_two_over_pi[i + 2u];
	if (e != 0u) {
		hi = hi << e | mid >> (32u - e);
		mid = mid << e | lo >> (32u - e);
		lo = lo << e | tmp >> (32u - e);
	}
	uint h1, l1, h2, l2, carry;
	umulExtended(ia, lo, h1, l1);
	umulExtended(ia, mid, h2, l2);
	l2 = uaddCarry(l2, h1, carry);
	h2 += carry + ia * hi;
	q = int(h2 >> 30);
	h2 &= 0x3fffffffu;
	bool negative = (h2 & 0x20000000u) != 0u;
	if (negative) { /* the fraction is 1/2 or more: one quadrant on, and what is left is negative */
		q++;
		l2 = ~l2 + 1u;
		h2 = 0x40000000u - h2 - (l2 != 0u ? 1u : 0u);
	}
	int s = h2 != 0u ? 31 - findMSB(h2) : 32;
	uint top = s == 0 ? h2 : s < 32 ? h2 << uint(s) | l2 >> uint(32 - s) : l2;
	float r = float(top >> 8) *
			  uintBitsToFloat(uint(127 - 22 - s) << 23); /* units of 1/2^62 of pi/2 per bit */
	r = r * 1.57079632679489662;
	return negative ? -r : r;
}

/* x in quadrants. */
float cx_reduce(float x, out int q)
{
	float a = abs(x), r;
	if (a < 4000.0) {
		precise float n = floor(a * 0.636619772367581343 + 0.5);
		precise float t = a - n * 1.5703125;
		t = t - n * 4.8351287841796875e-4;
		t = t - n * 3.13855707645416259765625e-7;
		t = t - n * 6.0771005065061922e-11;
		r = t;
		q = int(n);
	} else {
		r = cx_reduce_big(a, q);
	}
	if (x < 0.0) {
		r = -r;
		q = -q;
	}
	return r;
}

float cx_sin_poly(float r)
{
	float z = r * r;
	return ((-1.9515295891e-4 * z + 8.3321608736e-3) * z - 1.6666654611e-1) * z * r + r;
}
float cx_cos_poly(float r)
{
	float z = r * r;
	return ((2.443315711809948e-5 * z - 1.388731625493765e-3) * z + 4.166664568298827e-2) * z * z -
		   0.5 * z + 1.0;
}

/* Quadrant of sine: q; of cosine: q + 1. */
float cx_trig(float x, const int shift)
{
	int q;
	bool odd = cx_isnan(x) || cx_isinf(x);
	float r = cx_reduce(odd ? 0.0 : x, q), y;
	q += shift;
	y = (q & 1) != 0 ? cx_cos_poly(r) : cx_sin_poly(r);
	y = (q & 2) != 0 ? -y : y;
	return odd ? cx_nan() : y;
}
float cx_sin(float x)
{
	return (floatBitsToUint(x) & 0x7fffffffu) == 0u ? x : cx_trig(x, 0);
}
float cx_cos(float x)
{
	return cx_trig(x, 1);
}

/* ---- powers ---- */

/* e^(b ln a) for positive finite a, with ln a in two floats: the product magnifies its error. */
float cx_pow_positive(float a, float b)
{
	float e, ph, pl;
	float m = cx_frexp(a, e);
	precise float num = m - 1.0, den = m + 1.0, den_lo = (m - (den - 1.0));
	precise float s = num / den;
	cx_two_product(s, den, ph, pl);
	precise float s_lo = ((num - ph) - pl - s * den_lo) / den, t = s * s;
	precise float p = 0.2300000;
	p = p * t + 0.28571429;
	p = p * t + 0.4;
	p = p * t + 0.66666667;
	p = p * t * s;
	precise float hi = e * 0.693359375, x = 2.0 * s, sum = hi + x, back = sum - hi;
	precise float lo = (hi - (sum - back)) + (x - back) + (e * -2.12194440e-4 + 2.0 * s_lo + p);
	precise float h2 = sum + lo, l2 = lo - (h2 - sum);
	float bc = clamp(b, -3.0e38, 3.0e38);
	if (abs(bc) > 1.0e10)
		return cx_exp(bc * h2); /* infinite or 0 or exactly 1, whatever the rest says */
	cx_two_product(bc, h2, ph, pl);
	precise float rest = pl + bc * l2;
	precise float y = cx_exp(ph);
	return cx_isinf(y) || y == 0.0 ? y : y + y * rest;
}

float cx_pow(float a, float b)
{
	float aa = abs(a), y;
	bool whole = floor(b) == b, odd = whole && abs(b) < 16777216.0 && (int(abs(b)) & 1) != 0;
	uint ua = floatBitsToUint(aa);
	if (b == 0.0 || a == 1.0) return 1.0;
	if (cx_isnan(a) || cx_isnan(b)) return cx_nan();
	if (cx_isinf(b)) {
		y = aa == 1.0 ? 1.0 : (aa > 1.0) == (b > 0.0) ? cx_inf() : 0.0;
		return y;
	}
	if (ua == 0u || ua == CX_INF_BITS) {
		y = (ua == 0u) == (b > 0.0) ? 0.0 : cx_inf();
		return (floatBitsToUint(a) >> 31) != 0u && odd ? -y : y;
	}
	y = cx_pow_positive(aa, b);
	if (a < 0.0) y = whole ? (odd ? -y : y) : cx_nan();
	return y;
}
