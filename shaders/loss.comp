/* loss.comp - mse and poisson_nll, and the sum at the end of every loss. Tensors: y, x, t.
 * KIND: 0 (x-t)^2, 1 e^x - t x, 2 x - t ln(x + eps),
 * 3 x as it is, t counts what is kept. REDUCE: 0 an invocation per element, 1 mean, 2 sum by
 * one work group. n elements; P_F(0): eps. */
#version 450
#extension GL_GOOGLE_include_directive : require
#include "shaders/common.glsl"
#include "shaders/math.glsl"
#include "shaders/row.glsl"

layout(constant_id = 1) const uint Y = 0;
layout(constant_id = 2) const uint X = 0;
layout(constant_id = 3) const uint KIND = 0;
layout(constant_id = 4) const uint REDUCE = 0;
layout(constant_id = 5) const uint RANK = 0; /* 0: dense */

CX_OUT(0)
CX_IN(1)
CX_IN(2)

	/* Two numbers whose difference is the term, and what rounding took: terms cancel each other. */
	vec3 cx_term(uint i)
{
	float x = cx_ld1(X, RANK == 0 ? T_OFF(1) + i : cx_at(1, i, RANK)), lo = 0.0, e = 0.0;
	vec3 r = vec3(x, 0.0, 0.0);
	if (KIND == 3) return r;
	float t = cx_ld2(X, RANK == 0 ? T_OFF(2) + i : cx_at(2, i, RANK));
	if (KIND == 0) r.x = (x - t) * (x - t);
	if (KIND == 1) {
		cx_two_product(t, x, r.y, lo);
		r.x = cx_exp_pair(x, e);
		r.z = e - lo;
	}
	if (KIND == 2) {
		cx_two_product(t, cx_log(x + P_F(0)), r.y, lo);
		r.z = -lo;
	}
	if (cx_isnan(r.z) || cx_isinf(r.z))
		r.z = 0.0; /* near the ends of the range the parts overflow */
	return r;
}

void main()
{
	uint n = P_U(0), me = gl_LocalInvocationIndex;
	float s = 0.0, c = 0.0, k = 0.0;
	if (REDUCE == 0) {
		uint i = cx_item();
		vec3 r;
		if (i >= n) return;
		r = cx_term(i);
		cx_st0(Y, T_OFF(0) + i, (r.x - r.y) + r.z);
		return;
	}
	for (uint i = me; i < n; i += 64u) {
		vec3 r = cx_term(i);
		cx_sum_add(s, c, r.x);
		if (KIND == 1 || KIND == 2) cx_sum_add(s, c, -r.y);
		c += r.z;
		if (KIND == 3 && REDUCE == 1) k += cx_ld2(CX_F32, T_OFF(2) + i);
	}
	s = cx_group_sum(s, c);
	k = KIND == 3 && REDUCE == 1 ? cx_group_sum(k, 0.0) : float(n);
	if (me == 0u) cx_st0(Y, T_OFF(0), REDUCE == 1 ? s / k : s);
}
