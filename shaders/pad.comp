/* pad.comp - x with a value around it. Tensors: y, x, both over all six axes. P_U: 0..5
 * elements before, per axis;
 * 6,7 the words of the value. */
#version 450
#extension GL_GOOGLE_include_directive : require
#include "shaders/common.glsl"

layout(constant_id = 1) const uint SIZE = 4;

CX_VIEWS(0, writeonly)
CX_STORE_RAW(0) CX_VIEWS(1, readonly) CX_LOAD_RAW(1)

	void main()
{
	uint i = cx_item(), rest = i, from = T_OFF(1);
	bool inside = true;
	if (i >= P_N) return;
	for (uint k = 6; k > 0; k--) {
		uint d = T_DIM(0, k - 1), q = rest / d, j = rest - q * d - P_U(k - 1);
		rest = q;
		inside = inside && j < T_DIM(1, k - 1); /* before the first: wraps to a large number */
		from += j * T_STRIDE(1, k - 1);
	}
	uvec2 v = uvec2(P_U(6), P_U(7));
	if (inside) v = cx_lr1(SIZE, from);
	cx_sr0(SIZE, T_OFF(0) + i, v);
}
