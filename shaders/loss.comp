/* loss.comp - mse and poisson_nll, and the sum at the end of every loss. Tensors: y, x, t. KIND: 0 (x-t)^2, 1 e^x - t x, 2 x - t ln(x + eps),
 * 3 x as it is, t counts what is kept. REDUCE: 0 an invocation per element, 1 mean, 2 sum by one work group. n elements; P_F(0): eps. */
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
CX_IN(1) CX_IN(2)

float cx_term(uint i)
{
	float x = cx_ld1(X, RANK == 0 ? T_OFF(1) + i : cx_at(1, i, RANK)), r = x;
	if (KIND == 3) return x;
	float t = cx_ld2(X, RANK == 0 ? T_OFF(2) + i : cx_at(2, i, RANK));
	if (KIND == 0) r = (x - t) * (x - t);
	if (KIND == 1) r = cx_exp(x) - t * x;
	if (KIND == 2) r = x - t * cx_log(x + P_F(0));
	return r;
}

void main()
{
	uint n = P_U(0), me = gl_LocalInvocationIndex;
	float s = 0.0, c = 0.0, k = 0.0;
	if (REDUCE == 0) {
		uint i = cx_item();
		if (i < n) cx_st0(Y, T_OFF(0) + i, cx_term(i));
		return;
	}
	for (uint i = me; i < n; i += 64u) {
		cx_sum_add(s, c, cx_term(i));
		if (KIND == 3 && REDUCE == 1) k += cx_ld2(CX_F32, T_OFF(2) + i);
	}
	s = cx_group_sum(cx_sum_get(s, c));
	k = KIND == 3 && REDUCE == 1 ? cx_group_sum(k) : float(n);
	if (me == 0u) cx_st0(Y, T_OFF(0), REDUCE == 1 ? s / k : s);
}
