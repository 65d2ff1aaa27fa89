/* reducei.comp - sum, amax, amin of integers, in int64: an invocation per row. Tensors as in
 * reduce.comp. P_U: 0 elements,
 * 2,3 the words of what an empty row gives. */
#version 450
#extension GL_GOOGLE_include_directive : require
#include "shaders/common.glsl"
#include "shaders/int64.glsl"

layout(constant_id = 1) const uint OP = 0;
layout(constant_id = 2) const uint Y = 0;
layout(constant_id = 3) const uint X = 0;
layout(constant_id = 4) const uint N_RED = 1;
layout(constant_id = 5) const uint N_KEPT = 5;

CX_VIEWS(0, writeonly)
CX_STORE_L(0) CX_VIEWS(1, readonly) CX_LOAD_L(1)

	void main()
{
	uint row = cx_item(), from = T_OFF(1), rest = row;
	if (row >= P_N) return;
	int64_t s = packInt2x32(ivec2(P_I(2), P_I(3)));
	for (uint k = 0; k < N_KEPT; k++) {
		uint axis = 5u - N_RED - k, d = T_DIM(1, axis), q = rest / d;
		from += (rest - q * d) * T_STRIDE(1, axis);
		rest = q;
	}
	for (uint i = 0; i < P_U(0); i++) {
		uint at = from, j = i;
		for (uint k = 0; k < N_RED; k++) {
			uint d = T_DIM(1, 5 - k), q = j / d;
			at += (j - q * d) * T_STRIDE(1, 5 - k);
			j = q;
		}
		int64_t v = cx_ll1(X, at);
		if (OP == 3) s = v > s ? v : s;
		else if (OP == 4) s = v < s ? v : s;
		else s += v;
	}
	cx_sl0(Y, T_OFF(0) + row, s);
}
