/* reduce.comp - sum, mean, amax, amin of floats. Tensors: y (dense), x with the axes that stay
 * in front and the N_RED ones
 * that go last. n rows; P_U(0) elements each. A work group per row, or with SERIAL an
 * invocation: by the row's length
 * alone, so the bits of a row do not depend on how many there are. */
#version 450
#extension GL_GOOGLE_include_directive : require
#include "shaders/common.glsl"
#include "shaders/row.glsl"

layout(constant_id = 1) const uint OP = 0; /* 1 sum, 2 mean, 3 max, 4 min */
layout(constant_id = 2) const uint Y = 0;
layout(constant_id = 3) const uint X = 0;
layout(constant_id = 4) const uint N_RED = 1;
layout(constant_id = 5) const uint N_KEPT = 5;
layout(constant_id = 6) const bool SERIAL = false;

CX_OUT(0)
CX_IN(1)
CX_GROUP_FOLD(cx_group_min, cx_min(a, b))

void main()
{
	uint row = SERIAL ? cx_item() : cx_group(), n = P_U(0), from = T_OFF(1), rest = row;
	uint first = SERIAL ? 0u : gl_LocalInvocationIndex, step_ = SERIAL ? 1u : 64u;
	float s = OP == 3 ? -cx_inf() : OP == 4 ? cx_inf() : 0.0, c = 0.0;
	if (row >= P_N) {
		if (SERIAL) return;
		n = 0u;
	}
	[[unroll]] for (uint k = 0; k < 6; k++)
	{
		if (k >= N_KEPT) break;
		uint axis = 5u - N_RED - k, d = T_DIM(1, axis), q = rest / d;
		from += (rest - q * d) * T_STRIDE(1, axis);
		rest = q;
	}
	for (uint i = first; i < n; i += step_) {
		uint at = from, j = i;
		[[unroll]] for (uint k = 0; k < 6; k++)
		{
			if (k >= N_RED) break;
			uint d = T_DIM(1, 5 - k), q = k + 1u == N_RED ? 0u : j / d;
			at += (j - q * d) * T_STRIDE(1, 5 - k);
			j = q;
		}
		float v = cx_ld1(X, at);
		if (OP == 3) s = cx_max(s, v);
		else if (OP == 4) s = cx_min(s, v);
		else cx_sum_add(s, c, v);
	}
	if (OP <= 2) {
		vec2 a = vec2(s, c);
		if (!SERIAL) a = cx_group_pair(s, c);
		s = OP == 2 ? cx_pair_mean(a, float(P_U(0))) : cx_sum_get(a.x, a.y);
	} else if (!SERIAL) {
		s = OP == 3 ? cx_group_max(s) : cx_group_min(s);
	}
	if (row < P_N && (SERIAL || gl_LocalInvocationIndex == 0u)) cx_st0(Y, T_OFF(0) + row, s);
}
