/* gather.comp - slices of x at indices along an axis, elements unchanged. Tensors: y, x, idx. y
 * is dense. P_U: 0 elements
 * after the axis, 1 number of indices, 2,3 first and end row that x is bound for, 4 rows in
 * all. A row outside 0..rows-1
 * gives zeros, written by the piece that starts at 0; other rows outside the piece are another
 * dispatch's. */
#version 450
#extension GL_GOOGLE_include_directive : require
#include "shaders/common.glsl"

layout(constant_id = 1) const uint SIZE = 4;
layout(constant_id = 2) const uint AXIS = 0; /* of six */
layout(constant_id = 3) const uint RANK = 6;

CX_VIEWS(0, writeonly)
CX_STORE_RAW(0) CX_VIEWS(1, readonly) CX_LOAD_RAW(1) CX_VIEWS(2, readonly) CX_LOAD_I32(2)

	void main()
{
	uint i = cx_item();
	if (i >= P_N) return;
	uint inner = i % P_U(0), at = i / P_U(0), outer = at / P_U(1), from = T_OFF(1);
	int row = cx_li2(cx_at(2, at % P_U(1), 6));
	bool outside = row < 0 || row >= P_I(4);
	if (outside ? P_U(2) != 0u : (row < P_I(2) || row >= P_I(3))) return;
	for (uint k = 6; k > AXIS + 1; k--) {
		uint d = T_DIM(1, k - 1), q = inner / d;
		from += (inner - q * d) * T_STRIDE(1, k - 1);
		inner = q;
	}
	for (uint k = AXIS; k > 6 - RANK; k--) {
		uint d = T_DIM(1, k - 1), q = outer / d;
		from += (outer - q * d) * T_STRIDE(1, k - 1);
		outer = q;
	}
	uvec2 v = uvec2(0u);
	if (!outside) v = cx_lr1(SIZE, from + uint(row - P_I(2)) * T_STRIDE(1, AXIS));
	cx_sr0(SIZE, T_OFF(0) + i, v);
}
