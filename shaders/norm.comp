/* norm.comp - layernorm, rmsnorm, l2norm, groupnorm, and add_norm: the sum of two tensors and
 * its norm. A work group per
 * row, two passes for the variance. Tensors: y, sum (add_norm), x, x2 (add_norm), w, b. n rows
 * of P_U(0) columns along
 * axis 5 of x; y is dense. Group norm: P_U: 1 elements behind a channel, 2 channels; a row is
 * a group. P_F(0): eps. */
#version 450
#extension GL_GOOGLE_include_directive : require
#include "shaders/common.glsl"
#include "shaders/row.glsl"

layout(constant_id = 1) const uint MODE = 0; /* 0 layernorm, 1 rmsnorm, 2 l2norm, 3 groupnorm */
layout(constant_id = 2) const uint DT = 0;   /* of x and y */
layout(constant_id = 3) const uint W = 99;   /* dtype of w, 99: none */
layout(constant_id = 4) const uint B = 99;
layout(constant_id = 5) const bool PLUS_ONE = false;
layout(constant_id = 6) const bool ADD = false;
layout(constant_id = 7) const uint RANK = 6;
layout(constant_id = 8) const bool STORE_SUM = false;

CX_OUT(0)
CX_OUT(1)
CX_IN(2)
CX_IN(3) CX_IN(4) CX_IN(5)

	uint cx_x,
	cx_x2, cx_first;

float cx_value(uint i)
{
	precise float v;
	if (MODE == 3) {
		v = cx_ld2(DT, cx_at(2, cx_first + i, RANK));
	} else {
		v = cx_ld2(DT, cx_x + i * T_STRIDE(2, 5));
		if (ADD) v = cx_round_to(DT, v + cx_ld3(DT, cx_x2 + i * T_STRIDE(3, 5)));
	}
	return v;
}

void main()
{
	uint row = cx_group(), cols = P_U(0), n = row < P_N ? cols : 0u, me = gl_LocalInvocationIndex,
		 rest = row;
	float s = 0.0, c = 0.0, mean = 0.0;
	cx_x = T_OFF(2);
	cx_x2 = T_OFF(3);
	cx_first = row * cols;
	if (MODE != 3)
		for (uint k = 5; k > 6 - RANK; k--) {
			uint d = T_DIM(2, k - 1), q = rest / d, j = rest - q * d;
			cx_x += j * T_STRIDE(2, k - 1);
			cx_x2 += j * T_STRIDE(3, k - 1);
			rest = q;
		}
	float scale = 1.0, eps = P_F(0);
	for (uint again = 0; again < 2; again++) {
		s = c = 0.0;
		if (MODE == 0 || MODE == 3) {
			for (uint i = me; i < n; i += 64u) cx_sum_add(s, c, cx_value(i) * scale);
			mean = cx_pair_mean(cx_group_pair(s, c), float(cols));
			s = c = 0.0;
		}
		for (uint i = me; i < n; i += 64u) {
			precise float d = cx_value(i) * scale - mean, e = d * d;
			cx_sum_add(s, c, e);
		}
		s = cx_group_sum(s, c);
		if (!cx_isnan(s) && !cx_isinf(s)) break;
		/* squares overflow: once more with 2^-76 x, beside which eps is nothing */
		scale = 1.32348898e-23;
		eps = 1.17549435e-38;
	}
	if (MODE != 2) s /= float(cols);
	float r = sqrt(s + eps);
	for (uint i = me; i < n; i += 64u) {
		float v = cx_value(i), w = PLUS_ONE && W == 99 ? 0.0 : 1.0, b = 0.0;
		uint at = MODE == 3 ? (cx_first + i) / P_U(1) % P_U(2) : i;
		if (STORE_SUM) cx_st1(DT, T_OFF(1) + cx_first + i, v);
		if (W != 99) w = cx_ld4(W, T_OFF(4) + at * T_STRIDE(4, 5));
		if (B != 99) b = cx_ld5(B, T_OFF(5) + at * T_STRIDE(5, 5));
		if (PLUS_ONE) w = 1.0 + w;
		precise float z = (v * scale - mean) / r;
		z = z * w;
		z = z + b;
		cx_st0(DT, T_OFF(0) + cx_first + i, z);
	}
}
