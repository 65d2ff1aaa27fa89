/* softmax.comp - softmax and log_softmax along the last axis of y and x as they are described
 * here (the host puts the
 * chosen axis there). A work group per row; n rows of T_DIM(1,5) columns. P_F(0): the scale.
 * The product with it is
 * rounded to f32 before the maximum, as the reference does. */
#version 450
#extension GL_GOOGLE_include_directive : require
#include "shaders/common.glsl"
#include "shaders/math.glsl"
#include "shaders/row.glsl"

layout(constant_id = 1) const uint DT = 0;
layout(constant_id = 2) const bool LOG = false;
layout(constant_id = 3) const uint RANK = 6;

CX_OUT(0)
CX_IN(1)

void main()
{
	uint row = cx_group(), n = T_DIM(1, 5), xs = T_STRIDE(1, 5), ys = T_STRIDE(0, 5),
		 me = gl_LocalInvocationIndex;
	uint x = T_OFF(1), y = T_OFF(0), rest = row;
	float m = -cx_inf(), s = 0.0, c = 0.0, scale = P_F(0);
	if (row >= P_N) n = 0u;
	for (uint k = 5; k > 6 - RANK; k--) {
		uint d = T_DIM(1, k - 1), q = rest / d, j = rest - q * d;
		x += j * T_STRIDE(1, k - 1);
		y += j * T_STRIDE(0, k - 1);
		rest = q;
	}
	for (uint i = me; i < n; i += 64u) {
		precise float v = scale * cx_ld1(DT, x + i * xs);
		m = cx_max(m, v);
	}
	m = cx_group_max(m);
	for (uint i = me; i < n; i += 64u) {
		precise float v = scale * cx_ld1(DT, x + i * xs);
		cx_sum_add(s, c, cx_exp(v - m));
	}
	s = cx_group_sum(s, c);
	float ls = LOG ? cx_log(s) : 0.0;
	for (uint i = me; i < n; i += 64u) {
		precise float v = scale * cx_ld1(DT, x + i * xs), z = v - m;
		cx_st0(DT, y + i * ys, LOG ? z - ls : cx_exp(z) / s);
	}
}
