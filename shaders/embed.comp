/* embed.comp - adds one table's rows to a running sum: y[e,:] = (first ? 0 : y[e,:]) +
 * table[idx[e],:], rounded to y's
 * dtype each time. Tensors: y, table, idx. P_U: 0 columns, 1 rows of the table. */
#version 450
#extension GL_GOOGLE_include_directive : require
#include "shaders/common.glsl"

layout(constant_id = 1) const uint DT = 0;
layout(constant_id = 2) const bool FIRST = true;

CX_INOUT(0)
CX_IN(1)
CX_VIEWS(2, readonly)
CX_LOAD_I32(2)

	void main()
{
	uint i = cx_item();
	if (i >= P_N) return;
	uint e = i / P_U(0), c = i % P_U(0);
	int row = cx_li2(T_OFF(2) + e * T_STRIDE(2, 5));
	float v = 0.0;
	if (row >= 0 && row < P_I(1))
		v = cx_ld1(DT, T_OFF(1) + uint(row) * T_STRIDE(1, 4) + c * T_STRIDE(1, 5));
	if (!FIRST) v = cx_ld0(DT, T_OFF(0) + i) + v;
	cx_st0(DT, T_OFF(0) + i, v);
}
