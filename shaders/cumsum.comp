/* cumsum.comp - running sums along the last axis as described: an invocation per row. Tensors:
 * y, x. P_U: 0 exclusive,
 * 1 reverse. Integers are added in two words and wrap. */
#version 450
#extension GL_GOOGLE_include_directive : require
#include "shaders/common.glsl"
#include "shaders/row.glsl"

layout(constant_id = 1) const uint DT = 0;
layout(constant_id = 2) const uint SIZE = 4;
layout(constant_id = 3) const uint RANK = 6;

CX_OUT(0)
CX_STORE_RAW(0) CX_IN(1) CX_LOAD_RAW(1)

	void main()
{
	uint row = cx_item(), n = T_DIM(1, 5), x = T_OFF(1), y = T_OFF(0), rest = row, carry;
	float s = 0.0, c = 0.0;
	uvec2 w = uvec2(0u);
	if (row >= P_N) return;
	for (uint k = 5; k > 6 - RANK; k--) {
		uint d = T_DIM(1, k - 1), q = rest / d, j = rest - q * d;
		x += j * T_STRIDE(1, k - 1);
		y += j * T_STRIDE(0, k - 1);
		rest = q;
	}
	for (uint t = 0; t < n; t++) {
		uint i = P_U(1) != 0u ? n - 1u - t : t, to = y + i * T_STRIDE(0, 5),
			 from = x + i * T_STRIDE(1, 5);
		if (DT <= CX_BF16) {
			float v = cx_ld1(DT, from);
			if (P_U(0) == 0u) cx_sum_add(s, c, v);
			cx_st0(DT, to, cx_sum_get(s, c));
			if (P_U(0) != 0u) cx_sum_add(s, c, v);
		} else {
			uvec2 v = cx_lr1(SIZE, from), sum;
			sum.x = uaddCarry(w.x, v.x, carry);
			sum.y = w.y + v.y + carry;
			cx_sr0(SIZE, to, P_U(0) == 0u ? sum : w);
			w = sum;
		}
	}
}
